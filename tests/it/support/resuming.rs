//! A registry that keeps the received bytes of a broken connection, as in the specification. The
//! real registry of the other tests ends such an upload.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, Method, Uri};
use axum::response::Response;
use futures_util::StreamExt;

use oci::Digest;

use super::web::serve_all;

/// A registry in memory, without a login.
#[derive(Clone)]
pub struct Resuming {
    pub address: String,
    state: Arc<Kept>,
}

#[derive(Default)]
struct Kept {
    /// Only the first half of a broken piece is kept.
    forgets: bool,
    /// A broken connection ends its upload.
    ends: bool,
    /// The smallest size of a piece, except the last one.
    smallest: Option<u64>,
    /// How long the commit of a blob takes.
    late: Duration,
    sessions: Mutex<HashMap<String, Vec<u8>>>,
    blobs: Mutex<HashMap<String, Vec<u8>>>,
    manifests: Mutex<HashMap<String, Vec<u8>>>,
    /// Sessions that got a small piece, which has to be the last one.
    ended: Mutex<Vec<String>>,
}

impl Resuming {
    pub fn start() -> Self {
        Self::with(Kept::default())
    }

    /// A registry that loses the second half of a broken piece.
    pub fn forgetful() -> Self {
        Self::with(Kept {
            forgets: true,
            ..Kept::default()
        })
    }

    /// A registry in which a broken connection ends its upload.
    pub fn brittle() -> Self {
        Self::with(Kept {
            ends: true,
            ..Kept::default()
        })
    }

    /// A registry that takes no small pieces.
    pub fn of_large_pieces(smallest: u64) -> Self {
        Self::with(Kept {
            smallest: Some(smallest),
            ..Kept::default()
        })
    }

    /// A registry in which the commit of a blob takes this long.
    pub fn committing_late(late: Duration) -> Self {
        Self::with(Kept {
            late,
            ..Kept::default()
        })
    }

    fn with(kept: Kept) -> Self {
        let state = Arc::new(kept);
        Self {
            address: serve_all(answer, &state),
            state,
        }
    }

    /// Whether the registry has the whole blob.
    pub fn has(&self, digest: &Digest) -> bool {
        let blobs = self.state.blobs.lock().expect("no panic");
        let blob = blobs.get(&digest.to_string());
        blob.is_some_and(|blob| digest.like(blob) == *digest)
    }

    /// The number of opened upload sessions.
    pub fn sessions(&self) -> usize {
        self.state.sessions.lock().expect("no panic").len()
    }
}

fn status(status: u16) -> axum::http::response::Builder {
    Response::builder().status(status)
}

fn empty(answer: axum::http::response::Builder) -> Response {
    answer.body(Body::empty()).expect("an answer")
}

fn wrong(number: u16, code: &str) -> Response {
    let body = format!(r#"{{"errors":[{{"code":"{code}","message":"{code}"}}]}}"#);
    status(number).body(Body::from(body)).expect("an answer")
}

async fn answer(
    State(kept): State<Arc<Kept>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let path = uri.path().to_owned();
    let query = uri.query().unwrap_or_default().replace("%3A", ":");
    if let Some(id) = path.split("/uploads/").nth(1) {
        if method == Method::POST {
            let mut sessions = kept.sessions.lock().expect("no panic");
            let id = format!("session-{}", sessions.len());
            sessions.insert(id.clone(), Vec::new());
            let mut answer = status(202).header("location", format!("{path}{id}?state=0"));
            if let Some(smallest) = kept.smallest {
                answer = answer.header("oci-chunk-min-length", smallest);
            }
            return empty(answer);
        }
        return upload(&kept, &method, &path, id, &query, &headers, body).await;
    }
    let name = path.rsplit('/').next().expect("a name").to_owned();
    let map = if path.contains("/blobs/") {
        &kept.blobs
    } else {
        &kept.manifests
    };
    if method == Method::PUT {
        let bytes = axum::body::to_bytes(body, 4 << 20).await.expect("it comes");
        map.lock().expect("no panic").insert(name, bytes.to_vec());
        return empty(status(201));
    }
    match map.lock().expect("no panic").get(&name) {
        Some(bytes) => status(200)
            .body(Body::from(bytes.clone()))
            .expect("an answer"),
        None => wrong(404, "UNKNOWN"),
    }
}

async fn upload(
    kept: &Kept,
    method: &Method,
    path: &str,
    id: &str,
    query: &str,
    headers: &HeaderMap,
    body: Body,
) -> Response {
    let text = |name: &str| Some(headers.get(name)?.to_str().expect("text").to_owned());
    let has = || Some(kept.sessions.lock().expect("no panic").get(id)?.len());
    let Some(before) = has() else {
        return wrong(404, "BLOB_UPLOAD_UNKNOWN");
    };
    let length: usize =
        text("content-length").map_or(0, |length| length.parse().expect("a number"));
    if let Some(range) = text("content-range") {
        let begin = range.split('-').next().expect("a begin");
        if begin != before.to_string() {
            return wrong(416, "BLOB_UPLOAD_INVALID");
        }
    }
    if *method == Method::PATCH {
        let mut ended = kept.ended.lock().expect("no panic");
        if ended.iter().any(|ended| ended == id) {
            return wrong(400, "SIZE_INVALID");
        }
        if kept
            .smallest
            .is_some_and(|smallest| (length as u64) < smallest)
        {
            ended.push(id.to_owned());
        }
    }
    let mut pieces = body.into_data_stream();
    let mut came = Vec::new();
    while let Some(Ok(piece)) = pieces.next().await {
        came.extend_from_slice(&piece);
    }
    if came.len() < length && kept.forgets {
        came.truncate(came.len() / 2);
    }
    let is_broken = came.len() < length;
    if is_broken && kept.ends {
        // The ended session is kept under another key, so that sessions can be counted.
        let mut sessions = kept.sessions.lock().expect("no panic");
        if let Some(bytes) = sessions.remove(id) {
            sessions.insert(format!("ended-{id}"), bytes);
        }
        return wrong(400, "SIZE_INVALID");
    }
    let held = {
        let mut sessions = kept.sessions.lock().expect("no panic");
        // An earlier request may have ended the session meanwhile.
        let Some(session) = sessions.get_mut(id) else {
            return wrong(404, "BLOB_UPLOAD_UNKNOWN");
        };
        session.extend_from_slice(&came);
        session.len()
    };
    if is_broken {
        return wrong(400, "SIZE_INVALID");
    }
    if *method == Method::PUT {
        let digest = query.split("digest=").nth(1).expect("a digest");
        let bytes = kept.sessions.lock().expect("no panic").get(id).cloned();
        let bytes = bytes.unwrap_or_default();
        let named: Digest = digest.parse().expect("a digest");
        if named.like(&bytes) != named {
            return wrong(400, "DIGEST_INVALID");
        }
        tokio::time::sleep(kept.late).await;
        let mut blobs = kept.blobs.lock().expect("no panic");
        blobs.insert(digest.to_owned(), bytes);
        return empty(status(201).header("docker-content-digest", digest));
    }
    let end = held.saturating_sub(1);
    let number = if *method == Method::GET { 204 } else { 202 };
    empty(
        status(number)
            .header("location", format!("{path}?state={held}"))
            .header("range", format!("0-{end}")),
    )
}
