//! What is installed, as the lock file has it: the part that a task reaches.

use std::collections::BTreeMap;

use super::task::Task;
use crate::config::{PackageJson, Project};
use crate::files::Disk;
use crate::overlay::ContentId;
use crate::workspace::lockfile::{Folder, Lockfile, Workspace};

/// The project's lock file.
pub enum Lock {
    /// There is none.
    None,
    /// It can be followed.
    Known(Lockfile, String, ContentId),
    /// It cannot, so all of it counts.
    Whole(String, ContentId),
}

impl Lock {
    /// Reads the first that is there.
    pub fn read(project: &Project) -> Self {
        let manager = project.package_manager().ok();
        let name = manager.and_then(|manager| manager.lock_file(&Disk, &project.root));
        let found =
            name.and_then(|name| Some((name, std::fs::read(project.root.join(name)).ok()?)));
        let Some((name, text)) = found else {
            return Self::None;
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
            Some(lock) => Self::Known(lock, name.to_owned(), id),
            None => Self::Whole(name.to_owned(), id),
        }
    }

    /// What is installed for the task: what its folder reaches, what the packages reach whose
    /// files it may read, and what the root brings for all.
    pub fn reach(&self, project: &Project, task: &Task) -> BTreeMap<String, String> {
        let (name, id) = match self {
            Self::None => return BTreeMap::new(),
            Self::Whole(name, id) => (name, id),
            Self::Known(lock, name, id) => {
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

fn folder<'a>(path: &'a str, package: &'a PackageJson) -> Folder<'a> {
    let needs = [
        &package.dependencies,
        &package.dev_dependencies,
        &package.optional_dependencies,
    ];
    let needs = needs.into_iter().flatten();
    Folder {
        path,
        name: package.name.as_deref(),
        needs: needs
            .map(|(name, range)| (name.as_str(), range.as_str()))
            .collect(),
    }
}
