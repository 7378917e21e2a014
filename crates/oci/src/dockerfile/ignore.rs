//! `.dockerignore`.
//!
//! Unlike git's, patterns count from the context's root, and the last one that matches the path
//! or a folder above it decides, so a file below an ignored folder can be brought back. But a
//! folder that is ignored is not walked into, unless a pattern that brings something back begins
//! with its name: `!**/keep` finds nothing below it.

use super::pattern::FilePattern;

/// What `.dockerignore` says.
#[derive(Debug, Clone, Default)]
pub struct Dockerignore(Vec<DockerignoreRule>);

#[derive(Debug, Clone)]
struct DockerignoreRule {
    brings_back: bool,
    text: String,
    pattern: FilePattern,
}

impl Dockerignore {
    /// Reads it. A pattern that is malformed is Docker's to complain of; it hides no files here.
    pub fn new(text: &str) -> Self {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        Self(text.lines().filter_map(rule).collect())
    }

    /// Whether `COPY` does not see this file. Its path is relative to the context.
    pub fn ignores(&self, path: &str) -> bool {
        let above = path.match_indices('/').map(|(end, _)| &path[..end]);
        above.clone().any(|folder| self.is_closed(folder)) || self.is_ignored(path)
    }

    /// Whether this file goes to the engine. The two that say how to build do in any case; the
    /// engine leaves them out by itself if they are ignored.
    pub fn sends(&self, path: &str) -> bool {
        ["Dockerfile", ".dockerignore"].contains(&path) || !self.ignores(path)
    }

    /// Whether nothing below this folder can be brought back.
    fn is_closed(&self, folder: &str) -> bool {
        let is_open = |rule: &DockerignoreRule| {
            rule.brings_back
                && rule.text.starts_with(folder)
                && rule.text[folder.len()..].starts_with('/')
        };
        !self.0.iter().any(is_open) && self.is_ignored(folder)
    }

    fn is_ignored(&self, path: &str) -> bool {
        let matching = |rule: &&DockerignoreRule| {
            let above = path.match_indices('/').map(|(end, _)| &path[..end]);
            above.chain([path]).any(|path| rule.pattern.matches(path))
        };
        self.0
            .iter()
            .rev()
            .find(matching)
            .is_some_and(|rule| !rule.brings_back)
    }
}

/// One line.
fn rule(line: &str) -> Option<DockerignoreRule> {
    // Only at the very beginning of a line: ` #a` is the file `#a`.
    if line.starts_with('#') {
        return None;
    }
    let line = line.trim();
    let (brings_back, line) = match line.strip_prefix('!') {
        Some(line) => (true, line.trim()),
        None => (false, line),
    };
    if line.is_empty() {
        return None;
    }
    let text = clean(line);
    let pattern = FilePattern::of_ignore(&text)?;
    Some(DockerignoreRule {
        brings_back,
        text,
        pattern,
    })
}

/// As Go cleans a path, and without a slash before it.
fn clean(pattern: &str) -> String {
    let is_absolute = pattern.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in pattern.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => {
                parts.pop();
            }
            ".." if is_absolute => {}
            part => parts.push(part),
        }
    }
    if parts.is_empty() && !is_absolute {
        return ".".into();
    }
    parts.join("/")
}
