//! The target `kubernetes`, against a real API server without nodes. A test writes the status of pods, as the
//! kubelet of a node does.

mod commands;
mod logins;
mod maintenance;
mod manifests;
mod releases;
mod storage;
mod stub;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use alokai::cache::Cache;
use alokai::config::{AppReference, Project as Config, TemplatePart};
use alokai::event::Events;
use alokai::ledger::{RecordId, RecordKind};
use alokai::pipeline::{Access, Interrupt, KubernetesAccess, RegistryClients, Services};
use alokai::plan::DEFAULT_CONSOLE;
use alokai::store::{AppKind, AppName, Framework, StoreId};
use alokai::target::kubernetes::KubernetesTarget;
use alokai::target::local::LocalClient;
use alokai::target::{
    Error, HealthProbe, ReleaseSpec, ReleasedApp, SpecVariable, Staged, Target, TargetContext,
};
use http_client::{HttpOptions, build};
use jiff::Timestamp;
use reqwest::{Client, Method, Url};
use serde_json::{Value, json};

use crate::support::{FRONTEND, MIDDLEWARE, Project};

/// How long a test waits for something.
const LIMIT: Duration = Duration::from_mins(1);

/// The public name of the store in most tests.
const HOST: &str = "us.shop.example";

/// The kubeconfig of the API server for tests. None if the test is skipped.
fn kubeconfig() -> Option<PathBuf> {
    if let Some(path) = std::env::var_os("ALOKAI_TEST_KUBERNETES") {
        return Some(path.into());
    }
    let required = std::env::var("ALOKAI_REQUIRE_KUBERNETES").is_ok_and(|value| value == "1");
    assert!(
        !required,
        "ALOKAI_REQUIRE_KUBERNETES=1, and ALOKAI_TEST_KUBERNETES is not set"
    );
    println!("skipped: no API server of Kubernetes; `scripts/test --kubernetes` starts one");
    None
}

/// The API server, as a test sees it.
#[derive(Clone)]
struct Server {
    client: Client,
    url: String,
    token: String,
}

impl Server {
    fn of(kubeconfig: &Path) -> Self {
        let text = std::fs::read_to_string(kubeconfig).unwrap();
        let value = |key: &str| {
            let (_, rest) = text.split_once(key).unwrap();
            let rest = rest.trim_start_matches([':', ' ', '"']);
            rest.split(['"', ',', '}', '\n']).next().unwrap().to_owned()
        };
        let (url, token) = (value("server"), value("{token"));
        let options = HttpOptions {
            any_certificate: true,
            ..HttpOptions::new("tests")
        };
        let client = build(&Url::parse(&url).unwrap(), options).unwrap();
        Self { client, url, token }
    }

    async fn ask(&self, method: Method, path: &str, body: Option<&Value>) -> (u16, Value) {
        let kind = match method {
            Method::PATCH => "application/merge-patch+json",
            _ => "application/json",
        };
        let mut request = self
            .client
            .request(method, format!("{}/{path}", self.url))
            .bearer_auth(&self.token)
            .header("content-type", kind);
        if let Some(body) = body {
            request = request.body(body.to_string());
        }
        let response = request.send().await.unwrap();
        let status = response.status().as_u16();
        let text = response.text().await.unwrap();
        (status, serde_json::from_str(&text).unwrap_or(Value::Null))
    }
}

/// A project, and a namespace of its own.
struct World {
    namespace: String,
    project: Project,
    runtime: tokio::runtime::Runtime,
    server: Server,
    kubeconfig: PathBuf,
}

impl World {
    /// A shop without routes, or None if the test is skipped.
    fn new(name: &str) -> Option<Self> {
        Self::with(name, &json!({ "probe": "readiness" }))
    }

    /// The same with this section `deploy.kubernetes`.
    fn with(name: &str, section: &Value) -> Option<Self> {
        let kubeconfig = kubeconfig()?;
        let namespace = format!("{name}-{}", std::process::id());
        let mut section = section.clone();
        section["namespace"] = namespace.as_str().into();
        let deploy =
            json!({ "target": "kubernetes", "watch": 1, "drain": 0, "kubernetes": section });
        let project = Project::shop_named(&namespace).setting("deploy", &deploy);
        let project = project.env("KUBECONFIG", kubeconfig.to_str().unwrap());
        project.commit();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .unwrap();
        let world = Self {
            namespace,
            project,
            runtime,
            server: Server::of(&kubeconfig),
            kubeconfig,
        };
        let object = json!({ "metadata": { "name": world.namespace } });
        let (status, answer) = world.ask(Method::POST, "api/v1/namespaces", Some(&object));
        assert_eq!(status, 201, "{answer}");
        Some(world)
    }

