//! The order of the steps that make releases live.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::records::{Records, ReleaseJournal};
use super::{Error, PlannedStore, spec_of};
use crate::config::Project;
use crate::event::{Event, EventSubject, Stage, seconds};
use crate::ledger::{Actor, BuildRecord, Happening, ReleaseRecord};
use crate::pipeline::{Failure, Services};
use crate::plan::Plan;
use crate::store::StoreId;
use crate::target::{ReleaseSpec, Target};

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
    pub wish: Wish,
}

/// What happens to a release.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
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
    /// Who acts.
    pub actor: Actor,
    /// `deploy`, `release` or `rollback`, for the lock.
    pub operation: String,
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
    /// Where the release can be reached.
    pub address: Option<String>,
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
    /// How.
    pub options: FlowOptions,
}

impl Flow<'_> {
    /// Carries the orders out.
    pub async fn run(&self, orders: Vec<ReleaseOrder>) -> FlowResult {
        let events = &self.services.events;
        events.send(Event::StageStarted {
            stage: Stage::Deploy,
            units: orders.len(),
            script: None,
        });
        let started = Instant::now();
        let mut result = FlowResult::default();
        for order in orders {
            let store = order.release.store.clone();
            let unit = EventSubject::store(Stage::Deploy, &store);
            if self.services.interrupt.stopped() || self.is_halted(&result) {
                let because = result.failed.first();
                let because = because.map_or("the interruption".into(), |it| it.unit.to_string());
                self.services.skip(unit, &because);
                result.untouched.push(store);
                continue;
            }
            let span = events.begin(&unit);
            let done = self.store(order).await;
            let note = |done: &StoreOutcome| done.address.clone();
            span.end(done.as_ref().map(note).map_err(ToString::to_string));
            match done {
                Ok(done) => result.done.push(done),
                Err(error) => result.failed.push(Failure {
                    unit,
                    error: error.into(),
                }),
            }
        }
        events.send(Event::StageFinished {
            stage: Stage::Deploy,
            seconds: seconds(started.elapsed()),
        });
        result
    }

    fn is_halted(&self, result: &FlowResult) -> bool {
        !self.options.keep_going && !result.failed.is_empty()
    }

    fn planned(&self, store: &StoreId) -> PlannedStore<'_> {
        let mut stores = self.plan.into_iter().flat_map(|plan| &plan.stores);
        stores.find(|planned| planned.id == *store)
    }

    async fn store(&self, order: ReleaseOrder) -> Result<StoreOutcome, Error> {
        let started = Instant::now();
        let release = &order.release;
        let journal = ReleaseJournal {
            records: self.records,
            store: &release.store,
            target: order.target.name(),
            actor: &self.options.actor,
            events: &self.services.events,
        };
        let planned = self.planned(&release.store);
        let spec: ReleaseSpec = spec_of(self.project, planned, &order.build, release)?;
        let observed = order.target.observe(&release.store).await?;
        if !order.is_recorded {
            journal.release(release.clone());
        }
        order.target.switch(&spec, &observed.token).await?;
        let released = Happening::Released { observed: false };
        let took = Some(seconds(started.elapsed()));
        journal.event(released, Some(&release.id), took, None);
        Ok(StoreOutcome {
            store: release.store.clone(),
            is_active: true,
            address: observed.addresses.first().cloned(),
            release: order.release,
            elapsed: started.elapsed(),
        })
    }
}
