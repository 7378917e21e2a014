//! The steps of a release: observe, stage, switch, retire.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::future::try_join_all;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::KubernetesTarget;
use super::api::{Api, name_of};
use super::apply::Applied;
use super::error::Error;
use super::kinds::{DEPLOYMENT, HTTP_ROUTE, INGRESS, ObjectKind, SECRET, SERVICE};
use super::manifests::{ReleaseObjects, public_service};
use super::names::{self, ADDRESSES, APP, RELEASE, SWITCHED, StoreOwner};
use crate::ledger::RecordId;
use crate::store::{AppName, StoreId};
use crate::target::{
    Observed, ReleaseSpec, ReleasedApp, Replica, Staged, StagedRelease, SwitchToken,
};

/// How often an object is written again that another program changes at the same time.
const ATTEMPTS: usize = 5;

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

    /// The public Service of a store, if it exists.
    async fn public(&self, api: &Api, owner: &StoreOwner) -> Result<Option<Value>, Error> {
        let found = api.get(SERVICE, &owner.service()).await?;
        match found {
            Some(object) if !owner.owns(&object) => Err(Error::Foreign {
                object: SERVICE.object(&owner.service()),
            }),
            found => Ok(found),
        }
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

    /// Gives the traffic to a release: one change of the selector of the public Service, which has the ports
    /// of all apps. False if the traffic has moved since the token was made.
    pub(super) async fn switch_to(
        &self,
        spec: &ReleaseSpec,
        expected: &SwitchToken,
    ) -> Result<bool, Error> {
        let (api, owner) = (self.api()?, self.owner(&spec.store)?);
        let ports = self.staged_ports(api, &owner, spec).await?;
        let objects = ReleaseObjects {
            spec,
            owner: &owner,
            section: self.section(),
            data: self.data(),
            namespace: &api.namespace,
            settings: Vec::new(),
        };
        let public = self.public(api, &owner).await?;
        if token(&public.unwrap_or_default()) != *expected {
            return Ok(false);
        }
        // A switch back may know the id of the release only. The routes stay as they are then.
        let has_apps = !spec.apps.is_empty() && !spec.hosts.is_empty();
        let routes = if has_apps {
            objects.public_routes()
        } else {
            Vec::new()
        };
        for (kind, route) in &routes {
            self.check_route(api, &owner, *kind, route).await?;
            apply(api, *kind, route).await?;
        }
        let switched = self.select(api, &objects, &ports, expected).await?;
        if switched && has_apps {
            self.remove_routes(api, &owner, &routes).await?;
        }
        Ok(switched)
    }

    /// Writes the selector of the public Service.
    async fn select(
        &self,
        api: &Api,
        objects: &ReleaseObjects<'_>,
        ports: &Value,
        expected: &SwitchToken,
    ) -> Result<bool, Error> {
        let (owner, spec) = (objects.owner, objects.spec);
        let mut wanted = public_service(owner, &api.namespace, &spec.id, ports);
        let mut expected = expected.clone();
        for _ in 0..ATTEMPTS {
            let public = self.public(api, owner).await?;
            let current = public.clone().unwrap_or_default();
            // Other programs may change other fields of the Service.
            if token(&current) != expected {
                return Ok(false);
            }
            let before = &current["metadata"]["annotations"];
            let is_active = active(&current).as_ref() == Some(&spec.id);
            let since = before[SWITCHED].as_str().filter(|_| is_active);
            let since = since.map_or_else(|| Timestamp::now().to_string(), str::to_owned);
            let addresses = if spec.apps.is_empty() {
                before[ADDRESSES].as_str().unwrap_or_default().to_owned()
            } else {
                objects.public_addresses().join(" ")
            };
            wanted["metadata"]["annotations"] = json!({ SWITCHED: since, ADDRESSES: addresses });
            if public.is_none() {
                // Of two runs, one creates it.
                let Some(created) = api.create(SERVICE, &wanted).await? else {
                    return Ok(false);
                };
                api.adopt(SERVICE, &created).await?;
                // Applied once more, so that no field counts that only creating has set.
                expected = token(&created);
                continue;
            }
            wanted["metadata"]["resourceVersion"] = current["metadata"]["resourceVersion"].clone();
            if let Applied::Done(_) = api.apply(SERVICE, &wanted).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The ports of a release that runs.
    async fn staged_ports(
        &self,
        api: &Api,
        owner: &StoreOwner,
        spec: &ReleaseSpec,
    ) -> Result<Value, Error> {
        let not_staged = |what: String| Error::NotStaged {
            store: spec.store.clone(),
            release: spec.id.clone(),
            what,
        };
        let name = names::staged_service(&spec.store, &spec.id);
        let service = api.get(SERVICE, &name).await?.filter(|it| owner.owns(it));
        let service = service.ok_or_else(|| not_staged(SERVICE.object(&name)))?;
        let mut own = self.deployments(api, owner).await?;
        own.retain(|it| it.release == spec.id);
        if own.is_empty() {
            return Err(not_staged("no app".into()));
        }
        let stopped = own.iter().find(|it| it.replicas == 0).map(|it| &it.app);
        let is_missing = |app: &&ReleasedApp| own.iter().all(|it| it.app != app.app);
        let missing = spec.apps.iter().find(is_missing).map(|app| &app.app);
        if let Some(app) = stopped.or(missing) {
            return Err(not_staged(format!("the app `{app}`")));
        }
        let ports = service["spec"]["ports"].as_array();
        let ports = ports.into_iter().flatten().map(|port| {
            json!({
                "name": port["name"],
                "port": port["port"],
                "protocol": "TCP",
                "targetPort": port["targetPort"],
            })
        });
        Ok(ports.collect())
    }

    /// Fails if a route with this name belongs to something else.
    async fn check_route(
        &self,
        api: &Api,
        owner: &StoreOwner,
        kind: ObjectKind,
        route: &Value,
    ) -> Result<(), Error> {
        let name = name_of(route);
        match api.get(kind, name).await? {
            Some(found) if !owner.owns(&found) => Err(Error::Foreign {
                object: kind.object(name),
            }),
            _ => Ok(()),
        }
    }

    /// Deletes public routes of the store that the config does not ask for any more.
    async fn remove_routes(
        &self,
        api: &Api,
        owner: &StoreOwner,
        wanted: &[(ObjectKind, Value)],
    ) -> Result<(), Error> {
        let query = format!("{},!{RELEASE}", owner.query());
        for (kind, route) in routes(api, &query).await? {
            let is_wanted =
                |(own, it): &(ObjectKind, Value)| *own == kind && name_of(it) == name_of(&route);
            if !wanted.iter().any(is_wanted) {
                api.delete(kind, &route, false).await?;
            }
        }
        Ok(())
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
async fn routes(api: &Api, query: &str) -> Result<Vec<(ObjectKind, Value)>, Error> {
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
        message: "other programs change it all the time".into(),
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

/// The object, which is deleted with the Service of its release.
fn owned_by(service: &Value, mut object: Value) -> Value {
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

/// The release that the public Service selects.
fn active(public: &Value) -> Option<RecordId> {
    public["spec"]["selector"][RELEASE].as_str()?.parse().ok()
}

/// What the switch compares: the release with the traffic, and since when it has the traffic.
fn token(public: &Value) -> SwitchToken {
    let active = public["spec"]["selector"][RELEASE].as_str();
    let since = public["metadata"]["annotations"][SWITCHED].as_str();
    SwitchToken(active.map_or_else(String::new, |active| {
        format!("{active}@{}", since.unwrap_or_default())
    }))
}
