//! The stage while it works: which task begins next, and what the end of one means for others.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;

use super::memory::{MemoryAdmission, ways};
use super::outlook::{CacheLookup, ResultState, TaskKey, UpstreamOutputs};
use super::queue::{TaskAction, TaskQueue};
use super::script::{self, ScriptRun};
use super::sharing::SharingHints;
use super::{Built, ResultOrigin, event_unit};
use crate::cache::{CachedResult, Key, OutputDigest, RemoteCache, TaskFigures};
use crate::pipeline::compose::Workdir;
use crate::pipeline::context::Services;
use crate::pipeline::failure::{Failure, StageError, StageResult};
use crate::plan::{BUILD, Plan, Subject, Task, TaskId};
use crate::store::UnitId;

/// How often it is looked whether memory has become free.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// How many results are unpacked at once.
const UNPACKING: usize = 4;

/// What became of a task.
pub enum TaskEnd {
    /// Its result is in place.
    Taken {
        /// How long that took.
        elapsed: Duration,
        /// Where it comes from.
        origin: ResultOrigin,
        /// Its identity; none where it is not sure that nothing else lies there.
        output: Option<OutputDigest>,
    },
    /// What was found does not hold.
    NotThere,
    /// The remote cache was asked for it.
    Asked(Box<TaskKey>, Option<CachedResult>),
    /// Its script has run.
    Ran(ScriptRun),
}

/// Runs every task. Where a kept result was damaged and what its script needs is not there, it
/// has to be looked anew what there is to do, without those results. Units behind a failed one are
/// skipped and say because of whom; without `--keep-going` nothing new begins after a failure,
/// and what runs may end.
pub async fn run(
    plan: &Arc<Plan>,
    outlook: &CacheLookup,
    workdirs: Vec<Workdir>,
    context: &Arc<Services>,
) -> Result<StageResult<Built>, BTreeSet<TaskId>> {
    let mut stage = BuildStage::new(plan, outlook, &workdirs, context);
    loop {
        stage.begin();
        // Only memory keeps a task waiting that could begin; it may become free at any time.
        let joined = tokio::select! {
            joined = stage.running.join_next() => joined,
            () = tokio::time::sleep(LOOK_AGAIN), if stage.waits_for_room => continue,
        };
        let Some(joined) = joined else { break };
        match joined {
            Ok((id, result)) => stage.end(id, result),
            // Tasks are never aborted, so this is a panic: a bug must not look like success.
            Err(crashed) => std::panic::resume_unwind(crashed.into_panic()),
        }
    }
    let (anew, damaged) = (stage.looks_anew, std::mem::take(&mut stage.damaged));
    let settled = stage.settle().await;
    if anew { Err(damaged) } else { Ok(settled) }
}

/// The stage while it works.
struct BuildStage<'a> {
    plan: &'a Arc<Plan>,
    outlook: &'a CacheLookup,
    context: &'a Arc<Services>,
    queue: TaskQueue,
    at_work: BTreeMap<TaskId, TaskAction>,
    /// How many results are put in place or asked for now.
    taking: usize,
    /// Identities of results that are there; none of one that is not sure.
    outputs: BTreeMap<TaskId, Option<OutputDigest>>,
    /// What tasks are made of, and what was found of them.
    found: BTreeMap<TaskId, (Option<TaskKey>, ResultState)>,
    /// Tasks for which the remote cache has nothing.
    asked: BTreeSet<TaskId>,
    room: MemoryAdmission,
    waits_for_room: bool,
    running: JoinSet<(TaskId, Result<TaskEnd, StageError>)>,
    uploads: JoinSet<()>,
    /// Keys of shared results whose script runs now.
    making: BTreeSet<Key>,
    /// Shared results that were made in this run.
    made: BTreeMap<Key, CachedResult>,
    sharing: SharingHints,
    learned: BTreeMap<String, TaskFigures>,
    /// Whether something was kept.
    has_kept: bool,
    /// Whether a result that was found is not there, and its script would lack what it needs.
    looks_anew: bool,
    /// Tasks whose results were found and are not there.
    damaged: BTreeSet<TaskId>,
    stop_because: Option<String>,
    settled: StageResult<Built>,
}

