//! The target `docker`: real containers of a real engine, and a real HAProxy.

pub mod commands;
pub mod copies;
pub mod faults;
mod hosts;
pub mod killed;
pub mod load;
pub mod proxy;
pub mod releases;
pub mod secrets;
pub mod switching;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use alokai::cache::Cache;
use alokai::config::{AppReference, Project as Config, TemplatePart};
use alokai::event::{Event, Events};
use alokai::ledger::{RecordId, RecordKind};
use alokai::pipeline::{Access, EngineAccess, Interrupt, RegistryClients, Services};
use alokai::plan::DEFAULT_CONSOLE;
use alokai::store::{AppKind, AppName, Framework, StoreId, TargetKind};
use alokai::target::local::LocalClient;
use alokai::target::{
    Drained, Error, HealthProbe, ReleaseSpec, ReleasedApp, SpecVariable, Staged, Target,
    TargetContext, target_of,
};
use jiff::Timestamp;
use oci_distribution::Credentials;
use serde_json::{Value, json};

use crate::support::{FRONTEND, MIDDLEWARE, Project, Registry, docker, registry};

/// The apps of all releases.
const SERVER: &str = include_str!("server.js");

/// How long a test waits for something.
pub const LIMIT: Duration = Duration::from_mins(1);

/// A project that runs on the engine, and the image of its apps.
pub struct World {
    pub kind: TargetKind,
    pub name: String,
    pub project: Project,
    pub registry: Registry,
    reference: String,
    digest: String,
    runtime: tokio::runtime::Runtime,
}

/// A free port of this machine.
pub fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

fn has_haproxy() -> bool {
    let found = ["haproxy", "/usr/sbin/haproxy"]
        .iter()
        .any(|program| Command::new(program).arg("-v").output().is_ok());
    if !found {
        let required = std::env::var("ALOKAI_REQUIRE_DOCKER").is_ok_and(|value| value == "1");
        assert!(
            !required,
            "ALOKAI_REQUIRE_DOCKER=1, and haproxy is not installed"
        );
        println!("skipped: no haproxy; `scripts/services up` installs it");
    }
    found
}

impl World {
    /// A shop with a proxy, or None if the test is skipped.
    pub fn new(name: &str) -> Option<Self> {
        let bind = format!("127.0.0.1:{}", free_port());
        Self::with(name, &json!({ "proxy": { "bind": [bind] } }))
    }

    /// The same with this section `deploy.docker`.
    pub fn with(name: &str, section: &Value) -> Option<Self> {
        Self::at(TargetKind::Docker, name, section)
    }

    /// The same at a target, with its section of `deploy`.
    pub fn at(kind: TargetKind, name: &str, section: &Value) -> Option<Self> {
        let registry = registry()?;
        if !has_haproxy() {
            return None;
        }
        let name = format!("{name}-{}", std::process::id());
        let deploy = json!({ "target": kind.name(), "watch": 1, kind.name(): section });
        let project = Project::shop_named(&name).setting("deploy", &deploy);
        // Nothing is sent to the console.
        let mut project = registry.used_by(project, "http://127.0.0.1:9");
        if let Ok(host) = std::env::var("DOCKER_HOST") {
            project = project.env("DOCKER_HOST", &host);
        }
        project.commit();
        let (reference, digest) = image(&registry, &project);
        Some(Self {
            kind,
            name,
            project,
            registry,
            reference,
            digest,
            runtime: tokio::runtime::Builder::new_multi_thread()
                .enable_all()
                .build()
                .unwrap(),
        })
    }

    /// The engine, as a run in this project has it.
    pub fn target(&self) -> Arc<dyn Target> {
        self.target_with(|_| ())
    }

    /// The same, whose notices are received here.
    pub fn target_with(&self, mut notice: impl FnMut(String) + Send + 'static) -> Arc<dyn Target> {
        let config = Config::load(self.project.root()).unwrap();
        let (events, received) = Events::channel();
        std::thread::spawn(move || {
            for event in received {
                if let Event::Notice { message } = event {
                    notice(message);
                }
            }
        });
        let credentials =
            Credentials::new(self.registry.user.clone(), self.registry.password.clone());
        let access = Access {
            docker: EngineAccess {
                host: std::env::var("DOCKER_HOST").ok(),
                certificates: None,
            },
            credentials: Some(Arc::new(credentials)),
            registry: Some(self.registry.address.clone()),
            ..Access::default()
        };
        let services = Services {
            started: Instant::now(),
            events,
            interrupt: Interrupt::default(),
            runtime: self.runtime.handle().clone(),
            access,
            cache: Cache::new(self.project.path(".alokai/cache")),
            remote: None,
            clients: RegistryClients::default(),
            warned: false.into(),
        };
        let context = TargetContext {
            project: Arc::new(config),
            services: Arc::new(services),
            console: DEFAULT_CONSOLE.into(),
            plan: None,
            // The target does not use it.
            local: LocalClient::new(self.project.root(), "alokai".into(), BTreeMap::new()),
            examines: false,
        };
        target_of(self.kind, &context).unwrap()
    }

