//! A project with images of small servers, and the target `local` for it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use alokai::cache::Cache;
use alokai::config::Project as AlokaiProject;
use alokai::event::Events;
use alokai::ledger::{RecordId, RecordKind};
use alokai::pipeline::{Access, Interrupt, RegistryClients, Services};
use alokai::store::{AppKind, AppName, Framework, StoreId, TargetKind};
use alokai::target::local::LocalClient;
use alokai::target::{
    Error, HealthProbe, Observed, ReleaseSpec, ReleasedApp, SpecVariable, Staged, Target,
    TargetContext, target_of,
};
use jiff::Timestamp;
use oci::{CONFIG, FileOwner, LAYER, Layout, MANIFEST, Manifest, TreeContent, TreeEntry, pack};
use serde_json::{Value, json};

pub use crate::support::{FRONTEND, MIDDLEWARE, Project, folder};

/// More than any step of these tests takes.
pub const LONG: Duration = Duration::from_secs(20);

/// A server that waits a moment before it answers. A frontend asks its middleware first.
pub const SERVER: &str = r"
const http = require('http'), fs = require('fs'), crypto = require('crypto');
const version = fs.readFileSync(__dirname + '/version.txt', 'utf8').trim();
console.log('started ' + version + ' with ' + process.env.API_SECRET);
const server = http.createServer(async (request, answer) => {
  if (request.url === '/variables') return answer.end(JSON.stringify(process.env));
  if (request.url === '/folder') return answer.end(__dirname);
  if (request.url === '/process') return answer.end(String(process.pid));
  if (request.url === '/end') process.exit(7);
  let text = version;
  if (process.env.MIDDLEWARE_URL) text += ' ' + await (await fetch(process.env.MIDDLEWARE_URL)).text();
  setTimeout(() => answer.end(text), 60);
});
server.on('upgrade', (request, socket) => {
  const key = request.headers['sec-websocket-key'] + '258EAFA5-E914-47DA-95CA-C5AB0DC85B11';
  const accepted = crypto.createHash('sha1').update(key).digest('base64');
  socket.write('HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ' + accepted + '\r\n\r\n');
  socket.write(version + '\n');
  socket.on('data', (data) => socket.write(data));
  socket.on('error', () => {});
});
server.listen(process.env.PORT, process.env.HOSTNAME || 'localhost');
";

/// A project whose stores run until the end of the test.
pub struct LocalStores {
    pub project: Project,
    client: LocalClient,
}

impl LocalStores {
    /// A project with the stores `us` and `eu`.
    pub fn new() -> Self {
        Self::of(Project::shop())
    }

    pub fn of(project: Project) -> Self {
        let path = std::env::var("PATH").unwrap();
        let mut system = BTreeMap::from([("PATH".to_owned(), path)]);
        for name in ["HOME", "TMPDIR"] {
            if let Ok(value) = std::env::var(name) {
                system.insert(name.into(), value);
            }
        }
        let program = PathBuf::from(env!("CARGO_BIN_EXE_alokai"));
        let client = LocalClient::new(project.root(), program, system);
        Self { project, client }
    }

    pub fn folder(&self) -> PathBuf {
        self.project.path(".alokai/local")
    }

    /// The target, as a command of the program makes it.
    pub fn target(&self) -> Arc<dyn Target> {
        let context = TargetContext {
            project: Arc::new(AlokaiProject::load(self.project.root()).unwrap()),
            services: Arc::new(Services {
                started: Instant::now(),
                events: Events::channel().0,
                interrupt: Interrupt::default(),
                runtime: tokio::runtime::Handle::current(),
                access: Access::default(),
                cache: Cache::new(self.project.path(".alokai/cache")),
                remote: None,
                clients: RegistryClients::default(),
                warned: AtomicBool::new(false),
            }),
            console: String::new(),
            plan: None,
            examines: false,
            local: self.client.clone(),
        };
        target_of(TargetKind::Local, &context).unwrap()
    }

    /// A release of the servers, whose images have this version.
    pub fn release(&self, version: &str) -> ReleaseSpec {
        let files = [("app/server.js", SERVER), ("app/version.txt", version)];
        let run = json!({ "Cmd": ["node", "server.js"], "WorkingDir": "/app" });
        self.release_of(&files, &run)
    }

    /// A release whose apps have these files and this config.
    pub fn release_of(&self, files: &[(&str, &str)], run: &Value) -> ReleaseSpec {
        let (reference, digest) = self.image(files, run, "alokai: the app");
        let app = |name: &str, kind, path_prefix: Option<&str>| ReleasedApp {
            app: AppName::new(name).unwrap(),
            kind,
            reference: reference.clone(),
            digest: digest.clone(),
            port: 3000,
            path_prefix: path_prefix.map(str::to_owned),
            strips_prefix: true,
            variables: BTreeMap::new(),
            health: probe(),
        };
        let mut frontend = app(FRONTEND, AppKind::Frontend(Framework::Nextjs), None);
        frontend.variables = BTreeMap::from([("MIDDLEWARE_URL".to_owned(), middleware_url())]);
        ReleaseSpec {
            id: RecordId::new(RecordKind::Release, Timestamp::now()),
            store: us(),
            apps: vec![
                app(MIDDLEWARE, AppKind::Middleware, Some("/api/")),
                frontend,
            ],
            settings: None,
            copy_of: None,
            hosts: vec!["us.localhost".into()],
            stop_timeout: Duration::from_secs(5),
        }
    }

