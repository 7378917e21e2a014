//! Removing what may or may not exist.

use std::io::{ErrorKind, Result};
use std::path::Path;

/// Removes a file, a link, or a folder with everything in it. A link is not followed. A path that
/// does not exist is not an error.
pub fn remove(path: &Path) -> Result<()> {
    let removed = path.symlink_metadata().and_then(|metadata| {
        if metadata.is_dir() {
            std::fs::remove_dir_all(path)
        } else {
            std::fs::remove_file(path)
        }
    });
    unless_absent(removed)
}

/// Removes a file or a link; a folder is an error. A path that does not exist is not an error.
pub fn remove_file(path: &Path) -> Result<()> {
    unless_absent(std::fs::remove_file(path))
}

fn unless_absent(removed: Result<()>) -> Result<()> {
    match removed {
        // The second one: a file has the name of a folder above the path.
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            Ok(())
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::{remove, remove_file};

    #[test]
    fn a_link_is_removed_and_not_its_target() {
        let folder = tempfile::tempdir().unwrap();
        let (target, link) = (folder.path().join("target"), folder.path().join("link"));
        std::fs::create_dir(&target).unwrap();
        std::fs::write(target.join("file"), "content").unwrap();
        std::os::unix::fs::symlink(&target, &link).unwrap();
        remove(&link).unwrap();
        assert!(link.symlink_metadata().is_err());
        assert!(target.join("file").exists());
        remove(&target).unwrap();
        assert!(!target.exists());
    }

    #[test]
    fn only_a_path_that_does_not_exist_is_passed_over() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        remove(&file).unwrap();
        remove_file(&file).unwrap();
        std::fs::write(&file, "content").unwrap();
        // Nothing can lie below a file.
        remove(&file.join("below")).unwrap();
        remove_file(&file.join("below")).unwrap();
        assert!(file.exists());
        assert!(remove_file(folder.path()).is_err());
    }
}
