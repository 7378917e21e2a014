//! Tool caches, such as `.next/cache/webpack`: files that make the next run of a script faster and
//! that are not part of its result.
//!
//! They use the archives, the limits and the remote cache of results, with one difference: the key is
//! derived from a *name* and not from inputs, so a newer cache replaces an older one.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use tempfile::NamedTempFile;

use super::{Cache, CacheLimits, CachedResult, Error, Key, KeyHasher, TaskFigures, archive};

/// The name of the tool cache of one task: the task, the toolchain, the platform and the path of
/// the folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ToolCacheName(Key);

impl ToolCacheName {
    /// The name with these parts.
    pub fn new<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut hasher = KeyHasher::default();
        hasher.part(b"tools' cache 1");
        parts.into_iter().for_each(|part| hasher.part(part));
        Self(hasher.end())
    }

    /// The key on this machine, which keeps one cache for each name.
    fn local_key(self) -> Key {
        self.0
    }

    /// The key in the remote cache, which has one cache for each branch.
    pub fn remote_key(self, branch: &str) -> Key {
        let mut hasher = KeyHasher::default();
        hasher.part(b"branch");
        hasher.part(self.0.as_bytes());
        hasher.part(branch.as_bytes());
        hasher.end()
    }
}

impl CachedResult {
    /// The entry of the same archive under another key.
    #[must_use]
    pub fn under(&self, key: Key) -> Self {
        Self {
            key,
            ..self.clone()
        }
    }
}

/// When a tool cache was made, and how long the script took with and without one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ToolCacheFigures {
    /// Seconds since the epoch.
    pub made: u64,
    /// How long the script took without a cache, and with one.
    #[serde(flatten)]
    pub times: ScriptTimes,
}

/// How long a script took without a tool cache, and with one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ScriptTimes {
    /// Wall time of the last run without a cache.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cold_milliseconds: Option<u64>,
    /// Wall time of the last run with a cache.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warm_milliseconds: Option<u64>,
}

impl ScriptTimes {
    /// The times of one run.
    pub fn of_run(is_warm: bool, milliseconds: u64) -> Self {
        let time = Some(milliseconds);
        Self {
            cold_milliseconds: time.filter(|_| !is_warm),
            warm_milliseconds: time.filter(|_| is_warm),
        }
    }

    /// These times; a missing one is taken from `older`.
    #[must_use]
    pub fn or(self, older: Self) -> Self {
        Self {
            cold_milliseconds: self.cold_milliseconds.or(older.cold_milliseconds),
            warm_milliseconds: self.warm_milliseconds.or(older.warm_milliseconds),
        }
    }

    /// The time that a cache saves. Until both times are known, a cache counts as saving half of the
    /// time without one.
    pub fn saved(self) -> Duration {
        let milliseconds = match (self.cold_milliseconds, self.warm_milliseconds) {
            (Some(cold), Some(warm)) => cold.saturating_sub(warm),
            (Some(cold), None) => cold / 2,
            (None, Some(warm)) => warm,
            (None, None) => 0,
        };
        Duration::from_millis(milliseconds)
    }
}

impl CachedResult {
    /// The age of a tool cache, and the time that it saves, which limits its download. None if
    /// it is not a tool cache, is too old or too large, or saves nothing. `known` has the times of
    /// this machine.
    pub fn tool_cache(&self, known: ScriptTimes, limits: CacheLimits) -> Option<UsableToolCache> {
        let figures = self.tools.as_deref()?;
        let age = figures.age();
        let saved = known.or(figures.times).saved();
        let is_usable =
            age <= limits.tool_age && self.bytes <= limits.tool_bytes && !saved.is_zero();
        is_usable.then_some(UsableToolCache {
            age,
            bytes: self.bytes,
            times: figures.times,
            saved,
        })
    }
}

impl ToolCacheFigures {
    /// The figures of a cache that is made now.
    pub fn now(times: ScriptTimes) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        Self {
            made: now.map_or(0, |now| now.as_secs()),
            times,
        }
    }

    /// Time since the cache was made. Another machine's clock may be ahead.
    pub(super) fn age(&self) -> Duration {
        let made = UNIX_EPOCH.checked_add(Duration::from_secs(self.made));
        made.and_then(|made| SystemTime::now().duration_since(made).ok())
            .unwrap_or_default()
    }
}

/// A tool cache that a script can use.
#[derive(Debug, Clone, Copy)]
pub struct UsableToolCache {
    /// Time since it was made.
    pub age: Duration,
    /// Bytes of its files.
    pub bytes: u64,
    /// How long the script took with and without a cache.
    pub times: ScriptTimes,
    /// The time that it saves.
    pub saved: Duration,
}

/// A tool cache that is to be stored.
pub struct FinishedToolCache<'a> {
    /// The folder of the task.
    pub folder: &'a Path,
    /// The files, relative to the folder.
    pub files: &'a BTreeSet<String>,
    /// The unit of the task.
    pub maker: &'a str,
    /// How long the task took.
    pub milliseconds: u64,
    /// Its name.
    pub name: ToolCacheName,
    /// How long the script took with and without a cache.
    pub times: ScriptTimes,
}

