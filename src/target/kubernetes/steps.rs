//! The steps of a release: observe, stage, retire.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::future::try_join_all;
use serde_json::{Value, json};

use super::KubernetesTarget;
use super::api::{Api, name_of};
use super::apply::Applied;
use super::error::Error;
use super::kinds::{DEPLOYMENT, HTTP_ROUTE, INGRESS, ObjectKind, SECRET, SERVICE};
use super::manifests::ReleaseObjects;
use super::names::{ADDRESSES, APP, RELEASE, SWITCHED, StoreOwner};
use super::traffic::{active, is_behind_page, token};
use crate::ledger::RecordId;
use crate::store::{AppName, StoreId};
use crate::target::{Observed, ReleaseSpec, ReleasedApp, Replica, Staged, StagedRelease};

/// How often an object is written again that another program changes at the same time.
pub const ATTEMPTS: usize = 5;

/// A Deployment of a store.
pub struct AppDeployment {
    /// The app.
    pub app: AppName,
    /// The release.
    pub release: RecordId,
    /// How many pods it shall have.
    pub replicas: u64,
    /// The object.
    pub object: Value,
}

impl KubernetesTarget {
    /// The Deployments of a store.
    pub(super) async fn deployments(
        &self,
        api: &Api,
        owner: &StoreOwner,
    ) -> Result<Vec<AppDeployment>, Error> {
        let found = api.list(DEPLOYMENT, &owner.query()).await?;
        let deployments = found.into_iter().flatten().filter_map(|object| {
            Some(AppDeployment {
                app: AppName::new(object["metadata"]["annotations"][APP].as_str()?).ok()?,
                release: release_of(&object)?,
                // Kubernetes leaves it out for 1.
                replicas: object["spec"]["replicas"].as_u64().unwrap_or(1),
                object,
            })
        });
        Ok(deployments.collect())
    }

    pub(super) async fn observe_store(&self, store: &StoreId) -> Result<Observed, Error> {
        let (api, owner) = (self.api()?, self.owner(store)?);
        let public = self.public(api, &owner).await?.unwrap_or_default();
        let annotations = &public["metadata"]["annotations"];
        let active = active(&public);
        let addresses = annotations[ADDRESSES].as_str().unwrap_or_default();
        let addresses = addresses.split_whitespace().map(str::to_owned);
        let mut observed = Observed {
            since: annotations[SWITCHED]
                .as_str()
                .and_then(|it| it.parse().ok()),
            addresses: addresses.collect(),
            maintenance: is_behind_page(&public),
            token: token(&public),
            active,
            ..Observed::default()
        };
        let deployments = self.deployments(api, &owner).await?;
        let query = format!("{},{RELEASE}", owner.query());
        let services = api.list(SERVICE, &query).await?.unwrap_or_default();
        let staged_services = services.iter().filter_map(|it| {
            Some((
                release_of(it)?,
                it["metadata"]["annotations"][ADDRESSES].as_str(),
            ))
        });
        let services: BTreeMap<RecordId, Option<&str>> = staged_services.collect();
        let mut all: BTreeSet<&RecordId> = services.keys().collect();
        all.extend(deployments.iter().map(|it| &it.release));
        for release in all {
            if observed.active.as_ref() == Some(release) {
                continue;
            }
            let mut own = deployments
                .iter()
                .filter(|it| it.release == *release)
                .peekable();
            // A run that was killed may have left a Service only.
            if own.peek().is_some() && own.all(|it| it.replicas == 0) {
                observed.kept.push(release.clone());
            } else {
                let address = services.get(release).copied().flatten();
                observed.staged.push(StagedRelease {
                    release: release.clone(),
                    address: address.map(str::to_owned),
                });
            }
        }
        Ok(observed)
    }

    pub(super) async fn stage_release(&self, spec: &ReleaseSpec) -> Result<Staged, Error> {
        let (api, owner) = (self.api()?, self.owner(&spec.store)?);
        let spec = &*self.with_kept_values(api, &owner, spec).await?;
        let objects = self.objects(api, &owner, spec).await?;
        // Everything that can be wrong is found before the first object is made.
        let deployments: Result<Vec<Value>, Error> = spec
            .apps
            .iter()
            .map(|app| objects.deployment(app))
            .collect();
        let deployments = deployments?;
        self.prepare_storage(api, &owner).await?;
        // Deleting the Service deletes what it owns.
        let service = apply(api, SERVICE, &objects.service()).await?;
        for app in &spec.apps {
            if let Some(secret) = objects.environment_secret(app) {
                create_secret(api, &service, secret).await?;
            }
        }
        let deployments = deployments.into_iter().map(|it| (DEPLOYMENT, it));
        let written = deployments.chain(objects.staged_routes());
        let written: Vec<_> = written
            .map(|(kind, object)| (kind, owned_by(&service, object)))
            .collect();
        try_join_all(
            written
                .iter()
                .map(|(kind, object)| apply(api, *kind, object)),
        )
        .await?;
        let replicas = spec.apps.iter().map(|app| self.replica(spec, app));
        Ok(Staged {
            replicas: try_join_all(replicas).await?,
            address: objects.staged_address(),
        })
    }

