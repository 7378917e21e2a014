//! The cache: results of tasks, so that no task runs twice for the same inputs.
//!
//! A result is found by its [`Key`], which is made of everything that the task can read
//! ([`InputRecord`]). On disk an entry is a small JSON file under `entries/` that names an archive
//! under `blobs/` by its digest, so equal results are stored once. Each file is written to a
//! temporary file and renamed; a run that is killed leaves only a temporary file, which the next
//! collection removes.

mod archive;
mod artifact;
mod collect;
mod identity;
mod inputs;
mod key;
mod remote;
mod tools;

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
use oci::Digest;
pub use remote::{RemoteCache, RemoteCacheSettings};
pub use tools::{
    DownloadedToolCache, FinishedToolCache, ScriptTimes, ToolCacheFigures, ToolCacheName,
    UsableToolCache,
};

/// Why the cache cannot be used. It never ends a build.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or folder of the cache.
    #[error("cannot {action} `{}`: {source}", path.display())]
    Io {
        /// Such as `write`.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The operating system's error.
        source: std::io::Error,
    },
    /// A cached result does not match its entry.
    #[error("the cached result is not valid: {reason}")]
    Invalid {
        /// What is wrong.
        reason: String,
    },
    /// A result that cannot be stored.
    #[error("the result cannot be cached: {reason}")]
    NotCacheable {
        /// Why.
        reason: String,
    },
}

impl Error {
    /// For `map_err`.
    fn at(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self::Io {
            action,
            path,
            source,
        }
    }
}

/// The entry of a cached result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CachedResult {
    /// The key of its task.
    pub key: Key,
    /// The unit whose task made it: `us/storefront-middleware`, or a package's name.
    pub maker: String,
    /// How long the task took.
    pub milliseconds: u64,
    /// The most memory that the task used.
    pub peak_bytes: u64,
    /// SHA-256 of the archive.
    #[serde(with = "bare_sha256")]
    blob: Digest,
    /// Bytes of the archive.
    length: u64,
    /// Bytes of the files in it.
    bytes: u64,
    /// How many paths the task wrote.
    pub files: usize,
    /// Identity of the files: part of the keys of later tasks.
    pub output: OutputDigest,
    /// Files that scripts have opened; only in a list of reads (see [`Cache::reads`]).
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub reads: BTreeSet<String>,
    /// The figures of a tool cache; none for a result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tools: Option<Box<ToolCacheFigures>>,
}

impl CachedResult {
    /// SHA-256 of the archive.
    pub fn digest(&self) -> Digest {
        self.blob
    }

    fn expected(&self) -> ExpectedArchive {
        ExpectedArchive {
            digest: self.blob,
            bytes: self.bytes,
            output: self.output,
        }
    }
}

/// A task that has succeeded, whose result is to be stored.
pub struct FinishedTask<'a> {
    /// The folder of its files.
    pub folder: &'a Path,
    /// The paths that it wrote, relative to the folder.
    pub paths: &'a BTreeSet<String>,
    /// The file of its output.
    pub log: &'a Path,
    /// The unit of the task.
    pub maker: &'a str,
    /// The key of the task.
    pub key: Key,
    /// How long the task took.
    pub elapsed: Duration,
    /// The most memory that the task used.
    pub peak_bytes: u64,
}

/// What a task used when it last ran.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TaskFigures {
    /// Wall time.
    pub milliseconds: u64,
    /// The most memory of all its processes together.
    pub peak_bytes: u64,
    /// Its wall time with and without a tool cache.
    #[serde(flatten)]
    pub times: ScriptTimes,
}

/// The cache of one project.
#[derive(Debug, Clone)]
pub struct Cache {
    folder: PathBuf,
}

impl Cache {
    /// The cache in this folder, which need not exist.
    pub fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    fn entry_path(&self, key: Key) -> PathBuf {
        self.folder.join("entries").join(format!("{key}.json"))
    }

    fn blob_path(&self, digest: &Digest) -> PathBuf {
        let name = format!("{}.tar.zst", digest.hex());
        self.folder.join("blobs").join(name)
    }

    /// The entry of a key, if its archive exists with the right length. It counts as used.
    pub fn find(&self, key: Key) -> Option<CachedResult> {
        let entry = self.peek(key)?;
        // The time of the last use decides what a collection removes; it may fail to be written.
        if let Ok(file) = File::options().append(true).open(self.entry_path(key)) {
            let _ = file.set_modified(SystemTime::now());
        }
        Some(entry)
    }

    /// As [`Self::find`], but the entry does not count as used: nothing is written.
    pub fn peek(&self, key: Key) -> Option<CachedResult> {
        let path = self.entry_path(key);
        let entry: CachedResult = read(&path)?;
        if entry.key != key {
            return None;
        }
        let length = self.blob_path(&entry.blob).metadata().ok()?.len();
        (length == entry.length).then_some(entry)
    }

