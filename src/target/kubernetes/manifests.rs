//! The objects of a release, as a cluster gets them.

use oci::StoredImage;
use serde_json::{Map, Value, json};

use super::error::Error;
use super::kinds::{DEPLOYMENT, ObjectKind, SERVICE};
use super::names::{self, ADDRESSES, APP, RELEASE, STORAGE, StoreOwner};
use super::routes::{RouteBackend, ServiceRoutes};
use super::storage::StoreStorage;
use crate::config::{DataSection, KubernetesSection};
use crate::ledger::RecordId;
use crate::store::AppKind;
use crate::target::{ReleaseSpec, ReleasedApp};

/// A release, and what its objects are made from.
pub struct ReleaseObjects<'a> {
    /// The release.
    pub spec: &'a ReleaseSpec,
    /// The owner.
    pub owner: &'a StoreOwner,
    /// The section of the config.
    pub section: &'a KubernetesSection,
    /// The section `deploy.data`.
    pub data: Option<&'a DataSection>,
    /// The namespace.
    pub namespace: &'a str,
    /// The names of its settings, which win over other variables.
    pub settings: Vec<String>,
}

impl ReleaseObjects<'_> {
    /// The head of an object of this release.
    pub fn head(&self, kind: ObjectKind, name: &str) -> Value {
        let mut labels = self.owner.labels();
        labels.insert(RELEASE.into(), self.spec.id.as_str().into());
        json!({
            "apiVersion": kind.version,
            "kind": kind.name,
            "metadata": { "name": name, "namespace": self.namespace, "labels": labels },
        })
    }

    /// The storage for the data of the store.
    pub fn storage(&self) -> Option<StoreStorage<'_>> {
        StoreStorage::of(self.section, self.data, self.owner)
    }

    /// The labels of the pods of an app.
    fn app_labels(&self, app: &ReleasedApp) -> Map<String, Value> {
        let mut labels = self.owner.selector();
        labels.insert(APP.into(), names::label(app.app.as_str()).into());
        labels.insert(RELEASE.into(), self.spec.id.as_str().into());
        labels
    }

    /// The name of the Service by which a release without traffic is reached.
    pub fn service_name(&self) -> String {
        names::staged_service(&self.spec.store, &self.spec.id)
    }

    /// The addresses at which the store is reached: those of its hosts, or that of its Service in the
    /// cluster.
    pub fn public_addresses(&self) -> Vec<String> {
        let hosts = public_hosts(self.spec);
        let addresses: Vec<String> = hosts.iter().filter_map(|it| self.address(it)).collect();
        if !addresses.is_empty() {
            return addresses;
        }
        let inside = self.address_inside(&self.owner.service());
        inside.into_iter().collect()
    }

    /// The address at which the release can be tried without traffic.
    pub fn staged_address(&self) -> Option<String> {
        let host = public_hosts(self.spec).into_iter().next()?;
        let own = format!("{}.{host}", names::lower(&self.spec.id));
        self.address(&own)
            .or_else(|| self.address_inside(&self.service_name()))
    }

    /// The address of the frontend in the cluster, or of the first app if there is no frontend.
    fn address_inside(&self, service: &str) -> Option<String> {
        let numbered = self.numbered();
        let mut frontends = numbered
            .iter()
            .filter(|(app, _)| app.kind.framework().is_some());
        let (_, number) = frontends.next().or(numbered.first())?;
        Some(format!("http://{service}.{}.svc:{number}", self.namespace))
    }

    /// The Service of the release. Its ports have names, and a pod takes part in the ports that its app has.
    pub fn service(&self) -> Value {
        let mut service = self.head(SERVICE, &self.service_name());
        let mut selector = self.owner.selector();
        selector.insert(RELEASE.into(), self.spec.id.as_str().into());
        if let Some(address) = self.staged_address() {
            service["metadata"]["annotations"] = json!({ ADDRESSES: address });
        }
        service["spec"] = json!({
            "type": "ClusterIP",
            "selector": selector,
            "ports": self.service_ports(),
        });
        service
    }

    fn service_ports(&self) -> Vec<Value> {
        let ports = self.numbered().into_iter().map(|(app, number)| {
            let name = names::port(app);
            json!({ "name": name, "port": number, "protocol": "TCP", "targetPort": name })
        });
        ports.collect()
    }

    /// The apps with their ports in Services: the port of the app, or the next one that is free. Other apps
    /// give way to the frontend and the middleware.
    pub fn numbered(&self) -> Vec<(&ReleasedApp, u16)> {
        let mut numbered: Vec<(&ReleasedApp, u16)> = Vec::new();
        let is_other = |app: &&ReleasedApp| app.kind == AppKind::Other;
        let (others, first): (Vec<_>, Vec<_>) = self.spec.apps.iter().partition(is_other);
        for app in first.into_iter().chain(others) {
            let mut number = app.port;
            while numbered.iter().any(|(_, taken)| *taken == number) {
                number = number.checked_add(1).unwrap_or(1024);
            }
            numbered.push((app, number));
        }
        numbered
    }

    /// The apps as routes see them.
    pub fn backends(&self) -> Vec<RouteBackend> {
        let numbered = self.numbered().into_iter();
        let backends = numbered.map(|(app, number)| RouteBackend {
            port: names::port(app),
            number,
            path: format!("/{}", path_of(app)),
            strips_prefix: app.strips_prefix,
        });
        backends.collect()
    }

    /// The routes to the public Service.
    pub fn public_routes(&self) -> Vec<(ObjectKind, Value)> {
        let routes = ServiceRoutes {
            owner: self.owner,
            section: self.section,
            namespace: self.namespace,
            release: None,
            name: self.owner.service(),
            hosts: public_hosts(self.spec),
        };
        routes.objects(&self.backends())
    }

    /// The routes to the release without traffic.
    pub fn staged_routes(&self) -> Vec<(ObjectKind, Value)> {
        let release = names::lower(&self.spec.id);
        let hosts = public_hosts(self.spec).into_iter().take(1);
        let routes = ServiceRoutes {
            owner: self.owner,
            section: self.section,
            namespace: self.namespace,
            release: Some(&self.spec.id),
            name: self.service_name(),
            hosts: hosts.map(|host| format!("{release}.{host}")).collect(),
        };
        routes.objects(&self.backends())
    }

    /// The address of a host, if the store has routes.
    pub fn address(&self, host: &str) -> Option<String> {
        address(self.section, host)
    }

    /// The Deployment of an app.
    pub fn deployment(&self, app: &ReleasedApp) -> Result<Value, Error> {
        let mut object = self.head(DEPLOYMENT, &names::deployment(self.spec, app));
        let labels = self.app_labels(app);
        let app_name = json!({ APP: app.app.as_str() });
        let all_labels = object["metadata"]["labels"].as_object_mut();
        if let Some(all) = all_labels {
            all.extend(labels.clone());
        }
        object["metadata"]["annotations"] = app_name.clone();
        let mut pod_labels = object["metadata"]["labels"].clone();
        if let Some(storage) = self.storage() {
            pod_labels[STORAGE] = storage.label().into();
        }
        let replicas = KubernetesSection::of_app(&self.section.replicas, &app.app);
        let deadline = app.health.deadline.as_secs().max(1);
        object["spec"] = json!({
            "replicas": replicas.copied().unwrap_or(1),
            // Each release has its own Deployments.
            "revisionHistoryLimit": 0,
            "progressDeadlineSeconds": deadline,
            "selector": { "matchLabels": labels },
            "template": {
                "metadata": {
                    "labels": pod_labels,
                    "annotations": app_name,
                },
                "spec": self.pod(app)?,
            },
        });
        Ok(object)
    }

    fn pod(&self, app: &ReleasedApp) -> Result<Value, Error> {
        let mut pod = json!({
            // Apps do not talk to the cluster.
            "automountServiceAccountToken": false,
            // Variables of Services could have the names of variables of the app.
            "enableServiceLinks": false,
            "terminationGracePeriodSeconds": self.spec.stop_timeout.as_secs(),
            "containers": [self.container(app)?],
        });
        let secrets = &self.section.image_pull_secrets;
        if !secrets.is_empty() {
            let secrets = secrets.iter().map(|name| json!({ "name": name }));
            pod["imagePullSecrets"] = secrets.collect();
        }
        if let Some(storage) = self.storage() {
            storage.add_to(&mut pod);
        }
        Ok(pod)
    }

    fn container(&self, app: &ReleasedApp) -> Result<Value, Error> {
        let variables = self.variables(app);
        let plain = variables.plain.iter().map(|(name, value)| {
            // `$(NAME)` would be replaced.
            json!({ "name": name, "value": value.replace('$', "$$") })
        });
        let mut sources = Vec::new();
        if !variables.secret.is_empty() {
            sources.push(names::environment_secret(self.spec, app));
        }
        // The last source wins.
        let settings = self.spec.settings.iter();
        sources.extend(settings.map(|version| self.owner.settings(version)));
        let sources = sources
            .into_iter()
            .map(|name| json!({ "secretRef": { "name": name } }));
        let port = names::port(app);
        let mut container = json!({
            "name": "app",
            "image": image(app)?,
            "imagePullPolicy": "IfNotPresent",
            "ports": [{ "name": port, "containerPort": app.port, "protocol": "TCP" }],
            "env": plain.collect::<Value>(),
            "envFrom": sources.collect::<Value>(),
            "readinessProbe": readiness(app, &port),
        });
        if let Some(wanted) = KubernetesSection::of_app(&self.section.resources, &app.app) {
            let mut resources = Map::new();
            for (name, values) in [("requests", &wanted.requests), ("limits", &wanted.limits)] {
                if !values.is_empty() {
                    resources.insert(name.into(), json!(values));
                }
            }
            container["resources"] = Value::Object(resources);
        }
        if let Some(storage) = self.storage() {
            container["volumeMounts"] = json!([storage.mount()]);
        }
        Ok(container)
    }
}

