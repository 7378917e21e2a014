//! The open-source remote cache from npm, and a proxy with faults in front of it.

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::Response;
use futures_util::StreamExt;

use super::npm::installed;
use super::web::{http_client, serve};

const SERVER: &str = "turborepo-remote-cache@2.12.0";

/// The real server from npm, which is stopped with the test.
pub struct RemoteCache {
    pub address: String,
    folder: tempfile::TempDir,
    child: Child,
}

impl RemoteCache {
    pub const TOKEN: &str = "t0ken-of-the-remote-cache";

    /// Starts an empty server. It stores signatures only if it has a key.
    pub fn start(signature_key: Option<&str>) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let mut command = Command::new("node");
        command
            .arg(installed(&[SERVER]).join("node_modules/turborepo-remote-cache/dist/cli.js"))
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOST", "127.0.0.1")
            .env("PORT", "0")
            .env("TURBO_TOKEN", Self::TOKEN)
            .env("STORAGE_PROVIDER", "local")
            .env("STORAGE_PATH", folder.path())
            .env("STORAGE_PATH_USE_TMP_FOLDER", "false")
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .process_group(0);
        if let Some(key) = signature_key {
            command.env("TURBO_REMOTE_CACHE_SIGNATURE_KEY", key);
        }
        let mut child = command.spawn().expect("node starts");
        let stdout = child.stdout.take().expect("a pipe");
        let mut server = Self {
            address: String::new(),
            folder,
            child,
        };
        // The server chooses a free port and prints it.
        let mut lines = BufReader::new(stdout).lines().map_while(Result::ok);
        let said = lines.find_map(|line| {
            let (_, rest) = line.split_once("Server listening at ")?;
            Some(rest.split('"').next()?.to_owned())
        });
        server.address = said.expect("the server listens");
        // The output is read, because a full pipe blocks the server.
        std::thread::spawn(move || lines.count());
        server.wait();
        server
    }

    /// Waits until the server answers.
    fn wait(&self) {
        let begun = Instant::now();
        let url = format!("{}/v8/artifacts/status", self.address);
        let asks = || {
            let mut curl = Command::new("curl");
            curl.args(["--silent", "--fail", "--noproxy", "*", "--output"])
                .arg("/dev/null")
                .args([
                    "--header",
                    &format!("Authorization: Bearer {}", Self::TOKEN),
                ])
                .arg(&url);
            curl.status().expect("curl runs").success()
        };
        while !asks() {
            assert!(begun.elapsed() < Duration::from_secs(20), "no answer");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// The folder of a team's artifacts: a file for each hash, and its tag beside it.
    pub fn store(&self, team: &str) -> PathBuf {
        self.folder.path().join(team)
    }

    /// The hashes of all artifacts of a team.
    pub fn hashes(&self, team: &str) -> Vec<String> {
        let Ok(entries) = std::fs::read_dir(self.store(team)) else {
            return Vec::new();
        };
        let names = entries.map(|entry| entry.expect("readable").file_name());
        let names = names.map(|name| name.into_string().expect("text"));
        let mut hashes: Vec<String> = names.filter(|name| !name.contains('.')).collect();
        hashes.sort();
        hashes
    }
}

impl Drop for RemoteCache {
    fn drop(&mut self) {
        let group = i32::try_from(self.child.id())
            .ok()
            .and_then(rustix::process::Pid::from_raw);
        if let Some(group) = group {
            let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        }
        let _ = self.child.wait();
    }
}

/// A kind of requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum On {
    Status,
    Get,
    Put,
    Any,
}

