//! Before anything is composed: which results are there already, and which scripts have to run.
//!
//! It is asked from the end: what was asked for first, and what that needs only where it has to
//! run. So a unit whose result is kept is neither composed nor built nor written, unless
//! somebody needs its files.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::StreamExt;

use super::result::Place;
use crate::cache::{Cache, Entry, Key};
use crate::event::{Miss, Stage};
use crate::overlay::Composition;
use crate::pipeline::context::Context;
use crate::plan::{BUILD, Forecast, Plan, Task};
use crate::store::{StoreId, UnitId};

/// Questions to the remote cache at once.
const AT_ONCE: usize = 8;

/// What is known of a task's result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// It is kept.
    Kept(Entry),
    /// It lies where it belongs, and is not kept.
    InPlace,
    /// The script has to run.
    Nothing,
}

/// What a run will have to do, by the plan's tasks.
#[derive(Debug, Default)]
pub struct Outlook {
    found: BTreeMap<usize, Found>,
}

impl Outlook {
    /// Looks for the results of every task that is asked for, or needed by one that runs.
    /// What is distrusted counts as not there.
    pub async fn new(plan: &Plan, distrusted: &BTreeSet<usize>, context: &Context) -> Self {
        let mut outlook = Self::default();
        let mut waiting = wanted(plan);
        while !waiting.is_empty() {
            let mut looked_at = outlook.look(plan, context, &waiting).await;
            for (index, found) in &mut looked_at {
                if distrusted.contains(index) {
                    *found = Found::Nothing;
                }
            }
            waiting = outlook.take(plan, looked_at);
        }
        outlook
    }

    /// The same, as far as can be told without asking anybody else.
    pub fn local(plan: &Plan, cache: &Cache, force: bool) -> Self {
        let mut outlook = Self::default();
        let mut waiting = wanted(plan);
        while !waiting.is_empty() {
            let looked_at = waiting
                .iter()
                .map(|index| (*index, here(plan, cache, force, *index)));
            waiting = outlook.take(plan, looked_at.collect());
        }
        outlook
    }

    /// Takes what was found, and gives the tasks that have to be looked for because of it.
    fn take(&mut self, plan: &Plan, looked_at: BTreeMap<usize, Found>) -> BTreeSet<usize> {
        let mut next = BTreeSet::<usize>::new();
        for (index, found) in looked_at {
            // An image takes files of the packages that its app depends on.
            if found == Found::Nothing || plan.until > Stage::Build {
                next.extend(&plan.tasks[index].needs);
            }
            self.found.insert(index, found);
        }
        // What a script reads has to be there as a whole, with what it reads from in turn.
        let mut all = BTreeSet::new();
        while let Some(index) = next.pop_first() {
            if all.insert(index) {
                next.extend(&plan.tasks[index].needs);
            }
        }
        all.retain(|index| !self.found.contains_key(index));
        all
    }

    async fn look(
        &self,
        plan: &Plan,
        context: &Context,
        tasks: &BTreeSet<usize>,
    ) -> BTreeMap<usize, Found> {
        let here = |index: &usize| {
            let found = here(plan, &context.cache, context.force, *index);
            if let Found::Kept(entry) = &found {
                // It counts as used from now on.
                let _ = context.cache.find(entry.key);
            }
            (*index, found)
        };
        let mut found: BTreeMap<usize, Found> = tasks.iter().map(here).collect();
        if context.force {
            return found;
        }
        let Some(remote) = &context.remote else {
            return found;
        };
        let _outside = context.events.outside();
        let missing = |found: &BTreeMap<usize, Found>| -> Vec<usize> {
            let missing = found.iter().filter(|(_, found)| **found == Found::Nothing);
            let missing = missing.map(|(index, _)| *index);
            missing
                .filter(|index| plan.tasks[*index].never_kept.is_none())
                .collect()
        };
        // What every store can take is brought once; then what only its own can.
        for shared in [true, false] {
            let key = |index: usize| {
                let keys = plan.tasks[index].keys;
                if shared { keys.shared } else { keys.own }
            };
            let keys: BTreeSet<Key> = missing(&found).into_iter().map(key).collect();
            let bring = |key: Key| async move { (key, remote.fetch(&context.cache, key).await) };
            let brought = futures_util::stream::iter(keys)
                .map(bring)
                .buffer_unordered(AT_ONCE);
            let ended = async { Ok(brought.collect::<BTreeMap<_, _>>().await) };
            let Ok(brought) = context.interrupt.unless_stopped((), ended).await else {
                return found;
            };
            for index in missing(&found) {
                if let Some(Some(entry)) = brought.get(&key(index)) {
                    found.insert(index, Found::Kept(entry.clone()));
                }
            }
        }
        if let Some(warning) = remote.take_warning() {
            context.events.notice(warning);
        }
        found
    }

    /// How many tasks there are to take or to run.
    pub fn count(&self) -> usize {
        self.found.len()
    }

