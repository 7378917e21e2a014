//! Removing what runs have made: `.out`, and what is remembered of it.

use std::path::{Path, PathBuf};

use super::failure::Io;
use super::lock::ProjectLock;
use crate::disk;

/// Everything that can be made again, relative to the project.
const MADE: [&str; 7] = [
    ".out",
    ".alokai/manifests",
    ".alokai/results",
    ".alokai/logs",
    ".alokai/sizes",
    super::prune::MADE_OF,
    super::CACHE,
];

/// Removes it, and says what was there. Links are removed and not followed.
pub fn clean(project: &Path) -> Result<Vec<PathBuf>, Io> {
    let _lock = ProjectLock::take_now(project)?;
    let mut removed = Vec::new();
    for path in MADE {
        let path = project.join(path);
        if path.symlink_metadata().is_ok() {
            disk::remove(&path).map_err(Io::at("remove", &path))?;
            removed.push(path);
        }
    }
    Ok(removed)
}
