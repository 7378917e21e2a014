//! Changing which paths git tracks, as `git mv` and `git rm --cached` do: entries keep their content,
//! mode and flags. The working tree is not touched.

use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use git2::{Index, IndexEntry, ObjectType, Oid};

use super::{Error, Repository};
use crate::disk;

/// A change of tracked paths. Paths are relative to the project; a folder stands for all paths in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IndexChange {
    /// The paths get another name.
    Move {
        /// The path now.
        from: String,
        /// The path afterwards.
        to: String,
    },
    /// The paths are not tracked any more.
    Remove {
        /// The path.
        path: String,
    },
}

/// Changes of the index that can be made, and are not made yet.
pub struct ChangedIndex<'a> {
    repository: &'a Repository,
    changes: Vec<IndexChange>,
}

/// The files in the repository's folder that take part in a change of the index.
struct IndexFiles {
    index: PathBuf,
    /// Git's lock.
    lock: PathBuf,
    /// The lock is this program's if it is the same file as this one. So a lock that a killed process
    /// left is told from the lock of a git process that runs.
    marker: PathBuf,
    /// The changed copy of the index.
    copy: PathBuf,
}

impl IndexFiles {
    fn new(repository: &Repository) -> Self {
        let folder = repository.inner.path();
        // Several projects of one repository have a lock of the project each, and git's lock together.
        let project = repository.project.as_os_str().as_encoded_bytes();
        let project = Oid::hash_object(ObjectType::Blob, project);
        let project = project.map_or(String::new(), |id| id.to_string());
        Self {
            index: folder.join("index"),
            lock: folder.join("index.lock"),
            marker: folder.join(format!("index.alokai-{project}")),
            copy: folder.join(format!("index.alokai-{project}-copy")),
        }
    }

    /// Takes git's lock; it has a second name from its first moment on.
    fn take_lock(&self) -> std::io::Result<()> {
        std::fs::write(&self.marker, b"")?;
        std::fs::hard_link(&self.marker, &self.lock)
    }

    /// Removes the files of this program, and the lock if it is this program's.
    fn release(&self) -> std::io::Result<()> {
        let identity = |path: &Path| {
            let metadata = path.symlink_metadata().ok()?;
            Some((metadata.dev(), metadata.ino()))
        };
        let marker = identity(&self.marker);
        if marker.is_some() && marker == identity(&self.lock) {
            disk::remove_file(&self.lock)?;
        }
        let mut lock_of_copy = self.copy.clone().into_os_string();
        lock_of_copy.push(".lock");
        let lock_of_copy = PathBuf::from(lock_of_copy);
        for path in [&self.copy, &lock_of_copy, &self.marker] {
            if path.symlink_metadata().is_ok() {
                disk::remove_file(path)?;
            }
        }
        Ok(())
    }
}

impl ChangedIndex<'_> {
    /// Replaces the repository's index by a changed copy, under git's lock.
    pub fn write(self) -> Result<(), Error> {
        let files = IndexFiles::new(self.repository);
        let project = &self.repository.project;
        let failed = |source| Error::WriteIndex {
            project: project.clone(),
            source,
        };
        match files.take_lock() {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                let lock = files.lock.clone();
                files.release().map_err(failed)?;
                return Err(Error::IndexLocked { lock });
            }
            Err(error) => return Err(failed(error)),
        }
        let replaced = self.replace(&files);
        // The index is in place whether or not the lock can be removed, so that is no failure.
        let _ = files.release();
        replaced
    }

    fn replace(&self, files: &IndexFiles) -> Result<(), Error> {
        let failed = |source| Error::WriteIndex {
            project: self.repository.project.clone(),
            source,
        };
        let of_git = |source: git2::Error| failed(std::io::Error::other(source));
        std::fs::copy(&files.index, &files.copy).map_err(failed)?;
        let mut copy = Index::open(&files.copy).map_err(of_git)?;
        self.repository.change(&mut copy, &self.changes)?;
        copy.write().map_err(of_git)?;
        // Git compares the content of files that are as new as the index. With a newer time, it would
        // not see an edit that was made in the second of the last commit.
        let index = files.index.metadata().map_err(failed)?;
        let time = index.modified().map_err(failed)?;
        let copy = std::fs::File::options().write(true).open(&files.copy);
        copy.and_then(|copy| copy.set_modified(time))
            .map_err(failed)?;
        std::fs::rename(&files.copy, &files.index).map_err(failed)
    }
}

