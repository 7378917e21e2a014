//! What the last compose wrote, so that the next one knows what it may leave alone.
//!
//! While a compose puts files in place, a second file beside the manifest names the paths that
//! are under way; what it names is believed by nobody until the next compose has repaired it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::super::failure::Io;
use super::super::stored::{read, write};
use crate::disk;
use crate::overlay::{ContentId, Entry, FileKind};

/// Files of one store under `.out`, by path relative to the store's folder.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct StoreManifest {
    /// The files.
    pub files: BTreeMap<String, WrittenFile>,
    /// Paths of a compose that did not end: they may exist or not.
    #[serde(skip)]
    pub under_way: BTreeSet<String>,
}

/// Whether a file is as it would be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileState {
    /// It was left alone.
    Yes,
    /// It has the same content, and the manifest does not know of it.
    Touched,
    /// It has to be written.
    No,
}

/// A file as it was left.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WrittenFile {
    kind: WrittenKind,
    id: ContentId,
    size: u64,
    /// Nanoseconds since the epoch.
    modified: i128,
    /// The same of the inode, which nobody can set back.
    changed: i128,
    /// Permissions.
    mode: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum WrittenKind {
    File,
    Executable,
    Link,
}

/// Where the manifest of a store lies, and the paths that are under way beside it.
#[derive(Debug, Clone)]
pub struct ManifestFiles {
    manifest: PathBuf,
    under_way: PathBuf,
    prepared: PathBuf,
}

impl ManifestFiles {
    /// Of a store in a project.
    pub fn new(project: &Path, store: &str) -> Self {
        let folder = project.join(".alokai/manifests");
        // No store's id begins with a dot.
        Self {
            manifest: folder.join(format!("{store}.json")),
            under_way: folder.join(format!(".{store}.under-way.json")),
            prepared: folder.join(format!(".{store}.prepared.json")),
        }
    }

    /// Reads the manifest; none where it is missing or broken.
    pub fn read(&self) -> Result<Option<StoreManifest>, Io> {
        let Some(mut manifest) = read::<StoreManifest>(&self.manifest)? else {
            return Ok(None);
        };
        if self.under_way.exists() {
            let paths = read::<BTreeSet<String>>(&self.under_way)?;
            // Broken, it would have to name everything.
            let Some(paths) = paths else { return Ok(None) };
            manifest.under_way = paths;
        }
        Ok(Some(manifest))
    }

    /// Writes the manifest whole or not at all; then nothing is under way any more.
    pub fn write(&self, manifest: &StoreManifest) -> Result<(), Io> {
        write(&self.manifest, manifest)?;
        remove(&self.under_way)
    }

    /// Writes the manifest of a store that waits to be put in place as a whole.
    pub fn prepare(&self, manifest: &StoreManifest) -> Result<(), Io> {
        write(&self.prepared, manifest)
    }

    /// Takes the prepared manifest for the manifest.
    pub fn adopt(&self) -> Result<(), Io> {
        std::fs::rename(&self.prepared, &self.manifest).map_err(Io::at("write", &self.manifest))
    }

    /// Remembers what is about to be put in place or removed.
    pub fn begin(&self, paths: &BTreeSet<&str>) -> Result<(), Io> {
        write(&self.under_way, paths)
    }

    /// Forgets the store.
    pub fn forget(&self) -> Result<(), Io> {
        remove(&self.manifest)?;
        remove(&self.under_way)
    }
}

/// Whether a path lies below the folder that it counts from; a manifest can be edited.
pub fn is_below(path: &str) -> bool {
    let mut parts = Path::new(path).components();
    parts.all(|part| matches!(part, std::path::Component::Normal(_)))
}

fn remove(path: &Path) -> Result<(), Io> {
    disk::remove_file(path).map_err(Io::at("remove", path))
}

impl StoreManifest {
    /// Whether the file is there just as this entry would be written: one stat, and one reading
    /// where that tells of a change.
    pub fn holds(&self, path: &str, entry: &Entry, file: &Path) -> FileState {
        let Ok(metadata) = file.symlink_metadata() else {
            return FileState::No;
        };
        let known = self.files.get(path).filter(|written| {
            written.id == entry.id()
                && written.kind == WrittenKind::of(entry)
                && !self.under_way.contains(path)
        });
        if known.is_some_and(|written| written.is_as_left(&metadata)) {
            return FileState::Yes;
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
            FileState::Touched
        } else {
            FileState::No
        }
    }

    /// Every path that may exist.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        let more = self.under_way.iter();
        let more = more.filter(|path| !self.files.contains_key(*path));
        self.files.keys().chain(more).map(String::as_str)
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
    /// The file as it is now.
    pub fn new(entry: &Entry, metadata: &Metadata) -> Self {
        let mut written = Self {
            kind: WrittenKind::of(entry),
            id: entry.id(),
            size: 0,
            modified: 0,
            changed: 0,
            mode: 0,
        };
        written.leave(metadata);
        written
    }

    fn leave(&mut self, metadata: &Metadata) {
        self.size = metadata.size();
        self.modified = nanoseconds(metadata.mtime(), metadata.mtime_nsec());
        self.changed = nanoseconds(metadata.ctime(), metadata.ctime_nsec());
        self.mode = metadata.mode() & 0o7777;
    }

    fn is_as_left(&self, metadata: &Metadata) -> bool {
        self.size == metadata.size()
            && self.modified == nanoseconds(metadata.mtime(), metadata.mtime_nsec())
            && self.changed == nanoseconds(metadata.ctime(), metadata.ctime_nsec())
            && self.mode == metadata.mode() & 0o7777
    }
}

fn nanoseconds(seconds: i64, rest: i64) -> i128 {
    i128::from(seconds) * 1_000_000_000 + i128::from(rest)
}
