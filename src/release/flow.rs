//! The order of the steps that make releases live.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::{StreamExt, stream};

use super::PlannedStore;
use super::records::Records;
use super::rules::CommitOrder;
use super::steps::StoreRun;
use crate::config::Project;
use crate::event::{Event, EventSubject, Stage, seconds};
use crate::ledger::{Actor, BuildRecord, RecordId, ReleaseRecord};
use crate::pipeline::{Failure, ScriptEnvironment, Services};
use crate::plan::Plan;
use crate::store::{StoreId, TargetKind};
use crate::target::Target;

/// The stores that become live at the same time.
const STORES_AT_ONCE: usize = 8;

/// What a store shall have.
pub struct ReleaseOrder {
    /// Where the store runs.
    pub target: Arc<dyn Target>,
    /// The build.
    pub build: BuildRecord,
    /// The release.
    pub release: ReleaseRecord,
    /// Whether the release is recorded already.
    pub is_recorded: bool,
    /// What happens to the release.
    pub action: ReleaseAction,
}

/// What happens to a release.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReleaseAction {
    /// It gets the traffic, unless the store is pinned or a newer commit is live.
    Deploy,
    /// It runs without traffic.
    Stage,
    /// It gets the traffic although the store is pinned, and the pin is removed.
    Release,
    /// It gets the traffic, and the store is pinned.
    Rollback,
}

/// How releases are made.
#[derive(Debug, Clone)]
pub struct FlowOptions {
    /// Whether the other stores continue after a store has failed.
    pub keep_going: bool,
    /// Whether an older commit may replace a newer one.
    pub allow_older: bool,
    /// Groups of stores that become live one after another. Other stores are the last group.
    pub waves: Vec<Vec<StoreId>>,
    /// Who acts.
    pub actor: Actor,
    /// `deploy`, `release` or `rollback`, for the lock.
    pub operation: String,
    /// Stores of the run that failed before their release, such as in their build.
    pub failed: BTreeSet<StoreId>,
    /// The recorded start of the run, by store.
    pub runs: BTreeMap<StoreId, RecordId>,
    /// The environment of scripts, of which hooks see a part.
    pub scripts: ScriptEnvironment,
}

/// A store whose order was carried out.
#[derive(Debug, Clone)]
pub struct StoreOutcome {
    /// The store.
    pub store: StoreId,
    /// The release.
    pub release: ReleaseRecord,
    /// Whether it gets the traffic now.
    pub is_active: bool,
    /// Whether it runs without traffic.
    pub is_staged: bool,
    /// Where the release can be reached.
    pub address: Option<String>,
    /// Why it does not get the traffic.
    pub reason: Option<String>,
    /// How long it took.
    pub elapsed: Duration,
}

/// The results of all orders.
#[derive(Debug, Default)]
pub struct FlowResult {
    /// Stores whose order was carried out.
    pub done: Vec<StoreOutcome>,
    /// Stores that failed.
    pub failed: Vec<Failure>,
    /// Stores whose order was not begun.
    pub untouched: Vec<StoreId>,
}

/// Makes releases live.
pub struct Flow<'a> {
    /// The project.
    pub project: &'a Project,
    /// The plan of the run, if the builds were made in it.
    pub plan: Option<&'a Plan>,
    /// Events and interruption.
    pub services: &'a Services,
    /// Where records are.
    pub records: &'a dyn Records,
    /// The history of commits.
    pub ancestry: &'a CommitOrder<'a>,
    /// How.
    pub options: FlowOptions,
}

