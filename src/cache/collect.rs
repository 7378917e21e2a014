//! Collection: removes results that are old or rarely used, and archives without an entry.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::DirEntry;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::{Cache, CachedResult, Error, read};

/// Age after which a temporary file was left by a run that was killed.
const ABANDONED: Duration = Duration::from_hours(24);

/// How large and how old the cache may become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheLimits {
    /// Bytes of all archives.
    pub bytes: u64,
    /// Time since an entry was used.
    pub age: Duration,
    /// Bytes of the files of one tool cache.
    pub tool_bytes: u64,
    /// Time since a tool cache was made.
    pub tool_age: Duration,
}

impl Default for CacheLimits {
    fn default() -> Self {
        Self {
            bytes: 10_000_000_000,
            age: Duration::from_hours(30 * 24),
            tool_bytes: 1_000_000_000,
            tool_age: Duration::from_hours(7 * 24),
        }
    }
}

/// What the cache has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CacheStatistics {
    /// Entries.
    pub entries: usize,
    /// Archives; equal results share one.
    pub blobs: usize,
    /// Bytes of all archives.
    pub bytes: u64,
    /// Bytes of the files in them, each archive once.
    pub unpacked: u64,
    /// The last use of the least recently used entry.
    pub oldest: Option<SystemTime>,
    /// Tool caches, which are not results.
    pub tool_caches: usize,
    /// Bytes of their archives.
    pub tool_bytes: u64,
}

/// What a collection removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CollectedResults {
    /// Results.
    pub entries: usize,
    /// Tool caches.
    pub tool_caches: usize,
    /// Bytes of archives.
    pub bytes: u64,
}

/// Entries with the time of their last use, and paths of entries that cannot be read.
type CacheEntries = (Vec<(SystemTime, CachedResult)>, Vec<PathBuf>);

impl Cache {
    /// Removes entries that were not used for too long, then the least recently used entries until
    /// the rest fits, then archives that no entry names. Tool caches are removed before results.
    pub fn collect(&self, limits: CacheLimits) -> Result<CollectedResults, Error> {
        let now = SystemTime::now();
        let mut collected = CollectedResults::default();
        let (mut kept, broken) = self.entries()?;
        broken.iter().try_for_each(|path| remove(path))?;
        // Results first, and the most recently used first.
        kept.sort_by_key(|(used, entry)| {
            let is_tool_cache = entry.tools.is_some();
            (is_tool_cache, std::cmp::Reverse(*used), entry.key)
        });
        let mut bytes = 0;
        let mut blobs = BTreeSet::new();
        for (used, entry) in &kept {
            let is_usable = match &entry.tools {
                Some(tools) => tools.age() <= limits.tool_age && entry.bytes <= limits.tool_bytes,
                None => !now.duration_since(*used).is_ok_and(|age| age > limits.age),
            };
            let more = if blobs.contains(&entry.blob) {
                0
            } else {
                entry.length
            };
            if !is_usable || bytes + more > limits.bytes {
                remove(&self.entry_path(entry.key))?;
                match entry.tools {
                    Some(_) => collected.tool_caches += 1,
                    None => collected.entries += 1,
                }
            } else {
                bytes += more;
                blobs.insert(entry.blob);
            }
        }
        for file in files(&self.folder.join("blobs"))? {
            let name = file.file_name();
            let digits = name.to_str().and_then(|name| name.strip_suffix(".tar.zst"));
            let digest = digits.and_then(|digits| format!("sha256:{digits}").parse().ok());
            if digest.is_none_or(|digest| !blobs.contains(&digest)) {
                collected.bytes += file.metadata().map_or(0, |metadata| metadata.len());
                remove(&file.path())?;
            }
        }
        for (folder, limit) in [("tmp", ABANDONED), ("inputs", limits.age)] {
            for file in files(&self.folder.join(folder))? {
                let written = file.metadata().and_then(|metadata| metadata.modified());
                let age = written.ok().and_then(|time| now.duration_since(time).ok());
                if age.is_some_and(|age| age > limit) {
                    remove(&file.path())?;
                }
            }
        }
        Ok(collected)
    }

    /// What the cache has. Nothing is written.
    pub fn statistics(&self) -> Result<CacheStatistics, Error> {
        let (mut entries, _) = self.entries()?;
        // A list of reads is not a result.
        entries.retain(|(_, entry)| entry.reads.is_empty());
        let (tools, entries): (Vec<_>, Vec<_>) = entries
            .into_iter()
            .partition(|(_, entry)| entry.tools.is_some());
        let mut blobs = BTreeMap::new();
        for (_, entry) in &entries {
            blobs.insert(&entry.blob, (entry.length, entry.bytes));
        }
        Ok(CacheStatistics {
            entries: entries.len(),
            blobs: blobs.len(),
            bytes: blobs.values().map(|(length, _)| length).sum(),
            unpacked: blobs.values().map(|(_, bytes)| bytes).sum(),
            oldest: entries.iter().map(|(used, _)| *used).min(),
            tool_caches: tools.len(),
            tool_bytes: tools.iter().map(|(_, entry)| entry.length).sum(),
        })
    }

    /// Removes everything. Returns what was removed.
    pub fn clear(&self) -> Result<CacheStatistics, Error> {
        let statistics = self.statistics()?;
        match std::fs::remove_dir_all(&self.folder) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::at("remove", &self.folder)(error))
            }
            _ => Ok(statistics),
        }
    }

    /// Whether a result was made by a task of the store.
    pub fn has_results_of(&self, store: &str) -> Result<bool, Error> {
        let tasks = format!("{store}/");
        let (entries, _) = self.entries()?;
        Ok(entries
            .iter()
            .any(|(_, entry)| entry.maker.starts_with(&tasks)))
    }

    /// Every entry that can be read, with the time of its last use, and the paths of all other entries.
    fn entries(&self) -> Result<CacheEntries, Error> {
        let (mut entries, mut broken) = (Vec::new(), Vec::new());
        for file in files(&self.folder.join("entries"))? {
            let used = file.metadata().and_then(|metadata| metadata.modified());
            match (read::<CachedResult>(&file.path()), used) {
                (Some(entry), Ok(used)) if self.entry_path(entry.key) == file.path() => {
                    entries.push((used, entry));
                }
                _ => broken.push(file.path()),
            }
        }
        Ok((entries, broken))
    }
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

fn remove(path: &Path) -> Result<(), Error> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::at("remove", path)(error))
        }
        _ => Ok(()),
    }
}
