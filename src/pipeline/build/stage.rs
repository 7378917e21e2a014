//! The stage while it works: which task begins next, and what the end of one means for others.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;

use super::memory::{Room, ways};
use super::outlook::{Found, Outlook};
use super::script::{self, Ran};
use super::{Built, Origin, event_unit};
use crate::cache::{Entry, Figures, Key, Remote};
use crate::pipeline::compose::Workdir;
use crate::pipeline::context::Context;
use crate::pipeline::failure::{Failure, Settled, StageError};
use crate::plan::{BUILD, Plan, Subject, Task};
use crate::store::UnitId;

/// How often it is looked whether memory has become free.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// How many results are unpacked at once.
const UNPACKING: usize = 4;

enum State {
    Waiting,
    Running,
    Done,
    /// Failed, or skipped because of the unit that it names.
    Lost(String),
}

/// What became of a task.
pub enum Ended {
    /// Its result is in place, or nobody needs it there.
    Taken(Duration, Origin),
    /// What was found does not hold.
    NotThere,
    /// Its script has run.
    Ran(Ran),
}

/// Runs every task. Where a kept result was damaged and what its script needs is not there, it
/// has to be looked anew what there is to do, without those results. Units above a failed one are
/// skipped and say because of whom; without `--keep-going` nothing new begins after a failure,
/// and what runs may end.
pub async fn run(
    plan: &Arc<Plan>,
    outlook: &Outlook,
    workdirs: Vec<Workdir>,
    context: &Arc<Context>,
) -> Result<Settled<Built>, BTreeSet<usize>> {
    let mut stage = Building::new(plan, outlook, &workdirs, context);
    loop {
        stage.begin();
        // Only memory keeps a task waiting that could begin; it may become free at any time.
        let joined = tokio::select! {
            joined = stage.running.join_next() => joined,
            () = tokio::time::sleep(LOOK_AGAIN), if stage.waits_for_room => continue,
        };
        let Some(joined) = joined else { break };
        match joined {
            Ok((index, result)) => stage.end(index, result),
            // Tasks are never aborted, so this is a panic: a bug must not look like success.
            Err(crashed) => std::panic::resume_unwind(crashed.into_panic()),
        }
    }
    let (anew, damaged) = (stage.has_to_look_anew, std::mem::take(&mut stage.damaged));
    let settled = stage.settle().await;
    if anew { Err(damaged) } else { Ok(settled) }
}

/// The stage while it works.
struct Building<'a> {
    plan: &'a Arc<Plan>,
    context: &'a Arc<Context>,
    states: Vec<State>,
    found: BTreeMap<usize, Found>,
    /// Tasks in the order in which they are begun: what holds up most first.
    order: Vec<usize>,
    room: Room,
    waits_for_room: bool,
    running: JoinSet<(usize, Result<Ended, StageError>)>,
    unpacking: usize,
    uploads: JoinSet<()>,
    /// Keys whose script runs now for all that have the same, and by whom.
    leaders: BTreeMap<Key, usize>,
    /// Tasks whose results fit every store.
    fits_all: BTreeSet<usize>,
    /// Keys whose result names its store, so that each has to make its own.
    apart: BTreeSet<Key>,
    learned: BTreeMap<String, Figures>,
    /// Whether something was kept.
    has_kept: bool,
    /// Whether what was found does not hold, and its script would lack what it needs.
    has_to_look_anew: bool,
    /// Tasks whose results were found and do not hold.
    damaged: BTreeSet<usize>,
    stop_because: Option<String>,
    settled: Settled<Built>,
}

