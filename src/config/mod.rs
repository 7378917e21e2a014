//! `alokai.config.json` and the folders beside it, made into a [`Project`].
//!
//! The file is read as JSONC, held against the schema that [`raw`]'s types generate, and only
//! then deserialized; so unknown keys, wrong types and contradictions are all reported at once,
//! each with its place. The folders under `apps/` say which apps and stores there are.

mod check;
mod deployment;
mod discover;
mod package;
mod problem;
mod prune;
pub mod raw;
mod resolve;
mod size;

use std::path::{Path, PathBuf};

pub use check::{nearest, schema};
pub use discover::ProjectFolders;
pub use package::PackageJson;
pub use problem::{Error, Notice, NoticePlace, Problem};
pub use prune::{DROPPED, DropList, PruneRules};
pub use raw::{AppImage, ConsoleSection, ImageSection, RegistrySection};

use crate::files::{DiskFiles, FileTree};
use crate::store::{AppKind, AppName, Framework, Store, StoreTree};
use crate::workspace::{PackageManager, UnknownManager};
use oci::Platform;

/// The name of the config file; the folder that holds it is the project.
pub const FILE: &str = "alokai.config.json";

/// A folder `apps/<app>` with a `package.json`.
#[derive(Debug, Clone)]
pub struct BaseApp {
    /// The folder's name.
    pub name: AppName,
    /// What it is, which decides how it is built and imaged.
    pub kind: AppKind,
    /// What its `package.json` says.
    pub package: PackageJson,
}

/// A package of the workspace: code that apps depend on, built once for all stores.
#[derive(Debug, Clone)]
pub struct WorkspacePackage {
    /// The package's name, as others depend on it.
    pub name: String,
    /// Relative to the project.
    pub folder: String,
    /// What its `package.json` says.
    pub package: PackageJson,
}

/// Everything the config and the folder tree say, valid as a whole.
#[derive(Debug, Clone)]
pub struct Project {
    /// The folder with `alokai.config.json`, absolute.
    pub root: PathBuf,
    /// Base apps, by name.
    pub apps: Vec<BaseApp>,
    /// Packages of the workspace, by folder.
    pub packages: Vec<WorkspacePackage>,
    /// What the root `package.json` says; empty where there is none.
    pub package: PackageJson,
    /// All stores.
    pub stores: StoreTree,
    /// Settings for local development, by store id as the config has it.
    pub local: Vec<(String, StoreLocal)>,
    /// The optional sections, with defaults filled in.
    pub settings: ProjectSettings,
    /// What is odd but stops nothing, for people.
    pub notices: Vec<Notice>,
}

/// Where a store listens on a developer's machine.
#[derive(Debug, Clone, Default)]
pub struct StoreLocal {
    /// The key in `localPorts`, and the port.
    pub ports: Vec<(&'static str, u16)>,
    /// Its domain.
    pub domain: Option<String>,
}

/// The optional top-level sections.
#[derive(Debug, Clone, Default)]
pub struct ProjectSettings {
    /// How images are named and made.
    pub image: ImageSection,
    /// What images run on.
    pub platform: Platform,
    /// Where images are pushed.
    pub registry: RegistrySection,
    /// The console.
    pub console: ConsoleSection,
    /// How many scripts may run at once, if the config says.
    pub concurrency: Option<usize>,
    /// Bytes that all running scripts may take together, if the config says.
    pub max_memory: Option<u64>,
    /// Patterns of variables that scripts see, by app, package or `*`.
    pub env: Vec<(String, Vec<String>)>,
    /// Apps that are built without a store's name.
    pub shared: Vec<String>,
    /// Globs of files that every script may read.
    pub global_dependencies: Vec<String>,
    /// Whether scripts can open nothing but what their keys know.
    pub sandbox: bool,
    /// Bytes that the cache may take.
    pub cache_size: u64,
    /// Days that an unused result is kept.
    pub cache_days: u16,
    /// What stays in `.deploy`.
    pub prune: PruneRules,
}

impl Project {
    /// Reads the project that holds `start`: the nearest folder upwards with the config file.
    pub fn find(start: &Path) -> Result<Self, Error> {
        Self::load(&Self::root_of(start)?)
    }

    /// The folder of the project that holds `start`.
    pub fn root_of(start: &Path) -> Result<PathBuf, Error> {
        let mut folders = start.ancestors();
        let root = folders.find(|folder| folder.join(FILE).is_file());
        root.map(Path::to_owned).ok_or_else(|| Error::NotFound {
            start: start.to_owned(),
        })
    }

    /// Reads the project in `root` from disk.
    pub fn load(root: &Path) -> Result<Self, Error> {
        Self::load_from(&DiskFiles, root)
    }

    /// Reads the project in `root`, as it is in the working tree or was in a commit.
    pub fn load_from(files: &dyn FileTree, root: &Path) -> Result<Self, Error> {
        let path = root.join(FILE);
        let read = files.read(&path).and_then(|text| {
            String::from_utf8(text).map_err(|_| std::io::Error::other("it is not valid UTF-8"))
        });
        let text = read.map_err(|source| Error::Read {
            path: path.clone(),
            source,
        })?;
        let config = check::parse(&path, &text)?;
        let folders = discover::scan(files, root)?;
        resolve::resolve(root, &path, &text, config, folders)
    }

    /// The line of the config file, from 1, where a JSON pointer's value stands.
    pub fn config_line(&self, pointer: &[&str]) -> Option<usize> {
        let text = std::fs::read_to_string(self.root.join(FILE)).ok()?;
        let offset = check::locate(&text, pointer)?.offset();
        Some(text.get(..offset)?.matches('\n').count() + 1)
    }

    /// The package manager of the project.
    pub fn package_manager(&self) -> Result<PackageManager, UnknownManager> {
        let field = self.package.package_manager.as_deref();
        PackageManager::detect(&DiskFiles, &self.root, field)
    }

    /// The base app of that name.
    pub fn app(&self, name: &AppName) -> Option<&BaseApp> {
        self.apps.iter().find(|app| app.name == *name)
    }

    /// Workspace packages that a package depends on, directly or through others.
    pub fn packages_of(&self, package: &PackageJson) -> Vec<&WorkspacePackage> {
        let mut found: Vec<&WorkspacePackage> = Vec::new();
        let mut waiting = vec![package];
        while let Some(user) = waiting.pop() {
            for package in &self.packages {
                let is_needed = user.build_dependencies().any(|name| name == package.name);
                if is_needed && !found.iter().any(|known| known.name == package.name) {
                    found.push(package);
                    waiting.push(&package.package);
                }
            }
        }
        found
    }

    /// The apps a store consists of: every base app, except frontends of another framework.
    pub fn apps_of<'a>(&'a self, store: &Store) -> impl Iterator<Item = &'a BaseApp> {
        let wanted: Option<Framework> = store
            .deployment
            .as_ref()
            .and_then(|deployment| deployment.framework);
        self.apps
            .iter()
            .filter(move |app| match (app.kind.framework(), wanted) {
                (Some(own), Some(wanted)) => own == wanted,
                _ => true,
            })
    }
}
