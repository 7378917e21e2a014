//! The steps of a release: observe, stage, switch, retire.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::time::Duration;

use futures_util::future::{join_all, try_join_all};
use jiff::Timestamp;
use tokio::time::{Instant, sleep};

use super::SwarmTarget;
use super::error::Error;
use super::manager::{AppService, Manager, is_leaving, is_running, replicas};
use super::service::{ReleaseServices, object_name, service_name};
use super::settings::SealedKind;
use super::start::ServiceStart;
use crate::config::DataSection;
use crate::ledger::RecordId;
use crate::store::{AppName, StoreId, TargetKind};
use crate::target::container_variables::{ContainerVariables, PublicAddress};
use crate::target::docker::data::{StoreData, default_volume};
use crate::target::docker::engine::check_labels;
use crate::target::haproxy::{self, AppServer, StoreTraffic};
use crate::target::labels::StoreLabels;
use crate::target::ports::PortChooser;
use crate::target::{Observed, ReleaseSpec, Replica, Settings, Staged, StagedRelease, SwitchToken};

/// The label with the time at which a service got the traffic. Setting it changes the version of the service,
/// so another run that stops the service at the same time fails.
const SWITCHED: &str = "com.alokai.switched";

/// How long a node may take to end a task beyond the time that the app has.
const STOP_LIMIT: Duration = Duration::from_secs(20);

/// The pause between two requests for tasks.
pub(super) const PAUSE: Duration = Duration::from_millis(100);

impl SwarmTarget {
    /// Connects to the manager, checks the stores of the run, and starts the proxy if it does not run.
    pub(super) async fn check(&self) -> Result<(), Error> {
        let manager = self.manager().await?;
        for store in self.context.planned_stores(TargetKind::Swarm) {
            let owner = self.owner(&store.id)?;
            check_owner(manager, &owner).await?;
            self.check_proxy(manager, &owner, &store.id).await?;
            let others = self.context.stores_at(TargetKind::Swarm);
            self.traffic(&owner, &store.id).check_names(others).await?;
        }
        haproxy::check_paths(&self.context.project)?;
        if self.context.examines {
            return Ok(());
        }
        self.proxy.change(|_| Ok(())).await?;
        if let Some(section) = &self.context.project.settings.deploy.data
            && let Some(notice) = data_of_nodes(section, manager.nodes().await?)
        {
            self.context.services.events.notice(notice);
        }
        self.follow_tasks(manager).await
    }

    /// Corrects addresses in the table: Swarm may have started a task again on another node.
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

