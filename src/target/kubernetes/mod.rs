//! The target `kubernetes`: Deployments in a namespace of any cluster, with the selector of a Service as the
//! switch.
//!
//! Each app of a release is a Deployment. The public Service of a store has one port for each app, by name,
//! and selects the pods of one release, so a switch is one change for all apps. Objects are JSON that this
//! module makes and reads itself: it needs seven kinds, of which it knows few fields.

mod api;
mod apply;
mod copies;
mod error;
mod kinds;
mod kubeconfig;
mod lock;
mod maintenance;
mod manifests;
mod masks;
mod names;
mod pods;
mod print;
mod probe;
mod routes;
mod session;
mod settings;
mod steps;
mod storage;
mod traffic;
mod variables;

use std::sync::{Arc, OnceLock};

pub use error::Error;
pub use print::{StoreManifests, manifests};

use super::lock::LockStore;
use super::{
    AppState, Capabilities, Drained, LockAnswer, LockClaim, LogQuery, Observed, ReleaseSpec,
    Settings, Staged, SwitchToken, Target, TargetContext, TargetStep,
};
use crate::config::{DataSection, KubernetesSection, Project};
use crate::ledger::RecordId;
use crate::store::StoreId;
use api::Api;
use kinds::DEPLOYMENT;
use lock::LeaseLock;
use names::StoreOwner;
use probe::ProbePorts;

/// A namespace of a cluster.
pub struct KubernetesTarget {
    context: TargetContext,
    api: OnceLock<Arc<Api>>,
    probes: ProbePorts,
}

impl KubernetesTarget {
    /// The cluster of `deploy.kubernetes`. The kubeconfig is read with the first step.
    pub fn new(context: TargetContext) -> Self {
        Self {
            context,
            api: OnceLock::new(),
            probes: ProbePorts::default(),
        }
    }

    fn section(&self) -> &KubernetesSection {
        &self.context.project.settings.deploy.kubernetes
    }

    fn data(&self) -> Option<&DataSection> {
        self.context.project.settings.deploy.data.as_ref()
    }

    fn api(&self) -> Result<&Arc<Api>, Error> {
        if let Some(api) = self.api.get() {
            return Ok(api);
        }
        let section = self.section();
        let access = &self.context.services.access.kubernetes;
        let cluster = kubeconfig::cluster(access, section.context.as_deref())?;
        let api = Api::new(cluster, section.namespace.as_deref());
        Ok(self.api.get_or_init(|| Arc::new(api)))
    }

    fn owner(&self, store: &StoreId) -> Result<StoreOwner, Error> {
        owner(&self.context.project, store)
    }

    /// Checks that the namespace exists, and that the user may read the objects of stores.
    async fn check(&self) -> Result<(), Error> {
        let api = self.api()?;
        let path = format!("api/v1/namespaces/{}", api.namespace);
        match api.get_path(&path, "read the namespace").await {
            // A user may have permissions in the namespace only.
            Ok(Some(_)) | Err(Error::Forbidden { .. }) => {}
            Ok(None) => {
                return Err(Error::NoNamespace {
                    namespace: api.namespace.clone(),
                });
            }
            Err(error) => return Err(error),
        }
        api.list(DEPLOYMENT, "alokai.com/store=").await?;
        if self.section().gateway.is_some() {
            let path = "apis/gateway.networking.k8s.io/v1";
            let found = api.get_path(path, "read the Gateway API").await?;
            found.ok_or(Error::NoGatewayApi)?;
        }
        Ok(())
    }
}

/// The owner of a store's objects.
fn owner(project: &Project, store: &StoreId) -> Result<StoreOwner, Error> {
    let known = project.stores.get(store.as_str());
    let deployment = known.and_then(|store| store.deployment.as_ref());
    let deployment = deployment.ok_or_else(|| Error::UnknownStore {
        store: store.clone(),
    })?;
    Ok(StoreOwner {
        project: deployment.project_name.clone(),
        store: store.clone(),
    })
}

impl Target for KubernetesTarget {
    fn name(&self) -> &'static str {
        "kubernetes"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            staging: true,
            seamless: true,
            // What is in front of a Service keeps its connections.
            drain: false,
            observes: true,
            locks: true,
            settings: true,
            logs: true,
            maintenance: true,
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
            let (api, owner) = (self.api()?, &self.owner(store)?);
            Ok(LeaseLock { api, owner }.take(claim).await?)
        })
    }

    fn unlock<'a>(&'a self, store: &'a StoreId, holder: &'a str) -> TargetStep<'a, ()> {
        Box::pin(async move {
            let (api, owner) = (self.api()?, &self.owner(store)?);
            Ok(LeaseLock { api, owner }.give_back(holder).await?)
        })
    }

    fn lock_holder<'a>(&'a self, store: &'a StoreId) -> TargetStep<'a, Option<LockClaim>> {
        Box::pin(async move {
            let (api, owner) = (self.api()?, &self.owner(store)?);
            Ok(LeaseLock { api, owner }.holder().await?)
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

    fn drained<'a>(&'a self, store: &'a StoreId, _: &'a RecordId) -> TargetStep<'a, Drained> {
        Box::pin(async move {
            self.owner(store)?;
            Ok(Drained::Unknown)
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
        Box::pin(async move { Ok(self.set_maintenance(store, page).await?) })
    }
}
