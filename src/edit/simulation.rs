//! The working tree as it is after an edit, computed without changing the disk.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{Error, ErrorKind, Result};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::change::{Change, NewContent, TreeEdit, below};
use crate::files::{FileState, FileTree, PathKind, not_found};

/// Another tree of files with the changes of an edit applied.
///
/// Each question is answered by walking the changes backwards to the path that had the file before
/// them.
pub struct EditedFiles {
    /// The project, with links resolved.
    root: PathBuf,
    changes: Vec<Change>,
    inner: Arc<dyn FileTree>,
}

/// What the edit makes of a path.
enum Origin<'a> {
    /// It is what the inner tree has at this path.
    Inner(String),
    /// A folder that the edit makes, if the inner tree does not have it.
    Folder(String),
    /// A file that the edit writes.
    Written(&'a NewContent),
    /// The edit moves or removes it.
    Absent,
}

impl EditedFiles {
    /// The tree `inner` after the edit. `root` is the project's folder, with links resolved.
    pub fn new(root: &Path, edit: &TreeEdit, inner: Arc<dyn FileTree>) -> Self {
        Self {
            root: root.to_owned(),
            changes: edit.changes.clone(),
            inner,
        }
    }

    /// The path relative to the project; `None` for a path that no change can affect.
    fn inside<'p>(&self, path: &'p Path) -> Option<&'p str> {
        path.strip_prefix(&self.root).ok()?.to_str()
    }

    /// Where a path was before the first `count` changes.
    fn origin_of(&self, path: &str, count: usize) -> Origin<'_> {
        let mut path = path.to_owned();
        let mut is_made = false;
        for change in self.changes[..count].iter().rev() {
            match change {
                Change::MakeFolder { path: folder } => is_made |= below(folder, &path).is_some(),
                Change::Move { from, to } => {
                    if let Some(rest) = below(&path, to) {
                        path = join(from, rest);
                    } else if below(&path, from).is_some() {
                        return absent_or_made(is_made, path);
                    } else {
                        is_made |= below(to, &path).is_some();
                    }
                }
                Change::Write {
                    path: file, new, ..
                } => match below(&path, file) {
                    Some("") => return Origin::Written(new),
                    Some(_) => return Origin::Absent,
                    None => is_made |= below(file, &path).is_some(),
                },
                Change::Remove { path: removed, .. } => {
                    if below(&path, removed).is_some() {
                        return absent_or_made(is_made, path);
                    }
                }
                Change::RemoveEmptyFolder { path: removed } => {
                    if *removed == path && !is_made {
                        return Origin::Absent;
                    }
                }
            }
        }
        if is_made {
            Origin::Folder(path)
        } else {
            Origin::Inner(path)
        }
    }

    fn entries_after(&self, folder: &str, count: usize) -> Result<BTreeMap<OsString, PathKind>> {
        let Some(last) = count.checked_sub(1) else {
            let entries = self.inner.entries(&self.root.join(folder))?;
            return Ok(entries.into_iter().collect());
        };
        let before = |folder: &str| self.entries_after(folder, last);
        let with = |target: &str, kind: PathKind| {
            let mut entries = self.existing(folder, last)?;
            add(&mut entries, folder, target, kind);
            Ok(entries)
        };
        match &self.changes[last] {
            Change::MakeFolder { path } if inside_of(path, folder).is_some() => {
                with(path, PathKind::Folder)
            }
            Change::Move { from, to } => {
                if let Some(rest) = below(folder, to) {
                    return before(&join(from, rest));
                }
                if below(folder, from).is_some() {
                    return Err(not_found(&self.root.join(folder)));
                }
                let mut entries = if inside_of(to, folder).is_some() {
                    let kind = self.kind_at(from, last)?;
                    with(to, kind)?
                } else {
                    before(folder)?
                };
                drop_child(&mut entries, folder, from);
                Ok(entries)
            }
            Change::Write { path, new, .. } if inside_of(path, folder).is_some() => {
                with(path, kind_of(new))
            }
            Change::Remove { path, .. } | Change::RemoveEmptyFolder { path } => {
                if below(folder, path).is_some() {
                    return Err(not_found(&self.root.join(folder)));
                }
                let mut entries = before(folder)?;
                drop_child(&mut entries, folder, path);
                Ok(entries)
            }
            Change::MakeFolder { .. } | Change::Write { .. } => before(folder),
        }
    }

    /// The entries of a folder that a change makes if it is missing.
    fn existing(&self, folder: &str, count: usize) -> Result<BTreeMap<OsString, PathKind>> {
        match self.entries_after(folder, count) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(BTreeMap::new()),
            entries => entries,
        }
    }

    fn kind_at(&self, path: &str, count: usize) -> Result<PathKind> {
        match self.origin_of(path, count) {
            Origin::Inner(from) => self.inner.kind(&self.root.join(from)),
            Origin::Folder(_) => Ok(PathKind::Folder),
            Origin::Written(new) => Ok(kind_of(new)),
            Origin::Absent => Err(not_found(&self.root.join(path))),
        }
    }
}