    /// Writes an image to the layout of `--local`. Its base layer is not a layer at all, since nobody
    /// has to read it.
    pub fn image(&self, files: &[(&str, &str)], run: &Value, made_by: &str) -> (String, String) {
        let layout = Layout::create(self.project.path(".alokai/registry")).unwrap();
        let sources = folder();
        let entries: Vec<TreeEntry> = files
            .iter()
            .enumerate()
            .map(|(index, (path, text))| {
                let from = sources.path().join(index.to_string());
                std::fs::write(&from, text).unwrap();
                TreeEntry {
                    path: (*path).to_owned(),
                    owner: FileOwner::default(),
                    mode: 0o644,
                    content: TreeContent::File {
                        from,
                        bytes: text.len() as u64,
                    },
                }
            })
            .collect();
        let own = pack(&entries, 0, layout.blobs()).unwrap();
        let base = layout.blobs().write(LAYER, b"not a layer").unwrap();
        let config = json!({
            "config": run,
            "history": [
                { "created_by": "the base" },
                { "created_by": "WORKDIR /app # alokai", "empty_layer": true },
                { "created_by": made_by },
            ],
        });
        let config = layout.blobs().write(CONFIG, config.to_string().as_bytes());
        let manifest = Manifest::new(config.unwrap(), vec![base, own.descriptor]);
        let bytes = serde_json::to_vec(&manifest).unwrap();
        let manifest = layout.blobs().write(MANIFEST, &bytes).unwrap();
        let digest = manifest.digest.to_string();
        layout.put(Some("acme/us:1"), manifest).unwrap();
        ("oci:.alokai/registry:acme/us:1".into(), digest)
    }

    /// The process of the background.
    pub fn process(&self) -> rustix::process::Pid {
        let text = std::fs::read_to_string(self.folder().join("process.lock")).unwrap();
        let id: i32 = text.trim().parse().unwrap();
        rustix::process::Pid::from_raw(id).unwrap()
    }
}

impl Drop for LocalStores {
    /// Stops the stores, also those of a test that has failed.
    fn drop(&mut self) {
        let client = self.client.clone();
        let stopping = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread();
            let mut runtime = runtime;
            let runtime = runtime.enable_all().build().unwrap();
            let _ = runtime.block_on(client.stop(None));
        });
        let _ = stopping.join();
    }
}

pub fn us() -> StoreId {
    StoreId::new("us").unwrap()
}

pub fn middleware_url() -> SpecVariable {
    use alokai::config::{AppReference, TemplatePart};
    SpecVariable::Template(TemplatePart::Url(AppReference::Middleware).into())
}

fn probe() -> HealthProbe {
    HealthProbe {
        path: "/".into(),
        status: None,
        interval: Duration::from_secs(1),
        timeout: Duration::from_secs(5),
        deadline: LONG,
        consecutive: 1,
    }
}

/// The response to a request.
pub async fn response(url: &str) -> Result<reqwest::Response, String> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let parsed = reqwest::Url::parse(url).unwrap();
    // Browsers and curl resolve names below `localhost` themselves.
    let client = reqwest::Client::builder().no_proxy().timeout(LONG).resolve(
        parsed.host_str().unwrap(),
        ([127, 0, 0, 1], parsed.port_or_known_default().unwrap()).into(),
    );
    let client = client.build().map_err(|error| error.to_string())?;
    let response = client.get(url).send().await;
    response.map_err(|error| error.to_string())
}

/// The body of a response, or what is wrong.
pub async fn get(url: &str) -> Result<String, String> {
    let response = response(url).await?;
    let status = response.status();
    let text = response.text().await.map_err(|error| error.to_string())?;
    if status.is_success() {
        Ok(text)
    } else {
        Err(format!("{status}: {text}"))
    }
}

/// Requests a page until there is one.
pub async fn page(url: &str) -> String {
    let began = Instant::now();
    loop {
        match get(url).await {
            Ok(text) => return text,
            Err(error) if began.elapsed() > LONG => panic!("{url}: {error}"),
            Err(_) => tokio::time::sleep(Duration::from_millis(30)).await,
        }
    }
}

/// Stages a release, and waits until all of its apps answer.
pub async fn staged(target: &dyn Target, spec: &ReleaseSpec) -> Staged {
    let staged = target.stage(spec).await.unwrap();
    for replica in &staged.replicas {
        page(&replica.address).await;
    }
    staged
}

/// Makes a release live. The one before is stopped and kept.
pub async fn released(target: &dyn Target, spec: &ReleaseSpec) -> Observed {
    staged(target, spec).await;
    let before = target.observe(&spec.store).await.unwrap();
    target.switch(spec, &before.token).await.unwrap();
    if let Some(old) = before.active.filter(|old| *old != spec.id) {
        target.retire(&spec.store, &old, true).await.unwrap();
    }
    target.observe(&spec.store).await.unwrap()
}

/// A copy of a release, as a rollback makes it.
pub fn copy(original: &ReleaseSpec) -> ReleaseSpec {
    ReleaseSpec {
        id: RecordId::new(RecordKind::Release, Timestamp::now()),
        copy_of: Some(original.id.clone()),
        ..original.clone()
    }
}

/// The message of an error with its causes.
pub fn message(error: &Error) -> String {
    let causes = std::iter::successors(Some(error as &dyn std::error::Error), |it| it.source());
    let causes: Vec<String> = causes.map(ToString::to_string).collect();
    causes.join(": ")
}

/// All files below a folder.
pub fn files(folder: &Path) -> Vec<PathBuf> {
    let files = walkdir::WalkDir::new(folder).into_iter().flatten();
    let files = files.filter(|it| it.file_type().is_file());
    files.map(walkdir::DirEntry::into_path).collect()
}