impl Repository {
    /// The index with these changes, one after the other; `None` where git tracks none of the paths.
    ///
    /// Fails where a path has a merge conflict or is a submodule, and where another git process
    /// is changing the index.
    pub fn changed_index(
        &self,
        changes: &[IndexChange],
    ) -> Result<Option<ChangedIndex<'_>>, Error> {
        let files = IndexFiles::new(self);
        let failed = |source| self.failed("the index", source);
        let mut index = Index::open(&files.index).map_err(failed)?;
        let is_changed = self.change(&mut index, changes)?;
        if is_changed && files.lock.exists() {
            return Err(Error::IndexLocked { lock: files.lock });
        }
        Ok(is_changed.then(|| ChangedIndex {
            repository: self,
            changes: changes.to_vec(),
        }))
    }

    /// Releases git's lock if a process of this program was killed while it had the lock.
    pub fn release_index(&self) -> Result<(), Error> {
        let released = IndexFiles::new(self).release();
        released.map_err(|source| Error::WriteIndex {
            project: self.project.clone(),
            source,
        })
    }

    /// The paths in a folder of the project whose content in the index is neither in the file nor in
    /// HEAD, relative to the project.
    pub fn only_in_index(&self, folder: &str) -> Result<Vec<String>, Error> {
        let failed = |source| self.failed("the index", source);
        let index = Index::open(&IndexFiles::new(self).index).map_err(failed)?;
        let head = self.inner.head().and_then(|head| head.peel_to_tree()).ok();
        let folder = format!("{}{folder}", self.prefix);
        let mut found = Vec::new();
        for entry in index.iter() {
            let mode_of_file = entry.mode & 0o170_000 == 0o100_000;
            if !mode_of_file || !is_inside(&entry.path, folder.as_bytes()) {
                continue;
            }
            let path = path_of(&entry.path);
            let committed = head.as_ref().and_then(|tree| tree.get_path(&path).ok());
            if committed.is_some_and(|it| it.id() == entry.id) {
                continue;
            }
            let file = self.real_root.join(&path);
            let now = Oid::hash_file(ObjectType::Blob, &file);
            if now.is_ok_and(|id| id == entry.id) {
                continue;
            }
            let path = String::from_utf8_lossy(&entry.path).into_owned();
            let inside = path.strip_prefix(&self.prefix);
            found.push(inside.map_or(path.clone(), str::to_owned));
        }
        Ok(found)
    }

    /// Changes an index in memory. Returns whether it has any of the paths.
    fn change(&self, index: &mut Index, changes: &[IndexChange]) -> Result<bool, Error> {
        let failed = |source| self.failed("the index", source);
        let mut is_changed = false;
        for change in changes {
            let (from, to) = match change {
                IndexChange::Move { from, to } => (from, Some(to)),
                IndexChange::Remove { path } => (path, None),
            };
            let from = format!("{}{from}", self.prefix);
            let to = to.map(|to| format!("{}{to}", self.prefix));
            let affected: Vec<IndexEntry> = index
                .iter()
                .filter(|entry| is_inside(&entry.path, from.as_bytes()))
                .collect();
            for mut entry in affected {
                refuse(&entry)?;
                is_changed = true;
                index
                    .remove(path_of(&entry.path).as_ref(), 0)
                    .map_err(failed)?;
                if let Some(to) = &to {
                    let rest = entry.path.split_off(from.len());
                    entry.path = [to.as_bytes(), &rest].concat();
                    index.add(&entry).map_err(failed)?;
                }
            }
        }
        Ok(is_changed)
    }
}

/// Fails for an entry that cannot be moved or removed alone.
fn refuse(entry: &IndexEntry) -> Result<(), Error> {
    let path = || String::from_utf8_lossy(&entry.path).into_owned();
    if (entry.flags >> 12) & 0x3 != 0 {
        return Err(Error::Conflicted { path: path() });
    }
    if entry.mode == 0o160_000 {
        return Err(Error::Submodule { path: path() });
    }
    Ok(())
}

fn path_of(bytes: &[u8]) -> PathBuf {
    use std::os::unix::ffi::OsStrExt as _;
    std::ffi::OsStr::from_bytes(bytes).into()
}

fn is_inside(path: &[u8], folder: &[u8]) -> bool {
    let rest = path.strip_prefix(folder);
    rest.is_some_and(|rest| rest.is_empty() || rest[0] == b'/')
}
