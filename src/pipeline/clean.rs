//! Removing what runs have made: `.out`, and what is remembered of it.

use std::path::{Path, PathBuf};

use super::failure::Io;
use super::lock::ProjectLock;

/// Everything that can be made again, relative to the project.
const MADE: [&str; 8] = [
    ".out",
    ".alokai/manifests",
    ".alokai/results",
    ".alokai/logs",
    ".alokai/sizes",
    super::live::RECORD,
    super::prune::MADE_OF,
    super::CACHE,
];

/// Removes it, and says what was there. Links are removed and not followed.
pub fn clean(project: &Path) -> Result<Vec<PathBuf>, Io> {
    let _lock = ProjectLock::take_now(project)?;
    let mut removed = Vec::new();
    for path in MADE {
        let path = project.join(path);
        let result = match path.symlink_metadata() {
            Err(_) => continue,
            Ok(metadata) if metadata.is_dir() => std::fs::remove_dir_all(&path),
            Ok(_) => std::fs::remove_file(&path),
        };
        result.map_err(Io::at("remove", &path))?;
        removed.push(path);
    }
    Ok(removed)
}
