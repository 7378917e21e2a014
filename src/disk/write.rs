//! Replacing files whole: a reader sees the old content or the new one, never a part of it.

use std::io::{Result, Write};
use std::path::Path;

use tempfile::NamedTempFile;

/// Replaces a file's content, or makes the file. The folder has to exist. The permissions of an
/// existing file stay; a new file is for its owner alone.
///
/// The content is written to a temporary file in the same folder, which is then renamed.
pub fn write_atomically(path: &Path, content: &[u8]) -> Result<()> {
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    let mut temporary = NamedTempFile::new_in(folder)?;
    temporary.write_all(content)?;
    if let Ok(metadata) = path.metadata() {
        temporary
            .as_file()
            .set_permissions(metadata.permissions())?;
    }
    persist(temporary, path)
}

/// Replaces the file at `path` by a temporary file on the same file system. If that fails, the
/// temporary file is removed.
pub fn persist(temporary: NamedTempFile, path: &Path) -> Result<()> {
    match temporary.persist(path) {
        Ok(_) => Ok(()),
        Err(failed) => Err(failed.error),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::write_atomically;

    #[test]
    fn an_existing_file_keeps_its_permissions() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        write_atomically(&file, b"old").unwrap();
        let mode = || file.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(), 0o600);
        std::fs::set_permissions(&file, PermissionsExt::from_mode(0o755)).unwrap();
        write_atomically(&file, b"new").unwrap();
        assert_eq!(std::fs::read(&file).unwrap(), b"new");
        assert_eq!(mode(), 0o755);
    }

    #[test]
    fn a_write_that_fails_leaves_no_temporary_file() {
        let folder = tempfile::tempdir().unwrap();
        let taken = folder.path().join("taken");
        std::fs::create_dir(&taken).unwrap();
        assert!(write_atomically(&taken, b"content").is_err());
        let left = std::fs::read_dir(folder.path()).unwrap();
        assert_eq!(left.count(), 1);
    }
}
