//! Stopping releases that do not get the traffic any more.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::Error;
use super::steps::{StoreRun, StoreSnapshot};
use crate::event::seconds;
use crate::ledger::{RecordId, StoreEvent};
use crate::target::Drained;

/// The pause between two questions whether open requests have ended.
const DRAIN_PAUSE: Duration = Duration::from_millis(250);

/// Days after which a release that was only staged is removed.
const STAGED_DAYS: i64 = 7;

impl StoreRun<'_> {
    /// Stops what an earlier run has left: releases without traffic that nobody asked for.
    pub(super) async fn clean(&self, now: &StoreSnapshot, wanted: &RecordId) -> Result<(), Error> {
        self.record_gone(now, wanted);
        let mut kept = now.observed.kept.len();
        for staged in &now.observed.staged {
            let id = &staged.release;
            if id == wanted || now.live() == Some(id) {
                continue;
            }
            let was_active = now.state.proven.contains(id);
            // A run on a machine whose records cannot be fetched may have staged an unknown release.
            let release = now.records.release(id);
            let is_wanted = release.is_none_or(|release| release.staged_only) && !was_active;
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
    fn record_gone(&self, now: &StoreSnapshot, wanted: &RecordId) {
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
                    .event(StoreEvent::Retired, Some(id), None, detail);
            }
        }
    }

    /// Stops the releases that were only staged before this one.
    pub(super) async fn replace_staged(
        &self,
        now: &StoreSnapshot,
        newest: &RecordId,
    ) -> Result<(), Error> {
        for staged in &now.observed.staged {
            let id = &staged.release;
            // What was live before is kept by `clean` already.
            let was_active = now.state.proven.contains(id);
            if id != newest && now.live() != Some(id) && !was_active {
                self.retire(id, false, "a later release is staged").await?;
            }
        }
        Ok(())
    }

    /// Removes what a target without staging keeps of earlier releases. A failure is only a notice.
    pub(super) async fn forget_kept(&self, now: &StoreSnapshot) {
        if let Err(error) = self.forget(now).await {
            self.flow.services.events.notice(format!(
                "{}: an earlier release could not be removed; the next release of the store removes it: {error}",
                self.store
            ));
        }
    }

    /// Waits until the open requests of a release have ended, and stops it. The new release is live, so
    /// a failure is only a notice.
    pub(super) async fn leave(&self, old: &RecordId, now: &StoreSnapshot) {
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
            Drained::Yes => self.step(StoreEvent::Drained, old, started),
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
    async fn forget(&self, now: &StoreSnapshot) -> Result<(), Error> {
        let kept = self.target.observe(self.store).await?.kept;
        let mut order: Vec<&RecordId> = now.state.proven.iter().rev().collect();
        if let Some(active) = now.live() {
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
            .event(StoreEvent::Retired, Some(release), took, detail);
        Ok(())
    }
}