    /// A release, and what its objects are made from.
    async fn objects<'a>(
        &'a self,
        api: &'a Api,
        owner: &'a StoreOwner,
        spec: &'a ReleaseSpec,
    ) -> Result<ReleaseObjects<'a>, Error> {
        let settings = match &spec.settings {
            None => Vec::new(),
            Some(version) => {
                let values = self.read_settings(&spec.store, version).await?;
                let values = values.ok_or_else(|| Error::SettingsMissing {
                    store: spec.store.clone(),
                    version: version.clone(),
                    secret: owner.settings(version),
                })?;
                values.into_keys().collect()
            }
        };
        Ok(ReleaseObjects {
            spec,
            owner,
            section: self.section(),
            data: self.data(),
            namespace: &api.namespace,
            settings,
        })
    }

    async fn replica(&self, spec: &ReleaseSpec, app: &ReleasedApp) -> Result<Replica, Error> {
        Ok(Replica {
            app: app.app.clone(),
            address: self.probes.address(self, spec, app).await?,
        })
    }

    /// Stops a release without traffic.
    pub(super) async fn stop_release(
        &self,
        store: &StoreId,
        release: &RecordId,
        kept: bool,
    ) -> Result<(), Error> {
        let (api, owner) = (self.api()?, self.owner(store)?);
        let public = self.public(api, &owner).await?.unwrap_or_default();
        if active(&public).as_ref() == Some(release) {
            return Err(Error::Active {
                store: store.clone(),
                release: release.clone(),
            });
        }
        self.probes.close(release);
        let query = owner.query_release(release);
        for (kind, route) in routes(api, &query).await? {
            api.delete(kind, &route, false).await?;
        }
        let deployments = api.list(DEPLOYMENT, &query).await?.unwrap_or_default();
        for deployment in &deployments {
            if kept {
                let change = json!({ "spec": { "replicas": 0 } });
                api.merge(DEPLOYMENT, name_of(deployment), &change).await?;
            } else {
                api.delete(DEPLOYMENT, deployment, false).await?;
            }
        }
        if !kept {
            // Its Secrets go with it.
            let services = api.list(SERVICE, &query).await?.unwrap_or_default();
            for service in &services {
                api.delete(SERVICE, service, false).await?;
            }
        }
        Ok(())
    }
}

/// The routes with these labels. A kind that the cluster does not have, or that the user may not see, has
/// none.
pub async fn routes(api: &Api, query: &str) -> Result<Vec<(ObjectKind, Value)>, Error> {
    let mut all = Vec::new();
    for kind in [INGRESS, HTTP_ROUTE] {
        let found = match api.list(kind, query).await {
            Ok(found) => found.unwrap_or_default(),
            Err(Error::Forbidden { .. }) => Vec::new(),
            Err(error) => return Err(error),
        };
        all.extend(found.into_iter().map(|object| (kind, object)));
    }
    Ok(all)
}

/// Makes an object be as given.
pub async fn apply(api: &Api, kind: ObjectKind, object: &Value) -> Result<Value, Error> {
    for _ in 0..ATTEMPTS {
        if let Applied::Done(object) = api.apply(kind, object).await? {
            return Ok(object);
        }
    }
    Err(Error::Refused {
        doing: format!("apply {}", kind.object(name_of(object))),
        status: 409,
        message: "other programs changed it at each attempt; run the command again".into(),
    })
}

/// Creates a Secret of a release, whose values never change.
async fn create_secret(api: &Api, service: &Value, secret: Value) -> Result<(), Error> {
    let secret = owned_by(service, secret);
    for _ in 0..ATTEMPTS {
        if api.create(SECRET, &secret).await?.is_some() {
            return Ok(());
        }
        let Some(found) = api.get(SECRET, name_of(&secret)).await? else {
            continue;
        };
        let owner = |object: &Value| object["metadata"]["ownerReferences"][0]["uid"].clone();
        let is_deleted = !found["metadata"]["deletionTimestamp"].is_null();
        if owner(&found) == owner(&secret) && !is_deleted {
            return Ok(());
        }
        // The cluster deletes it soon, because the Service of an earlier try was deleted.
        api.delete(SECRET, &found, false).await?;
    }
    Err(Error::Foreign {
        object: SECRET.object(name_of(&secret)),
    })
}

/// The object, which is deleted with this Service.
pub fn owned_by(service: &Value, mut object: Value) -> Value {
    object["metadata"]["ownerReferences"] = json!([{
        "apiVersion": SERVICE.version,
        "kind": SERVICE.name,
        "name": name_of(service),
        "uid": service["metadata"]["uid"],
    }]);
    object
}

fn release_of(object: &Value) -> Option<RecordId> {
    object["metadata"]["labels"][RELEASE].as_str()?.parse().ok()
}
