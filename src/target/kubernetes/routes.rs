//! The routes from outside to a Service: an Ingress, an `HTTPRoute`, or both.

use serde_json::{Map, Value, json};

use super::kinds::{HTTP_ROUTE, INGRESS, ObjectKind};
use super::names::{RELEASE, StoreOwner};
use crate::config::{GatewaySection, IngressRewrite, IngressSection, KubernetesSection};
use crate::ledger::RecordId;

/// An app, as routes see it.
pub struct RouteBackend {
    /// The name of its port in the Service.
    pub port: String,
    /// The number of its port in the Service.
    pub number: u16,
    /// The path below which it answers; `/` for the frontend.
    pub path: String,
    /// Whether the app sees the path without its own part.
    pub strips_prefix: bool,
}

/// The routes to a Service.
pub struct ServiceRoutes<'a> {
    /// The owner.
    pub owner: &'a StoreOwner,
    /// The section of the config.
    pub section: &'a KubernetesSection,
    /// The namespace.
    pub namespace: &'a str,
    /// The release. None for the public routes.
    pub release: Option<&'a RecordId>,
    /// The name of the Service.
    pub name: String,
    /// The hosts.
    pub hosts: Vec<String>,
}

impl RouteBackend {
    fn is_rewritten(&self) -> bool {
        self.strips_prefix && self.path != "/"
    }
}

impl ServiceRoutes<'_> {
    /// The objects that the config asks for.
    pub fn objects(&self, backends: &[RouteBackend]) -> Vec<(ObjectKind, Value)> {
        let mut objects = Vec::new();
        if self.hosts.is_empty() {
            return objects;
        }
        if let Some(ingress) = &self.section.ingress {
            objects.extend(self.ingresses(ingress, backends));
        }
        if let Some(gateway) = &self.section.gateway {
            objects.push((HTTP_ROUTE, self.http_route(gateway, backends)));
        }
        objects
    }

    fn head(&self, kind: ObjectKind, name: &str) -> Value {
        let mut labels = self.owner.labels();
        if let Some(release) = self.release {
            labels.insert(RELEASE.into(), release.as_str().into());
        }
        json!({
            "apiVersion": kind.version,
            "kind": kind.name,
            "metadata": { "name": name, "namespace": self.namespace, "labels": labels },
        })
    }

    /// One Ingress for all apps that see the whole path, and one for each other app: its annotations change
    /// the paths of all its requests.
    fn ingresses(
        &self,
        ingress: &IngressSection,
        backends: &[RouteBackend],
    ) -> Vec<(ObjectKind, Value)> {
        let rewrites = ingress.rewrite != IngressRewrite::None;
        let (rewritten, whole): (Vec<_>, Vec<_>) = backends
            .iter()
            .partition(|it| rewrites && it.is_rewritten());
        let mut objects = Vec::new();
        if !whole.is_empty() {
            let paths = whole.iter().map(|it| self.path(&it.path, "Prefix", it));
            let object = self.ingress(ingress, &self.name, Map::new(), &paths.collect());
            // One object asks for the certificate; others would ask for the same Secret with other hosts.
            let is_first = self.release.is_none();
            objects.push((
                INGRESS,
                if is_first {
                    object
                } else {
                    without_issuer(object)
                },
            ));
        }
        for backend in rewritten {
            let name = format!("{}-{}", self.name, backend.port);
            let (annotations, path, path_type) = rewrite(ingress.rewrite, &backend.path);
            let paths = Value::Array(vec![self.path(&path, path_type, backend)]);
            let object = self.ingress(ingress, &name, annotations, &paths);
            objects.push((INGRESS, without_issuer(object)));
        }
        objects
    }

    fn path(&self, path: &str, path_type: &str, backend: &RouteBackend) -> Value {
        let service = json!({ "name": self.name, "port": { "name": backend.port } });
        json!({ "path": path, "pathType": path_type, "backend": { "service": service } })
    }

    fn ingress(
        &self,
        ingress: &IngressSection,
        name: &str,
        annotations: Map<String, Value>,
        paths: &Value,
    ) -> Value {
        let mut object = self.head(INGRESS, name);
        let own = ingress.annotations.iter();
        let own = own.map(|(name, value)| (name.clone(), value.as_str().into()));
        let mut all: Map<String, Value> = own.collect();
        all.extend(annotations);
        if !all.is_empty() {
            object["metadata"]["annotations"] = Value::Object(all);
        }
        let rules = self.hosts.iter();
        let rules: Value = rules
            .map(|host| json!({ "host": host, "http": { "paths": paths } }))
            .collect();
        object["spec"] = json!({ "rules": rules });
        if let Some(class) = &ingress.class {
            object["spec"]["ingressClassName"] = class.as_str().into();
        }
        if let Some(secret) = &ingress.tls_secret {
            let secret = secret.replace("{store}", self.owner.store.as_str());
            object["spec"]["tls"] = json!([{ "hosts": self.hosts, "secretName": secret }]);
        }
        object
    }

    fn http_route(&self, gateway: &GatewaySection, backends: &[RouteBackend]) -> Value {
        let mut parent = json!({
            "group": "gateway.networking.k8s.io",
            "kind": "Gateway",
            "name": gateway.name,
        });
        if let Some(namespace) = &gateway.namespace {
            parent["namespace"] = namespace.as_str().into();
        }
        if let Some(section) = &gateway.section_name {
            parent["sectionName"] = section.as_str().into();
        }
        let rules = backends.iter().map(|backend| {
            let mut rule = json!({
                "matches": [{ "path": { "type": "PathPrefix", "value": backend.path } }],
                "backendRefs": [{
                    "group": "",
                    "kind": "Service",
                    "name": self.name,
                    "port": backend.number,
                    "weight": 1,
                }],
            });
            if backend.is_rewritten() {
                let path = json!({ "type": "ReplacePrefixMatch", "replacePrefixMatch": "/" });
                rule["filters"] = json!([{ "type": "URLRewrite", "urlRewrite": { "path": path } }]);
            }
            rule
        });
        let mut object = self.head(HTTP_ROUTE, &self.name);
        object["spec"] = json!({
            "parentRefs": [parent],
            "hostnames": self.hosts,
            "rules": rules.collect::<Value>(),
        });
        object
    }
}

