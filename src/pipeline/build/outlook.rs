//! Before anything is composed: which results are there already, and which scripts have to run.
//!
//! The key of a task is made of what the tasks before it made. So results are looked for in the
//! order of the plan, level by level, and of a task behind one that has to run nothing can be
//! said yet. Then it is asked from the end which of them are needed: a unit whose result is kept
//! needs nothing before it.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::StreamExt;

use super::result::TaskFolder;
use crate::cache::{Cache, CachedResult, Key, OutputDigest, RemoteCache};
use crate::event::{Miss, Stage};
use crate::overlay::Composition;
use crate::pipeline::context::Services;
use crate::plan::{BUILD, BY_NAME, Forecast, Plan, Task, TaskId};
use crate::store::{StoreId, UnitId};

/// Questions to the remote cache at once.
const AT_ONCE: usize = 8;

/// Results of the tasks that a task needs, by name.
pub type UpstreamOutputs = BTreeMap<String, OutputDigest>;

/// What is known of a task's result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ResultState {
    /// It is kept.
    Kept(CachedResult),
    /// It lies where it belongs, and is not kept.
    InPlace(OutputDigest),
    /// The script has to run.
    Nothing,
    /// It depends on results that are not there yet.
    Unknown,
}

impl ResultState {
    /// Identity of the result, where it is there.
    pub fn output(&self) -> Option<OutputDigest> {
        match self {
            Self::Kept(entry) => Some(entry.output),
            Self::InPlace(output) => Some(*output),
            Self::Nothing | Self::Unknown => None,
        }
    }
}

/// A task with what it is made of.
#[derive(Debug, Clone)]
pub struct TaskKey {
    /// What the tasks before it made.
    pub upstream: UpstreamOutputs,
    /// Its key, without files that count only for a script that opens them.
    pub primary: Key,
    /// Files that the script is known to open.
    pub reads: BTreeSet<String>,
    /// The whole key.
    pub key: Key,
}

impl TaskKey {
    /// Of a task whose upstream is known.
    pub fn new(plan: &Plan, id: TaskId, upstream: UpstreamOutputs, cache: &Cache) -> Self {
        let primary = plan.primary_key(id, &upstream);
        let reads = cache.reads(primary);
        Self {
            key: plan.key(id, primary, &reads),
            upstream,
            primary,
            reads,
        }
    }

    /// What this machine knows of the result.
    pub fn here(&self, plan: &Plan, id: TaskId, cache: &Cache, force: bool) -> ResultState {
        if force || plan.task(id).never_kept.is_some() {
            return ResultState::Nothing;
        }
        if let Some(entry) = cache.peek(self.key) {
            return ResultState::Kept(entry);
        }
        let output = TaskFolder::new(plan, id).holds(self.key, None);
        output.map_or(ResultState::Nothing, ResultState::InPlace)
    }

    /// Asks the remote cache for the result: by the key as it is known here, then by what other
    /// machines know of the files that the script opens.
    pub async fn fetch(
        &mut self,
        plan: &Plan,
        id: TaskId,
        cache: &Cache,
        remote: &RemoteCache,
    ) -> Option<CachedResult> {
        if let Some(entry) = remote.fetch(cache, self.key).await {
            return Some(entry);
        }
        let theirs = remote.fetch(cache, self.primary.of_reads()).await?.reads;
        if theirs.is_subset(&self.reads) {
            return None;
        }
        // What was fetched has taken the place of what was known here.
        let _ = cache.add_reads(self.primary, &self.reads);
        self.reads.extend(theirs);
        self.key = plan.key(id, self.primary, &self.reads);
        match cache.find(self.key) {
            Some(entry) => Some(entry),
            None => remote.fetch(cache, self.key).await,
        }
    }
}

/// What a run will have to do.
#[derive(Debug, Default)]
pub struct CacheLookup {
    found: Vec<Option<ResultState>>,
    resolved: Vec<Option<TaskKey>>,
    needed: BTreeSet<TaskId>,
}

