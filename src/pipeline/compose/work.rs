//! What has to be done for one store: decided, then staged, then put in place.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use super::super::failure::Io;
use super::super::lock::own_folder;
use super::folders::Folders;
use super::manifest::{Manifest, Written};
use super::staging::Staging;
use crate::overlay::{Composition, Entry};
use crate::plan::{Plan, StorePlan};

/// Where a store's manifest lies.
pub fn manifest_path(plan: &Plan, store: &StorePlan) -> PathBuf {
    let name = format!("{}.json", store.id);
    plan.project.join(".alokai/manifests").join(name)
}

/// What differs from the last compose.
pub struct Work<'a> {
    project: &'a Path,
    /// `.out/<store>`.
    folder: PathBuf,
    manifest_path: PathBuf,
    /// Whether the folder holds what no manifest tells of; then it is made anew.
    is_unknown: bool,
    old: Manifest,
    /// By path relative to `folder`: everything that is to be there in the end.
    wanted: BTreeMap<String, &'a Entry>,
    write: BTreeMap<String, &'a Entry>,
    remove: Vec<String>,
    links: Vec<NodeModules>,
    /// Files of units that take no part now and stay as they are.
    untouched: BTreeMap<String, Written>,
}

impl<'a> Work<'a> {
    /// Compares the plan with the manifest and the disk.
    pub fn decide(plan: &'a Plan, store: &'a StorePlan) -> Result<Self, Io> {
        let folder = plan.project.join(".out").join(store.id.as_str());
        let manifest_path = manifest_path(plan, store);
        let known = Manifest::read(&manifest_path)?;
        // Without a manifest nobody knows what in the folder is of sources that are gone.
        let is_unknown = known.is_none() && folder.symlink_metadata().is_ok();
        let old = known.unwrap_or_default();
        let mut wanted = BTreeMap::new();
        let mut links = Vec::new();
        for composition in &store.compositions {
            let app = &composition.unit.app;
            for (path, entry) in &composition.entries {
                wanted.insert(format!("{app}/{path}"), entry);
            }
            links.push(NodeModules::of(&folder, composition));
        }
        let mut folders = Folders::new(folder.clone());
        let mut write = BTreeMap::new();
        for (path, entry) in &wanted {
            let is_there = folders.are_real(path) && old.holds(path, entry, &folder.join(path));
            if !is_there {
                write.insert(path.clone(), *entry);
            }
        }
        let (mut remove, mut untouched) = (Vec::new(), BTreeMap::new());
        for (path, written) in &old.files {
            let app = path.split('/').next().unwrap_or_default();
            let is_composed = store
                .compositions
                .iter()
                .any(|one| one.unit.app.as_str() == app);
            let is_of_store = store.apps.iter().any(|one| one.as_str() == app);
            if wanted.contains_key(path) {
                continue;
            }
            if is_composed || !is_of_store {
                remove.push(path.clone());
            } else {
                untouched.insert(path.clone(), written.clone());
            }
        }
        Ok(Self {
            project: &plan.project,
            folder,
            manifest_path,
            is_unknown,
            old,
            wanted,
            write,
            remove,
            links,
            untouched,
        })
    }

    /// Paths that would be written and removed.
    pub fn changes(self) -> (Vec<String>, Vec<String>) {
        let links = self
            .links
            .into_iter()
            .filter(NodeModules::differs)
            .map(|link| link.key);
        (self.write.into_keys().chain(links).collect(), self.remove)
    }

    /// Writes everything new to the staging folder; `.out/<store>` is not touched.
    pub fn stage(self, staging: &Staging) -> Result<Staged<'a>, Io> {
        self.links.iter().try_for_each(NodeModules::is_free)?;
        let files = self
            .write
            .par_iter()
            .map(|(path, entry)| Ok((path.clone(), staging.write(entry, &self.folder.join(path))?)))
            .collect::<Result<Vec<_>, Io>>()?;
        Ok(Staged { work: self, files })
    }
}

/// Work whose files are written and wait to be put in place.
pub struct Staged<'a> {
    work: Work<'a>,
    /// By path relative to the store's folder: where the file waits.
    files: Vec<(String, PathBuf)>,
}

