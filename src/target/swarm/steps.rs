//! The steps of a release: observe, stage, switch, retire.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bollard::models::Task;
use futures_util::future::{join_all, try_join_all};
use jiff::Timestamp;
use tokio::time::{Instant, sleep};

use super::SwarmTarget;
use super::error::Error;
use super::manager::{AppService, Manager, is_leaving, is_running, replicas};
use super::progress::{StartProgress, failed_update, progress};
use super::service::{
    ReleaseServices, ServiceImage, StoredSecret, move_port, object_name, service_name,
};
use super::settings::SettingsConfigs;
use crate::ledger::RecordId;
use crate::pipeline::DockerError;
use crate::pipeline::docker::message;
use crate::store::{AppName, StoreId};
use crate::target::container_variables::ContainerVariables;
use crate::target::docker;
use crate::target::haproxy::{self, AppServer, StoreTraffic};
use crate::target::labels::{PROXY, PROXY_PLACE, StoreLabels};
use crate::target::ports::{ATTEMPTS, PortChooser};
use crate::target::{
    Observed, ReleaseSpec, ReleasedApp, Replica, Settings, Staged, StagedRelease, SwitchToken,
};

/// The label with the time at which a service got the traffic. To set it is a compare-and-swap, so a run
/// that is about to stop the service learns of it.
const SWITCHED: &str = "com.alokai.switched";

/// How long a node may take to pull an image and start a task.
const START_LIMIT: Duration = Duration::from_mins(10);

/// How long Swarm may search for a node.
const PLACE_LIMIT: Duration = Duration::from_secs(20);

/// How long a node may take to end a task beyond the time that the app has.
const STOP_LIMIT: Duration = Duration::from_secs(20);

/// The pause between two looks at tasks.
const PAUSE: Duration = Duration::from_millis(100);

/// What the start of an app needs to know.
struct Start<'a> {
    manager: &'a Manager,
    release: &'a ReleaseServices<'a>,
    /// The services of the store before.
    existing: &'a [AppService],
    ports: &'a Mutex<PortChooser>,
}

impl SwarmTarget {
    /// Connects to the manager, and starts the proxy if it does not run.
    pub(super) async fn check(&self) -> Result<(), Error> {
        let manager = self.manager().await?;
        self.proxy.change(|_| Ok(())).await?;
        self.follow_tasks(manager).await
    }

    /// Swarm may have started a task on another node, where it has another address.
    async fn follow_tasks(&self, manager: &Manager) -> Result<(), Error> {
        let table = self.proxy.table().await?;
        let known: BTreeMap<&str, &str> = table
            .servers()
            .map(|server| (server.name.as_str(), server.address.as_str()))
            .collect();
        let mut moved = BTreeMap::new();
        for service in manager.all_services().await? {
            let Some(known) = known.get(service.name.as_str()) else {
                continue;
            };
            if let Some(address) = manager.address(&service).await?
                && address != **known
            {
                moved.insert(service.name, address);
            }
        }
        if moved.is_empty() {
            return Ok(());
        }
        let follow = |table: &mut haproxy::RoutingTable| {
            let releases = table.releases.values_mut();
            for server in releases.flat_map(|release| &mut release.servers) {
                if let Some(address) = moved.remove(&server.name) {
                    server.address = address;
                }
            }
            Ok(())
        };
        Ok(self.proxy.change(follow).await?)
    }

