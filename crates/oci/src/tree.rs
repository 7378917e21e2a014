//! What lies in an image: entries by path, before they are packed.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// User and group, by number.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
pub struct FileOwner {
    /// User.
    pub user: u32,
    /// Group.
    pub group: u32,
}

/// One file, folder or link in an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TreeEntry {
    /// In the image, without a slash at either end: `var/www/server.js`.
    pub path: String,
    /// Whose.
    pub owner: FileOwner,
    /// Permissions: `0o644`.
    pub mode: u32,
    /// What it holds.
    pub content: TreeContent,
}

/// What an entry holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TreeContent {
    /// Nothing by itself.
    Folder,
    /// The bytes of a file on this machine.
    File {
        /// Where they are.
        from: PathBuf,
        /// How many.
        bytes: u64,
    },
    /// A path, as the link has it.
    Link {
        /// Where it leads.
        target: String,
    },
}
