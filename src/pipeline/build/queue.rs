//! Tasks that wait, and which of them can begin: each has a count of the tasks before it that
//! have not ended yet.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use crate::plan::{Plan, TaskId};

/// Tasks that are ready, those first that hold up most.
type Ready = BTreeSet<(Reverse<u64>, TaskId)>;

/// Tasks that wait.
pub struct Queue {
    /// How many tasks before it have not ended.
    open: BTreeMap<TaskId, usize>,
    /// Tasks that wait for one.
    behind: BTreeMap<TaskId, Vec<TaskId>>,
    /// How long the way from a task to the end is.
    ways: Vec<u64>,
    ready: Ready,
    /// Tasks that will not begin, because of others, and whether it was told.
    lost: BTreeMap<TaskId, String>,
    waiting: BTreeSet<TaskId>,
}

impl Queue {
    /// Of these tasks; others count as ended.
    pub fn new(plan: &Plan, needed: &BTreeSet<TaskId>, ways: &[u64]) -> Self {
        let mut queue = Self {
            open: BTreeMap::new(),
            behind: BTreeMap::new(),
            ways: ways.to_vec(),
            ready: Ready::new(),
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

    /// Tasks that can begin, those first that hold up most.
    pub fn ready(&self) -> Vec<TaskId> {
        self.ready.iter().map(|(_, id)| *id).collect()
    }

    /// The task has begun.
    pub fn start(&mut self, id: TaskId) {
        self.ready.remove(&(Reverse(self.ways[id.index()]), id));
        self.waiting.remove(&id);
    }

    /// The task is ready, again or for the first time.
    pub fn again(&mut self, id: TaskId) {
        self.waiting.insert(id);
        self.ready.insert((Reverse(self.ways[id.index()]), id));
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
            self.ready.clear();
            lost.extend(waiting.into_iter().map(|id| (id, because.to_owned())));
        }
        lost.into_iter().collect()
    }
}
