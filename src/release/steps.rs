//! The steps of one store, from what is observed to what is retired.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::Error;
use super::flow::{Flow, ReleaseAction, ReleaseOrder, StoreOutcome};
use super::lease::HeldLease;
use super::records::ReleaseJournal;
use super::rules::refuse_older;
use super::spec::check_apps;
use super::switch::Prepared;
use crate::event::{EventSubject, Stage, seconds};
use crate::ledger::{
    BuildRecord, Record, RecordId, RecordSet, StoreEvent, TargetState, continue_after,
};
use crate::store::StoreId;
use crate::target::{Capabilities, Observed, Target, place_options};

/// The work on one store.
pub struct StoreRun<'a> {
    /// The flow.
    pub flow: &'a Flow<'a>,
    /// Where the store runs.
    pub target: &'a dyn Target,
    /// The store.
    pub store: &'a StoreId,
    /// Writes the records.
    pub journal: ReleaseJournal<'a>,
    /// The store, for events.
    pub unit: EventSubject,
    /// What the target can do.
    pub(super) abilities: Capabilities,
    /// The lock, while it is held.
    pub(super) lease: HeldLease<'a>,
}

/// What a store has, as the target and the records say.
pub struct StoreSnapshot {
    /// What the target says.
    pub observed: Observed,
    /// What the records say.
    pub state: TargetState,
    /// All records of the store.
    pub records: RecordSet,
    /// The release that gets the traffic.
    pub active: Option<RecordId>,
    /// Whether the records do not say that it gets the traffic.
    is_unrecorded: bool,
}

impl StoreSnapshot {
    /// The release that is live. A target may run it without knowing that it is live, such as behind a
    /// proxy that is used for the first time.
    pub fn live(&self) -> Option<&RecordId> {
        let runs = |id: &&RecordId| self.observed.staged.iter().any(|it| it.release == **id);
        let recorded = self.state.active.as_ref().filter(runs);
        self.active.as_ref().or(recorded)
    }
}

/// What becomes of a release, and why it does not get the traffic.
enum Decision {
    Switch,
    StageOnly(String),
}

impl<'a> StoreRun<'a> {
    /// The work on a store at a target.
    pub fn new(flow: &'a Flow<'a>, target: &'a dyn Target, store: &'a StoreId) -> Self {
        Self {
            flow,
            target,
            store,
            journal: ReleaseJournal {
                records: flow.records,
                store,
                target: target.name(),
                actor: &flow.options.actor,
                run: flow.options.runs.get(store),
                events: &flow.services.events,
            },
            unit: EventSubject::store(Stage::Deploy, store),
            abilities: target.capabilities(),
            lease: HeldLease::default(),
        }
    }

    /// Carries an order out under the lock of the store.
    pub async fn carry_out(&self, order: ReleaseOrder) -> Result<StoreOutcome, Error> {
        // Refused before the lock, so that a run that would be refused disturbs nobody.
        let before = self.observe().await?;
        if before.active.as_ref() != Some(&order.release.id) {
            check_apps(self.flow.project, &order.build, &order.release)?;
        }
        self.decide(&order, &before)?;
        Box::pin(self.locked(self.release(order))).await
    }

    /// Stops the releases that run without traffic: all, or one.
    pub async fn unstage(&self, wanted: Option<&RecordId>) -> Result<Vec<RecordId>, Error> {
        self.locked(async {
            let now = self.observe_and_record().await?;
            let mut stopped = Vec::new();
            // The records may say that a release is staged that does not run any more.
            let observed = now.observed.staged.iter().map(|it| &it.release);
            let all: BTreeSet<_> = observed.chain(&now.state.staged).collect();
            for id in all {
                if wanted.is_none_or(|wanted| wanted == id) && now.live() != Some(id) {
                    self.retire(id, false, "unstaged").await?;
                    stopped.push(id.clone());
                }
            }
            Ok(stopped)
        })
        .await
    }

    /// Removes the pin of the store. Returns whether there was one.
    pub async fn unpin(&self) -> Result<bool, Error> {
        self.locked(async {
            let is_pinned = self.observe().await?.state.pin.is_some();
            if is_pinned {
                self.journal.event(StoreEvent::Unpinned, None, None, None);
            }
            Ok(is_pinned)
        })
        .await
    }

