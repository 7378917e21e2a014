//! The target `docker`: containers of any Docker engine, with HAProxy as the switch.
//!
//! Each app of a release is a container with labels and a published port. HAProxy sends the requests of
//! a store to the release that `active.map` names, so a switch is one change for all apps. Without a
//! proxy, the containers have the public ports themselves, and a switch stops one release before it
//! starts the next.

pub(super) mod apps;
mod copies;
pub(super) mod data;
pub(super) mod engine;
mod error;
mod lock;
pub(super) mod output;
mod ports;
mod recreate;
mod settings;
mod steps;

use async_trait::async_trait;
use tokio::sync::OnceCell;

pub use error::Error;

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
use engine::Engine;
use lock::Lock;
use settings::SettingsVolume;

/// A Docker engine with a HAProxy.
pub struct DockerTarget {
    context: TargetContext,
    connection: OnceCell<Engine>,
    proxy: Option<Haproxy>,
}

impl DockerTarget {
    /// The engine and the proxy of `deploy.docker`. It connects with the first step.
    pub fn new(context: TargetContext) -> Self {
        let project = &context.project;
        let proxy = project.settings.deploy.docker.proxy.as_ref();
        let proxy = proxy.map(|proxy| {
            let folder = haproxy::folder(&project.root, proxy.folder.as_deref());
            Haproxy::new("deploy.docker.proxy", folder, proxy.bind.clone())
        });
        Self {
            context,
            connection: OnceCell::new(),
            proxy,
        }
    }

    async fn engine(&self) -> Result<&Engine, Error> {
        let configured = self.context.project.settings.deploy.docker.host.as_deref();
        let engine = self.context.services.access.engine(configured);
        let connecting = async || {
            let docker = docker::connect(engine).await?;
            let address = engine.host.into();
            Ok(Engine { docker, address })
        };
        self.connection.get_or_try_init(connecting).await
    }

    fn owner(&self, store: &StoreId) -> Result<StoreLabels, Error> {
        let owner = StoreLabels::of(&self.context.project, store);
        owner.ok_or_else(|| Error::UnknownStore {
            store: store.clone(),
        })
    }
}

#[async_trait]
impl Target for DockerTarget {
    fn kind(&self) -> TargetKind {
        TargetKind::Docker
    }

    fn capabilities(&self) -> Capabilities {
        let has_proxy = self.proxy.is_some();
        Capabilities {
            staging: has_proxy,
            seamless: has_proxy,
            drain: has_proxy,
            observes: true,
            locks: true,
            settings: true,
            logs: true,
            maintenance: has_proxy,
        }
    }

    async fn preflight(&self) -> Result<(), TargetError> {
        Ok(self.check().await?)
    }

    async fn observe(&self, store: &StoreId) -> Result<Observed, TargetError> {
        Ok(self.observe_store(store).await?)
    }

    async fn lock(&self, store: &StoreId, claim: &LockClaim) -> Result<LockAnswer, TargetError> {
        let (engine, owner) = (self.engine().await?, &self.owner(store)?);
        Ok(Lock { engine, owner }.take(claim).await?)
    }

    async fn unlock(&self, store: &StoreId, holder: &str) -> Result<(), TargetError> {
        let (engine, owner) = (self.engine().await?, &self.owner(store)?);
        Ok(Lock { engine, owner }.give_back(holder).await?)
    }

    async fn lock_holder(&self, store: &StoreId) -> Result<Option<LockClaim>, TargetError> {
        let (engine, owner) = (self.engine().await?, &self.owner(store)?);
        Ok(Lock { engine, owner }.holder().await?)
    }

    async fn stage(&self, spec: &ReleaseSpec) -> Result<Staged, TargetError> {
        Ok(self.stage_release(spec).await?)
    }

    async fn switch(&self, spec: &ReleaseSpec, token: &SwitchToken) -> Result<(), TargetError> {
        switched(self.switch_to(spec, token).await?, &spec.store)
    }

    async fn drained(&self, store: &StoreId, release: &RecordId) -> Result<Drained, TargetError> {
        self.owner(store)?;
        Ok(self.open_requests(release).await?)
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
        let (engine, owner) = (self.engine().await?, &self.owner(store)?);
        let volume = SettingsVolume { engine, owner };
        stored(volume.write(version, settings).await?, store, version)
    }

    async fn settings(
        &self,
        store: &StoreId,
        version: &str,
    ) -> Result<Option<Settings>, TargetError> {
        let (engine, owner) = (self.engine().await?, &self.owner(store)?);
        Ok(SettingsVolume { engine, owner }.read(version).await?)
    }

    async fn logs(&self, wanted: &LogQuery) -> Result<(), TargetError> {
        Ok(self.app_lines(wanted).await?)
    }

    async fn maintenance(&self, store: &StoreId, page: Option<&str>) -> Result<(), TargetError> {
        let Some(proxy) = &self.proxy else {
            return Err(TargetError::Unsupported {
                target: TargetKind::Docker.name(),
                what: "show a maintenance page without a proxy",
                help: "set `deploy.docker.proxy` in `alokai.config.json`",
            });
        };
        Ok(self.show_page(proxy, store, page).await?)
    }
}
