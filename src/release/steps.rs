//! The steps of one store, from what is observed to what is retired.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::flow::{Flow, ReleaseOrder, StoreOutcome, Wish};
use super::lease::Lease;
use super::probe::ProbedRelease;
use super::records::ReleaseJournal;
use super::rules::{first_builds, refuse_older};
use super::{Error, spec_of};
use crate::config::{HookStage, HookTime};
use crate::event::{EventSubject, Stage, seconds};
use crate::ledger::{
    BuildRecord, Happening, Record, RecordId, RecordSet, ReleaseRecord, TargetState,
};
use crate::store::StoreId;
use crate::target::{
    Capabilities, Drained, Observed, ReleaseSpec, Replica, Staged, Target, place_options,
};

/// The pause between two questions whether open requests have ended.
const DRAIN_PAUSE: Duration = Duration::from_millis(250);

/// Days after which a release that was only staged is removed.
const STAGED_DAYS: i64 = 7;

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
    abilities: Capabilities,
}

/// What a store has, as the target and the records say.
pub struct Situation {
    /// What the target says.
    pub observed: Observed,
    /// What the records say.
    pub state: TargetState,
    /// All records of the store.
    pub records: RecordSet,
    /// When the first build of each commit started, of any store.
    pub first_builds: BTreeMap<String, Timestamp>,
    /// The release that gets the traffic.
    pub active: Option<RecordId>,
}

/// What becomes of a release, and why it does not get the traffic.
enum Decision {
    Switch,
    StageOnly(String),
}

