//! Lock files, cut down to the part that some folders of a workspace reach.
//!
//! A change to the lock file that concerns one app should leave the build cache of all others
//! alone. So each format is made into one graph of folders and packages, and a key takes only
//! what lies on the way from its folders. Wherever a format, a version or an edge is not
//! understood the answer is `None`, and the caller lets the whole file count: a slice that is
//! too small would bring back a wrong build, one that is too large only costs time.

mod bun;
mod npm;
mod pnpm;
#[cfg(test)]
mod tests;
mod yarn;

use std::collections::{BTreeMap, BTreeSet};

/// What the lock file leaves to the `package.json` files; only Yarn's does.
#[derive(Debug, Clone, Default)]
pub struct Workspace<'a> {
    /// All folders of the workspace, the root (with the path "") among them.
    pub folders: Vec<LockedFolder<'a>>,
    /// The keys of `resolutions` in the root `package.json`.
    pub resolutions: Vec<&'a str>,
}

/// A folder of the workspace.
#[derive(Debug, Clone, Default)]
pub struct LockedFolder<'a> {
    /// Relative to the project, with `/`; "" is the root itself.
    pub path: &'a str,
    /// The package's name, where it has one.
    pub name: Option<&'a str>,
    /// What its `package.json` asks for, name and range: all kinds of dependencies but peers.
    pub needs: Vec<(&'a str, &'a str)>,
}

/// A lock file: which packages the folders of a workspace reach.
#[derive(Debug, Clone, Default)]
pub struct Lockfile {
    nodes: Vec<LockedPackage>,
    /// Folders of the workspace, by path; "" is the root.
    folders: BTreeMap<String, usize>,
}

/// A package or a folder of the workspace.
#[derive(Debug, Clone, Default)]
struct LockedPackage {
    /// `react@18.3.1`, or `workspace:apps/web`.
    identity: String,
    /// The integrity, else where it comes from; nothing where the identity says all.
    pin: String,
    /// In the order of the names under which they are asked for.
    needs: Vec<usize>,
    /// It needs something that the lock file does not have.
    broken: bool,
}

impl Lockfile {
    /// Reads it; `None` where this format or version is not understood.
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

    /// Everything that the packages in these folders need, directly or through others: the
    /// identity (`react@18.3.1`, `workspace:packages/ui`) → what pins it, and to which packages
    /// its own needs were resolved. The folders themselves are in it.
    ///
    /// What the root asks for is installed where every folder finds it; give "" as well where
    /// that should count. `None` when the lock file does not know one of the folders, or a
    /// dependency on the way cannot be followed.
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
            // Two copies of one package may see different versions of what they need.
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

/// How a folder of the workspace is told apart from a package.
fn folder_identity(path: &str) -> String {
    format!("workspace:{path}")
}

/// `path` as seen from `folder`, without `.` and `..`; `None` where it leaves the project.
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