    fn traffic<'a>(&'a self, owner: &'a StoreLabels, store: &'a StoreId) -> StoreTraffic<'a> {
        StoreTraffic {
            proxy: &self.proxy,
            owner,
            store,
        }
    }

    /// Fails if another proxy switches the traffic of the store. The record is a config of the swarm.
    async fn check_proxy(
        &self,
        manager: &Manager,
        owner: &StoreLabels,
        store: &StoreId,
    ) -> Result<(), Error> {
        let name = object_name("proxy", owner);
        let identity = self.proxy.identity().await?;
        let found = match manager.config(&name).await? {
            Some(found) => Some(found),
            None => {
                let mut labels = owner.map();
                labels.insert(PROXY.to_owned(), identity.clone());
                labels.insert(PROXY_PLACE.to_owned(), self.proxy.place());
                if manager.create_config(&name, labels, b"proxy").await? {
                    return Ok(());
                }
                manager.config(&name).await?
            }
        };
        let labels = found.and_then(|config| config.spec?.labels);
        let labels = labels.unwrap_or_default();
        let (recorded, place) = (labels.get(PROXY), labels.get(PROXY_PLACE));
        let removal = format!("docker config rm {name}");
        let traffic = self.traffic(owner, store);
        Ok(traffic.check_identity(&identity, recorded, place, removal)?)
    }

    pub(super) async fn observe_store(&self, store: &StoreId) -> Result<Observed, Error> {
        let (manager, owner) = (self.manager().await?, self.owner(store)?);
        self.check_proxy(manager, &owner, store).await?;
        let services = manager.app_services(&owner).await?;
        let (routed, table) = self.traffic(&owner, store).look().await?;
        let mut observed = Observed {
            active: routed.active.as_deref().and_then(|id| id.parse().ok()),
            since: routed.since,
            addresses: routed.hosts.iter().map(|it| self.proxy.url(it)).collect(),
            maintenance: routed.page.is_some(),
            token: haproxy::token(&routed),
            ..Observed::default()
        };
        let releases: BTreeSet<&RecordId> = services.iter().map(|it| &it.release).collect();
        for release in releases {
            if observed.active.as_ref() == Some(release) {
                continue;
            }
            let mut own = services.iter().filter(|it| it.release == *release);
            if own.any(AppService::is_wanted) {
                let known = table.releases.get(release.as_str());
                let host = known.and_then(|known| known.host.as_ref());
                observed.staged.push(StagedRelease {
                    release: release.clone(),
                    address: host.map(|host| self.proxy.url(host)),
                });
            } else {
                observed.kept.push(release.clone());
            }
        }
        Ok(observed)
    }

    pub(super) async fn stage_release(&self, spec: &ReleaseSpec) -> Result<Staged, Error> {
        let (manager, owner) = (self.manager().await?, self.owner(&spec.store)?);
        self.check_proxy(manager, &owner, &spec.store).await?;
        let network = format!("alokai-{}-swarm", owner.name());
        manager.network(&network, &owner).await?;
        let pulls = spec.apps.iter().map(|app| self.image(manager, app));
        let images = try_join_all(pulls).await?;
        let existing = manager.app_services(&owner).await?;
        sweep(manager, &owner, &existing, &spec.id).await?;
        let public = spec.hosts.first().map(|host| self.proxy.url(host));
        let release = ReleaseServices {
            spec,
            owner: &owner,
            network: &network,
            variables: ContainerVariables {
                spec,
                public: public.unwrap_or_default(),
                settings: self.settings_of(manager, &owner, spec).await?,
            },
        };
        let ports = Mutex::new(PortChooser::new(manager.ports().await?));
        let start = Start {
            manager,
            release: &release,
            existing: &existing,
            ports: &ports,
        };
        let starts = spec.apps.iter().zip(&images);
        let starts = starts.map(|(app, image)| self.start_app(&start, app, image));
        let addresses = try_join_all(starts).await?;
        let started = || spec.apps.iter().zip(&addresses);
        let servers = started().map(|(app, address)| AppServer {
            app,
            name: service_name(spec, app),
            address: address.clone(),
        });
        let traffic = self.traffic(&owner, &spec.store);
        let address = traffic.stage(spec, servers.collect()).await?;
        let replicas = started().map(|(app, address)| Replica {
            app: app.app.clone(),
            address: format!("http://{address}"),
        });
        Ok(Staged {
            replicas: replicas.collect(),
            address,
        })
    }

    /// The image of an app. The manager pulls it, so that a missing image is known before a service
    /// exists, and tells what it starts.
    async fn image(&self, manager: &Manager, app: &ReleasedApp) -> Result<ServiceImage, Error> {
        let services = &self.context.services;
        let engine = &manager.engine;
        let name = engine.pull(&app.reference, &app.digest, services).await?;
        let found = engine.docker.inspect_image(&name).await;
        let found = found.map_err(|error| DockerError::Request {
            doing: format!("inspect the image `{name}`"),
            message: message(&error),
        })?;
        let config = found.config.unwrap_or_default();
        let mut command = config.entrypoint.unwrap_or_default();
        command.extend(config.cmd.unwrap_or_default());
        Ok(ServiceImage { name, command })
    }

    async fn settings_of(
        &self,
        manager: &Manager,
        owner: &StoreLabels,
        spec: &ReleaseSpec,
    ) -> Result<Settings, Error> {
        let Some(version) = &spec.settings else {
            return Ok(Settings::default());
        };
        let settings = SettingsConfigs {
            manager,
            owner,
            store: &spec.store,
            folder: self.proxy.folder(),
        };
        let missing = || Error::SettingsMissing {
            store: spec.store.clone(),
            version: version.clone(),
        };
        settings.read(version).await?.ok_or_else(missing)
    }

    /// Makes an app run. Returns its address and port.
    async fn start_app(
        &self,
        start: &Start<'_>,
        app: &ReleasedApp,
        image: &ServiceImage,
    ) -> Result<String, Error> {
        let manager = start.manager;
        let name = service_name(start.release.spec, app);
        let known = start.existing.iter().find(|service| service.name == name);
        let mut earlier = BTreeSet::new();
        let id = match known {
            None => self.create(start, app, image).await?,
            Some(service) => {
                if !service.is_wanted() {
                    earlier = ids(&manager.tasks(&service.id).await?);
                    let run = |spec: &mut _| set_replicas(spec, 1);
                    manager.update(service, run).await?;
                }
                service.id.clone()
            }
        };
        let mut last = String::new();
        for _ in 0..ATTEMPTS {
            let service = manager.service(&id).await?;
            let service = service.ok_or_else(|| Error::Changed {
                service: name.clone(),
            })?;
            match await_start(manager, &service, app, &earlier).await? {
                Ok(address) => return Ok(address),
                Err(message) => last = message,
            }
            earlier = ids(&manager.tasks(&id).await?);
            let port = choose(start.ports);
            manager
                .update(&service, |spec| move_port(spec, port))
                .await?;
        }
        Err(Error::Start {
            service: name,
            message: last,
        })
    }

    async fn create(
        &self,
        start: &Start<'_>,
        app: &ReleasedApp,
        image: &ServiceImage,
    ) -> Result<String, Error> {
        let (manager, release) = (start.manager, start.release);
        let secret = match release.secret_text(app)? {
            None => None,
            Some(text) => {
                let name = release.secret_name(app);
                let id = manager.secret(&name, release.labels(app), &text).await?;
                Some(StoredSecret { id, name })
            }
        };
        let body = release.body(app, image, secret, choose(start.ports));
        let services = &self.context.services;
        let created = manager.create(body, &image.name, services).await?;
        created.ok_or_else(|| Error::Foreign {
            kind: "service",
            name: service_name(release.spec, app),
        })
    }

    /// Gives the traffic to a release. False if the traffic has moved since the token was made.
    pub(super) async fn switch_to(
        &self,
        spec: &ReleaseSpec,
        expected: &SwitchToken,
    ) -> Result<bool, Error> {
        let (manager, owner) = (self.manager().await?, self.owner(&spec.store)?);
        self.check_proxy(manager, &owner, &spec.store).await?;
        let traffic = self.traffic(&owner, &spec.store);
        let mut services = manager.app_services(&owner).await?;
        services.retain(|service| service.release == spec.id);
        let mut running: BTreeSet<&AppName> = BTreeSet::new();
        for service in &services {
            let tasks = manager.tasks(&service.id).await?;
            if service.is_wanted() && tasks.iter().any(is_running) {
                running.insert(&service.app);
            }
        }
        let wanted = spec.apps.iter().map(|app| &app.app);
        let mut wanted = wanted.chain(services.iter().map(|service| &service.app));
        if let Some(app) = wanted.find(|app| !running.contains(app)) {
            return Err(traffic.not_staged(&spec.id, app.as_str()).into());
        }
        let (routed, _) = traffic.look().await?;
        if haproxy::token(&routed) != *expected {
            return Ok(false);
        }
        let now = Timestamp::now().to_string();
        let mark = services.iter().map(|service| {
            manager.update(service, |spec| {
                let labels = spec.labels.get_or_insert_default();
                labels.insert(SWITCHED.to_owned(), now.clone());
            })
        });
        try_join_all(mark).await?;
        Ok(traffic.switch(spec, expected).await?)
    }

    /// Stops a release without traffic.
    pub(super) async fn stop_release(
        &self,
        store: &StoreId,
        release: &RecordId,
        kept: bool,
    ) -> Result<(), Error> {
        let (manager, owner) = (self.manager().await?, self.owner(store)?);
        self.check_proxy(manager, &owner, store).await?;
        let mut services = manager.app_services(&owner).await?;
        services.retain(|service| service.release == *release);
        self.traffic(&owner, store).leave(release).await?;
        let stopping = services.iter().map(|service| async {
            stop(manager, service).await?;
            if kept {
                return Ok(());
            }
            remove(manager, service).await
        });
        let stopped: Result<(), Error> = join_all(stopping).await.into_iter().collect();
        stopped?;
        if !kept {
            for (id, of) in manager.secrets(&owner).await? {
                if of == release.as_str() {
                    manager.remove_secret(&id).await?;
                }
            }
        }
        Ok(())
    }
}

