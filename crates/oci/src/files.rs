//! Files that are written under a temporary name and renamed, so that a complete name means a
//! complete file.

use std::fs::{File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::SystemTime;

use tempfile::NamedTempFile;

use super::Error;

/// Prefix of the name of a file that is being written.
pub(super) const UNDER_WAY: &str = ".under-way-";

/// Creates a temporary file in this folder, which is created if it is missing. Everybody may read
/// the file after [`persist`].
pub(super) fn temporary(folder: &Path) -> Result<NamedTempFile, Error> {
    std::fs::create_dir_all(folder).map_err(Error::at("create the folder", folder))?;
    tempfile::Builder::new()
        .prefix(UNDER_WAY)
        .permissions(Permissions::from_mode(0o644))
        .tempfile_in(folder)
        .map_err(Error::at("create a file in", folder))
}

/// Renames a temporary file to this path, and replaces the file that has the path.
pub(super) fn persist(file: NamedTempFile, path: &Path) -> Result<(), Error> {
    let persisted = file.persist(path);
    persisted.map_err(|error| Error::at("write", path)(error.error))?;
    Ok(())
}

/// Sets a file's time to now, which marks it as used. An error is ignored: the file then only
/// counts as used less recently.
pub(super) fn touch(path: &Path) {
    if let Ok(file) = File::options().append(true).open(path) {
        let _ = file.set_modified(SystemTime::now());
    }
}

/// Removes a file. A missing file is not an error.
pub(super) fn remove(path: &Path) -> Result<(), Error> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::at("remove", path)(error))
        }
        _ => Ok(()),
    }
}
