//! Patterns of `.gitignore` files. Gitoxide matches them, since it follows git's own code: braces,
//! and several stars within a name, are literal as they are in git.

use std::path::{Path, PathBuf};

use gix_glob::Pattern;
use gix_glob::pattern::{Case, Mode as PatternMode};
use gix_glob::wildmatch::Mode;

/// How brackets in a pattern are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Brackets {
    /// A character class, as in git.
    Class,
    /// Literally, as in names of Next.js routes (`[locale]`).
    Literal,
}

/// Parses a line. `None` for a comment, an empty line, and a line that git takes for no pattern.
pub fn pattern(line: &str, brackets: Brackets) -> Option<Pattern> {
    if line.contains('\n') || ends_in_backslash(line) {
        return None;
    }
    let line = match brackets {
        Brackets::Class => line.to_owned(),
        Brackets::Literal => literal(line),
    };
    let (mut pattern, ..) = gix_ignore::parse(line.as_bytes(), false).next()?;
    if line.strip_prefix('!').unwrap_or(&line).starts_with('\\') {
        // The parser removes the backslash of `\#`; git takes it for the start of a wildcard.
        pattern.first_wildcard_pos = Some(0);
    }
    Some(pattern)
}

/// Whether the pattern matches the path, which is relative to the pattern's folder.
pub fn matches(pattern: &Pattern, path: &str, is_folder: bool) -> bool {
    let mode = Mode::NO_MATCH_SLASH_LITERAL;
    let is_path = !pattern.mode.contains(PatternMode::NO_SUB_DIR)
        || pattern.mode.contains(PatternMode::ABSOLUTE);
    if !is_path {
        let basename = path.rfind('/').map(|slash| slash + 1);
        let case = Case::Sensitive;
        return pattern.matches_repo_relative_path(
            path.into(),
            basename,
            Some(is_folder),
            case,
            mode,
        );
    }
    if pattern.mode.contains(PatternMode::MUST_BE_DIR) && !is_folder {
        return false;
    }
    // Git compares the text before the first wildcard byte by byte and matches only the rest. So
    // the stars of `a**/b` are at the start of the glob and match several folders.
    let wild = pattern.first_wildcard_pos.unwrap_or(pattern.text.len());
    let (plain, glob) = pattern.text.split_at(wild);
    match path.as_bytes().strip_prefix(plain) {
        Some([]) if glob.is_empty() => true,
        Some(rest) if !glob.is_empty() => gix_glob::wildmatch(glob.into(), rest.into(), mode),
        _ => false,
    }
}

/// The patterns of a `.gitignore` file, and the folder that they are relative to.
#[derive(Debug)]
pub struct Gitignore {
    folder: PathBuf,
    patterns: Vec<Pattern>,
}

impl Gitignore {
    /// Reads a file. A file that cannot be read has no patterns, as in git.
    pub fn read(folder: &Path, file: &Path) -> Self {
        let text = std::fs::read(file).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines = text.trim_start_matches('\u{feff}').lines();
        Self {
            folder: folder.to_owned(),
            patterns: lines
                .filter_map(|line| pattern(line, Brackets::Class))
                .collect(),
        }
    }

    /// Whether the file ignores the path (`true`) or re-includes it (`false`): the last pattern that
    /// matches decides. `None` where none matches.
    pub fn decides(&self, path: &Path, is_folder: bool) -> Option<bool> {
        let inside = path.strip_prefix(&self.folder).ok()?.to_string_lossy();
        let mut patterns = self.patterns.iter().rev();
        let last = patterns.find(|pattern| matches(pattern, &inside, is_folder))?;
        Some(!last.is_negative())
    }
}

/// Escapes brackets that are not escaped yet.
fn literal(rule: &str) -> String {
    let mut escaped = String::with_capacity(rule.len() + 4);
    let mut chars = rule.chars();
    while let Some(char) = chars.next() {
        match char {
            '\\' => {
                escaped.push('\\');
                escaped.extend(chars.next());
            }
            '[' | ']' => escaped.extend(['\\', char]),
            other => escaped.push(other),
        }
    }
    escaped
}

/// Whether the pattern ends in an unescaped backslash; git never matches such a pattern.
fn ends_in_backslash(text: &str) -> bool {
    (text.len() - text.trim_end_matches('\\').len()) % 2 == 1
}
