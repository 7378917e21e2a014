//! `store release`, `store rollback`, `store unpin` and `store unstage`: releases without a build.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::arguments::flow::{
    MakeLiveOptions, OneStoreOptions, RollbackOptions, UnpinOptions, UnstageOptions,
};
use super::arguments::questions::ChosenTargets;
use super::arguments::{AccessOptions, Global};
use super::environment::{self, tell};
use super::events::{Live, live};
use super::listing::{CellFormat, cut, plain, records, short_commit};
use super::live_records::LiveRecords;
use super::operation::RecordedOperation;
use super::releasing::Released;
use super::run::{document, summary_event};
use super::store_targets::StoreTargets;
use super::{Error, answer};
use crate::error::Error as AnyError;
use crate::event::seconds;
use crate::ledger::{Record, RecordId, RecordSet, ReleaseReason, continue_after};
use crate::pipeline;
use crate::release::{
    self, Candidate, Chosen, Flow, FlowOptions, FlowResult, ReleaseAction, ReleaseOrder, StoreRun,
    StoreSnapshot, ancestry_of, candidates, chosen, copy_forward, earlier, missing_images,
    new_release, no_candidate,
};
use crate::report::{Deployed, Detail, SummaryTable};
use crate::store::{Store, StoreId, TargetKind};
use crate::target::{Target, place_options};

/// The characters of a version of settings in a list.
const SETTINGS: usize = 11;

/// One store at its target.
pub struct StoreAtTarget<'a> {
    pub targets: &'a StoreTargets,
    store: &'a Store,
    pub target: Arc<dyn Target>,
    records: LiveRecords,
    known: Arc<RecordSet>,
    operation: &'static str,
    allow_older: bool,
}

/// The access options of a command, with its option `--no-wait`.
pub fn waiting(access: &AccessOptions, no_wait: bool) -> AccessOptions {
    AccessOptions {
        no_wait: access.no_wait || no_wait,
        ..access.clone()
    }
}

/// Works on the store of the command line, with events on standard error. `allow_older` and `no_wait` are its
/// options.
pub fn at_store(
    global: &Global,
    options: &OneStoreOptions,
    operation: &'static str,
    how: (bool, bool),
    work: impl FnOnce(&StoreAtTarget) -> Result<(), AnyError>,
) -> Result<(), AnyError> {
    live(false, Detail::Short, |live| {
        with_store(global, options, (operation, how), &live, work)
    })
}

