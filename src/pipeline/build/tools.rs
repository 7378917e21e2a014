//! Tool caches, which build tools write beside their outputs. A kept cache is put in place before a
//! script whose folder has none, and the cache is kept again after the script.
//!
//! Tool caches are not part of keys and results. If a cache cannot be used, the script runs without it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use walkdir::WalkDir;

use super::super::failure::Io;
use super::result::temporary;
use super::{BuildRun, event_unit};
use crate::cache::{
    self, CachedResult, DownloadedToolCache, FinishedToolCache, ScriptTimes, UsableToolCache,
};
use crate::disk;
use crate::event::{ToolCacheOrigin, ToolCacheUse};
use crate::pipeline::services::Services;
use crate::plan::{Plan, Subject, TaskId};

/// The caches in a composed app. The other content of `.next/cache` stays on its machine:
/// `fetch-cache` and `images` have data of other servers, `.rscinfo` and `.previewinfo` have keys, and
/// `swc` has compiled programs.
const OF_APP: [&str; 5] = [
    ".next/cache/.tsbuildinfo",
    ".next/cache/eslint",
    ".next/cache/turbopack",
    ".next/cache/webpack",
    "node_modules/.cache",
];

/// The caches in a workspace package.
const OF_PACKAGE: [&str; 1] = ["node_modules/.cache"];

/// The age after which a kept cache is replaced by a cache that was in the folder before the script.
const RENEWED: Duration = Duration::from_hours(24);

/// The tool cache with which a script starts.
pub enum ToolCacheStart {
    /// The script has no kept cache: it is not a build, is never cached, or the config keeps no caches.
    NotKept,
    /// No cache.
    Cold,
    /// The cache of an earlier run in its folder.
    Own,
    /// A kept cache, which is unpacked and not yet in place.
    Staged(StagedToolCache),
}

/// A tool cache in a temporary folder.
pub struct StagedToolCache {
    folder: tempfile::TempDir,
    used: ToolCacheUse,
    times: ScriptTimes,
}

/// The tool caches of a task after its script.
#[derive(Default)]
pub struct KeptToolCache {
    /// How long the script takes with and without a cache, as far as this run knows.
    pub times: ScriptTimes,
    /// The entry of the cache; none if it is not kept.
    pub entry: Option<CachedResult>,
}

/// A folder in which tools keep caches.
struct ToolFolder {
    folder: PathBuf,
    paths: &'static [&'static str],
}

impl ToolFolder {
    /// The folder in which the task's script runs. None if its caches are not kept.
    fn new(plan: &Plan, id: TaskId) -> Option<Self> {
        let task = plan.task(id);
        let is_kept = task.work.is_build() && task.never_cached.is_none();
        (is_kept && plan.cache_limits.tool_bytes > 0).then(|| Self {
            folder: plan.project.join(task.run_folder()),
            paths: match task.subject {
                Subject::Unit(_) => &OF_APP,
                Subject::Package(_) => &OF_PACKAGE,
            },
        })
    }

    /// The caches that are not behind a link. A link may lead into the sources.
    fn real_paths(&self) -> impl Iterator<Item = (&'static str, PathBuf)> {
        let is_link = |path: &Path| self.folder.join(path).is_symlink();
        let is_real = move |path: &&str| !Path::new(path).ancestors().any(is_link);
        let real = self.paths.iter().copied().filter(is_real);
        real.map(|path| (path, self.folder.join(path)))
    }

    /// The files of all caches with their size in bytes.
    fn files(&self) -> (BTreeSet<String>, u64) {
        let (mut files, mut bytes) = (BTreeSet::new(), 0);
        for (_, path) in self.real_paths() {
            let entries = WalkDir::new(path).follow_root_links(false);
            for entry in entries.into_iter().flatten() {
                let inner = entry.path().strip_prefix(&self.folder).ok();
                let inner = inner.and_then(Path::to_str);
                if let (Some(inner), true) = (inner, entry.file_type().is_file()) {
                    bytes += entry.metadata().map_or(0, |metadata| metadata.len());
                    files.insert(inner.to_owned());
                }
            }
        }
        (files, bytes)
    }

    /// Whether the folder has a cache.
    fn has_any(&self) -> bool {
        let is_file = |entry: walkdir::DirEntry| entry.file_type().is_file();
        self.real_paths().any(|(_, path)| {
            let entries = WalkDir::new(path).follow_root_links(false);
            entries.into_iter().flatten().any(is_file)
        })
    }