/// An Ingress that does not ask cert-manager for a certificate.
fn without_issuer(mut ingress: Value) -> Value {
    if let Some(Value::Object(annotations)) = ingress.pointer_mut("/metadata/annotations") {
        let asks = |name: &str| name.starts_with("cert-manager.io/") || name.ends_with("/tls-acme");
        annotations.retain(|name, _| !asks(name));
    }
    ingress
}

/// The annotations with which a controller removes a path, and the path of the rule.
fn rewrite(rewrite: IngressRewrite, path: &str) -> (Map<String, Value>, String, &'static str) {
    let escaped = regex::escape(path);
    let (annotations, path, path_type) = match rewrite {
        IngressRewrite::Nginx => (
            json!({
                "nginx.ingress.kubernetes.io/use-regex": "true",
                "nginx.ingress.kubernetes.io/rewrite-target": "/$2",
            }),
            format!("{escaped}(/|$)(.*)"),
            "ImplementationSpecific",
        ),
        IngressRewrite::Haproxy => (
            json!({ "haproxy.org/path-rewrite": format!("{escaped}/?(.*) /\\1") }),
            path.to_owned(),
            "Prefix",
        ),
        IngressRewrite::None => (json!({}), path.to_owned(), "Prefix"),
    };
    match annotations {
        Value::Object(annotations) => (annotations, path, path_type),
        _ => (Map::new(), path, path_type),
    }
}

