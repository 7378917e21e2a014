//! `ignorePaths`: gitignore rules in which brackets are literal.
//!
//! Next.js names folders `[locale]`, so a character class is never what the writer means.
//! Braces are literal too, as in git; the glob crate would take them as alternatives.

use std::path::Path;

use ignore::Match;
use ignore::gitignore::{Gitignore, GitignoreBuilder, Glob};

use crate::store::Store;

/// The rules of a store: all ancestors' first, its own last.
#[derive(Debug)]
pub struct Rules {
    matcher: Gitignore,
    /// For each rule in order: whose it is, and its place in that store's list.
    origins: Vec<Origin>,
}

/// Where a rule stands in the config.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The store whose `ignorePaths` it is in.
    pub store: crate::store::StoreId,
    /// Its position in that list.
    pub position: usize,
    /// The rule as written.
    pub rule: String,
}

impl Rules {
    /// The rules that hold for the last store of `lineage`. The error names the rule.
    pub fn new(lineage: &[&Store]) -> Result<Self, (Origin, ignore::Error)> {
        let origins = lineage.iter().flat_map(|store| {
            let rules = store.ignore_paths.iter().enumerate();
            rules.map(|(position, rule)| Origin {
                store: store.id.clone(),
                position,
                rule: rule.clone(),
            })
        });
        Self::of(origins.collect())
    }

    /// These rules, in this order.
    pub fn of(origins: Vec<Origin>) -> Result<Self, (Origin, ignore::Error)> {
        let mut builder = GitignoreBuilder::new("");
        for (number, origin) in origins.iter().enumerate() {
            if is_none(&origin.rule) {
                continue;
            }
            // The line's source is its number, so that a match finds its origin again.
            let number = Path::new(&number.to_string()).to_owned();
            if let Err(error) = builder.add_line(Some(number), &literal(&origin.rule)) {
                return Err((origin.clone(), error));
            }
        }
        let matcher = builder.build().unwrap_or_else(|_| Gitignore::empty());
        Ok(Self { matcher, origins })
    }

    /// The rule that drops the file, if one does. As in git, a file below a dropped folder
    /// cannot be brought back.
    pub fn drops(&self, path: &str) -> Option<&Origin> {
        match self.decides(path) {
            Some((origin, true)) => Some(origin),
            _ => None,
        }
    }

    /// The rule that decides about the file, and whether it drops it.
    pub fn decides(&self, path: &str) -> Option<(&Origin, bool)> {
        if self.origins.is_empty() {
            return None;
        }
        let origin = |glob: &Glob| {
            let number: usize = glob.from()?.to_str()?.parse().ok()?;
            self.origins.get(number)
        };
        let folders = path.match_indices('/').map(|(end, _)| (&path[..end], true));
        let mut kept = None;
        for (path, is_dir) in folders.chain([(path, false)]) {
            match self.matcher.matched(path, is_dir) {
                Match::Ignore(glob) => return Some((origin(glob)?, true)),
                Match::Whitelist(glob) => kept = Some((origin(glob)?, false)),
                Match::None => {}
            }
        }
        kept
    }

    /// The rules in their order.
    pub fn origins(&self) -> &[Origin] {
        &self.origins
    }

    /// Whether a rule alone would match the file or a folder above it.
    pub fn matches(rule: &str, path: &str) -> bool {
        let mut builder = GitignoreBuilder::new("");
        if is_none(rule) || builder.add_line(None, &literal(rule)).is_err() {
            return false;
        }
        let matcher = builder.build().unwrap_or_else(|_| Gitignore::empty());
        let folders = path.match_indices('/').map(|(end, _)| (&path[..end], true));
        folders
            .chain([(path, false)])
            .any(|(path, is_dir)| !matcher.matched(path, is_dir).is_none())
    }
}

/// Whether git takes the line for no pattern, so that it matches nothing.
fn is_none(rule: &str) -> bool {
    rule == "!" || (rule.len() - rule.trim_end_matches('\\').len()) % 2 == 1
}

/// Escapes brackets and braces that are not escaped already.
fn literal(rule: &str) -> String {
    let mut escaped = String::with_capacity(rule.len() + 4);
    let mut chars = rule.chars();
    while let Some(char) = chars.next() {
        match char {
            '\\' => {
                escaped.push('\\');
                escaped.extend(chars.next());
            }
            '[' | ']' | '{' | '}' => escaped.extend(['\\', char]),
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::Rules;
    use crate::store::{Store, StoreId};

    fn rules(patterns: &[&str]) -> Rules {
        let store = Store {
            id: StoreId::new("us").unwrap(),
            parent: None,
            folder: None,
            apps: Vec::new(),
            deployment: None,
            ignore_paths: patterns.iter().map(ToString::to_string).collect(),
        };
        Rules::new(&[&store]).unwrap()
    }

    #[test]
    fn brackets_and_braces_are_literal() {
        let rules = rules(&["app/[locale]/x.tsx", "{a,b}.ts"]);
        assert!(rules.drops("app/[locale]/x.tsx").is_some());
        assert!(rules.drops("app/l/x.tsx").is_none());
        assert!(rules.drops("{a,b}.ts").is_some());
        assert!(rules.drops("a.ts").is_none());
    }

    #[test]
    fn the_last_match_wins_but_not_below_a_dropped_folder() {
        let rules = rules(&["*.md", "!README.md", "docs/", "!docs/keep.txt"]);
        assert!(rules.drops("notes.md").is_some());
        assert!(rules.drops("README.md").is_none());
        assert_eq!(rules.drops("docs/keep.txt").unwrap().rule, "docs/");
    }
}
