//! The build stage while tasks run: which task begins next, and what the end of a task means for the
//! others.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;

use super::lookup::{CacheLookup, ResultState, TaskKey, UpstreamOutputs};
use super::memory::{MemoryAdmission, critical_paths};
use super::queue::{TaskAction, TaskQueue};
use super::script::{self, ScriptRun};
use super::sharing::SharingHints;
use super::{BuildRun, Built, BuiltPackage, ResultOrigin, event_unit};
use crate::cache::{CachedResult, Key, OutputDigest, RemoteCache, TaskFigures};
use crate::pipeline::compose::Workdir;
use crate::pipeline::failure::{Failure, StageError, StageResult};
use crate::plan::{ACTION_KEY, Subject, Task, TaskId};
use crate::store::UnitId;

/// How often a task that waits for memory is tried again.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// How many results are unpacked at once.
const UNPACKING: usize = 4;

/// The shortest time limit for the upload of a tool cache.
const SHORTEST_UPLOAD: Duration = Duration::from_secs(10);

/// How a task ended.
pub enum TaskEnd {
    /// Its result is in place.
    Taken {
        /// How long that took.
        elapsed: Duration,
        /// Where it comes from.
        origin: ResultOrigin,
        /// Its digest; none if the folder contains other files, so the result is not certain.
        output: Option<OutputDigest>,
    },
    /// The cached result is damaged or cannot be put in place.
    NotRestored,
    /// The remote cache has answered.
    Asked(Box<TaskKey>, Option<CachedResult>),
    /// Its script has run.
    Ran(Box<ScriptRun>),
}

/// Runs all needed tasks. Units behind a failed one are skipped. Without `--keep-going` no task begins
/// after a failure, and running ones may end. The error contains the tasks whose cached results are
/// damaged, if the stage must be repeated without them: the files that their scripts need were not
/// composed.
pub async fn run(
    run: &BuildRun,
    lookup: &CacheLookup,
    workdirs: Vec<Workdir>,
) -> Result<StageResult<Built>, BTreeSet<TaskId>> {
    let mut stage = BuildStage::new(run, lookup, &workdirs);
    loop {
        stage.begin();
        // A task that waits only for memory can begin at any time.
        let joined = tokio::select! {
            joined = stage.running.join_next() => joined,
            () = tokio::time::sleep(LOOK_AGAIN), if stage.waits_for_room => continue,
        };
        let Some(joined) = joined else { break };
        match joined {
            Ok((id, result)) => stage.end(id, result),
            // Tasks are never aborted, so this is a panic.
            Err(crashed) => std::panic::resume_unwind(crashed.into_panic()),
        }
    }
    let (repeat, damaged) = (stage.must_repeat, std::mem::take(&mut stage.damaged));
    let result = stage.settle().await;
    if repeat { Err(damaged) } else { Ok(result) }
}

/// The state of the stage while tasks run.
struct BuildStage<'a> {
    run: &'a BuildRun,
    lookup: &'a CacheLookup,
    queue: TaskQueue,
    at_work: BTreeMap<TaskId, TaskAction>,
    /// How many results are put in place or fetched now.
    taking: usize,
    /// The digests of ended tasks' results; none for a result that is not certain.
    outputs: BTreeMap<TaskId, Option<OutputDigest>>,
    /// The keys of tasks and the states of their results.
    found: BTreeMap<TaskId, (Option<TaskKey>, ResultState)>,
    /// The tasks whose results the remote cache does not have.
    asked: BTreeSet<TaskId>,
    room: MemoryAdmission,
    waits_for_room: bool,
    running: JoinSet<(TaskId, Result<TaskEnd, StageError>)>,
    uploads: JoinSet<()>,
    /// The keys of shared results whose script runs now.
    making: BTreeSet<Key>,
    /// The shared results of this run.
    made: BTreeMap<Key, CachedResult>,
    sharing: SharingHints,
    learned: BTreeMap<String, TaskFigures>,
    /// Whether a result was added to the cache.
    has_kept: bool,
    /// A hint about a setting that other machines need to use the tool caches of this run.
    hint: Option<String>,
    /// Whether the stage must be repeated without the damaged results.
    must_repeat: bool,
    /// The tasks whose cached results are damaged.
    damaged: BTreeSet<TaskId>,
    /// The failed unit because of which no other task begins.
    stop_because: Option<String>,
    result: StageResult<Built>,
}

