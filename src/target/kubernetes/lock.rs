//! The lock of a store: a Lease, which one run at a time holds. The clock of the API server decides whether it
//! has ended.

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::api::Api;
use super::error::Error;
use super::kinds::LEASE;
use super::names::{CLAIM, StoreOwner};
use crate::target::{LockAnswer, LockClaim};

/// The most attempts to take a lock that other runs take and release at the same time.
const ATTEMPTS: usize = 10;

/// The lock of a store.
pub struct LeaseLock<'a> {
    /// The API server.
    pub api: &'a Api,
    /// The store.
    pub owner: &'a StoreOwner,
}

/// A lock that is held.
struct HeldLock {
    object: Value,
    claim: LockClaim,
    /// When it was taken, or renewed last.
    renewed: Timestamp,
}

impl HeldLock {
    fn has_ended(&self, now: Timestamp) -> bool {
        let lease = i64::try_from(self.claim.lease).unwrap_or(i64::MAX);
        now.duration_since(self.renewed) > SignedDuration::from_secs(lease)
    }
}

impl LeaseLock<'_> {
    /// Takes the lock, renews it for its holder, or returns the holder.
    pub async fn take(&self, claim: &LockClaim) -> Result<LockAnswer, Error> {
        for _ in 0..ATTEMPTS {
            let Some(held) = self.held().await? else {
                let new = self.lease(claim, None);
                if self.api.create(LEASE, &new).await?.is_some() {
                    return Ok(LockAnswer::Taken { from: None });
                }
                continue;
            };
            let is_own = held.claim.holder == claim.holder;
            if !is_own && !held.has_ended(self.api.now()) {
                return Ok(LockAnswer::Held(held.claim));
            }
            // Only if nobody has taken or renewed it since it was read.
            if self
                .api
                .replace(LEASE, &self.lease(claim, Some(&held)))
                .await?
            {
                let from = (!is_own).then_some(held.claim);
                return Ok(LockAnswer::Taken { from });
            }
        }
        Err(Error::Refused {
            doing: format!("take {}", LEASE.object(&self.owner.lock())),
            status: 409,
            message: "other runs took and released it at each attempt".into(),
        })
    }

    /// Gives the lock back, if this holder has it.
    pub async fn give_back(&self, holder: &str) -> Result<(), Error> {
        match self.held().await? {
            Some(held) if held.claim.holder == holder => {
                self.api.delete(LEASE, &held.object, true).await
            }
            _ => Ok(()),
        }
    }

    /// The holder, if its lease has not ended.
    pub async fn holder(&self) -> Result<Option<LockClaim>, Error> {
        let held = self.held().await?;
        let held = held.filter(|held| !held.has_ended(self.api.now()));
        Ok(held.map(|held| held.claim))
    }

    async fn held(&self) -> Result<Option<HeldLock>, Error> {
        let name = self.owner.lock();
        let Some(object) = self.api.owned(LEASE, &name, self.owner).await? else {
            return Ok(None);
        };
        let claim = object["metadata"]["annotations"][CLAIM].as_str();
        let claim = claim.and_then(|claim| serde_json::from_str(claim).ok());
        let renewed = object["spec"]["renewTime"].as_str();
        let renewed = renewed.and_then(|time| time.parse().ok());
        match claim.zip(renewed) {
            Some((claim, renewed)) => Ok(Some(HeldLock {
                object,
                claim,
                renewed,
            })),
            None => Err(Error::Foreign {
                object: LEASE.object(&name),
            }),
        }
    }

    fn lease(&self, claim: &LockClaim, before: Option<&HeldLock>) -> Value {
        let now = format!("{:.6}", self.api.now());
        let taken = before
            .filter(|before| before.claim.holder == claim.holder)
            .and_then(|before| before.object["spec"]["acquireTime"].as_str())
            .unwrap_or(&now);
        let mut lease = json!({
            "apiVersion": LEASE.version,
            "kind": LEASE.name,
            "metadata": {
                "name": self.owner.lock(),
                "namespace": self.api.namespace,
                "labels": self.owner.labels(),
                // The whole claim; a Lease has no field for the operation.
                "annotations": { CLAIM: serde_json::to_string(claim).unwrap_or_default() },
            },
            "spec": {
                "holderIdentity": claim.holder,
                "leaseDurationSeconds": claim.lease.max(1),
                "acquireTime": taken,
                "renewTime": now,
            },
        });
        if let Some(before) = before {
            lease["metadata"]["resourceVersion"] =
                before.object["metadata"]["resourceVersion"].clone();
        }
        lease
    }
}