    /// Stores a result under its key.
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
            tools: None,
        };
        self.adopt(temporary, &entry)?;
        Ok(entry)
    }

    /// Files that scripts with this primary key have opened and that are not part of it. Their
    /// content completes the key (see [`Key::with_reads`]).
    pub fn reads(&self, primary: Key) -> BTreeSet<String> {
        let entry = read::<CachedResult>(&self.entry_path(primary.of_reads()));
        entry.map(|entry| entry.reads).unwrap_or_default()
    }

    /// Adds files to the list of reads. Returns the new list if it has grown.
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
            tools: None,
        };
        self.adopt(temporary, &entry)?;
        Ok(Some(entry))
    }

    /// A temporary file of the cache, which is removed unless it is adopted.
    fn temporary(&self) -> Result<tempfile::NamedTempFile, Error> {
        let folder = self.folder.join("tmp");
        std::fs::create_dir_all(&folder).map_err(Error::at("create the folder", &folder))?;
        tempfile::NamedTempFile::new_in(&folder).map_err(Error::at("create a file in", &folder))
    }

    /// Stores an archive under its digest, and then the entry that names it.
    fn adopt(&self, archive: tempfile::NamedTempFile, entry: &CachedResult) -> Result<(), Error> {
        let blob = self.blob_path(&entry.blob);
        let folder = self.folder.join("blobs");
        std::fs::create_dir_all(&folder).map_err(Error::at("create the folder", &folder))?;
        archive
            .persist(&blob)
            .map_err(|error| Error::at("write", &blob)(error.error))?;
        self.write(&self.entry_path(entry.key), entry)
    }

    /// Unpacks a result into an empty folder: its log as `log`, its files below `files`. Returns the
    /// paths of the files. A result that is not valid is removed from the cache.
    pub fn unpack(&self, entry: &CachedResult, into: &Path) -> Result<BTreeSet<String>, Error> {
        let blob = self.blob_path(&entry.blob);
        let opened = File::open(&blob).map_err(Error::at("open", &blob))?;
        let unpacked = archive::unpack(opened, &entry.expected(), into);
        if matches!(unpacked, Err(Error::Invalid { .. })) {
            let _ = std::fs::remove_file(self.entry_path(entry.key));
            let _ = std::fs::remove_file(&blob);
        }
        unpacked
    }

    /// The inputs of a task when its last result was stored or used.
    pub fn inputs(&self, task: &str) -> Option<InputRecord> {
        read(&self.inputs_path(task))
    }

    /// Stores the inputs of a task.
    pub fn remember(&self, task: &str, inputs: &InputRecord) -> Result<(), Error> {
        self.write(&self.inputs_path(task), inputs)
    }

    fn inputs_path(&self, task: &str) -> PathBuf {
        let name = task.replace('/', "+");
        self.folder.join("inputs").join(format!("{name}.json"))
    }

    /// What each task used when it last ran.
    pub fn figures(&self) -> BTreeMap<String, TaskFigures> {
        read(&self.folder.join("figures.json")).unwrap_or_default()
    }

    /// Adds what tasks have used now.
    pub fn learn(&self, now: BTreeMap<String, TaskFigures>) -> Result<(), Error> {
        let mut figures = self.figures();
        for (task, now) in now {
            let older = figures.get(&task).copied();
            figures.insert(task, now.or(older));
        }
        self.write(&self.folder.join("figures.json"), &figures)
    }

    fn write(&self, path: &Path, value: &impl Serialize) -> Result<(), Error> {
        let failed = || Error::at("write", path);
        let folder = path.parent().unwrap_or(&self.folder);
        std::fs::create_dir_all(folder).map_err(Error::at("create the folder", folder))?;
        let text = serde_json::to_vec(value).map_err(|error| failed()(error.into()))?;
        let mut file = self.temporary()?;
        std::io::Write::write_all(&mut file, &text).map_err(failed())?;
        file.persist(path).map_err(|error| failed()(error.error))?;
        Ok(())
    }
}

/// The content of a JSON file; `None` if it is missing or not valid.
fn read<T: DeserializeOwned>(path: &Path) -> Option<T> {
    serde_json::from_slice(&std::fs::read(path).ok()?).ok()
}

/// A SHA-256 as its digits alone, which is the format of entries.
mod bare_sha256 {
    use oci::Digest;
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(digest: &Digest, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&digest.hex())
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Digest, D::Error> {
        let digits = String::deserialize(deserializer)?;
        let digest = format!("sha256:{digits}").parse();
        digest.map_err(serde::de::Error::custom)
    }
}