impl CacheLookup {
    /// Looks for the results of every task that is asked for, and of those before it. What is
    /// distrusted counts as not there.
    pub async fn new(plan: &Plan, distrusted: &BTreeSet<TaskId>, context: &Services) -> Self {
        let mut outlook = Self::empty(plan);
        let mut waiting = with_upstream(plan, wanted(plan));
        while let Some(level) = outlook.next_level(plan, &mut waiting) {
            outlook.look(plan, &level, &context.cache, context.force);
            outlook.mark_used(&level, &context.cache);
            for id in level.iter().filter(|id| distrusted.contains(id)) {
                outlook.found[id.index()] = Some(ResultState::Nothing);
            }
            if !context.force {
                outlook.ask(plan, &level, distrusted, context).await;
            }
        }
        outlook.need(plan);
        outlook
    }

    /// The same, as far as can be told without asking anybody else.
    pub fn local(plan: &Plan, cache: &Cache, force: bool) -> Self {
        let mut outlook = Self::empty(plan);
        let mut waiting = with_upstream(plan, wanted(plan));
        while let Some(level) = outlook.next_level(plan, &mut waiting) {
            outlook.look(plan, &level, cache, force);
        }
        outlook.need(plan);
        outlook
    }

    fn empty(plan: &Plan) -> Self {
        let count = plan.tasks.len();
        Self {
            found: vec![None; count],
            resolved: vec![None; count],
            needed: BTreeSet::new(),
        }
    }

    /// Takes the tasks of which everything before is looked at; none when all are.
    fn next_level(&self, plan: &Plan, waiting: &mut BTreeSet<TaskId>) -> Option<Vec<TaskId>> {
        let is_known = |need: &TaskId| self.found[need.index()].is_some();
        let level: Vec<TaskId> = waiting
            .iter()
            .filter(|id| plan.task(**id).needs.iter().all(is_known))
            .copied()
            .collect();
        for id in &level {
            waiting.remove(id);
        }
        (!level.is_empty()).then_some(level)
    }

    /// Looks for the results of these tasks on this machine.
    fn look(&mut self, plan: &Plan, level: &[TaskId], cache: &Cache, force: bool) {
        for id in level {
            let upstream = self.upstream(plan, *id);
            let found = match upstream {
                Some(upstream) => {
                    let resolved = TaskKey::new(plan, *id, upstream, cache);
                    let found = resolved.here(plan, *id, cache, force);
                    self.resolved[id.index()] = Some(resolved);
                    found
                }
                None if force || plan.task(*id).never_kept.is_some() => ResultState::Nothing,
                None => ResultState::Unknown,
            };
            self.found[id.index()] = Some(found);
        }
    }

    /// What was found counts as used from now on.
    fn mark_used(&self, level: &[TaskId], cache: &Cache) {
        let mut used = BTreeSet::new();
        for id in level {
            let (found, resolved) = (&self.found[id.index()], &self.resolved[id.index()]);
            let (Some(ResultState::Kept(entry)), Some(resolved)) = (found, resolved) else {
                continue;
            };
            used.insert(entry.key);
            if !resolved.reads.is_empty() {
                used.insert(resolved.primary.of_reads());
            }
        }
        // Once each: a shared result is that of many.
        for key in used {
            cache.find(key);
        }
    }

    /// Asks the remote cache for what this machine does not have.
    async fn ask(
        &mut self,
        plan: &Plan,
        level: &[TaskId],
        distrusted: &BTreeSet<TaskId>,
        context: &Services,
    ) {
        let Some(remote) = &context.remote else {
            return;
        };
        let missing = level.iter().filter(|id| {
            let is_kept = plan.task(**id).never_kept.is_none() && !distrusted.contains(id);
            is_kept && self.found[id.index()] == Some(ResultState::Nothing)
        });
        // A shared result is brought once.
        let mut by_key: BTreeMap<Key, Vec<TaskId>> = BTreeMap::new();
        for id in missing {
            if let Some(resolved) = &self.resolved[id.index()] {
                by_key.entry(resolved.primary).or_default().push(*id);
            }
        }
        let _outside = context.events.outside();
        let bring = |ids: Vec<TaskId>| {
            let resolved = self.resolved[ids[0].index()].clone();
            async move {
                let mut resolved = resolved?;
                let entry = resolved.fetch(plan, ids[0], &context.cache, remote).await?;
                Some((ids, resolved, entry))
            }
        };
        let brought = futures_util::stream::iter(by_key.into_values())
            .map(bring)
            .buffer_unordered(AT_ONCE);
        let ended = async { Ok(brought.collect::<Vec<_>>().await) };
        let Ok(brought) = context.interrupt.unless_stopped((), ended).await else {
            return;
        };
        for (ids, resolved, entry) in brought.into_iter().flatten() {
            for id in ids {
                self.found[id.index()] = Some(ResultState::Kept(entry.clone()));
                self.resolved[id.index()] = Some(resolved.clone());
            }
        }
        if let Some(warning) = remote.take_warning() {
            context.events.notice(warning);
        }
    }