/// The public Service of a store, with the traffic for a release. The ports are those of the release.
pub fn public_service(
    owner: &StoreOwner,
    namespace: &str,
    release: &RecordId,
    ports: &Value,
) -> Value {
    let mut selector = owner.selector();
    selector.insert(RELEASE.into(), release.as_str().into());
    json!({
        "apiVersion": SERVICE.version,
        "kind": SERVICE.name,
        "metadata": {
            "name": owner.service(),
            "namespace": namespace,
            "labels": owner.labels(),
        },
        "spec": { "type": "ClusterIP", "selector": selector, "ports": ports },
    })
}

/// The public hosts of a release. A name of this machine counts only if there is no other.
pub fn public_hosts(spec: &ReleaseSpec) -> Vec<String> {
    let all = spec.hosts.iter().map(|host| host.to_ascii_lowercase());
    let all: Vec<String> = all.collect();
    let is_remote = |host: &&String| !host.ends_with(".localhost");
    let remote: Vec<String> = all.iter().filter(is_remote).cloned().collect();
    if remote.is_empty() { all } else { remote }
}

/// The address of a host of a store, if the store has routes.
fn address(section: &KubernetesSection, host: &str) -> Option<String> {
    let has_tls = match (&section.ingress, &section.gateway) {
        (Some(ingress), _) => ingress.tls_secret.is_some(),
        (None, Some(gateway)) => gateway.tls,
        (None, None) => return None,
    };
    let scheme = if has_tls { "https" } else { "http" };
    Some(format!("{scheme}://{host}"))
}

/// The path below which an app answers, without slashes at its ends.
pub fn path_of(app: &ReleasedApp) -> &str {
    let path = app.path_prefix.as_deref().unwrap_or_default();
    path.trim_matches('/')
}

/// The image by its digest.
fn image(app: &ReleasedApp) -> Result<String, Error> {
    let stored = StoredImage::parse(&app.reference);
    let name = stored.and_then(|image| image.by_digest(&app.digest));
    name.ok_or_else(|| Error::Layout {
        reference: app.reference.clone(),
    })
}

/// When a pod is ready. A cluster accepts the statuses from 200 to 399 only; an app with another expected
/// status is ready when it accepts connections.
fn readiness(app: &ReleasedApp, port: &str) -> Value {
    let probe = &app.health;
    let mut readiness = json!({
        "periodSeconds": probe.interval.as_secs().max(1),
        "timeoutSeconds": probe.timeout.as_secs().max(1),
        "successThreshold": probe.consecutive.max(1),
    });
    match probe.status {
        Some(200..400) => {
            readiness["httpGet"] = json!({ "path": probe.path, "port": port, "scheme": "HTTP" });
        }
        _ => readiness["tcpSocket"] = json!({ "port": port }),
    }
    readiness
}