fn with_store(
    global: &Global,
    options: &OneStoreOptions,
    (operation, (allow_older, no_wait)): (&'static str, (bool, bool)),
    live: &Live,
    work: impl FnOnce(&StoreAtTarget) -> Result<(), AnyError>,
) -> Result<(), AnyError> {
    let access = waiting(&options.access, no_wait);
    let stores = [options.store.clone()];
    let chosen = ChosenTargets {
        stores: &stores,
        local: options.local,
        access: &access,
    };
    let targets = StoreTargets::with_events(global, chosen, Some(live))?;
    work(&StoreAtTarget::new(
        &targets,
        &options.store,
        operation,
        allow_older,
    )?)
}

/// What a command has made live, and what it prints about it.
#[derive(Debug, Default)]
pub struct Answers {
    pub released: Released,
    /// Lines on standard output, if it does not have events.
    pub lines: Vec<String>,
    /// Lines on standard error.
    pub notes: Vec<String>,
}

/// Does work that makes releases live, and prints the answers when all events are reported. With `json`,
/// events are on standard output, and the last one is the summary.
pub fn live_released(
    json: bool,
    work: impl FnOnce(&Live, &mut Answers) -> Result<(), AnyError>,
) -> Result<(), AnyError> {
    let mut answers = Answers::default();
    let mut outside = Duration::ZERO;
    let result = live(json, Detail::Short, |live| {
        let result = work(&live, &mut answers);
        outside = live.events.waiting_time();
        result
    });
    let elapsed = environment::started().elapsed();
    let shown = if json {
        let table = SummaryTable {
            deployed: answers.released.live,
            not_live: answers.released.not_live,
            seconds: seconds(elapsed),
            own_seconds: seconds(elapsed.saturating_sub(outside)),
            ..SummaryTable::default()
        };
        summary_event(&table, result.as_ref().err())
    } else {
        let mut lines = answers.lines.iter();
        lines.try_for_each(|line| answer(&format!("{line}\n")))
    };
    for note in &answers.notes {
        tell(note);
    }
    result.and(shown)
}

impl<'a> StoreAtTarget<'a> {
    /// The only chosen store of these targets. `name` is the store as the command line has it.
    pub fn new(
        targets: &'a StoreTargets,
        name: &str,
        operation: &'static str,
        allow_older: bool,
    ) -> Result<Self, AnyError> {
        let stores = targets.named()?;
        let store = *stores.first().ok_or_else(|| Error::NoStore {
            id: name.to_owned(),
            nearest: None,
        })?;
        let target = targets.of(store)?;
        let known = records(&targets.project, &targets.registry)?;
        continue_after(&known);
        Ok(Self {
            targets,
            store,
            target,
            records: targets.registry.live_records(&targets.project),
            known,
            operation,
            allow_older,
        })
    }
}

impl StoreAtTarget<'_> {
    pub fn id(&self) -> &StoreId {
        &self.store.id
    }

    fn options(&self) -> FlowOptions {
        FlowOptions {
            keep_going: false,
            allow_older: self.allow_older,
            waves: Vec::new(),
            actor: environment::actor(),
            operation: self.operation.to_owned(),
            failed: BTreeSet::new(),
            runs: BTreeMap::new(),
            scripts: self.targets.scripts.clone(),
        }
    }

    /// Does something with the flow of this store, between the records of its start and its end. The end
    /// names the release, if there is one and the work succeeds.
    pub fn recorded<T>(
        &self,
        release: Option<&RecordId>,
        work: impl FnOnce(&Flow) -> Result<T, AnyError>,
    ) -> Result<T, AnyError> {
        let project = &self.targets.project;
        let target = self.target.name();
        let operation = RecordedOperation::start(project, self.id(), target, self.operation);
        let mut options = self.options();
        let run = (self.id().clone(), operation.id().clone());
        options.runs.insert(run.0, run.1);
        let ancestry = ancestry_of(&project.root);
        let services = self.targets.registry.services();
        let flow = Flow {
            project,
            plan: None,
            services: &services,
            records: &self.records,
            ancestry: &ancestry,
            options,
        };
        let result = work(&flow);
        match &result {
            Ok(_) => operation.end(None, release),
            Err(error) => operation.end(Some(&reason(error)), None),
        }
        self.targets.registry.share(project, self.id());
        result
    }

    /// The line for a store without a pin at this target. It may be pinned at another one.
    fn not_pinned(&self) -> String {
        let (id, own) = (self.id(), self.target.name());
        let recorded = self.known.targets();
        let mut pinned = recorded
            .of_store(id)
            .filter(|(name, history)| *name != own && history.state.pin.is_some());
        match pinned.next() {
            None => format!("{id}: the store is not pinned\n"),
            Some((other, _)) if other == TargetKind::Local.name() => format!(
                "{id}: the store is not pinned at the target `{own}`, but at `{other}`: `alokai store unpin {}`\n",
                place_options(id, other)
            ),
            Some((other, _)) => {
                format!("{id}: the store is not pinned at the target `{own}`, but at `{other}`\n")
            }
        }
    }

    /// A line about releases on this machine, for a command that asks another target.
    fn releases_elsewhere(&self) -> String {
        let recorded = self.known.targets();
        let local = recorded.get(self.id(), TargetKind::Local.name());
        if self.target.kind() == TargetKind::Local || local.is_none_or(|it| it.latest.is_none()) {
            return String::new();
        }
        "\nthe store has releases at the target `local`; `--local` shows them".to_owned()
    }

    /// What the store has now.
    pub fn snapshot(&self) -> Result<StoreSnapshot, AnyError> {
        self.with_flow(|flow| {
            let run = StoreRun::new(flow, &*self.target, self.id());
            Ok(self.targets.registry.wait(run.observe())?)
        })
    }

    /// Passes the flow of this store to a function, and records no operation.
    pub fn with_flow<T>(&self, ask: impl FnOnce(&Flow) -> T) -> T {
        let project = &self.targets.project;
        let ancestry = ancestry_of(&project.root);
        let services = self.targets.registry.services();
        ask(&Flow {
            project,
            plan: None,
            services: &services,
            records: &self.records,
            ancestry: &ancestry,
            options: self.options(),
        })
    }

    /// Prints a JSON document about this store.
    pub fn document(&self, about: &Value) -> Result<(), AnyError> {
        let mut value = json!({
            "schemaVersion": 1, "storeId": self.id(), "target": self.target.name(),
        });
        if let (Some(all), Some(about)) = (value.as_object_mut(), about.as_object()) {
            all.extend(about.clone());
        }
        document(&value)
    }

    /// Names the apps of the active release that do not run.
    fn tell_what_is_down(&self, release: &RecordId) {
        let asked = self.target.health(self.id(), release);
        match self.targets.registry.wait(asked) {
            Ok(states) => {
                for state in states.iter().filter(|state| !state.running) {
                    let ended = state.ended.as_deref().unwrap_or("it has ended");
                    tell(&format!(
                        "note: the app `{}` of {release} does not run: {}",
                        state.app,
                        plain(ended)
                    ));
                }
            }
            Err(error) => tell(&format!(
                "note: it is not known whether the apps of {release} run: {error}"
            )),
        }
    }

    /// Refuses a release whose images are gone.
    fn check_images(&self, candidate: &Candidate) -> Result<(), AnyError> {
        let apps = self.missing(candidate)?;
        if apps.is_empty() {
            return Ok(());
        }
        Err(release::Error::ImagesGone {
            store: self.id().clone(),
            release: candidate.release.id.clone(),
            apps,
            place: place_options(self.id(), self.target.name()),
        }
        .into())
    }

    fn missing(&self, candidate: &Candidate) -> Result<Vec<crate::store::AppName>, AnyError> {
        self.targets.registry.refuse_exposed()?;
        let services = self.targets.registry.services();
        let asked = missing_images(&self.targets.project.root, &services, candidate.build);
        Ok(self.targets.registry.wait(asked)?)
    }

    /// Carries out one order.
    fn carry_out(&self, order: ReleaseOrder, answers: &mut Answers) -> Result<(), AnyError> {
        let release = order.release.id.clone();
        let result = self.recorded(Some(&release), |flow| {
            let result = self.targets.registry.wait(flow.run(vec![order]));
            ended(result, flow)
        })?;
        for done in &result.done {
            let address = done.address.as_deref().unwrap_or_default();
            let state = if done.is_active { "live" } else { "staged" };
            let line = format!("{}: {} is {state}  {address}", done.store, done.release.id);
            answers.lines.push(line.trim_end().to_owned());
        }
        answers.released = Released::of(&result.done);
        Ok(())
    }
}

