//! The steps of a release: observe, stage, switch, drain, retire.

use std::collections::BTreeSet;

use futures_util::future::{join_all, try_join_all};

use super::DockerTarget;
use super::apps::{ReleaseContainers, container_name};
use super::data::{StoreData, default_volume};
use super::engine::{AppContainer, Engine, check_labels};
use super::error::Error;
use super::lock::Lock;
use super::recreate::recreate;
use super::settings::SettingsVolume;
use crate::ledger::RecordId;
use crate::plan::LocalPortPlan;
use crate::store::{AppName, StoreId, TargetKind, UnitId};
use crate::target::container_variables::{ContainerVariables, PublicAddress};
use crate::target::haproxy::{self, AppServer, Haproxy, RoutedStore, RoutingTable, StoreTraffic};
use crate::target::labels::StoreLabels;
use crate::target::ports::{PortChooser, socket_address};
use crate::target::{
    Drained, Observed, ReleaseSpec, Replica, Settings, Staged, StagedRelease, SwitchToken,
};

impl DockerTarget {
    /// Connects to the engine, checks the stores of the run, and starts the proxy if it does not run.
    pub(super) async fn check(&self) -> Result<(), Error> {
        let engine = self.engine().await?;
        let stores = self.context.planned_stores(TargetKind::Docker);
        for store in &stores {
            let owner = self.owner(&store.id)?;
            check_owner(engine, &owner).await?;
            self.check_proxy(engine, &owner, &store.id).await?;
            if let Some(proxy) = &self.proxy {
                let others = self.context.stores_at(TargetKind::Docker);
                let traffic = self.traffic(proxy, &owner, &store.id);
                traffic.check_names(others).await?;
            }
        }
        match &self.proxy {
            Some(proxy) => {
                haproxy::check_paths(&self.context.project)?;
                if self.context.examines {
                    return Ok(());
                }
                Ok(proxy.change(|_| Ok(())).await?)
            }
            None => Ok(()),
        }
    }

    /// Fails if another proxy switches the traffic of the store: its routes are not known here, so
    /// releases that seem to have no traffic cannot be stopped. The record is a volume of the engine, which is
    /// only read.
    async fn check_proxy(
        &self,
        engine: &Engine,
        owner: &StoreLabels,
        store: &StoreId,
    ) -> Result<(), Error> {
        let volume = proxy_volume(owner);
        let Some(labels) = engine.volume_labels(&volume).await? else {
            return Ok(());
        };
        check_labels("volume", &volume, &labels, owner)?;
        let Some(proxy) = &self.proxy else {
            // Its releases would be stopped while HAProxy shows them to visitors.
            return Err(Error::BehindProxy {
                store: store.clone(),
                volume,
            });
        };
        let removal = format!("docker volume rm {volume}");
        let traffic = self.traffic(proxy, owner, store);
        Ok(traffic.check_record(&labels, removal).await?)
    }

    /// Records that this proxy switches the traffic of the store. Fails if another one does.
    async fn bind_proxy(
        &self,
        engine: &Engine,
        owner: &StoreLabels,
        store: &StoreId,
    ) -> Result<(), Error> {
        // Checked first: if another proxy switches the traffic of the store, this one is not started.
        self.check_proxy(engine, owner, store).await?;
        let Some(proxy) = &self.proxy else {
            return Ok(());
        };
        let volume = proxy_volume(owner);
        let traffic = self.traffic(proxy, owner, store);
        let record = traffic.record().await?;
        let labels = engine.volume(&volume, owner, record).await?;
        let removal = format!("docker volume rm {volume}");
        Ok(traffic.check_record(&labels, removal).await?)
    }

