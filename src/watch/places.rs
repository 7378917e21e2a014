//! Which part of the plan a changed path concerns.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::config;
use crate::overlay::is_linked;
use crate::plan::{ListedLayers, WatchedPlan};

/// Files directly in the project that decide which apps, packages and stores it has.
const PROJECT_FILES: [&str; 7] = [
    config::FILE,
    "package.json",
    "pnpm-workspace.yaml",
    "package-lock.json",
    "pnpm-lock.yaml",
    "yarn.lock",
    "bun.lock",
];

/// Files that decide in any folder which files git ignores or converts.
const RULE_FILES: [&str; 2] = [".gitignore", ".gitattributes"];

/// What has to be planned again after a change.
#[derive(Debug, PartialEq, Eq)]
pub enum Concern {
    /// Nothing: the path is not part of the composition.
    Nothing,
    /// The entries of these folders.
    Folders(Vec<PathBuf>),
    /// Everything: the change is to the config, to rules or to the tree of stores.
    Everything,
}

/// The watched folders other than those of layers.
#[derive(Debug, Default)]
pub struct Places {
    /// The project and the folders above it in the repository. The project is the first.
    outer: Vec<PathBuf>,
    /// The folders of apps and stores.
    tree: BTreeSet<PathBuf>,
    /// The files of git.
    git: BTreeSet<PathBuf>,
}

impl Places {
    /// The places of a project.
    pub fn new(listed: &ListedLayers) -> Self {
        Self {
            outer: listed.outer_folders(),
            tree: listed.tree_folders().into_iter().collect(),
            git: listed.git_files().into_iter().collect(),
        }
    }

    /// The folders to watch beside those of layers.
    pub fn folders(&self) -> impl Iterator<Item = PathBuf> {
        let git = self.git.iter().filter_map(|file| file.parent());
        let git = git.map(Path::to_owned);
        let others = self.outer.iter().chain(&self.tree).cloned();
        others.chain(git)
    }

    /// What a changed path concerns. `is_entry`: it was created, removed or renamed.
    pub fn concern(&self, path: &Path, is_entry: bool, plan: &WatchedPlan) -> Concern {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Concern::Nothing;
        };
        let name = name.to_string_lossy();
        if self.git.contains(path) || RULE_FILES.contains(&&*name) {
            return Concern::Everything;
        }
        let project = self.outer.first();
        let apps = project.map(|project| project.join("apps"));
        if Some(parent) == project.map(PathBuf::as_path) {
            let is_tree = is_entry && (name == "apps" || is_linked(&name));
            if is_tree || PROJECT_FILES.contains(&&*name) {
                return Concern::Everything;
            }
        }
        let is_tree = self.tree.contains(parent) || self.tree.contains(path);
        if is_entry && is_tree {
            return Concern::Everything;
        }
        let is_base_app = parent.parent().is_some() && parent.parent() == apps.as_deref();
        if is_base_app && (name == "package.json" || (is_entry && name == "node_modules")) {
            return Concern::Everything;
        }
        if name == "node_modules" || name == ".git" {
            return Concern::Nothing;
        }
        let folders = [parent, path].into_iter();
        let folders = folders.filter(|folder| plan.is_layer_folder(folder));
        let folders: Vec<_> = folders.map(Path::to_owned).collect();
        if folders.is_empty() {
            Concern::Nothing
        } else {
            Concern::Folders(folders)
        }
    }
}