/// Removes the secrets of releases that have no service. A run that was killed may leave them.
async fn sweep(
    manager: &Manager,
    owner: &StoreLabels,
    services: &[AppService],
    wanted: &RecordId,
) -> Result<(), Error> {
    for (id, release) in manager.secrets(owner).await? {
        let mut known = services.iter().map(|service| &service.release);
        let is_used = known.any(|known| known.as_str() == release);
        if !is_used && release != wanted.as_str() {
            manager.remove_secret(&id).await?;
        }
    }
    Ok(())
}

/// Waits until an app has started: its address and port, or the message that its port is taken.
async fn await_start(
    manager: &Manager,
    service: &AppService,
    app: &ReleasedApp,
    earlier: &BTreeSet<String>,
) -> Result<Result<String, String>, Error> {
    let name = || service.name.clone();
    let started = Instant::now();
    let mut unplaced: Option<Instant> = None;
    loop {
        let tasks = manager.tasks(&service.id).await?;
        let own = tasks.iter().filter(|task| {
            let id = task.id.as_deref().unwrap_or_default();
            !earlier.contains(id)
        });
        let mut is_placed = true;
        let state = match progress(own) {
            StartProgress::Started(task) => {
                return Ok(Ok(manager.address_of(task, service.port).await?));
            }
            StartProgress::PortTaken(message) => return Ok(Err(message)),
            StartProgress::ImageMissing(message) => {
                return Err(docker::Error::ImageMissing {
                    reference: app.reference.clone(),
                    digest: app.digest.clone(),
                    message,
                }
                .into());
            }
            StartProgress::Refused(message) => {
                return Err(Error::Start {
                    service: name(),
                    message,
                });
            }
            StartProgress::Unplaced(message) => {
                is_placed = false;
                let since = *unplaced.get_or_insert_with(Instant::now);
                if since.elapsed() > PLACE_LIMIT {
                    return Err(Error::NoNode {
                        service: name(),
                        message,
                    });
                }
                message
            }
            StartProgress::Waits(state) => state,
        };
        if is_placed {
            unplaced = None;
        }
        // An update of a person, before this start, does not matter.
        let now = manager.service(&service.id).await?;
        let update = now.and_then(|now| now.update);
        if update != service.update
            && let Some((state, message)) = failed_update(update.as_ref())
        {
            return Err(Error::Update {
                service: name(),
                state,
                message,
            });
        }
        if started.elapsed() > START_LIMIT {
            return Err(Error::Slow {
                service: name(),
                seconds: START_LIMIT.as_secs(),
                state,
            });
        }
        sleep(PAUSE).await;
    }
}