impl Cache {
    /// The tool cache with this name.
    pub fn tool_cache(&self, name: ToolCacheName) -> Option<CachedResult> {
        self.find(name.local_key())
            .filter(|entry| entry.tools.is_some())
    }

    /// Stores a tool cache in place of the one with the same name.
    pub fn keep_tool_cache(&self, finished: &FinishedToolCache) -> Result<CachedResult, Error> {
        let temporary = self.temporary()?;
        let to = temporary
            .reopen()
            .map_err(Error::at("open", temporary.path()))?;
        let packed = archive::pack(finished.folder, finished.files, Path::new(""), to)?;
        let entry = CachedResult {
            key: finished.name.local_key(),
            maker: finished.maker.to_owned(),
            milliseconds: finished.milliseconds,
            peak_bytes: 0,
            blob: packed.digest,
            length: packed.length,
            bytes: packed.bytes,
            files: finished.files.len(),
            output: packed.output,
            reads: BTreeSet::new(),
            tools: Some(Box::new(ToolCacheFigures::now(finished.times))),
        };
        self.adopt(temporary, &entry)?;
        Ok(entry)
    }

    /// How long a task's script took in earlier runs, with and without a tool cache.
    pub fn script_times(&self, task: &str) -> ScriptTimes {
        let figures = self.figures().get(task).copied();
        figures.map(|figures| figures.times).unwrap_or_default()
    }
}

impl TaskFigures {
    /// These figures; times that were not measured now are taken from `older`.
    pub(super) fn or(self, older: Option<Self>) -> Self {
        let older = older.map(|older| older.times).unwrap_or_default();
        Self {
            times: self.times.or(older),
            ..self
        }
    }
}

/// A downloaded tool cache, verified as a whole. It is not stored in the local cache: the script
/// writes a newer one.
pub struct DownloadedToolCache {
    pub(super) archive: NamedTempFile,
    /// Its entry.
    pub entry: CachedResult,
}

impl DownloadedToolCache {
    /// Unpacks it into an empty folder, its files below `files`. Returns the paths of the files.
    pub fn unpack(&self, into: &Path) -> Result<BTreeSet<String>, Error> {
        let path = self.archive.path();
        let opened = self.archive.reopen().map_err(Error::at("open", path))?;
        archive::unpack(opened, &self.entry.expected(), into)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{CacheLimits, CachedResult, ScriptTimes, ToolCacheFigures};
    use crate::cache::{Key, OutputDigest};

    fn times(cold: Option<u64>, warm: Option<u64>) -> ScriptTimes {
        ScriptTimes {
            cold_milliseconds: cold,
            warm_milliseconds: warm,
        }
    }

    #[test]
    fn a_cache_saves_the_difference_or_half_of_the_time_without_one() {
        let cases = [
            (times(Some(90), Some(40)), 50),
            (times(Some(40), Some(90)), 0),
            (times(Some(90), None), 45),
            (times(None, Some(90)), 90),
            (times(None, None), 0),
        ];
        for (times, saved) in cases {
            assert_eq!(times.saved(), Duration::from_millis(saved), "{times:?}");
        }
    }

    #[test]
    fn a_cache_is_used_within_its_limits_and_while_it_saves_time() {
        let output: OutputDigest = serde_json::from_value(Key::of(b"").to_string().into()).unwrap();
        let entry = CachedResult {
            key: Key::of(b"name"),
            maker: "us/app".into(),
            milliseconds: 90,
            peak_bytes: 0,
            blob: oci::Digest::of(b""),
            length: 10,
            bytes: 100,
            files: 1,
            output,
            reads: std::collections::BTreeSet::default(),
            tools: Some(Box::new(ToolCacheFigures::now(times(Some(90), Some(40))))),
        };
        let limits = CacheLimits::default();
        let nothing = ScriptTimes::default();
        let usable = entry.tool_cache(nothing, limits).expect("it is usable");
        assert_eq!(usable.saved, Duration::from_millis(50));

        let result = CachedResult {
            tools: None,
            ..entry.clone()
        };
        assert!(result.tool_cache(nothing, limits).is_none());
        let small = CacheLimits {
            tool_bytes: 99,
            ..limits
        };
        assert!(entry.tool_cache(nothing, small).is_none());
        let mut old = entry.clone();
        old.tools.as_mut().unwrap().made -= limits.tool_age.as_secs() + 60;
        assert!(old.tool_cache(nothing, limits).is_none());
        // The times of this machine count more than those of the machine that made the cache.
        let useless = times(Some(40), Some(40));
        assert!(entry.tool_cache(useless, limits).is_none());
        // The clock of another machine may be ahead.
        let mut ahead = entry;
        ahead.tools.as_mut().unwrap().made += 3600;
        let usable = ahead.tool_cache(nothing, limits).expect("it is usable");
        assert_eq!(usable.age, Duration::ZERO);
    }
}