impl Staged<'_> {
    /// Whether everything is as it should be already.
    pub fn is_empty(&self) -> bool {
        let work = &self.work;
        self.files.is_empty()
            && work.remove.is_empty()
            && work.old.complete
            && !work.links.iter().any(NodeModules::differs)
    }

    /// Removes, makes folders, renames; the manifest last. Returns how many files were written
    /// and removed.
    pub fn put_in_place(self) -> Result<(usize, usize), Io> {
        let Self { work, files } = self;
        own_folder(work.project)?;
        let mut pending = work.old.clone();
        pending.complete = false;
        for (path, _) in &files {
            pending.files.insert(path.clone(), Written::pending());
        }
        pending.write(&work.manifest_path)?;

        if work.is_unknown {
            let is_folder = work
                .folder
                .symlink_metadata()
                .is_ok_and(|metadata| metadata.is_dir());
            let removed = if is_folder {
                std::fs::remove_dir_all(&work.folder)
            } else {
                std::fs::remove_file(&work.folder)
            };
            removed.map_err(Io::at("remove", &work.folder))?;
        }
        let mut folders = Folders::new(work.folder.clone());
        for path in &work.remove {
            folders.remove(path)?;
        }
        for path in work
            .write
            .keys()
            .chain(work.links.iter().map(|link| &link.key))
        {
            folders.make(path)?;
        }
        for link in &work.links {
            link.make()?;
        }
        files.par_iter().try_for_each(|(path, temporary)| {
            let place = work.folder.join(path);
            match std::fs::rename(temporary, &place) {
                // A folder where a composed file belongs was put there by hand.
                Err(error) if error.kind() == std::io::ErrorKind::IsADirectory => {
                    std::fs::remove_dir_all(&place).map_err(Io::at("remove", &place))?;
                    std::fs::rename(temporary, &place).map_err(Io::at("write", &place))
                }
                other => other.map_err(Io::at("write", &place)),
            }
        })?;

        let mut manifest = Manifest {
            complete: true,
            files: work.untouched,
        };
        for (path, entry) in &work.wanted {
            let known = work
                .old
                .files
                .get(path)
                .filter(|_| !work.write.contains_key(path));
            let written = if let Some(written) = known {
                written.clone()
            } else {
                let file = work.folder.join(path);
                let metadata = file.symlink_metadata().map_err(Io::at("read", &file))?;
                Written::new(entry, &metadata)
            };
            manifest.files.insert(path.clone(), written);
        }
        manifest.write(&work.manifest_path)?;
        Ok((files.len(), work.remove.len()))
    }
}

/// A link from a composed app to its base app's own `node_modules`.
struct NodeModules {
    /// Relative to the store's folder.
    key: String,
    link: PathBuf,
    /// None takes a link away that is no longer wanted.
    target: Option<PathBuf>,
}

impl NodeModules {
    fn of(folder: &Path, composition: &Composition) -> Self {
        let app = &composition.unit.app;
        Self {
            key: format!("{app}/node_modules"),
            link: folder.join(app.as_str()).join("node_modules"),
            target: composition
                .own_node_modules
                .then(|| PathBuf::from(format!("../../../apps/{app}/node_modules"))),
        }
    }

    fn differs(&self) -> bool {
        std::fs::read_link(&self.link).ok() != self.target
    }

    /// Whether the place is free. Tools keep caches in `node_modules/.cache`; a folder with
    /// nothing else gives way, one with packages does not.
    fn is_free(&self) -> Result<(), Io> {
        let is_link = self
            .link
            .symlink_metadata()
            .is_ok_and(|metadata| metadata.is_symlink());
        if is_link || self.target.is_none() {
            return Ok(());
        }
        let Ok(mut entries) = std::fs::read_dir(&self.link) else {
            return Ok(());
        };
        let only_caches = entries.all(|entry| {
            entry.is_ok_and(|entry| entry.file_name().to_string_lossy().starts_with('.'))
        });
        if only_caches {
            return Ok(());
        }
        let error = std::io::Error::from(std::io::ErrorKind::DirectoryNotEmpty);
        Err(Io::at("replace", &self.link)(error))
    }

    fn make(&self) -> Result<(), Io> {
        if !self.differs() {
            return Ok(());
        }
        match self.link.symlink_metadata() {
            Ok(metadata) if metadata.is_symlink() => {
                std::fs::remove_file(&self.link).map_err(Io::at("remove", &self.link))?;
            }
            // Only caches, as the staging has seen.
            Ok(_) if self.target.is_some() => {
                std::fs::remove_dir_all(&self.link).map_err(Io::at("remove", &self.link))?;
            }
            _ => {}
        }
        let Some(target) = &self.target else {
            return Ok(());
        };
        std::os::unix::fs::symlink(target, &self.link).map_err(Io::at("link", &self.link))
    }
}