/// A release that runs without traffic.
struct Prepared {
    spec: ReleaseSpec,
    build: RecordId,
    replicas: Vec<Replica>,
    address: Option<String>,
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
        }
    }

    /// Carries an order out under the lock of the store.
    pub async fn carry_out(&self, order: ReleaseOrder) -> Result<StoreOutcome, Error> {
        // Refused before the lock, so that a run that would be refused disturbs nobody.
        let before = self.observe().await?;
        self.decide(&order, &before)?;
        Box::pin(self.locked(self.release(order))).await
    }

    /// Stops the releases that run without traffic: all, or one.
    pub async fn unstage(&self, wanted: Option<&RecordId>) -> Result<Vec<RecordId>, Error> {
        self.locked(async {
            let now = self.observe().await?;
            let mut stopped = Vec::new();
            // The records may say that a release is staged that does not run any more.
            let observed = now.observed.staged.iter().map(|it| &it.release);
            let all: BTreeSet<_> = observed.chain(&now.state.staged).collect();
            for id in all {
                if wanted.is_none_or(|wanted| wanted == id) && now.active.as_ref() != Some(id) {
                    self.retire(id, false, "unstaged").await?;
                    stopped.push(id.clone());
                }
            }
            Ok(stopped)
        })
        .await
    }

    /// Works while the lock of the store is held and renewed. The records of other machines are fetched
    /// first, and those of this machine are sent before the lock is released: the next holder sees them.
    pub(super) async fn locked<T>(
        &self,
        work: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        let operation = &self.flow.options.operation;
        let lease = Lease::take(self.target, self.store, operation, &self.journal).await?;
        let result = tokio::select! {
            biased;
            lost = lease.renew() => Err(lost),
            result = async {
                self.flow.records.fetch(self.store).await;
                let result = work.await;
                self.flow.records.send(self.store).await;
                result
            } => result,
        };
        lease.release(&self.journal).await;
        result
    }

    /// What runs now. A switch that a killed run did not record is recorded.
    pub async fn observe(&self) -> Result<Situation, Error> {
        let observed = self.target.observe(self.store).await?;
        let all = self.flow.records.read()?;
        let (first_builds, records) = (first_builds(&all), all.of_store(self.store));
        let mut state = self.journal.state(&records);
        let mut active = state.active.clone();
        if self.abilities.observes {
            active.clone_from(&observed.active);
            if let Some(live) = &active
                && state.active.as_ref() != Some(live)
                && records.contains(live)
                && !self.has_failed(&records, live)
            {
                let released = Happening::Released { observed: true };
                self.journal.event(released, Some(live), None, None);
                state.active = Some(live.clone());
            }
        }
        Ok(Situation {
            observed,
            state,
            records,
            first_builds,
            active,
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
            .find_map(|event| match event.happening {
                Happening::Failed | Happening::SwitchedBack { .. } => Some(true),
                Happening::Released { .. } => Some(false),
                _ => None,
            });
        fate == Some(true)
    }

    fn decide(&self, order: &ReleaseOrder, now: &Situation) -> Result<Decision, Error> {
        let release = &order.release.id;
        let is_checked = match order.wish {
            Wish::Stage => {
                return Ok(Decision::StageOnly("`--no-release` was given".into()));
            }
            Wish::Deploy => {
                if let Some(pin) = &now.state.pin {
                    let place = place_options(self.store, self.target.name());
                    return Ok(Decision::StageOnly(pinned(&place, &now.records, pin)));
                }
                true
            }
            Wish::Release => true,
            Wish::Rollback => false,
        };
        if let Some(active) = now.active.as_ref().filter(|active| *active != release)
            && is_checked
            && !self.flow.options.allow_older
            && let Some(live) = build_of(&now.records, active)
        {
            let history = (&now.first_builds, self.flow.ancestry);
            refuse_older(self.store, &order.build, (active, live), history)?;
        }
        Ok(Decision::Switch)
    }

    async fn release(&self, mut order: ReleaseOrder) -> Result<StoreOutcome, Error> {
        let started = Instant::now();
        let now = self.observe().await?;
        let decision = self.decide(&order, &now)?;
        self.clean(&now, &order.release.id).await?;
        if !order.is_recorded {
            // Another machine may have changed the settings since the order was made.
            let latest = now.records.latest_release(self.store, self.target.name());
            if order.wish != Wish::Rollback
                && let Some(latest) = latest
            {
                order.release.settings.clone_from(&latest.settings);
                let names = &mut order.release.setting_names;
                names.clone_from(&latest.setting_names);
            }
            order.release.previous.clone_from(&now.active);
            order.release.staged_only = matches!(decision, Decision::StageOnly(_));
            self.journal.release(order.release.clone());
        }
        let release = &order.release;
        let is_live = now.active.as_ref() == Some(&release.id);
        let mut outcome = StoreOutcome {
            store: self.store.clone(),
            release: release.clone(),
            is_active: is_live,
            address: now.observed.addresses.first().cloned(),
            reason: None,
            elapsed: Duration::ZERO,
        };
        if !is_live {
            let prepared = self.prepare(&order).await?;
            match decision {
                Decision::StageOnly(reason) => {
                    self.replace_staged(&now, &release.id).await?;
                    outcome.address = prepared.address;
                    outcome.reason = Some(reason);
                }
                Decision::Switch => {
                    self.make_live(&now, &prepared, &order).await?;
                    outcome.is_active = true;
                    // A target may know its addresses only when it runs something.
                    let after = self.target.observe(self.store).await?;
                    outcome.address = after.addresses.into_iter().next().or(outcome.address);
                }
            }
        }
        if outcome.is_active {
            self.keep_pin(order.wish, &now);
        }
        outcome.elapsed = started.elapsed();
        Ok(outcome)
    }

    /// A rollback pins the store, and a release by id removes the pin.
    fn keep_pin(&self, wish: Wish, now: &Situation) {
        match wish {
            Wish::Rollback => self.journal.event(Happening::Pinned, None, None, None),
            Wish::Release if now.state.pin.is_some() => {
                self.journal.event(Happening::Unpinned, None, None, None);
            }
            _ => {}
        }
    }

    /// Stops what an earlier run has left: releases without traffic that nobody asked for.
    async fn clean(&self, now: &Situation, wanted: &RecordId) -> Result<(), Error> {
        self.record_gone(now, wanted);
        let mut kept = now.observed.kept.len();
        for staged in &now.observed.staged {
            let id = &staged.release;
            if id == wanted || now.active.as_ref() == Some(id) {
                continue;
            }
            let was_active = now.state.proven.contains(id);
            let is_wanted = is_staged_only(&now.records, id) && !was_active;
            let age = Timestamp::now().duration_since(id.made_at()).as_hours() / 24;
            if is_wanted && age < STAGED_DAYS {
                continue;
            }
            let is_kept = was_active && self.keep() > 0;
            self.retire(id, is_kept, "left by an earlier run").await?;
            kept += usize::from(is_kept);
        }
        if kept > self.keep() {
            self.forget(now).await?;
        }
        Ok(())
    }

    /// Records that releases do not run any more that run by the records.
    fn record_gone(&self, now: &Situation, wanted: &RecordId) {
        if !self.abilities.observes {
            return;
        }
        let staged = now.state.staged.iter().filter(|_| self.abilities.staging);
        let active = now.state.active.iter();
        for id in staged.chain(active.filter(|_| now.active.is_none())) {
            let runs = now.observed.staged.iter().any(|it| it.release == *id);
            if !runs && id != wanted && now.active.as_ref() != Some(id) {
                let detail = Some("observed: it does not run any more".to_owned());
                self.journal
                    .event(Happening::Retired, Some(id), None, detail);
            }
        }
    }

    /// Stops the releases that were only staged before this one.
    async fn replace_staged(&self, now: &Situation, newest: &RecordId) -> Result<(), Error> {
        for staged in &now.observed.staged {
            let id = &staged.release;
            if id != newest && now.active.as_ref() != Some(id) {
                self.retire(id, false, "a later release is staged").await?;
            }
        }
        Ok(())
    }

    /// Stages a release and waits until it is healthy. If that fails, the release is stopped.
    async fn prepare(&self, order: &ReleaseOrder) -> Result<Prepared, Error> {
        let result = self.staged(order).await;
        if let Err(error) = &result {
            self.give_up(&order.release.id, error).await;
        }
        result
    }

    async fn staged(&self, order: &ReleaseOrder) -> Result<Prepared, Error> {
        let release = &order.release;
        let planned = self.flow.planned(self.store);
        let spec = spec_of(self.flow.project, planned, &order.build, release)?;
        let mut prepared = Prepared {
            spec,
            build: order.build.id.clone(),
            replicas: Vec::new(),
            address: None,
        };
        if self.flow.services.interrupt.stopped() {
            return Err(Error::Interrupted {
                store: self.store.clone(),
            });
        }
        if !self.abilities.staging {
            return Ok(prepared);
        }
        let built = (&prepared.spec, &prepared.build);
        self.hooks((HookTime::Before, HookStage::Stage), built)
            .await?;
        let stopping = self.flow.services.interrupt.stopping();
        let staged = tokio::select! {
            biased;
            () = stopping => Err(Error::Interrupted { store: self.store.clone() }),
            staged = self.stage(&prepared.spec) => staged,
        };
        let staged = staged?;
        prepared.replicas = staged.replicas;
        prepared.address = staged.address;
        let built = (&prepared.spec, &prepared.build);
        self.hooks((HookTime::After, HookStage::Stage), built)
            .await?;
        Ok(prepared)
    }

    async fn stage(&self, spec: &ReleaseSpec) -> Result<Staged, Error> {
        let release = &spec.id;
        let started = Instant::now();
        self.say(format!("staging {release}")).await;
        let staged = self.target.stage(spec).await?;
        self.step(Happening::Staged, release, started);
        let apps = staged.replicas.len();
        let apps = if apps == 1 {
            "1 app".into()
        } else {
            format!("{apps} apps")
        };
        self.say(format!("waiting for {apps} to be healthy")).await;
        let started = Instant::now();
        self.probed(spec, &staged.replicas).healthy().await?;
        self.step(Happening::Healthy, release, started);
        Ok(staged)
    }

    fn probed<'s>(&'s self, spec: &'s ReleaseSpec, replicas: &'s [Replica]) -> ProbedRelease<'s> {
        ProbedRelease {
            target: self.target,
            spec,
            replicas,
            events: &self.flow.services.events,
            unit: &self.unit,
        }
    }

    /// Records that a release failed before it got the traffic, and stops it.
    async fn give_up(&self, release: &RecordId, error: &Error) {
        let reason = first_line(error);
        self.journal
            .event(Happening::Failed, Some(release), None, Some(reason));
        let stopped = async {
            let now = self.target.observe(self.store).await?;
            // Another run may have given it the traffic.
            if now.active.as_ref() != Some(release) && self.abilities.staging {
                self.target.retire(self.store, release, false).await?;
            }
            Ok::<_, crate::target::Error>(())
        };
        if let Err(error) = stopped.await {
            self.flow.services.events.notice(format!(
                "{}: {release} could not be stopped; the next release of the store stops it: {error}",
                self.store
            ));
        }
    }

    /// Gives the traffic to a release.
    async fn make_live(
        &self,
        now: &Situation,
        prepared: &Prepared,
        order: &ReleaseOrder,
    ) -> Result<(), Error> {
        let switch = switch_of(order.wish);
        let release = &prepared.spec.id;
        let built = (&prepared.spec, &prepared.build);
        if let Err(error) = self.hooks((HookTime::Before, switch), built).await {
            self.give_up(release, &error).await;
            return Err(error);
        }
        let started = Instant::now();
        let before = self.target.observe(self.store).await?;
        if self.abilities.observes && before.active != now.active {
            let error = crate::target::Error::OutOfSequence {
                store: self.store.clone(),
            };
            let error = error.into();
            self.give_up(release, &error).await;
            return Err(error);
        }
        if self.abilities.staging {
            self.say(format!("switching the traffic to {release}"))
                .await;
        }
        if let Err(error) = self.target.switch(&prepared.spec, &before.token).await {
            let error = Error::from(error);
            // The answer may have been lost after the switch.
            let after = self.target.observe(self.store).await;
            let is_live = after.is_ok_and(|after| after.active.as_ref() == Some(release));
            if !is_live {
                self.give_up(release, &error).await;
                return Err(error);
            }
        }
        self.step(Happening::Released { observed: false }, release, started);
        if !self.abilities.staging {
            return self.hooks((HookTime::After, switch), built).await;
        }
        if !was_live(order, now) {
            self.watch(now, prepared).await?;
        }
        match self.hooks((HookTime::After, switch), built).await {
            Ok(()) => {}
            Err(Error::Interrupted { store }) => {
                let release = release.clone();
                return Err(Error::Unwatched { store, release });
            }
            Err(error) => return Err(self.switch_back(now, release, &error).await),
        }
        if let Some(old) = now.active.as_ref().filter(|old| *old != release) {
            self.leave(old, now).await;
        }
        Ok(())
    }

    /// Watches a release that gets the traffic. If it fails, the earlier release gets the traffic again.
    async fn watch(&self, now: &Situation, prepared: &Prepared) -> Result<(), Error> {
        let release = &prepared.spec.id;
        let time = Duration::from_secs(self.flow.project.settings.deploy.watch.into());
        if !time.is_zero() {
            self.say(format!("watching {release} for {} s", time.as_secs()))
                .await;
        }
        let stopping = self.flow.services.interrupt.stopping();
        let watched = tokio::select! {
            biased;
            () = stopping => return Err(Error::Unwatched {
                store: self.store.clone(),
                release: release.clone(),
            }),
            watched = async { self.probed(&prepared.spec, &prepared.replicas).watch(time).await } => watched,
        };
        match watched {
            Ok(()) => Ok(()),
            Err(error) => Err(self.switch_back(now, release, &error).await),
        }
    }

    async fn switch_back(&self, now: &Situation, release: &RecordId, why: &Error) -> Error {
        let (store, reason) = (self.store.clone(), why.to_string());
        let stays = |why: String, reason: String| {
            let detail = Some(first_line(&reason));
            self.journal
                .event(Happening::Failed, Some(release), None, detail);
            Error::Stays {
                store: self.store.clone(),
                release: release.clone(),
                why,
                reason,
            }
        };
        let Some(old) = now.active.as_ref().filter(|old| *old != release) else {
            return stays("there is no earlier release".into(), reason);
        };
        self.say(format!(
            "{release} failed; switching the traffic back to {old}"
        ))
        .await;
        let spec = self.spec_of_running(&now.records, old);
        let switched = async {
            let seen = self.target.observe(self.store).await?;
            self.target.switch(&spec, &seen.token).await
        };
        if let Err(error) = switched.await {
            return stays(
                format!("the traffic could not be switched back: {error}"),
                reason,
            );
        }
        let back = Happening::SwitchedBack {
            to: Some(old.clone()),
        };
        let detail = Some(first_line(&reason));
        self.journal.event(back, Some(release), None, detail);
        if let Err(error) = self.target.retire(self.store, release, false).await {
            self.flow.services.events.notice(format!(
                "{store}: {release} could not be stopped; the next release of the store stops it: {error}"
            ));
        }
        Error::SwitchedBack {
            store,
            release: release.clone(),
            to: old.clone(),
            reason,
        }
    }

    /// A release that runs already, for a switch back to it.
    fn spec_of_running(&self, records: &RecordSet, release: &RecordId) -> ReleaseSpec {
        let known = match records.get(release) {
            Some(Record::Release(record)) => build_of(records, release).and_then(|build| {
                let planned = self.flow.planned(self.store);
                spec_of(self.flow.project, planned, build, record).ok()
            }),
            _ => None,
        };
        known.unwrap_or_else(|| ReleaseSpec::without_apps(release.clone(), self.store.clone()))
    }

    /// Waits until the open requests of a release have ended, and stops it. The new release is live, so
    /// a failure is only a notice.
    async fn leave(&self, old: &RecordId, now: &Situation) {
        let left = async {
            self.drain(old).await?;
            self.retire(old, self.keep() > 0, "replaced").await?;
            self.forget(now).await
        };
        if let Err(error) = left.await {
            self.flow.services.events.notice(format!(
                "{}: {old} could not be stopped; the next release of the store stops it: {error}",
                self.store
            ));
        }
    }

    async fn drain(&self, old: &RecordId) -> Result<(), Error> {
        let limit = Duration::from_secs(self.flow.project.settings.deploy.drain.into());
        let started = Instant::now();
        let mut last = Drained::Yes;
        let mut told = 0;
        while started.elapsed() < limit {
            if self.flow.services.interrupt.stopped() {
                break;
            }
            last = self.target.drained(self.store, old).await?;
            match last {
                Drained::Yes => break,
                Drained::No(open) if open != told => {
                    told = open;
                    self.say(format!("waiting for {open} open requests of {old}"))
                        .await;
                }
                Drained::Unknown if told == 0 => {
                    told = 1;
                    let seconds = limit.as_secs();
                    self.say(format!("leaving {old} {seconds} s for its open requests"))
                        .await;
                }
                Drained::No(_) | Drained::Unknown => {}
            }
            let pause = DRAIN_PAUSE.min(limit.saturating_sub(started.elapsed()));
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.flow.services.interrupt.stopping() => {}
            }
        }
        match last {
            Drained::Yes => self.step(Happening::Drained, old, started),
            Drained::No(open) => self.flow.services.events.notice(format!(
                "{}: {open} requests of {old} were still open after {} s",
                self.store,
                limit.as_secs()
            )),
            Drained::Unknown => {}
        }
        Ok(())
    }

    /// Removes stopped releases beyond the number that is kept, the longest unused first.
    async fn forget(&self, now: &Situation) -> Result<(), Error> {
        let kept = self.target.observe(self.store).await?.kept;
        let mut order: Vec<&RecordId> = now.state.proven.iter().rev().collect();
        if let Some(active) = &now.active {
            order.retain(|id| *id != active);
            order.insert(0, active);
        }
        let rank = |id: &RecordId| order.iter().position(|known| *known == id);
        let mut kept: Vec<_> = kept
            .into_iter()
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect();
        kept.sort_by_key(|id| rank(id).unwrap_or(usize::MAX));
        for id in kept.iter().skip(self.keep()) {
            self.retire(id, false, "beyond the releases that are kept")
                .await?;
        }
        Ok(())
    }

    pub(super) fn keep(&self) -> usize {
        self.flow.project.settings.deploy.keep.into()
    }

    pub(super) async fn retire(
        &self,
        release: &RecordId,
        kept: bool,
        why: &str,
    ) -> Result<(), Error> {
        let started = Instant::now();
        self.target.retire(self.store, release, kept).await?;
        let took = Some(seconds(started.elapsed()));
        let detail = Some(why.to_owned());
        self.journal
            .event(Happening::Retired, Some(release), took, detail);
        Ok(())
    }

    fn step(&self, happening: Happening, release: &RecordId, started: Instant) {
        let took = Some(seconds(started.elapsed()));
        self.journal.event(happening, Some(release), took, None);
    }

    async fn say(&self, line: String) {
        self.flow.services.events.output(&self.unit, line).await;
    }
}

