//! The traffic of a store: what its public Service selects.
//!
//! During maintenance, the Service selects the pods of the page, and an annotation has the live release.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::KubernetesTarget;
use super::api::{Api, name_of};
use super::apply::Applied;
use super::error::Error;
use super::kinds::{ObjectKind, SERVICE};
use super::maintenance::PAGE_PORT;
use super::manifests::{ReleaseObjects, public_service};
use super::names::{self, ADDRESSES, MAINTENANCE, RELEASE, SWITCHED, StoreOwner};
use super::routes::before_switch;
use super::steps::{ATTEMPTS, apply, routes};
use crate::ledger::RecordId;
use crate::store::StoreId;
use crate::target::{ReleaseSpec, ReleasedApp, SwitchToken};

impl KubernetesTarget {
    /// The public Service of a store, if it exists.
    pub(super) async fn public(
        &self,
        api: &Api,
        owner: &StoreOwner,
    ) -> Result<Option<Value>, Error> {
        api.owned(SERVICE, &owner.service(), owner).await
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
        // A switch back may know only the id of the release. Then the routes stay as they are.
        let has_apps = !spec.apps.is_empty() && !spec.hosts.is_empty();
        let routes = if has_apps {
            objects.public_routes()
        } else {
            Vec::new()
        };
        let mut changed = Vec::new();
        for (kind, route) in &routes {
            let live = api.owned(*kind, name_of(route), &owner).await?;
            let Some(first) = before_switch(live.as_ref(), route) else {
                changed.push((kind, route));
                continue;
            };
            apply(api, *kind, &first).await?;
            if first != *route {
                changed.push((kind, route));
            }
        }
        let switched = self.select(api, &objects, &ports, expected).await?;
        if switched && has_apps {
            for (kind, route) in changed {
                apply(api, *kind, route).await?;
            }
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
        let owner = objects.owner;
        let mut expected = expected.clone();
        for _ in 0..ATTEMPTS {
            let public = self.public(api, owner).await?;
            let current = public.clone().unwrap_or_default();
            // Other programs may change other fields of the Service.
            if token(&current) != expected {
                return Ok(false);
            }
            let mut wanted = service_of(objects, ports, &current);
            if public.is_none() {
                // If another run creates it at the same time, that run wins.
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

    /// Puts the maintenance page in front of the live release, or removes it: one change of the selector of
    /// the public Service.
    pub(super) async fn select_page(
        &self,
        api: &Api,
        store: &StoreId,
        is_shown: bool,
    ) -> Result<(), Error> {
        let owner = self.owner(store)?;
        for _ in 0..ATTEMPTS {
            let current = self.public(api, &owner).await?.unwrap_or_default();
            let Some(release) = active(&current) else {
                let store = store.clone();
                return Err(Error::NothingLive { store });
            };
            if is_behind_page(&current) == is_shown {
                return Ok(());
            }
            let ports = if is_shown {
                ports_of(&current)
            } else {
                let spec = ReleaseSpec::without_apps(release.clone(), store.clone());
                self.staged_ports(api, &owner, &spec).await?
            };
            let mut wanted = public_service(&owner, &api.namespace, &release, &ports);
            let before = &current["metadata"]["annotations"];
            for name in [SWITCHED, ADDRESSES] {
                if before[name].is_string() {
                    wanted["metadata"]["annotations"][name] = before[name].clone();
                }
            }
            if is_shown {
                put_behind_page(&mut wanted, &owner, &release);
            }
            wanted["metadata"]["resourceVersion"] = current["metadata"]["resourceVersion"].clone();
            if let Applied::Done(_) = api.apply(SERVICE, &wanted).await? {
                return Ok(());
            }
        }
        Err(Error::Refused {
            doing: format!("change {}", SERVICE.object(&owner.service())),
            status: 409,
            message: "other programs changed it at each attempt; run the command again".into(),
        })
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
        Ok(ports_of(&service))
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
}

/// The public Service with the traffic for a release. A maintenance page stays in front of it.
fn service_of(objects: &ReleaseObjects, ports: &Value, current: &Value) -> Value {
    let (owner, spec) = (objects.owner, objects.spec);
    let before = &current["metadata"]["annotations"];
    let is_active = active(current).as_ref() == Some(&spec.id);
    let since = before[SWITCHED].as_str().filter(|_| is_active);
    let since = since.map_or_else(|| Timestamp::now().to_string(), str::to_owned);
    let addresses = if spec.apps.is_empty() {
        before[ADDRESSES].as_str().unwrap_or_default().to_owned()
    } else {
        objects.public_addresses().join(" ")
    };
    let mut wanted = public_service(owner, objects.namespace, &spec.id, ports);
    wanted["metadata"]["annotations"] = json!({ SWITCHED: since, ADDRESSES: addresses });
    if is_behind_page(current) {
        put_behind_page(&mut wanted, owner, &spec.id);
    }
    wanted
}

/// Makes the public Service of a release select the pods of the maintenance page. They have one port.
fn put_behind_page(service: &mut Value, owner: &StoreOwner, release: &RecordId) {
    service["metadata"]["annotations"][RELEASE] = release.as_str().into();
    service["spec"]["selector"] = owner.page_selector().into();
    let ports = service["spec"]["ports"].as_array_mut();
    for port in ports.into_iter().flatten() {
        port["targetPort"] = PAGE_PORT.into();
    }
}

/// The ports of a Service, as this program writes them.
fn ports_of(service: &Value) -> Value {
    let ports = service["spec"]["ports"].as_array();
    let ports = ports.into_iter().flatten().map(|port| {
        json!({
            "name": port["name"],
            "port": port["port"],
            "protocol": "TCP",
            "targetPort": port["targetPort"],
        })
    });
    ports.collect()
}

/// Whether the public Service selects the maintenance page.
pub fn is_behind_page(public: &Value) -> bool {
    public["spec"]["selector"][MAINTENANCE].is_string()
}

/// The live release: the one that the public Service selects, or that is behind the maintenance page.
pub fn active(public: &Value) -> Option<RecordId> {
    active_id(public)?.parse().ok()
}

fn active_id(public: &Value) -> Option<&str> {
    if is_behind_page(public) {
        public["metadata"]["annotations"][RELEASE].as_str()
    } else {
        public["spec"]["selector"][RELEASE].as_str()
    }
}

/// What the switch compares: the release with the traffic, and since when it has the traffic.
pub fn token(public: &Value) -> SwitchToken {
    let since = public["metadata"]["annotations"][SWITCHED].as_str();
    SwitchToken(active_id(public).map_or_else(String::new, |active| {
        format!("{active}@{}", since.unwrap_or_default())
    }))
}
