//! `ignorePaths`: gitignore rules in which brackets are literal.
//!
//! Next.js names folders `[locale]`, so a character class is never what the writer means.
//! Braces are literal too, as in git; the glob crate would take them as alternatives.

use std::path::Path;

use ignore::Match;
use ignore::gitignore::{Gitignore, GitignoreBuilder};

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
        let mut builder = GitignoreBuilder::new("");
        let mut origins = Vec::new();
        for store in lineage {
            for (position, rule) in store.ignore_paths.iter().enumerate() {
                let origin = Origin {
                    store: store.id.clone(),
                    position,
                    rule: rule.clone(),
                };
                // The line's source is its number, so that a match finds its origin again.
                // Git takes neither for a pattern: they match nothing.
                let is_none =
                    rule == "!" || (rule.len() - rule.trim_end_matches('\\').len()) % 2 == 1;
                if is_none {
                    origins.push(origin);
                    continue;
                }
                let number = Path::new(&origins.len().to_string()).to_owned();
                if let Err(error) = builder.add_line(Some(number), &literal(rule)) {
                    return Err((origin, error));
                }
                origins.push(origin);
            }
        }
        let matcher = builder.build().unwrap_or_else(|_| Gitignore::empty());
        Ok(Self { matcher, origins })
    }

    /// The rule that drops the file, if one does. As in git, a file below a dropped folder
    /// cannot be brought back.
    pub fn drops(&self, path: &str) -> Option<&Origin> {
        if self.origins.is_empty() {
            return None;
        }
        let folders = path.match_indices('/').map(|(end, _)| (&path[..end], true));
        for (path, is_dir) in folders.chain([(path, false)]) {
            if let Match::Ignore(glob) = self.matcher.matched(path, is_dir) {
                let number: usize = glob.from()?.to_str()?.parse().ok()?;
                return self.origins.get(number);
            }
        }
        None
    }
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