impl<'a> BuildStage<'a> {
    fn new(run: &'a BuildRun, lookup: &'a CacheLookup, workdirs: &[Workdir]) -> Self {
        let plan = &run.plan;
        let needed: BTreeSet<TaskId> = plan
            .tasks
            .ids()
            .filter(|id| lookup.state(*id).is_some())
            .collect();
        let figures = if lookup.running(plan).next().is_some() {
            run.services.cache.figures()
        } else {
            BTreeMap::new()
        };
        let room = MemoryAdmission::new(plan, figures);
        let mut queue = TaskQueue::new(plan, &needed, critical_paths(plan, &room));
        // With `--keep-going`, a store that could not be composed has dropped out.
        let composed: BTreeSet<&UnitId> = workdirs.iter().map(|workdir| &workdir.unit).collect();
        for id in &needed {
            let task = plan.task(*id);
            let unit = task.subject.unit().filter(|_| lookup.places(plan, *id));
            if unit.is_some_and(|unit| !composed.contains(unit)) {
                queue.lose(*id, &task.subject.to_string());
            }
        }
        Self {
            run,
            lookup,
            queue,
            at_work: BTreeMap::new(),
            taking: 0,
            outputs: BTreeMap::new(),
            found: BTreeMap::new(),
            asked: BTreeSet::new(),
            room,
            waits_for_room: false,
            running: JoinSet::new(),
            uploads: JoinSet::new(),
            making: BTreeSet::new(),
            made: BTreeMap::new(),
            sharing: SharingHints::default(),
            learned: BTreeMap::new(),
            has_kept: false,
            hint: None,
            must_repeat: false,
            damaged: BTreeSet::new(),
            stop_because: None,
            result: StageResult::default(),
        }
    }

    /// Begins all tasks that can begin now.
    fn begin(&mut self) {
        self.waits_for_room = false;
        for (id, because) in self.queue.take_lost(self.stop_because.as_deref()) {
            self.skip(id, &because);
        }
        if self.must_repeat || self.stop_because.is_some() {
            return;
        }
        for id in self.queue.take_new() {
            let work = match self.look(id) {
                ResultState::Cached(_) | ResultState::InPlace(_) => TaskAction::Take,
                ResultState::Missing | ResultState::Unknown => TaskAction::Run,
            };
            self.queue.sort_in(id, work);
        }
        // Scripts first, because one script may make the result of other tasks.
        self.begin_those(TaskAction::Run);
        self.begin_those(TaskAction::Take);
    }

    fn begin_those(&mut self, work: TaskAction) {
        let mut last = None;
        while let Some(id) = self.queue.next(work, last) {
            last = Some(id);
            if work == TaskAction::Take && self.taking >= UNPACKING {
                return;
            }
            let others = &mut self.at_work.iter();
            let task = (self.run.plan.task(id), work);
            if others.any(|(id, other)| disturbs(task, (self.run.plan.task(*id), *other))) {
                continue;
            }
            match work {
                TaskAction::Take => self.begin_taking(id),
                TaskAction::Run => self.begin_script(id),
            }
        }
    }

    /// Computes the task's key, now that the results that it needs exist, and looks up its result.
    fn look(&mut self, id: TaskId) -> &ResultState {
        let upstream = self.upstream(id);
        let is_same = |(resolved, _): &(Option<TaskKey>, ResultState)| {
            resolved.as_ref().map(|it| &it.upstream) == upstream.as_ref()
        };
        if !self.found.get(&id).is_some_and(is_same) {
            let looked = self.look_up(id, upstream);
            self.found.insert(id, looked);
        }
        &self.found[&id].1
    }

