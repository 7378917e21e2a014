//! The size of `.deploy` by dependency, in this run and in the last one.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::super::failure::Io;
use super::super::stored;
use crate::event::bytes;
use crate::store::{AppName, UnitId};
use crate::workspace::installed;

/// The number of dependencies that an error names.
const NAMED: usize = 5;

/// Packages that compile, bundle or check code. A server rarely needs them.
const COMPILERS: [&str; 17] = [
    "@babel/core",
    "@esbuild/",
    "@next/swc-",
    "@rollup/",
    "@rspack/",
    "@swc/core",
    "esbuild",
    "eslint",
    "lightningcss",
    "playwright-core",
    "prettier",
    "rollup",
    "sass",
    "terser",
    "typescript",
    "vite",
    "webpack",
];

/// The bytes in a `.deploy`. Links have no size.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sizes {
    /// The bytes of the app itself.
    pub own: u64,
    /// The bytes of each top-level dependency, with the packages nested in it.
    pub dependencies: BTreeMap<String, u64>,
}

impl Sizes {
    /// Adds a file at `path` in `.deploy`.
    pub fn add(&mut self, path: &Path, bytes: u64) {
        match dependency(path) {
            Some(name) => *self.dependencies.entry(name).or_default() += bytes,
            None => self.own += bytes,
        }
    }

    /// The sum of all bytes.
    pub fn total(&self) -> u64 {
        self.own + self.dependencies.values().sum::<u64>()
    }

    /// The dependencies, largest first.
    pub fn largest(&self) -> Vec<(&str, u64)> {
        let sizes = self.dependencies.iter();
        let mut largest: Vec<_> = sizes.map(|(name, size)| (name.as_str(), *size)).collect();
        largest.sort_by_key(|(_, size)| std::cmp::Reverse(*size));
        largest
    }

    /// A message if compilers and other build tools are more than half of the folder.
    pub fn name_compilers(&self, app: &AppName) -> Option<String> {
        // An entry with `/` or `-` at its end is the start of a name. `@swc/core` is also the start
        // of the names of its binaries.
        let is_compiler = |name: &str| {
            COMPILERS.iter().any(|compiler| {
                let is_start = compiler.ends_with(['/', '-']) || *compiler == "@swc/core";
                name == *compiler || (is_start && name.starts_with(compiler))
            })
        };
        let largest = self.largest().into_iter();
        let compilers: Vec<_> = largest.filter(|(name, _)| is_compiler(name)).collect();
        let size: u64 = compilers.iter().map(|(_, size)| size).sum();
        if size * 2 <= self.total() {
            return None;
        }
        let names = compilers.iter().map(|(name, _)| format!("`{name}`"));
        Some(format!(
            "{} of the {} in `.deploy` of `{app}` are build tools: {}; if the server does not load them, move them to `devDependencies` of the package that needs them",
            bytes(size),
            bytes(self.total()),
            shorten(names.collect::<Vec<_>>().into_iter()),
        ))
    }

    /// Explains the size: what grew since the last run, or else what is largest.
    pub fn explain(&self, last: Option<&Self>) -> String {
        let Some(last) = last else {
            return format!("the largest parts are {}", self.name_largest());
        };
        let own = (self.own > last.own).then(|| {
            let more = self.own - last.own;
            (more, format!("the app's own files +{}", bytes(more)))
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
            return format!("nothing grew since the last run; the largest parts are {largest}");
        }
        let by = match total.checked_sub(before) {
            Some(more) if more > 0 => format!("it grew by {} since the last run", bytes(more)),
            _ => "these parts grew since the last run".into(),
        };
        format!(
            "{by}: {}",
            shorten(growth.into_iter().map(|(_, text)| text))
        )
    }

    fn name_largest(&self) -> String {
        let own = (self.own, format!("the app's own files {}", bytes(self.own)));
        let sizes = self.dependencies.iter();
        let mut all: Vec<_> = sizes
            .map(|(name, size)| (*size, format!("`{name}` {}", bytes(*size))))
            .chain([own])
            .collect();
        all.sort_by_key(|(size, _)| std::cmp::Reverse(*size));
        shorten(all.into_iter().map(|(_, text)| text))
    }

    /// The sizes of the unit's last successful run. None where they are missing or unreadable.
    pub fn last(project: &Path, unit: &UnitId) -> Option<Self> {
        stored::read(&file(project, unit)).ok().flatten()
    }

    /// Saves the sizes for the next run.
    pub fn save(&self, project: &Path, unit: &UnitId) -> Result<(), Io> {
        stored::write(&file(project, unit), self)
    }
}

fn file(project: &Path, unit: &UnitId) -> PathBuf {
    let folder = project.join(".alokai/sizes").join(unit.store.as_str());
    folder.join(format!("{}.json", unit.app))
}

/// Joins the first texts, and counts the rest.
fn shorten(texts: impl ExactSizeIterator<Item = String>) -> String {
    let rest = texts.len().saturating_sub(NAMED);
    let named: Vec<_> = texts.take(NAMED).collect();
    match rest {
        0 => named.join(", "),
        rest => format!("{} and {rest} more", named.join(", ")),
    }
}

/// The top-level dependency that a file belongs to.
fn dependency(file: &Path) -> Option<String> {
    // A file directly in `node_modules`, such as `.package-lock.json`, belongs to no package.
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