    /// What runs now, under the lock. A switch that a killed run did not record is recorded, and the pin
    /// of a rollback that was killed before its switch is removed.
    async fn observe_and_record(&self) -> Result<StoreSnapshot, Error> {
        let mut now = self.observe().await?;
        if now.is_unrecorded {
            let released = StoreEvent::Released { observed: true };
            self.journal
                .event(released, now.active.as_ref(), None, None);
        }
        if self.has_unused_pin(&now) {
            let detail = Some("the rollback ended before its switch".to_owned());
            self.journal.event(StoreEvent::Unpinned, None, None, detail);
            now.state.pin = None;
        }
        Ok(now)
    }

    /// Whether the store is pinned by a rollback that has ended and whose release was never live. Without
    /// a lock the rollback may still run.
    fn has_unused_pin(&self, now: &StoreSnapshot) -> bool {
        let pin = now.state.pin.as_ref().and_then(|id| now.records.event(id));
        let Some(release) = pin.and_then(|pin| pin.release.as_ref()) else {
            return false;
        };
        let was_released = now.records.events().any(|event| {
            event.release.as_ref() == Some(release)
                && matches!(event.what, StoreEvent::Released { .. })
        });
        let is_known = self.abilities.locks && self.abilities.observes;
        is_known && !was_released && now.active.as_ref() != Some(release)
    }

    /// What runs now.
    pub async fn observe(&self) -> Result<StoreSnapshot, Error> {
        let observed = self.target.observe(self.store).await?;
        let records = self.flow.records.read()?.of_store(self.store);
        continue_after(&records);
        let mut state = self.journal.state(&records);
        let mut active = state.active.clone();
        let mut is_unrecorded = false;
        if self.abilities.observes {
            active.clone_from(&observed.active);
            if let Some(live) = &active
                && state.active.as_ref() != Some(live)
                && records.contains(live)
                && !self.has_failed(&records, live)
            {
                is_unrecorded = true;
                state.active = Some(live.clone());
            }
        }
        Ok(StoreSnapshot {
            observed,
            state,
            records,
            active,
            is_unrecorded,
        })
    }

    /// Whether the last thing that the records say about a release is that it failed.
    fn has_failed(&self, records: &RecordSet, release: &RecordId) -> bool {
        let mut events: Vec<_> = records.events().collect();
        events.sort_by(|a, b| a.id.cmp(&b.id));
        let own = |it: &&&crate::ledger::EventRecord| {
            it.release.as_ref() == Some(release) && it.target.as_deref() == Some(self.target.name())
        };
        let fate = events
            .iter()
            .rev()
            .filter(own)
            .find_map(|event| match event.what {
                StoreEvent::Failed | StoreEvent::SwitchedBack { .. } => Some(true),
                StoreEvent::Released { .. } => Some(false),
                _ => None,
            });
        fate == Some(true)
    }

    fn decide(&self, order: &ReleaseOrder, now: &StoreSnapshot) -> Result<Decision, Error> {
        let release = &order.release.id;
        let is_checked = match order.action {
            ReleaseAction::Stage => {
                return Ok(Decision::StageOnly("`--no-release` was given".into()));
            }
            ReleaseAction::Deploy => {
                if let Some(pin) = &now.state.pin {
                    let reason = pinned(&self.place(), &now.records, pin);
                    return Ok(Decision::StageOnly(reason));
                }
                true
            }
            ReleaseAction::Release => true,
            ReleaseAction::Rollback => false,
        };
        if let Some(active) = now.live().filter(|active| *active != release)
            && is_checked
            && !self.flow.options.allow_older
            && let Some(live) = build_of(&now.records, active)
        {
            let all = self.flow.records.read()?;
            let (release, history) = (&order.release, (&*all, self.flow.ancestry));
            refuse_older(release, &order.build, (active, live), history)?;
        }
        Ok(Decision::Switch)
    }

