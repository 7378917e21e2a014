//! The update of one store: what differs is decided, then staged, then moved into place.
//!
//! A store that does not exist yet is staged as a whole and renamed at once. Of an existing store
//! only the files that differ are staged, and each is renamed into place.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use super::super::failure::Io;
use super::super::lock::own_folder;
use super::folders::RealFolders;
use super::links::{FolderLinks, LinkChanges};
use super::manifest::{ComposedFileState, ManifestFiles, StoreManifest, WrittenFile, is_below};
use super::sources::SourceFiles;
use super::staging::{StagingFolder, write_entry};
use super::{ChangedFiles, NAMED_FILES, remove};
use crate::overlay::Entry;
use crate::plan::{Plan, StorePlan};

/// What has to change in one store.
pub struct StoreUpdate<'a> {
    project: &'a Path,
    store: &'a StorePlan,
    /// `.out/<store>`.
    folder: PathBuf,
    manifest_files: ManifestFiles,
    /// Whether the store has no folder or no manifest, so that all of it is written.
    is_new: bool,
    /// Whether the last compose has completed.
    is_complete: bool,
    write: Vec<ComposedPath<'a>>,
    /// Files with the right content, whose record in the manifest has to be renewed.
    touched: Vec<ComposedPath<'a>>,
    remove: Vec<String>,
    links: FolderLinks,
    /// What differs in the links.
    link_changes: LinkChanges,
    /// Whether the links are compared and written too.
    has_links: bool,
}

/// A path to write.
#[derive(Clone, Copy)]
pub struct ComposedPath<'a> {
    app: &'a str,
    path: &'a str,
    entry: &'a Entry,
}

impl ComposedPath<'_> {
    /// Relative to the store's folder.
    fn key(&self) -> String {
        let mut key = String::new();
        self.write_key(&mut key);
        key
    }

    /// Writes the key into an existing string.
    fn write_key(&self, key: &mut String) {
        key.clear();
        key.push_str(self.app);
        key.push('/');
        key.push_str(self.path);
    }
}

/// Every path of the store's compositions.
fn wanted(store: &StorePlan) -> impl Iterator<Item = ComposedPath<'_>> {
    store.compositions.iter().flat_map(|composition| {
        let app = composition.unit.app.as_str();
        let entries = composition.entries.iter();
        entries.map(move |(path, entry)| ComposedPath { app, path, entry })
    })
}

impl<'a> StoreUpdate<'a> {
    /// Compares the plan with the manifest and the disk.
    pub fn decide(plan: &'a Plan, store: &'a StorePlan) -> Result<Self, Io> {
        let folder = plan.project.join(".out").join(store.id.as_str());
        let manifest_files = ManifestFiles::new(&plan.project, store.id.as_str());
        let mut work = Self {
            project: &plan.project,
            store,
            links: FolderLinks::of_store(plan, store),
            link_changes: LinkChanges::default(),
            folder,
            manifest_files,
            is_new: true,
            is_complete: true,
            write: Vec::new(),
            touched: Vec::new(),
            remove: Vec::new(),
            has_links: true,
        };
        let metadata = work.folder.symlink_metadata();
        let exists = metadata.is_ok_and(|metadata| metadata.is_dir());
        // Without a manifest, files of removed sources cannot be told from files of builds.
        let known = work.manifest_files.read()?.filter(|_| exists);
        let Some(old) = known else {
            work.write = wanted(store).collect();
            work.link_changes = work.links.all();
            return Ok(work);
        };
        work.link_changes = work.links.changes(&work.folder)?;
        work.is_new = false;
        work.is_complete = old.under_way.is_empty();
        let mut folders = RealFolders::new(work.folder.clone());
        let mut key = String::new();
        for item in wanted(store) {
            item.write_key(&mut key);
            let state = if folders.are_real(&key) {
                old.compare(&key, item.entry, &work.folder.join(&key))
            } else {
                ComposedFileState::Different
            };
            match state {
                ComposedFileState::Unchanged => {}
                ComposedFileState::Touched => work.touched.push(item),
                ComposedFileState::Different => work.write.push(item),
            }
        }
        let gone = old.paths();
        let gone = gone.filter(|path| work.is_obsolete(path) && is_below(path));
        work.remove = gone.map(str::to_owned).collect();
        Ok(work)
    }

