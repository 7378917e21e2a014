//! The lock of a store: a config of the swarm. Two configs cannot have the same name. The claim is a label,
//! because Swarm changes the labels of a config by compare-and-swap, and never changes its content. The clock
//! of the managers decides whether a lease has ended.

use bollard::models::Config;
use jiff::{SignedDuration, Timestamp};

use super::error::Error;
use super::manager::Manager;
use super::service::object_name;
use crate::pipeline::DockerError;
use crate::target::labels::StoreLabels;
use crate::target::{LockAnswer, LockClaim};

/// The label with the claim.
const CLAIM: &str = "com.alokai.lock";

/// The label that changes with each renewal.
const RENEWED: &str = "com.alokai.renewed";

/// The most attempts to take a lock that other runs take and release at the same time.
const ATTEMPTS: usize = 10;

/// The lock of a store.
pub struct SwarmLock<'a> {
    /// The manager.
    pub manager: &'a Manager,
    /// The store.
    pub owner: &'a StoreLabels,
}

/// A lock that is held.
struct HeldConfig {
    config: Config,
    claim: LockClaim,
    /// When it was taken, or renewed last.
    renewed: Timestamp,
}

impl HeldConfig {
    fn id(&self) -> &str {
        self.config.id.as_deref().unwrap_or_default()
    }

    fn has_ended(&self, now: Timestamp) -> bool {
        let lease = i64::try_from(self.claim.lease).unwrap_or(i64::MAX);
        now.duration_since(self.renewed) > SignedDuration::from_secs(lease)
    }
}

impl SwarmLock<'_> {
    fn name(&self) -> String {
        object_name("lock", self.owner)
    }

    /// Takes the lock, renews it for its holder, or returns the holder.
    pub async fn take(&self, claim: &LockClaim) -> Result<LockAnswer, Error> {
        let (name, text) = (
            self.name(),
            serde_json::to_string(claim).unwrap_or_default(),
        );
        let mut labels = self.owner.map();
        labels.insert(CLAIM.to_owned(), text.clone());
        let mut from = None;
        for _ in 0..ATTEMPTS {
            let created = self.manager.create_config(&name, labels.clone(), b"lock");
            if created.await? {
                return Ok(LockAnswer::Taken { from });
            }
            let Some(held) = self.held().await? else {
                continue;
            };
            if held.claim.holder == claim.holder {
                let now = Timestamp::now().as_nanosecond().to_string();
                if self
                    .manager
                    .label_config(&held.config, (RENEWED, now))
                    .await?
                {
                    return Ok(LockAnswer::Taken { from });
                }
                continue;
            }
            if !held.has_ended(self.manager.engine.now().await?) {
                return Ok(LockAnswer::Held(held.claim));
            }
            // The claim is replaced first: the earlier holder may renew its lock at this moment, and one
            // of the two changes is refused. Then the config is removed, so that the earlier holder
            // cannot remove the lock of the next one, which has another id.
            let taken = (CLAIM, text.clone());
            if self.manager.label_config(&held.config, taken).await? {
                self.manager.remove_config(held.id()).await?;
                from = Some(held.claim);
            }
        }
        Err(Error::Engine(
            DockerError::Request {
                doing: format!("take the lock `{name}`"),
                message: "other runs took and released it at each attempt".into(),
            }
            .into(),
        ))
    }

    /// Gives the lock back, if this holder has it.
    pub async fn give_back(&self, holder: &str) -> Result<(), Error> {
        match self.held().await? {
            Some(held) if held.claim.holder == holder => {
                self.manager.remove_config(held.id()).await
            }
            _ => Ok(()),
        }
    }

    /// The holder. A lock whose lease has ended has no holder.
    pub async fn holder(&self) -> Result<Option<LockClaim>, Error> {
        let Some(held) = self.held().await? else {
            return Ok(None);
        };
        let has_ended = held.has_ended(self.manager.engine.now().await?);
        Ok((!has_ended).then_some(held.claim))
    }

    async fn held(&self) -> Result<Option<HeldConfig>, Error> {
        let name = self.name();
        let Some(config) = self.manager.config(&name).await? else {
            return Ok(None);
        };
        let labels = config.spec.as_ref().and_then(|spec| spec.labels.as_ref());
        let claim = labels.and_then(|labels| serde_json::from_str(labels.get(CLAIM)?).ok());
        let renewed = config.updated_at.as_deref().and_then(|it| it.parse().ok());
        match (claim, renewed) {
            (Some(claim), Some(renewed)) => Ok(Some(HeldConfig {
                config,
                claim,
                renewed,
            })),
            _ => Err(Error::Foreign {
                kind: "config",
                name,
            }),
        }
    }
}