    pub(super) fn traffic<'a>(
        &'a self,
        owner: &'a StoreLabels,
        store: &'a StoreId,
    ) -> StoreTraffic<'a> {
        StoreTraffic {
            proxy: &self.proxy,
            project: &self.context.project,
            owner,
            store,
        }
    }

    /// Fails if another proxy switches the traffic of the store. A config of the swarm names the proxy, and is
    /// only read.
    pub(super) async fn check_proxy(
        &self,
        manager: &Manager,
        owner: &StoreLabels,
        store: &StoreId,
    ) -> Result<(), Error> {
        let name = object_name("proxy", owner);
        let Some(config) = manager.config(&name).await? else {
            return Ok(());
        };
        let labels = config.spec.and_then(|spec| spec.labels);
        let labels = labels.unwrap_or_default();
        let removal = format!("docker config rm {name}");
        let traffic = self.traffic(owner, store);
        Ok(traffic.check_record(&labels, removal).await?)
    }

    /// Records that this proxy switches the traffic of the store. Fails if another one does.
    async fn bind_proxy(
        &self,
        manager: &Manager,
        owner: &StoreLabels,
        store: &StoreId,
    ) -> Result<(), Error> {
        let name = object_name("proxy", owner);
        if manager.config(&name).await?.is_none() {
            let labels = self.traffic(owner, store).record().await?;
            // Another run may create it at the same time.
            manager.create_config(&name, labels, b"proxy").await?;
        }
        self.check_proxy(manager, owner, store).await
    }

    /// The release that has the traffic, even if HAProxy does not run.
    pub(super) async fn active(
        &self,
        manager: &Manager,
        owner: &StoreLabels,
        store: &StoreId,
    ) -> Result<Option<RecordId>, Error> {
        self.check_proxy(manager, owner, store).await?;
        let (routed, _) = self.traffic(owner, store).look().await?;
        Ok(routed.active.and_then(|id| id.parse().ok()))
    }

    pub(super) async fn observe_store(&self, store: &StoreId) -> Result<Observed, Error> {
        let (manager, owner) = (self.manager().await?, self.owner(store)?);
        self.check_proxy(manager, &owner, store).await?;
        let services = manager.app_services(&owner).await?;
        let (routed, table) = self.traffic(&owner, store).observe().await?;
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
        let public = self.traffic(&owner, &spec.store);
        let public = public.public_address(spec).await?;
        self.bind_proxy(manager, &owner, &spec.store).await?;
        haproxy::check_release(spec)?;
        let network = network(&owner);
        manager.network(&network, &owner).await?;
        let pulls = spec.apps.iter().map(|app| self.image(manager, app));
        let images = try_join_all(pulls).await?;
        let existing = manager.app_services(&owner).await?;
        sweep(manager, &owner, &existing, &spec.id).await?;
        let section = self.context.project.settings.deploy.data.as_ref();
        let data = section.map(|section| StoreData {
            section,
            owner: &owner,
        });
        if let Some(data) = &data {
            data.prepare(&manager.engine).await?;
        }
        let release = ReleaseServices {
            spec,
            owner: &owner,
            network: &network,
            variables: ContainerVariables {
                spec,
                public: PublicAddress::Store(public.unwrap_or_default()),
                settings: self.settings_of(manager, &owner, spec).await?,
                data: section.map(|section| section.path.as_str()),
            },
            data,
        };
        let ports = Mutex::new(PortChooser::new(manager.ports().await?));
        let start = ServiceStart {
            manager,
            release: &release,
            existing: &existing,
            ports: &ports,
        };
        if let Some(original) = spec.copy_of.as_ref().filter(|_| start.has_lost_values()) {
            let events = &self.context.services.events;
            events.notice(spec.without_original(original));
        }
        let env = self.sealed(SealedKind::Env, manager, &owner, &spec.store);
        env.add(&spec.id, start.hidden_values()).await?;
        let starts = spec.apps.iter().zip(&images);
        let starts = starts.map(|(app, image)| self.start_app(&start, app, image));
        // An abandoned request could still create a service later, so all requests are awaited.
        let addresses: Result<Vec<String>, Error> = join_all(starts).await.into_iter().collect();
        let addresses = addresses?;
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

    async fn settings_of(
        &self,
        manager: &Manager,
        owner: &StoreLabels,
        spec: &ReleaseSpec,
    ) -> Result<Settings, Error> {
        let Some(version) = &spec.settings else {
            return Ok(Settings::default());
        };
        let settings = self.sealed(SealedKind::Settings, manager, owner, &spec.store);
        let missing = || Error::SettingsMissing {
            store: spec.store.clone(),
            version: version.clone(),
        };
        settings.read(version).await?.ok_or_else(missing)
    }

    /// Gives the traffic to a release. False if the traffic has moved since the token was made.
    pub(super) async fn switch_to(
        &self,
        spec: &ReleaseSpec,
        expected: &SwitchToken,
    ) -> Result<bool, Error> {
        let (manager, owner) = (self.manager().await?, self.owner(&spec.store)?);
        self.bind_proxy(manager, &owner, &spec.store).await?;
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
            return Err(traffic.not_staged(&spec.id, app).into());
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
        let services = manager.app_services(&owner).await?;
        let (services, others): (Vec<_>, Vec<_>) = services
            .into_iter()
            .partition(|service| service.release == *release);
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
            let own: BTreeSet<&str> = services.iter().flat_map(AppService::secret_ids).collect();
            let used: BTreeSet<&str> = others.iter().flat_map(AppService::secret_ids).collect();
            for (id, of) in manager.secrets(&owner).await? {
                let is_own = of == release.as_str() || own.contains(id.as_str());
                if is_own && !used.contains(id.as_str()) {
                    manager.remove_secret(&id).await?;
                }
            }
            let left: BTreeSet<&str> = services.iter().filter_map(AppService::env_of).collect();
            let used: BTreeSet<&str> = others.iter().filter_map(AppService::env_of).collect();
            for (id, of) in manager.release_configs(&owner).await? {
                let is_own = of == release.as_str() || left.contains(of.as_str());
                if is_own && !used.contains(of.as_str()) {
                    manager.remove_config(&id).await?;
                }
            }
        }
        Ok(())
    }

    /// Ends the traffic of a store, and removes its services, their secrets and values of `.env` files, its
    /// network and the record of its proxy. Its data and settings stay. Returns its releases.
    pub(super) async fn end(&self, store: &StoreId) -> Result<Vec<RecordId>, Error> {
        let (manager, owner) = (self.manager().await?, self.owner(store)?);
        self.check_proxy(manager, &owner, store).await?;
        self.traffic(&owner, store).end().await?;
        let services = manager.app_services(&owner).await?;
        let ending = services.iter().map(|service| async {
            stop(manager, service).await?;
            remove(manager, service).await
        });
        let ended: Result<(), Error> = join_all(ending).await.into_iter().collect();
        ended?;
        for (id, _) in manager.secrets(&owner).await? {
            manager.remove_secret(&id).await?;
        }
        for (id, _) in manager.release_configs(&owner).await? {
            manager.remove_config(&id).await?;
        }
        let engine = &manager.engine;
        engine.remove_network(&network(&owner), &owner).await?;
        let record = manager.config(&object_name("proxy", &owner)).await?;
        if let Some(id) = record.and_then(|config| config.id) {
            manager.remove_config(&id).await?;
        }
        let releases = services.into_iter().map(|service| service.release);
        let releases: BTreeSet<RecordId> = releases.collect();
        Ok(releases.into_iter().collect())
    }
}