    fn traffic<'a>(
        &'a self,
        proxy: &'a Haproxy,
        owner: &'a StoreLabels,
        store: &'a StoreId,
    ) -> StoreTraffic<'a> {
        StoreTraffic {
            proxy,
            project: &self.context.project,
            owner,
            store,
        }
    }

    pub(super) async fn observe_store(&self, store: &StoreId) -> Result<Observed, Error> {
        let (engine, owner) = (self.engine().await?, self.owner(store)?);
        self.check_proxy(engine, &owner, store).await?;
        let containers = engine.app_containers(&owner).await?;
        let (routed, table) = match &self.proxy {
            Some(proxy) => self.traffic(proxy, &owner, store).observe().await?,
            None => (without_proxy(&containers), RoutingTable::default()),
        };
        let mut observed = Observed {
            active: routed.active.as_deref().and_then(|id| id.parse().ok()),
            since: routed.since,
            addresses: self.addresses(store, &routed, &containers),
            maintenance: routed.page.is_some(),
            token: haproxy::token(&routed),
            ..Observed::default()
        };
        let releases: BTreeSet<&RecordId> = containers.iter().map(|it| &it.release).collect();
        for release in releases {
            if observed.active.as_ref() == Some(release) {
                continue;
            }
            let own = || containers.iter().filter(|it| it.release == *release);
            if own().any(|container| container.is_running) {
                let known = table.releases.get(release.as_str());
                let host = known.and_then(|known| known.host.as_ref());
                let proxy = self.proxy.as_ref();
                observed.staged.push(StagedRelease {
                    release: release.clone(),
                    address: host.zip(proxy).map(|(host, proxy)| proxy.url(host)),
                });
            } else if own().any(|container| container.has_run) {
                observed.kept.push(release.clone());
            }
        }
        Ok(observed)
    }

    /// The release that has the traffic, even if HAProxy does not run.
    pub(super) async fn active(
        &self,
        engine: &Engine,
        owner: &StoreLabels,
        store: &StoreId,
    ) -> Result<Option<RecordId>, Error> {
        self.check_proxy(engine, owner, store).await?;
        let routed = match &self.proxy {
            Some(proxy) => self.traffic(proxy, owner, store).look().await?.0,
            None => without_proxy(&engine.app_containers(owner).await?),
        };
        Ok(routed.active.and_then(|id| id.parse().ok()))
    }

    fn addresses(
        &self,
        store: &StoreId,
        routed: &RoutedStore,
        containers: &[AppContainer],
    ) -> Vec<String> {
        if let Some(proxy) = &self.proxy {
            return routed.hosts.iter().map(|host| proxy.url(host)).collect();
        }
        let frontend = containers.iter().find(|container| {
            let app = self.context.project.app(&container.app);
            app.is_some_and(|app| app.kind.framework().is_some())
        });
        let frontend = frontend.or(containers.first());
        let address = frontend.map(|container| self.published(store, &container.app));
        address.into_iter().collect()
    }

    /// The address of an app without a proxy.
    fn published(&self, store: &StoreId, app: &AppName) -> String {
        let project = &self.context.project;
        let address = &project.settings.deploy.docker.address;
        let port = self.fixed_port(store, app);
        format!("http://{}", socket_address(address, port))
    }

    pub(super) fn fixed_port(&self, store: &StoreId, app: &AppName) -> u16 {
        LocalPortPlan::new(&self.context.project).of(&UnitId {
            store: store.clone(),
            app: app.clone(),
        })
    }

    pub(super) async fn stage_release(&self, spec: &ReleaseSpec) -> Result<Staged, Error> {
        let (engine, owner) = (self.engine().await?, self.owner(&spec.store)?);
        let public = self.public_address(&owner, spec).await?;
        self.bind_proxy(engine, &owner, &spec.store).await?;
        if self.proxy.is_some() {
            haproxy::check_release(spec)?;
        }
        // What a killed run has left only uses disk space.
        let _ = sweep(engine, &owner, spec).await;
        let network = network(&owner);
        let containers = engine.app_containers(&owner).await?;
        let spec = &*self.with_kept_values(engine, &containers, spec).await?;
        engine.network(&network, &owner).await?;
        let services = &self.context.services;
        let pulls = spec
            .apps
            .iter()
            .map(|app| engine.pull(&app.reference, &app.digest, services));
        let images = try_join_all(pulls).await?;
        let section = self.context.project.settings.deploy.data.as_ref();
        let owner = &owner;
        let data = section.map(|section| StoreData { section, owner });
        if let Some(data) = &data {
            data.prepare(engine).await?;
        }
        let release = ReleaseContainers {
            data,
            spec,
            owner,
            network: &network,
            address: &self.context.project.settings.deploy.docker.address,
            variables: ContainerVariables {
                spec,
                public,
                settings: self.settings_of(engine, owner, spec).await?,
                data: section.map(|section| section.path.as_str()),
            },
            restarts: self.proxy.is_none(),
        };
        let mut ports = PortChooser::new(engine.ports().await?);
        let mut published = Vec::new();
        for (app, image) in spec.apps.iter().zip(&images) {
            published.push(
                self.run_app(engine, &release, app, image, &mut ports)
                    .await?,
            );
        }
        let Some(proxy) = &self.proxy else {
            return Ok(Staged::default());
        };
        let servers = spec.apps.iter().zip(&published);
        let servers = servers.map(|(app, port)| AppServer {
            app,
            name: container_name(spec, app),
            address: socket_address(release.address, port),
        });
        let address = self
            .traffic(proxy, owner, &spec.store)
            .stage(spec, servers.collect())
            .await?;
        let replicas = spec.apps.iter().zip(&published).map(|(app, port)| Replica {
            app: app.app.clone(),
            address: format!("http://{}", socket_address(release.address, port)),
        });
        Ok(Staged {
            replicas: replicas.collect(),
            address,
        })
    }

    async fn public_address(
        &self,
        owner: &StoreLabels,
        spec: &ReleaseSpec,
    ) -> Result<PublicAddress, Error> {
        let Some(proxy) = &self.proxy else {
            let apps = spec.apps.iter().map(|app| app.app.clone());
            let apps = apps.map(|app| (app.clone(), self.published(&spec.store, &app)));
            return Ok(PublicAddress::Apps(apps.collect()));
        };
        let traffic = self.traffic(proxy, owner, &spec.store);
        let public = traffic.public_address(spec).await?;
        Ok(PublicAddress::Store(public.unwrap_or_default()))
    }

    async fn settings_of(
        &self,
        engine: &Engine,
        owner: &StoreLabels,
        spec: &ReleaseSpec,
    ) -> Result<Settings, Error> {
        let Some(version) = &spec.settings else {
            return Ok(Settings::default());
        };
        let volume = SettingsVolume { engine, owner };
        let settings = volume.read(version).await?;
        settings.ok_or_else(|| Error::SettingsMissing {
            store: spec.store.clone(),
            version: version.clone(),
            volume: volume.name(),
        })
    }

    /// Gives the traffic to a release. False if the traffic has moved since the token was made.
    pub(super) async fn switch_to(
        &self,
        spec: &ReleaseSpec,
        expected: &SwitchToken,
    ) -> Result<bool, Error> {
        let (engine, owner) = (self.engine().await?, self.owner(&spec.store)?);
        let Some(proxy) = &self.proxy else {
            self.stage_release(spec).await?;
            return recreate(engine, &owner, &spec.id, expected).await;
        };
        self.bind_proxy(engine, &owner, &spec.store).await?;
        let containers = engine.app_containers(&owner).await?;
        let own = containers.iter().filter(|it| it.release == spec.id);
        let stopped = own.clone().find(|container| !container.is_running);
        let missing = spec.apps.iter().map(|app| &app.app);
        let missing = missing.chain(stopped.map(|container| &container.app));
        let started: Vec<&AppContainer> = own.clone().collect();
        let running: BTreeSet<&AppName> = own
            .filter(|container| container.is_running)
            .map(|container| &container.app)
            .collect();
        let traffic = self.traffic(proxy, &owner, &spec.store);
        if let Some(app) = missing.into_iter().find(|app| !running.contains(app)) {
            return Err(traffic.not_staged(&spec.id, app).into());
        }
        try_join_all(started.iter().map(|it| engine.keep_running(&it.id))).await?;
        Ok(traffic.switch(spec, expected).await?)
    }

    pub(super) async fn open_requests(&self, release: &RecordId) -> Result<Drained, Error> {
        let Some(proxy) = &self.proxy else {
            return Ok(Drained::Unknown);
        };
        Ok(haproxy::drained(proxy, release).await?)
    }

    /// Stops a release without traffic.
    pub(super) async fn stop_release(
        &self,
        store: &StoreId,
        release: &RecordId,
        kept: bool,
    ) -> Result<(), Error> {
        let (engine, owner) = (self.engine().await?, self.owner(store)?);
        self.check_proxy(engine, &owner, store).await?;
        let mut containers = engine.app_containers(&owner).await?;
        match &self.proxy {
            Some(proxy) => self.traffic(proxy, &owner, store).leave(release).await?,
            None if without_proxy(&containers).active.as_deref() == Some(release.as_str()) => {
                return Err(haproxy::Error::Active {
                    store: store.clone(),
                    release: release.clone(),
                }
                .into());
            }
            None => {}
        }
        containers.retain(|container| container.release == *release);
        let stopping = containers.iter().map(|container| async {
            engine.stop(&container.id).await?;
            if kept {
                return Ok(());
            }
            engine.remove(&container.id).await
        });
        join_all(stopping).await.into_iter().collect()
    }

    pub(super) async fn show_page(
        &self,
        proxy: &Haproxy,
        store: &StoreId,
        page: Option<&str>,
    ) -> Result<(), Error> {
        let (engine, owner) = (self.engine().await?, self.owner(store)?);
        self.check_proxy(engine, &owner, store).await?;
        Ok(self.traffic(proxy, &owner, store).show_page(page).await?)
    }

    /// Ends the traffic of a store, and removes its containers, its network and the record of its proxy.
    /// Its data and settings stay. Returns its releases.
    pub(super) async fn end(&self, store: &StoreId) -> Result<Vec<RecordId>, Error> {
        let (engine, owner) = (self.engine().await?, self.owner(store)?);
        self.check_proxy(engine, &owner, store).await?;
        if let Some(proxy) = &self.proxy {
            self.traffic(proxy, &owner, store).end().await?;
        }
        let containers = engine.app_containers(&owner).await?;
        let ending = containers.iter().map(|container| async {
            engine.stop(&container.id).await?;
            engine.remove(&container.id).await
        });
        let ended: Result<(), Error> = join_all(ending).await.into_iter().collect();
        ended?;
        engine.remove_network(&network(&owner), &owner).await?;
        if self.proxy.is_some() {
            engine.remove_volume(&proxy_volume(&owner)).await?;
        }
        let releases = containers.into_iter().map(|it| it.release);
        let releases: BTreeSet<RecordId> = releases.collect();
        Ok(releases.into_iter().collect())
    }
}