/// A fault.
#[derive(Debug, Clone)]
pub enum Fault {
    /// The proxy gives this answer.
    Answer(u16, &'static str),
    /// The proxy never answers.
    Stall,
    /// Half of the body, and then silence.
    StallWithin,
    /// Half of the body, and then the connection closes.
    Truncate,
    /// One byte of the body is changed.
    Flip,
    /// Another signature.
    Tag(&'static str),
    /// No signature.
    NoTag,
    /// The body is read this slowly: milliseconds after each MiB.
    Slow(u64),
}

/// A real remote cache behind a proxy with faults.
pub struct FaultyCache {
    pub address: String,
    proxy: Arc<Proxy>,
}

struct Proxy {
    upstream: String,
    fault: Mutex<Option<(On, Fault)>>,
    seen: Mutex<Vec<On>>,
    client: reqwest::Client,
}

impl FaultyCache {
    /// A proxy that passes all requests on.
    pub fn before(cache: &RemoteCache) -> Self {
        let client = http_client();
        let proxy = Arc::new(Proxy {
            upstream: cache.address.clone(),
            fault: Mutex::default(),
            seen: Mutex::default(),
            client: client.build().expect("a client"),
        });
        let router = Router::new().fallback(pass).with_state(Arc::clone(&proxy));
        Self {
            address: format!("http://{}", serve(router)),
            proxy,
        }
    }

    /// Sets the fault of these requests; all others are passed on.
    pub fn breaks(&self, on: On, fault: Fault) {
        *self.proxy.fault.lock().expect("no panic") = Some((on, fault));
        self.proxy.seen.lock().expect("no panic").clear();
    }

    /// The number of these requests since the fault was set.
    pub fn count(&self, on: On) -> usize {
        let seen = self.proxy.seen.lock().expect("no panic");
        seen.iter()
            .filter(|kind| on == On::Any || **kind == on)
            .count()
    }
}

async fn pass(
    State(proxy): State<Arc<Proxy>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let kind = if method == Method::PUT {
        On::Put
    } else if uri.path().ends_with("/status") {
        On::Status
    } else {
        On::Get
    };
    proxy.seen.lock().expect("no panic").push(kind);
    let fault = proxy.fault.lock().expect("no panic").clone();
    let fault = fault.filter(|(on, _)| *on == kind || *on == On::Any);
    let fault = fault.map(|(_, fault)| fault);
    let pause = match &fault {
        Some(Fault::Stall) => std::future::pending().await,
        Some(Fault::Answer(status, body)) => {
            return Response::builder()
                .status(StatusCode::from_u16(*status).expect("a status"))
                .header("content-type", "application/json")
                .body(Body::from(*body))
                .expect("an answer");
        }
        Some(Fault::Slow(milliseconds)) => Duration::from_millis(*milliseconds),
        _ => Duration::ZERO,
    };
    let body = read(body, pause).await;
    let url = format!("{}{uri}", proxy.upstream);
    let sending = proxy.client.request(method, url).headers(headers);
    let upstream = sending.body(body).send().await.expect("the cache answers");
    let mut answer = Response::builder().status(upstream.status());
    for (name, value) in upstream.headers() {
        let is_tag = name == "x-artifact-tag";
        match &fault {
            _ if ["transfer-encoding", "connection"].contains(&name.as_str()) => {}
            Some(Fault::NoTag) if is_tag => {}
            Some(Fault::Tag(tag)) if is_tag => answer = answer.header(name, *tag),
            _ => answer = answer.header(name, value),
        }
    }
    let is_good = upstream.status().is_success();
    let whole = upstream.bytes().await.expect("a body");
    let half = whole.slice(..whole.len() / 2);
    let fault = fault.filter(|_| is_good);
    if matches!(fault, Some(Fault::Truncate | Fault::StallWithin)) {
        answer = answer.header("content-length", whole.len());
    }
    let body = match fault {
        Some(Fault::Truncate) => {
            let parts = [Ok(half), Err(std::io::Error::other("cut"))];
            Body::from_stream(futures_util::stream::iter(parts))
        }
        Some(Fault::StallWithin) => {
            let first = futures_util::stream::iter([Ok::<_, std::io::Error>(half)]);
            Body::from_stream(first.chain(futures_util::stream::pending()))
        }
        Some(Fault::Flip) => {
            let mut bytes = whole.to_vec();
            let last = bytes.len() - 20;
            bytes[last] ^= 1;
            Body::from(bytes)
        }
        _ => Body::from(whole),
    };
    answer.body(body).expect("an answer")
}

async fn read(body: Body, pause: Duration) -> Bytes {
    let mut stream = body.into_data_stream();
    let mut bytes = Vec::new();
    while let Some(piece) = stream.next().await {
        // A client that gave up sends no more.
        let Ok(piece) = piece else { break };
        let before = bytes.len() >> 20;
        bytes.extend_from_slice(&piece);
        if bytes.len() >> 20 > before {
            tokio::time::sleep(pause).await;
        }
    }
    bytes.into()
}