    fn ask(&self, method: Method, path: &str, body: Option<&Value>) -> (u16, Value) {
        self.runtime.block_on(self.server.ask(method, path, body))
    }

    /// The path of a kind in the namespace.
    fn path(&self, group: &str, kind: &str) -> String {
        format!("{group}/namespaces/{}/{kind}", self.namespace)
    }

    /// The objects of a kind that this program has made.
    fn objects(&self, group: &str, kind: &str) -> Vec<Value> {
        let path = self.path(group, kind);
        let (status, mut list) = self.ask(
            Method::GET,
            &format!("{path}?labelSelector=alokai.com/store=us"),
            None,
        );
        assert_eq!(status, 200, "{list}");
        list["items"].as_array_mut().unwrap().split_off(0)
    }

    fn names(&self, group: &str, kind: &str) -> Vec<String> {
        let objects = self.objects(group, kind);
        let name = |it: &Value| it["metadata"]["name"].as_str().unwrap().to_owned();
        objects.iter().map(name).collect()
    }

    /// The public Service, by the name that the docs tell.
    fn public(&self) -> Value {
        let path = self.path("api/v1", "services");
        let name = format!("{}-us-us", self.namespace);
        self.ask(Method::GET, &format!("{path}/{name}"), None).1
    }

    /// The target, as a run in this project has it.
    fn target(&self) -> KubernetesTarget {
        self.target_of(&self.kubeconfig)
    }

    fn target_of(&self, kubeconfig: &Path) -> KubernetesTarget {
        target(&self.project, kubeconfig, self.runtime.handle())
    }

    fn wait<T>(&self, step: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        self.runtime.block_on(step)
    }