/// The stage of the hooks around the switch.
fn switch_of(wish: Wish) -> HookStage {
    match wish {
        Wish::Rollback => HookStage::Rollback,
        Wish::Deploy | Wish::Stage | Wish::Release => HookStage::Release,
    }
}

/// Whether a rollback goes to a release that was live with the same settings. Its apps have shown that they
/// work, so it is not watched again.
fn was_live(order: &ReleaseOrder, now: &Situation) -> bool {
    let original = order.release.copy_of.as_ref();
    let original = original.filter(|id| now.state.proven.contains(id));
    let original = original.and_then(|id| now.records.release(id));
    order.wish == Wish::Rollback
        && original.is_some_and(|original| original.settings == order.release.settings)
}

/// The build of a release.
pub fn build_of<'r>(records: &'r RecordSet, release: &RecordId) -> Option<&'r BuildRecord> {
    let Some(Record::Release(ReleaseRecord { build, .. })) = records.get(release) else {
        return None;
    };
    match records.get(build) {
        Some(Record::Build(build)) => Some(build),
        _ => None,
    }
}

fn is_staged_only(records: &RecordSet, release: &RecordId) -> bool {
    matches!(records.get(release), Some(Record::Release(release)) if release.staged_only)
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

fn first_line(error: &impl ToString) -> String {
    let text = error.to_string();
    text.lines().next().unwrap_or_default().to_owned()
}
