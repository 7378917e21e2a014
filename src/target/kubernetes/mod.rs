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

use async_trait::async_trait;

pub use error::Error;
pub use print::{StoreManifests, manifests};

use super::lock::LockStore;
use super::{
    AppState, Capabilities, Drained, Error as TargetError, LockAnswer, LockClaim, LogQuery,
    Observed, ReleaseSpec, Settings, Staged, SwitchToken, Target, TargetContext, stored, switched,
};
use crate::config::{DataSection, KubernetesSection, Project};
use crate::ledger::RecordId;
use crate::store::{StoreId, TargetKind};
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

#[async_trait]
impl Target for KubernetesTarget {
    fn kind(&self) -> TargetKind {
        TargetKind::Kubernetes
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

    async fn preflight(&self) -> Result<(), TargetError> {
        Ok(self.check().await?)
    }

    async fn observe(&self, store: &StoreId) -> Result<Observed, TargetError> {
        Ok(self.observe_store(store).await?)
    }

    async fn lock(&self, store: &StoreId, claim: &LockClaim) -> Result<LockAnswer, TargetError> {
        let (api, owner) = (self.api()?, &self.owner(store)?);
        Ok(LeaseLock { api, owner }.take(claim).await?)
    }

    async fn unlock(&self, store: &StoreId, holder: &str) -> Result<(), TargetError> {
        let (api, owner) = (self.api()?, &self.owner(store)?);
        Ok(LeaseLock { api, owner }.give_back(holder).await?)
    }

    async fn lock_holder(&self, store: &StoreId) -> Result<Option<LockClaim>, TargetError> {
        let (api, owner) = (self.api()?, &self.owner(store)?);
        Ok(LeaseLock { api, owner }.holder().await?)
    }

    async fn stage(&self, spec: &ReleaseSpec) -> Result<Staged, TargetError> {
        Ok(self.stage_release(spec).await?)
    }

    async fn switch(&self, spec: &ReleaseSpec, token: &SwitchToken) -> Result<(), TargetError> {
        switched(self.switch_to(spec, token).await?, &spec.store)
    }

    async fn drained(&self, store: &StoreId, _: &RecordId) -> Result<Drained, TargetError> {
        self.owner(store)?;
        Ok(Drained::Unknown)
    }

    async fn retire(
        &self,
        store: &StoreId,
        release: &RecordId,
        kept: bool,
    ) -> Result<(), TargetError> {
        Ok(self.stop_release(store, release, kept).await?)
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
        let is_stored = self.write_settings(store, version, settings).await?;
        stored(is_stored, store, version)
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
        Ok(self.set_maintenance(store, page).await?)
    }
}