    pub fn wait<T>(&self, step: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        self.runtime.block_on(step)
    }

    /// A release whose apps say this version.
    pub fn release(&self, version: &str) -> ReleaseSpec {
        self.release_in(version, "")
    }

    /// A release whose middleware has a mode of `server.js`.
    pub fn release_in(&self, version: &str, mode: &str) -> ReleaseSpec {
        // The ids of releases sort by time.
        std::thread::sleep(Duration::from_millis(2));
        let text = |text: &str| SpecVariable::Template(text.into());
        let middleware =
            || SpecVariable::Template(TemplatePart::Url(AppReference::Middleware).into());
        let app = |name: &str, kind, port: u16, path: Option<&str>| ReleasedApp {
            app: AppName::new(name).unwrap(),
            kind,
            reference: self.reference.clone(),
            digest: self.digest.clone(),
            port,
            path_prefix: path.map(str::to_owned),
            strips_prefix: path.is_some(),
            variables: [
                ("VERSION".to_owned(), text(version)),
                (
                    "PORT".to_owned(),
                    SpecVariable::Template(TemplatePart::Port(AppReference::Own).into()),
                ),
            ]
            .into(),
            health: HealthProbe::default(),
        };
        let mut server = app(MIDDLEWARE, AppKind::Middleware, 4000, Some("/api/"));
        server.variables.insert("MODE".into(), text(mode));
        let page = AppKind::Frontend(Framework::Nextjs);
        let mut page = app(FRONTEND, page, 3000, None);
        page.variables.insert("MIDDLEWARE".into(), middleware());
        let for_browsers = "NEXT_PUBLIC_ALOKAI_MIDDLEWARE_API_URL";
        page.variables.insert(for_browsers.into(), middleware());
        ReleaseSpec {
            id: RecordId::new(RecordKind::Release, Timestamp::now()),
            store: us(),
            apps: vec![server, page],
            settings: None,
            copy_of: None,
            hosts: vec!["us.localhost".into()],
            stop_timeout: Duration::from_secs(5),
        }
    }

