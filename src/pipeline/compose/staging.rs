//! `.out/.tmp`: where files are written before they move to their place.
//!
//! Below `.out`, so that moving is a rename on one file system; and in one folder, so that
//! whatever a killed run has left is found and swept by the next.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::overlay::{Body, Entry, Kind};
use crate::pipeline::failure::Io;

/// The folder, emptied now and removed in the end.
pub struct Staging {
    folder: PathBuf,
    next: AtomicU64,
}

impl Staging {
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
        match std::fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(Io::at("remove", &folder)(error));
            }
            _ => {}
        }
        std::fs::create_dir_all(&folder).map_err(Io::at("make the folder", &folder))?;
        Ok(Self {
            folder,
            next: AtomicU64::new(0),
        })
    }

    /// Writes one file or link under a number. `place` is where it will go, for messages.
    pub fn write(&self, entry: &Entry, place: &Path) -> Result<PathBuf, Io> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let temporary = self.folder.join(number.to_string());
        fill(&temporary, entry, place)?;
        Ok(temporary)
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // What cannot be removed now is swept by the next run.
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn fill(temporary: &Path, entry: &Entry, place: &Path) -> Result<(), Io> {
    use std::os::unix::fs::PermissionsExt;
    let failed = || Io::at("write", place);
    match (&entry.body, &entry.kind) {
        (_, Kind::Link { target }) => {
            std::os::unix::fs::symlink(&**target, temporary).map_err(failed())
        }
        (Body::Text(text), Kind::File { .. }) => {
            std::fs::write(temporary, &**text).map_err(failed())
        }
        (Body::Copy(source, stamp), Kind::File { .. }) => {
            std::fs::copy(source, temporary).map_err(|error| {
                // `copy` does not say which side failed.
                match std::fs::File::open(source) {
                    Err(error) => Io::at("read", source)(error),
                    Ok(_) => failed()(error),
                }
            })?;
            // Its id was taken when the layer was listed; content that has changed since would
            // be recorded under the wrong one.
            if !stamp.is_of(source) {
                let error = std::io::Error::other("it changed while it was composed; run again");
                return Err(Io::at("copy", source)(error));
            }
            let metadata = temporary.metadata().map_err(failed())?;
            let mode = metadata.permissions().mode();
            if mode & 0o200 == 0 {
                // A build may have to write over it, as Next.js does with `tsconfig.json`.
                let permissions = std::fs::Permissions::from_mode(mode | 0o200);
                std::fs::set_permissions(temporary, permissions).map_err(failed())?;
            }
            Ok(())
        }
        (Body::Blob(_) | Body::Link, Kind::File { .. }) => {
            let content = entry.read().map_err(failed())?;
            std::fs::write(temporary, content).map_err(failed())
        }
    }
}
