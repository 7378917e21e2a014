//! Small JSON files with data for later runs, written atomically.

use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::failure::Io;
use crate::disk::write_atomically;

/// Reads it; none where it is missing or broken.
pub fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, Io> {
    match std::fs::read(path) {
        Ok(text) => Ok(serde_json::from_slice(&text).ok()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Io::at("read", path)(error)),
    }
}

/// Writes it, with its folders, under another name first.
pub fn write(path: &Path, value: &impl Serialize) -> Result<(), Io> {
    let folder = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder).map_err(Io::at("create the folder", folder))?;
    let text = serde_json::to_vec(value).map_err(|error| Io::at("write", path)(error.into()))?;
    write_atomically(path, &text).map_err(Io::at("write", path))
}
