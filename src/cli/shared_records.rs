//! The records of other machines, which lie beside the images: in the registry, and in image layouts.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::{StreamExt, stream};

use super::Error;
use super::arguments::AccessOptions;
use super::builds_transfer::failed;
use super::environment::{Environment, tell};
use super::events::Live;
use super::killed_runs::record_killed_runs;
use super::listing::plain;
use super::live_records::LiveRecords;
use super::services::services_without_run;
use crate::config::Project;
use crate::error::Error as AnyError;
use crate::ledger::{
    self, BuildRecord, Exchange, ImagePlace, LayoutPages, LogReference, RecordFolder, RecordPlace,
    RecordSet, SharedError, SharedRecords, StoredImage,
};
use crate::pipeline::{ProjectLock, Services};
use crate::plan::{self, DEFAULT_REGISTRY, DestinationPlan, LOCAL_REGISTRY};
use crate::store::{Store, StoreId};

/// The time limit of a registry. After it, a list has the records of this machine only.
const TIMEOUT: Duration = Duration::from_secs(20);

/// How long sending may take.
const SENDING_TIMEOUT: Duration = Duration::from_mins(1);

/// Stores whose records are read or sent at the same time.
const STORES_AT_ONCE: usize = 8;

/// Access to the records of other machines.
pub struct RegistryAccess {
    runtime: tokio::runtime::Runtime,
    services: Arc<Services>,
    /// The destination of the config, the environment or the options, and the layout of `--local`.
    destinations: Vec<DestinationPlan>,
    /// The tags of images, by the beginning of references, of the repositories that were read.
    images: Mutex<BTreeMap<String, BTreeSet<String>>>,
}

impl RegistryAccess {
    /// The registry of the config, the environment or the options. Nothing is requested yet.
    pub fn new(
        project: &Project,
        environment: &Environment,
        options: &AccessOptions,
    ) -> Result<Self, AnyError> {
        Self::with_password(project, environment, options, (options.password()?, None))
    }

