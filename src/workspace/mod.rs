//! The package manager of a project, its lock file, its workspace folders and the places of
//! installed packages. No other room reads these.

pub mod folders;
pub mod installed;
pub mod lockfile;
mod manager;

pub use lockfile::Lockfile;
pub use manager::{PackageManager, UnknownManager};