impl<'a> BuildStage<'a> {
    fn new(
        plan: &'a Arc<Plan>,
        outlook: &'a CacheLookup,
        workdirs: &[Workdir],
        context: &'a Arc<Services>,
    ) -> Self {
        let needed: BTreeSet<TaskId> = plan
            .task_ids()
            .filter(|id| outlook.found(*id).is_some())
            .collect();
        let runs = outlook.running(plan).next().is_some();
        let figures = if runs {
            context.cache.figures()
        } else {
            BTreeMap::new()
        };
        let room = MemoryAdmission::new(plan, figures);
        let mut queue = TaskQueue::new(plan, &needed, &ways(plan, &room));
        // With `--keep-going`, a store that could not be composed has dropped out.
        let composed: BTreeSet<&UnitId> = workdirs.iter().map(|workdir| &workdir.unit).collect();
        for id in &needed {
            let task = plan.task(*id);
            let unit = task.subject.unit().filter(|_| outlook.places(plan, *id));
            if unit.is_some_and(|unit| !composed.contains(unit)) {
                queue.lose(*id, &task.subject.to_string());
            }
        }
        Self {
            plan,
            outlook,
            context,
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
            looks_anew: false,
            damaged: BTreeSet::new(),
            stop_because: None,
            settled: StageResult::default(),
        }
    }