impl<'a> Building<'a> {
    fn new(
        plan: &'a Arc<Plan>,
        outlook: &'a Outlook,
        workdirs: &[Workdir],
        context: &'a Arc<Context>,
    ) -> Self {
        let is_composed = |index: usize, task: &Task| match &task.subject {
            Subject::Unit(unit) => {
                !outlook.places(plan, index) || workdirs.iter().any(|workdir| workdir.unit == *unit)
            }
            Subject::Package(_) => true,
        };
        let found: BTreeMap<usize, Found> = (0..plan.tasks.len())
            .filter_map(|index| Some((index, outlook.found(index)?.clone())))
            .collect();
        let state = |(index, task): (usize, &Task)| {
            if !found.contains_key(&index) {
                State::Done
            } else if is_composed(index, task) {
                State::Waiting
            } else {
                // With `--keep-going`, a store that could not be composed has dropped out.
                State::Lost(task.subject.to_string())
            }
        };
        let runs = found.values().any(|found| *found == Found::Nothing);
        let figures = if runs {
            context.cache.figures()
        } else {
            BTreeMap::new()
        };
        let room = Room::new(plan, figures);
        let ways = ways(plan, &room);
        let mut order: Vec<usize> = (0..plan.tasks.len()).collect();
        // Of stores that would do the same, the one goes first whose id is least likely to be
        // in the result by chance.
        let distinct = |index: usize| {
            let unit = plan.tasks[index].subject.unit();
            unit.map_or(0, |unit| unit.store.as_str().len())
        };
        order.sort_by_key(|index| {
            (
                std::cmp::Reverse(ways[*index]),
                std::cmp::Reverse(distinct(*index)),
                *index,
            )
        });
        Self {
            states: plan.tasks.iter().enumerate().map(state).collect(),
            plan,
            context,
            found,
            order,
            room,
            waits_for_room: false,
            running: JoinSet::new(),
            unpacking: 0,
            uploads: JoinSet::new(),
            leaders: BTreeMap::new(),
            fits_all: BTreeSet::new(),
            apart: BTreeSet::new(),
            learned: BTreeMap::new(),
            has_kept: false,
            has_to_look_anew: false,
            damaged: BTreeSet::new(),
            stop_because: None,
            settled: Settled::default(),
        }
    }

    /// Begins every task that can begin now.
    fn begin(&mut self) {
        self.waits_for_room = false;
        if self.has_to_look_anew {
            return;
        }
        // What is lost makes others lost, which come later in the plan.
        for index in 0..self.plan.tasks.len() {
            if !matches!(self.states[index], State::Waiting) {
                continue;
            }
            let task = &self.plan.tasks[index];
            let lost = task
                .needs
                .iter()
                .find_map(|need| match &self.states[*need] {
                    State::Lost(because) => Some(because.clone()),
                    _ => None,
                });
            if let Some(because) = lost.or_else(|| self.stop_because.clone()) {
                skip(task, &because, self.context, &mut self.settled);
                self.states[index] = State::Lost(because);
            }
        }
        for position in 0..self.order.len() {
            let index = self.order[position];
            let task = &self.plan.tasks[index];
            let is_free = |need: &usize| matches!(self.states[*need], State::Done);
            if !matches!(self.states[index], State::Waiting) || !task.needs.iter().all(is_free) {
                continue;
            }
            let disturbs = |(other, state): (usize, &State)| {
                matches!(state, State::Running) && disturbs(task, &self.plan.tasks[other])
            };
            if self.states.iter().enumerate().any(disturbs) {
                continue;
            }
            match &self.found[&index] {
                Found::Nothing => self.begin_script(index),
                found => {
                    if self.unpacking < UNPACKING {
                        let entry = match found {
                            Found::Kept(entry) => Some(entry.clone()),
                            _ => None,
                        };
                        self.begin_taking(index, entry);
                    }
                }
            }
        }
    }

    fn begin_taking(&mut self, index: usize, entry: Option<Entry>) {
        let (plan, context) = (Arc::clone(self.plan), Arc::clone(self.context));
        self.states[index] = State::Running;
        self.unpacking += 1;
        self.running.spawn_blocking(move || {
            let _working = context.events.working();
            (index, script::take(&plan, index, entry.as_ref(), &context))
        });
    }

    fn begin_script(&mut self, index: usize) {
        let task = &self.plan.tasks[index];
        let key = task.keys.shared;
        // What is made of another store's own result is no result of this one.
        let fits_all = |need: &usize| self.fits_all.contains(need);
        let may_share = !task.per_store && task.needs.iter().all(fits_all);
        let is_kept = task.never_kept.is_none() && !self.context.force;
        let is_shared = is_kept && may_share && !self.apart.contains(&key);
        if is_shared && self.leaders.contains_key(&key) {
            return;
        }
        let Some(memory) = self.room.admit(self.plan, index) else {
            self.waits_for_room = true;
            return;
        };
        if is_shared {
            self.leaders.insert(key, index);
        }
        self.states[index] = State::Running;
        let (plan, context) = (Arc::clone(self.plan), Arc::clone(self.context));
        self.running.spawn(async move {
            let result = script::run(&plan, index, may_share, &memory, &context).await;
            (index, result.map(Ended::Ran))
        });
    }

