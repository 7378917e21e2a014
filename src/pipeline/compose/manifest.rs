//! The record of the files that the last compose wrote, so that the next one can skip them.
//!
//! While a compose moves files into place, a second file beside the manifest names the affected
//! paths. After an interrupted run, the next compose writes or removes these paths again.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::super::failure::Io;
use super::super::stored::{read, write};
use crate::disk;
use crate::overlay::{ContentId, Entry, FileKind};

/// The composed files of one store. Paths are relative to the store's folder under `.out`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct StoreManifest {
    /// The files that were written.
    pub files: BTreeMap<String, WrittenFile>,
    /// Paths that an interrupted compose was about to change: each may exist or not.
    #[serde(skip)]
    pub under_way: BTreeSet<String>,
}

/// How a file on disk compares with the entry that belongs there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ComposedFileState {
    /// The file is as the manifest records it.
    Unchanged,
    /// The file has the right content, but the manifest records it differently.
    Touched,
    /// The file is missing or has to be written again.
    Different,
}

/// A file as compose has written it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WrittenFile {
    kind: WrittenKind,
    id: ContentId,
    size: u64,
    /// Nanoseconds since the epoch.
    modified: i128,
    /// The time of the last change to the inode, in the same unit. No program can set it.
    changed: i128,
    /// Permission bits.
    mode: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum WrittenKind {
    File,
    Executable,
    Link,
}

/// The files of a store under `.alokai/manifests`.
#[derive(Debug, Clone)]
pub struct ManifestFiles {
    manifest: PathBuf,
    under_way: PathBuf,
    prepared: PathBuf,
}

impl ManifestFiles {
    /// The files of one store in a project.
    pub fn new(project: &Path, store: &str) -> Self {
        let folder = project.join(".alokai/manifests");
        // No store's id begins with a dot.
        Self {
            manifest: folder.join(format!("{store}.json")),
            under_way: folder.join(format!(".{store}.under-way.json")),
            prepared: folder.join(format!(".{store}.prepared.json")),
        }
    }

    /// Reads the manifest. Returns none where it is missing or cannot be parsed.
    pub fn read(&self) -> Result<Option<StoreManifest>, Io> {
        let Some(mut manifest) = read::<StoreManifest>(&self.manifest)? else {
            return Ok(None);
        };
        if self.under_way.exists() {
            let paths = read::<BTreeSet<String>>(&self.under_way)?;
            // Without this list, every path could be affected.
            let Some(paths) = paths else { return Ok(None) };
            manifest.under_way = paths;
        }
        Ok(Some(manifest))
    }

    /// Whether there is a manifest, and the compose that wrote it has completed.
    pub fn is_complete(&self) -> bool {
        self.manifest.exists() && !self.under_way.exists()
    }

    /// Writes the manifest atomically, then removes the list of affected paths.
    pub fn write(&self, manifest: &StoreManifest) -> Result<(), Io> {
        write(&self.manifest, manifest)?;
        remove(&self.under_way)
    }

    /// Writes the manifest of a staged store, to be renamed by [`Self::adopt`].
    pub fn prepare(&self, manifest: &StoreManifest) -> Result<(), Io> {
        write(&self.prepared, manifest)
    }

    /// Renames the prepared manifest to the manifest.
    pub fn adopt(&self) -> Result<(), Io> {
        std::fs::rename(&self.prepared, &self.manifest).map_err(Io::at("write", &self.manifest))
    }

    /// Records the paths that are about to be written or removed.
    pub fn begin(&self, paths: &BTreeSet<&str>) -> Result<(), Io> {
        write(&self.under_way, paths)
    }

    /// Removes the manifest of the store.
    pub fn forget(&self) -> Result<(), Io> {
        remove(&self.manifest)?;
        remove(&self.under_way)
    }
}

/// Whether a relative path stays inside its folder. A manifest can be edited by hand.
pub fn is_below(path: &str) -> bool {
    let mut parts = Path::new(path).components();
    parts.all(|part| matches!(part, std::path::Component::Normal(_)))
}

fn remove(path: &Path) -> Result<(), Io> {
    disk::remove_file(path).map_err(Io::at("remove", path))
}

impl StoreManifest {
    /// Compares a file with the entry that belongs there: one `stat`, and one read where the
    /// `stat` shows a change.
    pub fn compare(&self, path: &str, entry: &Entry, file: &Path) -> ComposedFileState {
        let Ok(metadata) = file.symlink_metadata() else {
            return ComposedFileState::Different;
        };
        let known = self.files.get(path).filter(|written| {
            written.id == entry.id()
                && written.kind == WrittenKind::of(entry)
                && !self.under_way.contains(path)
        });
        if known.is_some_and(|written| written.matches(&metadata)) {
            return ComposedFileState::Unchanged;
        }
        let is_executable = metadata.mode() & 0o100 != 0;
        let is_alike = metadata.is_file()
            && *entry.kind()
                == (FileKind::File {
                    executable: is_executable,
                })
            && metadata.mode() & 0o200 != 0
            && ContentId::of_file(file).is_ok_and(|id| id == entry.id());
        if is_alike {
            ComposedFileState::Touched
        } else {
            ComposedFileState::Different
        }
    }

    /// Every path that can exist.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        let more = self.under_way.iter();
        let more = more.filter(|path| !self.files.contains_key(*path));
        self.files.keys().chain(more).map(String::as_str)
    }

    /// Records these paths of the store's folder as they are now. Returns whether any record has changed.
    pub fn record_paths(&mut self, folder: &Path, is_recorded: impl Fn(&str) -> bool) -> bool {
        let mut changed = false;
        for (path, written) in &mut self.files {
            if !is_recorded(path) {
                continue;
            }
            if let Ok(metadata) = folder.join(path).symlink_metadata()
                && !metadata.is_dir()
                && !written.matches(&metadata)
            {
                written.record(&metadata);
                changed = true;
            }
        }
        changed
    }

    /// Records the files of one app as they are now. Returns whether any record has changed.
    pub fn record_current(&mut self, folder: &Path, app: &str) -> bool {
        self.record_paths(folder, |path| path.split('/').next() == Some(app))
    }
}

impl WrittenKind {
    fn of(entry: &Entry) -> Self {
        match entry.kind() {
            FileKind::File { executable: false } => Self::File,
            FileKind::File { executable: true } => Self::Executable,
            FileKind::Link { .. } => Self::Link,
        }
    }
}

impl WrittenFile {
    /// Records a file with its current metadata.
    pub fn new(entry: &Entry, metadata: &Metadata) -> Self {
        let mut written = Self {
            kind: WrittenKind::of(entry),
            id: entry.id(),
            size: 0,
            modified: 0,
            changed: 0,
            mode: 0,
        };
        written.record(metadata);
        written
    }

    fn record(&mut self, metadata: &Metadata) {
        self.size = metadata.size();
        self.modified = nanoseconds(metadata.mtime(), metadata.mtime_nsec());
        self.changed = nanoseconds(metadata.ctime(), metadata.ctime_nsec());
        self.mode = metadata.mode() & 0o7777;
    }

    fn matches(&self, metadata: &Metadata) -> bool {
        self.size == metadata.size()
            && self.modified == nanoseconds(metadata.mtime(), metadata.mtime_nsec())
            && self.changed == nanoseconds(metadata.ctime(), metadata.ctime_nsec())
            && self.mode == metadata.mode() & 0o7777
    }
}

fn nanoseconds(seconds: i64, rest: i64) -> i128 {
    i128::from(seconds) * 1_000_000_000 + i128::from(rest)
}
