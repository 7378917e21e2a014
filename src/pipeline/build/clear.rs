//! Clears a task's folder before its script runs, so it contains only inputs of the task.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::super::compose::{remove, rewrite};
use super::super::failure::Io;
use super::super::stored;
use super::result::{NOT_OUTPUTS, ResultRecord, TaskFolder, is_scope, temporary};
use crate::disk::Stamp;
use crate::overlay::{self, ContentId, FileKind};

/// Files that are moved out of a composed app while a script other than `build` runs.
pub struct StashedFiles {
    folder: tempfile::TempDir,
    /// Relative to the app.
    paths: Vec<PathBuf>,
}

impl StashedFiles {
    fn new(project: &Path) -> Result<Self, Io> {
        Ok(Self {
            folder: temporary(project)?,
            paths: Vec::new(),
        })
    }

    fn take(&mut self, path: &Path, inner: &Path) -> Result<(), Io> {
        let to = self.folder.path().join(inner);
        if let Some(folder) = to.parent() {
            std::fs::create_dir_all(folder).map_err(Io::at("create the folder", folder))?;
        }
        std::fs::rename(path, &to).map_err(Io::at("move away", path))?;
        self.paths.push(inner.to_owned());
        Ok(())
    }
}

impl TaskFolder<'_> {
    /// Clears the folder, because a result must depend only on its inputs. A composed app keeps its
    /// composed files, restored to their composed content, and incremental caches. Other files are
    /// removed, or moved away while a script other than `build` runs. The folder of a package belongs
    /// to its developers, so only unchanged files of an earlier result are removed there.
    pub fn clear(&self) -> Result<Option<StashedFiles>, Io> {
        let old = self.read().map(|record| record.files).unwrap_or_default();
        // From here on the folder does not contain a complete result.
        self.write(&ResultRecord::unknown(BTreeMap::new()))?;
        let Some(composition) = &self.composition else {
            self.remove_old(&old)?;
            return Ok(None);
        };
        let mut aside = None;
        if !self.work.is_build() {
            self.remove_old(&old)?;
            aside = Some(StashedFiles::new(self.project)?);
        }
        let folders = self.folders();
        self.sweep(Path::new(""), &folders, &mut aside)?;
        for (path, entry) in &composition.entries {
            self.recompose(path, entry)?;
        }
        Ok(aside)
    }

    /// The folders that contain a path that stays.
    fn folders(&self) -> BTreeSet<&Path> {
        let staying = self.sources.iter().map(|path| &**path).chain(NOT_OUTPUTS);
        staying
            .flat_map(|path| Path::new(path).ancestors().skip(1))
            .collect()
    }

    /// Restores a composed file that has changed. It is replaced and not written to, because it may be a
    /// link or have a second hard link.
    fn recompose(&self, path: &str, entry: &overlay::Entry) -> Result<(), Io> {
        let place = self.folder.join(path);
        let is_right = match (entry.kind(), place.symlink_metadata()) {
            (_, Err(_)) => false,
            (FileKind::File { executable }, Ok(found)) => {
                found.is_file()
                    && found.nlink() == 1
                    && (found.mode() & 0o100 != 0) == *executable
                    && ContentId::of_file(&place).is_ok_and(|id| id == entry.id())
            }
            (FileKind::Link { target }, Ok(_)) => {
                std::fs::read_link(&place).is_ok_and(|now| now == Path::new(&**target))
            }
        };
        if is_right {
            Ok(())
        } else {
            rewrite(entry, &place)
        }
    }

    /// Removes, or moves away, all files below a folder that are neither composed nor incremental caches.
    fn sweep(
        &self,
        folder: &Path,
        folders: &BTreeSet<&Path>,
        aside: &mut Option<StashedFiles>,
    ) -> Result<(), Io> {
        let full = self.folder.join(folder);
        let entries = match std::fs::read_dir(&full) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            entries => entries.map_err(Io::at("read", &full))?,
        };
        for entry in entries {
            let entry = entry.map_err(Io::at("read", &full))?;
            let inner = folder.join(entry.file_name());
            let path = entry.path();
            let kind = entry.file_type().map_err(Io::at("read", &path))?;
            let is_source = inner
                .to_str()
                .is_some_and(|path| self.sources.contains(path));
            if is_source || self.is_never_output(&inner, kind.is_symlink()) {
                continue;
            }
            if kind.is_dir() && (folders.contains(&*inner) || is_scope(&inner)) {
                self.sweep(&inner, folders, aside)?;
            } else if let Some(aside) = aside {
                aside.take(&path, &inner)?;
            } else {
                remove(&path)?;
            }
        }
        Ok(())
    }

    /// Moves files back, except to paths that the script has written.
    pub fn put_back(&self, aside: Option<StashedFiles>) -> Result<(), Io> {
        let Some(aside) = aside else {
            return Ok(());
        };
        let mut moved = Vec::new();
        for inner in &aside.paths {
            let place = self.folder.join(inner);
            if place.symlink_metadata().is_ok() {
                continue;
            }
            let from = aside.folder.path().join(inner);
            std::fs::rename(from, &place).map_err(Io::at("move back", &place))?;
            moved.extend(inner.to_str());
        }
        self.know_moved(&moved)
    }

    /// Updates the stamps of moved files in all records, because moving changes a stamp.
    fn know_moved(&self, moved: &[&str]) -> Result<(), Io> {
        let name = &self.record_name;
        for script in std::fs::read_dir(&self.records)
            .into_iter()
            .flatten()
            .flatten()
        {
            let path = script.path().join(name);
            let record = stored::read::<ResultRecord>(&path)?;
            let Some(mut record) = record.filter(|record| record.key.is_some()) else {
                continue;
            };
            for path in moved {
                let now = self.folder.join(path).symlink_metadata();
                if let (Some(left), Ok(now)) = (record.files.get_mut(*path), now)
                    && left.is_moved(Stamp::new(&now))
                {
                    *left = Stamp::new(&now);
                }
            }
            stored::write(&path, &record)?;
        }
        Ok(())
    }

    /// Removes the unchanged files of the last result, and folders that are empty then. Files behind a
    /// link are not removed.
    fn remove_old(&self, old: &BTreeMap<String, Stamp>) -> Result<(), Io> {
        let is_real = |path: &Path| {
            let folders = path
                .ancestors()
                .skip(1)
                .map(|folder| self.folder.join(folder));
            folders
                .into_iter()
                .all(|folder| folder.symlink_metadata().is_ok_and(|it| it.is_dir()))
        };
        let mut folders = BTreeSet::new();
        for (path, left) in old {
            let full = self.folder.join(path);
            if self.sources.contains(path.as_str()) || !is_real(Path::new(path)) {
                continue;
            }
            match full.symlink_metadata() {
                Ok(metadata) if metadata.is_dir() => drop(folders.insert(Path::new(path))),
                Ok(metadata) if Stamp::new(&metadata) == *left => remove(&full)?,
                _ => {}
            }
            folders.extend(Path::new(path).ancestors().skip(1));
        }
        // Deepest first; a folder that is not empty stays.
        let folders = folders.into_iter().rev();
        for folder in folders.filter(|folder| *folder != Path::new("")) {
            let _ = std::fs::remove_dir(self.folder.join(folder));
        }
        Ok(())
    }
}
