//! `cache stats`, `cache gc`, `cache clear`.

use std::time::SystemTime;

use serde_json::json;

use super::arguments::{CacheCommand, Global};
use super::run::document;
use super::{Error, answer, project};
use crate::cache::Cache;
use crate::config::Project;
use crate::error::Error as AnyError;
use crate::event::bytes;
use crate::pipeline::{self, CACHE, ProjectLock};
use crate::plan::cache_limits;

pub fn cache(global: &Global, command: &CacheCommand) -> Result<(), AnyError> {
    let (project, _) = project(global)?;
    let cache = Cache::new(project.root.join(CACHE));
    let failed = |source| Error::Cache { source };
    let limits = cache_limits(&project);
    if let CacheCommand::Stats(options) = command {
        return stats(&project, &cache, options.json);
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
        "removed {}, {}\n{}{}",
        results(removed.entries),
        bytes(removed.bytes),
        match removed.tool_caches {
            0 => String::new(),
            count => format!("removed {}\n", tool_caches(count)),
        },
        match layers.blobs {
            0 => String::new(),
            1 => format!("removed 1 image layer, {}\n", bytes(layers.bytes)),
            count => format!("removed {count} image layers, {}\n", bytes(layers.bytes)),
        }
    ))
}

/// What the cache has.
fn stats(project: &Project, cache: &Cache, json: bool) -> Result<(), AnyError> {
    let limits = cache_limits(project);
    let found = cache
        .statistics()
        .map_err(|source| Error::Cache { source })?;
    let oldest = found
        .oldest
        .and_then(|used| SystemTime::now().duration_since(used).ok());
    let oldest = oldest.map(|age| age.as_secs() / (24 * 60 * 60));
    if json {
        return document(&json!({
            "schemaVersion": 1,
            "entries": found.entries,
            "archives": found.blobs,
            "bytes": found.bytes,
            "unpackedBytes": found.unpacked,
            "leastRecentlyUsedDaysAgo": oldest,
            "maxBytes": limits.bytes,
            "maxAgeDays": project.settings.cache_days,
            "toolCaches": found.tool_caches,
            "toolCacheBytes": found.tool_bytes,
        }));
    }
    let used = oldest.map_or(String::new(), |days| {
        format!(
            "least recently used: {days} days ago (limit: {})\n",
            project.settings.cache_days
        )
    });
    let tools = match found.tool_caches {
        0 => String::new(),
        count => format!("{}, {}\n", tool_caches(count), bytes(found.tool_bytes)),
    };
    answer(&format!(
        "{} in {} {}\n{} of at most {}, {} unpacked\n{used}{tools}",
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
    ))
}

fn tool_caches(count: usize) -> String {
    format!(
        "{count} {}",
        if count == 1 {
            "tool cache"
        } else {
            "tool caches"
        }
    )
}

fn results(count: usize) -> String {
    format!("{count} {}", if count == 1 { "result" } else { "results" })
}
