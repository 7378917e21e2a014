//! The maintenance page: pods that answer every request with it, and to which the public Service is switched.
//!
//! The pods run Node.js from the image of the live release, which the cluster has already.

use std::time::{Duration, Instant};

use ring::digest::{SHA256, digest};
use serde_json::{Value, json};
use tokio::time::sleep;

use super::KubernetesTarget;
use super::api::Api;
use super::error::Error;
use super::kinds::{CONFIG_MAP, DEPLOYMENT, ObjectKind, POD};
use super::names::{PAGE, StoreOwner};
use super::pods::{conditions, ended};
use super::probe::ready;
use super::steps::{AppDeployment, apply, owned_by};
use super::traffic::{active, is_behind_page};
use crate::store::StoreId;

/// The port of the pods.
pub const PAGE_PORT: u16 = 8080;

/// The program that serves the page.
const PROGRAM: &str = include_str!("maintenance.js");

/// The folder of the page in the pods.
const FOLDER: &str = "/alokai-maintenance";

/// Pods that serve the page, so that the end of a node does not interrupt it.
const REPLICAS: u64 = 2;

/// How long the pods may take to be ready.
const DEADLINE: Duration = Duration::from_mins(2);

/// The pause between two requests for the pods.
const PAUSE: Duration = Duration::from_millis(300);

impl KubernetesTarget {
    /// Shows a page, or shows the live release again.
    pub(super) async fn set_maintenance(
        &self,
        store: &StoreId,
        page: Option<&str>,
    ) -> Result<(), Error> {
        let (api, owner) = (self.api()?, self.owner(store)?);
        let Some(page) = page else {
            self.select_page(api, store, false).await?;
            return remove_page(api, &owner).await;
        };
        let public = self.public(api, &owner).await?.unwrap_or_default();
        let nothing_live = || Error::NothingLive {
            store: store.clone(),
        };
        let release = active(&public).ok_or_else(nothing_live)?;
        let mut apps = self.deployments(api, &owner).await?;
        apps.retain(|app| app.release == release);
        let image = image_of(&apps).ok_or_else(nothing_live)?.to_owned();
        let pull_secrets = &self.section().image_pull_secrets;
        let objects = page_objects(&owner, &api.namespace, page, &image, pull_secrets);
        for (kind, _) in &objects {
            api.owned(*kind, &owner.page(), &owner).await?;
        }
        for (kind, object) in objects {
            apply(api, kind, &owned_by(&public, object)).await?;
        }
        if let Err(reason) = await_page(api, &owner).await? {
            let now = self.public(api, &owner).await?;
            if !is_behind_page(&now.unwrap_or_default()) {
                remove_page(api, &owner).await?;
            }
            return Err(Error::Page {
                store: store.clone(),
                image,
                reason,
            });
        }
        self.select_page(api, store, true).await
    }
}

/// The image of the frontend of a release, or of any other app.
fn image_of(apps: &[AppDeployment]) -> Option<&str> {
    let containers = apps
        .iter()
        .map(|app| &app.object["spec"]["template"]["spec"]["containers"][0]);
    let is_frontend = |container: &&Value| container["ports"][0]["name"] == "frontend";
    let mut frontends = containers.clone().filter(is_frontend);
    let container = frontends.next().or_else(|| containers.clone().next());
    container?["image"].as_str()
}

/// The page, and the pods that serve it.
fn page_objects(
    owner: &StoreOwner,
    namespace: &str,
    page: &str,
    image: &str,
    pull_secrets: &[String],
) -> [(ObjectKind, Value); 2] {
    let head = |kind: ObjectKind| {
        json!({
            "apiVersion": kind.version,
            "kind": kind.name,
            "metadata": { "name": owner.page(), "namespace": namespace, "labels": owner.labels() },
        })
    };
    let mut config_map = head(CONFIG_MAP);
    config_map["data"] = json!({ "page.html": page });
    let container = json!({
        "name": "page",
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["node", "--eval", PROGRAM],
        "env": [
            { "name": "PAGE", "value": format!("{FOLDER}/page.html") },
            { "name": "PORT", "value": PAGE_PORT.to_string() },
            // Replaces a value of the image, which could load files of the app.
            { "name": "NODE_OPTIONS", "value": "--no-warnings" },
        ],
        "ports": [{ "name": "page", "containerPort": PAGE_PORT, "protocol": "TCP" }],
        // A probe by HTTP would fail, because the page has status 503.
        "readinessProbe": { "periodSeconds": 1, "tcpSocket": { "port": "page" } },
        "resources": {
            "requests": { "cpu": "10m", "memory": "64Mi" },
            "limits": { "cpu": "500m", "memory": "128Mi" },
        },
        "volumeMounts": [{ "name": "page", "mountPath": FOLDER, "readOnly": true }],
    });
    let pull_secrets = pull_secrets.iter().map(|name| json!({ "name": name }));
    let mut deployment = head(DEPLOYMENT);
    deployment["spec"] = json!({
        "replicas": REPLICAS,
        "revisionHistoryLimit": 0,
        "selector": { "matchLabels": owner.page_selector() },
        "template": {
            "metadata": {
                "labels": owner.page_selector(),
                // A changed digest makes Kubernetes replace the pods.
                "annotations": { PAGE: digest_of(page) },
            },
            "spec": {
                "automountServiceAccountToken": false,
                "enableServiceLinks": false,
                "terminationGracePeriodSeconds": 15,
                "imagePullSecrets": pull_secrets.collect::<Value>(),
                "containers": [container],
                "volumes": [{ "name": "page", "configMap": { "name": owner.page() } }],
            },
        },
    });
    [(CONFIG_MAP, config_map), (DEPLOYMENT, deployment)]
}

fn digest_of(page: &str) -> String {
    let digest = digest(&SHA256, page.as_bytes());
    let digits = digest.as_ref().iter().map(|byte| format!("{byte:02x}"));
    digits.collect()
}

/// Waits until all pods serve the newest page. The inner error is why they do not.
async fn await_page(api: &Api, owner: &StoreOwner) -> Result<Result<(), String>, Error> {
    let end = Instant::now() + DEADLINE;
    loop {
        let deployment = api
            .get(DEPLOYMENT, &owner.page())
            .await?
            .unwrap_or_default();
        let (ready, wanted) = ready(&deployment);
        // `ready` does not count pods with an earlier page; `status.replicas` does.
        let all = deployment["status"]["replicas"].as_u64();
        if ready == REPLICAS && all == Some(REPLICAS) {
            return Ok(Ok(()));
        }
        let pods = api
            .list(POD, &owner.query_page())
            .await?
            .unwrap_or_default();
        let stays = |pod: &&Value| pod["metadata"]["deletionTimestamp"].is_null();
        if let Some(how) = pods.iter().filter(stays).find_map(ended) {
            return Ok(Err(format!("its container {how}")));
        }
        if Instant::now() > end {
            let seconds = DEADLINE.as_secs();
            let counted = format!("{ready} of {wanted} pods are ready after {seconds} s");
            let conditions = pods.iter().flat_map(conditions);
            let reasons: Vec<String> = [counted].into_iter().chain(conditions).collect();
            return Ok(Err(reasons.join("; ")));
        }
        sleep(PAUSE).await;
    }
}

/// Deletes the page and its pods.
async fn remove_page(api: &Api, owner: &StoreOwner) -> Result<(), Error> {
    for kind in [DEPLOYMENT, CONFIG_MAP] {
        match api.get(kind, &owner.page()).await? {
            Some(found) if owner.owns(&found) => api.delete(kind, &found, false).await?,
            _ => {}
        }
    }
    Ok(())
}
