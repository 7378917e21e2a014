//! Looks up, before anything is composed, which results are cached and which scripts must run.
//!
//! The key of a task contains the results of its upstream tasks. So results are looked up level by
//! level, and the key of a task behind a script that must run is not known yet. Then the needed tasks
//! are found from the end: a unit with a cached result needs no upstream task.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::StreamExt;

use super::BuildRun;
use super::result::TaskFolder;
use crate::cache::{Cache, CachedResult, Key, OutputDigest, RemoteCache};
use crate::event::{Miss, Stage};
use crate::pipeline::services::Services;
use crate::plan::{EXISTS_ONLY, Forecast, Plan, RunScope, StorePlan, Task, TaskId, TaskMap};
use crate::store::{StoreId, UnitId};

/// How many requests are sent to the remote cache at once.
const AT_ONCE: usize = 8;

/// The results of the tasks that a task needs, by name.
pub type UpstreamOutputs = BTreeMap<String, OutputDigest>;

/// The state of a task's result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ResultState {
    /// It is in the cache.
    Cached(CachedResult),
    /// It is in the task's folder, and not in the cache.
    InPlace(OutputDigest),
    /// There is none, so the script must run.
    Missing,
    /// Its key is not known yet: it depends on results that do not exist yet.
    Unknown,
}

impl ResultState {
    /// The digest of the result, if there is one.
    pub fn output(&self) -> Option<OutputDigest> {
        match self {
            Self::Cached(entry) => Some(entry.output),
            Self::InPlace(output) => Some(*output),
            Self::Missing | Self::Unknown => None,
        }
    }
}

/// The key of a task, with the inputs that only a run can know.
#[derive(Debug, Clone)]
pub struct TaskKey {
    /// The results of the tasks that it needs.
    pub upstream: UpstreamOutputs,
    /// The primary key: without the files that are inputs only if the script opens them.
    pub primary: Key,
    /// The files that the script opens, as far as it is known.
    pub reads: BTreeSet<String>,
    /// The complete key.
    pub key: Key,
}

impl TaskKey {
    /// Computes the key of a task.
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

    /// The state of the result on this machine.
    pub fn local_state(&self, plan: &Plan, id: TaskId, cache: &Cache, force: bool) -> ResultState {
        if force || plan.task(id).never_cached.is_some() {
            return ResultState::Missing;
        }
        if let Some(entry) = cache.peek(self.key) {
            return ResultState::Cached(entry);
        }
        let output = TaskFolder::new(plan, id).holds(self.key, None);
        output.map_or(ResultState::Missing, ResultState::InPlace)
    }

    /// Fetches the result from the remote cache: by the key as this machine knows it, then by the list
    /// of opened files that other machines have recorded.
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
        // The fetched list has replaced the local one.
        let _ = cache.add_reads(self.primary, &self.reads);
        self.reads.extend(theirs);
        self.key = plan.key(id, self.primary, &self.reads);
        match cache.find(self.key) {
            Some(entry) => Some(entry),
            None => remote.fetch(cache, self.key).await,
        }
    }
}

/// The states of all results at the beginning of the build stage.
#[derive(Debug, Default)]
pub struct CacheLookup {
    states: TaskMap<Option<ResultState>>,
    keys: TaskMap<Option<TaskKey>>,
    needed: BTreeSet<TaskId>,
}

impl CacheLookup {
    /// Looks for the results of the tasks in scope and of the tasks that they need, here and in the
    /// remote cache. The results of distrusted tasks count as missing.
    pub async fn new(run: &BuildRun, scope: &RunScope, distrusted: &BTreeSet<TaskId>) -> Self {
        let (plan, cache, force) = (&run.plan, &run.services.cache, run.options.force);
        let mut lookup = Self::empty(plan);
        for level in levels(plan, scope.wanted()) {
            lookup.look_locally(plan, &level, cache, force);
            lookup.mark_used(&level, cache);
            for id in level.iter().filter(|id| distrusted.contains(id)) {
                lookup.states[*id] = Some(ResultState::Missing);
            }
            if !force {
                lookup
                    .ask_remote(plan, &level, distrusted, &run.services)
                    .await;
            }
        }
        lookup.find_needed(plan, scope);
        lookup
    }

    /// The same without the remote cache.
    pub fn local(plan: &Plan, cache: &Cache, force: bool) -> Self {
        let scope = RunScope::all(plan);
        let mut lookup = Self::empty(plan);
        for level in levels(plan, scope.wanted()) {
            lookup.look_locally(plan, &level, cache, force);
        }
        lookup.find_needed(plan, &scope);
        lookup
    }

    fn empty(plan: &Plan) -> Self {
        Self {
            states: plan.tasks.map(|_| None),
            keys: plan.tasks.map(|_| None),
            needed: BTreeSet::new(),
        }
    }

