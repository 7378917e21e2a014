//! Markdown pages, as far as the tests have to understand them.

use std::path::{Path, PathBuf};

/// The folder of the repository.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A page with its path in the repository.
#[derive(Debug, Clone)]
pub struct Page {
    pub path: String,
    pub text: String,
}

impl Page {
    pub fn read(path: &str) -> Self {
        let text = std::fs::read_to_string(root().join(path))
            .unwrap_or_else(|error| panic!("{path}: {error}"));
        Self {
            path: path.to_owned(),
            text,
        }
    }

    pub fn write(&self, text: &str) {
        std::fs::write(root().join(&self.path), text).unwrap();
    }

    /// Lines with their numbers, and whether a line is code: a fence, or inside of one.
    pub fn lines(&self) -> impl Iterator<Item = (usize, &str, bool)> {
        let mut is_open = false;
        self.text.lines().enumerate().map(move |(index, line)| {
            let is_fence = line.trim_start().starts_with("```");
            let is_code = is_fence || is_open;
            is_open ^= is_fence;
            (index + 1, line, is_code)
        })
    }

    /// All fenced blocks.
    pub fn blocks(&self) -> Vec<Block> {
        let mut blocks = Vec::new();
        let mut open: Option<Block> = None;
        for (number, line, _) in self.lines() {
            let fence = line.trim_start().strip_prefix("```");
            match (&mut open, fence) {
                (None, None) => {}
                (None, Some(language)) => {
                    open = Some(Block {
                        language: language.trim().to_owned(),
                        first: number + 1,
                        lines: Vec::new(),
                    });
                }
                (Some(block), None) => block.lines.push(line.to_owned()),
                (Some(_), Some(_)) => blocks.extend(open.take()),
            }
        }
        assert!(open.is_none(), "{}: a fence is not closed", self.path);
        blocks
    }

    /// The inline code spans outside of fenced blocks, with the number of their line.
    pub fn spans(&self) -> Vec<(usize, String)> {
        let mut spans = Vec::new();
        for (number, line, is_code) in self.lines() {
            if is_code {
                continue;
            }
            let mut rest = line;
            while let Some(start) = rest.find('`') {
                let ticks = rest[start..].len() - rest[start..].trim_start_matches('`').len();
                let fence = "`".repeat(ticks);
                let inside = &rest[start + ticks..];
                let Some(end) = inside.find(&fence) else {
                    break;
                };
                spans.push((number, inside[..end].trim().to_owned()));
                rest = &inside[end + ticks..];
            }
        }
        spans
    }
}

/// A fenced block.
#[derive(Debug, Clone)]
pub struct Block {
    pub language: String,
    /// The number of its first line inside the fence.
    pub first: usize,
    pub lines: Vec<String>,
}

/// Every page that users and developers read.
pub fn pages() -> Vec<Page> {
    let mut paths: Vec<PathBuf> = walkdir::WalkDir::new(root().join("docs/src"))
        .sort_by_file_name()
        .into_iter()
        .map(|entry| entry.unwrap().into_path())
        .filter(|path| path.extension().is_some_and(|end| end == "md"))
        .collect();
    let top = ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md"];
    paths.extend(top.map(|name| root().join(name)));
    let relative = |path: PathBuf| path.strip_prefix(root()).unwrap().display().to_string();
    paths
        .into_iter()
        .map(|path| Page::read(&relative(path)))
        .collect()
}

/// What fenced blocks may be. Blocks of other languages cannot be checked.
const LANGUAGES: [&str; 8] = [
    "console",
    "sh",
    "json",
    "jsonc",
    "yaml",
    "toml",
    "dockerfile",
    "text",
];

#[test]
fn every_block_says_what_it_is_and_only_transcripts_have_prompts() {
    for page in pages() {
        for block in page.blocks() {
            let place = format!("{}:{}", page.path, block.first);
            assert!(
                LANGUAGES.contains(&block.language.as_str()),
                "{place}: `{}` is not one of {LANGUAGES:?}",
                block.language
            );
            let has_prompt = block.lines.iter().any(|line| line.starts_with("$ "));
            assert!(
                has_prompt == (block.language == "console"),
                "{place}: a `console` block has commands after `$ `, and other blocks have none"
            );
        }
    }
}

#[test]
fn every_page_is_in_the_summary_and_the_readme_is_short() {
    let summary = Page::read("docs/src/SUMMARY.md").text;
    for page in pages() {
        let Some(name) = page.path.strip_prefix("docs/src/") else {
            continue;
        };
        assert!(
            name == "SUMMARY.md" || summary.contains(&format!("({name})")),
            "{} is not in SUMMARY.md",
            page.path
        );
    }
    for (path, most) in [("README.md", 200), ("ARCHITECTURE.md", 150)] {
        let lines = Page::read(path).text.lines().count();
        assert!(lines <= most, "{path} has {lines} lines of at most {most}");
    }
}