    /// A path of an unpacked archive that is not a file of a cache.
    fn foreign<'a>(&self, unpacked: &Path, paths: &'a BTreeSet<String>) -> Option<&'a str> {
        let is_in = |path: &str, cache: &&str| Path::new(path).starts_with(cache);
        let is_file = |path: &str| {
            let metadata = unpacked.join(path).symlink_metadata();
            metadata.is_ok_and(|metadata| metadata.is_file())
        };
        let is_right = |path: &str| is_file(path) && self.paths.iter().any(|it| is_in(path, it));
        paths
            .iter()
            .map(String::as_str)
            .find(|path| !is_right(path))
    }

    /// Moves unpacked caches to their places.
    fn move_in(&self, unpacked: &Path) -> Result<(), Io> {
        for (path, place) in self.real_paths() {
            let from = unpacked.join(path);
            if from.symlink_metadata().is_err() {
                continue;
            }
            if let Some(folder) = place.parent() {
                std::fs::create_dir_all(folder).map_err(Io::at("create the folder", folder))?;
            }
            // The folder has no cache, so only empty folders are removed.
            disk::remove(&place).map_err(Io::at("remove", &place))?;
            std::fs::rename(&from, &place).map_err(Io::at("write", &place))?;
        }
        Ok(())
    }
}

/// Unpacks the kept tool cache of a task, if its folder has none.
pub async fn stage(run: &BuildRun, id: TaskId) -> ToolCacheStart {
    let Some(place) = ToolFolder::new(&run.plan, id) else {
        return ToolCacheStart::NotKept;
    };
    if place.has_any() {
        return ToolCacheStart::Own;
    }
    if run.options.force {
        return ToolCacheStart::Cold;
    }
    let found = match local(run, id) {
        Some(found) => Some(found),
        None => remote(run, id).await,
    };
    let Some(found) = found else {
        return ToolCacheStart::Cold;
    };
    let run = run.clone();
    let staging = tokio::task::spawn_blocking(move || {
        let _working = run.services.events.working();
        found.unpack(&run, &place).unwrap_or_else(|reason| {
            not_used(&run, id, &reason);
            ToolCacheStart::Cold
        })
    });
    match staging.await {
        Ok(start) => start,
        Err(crashed) => std::panic::resume_unwind(crashed.into_panic()),
    }
}

/// Reports that a kept cache is not used.
fn not_used(run: &BuildRun, id: TaskId, reason: &str) {
    let unit = event_unit(run.plan.task(id));
    run.services
        .events
        .notice(format!("{unit}: the kept tool cache is not used: {reason}"));
}

/// A kept tool cache.
struct FoundToolCache {
    content: ToolCacheContent,
    usable: UsableToolCache,
}

enum ToolCacheContent {
    Local(Box<CachedResult>),
    Remote(Box<DownloadedToolCache>),
}

/// The cache that is kept on this machine.
fn local(run: &BuildRun, id: TaskId) -> Option<FoundToolCache> {
    let plan = &run.plan;
    let entry = run.services.cache.tool_cache(plan.tool_cache_name(id))?;
    let known = run.services.cache.script_times(&plan.task(id).name());
    let usable = entry.tool_cache(known, plan.cache_limits)?;
    let content = ToolCacheContent::Local(Box::new(entry));
    Some(FoundToolCache { content, usable })
}

/// The cache that the remote cache has for this branch, or for the default branch.
async fn remote(run: &BuildRun, id: TaskId) -> Option<FoundToolCache> {
    let (plan, services) = (&run.plan, &run.services);
    let remote = services.remote.as_ref()?;
    let known = services.cache.script_times(&plan.task(id).name());
    let (name, limits) = (plan.tool_cache_name(id), plan.cache_limits);
    let _outside = services.events.waiting();
    for branch in plan.tool_caches.branches() {
        let fetching = async {
            let key = name.remote_key(branch);
            let fetching = remote.fetch_tool_cache(&services.cache, key, known, limits);
            Ok(fetching.await)
        };
        let fetched = services.interrupt.unless_stopped((), fetching).await;
        let Some(fetched) = fetched.ok()? else {
            continue;
        };
        let usable = fetched.entry.tool_cache(known, limits)?;
        let content = ToolCacheContent::Remote(Box::new(fetched));
        return Some(FoundToolCache { content, usable });
    }
    None
}

impl FoundToolCache {
    /// Unpacks the cache into a temporary folder. An archive with any other file is refused
    /// as a whole.
    fn unpack(self, run: &BuildRun, place: &ToolFolder) -> Result<ToolCacheStart, String> {
        let folder = temporary(&run.plan.project).map_err(|error| error.to_string())?;
        let (unpacked, from) = match &self.content {
            ToolCacheContent::Local(entry) => (
                run.services.cache.unpack(entry, folder.path()),
                ToolCacheOrigin::Local,
            ),
            ToolCacheContent::Remote(download) => {
                (download.unpack(folder.path()), ToolCacheOrigin::Remote)
            }
        };
        let paths = unpacked.map_err(|error| error.to_string())?;
        if let Some(path) = place.foreign(&folder.path().join(cache::FILES), &paths) {
            let path = path.escape_debug();
            return Err(format!("`{path}` is not a file of a tool cache"));
        }
        Ok(ToolCacheStart::Staged(StagedToolCache {
            folder,
            used: ToolCacheUse {
                age_seconds: self.usable.age.as_secs(),
                bytes: self.usable.bytes,
                from,
            },
            times: self.usable.times,
        }))
    }
}