impl Flow<'_> {
    /// Carries the orders out, wave by wave. A wave with a failure is the last one.
    pub async fn run(&self, orders: Vec<ReleaseOrder>) -> FlowResult {
        let events = &self.services.events;
        events.send(Event::StageStarted {
            stage: Stage::Deploy,
            units: orders.len(),
            script: None,
        });
        let started = Instant::now();
        let mut result = FlowResult::default();
        let mut has_failed = false;
        for (index, wave) in self.in_waves(orders).into_iter().enumerate() {
            if has_failed {
                self.skip(wave, "an earlier wave", &mut result);
                continue;
            }
            self.wave(wave, &mut result).await;
            let stores = self.options.waves.get(index).into_iter().flatten();
            let mut stores = stores.filter(|store| self.options.failed.contains(*store));
            has_failed = !result.failed.is_empty() || stores.next().is_some();
        }
        events.send(Event::StageFinished {
            stage: Stage::Deploy,
            seconds: seconds(started.elapsed()),
        });
        result
    }

    fn in_waves(&self, mut orders: Vec<ReleaseOrder>) -> Vec<Vec<ReleaseOrder>> {
        let mut waves = Vec::new();
        for stores in &self.options.waves {
            let (wave, rest) = orders
                .into_iter()
                .partition(|order| stores.contains(&order.release.store));
            waves.push(wave);
            orders = rest;
        }
        waves.push(orders);
        waves
    }

    fn skip(&self, orders: Vec<ReleaseOrder>, because: &str, result: &mut FlowResult) {
        for order in orders {
            let store = order.release.store;
            let unit = EventSubject::store(Stage::Deploy, &store);
            self.services.skip(unit, because);
            result.untouched.push(store);
        }
    }

    /// Makes the stores of one wave live at the same time.
    async fn wave(&self, orders: Vec<ReleaseOrder>, result: &mut FlowResult) {
        let is_console = |order: &ReleaseOrder| order.target.kind() == TargetKind::Console;
        let at_once = if orders.iter().any(is_console) {
            // The console is asked for one store after another.
            1
        } else {
            STORES_AT_ONCE
        };
        let halted = Mutex::new(None);
        let numbered = orders.into_iter().enumerate();
        let ends = stream::iter(numbered).map(|(number, order)| {
            let end = self.unless_halted(order, &halted);
            async move { (number, end.await) }
        });
        // A slow store does not hold back the stores after it.
        let mut ends: Vec<_> = ends.buffer_unordered(at_once).collect().await;
        ends.sort_by_key(|(number, _)| *number);
        for (_, end) in ends {
            match end {
                StoreEnd::Done(done) => result.done.push(*done),
                StoreEnd::Failed(failure) => result.failed.push(*failure),
                StoreEnd::Untouched(store) => result.untouched.push(store),
            }
        }
    }

    async fn unless_halted(&self, order: ReleaseOrder, halted: &Mutex<Option<String>>) -> StoreEnd {
        let store = order.release.store.clone();
        let unit = EventSubject::store(Stage::Deploy, &store);
        let lock = || halted.lock().unwrap_or_else(PoisonError::into_inner);
        let because = if self.services.interrupt.stopped() {
            Some("the interruption".to_owned())
        } else {
            lock().clone()
        };
        if let Some(because) = because {
            self.services.skip(unit, &because);
            return StoreEnd::Untouched(store);
        }
        let events = &self.services.events;
        let span = events.begin(&unit);
        let done = {
            let _outside = events.waiting();
            let target = Arc::clone(&order.target);
            Box::pin(StoreRun::new(self, &*target, &store).carry_out(order)).await
        };
        let note = |done: &StoreOutcome| done.address.clone();
        span.end(done.as_ref().map(note).map_err(ToString::to_string));
        match done {
            Ok(done) => StoreEnd::Done(Box::new(done)),
            Err(error) => {
                if !self.options.keep_going {
                    lock().get_or_insert(unit.to_string());
                }
                let error = error.into();
                StoreEnd::Failed(Box::new(Failure { unit, error }))
            }
        }
    }

    /// The plan of a store.
    pub(super) fn planned(&self, store: &StoreId) -> PlannedStore<'_> {
        let mut stores = self.plan.into_iter().flat_map(|plan| &plan.stores);
        stores.find(|planned| planned.id == *store)
    }
}

/// How the order of one store ended.
enum StoreEnd {
    Done(Box<StoreOutcome>),
    Failed(Box<Failure>),
    Untouched(StoreId),
}