fn absent_or_made<'a>(is_made: bool, path: String) -> Origin<'a> {
    if is_made {
        Origin::Folder(path)
    } else {
        Origin::Absent
    }
}

fn kind_of(new: &NewContent) -> PathKind {
    match new {
        NewContent::File { executable, .. } => PathKind::File(FileState::Simulated {
            executable: *executable,
        }),
        NewContent::Link { .. } => PathKind::Link,
    }
}

fn join(folder: &str, rest: &str) -> String {
    if rest.is_empty() {
        folder.to_owned()
    } else {
        format!("{folder}/{rest}")
    }
}

/// Adds the entry of `folder` through which `target` is reached: the target itself, or a folder.
fn add(entries: &mut BTreeMap<OsString, PathKind>, folder: &str, target: &str, kind: PathKind) {
    let Some(rest) = inside_of(target, folder).filter(|rest| !rest.is_empty()) else {
        return;
    };
    match rest.split_once('/') {
        Some((name, _)) => {
            entries.entry(name.into()).or_insert(PathKind::Folder);
        }
        None => {
            entries.insert(rest.into(), kind);
        }
    }
}

/// As [`below`]; every path is below the project itself, whose path is empty.
fn inside_of<'p>(path: &'p str, folder: &str) -> Option<&'p str> {
    if folder.is_empty() {
        Some(path)
    } else {
        below(path, folder)
    }
}

fn drop_child(entries: &mut BTreeMap<OsString, PathKind>, folder: &str, path: &str) {
    let child = inside_of(path, folder).filter(|rest| !rest.is_empty() && !rest.contains('/'));
    if let Some(name) = child {
        entries.remove(std::ffi::OsStr::new(name));
    }
}

impl FileTree for EditedFiles {
    fn kind(&self, path: &Path) -> Result<PathKind> {
        match self.inside(path) {
            Some(inside) => self.kind_at(inside, self.changes.len()),
            None => self.inner.kind(path),
        }
    }

    fn entries(&self, folder: &Path) -> Result<Vec<(OsString, PathKind)>> {
        let Some(inside) = self.inside(folder) else {
            return self.inner.entries(folder);
        };
        let entries = self.entries_after(inside, self.changes.len())?;
        Ok(entries.into_iter().collect())
    }

    fn read(&self, path: &Path) -> Result<Vec<u8>> {
        let real = self.real(path)?;
        let Some(inside) = self.inside(&real) else {
            return self.inner.read(&real);
        };
        match self.origin_of(inside, self.changes.len()) {
            Origin::Inner(from) => self.inner.read(&self.root.join(from)),
            Origin::Written(new) => Ok(new.bytes().to_vec()),
            Origin::Folder(_) => Err(Error::from(ErrorKind::IsADirectory)),
            Origin::Absent => Err(not_found(path)),
        }
    }

    fn target(&self, link: &Path) -> Result<PathBuf> {
        let Some(inside) = self.inside(link) else {
            return self.inner.target(link);
        };
        match self.origin_of(inside, self.changes.len()) {
            Origin::Inner(from) => self.inner.target(&self.root.join(from)),
            Origin::Written(NewContent::Link { target }) => Ok(target.into()),
            Origin::Written(NewContent::File { .. }) | Origin::Folder(_) => {
                Err(Error::from(ErrorKind::InvalidInput))
            }
            Origin::Absent => Err(not_found(link)),
        }
    }

    fn has_ignored(&self) -> bool {
        self.inner.has_ignored()
    }

    fn origin<'p>(&self, path: &'p Path) -> Cow<'p, Path> {
        let Some(inside) = self.inside(path) else {
            return Cow::Borrowed(path);
        };
        match self.origin_of(inside, self.changes.len()) {
            Origin::Inner(from) | Origin::Folder(from) if from != inside => {
                Cow::Owned(self.root.join(from))
            }
            _ => Cow::Borrowed(path),
        }
    }
}