    /// Stages a release and waits until its apps answer.
    fn stage(&self, target: &KubernetesTarget, spec: &ReleaseSpec) -> Staged {
        let staged = self.wait(target.stage(spec)).unwrap();
        for replica in &staged.replicas {
            let start = Instant::now();
            while self.status(&replica.address) != 200 {
                assert!(start.elapsed() < LIMIT, "{} does not answer", replica.app);
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        staged
    }

    /// The status of an answer.
    fn status(&self, url: &str) -> u16 {
        self.answer(url).0
    }

    /// The status and the body of an answer.
    fn answer(&self, url: &str) -> (u16, String) {
        self.runtime.block_on(async {
            let options = HttpOptions::new("tests");
            let client = build(&Url::parse(url).unwrap(), options).unwrap();
            let response = client.get(url).send().await.unwrap();
            let status = response.status().as_u16();
            (status, response.text().await.unwrap())
        })
    }

    /// Gives the traffic to a release, as if it was observed just now.
    fn switch(&self, target: &KubernetesTarget, spec: &ReleaseSpec) {
        let token = self.wait(target.observe(&spec.store)).unwrap().token;
        self.wait(target.switch(spec, &token)).unwrap();
    }

    /// Writes the status of pods until it is dropped.
    fn kubelet(&self) -> Kubelet {
        let (server, path) = (self.server.clone(), self.path("api/v1", "pods"));
        let (ends, failing) = (
            Arc::new(AtomicBool::new(false)),
            Arc::<AtomicUsize>::default(),
        );
        let (ending, exit) = (Arc::clone(&ends), Arc::clone(&failing));
        let handle = self.runtime.handle().clone();
        let thread = std::thread::spawn(move || {
            while !ending.load(Ordering::SeqCst) {
                handle.block_on(write_statuses(&server, &path, exit.load(Ordering::SeqCst)));
                std::thread::sleep(Duration::from_millis(50));
            }
        });
        Kubelet {
            ends,
            failing,
            thread: Some(thread),
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let path = format!("api/v1/namespaces/{}", self.namespace);
        self.ask(Method::DELETE, &path, None);
    }
}

/// The part of a node that tells the state of pods.
struct Kubelet {
    ends: Arc<AtomicBool>,
    /// The exit code with which containers end. 0 means that they run.
    failing: Arc<AtomicUsize>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Kubelet {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::SeqCst);
        let _ = self.thread.take().unwrap().join();
    }
}

async fn write_statuses(server: &Server, path: &str, exit: usize) {
    let (_, pods) = server.ask(Method::GET, path, None).await;
    for pod in pods["items"].as_array().into_iter().flatten() {
        let name = pod["metadata"]["name"].as_str().unwrap();
        if !pod["metadata"]["deletionTimestamp"].is_null() {
            // A kubelet deletes it when its containers have ended.
            let now = json!({ "gracePeriodSeconds": 0 });
            let path = format!("{path}/{name}");
            server.ask(Method::DELETE, &path, Some(&now)).await;
            continue;
        }
        let known = &pod["status"]["containerStatuses"][0]["ready"];
        if *known == (exit == 0) {
            continue;
        }
        let state = match exit {
            0 => json!({ "running": { "startedAt": Timestamp::now() } }),
            code => json!({ "terminated": { "exitCode": code, "reason": "Error" } }),
        };
        let container = &pod["spec"]["containers"][0];
        let met = if exit == 0 { "True" } else { "False" };
        let change = json!({ "status": {
            "phase": "Running",
            "conditions": [{ "type": "Ready", "status": met }, { "type": "ContainersReady", "status": met }],
            "containerStatuses": [{
                "name": "app",
                "image": container["image"],
                "imageID": "",
                "ready": exit == 0,
                "restartCount": 0,
                "state": state,
            }],
        }});
        let path = format!("{path}/{name}/status");
        server.ask(Method::PATCH, &path, Some(&change)).await;
    }
}

/// The target of a project, with this kubeconfig.
fn target(
    project: &Project,
    kubeconfig: &Path,
    runtime: &tokio::runtime::Handle,
) -> KubernetesTarget {
    let config = Config::load(project.root()).unwrap();
    let (events, received) = Events::channel();
    std::thread::spawn(move || received.for_each(drop));
    let access = Access {
        kubernetes: KubernetesAccess {
            files: vec![kubeconfig.to_owned()],
            in_cluster: None,
        },
        ..Access::default()
    };
    let services = Services {
        started: Instant::now(),
        events,
        interrupt: Interrupt::default(),
        runtime: runtime.clone(),
        access,
        cache: Cache::new(project.path(".alokai/cache")),
        remote: None,
        clients: RegistryClients::default(),
        warned: false.into(),
    };
    KubernetesTarget::new(TargetContext {
        project: Arc::new(config),
        services: Arc::new(services),
        console: DEFAULT_CONSOLE.into(),
        plan: None,
        // The target does not use it.
        local: LocalClient::new(project.root(), "alokai".into(), [].into()),
        examines: false,
    })
}

fn us() -> StoreId {
    StoreId::new("us").unwrap()
}

/// A release with a middleware, a frontend and another app.
fn release() -> ReleaseSpec {
    // The ids of releases sort by time.
    std::thread::sleep(Duration::from_millis(2));
    release_with(RecordId::new(RecordKind::Release, Timestamp::now()))
}

fn release_with(id: RecordId) -> ReleaseSpec {
    let url = |app| SpecVariable::Template(TemplatePart::Url(app).into());
    let text = |text: &str| SpecVariable::Template(text.into());
    let app = |name: &str, kind, port: u16, path: Option<&str>| ReleasedApp {
        app: AppName::new(name).unwrap(),
        kind,
        reference: format!("registry.example:5000/shops/{name}:1.0"),
        digest: format!("sha256:{}", "a".repeat(64)),
        port,
        path_prefix: path.map(str::to_owned),
        strips_prefix: path.is_some(),
        variables: [
            (
                "PORT".to_owned(),
                SpecVariable::Template(TemplatePart::Port(AppReference::Own).into()),
            ),
            ("PRICE".to_owned(), text("$(PORT) or $5")),
        ]
        .into(),
        health: HealthProbe::default(),
    };
    let mut middleware = app(MIDDLEWARE, AppKind::Middleware, 4000, Some("/api/"));
    middleware.health.status = Some(200);
    middleware.health.path = "/healthz".into();
    let secret = SpecVariable::Secret("s3cret-of-the-file".to_owned().into());
    middleware.variables.insert("TOKEN".into(), secret);
    let mut page = app(FRONTEND, AppKind::Frontend(Framework::Nextjs), 3000, None);
    for name in [
        "NEXT_PUBLIC_ALOKAI_MIDDLEWARE_API_URL",
        "NEXT_PUBLIC_ALOKAI_MIDDLEWARE_SSR_API_URL",
    ] {
        let variable = url(AppReference::Middleware);
        page.variables.insert(name.into(), variable);
    }
    let other = app("back_office", AppKind::Other, 3000, Some("/back.office/"));
    ReleaseSpec {
        id,
        store: us(),
        apps: vec![middleware, other, page],
        settings: None,
        copy_of: None,
        hosts: vec!["us.localhost".into(), HOST.into()],
        stop_timeout: Duration::from_secs(5),
    }
}
