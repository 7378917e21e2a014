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

use tokio::sync::OnceCell;

pub use error::Error;

use super::haproxy::{self, Haproxy};
use super::labels::StoreLabels;
use super::lock::LockStore;
use super::{
    AppState, Capabilities, Drained, LockAnswer, LockClaim, LogQuery, Observed, ReleaseSpec,
    Settings, Staged, SwitchToken, Target, TargetContext, TargetStep,
};
use crate::ledger::RecordId;
use crate::pipeline::docker;
use crate::store::StoreId;
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

    async fn write_settings(
        &self,
        store: &StoreId,
        version: &str,
        settings: &Settings,
    ) -> Result<bool, Error> {
        let (engine, owner) = (self.engine().await?, self.owner(store)?);
        let volume = SettingsVolume {
            engine,
            owner: &owner,
        };
        volume.write(version, settings).await
    }

    async fn read_settings(
        &self,
        store: &StoreId,
        version: &str,
    ) -> Result<Option<Settings>, Error> {
        let (engine, owner) = (self.engine().await?, self.owner(store)?);
        let volume = SettingsVolume {
            engine,
            owner: &owner,
        };
        volume.read(version).await
    }
}

impl Target for DockerTarget {
    fn name(&self) -> &'static str {
        "docker"
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

    fn preflight(&self) -> TargetStep<'_, ()> {
        Box::pin(async { Ok(self.check().await?) })
    }

    fn observe<'a>(&'a self, store: &'a StoreId) -> TargetStep<'a, Observed> {
        Box::pin(async move { Ok(self.observe_store(store).await?) })
    }

    fn lock<'a>(&'a self, store: &'a StoreId, claim: &'a LockClaim) -> TargetStep<'a, LockAnswer> {
        Box::pin(async move {
            let (engine, owner) = (self.engine().await?, &self.owner(store)?);
            Ok(Lock { engine, owner }.take(claim).await?)
        })
    }

    fn unlock<'a>(&'a self, store: &'a StoreId, holder: &'a str) -> TargetStep<'a, ()> {
        Box::pin(async move {
            let (engine, owner) = (self.engine().await?, &self.owner(store)?);
            Ok(Lock { engine, owner }.give_back(holder).await?)
        })
    }

    fn lock_holder<'a>(&'a self, store: &'a StoreId) -> TargetStep<'a, Option<LockClaim>> {
        Box::pin(async move {
            let (engine, owner) = (self.engine().await?, &self.owner(store)?);
            Ok(Lock { engine, owner }.holder().await?)
        })
    }

    fn stage<'a>(&'a self, spec: &'a ReleaseSpec) -> TargetStep<'a, Staged> {
        Box::pin(async move { Ok(self.stage_release(spec).await?) })
    }

    fn switch<'a>(&'a self, spec: &'a ReleaseSpec, token: &'a SwitchToken) -> TargetStep<'a, ()> {
        Box::pin(async move {
            if self.switch_to(spec, token).await? {
                return Ok(());
            }
            Err(super::Error::OutOfSequence {
                store: spec.store.clone(),
            })
        })
    }

    fn drained<'a>(&'a self, store: &'a StoreId, release: &'a RecordId) -> TargetStep<'a, Drained> {
        Box::pin(async move {
            self.owner(store)?;
            Ok(self.open_requests(release).await?)
        })
    }

    fn retire<'a>(
        &'a self,
        store: &'a StoreId,
        release: &'a RecordId,
        kept: bool,
    ) -> TargetStep<'a, ()> {
        Box::pin(async move { Ok(self.stop_release(store, release, kept).await?) })
    }

    fn end_store<'a>(&'a self, store: &'a StoreId) -> TargetStep<'a, Vec<RecordId>> {
        Box::pin(async move { Ok(self.end(store).await?) })
    }

    fn health<'a>(
        &'a self,
        store: &'a StoreId,
        release: &'a RecordId,
    ) -> TargetStep<'a, Vec<AppState>> {
        Box::pin(async move { Ok(self.app_states(store, release).await?) })
    }

    fn store_settings<'a>(
        &'a self,
        store: &'a StoreId,
        version: &'a str,
        settings: &'a Settings,
    ) -> TargetStep<'a, ()> {
        Box::pin(async move {
            if self.write_settings(store, version, settings).await? {
                return Ok(());
            }
            Err(super::Error::SettingsExist {
                store: store.clone(),
                version: version.to_owned(),
            })
        })
    }

    fn settings<'a>(
        &'a self,
        store: &'a StoreId,
        version: &'a str,
    ) -> TargetStep<'a, Option<Settings>> {
        Box::pin(async move { Ok(self.read_settings(store, version).await?) })
    }

    fn logs<'a>(&'a self, wanted: &'a LogQuery) -> TargetStep<'a, ()> {
        Box::pin(async move { Ok(self.app_lines(wanted).await?) })
    }

    fn maintenance<'a>(&'a self, store: &'a StoreId, page: Option<&'a str>) -> TargetStep<'a, ()> {
        Box::pin(async move {
            let Some(proxy) = &self.proxy else {
                return Err(super::Error::Unsupported {
                    target: "docker",
                    what: "show a maintenance page without a proxy",
                    help: "set `deploy.docker.proxy` in `alokai.config.json`",
                });
            };
            Ok(self.show_page(proxy, store, page).await?)
        })
    }
}