    fn look_up(
        &self,
        id: TaskId,
        upstream: Option<UpstreamOutputs>,
    ) -> (Option<TaskKey>, ResultState) {
        let known = self.lookup.key(id);
        let known = known.filter(|_| !self.damaged.contains(&id));
        let known = known.filter(|known| Some(&known.upstream) == upstream.as_ref());
        match (known, self.lookup.state(id), upstream) {
            (Some(known), Some(found), _) => (Some(known.clone()), found.clone()),
            (_, _, Some(upstream)) => {
                let cache = &self.run.services.cache;
                let resolved = TaskKey::new(&self.run.plan, id, upstream, cache);
                let force = self.run.options.force || self.damaged.contains(&id);
                let found = resolved.local_state(&self.run.plan, id, cache, force);
                (Some(resolved), found)
            }
            (_, _, None) => (None, ResultState::Missing),
        }
    }

    /// The results of the tasks that this one needs, if all of them are certain.
    fn upstream(&self, id: TaskId) -> Option<UpstreamOutputs> {
        let needs = self.run.plan.task(id).upstream.iter();
        let output = |need: &TaskId| {
            let output = match self.outputs.get(need) {
                Some(output) => *output,
                None => self.lookup.output(*need),
            };
            Some((self.run.plan.task(*need).subject.name().to_owned(), output?))
        };
        needs.map(output).collect()
    }

    fn begin_taking(&mut self, id: TaskId) {
        let Some((resolved, entry)) = self.known_result(id) else {
            // The result that another task made was damaged.
            return self.begin_script(id);
        };
        let run = self.run.clone();
        self.start(id, TaskAction::Take);
        self.running.spawn_blocking(move || {
            let _working = run.services.events.working();
            let taken = script::take(&run, id, &resolved, entry.as_ref());
            (id, taken)
        });
    }

    /// The result of a task: from the cache, or made for another task in this run.
    fn known_result(&self, id: TaskId) -> Option<(TaskKey, Option<CachedResult>)> {
        let (resolved, found) = self.found.get(&id)?;
        let resolved = resolved.clone()?;
        let entry = match found {
            ResultState::InPlace(_) => None,
            ResultState::Cached(entry) => Some(entry.clone()),
            ResultState::Missing | ResultState::Unknown => {
                Some(self.made.get(&resolved.primary)?.clone())
            }
        };
        let key = entry.as_ref().map_or(resolved.key, |entry| entry.key);
        Some((TaskKey { key, ..resolved }, entry))
    }

    /// Asks the remote cache for a result whose key was unknown before.
    fn begin_asking(&mut self, id: TaskId, mut resolved: TaskKey) {
        let run = self.run.clone();
        self.start(id, TaskAction::Take);
        self.running.spawn(async move {
            let _outside = run.services.events.waiting();
            let mut entry = None;
            if let Some(remote) = &run.services.remote {
                let fetching = resolved.fetch(&run.plan, id, &run.services.cache, remote);
                entry = fetching.await;
            }
            (id, Ok(TaskEnd::Asked(Box::new(resolved), entry)))
        });
    }

    fn begin_script(&mut self, id: TaskId) {
        let task = self.run.plan.task(id);
        let resolved = self.found.get(&id).and_then(|(it, _)| it.as_ref());
        let kept = resolved.filter(|_| task.never_cached.is_none());
        let was_known = self.lookup.key(id).is_some() || self.asked.contains(&id);
        if let Some(resolved) = kept.filter(|_| !self.run.options.force && !was_known)
            && self.run.services.remote.is_some()
        {
            let resolved = resolved.clone();
            return self.begin_asking(id, resolved);
        }
        let shared = kept.filter(|_| task.shared).map(|it| it.primary);
        if shared.is_some_and(|key| self.made.contains_key(&key)) {
            return self.queue.sort_in(id, TaskAction::Take);
        }
        if shared.is_some_and(|key| self.making.contains(&key)) {
            return;
        }
        let resolved = resolved.cloned();
        let Some(memory) = self.room.admit(&self.run.plan, id) else {
            self.waits_for_room = true;
            return;
        };
        self.making.extend(shared);
        self.start(id, TaskAction::Run);
        let run = self.run.clone();
        self.running.spawn(async move {
            let result = script::run(&run, id, resolved, &memory).await;
            (id, result.map(|ran| TaskEnd::Ran(Box::new(ran))))
        });
    }

    fn start(&mut self, id: TaskId, work: TaskAction) {
        self.queue.start(id);
        self.at_work.insert(id, work);
        self.taking += usize::from(work == TaskAction::Take);
    }

