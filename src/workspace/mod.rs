//! The package manager of a project, its lock file, its workspace folders and the places of
//! installed packages. Formats of package managers are known only here.

pub mod folders;
pub mod installed;
pub mod lockfile;
mod manager;

pub use lockfile::Lockfile;
pub use manager::{PackageManager, UnknownManager};
