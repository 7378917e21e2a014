//! The records of a command that makes something live. Those of other machines are fetched before each
//! decision, because a pin or a newer release can be known to another machine only.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::{StreamExt, stream};

use super::shared_records::{SharedPlace, fetch, send};
use crate::config::Project;
use crate::ledger::{FolderError, RecordFolder, RecordSet, StoredRecord};
use crate::pipeline::Services;
use crate::plan::{self, DestinationPlan};
use crate::release::Records;
use crate::store::StoreId;

/// How long a registry may take while the lock of a store is held.
const TIMEOUT: Duration = Duration::from_secs(20);

/// Stores whose records are fetched at the same time.
const STORES_AT_ONCE: usize = 8;

/// The records of this project, and those beside its images.
pub struct LiveRecords {
    folder: RecordFolder,
    services: Arc<Services>,
    destination: Option<DestinationPlan>,
    repositories: BTreeMap<StoreId, String>,
    /// The opened destination, once it exists. An image layout keeps its parsed index, which all stores read.
    place: Mutex<Option<Arc<SharedPlace>>>,
    has_warned: AtomicBool,
}

impl LiveRecords {
    /// The records beside the images of a destination. Nothing is requested yet.
    pub fn new(
        project: &Project,
        destination: Option<&DestinationPlan>,
        services: Arc<Services>,
    ) -> Self {
        let stores = project.stores.deployables();
        let repositories = stores.filter_map(|store| {
            let repository = plan::record_repository(project, store)?;
            Some((store.id.clone(), repository))
        });
        Self {
            folder: RecordFolder::of_project(&project.root),
            services,
            destination: destination.cloned(),
            repositories: repositories.collect(),
            place: Mutex::default(),
            has_warned: AtomicBool::new(false),
        }
    }

    /// Fetches the records of these stores before anything is decided.
    pub async fn fetch_all(&self, stores: impl Iterator<Item = &StoreId>) {
        let fetched = stream::iter(stores).map(|store| self.fetch(store));
        fetched
            .buffer_unordered(STORES_AT_ONCE)
            .collect::<()>()
            .await;
    }

    /// The place beside the images. None for a layout that does not exist yet.
    async fn place(
        &self,
        destination: &DestinationPlan,
    ) -> Result<Option<Arc<SharedPlace>>, String> {
        let opened = || self.place.lock().unwrap_or_else(PoisonError::into_inner);
        let known = opened().clone();
        if known.is_some() {
            return Ok(known);
        }
        let place = SharedPlace::open(destination, &self.services).await?;
        let place = place.map(Arc::new);
        opened().clone_from(&place);
        Ok(place)
    }

    /// Runs an exchange until it ends, the time is over, or the user interrupts it.
    async fn limited<T>(
        &self,
        exchange: impl Future<Output = Result<T, String>>,
    ) -> Result<(), String> {
        tokio::select! {
            biased;
            () = self.services.interrupt.stopping() => Ok(()),
            ended = exchange => ended.map(drop),
            () = tokio::time::sleep(TIMEOUT) => {
                Err(format!("no response within {} s", TIMEOUT.as_secs()))
            }
        }
    }
}

#[async_trait(?Send)]
impl Records for LiveRecords {
    fn append(&self, record: &StoredRecord) -> Result<(), FolderError> {
        self.folder.append(record)
    }

    fn read(&self) -> Result<Arc<RecordSet>, FolderError> {
        Ok(self.folder.read()?.0)
    }

    async fn fetch(&self, store: &StoreId) {
        let place = self.destination.as_ref().zip(self.repositories.get(store));
        let Some((destination, repository)) = place else {
            return;
        };
        let fetching = async {
            match self.place(destination).await? {
                Some(place) => fetch(&self.folder, &place, (store, repository)).await,
                None => Ok(()),
            }
        };
        if let Err(reason) = self.limited(fetching).await
            && !self.has_warned.swap(true, Ordering::Relaxed)
        {
            self.services.events.notice(format!(
                    "records of other machines could not be read from `{}`: pins and newer commits are not known: {reason}",
                    destination.name()
                ));
        }
    }

    /// The end of the command sends the records again and reports an error.
    async fn send(&self, store: &StoreId) {
        let place = self.destination.as_ref().zip(self.repositories.get(store));
        let Some((destination, repository)) = place else {
            return;
        };
        let stores = [(store.clone(), repository.clone())];
        let sending = async {
            match self.place(destination).await? {
                Some(place) => send(&self.folder, &place, &stores).await.map(drop),
                None => Ok(()),
            }
        };
        let _ = self.limited(sending).await;
    }
}