/// The network of a store.
fn network(owner: &StoreLabels) -> String {
    format!("alokai-{}", owner.name())
}

/// The volume that records the proxy of a store.
fn proxy_volume(owner: &StoreLabels) -> String {
    format!("alokai-{}-proxy", owner.name())
}

/// Fails if an object that the store needs belongs to another store. Names of objects are made of the project
/// name and the store id with `-` between them, so two stores can need the same names.
async fn check_owner(engine: &Engine, owner: &StoreLabels) -> Result<(), Error> {
    let network = network(owner);
    if let Some(labels) = engine.network_labels(&network).await? {
        check_labels("network", &network, &labels, owner)?;
    }
    let settings = SettingsVolume { engine, owner }.name();
    for volume in [default_volume(owner), settings, proxy_volume(owner)] {
        if let Some(labels) = engine.volume_labels(&volume).await? {
            check_labels("volume", &volume, &labels, owner)?;
        }
    }
    Ok(())
}

/// Removes the containers of a store that a killed run has left: those of other releases that were never
/// started, those that gave access to settings, and those of an earlier lock. The lock of the store is held.
async fn sweep(engine: &Engine, owner: &StoreLabels, spec: &ReleaseSpec) -> Result<(), Error> {
    let containers = engine.app_containers(owner).await?;
    let left = containers
        .iter()
        .filter(|it| !it.has_run && !it.is_running && it.release != spec.id);
    join_all(left.map(|it| engine.remove(&it.id))).await;
    let volume = SettingsVolume { engine, owner };
    volume.sweep().await?;
    Lock { engine, owner }.sweep().await
}

/// The state of a store without a proxy, from its containers: the newest running release is active.
pub fn without_proxy(containers: &[AppContainer]) -> RoutedStore {
    let running = containers.iter().filter(|container| container.is_running);
    let active = running.map(|container| &container.release).max();
    RoutedStore {
        active: active.map(ToString::to_string),
        ..RoutedStore::default()
    }
}
