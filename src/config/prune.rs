//! The rules for `.deploy`: which files of dependencies are dropped, and the size limits.

use std::path::Path;

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use indexmap::IndexMap;

use super::raw::{self, VerifyMode};
use super::size;
use crate::store::AppName;

/// The default of `prune.drop`.
///
/// It has only files that Node cannot load. Folders are dropped only at the top of a package,
/// since deeper `docs` and `test` can be modules, such as `googleapis/build/src/apis/docs`.
pub const DROPPED: &[&str] = &[
    "**/*.d.ts",
    "**/*.d.mts",
    "**/*.d.cts",
    // TypeScript needs these to check types.
    "!**/lib.*.d.ts",
    "!**/lib.d.ts",
    "**/*.map",
    "**/*.tsbuildinfo",
    // Deeper files may be templates.
    "*.md",
    "*.markdown",
    "test/",
    "tests/",
    "__tests__/",
    "docs/",
    "example/",
    "examples/",
    "coverage/",
    ".nyc_output/",
    ".github/",
    ".circleci/",
    ".husky/",
    ".vscode/",
    ".idea/",
];

/// The section `prune` of the config.
#[derive(Debug, Clone, Default)]
pub struct PruneRules {
    /// Whether `.env` files are kept.
    pub keep_env: bool,
    /// The files of dependencies that are dropped.
    pub drop: DropList,
    /// The size limit of each app in bytes. `*` means all other apps.
    pub max_size: IndexMap<String, u64>,
    /// How `.deploy` is verified.
    pub verify: VerifyMode,
}

impl PruneRules {
    /// Reads the section, or returns all problems.
    pub fn new(raw: &raw::PruneSection) -> Result<Self, Vec<PruneProblem>> {
        let mut wrong = Vec::new();
        let drop = DropList::new(&raw.drop).unwrap_or_else(|found| {
            wrong.extend(found);
            DropList::default()
        });
        let mut max_size = IndexMap::new();
        for (app, text) in &raw.max_size {
            match size::parse(text) {
                Some(bytes) => {
                    max_size.insert(app.clone(), bytes);
                }
                None => wrong.push(PruneProblem {
                    pointer: vec!["maxSize".into(), app.clone()],
                    message: format!("`{}` is not a valid size", text.escape_debug()),
                    help: size::HELP,
                }),
            }
        }
        if wrong.is_empty() {
            Ok(Self {
                keep_env: raw.keep_env,
                drop,
                max_size,
                verify: raw.verify,
            })
        } else {
            Err(wrong)
        }
    }

    /// The key in `maxSize` for the app, and the limit in bytes.
    pub fn budget(&self, app: &AppName) -> Option<(&str, u64)> {
        let named = self.max_size.get_key_value(app.as_str());
        let (key, size) = named.or_else(|| self.max_size.get_key_value("*"))?;
        Some((key, *size))
    }
}

/// A problem in the section `prune`.
#[derive(Debug)]
pub struct PruneProblem {
    /// Keys below `prune`.
    pub pointer: Vec<String>,
    /// The message.
    pub message: String,
    /// How to fix it.
    pub help: &'static str,
}

/// Globs for paths in a dependency, relative to its folder. The last match decides.
#[derive(Debug, Clone)]
pub struct DropList {
    written: Vec<String>,
    patterns: Vec<DropPattern>,
    globs: GlobSet,
}

#[derive(Debug, Clone, Copy)]
struct DropPattern {
    /// Whether the pattern ends with `/` and means a folder with its content.
    is_folder: bool,
    /// Whether the pattern starts with `!` and keeps what it matches.
    keeps: bool,
}

impl Default for DropList {
    fn default() -> Self {
        let list: Vec<_> = DROPPED.iter().map(|&pattern| pattern.to_owned()).collect();
        Self::new(&list).expect("a test parses the default list")
    }
}

impl DropList {
    /// Reads the globs.
    pub fn new(list: &[String]) -> Result<Self, Vec<PruneProblem>> {
        let mut wrong = Vec::new();
        let mut patterns = Vec::new();
        let mut globs = GlobSetBuilder::new();
        for (position, text) in list.iter().enumerate() {
            let keeps = text.starts_with('!');
            let glob = text.strip_prefix('!').unwrap_or(text);
            let glob = glob.trim_start_matches("./").trim_start_matches('/');
            let is_folder = glob.ends_with('/');
            let glob = glob.trim_end_matches('/');
            let built = GlobBuilder::new(glob).literal_separator(true).build();
            match built.ok().filter(|_| !glob.is_empty()) {
                Some(glob) => {
                    globs.add(glob);
                    patterns.push(DropPattern { is_folder, keeps });
                }
                None => wrong.push(PruneProblem {
                    pointer: vec!["drop".into(), position.to_string()],
                    message: format!("`{}` is not a valid glob", text.escape_debug()),
                    help: "write a path inside a dependency, such as `**/*.map`, or `docs/` for a folder",
                }),
            }
        }
        match globs.build() {
            Ok(globs) if wrong.is_empty() => Ok(Self {
                written: list.to_vec(),
                patterns,
                globs,
            }),
            _ => Err(wrong),
        }
    }

    /// The globs as written.
    pub fn written(&self) -> &[String] {
        &self.written
    }

    /// Whether the list drops the file `path` of a package. A folder is dropped only if `may_go`
    /// returns true for it.
    pub fn drops(&self, path: &Path, mut may_go: impl FnMut(&Path) -> bool) -> bool {
        if self.patterns.is_empty() || stays(path) {
            return false;
        }
        let mut hits: Vec<(usize, Option<&Path>)> = Vec::new();
        for (depth, candidate) in path.ancestors().enumerate() {
            let folder = (depth > 0).then_some(candidate);
            let matches = self.globs.matches(candidate);
            let fitting = matches
                .into_iter()
                .filter(|&index| self.patterns[index].is_folder == folder.is_some());
            hits.extend(fitting.map(|index| (index, folder)));
        }
        hits.sort_by_key(|(index, _)| std::cmp::Reverse(*index));
        let decides = hits
            .into_iter()
            .find(|(index, folder)| self.patterns[*index].keeps || folder.is_none_or(&mut may_go));
        decides.is_some_and(|(index, _)| !self.patterns[index].keeps)
    }
}

/// Whether a file is never dropped: `package.json`, native modules and licences.
fn stays(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let name = name.to_lowercase();
    let is_code = [".js", ".cjs", ".mjs", ".ts", ".mts", ".cts", ".map"]
        .iter()
        .any(|end| name.ends_with(end));
    let is_legal = ["license", "licence", "notice", "copying", "copyright"]
        .iter()
        .any(|word| name.contains(word));
    let end = path.extension().unwrap_or_default();
    let is_native = end == "node" || end == "so" || name.contains(".so.");
    let is_prebuilt = path.starts_with("prebuilds");
    name == "package.json" || is_native || is_prebuilt || (is_legal && !is_code)
}
