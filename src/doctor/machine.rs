//! This machine: disk, memory, cores, sandbox.

use std::path::Path;

use super::{Diagnosis, ProblemKind};
use crate::cache::Cache;
use crate::config::Project;
use crate::event::bytes;
use crate::pipeline::{self, CACHE};

const GIB: u64 = 1 << 30;

/// Free disk space below which a deploy of a few stores may fail.
const LOW_DISK: u64 = 5 * GIB;

/// Free disk space below which a deploy fails.
const DISK_LIMIT: u64 = GIB / 2;

/// Free memory below which a build of a frontend may be killed.
const LOW_MEMORY: u64 = 2 * GIB;

/// Checks the machine.
pub fn check(root: &Path, project: Option<&Project>) -> Vec<Diagnosis> {
    let mut found = vec![memory()];
    found.extend(disk(root));
    if let Some(project) = project {
        found.push(cache(project));
    }
    found.push(sandbox(project));
    found
}

fn memory() -> Diagnosis {
    const CHECK: &str = "memory";
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let cores = if cores == 1 {
        "1 core".to_owned()
    } else {
        format!("{cores} cores")
    };
    match pipeline::free_memory() {
        Some(free) if free < LOW_MEMORY => Diagnosis::warning(
            CHECK,
            format!(
                "{} free, {cores}; a build of a frontend needs 1 to 2 GB",
                bytes(free)
            ),
            "end other programs, or limit the scripts that run at once: `--concurrency 1`",
        ),
        Some(free) => Diagnosis::ok(CHECK, format!("{} free, {cores}", bytes(free))),
        None => Diagnosis::ok(CHECK, format!("{cores}; the free memory is not known")),
    }
}

fn disk(root: &Path) -> Option<Diagnosis> {
    const CHECK: &str = "disk";
    let found = rustix::fs::statvfs(root).ok()?;
    let free = found.f_bavail.saturating_mul(found.f_frsize);
    let text = format!("{} free", bytes(free));
    let next = "free some space: `alokai cache gc` removes old results, `alokai store clean` all results and `.out`";
    Some(if free < DISK_LIMIT {
        Diagnosis::problem(CHECK, ProblemKind::External, text, next)
    } else if free < LOW_DISK {
        Diagnosis::warning(CHECK, text, next)
    } else {
        Diagnosis::ok(CHECK, text)
    })
}

/// The size of the cache, with packed layers and saved base images.
fn cache(project: &Project) -> Diagnosis {
    const CHECK: &str = "cache";
    let folder = project.root.join(CACHE);
    let files = walkdir::WalkDir::new(&folder).into_iter().flatten();
    let sizes = files
        .filter_map(|it| it.metadata().ok())
        .filter(std::fs::Metadata::is_file);
    let all: u64 = sizes.map(|it| it.len()).sum();
    match Cache::new(folder).statistics() {
        Ok(found) => Diagnosis::ok(
            CHECK,
            format!(
                "{} in `{CACHE}`; results: {}, {} of at most {}",
                bytes(all),
                found.entries,
                bytes(found.bytes),
                bytes(project.settings.cache_size)
            ),
        ),
        Err(error) => Diagnosis::warning(
            CHECK,
            error.to_string(),
            "check the permissions of `.alokai/cache`; it is safe to remove the whole folder",
        ),
    }
}

fn sandbox(project: Option<&Project>) -> Diagnosis {
    const CHECK: &str = "sandbox";
    let is_required = project.is_some_and(|project| project.settings.sandbox);
    match pipeline::sandbox_support() {
        None => Diagnosis::ok(CHECK, "available (Landlock)"),
        Some(reason) if is_required => Diagnosis::problem(
            CHECK,
            ProblemKind::External,
            reason,
            "build on another machine, or set `build.sandbox` to false in `alokai.config.json`",
        ),
        Some(reason) => Diagnosis::ok(CHECK, format!("not available, and not required: {reason}")),
    }
}
