//! The messages on the page *errors* are those of the source.

use std::sync::LazyLock;

use regex::Regex;

use super::pages::{Page, root};

/// The string literals of the program, with `…` in the place of what is filled in.
fn literals() -> Vec<String> {
    static LITERAL: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r#"(?s)"((?:[^"\\]|\\.)*)""#).unwrap());
    static FILLED: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"\{[^{}]*\}").unwrap());
    static CONTINUED: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"\\\n\s*").unwrap());
    let folders = ["src", "crates"].map(|folder| root().join(folder));
    let files = folders
        .iter()
        .filter(|folder| folder.is_dir())
        .flat_map(walkdir::WalkDir::new)
        .map(|entry| entry.unwrap().into_path())
        .filter(|path| path.extension().is_some_and(|end| end == "rs"));
    let mut literals = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        for found in LITERAL.captures_iter(&text) {
            let literal = CONTINUED.replace_all(&found[1], "");
            let literal = literal.replace("\\\"", "\"").replace("\\n", "\n");
            literals.push(FILLED.replace_all(&literal, "…").into_owned());
        }
    }
    literals
}

/// Whether one literal has all parts of a message, in order.
fn is_said(message: &str, literals: &[String]) -> bool {
    let parts: Vec<_> = message
        .split('…')
        .map(|part| regex::escape(part.trim()))
        .collect();
    let pattern = Regex::new(&parts.join("(?s:.*)")).unwrap();
    literals.iter().any(|literal| pattern.is_match(literal))
}

/// The message of each row of the page's tables.
fn messages(page: &Page) -> Vec<(usize, String)> {
    static CELL: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"^\| (`+)(.+?)(`+) \|").unwrap());
    let rows = page.lines().filter(|(_, line, is_code)| {
        !is_code
            && line.starts_with("| ")
            && !line.starts_with("| ---")
            && !line.starts_with("| message")
    });
    rows.map(|(number, line, _)| {
        let cell = CELL.captures(line);
        let cell = cell.unwrap_or_else(|| panic!("{}:{number}: no message in `…`", page.path));
        (number, cell[2].trim().to_owned())
    })
    .collect()
}

#[test]
fn every_message_on_the_page_of_errors_is_in_the_source() {
    let page = Page::read("docs/src/errors.md");
    let (literals, messages) = (literals(), messages(&page));
    assert!(messages.len() > 20, "the page's tables are not read");
    let stale = messages
        .iter()
        .filter(|(_, message)| !is_said(message, &literals))
        .map(|(line, message)| format!("{}:{line}: `{message}`", page.path));
    let stale: Vec<_> = stale.collect();
    assert!(
        stale.is_empty(),
        "no string of src/ or crates/ says:\n{}",
        stale.join("\n")
    );
}

#[test]
fn a_stale_message_is_found() {
    let literals = [
        "the disk is full: …".to_owned(),
        "`…` is a template".to_owned(),
    ];
    assert!(is_said("`…` is a template", &literals));
    assert!(is_said("the disk is full", &literals));
    assert!(!is_said("the disk … template", &literals));
    assert!(!is_said("`fashion` is a template", &literals));
}