    /// The same, with the password that was read before, and the events and the interruption of a run.
    pub fn with_password(
        project: &Project,
        environment: &Environment,
        options: &AccessOptions,
        (password, live): (Option<String>, Option<&Live>),
    ) -> Result<Self, AnyError> {
        let mut access = environment.access(options, password);
        let ca = project.settings.registry.ca.as_ref();
        access.trust.ca = ca.map(|ca| project.root.join(ca));
        let own = plan::destination_of(project, &environment.registry(options)).ok();
        if let Some(DestinationPlan::Registry { address, .. }) = &own {
            access.registry = Some(address.clone());
        }
        let local = DestinationPlan::new(&project.root, LOCAL_REGISTRY, false).ok();
        let mut destinations: Vec<_> = own.into_iter().chain(local).collect();
        destinations.dedup_by(|a, b| a.name() == b.name());
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
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
            destinations,
            images: Mutex::default(),
        })
    }

    /// The destination of images: that of the config, the environment or the options.
    pub fn destination(&self) -> Option<&DestinationPlan> {
        self.destinations.first()
    }

    /// Refuses to ask registries if the password would be sent without encryption.
    pub fn refuse_exposed(&self) -> Result<(), AnyError> {
        let mut places = self.destinations.iter();
        let refused = places.try_for_each(|it| self.services.refuse_exposed(it));
        refused.map_err(|error| failed(error.into()))
    }

    /// The images in a registry. `host` may have a path.
    pub fn images(&self, host: &str) -> Result<ImagePlace, AnyError> {
        self.refuse_exposed()?;
        let host = host.split('/').next().unwrap_or(host);
        let own = self.destinations.iter().find_map(|it| match it {
            DestinationPlan::Registry {
                address, host: own, ..
            } => (own.split('/').next() == Some(host)).then_some(address.as_str()),
            DestinationPlan::Layout { .. } => None,
        });
        let client = self.wait(self.services.client(own.unwrap_or(host)));
        let client = client.map_err(|error| failed(error.into()))?;
        Ok(ImagePlace::Registry(client))
    }

    /// Whether images are removed from the place of an image. A record of another machine may name any
    /// folder of that machine.
    pub fn may_remove_from(&self, image: &StoredImage) -> bool {
        let mut own = self.destinations.iter();
        image.folder().is_none() || own.any(|it| it.name() == image.place)
    }

    /// Whether records are exchanged with a destination. The registry of the console is used only with a
    /// login: a project without a registry may never have pushed to it.
    fn has_records_in(&self, destination: &DestinationPlan) -> bool {
        let DestinationPlan::Registry { address, host, .. } = destination else {
            return true;
        };
        let access = &self.services.access;
        if access.credentials.is_some() || host != DEFAULT_REGISTRY {
            return true;
        }
        // A credential helper that fails is an error of the exchange.
        let login = self.wait(access.logins().for_host(address));
        login.map_or(true, |login| login.is_some())
    }

    /// The records for a command that makes something live.
    pub fn live_records(&self, project: &Project) -> LiveRecords {
        let destination = self.destination().filter(|it| self.has_records_in(it));
        LiveRecords::new(project, destination, self.services())
    }

    /// Runs a future to its end.
    pub fn wait<F: Future>(&self, future: F) -> F::Output {
        self.runtime.block_on(future)
    }

    /// The services with the credentials for registries, and of targets that are asked outside of a run.
    pub fn services(&self) -> Arc<Services> {
        Arc::clone(&self.services)
    }

    /// Sends the records of a store after a command has written some. The next deploy sends them if
    /// they are not accepted now.
    pub fn share(&self, project: &Project, store: &StoreId) {
        let Some(destination) = self.destination() else {
            return;
        };
        self.share_with(project, destination, store);
    }

    /// The same, beside the images of this destination.
    pub fn share_with(&self, project: &Project, destination: &DestinationPlan, store: &StoreId) {
        if !self.has_records_in(destination) {
            return;
        }
        let stores = [store.to_string()];
        if let Err(reason) = self.send(project, destination, &stores) {
            tell(&format!(
                "note: the records of this command are only on this machine: {reason}"
            ));
        }
    }

    /// Sends the records that the registry does not have: of these stores, or of all. Returns how many
    /// records of each store were sent.
    pub fn push(
        &self,
        project: &Project,
        stores: &[String],
    ) -> Result<Vec<(StoreId, usize)>, AnyError> {
        let refused = |reason: String| AnyError::from(Error::NotSent { reason });
        let Some(destination) = self.destination() else {
            return Err(refused("no registry is configured".into()));
        };
        // Without a run, the runs that have no end were killed.
        if let Ok(lock) = ProjectLock::take_now(&project.root) {
            record_killed_runs(&project.root, &lock).map_err(ledger::Error::from)?;
        }
        self.send(project, destination, stores).map_err(refused)
    }

    fn send(
        &self,
        project: &Project,
        destination: &DestinationPlan,
        stores: &[String],
    ) -> Result<Vec<(StoreId, usize)>, String> {
        let is_wanted =
            |store: &&Store| stores.is_empty() || stores.iter().any(|id| id == store.id.as_str());
        let stores = project.stores.deployables().filter(is_wanted);
        let stores = stores.filter_map(|store| {
            let repository = plan::record_repository(project, store)?;
            Some((store.id.clone(), repository))
        });
        let stores: Vec<_> = stores.collect();
        let records = RecordFolder::of_project(&project.root);
        self.wait(async {
            let sending = async {
                match SharedPlace::open(destination, &self.services).await? {
                    Some(place) => send(&records, &place, &stores).await,
                    None => Ok(Vec::new()),
                }
            };
            let limited = tokio::time::timeout(SENDING_TIMEOUT, sending).await;
            limited.unwrap_or_else(|_| {
                Err(format!(
                    "no response within {} s",
                    SENDING_TIMEOUT.as_secs()
                ))
            })
        })
    }

    /// Reads the records that this machine does not have. A registry that is out of reach is told and
    /// is no error.
    pub fn pull(&self, project: &Project) {
        let stores = project.stores.deployables();
        let repositories = stores.filter_map(|store| plan::record_repository(project, store));
        let repositories: Vec<String> = repositories.collect();
        // A folder that cannot be read is an error of the command itself.
        let folder = RecordFolder::of_project(&project.root);
        let (here, _) = folder.read().unwrap_or_default();
        for destination in &self.destinations {
            let pulled = self.pull_from(&folder, destination, (&repositories, &here));
            if let Err(reason) = pulled {
                let place = destination.name();
                tell(&format!(
                    "note: records of other machines may be missing, because `{place}` cannot be read: {reason}"
                ));
            }
        }
    }

    fn pull_from(
        &self,
        folder: &RecordFolder,
        destination: &DestinationPlan,
        (repositories, here): (&[String], &RecordSet),
    ) -> Result<(), String> {
        if !self.has_records_in(destination) {
            return Ok(());
        }
        let pulling = async {
            let place = SharedPlace::open(destination, &self.services).await?;
            let Some(place) = place else { return Ok(()) };
            let mut pulled = stream::iter(repositories)
                .map(async |repository| {
                    let own = place.repository(repository);
                    let records = SharedRecords::new(place.of(&own), folder);
                    (repository, records.pull(here).await)
                })
                .buffer_unordered(STORES_AT_ONCE);
            while let Some((repository, pulled)) = pulled.next().await {
                let exchange = pulled.map_err(|error| reason(&error))?;
                let beginning = place.beginning(destination, repository);
                for (tag, reason) in &exchange.invalid {
                    tell(&format!(
                        "note: a record in `{beginning}:{tag}` is ignored: {}",
                        plain(reason)
                    ));
                }
                let mut images = self.images.lock().unwrap_or_else(PoisonError::into_inner);
                images.insert(beginning, exchange.images);
            }
            Ok(())
        };
        self.runtime.block_on(async {
            let limited = tokio::time::timeout(TIMEOUT, pulling).await;
            limited.unwrap_or_else(|_| Err(format!("no response within {} s", TIMEOUT.as_secs())))
        })
    }

    /// Whether an image of a build is missing where it was pushed, as far as [`Self::pull`] has seen. A
    /// place without any image of a repository counts too: a registry forgets empty repositories.
    pub fn is_gone(&self, build: &BuildRecord) -> bool {
        let images = self.images.lock().unwrap_or_else(PoisonError::into_inner);
        let mut references = build
            .apps
            .values()
            .filter_map(|app| app.reference.as_deref());
        references.any(|reference| {
            let Some((name, tag)) = reference.rsplit_once(':') else {
                return false;
            };
            images.get(name).is_some_and(|tags| !tags.contains(tag))
        })
    }

    /// Reads the log of a build, if the registry or a layout has it.
    pub fn fetch_log(&self, project: &Project, store: &StoreId, log: &LogReference) {
        let store = project.stores.get(store.as_str());
        let repository = store.and_then(|store| plan::record_repository(project, store));
        let Some(repository) = repository else { return };
        let folder = RecordFolder::of_project(&project.root);
        for destination in &self.destinations {
            let fetching = async {
                let place = SharedPlace::open(destination, &self.services).await?;
                let Some(place) = place else { return Ok(false) };
                let own = place.repository(&repository);
                let records = SharedRecords::new(place.of(&own), &folder);
                let fetched = records.fetch_log(log).await;
                fetched.map_err(|error| reason(&error))
            };
            match self.runtime.block_on(fetching) {
                Ok(true) => return,
                Ok(false) => {}
                Err(reason) => tell(&format!(
                    "note: `{}` cannot be read: {reason}",
                    destination.name()
                )),
            }
        }
    }
}