    /// What the tasks before this one made, if all of it is known.
    fn upstream(&self, plan: &Plan, id: TaskId) -> Option<UpstreamOutputs> {
        let needs = plan.task(id).upstream.iter();
        let output = |need: &TaskId| {
            let output = self.found[need.index()].as_ref()?.output()?;
            Some((plan.task(*need).subject.name().to_owned(), output))
        };
        needs.map(output).collect()
    }

    /// Decides which tasks have to be there in the end.
    fn need(&mut self, plan: &Plan) {
        let wanted = wanted(plan);
        let reads_files = |id: &TaskId| {
            // An image takes files of the packages that its app depends on.
            let found = &self.found[id.index()];
            matches!(found, Some(ResultState::Nothing | ResultState::Unknown))
                || plan.until > Stage::Build
        };
        let readers = wanted.iter().filter(|id| reads_files(id));
        let read = readers.flat_map(|id| plan.task(*id).needs.iter().copied());
        // What a script reads has to be there as a whole, with what it reads from in turn.
        let read = with_upstream(plan, read.collect());
        self.needed = wanted.into_iter().chain(read).collect();
    }

    /// How many tasks there are to take or to run.
    pub fn count(&self) -> usize {
        self.needed.len()
    }

    /// What is known of a task; nothing of one that is not needed.
    pub fn found(&self, id: TaskId) -> Option<&ResultState> {
        let found = self.found.get(id.index())?.as_ref();
        found.filter(|_| self.needed.contains(&id))
    }

    /// Identity of a task's result, needed or not.
    pub fn output(&self, id: TaskId) -> Option<OutputDigest> {
        self.found.get(id.index())?.as_ref()?.output()
    }

    /// What a task is made of, as far as it is known.
    pub fn resolved(&self, id: TaskId) -> Option<&TaskKey> {
        self.resolved.get(id.index())?.as_ref()
    }

    /// Tasks whose scripts have to run, or may have to.
    pub fn running<'a>(&self, plan: &'a Plan) -> impl Iterator<Item = &'a Task> {
        let running = self.needed.iter().filter(|id| {
            let found = &self.found[id.index()];
            matches!(found, Some(ResultState::Nothing | ResultState::Unknown))
        });
        running.map(|id| plan.task(*id))
    }

    /// Whether the files of a task are to be there in the end: it runs, somebody who runs reads
    /// them, or they were asked for.
    pub fn places(&self, plan: &Plan, id: TaskId) -> bool {
        match self.found(id) {
            None => false,
            Some(ResultState::Kept(entry)) => plan.task(id).script == BUILD || entry.files > 0,
            Some(_) => true,
        }
    }

    /// The plan, less the compositions that nobody needs now; none where all are needed.
    pub fn composed(&self, plan: &Plan) -> Option<Plan> {
        let placed = plan.task_ids().filter(|id| self.places(plan, *id));
        let units: BTreeSet<&UnitId> = placed
            .filter_map(|id| plan.task(id).subject.unit())
            .collect();
        let stores: BTreeSet<&StoreId> = units.iter().map(|unit| &unit.store).collect();
        let is_build = plan.tasks.iter().all(|task| task.script == BUILD);
        // A middleware that is only there for a frontend is left out with it.
        let unwanted: BTreeSet<&UnitId> = plan
            .tasks
            .iter()
            .filter(|task| !task.is_wanted)
            .filter_map(|task| task.subject.unit())
            .collect();
        let is_needed = |one: &Composition| {
            if is_build {
                !unwanted.contains(&one.unit) || units.contains(&one.unit)
            } else {
                // A script may look at the apps beside its own.
                stores.contains(&one.unit.store)
            }
        };
        if plan.compositions().all(|one| is_needed(one)) {
            return None;
        }
        let mut composed = plan.clone();
        for store in &mut composed.stores {
            store.compositions.retain(|one| is_needed(one));
        }
        composed
            .stores
            .retain(|store| !store.compositions.is_empty());
        Some(composed)
    }
}

