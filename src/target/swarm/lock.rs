//! The lock of a store: a config of the swarm. Two configs cannot have the same name. The claim is a label,
//! because Swarm changes the labels of a config by compare-and-swap, and never changes its content. The clock
//! of the managers decides whether a lease has ended.

use bollard::models::Config;
use jiff::Timestamp;

use super::error::Error;
use super::manager::Manager;
use super::service::object_name;
use crate::pipeline::DockerError;
use crate::target::LockClaim;
use crate::target::labels::StoreLabels;
use crate::target::lock::{HeldLock, LockStore, Takeover};

/// The label with the claim.
const CLAIM: &str = "com.alokai.lock";

/// The label that changes with each renewal.
const RENEWED: &str = "com.alokai.renewed";

/// The lock of a store.
pub struct SwarmLock<'a> {
    /// The manager.
    pub manager: &'a Manager,
    /// The store.
    pub owner: &'a StoreLabels,
}

impl SwarmLock<'_> {
    fn name(&self) -> String {
        object_name("lock", self.owner)
    }
}

impl LockStore for SwarmLock<'_> {
    type Object = Config;
    type Error = Error;

    async fn held(&self) -> Result<Option<HeldLock<Config>>, Error> {
        let name = self.name();
        let Some(config) = self.manager.config(&name).await? else {
            return Ok(None);
        };
        let labels = config.spec.as_ref().and_then(|spec| spec.labels.as_ref());
        let claim = labels.and_then(|labels| serde_json::from_str(labels.get(CLAIM)?).ok());
        let renewed = config.updated_at.as_deref().and_then(|it| it.parse().ok());
        match (claim, renewed) {
            (Some(claim), Some(renewed)) => Ok(Some(HeldLock {
                object: config,
                claim,
                renewed,
            })),
            _ => Err(Error::Foreign {
                kind: "config",
                name,
            }),
        }
    }

    async fn create(&self, claim: &LockClaim) -> Result<bool, Error> {
        let mut labels = self.owner.map();
        labels.insert(CLAIM.to_owned(), text_of(claim));
        let name = self.name();
        self.manager.create_config(&name, labels, b"lock").await
    }

    async fn renew(&self, held: &HeldLock<Config>, _: &LockClaim) -> Result<bool, Error> {
        let now = Timestamp::now().as_nanosecond().to_string();
        let renewed = (RENEWED, now);
        self.manager.label_config(&held.object, renewed).await
    }

    /// The claim is replaced first: the earlier holder may renew its lock at this moment, and one of the
    /// two changes is refused. Then the config is removed, so that the earlier holder cannot remove the
    /// lock of the next one, which has another id.
    async fn take_over(
        &self,
        held: &HeldLock<Config>,
        claim: &LockClaim,
    ) -> Result<Takeover, Error> {
        let taken = (CLAIM, text_of(claim));
        if !self.manager.label_config(&held.object, taken).await? {
            return Ok(Takeover::Lost);
        }
        self.remove(held).await?;
        Ok(Takeover::Removed)
    }

    async fn remove(&self, held: &HeldLock<Config>) -> Result<(), Error> {
        let id = held.object.id.as_deref().unwrap_or_default();
        self.manager.remove_config(id).await
    }

    async fn now(&self) -> Result<Timestamp, Error> {
        Ok(self.manager.engine.now().await?)
    }

    fn refused(&self, reason: &str) -> Error {
        let refused = DockerError::Request {
            doing: format!("take the lock `{}`", self.name()),
            message: reason.into(),
        };
        Error::Engine(refused.into())
    }
}

fn text_of(claim: &LockClaim) -> String {
    serde_json::to_string(claim).unwrap_or_default()
}
