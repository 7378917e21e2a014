//! Entries of an image's tree.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Numeric user and group of a file.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
pub struct FileOwner {
    /// User id.
    pub user: u32,
    /// Group id.
    pub group: u32,
}

/// A file, folder or link of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TreeEntry {
    /// Path in the image, without a slash at either end: `var/www/server.js`.
    pub path: String,
    /// Owner.
    pub owner: FileOwner,
    /// Permissions: `0o644`.
    pub mode: u32,
    /// Folder, file or link.
    pub content: TreeContent,
}

/// The content of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TreeContent {
    /// A folder.
    Folder,
    /// A file with the content of a file on this machine.
    File {
        /// Path on this machine.
        from: PathBuf,
        /// Size in bytes.
        bytes: u64,
    },
    /// A symbolic link.
    Link {
        /// Target, as it is written.
        target: String,
    },
}
