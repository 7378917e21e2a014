//! The lock of a store in an engine or a cluster: one rule for all of them.
//!
//! A lock is an object of which the engine has only one with its name. Each engine stores it in another way: a
//! [`LockStore`] has the single steps, and the rule is the same.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::{LockAnswer, LockClaim};

/// A lock that is held.
pub struct HeldLock<O> {
    /// The object as it was read, by which a change is made only to this one.
    pub object: O,
    /// Who holds it.
    pub claim: LockClaim,
    /// When it was taken, or renewed last, by the clock of the store.
    pub renewed: Timestamp,
}

impl<O> HeldLock<O> {
    fn has_ended(&self, now: Timestamp) -> bool {
        let lease = i64::try_from(self.claim.lease).unwrap_or(i64::MAX);
        now.duration_since(self.renewed) > SignedDuration::from_secs(lease)
    }
}

/// What became of a lock whose lease has ended.
pub enum Takeover {
    /// It belongs to the claim now.
    Taken,
    /// It is removed. The run that creates it next has it.
    Removed,
    /// Another run has changed it first.
    Lost,
}

/// A place with the lock of one store.
pub trait LockStore {
    /// What identifies a lock as it was read.
    type Object;
    /// Why a step failed.
    type Error;

    /// The most attempts to take a lock that other runs take and release at the same time.
    const ATTEMPTS: usize = 10;

    /// The pause after the name of the lock was refused, before it is read again.
    const PAUSE: Duration = Duration::ZERO;

    /// The lock, if there is one. Its lease may have ended.
    async fn held(&self) -> Result<Option<HeldLock<Self::Object>>, Self::Error>;

    /// Creates the lock. False if there is one.
    async fn create(&self, claim: &LockClaim) -> Result<bool, Self::Error>;

    /// Lets the lease of the own lock begin again. False if somebody has changed the lock since it was read.
    async fn renew(
        &self,
        held: &HeldLock<Self::Object>,
        claim: &LockClaim,
    ) -> Result<bool, Self::Error>;

    /// Ends a lock whose lease has ended, in favour of a claim. The lock of a third run stays.
    async fn take_over(
        &self,
        held: &HeldLock<Self::Object>,
        claim: &LockClaim,
    ) -> Result<Takeover, Self::Error>;

    /// Removes a lock. A later lock of the same name stays.
    async fn remove(&self, held: &HeldLock<Self::Object>) -> Result<(), Self::Error>;

    /// The time by the clock that all runs share, so that the clocks of their machines may differ.
    async fn now(&self) -> Result<Timestamp, Self::Error>;

    /// The error of a lock that could not be taken.
    fn refused(&self, reason: &str) -> Self::Error;

    /// Takes the lock, renews it for its holder, or returns the holder.
    async fn take(&self, claim: &LockClaim) -> Result<LockAnswer, Self::Error> {
        let mut from = None;
        for _ in 0..Self::ATTEMPTS {
            let Some(held) = self.held().await? else {
                if self.create(claim).await? {
                    return Ok(LockAnswer::Taken { from });
                }
                tokio::time::sleep(Self::PAUSE).await;
                continue;
            };
            if held.claim.holder == claim.holder {
                if self.renew(&held, claim).await? {
                    return Ok(LockAnswer::Taken { from });
                }
                continue;
            }
            if !held.has_ended(self.now().await?) {
                return Ok(LockAnswer::Held(held.claim));
            }
            match self.take_over(&held, claim).await? {
                Takeover::Taken => {
                    let from = Some(held.claim);
                    return Ok(LockAnswer::Taken { from });
                }
                Takeover::Removed => from = Some(held.claim),
                Takeover::Lost => {}
            }
        }
        Err(self.refused("other runs took and released it at each attempt"))
    }

    /// Gives the lock back, if this holder has it.
    async fn give_back(&self, holder: &str) -> Result<(), Self::Error> {
        match self.held().await? {
            Some(held) if held.claim.holder == holder => self.remove(&held).await,
            _ => Ok(()),
        }
    }

    /// The holder. A lock whose lease has ended has no holder.
    async fn holder(&self) -> Result<Option<LockClaim>, Self::Error> {
        let Some(held) = self.held().await? else {
            return Ok(None);
        };
        let has_ended = held.has_ended(self.now().await?);
        Ok((!has_ended).then_some(held.claim))
    }
}

#[cfg(test)]
mod tests;
