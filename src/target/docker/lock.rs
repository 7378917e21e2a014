//! The lock of a store: the name of a container, which the engine gives only once. The container is
//! never started. The clock of the engine decides whether a lease has ended.

use std::time::Duration;

use bollard::models::ContainerCreateBody;
use jiff::Timestamp;

use super::engine::{Engine, check_labels};
use super::error::Error;
use crate::pipeline::DockerError;
use crate::target::LockClaim;
use crate::target::labels::StoreLabels;
use crate::target::lock::{HeldLock, LockStore, Takeover};

/// The label with the claim.
const CLAIM: &str = "com.alokai.lock";

/// The label with the id of the lock that a container renews.
const RENEWS: &str = "com.alokai.renews";

/// The lock of a store.
pub struct Lock<'a> {
    /// The engine.
    pub engine: &'a Engine,
    /// The store.
    pub owner: &'a StoreLabels,
}

impl LockStore for Lock<'_> {
    /// The id of a container, which another lock of the same name does not have.
    type Object = String;
    type Error = Error;

    const ATTEMPTS: usize = 30;

    /// An engine reserves the name of a container before it shows the container.
    const PAUSE: Duration = Duration::from_millis(200);

    async fn held(&self) -> Result<Option<HeldLock<String>>, Error> {
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
            object: id,
            claim,
        }))
    }

    async fn create(&self, claim: &LockClaim) -> Result<bool, Error> {
        let label = (CLAIM, serde_json::to_string(claim).unwrap_or_default());
        self.create_container(&self.name(), label).await
    }

    /// Labels cannot be changed, so a renewal is a container of its own, with its time of creation.
    async fn renew(&self, held: &HeldLock<String>, _: &LockClaim) -> Result<bool, Error> {
        let earlier = self.renewals(&held.object).await?;
        let now = Timestamp::now().as_nanosecond();
        let name = format!("{}-renewed-{now}", self.name());
        let label = (RENEWS, held.object.clone());
        self.create_container(&name, label).await?;
        for (id, _) in earlier {
            self.engine.remove(&id).await?;
        }
        Ok(true)
    }

    /// By its id, so that a lock that another run has taken meanwhile stays.
    async fn take_over(&self, held: &HeldLock<String>, _: &LockClaim) -> Result<Takeover, Error> {
        self.remove(held).await?;
        Ok(Takeover::Removed)
    }

    async fn remove(&self, held: &HeldLock<String>) -> Result<(), Error> {
        let renewals = self.renewals(&held.object).await?;
        self.engine.remove(&held.object).await?;
        for (id, _) in renewals {
            self.engine.remove(&id).await?;
        }
        Ok(())
    }

    async fn now(&self) -> Result<Timestamp, Error> {
        self.engine.now().await
    }

    fn refused(&self, reason: &str) -> Error {
        Error::Engine(DockerError::Request {
            doing: format!("take the lock `{}`", self.name()),
            message: reason.into(),
        })
    }
}

impl Lock<'_> {
    fn name(&self) -> String {
        format!("alokai-lock-{}", self.owner.name())
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
        let lock = self.held().await?.map(|held| held.object);
        for container in renewals {
            let renews = container.labels.unwrap_or_default().remove(RENEWS);
            if let Some(id) = container.id.filter(|_| renews != lock) {
                self.engine.remove(&id).await?;
            }
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

    async fn create_container(
        &self,
        name: &str,
        (key, value): (&str, String),
    ) -> Result<bool, Error> {
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
