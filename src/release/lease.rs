//! The lock of a store, which its holder renews while it works.

use std::time::{Duration, SystemTime};

use jiff::Timestamp;

use super::{Error, ReleaseJournal};
use crate::ledger::{Actor, RecordId, RecordKind, StoreEvent};
use crate::store::StoreId;
use crate::target::{LockAnswer, LockClaim, Target};

/// Seconds for which a lock is held without a renewal.
const LEASE: u64 = 30;

/// The pause between two renewals.
const RENEWAL: Duration = Duration::from_secs(LEASE / 3);

/// Works while the lock of the journal's store is held and renewed. The records of other machines are
/// fetched first, and those of this machine are sent before the lock is released: the next holder sees
/// them.
pub async fn locked<T>(
    target: &dyn Target,
    operation: &str,
    journal: &ReleaseJournal<'_>,
    work: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    let lease = Lease::take(target, journal.store, operation, journal).await?;
    let result = tokio::select! {
        biased;
        lost = lease.renew() => Err(lost),
        result = async {
            journal.records.fetch(journal.store).await;
            let result = work.await;
            journal.records.send(journal.store).await;
            result
        } => result,
    };
    lease.release(journal).await;
    result
}

/// A lock that is held.
struct Lease<'a> {
    target: &'a dyn Target,
    store: &'a StoreId,
    claim: LockClaim,
    /// Whether the target returns this lock when it is asked for the holder. A program may not know the
    /// question.
    tells_holder: bool,
}

impl<'a> Lease<'a> {
    /// Takes the lock of a store, or says who has it.
    async fn take(
        target: &'a dyn Target,
        store: &'a StoreId,
        operation: &str,
        journal: &ReleaseJournal<'_>,
    ) -> Result<Self, Error> {
        let claim = claim(operation, journal.actor);
        match target.lock(store, &claim).await? {
            LockAnswer::Held(holder) => Err(held(store, &holder)),
            LockAnswer::Taken { from } => {
                if let Some(from) = &from {
                    journal.events.notice(format!(
                        "{store}: the lock of {} was taken over, because its lease had ended",
                        described(from)
                    ));
                }
                if target.capabilities().locks {
                    let detail = from.as_ref().map(described);
                    let detail = detail.map(|from| format!("taken over from {from}"));
                    journal.event(StoreEvent::Locked, None, None, detail);
                }
                let holder = target.lock_holder(store).await?;
                Ok(Self {
                    target,
                    store,
                    tells_holder: holder.is_some_and(|it| it.holder == claim.holder),
                    claim,
                })
            }
        }
    }

    /// Renews the lock until the future is dropped. Returns only if the lock is lost: another run has it or
    /// had it, somebody has removed it, or it could not be renewed for the whole lease.
    async fn renew(&self) -> Error {
        if !self.target.capabilities().locks {
            return std::future::pending().await;
        }
        let mut renewed = SystemTime::now();
        loop {
            tokio::time::sleep(RENEWAL).await;
            // Not a monotonic clock, which stands still while a machine is suspended.
            let age = renewed.elapsed().unwrap_or_default();
            let asked = SystemTime::now();
            match self.renewed().await {
                Ok(None) if age < Duration::from_secs(LEASE) => renewed = asked,
                Ok(None) => {
                    return self.lost(format!("it was not renewed for {} s", age.as_secs()));
                }
                Ok(Some(reason)) => return self.lost(reason),
                // The lease outlasts a target that does not respond for a moment.
                Err(_) if age < Duration::from_secs(LEASE) => {}
                Err(error) => {
                    return self.lost(format!("the target does not respond: {error}"));
                }
            }
        }
    }

    /// Renews the lock once. Returns the reason if it is lost.
    async fn renewed(&self) -> Result<Option<String>, crate::target::Error> {
        let held_by = |claim: &LockClaim| Some(format!("the holder is now {}", described(claim)));
        if self.tells_holder {
            match self.target.lock_holder(self.store).await? {
                Some(claim) if claim.holder == self.claim.holder => {}
                Some(claim) => return Ok(held_by(&claim)),
                None => return Ok(Some("it has ended or was removed".to_owned())),
            }
        }
        Ok(match self.target.lock(self.store, &self.claim).await? {
            LockAnswer::Held(claim) => held_by(&claim),
            LockAnswer::Taken { .. } => None,
        })
    }

    fn lost(&self, reason: String) -> Error {
        Error::LockLost {
            store: self.store.clone(),
            reason,
        }
    }

    /// Gives the lock back.
    async fn release(self, journal: &ReleaseJournal<'_>) {
        let unlocked = self
            .target
            .unlock(self.store, &self.claim.holder, false)
            .await;
        match unlocked {
            Ok(()) if self.target.capabilities().locks => {
                journal.event(StoreEvent::Unlocked, None, None, None);
            }
            Ok(()) => {}
            Err(error) => journal.events.notice(format!(
                "{}: the lock could not be given back, and ends after {LEASE} s: {error}",
                self.store
            )),
        }
    }
}

fn claim(operation: &str, actor: &Actor) -> LockClaim {
    let now = Timestamp::now();
    let run = actor.run.as_ref();
    let run = run.map_or(String::new(), |run| format!(", {run}"));
    LockClaim {
        holder: RecordId::new(RecordKind::Event, now).to_string(),
        who: format!(
            "{}@{}, pid {}{run}",
            actor.user,
            actor.host,
            std::process::id()
        ),
        operation: operation.to_owned(),
        since: now,
        lease: LEASE,
    }
}

fn described(claim: &LockClaim) -> String {
    format!(
        "`{}` by {} since {}",
        claim.operation,
        claim.who,
        claim.since.strftime("%Y-%m-%d %H:%M:%S UTC")
    )
}

fn held(store: &StoreId, holder: &LockClaim) -> Error {
    Error::Locked {
        store: store.clone(),
        holder: described(holder),
        lease: holder.lease,
    }
}
