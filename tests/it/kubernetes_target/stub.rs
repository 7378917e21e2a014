//! Answers that the API server for tests does not give: those of apps, of a busy server, of an ended login.

use std::collections::{BTreeMap, VecDeque};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use alokai::target::{AppLine, LogQuery, ReleaseSpec, Target};
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use base64::Engine as _;
use serde_json::{Value, json};

use super::{release, target};
use crate::support::Project;

/// What the server has seen, and what it answers next.
#[derive(Default)]
struct Script {
    seen: Vec<String>,
    /// Answered before anything else.
    next: VecDeque<(u16, Value)>,
    may_forward: bool,
    /// The objects of each kind, by the name in addresses.
    lists: BTreeMap<&'static str, Value>,
    /// Objects, by the end of their address.
    objects: BTreeMap<&'static str, Value>,
    /// The output of pods.
    output: Option<&'static str>,
    /// The answer to requests for the output of pods, if they fail.
    refused: Option<(u16, &'static str)>,
    /// The objects that were written.
    written: Vec<Value>,
    /// The only token that is accepted.
    token: Option<String>,
}

type Shared = Arc<Mutex<Script>>;

async fn answer(
    State(script): State<Shared>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> (StatusCode, String) {
    let mut script = script.lock().unwrap();
    let path = uri.path_and_query().unwrap().as_str().to_owned();
    script.seen.push(format!("{method} {path}"));
    let status = |code: u16| StatusCode::from_u16(code).unwrap();
    let token = headers.get("authorization").and_then(|it| it.to_str().ok());
    let is_known = |wanted: &String| token == Some(&format!("Bearer {wanted}"));
    if !script.token.as_ref().is_none_or(is_known) {
        return (
            status(401),
            json!({ "message": "Unauthorized" }).to_string(),
        );
    }
    if let Some((code, value)) = script.next.pop_front() {
        return (status(code), value.to_string());
    }
    if let Some((_, asked)) = path.split_once("/proxy") {
        return (status(418), format!("the app was asked for {asked}"));
    }
    if path.contains("/log?") {
        if let Some((code, message)) = script.refused {
            return (status(code), json!({ "message": message }).to_string());
        }
        let output = script.output.unwrap_or("first\r\nsecond\n");
        return (status(200), output.into());
    }
    let mut objects = script.objects.iter();
    if let Some((_, object)) = objects.find(|(end, _)| path.ends_with(*end)) {
        return (status(200), object.to_string());
    }
    let listed = script.lists.iter();
    let mut listed = listed.filter(|(kind, _)| path.contains(&format!("/{kind}?labelSelector")));
    if let Some((_, items)) = listed.next() {
        return (status(200), json!({ "items": items }).to_string());
    }
    if path.contains("selfsubjectaccessreviews") {
        let allowed = json!({ "status": { "allowed": script.may_forward } });
        return (status(201), allowed.to_string());
    }
    let mut object: Value = serde_json::from_slice(&body).unwrap_or_else(|_| json!({}));
    script.written.push(object.clone());
    object["metadata"]["uid"] = "u".into();
    if method == Method::GET {
        object["metadata"]["generation"] = 1.into();
        object["spec"] = json!({ "replicas": 1 });
        object["status"] =
            json!({ "observedGeneration": 1, "updatedReplicas": 1, "readyReplicas": 1 });
    }
    (status(200), object.to_string())
}

/// A server with a project that deploys to it.
struct Stub {
    script: Shared,
    project: Project,
    kubeconfig: PathBuf,
    runtime: tokio::runtime::Runtime,
    folder: tempfile::TempDir,
}

impl Stub {
    /// `user` is the login in the kubeconfig.
    fn new(section: &Value, user: &str) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .unwrap();
        let script = Shared::default();
        let router = Router::new()
            .fallback(answer)
            .with_state(Arc::clone(&script));
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0"));
        let listener = listener.unwrap();
        let address = listener.local_addr().unwrap();
        runtime.spawn(async move { axum::serve(listener, router).await });
        let folder = tempfile::tempdir().unwrap();
        let kubeconfig = folder.path().join("config");
        let text = format!(
            "clusters: [{{name: c, cluster: {{server: 'http://{address}/base'}}}}]
users: [{{name: u, user: {user}}}]
contexts: [{{name: x, context: {{cluster: c, user: u}}}}]
current-context: x
"
        );
        std::fs::write(&kubeconfig, text).unwrap();
        let deploy = json!({ "target": "kubernetes", "kubernetes": section });
        Self {
            script,
            project: Project::shop_named("stub").setting("deploy", &deploy),
            kubeconfig,
            runtime,
            folder,
        }
    }

    fn target(&self) -> alokai::target::kubernetes::KubernetesTarget {
        target(&self.project, &self.kubeconfig, self.runtime.handle())
    }

    fn answers(&self, code: u16, value: &Value) {
        let mut script = self.script.lock().unwrap();
        script.next.push_back((code, value.clone()));
    }

    fn seen(&self) -> Vec<String> {
        std::mem::take(&mut self.script.lock().unwrap().seen)
    }

    fn get(&self, url: &str) -> (u16, String) {
        self.runtime.block_on(async {
            let response = reqwest::Client::builder().no_proxy().build().unwrap();
            let response = response.get(url).send().await.unwrap();
            (response.status().as_u16(), response.text().await.unwrap())
        })
    }
}

#[test]
fn a_probe_is_answered_by_the_app_or_by_the_readiness_of_its_pods() {
    for (section, may_forward, forwards) in [
        (json!({}), true, true),
        (json!({}), false, false),
        (json!({ "probe": "readiness" }), true, false),
    ] {
        let stub = Stub::new(&section, "{token: t}");
        stub.script.lock().unwrap().may_forward = may_forward;
        let (target, spec) = (stub.target(), release());
        let staged = stub.runtime.block_on(target.stage(&spec)).unwrap();
        let address = format!("{}/healthz?a=b%20c", staged.replicas[0].address);
        stub.seen();
        let (status, text) = stub.get(&address);
        let service = format!("us-{}", spec.id.as_str().to_lowercase());
        let forwarded = format!(
            "GET /base/api/v1/namespaces/default/services/http:{service}:middleware/proxy/healthz?a=b%20c"
        );
        let seen = stub.seen();
        assert_eq!(seen.contains(&forwarded), forwards, "{seen:?}");
        if forwards {
            assert_eq!(
                (status, text.as_str()),
                (418, "the app was asked for /healthz?a=b%20c")
            );
        } else {
            assert_eq!(status, 200, "{text}");
        }
    }
}

#[test]
fn a_busy_server_is_asked_again_and_a_failed_write_is_not_repeated() {
    let stub = Stub::new(&json!({}), "{token: t}");
    let (target, spec) = (stub.target(), release());
    let busy = json!({ "message": "too many requests" });
    stub.answers(429, &busy);
    stub.answers(503, &busy);
    stub.runtime.block_on(target.preflight()).unwrap();
    let first = "GET /base/api/v1/namespaces/default".to_owned();
    assert_eq!(stub.seen()[..3], [first.clone(), first.clone(), first]);

    stub.answers(200, &json!({ "items": [] }));
    stub.answers(429, &busy);
    stub.answers(500, &json!({ "message": "etcd is gone" }));
    let error = stub.runtime.block_on(target.stage(&spec)).unwrap_err();
    assert!(error.to_string().contains("etcd is gone"), "{error}");
    assert_eq!(stub.seen().len(), 3);
}

#[test]
fn a_cluster_without_the_gateway_api_is_named_before_the_first_build() {
    let stub = Stub::new(&json!({ "gateway": { "name": "public" } }), "{token: t}");
    let target = stub.target();
    stub.runtime.block_on(target.preflight()).unwrap();
    for code in [200, 200, 404] {
        stub.answers(code, &json!({}));
    }
    let error = stub.runtime.block_on(target.preflight()).unwrap_err();
    assert!(
        error.to_string().contains("does not have the Gateway API"),
        "{error}"
    );
}

/// Objects of one app with a pod that was started again.
fn with_pods(stub: &Stub, release: &str) {
    let metadata = |name: &str| {
        json!({
            "name": name,
            "annotations": { "alokai.com/app": "storefront-middleware" },
            "labels": { "alokai.com/release": release },
        })
    };
    let container = json!({ "restartCount": 1, "state": { "running": {} } });
    let pod = json!({
        "metadata": metadata("pod-1"),
        "status": { "phase": "Running", "containerStatuses": [container] },
    });
    let deployment = json!({ "metadata": metadata("deployment"), "spec": { "replicas": 1 } });
    let mut script = stub.script.lock().unwrap();
    script.lists = [("pods", json!([pod])), ("deployments", json!([deployment]))].into();
}

#[test]
fn the_state_of_an_app_has_the_output_before_its_restart() {
    let stub = Stub::new(&json!({}), "{token: t}");
    let (target, spec) = (stub.target(), release());
    with_pods(&stub, spec.id.as_str());
    let states = stub.runtime.block_on(target.health(&spec.store, &spec.id));
    let states = states.unwrap();
    assert_eq!((states.len(), states[0].restarts), (1, 1));
    assert_eq!(states[0].tail, ["0 of 1 pods are ready", "first", "second"]);
    let seen = stub.seen();
    let log = "GET /base/api/v1/namespaces/default/pods/pod-1/log?container=app&tailLines=39&previous=true";
    assert!(seen.contains(&log.to_owned()), "{seen:?}");
}

#[test]
fn the_output_of_a_release_is_read_line_by_line() {
    let stub = Stub::new(&json!({}), "{token: t}");
    let (target, spec) = (stub.target(), release());
    with_pods(&stub, spec.id.as_str());
    let (lines, mut received) = tokio::sync::mpsc::channel(10);
    let wanted = LogQuery {
        store: spec.store.clone(),
        release: Some(spec.id.clone()),
        app: None,
        follow: true,
        since: Some("2026-01-02T03:04:05.678Z".parse().unwrap()),
        lines,
    };
    let read = async { target.logs(&wanted).await.unwrap() };
    stub.runtime.block_on(read);
    drop(wanted);
    let read = std::iter::from_fn(|| received.blocking_recv());
    let read: Vec<_> = read.map(|it| format!("{}: {}", it.app, it.line)).collect();
    assert_eq!(
        read,
        [
            "storefront-middleware: first",
            "storefront-middleware: second"
        ]
    );
    let seen = stub.seen();
    let query = "log?container=app&timestamps=true&follow=true&sinceTime=2026-01-02T03%3A04%3A05Z";
    assert!(seen.iter().any(|it| it.ends_with(query)), "{seen:?}");
}

/// The lines of the output of a release.
fn lines_of(stub: &Stub, release: &ReleaseSpec) -> Result<Vec<AppLine>, alokai::target::Error> {
    let target = stub.target();
    let (lines, mut received) = tokio::sync::mpsc::channel(10);
    let wanted = LogQuery {
        store: release.store.clone(),
        release: Some(release.id.clone()),
        app: None,
        follow: false,
        since: Some("2026-01-02T03:04:05.5Z".parse().unwrap()),
        lines,
    };
    let read = async { target.logs(&wanted).await };
    stub.runtime.block_on(read)?;
    drop(wanted);
    Ok(std::iter::from_fn(|| received.blocking_recv()).collect())
}

#[test]
fn secrets_are_replaced_in_the_output_and_unknown_secrets_are_an_error() {
    let stub = Stub::new(&json!({}), "{token: t}");
    let spec = release();
    with_pods(&stub, spec.id.as_str());
    let source = |name: &str| json!({ "secretRef": { "name": name } });
    let container = json!({ "envFrom": [source("of-files"), source("of-settings")] });
    let secret = |labels: Value, values: &[(&str, &str)]| {
        let data = values.iter().map(|(name, value)| {
            let value = base64::engine::general_purpose::STANDARD.encode(value);
            ((*name).to_owned(), value.into())
        });
        let data: serde_json::Map<String, Value> = data.collect();
        json!({ "metadata": { "labels": labels }, "data": data })
    };
    let of_release = json!({ "alokai.com/release": spec.id.as_str() });
    let files = [
        ("TOKEN", "hidden-token"),
        ("NEXT_PUBLIC_URL", "https://shown.example"),
        ("PIN", "12345"),
    ];
    {
        let mut script = stub.script.lock().unwrap();
        let deployments = script.lists.get_mut("deployments").unwrap();
        deployments[0]["spec"]["template"]["spec"]["containers"] = json!([container]);
        script
            .objects
            .insert("/secrets/of-files", secret(of_release, &files));
        let settings = secret(
            json!({}),
            &[("KEY", "hidden/setting"), ("NEXT_PUBLIC_KEY", "hidden-too")],
        );
        script.objects.insert("/secrets/of-settings", settings);
        script.output = Some(
            "2026-01-02T03:04:05.4Z too early\n\
             2026-01-02T03:04:05.6Z token hidden-token pin 12345 at https://shown.example\n\
             2026-01-02T03:04:06Z ?key=hidden%2Fsetting hidden-too\n\
             2026-01-02T03:04:07Z \n",
        );
    }
    let states = stub.runtime.block_on(async {
        let target = stub.target();
        target.health(&spec.store, &spec.id).await.unwrap()
    });
    let tail = states[0].tail.join("\n");
    assert!(tail.contains("token *** pin 12345"), "{tail}");
    let lines = lines_of(&stub, &spec).unwrap();
    let texts: Vec<_> = lines.iter().map(|line| line.line.as_str()).collect();
    assert_eq!(
        texts,
        [
            "token *** pin 12345 at https://shown.example",
            "?key=*** ***",
            ""
        ]
    );
    let at = lines[0].at.unwrap().to_string();
    assert_eq!(at, "2026-01-02T03:04:05.6Z");

    for code in [404, 403] {
        // The pods, the Deployments, and the first Secret.
        let mut script = stub.script.lock().unwrap();
        let pods = json!({ "items": script.lists["pods"] });
        let deployments = json!({ "items": script.lists["deployments"] });
        script.next = [
            (200, pods),
            (200, deployments),
            (code, json!({ "message": "no" })),
        ]
        .into();
        drop(script);
        let error = lines_of(&stub, &spec).unwrap_err().to_string();
        assert!(error.contains("of-files"), "{error}");
    }
}

#[test]
fn output_that_cannot_be_read_is_an_error_and_a_pod_that_waits_has_none() {
    let stub = Stub::new(&json!({}), "{token: t}");
    let spec = release();
    with_pods(&stub, spec.id.as_str());
    let refuse = |code, message| stub.script.lock().unwrap().refused = Some((code, message));
    refuse(403, "pods/log is forbidden");
    let error = lines_of(&stub, &spec).unwrap_err().to_string();
    assert!(error.contains("pods/log is forbidden"), "{error}");
    refuse(500, "the node does not answer");
    let error = lines_of(&stub, &spec).unwrap_err().to_string();
    assert!(error.contains("the node does not answer"), "{error}");
    refuse(
        400,
        "container \"app\" in pod \"pod-1\" is waiting to start: ContainerCreating",
    );
    assert_eq!(lines_of(&stub, &spec).unwrap(), []);
    // The pod was deleted meanwhile.
    refuse(404, "pods \"pod-1\" not found");
    assert_eq!(lines_of(&stub, &spec).unwrap(), []);
    // Its Deployment was deleted, so its secrets are not known.
    let mut script = stub.script.lock().unwrap();
    script.refused = None;
    script.lists.insert("deployments", json!([]));
    drop(script);
    let error = lines_of(&stub, &spec).unwrap_err().to_string();
    assert!(error.contains("pod-1"), "{error}");
}

#[test]
fn a_lock_whose_lease_has_ended_has_no_holder() {
    let stub = Stub::new(&json!({}), "{token: t}");
    let claim = super::super::docker_target::releases::claim("machine", 60);
    let holder = |renewed: &str| {
        let lease = json!({
            "metadata": {
                "labels": { "alokai.com/project": "stub-us", "alokai.com/store": "us" },
                "annotations": { "alokai.com/lock": serde_json::to_string(&claim).unwrap() },
            },
            "spec": { "renewTime": renewed },
        });
        let mut script = stub.script.lock().unwrap();
        script
            .objects
            .insert("/leases/alokai-lock-stub-us-us", lease);
        drop(script);
        let target = stub.target();
        let store = release().store;
        stub.runtime
            .block_on(async { target.lock_holder(&store).await.unwrap() })
    };
    assert_eq!(holder("2020-01-01T00:00:00.000000Z"), None);
    let now = format!("{:.6}", jiff::Timestamp::now());
    assert_eq!(holder(&now).unwrap().holder, "machine");
}

#[test]
fn a_copy_has_the_values_of_env_files_of_its_original() {
    let stub = Stub::new(&json!({}), "{token: t}");
    let original = release();
    with_pods(&stub, original.id.as_str());
    let container = json!({ "envFrom": [{ "secretRef": { "name": "deployment-env" } }] });
    let secret = json!({
        "metadata": {
            "labels": { "alokai.com/project": "stub-us", "alokai.com/store": "us" },
        },
        "data": { "KEPT": base64::engine::general_purpose::STANDARD.encode("of-the-original") },
    });
    {
        let mut script = stub.script.lock().unwrap();
        let deployments = script.lists.get_mut("deployments").unwrap();
        deployments[0]["spec"]["template"]["spec"]["containers"] = json!([container]);
        script.objects.insert("/secrets/deployment-env", secret);
    }
    // The working tree has another value.
    let mut copy = release();
    copy.copy_of = Some(original.id.clone());
    let target = stub.target();
    stub.runtime
        .block_on(async { target.stage(&copy).await.unwrap() });
    let script = stub.script.lock().unwrap();
    let secrets = script.written.iter().filter(|it| it["kind"] == "Secret");
    let values: Vec<&Value> = secrets.map(|it| &it["stringData"]).collect();
    assert_eq!(values, [&json!({ "KEPT": "of-the-original" })]);
    let apps = script
        .written
        .iter()
        .filter(|it| it["kind"] == "Deployment");
    let sources = apps.map(|it| &it["spec"]["template"]["spec"]["containers"][0]["envFrom"]);
    let with_secret = sources.filter(|it| it.as_array().is_some_and(|it| !it.is_empty()));
    assert_eq!(with_secret.count(), 1);
    drop(script);

    // The original starts again with the values that it has, also from a clean clone.
    stub.script.lock().unwrap().written.clear();
    let mut original = original;
    original.apps[0].variables.remove("TOKEN");
    stub.runtime
        .block_on(async { target.stage(&original).await.unwrap() });
    let script = stub.script.lock().unwrap();
    let mut secrets = script.written.iter().filter(|it| it["kind"] == "Secret");
    assert_eq!(
        secrets.next().unwrap()["stringData"],
        json!({ "KEPT": "of-the-original" })
    );
}

/// A program that returns another token each time.
fn login(folder: &Path) -> PathBuf {
    let path = folder.join("login");
    let script = r#"#!/bin/sh
echo >>"$0.calls"
printf '{"status":{"token":"t%d"}}' "$(wc -l <"$0.calls")"
"#;
    std::fs::write(&path, script).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700)).unwrap();
    path
}

#[test]
fn an_ended_login_is_renewed_once() {
    let plugin = "{exec: {apiVersion: client.authentication.k8s.io/v1, command: ./login}}";
    let stub = Stub::new(&json!({}), plugin);
    login(stub.folder.path());
    let target = stub.target();
    let check = || stub.runtime.block_on(target.preflight());
    let calls = || {
        let path = stub.folder.path().join("login.calls");
        std::fs::read_to_string(path).unwrap().lines().count()
    };
    let accepted = |token: &str| stub.script.lock().unwrap().token = Some(token.into());
    accepted("t1");
    check().unwrap();
    assert_eq!(calls(), 1);
    accepted("t2");
    check().unwrap();
    assert_eq!(calls(), 2);
    accepted("another");
    let error = check().unwrap_err().to_string();
    assert!(error.contains("does not accept the login"), "{error}");
    assert_eq!(calls(), 3);
}
