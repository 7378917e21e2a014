//! Writes the links below `.out`: see [`crate::plan::OutLinks`].

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::super::failure::Io;
use super::folders::RealFolders;
use super::remove;
use crate::plan::{Plan, StorePlan};
use crate::store::AppName;
use crate::workspace::installed::{self, NODE_MODULES};

/// The links of one folder: a store's, or the neutral folder of a shared app.
pub struct FolderLinks {
    /// The texts of the links, by path relative to the folder.
    wanted: BTreeMap<String, PathBuf>,
    /// The `node_modules` folders in which only these links, caches and output may be.
    modules: Vec<String>,
    /// The `node_modules` of the project.
    installed: PathBuf,
}

/// What has to change so that a folder has its links.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct LinkChanges {
    /// Links to write.
    pub write: Vec<String>,
    /// Other links, and copies of installed packages that tools have made.
    pub remove: Vec<String>,
}

impl LinkChanges {
    /// Whether nothing has to change.
    pub fn is_empty(&self) -> bool {
        self.write.is_empty() && self.remove.is_empty()
    }
}

impl FolderLinks {
    /// The links of a store.
    pub fn of_store(plan: &Plan, store: &StorePlan) -> Self {
        let composed = store.compositions.iter().map(|it| it.unit.app.clone());
        Self::new(plan, &store.apps, &composed.collect::<Vec<_>>())
    }

    /// The links of one composed app. `apps` are the apps in its store.
    pub fn of_app(plan: &Plan, apps: &[AppName], app: &AppName) -> Self {
        let mut links = Self::new(plan, apps, std::slice::from_ref(app));
        let start = format!("{app}/");
        links.wanted.retain(|path, _| path.starts_with(&start));
        links.modules.retain(|path| path.starts_with(&start));
        links
    }

    /// The links of a neutral folder with these apps.
    pub fn neutral(plan: &Plan, apps: &[AppName]) -> Self {
        Self::new(plan, apps, apps)
    }

    fn new(plan: &Plan, apps: &[AppName], composed: &[AppName]) -> Self {
        let modules = composed.iter().map(|app| format!("{app}/{NODE_MODULES}"));
        Self {
            wanted: plan.links.of_store(apps, composed.iter()),
            modules: modules.chain([NODE_MODULES.to_owned()]).collect(),
            installed: plan.project.join(NODE_MODULES),
        }
    }

    /// The changes in a folder that does not exist.
    pub fn all(&self) -> LinkChanges {
        LinkChanges {
            write: self.wanted.keys().cloned().collect(),
            remove: Vec::new(),
        }
    }

    /// What differs in `folder`.
    pub fn changes(&self, folder: &Path) -> Result<LinkChanges, Io> {
        let mut changes = LinkChanges::default();
        // A folder that another program has replaced by a link is not read.
        let mut folders = RealFolders::new(folder.to_owned());
        for (path, text) in &self.wanted {
            let is_there = || std::fs::read_link(folder.join(path)).is_ok_and(|it| it == *text);
            if !folders.are_real(path) || !is_there() {
                changes.write.push(path.clone());
            }
        }
        for modules in &self.modules {
            let place = folder.join(modules);
            if place.is_symlink() {
                changes.remove.push(modules.clone());
                continue;
            }
            for entry in installed::entries(&place).map_err(Io::at("read", &place))? {
                let path = format!("{modules}/{}", entry.name);
                let is_copy = || {
                    entry.is_folder() && self.installed.join(&entry.name).symlink_metadata().is_ok()
                };
                if !self.wanted.contains_key(&path) && (entry.link.is_some() || is_copy()) {
                    changes.remove.push(path);
                }
            }
        }
        Ok(changes)
    }

    /// Makes the changes in `folder`. Whatever is at the path of a link is replaced.
    pub fn put_in_place(&self, folder: &Path) -> Result<(), Io> {
        let changes = self.changes(folder)?;
        if changes.is_empty() {
            return Ok(());
        }
        let mut folders = RealFolders::new(folder.to_owned());
        for path in &changes.remove {
            remove(&folder.join(path))?;
        }
        for path in &changes.write {
            folders.make(path)?;
            link(&folder.join(path), &self.wanted[path])?;
        }
        Ok(())
    }
}

/// Replaces whatever is at `place` by a link with this text.
fn link(place: &Path, text: &Path) -> Result<(), Io> {
    remove(place)?;
    std::os::unix::fs::symlink(text, place).map_err(Io::at("link", place))
}

/// The links beside the stores to what lies at the top of the project, with what has to change.
pub fn top_changes(plan: &Plan) -> Result<LinkChanges, Io> {
    let out = plan.project.join(".out");
    let mut changes = LinkChanges::default();
    let text = |name: &str| Path::new("..").join(name);
    for name in &plan.links.top {
        if std::fs::read_link(out.join(name)).ok() != Some(text(name)) {
            changes.write.push(name.clone());
        }
    }
    let entries = match std::fs::read_dir(&out) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(changes),
        entries => entries.map_err(Io::at("read", &out))?,
    };
    for entry in entries {
        let name = entry.map_err(Io::at("read", &out))?.file_name();
        let Ok(name) = name.into_string() else {
            continue;
        };
        let is_ours = std::fs::read_link(out.join(&name)).ok() == Some(text(&name));
        if is_ours && !plan.links.top.contains(&name) {
            changes.remove.push(name);
        }
    }
    changes.remove.sort();
    Ok(changes)
}

/// Writes the links beside the stores.
pub fn put_top_in_place(plan: &Plan) -> Result<(), Io> {
    let out = plan.project.join(".out");
    let changes = top_changes(plan)?;
    for name in &changes.remove {
        remove(&out.join(name))?;
    }
    for name in &changes.write {
        link(&out.join(name), &Path::new("..").join(name))?;
    }
    Ok(())
}
