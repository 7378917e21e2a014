//! `store check`.

use serde_json::{Value, json};

use super::Error;
use super::arguments::{CheckOptions, Global};
use super::environment::tell;
use super::run::document;
use super::show::Page;
use crate::compare::{self, CODES, Finding};
use crate::error::Error as AnyError;
use crate::git::Repository;

pub fn check(global: &Global, options: &CheckOptions) -> Result<(), AnyError> {
    // `check` also reports a project that cannot be read.
    let root = super::root(global)?;
    let compare::CheckReport {
        findings,
        unchecked,
    } = compare::check(&root)?;
    for note in unchecked {
        tell(&format!("note: {note}"));
    }
    if options.json {
        document(&json!({ "schemaVersion": 1, "findings": findings }))?;
    } else if options.sarif {
        let prefix = Repository::around(&root)?.map_or(String::new(), |it| it.prefix().to_owned());
        document(&sarif(&findings, &prefix))?;
    } else {
        let mut page = Page::new(&root);
        for finding in &findings {
            let line = finding
                .line
                .map(|line| format!(":{line}"))
                .unwrap_or_default();
            page.title(&format!("{}{line}", finding.file.escape_debug()));
            page.paragraph("  ", &format!("{} [{}]", finding.message, finding.code));
            page.paragraph("  help: ", &finding.help);
            page.plain("\n");
        }
        if findings.is_empty() {
            page.plain("no problems found\n");
        }
        page.show()?;
    }
    if findings.is_empty() {
        Ok(())
    } else {
        Err(Error::Findings {
            count: findings.len(),
        }
        .into())
    }
}

/// The findings as SARIF 2.1.0. Paths are relative to the repository.
fn sarif(findings: &[Finding], prefix: &str) -> Value {
    let rules: Vec<_> = CODES
        .iter()
        .map(|(code, meaning)| json!({ "id": code, "shortDescription": { "text": meaning } }))
        .collect();
    let results: Vec<_> = findings
        .iter()
        .map(|finding| {
            json!({
                "ruleId": finding.code,
                "level": "warning",
                "message": { "text": format!("{}; {}", finding.message, finding.help) },
                "locations": [{ "physicalLocation": {
                    "artifactLocation": { "uri": uri(&format!("{prefix}{}", finding.file)) },
                    "region": { "startLine": finding.line.unwrap_or(1) },
                } }],
            })
        })
        .collect();
    json!({
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{
            "tool": { "driver": {
                "name": "alokai",
                "version": env!("CARGO_PKG_VERSION"),
                "rules": rules,
            } },
            "results": results,
        }],
    })
}

/// A path as a relative URI, with brackets and spaces encoded.
fn uri(path: &str) -> String {
    use std::fmt::Write as _;
    path.bytes().fold(String::new(), |mut uri, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
            uri.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            let _ = write!(uri, "%{byte:02X}");
        }
        uri
    })
}
