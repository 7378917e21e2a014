//! The section `deploy.kubernetes`: the cluster, and what is made in it.

use indexmap::IndexMap;
use schemars::{JsonSchema, Schema};
use serde::{Deserialize, Serialize};

use super::raw::closed;
use crate::store::AppName;

fn require_name(schema: &mut Schema) {
    schema.insert("required".into(), serde_json::json!(["name"]));
}

/// The cluster of the target `kubernetes`, and what is made in it.
#[derive(Debug, Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(transform = closed)]
pub struct KubernetesSection {
    /// The context of the kubeconfig. The default is its current context.
    pub context: Option<String>,
    /// The namespace. The default is that of the context, or `default`.
    pub namespace: Option<String>,
    /// How many pods an app has, by app, and `*` for all other apps. The default is 1.
    pub replicas: IndexMap<String, u16>,
    /// The CPU and the memory of a pod, by app, and `*` for all other apps.
    pub resources: IndexMap<String, ResourcesEntry>,
    /// The names of Secrets in the namespace with logins of the registry.
    pub image_pull_secrets: Vec<String>,
    /// The Ingress of each store. Without it and without `gateway`, a store has only its Service.
    pub ingress: Option<IngressSection>,
    /// The Gateway to which the `HTTPRoute` of each store is attached.
    pub gateway: Option<GatewaySection>,
    /// How an app is probed: a request through the API server, beside the readiness of its pods, or only
    /// the readiness.
    pub probe: KubernetesProbe,
}

/// How an app in a cluster is probed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum KubernetesProbe {
    /// By the readiness of its pods, and by requests that the API server forwards to its Service.
    #[default]
    Service,
    /// By the readiness of its pods.
    Readiness,
}

/// The CPU and the memory of a pod, as Kubernetes writes quantities: `500m`, `256Mi`.
#[derive(Debug, Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(transform = closed)]
pub struct ResourcesEntry {
    /// What a node must have free for the pod.
    pub requests: IndexMap<String, String>,
    /// What the pod can use at most.
    pub limits: IndexMap<String, String>,
}

/// The Ingress of each store.
#[derive(Debug, Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(transform = closed)]
pub struct IngressSection {
    /// The class. Without it, the default class of the cluster is used.
    pub class: Option<String>,
    /// Annotations of each Ingress, such as `cert-manager.io/cluster-issuer`.
    pub annotations: IndexMap<String, String>,
    /// The Secret with the certificate of a store. `{store}` stands for the id of the store.
    pub tls_secret: Option<String>,
    /// The controller, which decides how the path of an app is removed from a request.
    pub rewrite: IngressRewrite,
}

/// How an ingress controller removes the path of an app from requests, such as `/api`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum IngressRewrite {
    /// Annotations of ingress-nginx.
    #[default]
    Nginx,
    /// Annotations of the HAProxy Kubernetes Ingress Controller.
    Haproxy,
    /// The path is not removed.
    None,
}

/// The Gateway to which the `HTTPRoute` of each store is attached.
#[derive(Debug, Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(transform = closed, transform = require_name)]
pub struct GatewaySection {
    /// The name of the Gateway.
    pub name: String,
    /// Its namespace. The default is the namespace of the stores.
    pub namespace: Option<String>,
    /// The name of its listener. Without it, the routes are attached to all listeners.
    pub section_name: Option<String>,
    /// Whether stores have addresses with `https`.
    pub tls: bool,
}

/// A problem in the section.
pub struct KubernetesProblem {
    /// Keys below `deploy.kubernetes`.
    pub pointer: Vec<&'static str>,
    /// The message.
    pub message: String,
    /// How to fix it.
    pub help: String,
}

impl KubernetesSection {
    /// What an app has in a map by app: its own entry, or that of all apps.
    pub fn of_app<'a, T>(map: &'a IndexMap<String, T>, app: &AppName) -> Option<&'a T> {
        map.get(app.as_str()).or_else(|| map.get("*"))
    }

    /// All problems of the section.
    pub fn problems(&self) -> Vec<KubernetesProblem> {
        let gateway = self.gateway.as_ref();
        let gateway_namespace = gateway.and_then(|gateway| gateway.namespace.as_deref());
        let names = [
            (&["namespace"][..], self.namespace.as_deref()),
            (&["gateway", "name"], gateway.map(|it| it.name.as_str())),
            (&["gateway", "namespace"], gateway_namespace),
        ];
        let wrong = names.into_iter().filter_map(|(pointer, name)| {
            let name = name.filter(|name| !is_label(name))?;
            Some(KubernetesProblem {
                pointer: pointer.to_vec(),
                message: format!("`{}` is not a valid name in Kubernetes", name.escape_debug()),
                help: "use lower-case letters, digits and `-`, at most 63 characters, and a letter or a digit at both ends".into(),
            })
        });
        let mut problems: Vec<_> = wrong.collect();
        if self.replicas.values().any(|replicas| *replicas == 0) {
            problems.push(KubernetesProblem {
                pointer: vec!["replicas"],
                message: "`0` is not a valid number of pods".into(),
                help: "write a number from 1 on".into(),
            });
        }
        problems
    }
}

/// Whether a text is a label of a host name, as RFC 1123 has it.
fn is_label(name: &str) -> bool {
    let is_allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let is_end = |c: char| c != '-';
    (1..=63).contains(&name.len())
        && name.chars().all(is_allowed)
        && name.starts_with(is_end)
        && name.ends_with(is_end)
}