/// An opened place of records.
pub enum SharedPlace {
    Registry {
        client: oci_distribution::Client,
        /// The path between host and repository, such as `team/`; can be empty.
        path: String,
    },
    Layout(LayoutPages),
}

impl SharedPlace {
    /// Opens a place. None for a layout that does not exist.
    pub async fn open(
        destination: &DestinationPlan,
        services: &Services,
    ) -> Result<Option<Self>, String> {
        let exposed = services.refuse_exposed(destination);
        exposed.map_err(|error| error.to_string())?;
        match destination {
            DestinationPlan::Registry { address, host, .. } => {
                let client = services.client(address).await;
                let path = host.split_once('/').map(|(_, path)| format!("{path}/"));
                Ok(Some(Self::Registry {
                    client: client.map_err(|error| error.to_string())?,
                    path: path.unwrap_or_default(),
                }))
            }
            DestinationPlan::Layout { folder, .. } => {
                let pages = LayoutPages::open(folder).map_err(|error| reason(&error))?;
                Ok(pages.map(Self::Layout))
            }
        }
    }

    /// The full name of a repository in this place.
    fn repository(&self, repository: &str) -> String {
        match self {
            Self::Registry { path, .. } => format!("{path}{repository}"),
            Self::Layout(_) => repository.to_owned(),
        }
    }