impl ToolCacheStart {
    /// The kept cache with which the script starts.
    pub fn used(&self) -> Option<ToolCacheUse> {
        match self {
            Self::Staged(staged) => Some(staged.used),
            _ => None,
        }
    }

    /// Moves a staged cache to its place. If that fails, the script starts without a cache.
    pub fn put_in_place(&mut self, run: &BuildRun, id: TaskId) {
        let (Self::Staged(staged), Some(place)) = (&*self, ToolFolder::new(&run.plan, id)) else {
            return;
        };
        let moved = place.move_in(&staged.folder.path().join(cache::FILES));
        if let Err(error) = moved {
            not_used(run, id, &format!("{error}: {}", error.source));
            for (_, path) in place.real_paths() {
                let _ = disk::remove(&path);
            }
            *self = Self::Cold;
        }
    }

    /// Keeps the caches that the tools have after a script that succeeded.
    pub fn keep(&self, plan: &Plan, services: &Services, id: TaskId, time: u64) -> KeptToolCache {
        let Some(place) = ToolFolder::new(plan, id) else {
            return KeptToolCache::default();
        };
        let (files, bytes) = place.files();
        if files.is_empty() {
            return KeptToolCache::default();
        }
        let task = plan.task(id);
        let known = services.cache.script_times(&task.name());
        let times = match self {
            Self::NotKept => return KeptToolCache::default(),
            Self::Cold => ScriptTimes::of_run(false, time).or(known),
            Self::Own => ScriptTimes::of_run(true, time).or(known),
            Self::Staged(staged) => ScriptTimes::of_run(true, time).or(known).or(staged.times),
        };
        let (name, limits) = (plan.tool_cache_name(id), plan.cache_limits);
        let unkept = KeptToolCache { times, entry: None };
        let kept = services.cache.tool_cache(name);
        let kept = kept.and_then(|entry| entry.tool_cache(times, limits));
        let is_fresh = kept.is_some_and(|kept| kept.age < RENEWED);
        if times.saved().is_zero() || (is_fresh && matches!(self, Self::Own)) {
            return unkept;
        }
        let unit = event_unit(task);
        let notice = |reason: String| {
            let text = format!("{unit}: the tool cache is not kept: {reason}");
            services.events.notice(text);
        };
        if bytes > limits.tool_bytes {
            notice(format!(
                "it has {}, more than `cache.maxToolCacheSize` ({})",
                crate::event::bytes(bytes),
                crate::event::bytes(limits.tool_bytes)
            ));
            return unkept;
        }
        let entry = services.cache.keep_tool_cache(&FinishedToolCache {
            folder: &place.folder,
            files: &files,
            maker: &task.subject.to_string(),
            milliseconds: time,
            name,
            times,
        });
        match entry {
            Ok(entry) => KeptToolCache {
                times,
                entry: Some(entry),
            },
            Err(error) => {
                notice(error.to_string());
                unkept
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{OF_APP, ToolFolder};

    /// Writes a file, with its folders.
    fn write(path: &std::path::Path) {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, "x").unwrap();
    }

    #[test]
    fn caches_behind_a_link_are_neither_kept_nor_put_in_place() {
        let top = tempfile::tempdir().unwrap();
        let path = |path: &str| top.path().join(path);
        write(&path("source/node_modules/.cache/a"));
        write(&path("app/.next/cache/webpack/b"));
        write(&path("app/.next/cache/fetch-cache/c"));
        let link = |target: &str, name: &str| {
            std::os::unix::fs::symlink(target, path(name)).unwrap();
        };
        link("../source/node_modules", "app/node_modules");
        link("../../../../source", "app/.next/cache/webpack/link");
        let place = ToolFolder {
            folder: path("app"),
            paths: &OF_APP,
        };
        let (files, bytes) = place.files();
        assert_eq!(files.iter().collect::<Vec<_>>(), [".next/cache/webpack/b"]);
        assert_eq!(bytes, 1);

        std::fs::remove_dir_all(path("app/.next")).unwrap();
        assert!(!place.has_any());
        write(&path("unpacked/node_modules/.cache/hostile"));
        write(&path("unpacked/.next/cache/webpack/d"));
        write(&path("unpacked/.next/cache/.tsbuildinfo"));
        place.move_in(&path("unpacked")).unwrap();
        assert!(!path("source/node_modules/.cache/hostile").exists());
        let (files, _) = place.files();
        let expected = [".next/cache/.tsbuildinfo", ".next/cache/webpack/d"];
        assert_eq!(files.iter().collect::<Vec<_>>(), expected);
        assert!(place.has_any());
    }
}
