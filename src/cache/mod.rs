//! Results of tasks, kept so that nothing is built twice.
//!
//! A result is found by its [`Key`], which is made of everything that the task can see
//! ([`InputRecord`]). On disk an entry is a small JSON file under `entries/` that names an archive
//! under `blobs/` by its digest, so equal results are kept once. Everything is written beside
//! its place and renamed; a run that was killed leaves nothing but a file that the next
//! collection removes. This room knows no pipeline: it keeps what it is given.

mod archive;
mod artifact;
mod collect;
mod inputs;
mod key;
mod remote;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use archive::ExpectedArchive;
pub use archive::{FILES, LOG, output};
pub use collect::{CacheLimits, CacheStatistics, CollectedResults};
pub use inputs::{FileInput, InputChange, InputChangeKind, InputRecord};
pub use key::{Key, KeyHasher, OutputDigest};
pub use remote::{RemoteCache, RemoteCacheSettings};

/// Why the cache could not be used. No reason to end a build.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The disk.
    #[error("cannot {doing} `{}`: {source}", path.display())]
    Io {
        /// Such as `write`.
        doing: &'static str,
        /// To which path.
        path: PathBuf,
        /// The system's word.
        source: std::io::Error,
    },
    /// What is kept is not what was kept.
    #[error("the cached result is damaged: {reason}")]
    Damaged {
        /// What is wrong with it.
        reason: String,
    },
    /// A result that cannot be kept.
    #[error("the result cannot be cached: {reason}")]
    Unfit {
        /// Why.
        reason: String,
    },
}

impl Error {
    /// For `map_err`.
    fn at(doing: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self::Io {
            doing,
            path,
            source,
        }
    }
}

/// What is known of a kept result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CachedResult {
    /// What it is found by.
    pub key: Key,
    /// Whose task made it: `us/storefront-middleware`, or a package's name.
    pub maker: String,
    /// How long that took.
    pub milliseconds: u64,
    /// Most memory that it took.
    pub peak_bytes: u64,
    /// SHA-256 of the archive.
    blob: String,
    /// Bytes of the archive.
    length: u64,
    /// Bytes of what is in it.
    bytes: u64,
    /// How many paths the task wrote.
    pub files: usize,
    /// Identity of what it wrote: what keys of later tasks are made of.
    pub output: OutputDigest,
    /// Only in a list of reads (see [`Cache::reads`]): files that scripts have opened.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub reads: BTreeSet<String>,
}

impl CachedResult {
    /// SHA-256 of what is kept.
    pub fn digest(&self) -> &str {
        &self.blob
    }

    fn expected(&self) -> ExpectedArchive<'_> {
        ExpectedArchive {
            digest: &self.blob,
            bytes: self.bytes,
            output: self.output,
        }
    }
}

/// A task that has ended well, to be kept.
pub struct FinishedTask<'a> {
    /// Where its files lie.
    pub folder: &'a Path,
    /// What it wrote, relative to the folder.
    pub paths: &'a BTreeSet<String>,
    /// Everything that it printed.
    pub log: &'a Path,
    /// Whose it is.
    pub maker: &'a str,
    /// What it is found by.
    pub key: Key,
    /// How long it took.
    pub elapsed: Duration,
    /// Most memory that it took.
    pub peak_bytes: u64,
}

/// What is known of a task from the last time: how long, and how much memory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TaskFigures {
    /// Wall time.
    pub milliseconds: u64,
    /// Most memory of all its processes together.
    pub peak_bytes: u64,
}

/// The cache of one project.
#[derive(Debug, Clone)]
pub struct Cache {
    folder: PathBuf,
}

impl Cache {
    /// The cache in this folder, which may not be there yet.
    pub fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    fn entry_path(&self, key: Key) -> PathBuf {
        self.folder.join("entries").join(format!("{key}.json"))
    }

    fn blob_path(&self, digest: &str) -> PathBuf {
        self.folder.join("blobs").join(format!("{digest}.tar.zst"))
    }

    /// The entry of that key, if its archive is there with the right length. It counts as used.
    pub fn find(&self, key: Key) -> Option<CachedResult> {
        let entry = self.peek(key)?;
        // Least recently used goes first. That it cannot be noted harms nobody.
        if let Ok(file) = File::options().append(true).open(self.entry_path(key)) {
            let _ = file.set_modified(SystemTime::now());
        }
        Some(entry)
    }

    /// The same, but it does not count as used: nothing is written.
    pub fn peek(&self, key: Key) -> Option<CachedResult> {
        let path = self.entry_path(key);
        let entry: CachedResult = read(&path)?;
        if entry.key != key || !is_digest(&entry.blob) {
            return None;
        }
        let length = self.blob_path(&entry.blob).metadata().ok()?.len();
        (length == entry.length).then_some(entry)
    }

    /// Keeps a result under its key.
    pub fn keep(&self, finished: &FinishedTask) -> Result<CachedResult, Error> {
        let temporary = self.temporary()?;
        let to = temporary
            .reopen()
            .map_err(Error::at("open", temporary.path()))?;
        let packed = archive::pack(finished.folder, finished.paths, finished.log, to)?;
        let entry = CachedResult {
            key: finished.key,
            maker: finished.maker.to_owned(),
            milliseconds: u64::try_from(finished.elapsed.as_millis()).unwrap_or(u64::MAX),
            peak_bytes: finished.peak_bytes,
            blob: packed.digest,
            length: packed.length,
            bytes: packed.bytes,
            files: finished.paths.len(),
            output: packed.output,
            reads: BTreeSet::new(),
        };
        self.adopt(temporary, &entry)?;
        Ok(entry)
    }

