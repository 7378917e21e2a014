//! Puts a result into a task's folder: from the cache, or from another folder in which it was just built.

use std::path::Path;

use super::super::compose::remove;
use super::super::failure::Io;
use super::result::{ResultRecord, TaskFolder, temporary};
use crate::cache::{self, Cache, CachedResult};
use crate::disk::Stamp;
use crate::overlay::{self, ContentId};

impl TaskFolder<'_> {
    /// Replaces the result in this folder by a cached one. The archive is unpacked and checked as a
    /// whole before any file moves.
    pub fn restore(&self, cache: &Cache, entry: &CachedResult) -> Result<(), RestoreError> {
        let staged = temporary(self.project)?;
        let paths = cache.unpack(entry, staged.path())?;
        // Files that developers have put into a package are not overwritten.
        if let Some(path) = paths.iter().find(|path| self.is_theirs(path)) {
            return Err(RestoreError::Occupied(path.clone()));
        }
        let files = staged.path().join(cache::FILES);
        if files.is_dir() || self.work.is_build() {
            let aside = self.clear()?;
            // A later run finds this record if this one is killed.
            let under_way = paths.iter().map(|path| (path.clone(), Stamp::default()));
            self.write(&ResultRecord::unknown(under_way.collect()))?;
            std::fs::create_dir_all(&self.folder)
                .map_err(Io::at("create the folder", &self.folder))?;
            if files.is_dir() {
                self.move_in(&files, Path::new(""))?;
            }
            self.put_back(aside)?;
        }
        let log = staged.path().join(cache::LOG);
        if log.is_file() {
            let folder = self.log.parent().unwrap_or(self.project);
            std::fs::create_dir_all(folder).map_err(Io::at("create the folder", folder))?;
            std::fs::rename(&log, &self.log).map_err(Io::at("write", &self.log))?;
        }
        let left = |path: String| {
            let file = self.folder.join(&path);
            let metadata = file.symlink_metadata().map_err(Io::at("read", &file))?;
            Ok((path, Stamp::new(&metadata)))
        };
        let files = paths.into_iter().map(left).collect::<Result<_, Io>>()?;
        Ok(self.remember(files, entry.key, entry.output, Some(entry))?)
    }

    /// Replaces the result in this folder by the one that was just built in another folder.
    pub fn copy_from(&self, made: &Self) -> Result<(), Io> {
        let aside = self.clear()?;
        for (path, stamp) in &made.snapshot()?.files {
            let (from, to) = (made.folder.join(path), self.folder.join(path));
            if stamp.is_folder() {
                std::fs::create_dir_all(&to).map_err(Io::at("create the folder", &to))?;
                continue;
            }
            // A composed file is copied only if the script changed it. `package.json` has the store's name.
            let composed = made
                .composition
                .as_ref()
                .and_then(|it| it.entries.get(path.as_str()));
            let is_same =
                |entry: &overlay::Entry| ContentId::of_file(&from).is_ok_and(|id| id == entry.id());
            if composed.is_some_and(|entry| path == "package.json" || is_same(entry)) {
                continue;
            }
            if composed.is_some() {
                remove(&to)?;
            }
            match std::fs::read_link(&from) {
                Ok(target) => std::os::unix::fs::symlink(target, &to),
                Err(_) => std::fs::copy(&from, &to).map(drop),
            }
            .map_err(Io::at("write", &to))?;
        }
        self.put_back(aside)
    }

    /// Whether a package has a file at this path that is not from an earlier result.
    fn is_theirs(&self, path: &str) -> bool {
        if self.composition.is_some() {
            return false;
        }
        let Ok(now) = self.folder.join(path).symlink_metadata() else {
            return false;
        };
        let left = self
            .read()
            .and_then(|record| record.files.get(path).copied());
        !now.is_dir() && left != Some(Stamp::new(&now))
    }

    /// Moves the content of `from` into the folder. A folder that does not exist yet moves as a whole.
    fn move_in(&self, from: &Path, to: &Path) -> Result<(), Io> {
        for entry in std::fs::read_dir(from).map_err(Io::at("read", from))? {
            let entry = entry.map_err(Io::at("read", from))?;
            let inner = to.join(entry.file_name());
            let place = self.folder.join(&inner);
            let is_folder = entry
                .file_type()
                .map_err(Io::at("read", &entry.path()))?
                .is_dir();
            match place.symlink_metadata() {
                Ok(metadata) if metadata.is_dir() && is_folder => {
                    self.move_in(&entry.path(), &inner)?;
                    continue;
                }
                Ok(_) => remove(&place)?,
                Err(_) => {}
            }
            std::fs::rename(entry.path(), &place).map_err(Io::at("write", &place))?;
        }
        Ok(())
    }
}

/// Why a result could not be put in place.
pub enum RestoreError {
    /// A package has a file at this path that is not from a result.
    Occupied(String),
    /// The cached archive cannot be unpacked.
    Cache(cache::Error),
    /// A file operation failed.
    Io(Io),
}

impl From<cache::Error> for RestoreError {
    fn from(error: cache::Error) -> Self {
        Self::Cache(error)
    }
}

impl From<Io> for RestoreError {
    fn from(error: Io) -> Self {
        Self::Io(error)
    }
}