/// The network of a store.
fn network(owner: &StoreLabels) -> String {
    format!("alokai-{}-swarm", owner.name())
}

/// Fails if the network or the data volume that the store needs belongs to another store. Their names are
/// made of the project name and the store id with `-` between them, so two stores can need the same names.
async fn check_owner(manager: &Manager, owner: &StoreLabels) -> Result<(), Error> {
    let (network, volume) = (network(owner), default_volume(owner));
    let engine = &manager.engine;
    if let Some(labels) = engine.network_labels(&network).await? {
        check_labels("network", &network, &labels, owner)?;
    }
    if let Some(labels) = engine.volume_labels(&volume).await? {
        check_labels("volume", &volume, &labels, owner)?;
    }
    Ok(())
}

/// The notice that each of several nodes has its own volume for data. `nodes` is the number of nodes that run
/// tasks.
fn data_of_nodes(section: &DataSection, nodes: usize) -> Option<String> {
    let is_volume = section
        .source
        .as_ref()
        .is_none_or(|source| !source.starts_with('/'));
    (is_volume && nodes > 1).then(|| {
        format!(
            "each of the {nodes} nodes of the swarm has its own volume for `{}`, and apps may be unable to write to it on nodes other than the manager; set `deploy.data.source` to a folder that all nodes share, or `deploy.data` to `null`",
            section.path
        )
    })
}

/// Removes the secrets, and the values for output, that no service uses. A run that was killed may leave them.
async fn sweep(
    manager: &Manager,
    owner: &StoreLabels,
    services: &[AppService],
    wanted: &RecordId,
) -> Result<(), Error> {
    let used: BTreeSet<&str> = services.iter().flat_map(AppService::secret_ids).collect();
    for (id, release) in manager.secrets(owner).await? {
        if !used.contains(id.as_str()) && release != wanted.as_str() {
            manager.remove_secret(&id).await?;
        }
    }
    let used: BTreeSet<&str> = services.iter().filter_map(AppService::env_of).collect();
    for (id, release) in manager.release_configs(owner).await? {
        if !used.contains(release.as_str()) && release != wanted.as_str() {
            manager.remove_config(&id).await?;
        }
    }
    Ok(())
}

/// Requests the end of a service's task. Swarm ends the task a few seconds later.
async fn stop(manager: &Manager, service: &AppService) -> Result<(), Error> {
    if service.is_wanted() {
        let end = |spec: &mut _| set_replicas(spec, 0);
        manager.update(service, end).await?;
    }
    Ok(())
}

/// Removes a service whose task ends. The manager of Docker 20.10 crashes, with the whole engine, if a
/// service is removed at the moment in which Swarm removes one of its tasks. So this waits until the tasks
/// are removed, but not for a node that does not answer: it ends the task when it answers again.
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

/// Asks a service to run this many tasks.
pub(super) fn set_replicas(spec: &mut bollard::models::ServiceSpec, count: i64) {
    spec.mode = Some(replicas(count));
}

#[cfg(test)]
mod tests {
    use super::data_of_nodes;
    use crate::config::DataSection;

    #[test]
    fn volumes_of_several_nodes_are_named_before_the_first_build() {
        let mut section = DataSection {
            path: "/data".into(),
            source: None,
        };
        assert_eq!(data_of_nodes(&section, 1), None);
        assert!(data_of_nodes(&section, 2).unwrap().contains("`/data`"));
        section.source = Some("shops".into());
        assert!(data_of_nodes(&section, 2).is_some());
        section.source = Some("/srv/shops".into());
        assert_eq!(data_of_nodes(&section, 2), None);
    }
}
