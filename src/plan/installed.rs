//! What a task's dependencies resolve to: installed packages, by the part of the lock file that the
//! task uses, and folders of the project, whose content is an input.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::task::{Subject, Task};
use crate::config::{PackageJson, Project};
use crate::overlay::ContentId;
use crate::workspace::installed::{self, InstalledEntry, NODE_MODULES};
use crate::workspace::lockfile::{LockedFolder, Lockfile, Workspace};
use virtual_path::normalize;

/// Ranges in `package.json` that name a folder or an archive instead of a version.
const LOCAL: [&str; 3] = ["file:", "link:", "portal:"];

/// The project's lock file, as far as it pins installed packages.
pub enum DependencyLock {
    /// There is no lock file. Content ids of the manifests directly in the root `node_modules`, by
    /// package name.
    None(BTreeMap<String, String>),
    /// A lock file in a known format, with its name and content id.
    Parsed(Lockfile, String, ContentId),
    /// A lock file in an unknown format. All of it is an input of every task.
    Unparsed(String, ContentId),
}

/// What a task's dependencies resolve to.
#[derive(Debug, Default)]
pub struct ReachedDependencies {
    /// The lock file's entry for each installed package, by `name@version`.
    pub versions: BTreeMap<String, String>,
    /// Folders of workspace packages.
    pub packages: BTreeSet<String>,
    /// Folders of base apps.
    pub bases: BTreeSet<String>,
    /// Other files and folders of the project.
    pub named: BTreeSet<String>,
    /// A dependency whose content cannot be read, in backticks.
    pub unreadable: Option<String>,
}

impl DependencyLock {
    /// Reads the lock file of the project's package manager.
    pub fn read(project: &Project) -> Self {
        let name = super::files::lock_file_name(project);
        let found =
            name.and_then(|name| Some((name, std::fs::read(project.root.join(name)).ok()?)));
        let Some((name, text)) = found else {
            return Self::None(installed_manifests(&project.root.join(NODE_MODULES)));
        };
        let id = ContentId::of(&text);
        let root = folder("", &project.package);
        let apps: Vec<_> = project
            .apps
            .iter()
            .map(|app| format!("apps/{}", app.name))
            .collect();
        let of_apps = apps
            .iter()
            .zip(&project.apps)
            .map(|(path, app)| folder(path, &app.package));
        let packages = project
            .packages
            .iter()
            .map(|it| folder(&it.folder, &it.package));
        let workspace = Workspace {
            folders: [root].into_iter().chain(of_apps).chain(packages).collect(),
            resolutions: project
                .package
                .resolutions
                .keys()
                .map(String::as_str)
                .collect(),
        };
        match Lockfile::parse(name, &text, &workspace) {
            Some(lock) => Self::Parsed(lock, name.to_owned(), id),
            None => Self::Unparsed(name.to_owned(), id),
        }
    }

    /// What the task's dependencies resolve to: the dependencies of its folder, of the packages that
    /// it may read, and of the root, which every folder finds.
    pub fn reach(&self, project: &Project, task: &Task) -> ReachedDependencies {
        let mut local = ReachedDependencies {
            versions: self.versions(project, task),
            ..ReachedDependencies::default()
        };
        let identities: Vec<String> = local.versions.keys().cloned().collect();
        for identity in identities {
            if let Some(folder) = identity.strip_prefix("workspace:") {
                local.folder(project, task, folder);
            } else if let Some(path) = local_path(&identity) {
                local.path(project, "", path, &identity);
            }
        }
        // An unparsed lock file does not list local dependencies, so the manifests are read.
        let packages = project.packages.iter();
        let packages = packages.filter(|package| task.packages.contains(&package.name));
        let packages = packages.map(|package| (package.folder.as_str(), &package.package));
        let own = match &task.subject {
            Subject::Unit(unit) => project.app(&unit.app).map(|app| &app.package),
            Subject::Package(name) => {
                let mut packages = project.packages.iter();
                packages.find(|it| it.name == *name).map(|it| &it.package)
            }
        };
        let own = own.map(|package| (task.source.as_str(), package));
        for (folder, package) in packages.chain(own).chain([("", &project.package)]) {
            for (name, range) in ranges(package) {
                let path = LOCAL.iter().find_map(|start| range.strip_prefix(start));
                if let Some(path) = path {
                    local.path(project, folder, path, &format!("{name}@{range}"));
                }
            }
        }
        local
    }