/// These tasks and all before them.
fn with_upstream(plan: &Plan, tasks: BTreeSet<TaskId>) -> BTreeSet<TaskId> {
    let mut all = BTreeSet::new();
    let mut waiting: Vec<TaskId> = tasks.into_iter().collect();
    while let Some(id) = waiting.pop() {
        if all.insert(id) {
            waiting.extend(&plan.task(id).needs);
        }
    }
    all
}

fn wanted(plan: &Plan) -> BTreeSet<TaskId> {
    let ids = plan.task_ids();
    ids.filter(|id| plan.task(*id).is_wanted).collect()
}

/// What would become of each task of the plan, as far as this machine knows.
pub fn forecast(plan: &Plan, cache: &Cache, force: bool) -> Vec<Forecast> {
    let outlook = CacheLookup::local(plan, cache, force);
    let mut makers = BTreeMap::new();
    let one = |id: TaskId| {
        let task = plan.task(id);
        match outlook.found(id) {
            None => Forecast::Unneeded,
            Some(ResultState::Unknown) => {
                let needs = task.needs.iter();
                let unknown = needs.filter(|need| outlook.output(**need).is_none());
                let on = unknown.map(|need| plan.task(*need).name()).collect();
                Forecast::Runs(Miss::Depends { on })
            }
            Some(ResultState::Nothing) => {
                let shared = outlook
                    .resolved(id)
                    .filter(|_| task.shared && task.never_kept.is_none());
                if let Some(resolved) = shared {
                    if let Some(maker) = makers.get(&resolved.primary) {
                        return Forecast::Follows(String::clone(maker));
                    }
                    makers.insert(resolved.primary, task.subject.to_string());
                }
                Forecast::Runs(miss(plan, id, outlook.resolved(id), cache, force))
            }
            Some(_) => Forecast::Hit,
        }
    };
    plan.task_ids().map(one).collect()
}

/// Why a script has to run.
pub fn miss(
    plan: &Plan,
    id: TaskId,
    resolved: Option<&TaskKey>,
    cache: &Cache,
    force: bool,
) -> Miss {
    let task = plan.task(id);
    if force {
        return Miss::Forced;
    }
    if let Some(because) = &task.never_kept {
        return Miss::Never {
            because: because.clone(),
        };
    }
    let Some(resolved) = resolved else {
        let on = task
            .needs
            .iter()
            .map(|need| plan.task(*need).name())
            .collect();
        return Miss::Depends { on };
    };
    let Some(before) = cache.inputs(&task.name()) else {
        return Miss::New;
    };
    // What was opened then may not be known under the key of now.
    let optional = plan.optional_names(id);
    let opened = before.files.iter().filter(|(_, file)| file.id != BY_NAME);
    let opened = opened.map(|(name, _)| name);
    let opened = opened.filter(|name| optional.contains(*name));
    let reads = resolved.reads.iter().chain(opened).cloned().collect();
    let now = plan.explained_inputs(id, &resolved.upstream, &reads);
    match now.changes(&before) {
        changes if changes.is_empty() => Miss::Gone,
        changes => Miss::Changed { changes },
    }
}

/// Names of what is not installed and would be needed, each with who needs it. Node looks
/// upwards, beyond the project too.
pub fn not_installed<'a>(plan: &Plan, tasks: impl Iterator<Item = &'a Task>) -> Vec<String> {
    let mut missing = BTreeSet::new();
    let mut seen = BTreeSet::new();
    for task in tasks {
        if !seen.insert(&task.source) {
            continue;
        }
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
