//! The lock of a store, which its holder renews while it works.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use jiff::Timestamp;

use super::steps::StoreRun;
use super::{Error, ReleaseJournal};
use crate::ledger::{Actor, RecordId, RecordKind, StoreEvent};
use crate::store::StoreId;
use crate::target::{LockAnswer, LockClaim, Target, place_options};

/// Seconds for which a lock is held without a renewal.
const LEASE: u64 = 30;

/// How often a lock is renewed within its lease.
const RENEWALS: u32 = 3;

/// The time limit for releasing a lock, in seconds.
const RELEASE_LIMIT: u64 = 10;

/// The lock that a run holds at the moment.
pub(super) type HeldLease<'a> = RefCell<Option<Rc<Lease<'a>>>>;

/// Works while the lock of the journal's store is held and renewed. The records of other machines are fetched
/// first, and those of this machine are sent before the lock is released: the next holder sees them.
pub async fn locked<'a, T>(
    target: &'a dyn Target,
    operation: &str,
    journal: &ReleaseJournal<'a>,
    work: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    locked_in(target, operation, journal, &HeldLease::default(), work).await
}

/// As [`locked`], with the lock in `held` while the work can ask for it.
async fn locked_in<'a, T>(
    target: &'a dyn Target,
    operation: &str,
    journal: &ReleaseJournal<'a>,
    held: &HeldLease<'a>,
    work: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    let lease = Rc::new(Lease::take(target, journal.store, operation, journal).await?);
    held.replace(Some(Rc::clone(&lease)));
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
    held.take();
    lease.release(journal).await;
    result
}

impl StoreRun<'_> {
    pub(super) async fn locked<T>(
        &self,
        work: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        let operation = &self.flow.options.operation;
        locked_in(self.target, operation, &self.journal, &self.lease, work).await
    }

    /// Fails if the lock was lost since its last renewal. Asked directly before the traffic is switched.
    pub(super) async fn check_lock(&self) -> Result<(), Error> {
        let lease = self.lease.borrow().clone();
        let Some(lease) = lease else { return Ok(()) };
        match lease.other_holder().await? {
            Some(reason) => Err(lease.lost(reason)),
            None => Ok(()),
        }
    }
}

/// A lock that is held.
pub(super) struct Lease<'a> {
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
            LockAnswer::Held(holder) => Err(held(store, target.name(), &holder)),
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
                // An error here must not leave the lock without its owner.
                let holder = target.lock_holder(store).await.ok().flatten();
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
        let lease = Duration::from_secs(LEASE);
        self.lost(renew_until_lost(lease, async || self.renewed().await).await)
    }

    /// Renews the lock once. Returns the reason if it is lost.
    async fn renewed(&self) -> Result<Option<String>, crate::target::Error> {
        if let Some(reason) = self.other_holder().await? {
            return Ok(Some(reason));
        }
        Ok(match self.target.lock(self.store, &self.claim).await? {
            LockAnswer::Held(claim) => Some(held_by(&claim)),
            LockAnswer::Taken { .. } => None,
        })
    }

    /// The reason if the target says that the lock is not held any more, or has another holder.
    async fn other_holder(&self) -> Result<Option<String>, crate::target::Error> {
        if !self.tells_holder {
            return Ok(None);
        }
        Ok(match self.target.lock_holder(self.store).await? {
            Some(claim) if claim.holder == self.claim.holder => None,
            Some(claim) => Some(held_by(&claim)),
            None => Some("it has ended or was removed".to_owned()),
        })
    }

    fn lost(&self, reason: String) -> Error {
        Error::LockLost {
            place: place_options(self.store, self.target.name()),
            store: self.store.clone(),
            reason,
        }
    }

    /// Gives the lock back.
    async fn release(&self, journal: &ReleaseJournal<'_>) {
        let unlocked = self.target.unlock(self.store, &self.claim.holder);
        let limit = Duration::from_secs(RELEASE_LIMIT);
        let reason = match tokio::time::timeout(limit, unlocked).await {
            Ok(Ok(())) => {
                if self.target.capabilities().locks {
                    journal.event(StoreEvent::Unlocked, None, None, None);
                }
                return;
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("the target has not responded within {RELEASE_LIMIT} s"),
        };
        journal.events.notice(format!(
            "{}: the lock could not be released, and ends after {LEASE} s: {reason}",
            self.store
        ));
    }
}

/// Renews a lock until it is lost, and returns the reason. `renew` returns the reason if the lock belongs to
/// another run. The lock is also lost if a renewal takes longer than the rest of the lease.
async fn renew_until_lost<Failure: std::fmt::Display>(
    lease: Duration,
    renew: impl AsyncFn() -> Result<Option<String>, Failure>,
) -> String {
    let mut renewed = SystemTime::now();
    loop {
        tokio::time::sleep(lease / RENEWALS).await;
        // Not a monotonic clock, which stands still while a machine is suspended.
        let age = renewed.elapsed().unwrap_or_default();
        let asked = SystemTime::now();
        match tokio::time::timeout(lease.saturating_sub(age), renew()).await {
            Ok(Ok(None)) if age < lease => renewed = asked,
            Ok(Ok(None)) => return format!("it was not renewed for {} s", age.as_secs()),
            Ok(Ok(Some(reason))) => return reason,
            // The lease outlasts a target that does not respond for a moment.
            Ok(Err(_)) if age < lease => {}
            Ok(Err(error)) => return format!("the target does not respond: {error}"),
            Err(_) => {
                let seconds = lease.max(age).as_secs();
                return format!("it was not renewed for {seconds} s: the target does not respond");
            }
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

fn held_by(claim: &LockClaim) -> String {
    format!("the holder is now {}", described(claim))
}

fn described(claim: &LockClaim) -> String {
    format!(
        "`{}` by {} since {}",
        claim.operation,
        claim.who,
        claim.since.strftime("%Y-%m-%d %H:%M:%S UTC")
    )
}

fn held(store: &StoreId, target: &str, holder: &LockClaim) -> Error {
    Error::Locked {
        place: place_options(store, target),
        store: store.clone(),
        holder: described(holder),
        lease: holder.lease,
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::time::Duration;

    use super::renew_until_lost;

    const LEASE: Duration = Duration::from_millis(300);

    /// The reason for which a lock with a short lease is lost, and how often it was renewed.
    fn lost(answer: impl AsyncFn(u32) -> Result<Option<String>, String>) -> (String, u32) {
        let asked = Cell::new(0);
        let runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = { runtime }.enable_time().build().unwrap();
        let reason = runtime.block_on(async {
            let renew = async || {
                asked.set(asked.get() + 1);
                answer(asked.get()).await
            };
            let lost = renew_until_lost(LEASE, renew);
            tokio::time::timeout(LEASE * 30, lost).await
        });
        (reason.expect("the lock is lost"), asked.get())
    }

    #[test]
    fn a_renewal_that_does_not_end_loses_the_lock_when_its_lease_ends() {
        let (reason, asked) = lost(async |number| match number {
            1 | 2 => Ok(None),
            _ => std::future::pending().await,
        });
        assert_eq!(asked, 3);
        assert!(reason.ends_with("the target does not respond"), "{reason}");
    }

    #[test]
    fn a_lock_outlasts_a_failed_renewal_and_is_lost_to_another_holder() {
        let (reason, asked) = lost(async |number| match number {
            1 => Err("no answer".to_owned()),
            2 => Ok(None),
            _ => Ok(Some("the holder is now eva".to_owned())),
        });
        assert_eq!((reason.as_str(), asked), ("the holder is now eva", 3));
    }
}