    fn versions(&self, project: &Project, task: &Task) -> BTreeMap<String, String> {
        let (name, id) = match self {
            Self::None(manifests) => {
                let mut found = manifests.clone();
                let own = project.root.join(&task.source).join(NODE_MODULES);
                let own = installed_manifests(&own).into_iter();
                found.extend(own.map(|(name, id)| (format!("{}/{name}", task.source), id)));
                return found;
            }
            Self::Unparsed(name, id) => (name, id),
            Self::Parsed(lock, name, id) => {
                let packages = project.packages.iter();
                let packages = packages.filter(|package| task.packages.contains(&package.name));
                let folders: Vec<&str> = ["", &task.source]
                    .into_iter()
                    .chain(packages.map(|package| package.folder.as_str()))
                    .collect();
                if let Some(reached) = lock.reach(&folders) {
                    return reached;
                }
                (name, id)
            }
        };
        [(name.clone(), id.to_string())].into()
    }
}

impl ReachedDependencies {
    /// Adds a folder of the workspace.
    fn folder(&mut self, project: &Project, task: &Task, folder: &str) {
        if folder.is_empty() || folder == task.source {
            return;
        }
        if project.packages.iter().any(|it| it.folder == folder) {
            self.packages.insert(folder.to_owned());
        } else if project
            .apps
            .iter()
            .any(|app| format!("apps/{}", app.name) == folder)
        {
            self.bases.insert(folder.to_owned());
        } else {
            self.path(project, "", folder, folder);
        }
    }

    /// Adds the file or folder that the manifest in `folder` names by `path`.
    fn path(&mut self, project: &Project, folder: &str, path: &str, what: &str) {
        let path = path.split_once('#').map_or(path, |(path, _)| path);
        let path = path.split_once("::").map_or(path, |(path, _)| path);
        let near = normalize(&project.root.join(folder).join(path));
        let top = normalize(&project.root.join(path.trim_start_matches("../")));
        let place = [near, top].into_iter().find(|place| place.exists());
        let inside = place
            .as_deref()
            .and_then(|place| place.strip_prefix(&project.root).ok());
        match inside.and_then(Path::to_str) {
            Some(inside) if project.packages.iter().any(|it| it.folder == inside) => {
                self.packages.insert(inside.to_owned());
            }
            Some(inside) if inside.starts_with("apps/") => {
                self.bases.insert(inside.to_owned());
            }
            Some(inside) if !inside.is_empty() => {
                self.named.insert(inside.to_owned());
            }
            _ => self.unreadable = Some(format!("`{}`", what.escape_debug())),
        }
    }
}

/// The path in `foo@file:./vendor/foo`.
fn local_path(identity: &str) -> Option<&str> {
    let (_, range) = identity.get(1..)?.split_once('@')?;
    LOCAL.iter().find_map(|start| range.strip_prefix(start))
}

fn ranges(package: &PackageJson) -> impl Iterator<Item = (&str, &str)> {
    let needs = [
        &package.dependencies,
        &package.dev_dependencies,
        &package.optional_dependencies,
    ];
    let needs = needs.into_iter().flatten();
    needs.map(|(name, range)| (name.as_str(), range.as_str()))
}

fn folder<'a>(path: &'a str, package: &'a PackageJson) -> LockedFolder<'a> {
    LockedFolder {
        path,
        name: package.name.as_deref(),
        needs: ranges(package).collect(),
    }
}

/// Content ids of the manifests of the packages directly in a `node_modules` folder. With pnpm these
/// are links. Links to workspace packages are left out, because the files of those are inputs themselves.
fn installed_manifests(node_modules: &Path) -> BTreeMap<String, String> {
    let entries = installed::entries(node_modules).unwrap_or_default();
    let packages = entries.into_iter().filter(|entry| !entry.is_program());
    let manifest = |entry: InstalledEntry| {
        let file = node_modules.join(&entry.name).join("package.json");
        let real = file.canonicalize().ok()?;
        if entry.link.is_some() && !installed::is_installed(&real) {
            return None;
        }
        let id = ContentId::of_file(&file).ok()?;
        Some((format!("{}@installed", entry.name), id.to_string()))
    };
    packages.filter_map(manifest).collect()
}
