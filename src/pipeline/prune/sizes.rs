//! How large `.deploy` is, by dependency, now and in the last run.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::super::failure::Io;
use super::super::stored;
use crate::event::bytes;
use crate::store::UnitId;
use crate::workspace::installed;

/// Growing or largest dependencies that an error names.
const NAMED: usize = 5;

/// Bytes in a `.deploy`. Links count nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sizes {
    /// Of the app itself.
    pub own: u64,
    /// Of each dependency at the top, with what is nested in it.
    pub dependencies: BTreeMap<String, u64>,
}

impl Sizes {
    /// Counts a file at `path` below `.deploy`.
    pub fn add(&mut self, path: &Path, bytes: u64) {
        match dependency(path) {
            Some(name) => *self.dependencies.entry(name).or_default() += bytes,
            None => self.own += bytes,
        }
    }

    /// All of it.
    pub fn total(&self) -> u64 {
        self.own + self.dependencies.values().sum::<u64>()
    }

    /// Dependencies, largest first.
    pub fn largest(&self) -> Vec<(&str, u64)> {
        let sizes = self.dependencies.iter();
        let mut largest: Vec<_> = sizes.map(|(name, size)| (name.as_str(), *size)).collect();
        largest.sort_by_key(|(_, size)| std::cmp::Reverse(*size));
        largest
    }

    /// Why it is as large as it is: what grew since the last run, else what is largest.
    pub fn explain(&self, last: Option<&Self>) -> String {
        let Some(last) = last else {
            return format!("the largest are {}", self.name_largest());
        };
        let own = (self.own > last.own).then(|| {
            let more = self.own - last.own;
            (more, format!("its own files +{}", bytes(more)))
        });
        let dependencies = self.dependencies.iter().filter_map(|(name, &size)| {
            let Some(&before) = last.dependencies.get(name) else {
                return Some((size, format!("`{name}` +{} (new)", bytes(size))));
            };
            let more = size.checked_sub(before).filter(|more| *more > 0)?;
            Some((more, format!("`{name}` +{}", bytes(more))))
        });
        let mut growth: Vec<_> = dependencies.chain(own).collect();
        growth.sort_by_key(|(more, _)| std::cmp::Reverse(*more));
        let (total, before) = (self.total(), last.total());
        if growth.is_empty() {
            let largest = self.name_largest();
            return format!("nothing grew since the last run; the largest are {largest}");
        }
        let by = match total.checked_sub(before) {
            Some(more) if more > 0 => format!("since the last run it grew by {}", bytes(more)),
            _ => "since the last run there is more of".into(),
        };
        format!("{by}: {}", some(growth.into_iter().map(|(_, text)| text)))
    }

    fn name_largest(&self) -> String {
        let own = (self.own, format!("its own files {}", bytes(self.own)));
        let sizes = self.dependencies.iter();
        let mut all: Vec<_> = sizes
            .map(|(name, size)| (*size, format!("`{name}` {}", bytes(*size))))
            .chain([own])
            .collect();
        all.sort_by_key(|(size, _)| std::cmp::Reverse(*size));
        some(all.into_iter().map(|(_, text)| text))
    }

    /// What the last good run of the unit left; none where nothing that can be read is there.
    pub fn last(project: &Path, unit: &UnitId) -> Option<Self> {
        stored::read(&remembered(project, unit)).ok().flatten()
    }

    /// Remembers them for the next run.
    pub fn remember(&self, project: &Path, unit: &UnitId) -> Result<(), Io> {
        stored::write(&remembered(project, unit), self)
    }
}

fn remembered(project: &Path, unit: &UnitId) -> PathBuf {
    let folder = project.join(".alokai/sizes").join(unit.store.as_str());
    folder.join(format!("{}.json", unit.app))
}

fn some(texts: impl ExactSizeIterator<Item = String>) -> String {
    let rest = texts.len().saturating_sub(NAMED);
    let named: Vec<_> = texts.take(NAMED).collect();
    match rest {
        0 => named.join(", "),
        rest => format!("{} and {rest} more", named.join(", ")),
    }
}

/// The dependency at the top that a file belongs to.
fn dependency(file: &Path) -> Option<String> {
    // A file right there, such as `.package-lock.json`, is no package's.
    let outermost = installed::packages(file).into_iter().next()?;
    (outermost.folder != file).then_some(outermost.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_belongs_to_the_dependency_at_the_top() {
        let cases = [
            ("lib/index.js", None),
            ("node_modules/.package-lock.json", None),
            ("node_modules/a/index.js", Some("a")),
            ("node_modules/@s/a/index.js", Some("@s/a")),
            ("node_modules/a/node_modules/b/index.js", Some("a")),
            ("packages/t/node_modules/a/index.js", Some("a")),
            (
                "node_modules/.pnpm/@s+a@1.0.0_b@2.0.0/node_modules/@s/a/x.js",
                Some("@s/a"),
            ),
            (
                "node_modules/.pnpm/a@1.0.0/node_modules/a/node_modules/b/x.js",
                Some("a"),
            ),
            ("server/node_modules/.nitro/@s/a@3.4.0/x.js", Some("@s/a")),
            ("server/node_modules/.nitro/a@3.4.0/x.js", Some("a")),
        ];
        for (path, name) in cases {
            assert_eq!(dependency(Path::new(path)).as_deref(), name, "{path}");
        }
    }
}