/// Why an operation on one store failed.
fn reason(error: &AnyError) -> String {
    match error {
        AnyError::Pipeline(pipeline::Error::Failed { failures }) => failures
            .first()
            .map_or_else(|| error.to_string(), |failure| failure.error.to_string()),
        error => error.to_string(),
    }
}

/// The error of a flow, if one of its stores failed.
pub fn ended(result: FlowResult, flow: &Flow) -> Result<FlowResult, AnyError> {
    let mut failures = result.failed;
    if flow.services.interrupt.stopped() {
        failures.retain(|failure| !failure.error.is_interruption());
        return Err(pipeline::Error::Interrupted {
            stage: crate::event::Stage::Deploy,
            failures,
        }
        .into());
    }
    if failures.is_empty() {
        return Ok(FlowResult {
            failed: failures,
            ..result
        });
    }
    Err(pipeline::Error::Failed { failures }.into())
}

pub fn release(global: &Global, options: &MakeLiveOptions) -> Result<(), AnyError> {
    let how = ("release", (options.allow_older, options.no_wait));
    live_released(options.json, |live, answers| {
        with_store(global, &options.place, how, live, |place| {
            release_at(place, &options.id, answers)
        })
    })
}

fn release_at(place: &StoreAtTarget, id: &str, answers: &mut Answers) -> Result<(), AnyError> {
    let target = Arc::clone(&place.target);
    let wanted = chosen(&place.known, place.id(), target.name(), id)?;
    let actor = environment::actor();
    let (build, release, is_recorded) = match wanted {
        Chosen::Release(candidate) => {
            place.check_images(&candidate)?;
            (candidate.build.clone(), candidate.release.clone(), true)
        }
        Chosen::Build(build) => {
            let recorded = place.known.targets();
            let live = recorded.last_live(place.id(), target.name());
            let known = &place.known;
            let settings = known.next_settings(place.id(), target.name(), live);
            let reason = ReleaseReason::Promote;
            let release = new_release(build, target.name(), reason, settings, &actor);
            let candidate = Candidate {
                release: &release,
                build,
            };
            place.check_images(&candidate)?;
            (build.clone(), release, false)
        }
    };
    place.targets.preflight()?;
    let now = place.snapshot()?;
    // What a killed run has left is removed by a run that changes nothing else.
    let keep = usize::from(place.targets.project.settings.deploy.keep);
    let is_clean = now.observed.staged.is_empty() && now.observed.kept.len() <= keep;
    if now.active.as_ref() == Some(&release.id) && now.state.pin.is_none() && is_clean {
        let (store, id) = (place.id(), &release.id);
        place.tell_what_is_down(id);
        answers
            .lines
            .push(format!("{store}: {id} gets the traffic already"));
        answers.released.live.push(Deployed {
            store_id: store.to_string(),
            release: id.to_string(),
            target: release.target.clone(),
            address: now
                .observed
                .addresses
                .into_iter()
                .next()
                .unwrap_or_default(),
            is_local: release.target == TargetKind::Local.name(),
        });
        return Ok(());
    }
    let order = ReleaseOrder {
        target,
        build,
        release,
        is_recorded,
        action: ReleaseAction::Release,
    };
    place.carry_out(order, answers)
}

