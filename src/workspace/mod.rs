//! What a JavaScript package manager knows of a project: which one it is, its lock file, and
//! the folders of its workspace. Everything that asks one of these asks it here.

pub mod folders;
pub mod lockfile;
mod manager;

pub use lockfile::Lockfile;
pub use manager::{PackageManager, UnknownManager};
