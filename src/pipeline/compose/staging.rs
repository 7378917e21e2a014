//! `.out/.tmp`: where files are written before they move to their place.
//!
//! Below `.out`, so that moving is a rename on one file system; and in one folder, so that
//! whatever a killed run has left is found and swept by the next.

use std::fs::Metadata;
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use super::sources::{SourceFiles, unchanged};
use crate::disk;
use crate::overlay::{Entry, EntryContent, FileKind};
use crate::pipeline::failure::Io;

/// The folder, emptied now and removed in the end.
pub struct StagingFolder {
    folder: PathBuf,
    next: AtomicU64,
}

impl StagingFolder {
    /// Makes the folder, empty. The caller holds the project's lock.
    pub fn new(project: &Path) -> Result<Self, Io> {
        let out = project.join(".out");
        if out
            .symlink_metadata()
            .is_ok_and(|metadata| metadata.is_symlink())
        {
            let error =
                std::io::Error::other("it is a link, and nothing may be written outside of it");
            return Err(Io::at("compose into", &out)(error));
        }
        let folder = out.join(".tmp");
        disk::remove(&folder).map_err(Io::at("remove", &folder))?;
        for part in ["files", "stores"] {
            let folder = folder.join(part);
            std::fs::create_dir_all(&folder).map_err(Io::at("make the folder", &folder))?;
        }
        Ok(Self {
            folder,
            next: AtomicU64::new(0),
        })
    }

    /// The place of a single file that waits.
    pub fn file(&self) -> PathBuf {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.folder.join("files").join(number.to_string())
    }

    /// The place of a whole store that waits.
    pub fn store(&self, id: &str) -> PathBuf {
        self.folder.join("stores").join(id)
    }
}

impl Drop for StagingFolder {
    fn drop(&mut self) {
        // What cannot be removed now is swept by the next run.
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// Writes one file or link to `path`, where nothing is yet, and says what it looks like. `place`
/// is where it will go, for messages.
pub fn fill(
    path: &Path,
    entry: &Entry,
    sources: &SourceFiles,
    place: &Path,
) -> Result<Metadata, Io> {
    let failed = || Io::at("write", place);
    let create = |content: &[u8], mode: u32| {
        // A build may have to write over it, as Next.js does with `tsconfig.json`.
        let mut options = std::fs::OpenOptions::new();
        options.write(true).create_new(true).mode(mode | 0o200);
        let mut file = options.open(path)?;
        file.write_all(content)?;
        file.metadata()
    };
    let mode = if *entry.kind() == (FileKind::File { executable: true }) {
        0o777
    } else {
        0o666
    };
    match (entry.kind(), entry.content()) {
        (FileKind::Link { target }, _) => std::os::unix::fs::symlink(&**target, path)
            .and_then(|()| path.symlink_metadata())
            .map_err(failed()),
        (FileKind::File { .. }, EntryContent::Copy(source, stamp)) => {
            if let Some(read) = sources.take(source, stamp)? {
                return create(&read.content, composed_mode(read.mode, mode)).map_err(failed());
            }
            copy(source, path, place, mode)?;
            let now = source.metadata().map_err(Io::at("read", source))?;
            unchanged(source, stamp, &now)?;
            path.metadata().map_err(failed())
        }
        (FileKind::File { .. }, EntryContent::Text(text)) => {
            create(text.as_bytes(), mode).map_err(failed())
        }
        (FileKind::File { .. }, EntryContent::Blob(_) | EntryContent::Link) => {
            let content = entry.read().map_err(failed())?;
            create(&content, mode).map_err(failed())
        }
    }
}

/// A source's permissions, with the executable bits of the composition: git's index has them
/// where `core.fileMode` is off.
fn composed_mode(source: u32, composed: u32) -> u32 {
    let source = source & 0o777;
    match (source & 0o100 != 0, composed & 0o100 != 0) {
        (true, false) => source & 0o666,
        // Whoever may read it may execute it.
        (false, true) => source | (source & 0o444) >> 2,
        _ => source,
    }
}

/// Lets the system copy, or clone, a large file.
fn copy(source: &Path, path: &Path, place: &Path, composed: u32) -> Result<(), Io> {
    let failed = || Io::at("write", place);
    std::fs::copy(source, path).map_err(|error| {
        // `copy` does not say which side failed.
        match std::fs::File::open(source) {
            Err(error) => Io::at("read", source)(error),
            Ok(_) => failed()(error),
        }
    })?;
    let mode = path.metadata().map_err(failed())?.permissions().mode();
    let permissions = std::fs::Permissions::from_mode(composed_mode(mode, composed) | 0o200);
    std::fs::set_permissions(path, permissions).map_err(failed())
}
