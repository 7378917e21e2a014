//! The behaviour of common registries: one server and a table of habits. Each habit has its source
//! beside it; everything else follows the distribution specification.
//!
//! Of a blob only its digest is kept, which is computed during the upload, so layers may be large.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::Response;
use futures_util::StreamExt;
use oci::{Digest, Hasher};

use super::web::{serve, serve_all};

const MIB: u64 = 1 << 20;

/// How a registry differs from the specification, or what it does where that leaves a choice.
#[derive(Debug, Clone, Copy)]
pub struct Habits {
    pub name: &'static str,
    /// The answer of `/token`, with `{token}` in it. If it is empty, the registry uses basic
    /// authentication.
    token: &'static str,
    /// The largest request body that a proxy in front lets through.
    proxied: u64,
    /// The largest blob in one request.
    whole: u64,
    /// How pieces are handled.
    pieces: Pieces,
    /// The status of the answer to an accepted piece.
    taken: u16,
    /// The form of the `Range` header.
    range: Range,
    /// Whether an upload session survives a broken connection.
    resumes: bool,
    /// The form of the upload location.
    place: Place,
    /// The status of the answer to a manifest.
    manifest: u16,
    /// Whether the first request of each kind is answered with 429.
    is_busy: bool,
    /// Whether blobs are redirected to another storage, and its status for `HEAD`.
    storage: Option<u16>,
    /// How long the commit of a blob takes.
    late: Duration,
    /// Whether a repository must exist before a push.
    is_strict: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pieces {
    /// Pieces of any size.
    Any,
    /// One piece in a session, of up to this many bytes.
    OneUpTo(u64),
    /// Pieces of at least this many bytes, except the last one.
    AtLeast(u64),
    /// Pieces are refused with this status.
    None(u16),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Range {
    Right,
    /// `bytes=0-99`, and `bytes=0--1` for an empty session.
    WithUnit,
    /// It stays at the end of the first piece.
    Stuck,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Relative,
    Absolute,
    /// Beside `/v2`.
    Beside,
}

const PLAIN: Habits = Habits {
    name: "",
    token: r#"{"token":"{token}","expires_in":300}"#,
    proxied: u64::MAX,
    whole: u64::MAX,
    pieces: Pieces::Any,
    taken: 202,
    range: Range::Right,
    resumes: true,
    place: Place::Absolute,
    manifest: 201,
    is_busy: false,
    storage: None,
    late: Duration::ZERO,
    is_strict: false,
};

/// All of them.
pub const PERSONALITIES: [Habits; 9] = [
    Habits {
        name: "ghcr",
        // "the request body is too large and exceeds the maximum permissible limit of 4.00MiB":
        // https://github.com/wasmCloud/wash-archive/issues/268, https://github.com/ocx-sh/ocx/pull/237
        // More than one piece: https://github.com/GoogleContainerTools/jib/issues/3683
        pieces: Pieces::OneUpTo(4 * MIB),
        // The storage refuses HEAD:
        // https://github.com/containerd/stargz-snapshotter/pull/167
        storage: Some(403),
        resumes: false,
        ..PLAIN
    },
    Habits {
        name: "google",
        // "Artifact Registry does not support Docker chunked uploads":
        // https://cloud.google.com/artifact-registry/docs/reference/docker-api, quoted in
        // https://github.com/dotnet/sdk-container-builds/pull/287
        // The status is not documented; other tests try the others.
        pieces: Pieces::None(404),
        // https://github.com/podman-container-tools/skopeo/issues/1101
        place: Place::Beside,
        ..PLAIN
    },
    Habits {
        name: "ecr",
        // Basic authentication without a token server.
        token: "",
        // Parts of at least 5 MiB, but for the last one:
        // https://docs.aws.amazon.com/AmazonECR/latest/APIReference/API_UploadLayerPart.html
        pieces: Pieces::AtLeast(5 * MIB),
        // https://github.com/openai/tart/issues/273
        taken: 201,
        resumes: false,
        // "The repository with name … does not exist": https://github.com/plexsystems/sinker/issues/55
        is_strict: true,
        ..PLAIN
    },
    Habits {
        name: "ecr, with a `Range` that stands still",
        token: "",
        // https://github.com/aws/containers-roadmap/issues/2831
        range: Range::Stuck,
        taken: 201,
        is_strict: true,
        ..PLAIN
    },
    Habits {
        name: "acr",
        // https://github.com/Azure/acr/blob/main/docs/AAD-OAuth.md
        token: r#"{"access_token":"{token}"}"#,
        // "rejects uploads above ~20MB with HTTP 413": https://github.com/goharbor/harbor/issues/23015
        whole: 20_000_000,
        // "uploads cannot be resumed", 404 BLOB_UPLOAD_INVALID:
        // https://github.com/Azure/azure-sdk-for-js/issues/25448
        resumes: false,
        place: Place::Relative,
        ..PLAIN
    },
    Habits {
        name: "hub",
        // Only this field: https://github.com/distribution/distribution/issues/1589
        token: r#"{"token":"{token}"}"#,
        // 429 with `Retry-After`: https://github.com/docker/hub-feedback/issues/1907,
        // https://github.com/docker/buildx/issues/3630
        is_busy: true,
        ..PLAIN
    },
    Habits {
        name: "harbor",
        // nginx's own default of 1 MiB for every request, with a page for people:
        // https://github.com/goharbor/harbor/issues/15823,
        // https://github.com/goharbor/harbor-operator/issues/62
        proxied: MIB,
        // "blob upload unknown" after a break: https://github.com/goharbor/harbor/issues/17908
        resumes: false,
        ..PLAIN
    },
    Habits {
        name: "gitlab",
        // Blobs are served by a CDN: https://github.com/oras-project/oras/issues/923
        storage: Some(200),
        // Behind a proxy that takes 100 MB: https://github.com/sameersbn/docker-gitlab/issues/2819
        proxied: 100_000_000,
        // Fast transfer, slow commit: https://github.com/moby/moby/issues/53700
        late: Duration::from_millis(300),
        ..PLAIN
    },
    Habits {
        name: "quay",
        // https://github.com/containers/image/issues/381
        manifest: 202,
        // `Range: bytes=0--1`: https://github.com/helm/helm/issues/30987
        // `Content-Range` in the specification's form only: https://github.com/quay/quay/pull/325
        range: Range::WithUnit,
        ..PLAIN
    },
];

#[derive(Default)]
struct Session {
    hasher: Hasher,
    held: u64,
    pieces: usize,
    /// The size of the first piece.
    first: u64,
}

struct Shared {
    habits: Habits,
    /// The address of the blob storage.
    storage: String,
    sessions: Mutex<HashMap<String, Session>>,
    opened: AtomicUsize,
    /// The size of each blob by digest.
    blobs: Arc<Mutex<HashMap<String, u64>>>,
    manifests: Mutex<HashMap<String, Bytes>>,
    /// The kinds of requests that were answered with 429 once.
    early: Mutex<Vec<String>>,
    /// Violations of the protocol by the client.
    wrong: Arc<Mutex<Vec<String>>>,
}

/// A registry with these habits.
pub struct Personality {
    /// Host and port.
    pub address: String,
    shared: Arc<Shared>,
}

impl Personality {
    pub const USER: &str = "somebody";
    pub const PASSWORD: &str = "s3cret-of-the-personality";

    pub fn start(habits: Habits) -> Self {
        let blobs = Arc::new(Mutex::new(HashMap::new()));
        let wrong = Arc::new(Mutex::new(Vec::new()));
        let elsewhere = (Arc::clone(&blobs), Arc::clone(&wrong), habits);
        let storage = Router::new().fallback(stored).with_state(elsewhere);
        let shared = Arc::new(Shared {
            habits,
            storage: serve(storage).to_string(),
            sessions: Mutex::default(),
            opened: AtomicUsize::new(0),
            blobs,
            manifests: Mutex::default(),
            early: Mutex::default(),
            wrong,
        });
        Self {
            address: serve_all(answer, &shared),
            shared,
        }
    }

    /// The size of a blob whose upload has this digest.
    pub fn length(&self, digest: &Digest) -> Option<u64> {
        let blobs = self.shared.blobs.lock().expect("no panic");
        blobs.get(&digest.to_string()).copied()
    }

    /// The number of opened upload sessions.
    pub fn sessions(&self) -> usize {
        self.shared.opened.load(Ordering::Relaxed)
    }

    /// Violations of the protocol by the client.
    pub fn wrong(&self) -> Vec<String> {
        self.shared.wrong.lock().expect("no panic").clone()
    }
}

/// The state of the blob storage.
type Elsewhere = (
    Arc<Mutex<HashMap<String, u64>>>,
    Arc<Mutex<Vec<String>>>,
    Habits,
);

async fn stored(
    State((blobs, wrong, habits)): State<Elsewhere>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    if headers.contains_key("authorization") {
        let line = format!("{method} {uri} brought credentials to the storage");
        wrong.lock().expect("no panic").push(line);
    }
    let digest = uri.path().trim_start_matches('/');
    let is_there = blobs.lock().expect("no panic").contains_key(digest);
    empty(status(match (is_there, method) {
        (true, Method::HEAD) => habits.storage.unwrap_or(200),
        (true, _) => 200,
        (false, _) => 404,
    }))
}

fn status(status: u16) -> axum::http::response::Builder {
    Response::builder().status(StatusCode::from_u16(status).expect("a status"))
}

fn empty(answer: axum::http::response::Builder) -> Response {
    answer.body(Body::empty()).expect("an answer")
}

fn refusal(number: u16, code: &str) -> Response {
    let body = format!(r#"{{"errors":[{{"code":"{code}","message":"{code}"}}]}}"#);
    status(number).body(body.into()).expect("an answer")
}

/// The error page of nginx.
fn too_large() -> Response {
    let page = "<html>\r\n<head><title>413 Request Entity Too Large</title></head>\r\n</html>\r\n";
    status(413).body(page.into()).expect("an answer")
}

async fn answer(
    State(shared): State<Arc<Shared>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let habits = &shared.habits;
    let text = |name: &str| Some(headers.get(name)?.to_str().expect("text").to_owned());
    // The address that the client used, which may be that of a proxy.
    let host = text("host").expect("a host");
    let path = uri.path().to_owned();
    if path == "/token" {
        let given = habits.token.replace("{token}", "a-token");
        return status(200).body(given.into()).expect("an answer");
    }
    if let Some(challenge) = shared.challenge(&host, text("authorization").as_deref()) {
        return empty(status(401).header("www-authenticate", challenge));
    }
    let length: u64 = match text("content-length") {
        Some(length) => length.parse().expect("a number"),
        None if [Method::POST, Method::PUT, Method::PATCH].contains(&method) => {
            // https://github.com/goharbor/harbor/pull/23016
            return refusal(400, "CONTENT_LENGTH_INVALID");
        }
        None => 0,
    };
    if length > habits.proxied {
        return too_large();
    }
    if habits.is_busy && shared.is_early(&method) {
        return empty(status(429).header("retry-after", 0));
    }
    if habits.is_strict && !path.starts_with("/v2/there/") && path != "/v2/" {
        return refusal(404, "NAME_UNKNOWN");
    }
    let name = path.rsplit('/').next().expect("a name").to_owned();
    if path.ends_with("/blobs/uploads/") {
        return shared.open(&host, &path);
    }
    if path.contains("/uploads/") {
        return shared
            .upload(&method, &name, &uri, &headers, length, body)
            .await;
    }
    if path.contains("/blobs/") {
        return shared.blob(&name);
    }
    if path.contains("/manifests/") {
        return shared.manifest(&method, path, body).await;
    }
    empty(status(200))
}

impl Shared {
    /// The challenge for a request without a login, or `None`.
    fn challenge(&self, host: &str, authorization: Option<&str>) -> Option<String> {
        if self.habits.token.is_empty() {
            let is_known = authorization.is_some_and(|value| value.starts_with("Basic "));
            return (!is_known).then(|| "Basic realm=\"registry\"".into());
        }
        let is_known = authorization == Some("Bearer a-token");
        (!is_known).then(|| format!("Bearer realm=\"http://{host}/token\",service=\"test\""))
    }

    /// Whether this is the first request of its kind.
    fn is_early(&self, method: &Method) -> bool {
        let mut early = self.early.lock().expect("no panic");
        let is_new = !early.contains(&method.to_string());
        early.push(method.to_string());
        is_new
    }

    fn open(&self, host: &str, path: &str) -> Response {
        let id = format!("session-{}", self.opened.fetch_add(1, Ordering::Relaxed));
        let mut sessions = self.sessions.lock().expect("no panic");
        sessions.insert(id.clone(), Session::default());
        let range = match self.habits.range {
            Range::WithUnit => "bytes=0--1",
            _ => "0-0",
        };
        empty(
            status(202)
                .header("location", self.location(host, path, &id))
                .header("range", range),
        )
    }

    fn location(&self, host: &str, path: &str, id: &str) -> String {
        match self.habits.place {
            Place::Relative => format!("{path}{id}?_state=a%2Fb"),
            Place::Absolute => format!("http://{host}{path}{id}?_state=a%2Fb"),
            Place::Beside => format!("http://{host}/artifacts-uploads/namespaces/uploads/{id}"),
        }
    }

    async fn upload(
        &self,
        method: &Method,
        id: &str,
        uri: &Uri,
        headers: &HeaderMap,
        length: u64,
        body: Body,
    ) -> Response {
        // The session is taken out, so that no other request uses it meanwhile.
        let host = headers.get("host").expect("a host");
        let host = host.to_str().expect("text");
        let Some(mut session) = self.sessions.lock().expect("no panic").remove(id) else {
            return refusal(404, "BLOB_UPLOAD_UNKNOWN");
        };
        let keep = |session| {
            let mut sessions = self.sessions.lock().expect("no panic");
            sessions.insert(id.to_owned(), session);
        };
        let refused = match *method {
            Method::PATCH => self.refuses_piece(&session, headers, length),
            // A piece that starts at 0 in a session that has bytes:
            // https://github.com/apple/containerization/issues/790
            Method::PUT if length > 0 && session.held > 0 => {
                Some(refusal(416, "BLOB_UPLOAD_INVALID"))
            }
            Method::PUT if length > self.habits.whole => Some(too_large()),
            _ => None,
        };
        let mut pieces = body.into_data_stream();
        if let Some(refused) = refused {
            keep(session);
            // The rest of the body is read, so that the client receives the answer.
            let is_piece = *method == Method::PATCH;
            while is_piece && matches!(pieces.next().await, Some(Ok(_))) {}
            return refused;
        }
        let mut came = 0;
        while let Some(Ok(piece)) = pieces.next().await {
            session.hasher.update(&piece);
            came += piece.len() as u64;
        }
        session.held += came;
        if came < length {
            // The client closed the connection.
            if self.habits.resumes {
                keep(session);
            }
            return refusal(400, "SIZE_INVALID");
        }
        if *method == Method::PUT {
            return self.commit(session, uri).await;
        }
        if *method == Method::PATCH {
            session.pieces += 1;
            if session.pieces == 1 {
                session.first = session.held;
            }
        }
        let answer = self.progress(&session, method, uri, host, id);
        keep(session);
        answer
    }

    fn progress(
        &self,
        session: &Session,
        method: &Method,
        uri: &Uri,
        host: &str,
        id: &str,
    ) -> Response {
        let end = match self.habits.range {
            Range::Stuck => session.first,
            _ => session.held,
        };
        let unit = match self.habits.range {
            Range::WithUnit => "bytes=",
            _ => "",
        };
        let path = uri.path().trim_end_matches(id);
        let number = if *method == Method::GET {
            204
        } else {
            self.habits.taken
        };
        empty(
            status(number)
                .header("location", self.location(host, path, id))
                .header("range", format!("{unit}0-{}", end.saturating_sub(1))),
        )
    }

    /// The reason why a piece is refused.
    fn refuses_piece(
        &self,
        session: &Session,
        headers: &HeaderMap,
        length: u64,
    ) -> Option<Response> {
        let range = headers.get("content-range")?.to_str().expect("text");
        let Some((begin, end)) = range.split_once('-') else {
            return Some(refusal(400, "BLOB_UPLOAD_INVALID"));
        };
        let (Ok(begin), Ok(end)) = (begin.parse::<u64>(), end.parse::<u64>()) else {
            return Some(refusal(400, "BLOB_UPLOAD_INVALID"));
        };
        if begin != session.held || end + 1 - begin != length {
            return Some(refusal(416, "BLOB_UPLOAD_INVALID"));
        }
        let (status, code) = match self.habits.pieces {
            Pieces::OneUpTo(most) if length > most => (416, "REQUESTED_RANGE_NOT_SATISFIABLE"),
            Pieces::OneUpTo(_) if session.pieces > 0 => (416, "BLOB_UPLOAD_INVALID"),
            Pieces::AtLeast(least) if length < least => (400, "SIZE_INVALID"),
            Pieces::None(status) => (status, "UNSUPPORTED"),
            _ => return None,
        };
        Some(refusal(status, code))
    }

    async fn commit(&self, session: Session, uri: &Uri) -> Response {
        let query = uri.query().unwrap_or_default().replace("%3A", ":");
        let named = query
            .split('&')
            .find_map(|part| part.strip_prefix("digest="));
        let named = named.unwrap_or_default().to_owned();
        let digest = session.hasher.end().to_string();
        if digest != named {
            return refusal(400, "DIGEST_INVALID");
        }
        tokio::time::sleep(self.habits.late).await;
        let mut blobs = self.blobs.lock().expect("no panic");
        blobs.insert(digest.clone(), session.held);
        empty(status(201).header("docker-content-digest", digest))
    }

    fn blob(&self, digest: &str) -> Response {
        if !self.blobs.lock().expect("no panic").contains_key(digest) {
            return refusal(404, "BLOB_UNKNOWN");
        }
        if self.habits.storage.is_some() {
            let to = format!("http://{}/{digest}", self.storage);
            return empty(status(307).header("location", to));
        }
        empty(status(200))
    }

    async fn manifest(&self, method: &Method, path: String, body: Body) -> Response {
        if *method == Method::PUT {
            let bytes = axum::body::to_bytes(body, 4 << 20).await.expect("it comes");
            let digest = Digest::of(&bytes).to_string();
            self.manifests.lock().expect("no panic").insert(path, bytes);
            return empty(status(self.habits.manifest).header("docker-content-digest", digest));
        }
        match self.manifests.lock().expect("no panic").get(&path) {
            Some(bytes) => status(200).body(bytes.clone().into()).expect("an answer"),
            None => refusal(404, "MANIFEST_UNKNOWN"),
        }
    }
}
