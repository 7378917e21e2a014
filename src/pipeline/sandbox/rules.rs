//! What a script may open, as plain paths.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::system;
use crate::pipeline::context::ScriptEnvironment;

/// What a script may open. Every path is absolute and has its links resolved; a folder stands for
/// everything in it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct SandboxRules {
    /// Files and folders to read and to execute.
    pub read: Vec<PathBuf>,
    /// Folders whose names may be listed.
    pub list: Vec<PathBuf>,
    /// Files and folders to read, write, make and remove.
    pub write: Vec<PathBuf>,
}

/// What a script works on: its own folder, and everything else that its key is made of.
#[derive(Debug, Clone)]
pub struct ScriptScope {
    /// The project.
    pub project: PathBuf,
    /// The script's own folder, which it may write.
    pub folder: PathBuf,
    /// Files and folders that are in the key, outside of the own folder.
    pub readable: Vec<PathBuf>,
    /// Folders whose `node_modules`, and those above, hold what is installed.
    pub installed: Vec<PathBuf>,
    /// Folders of workspaces: a package manager looks for them and reads the `package.json` of
    /// each.
    pub workspaces: Vec<PathBuf>,
    /// A folder in which, and in all below it, names may be listed.
    pub listed: Option<PathBuf>,
}

/// What package managers keep at the top of a project beside `node_modules`. Of a lock file the
/// part that the script reaches is in its key.
const INSTALLED: [&str; 9] = [
    ".yarn",
    ".pnp.cjs",
    ".pnp.loader.mjs",
    ".pnp.data.json",
    "package-lock.json",
    "npm-shrinkwrap.json",
    "yarn.lock",
    "pnpm-lock.yaml",
    "bun.lock",
];

impl SandboxRules {
    /// What a script of this scope may open, with its private folder.
    pub fn new(scope: &ScriptScope, private: &Path, environment: &ScriptEnvironment) -> Self {
        let mut read = BTreeSet::new();
        let mut list: BTreeSet<PathBuf> = scope.listed.iter().cloned().collect();
        for folder in &scope.workspaces {
            read.extend(folder.join("package.json").canonicalize());
            let above = folder.parent().and_then(|above| above.canonicalize().ok());
            list.extend(above);
        }
        for path in &scope.readable {
            read.extend(path.canonicalize());
            // A folder of the project whose files are in the key may be listed; the top may not,
            // since that would allow it everywhere.
            let folder = path.parent().and_then(|folder| folder.canonicalize().ok());
            list.extend(folder.filter(|folder| !scope.project.starts_with(folder)));
        }
        for folder in &scope.installed {
            let above = folder.ancestors().map(|folder| folder.join("node_modules"));
            read.extend(above.filter_map(|modules| modules.canonicalize().ok()));
        }
        let beside = INSTALLED.iter().map(|name| scope.project.join(name));
        read.extend(beside.filter_map(|path| path.canonicalize().ok()));
        read.extend(system::readable(&scope.project, environment));
        let mut write: BTreeSet<PathBuf> = system::WRITABLE.iter().map(PathBuf::from).collect();
        for folder in [&scope.folder, private] {
            write.extend(folder.canonicalize());
        }
        Self {
            read: read.into_iter().collect(),
            list: list.into_iter().collect(),
            write: write.into_iter().collect(),
        }
    }

    /// Whether the path may be read. Its links are resolved.
    pub fn reads(&self, path: &Path) -> bool {
        holds(&self.read, path) || self.writes(path)
    }

    /// Whether the path may be written. Its links are resolved.
    pub fn writes(&self, path: &Path) -> bool {
        holds(&self.write, path)
    }

    /// Whether the names in the folder may be listed. Its links are resolved.
    pub fn lists(&self, folder: &Path) -> bool {
        holds(&self.list, folder) || self.reads(folder)
    }
}

/// Whether the sorted list has the path or a folder above it.
fn holds(sorted: &[PathBuf], path: &Path) -> bool {
    let mut above = path.ancestors();
    above.any(|folder| {
        sorted
            .binary_search_by(|one| one.as_path().cmp(folder))
            .is_ok()
    })
}
