//! The lock of a store: a Lease, which one run at a time holds. The clock of the API server decides whether it
//! has ended.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::api::Api;
use super::error::Error;
use super::kinds::LEASE;
use super::names::{CLAIM, StoreOwner};
use crate::target::LockClaim;
use crate::target::lock::{HeldLock, LockStore, Takeover};

/// The lock of a store.
pub struct LeaseLock<'a> {
    /// The API server.
    pub api: &'a Api,
    /// The store.
    pub owner: &'a StoreOwner,
}

impl LockStore for LeaseLock<'_> {
    type Object = Value;
    type Error = Error;

    async fn held(&self) -> Result<Option<HeldLock<Value>>, Error> {
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

    async fn create(&self, claim: &LockClaim) -> Result<bool, Error> {
        let lease = self.lease(claim, None);
        Ok(self.api.create(LEASE, &lease).await?.is_some())
    }

    /// Only if nobody has taken or renewed it since it was read, which its `resourceVersion` tells.
    async fn renew(&self, held: &HeldLock<Value>, claim: &LockClaim) -> Result<bool, Error> {
        let lease = self.lease(claim, Some(held));
        self.api.replace(LEASE, &lease).await
    }

    async fn take_over(
        &self,
        held: &HeldLock<Value>,
        claim: &LockClaim,
    ) -> Result<Takeover, Error> {
        let is_taken = self.renew(held, claim).await?;
        Ok(if is_taken {
            Takeover::Taken
        } else {
            Takeover::Lost
        })
    }

    async fn remove(&self, held: &HeldLock<Value>) -> Result<(), Error> {
        self.api.delete(LEASE, &held.object, true).await
    }

    async fn now(&self) -> Result<Timestamp, Error> {
        Ok(self.api.now())
    }

    fn refused(&self, reason: &str) -> Error {
        Error::Refused {
            doing: format!("take {}", LEASE.object(&self.owner.lock())),
            status: 409,
            message: reason.into(),
        }
    }
}

impl LeaseLock<'_> {
    fn lease(&self, claim: &LockClaim, before: Option<&HeldLock<Value>>) -> Value {
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
