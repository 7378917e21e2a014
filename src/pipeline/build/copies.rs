//! Copies of an app's own packages while its script runs.
//!
//! A package that is a folder in the base app's `node_modules` is linked into composed apps. A script
//! can write to it by accident: Next.js copies traced files to paths that it computes from the
//! app's folder, and `node_modules/react` may be among them. So each link is replaced by a copy while the
//! script runs.

use std::path::{Path, PathBuf};

use walkdir::WalkDir;

use super::super::compose::{FolderLinks, remove};
use super::super::failure::Io;
use super::surroundings::apps_beside;
use crate::plan::{Plan, TaskId};
use crate::workspace::installed::NODE_MODULES;
use virtual_path::normalize;

/// An app whose own packages are copies.
pub struct PackageCopies {
    links: FolderLinks,
    /// The folder of the store.
    store: PathBuf,
}

impl PackageCopies {
    /// Replaces links by copies in `folder`, in which the task's script runs. None for a package.
    pub fn make(plan: &Plan, id: TaskId, folder: &Path) -> Result<Option<Self>, Io> {
        let Some(unit) = plan.task(id).subject.unit() else {
            return Ok(None);
        };
        // From here on the links come back, also after an error.
        let copies = Self {
            links: FolderLinks::of_app(plan, &apps_beside(plan, id), &unit.app),
            store: folder.parent().unwrap_or(folder).to_owned(),
        };
        let base = plan.project.join("apps").join(unit.app.as_str());
        let base = base.join(NODE_MODULES);
        let modules = folder.join(NODE_MODULES);
        for name in plan.links.own_packages(&unit.app) {
            let to = modules.join(name);
            remove(&to)?;
            copy(&base, Path::new(name), &to)?;
        }
        Ok(Some(copies))
    }

    /// Puts the links back, and removes copies of installed packages that the script has made.
    pub fn replace(self) -> Result<(), Io> {
        self.links.put_in_place(&self.store)
    }
}

impl Drop for PackageCopies {
    fn drop(&mut self) {
        // The next compose repairs what this cannot.
        let _ = self.links.put_in_place(&self.store);
    }
}

/// Copies the package `name` of `base`, a `node_modules` folder.
fn copy(base: &Path, name: &Path, to: &Path) -> Result<(), Io> {
    let from = base.join(name);
    for entry in WalkDir::new(&from) {
        let entry = entry.map_err(|error| {
            let path = error.path().unwrap_or(&from).to_owned();
            Io::at("read", &path)(error.into())
        })?;
        let path = entry.path();
        let target = match path.strip_prefix(&from) {
            Ok(inside) if inside != Path::new("") => to.join(inside),
            _ => to.to_owned(),
        };
        if entry.file_type().is_dir() {
            std::fs::create_dir_all(&target).map_err(Io::at("create the folder", &target))?;
        } else if entry.file_type().is_symlink() {
            let text = std::fs::read_link(path).map_err(Io::at("read", path))?;
            let text = outward(base, path, text);
            std::os::unix::fs::symlink(text, &target).map_err(Io::at("link", &target))?;
        } else {
            std::fs::copy(path, &target).map_err(Io::at("copy", path))?;
        }
    }
    Ok(())
}

/// The text of a link in the copy. A link that leaves `node_modules` leads to the same place.
fn outward(base: &Path, link: &Path, text: PathBuf) -> PathBuf {
    let full = normalize(&link.parent().unwrap_or(base).join(&text));
    if full.starts_with(base) { text } else { full }
}
