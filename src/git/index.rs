//! Git's index: which files are tracked, and the content of unchanged files.

use std::collections::{BTreeMap, BTreeSet};

use git2::Oid;

use super::{Error, Repository};
use crate::disk::{FileTime, Stamp};

/// A file's entry in the index.
#[derive(Debug, Clone, Copy)]
pub struct IndexedFile {
    id: Oid,
    executable: bool,
    size: u32,
    /// `None` where the recorded time does not prove that the file is unchanged.
    modified: Option<FileTime>,
    /// `None` where the program that wrote the index does not record it.
    changed: Option<FileTime>,
}

/// The files that git tracks, by path relative to the repository.
#[derive(Debug, Default)]
pub struct GitIndex {
    files: BTreeMap<String, IndexedFile>,
    /// Files that a sparse checkout leaves out.
    skipped: BTreeSet<String>,
}

impl Repository {
    /// Reads the index.
    pub fn index(&self) -> Result<GitIndex, Error> {
        let index = self
            .inner
            .index()
            .map_err(|source| self.failed("the index", source))?;
        // A file that was changed in the same second in which the index was written can have the
        // recorded time and other content ("racy git"), so its time proves nothing.
        let written = index
            .path()
            .and_then(|path| path.metadata().ok())
            .and_then(|metadata| metadata.modified().ok())
            .and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok())
            .map_or(0, |time| i64::try_from(time.as_secs()).unwrap_or(i64::MAX));
        let empty = Oid::hash_object(git2::ObjectType::Blob, &[])
            .map_err(|source| self.failed("the index", source))?;
        let mut files = BTreeMap::new();
        let mut skipped = BTreeSet::new();
        for entry in index.iter() {
            let stage = (entry.flags >> 12) & 0x3;
            let Ok(path) = std::str::from_utf8(&entry.path) else {
                continue;
            };
            // A file with a merge conflict has several contents; 0o160000 is a submodule.
            if stage != 0 || entry.mode == 0o160_000 {
                continue;
            }
            let flags = git2::IndexEntryExtendedFlag::from_bits_truncate(entry.flags_extended);
            if flags.is_skip_worktree() {
                skipped.insert(path.to_owned());
            }
            let seconds = i64::from(entry.mtime.seconds());
            // Git sets the size of a racy entry to 0.
            let is_racy = seconds >= written || (entry.file_size == 0 && entry.id != empty);
            let tracked = IndexedFile {
                id: entry.id,
                executable: entry.mode & 0o100 != 0,
                size: entry.file_size,
                modified: recorded(entry.mtime).filter(|_| !is_racy),
                changed: recorded(entry.ctime),
            };
            files.insert(path.to_owned(), tracked);
        }
        Ok(GitIndex { files, skipped })
    }
}

/// A time in the index; zero stands for none.
fn recorded(time: git2::IndexTime) -> Option<FileTime> {
    let time = FileTime {
        seconds: i64::from(time.seconds()),
        nanoseconds: i64::from(time.nanoseconds()),
    };
    (time != FileTime::default()).then_some(time)
}

impl GitIndex {
    /// The blob id of a file that is unchanged since git updated the index. The file is not read.
    pub fn unchanged(&self, path: &str, stamp: &Stamp) -> Option<Oid> {
        let tracked = self.files.get(path)?;
        // The index keeps sizes modulo 2^32.
        let is_same = u64::from(tracked.size) == stamp.size & 0xffff_ffff
            && tracked.modified == Some(stamp.modified)
            && tracked.changed.is_none_or(|time| time == stamp.changed);
        is_same.then_some(tracked.id)
    }

    /// Files below `folder` (ending in `/`) that a sparse checkout leaves out.
    pub fn skipped<'a>(&'a self, folder: &'a str) -> impl Iterator<Item = &'a str> {
        self.skipped
            .range(folder.to_owned()..)
            .map(String::as_str)
            .take_while(move |path| path.starts_with(folder))
    }

    /// The blob id that the index has for a file, which may differ from the working tree.
    pub fn id(&self, path: &str) -> Option<Oid> {
        self.files.get(path).map(|tracked| tracked.id)
    }

    /// Whether a tracked file is executable.
    pub fn is_executable(&self, path: &str) -> Option<bool> {
        self.files.get(path).map(|tracked| tracked.executable)
    }

    /// Whether git tracks the file.
    pub fn tracks(&self, path: &str) -> bool {
        self.files.contains_key(path)
    }

    /// Whether git tracks a file below `folder`, which ends in `/`.
    pub fn tracks_below(&self, folder: &str) -> bool {
        let mut from = self.files.range(folder.to_owned()..);
        from.next()
            .is_some_and(|(path, _)| path.starts_with(folder))
    }

    /// Every tracked path.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        self.files.keys().map(String::as_str)
    }
}
