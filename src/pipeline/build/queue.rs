//! Tasks that wait, and which of them can begin: each has a count of the tasks before it that
//! have not ended yet. Tasks whose results are taken are apart from those whose scripts run, so
//! that many of the ones are not looked through whenever one of the others can begin.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use crate::plan::{Plan, TaskId};

/// Tasks that are ready, those first that hold up most.
type ReadyTasks = BTreeSet<(Reverse<u64>, TaskId)>;

/// What is done for a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TaskAction {
    /// Its result is put in place, or asked for.
    Take,
    /// Its script runs.
    Run,
}

/// Tasks that wait.
pub struct TaskQueue {
    /// How many tasks before it have not ended.
    open: BTreeMap<TaskId, usize>,
    /// Tasks that wait for one.
    behind: BTreeMap<TaskId, Vec<TaskId>>,
    /// How long the way from a task to the end is.
    ways: Vec<u64>,
    /// Tasks that have become ready, and of which it is not known yet how they begin.
    new: ReadyTasks,
    to_take: ReadyTasks,
    to_run: ReadyTasks,
    /// Tasks that will not begin, because of others, and whether it was told.
    lost: BTreeMap<TaskId, String>,
    waiting: BTreeSet<TaskId>,
}

impl TaskQueue {
    /// Of these tasks; others count as ended.
    pub fn new(plan: &Plan, needed: &BTreeSet<TaskId>, ways: &[u64]) -> Self {
        let mut queue = Self {
            open: BTreeMap::new(),
            behind: BTreeMap::new(),
            ways: ways.to_vec(),
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
        (Reverse(self.ways[id.index()]), id)
    }

    fn ready(&mut self, work: TaskAction) -> &mut ReadyTasks {
        match work {
            TaskAction::Take => &mut self.to_take,
            TaskAction::Run => &mut self.to_run,
        }
    }

    /// Tasks that have become ready since the last call; each has to be sorted in.
    pub fn take_new(&mut self) -> Vec<TaskId> {
        let new = std::mem::take(&mut self.new);
        new.into_iter().map(|(_, id)| id).collect()
    }

    /// Sorts a task that is ready in by what is to be done for it.
    pub fn sort_in(&mut self, id: TaskId, work: TaskAction) {
        let place = self.place(id);
        self.to_take.remove(&place);
        self.to_run.remove(&place);
        self.ready(work).insert(place);
    }

    /// The next task after this one for which that can be done, or the first; those that hold up
    /// most come first.
    pub fn next(&mut self, work: TaskAction, after: Option<TaskId>) -> Option<TaskId> {
        let after = after.map_or(Bound::Unbounded, |id| Bound::Excluded(self.place(id)));
        let mut rest = self.ready(work).range((after, Bound::Unbounded));
        rest.next().map(|(_, id)| *id)
    }

    /// The task has begun.
    pub fn start(&mut self, id: TaskId) {
        let place = self.place(id);
        for ready in [&mut self.new, &mut self.to_take, &mut self.to_run] {
            ready.remove(&place);
        }
        self.waiting.remove(&id);
    }

    /// The task is ready, again or for the first time.
    pub fn again(&mut self, id: TaskId) {
        self.waiting.insert(id);
        self.new.insert(self.place(id));
    }

    /// The task has ended well.
    pub fn done(&mut self, id: TaskId) {
        for behind in self.behind.remove(&id).unwrap_or_default() {
            let open = self.open.entry(behind).or_default();
            *open = open.saturating_sub(1);
            if *open == 0 && self.waiting.contains(&behind) {
                self.again(behind);
            }
        }
    }

    /// The task has failed, and what waits for it will not begin.
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

    /// Tasks that will not begin, each with the unit because of which; all that wait, where
    /// nothing new may begin.
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