    fn end(&mut self, id: TaskId, result: Result<TaskEnd, StageError>) {
        let task = self.run.plan.task(id);
        match self.at_work.remove(&id) {
            Some(TaskAction::Take) => self.taking -= 1,
            Some(TaskAction::Run) => self.leave(id, &result),
            None => {}
        }
        match result {
            Ok(TaskEnd::Ran(ran)) => self.ran(id, &ran),
            Ok(TaskEnd::Taken {
                elapsed,
                origin,
                output,
            }) => {
                self.outputs.insert(id, output);
                self.done(id, elapsed, origin);
            }
            Ok(TaskEnd::Asked(resolved, entry)) => {
                self.asked.insert(id);
                let found = entry.map_or(ResultState::Missing, ResultState::Cached);
                self.found.insert(id, (Some(*resolved), found));
                self.queue.again(id);
            }
            Ok(TaskEnd::NotRestored) => {
                self.damaged.insert(id);
                let resolved = self.found.remove(&id).and_then(|(resolved, _)| resolved);
                if let Some(resolved) = &resolved {
                    self.made.remove(&resolved.primary);
                }
                self.found.insert(id, (resolved, ResultState::Missing));
                self.queue.again(id);
                let is_needed = |need: &TaskId| self.lookup.state(*need).is_some();
                self.must_repeat |= !task.needs.iter().all(is_needed);
            }
            Err(error) => self.failed(id, error),
        }
    }

    /// Frees the memory of a script that has ended.
    fn leave(&mut self, id: TaskId, result: &Result<TaskEnd, StageError>) {
        let learned = match result {
            Ok(TaskEnd::Ran(ran)) => Some(ran.figures),
            _ => None,
        };
        self.room.leave(self.run.plan.task(id), id, learned);
        if let Some((Some(resolved), _)) = self.found.get(&id) {
            self.making.remove(&resolved.primary);
        }
    }

    fn ran(&mut self, id: TaskId, ran: &ScriptRun) {
        let task = self.run.plan.task(id);
        self.learned.insert(task.name(), ran.figures);
        self.outputs.insert(id, ran.kept.output);
        if let (Some(entry), Some((Some(resolved), _))) = (&ran.kept.entry, self.found.get(&id)) {
            if task.shared {
                self.made.insert(resolved.primary, entry.clone());
            } else {
                self.sharing
                    .made(&self.run.plan, id, &resolved.upstream, entry, ran.elapsed);
            }
            self.has_kept = true;
            self.upload(resolved.primary, entry);
        }
        if let Some(entry) = &ran.tool_cache {
            self.upload_tool_cache(id, entry);
        }
        self.done(id, ran.elapsed, ResultOrigin::Script(ran.began_with));
    }

    fn failed(&mut self, id: TaskId, error: StageError) {
        let task = self.run.plan.task(id);
        let name = task.subject.to_string();
        if !self.run.options.keep_going || self.run.services.interrupt.stopped() {
            self.stop_because = Some(name.clone());
        }
        self.queue.lose(id, &name);
        self.result.failed.push(Failure {
            unit: event_unit(task),
            error,
        });
    }

    /// Sends a result to the remote cache, with the list of files that the script opens.
    fn upload(&mut self, primary: Key, entry: &CachedResult) {
        if self.run.services.remote.is_none() {
            return;
        }
        let (services, entry) = (Arc::clone(&self.run.services), entry.clone());
        self.uploads.spawn(async move {
            let Some(remote) = &services.remote else {
                return;
            };
            remote.send(&services.cache, &entry).await;
            if let Some(reads) = services.cache.find(primary.of_reads()) {
                remote.send(&services.cache, &reads).await;
            }
        });
    }

