//! What tells, without reading a file, whether it has changed.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use serde::{Deserialize, Serialize};

/// What the system knows of a file, a link or a folder. While it stays the same, so does the
/// content: no program can set the time at which an inode last changed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "StampFields", into = "StampFields")]
pub struct Stamp {
    /// Bytes.
    pub size: u64,
    /// When the content was last written. Programs can set this time.
    pub modified: FileTime,
    /// When the inode last changed: content, permissions, owner, name.
    pub changed: FileTime,
    /// Type and permissions, as in `st_mode`.
    pub mode: u32,
}

/// A time of a file, since the epoch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct FileTime {
    /// Whole seconds.
    pub seconds: i64,
    /// Nanoseconds after the last whole second.
    pub nanoseconds: i64,
}

/// The bits of a mode that give the type.
const TYPE: u32 = 0o170_000;

/// A stamp as it is stored. Stored stamps are very many, so they have no field names.
type StampFields = (u64, i64, i64, i64, i64, u32);

impl From<StampFields> for Stamp {
    fn from(fields: StampFields) -> Self {
        let (size, modified, modified_nanoseconds, changed, changed_nanoseconds, mode) = fields;
        Self {
            size,
            modified: FileTime {
                seconds: modified,
                nanoseconds: modified_nanoseconds,
            },
            changed: FileTime {
                seconds: changed,
                nanoseconds: changed_nanoseconds,
            },
            mode,
        }
    }
}

impl From<Stamp> for StampFields {
    fn from(stamp: Stamp) -> Self {
        let (modified, changed) = (stamp.modified, stamp.changed);
        (
            stamp.size,
            modified.seconds,
            modified.nanoseconds,
            changed.seconds,
            changed.nanoseconds,
            stamp.mode,
        )
    }
}

impl Stamp {
    /// The stamp of a path; a link is not followed. `None` where the path does not exist or
    /// cannot be read.
    pub fn of(path: &Path) -> Option<Self> {
        path.symlink_metadata().ok().map(|it| Self::new(&it))
    }

    /// The stamp that this metadata gives.
    pub fn new(metadata: &Metadata) -> Self {
        Self {
            size: metadata.size(),
            modified: FileTime {
                seconds: metadata.mtime(),
                nanoseconds: metadata.mtime_nsec(),
            },
            changed: FileTime {
                seconds: metadata.ctime(),
                nanoseconds: metadata.ctime_nsec(),
            },
            mode: metadata.mode(),
        }
    }

    /// Whether this is a folder's stamp.
    pub fn is_folder(self) -> bool {
        self.mode & TYPE == 0o040_000
    }

    /// Whether this is a regular file's stamp.
    pub fn is_file(self) -> bool {
        self.mode & TYPE == 0o100_000
    }

    /// Whether the owner may execute the file.
    pub fn is_executable(self) -> bool {
        self.mode & 0o100 != 0
    }

    /// Whether `to` can be the stamp of the same file after a rename, which changes the inode.
    pub fn is_moved(self, to: Self) -> bool {
        (self.size, self.modified, self.mode) == (to.size, to.modified, to.mode)
    }
}
