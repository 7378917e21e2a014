//! Reads `alokai.config.json` and the folder tree into a [`Project`].
//!
//! The file is parsed as JSONC and checked against the schema of the types in [`raw`] before it is
//! deserialized. So all unknown keys, wrong types and contradictions are reported at once, each
//! with its place. Apps and stores are found in the folders under `apps/`.

mod check;
mod deployment;
mod discover;
mod hooks;
mod kubernetes;
mod package;
mod problem;
mod prune;
pub mod raw;
mod resolve;
mod size;
mod start;

use std::path::{Path, PathBuf};

pub use check::{nearest, schema};
pub use deployment::is_project_name;
pub use discover::ProjectFolders;
pub use hooks::{
    Hook, HookFailure, HookPlace, HookStage, HookTime, HookValue, HookValuePart, default_app,
};
pub use kubernetes::{
    AccessMode, GatewaySection, IngressRewrite, IngressSection, KubernetesProbe, KubernetesSection,
    ResourcesEntry, StorageSection,
};
pub use package::PackageJson;
pub use problem::{Error, Notice, NoticePlace, Problem};
pub use prune::{DROPPED, DropList, PruneRules};
pub use raw::{
    AppImage, ConsoleSection, DataSection, DeploySection, DockerSection, HealthEntry, ImageSection,
    ProxySection, RegistrySection, SwarmSection, VerifyMode,
};
pub use size::parse as size_of;
pub use start::{AppReference, StartRules, TemplatePart, ValueTemplate, is_variable_name};

use crate::files::{DiskFiles, FileTree};
use crate::store::{AppKind, AppName, Deployment, Framework, Store, StoreTree, TargetKind};
use crate::workspace::{PackageManager, UnknownManager};
use oci::Platform;

/// The name of the config file. The project is the folder that contains it.
pub const FILE: &str = "alokai.config.json";

/// A folder `apps/<app>` with a `package.json`.
#[derive(Debug, Clone)]
pub struct BaseApp {
    /// The folder's name.
    pub name: AppName,
    /// Frontend, middleware or another kind. It decides how the app is built and imaged.
    pub kind: AppKind,
    /// Its `package.json`.
    pub package: PackageJson,
}

/// A workspace package: code that apps depend on, built once for all stores.
#[derive(Debug, Clone)]
pub struct WorkspacePackage {
    /// The name of the package.
    pub name: String,
    /// Relative to the project.
    pub folder: String,
    /// Its `package.json`.
    pub package: PackageJson,
}

/// The content of the config and the folder tree, checked as a whole.
#[derive(Debug, Clone)]
pub struct Project {
    /// The folder with `alokai.config.json`, absolute.
    pub root: PathBuf,
    /// Base apps, by name.
    pub apps: Vec<BaseApp>,
    /// Packages of the workspace, by folder.
    pub packages: Vec<WorkspacePackage>,
    /// The root `package.json`. Empty if there is none.
    pub package: PackageJson,
    /// All stores.
    pub stores: StoreTree,
    /// Settings for local development, by store id as the config has it.
    pub local: Vec<(String, StoreLocal)>,
    /// The optional sections, with defaults filled in.
    pub settings: ProjectSettings,
    /// Problems that are not errors.
    pub notices: Vec<Notice>,
}

/// The addresses of a store on the machine of a developer.
#[derive(Debug, Clone, Default)]
pub struct StoreLocal {
    /// The ports, by key in `localPorts`.
    pub ports: Vec<(&'static str, u16)>,
    /// Its domain.
    pub domain: Option<String>,
}

/// The optional top-level sections.
#[derive(Debug, Clone, Default)]
pub struct ProjectSettings {
    /// How images are named and made.
    pub image: ImageSection,
    /// The platform of images.
    pub platform: Platform,
    /// Where images are pushed.
    pub registry: RegistrySection,
    /// The console.
    pub console: ConsoleSection,
    /// The most scripts that run at once, if configured.
    pub concurrency: Option<usize>,
    /// The memory limit of all running scripts together in bytes, if configured.
    pub max_memory: Option<u64>,
    /// Patterns of variables that scripts see, by app, package or `*`.
    pub env: Vec<(String, Vec<String>)>,
    /// Apps that are built once for all stores.
    pub shared: Vec<String>,
    /// Globs of files that every script may read.
    pub global_dependencies: Vec<String>,
    /// Whether scripts run in a sandbox.
    pub sandbox: bool,
    /// The most bytes of the cache.
    pub cache_size: u64,
    /// The days after which an unused result is removed.
    pub cache_days: u16,
    /// The most bytes of the caches that the tools of one app or package keep.
    pub tool_cache_size: u64,
    /// The days after which these caches are no longer used.
    pub tool_cache_days: u16,
    /// The rules for `.deploy`.
    pub prune: PruneRules,
    /// The variables of apps that are started on this machine.
    pub start: StartRules,
    /// Where stores run, and how a release becomes live.
    pub deploy: DeploySection,
    /// The hooks, in the order of the file.
    pub hooks: Vec<Hook>,
}

impl Project {
    /// Reads the project that contains `start`: the nearest folder upwards with a config file.
    pub fn find(start: &Path) -> Result<Self, Error> {
        Self::load(&Self::root_of(start)?)
    }

    /// The folder of the project that contains `start`.
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

    /// Reads the project in `root` from the working tree or from a commit.
    pub fn load_from(files: &dyn FileTree, root: &Path) -> Result<Self, Error> {
        let path = root.join(FILE);
        let read = files.read(&path).and_then(|text| {
            String::from_utf8(text)
                .map_err(|_| std::io::Error::other("the file is not valid UTF-8"))
        });
        let text = read.map_err(|source| Error::Read {
            path: path.clone(),
            source,
        })?;
        let config = check::parse(&path, &text)?;
        let folders = discover::scan(files, root)?;
        resolve::resolve(root, &path, &text, config, folders)
    }

    /// The line of the config file, counted from 1, with the value of a JSON pointer.
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

    /// The base app with this name.
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

    /// The apps of a store: all base apps, except frontends of another framework.
    pub fn apps_of<'a>(&'a self, store: &Store) -> impl Iterator<Item = &'a BaseApp> {
        let wanted: Option<Framework> = store
            .deployment
            .as_ref()
            .and_then(|deployment| deployment.framework);
        apps_of(&self.apps, wanted)
    }

    /// Where a store runs, without `--local`.
    pub fn target_of(&self, deployment: &Deployment) -> TargetKind {
        deployment.target.unwrap_or(self.settings.deploy.target)
    }
}

/// The apps of a store that names this framework.
fn apps_of(apps: &[BaseApp], wanted: Option<Framework>) -> impl Iterator<Item = &BaseApp> {
    apps.iter()
        .filter(move |app| match (app.kind.framework(), wanted) {
            (Some(own), Some(wanted)) => own == wanted,
            _ => true,
        })
}