    /// Begins every task that can begin now.
    fn begin(&mut self) {
        self.waits_for_room = false;
        for (id, because) in self.queue.take_lost(self.stop_because.as_deref()) {
            self.skip(id, &because);
        }
        if self.looks_anew || self.stop_because.is_some() {
            return;
        }
        for id in self.queue.take_new() {
            let work = match self.look(id) {
                ResultState::Kept(_) | ResultState::InPlace(_) => TaskAction::Take,
                ResultState::Nothing | ResultState::Unknown => TaskAction::Run,
            };
            self.queue.sort_in(id, work);
        }
        // Scripts first: some turn out to be made by others, so that their results are taken.
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
            let task = (self.plan.task(id), work);
            if others.any(|(id, other)| disturbs(task, (self.plan.task(*id), *other))) {
                continue;
            }
            match work {
                TaskAction::Take => self.begin_taking(id),
                TaskAction::Run => self.begin_script(id),
            }
        }
    }

    /// Looks what the task is made of, now that everything before it is there, and what is known
    /// of it.
    fn look(&mut self, id: TaskId) -> &ResultState {
        let upstream = self.upstream(id);
        let is_same = |(resolved, _): &(Option<TaskKey>, ResultState)| {
            resolved.as_ref().map(|it| &it.upstream) == upstream.as_ref()
        };
        if !self.found.get(&id).is_some_and(is_same) {
            let looked = self.look_anew(id, upstream);
            self.found.insert(id, looked);
        }
        &self.found[&id].1
    }

    fn look_anew(
        &self,
        id: TaskId,
        upstream: Option<UpstreamOutputs>,
    ) -> (Option<TaskKey>, ResultState) {
        let known = self
            .outlook
            .resolved(id)
            .filter(|_| !self.damaged.contains(&id));
        let known = known.filter(|known| Some(&known.upstream) == upstream.as_ref());
        match (known, self.outlook.found(id), upstream) {
            (Some(known), Some(found), _) => (Some(known.clone()), found.clone()),
            (_, _, Some(upstream)) => {
                let cache = &self.context.cache;
                let resolved = TaskKey::new(self.plan, id, upstream, cache);
                let force = self.context.force || self.damaged.contains(&id);
                let found = resolved.here(self.plan, id, cache, force);
                (Some(resolved), found)
            }
            (_, _, None) => (None, ResultState::Nothing),
        }
    }

    /// What the tasks before this one made, if all of it is sure.
    fn upstream(&self, id: TaskId) -> Option<UpstreamOutputs> {
        let needs = self.plan.task(id).upstream.iter();
        let output = |need: &TaskId| {
            let output = match self.outputs.get(need) {
                Some(output) => *output,
                None => self.outlook.output(*need),
            };
            Some((self.plan.task(*need).subject.name().to_owned(), output?))
        };
        needs.map(output).collect()
    }

    fn begin_taking(&mut self, id: TaskId) {
        let Some((resolved, entry)) = self.result(id) else {
            // What another task had made is gone again.
            return self.begin_script(id);
        };
        let (plan, context) = (Arc::clone(self.plan), Arc::clone(self.context));
        self.start(id, TaskAction::Take);
        self.running.spawn_blocking(move || {
            let _working = context.events.working();
            let taken = script::take(&plan, id, &resolved, entry.as_ref(), &context);
            (id, taken)
        });
    }

    /// The result that is to be taken for a task: found, or made for another task of this run.
    fn result(&self, id: TaskId) -> Option<(TaskKey, Option<CachedResult>)> {
        let (resolved, found) = self.found.get(&id)?;
        let resolved = resolved.clone()?;
        let entry = match found {
            ResultState::InPlace(_) => None,
            ResultState::Kept(entry) => Some(entry.clone()),
            ResultState::Nothing | ResultState::Unknown => {
                Some(self.made.get(&resolved.primary)?.clone())
            }
        };
        let key = entry.as_ref().map_or(resolved.key, |entry| entry.key);
        Some((TaskKey { key, ..resolved }, entry))
    }

    /// Asks the remote cache for a result of which nothing could be known before.
    fn begin_asking(&mut self, id: TaskId, mut resolved: TaskKey) {
        let (plan, context) = (Arc::clone(self.plan), Arc::clone(self.context));
        self.start(id, TaskAction::Take);
        self.running.spawn(async move {
            let _outside = context.events.outside();
            let mut entry = None;
            if let Some(remote) = &context.remote {
                let fetching = resolved.fetch(&plan, id, &context.cache, remote);
                entry = fetching.await;
            }
            (id, Ok(TaskEnd::Asked(Box::new(resolved), entry)))
        });
    }

    fn begin_script(&mut self, id: TaskId) {
        let task = self.plan.task(id);
        let resolved = self.found.get(&id).and_then(|(it, _)| it.as_ref());
        let kept = resolved.filter(|_| task.never_kept.is_none());
        let was_known = self.outlook.resolved(id).is_some() || self.asked.contains(&id);
        if let Some(resolved) = kept.filter(|_| !self.context.force && !was_known)
            && self.context.remote.is_some()
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
        let Some(memory) = self.room.admit(self.plan, id) else {
            self.waits_for_room = true;
            return;
        };
        self.making.extend(shared);
        self.start(id, TaskAction::Run);
        let (plan, context) = (Arc::clone(self.plan), Arc::clone(self.context));
        self.running.spawn(async move {
            let result = script::run(&plan, id, resolved, &memory, &context).await;
            (id, result.map(TaskEnd::Ran))
        });
    }

    fn start(&mut self, id: TaskId, work: TaskAction) {
        self.queue.start(id);
        self.at_work.insert(id, work);
        self.taking += usize::from(work == TaskAction::Take);
    }

    fn end(&mut self, id: TaskId, result: Result<TaskEnd, StageError>) {
        let task = self.plan.task(id);
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
                let found = entry.map_or(ResultState::Nothing, ResultState::Kept);
                self.found.insert(id, (Some(*resolved), found));
                self.queue.again(id);
            }
            Ok(TaskEnd::NotThere) => {
                self.damaged.insert(id);
                let resolved = self.found.remove(&id).and_then(|(resolved, _)| resolved);
                if let Some(resolved) = &resolved {
                    self.made.remove(&resolved.primary);
                }
                self.found.insert(id, (resolved, ResultState::Nothing));
                self.queue.again(id);
                let is_needed = |need: &TaskId| self.outlook.found(*need).is_some();
                self.looks_anew |= !task.needs.iter().all(is_needed);
            }
            Err(error) => self.failed(id, error),
        }
    }

    /// A script has ended: there is room for another.
    fn leave(&mut self, id: TaskId, result: &Result<TaskEnd, StageError>) {
        let learned = match result {
            Ok(TaskEnd::Ran(ran)) => Some(ran.figures),
            _ => None,
        };
        self.room.leave(self.plan.task(id), id, learned);
        if let Some((Some(resolved), _)) = self.found.get(&id) {
            self.making.remove(&resolved.primary);
        }
    }

    fn ran(&mut self, id: TaskId, ran: &ScriptRun) {
        let task = self.plan.task(id);
        self.learned.insert(task.name(), ran.figures);
        self.outputs.insert(id, ran.kept.output);
        if let (Some(entry), Some((Some(resolved), _))) = (&ran.kept.entry, self.found.get(&id)) {
            if task.shared {
                self.made.insert(resolved.primary, entry.clone());
            } else {
                self.sharing
                    .made(self.plan, id, &resolved.upstream, entry, ran.elapsed);
            }
            self.has_kept = true;
            self.upload(resolved.primary, entry);
        }
        self.done(id, ran.elapsed, ResultOrigin::Script);
    }

    fn failed(&mut self, id: TaskId, error: StageError) {
        let task = self.plan.task(id);
        let name = task.subject.to_string();
        if !self.context.keep_going || self.context.interrupt.stopped() {
            self.stop_because = Some(name.clone());
        }
        self.queue.lose(id, &name);
        self.settled.failed.push(Failure {
            unit: event_unit(task),
            error,
        });
    }

    /// Sends a result to the remote cache, and what is known of the files that are opened.
    fn upload(&mut self, primary: Key, entry: &CachedResult) {
        if self.context.remote.is_none() {
            return;
        }
        let (context, entry) = (Arc::clone(self.context), entry.clone());
        self.uploads.spawn(async move {
            let Some(remote) = &context.remote else {
                return;
            };
            remote.send(&context.cache, &entry).await;
            if let Some(reads) = context.cache.find(primary.of_reads()) {
                remote.send(&context.cache, &reads).await;
            }
        });
    }

    fn skip(&mut self, id: TaskId, because: &str) {
        let task = self.plan.task(id);
        if let Subject::Unit(unit) = &task.subject {
            self.settled.skipped.push(unit.clone());
        }
        self.context.skip(event_unit(task), because);
    }

    fn done(&mut self, id: TaskId, elapsed: Duration, origin: ResultOrigin) {
        self.queue.done(id);
        let task = self.plan.task(id);
        // With another script, the builds that it needed are none of the answer.
        let is_answer = task.is_wanted || task.script == self.plan.script;
        let composition = self.plan.composition_of(id).filter(|_| is_answer);
        if let Some(composition) = composition {
            let unit = composition.unit.clone();
            let workdir = Workdir {
                kind: composition.kind,
                path: self.plan.workdir(&unit),
                unit,
            };
            self.settled.done.push(Built {
                workdir,
                elapsed,
                origin,
            });
        }
    }

    /// Waits for uploads, keeps what was learned, and makes room in the cache.
    async fn settle(mut self) -> StageResult<Built> {
        let uploading = async {
            let _outside = self.context.events.outside();
            while self.uploads.join_next().await.is_some() {}
            Ok(())
        };
        let _ = self.context.interrupt.unless_stopped((), uploading).await;
        if let Some(warning) = self
            .context
            .remote
            .as_ref()
            .and_then(RemoteCache::take_warning)
        {
            self.context.events.notice(warning);
        }
        let cache = &self.context.cache;
        if !self.learned.is_empty() {
            // Without it the next run guesses.
            let _ = cache.learn(std::mem::take(&mut self.learned));
        }
        if self.has_kept
            && let Err(error) = cache.collect(self.plan.cache_limits)
        {
            self.context
                .events
                .notice(format!("the cache could not be kept small: {error}"));
        }
        // They go when they are empty: nobody may have needed any files.
        for folder in [".out/.tmp", ".out"] {
            let _ = std::fs::remove_dir(self.plan.project.join(folder));
        }
        // In the plan's order, whatever ended first.
        let place: BTreeMap<&UnitId, usize> = self
            .plan
            .compositions()
            .enumerate()
            .map(|(position, composition)| (&composition.unit, position))
            .collect();
        let mut settled = self.settled;
        settled.hints = self.sharing.hints();
        settled
            .done
            .sort_by_key(|built| place.get(built.unit()).copied());
        settled
    }
}

/// Whether two tasks must not work at once: in one folder they would see each other's files come,
/// and in one store another script than `build` puts aside what its neighbours may read. A result
/// is put where it belongs, which is not where the script of a shared app runs.
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
            one.script != BUILD || other.script != BUILD
        }
        _ => false,
    }
}