pub fn rollback(global: &Global, options: &RollbackOptions) -> Result<(), AnyError> {
    let how = (true, options.no_wait);
    if options.dry_run {
        return at_store(global, &options.place, "rollback", how, |place| {
            let now = place.snapshot()?;
            let active = now.active.as_ref();
            let all = candidates(&now.records, &now.state, active);
            let default = earlier(&now.records, &now.state, active);
            list(place, &all, default.as_ref(), options.json)
        });
    }
    live_released(options.json, |live, answers| {
        with_store(global, &options.place, ("rollback", how), live, |place| {
            roll_back_at(place, options, answers)
        })
    })
}

fn roll_back_at(
    place: &StoreAtTarget,
    options: &RollbackOptions,
    answers: &mut Answers,
) -> Result<(), AnyError> {
    place.targets.preflight()?;
    let now = place.snapshot()?;
    let active = now.active.as_ref();
    let all = candidates(&now.records, &now.state, active);
    let wanted = if let Some(id) = &options.id {
        let found = place.known.find(id).map_err(crate::ledger::Error::from);
        let found = found.map_err(release::Error::from)?;
        let wanted = all.iter().find(|it| it.release.id == *found.id()).copied();
        let at = (place.id(), place.target.name());
        wanted.ok_or_else(|| no_candidate(found, &now.records, at, active))?
    } else {
        let default = earlier(&now.records, &now.state, active);
        default.ok_or_else(|| release::Error::NoEarlier {
            store: place.id().clone(),
            is_listed: !all.is_empty(),
            candidates: lines(place, &all, None) + &place.releases_elsewhere(),
            place: place_options(place.id(), place.target.name()),
        })?
    };
    place.check_images(&wanted)?;
    let live = active.and_then(|active| match now.records.get(active) {
        Some(Record::Release(live)) => Some(live),
        _ => None,
    });
    let settings = match live {
        Some(live) if options.current_settings => live,
        _ => wanted.release,
    };
    let order = ReleaseOrder {
        target: Arc::clone(&place.target),
        build: wanted.build.clone(),
        release: copy_forward(wanted, settings, &environment::actor()),
        is_recorded: false,
        action: ReleaseAction::Rollback,
    };
    place.carry_out(order, answers)?;
    let (store, original) = (place.id(), &wanted.release.id);
    let options = place_options(store, place.target.name());
    let commit = super::builds::description(wanted.build);
    let copy = format!("{store}: this is a copy of {original}  {}", plain(&commit));
    answers.notes.push(copy.trim_end().to_owned());
    answers.notes.push(format!(
        "{store} is pinned: a deploy stages its release and does not make it live, until `alokai store unpin {options}` or `alokai store release latest {options}`"
    ));
    Ok(())
}