    fn of<'a>(&'a self, repository: &'a str) -> RecordPlace<'a> {
        match self {
            Self::Registry { client, .. } => RecordPlace::Registry { client, repository },
            Self::Layout(layout) => RecordPlace::Layout { layout, repository },
        }
    }

    /// What references of images in a repository begin with.
    fn beginning(&self, destination: &DestinationPlan, repository: &str) -> String {
        let separator = match self {
            Self::Registry { .. } => '/',
            Self::Layout(_) => ':',
        };
        format!("{}{separator}{repository}", destination.name())
    }
}

/// Fetches the records of one store that this machine does not have, from its repository.
pub async fn fetch(
    folder: &RecordFolder,
    place: &SharedPlace,
    (store, repository): (&StoreId, &str),
) -> Result<(), String> {
    let own = place.repository(repository);
    // The set of all stores is not held while this waits: the next read adds to it, and would copy it.
    let here = folder.read().map_err(|error| reason(&error))?.0;
    let here = here.of_store(store);
    let records = SharedRecords::new(place.of(&own), folder);
    let pulled = records.pull(&here).await;
    pulled.map(drop).map_err(|error| reason(&error))
}

/// Sends the records of these stores, each with its repository, to a place. Returns how many records
/// of each store were sent. Fails with the reason if a store's records are refused; those of the other
/// stores are sent all the same.
pub async fn send(
    folder: &RecordFolder,
    place: &SharedPlace,
    stores: &[(StoreId, String)],
) -> Result<Vec<(StoreId, usize)>, String> {
    let (records, _) = folder.read().map_err(|error| reason(&error))?;
    let shared = stores.iter().map(|(store, repository)| {
        let shared = match place {
            SharedPlace::Registry { .. } => records.shared_of_store(store),
            SharedPlace::Layout(_) => records.of_folder_and_store(store),
        };
        (store, repository, shared)
    });
    let shared: Vec<_> = shared.collect();
    // Not held while this waits: the next read of another store adds to the set, and would copy it.
    drop(records);
    let mut sending = stream::iter(shared)
        .map(async |(store, repository, shared)| {
            let own = place.repository(repository);
            let exchange = exchange(place, &own, folder, &shared).await;
            (store, exchange)
        })
        .buffered(STORES_AT_ONCE);
    let (mut sent, mut failed) = (Vec::new(), None);
    while let Some((store, exchange)) = sending.next().await {
        match exchange {
            Ok(exchange) => sent.push((store.clone(), exchange.sent)),
            Err(error) => failed = failed.or(Some(format!("{store}: {}", reason(&error)))),
        }
    }
    drop(sending);
    if let SharedPlace::Layout(pages) = place {
        pages.write().map_err(|error| reason(&error))?;
    }
    if let Some(failed) = failed {
        return Err(failed);
    }
    folder.gather().map_err(|error| reason(&error))?;
    Ok(sent)
}

async fn exchange(
    place: &SharedPlace,
    repository: &str,
    folder: &RecordFolder,
    own: &RecordSet,
) -> Result<Exchange, SharedError> {
    let place = place.of(repository);
    SharedRecords::new(place, folder).exchange(own).await
}

/// An error with its causes, on one line.
fn reason(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