    /// The update of these paths, which are relative to the store's folder. Neither the manifest nor other
    /// files are looked at. If the last compose did not complete, the whole store is compared.
    pub fn of_paths(
        plan: &'a Plan,
        store: &'a StorePlan,
        paths: &BTreeSet<String>,
    ) -> Result<Self, Io> {
        let folder = plan.project.join(".out").join(store.id.as_str());
        let manifest_files = ManifestFiles::new(&plan.project, store.id.as_str());
        let metadata = folder.symlink_metadata();
        if !metadata.is_ok_and(|it| it.is_dir()) || !manifest_files.is_complete() {
            return Self::decide(plan, store);
        }
        let (mut write, mut remove) = (Vec::new(), Vec::new());
        for key in paths.iter().filter(|path| is_below(path)) {
            let (app, path) = key.split_once('/').unwrap_or((key, ""));
            let mut compositions = store.compositions.iter();
            let composition = compositions.find(|one| one.unit.app.as_str() == app);
            let entry = composition.and_then(|one| one.entries.get_key_value(path));
            match (composition, entry) {
                (Some(composition), Some((path, entry))) => write.push(ComposedPath {
                    app: composition.unit.app.as_str(),
                    path,
                    entry,
                }),
                _ => remove.push(key.clone()),
            }
        }
        Ok(Self {
            project: &plan.project,
            store,
            links: FolderLinks::of_store(plan, store),
            link_changes: LinkChanges::default(),
            folder,
            manifest_files,
            is_new: false,
            is_complete: true,
            write,
            touched: Vec::new(),
            remove,
            has_links: false,
        })
    }

    /// Whether a path of the last compose is obsolete: its app is composed without it, or the
    /// store no longer has the app. Apps that are not composed in this run keep their files.
    fn is_obsolete(&self, path: &str) -> bool {
        let (app, inside) = path.split_once('/').unwrap_or((path, ""));
        let mut compositions = self.store.compositions.iter();
        match compositions.find(|one| one.unit.app.as_str() == app) {
            Some(composition) => !composition.entries.contains_key(inside),
            None => !self.store.apps.iter().any(|one| one.as_str() == app),
        }
    }

    /// The paths that would be written, and those that would be removed.
    pub fn changes(self) -> (Vec<String>, Vec<String>) {
        let write = self.write.iter().map(ComposedPath::key);
        let exists = |path: &String| self.folder.join(path).symlink_metadata().is_ok();
        let remove = self.remove.iter().filter(|path| exists(path)).cloned();
        let links = self.link_changes;
        (
            write.chain(links.write).collect(),
            remove.chain(links.remove).collect(),
        )
    }

    /// The entries that will be written.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.write.iter().map(|item| item.entry)
    }

    /// Writes all new files to the staging folder. `.out/<store>` is not changed.
    pub fn stage(
        self,
        staging: &StagingFolder,
        sources: &SourceFiles,
    ) -> Result<StagedStore<'a>, Io> {
        if self.is_new {
            return self.stage_whole(staging, sources);
        }
        let stage = |item: &ComposedPath<'a>| {
            let file = staging.file();
            write_entry(&file, item.entry, sources, &self.folder.join(item.key()))?;
            Ok((*item, file))
        };
        let files = self
            .write
            .par_iter()
            .map(stage)
            .collect::<Result<_, Io>>()?;
        Ok(StagedStore::Files {
            work: Box::new(self),
            files,
        })
    }

    /// Writes the complete store and its manifest.
    fn stage_whole(
        self,
        staging: &StagingFolder,
        sources: &SourceFiles,
    ) -> Result<StagedStore<'a>, Io> {
        own_folder(self.project)?;
        let whole = staging.store(self.store.id.as_str());
        std::fs::create_dir(&whole).map_err(Io::at("create the folder", &whole))?;
        let mut folders = RealFolders::new(whole.clone());
        for item in &self.write {
            folders.make(&item.key())?;
        }
        let write = |item: &ComposedPath| {
            let key = item.key();
            let place = self.folder.join(&key);
            let metadata = write_entry(&whole.join(&key), item.entry, sources, &place)?;
            Ok((key, WrittenFile::new(item.entry, &metadata)))
        };
        let files = self.write.par_iter().with_min_len(32).map(write);
        let manifest = StoreManifest {
            files: files.collect::<Result<_, Io>>()?,
            ..StoreManifest::default()
        };
        self.links.put_in_place(&whole)?;
        self.manifest_files.prepare(&manifest)?;
        let count = manifest.files.len();
        let Self {
            folder,
            manifest_files,
            ..
        } = self;
        Ok(StagedStore::Whole {
            folder,
            manifest_files,
            whole,
            count,
        })
    }
}

