//! The file system, for every room: replacing a file whole, removing files and folders, and
//! telling whether a file has changed since it was last looked at.

mod remove;
mod rename;
mod stamp;
mod write;

pub use remove::{remove, remove_file};
pub use rename::rename_new;
pub use stamp::{FileTime, Stamp};
pub use write::{persist, write_atomically};
