//! Work on one store at its target, outside of a build: its records, its target, and what is printed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::arguments::flow::OneStoreOptions;
use super::arguments::questions::ChosenTargets;
use super::arguments::{AccessOptions, Global};
use super::environment::{self, tell};
use super::events::{Live, live};
use super::listing::{plain, records};
use super::live_records::LiveRecords;
use super::operation::RecordedOperation;
use super::releasing::Released;
use super::run::{document, summary_event};
use super::store_targets::StoreTargets;
use super::{Error, answer};
use crate::error::Error as AnyError;
use crate::event::seconds;
use crate::ledger::{RecordId, RecordSet, continue_after};
use crate::pipeline;
use crate::release::{
    self, Candidate, Flow, FlowOptions, FlowResult, ReleaseOrder, StoreRun, StoreSnapshot,
    ancestry_of, missing_images,
};
use crate::report::{Detail, SummaryTable};
use crate::store::{Store, StoreId, TargetKind};
use crate::target::{Target, place_options};

/// One store at its target.
pub struct StoreAtTarget<'a> {
    pub targets: &'a StoreTargets,
    store: &'a Store,
    pub target: Arc<dyn Target>,
    records: LiveRecords,
    pub known: Arc<RecordSet>,
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

pub fn with_store(
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
    pub fn not_pinned(&self) -> String {
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
    pub fn releases_elsewhere(&self) -> String {
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
    pub fn tell_what_is_down(&self, release: &RecordId) {
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
    pub fn check_images(&self, candidate: &Candidate) -> Result<(), AnyError> {
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

    pub fn missing(&self, candidate: &Candidate) -> Result<Vec<crate::store::AppName>, AnyError> {
        self.targets.registry.refuse_exposed()?;
        let services = self.targets.registry.services();
        let asked = missing_images(&self.targets.project.root, &services, candidate.build);
        Ok(self.targets.registry.wait(asked)?)
    }

    /// Carries out one order.
    pub fn carry_out(&self, order: ReleaseOrder, answers: &mut Answers) -> Result<(), AnyError> {
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
