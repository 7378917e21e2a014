//! What has to be done for one store: decided, then staged, then put in place.
//!
//! A store that is not there yet is staged whole and moves in one rename; of one that is there,
//! only the files that differ are staged, and each moves to its place.

use std::path::{Path, PathBuf};

use rayon::prelude::*;

use super::super::failure::Io;
use super::super::lock::own_folder;
use super::folders::RealFolders;
use super::links::NodeModulesLink;
use super::manifest::{FileState, ManifestFiles, StoreManifest, WrittenFile, is_below};
use super::sources::SourceFiles;
use super::staging::{StagingFolder, fill};
use crate::disk;
use crate::overlay::Entry;
use crate::plan::{Plan, StorePlan};

/// What differs from the last compose.
pub struct StoreUpdate<'a> {
    project: &'a Path,
    store: &'a StorePlan,
    /// `.out/<store>`.
    folder: PathBuf,
    place: ManifestFiles,
    /// Whether nothing in the folder is known to be right, so that the store is made anew.
    is_new: bool,
    /// Whether the last compose ended.
    is_complete: bool,
    write: Vec<ComposedPath<'a>>,
    /// Files that are right, and that only the manifest has to learn of.
    touched: Vec<ComposedPath<'a>>,
    remove: Vec<String>,
    links: Vec<NodeModulesLink>,
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

    /// The same, into a string that is there.
    fn write_key(&self, key: &mut String) {
        key.clear();
        key.push_str(self.app);
        key.push('/');
        key.push_str(self.path);
    }
}

/// Every path that is to be there in the end.
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
        let place = ManifestFiles::new(&plan.project, store.id.as_str());
        let links = store.compositions.iter();
        let mut work = Self {
            project: &plan.project,
            store,
            links: links.map(|one| NodeModulesLink::of(&folder, one)).collect(),
            folder,
            place,
            is_new: true,
            is_complete: true,
            write: Vec::new(),
            touched: Vec::new(),
            remove: Vec::new(),
        };
        let is_there = work.folder.symlink_metadata();
        let is_there = is_there.is_ok_and(|metadata| metadata.is_dir());
        // Without a manifest nobody knows what in the folder is of sources that are gone.
        let known = work.place.read()?.filter(|_| is_there);
        let Some(old) = known else {
            work.write = wanted(store).collect();
            return Ok(work);
        };
        work.is_new = false;
        work.is_complete = old.under_way.is_empty();
        let mut folders = RealFolders::new(work.folder.clone());
        let mut key = String::new();
        for item in wanted(store) {
            item.write_key(&mut key);
            let held = if folders.are_real(&key) {
                old.holds(&key, item.entry, &work.folder.join(&key))
            } else {
                FileState::No
            };
            match held {
                FileState::Yes => {}
                FileState::Touched => work.touched.push(item),
                FileState::No => work.write.push(item),
            }
        }
        let gone = old.paths();
        let gone = gone.filter(|path| work.has_to_go(path) && is_below(path));
        work.remove = gone.map(str::to_owned).collect();
        Ok(work)
    }

    /// Whether a path that is there is not wanted any more: one of an app that takes part, or of
    /// no app of the store. Apps that take no part now stay as they are.
    fn has_to_go(&self, path: &str) -> bool {
        let (app, inside) = path.split_once('/').unwrap_or((path, ""));
        let mut compositions = self.store.compositions.iter();
        match compositions.find(|one| one.unit.app.as_str() == app) {
            Some(composition) => !composition.entries.contains_key(inside),
            None => !self.store.apps.iter().any(|one| one.as_str() == app),
        }
    }

    /// Paths that would be written and removed.
    pub fn changes(self) -> (Vec<String>, Vec<String>) {
        let links = self
            .links
            .into_iter()
            .filter(NodeModulesLink::differs)
            .map(|link| link.key);
        let write = self.write.iter().map(ComposedPath::key);
        let is_there = |path: &String| self.folder.join(path).symlink_metadata().is_ok();
        let remove = self.remove.iter().filter(|path| is_there(path)).cloned();
        (write.chain(links).collect(), remove.collect())
    }

    /// What will be written.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.write.iter().map(|item| item.entry)
    }

    /// Writes everything new to the staging folder; `.out/<store>` is not touched.
    pub fn stage(
        self,
        staging: &StagingFolder,
        sources: &SourceFiles,
    ) -> Result<StagedStore<'a>, Io> {
        if self.is_new {
            return self.stage_whole(staging, sources);
        }
        self.links.iter().try_for_each(NodeModulesLink::is_free)?;
        let stage = |item: &ComposedPath<'a>| {
            let file = staging.file();
            fill(&file, item.entry, sources, &self.folder.join(item.key()))?;
            Ok((*item, file))
        };
        let files = self
            .write
            .par_iter()
            .map(stage)
            .collect::<Result<_, Io>>()?;
        Ok(StagedStore::Files { work: self, files })
    }

    /// Writes the store as it will be, and its manifest.
    fn stage_whole(
        self,
        staging: &StagingFolder,
        sources: &SourceFiles,
    ) -> Result<StagedStore<'a>, Io> {
        own_folder(self.project)?;
        let whole = staging.store(self.store.id.as_str());
        std::fs::create_dir(&whole).map_err(Io::at("make the folder", &whole))?;
        let mut folders = RealFolders::new(whole.clone());
        for item in &self.write {
            folders.make(&item.key())?;
        }
        let write = |item: &ComposedPath| {
            let key = item.key();
            let place = self.folder.join(&key);
            let metadata = fill(&whole.join(&key), item.entry, sources, &place)?;
            Ok((key, WrittenFile::new(item.entry, &metadata)))
        };
        let files = self.write.par_iter().with_min_len(32).map(write);
        let manifest = StoreManifest {
            files: files.collect::<Result<_, Io>>()?,
            ..StoreManifest::default()
        };
        self.links
            .iter()
            .try_for_each(|link| link.make_in(&whole))?;
        self.place.prepare(&manifest)?;
        let count = manifest.files.len();
        let Self { folder, place, .. } = self;
        Ok(StagedStore::Whole {
            folder,
            place,
            whole,
            count,
        })
    }
}

