//! The ready queue: each waiting task has a count of the tasks that it needs and that have not ended.
//! Ready tasks with a cached result and ready tasks with a script to run are kept apart, so looking
//! for the next one of a kind does not pass over all of the other kind.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use crate::plan::{Plan, TaskId, TaskMap};

/// Ready tasks; the task with the longest chain of tasks behind it comes first.
type ReadyTasks = BTreeSet<(Reverse<u64>, TaskId)>;

/// What the stage does for a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TaskAction {
    /// Put its cached result in place, or fetch it.
    Take,
    /// Run its script.
    Run,
}

/// The tasks that have not begun.
pub struct TaskQueue {
    /// How many needed tasks have not ended, by task.
    open: BTreeMap<TaskId, usize>,
    /// The tasks that need a task.
    behind: BTreeMap<TaskId, Vec<TaskId>>,
    /// The expected time of a task and the longest chain of tasks behind it.
    critical_paths: TaskMap<u64>,
    /// Ready tasks that are not sorted by action yet.
    new: ReadyTasks,
    to_take: ReadyTasks,
    to_run: ReadyTasks,
    /// Tasks that will not begin, each with the failed unit because of which.
    lost: BTreeMap<TaskId, String>,
    waiting: BTreeSet<TaskId>,
}

impl TaskQueue {
    /// A queue of these tasks; all other tasks count as ended.
    pub fn new(plan: &Plan, needed: &BTreeSet<TaskId>, critical_paths: TaskMap<u64>) -> Self {
        let mut queue = Self {
            open: BTreeMap::new(),
            behind: BTreeMap::new(),
            critical_paths,
            new: ReadyTasks::new(),
            to_take: ReadyTasks::new(),
            to_run: ReadyTasks::new(),
            lost: BTreeMap::new(),
            waiting: needed.clone(),
        };
        for id in needed {
            let needs = plan
                .task(*id)
                .needs
                .iter()
                .filter(|need| needed.contains(need));
            let mut open = 0;
            for need in needs {
                queue.behind.entry(*need).or_default().push(*id);
                open += 1;
            }
            queue.open.insert(*id, open);
            if open == 0 {
                queue.again(*id);
            }
        }
        queue
    }

    fn place(&self, id: TaskId) -> (Reverse<u64>, TaskId) {
        (Reverse(self.critical_paths[id]), id)
    }

    fn ready(&mut self, work: TaskAction) -> &mut ReadyTasks {
        match work {
            TaskAction::Take => &mut self.to_take,
            TaskAction::Run => &mut self.to_run,
        }
    }

    /// The tasks that have become ready since the last call. Each must be passed to `sort_in`.
    pub fn take_new(&mut self) -> Vec<TaskId> {
        let new = std::mem::take(&mut self.new);
        new.into_iter().map(|(_, id)| id).collect()
    }

    /// Adds a ready task by its action.
    pub fn sort_in(&mut self, id: TaskId, work: TaskAction) {
        let place = self.place(id);
        self.to_take.remove(&place);
        self.to_run.remove(&place);
        self.ready(work).insert(place);
    }

    /// The next ready task with this action after the given one, or the first; the longest chain comes
    /// first.
    pub fn next(&mut self, work: TaskAction, after: Option<TaskId>) -> Option<TaskId> {
        let after = after.map_or(Bound::Unbounded, |id| Bound::Excluded(self.place(id)));
        let mut rest = self.ready(work).range((after, Bound::Unbounded));
        rest.next().map(|(_, id)| *id)
    }

    /// Removes a task that begins.
    pub fn start(&mut self, id: TaskId) {
        let place = self.place(id);
        for ready in [&mut self.new, &mut self.to_take, &mut self.to_run] {
            ready.remove(&place);
        }
        self.waiting.remove(&id);
    }

    /// Adds a ready task, for the first time or again.
    pub fn again(&mut self, id: TaskId) {
        self.waiting.insert(id);
        self.new.insert(self.place(id));
    }

    /// Counts a task that has succeeded.
    pub fn done(&mut self, id: TaskId) {
        for behind in self.behind.remove(&id).unwrap_or_default() {
            let open = self.open.entry(behind).or_default();
            *open = open.saturating_sub(1);
            if *open == 0 && self.waiting.contains(&behind) {
                self.again(behind);
            }
        }
    }

    /// Removes a failed task and all tasks that need it.
    pub fn lose(&mut self, id: TaskId, because: &str) {
        self.start(id);
        let mut lost = vec![id];
        while let Some(id) = lost.pop() {
            for behind in self.behind.remove(&id).unwrap_or_default() {
                if self.waiting.remove(&behind) {
                    self.lost.insert(behind, because.to_owned());
                    lost.push(behind);
                }
            }
        }
    }

    /// The tasks that will not begin, each with the failed unit because of which; with
    /// `stop_because`, all waiting tasks.
    pub fn take_lost(&mut self, stop_because: Option<&str>) -> Vec<(TaskId, String)> {
        let mut lost = std::mem::take(&mut self.lost);
        if let Some(because) = stop_because {
            let waiting = std::mem::take(&mut self.waiting);
            for ready in [&mut self.new, &mut self.to_take, &mut self.to_run] {
                ready.clear();
            }
            lost.extend(waiting.into_iter().map(|id| (id, because.to_owned())));
        }
        lost.into_iter().collect()
    }
}
