//! Admits scripts by memory: how much is free, how much running scripts use, and whether one more
//! script may start.
//!
//! The memory of a script is the sum over its process group, measured a few times a second. The
//! system's account of an ended child (`rusage`) contains only the largest process, and a build has
//! several.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::process::Pid;

use crate::cache::TaskFigures;
use crate::plan::{Plan, Subject, Task, TaskId, TaskMap};
use crate::store::AppKind;

/// The expected memory of a frontend build without an earlier measurement.
const FRONTEND: u64 = 2 << 30;

/// The expected memory of any other script without an earlier measurement.
const OTHER: u64 = 512 << 20;

/// The longest pause between two measurements. The first pauses are shorter, because many scripts are
/// short.
const LONGEST: Duration = Duration::from_millis(200);

/// The memory of one script's processes.
#[derive(Debug, Default)]
pub struct ProcessMemory {
    now: AtomicU64,
    peak: AtomicU64,
}

impl ProcessMemory {
    /// The most bytes that they used together.
    pub fn peak(&self) -> u64 {
        self.peak.load(Ordering::Relaxed)
    }

    fn now(&self) -> u64 {
        self.now.load(Ordering::Relaxed)
    }

    /// Measures the process group until the future is dropped.
    pub async fn watch(&self, group: Option<Pid>) {
        let Some(group) = group else {
            return std::future::pending().await;
        };
        let mut pause = Duration::from_millis(10);
        loop {
            tokio::time::sleep(pause).await;
            let bytes = taken_by(group);
            self.now.store(bytes, Ordering::Relaxed);
            self.peak.fetch_max(bytes, Ordering::Relaxed);
            pause = (pause * 2).min(LONGEST);
        }
    }
}

/// The private bytes of a group's processes; 0 if the system does not tell.
fn taken_by(group: Pid) -> u64 {
    let Ok(processes) = std::fs::read_dir("/proc") else {
        return 0;
    };
    let number = group.as_raw_nonzero().to_string();
    let mut bytes = 0;
    for process in processes.flatten() {
        let path = process.path();
        let Ok(stat) = std::fs::read_to_string(path.join("stat")) else {
            continue;
        };
        // `pid (name) state parent group …`; the name may contain anything, also brackets.
        let fields = stat.rsplit(") ").next().unwrap_or_default();
        if fields.split(' ').nth(2) != Some(&number) {
            continue;
        }
        let status = std::fs::read_to_string(path.join("status")).unwrap_or_default();
        bytes += kilobytes(&status, &["RssAnon:", "RssShmem:"]) * 1024;
    }
    bytes
}

/// The sum of these lines of a file such as `/proc/meminfo`.
fn kilobytes(text: &str, names: &[&str]) -> u64 {
    let lines = text
        .lines()
        .filter(|line| names.iter().any(|name| line.starts_with(name)));
    let values = lines.filter_map(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
    values.sum()
}

/// The free bytes of the system, or of the container if it has less.
pub fn free() -> Option<u64> {
    let system = std::fs::read_to_string("/proc/meminfo").ok();
    let system = system.map(|text| kilobytes(&text, &["MemAvailable:"]) * 1024);
    [system, in_group()].into_iter().flatten().min()
}

/// The free bytes below the control group's limit, if it has one (version 2, then 1). Cached files
/// count as free.
fn in_group() -> Option<u64> {
    let number = |path: &str| {
        std::fs::read_to_string(path)
            .ok()?
            .trim()
            .parse::<u64>()
            .ok()
    };
    let of_files = |path: &str, name: &str| {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
        line.unwrap_or(0)
    };
    let own = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let mut free: Option<u64> = None;
    let mut take = |limit: Option<u64>, used: Option<u64>, files: u64| {
        if let (Some(limit), Some(used)) = (limit, used) {
            let left = limit.saturating_sub(used.saturating_sub(files));
            free = Some(free.map_or(left, |free: u64| free.min(left)));
        }
    };
    for line in own.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, path) = (parts.next().unwrap_or(""), parts.next().unwrap_or(""));
        // The limits of all parent groups apply too; in a container the own group is often the root.
        for path in std::path::Path::new(path).ancestors() {
            let path = path.to_string_lossy();
            if controllers.is_empty() {
                let folder = format!("/sys/fs/cgroup{path}");
                let files = of_files(&format!("{folder}/memory.stat"), "inactive_file ");
                let limit = number(&format!("{folder}/memory.max"));
                take(limit, number(&format!("{folder}/memory.current")), files);
            } else if controllers.split(',').any(|name| name == "memory") {
                let folder = format!("/sys/fs/cgroup/memory{path}");
                let files = of_files(&format!("{folder}/memory.stat"), "total_inactive_file ");
                let limit = number(&format!("{folder}/memory.limit_in_bytes"));
                take(
                    limit,
                    number(&format!("{folder}/memory.usage_in_bytes")),
                    files,
                );
            }
        }
    }
    free
}