    /// Looks for the results of these tasks on this machine.
    fn look_locally(&mut self, plan: &Plan, level: &[TaskId], cache: &Cache, force: bool) {
        for id in level {
            let state = match self.upstream(plan, *id) {
                Some(upstream) => {
                    let key = TaskKey::new(plan, *id, upstream, cache);
                    let state = key.local_state(plan, *id, cache, force);
                    self.keys[*id] = Some(key);
                    state
                }
                None if force || plan.task(*id).never_cached.is_some() => ResultState::Missing,
                None => ResultState::Unknown,
            };
            self.states[*id] = Some(state);
        }
    }

    /// Marks the cached results of these tasks as used.
    fn mark_used(&self, level: &[TaskId], cache: &Cache) {
        let mut used = BTreeSet::new();
        for id in level {
            let (Some(ResultState::Cached(entry)), Some(key)) =
                (&self.states[*id], &self.keys[*id])
            else {
                continue;
            };
            used.insert(entry.key);
            if !key.reads.is_empty() {
                used.insert(key.primary.of_reads());
            }
        }
        // A set, because several tasks may share a result.
        for key in used {
            cache.find(key);
        }
    }

    /// Asks the remote cache for the results that this machine does not have.
    async fn ask_remote(
        &mut self,
        plan: &Plan,
        level: &[TaskId],
        distrusted: &BTreeSet<TaskId>,
        services: &Services,
    ) {
        let Some(remote) = &services.remote else {
            return;
        };
        let missing = level.iter().filter(|id| {
            let may_be_cached = plan.task(**id).never_cached.is_none() && !distrusted.contains(id);
            may_be_cached && self.states[**id] == Some(ResultState::Missing)
        });
        // By key, so that a result of several tasks is fetched once.
        let mut by_key: BTreeMap<Key, Vec<TaskId>> = BTreeMap::new();
        for id in missing {
            if let Some(key) = &self.keys[*id] {
                by_key.entry(key.primary).or_default().push(*id);
            }
        }
        let _outside = services.events.waiting();
        let fetch = |ids: Vec<TaskId>| {
            let key = self.keys[ids[0]].clone();
            async move {
                let mut key = key?;
                let entry = key.fetch(plan, ids[0], &services.cache, remote).await?;
                Some((ids, key, entry))
            }
        };
        let fetched = futures_util::stream::iter(by_key.into_values())
            .map(fetch)
            .buffer_unordered(AT_ONCE);
        let fetched = async { Ok(fetched.collect::<Vec<_>>().await) };
        let Ok(fetched) = services.interrupt.unless_stopped((), fetched).await else {
            return;
        };
        for (ids, key, entry) in fetched.into_iter().flatten() {
            for id in ids {
                self.states[id] = Some(ResultState::Cached(entry.clone()));
                self.keys[id] = Some(key.clone());
            }
        }
        if let Some(warning) = remote.take_warning() {
            services.events.notice(warning);
        }
    }

    /// The results of the tasks that this one needs, if all of them are known.
    fn upstream(&self, plan: &Plan, id: TaskId) -> Option<UpstreamOutputs> {
        let needs = plan.task(id).upstream.iter();
        let output = |need: &TaskId| {
            let output = self.output(*need)?;
            Some((plan.task(*need).subject.name().to_owned(), output))
        };
        needs.map(output).collect()
    }

    /// Finds the tasks whose results the run needs in place.
    fn find_needed(&mut self, plan: &Plan, scope: &RunScope) {
        let reads_files = |id: &TaskId| {
            // An image contains files of the packages that its app depends on.
            let state = &self.states[*id];
            matches!(state, Some(ResultState::Missing | ResultState::Unknown))
                || plan.until > Stage::Build
        };
        let readers = scope.wanted().iter().filter(|id| reads_files(id));
        let read = readers.flat_map(|id| plan.task(*id).needs.iter().copied());
        // A result that a script reads may use the results that its own script has read.
        let read = with_upstream(plan, read.collect());
        self.needed = scope.wanted().iter().copied().chain(read).collect();
    }

    /// How many tasks the run puts in place or runs.
    pub fn count(&self) -> usize {
        self.needed.len()
    }

    /// The state of a task's result; none if the run does not need it.
    pub fn state(&self, id: TaskId) -> Option<&ResultState> {
        let state = self.states[id].as_ref();
        state.filter(|_| self.needed.contains(&id))
    }

    /// The digest of a task's result, needed or not.
    pub fn output(&self, id: TaskId) -> Option<OutputDigest> {
        self.states[id].as_ref()?.output()
    }

    /// The key of a task, if it is known.
    pub fn key(&self, id: TaskId) -> Option<&TaskKey> {
        self.keys[id].as_ref()
    }