/// A route as it is applied before the switch: the paths of the live release, and those that only the next
/// release has. So the live release keeps its paths if the switch fails. None if another part of the route
/// changes, such as its hosts: that waits until after the switch.
pub fn before_switch(live: Option<&Value>, wanted: &Value) -> Option<Value> {
    let Some(live) = live else {
        return Some(wanted.clone());
    };
    let annotations = &live["metadata"]["annotations"];
    let mut own = wanted["metadata"]["annotations"].as_object().into_iter();
    let keeps_annotations = own.all(|own| own.iter().all(|(name, it)| annotations[name] == *it));
    let (before, after) = (&live["spec"], &wanted["spec"]);
    let parts = ["parentRefs", "hostnames", "ingressClassName", "tls"];
    let keeps_parts = parts.iter().all(|part| before[part] == after[part]);
    let hosts = |spec: &Value| -> Vec<Value> {
        let rules = spec["rules"].as_array().into_iter().flatten();
        rules.map(|rule| rule["host"].clone()).collect()
    };
    let is_ingress = wanted["kind"] == INGRESS.name;
    if !keeps_annotations || !keeps_parts || (is_ingress && hosts(before) != hosts(after)) {
        return None;
    }
    let mut route = wanted.clone();
    if is_ingress {
        let rules = route["spec"]["rules"].as_array_mut().into_iter().flatten();
        let live = before["rules"].as_array().into_iter().flatten();
        for (rule, live) in rules.zip(live) {
            let paths = &mut rule["http"]["paths"];
            *paths = merged(&live["http"]["paths"], paths, |it| &it["path"]);
        }
    } else {
        let rules = &mut route["spec"]["rules"];
        *rules = merged(
            &before["rules"],
            rules,
            |it| &it["matches"][0]["path"]["value"],
        );
    }
    Some(route)
}

/// The live rules, and those of the next release for other paths.
fn merged(live: &Value, next: &Value, path_of: fn(&Value) -> &Value) -> Value {
    let (live, next) = (live.as_array(), next.as_array());
    let (live, next) = (
        live.map_or(&[][..], Vec::as_slice),
        next.map_or(&[][..], Vec::as_slice),
    );
    let is_new = |rule: &&Value| live.iter().all(|it| path_of(it) != path_of(rule));
    live.iter()
        .chain(next.iter().filter(is_new))
        .cloned()
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::before_switch;

    fn ingress(host: &str, paths: &[(&str, &str)]) -> Value {
        let paths = paths.iter().map(|(path, port)| {
            json!({ "path": path, "backend": { "service": { "port": { "name": port } } } })
        });
        let paths: Value = paths.collect();
        json!({
            "kind": "Ingress",
            "metadata": { "name": "us" },
            "spec": { "rules": [{ "host": host, "http": { "paths": paths } }] },
        })
    }

    fn route(paths: &[(&str, u16)]) -> Value {
        let rules = paths.iter().map(|(path, port)| {
            json!({ "matches": [{ "path": { "value": path } }], "backendRefs": [{ "port": port }] })
        });
        let rules: Value = rules.collect();
        json!({ "kind": "HTTPRoute", "metadata": {}, "spec": { "hostnames": ["a"], "rules": rules } })
    }

    #[test]
    fn the_live_release_keeps_its_paths_until_the_switch() {
        let live = ingress(
            "a",
            &[("/", "frontend"), ("/old/", "old"), ("/moved/", "old")],
        );
        let next = ingress(
            "a",
            &[("/", "frontend"), ("/moved/", "new"), ("/new/", "new")],
        );
        let both = ingress(
            "a",
            &[
                ("/", "frontend"),
                ("/old/", "old"),
                ("/moved/", "old"),
                ("/new/", "new"),
            ],
        );
        assert_eq!(before_switch(Some(&live), &next), Some(both));
        assert_eq!(before_switch(Some(&next), &next), Some(next.clone()));
        assert_eq!(before_switch(None, &next), Some(next.clone()));
        // Hosts and annotations are those of the live release until the switch.
        let other_host = ingress("b", &[("/", "frontend")]);
        assert_eq!(before_switch(Some(&live), &other_host), None);
        let mut rewritten = next.clone();
        rewritten["metadata"]["annotations"] = json!({ "haproxy.org/path-rewrite": "/new/" });
        assert_eq!(before_switch(Some(&live), &rewritten), None);

        let (live, next) = (
            route(&[("/", 1), ("/old/", 2)]),
            route(&[("/", 3), ("/new/", 4)]),
        );
        let both = route(&[("/", 1), ("/old/", 2), ("/new/", 4)]);
        assert_eq!(before_switch(Some(&live), &next), Some(both));
    }
}
