//! `cache stats`, `cache gc`, `cache clear`.

use std::time::{Duration, SystemTime};

use serde_json::json;

use super::arguments::{CacheCommand, Global};
use super::run::document;
use super::{Error, answer, project};
use crate::cache::{Cache, CacheLimits};
use crate::error::Error as AnyError;
use crate::event::bytes;
use crate::pipeline::{self, CACHE, ProjectLock};

pub fn cache(global: &Global, command: &CacheCommand) -> Result<(), AnyError> {
    let (project, _) = project(global)?;
    let cache = Cache::new(project.root.join(CACHE));
    let failed = |source| Error::Cache { source };
    let days = u64::from(project.settings.cache_days);
    let limits = CacheLimits {
        bytes: project.settings.cache_size,
        age: Duration::from_hours(days * 24),
    };
    if let CacheCommand::Stats(options) = command {
        let found = cache.statistics().map_err(failed)?;
        let oldest = found
            .oldest
            .and_then(|used| SystemTime::now().duration_since(used).ok());
        let oldest = oldest.map(|age| age.as_secs() / (24 * 60 * 60));
        if options.json {
            return document(&json!({
                "schemaVersion": 1,
                "entries": found.entries,
                "archives": found.blobs,
                "bytes": found.bytes,
                "unpackedBytes": found.unpacked,
                "leastRecentlyUsedDaysAgo": oldest,
                "maxBytes": limits.bytes,
                "maxAgeDays": days,
            }));
        }
        let used = oldest.map_or(String::new(), |days| {
            format!(
                "least recently used: {days} days ago (limit: {})\n",
                project.settings.cache_days
            )
        });
        return answer(&format!(
            "{} in {} {}\n{} of at most {}, {} unpacked\n{used}",
            results(found.entries),
            found.blobs,
            if found.blobs == 1 {
                "archive"
            } else {
                "archives"
            },
            bytes(found.bytes),
            bytes(limits.bytes),
            bytes(found.unpacked),
        ));
    }
    // A running command may need these files.
    let _lock = ProjectLock::take_now(&project.root).map_err(pipeline::Error::from)?;
    if matches!(command, CacheCommand::Clear) {
        let removed = cache.clear().map_err(failed)?;
        return answer(&format!(
            "removed {}, {}\n`.out` still contains the results of the last builds; use `--force` to build again\n",
            results(removed.entries),
            bytes(removed.bytes)
        ));
    }
    let removed = cache.collect(limits).map_err(failed)?;
    let layers = pipeline::collect_layers(&project.root, limits, SystemTime::now());
    let layers = layers.map_err(pipeline::Error::from)?;
    answer(&format!(
        "removed {}, {}\n{}",
        results(removed.entries),
        bytes(removed.bytes),
        match layers.blobs {
            0 => String::new(),
            1 => format!("removed 1 image layer, {}\n", bytes(layers.bytes)),
            count => format!("removed {count} image layers, {}\n", bytes(layers.bytes)),
        }
    ))
}

fn results(count: usize) -> String {
    format!("{count} {}", if count == 1 { "result" } else { "results" })
}