/// Lists the releases to which a rollback can go.
fn list(
    place: &StoreAtTarget,
    all: &[Candidate],
    default: Option<&Candidate>,
    json: bool,
) -> Result<(), AnyError> {
    if json {
        let releases: Result<Vec<_>, AnyError> = all
            .iter()
            .map(|it| {
                Ok(json!({
                    "id": it.release.id,
                    "build": it.build.id,
                    "commit": it.build.commit,
                    "settings": it.release.settings,
                    "missingImages": place.missing(it)?,
                    "isDefault": default.is_some_and(|default| default.release.id == it.release.id),
                }))
            })
            .collect();
        return document(&json!({
            "schemaVersion": 1, "storeId": place.id(), "releases": releases?,
        }));
    }
    if all.is_empty() {
        return answer(&format!(
            "{}: no earlier release was live and stayed healthy\n",
            place.id()
        ));
    }
    let text = lines(place, all, default);
    let id = CellFormat::new(all.iter().map(|it| &it.release.id)).id(&all[0].release.id);
    let id = format!("{:<width$}", "RELEASE", width = id.len());
    let titles = format!(
        "   {id}  {:<11}  {:<SETTINGS$}  COMMIT",
        "CREATED", "SETTINGS"
    );
    answer(&format!("{}{text}\n", cut(&titles)))?;
    if default.is_some() {
        answer("-> a rollback without an id returns to this release\n")?;
    }
    answer("Dry run: nothing was changed.\n")
}

/// One line for each release: its id, age, commit, and whether its images exist.
fn lines(place: &StoreAtTarget, all: &[Candidate], default: Option<&Candidate>) -> String {
    let format = CellFormat::new(all.iter().map(|it| &it.release.id));
    let each = all.iter().map(|it| {
        let commit = it.build.commit.as_ref();
        let commit = commit.map_or_else(String::new, |commit| {
            let subject = commit.subject.as_deref().unwrap_or_default();
            format!("{} {}", short_commit(&commit.sha), plain(subject))
        });
        let images = match place.missing(it) {
            Ok(missing) if missing.is_empty() => "",
            Ok(_) => "  (images are gone)",
            Err(_) => "  (images not checked: the registry does not answer)",
        };
        let is_default = default.is_some_and(|default| default.release.id == it.release.id);
        let mark = if is_default { "->" } else { "  " };
        let (id, age) = (
            format.id(&it.release.id),
            format.age(it.release.id.made_at()),
        );
        let version = it.release.settings.as_deref().unwrap_or("none");
        let version: String = version.chars().take(SETTINGS).collect();
        cut(&format!(
            "\n{mark} {id}  {age:<11}  {version:<SETTINGS$}  {commit}{images}"
        ))
    });
    each.collect()
}

pub fn unpin(global: &Global, options: &UnpinOptions) -> Result<(), AnyError> {
    at_store(global, &options.place, "unpin", (false, false), |place| {
        let is_pinned = place.snapshot()?.state.pin.is_some();
        let was_pinned = is_pinned
            && place.recorded(None, |flow| {
                let run = StoreRun::new(flow, &*place.target, place.id());
                Ok(place.targets.registry.wait(run.unpin())?)
            })?;
        if options.json {
            return place.document(&json!({ "wasPinned": was_pinned }));
        }
        if !was_pinned {
            return answer(&place.not_pinned());
        }
        answer(&format!(
            "{}: the pin is removed; the next deploy makes its release live\n",
            place.id()
        ))
    })
}

pub fn unstage(global: &Global, options: &UnstageOptions) -> Result<(), AnyError> {
    at_store(global, &options.place, "unstage", (false, false), |place| {
        let wanted = match &options.id {
            None => None,
            Some(id) => {
                let found = place.known.find(id).map_err(crate::ledger::Error::from);
                Some(found.map_err(release::Error::from)?.id().clone())
            }
        };
        let stopped = place.recorded(None, |flow| {
            let run = StoreRun::new(flow, &*place.target, place.id());
            let stopped = run.unstage(wanted.as_ref());
            Ok(place.targets.registry.wait(stopped)?)
        })?;
        if options.json {
            return place.document(&json!({ "stopped": stopped }));
        }
        if stopped.is_empty() {
            return answer(&format!("{}: no matching release is staged\n", place.id()));
        }
        for release in stopped {
            answer(&format!("{}: {release} is stopped\n", place.id()))?;
        }
        Ok(())
    })
}
