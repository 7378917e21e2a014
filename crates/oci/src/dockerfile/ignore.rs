//! `.dockerignore`.
//!
//! Patterns are relative to the context's root, unlike those of `.gitignore`. The last pattern that
//! matches a path or a parent of it decides, so a `!` pattern can include a file of an excluded
//! folder again. Docker does not read an excluded folder unless a `!` pattern begins with its name:
//! `!**/keep` includes no file of an excluded folder.

use super::pattern::FilePattern;

/// The patterns of a `.dockerignore` file.
#[derive(Debug, Clone, Default)]
pub struct Dockerignore(Vec<DockerignoreRule>);

#[derive(Debug, Clone)]
struct DockerignoreRule {
    is_include: bool,
    text: String,
    pattern: FilePattern,
}

impl Dockerignore {
    /// Parses the text. A malformed pattern excludes nothing; Docker reports it as an error.
    pub fn new(text: &str) -> Self {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        Self(text.lines().filter_map(rule).collect())
    }

    /// Whether a file is excluded. Its path is relative to the context.
    pub fn ignores(&self, path: &str) -> bool {
        let above = path.match_indices('/').map(|(end, _)| &path[..end]);
        above.clone().any(|folder| self.is_closed(folder)) || self.is_ignored(path)
    }

    /// Whether a file is sent to the engine. The engine needs `Dockerfile` and `.dockerignore` in any
    /// case, and excludes them from `COPY` by itself.
    pub fn sends(&self, path: &str) -> bool {
        ["Dockerfile", ".dockerignore"].contains(&path) || !self.ignores(path)
    }

    /// Whether no pattern can include a file of this folder again.
    fn is_closed(&self, folder: &str) -> bool {
        let is_open = |rule: &DockerignoreRule| {
            rule.is_include
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
            .is_some_and(|rule| !rule.is_include)
    }
}

/// Parses a line. `None` for a comment, an empty line and a malformed pattern.
fn rule(line: &str) -> Option<DockerignoreRule> {
    // A comment begins in the first column: ` #a` is the pattern `#a`.
    if line.starts_with('#') {
        return None;
    }
    let line = line.trim();
    let (is_include, line) = match line.strip_prefix('!') {
        Some(line) => (true, line.trim()),
        None => (false, line),
    };
    if line.is_empty() {
        return None;
    }
    let text = clean(line);
    let pattern = FilePattern::of_ignore(&text)?;
    Some(DockerignoreRule {
        is_include,
        text,
        pattern,
    })
}

/// Go's `path.Clean`, without a leading slash.
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
