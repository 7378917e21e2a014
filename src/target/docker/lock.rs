//! The lock of a store: the name of a container, which the engine gives only once. The container is
//! never started. The clock of the engine decides whether a lease has ended.

use std::time::Duration;

use bollard::models::ContainerCreateBody;
use jiff::{SignedDuration, Timestamp};

use super::engine::{Engine, check_labels};
use super::error::Error;
use crate::pipeline::DockerError;
use crate::target::labels::StoreLabels;
use crate::target::{LockAnswer, LockClaim};

/// The label with the claim.
const CLAIM: &str = "com.alokai.lock";

/// The label with the id of the lock that a container renews.
const RENEWS: &str = "com.alokai.renews";

/// The most attempts to take a lock that other runs take and release at the same time.
const ATTEMPTS: usize = 30;

/// The pause between two attempts. An engine reserves the name of a container before it shows the container.
const PAUSE: Duration = Duration::from_millis(200);

/// The lock of a store.
pub struct Lock<'a> {
    /// The engine.
    pub engine: &'a Engine,
    /// The store.
    pub owner: &'a StoreLabels,
}

/// A lock that is held.
struct HeldLock {
    /// The id of its container, which another lock of the same name does not have.
    id: String,
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

impl Lock<'_> {
    fn name(&self) -> String {
        format!("alokai-lock-{}", self.owner.name())
    }

    /// Takes the lock, renews it for its holder, or returns the holder.
    pub async fn take(&self, claim: &LockClaim) -> Result<LockAnswer, Error> {
        let mut from = None;
        for _ in 0..ATTEMPTS {
            let label = (CLAIM, serde_json::to_string(claim).unwrap_or_default());
            if self.create(&self.name(), label).await? {
                return Ok(LockAnswer::Taken { from });
            }
            let Some(held) = self.held().await? else {
                tokio::time::sleep(PAUSE).await;
                continue;
            };
            if held.claim.holder == claim.holder {
                self.renew(&held).await?;
                return Ok(LockAnswer::Taken { from: None });
            }
            if !held.has_ended(self.engine.now().await?) {
                return Ok(LockAnswer::Held(held.claim));
            }
            // By its id, so that a lock that another run has taken meanwhile stays.
            self.remove(&held).await?;
            from = Some(held.claim);
        }
        Err(Error::Engine(DockerError::Request {
            doing: format!("take the lock `{}`", self.name()),
            message: "other runs took and released it at each attempt".into(),
        }))
    }

    /// Gives the lock back, if this holder has it.
    pub async fn give_back(&self, holder: &str) -> Result<(), Error> {
        match self.held().await? {
            Some(held) if held.claim.holder == holder => self.remove(&held).await,
            _ => Ok(()),
        }
    }

    /// The holder. A lock whose lease has ended has no holder.
    pub async fn holder(&self) -> Result<Option<LockClaim>, Error> {
        let Some(held) = self.held().await? else {
            return Ok(None);
        };
        let has_ended = held.has_ended(self.engine.now().await?);
        Ok((!has_ended).then_some(held.claim))
    }

    /// Removes the renewals of earlier locks: a run that is killed while it releases its lock leaves them.
    /// The caller holds the lock.
    pub async fn sweep(&self) -> Result<(), Error> {
        let mut filters = vec![RENEWS.to_owned()];
        filters.extend(self.owner.filters());
        let renewals = self.engine.list(filters).await?;
        if renewals.is_empty() {
            return Ok(());
        }
        let lock = self.held().await?.map(|held| held.id);
        for container in renewals {
            let renews = container.labels.unwrap_or_default().remove(RENEWS);
            if let Some(id) = container.id.filter(|_| renews != lock) {
                self.engine.remove(&id).await?;
            }
        }
        Ok(())
    }

    async fn held(&self) -> Result<Option<HeldLock>, Error> {
        let name = self.name();
        let Some(found) = self.engine.inspect(&name).await? else {
            return Ok(None);
        };
        let labels = found.config.and_then(|config| config.labels);
        let labels = labels.unwrap_or_default();
        check_labels("container", &name, &labels, self.owner)?;
        let claim = labels
            .get(CLAIM)
            .and_then(|claim| serde_json::from_str(claim).ok());
        let created = found.created.and_then(|time| time.parse().ok());
        let (Some(id), Some(claim), Some(created)) = (found.id, claim, created) else {
            return Err(Error::ForeignContainer { name });
        };
        let renewals = self.renewals(&id).await?;
        let times = renewals.iter().map(|(_, time)| *time);
        Ok(Some(HeldLock {
            renewed: times.fold(created, Timestamp::max),
            id,
            claim,
        }))
    }

    /// Labels cannot be changed, so a renewal is a container of its own, with its time of creation.
    async fn renew(&self, held: &HeldLock) -> Result<(), Error> {
        let earlier = self.renewals(&held.id).await?;
        let now = Timestamp::now().as_nanosecond();
        let name = format!("{}-renewed-{now}", self.name());
        self.create(&name, (RENEWS, held.id.clone())).await?;
        for (id, _) in earlier {
            self.engine.remove(&id).await?;
        }
        Ok(())
    }

    /// The renewals of a lock: their ids and times.
    async fn renewals(&self, lock: &str) -> Result<Vec<(String, Timestamp)>, Error> {
        let found = self.engine.list(vec![format!("{RENEWS}={lock}")]).await?;
        let renewals = found.into_iter().filter_map(|container| {
            let created = Timestamp::from_second(container.created?).ok()?;
            Some((container.id?, created))
        });
        Ok(renewals.collect())
    }

    async fn remove(&self, held: &HeldLock) -> Result<(), Error> {
        let renewals = self.renewals(&held.id).await?;
        self.engine.remove(&held.id).await?;
        for (id, _) in renewals {
            self.engine.remove(&id).await?;
        }
        Ok(())
    }

    async fn create(&self, name: &str, (key, value): (&str, String)) -> Result<bool, Error> {
        let mut labels = self.owner.map();
        labels.insert(key.to_owned(), value);
        let body = ContainerCreateBody {
            image: Some(self.engine.empty_image().await?.to_owned()),
            cmd: Some(vec!["lock".into()]),
            labels: Some(labels),
            ..ContainerCreateBody::default()
        };
        self.engine.create(name, body).await
    }
}
