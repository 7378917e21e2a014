//! What a JavaScript package manager knows of a project: which one it is, its lock file, the
//! folders of its workspace, and where it installs packages. Everything that asks one of these
//! asks it here.

pub mod folders;
pub mod installed;
pub mod lockfile;
mod manager;

pub use lockfile::Lockfile;
pub use manager::{PackageManager, UnknownManager};
