//! The target `swarm`: services of a Docker Swarm, with HAProxy as the switch.
//!
//! Each app of a release is a service with labels and one published port of its node. HAProxy sends the
//! requests of a store to the release that `active.map` names, so a switch is one change for all apps. A
//! service is changed by compare-and-swap of its version. What Swarm does is read from tasks and from the
//! status of updates.

mod error;
mod lock;
mod manager;
mod objects;
mod output;
mod progress;
mod service;
mod settings;
mod start;
mod steps;

use async_trait::async_trait;
use tokio::sync::OnceCell;

pub use error::Error;

use super::docker::engine::Engine;
use super::haproxy::{self, Haproxy};
use super::labels::StoreLabels;
use super::lock::LockStore;
use super::{
    AppState, Capabilities, Drained, Error as TargetError, LockAnswer, LockClaim, LogQuery,
    Observed, ReleaseSpec, Settings, Staged, SwitchToken, Target, TargetContext, stored, switched,
};
use crate::ledger::RecordId;
use crate::pipeline::docker;
use crate::store::{StoreId, TargetKind};
use lock::SwarmLock;
use manager::Manager;
use settings::{SealedKind, SettingsConfigs};

/// A Docker Swarm with a HAProxy.
pub struct SwarmTarget {
    context: TargetContext,
    connection: OnceCell<Manager>,
    proxy: Haproxy,
}

impl SwarmTarget {
    /// The swarm and the proxy of `deploy.swarm`. It connects with the first step.
    pub fn new(context: TargetContext) -> Self {
        let project = &context.project;
        let proxy = &project.settings.deploy.swarm.proxy;
        let folder = haproxy::folder(&project.root, proxy.folder.as_deref());
        let proxy = Haproxy::new("deploy.swarm.proxy", folder, proxy.bind.clone());
        Self {
            context,
            connection: OnceCell::new(),
            proxy,
        }
    }

    async fn manager(&self) -> Result<&Manager, Error> {
        let configured = self.context.project.settings.deploy.swarm.host.as_deref();
        let engine = self.context.services.access.engine(configured);
        let connecting = async || {
            let docker = docker::connect(engine).await?;
            let address = engine.host.into();
            Manager::new(Engine { docker, address }, engine.host).await
        };
        self.connection.get_or_try_init(connecting).await
    }

    fn owner(&self, store: &StoreId) -> Result<StoreLabels, Error> {
        let owner = StoreLabels::of(&self.context.project, store);
        let unknown = || super::docker::Error::UnknownStore {
            store: store.clone(),
        };
        Ok(owner.ok_or_else(unknown)?)
    }

    async fn read_settings(
        &self,
        store: &StoreId,
        version: &str,
    ) -> Result<Option<Settings>, Error> {
        let (manager, owner) = (self.manager().await?, &self.owner(store)?);
        let configs = self.sealed(SealedKind::Settings, manager, owner, store);
        configs.read(version).await
    }

    /// The encrypted configs of a store.
    fn sealed<'a>(
        &'a self,
        kind: SealedKind,
        manager: &'a Manager,
        owner: &'a StoreLabels,
        store: &'a StoreId,
    ) -> SettingsConfigs<'a> {
        SettingsConfigs {
            kind,
            manager,
            owner,
            store,
            folder: self.proxy.folder(),
        }
    }

    async fn show_page(&self, store: &StoreId, page: Option<&str>) -> Result<(), Error> {
        let (manager, owner) = (self.manager().await?, &self.owner(store)?);
        self.check_proxy(manager, owner, store).await?;
        Ok(self.traffic(owner, store).show_page(page).await?)
    }
}

#[async_trait]
impl Target for SwarmTarget {
    fn kind(&self) -> TargetKind {
        TargetKind::Swarm
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            staging: true,
            seamless: true,
            drain: true,
            observes: true,
            locks: true,
            settings: true,
            logs: true,
            maintenance: true,
        }
    }

    async fn preflight(&self) -> Result<(), TargetError> {
        Ok(self.check().await?)
    }

    async fn observe(&self, store: &StoreId) -> Result<Observed, TargetError> {
        Ok(self.observe_store(store).await?)
    }

    async fn lock(&self, store: &StoreId, claim: &LockClaim) -> Result<LockAnswer, TargetError> {
        let (manager, owner) = (self.manager().await?, &self.owner(store)?);
        Ok(SwarmLock { manager, owner }.take(claim).await?)
    }

    async fn unlock(&self, store: &StoreId, holder: &str) -> Result<(), TargetError> {
        let (manager, owner) = (self.manager().await?, &self.owner(store)?);
        let lock = SwarmLock { manager, owner };
        Ok(lock.give_back(holder).await?)
    }

    async fn lock_holder(&self, store: &StoreId) -> Result<Option<LockClaim>, TargetError> {
        let (manager, owner) = (self.manager().await?, &self.owner(store)?);
        Ok(SwarmLock { manager, owner }.holder().await?)
    }

    async fn stage(&self, spec: &ReleaseSpec) -> Result<Staged, TargetError> {
        Ok(self.stage_release(spec).await?)
    }

    async fn switch(&self, spec: &ReleaseSpec, token: &SwitchToken) -> Result<(), TargetError> {
        switched(self.switch_to(spec, token).await?, &spec.store)
    }

    async fn drained(&self, store: &StoreId, release: &RecordId) -> Result<Drained, TargetError> {
        self.owner(store)?;
        let drained = haproxy::drained(&self.proxy, release).await;
        Ok(drained.map_err(Error::from)?)
    }

    async fn retire(
        &self,
        store: &StoreId,
        release: &RecordId,
        kept: bool,
    ) -> Result<(), TargetError> {
        Ok(self.stop_release(store, release, kept).await?)
    }

    async fn end_store(&self, store: &StoreId) -> Result<Vec<RecordId>, TargetError> {
        Ok(self.end(store).await?)
    }

    async fn health(
        &self,
        store: &StoreId,
        release: &RecordId,
    ) -> Result<Vec<AppState>, TargetError> {
        Ok(self.app_states(store, release).await?)
    }

    async fn store_settings(
        &self,
        store: &StoreId,
        version: &str,
        settings: &Settings,
    ) -> Result<(), TargetError> {
        let (manager, owner) = (self.manager().await?, &self.owner(store)?);
        let configs = self.sealed(SealedKind::Settings, manager, owner, store);
        stored(configs.write(version, settings).await?, store, version)
    }

    async fn settings(
        &self,
        store: &StoreId,
        version: &str,
    ) -> Result<Option<Settings>, TargetError> {
        Ok(self.read_settings(store, version).await?)
    }

    async fn logs(&self, wanted: &LogQuery) -> Result<(), TargetError> {
        Ok(self.app_lines(wanted).await?)
    }

    async fn maintenance(&self, store: &StoreId, page: Option<&str>) -> Result<(), TargetError> {
        Ok(self.show_page(store, page).await?)
    }
}