    /// Stages a release and waits until its apps answer.
    pub fn stage(&self, target: &dyn Target, spec: &ReleaseSpec) -> Staged {
        let staged = self.wait(target.stage(spec)).unwrap();
        let start = Instant::now();
        for replica in &staged.replicas {
            while curl(&replica.address, "", &[]).is_none() {
                assert!(start.elapsed() < LIMIT, "{} does not answer", replica.app);
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        staged
    }

    /// Gives the traffic to a release, as if it was observed just now.
    pub fn switch(&self, target: &dyn Target, spec: &ReleaseSpec) {
        let token = self.wait(target.observe(&spec.store)).unwrap().token;
        self.wait(target.switch(spec, &token)).unwrap();
    }

    /// Waits until a release has no open requests, for at most a second, and stops it.
    pub fn leave(&self, target: &dyn Target, spec: &ReleaseSpec, kept: bool) {
        let start = Instant::now();
        while self.wait(target.drained(&spec.store, &spec.id)).unwrap() != Drained::Yes
            && start.elapsed() < Duration::from_secs(1)
        {
            std::thread::sleep(Duration::from_millis(10));
        }
        self.wait(target.retire(&spec.store, &spec.id, kept))
            .unwrap();
    }

    /// The port of the proxy.
    pub fn port(&self) -> u16 {
        let config: Value = serde_json::from_str(&self.project.read("alokai.config.json")).unwrap();
        let bind = config["deploy"][self.kind.name()]["proxy"]["bind"][0].as_str();
        bind.unwrap().rsplit(':').next().unwrap().parse().unwrap()
    }

    /// What the proxy answers for the store: the status and the body.
    pub fn page(&self, path: &str) -> String {
        self.page_of("us.localhost", path)
    }

    pub fn page_of(&self, host: &str, path: &str) -> String {
        Self::page_at(self.port(), host, path)
    }

    pub fn page_at(port: u16, host: &str, path: &str) -> String {
        let url = format!("http://127.0.0.1:{port}");
        let host = format!("Host: {host}");
        let status = "\n%{http_code}";
        curl(&url, path, &["--header", &host, "--write-out", status]).unwrap_or_default()
    }

    /// What the engine has for the store: its containers, with locks and stopped ones, or what its
    /// swarm has. A swarm keeps the containers of tasks that have ended for a while.
    pub fn objects(&self) -> Vec<String> {
        if self.kind == TargetKind::Docker {
            return self.containers();
        }
        let owner = format!("label=com.alokai.project={}-us", self.name);
        let mut names = Vec::new();
        for kind in ["service", "secret", "config"] {
            let list = docker(&[kind, "ls", "--filter", &owner, "--format", "{{.Name}}"]);
            names.extend(list.lines().map(|name| format!("{kind} {name}")));
        }
        // The record of the proxy stays.
        names.retain(|name| !name.starts_with("config alokai-proxy-"));
        names.sort();
        names
    }

    /// The names of the store's containers, with locks and stopped ones.
    pub fn containers(&self) -> Vec<String> {
        let owner = format!("label=com.alokai.project={}-us", self.name);
        let names = docker(&["ps", "--all", "--filter", &owner, "--format", "{{.Names}}"]);
        names.lines().map(str::to_owned).collect()
    }

    /// Ends the HAProxy of the project.
    pub fn end_proxy(&self) {
        let config = self.project.read("alokai.config.json");
        let config: Value = serde_json::from_str(&config).unwrap();
        let folder = config["deploy"][self.kind.name()]["proxy"]["folder"].as_str();
        end_proxy(&self.project.path(folder.unwrap_or(".alokai/proxy")));
    }
}

fn end_proxy(folder: &Path) {
    let Ok(pid) = std::fs::read_to_string(folder.join("haproxy.pid")) else {
        return;
    };
    for pid in pid.split_whitespace() {
        let _ = Command::new("kill").arg(pid).output();
        let start = Instant::now();
        while Path::new(&format!("/proc/{pid}")).exists() && start.elapsed() < LIMIT {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.end_proxy();
        // The proxy of a clone, in the test of two proxies.
        end_proxy(&self.project.path(".alokai/other"));
        for store in ["us", "eu"] {
            let owner = format!("label=com.alokai.project={}-{store}", self.name);
            if self.kind == TargetKind::Swarm {
                crate::swarm_target::clean(&owner);
            }
            let run = |arguments: &[&str]| {
                let output = Command::new("docker").args(arguments).output().unwrap();
                String::from_utf8_lossy(&output.stdout).into_owned()
            };
            for (list, remove) in [
                (
                    vec!["ps", "--all", "--quiet"],
                    vec!["rm", "--force", "--volumes"],
                ),
                (vec!["network", "ls", "--quiet"], vec!["network", "rm"]),
                (vec!["volume", "ls", "--quiet"], vec!["volume", "rm"]),
            ] {
                for id in run(&[&list[..], &["--filter", &owner]].concat()).lines() {
                    run(&[&remove[..], &[id]].concat());
                }
            }
            for image in run(&["images", "--format", "{{.Repository}} {{.ID}}"]).lines() {
                if let Some((name, id)) = image.split_once(' ')
                    && name.contains(&format!("/{}-{store}-", self.name))
                {
                    run(&["rmi", "--force", id]);
                }
            }
        }
    }
}

pub fn us() -> StoreId {
    StoreId::new("us").unwrap()
}

/// The body of a response, whatever its status. None if there is no response.
pub fn curl(url: &str, path: &str, more: &[&str]) -> Option<String> {
    let output = Command::new("curl")
        .args(["--silent", "--noproxy", "*", "--max-time", "10"])
        .args(more)
        .arg(format!("{url}{path}"))
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    output.status.success().then_some(text)
}

/// The image of `server.js` in the registry: its reference and its digest.
fn image(registry: &Registry, project: &Project) -> (String, String) {
    let folder = project.root().with_file_name("image");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("server.js"), SERVER).unwrap();
    let dockerfile = format!(
        "FROM {}\nCOPY server.js /server.js\nENTRYPOINT [\"node\", \"/server.js\"]\n",
        registry.base
    );
    std::fs::write(folder.join("Dockerfile"), dockerfile).unwrap();
    let tag = "alokai-docker-target:1";
    docker(&["build", "--quiet", "--tag", tag, folder.to_str().unwrap()]);
    let archive = folder.join("image.tar");
    docker(&["save", "--output", archive.to_str().unwrap(), tag]);
    let name = "docker-target/app:1";
    let digest = folder.join("digest");
    registry.put_image(
        &format!("docker-archive:{}", archive.display()),
        name,
        &["--digestfile", digest.to_str().unwrap()],
    );
    let digest = std::fs::read_to_string(digest).unwrap();
    (format!("{}/{name}", registry.address), digest)
}
