//! The records of other machines, which lie in the registry.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt, stream};

use super::Error;
use super::arguments::AccessOptions;
use super::environment::{Environment, tell};
use super::record::repository_at;
use super::run::{Live, services_without_run};
use crate::config::Project;
use crate::error::Error as AnyError;
use crate::ledger::{self, LogReference, RecordFolder, RecordSet, RegistryRecords};
use crate::pipeline::Services;
use crate::plan::{self, DestinationPlan};
use crate::store::{Store, StoreId};
use oci_distribution::Client;

/// How long the registry may take. A list without the records of other machines is better than none.
const TIMEOUT: Duration = Duration::from_secs(20);

/// How long sending may take.
const SENDING_TIMEOUT: Duration = Duration::from_mins(1);

/// Stores whose records are read at the same time.
const STORES_AT_ONCE: usize = 8;

/// Access to the registry, if there is one.
pub struct RegistryAccess {
    runtime: tokio::runtime::Runtime,
    services: Arc<Services>,
    destination: Option<DestinationPlan>,
}

impl RegistryAccess {
    /// The registry of the config, the environment or the options. Nothing is requested yet.
    pub fn new(
        project: &Project,
        environment: &Environment,
        options: &AccessOptions,
    ) -> Result<Self, AnyError> {
        Self::with_events(project, environment, options, None)
    }

    /// The same, with the events and the interruption of a run.
    pub fn with_events(
        project: &Project,
        environment: &Environment,
        options: &AccessOptions,
        live: Option<&Live>,
    ) -> Result<Self, AnyError> {
        let mut access = environment.access(options, options.password()?);
        let ca = project.settings.registry.ca.as_ref();
        access.trust.ca = ca.map(|ca| project.root.join(ca));
        let destination = plan::destination_of(project, &environment.registry(options)).ok();
        if let Some(DestinationPlan::Registry { address, .. }) = &destination {
            access.registry = Some(address.clone());
        }
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .map_err(|source| Error::Start { source })?;
        let mut services = services_without_run(&project.root, access, runtime.handle().clone());
        if let Some(live) = live {
            services.events = live.events.clone();
            services.interrupt = live.interrupt.clone();
        }
        Ok(Self {
            runtime,
            services: Arc::new(services),
            destination,
        })
    }

    /// Waits for work that is no part of a run.
    pub fn wait<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.block_on(work)
    }

    /// The services of targets that are asked outside of a run.
    pub fn services(&self) -> Arc<Services> {
        Arc::clone(&self.services)
    }

    /// Sends the records of a store after a command has written some. The next deploy sends them if
    /// the registry does not take them now.
    pub fn share(&self, project: &Project, store: &StoreId) {
        if self.registry().is_none() || self.services.access.credentials.is_none() {
            return;
        }
        let read = RecordFolder::of_project(&project.root).read();
        let read = read.map_err(|error| AnyError::from(ledger::Error::from(error)));
        let pushed = read.and_then(|(records, _)| {
            let stores = [store.to_string()];
            self.push(project, &records, &stores)
        });
        if let Err(error) = pushed {
            tell(&format!(
                "note: the records of this command are only on this machine: {error}"
            ));
        }
    }

    /// Reads the records that this machine does not have. A registry that is out of reach is told and
    /// is no error.
    pub fn pull(&self, project: &Project) {
        let Some((address, host)) = self.registry() else {
            return;
        };
        if self.services.access.credentials.is_none() {
            // Without credentials this machine has not pushed either, and a question would only wait.
            return;
        }
        let pulling = async {
            let client = self.services.client(address).await;
            let client = client.map_err(|error| error.to_string())?;
            let stores = project.stores.deployables();
            let repositories = stores.filter_map(|store| plan::record_repository(project, store));
            let mut pulled = stream::iter(repositories)
                .map(|repository| pull(&client, repository_at(host, &repository), project))
                .buffer_unordered(STORES_AT_ONCE);
            while let Some(result) = pulled.next().await {
                result?;
            }
            Ok::<_, String>(())
        };
        let result = self.runtime.block_on(async {
            let limited = tokio::time::timeout(TIMEOUT, pulling).await;
            limited.unwrap_or_else(|_| Err(format!("no response within {} s", TIMEOUT.as_secs())))
        });
        if let Err(reason) = result {
            tell(&format!(
                "note: records of other machines may be missing, because the registry cannot be read: {reason}"
            ));
        }
    }

    /// Sends the records that the registry does not have: of these stores, or of all. Returns how many
    /// records of each store were sent.
    pub fn push(
        &self,
        project: &Project,
        records: &RecordSet,
        stores: &[String],
    ) -> Result<Vec<(StoreId, usize)>, AnyError> {
        let refused = |reason: String| AnyError::from(Error::NotSent { reason });
        let Some((address, host)) = self.registry() else {
            return Err(refused("no registry is configured".into()));
        };
        let is_wanted =
            |store: &&Store| stores.is_empty() || stores.iter().any(|id| id == store.id.as_str());
        let stores = project.stores.deployables().filter(is_wanted);
        let places = stores.filter_map(|store| {
            let repository = plan::record_repository(project, store)?;
            Some((store.id.clone(), repository_at(host, &repository)))
        });
        let sending = async {
            let client = self.services.client(address).await;
            let client = client.map_err(|error| error.to_string())?;
            let client = &client;
            let sent = stream::iter(places)
                .map(|(store, repository)| async move {
                    let place = RegistryRecords::new(client, repository, &project.root);
                    let exchange = place.exchange(&records.of_store(&store)).await;
                    let exchange = exchange.map_err(|error| format!("{store}: {error}"))?;
                    Ok::<_, String>((store, exchange.sent))
                })
                .buffered(STORES_AT_ONCE);
            sent.try_collect::<Vec<_>>().await
        };
        let sent = self.runtime.block_on(async {
            let limited = tokio::time::timeout(SENDING_TIMEOUT, sending).await;
            limited.unwrap_or_else(|_| {
                Err(format!(
                    "no response within {} s",
                    SENDING_TIMEOUT.as_secs()
                ))
            })
        });
        sent.map_err(refused)
    }

    /// Reads the log of a build, if the registry has it.
    pub fn fetch_log(&self, project: &Project, store: &StoreId, log: &LogReference) {
        let Some((address, host)) = self.registry() else {
            return;
        };
        let store = project.stores.get(store.as_str());
        let repository = store.and_then(|store| plan::record_repository(project, store));
        let Some(repository) = repository else { return };
        let fetching = async {
            let client = self.services.client(address).await;
            let client = client.map_err(|error| error.to_string())?;
            let repository = repository_at(host, &repository);
            let place = RegistryRecords::new(&client, repository, &project.root);
            place
                .fetch_log(log)
                .await
                .map_err(|error| error.to_string())
        };
        if let Err(reason) = self.runtime.block_on(fetching) {
            tell(&format!("note: the registry cannot be read: {reason}"));
        }
    }

    fn registry(&self) -> Option<(&str, &str)> {
        match &self.destination {
            Some(DestinationPlan::Registry { address, host, .. }) => Some((address, host)),
            _ => None,
        }
    }
}

async fn pull(client: &Client, repository: String, project: &Project) -> Result<(), String> {
    let place = RegistryRecords::new(client, repository.clone(), &project.root);
    let exchange = place.pull().await.map_err(|error| error.to_string())?;
    for (tag, reason) in exchange.invalid {
        tell(&format!(
            "note: `{repository}:{tag}` in the registry is ignored: {reason}"
        ));
    }
    Ok(())
}