/// A store whose new files are complete in the staging folder.
pub enum StagedStore<'a> {
    /// A store that is replaced as a whole.
    Whole {
        /// `.out/<store>`.
        folder: PathBuf,
        /// The files of its manifest.
        manifest_files: ManifestFiles,
        /// Its folder in the staging folder.
        whole: PathBuf,
        /// The number of its files.
        count: usize,
    },
    /// Files of a store that exists.
    Files {
        /// What has to change.
        work: Box<StoreUpdate<'a>>,
        /// Each file with its path in the staging folder.
        files: Vec<(ComposedPath<'a>, PathBuf)>,
    },
}

impl StagedStore<'_> {
    /// Removes obsolete files, creates folders, renames new files, and writes the manifest last.
    pub fn put_in_place(self) -> Result<ChangedFiles, Io> {
        match self {
            Self::Files { work, files } => work.put_in_place(&files),
            Self::Whole {
                folder,
                manifest_files,
                whole,
                count,
            } => {
                manifest_files.forget()?;
                remove(&folder)?;
                std::fs::rename(&whole, &folder).map_err(Io::at("write", &folder))?;
                manifest_files.adopt()?;
                Ok(ChangedFiles {
                    written: count,
                    removed: 0,
                    first: Vec::new(),
                })
            }
        }
    }
}

impl StoreUpdate<'_> {
    fn put_in_place(self, files: &[(ComposedPath, PathBuf)]) -> Result<ChangedFiles, Io> {
        let nothing = files.is_empty()
            && self.remove.is_empty()
            && self.touched.is_empty()
            && self.is_complete
            && self.link_changes.is_empty();
        if nothing {
            return Ok(ChangedFiles::default());
        }
        let written: Vec<String> = files.iter().map(|(item, _)| item.key()).collect();
        let under_way = written.iter().chain(&self.remove).map(String::as_str);
        self.manifest_files.begin(&under_way.collect())?;
        let changed = written.iter().chain(&self.remove);
        let first = changed.take(NAMED_FILES).cloned().collect();

        let mut folders = RealFolders::new(self.folder.clone());
        for path in &self.remove {
            folders.remove(path)?;
        }
        for path in &written {
            folders.make(path)?;
        }
        if self.has_links {
            self.links.put_in_place(&self.folder)?;
        }
        files
            .par_iter()
            .zip(&written)
            .try_for_each(|((_, temporary), path)| {
                let place = self.folder.join(path);
                match std::fs::rename(temporary, &place) {
                    // Compose never creates a folder at the path of a file, so it is replaced.
                    Err(error) if error.kind() == std::io::ErrorKind::IsADirectory => {
                        std::fs::remove_dir_all(&place).map_err(Io::at("remove", &place))?;
                        std::fs::rename(temporary, &place).map_err(Io::at("write", &place))
                    }
                    other => other.map_err(Io::at("write", &place)),
                }
            })?;

        // Read again, since the manifests of a thousand stores would fill the memory.
        let mut manifest = self.manifest_files.read()?.unwrap_or_default();
        for path in &self.remove {
            manifest.files.remove(path);
        }
        let touched = self.touched.iter().map(|item| (*item, item.key()));
        let written = files.iter().map(|(item, _)| *item).zip(written);
        for (item, path) in written.chain(touched) {
            let file = self.folder.join(&path);
            let metadata = file.symlink_metadata().map_err(Io::at("read", &file))?;
            manifest
                .files
                .insert(path, WrittenFile::new(item.entry, &metadata));
        }
        self.manifest_files.write(&manifest)?;
        Ok(ChangedFiles {
            written: files.len(),
            removed: self.remove.len(),
            first,
        })
    }
}
