//! What the last compose wrote, so that the next one knows what it may leave alone.

use std::collections::BTreeMap;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::super::failure::Io;
use crate::overlay::{Entry, Kind};

/// Files of one store under `.out`, by path relative to the store's folder.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Manifest {
    /// False while a compose is at work: the paths are all that may exist, nothing more is sure.
    pub complete: bool,
    /// The files.
    pub files: BTreeMap<String, Written>,
}

/// A file as it was left.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Written {
    /// Content and kind, as [`identity`] writes it; empty while it is pending.
    content: String,
    size: u64,
    /// Nanoseconds since the epoch.
    modified: i128,
    /// Permissions.
    mode: u32,
}

impl Manifest {
    /// Reads a manifest; none where it is missing or broken.
    pub fn read(path: &Path) -> Result<Option<Self>, Io> {
        match std::fs::read(path) {
            Ok(text) => {
                let Ok(mut manifest) = serde_json::from_slice::<Self>(&text) else {
                    return Ok(None);
                };
                // The file can be edited; what it says to remove has to lie below `.out`.
                manifest.files.retain(|path, _| {
                    let mut parts = Path::new(path).components();
                    parts.all(|part| matches!(part, std::path::Component::Normal(_)))
                });
                Ok(Some(manifest))
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Io::at("read", path)(error)),
        }
    }

    /// Writes it whole or not at all.
    pub fn write(&self, path: &Path) -> Result<(), Io> {
        let folder = path.parent().unwrap_or(Path::new("."));
        std::fs::create_dir_all(folder).map_err(Io::at("make the folder", folder))?;
        let failed = || Io::at("write", path);
        let mut file = tempfile::NamedTempFile::new_in(folder).map_err(failed())?;
        let mut writer = std::io::BufWriter::new(&mut file);
        serde_json::to_writer(&mut writer, self)
            .map_err(std::io::Error::from)
            .and_then(|()| std::io::Write::flush(&mut writer))
            .map_err(failed())?;
        drop(writer);
        file.persist(path).map_err(|error| failed()(error.error))?;
        Ok(())
    }

    /// Whether the file is there just as this entry would be written: one stat, no reading.
    pub fn holds(&self, path: &str, entry: &Entry, file: &Path) -> bool {
        let Some(written) = self.files.get(path) else {
            return false;
        };
        written.content == identity(entry)
            && file
                .symlink_metadata()
                .is_ok_and(|metadata| written.is_as_left(&metadata))
    }

    /// Takes over files of one app as they are now; says whether any differs.
    pub fn take_over(&mut self, folder: &Path, app: &str) -> bool {
        let mut changed = false;
        for (path, written) in &mut self.files {
            if path.split('/').next() != Some(app) {
                continue;
            }
            if let Ok(metadata) = folder.join(path).symlink_metadata()
                && !metadata.is_dir()
                && !written.is_as_left(&metadata)
            {
                written.leave(&metadata);
                changed = true;
            }
        }
        changed
    }
}

impl Written {
    /// The file as it is now.
    pub fn new(entry: &Entry, metadata: &Metadata) -> Self {
        let mut written = Self::pending();
        written.content = identity(entry);
        written.leave(metadata);
        written
    }

    /// A file that may or may not be there.
    pub fn pending() -> Self {
        Self {
            content: String::new(),
            size: 0,
            modified: 0,
            mode: 0,
        }
    }

    fn leave(&mut self, metadata: &Metadata) {
        self.size = metadata.size();
        self.modified = modified(metadata);
        self.mode = metadata.mode() & 0o7777;
    }

    fn is_as_left(&self, metadata: &Metadata) -> bool {
        self.size == metadata.size()
            && self.modified == modified(metadata)
            && self.mode == metadata.mode() & 0o7777
    }
}

fn identity(entry: &Entry) -> String {
    let kind = match entry.kind {
        Kind::File { executable: false } => "file",
        Kind::File { executable: true } => "executable",
        Kind::Link { .. } => "link",
    };
    format!("{kind} {}", entry.id)
}

fn modified(metadata: &Metadata) -> i128 {
    i128::from(metadata.mtime()) * 1_000_000_000 + i128::from(metadata.mtime_nsec())
}