    /// The tasks whose scripts run, or may run.
    pub fn running<'a>(&self, plan: &'a Plan) -> impl Iterator<Item = &'a Task> {
        let running = self.needed.iter().filter(|id| {
            let state = &self.states[**id];
            matches!(state, Some(ResultState::Missing | ResultState::Unknown))
        });
        running.map(|id| plan.task(*id))
    }

    /// Whether the files of a task's result are put in place.
    pub fn places(&self, plan: &Plan, id: TaskId) -> bool {
        match self.state(id) {
            None => false,
            Some(ResultState::Cached(entry)) => plan.task(id).work.is_build() || entry.files > 0,
            Some(_) => true,
        }
    }

    /// The stores to compose, with the compositions that the run needs.
    pub fn stores_to_compose(&self, plan: &Plan, scope: &RunScope) -> Vec<StorePlan> {
        let placed = plan.tasks.ids().filter(|id| self.places(plan, *id));
        let units: BTreeSet<&UnitId> = placed
            .filter_map(|id| plan.task(id).subject.unit())
            .collect();
        let stores: BTreeSet<&StoreId> = units.iter().map(|unit| &unit.store).collect();
        let is_build = plan.tasks.values().all(|task| task.work.is_build());
        // Units that are built only because another unit needs them.
        let unwanted = plan
            .tasks
            .entries()
            .filter(|(id, _)| !scope.wanted().contains(id));
        let unwanted: BTreeSet<&UnitId> = unwanted
            .filter_map(|(_, task)| task.subject.unit())
            .collect();
        scope.stores(plan, |composition| {
            if is_build {
                !unwanted.contains(&composition.unit) || units.contains(&composition.unit)
            } else {
                // A script may read the other apps of its store.
                stores.contains(&composition.unit.store)
            }
        })
    }
}

/// These tasks and all tasks that they need, in levels: a level needs only results of the levels before
/// it.
fn levels(plan: &Plan, tasks: &BTreeSet<TaskId>) -> Vec<Vec<TaskId>> {
    let mut levels: Vec<Vec<TaskId>> = Vec::new();
    let mut level_of: BTreeMap<TaskId, usize> = BTreeMap::new();
    // Ids are ordered: upstream before downstream.
    for id in with_upstream(plan, tasks.clone()) {
        let needs = plan.task(id).needs.iter();
        let below = needs.filter_map(|need| level_of.get(need)).max();
        let level = below.map_or(0, |below| below + 1);
        level_of.insert(id, level);
        if level == levels.len() {
            levels.push(Vec::new());
        }
        levels[level].push(id);
    }
    levels
}

/// These tasks and all tasks that they need, directly or indirectly.
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

/// What a run would do for each task of the plan, as far as this machine knows.
pub fn forecast(plan: &Plan, cache: &Cache, force: bool) -> TaskMap<Forecast> {
    let lookup = CacheLookup::local(plan, cache, force);
    let mut makers = BTreeMap::new();
    plan.tasks.map(|id| {
        let task = plan.task(id);
        match lookup.state(id) {
            None => Forecast::Unneeded,
            Some(ResultState::Unknown) => {
                let needs = task.needs.iter();
                let unknown = needs.filter(|need| lookup.output(**need).is_none());
                let on = unknown.map(|need| plan.task(*need).name()).collect();
                Forecast::Runs(Miss::Depends { on })
            }
            Some(ResultState::Missing) => {
                let is_shared = task.shared && task.never_cached.is_none();
                if let Some(key) = lookup.key(id).filter(|_| is_shared) {
                    if let Some(maker) = makers.get(&key.primary) {
                        return Forecast::Follows(String::clone(maker));
                    }
                    makers.insert(key.primary, task.subject.to_string());
                }
                Forecast::Runs(miss(plan, id, lookup.key(id), cache, force))
            }
            Some(_) => Forecast::Hit,
        }
    })
}

/// Why a script must run.
pub fn miss(plan: &Plan, id: TaskId, key: Option<&TaskKey>, cache: &Cache, force: bool) -> Miss {
    let task = plan.task(id);
    if force {
        return Miss::Forced;
    }
    if let Some(because) = &task.never_cached {
        return Miss::Never {
            because: because.clone(),
        };
    }
    let Some(key) = key else {
        let needs = task.needs.iter();
        let on = needs.map(|need| plan.task(*need).name()).collect();
        return Miss::Depends { on };
    };
    let Some(before) = cache.inputs(&task.name()) else {
        return Miss::New;
    };
    // The current key may not list the files that the script opened in the earlier run.
    let optional = plan.optional_names(id);
    let opened = before
        .files
        .iter()
        .filter(|(_, file)| file.id != EXISTS_ONLY);
    let opened = opened.map(|(name, _)| name);
    let opened = opened.filter(|name| optional.contains(*name));
    let reads = key.reads.iter().chain(opened).cloned().collect();
    let now = plan.explained_inputs(id, &key.upstream, &reads);
    match now.changes(&before) {
        changes if changes.is_empty() => Miss::Gone,
        changes => Miss::Changed { changes },
    }
}

/// The names of missing dependencies, each with the app or package that needs it. As in Node, a
/// dependency may be installed in any folder above the source.
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
                missing.insert(format!("`{name}` (needed by `{}`)", task.subject.name()));
            }
        }
    }
    missing.into_iter().collect()
}
