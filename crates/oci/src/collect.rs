//! Removes blobs that were not used for a long time.

use std::cmp::Reverse;
use std::fs::DirEntry;
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::files::{UNDER_WAY, remove};
use super::layer::{RECORDS, read};
use super::{Blobs, Digest, Error};

/// Age at which a temporary file counts as abandoned.
const ABANDONED: Duration = Duration::from_hours(24);

/// A file's time may be earlier than the clock at its writing, by at most this.
const COARSE: Duration = Duration::from_secs(2);

/// What [`collect`] removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CollectedBlobs {
    /// Number of blobs.
    pub blobs: usize,
    /// Bytes of these blobs.
    pub bytes: u64,
}

/// Removes blobs of a folder that were not used for `max_age`, then the least recently used blobs
/// until the rest has at most `max_bytes`. Blobs that were used since `begun` are kept. Records of
/// layers are removed with their blobs.
///
/// No other process may use the folder at the same time.
pub fn collect(
    folder: &Path,
    max_bytes: u64,
    max_age: Duration,
    begun: SystemTime,
) -> Result<CollectedBlobs, Error> {
    let blobs = Blobs::new(folder);
    let now = SystemTime::now();
    let begun = begun.checked_sub(COARSE).unwrap_or(begun);
    let mut found = stored(folder, now)?;
    // Most recently used first.
    found.sort_by_key(|(used, digest, _)| (Reverse(*used), *digest));
    let mut collected = CollectedBlobs::default();
    let mut kept = 0;
    for (used, digest, bytes) in found {
        let is_old = now.duration_since(used).is_ok_and(|age| age > max_age);
        if used < begun && (is_old || kept + bytes > max_bytes) {
            blobs.remove(&digest)?;
            collected.blobs += 1;
            collected.bytes += bytes;
        } else {
            kept += bytes;
        }
    }
    for file in files(&folder.join(RECORDS))? {
        if file.file_name().to_string_lossy().starts_with(UNDER_WAY) {
            sweep(&file, now)?;
            continue;
        }
        let is_of_use =
            read(&file.path()).is_some_and(|record| blobs.path(&record.descriptor.digest).exists());
        if !is_of_use {
            remove(&file.path())?;
        }
    }
    Ok(collected)
}

/// The blobs of a folder: last use, digest and size. Abandoned temporary files are removed.
fn stored(folder: &Path, now: SystemTime) -> Result<Vec<(SystemTime, Digest, u64)>, Error> {
    let mut found = Vec::new();
    for algorithm in ["sha256", "sha512"] {
        for file in files(&folder.join("blobs").join(algorithm))? {
            let name = file.file_name().to_string_lossy().into_owned();
            let Ok(digest) = format!("{algorithm}:{name}").parse::<Digest>() else {
                sweep(&file, now)?;
                continue;
            };
            let metadata = file.metadata().map_err(Error::at("read", &file.path()))?;
            let used = metadata.modified();
            let used = used.map_err(Error::at("read", &file.path()))?;
            found.push((used, digest, metadata.len()));
        }
    }
    Ok(found)
}

/// Removes the blobs of a layout that are not needed and were not used for this time.
pub(super) fn remove_unused(
    blobs: &Blobs,
    unused_for: Duration,
    is_needed: impl Fn(&Digest) -> bool,
) -> Result<CollectedBlobs, Error> {
    let now = SystemTime::now();
    let mut removed = CollectedBlobs::default();
    for (used, digest, bytes) in stored(blobs.folder(), now)? {
        let age = now.duration_since(used).unwrap_or_default();
        if age >= unused_for && !is_needed(&digest) {
            blobs.remove(&digest)?;
            removed.blobs += 1;
            removed.bytes += bytes;
        }
    }
    Ok(removed)
}

/// Removes an abandoned temporary file.
fn sweep(file: &DirEntry, now: SystemTime) -> Result<(), Error> {
    let is_ours = file.file_name().to_string_lossy().starts_with(UNDER_WAY);
    let written = file.metadata().and_then(|metadata| metadata.modified());
    let age = written.ok().and_then(|time| now.duration_since(time).ok());
    if is_ours && age.is_some_and(|age| age > ABANDONED) {
        remove(&file.path())?;
    }
    Ok(())
}

fn files(folder: &Path) -> Result<Vec<DirEntry>, Error> {
    match std::fs::read_dir(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(Error::at("read", folder)(error)),
        Ok(entries) => entries
            .collect::<Result<_, _>>()
            .map_err(Error::at("read", folder)),
    }
}
