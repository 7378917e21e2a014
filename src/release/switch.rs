//! Staging a release, giving it the traffic, and switching back if it fails.

use std::time::{Duration, Instant};

use super::flow::{ReleaseAction, ReleaseOrder};
use super::probe::ProbedRelease;
use super::steps::{StoreRun, StoreSnapshot, build_of};
use super::{Error, spec_of, spec_of_running};
use crate::config::{HookStage, HookTime};
use crate::ledger::{Record, RecordId, RecordSet, StoreEvent, first_line};
use crate::target::{Observed, ReleaseSpec, Replica, Staged};

/// How long a target may take until the apps of a release run, with the download of their images.
const STAGE_LIMIT: Duration = Duration::from_mins(15);

/// A release that runs without traffic.
pub(super) struct Prepared {
    pub(super) spec: ReleaseSpec,
    build: RecordId,
    replicas: Vec<Replica>,
    pub(super) address: Option<String>,
}

impl StoreRun<'_> {
    /// Stages a release and waits until it is healthy. If that fails, the release is stopped.
    pub(super) async fn prepare(
        &self,
        now: &StoreSnapshot,
        order: &ReleaseOrder,
    ) -> Result<Prepared, Error> {
        let result = self.staged(order).await;
        if let Err(error) = &result {
            self.give_up(now, &order.release.id, error).await;
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
            return Err(self.interrupted());
        }
        if !self.abilities.staging {
            self.tell_idle_hooks();
            return Ok(prepared);
        }
        let built = (&prepared.spec, &prepared.build);
        self.hooks((HookTime::Before, HookStage::Stage), built)
            .await?;
        let stopping = self.flow.services.interrupt.stopping();
        let staged = tokio::select! {
            biased;
            () = stopping => Err(self.interrupted()),
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
        let staged = tokio::time::timeout(STAGE_LIMIT, self.target.stage(spec));
        let staged = staged.await.map_err(|_| Error::StageTimeout {
            store: self.store.clone(),
            release: release.clone(),
            target: self.target.name(),
            minutes: STAGE_LIMIT.as_secs() / 60,
        })??;
        self.step(StoreEvent::Staged, release, started);
        let apps = staged.replicas.len();
        let apps = if apps == 1 {
            "1 app".into()
        } else {
            format!("{apps} apps")
        };
        self.say(format!("waiting for {apps} to be healthy")).await;
        let started = Instant::now();
        self.probed(spec, &staged.replicas).healthy().await?;
        self.step(StoreEvent::Healthy, release, started);
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

    /// Records why a release does not get the traffic, and stops it. A release that was live before has
    /// failed only if its apps are not healthy: after an interruption, or with a registry that does not
    /// respond, a rollback can still return to it.
    async fn give_up(&self, now: &StoreSnapshot, release: &RecordId, error: &Error) {
        let reason = Some(first_line(&error.to_string()));
        let has_failed = match error {
            Error::Unhealthy { .. } => true,
            Error::Interrupted { .. } => false,
            _ => !now.state.proven.contains(release),
        };
        let what = if has_failed {
            StoreEvent::Failed
        } else {
            StoreEvent::Retired
        };
        self.journal.event(what, Some(release), None, reason);
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

    /// Gives the traffic to a release, watches it, and stops the earlier release.
    pub(super) async fn make_live(
        &self,
        now: &StoreSnapshot,
        prepared: &Prepared,
        order: &ReleaseOrder,
    ) -> Result<(), Error> {
        let switch = switch_of(order.action);
        let release = &prepared.spec.id;
        let built = (&prepared.spec, &prepared.build);
        if let Err(error) = self.try_switch(now, prepared, switch).await {
            self.give_up(now, release, &error).await;
            return Err(error);
        }
        if !self.abilities.staging && !self.abilities.observes {
            return self.hooks((HookTime::After, switch), built).await;
        }
        if !was_live(order, now) || !self.abilities.staging {
            self.watch(now, prepared).await?;
        }
        match self.hooks((HookTime::After, switch), built).await {
            Ok(()) => {}
            Err(Error::Interrupted { .. }) => return Err(self.unwatched(release)),
            Err(error) => return Err(self.switch_back(now, release, &error).await),
        }
        if !self.abilities.staging {
            self.forget_kept(now).await;
        } else if let Some(old) = now.live().filter(|old| *old != release) {
            self.leave(old, now).await;
        }
        Ok(())
    }

    /// Switches the traffic to a release, after the hooks before the switch. An interruption before the
    /// switch prevents it.
    async fn try_switch(
        &self,
        now: &StoreSnapshot,
        prepared: &Prepared,
        switch: HookStage,
    ) -> Result<(), Error> {
        let release = &prepared.spec.id;
        let interrupt = &self.flow.services.interrupt;
        let built = (&prepared.spec, &prepared.build);
        self.hooks((HookTime::Before, switch), built).await?;
        if self.abilities.staging && self.has_hooks((HookTime::Before, switch)) {
            // The hooks may have taken minutes.
            let probed = self.probed(&prepared.spec, &prepared.replicas);
            let healthy = interrupt.unless_stopped(self.interrupted(), probed.healthy());
            healthy.await?;
        }
        let started = Instant::now();
        let before = self.target.observe(self.store).await?;
        if self.abilities.observes && before.active != now.active {
            let store = self.store.clone();
            return Err(crate::target::Error::OutOfSequence { store }.into());
        }
        if self.abilities.staging {
            self.say(format!("switching the traffic to {release}"))
                .await;
        }
        self.check_lock().await?;
        if interrupt.stopped() {
            return Err(self.interrupted());
        }
        if let Err(error) = self.target.switch(&prepared.spec, &before.token).await {
            // The answer may have been lost after the switch.
            let after = self.target.observe(self.store).await;
            let is_live = after.is_ok_and(|after| after.active.as_ref() == Some(release));
            if !is_live {
                return Err(error.into());
            }
        }
        self.step(StoreEvent::Released { observed: false }, release, started);
        Ok(())
    }

    fn interrupted(&self) -> Error {
        Error::Interrupted {
            store: self.store.clone(),
        }
    }

    /// Watches a release that gets the traffic. If it fails, the earlier release gets the traffic again.
    async fn watch(&self, now: &StoreSnapshot, prepared: &Prepared) -> Result<(), Error> {
        let release = &prepared.spec.id;
        let time = Duration::from_secs(self.flow.project.settings.deploy.watch.into());
        if !time.is_zero() {
            self.say(format!("watching {release} for {} s", time.as_secs()))
                .await;
        }
        let stopping = self.flow.services.interrupt.stopping();
        let watched = tokio::select! {
            biased;
            () = stopping => return Err(self.unwatched(release)),
            watched = async { self.probed(&prepared.spec, &prepared.replicas).watch(time).await } => watched,
        };
        match watched {
            Ok(()) => Ok(()),
            Err(error) => Err(self.switch_back(now, release, &error).await),
        }
    }

    fn unwatched(&self, release: &RecordId) -> Error {
        Error::Unwatched {
            store: self.store.clone(),
            release: release.clone(),
            place: self.place(),
        }
    }

    async fn switch_back(&self, now: &StoreSnapshot, release: &RecordId, why: &Error) -> Error {
        let (store, reason) = (self.store.clone(), why.to_string());
        let stays = |why: String, reason: String| {
            let detail = Some(first_line(&reason));
            self.journal
                .event(StoreEvent::Failed, Some(release), None, detail);
            Error::Stays {
                store: self.store.clone(),
                release: release.clone(),
                why,
                reason,
            }
        };
        let away = |reason: String| Error::SwitchedAway {
            store: self.store.clone(),
            release: release.clone(),
            reason,
        };
        let seen = self.target.observe(self.store).await;
        let is_away = |seen: &Observed| seen.active.as_ref() != Some(release);
        if self.abilities.observes && seen.as_ref().is_ok_and(is_away) {
            // Without the traffic, a failed probe says nothing about the release.
            return away(reason);
        }
        let Some(old) = now.active.as_ref().filter(|old| *old != release) else {
            return stays("there is no earlier release".into(), reason);
        };
        self.say(format!(
            "{release} failed; switching the traffic back to {old}"
        ))
        .await;
        let spec = self.spec_of_running(&now.records, old);
        let switched = async { self.target.switch(&spec, &seen?.token).await };
        match switched.await {
            Ok(()) => {}
            Err(crate::target::Error::OutOfSequence { .. }) => return away(reason),
            Err(error) => {
                let why = format!("the traffic could not be switched back: {error}");
                return stays(why, reason);
            }
        }
        let back = StoreEvent::SwitchedBack {
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
                spec_of_running(self.flow.project, planned, build, record).ok()
            }),
            _ => None,
        };
        known.unwrap_or_else(|| ReleaseSpec::without_apps(release.clone(), self.store.clone()))
    }
}

/// The stage of the hooks around the switch.
fn switch_of(action: ReleaseAction) -> HookStage {
    match action {
        ReleaseAction::Rollback => HookStage::Rollback,
        ReleaseAction::Deploy | ReleaseAction::Stage | ReleaseAction::Release => HookStage::Release,
    }
}

/// Whether a rollback goes to a release that was live with the same settings. Its apps have shown that they
/// work, so it is not watched again.
fn was_live(order: &ReleaseOrder, now: &StoreSnapshot) -> bool {
    let original = order.release.copy_of.as_ref();
    let original = original.filter(|id| now.state.proven.contains(id));
    let original = original.and_then(|id| now.records.release(id));
    order.action == ReleaseAction::Rollback
        && original.is_some_and(|original| original.settings == order.release.settings)
}
