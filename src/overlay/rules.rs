//! `ignorePaths`: gitignore rules in which brackets are literal.
//!
//! Next.js names folders `[locale]`, so brackets in a rule never mean a character class.

use gix_glob::Pattern;

use super::gitignore::{Brackets, matches, pattern};
use crate::store::Store;

/// The rules of a store: its ancestors' rules first, its own last.
#[derive(Debug)]
pub struct IgnoreRules {
    /// One per rule, in the same order as `origins`. `None` for a rule that matches nothing.
    patterns: Vec<Option<Pattern>>,
    origins: Vec<RuleOrigin>,
}

/// A rule, and its place in the config.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleOrigin {
    /// The store whose `ignorePaths` has the rule.
    pub store: crate::store::StoreId,
    /// The index in that list.
    pub position: usize,
    /// The rule as written.
    pub rule: String,
}

impl IgnoreRules {
    /// The rules that apply to the last store of `lineage`.
    pub fn new(lineage: &[&Store]) -> Self {
        let origins = lineage.iter().flat_map(|store| {
            let rules = store.ignore_paths.iter().enumerate();
            rules.map(|(position, rule)| RuleOrigin {
                store: store.id.clone(),
                position,
                rule: rule.clone(),
            })
        });
        Self::of(origins.collect())
    }

    /// The given rules, in the given order.
    pub fn of(origins: Vec<RuleOrigin>) -> Self {
        let rules = origins.iter();
        Self {
            patterns: rules
                .map(|origin| pattern(&origin.rule, Brackets::Literal))
                .collect(),
            origins,
        }
    }

    /// The rule that drops the file. As in git, a file below a dropped folder cannot be
    /// re-included.
    pub fn drops(&self, path: &str) -> Option<&RuleOrigin> {
        if self.origins.is_empty() {
            return None;
        }
        let folders = path.match_indices('/').map(|(end, _)| (&path[..end], true));
        for (path, is_folder) in folders.chain([(path, false)]) {
            let rules = self.patterns.iter().zip(&self.origins).rev();
            for (pattern, origin) in rules {
                if let Some(pattern) = pattern
                    && matches(pattern, path, is_folder)
                {
                    if pattern.is_negative() {
                        break;
                    }
                    return Some(origin);
                }
            }
        }
        None
    }

    /// The rules, in order.
    pub fn origins(&self) -> &[RuleOrigin] {
        &self.origins
    }

    /// Whether the rule at this index, taken alone, matches the file or a folder above it.
    pub fn matches(&self, index: usize, path: &str) -> bool {
        let Some(pattern) = &self.patterns[index] else {
            return false;
        };
        let folders = path.match_indices('/').map(|(end, _)| (&path[..end], true));
        folders
            .chain([(path, false)])
            .any(|(path, is_folder)| matches(pattern, path, is_folder))
    }
}

#[cfg(test)]
mod tests {
    use super::IgnoreRules;
    use crate::store::{Store, StoreId};

    fn rules(patterns: &[&str]) -> IgnoreRules {
        let store = Store {
            id: StoreId::new("us").unwrap(),
            parent: None,
            folder: None,
            apps: Vec::new(),
            deployment: None,
            ignore_paths: patterns.iter().map(ToString::to_string).collect(),
        };
        IgnoreRules::new(&[&store])
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