    /// What is known of a task; nothing of one that is not needed.
    pub fn found(&self, index: usize) -> Option<&Found> {
        self.found.get(&index)
    }

    /// Tasks whose scripts have to run, as far as can be told.
    pub fn running<'a>(&self, plan: &'a Plan) -> impl Iterator<Item = &'a Task> {
        let running = self
            .found
            .iter()
            .filter(|(_, found)| **found == Found::Nothing);
        running.map(|(index, _)| &plan.tasks[*index])
    }

    /// Whether the files of a task are to be there in the end: it runs, somebody who runs reads
    /// them, or they were asked for.
    pub fn places(&self, plan: &Plan, index: usize) -> bool {
        match self.found(index) {
            None => false,
            Some(Found::Kept(entry)) => plan.tasks[index].script == BUILD || entry.files > 0,
            Some(_) => true,
        }
    }

    /// The plan, less the compositions that nobody needs now; none where all are needed.
    pub fn composed(&self, plan: &Plan) -> Option<Plan> {
        let placed = |index: &usize| self.places(plan, *index);
        let units: BTreeSet<&UnitId> = (0..plan.tasks.len())
            .filter(placed)
            .filter_map(|index| plan.tasks[index].subject.unit())
            .collect();
        let stores: BTreeSet<&StoreId> = units.iter().map(|unit| &unit.store).collect();
        let is_build = plan.tasks.iter().all(|task| task.script == BUILD);
        let is_needed = |one: &Composition| {
            if is_build {
                // A middleware that is only there for a frontend is left out with it.
                let task = plan
                    .tasks
                    .iter()
                    .find(|task| task.subject.unit() == Some(&one.unit));
                task.is_none_or(|task| task.is_wanted) || units.contains(&one.unit)
            } else {
                // A script may look at the apps beside its own.
                stores.contains(&one.unit.store)
            }
        };
        if plan.compositions().all(is_needed) {
            return None;
        }
        let mut composed = plan.clone();
        for store in &mut composed.stores {
            store.compositions.retain(is_needed);
        }
        composed
            .stores
            .retain(|store| !store.compositions.is_empty());
        Some(composed)
    }
}

fn wanted(plan: &Plan) -> BTreeSet<usize> {
    let wanted = plan
        .tasks
        .iter()
        .enumerate()
        .filter(|(_, task)| task.is_wanted);
    wanted.map(|(index, _)| index).collect()
}

/// What this machine knows of a task's result: kept for its own unit, else for every store.
fn here(plan: &Plan, cache: &Cache, force: bool, index: usize) -> Found {
    let task = &plan.tasks[index];
    if force || task.never_kept.is_some() {
        return Found::Nothing;
    }
    let keys = [task.keys.own, task.keys.shared];
    match keys.into_iter().find_map(|key| cache.peek(key)) {
        Some(entry) => Found::Kept(entry),
        None if Place::new(plan, task).holds(None) => Found::InPlace,
        None => Found::Nothing,
    }
}

/// What would become of each task of the plan, as far as this machine knows.
pub fn forecast(plan: &Plan, cache: &Cache, force: bool) -> Vec<Forecast> {
    let outlook = Outlook::local(plan, cache, force);
    let mut makers = BTreeMap::new();
    let tasks = plan.tasks.iter().enumerate();
    tasks
        .map(|(index, task)| match outlook.found(index) {
            None => Forecast::Unneeded,
            Some(Found::Nothing) => {
                let may_follow = task.never_kept.is_none() && !force;
                let maker = makers.get(&task.keys.shared).filter(|_| may_follow);
                if let Some(maker) = maker {
                    return Forecast::Follows(String::clone(maker));
                }
                makers.insert(task.keys.shared, task.subject.to_string());
                Forecast::Runs(miss(plan, task, cache, force))
            }
            Some(_) => Forecast::Hit,
        })
        .collect()
}

/// Why a script has to run.
pub fn miss(plan: &Plan, task: &Task, cache: &Cache, force: bool) -> Miss {
    if force {
        return Miss::Forced;
    }
    if let Some(because) = task.never_kept {
        return Miss::Never { because };
    }
    match cache.inputs(&task.name()) {
        None => Miss::New,
        Some(before) => match plan.inputs(task).changes(&before) {
            changes if changes.is_empty() => Miss::Gone,
            changes => Miss::Changed { changes },
        },
    }
}

/// Names of what is not installed and would be needed, each with who needs it. Node looks
/// upwards, beyond the project too.
pub fn not_installed<'a>(plan: &Plan, tasks: impl Iterator<Item = &'a Task>) -> Vec<String> {
    let mut missing = BTreeSet::new();
    for task in tasks {
        let source = plan.project.join(&task.source);
        for name in &task.dependencies {
            let is_there =
                |folder: &std::path::Path| folder.join("node_modules").join(name).exists();
            if !source.ancestors().any(is_there) {
                missing.insert(format!("`{name}` (of `{}`)", task.subject.name()));
            }
        }
    }
    missing.into_iter().collect()
}
