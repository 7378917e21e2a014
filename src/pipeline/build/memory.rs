//! How much memory there is, what scripts take of it, and whether one more has room.
//!
//! What a script takes is the sum over its process group, looked at a few times a second. The
//! system's own account of a child that has ended (`rusage`) knows only the largest single
//! process, and a build has several.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::process::Pid;

use crate::cache::TaskFigures;
use crate::plan::{Plan, Subject, Task, TaskId};
use crate::store::AppKind;

/// What a frontend's build is expected to take before one was seen.
const FRONTEND: u64 = 2 << 30;

/// What any other script is expected to take before it was seen.
const OTHER: u64 = 512 << 20;

/// How often a group is looked at in the end; in the beginning more often, since many scripts
/// are short.
const LONGEST: Duration = Duration::from_millis(200);

/// What one script's processes take.
#[derive(Debug, Default)]
pub struct ProcessMemory {
    now: AtomicU64,
    peak: AtomicU64,
}

impl ProcessMemory {
    /// Most bytes that they took together.
    pub fn peak(&self) -> u64 {
        self.peak.load(Ordering::Relaxed)
    }

    fn now(&self) -> u64 {
        self.now.load(Ordering::Relaxed)
    }

    /// Looks at the group as long as it is asked to; never ends.
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

/// Bytes that the processes of a group have for themselves; 0 where the system does not tell.
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
        // `pid (name) state parent group …`; the name may hold anything, brackets too.
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

/// Bytes that can still be taken: what the system has free, or the container if that is less.
fn free() -> Option<u64> {
    let system = std::fs::read_to_string("/proc/meminfo").ok();
    let system = system.map(|text| kilobytes(&text, &["MemAvailable:"]) * 1024);
    [system, in_group()].into_iter().flatten().min()
}

/// What is left of the control group's limit, if it has one (version 2, then 1). Cached files
/// give way.
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
        // Every group above counts too; in a container the own one is often the root.
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

/// Decides which script has room beside those that run.
pub struct MemoryAdmission {
    /// Bytes for all together, if somebody has set that.
    limit: Option<u64>,
    /// How many at once.
    count: usize,
    figures: BTreeMap<String, TaskFigures>,
    running: BTreeMap<TaskId, RunningScript>,
}

struct RunningScript {
    expected: u64,
    memory: Arc<ProcessMemory>,
}

impl MemoryAdmission {
    /// As the plan has it, with what was learned of earlier runs.
    pub fn new(plan: &Plan, figures: BTreeMap<String, TaskFigures>) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self {
            limit: plan.max_memory,
            count: plan.concurrency.unwrap_or(cores).max(1),
            figures,
            running: BTreeMap::new(),
        }
    }

    /// What a task took when it last ran; else the most that the same app took for another
    /// store; else nothing.
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
            })
    }

    /// Bytes that the task is expected to take: a tenth more than the last time.
    fn expected(&self, plan: &Plan, id: TaskId) -> u64 {
        match self.figures(plan.task(id)) {
            Some(figures) if figures.peak_bytes > 0 => (figures.peak_bytes / 10).saturating_mul(11),
            _ => match plan.composition_of(id).map(|it| it.kind) {
                Some(AppKind::Frontend(_)) => FRONTEND,
                _ => OTHER,
            },
        }
    }

    /// Lets the task begin if there is room. Alone it may always, or it never could.
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
                // What runs may still grow to what is expected of it.
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

    /// The task has ended; what it took is what the next ones are expected to.
    pub fn leave(&mut self, task: &Task, id: TaskId, learned: Option<TaskFigures>) {
        self.running.remove(&id);
        if let Some(learned) = learned {
            self.figures.insert(task.name(), learned);
        }
    }
}

/// For each task, milliseconds that it and the longest way of tasks behind it are expected to
/// take: what holds up most goes first.
pub fn ways(plan: &Plan, room: &MemoryAdmission) -> Vec<u64> {
    let mut ways = vec![0_u64; plan.tasks.len()];
    for (index, task) in plan.tasks.iter().enumerate().rev() {
        let own = room.figures(task).map_or(0, |figures| figures.milliseconds);
        ways[index] = ways[index].saturating_add(own);
        for need in &task.needs {
            ways[need.index()] = ways[need.index()].max(ways[index]);
        }
    }
    ways
}