    /// Files that scripts with this primary key have opened beside those that are in the key
    /// anyway; their content makes the key complete (see [`Key::with_reads`]).
    pub fn reads(&self, primary: Key) -> BTreeSet<String> {
        let entry = read::<CachedResult>(&self.entry_path(primary.of_reads()));
        entry.map(|entry| entry.reads).unwrap_or_default()
    }

    /// Adds to the list of reads; gives the new list, where it has grown.
    pub fn add_reads(
        &self,
        primary: Key,
        now: &BTreeSet<String>,
    ) -> Result<Option<CachedResult>, Error> {
        let known = self.reads(primary);
        if now.is_empty() || now.is_subset(&known) {
            return Ok(None);
        }
        let temporary = self.temporary()?;
        let to = temporary
            .reopen()
            .map_err(Error::at("open", temporary.path()))?;
        let none = BTreeSet::new();
        let packed = archive::pack(&self.folder, &none, Path::new(""), to)?;
        let entry = CachedResult {
            key: primary.of_reads(),
            maker: "reads".into(),
            milliseconds: 0,
            peak_bytes: 0,
            blob: packed.digest,
            length: packed.length,
            bytes: packed.bytes,
            files: 0,
            output: packed.output,
            reads: known.union(now).cloned().collect(),
        };
        self.adopt(temporary, &entry)?;
        Ok(Some(entry))
    }

    /// A file in the cache that goes away unless it is adopted.
    fn temporary(&self) -> Result<tempfile::NamedTempFile, Error> {
        let folder = self.folder.join("tmp");
        std::fs::create_dir_all(&folder).map_err(Error::at("make the folder", &folder))?;
        tempfile::NamedTempFile::new_in(&folder).map_err(Error::at("make a file in", &folder))
    }

    /// Takes an archive over under its digest, and then writes the entry that names it.
    fn adopt(&self, archive: tempfile::NamedTempFile, entry: &CachedResult) -> Result<(), Error> {
        let blob = self.blob_path(&entry.blob);
        let folder = self.folder.join("blobs");
        std::fs::create_dir_all(&folder).map_err(Error::at("make the folder", &folder))?;
        archive
            .persist(&blob)
            .map_err(|error| Error::at("write", &blob)(error.error))?;
        self.write(&self.entry_path(entry.key), entry)
    }

    /// Unpacks a result into an empty folder: its log as `log`, its files below `files`, whose
    /// paths it returns. A damaged one is removed.
    pub fn unpack(&self, entry: &CachedResult, into: &Path) -> Result<BTreeSet<String>, Error> {
        let blob = self.blob_path(&entry.blob);
        let opened = File::open(&blob).map_err(Error::at("open", &blob))?;
        let unpacked = archive::unpack(opened, &entry.expected(), into);
        if matches!(unpacked, Err(Error::Damaged { .. })) {
            let _ = std::fs::remove_file(self.entry_path(entry.key));
            let _ = std::fs::remove_file(&blob);
        }
        unpacked
    }

    /// What the task saw when its last result was kept or taken.
    pub fn inputs(&self, task: &str) -> Option<InputRecord> {
        read(&self.inputs_path(task))
    }

    /// Remembers what the task saw.
    pub fn remember(&self, task: &str, inputs: &InputRecord) -> Result<(), Error> {
        self.write(&self.inputs_path(task), inputs)
    }

    fn inputs_path(&self, task: &str) -> PathBuf {
        let name = task.replace('/', "+");
        self.folder.join("inputs").join(format!("{name}.json"))
    }

    /// What every task took when it last ran.
    pub fn figures(&self) -> BTreeMap<String, TaskFigures> {
        read(&self.folder.join("figures.json")).unwrap_or_default()
    }

    /// Adds what tasks took now.
    pub fn learn(&self, now: BTreeMap<String, TaskFigures>) -> Result<(), Error> {
        let mut figures = self.figures();
        figures.extend(now);
        self.write(&self.folder.join("figures.json"), &figures)
    }

    fn write(&self, path: &Path, value: &impl Serialize) -> Result<(), Error> {
        let failed = || Error::at("write", path);
        let folder = path.parent().unwrap_or(&self.folder);
        std::fs::create_dir_all(folder).map_err(Error::at("make the folder", folder))?;
        let text = serde_json::to_vec(value).map_err(|error| failed()(error.into()))?;
        let mut file = self.temporary()?;
        std::io::Write::write_all(&mut file, &text).map_err(failed())?;
        file.persist(path).map_err(|error| failed()(error.error))?;
        Ok(())
    }
}

/// What a file has to say; nothing where it is missing or broken.
fn read<T: DeserializeOwned>(path: &Path) -> Option<T> {
    serde_json::from_slice(&std::fs::read(path).ok()?).ok()
}

/// A digest becomes a file's name, so nothing else may be taken for one.
fn is_digest(text: &str) -> bool {
    text.len() == 64
        && text
            .bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}