/// Ends the task of a service. Swarm does it by itself, a few seconds later.
async fn stop(manager: &Manager, service: &AppService) -> Result<(), Error> {
    if service.is_wanted() {
        let end = |spec: &mut _| set_replicas(spec, 0);
        manager.update(service, end).await?;
    }
    Ok(())
}

/// Removes a service whose task ends. The manager of Docker 20.10 crashes, with the whole engine, if a
/// service is removed at the moment in which Swarm removes one of its tasks, so that is waited for. A node
/// that does not answer is not waited for: it ends the task when it answers again.
async fn remove(manager: &Manager, service: &AppService) -> Result<(), Error> {
    let container = service.spec.task_template.as_ref();
    let container = container.and_then(|task| task.container_spec.as_ref());
    let grace = container.and_then(|it| it.stop_grace_period);
    let grace = Duration::from_nanos(grace.and_then(|it| it.try_into().ok()).unwrap_or_default());
    let end = Instant::now() + grace + STOP_LIMIT;
    while Instant::now() < end {
        let tasks = manager.tasks(&service.id).await?;
        if !tasks.iter().any(is_leaving) {
            break;
        }
        sleep(PAUSE).await;
    }
    manager.remove(service).await
}

fn set_replicas(spec: &mut bollard::models::ServiceSpec, count: i64) {
    spec.mode = Some(replicas(count));
}

fn ids(tasks: &[Task]) -> BTreeSet<String> {
    tasks.iter().filter_map(|task| task.id.clone()).collect()
}

fn choose(ports: &Mutex<PortChooser>) -> u16 {
    let mut ports = ports.lock().unwrap_or_else(PoisonError::into_inner);
    ports.choose()
}
