//! Trees of files that can be read: the working tree, or the tree of a commit.
//!
//! Everything that decides a composition (config, folders, layers) reads through [`FileTree`] and
//! not from the disk, so that the same code answers for any revision, without a checkout. Paths
//! are absolute; those of a commit are the paths that its files have in the working tree.

use std::borrow::Cow;
use std::ffi::OsString;
use std::fs::Metadata;
use std::io::{Error, ErrorKind, Result};
use std::path::{Path, PathBuf};

use git2::Oid;

use virtual_path::{MOST_LINKS, PathNode};

use crate::disk::Stamp;

/// A tree of files that can be read.
pub trait FileTree: Send + Sync {
    /// What exists at the path. A link is not followed.
    fn kind(&self, path: &Path) -> Result<PathKind>;

    /// The entries of a folder, sorted by name.
    fn entries(&self, folder: &Path) -> Result<Vec<(OsString, PathKind)>>;

    /// The content of a file. Links are followed.
    fn read(&self, path: &Path) -> Result<Vec<u8>>;

    /// The target of a link, as it is written in the link.
    fn target(&self, link: &Path) -> Result<PathBuf>;

    /// Whether the tree has files that git ignores. A commit has none.
    fn has_ignored(&self) -> bool;

    /// The path in the working tree that has the file or folder now. It is another path only where
    /// the tree simulates a move.
    fn origin<'p>(&self, path: &'p Path) -> Cow<'p, Path> {
        Cow::Borrowed(path)
    }

    /// The path with every link resolved; an error where a link's target does not exist.
    fn real(&self, path: &Path) -> Result<PathBuf> {
        self.resolve(path, &mut |_| ())
    }

    /// The path with every link resolved. Calls `visit_link` with each link on the way.
    fn resolve(&self, path: &Path, visit_link: &mut dyn FnMut(&Path)) -> Result<PathBuf> {
        virtual_path::resolve(path, MOST_LINKS, |path| {
            Ok(match self.kind(path)? {
                PathKind::Folder => PathNode::Folder,
                PathKind::Link => {
                    visit_link(path);
                    PathNode::Link(self.target(path)?)
                }
                PathKind::File(_) | PathKind::Special => PathNode::Other,
            })
        })
    }

    /// Whether the path is a file, or a link to one.
    fn is_file(&self, path: &Path) -> bool {
        let kind = self.real(path).and_then(|real| self.kind(&real));
        matches!(kind, Ok(PathKind::File(_)))
    }

    /// Whether the path is a folder, or a link to one.
    fn is_folder(&self, path: &Path) -> bool {
        let kind = self.real(path).and_then(|real| self.kind(&real));
        matches!(kind, Ok(PathKind::Folder))
    }
}

/// What exists at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PathKind {
    /// A folder.
    Folder,
    /// A symbolic link.
    Link,
    /// A regular file.
    File(FileState),
    /// A fifo, a socket or a device.
    Special,
}

/// What is known of a regular file without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileState {
    /// A file of the working tree.
    OnDisk(Stamp),
    /// A file of a commit.
    Committed {
        /// The content's blob.
        blob: Oid,
        /// Whether git stores it as executable.
        executable: bool,
    },
    /// A file that exists only in a simulated change of the working tree.
    Simulated {
        /// Whether its owner may execute it.
        executable: bool,
    },
}

/// The working tree.
#[derive(Debug, Clone, Copy, Default)]
pub struct DiskFiles;

impl FileTree for DiskFiles {
    fn kind(&self, path: &Path) -> Result<PathKind> {
        path.symlink_metadata().map(|metadata| kind(&metadata))
    }

    fn entries(&self, folder: &Path) -> Result<Vec<(OsString, PathKind)>> {
        let mut entries = Vec::new();
        for entry in std::fs::read_dir(folder)? {
            let entry = entry?;
            // Most file systems give the type with the name, so that a folder costs no `stat`.
            let kind = if entry.file_type()?.is_dir() {
                PathKind::Folder
            } else {
                kind(&entry.metadata()?)
            };
            entries.push((entry.file_name(), kind));
        }
        entries.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(entries)
    }

    fn read(&self, path: &Path) -> Result<Vec<u8>> {
        std::fs::read(path)
    }

    fn target(&self, link: &Path) -> Result<PathBuf> {
        std::fs::read_link(link)
    }

    fn has_ignored(&self) -> bool {
        true
    }
}

fn kind(metadata: &Metadata) -> PathKind {
    if metadata.is_dir() {
        PathKind::Folder
    } else if metadata.is_symlink() {
        PathKind::Link
    } else if metadata.is_file() {
        PathKind::File(FileState::OnDisk(Stamp::new(metadata)))
    } else {
        PathKind::Special
    }
}

/// The error for a path that does not exist.
pub fn not_found(path: &Path) -> Error {
    let reason = format!("`{}` does not exist", path.display());
    Error::new(ErrorKind::NotFound, reason)
}
