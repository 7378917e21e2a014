//! The imports of a source file.
//!
//! This is a scanner and not a parser: it looks for string literals after `from`, `import`, `require(`
//! and `import(`.

use std::path::{Path, PathBuf};

use virtual_path::normalize;

/// File name endings of source files.
const SOURCES: [&str; 9] = ["ts", "tsx", "mts", "cts", "js", "jsx", "mjs", "cjs", "vue"];

/// What is appended to a specifier to find its file.
const ENDINGS: [&str; 14] = [
    "",
    ".ts",
    ".tsx",
    ".d.ts",
    ".mts",
    ".js",
    ".jsx",
    ".mjs",
    ".cjs",
    ".json",
    ".vue",
    "/index.ts",
    "/index.tsx",
    "/index.js",
];

/// An import: its specifier, and its line, counted from 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Import {
    pub specifier: String,
    pub line: usize,
}

/// Whether the file is a source file.
pub fn is_source(path: &str) -> bool {
    let ending = Path::new(path)
        .extension()
        .and_then(|ending| ending.to_str());
    ending.is_some_and(|ending| SOURCES.contains(&ending))
}

/// The imports of a file whose specifier starts with `../`: only these can lead out of the app. The
/// composed app is one folder deeper than the base app, so such an import can resolve from `apps/` and
/// not from `.out/`.
pub fn imports(text: &str) -> Vec<Import> {
    imports_where(text, |specifier| specifier.starts_with("../"))
}

/// The imports of a file whose specifier is wanted.
pub fn imports_where(text: &str, is_wanted: impl Fn(&str) -> bool) -> Vec<Import> {
    let bytes = text.as_bytes();
    let mut found = Vec::new();
    let mut at = 0;
    let mut line = 1;
    while at < bytes.len() {
        match bytes[at] {
            b'\n' => line += 1,
            b'/' if bytes.get(at + 1) == Some(&b'/') && is_comment(bytes, at) => {
                while at < bytes.len() && bytes[at] != b'\n' {
                    at += 1;
                }
                continue;
            }
            b'/' if bytes.get(at + 1) == Some(&b'*') => {
                let end = text[at + 2..]
                    .find("*/")
                    .map_or(bytes.len(), |end| at + 2 + end + 2);
                line += count_lines(&bytes[at..end]);
                at = end;
                continue;
            }
            quote @ (b'"' | b'\'' | b'`') => {
                let end = end_of_string(bytes, at, quote);
                let literal = text.get(at + 1..end).unwrap_or_default();
                if is_wanted(literal) && !literal.contains("${") && imports_here(text, at) {
                    found.push(Import {
                        specifier: literal.to_owned(),
                        line,
                    });
                }
                line += count_lines(&bytes[at..end]);
                at = end;
            }
            _ => {}
        }
        at += 1;
    }
    found
}

/// Whether `//` starts a comment. It does not in a URL, as in the markup of a Vue file.
fn is_comment(bytes: &[u8], at: usize) -> bool {
    at == 0 || bytes[at - 1] != b':'
}

fn count_lines(bytes: &[u8]) -> usize {
    bytes.split(|byte| *byte == b'\n').count() - 1
}

/// The end of the string that starts at `start`; `start` itself for an apostrophe in a text.
fn end_of_string(bytes: &[u8], start: usize, quote: u8) -> usize {
    let mut at = start + 1;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 1,
            b'\n' if quote != b'`' => return start,
            byte if byte == quote => return at,
            _ => {}
        }
        at += 1;
    }
    start
}

/// Whether the text before a string makes it an import's specifier.
fn imports_here(text: &str, at: usize) -> bool {
    let before = text[..at].trim_end();
    let before = before.strip_suffix('(').map_or(before, str::trim_end);
    let word_start = before
        .rfind(|c: char| !c.is_alphanumeric() && c != '_' && c != '$')
        .map_or(0, |position| position + 1);
    matches!(&before[word_start..], "from" | "import" | "require")
}

/// The paths at which a specifier's file may be, for an importing file in this folder.
pub fn targets(folder: &Path, specifier: &str) -> Vec<PathBuf> {
    let specifier = specifier.split(['?', '#']).next().unwrap_or(specifier);
    let path = normalize(&folder.join(specifier));
    let text = path.to_string_lossy().into_owned();
    let mut targets: Vec<_> = ENDINGS
        .iter()
        .map(|end| PathBuf::from(format!("{text}{end}")))
        .collect();
    // In TypeScript, `./x.js` also imports `./x.ts`.
    if let Some(stem) = text.strip_suffix(".js") {
        targets.extend(["ts", "tsx"].map(|end| PathBuf::from(format!("{stem}.{end}"))));
    }
    targets
}

#[cfg(test)]
mod tests {
    use super::imports;

    #[test]
    fn only_specifiers_that_lead_upwards_are_found() {
        let text = r#"
import a from "../../packages/theme";
import './near';
// import b from "../../no";
/* require('../../no')
 */ export { c } from '../mw/lib'
const d = await import( "../e" ), f = require('../g');
const text = "../../not/an/import", address = "https://x/../y";
it's an apostrophe
type H = typeof import(`../h`);
"#;
        let found: Vec<_> = imports(text)
            .into_iter()
            .map(|import| format!("{} {}", import.line, import.specifier))
            .collect();
        assert_eq!(
            found,
            [
                "2 ../../packages/theme",
                "6 ../mw/lib",
                "7 ../e",
                "7 ../g",
                "10 ../h"
            ]
        );
    }
}
