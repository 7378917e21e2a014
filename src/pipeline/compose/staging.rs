//! `.out/.tmp`: the folder in which files are written before they are renamed into place.
//!
//! It is below `.out`, so that the rename stays on one file system. It is a single folder, so
//! that the next run can remove whatever a killed run has left.

use std::fs::Metadata;
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use super::sources::{SourceFiles, check_unchanged};
use crate::disk;
use crate::overlay::{Entry, EntryContent, FileKind};
use crate::pipeline::failure::Io;

/// The staging folder. It is empty at first and removed at the end.
pub struct StagingFolder {
    folder: PathBuf,
    next: AtomicU64,
}

impl StagingFolder {
    /// Creates an empty staging folder. The caller holds the project's lock.
    pub fn new(project: &Path) -> Result<Self, Io> {
        let out = project.join(".out");
        if out
            .symlink_metadata()
            .is_ok_and(|metadata| metadata.is_symlink())
        {
            let error = std::io::Error::other(
                "it is a symbolic link; alokai writes only inside the project",
            );
            return Err(Io::at("compose into", &out)(error));
        }
        let folder = out.join(".tmp");
        disk::remove(&folder).map_err(Io::at("remove", &folder))?;
        for part in ["files", "stores"] {
            let folder = folder.join(part);
            std::fs::create_dir_all(&folder).map_err(Io::at("create the folder", &folder))?;
        }
        Ok(Self {
            folder,
            next: AtomicU64::new(0),
        })
    }

    /// A new path for one staged file.
    pub fn file(&self) -> PathBuf {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.folder.join("files").join(number.to_string())
    }

    /// The path of a store that is staged whole.
    pub fn store(&self, id: &str) -> PathBuf {
        self.folder.join("stores").join(id)
    }
}

impl Drop for StagingFolder {
    fn drop(&mut self) {
        // The next run removes what cannot be removed now.
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// Writes one file or link to `path`, which does not exist yet, and returns its metadata. `place`
/// is its final path, for error messages.
pub fn write_entry(
    path: &Path,
    entry: &Entry,
    sources: &SourceFiles,
    place: &Path,
) -> Result<Metadata, Io> {
    let failed = || Io::at("write", place);
    let create = |content: &[u8], mode: u32| {
        // A build can change the file, as Next.js does with `tsconfig.json`.
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
            check_unchanged(source, stamp, &now)?;
            path.metadata().map_err(failed())
        }
        (FileKind::File { .. }, EntryContent::Text(text)) => {
            create(text.as_bytes(), mode).map_err(failed())
        }
        (
            FileKind::File { .. },
            EntryContent::Blob(_) | EntryContent::Memory(_) | EntryContent::Link,
        ) => {
            let content = entry.read().map_err(failed())?;
            create(&content, mode).map_err(failed())
        }
    }
}

/// The permissions of the source, with the executable bits of the composition. The index of git
/// holds these bits where `core.fileMode` is off.
fn composed_mode(source: u32, composed: u32) -> u32 {
    let source = source & 0o777;
    match (source & 0o100 != 0, composed & 0o100 != 0) {
        (true, false) => source & 0o666,
        // Everyone who can read the file can execute it.
        (false, true) => source | (source & 0o444) >> 2,
        _ => source,
    }
}

/// Copies a large file by the system, which clones it where the file system supports that.
fn copy(source: &Path, path: &Path, place: &Path, composed: u32) -> Result<(), Io> {
    let failed = || Io::at("write", place);
    std::fs::copy(source, path).map_err(|error| {
        // The error of `copy` does not name the side that failed.
        match std::fs::File::open(source) {
            Err(error) => Io::at("read", source)(error),
            Ok(_) => failed()(error),
        }
    })?;
    let mode = path.metadata().map_err(failed())?.permissions().mode();
    let permissions = std::fs::Permissions::from_mode(composed_mode(mode, composed) | 0o200);
    std::fs::set_permissions(path, permissions).map_err(failed())
}
