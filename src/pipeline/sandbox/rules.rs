//! The paths that a sandboxed script can open.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::system;
use crate::pipeline::services::ScriptEnvironment;

/// The paths that a script can open. Every path is absolute, with links resolved. A folder stands
/// for everything in it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct SandboxRules {
    /// Files and folders that it can read and execute.
    pub read: Vec<PathBuf>,
    /// Folders whose entries it can list.
    pub list: Vec<PathBuf>,
    /// Files and folders that it can read, write, create and remove.
    pub write: Vec<PathBuf>,
}

/// The scope of a script: its own folder, and everything else that its key includes.
#[derive(Debug, Clone)]
pub struct ScriptScope {
    /// The project.
    pub project: PathBuf,
    /// The script's own folder, in which it can write.
    pub folder: PathBuf,
    /// Files and folders of the key outside the script's own folder.
    pub readable: Vec<PathBuf>,
    /// Folders whose `node_modules`, and those of the folders above, have the installed packages.
    pub installed: Vec<PathBuf>,
    /// Folders of workspace packages. A package manager reads the `package.json` of each.
    pub workspaces: Vec<PathBuf>,
    /// A folder that can be listed, with all folders below it.
    pub listed: Option<PathBuf>,
}

/// Files of package managers at the top of a project, beside `node_modules`. The key includes the
/// part of a lock file that the script depends on.
const INSTALLED: [&str; 10] = [
    ".yarn",
    ".pnp.cjs",
    ".pnp.loader.mjs",
    ".pnp.data.json",
    "package-lock.json",
    "npm-shrinkwrap.json",
    "yarn.lock",
    "pnpm-lock.yaml",
    "bun.lock",
    "bun.lockb",
];

impl SandboxRules {
    /// The rules of a script with this scope and this private folder.
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
            // A folder whose files are in the key can be listed. The project's root cannot, since
            // that allows listing all folders below it.
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

    /// Whether the script can read the path, which has its links resolved.
    pub fn reads(&self, path: &Path) -> bool {
        holds(&self.read, path) || self.writes(path)
    }

    /// Whether the script can write the path, which has its links resolved.
    pub fn writes(&self, path: &Path) -> bool {
        holds(&self.write, path)
    }

    /// Whether the script can list the folder, whose path has its links resolved.
    pub fn lists(&self, folder: &Path) -> bool {
        holds(&self.list, folder) || self.reads(folder)
    }
}

/// Whether the sorted list contains the path or a folder above it.
fn holds(sorted: &[PathBuf], path: &Path) -> bool {
    let mut above = path.ancestors();
    above.any(|folder| {
        sorted
            .binary_search_by(|one| one.as_path().cmp(folder))
            .is_ok()
    })
}