/// Work whose files are written and wait to be put in place.
pub enum StagedStore<'a> {
    /// A store that is made anew.
    Whole {
        /// `.out/<store>`.
        folder: PathBuf,
        place: ManifestFiles,
        /// Where it waits.
        whole: PathBuf,
        /// How many files it has.
        count: usize,
    },
    /// Files of a store that is there, each with the place where it waits.
    Files {
        work: StoreUpdate<'a>,
        files: Vec<(ComposedPath<'a>, PathBuf)>,
    },
}

impl StagedStore<'_> {
    /// Removes, makes folders, renames; the manifest last. Returns how many files were written
    /// and removed.
    pub fn put_in_place(self) -> Result<(usize, usize), Io> {
        match self {
            Self::Files { work, files } => work.put_in_place(&files),
            Self::Whole {
                folder,
                place,
                whole,
                count,
            } => {
                place.forget()?;
                disk::remove(&folder).map_err(Io::at("remove", &folder))?;
                std::fs::rename(&whole, &folder).map_err(Io::at("write", &folder))?;
                place.adopt()?;
                Ok((count, 0))
            }
        }
    }
}

impl StoreUpdate<'_> {
    fn put_in_place(self, files: &[(ComposedPath, PathBuf)]) -> Result<(usize, usize), Io> {
        let nothing = files.is_empty()
            && self.remove.is_empty()
            && self.touched.is_empty()
            && self.is_complete
            && !self.links.iter().any(NodeModulesLink::differs);
        if nothing {
            return Ok((0, 0));
        }
        let written: Vec<String> = files.iter().map(|(item, _)| item.key()).collect();
        let under_way = written.iter().chain(&self.remove).map(String::as_str);
        self.place.begin(&under_way.collect())?;

        let mut folders = RealFolders::new(self.folder.clone());
        for path in &self.remove {
            folders.remove(path)?;
        }
        for path in written
            .iter()
            .chain(self.links.iter().map(|link| &link.key))
        {
            folders.make(path)?;
        }
        for link in &self.links {
            link.make_in(&self.folder)?;
        }
        files
            .par_iter()
            .zip(&written)
            .try_for_each(|((_, temporary), path)| {
                let place = self.folder.join(path);
                match std::fs::rename(temporary, &place) {
                    // A folder where a composed file belongs was put there by hand.
                    Err(error) if error.kind() == std::io::ErrorKind::IsADirectory => {
                        std::fs::remove_dir_all(&place).map_err(Io::at("remove", &place))?;
                        std::fs::rename(temporary, &place).map_err(Io::at("write", &place))
                    }
                    other => other.map_err(Io::at("write", &place)),
                }
            })?;

        // Read again and not kept: of a thousand stores that would be much.
        let mut manifest = self.place.read()?.unwrap_or_default();
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
        self.place.write(&manifest)?;
        Ok((files.len(), self.remove.len()))
    }
}
