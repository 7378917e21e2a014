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
    /// The storage for the data of each store (`deploy.data`). Without it, stores have no folder that outlives
    /// their releases.
    pub storage: Option<StorageSection>,
    /// How an app is probed: a request through the API server, beside the readiness of its pods, or only
    /// the readiness.
    pub probe: KubernetesProbe,
}

/// The storage for the data of each store: one `PersistentVolumeClaim`, which all releases share.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(transform = closed)]
pub struct StorageSection {
    /// The size of a claim, as Kubernetes writes quantities: `10Gi`.
    pub size: String,
    /// The storage class. Without it, the default class of the cluster is used.
    pub class: Option<String>,
    /// Whether the pods of a store can be on several nodes (`ReadWriteMany`), or are all on the same node
    /// (`ReadWriteOnce`).
    pub access_mode: AccessMode,
    /// An existing claim, which is used instead of a new claim; `size` and `class` are ignored. `{store}`
    /// stands for the id of the store. Without `{store}`, each store has a folder of its own in the claim.
    pub claim: Option<String>,
    /// The group of the files, which the apps get too, so that apps of any user can write. With `null`, the
    /// cluster decides.
    pub fs_group: Option<u32>,
}

impl Default for StorageSection {
    fn default() -> Self {
        Self {
            size: "1Gi".into(),
            class: None,
            access_mode: AccessMode::default(),
            claim: None,
            fs_group: Some(1000),
        }
    }
}

/// How many nodes can use a volume at the same time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum AccessMode {
    /// One node.
    #[default]
    ReadWriteOnce,
    /// Any number of nodes.
    ReadWriteMany,
}

impl AccessMode {
    /// The name in Kubernetes.
    pub fn name(self) -> &'static str {
        match self {
            Self::ReadWriteOnce => "ReadWriteOnce",
            Self::ReadWriteMany => "ReadWriteMany",
        }
    }
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
        let size = self.storage.as_ref().map(|storage| storage.size.as_str());
        if let Some(size) = size.filter(|size| !is_size(size)) {
            problems.push(KubernetesProblem {
                pointer: vec!["storage", "size"],
                message: format!("`{}` is not a valid size", size.escape_debug()),
                help: "write a number with a unit, such as `500Mi` or `10Gi`".into(),
            });
        }
        problems
    }
}

/// Whether a text is a size, as Kubernetes writes it.
fn is_size(text: &str) -> bool {
    let units = [
        "Ki", "Mi", "Gi", "Ti", "Pi", "Ei", "k", "M", "G", "T", "P", "E",
    ];
    let number = units.iter().find_map(|unit| text.strip_suffix(unit));
    let number = number.unwrap_or(text);
    let digits = number.replacen('.', "", 1);
    digits.chars().all(|c| c.is_ascii_digit()) && digits.chars().any(|c| c != '0')
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