    /// Sends a tool cache to the remote cache. The upload is canceled when it takes longer than the cache
    /// saves on another machine.
    fn upload_tool_cache(&mut self, id: TaskId, entry: &CachedResult) {
        if self.run.services.remote.is_none() {
            return;
        }
        let plan = &self.run.plan;
        if plan.makes_action_key(id) {
            self.hint = Some(format!(
                "Next.js 15 and newer use a kept tool cache only if the key for server actions is the same: set `{ACTION_KEY}` to a secret of your CI system and declare it in `build.env`"
            ));
        }
        let saved = entry.tools.as_ref().map(|tools| tools.times.saved());
        let limit = saved.unwrap_or_default().max(SHORTEST_UPLOAD);
        let branch = plan.tool_caches.own_branch();
        let entry = entry.under(plan.tool_cache_name(id).remote_key(branch));
        let services = Arc::clone(&self.run.services);
        self.uploads.spawn(async move {
            if let Some(remote) = &services.remote {
                let sending = remote.send(&services.cache, &entry);
                let _ = tokio::time::timeout(limit, sending).await;
            }
        });
    }

    fn skip(&mut self, id: TaskId, because: &str) {
        let task = self.run.plan.task(id);
        if let Subject::Unit(unit) = &task.subject {
            self.result.skipped.push(unit.clone());
        }
        self.run.services.skip(event_unit(task), because);
    }

    fn done(&mut self, id: TaskId, elapsed: Duration, origin: ResultOrigin) {
        self.queue.done(id);
        let task = self.run.plan.task(id);
        // `store run` reports only its own script, and not the builds that it needs.
        let is_answer = task.work == self.run.plan.work;
        if let (Subject::Package(name), true) = (&task.subject, is_answer) {
            self.result.packages.push(BuiltPackage {
                name: name.clone(),
                elapsed,
                origin,
            });
            return;
        }
        let composition = self.run.plan.composition_of(id).filter(|_| is_answer);
        if let Some(composition) = composition {
            let unit = composition.unit.clone();
            let workdir = Workdir {
                kind: composition.kind,
                path: self.run.plan.workdir(&unit),
                unit,
            };
            self.result.done.push(Built {
                workdir,
                elapsed,
                origin,
            });
        }
    }

    /// Waits for uploads, records the figures of scripts, and removes old results from the cache.
    async fn settle(mut self) -> StageResult<Built> {
        let uploading = async {
            let _outside = self.run.services.events.waiting();
            while self.uploads.join_next().await.is_some() {}
            Ok(())
        };
        let _ = self
            .run
            .services
            .interrupt
            .unless_stopped((), uploading)
            .await;
        if let Some(warning) = self
            .run
            .services
            .remote
            .as_ref()
            .and_then(RemoteCache::take_warning)
        {
            self.run.services.events.notice(warning);
        }
        let cache = &self.run.services.cache;
        if !self.learned.is_empty() {
            // Without the figures the next run uses defaults.
            let _ = cache.learn(std::mem::take(&mut self.learned));
        }
        if self.has_kept
            && let Err(error) = cache.collect(self.run.plan.cache_limits)
        {
            self.run.services.events.notice(format!(
                "old results could not be removed from the cache: {error}"
            ));
        }
        // Both are removed only if they are empty.
        for folder in [".out/.tmp", ".out"] {
            let _ = std::fs::remove_dir(self.run.plan.project.join(folder));
        }
        // In the plan's order.
        let place: BTreeMap<&UnitId, usize> = self
            .run
            .plan
            .compositions()
            .enumerate()
            .map(|(position, composition)| (&composition.unit, position))
            .collect();
        let mut result = self.result;
        result.hints = self.sharing.hints();
        result.hints.extend(self.hint);
        result
            .done
            .sort_by_key(|built| place.get(built.unit()).copied());
        result
    }
}

/// Whether two tasks must not run at once. In one folder they see each other's files. In one store, a
/// script other than `build` moves away files that other tasks may read. A cached result is put into
/// the task's own folder, which is not the one in which the script of a shared app runs.
fn disturbs((one, work): (&Task, TaskAction), (other, theirs): (&Task, TaskAction)) -> bool {
    let is_one_folder = match (work, theirs) {
        (TaskAction::Run, TaskAction::Run) => one.runs_where(other),
        _ => one.folder == other.folder,
    };
    if is_one_folder {
        return true;
    }
    match (one.subject.unit(), other.subject.unit()) {
        (Some(unit), Some(beside)) if unit.store == beside.store => {
            !one.work.is_build() || !other.work.is_build()
        }
        _ => false,
    }
}