    fn end(&mut self, index: usize, result: Result<Ended, StageError>) {
        let task = &self.plan.tasks[index];
        let is_script = self.found[&index] == Found::Nothing;
        if is_script {
            let learned = match &result {
                Ok(Ended::Ran(ran)) => Some(ran.figures),
                _ => None,
            };
            self.room.leave(task, index, learned);
            if self.leaders.get(&task.keys.shared) == Some(&index) {
                self.leaders.remove(&task.keys.shared);
            }
        } else {
            self.unpacking -= 1;
        }
        match result {
            Ok(Ended::Ran(ran)) => {
                self.states[index] = State::Done;
                self.learned.insert(task.name(), ran.figures);
                if task.never_kept.is_none() {
                    self.share(index, ran.entry);
                }
                self.done(index, ran.elapsed, Origin::Script);
            }
            Ok(Ended::Taken(elapsed, origin)) => {
                self.states[index] = State::Done;
                if let Found::Kept(entry) = &self.found[&index]
                    && entry.key == task.keys.shared
                {
                    self.fits_all.insert(index);
                }
                self.done(index, elapsed, origin);
            }
            Ok(Ended::NotThere) => {
                self.states[index] = State::Waiting;
                self.found.insert(index, Found::Nothing);
                self.damaged.insert(index);
                self.has_to_look_anew |= !self.has_needs(index);
            }
            Err(error) => {
                let name = task.subject.to_string();
                if !self.context.keep_going || self.context.interrupt.stopped() {
                    self.stop_because = Some(name.clone());
                }
                self.states[index] = State::Lost(name);
                self.settled.failed.push(Failure {
                    unit: event_unit(task),
                    error,
                });
            }
        }
    }

    /// Whether everything that the task's script reads from is taken or run.
    fn has_needs(&self, index: usize) -> bool {
        let needs = &self.plan.tasks[index].needs;
        needs
            .iter()
            .all(|need| self.found.contains_key(need) && self.has_needs(*need))
    }

    /// Gives what was kept to all that would do the same, and to the remote cache.
    fn share(&mut self, index: usize, entry: Option<Entry>) {
        let key = self.plan.tasks[index].keys.shared;
        let fits_all = entry.as_ref().is_some_and(|entry| entry.key == key);
        if fits_all {
            self.fits_all.insert(index);
        } else {
            self.apart.insert(key);
        }
        let Some(entry) = entry else { return };
        self.has_kept = true;
        if fits_all && !self.context.force {
            for (other, task) in self.plan.tasks.iter().enumerate() {
                let waits = matches!(self.states[other], State::Waiting);
                if waits
                    && task.keys.shared == key
                    && self.found.get(&other) == Some(&Found::Nothing)
                {
                    self.found.insert(other, Found::Kept(entry.clone()));
                }
            }
        }
        if self.context.remote.is_some() {
            let context = Arc::clone(self.context);
            self.uploads.spawn(async move {
                if let Some(remote) = &context.remote {
                    remote.send(&context.cache, &entry).await;
                }
            });
        }
    }

    fn done(&mut self, index: usize, elapsed: Duration, origin: Origin) {
        let task = &self.plan.tasks[index];
        // With another script, the builds that it needed are none of the answer.
        let is_answer = task.is_wanted || task.script == self.plan.script;
        let Some(unit) = task.subject.unit().filter(|_| is_answer) else {
            return;
        };
        // Where nobody needed its files it was not composed, and is an answer all the same.
        let composition = self.plan.compositions().find(|one| one.unit == *unit);
        if let Some(composition) = composition {
            let workdir = Workdir {
                unit: unit.clone(),
                kind: composition.kind,
                path: self.plan.workdir(unit),
            };
            self.settled.done.push(Built {
                workdir,
                elapsed,
                origin,
            });
        }
    }

    /// Waits for uploads, keeps what was learned, and makes room in the cache.
    async fn settle(mut self) -> Settled<Built> {
        let uploading = async {
            let _outside = self.context.events.outside();
            while self.uploads.join_next().await.is_some() {}
            Ok(())
        };
        let _ = self.context.interrupt.unless_stopped((), uploading).await;
        if let Some(warning) = self.context.remote.as_ref().and_then(Remote::take_warning) {
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
        settled
            .done
            .sort_by_key(|built| place.get(built.unit()).copied());
        settled
    }
}

/// Whether two tasks must not work at once: in one folder they would see each other's files come,
/// and in one store another script than `build` puts aside what its neighbours may read.
fn disturbs(one: &Task, other: &Task) -> bool {
    if one.folder == other.folder {
        return true;
    }
    match (one.subject.unit(), other.subject.unit()) {
        (Some(unit), Some(beside)) if unit.store == beside.store => {
            one.script != BUILD || other.script != BUILD
        }
        _ => false,
    }
}

fn skip(task: &Task, because: &str, context: &Context, settled: &mut Settled<Built>) {
    if let Subject::Unit(unit) = &task.subject {
        settled.skipped.push(unit.clone());
    }
    context.skip(event_unit(task), because);
}
