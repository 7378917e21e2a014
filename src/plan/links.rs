//! The links below `.out` through which a composed app finds what its base app finds: installed
//! packages, the store's other apps by their package names, and the top of the project.
//!
//! A composed app never has a link to a folder of `node_modules`, because tools write there: Next.js
//! copies files to paths that it computes from the app's folder. It has a folder with one link for
//! each package.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};

use super::Error;
use crate::config::Project;
use crate::overlay::is_linked;
use crate::store::AppName;
use crate::workspace::installed::{self, InstalledEntry, NODE_MODULES};
use virtual_path::normalize;

/// The links of the project's `.out`.
#[derive(Debug, Default)]
pub struct OutLinks {
    /// The names at the top of the project that `.out` links to.
    pub top: BTreeSet<String>,
    apps: BTreeMap<AppName, AppModules>,
}

/// What a base app's own `node_modules` has, and the name by which other apps import the app.
#[derive(Debug, Default)]
struct AppModules {
    package_name: Option<String>,
    entries: Vec<ModuleEntry>,
}

/// An entry of a base app's own `node_modules`.
#[derive(Debug)]
struct ModuleEntry {
    installed: InstalledEntry,
    target: ModuleTarget,
}

/// Where the link of an entry leads in a composed app.
#[derive(Debug)]
enum ModuleTarget {
    /// To the same place below the composed app's `node_modules`.
    Beside(PathBuf),
    /// To a path of the project.
    Project(PathBuf),
    /// To another app of the same store.
    App(AppName),
}

/// Fails if a store has the name of something at the top of the project, linked or not: `../../<name>`
/// of a composed app must not lead to another store.
pub fn check_store_ids(project: &Project) -> Result<(), Error> {
    let is_taken = |id: &str| project.root.join(id).symlink_metadata().is_ok();
    let stores = project.stores.deployables();
    let taken = stores.filter(|store| is_taken(store.id.as_str()));
    let taken: Vec<String> = taken.map(|store| store.id.to_string()).collect();
    if taken.is_empty() {
        return Ok(());
    }
    Err(Error::StoreIdsAtTop {
        project: project.root.clone(),
        taken,
    })
}

/// Whether it is the name of the neutral folder of an app.
fn is_neutral(project: &Project, name: &str) -> bool {
    let app = name.strip_prefix('_');
    app.is_some_and(|app| project.apps.iter().any(|it| it.name.as_str() == app))
}

impl OutLinks {
    /// Reads the top of the project and the `node_modules` of each base app.
    pub fn read(project: &Project) -> Result<Self, Error> {
        let reading = |path: &Path| {
            let path = path.to_owned();
            move |source| Error::Read { path, source }
        };
        let mut top = BTreeSet::new();
        let entries = std::fs::read_dir(&project.root).map_err(reading(&project.root))?;
        for entry in entries {
            let name = entry.map_err(reading(&project.root))?.file_name();
            let name = name.into_string().ok().filter(|name| is_linked(name));
            top.extend(name.filter(|name| !is_neutral(project, name)));
        }
        check_store_ids(project)?;
        let mut apps = BTreeMap::new();
        for app in &project.apps {
            let folder = PathBuf::from(format!("apps/{}/{NODE_MODULES}", app.name));
            let place = project.root.join(&folder);
            let installed = installed::entries(&place).map_err(reading(&place))?;
            let names: BTreeSet<&str> = installed.iter().map(|it| it.name.as_str()).collect();
            // The text of a link is relative to the place where the folder really is.
            let is_link = place.is_symlink();
            let target = |entry: &InstalledEntry| {
                let link = entry.link.as_deref().filter(|_| !is_link);
                target(project, &folder, entry, link, &names)
            };
            let targets: Vec<ModuleTarget> = installed.iter().map(target).collect();
            let entries = installed.into_iter().zip(targets);
            let package_name = app.package.name.clone();
            let modules = AppModules {
                package_name: package_name.filter(|name| installed::is_package_name(name)),
                entries: entries
                    .map(|(installed, target)| ModuleEntry { installed, target })
                    .collect(),
            };
            apps.insert(app.name.clone(), modules);
        }
        Ok(Self { top, apps })
    }

    /// The links of a store that has these apps: by path in the store's folder, the text of each
    /// link. `composed` are the apps that are composed.
    pub fn of_store<'a>(
        &self,
        apps: &[AppName],
        composed: impl Iterator<Item = &'a AppName>,
    ) -> BTreeMap<String, PathBuf> {
        let mut links = BTreeMap::new();
        for app in apps {
            if let Some(name) = self.package_name(app) {
                let path = format!("{NODE_MODULES}/{name}");
                links
                    .entry(path)
                    .or_insert_with_key(|path| up(depth(path)).join(app.as_str()));
            }
        }
        for app in composed {
            for entry in self.entries(app) {
                let path = format!("{app}/{NODE_MODULES}/{}", entry.installed.name);
                let text = match &entry.target {
                    ModuleTarget::Beside(link) => link.clone(),
                    // `.out/<store>` is two folders below the project.
                    ModuleTarget::Project(target) => up(depth(&path) + 2).join(target),
                    ModuleTarget::App(other) if apps.contains(other) => {
                        up(depth(&path)).join(other.as_str())
                    }
                    ModuleTarget::App(_) => continue,
                };
                links.insert(path, text);
            }
        }
        links
    }

    /// The package name of an app.
    pub fn package_name(&self, app: &AppName) -> Option<&str> {
        self.apps.get(app)?.package_name.as_deref()
    }

    /// The packages and programs that are in the app's own `node_modules`, and not links to other places.
    pub fn own_packages(&self, app: &AppName) -> impl Iterator<Item = &str> {
        let entries = self.entries(app).iter();
        let folders = entries.filter(|entry| entry.installed.link.is_none());
        folders.map(|entry| entry.installed.name.as_str())
    }

    fn entries(&self, app: &AppName) -> &[ModuleEntry] {
        self.apps.get(app).map_or(&[], |modules| &modules.entries)
    }
}

/// Where an entry of `folder`, the `node_modules` of a base app, leads.
fn target(
    project: &Project,
    folder: &Path,
    entry: &InstalledEntry,
    link: Option<&Path>,
    names: &BTreeSet<&str>,
) -> ModuleTarget {
    let place = folder.join(&entry.name);
    let Some(link) = link.filter(|link| link.is_relative()) else {
        return ModuleTarget::Project(place);
    };
    let full = project.root.join(place.parent().unwrap_or(folder));
    let full = normalize(&full.join(link));
    let Ok(inside) = full.strip_prefix(&project.root) else {
        return ModuleTarget::Project(place);
    };
    let app = inside.strip_prefix("apps").ok();
    let app = app.and_then(|app| app.to_str());
    if let Some(app) = project.apps.iter().find(|it| Some(it.name.as_str()) == app) {
        return ModuleTarget::App(app.name.clone());
    }
    let is_beside = inside
        .strip_prefix(folder)
        .is_ok_and(|inner| names.iter().any(|name| inner.starts_with(name)));
    if is_beside {
        return ModuleTarget::Beside(link.to_owned());
    }
    let is_plain = inside
        .components()
        .all(|part| matches!(part, Component::Normal(_)));
    if is_plain && inside.components().next().is_some() {
        ModuleTarget::Project(inside.to_owned())
    } else {
        ModuleTarget::Project(place)
    }
}

/// How many folders the path has above its last part.
fn depth(path: &str) -> usize {
    path.matches('/').count()
}

fn up(folders: usize) -> PathBuf {
    std::iter::repeat_n("..", folders).collect()
}
