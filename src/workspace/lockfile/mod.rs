//! Lock files, reduced to the dependencies of some folders of a workspace.
//!
//! A change to the dependencies of one app must not invalidate the results of other apps. So each
//! lock file is read into a graph of folders and packages, and a key contains only the packages
//! that its folders reach. If a format, a version or an edge is not supported, the result is
//! `None`, and the caller uses the whole file: too many packages cost time, but too few would
//! make a wrong result valid.

mod bun;
mod npm;
mod pnpm;
#[cfg(test)]
mod tests;
mod yarn;

use std::collections::{BTreeMap, BTreeSet};

/// The content of the `package.json` files, which `yarn.lock` does not contain.
#[derive(Debug, Clone, Default)]
pub struct Workspace<'a> {
    /// All folders of the workspace. The root has the path "".
    pub folders: Vec<LockedFolder<'a>>,
    /// The keys of `resolutions` in the root `package.json`.
    pub resolutions: Vec<&'a str>,
}

/// A folder of the workspace.
#[derive(Debug, Clone, Default)]
pub struct LockedFolder<'a> {
    /// The path relative to the project, with `/`. The root is "".
    pub path: &'a str,
    /// The name of the package, if any.
    pub name: Option<&'a str>,
    /// The names and ranges of all its dependencies except peers.
    pub needs: Vec<(&'a str, &'a str)>,
}

/// A lock file as a graph of folders and packages.
#[derive(Debug, Clone, Default)]
pub struct Lockfile {
    nodes: Vec<LockedPackage>,
    /// The folders of the workspace by path. The root is "".
    folders: BTreeMap<String, usize>,
}

/// A package or a workspace folder in the graph.
#[derive(Debug, Clone, Default)]
struct LockedPackage {
    /// `react@18.3.1`, or `workspace:apps/web`.
    identity: String,
    /// The integrity, or the source. Empty if the identity is enough.
    pin: String,
    /// Its dependencies, sorted by name.
    needs: Vec<usize>,
    /// Whether a dependency is missing in the lock file.
    broken: bool,
}

impl Lockfile {
    /// Reads a lock file. `None` if the format or version is not supported.
    #[must_use]
    pub fn parse(name: &str, text: &[u8], workspace: &Workspace<'_>) -> Option<Self> {
        let text = std::str::from_utf8(text).ok()?;
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        match name {
            "npm-shrinkwrap.json" | "package-lock.json" => npm::parse(text),
            "pnpm-lock.yaml" => pnpm::parse(text),
            "yarn.lock" => yarn::parse(text, workspace),
            "bun.lock" => bun::parse(text),
            _ => None,
        }
    }

    /// All direct and indirect dependencies of these folders, and the folders themselves: identity
    /// (`react@18.3.1`, `workspace:packages/ui`) → integrity and resolved dependencies.
    ///
    /// Dependencies of the root are installed where every folder finds them. Add "" to `folders` to
    /// include them. `None` if the lock file does not have one of the folders, or if a dependency
    /// cannot be resolved.
    #[must_use]
    pub fn reach(&self, folders: &[&str]) -> Option<BTreeMap<String, String>> {
        let mut waiting = Vec::new();
        for folder in folders {
            waiting.push(*self.folders.get(*folder)?);
        }
        let mut seen = BTreeSet::new();
        let mut slice = BTreeMap::<&str, BTreeSet<String>>::new();
        while let Some(index) = waiting.pop() {
            if !seen.insert(index) {
                continue;
            }
            let node = self.nodes.get(index)?;
            if node.broken {
                return None;
            }
            let mut pin = node.pin.clone();
            for need in &node.needs {
                pin.push(' ');
                pin.push_str(&self.nodes.get(*need)?.identity);
            }
            // Two copies of one package can have different versions of a dependency.
            slice.entry(&node.identity).or_default().insert(pin);
            waiting.extend(&node.needs);
        }
        let joined = |pins: BTreeSet<String>| pins.into_iter().collect::<Vec<_>>().join("\n");
        let slice = slice.into_iter();
        Some(
            slice
                .map(|(name, pins)| (name.to_owned(), joined(pins)))
                .collect(),
        )
    }
}

/// The prefix of the identity of a workspace folder.
fn folder_identity(path: &str) -> String {
    format!("workspace:{path}")
}

/// Joins `folder` and `path` and removes `.` and `..`. `None` if the path leaves the project.
fn join(folder: &str, path: &str) -> Option<String> {
    let mut parts = Vec::new();
    for part in folder.split('/').chain(path.split('/')) {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}