    async fn release(&self, mut order: ReleaseOrder) -> Result<StoreOutcome, Error> {
        let started = Instant::now();
        let now = self.observe_and_record().await?;
        let decision = self.decide(&order, &now)?;
        self.clean(&now, &order.release.id).await?;
        if !order.is_recorded {
            // Another machine may have changed the settings since the order was made.
            let live = now.active.as_ref().or(now.state.last_live());
            let (store, target) = (self.store, self.target.name());
            if order.action != ReleaseAction::Rollback
                && let Some(latest) = now.records.next_settings(store, target, live)
            {
                order.release.settings.clone_from(&latest.settings);
                let names = &mut order.release.setting_names;
                names.clone_from(&latest.setting_names);
            }
            order.release.previous = now.live().cloned();
            order.release.staged_only = matches!(decision, Decision::StageOnly(_));
            self.journal.release(order.release.clone());
        }
        let release = &order.release;
        let is_live = now.active.as_ref() == Some(&release.id);
        let mut outcome = StoreOutcome {
            store: self.store.clone(),
            release: release.clone(),
            is_active: is_live,
            is_staged: false,
            address: now.observed.addresses.first().cloned(),
            reason: None,
            elapsed: Duration::ZERO,
        };
        if !is_live {
            let prepared = self.prepare(&now, &order).await?;
            match decision {
                Decision::StageOnly(reason) => {
                    self.replace_staged(&now, &release.id).await?;
                    outcome.is_staged = self.abilities.staging;
                    outcome.address = prepared.address;
                    outcome.reason = Some(reason);
                }
                Decision::Switch => {
                    self.make_live_pinned(&now, &prepared, &order).await?;
                    outcome.is_active = true;
                    // A target may know its addresses only when it runs something.
                    if let Ok(after) = self.target.observe(self.store).await {
                        let address = after.addresses.into_iter().next();
                        outcome.address = address.or(outcome.address);
                    }
                }
            }
        }
        if outcome.is_active && order.action == ReleaseAction::Release && now.state.pin.is_some() {
            self.journal.event(StoreEvent::Unpinned, None, None, None);
        }
        outcome.elapsed = started.elapsed();
        Ok(outcome)
    }

    /// Gives the traffic to a release. A rollback pins the store first: otherwise a kill after the switch
    /// leaves a store that the next deploy moves forward again.
    async fn make_live_pinned(
        &self,
        now: &StoreSnapshot,
        prepared: &Prepared,
        order: &ReleaseOrder,
    ) -> Result<(), Error> {
        let pins = order.action == ReleaseAction::Rollback && now.state.pin.is_none();
        if pins {
            self.journal.pin(&order.release.id)?;
        }
        let result = self.make_live(now, prepared, order).await;
        let is_live = matches!(
            result,
            Ok(()) | Err(Error::Unwatched { .. } | Error::Stays { .. })
        );
        if pins && !is_live {
            self.journal.event(StoreEvent::Unpinned, None, None, None);
        }
        result
    }

    /// The options that name the store and its target, for hints.
    pub(super) fn place(&self) -> String {
        place_options(self.store, self.target.name())
    }

    pub(super) fn keep(&self) -> usize {
        self.flow.project.settings.deploy.keep.into()
    }

    /// Records a step of a release.
    pub(super) fn step(&self, what: StoreEvent, release: &RecordId, started: Instant) {
        let took = Some(seconds(started.elapsed()));
        self.journal.event(what, Some(release), took, None);
    }

    /// Shows a line of progress.
    pub(super) async fn say(&self, line: String) {
        self.flow.services.events.output(&self.unit, line).await;
    }
}

/// The build of a release.
pub fn build_of<'r>(records: &'r RecordSet, release: &RecordId) -> Option<&'r BuildRecord> {
    records.build(&records.release(release)?.build)
}

fn pinned(place: &str, records: &RecordSet, pin: &RecordId) -> String {
    let who = match records.get(pin) {
        Some(Record::Event(event)) => format!(" by {}@{}", event.actor.user, event.actor.host),
        _ => String::new(),
    };
    format!(
        "the store is pinned{who} since {}; `alokai store unpin {place}` removes the pin",
        pin.made_at().strftime("%Y-%m-%d %H:%M:%S UTC")
    )
}