/// Decides whether a script may start beside the running ones.
pub struct MemoryAdmission {
    /// The configured limit in bytes for all scripts together.
    limit: Option<u64>,
    /// How many scripts may run at once.
    count: usize,
    figures: BTreeMap<String, TaskFigures>,
    running: BTreeMap<TaskId, RunningScript>,
}

struct RunningScript {
    expected: u64,
    memory: Arc<ProcessMemory>,
}

impl MemoryAdmission {
    /// Takes the limits of the plan and the measurements of earlier runs.
    pub fn new(plan: &Plan, figures: BTreeMap<String, TaskFigures>) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self {
            limit: plan.max_memory,
            count: plan.concurrency.unwrap_or(cores).max(1),
            figures,
            running: BTreeMap::new(),
        }
    }

    /// The measurement of the task's last run; else the largest one of the same app in another store.
    pub fn figures(&self, task: &Task) -> Option<TaskFigures> {
        if let Some(own) = self.figures.get(&task.name()) {
            return Some(*own);
        }
        let Subject::Unit(unit) = &task.subject else {
            return None;
        };
        let end = task.name().split_off(unit.store.as_str().len());
        let alike = self.figures.iter().filter(|(name, _)| name.ends_with(&end));
        alike
            .map(|(_, figures)| *figures)
            .reduce(|one, other| TaskFigures {
                milliseconds: one.milliseconds.max(other.milliseconds),
                peak_bytes: one.peak_bytes.max(other.peak_bytes),
                ..one
            })
    }

    /// The expected memory of a task in bytes: a tenth more than the last measurement.
    fn expected(&self, plan: &Plan, id: TaskId) -> u64 {
        match self.figures(plan.task(id)) {
            Some(figures) if figures.peak_bytes > 0 => (figures.peak_bytes / 10).saturating_mul(11),
            _ => match plan.composition_of(id).map(|it| it.kind) {
                Some(AppKind::Frontend(_)) => FRONTEND,
                _ => OTHER,
            },
        }
    }

    /// Admits the task if there is enough memory. A task that would run alone is always admitted, or it
    /// could never start.
    pub fn admit(&mut self, plan: &Plan, id: TaskId) -> Option<Arc<ProcessMemory>> {
        let expected = self.expected(plan, id);
        if !self.running.is_empty() {
            if self.running.len() >= self.count {
                return None;
            }
            let left = match self.limit {
                Some(limit) => {
                    let taken = self
                        .running
                        .values()
                        .map(|it| it.expected.max(it.memory.now()));
                    Some(limit.saturating_sub(taken.fold(0, u64::saturating_add)))
                }
                // Running scripts may still grow to their expected size.
                None => free().map(|free| {
                    let running = self.running.values();
                    let rest = running.map(|it| it.expected.saturating_sub(it.memory.now()));
                    free.saturating_sub(rest.fold(0, u64::saturating_add))
                }),
            };
            if left.is_some_and(|left| expected > left) {
                return None;
            }
        }
        let memory = Arc::new(ProcessMemory::default());
        let running = RunningScript {
            expected,
            memory: Arc::clone(&memory),
        };
        self.running.insert(id, running);
        Some(memory)
    }

    /// Removes an ended task and remembers its measurement.
    pub fn leave(&mut self, task: &Task, id: TaskId, learned: Option<TaskFigures>) {
        self.running.remove(&id);
        if let Some(learned) = learned {
            self.figures.insert(task.name(), learned);
        }
    }
}

/// For each task, the expected milliseconds of it and of the longest chain of tasks behind it.
pub fn critical_paths(plan: &Plan, room: &MemoryAdmission) -> TaskMap<u64> {
    let mut paths = plan.tasks.map(|_| 0_u64);
    for id in plan.tasks.ids().rev() {
        let task = plan.task(id);
        let own = room.figures(task).map_or(0, |figures| figures.milliseconds);
        let path = paths[id].saturating_add(own);
        paths[id] = path;
        for need in &task.needs {
            paths[*need] = paths[*need].max(path);
        }
    }
    paths
}
