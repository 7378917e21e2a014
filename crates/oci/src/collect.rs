//! Keeping blobs few: what was not used for too long goes, and then what was used longest ago
//! until the rest fits. These are the rules of the cache of tasks.

use std::cmp::Reverse;
use std::fs::DirEntry;
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::blobs::{UNDER_WAY, remove};
use super::layer::{RECORDS, read};
use super::{Blobs, Digest, Error};

/// How long a file that is being written may lie around before it counts as left behind.
const ABANDONED: Duration = Duration::from_hours(24);

/// A file's time may be that much earlier than the clock was when it was written.
const COARSE: Duration = Duration::from_secs(2);

/// What a collection removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CollectedBlobs {
    /// Blobs.
    pub blobs: usize,
    /// Bytes of those.
    pub bytes: u64,
}

/// Removes blobs below a folder that were not used for `max_age`, and the least recently used
/// ones until the rest has at most `max_bytes`. What was used since `begun`, when the present
/// run began, stays in any case. Records of layers go with their blobs.
///
/// Another run of the program must not use the folder at the same time.
pub fn collect(
    folder: &Path,
    max_bytes: u64,
    max_age: Duration,
    begun: SystemTime,
) -> Result<CollectedBlobs, Error> {
    let blobs = Blobs::new(folder);
    let now = SystemTime::now();
    let begun = begun.checked_sub(COARSE).unwrap_or(begun);
    let mut found = Vec::new();
    let all = ["sha256", "sha512"].map(|algorithm| {
        let files = files(&folder.join("blobs").join(algorithm));
        files.map(|files| files.into_iter().map(move |file| (algorithm, file)))
    });
    let [short, long] = all;
    for (algorithm, file) in short?.chain(long?) {
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

/// Removes a file that a killed run was writing.
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
