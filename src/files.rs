//! Where files are read from: the working tree, or the tree of a commit.
//!
//! What decides a composition (config, folders, layers) asks [`FileTree`] and not the disk, so
//! that the same code answers for any revision, without a checkout. Paths are absolute, as they
//! are or would be in the working tree.

use std::ffi::OsString;
use std::io::{Error, ErrorKind, Result};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use git2::Oid;
use serde::{Deserialize, Serialize};

use virtual_path::{self as path, MOST_LINKS, Step};

/// A tree of files that can be read.
pub trait FileTree: Send + Sync {
    /// What lies at the path; a link is not followed.
    fn node(&self, path: &Path) -> Result<PathKind>;

    /// What a folder holds, sorted by name.
    fn entries(&self, folder: &Path) -> Result<Vec<(OsString, PathKind)>>;

    /// The content of a file; links are followed.
    fn read(&self, path: &Path) -> Result<Vec<u8>>;

    /// What a link says.
    fn target(&self, link: &Path) -> Result<PathBuf>;

    /// The path without any link in it; an error where one leads to nothing.
    fn real(&self, path: &Path) -> Result<PathBuf> {
        self.resolve(path, &mut |_| ())
    }

    /// The same, and names each link that it goes through.
    fn resolve(&self, path: &Path, through: &mut dyn FnMut(&Path)) -> Result<PathBuf> {
        path::resolve(path, MOST_LINKS, |place| {
            Ok(match self.node(place)? {
                PathKind::Folder => Step::Folder,
                PathKind::Link => {
                    through(place);
                    Step::Link(self.target(place)?)
                }
                PathKind::File(_) | PathKind::Special => Step::Other,
            })
        })
    }

    /// Whether `.gitignore` files count. In a commit they do not: what it holds is tracked.
    fn has_ignored(&self) -> bool;

    /// Whether the path is a file, or a link to one.
    fn is_file(&self, path: &Path) -> bool {
        let real = self.real(path).and_then(|real| self.node(&real));
        matches!(real, Ok(PathKind::File(_)))
    }

    /// Whether the path is a folder, or a link to one.
    fn is_folder(&self, path: &Path) -> bool {
        let real = self.real(path).and_then(|real| self.node(&real));
        matches!(real, Ok(PathKind::Folder))
    }
}

/// What a path is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PathKind {
    /// A folder.
    Folder,
    /// A symbolic link.
    Link,
    /// A regular file.
    File(FileStat),
    /// A fifo, a socket, a device.
    Special,
}

/// What is known of a file without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileStat {
    /// Whether its owner may execute it.
    pub executable: bool,
    /// In bytes; 0 in a commit.
    pub size: u64,
    /// Seconds and nanoseconds since the epoch; 0 in a commit.
    pub modified: (i64, i64),
    /// When its content or what is known of it last changed; unlike `modified`, nobody can
    /// set it back. 0 in a commit.
    pub changed: (i64, i64),
    /// Its blob, in a commit.
    pub blob: Option<Oid>,
}

/// What the system knows of a file, a link or a folder. While it stays the same, so does the
/// content: nobody can set back when an inode was last changed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "StampFields", into = "StampFields")]
pub struct Stamp {
    /// Bytes.
    pub size: u64,
    /// Seconds and nanoseconds since the epoch when the content was last written.
    pub modified: (i64, i64),
    /// The same of the inode: content, mode, owner, name.
    pub changed: (i64, i64),
    /// Kind and permissions.
    pub mode: u32,
}

/// A stamp as it is stored: there are very many, so without names.
type StampFields = (u64, i64, i64, i64, i64, u32);

impl From<StampFields> for Stamp {
    fn from((size, modified, modified_ns, changed, changed_ns, mode): StampFields) -> Self {
        Self {
            size,
            modified: (modified, modified_ns),
            changed: (changed, changed_ns),
            mode,
        }
    }
}

impl From<Stamp> for StampFields {
    fn from(stamp: Stamp) -> Self {
        let (modified, changed) = (stamp.modified, stamp.changed);
        (
            stamp.size, modified.0, modified.1, changed.0, changed.1, stamp.mode,
        )
    }
}

impl Stamp {
    /// Of what lies at the path; a link is not followed. `None` where nothing can be seen.
    pub fn of(path: &Path) -> Option<Self> {
        path.symlink_metadata().ok().map(|it| Self::new(&it))
    }

    /// Of what this metadata belongs to.
    pub fn new(metadata: &std::fs::Metadata) -> Self {
        Self {
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
            mode: metadata.mode(),
        }
    }

    /// Whether it is a folder's.
    pub fn is_folder(self) -> bool {
        self.mode & 0o170_000 == 0o040_000
    }

    /// Whether `to` can be the same file after it was renamed, which changes the inode.
    pub fn is_moved(self, to: Self) -> bool {
        (self.size, self.modified, self.mode) == (to.size, to.modified, to.mode)
    }
}

/// The working tree.
#[derive(Debug, Clone, Copy, Default)]
pub struct DiskFiles;

impl FileTree for DiskFiles {
    fn node(&self, path: &Path) -> Result<PathKind> {
        path.symlink_metadata().map(|metadata| of(&metadata))
    }

    fn entries(&self, folder: &Path) -> Result<Vec<(OsString, PathKind)>> {
        let mut entries = Vec::new();
        for entry in std::fs::read_dir(folder)? {
            let entry = entry?;
            // Most systems tell a folder without a further call.
            let node = if entry.file_type()?.is_dir() {
                PathKind::Folder
            } else {
                of(&entry.metadata()?)
            };
            entries.push((entry.file_name(), node));
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

fn of(metadata: &std::fs::Metadata) -> PathKind {
    if metadata.is_dir() {
        PathKind::Folder
    } else if metadata.is_symlink() {
        PathKind::Link
    } else if metadata.is_file() {
        PathKind::File(FileStat::new(metadata))
    } else {
        PathKind::Special
    }
}

impl FileStat {
    /// Of a file in the working tree.
    pub fn new(metadata: &std::fs::Metadata) -> Self {
        use std::os::unix::fs::MetadataExt;
        Self {
            executable: metadata.mode() & 0o100 != 0,
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
            blob: None,
        }
    }
}

/// The error for a path that is not there.
pub fn not_found(path: &Path) -> Error {
    let reason = format!("`{}` is not there", path.display());
    Error::new(ErrorKind::NotFound, reason)
}
