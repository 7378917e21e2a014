//! Changing which paths git tracks, as `git mv` and `git rm --cached` do: entries keep their content,
//! mode and flags. The working tree is not touched.

use std::path::PathBuf;

use git2::{Index, IndexEntry};

use super::{Error, Repository};

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

/// A changed index that is not written yet.
pub struct ChangedIndex {
    index: Index,
    project: PathBuf,
}

impl ChangedIndex {
    /// Replaces the repository's index.
    pub fn write(mut self) -> Result<(), Error> {
        self.index.write().map_err(|source| Error::WriteIndex {
            project: self.project,
            source,
        })
    }
}

impl Repository {
    /// The index with these changes, one after the other; `None` where git tracks none of the paths.
    ///
    /// Fails where a path has a merge conflict or is a submodule, and where another git process
    /// is changing the index.
    pub fn changed_index(&self, changes: &[IndexChange]) -> Result<Option<ChangedIndex>, Error> {
        let failed = |source| self.failed("the index", source);
        let file = self.inner.path().join("index");
        let mut index = Index::open(&file).map_err(failed)?;
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
                self.refuse(&entry)?;
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
        if is_changed && file.with_extension("lock").exists() {
            return Err(Error::IndexLocked {
                lock: file.with_extension("lock"),
            });
        }
        let project = self.project.clone();
        Ok(is_changed.then_some(ChangedIndex { index, project }))
    }

    fn refuse(&self, entry: &IndexEntry) -> Result<(), Error> {
        let path = || String::from_utf8_lossy(&entry.path).into_owned();
        if (entry.flags >> 12) & 0x3 != 0 {
            return Err(Error::Conflicted { path: path() });
        }
        if entry.mode == 0o160_000 {
            return Err(Error::Submodule { path: path() });
        }
        Ok(())
    }
}

fn path_of(bytes: &[u8]) -> PathBuf {
    use std::os::unix::ffi::OsStrExt as _;
    std::ffi::OsStr::from_bytes(bytes).into()
}

fn is_inside(path: &[u8], folder: &[u8]) -> bool {
    let rest = path.strip_prefix(folder);
    rest.is_some_and(|rest| rest.is_empty() || rest[0] == b'/')
}
