//! Faults between a registry and its client: a proxy that breaks connections, and one that changes
//! requests and answers.

use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::Response;
use futures_util::StreamExt;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::web::{http_client, on_loopback, serve_all};

/// A proxy that breaks every connection after this many bytes in both directions.
pub fn cutting(upstream: &str, after: i64) -> String {
    cutting_times(upstream, after, usize::MAX)
}

/// The same for the first connections only; later connections are stable.
pub fn cutting_times(upstream: &str, after: i64, times: usize) -> String {
    let times = Arc::new(AtomicUsize::new(times));
    let upstream = upstream.to_owned();
    let relay = async move |listener: TcpListener| loop {
        let (near, _) = listener.accept().await.expect("a connection");
        let far = TcpStream::connect(&upstream).await.expect("it is there");
        let left = Left {
            bytes: Arc::new(AtomicI64::new(after)),
            times: Arc::clone(&times),
        };
        tokio::spawn(async move {
            let (near_reads, near_writes) = near.into_split();
            let (far_reads, far_writes) = far.into_split();
            // The direction that ends first ends both.
            tokio::select! {
                () = copy(near_reads, far_writes, &left) => {}
                () = copy(far_reads, near_writes, &left) => {}
            }
        });
    };
    on_loopback(relay).to_string()
}

/// The bytes that still get through.
struct Left {
    /// The bytes that are left for this connection.
    bytes: Arc<AtomicI64>,
    /// The connections that are still to break.
    times: Arc<AtomicUsize>,
}

impl Left {
    /// How many of the read bytes get through.
    fn take(&self, read: usize) -> usize {
        let length = i64::try_from(read).expect("small");
        let before = self.bytes.fetch_sub(length, Ordering::Relaxed);
        if before >= length {
            return read;
        }
        // A connection counts once as broken.
        let cut = |times: usize| times.checked_sub(1);
        let order = Ordering::Relaxed;
        if self.times.fetch_update(order, order, cut).is_err() {
            self.bytes.store(i64::MAX, order);
            return read;
        }
        usize::try_from(before.max(0)).expect("small")
    }
}

async fn copy(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, left: &Left) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        let passed = left.take(read);
        if to.write_all(&buffer[..passed]).await.is_err() || passed < read {
            break;
        }
    }
}

/// A request to the proxy.
#[derive(Debug, Clone)]
pub struct Seen {
    pub method: String,
    /// Path and query.
    pub target: String,
    pub host: String,
    pub authorization: Option<String>,
    /// `Content-Length`.
    pub length: Option<u64>,
    /// The body, if it is a form.
    pub form: String,
    /// The number of requests before it.
    pub number: usize,
}

impl Seen {
    /// Whether the request has a body.
    pub fn has_body(&self) -> bool {
        self.length.is_some_and(|length| length > 0)
    }

    /// Whether the request has this method and a target that contains this part.
    pub fn is(&self, method: &str, part: &str) -> bool {
        self.method == method && self.target.contains(part)
    }
}

/// What the proxy does with a request.
pub enum Turn {
    /// Passes the request on.
    Pass,
    /// Passes the request on with this authorization.
    PassAs(String),
    /// Passes the request on with another path and query.
    Rewrite(String),
    /// Passes the request on and sets a header of the answer.
    Lie(&'static str, String),
    /// Passes the request on and sets the status of the answer.
    Status(u16),
    /// Passes the request on and answers 504 after this time. The registry still handles the
    /// request.
    GiveUpAfter(Duration),
    /// Passes the request on and appends one byte to the body of the answer.
    Append,
    /// Passes the request on and breaks the connection in the middle of the answer.
    Truncate,
    /// Passes the request on without its `Range` header.
    WithoutRange,
    /// Answers with this status, these headers and this body.
    Answer(u16, Vec<(&'static str, String)>, String),
}

impl Turn {
    /// An error answer in the form of the distribution specification.
    pub fn error(status: u16, code: &str) -> Self {
        let body = serde_json::json!({ "errors": [{ "code": code, "message": code }] });
        Self::Answer(status, Vec::new(), body.to_string())
    }
}

type Rule = Box<dyn Fn(&Seen) -> Turn + Send + Sync>;

struct Proxy {
    upstream: String,
    rule: Rule,
    seen: Mutex<Vec<Seen>>,
    client: reqwest::Client,
}

/// A registry behind a proxy that handles requests by a rule.
pub struct Before {
    pub address: String,
    proxy: Arc<Proxy>,
}

impl Before {
    pub fn new(upstream: &str, rule: impl Fn(&Seen) -> Turn + Send + Sync + 'static) -> Self {
        let client = http_client().redirect(reqwest::redirect::Policy::none());
        let proxy = Arc::new(Proxy {
            upstream: upstream.to_owned(),
            rule: Box::new(rule),
            seen: Mutex::default(),
            client: client.build().expect("a client"),
        });
        Self {
            address: serve_all(pass, &proxy),
            proxy,
        }
    }

    /// A double of a Docker engine: the engine of this socket, behind the proxy.
    pub fn engine(socket: &str, rule: impl Fn(&Seen) -> Turn + Send + Sync + 'static) -> Self {
        let client = http_client().unix_socket(socket).build();
        let proxy = Arc::new(Proxy {
            upstream: "docker".into(),
            rule: Box::new(rule),
            seen: Mutex::default(),
            client: client.expect("a client"),
        });
        Self {
            address: serve_all(pass, &proxy),
            proxy,
        }
    }

    /// Does this with requests for which the condition holds, and passes the others on.
    pub fn when(
        upstream: &str,
        condition: impl Fn(&Seen) -> bool + Send + Sync + 'static,
        turn: impl Fn() -> Turn + Send + Sync + 'static,
    ) -> Self {
        Self::new(
            upstream,
            move |seen| if condition(seen) { turn() } else { Turn::Pass },
        )
    }

    /// All requests so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.proxy.seen.lock().expect("no panic").clone()
    }

    /// The number of requests of this kind.
    pub fn count(&self, method: &str, part: &str) -> usize {
        let seen = self.seen();
        seen.iter().filter(|seen| seen.is(method, part)).count()
    }
}

fn own_answer(status: u16, fields: Vec<(&'static str, String)>, text: String) -> Response {
    let mut answer = Response::builder()
        .status(StatusCode::from_u16(status).expect("a status"))
        .header("content-type", "application/json");
    for (name, value) in fields {
        answer = answer.header(name, value);
    }
    answer.body(Body::from(text)).expect("an answer")
}

/// Sends the first half of an answer and closes the connection.
async fn half(answer: axum::http::response::Builder, upstream: reqwest::Response) -> Response {
    let whole = upstream.bytes().await.expect("a body");
    let half = whole.slice(..whole.len() / 2);
    // The first half must be sent before the connection breaks.
    let later = futures_util::stream::once(async {
        tokio::time::sleep(Duration::from_millis(20)).await;
        Err(std::io::Error::other("cut"))
    });
    let parts = futures_util::stream::iter([Ok(half)]).chain(later);
    answer.body(Body::from_stream(parts)).expect("an answer")
}

async fn pass(
    State(proxy): State<Arc<Proxy>>,
    method: Method,
    uri: Uri,
    mut headers: HeaderMap,
    body: Body,
) -> Response {
    let text = |name: &str| Some(headers.get(name)?.to_str().expect("text").to_owned());
    let is_form = text("content-type").is_some_and(|kind| kind.contains("form"));
    let (form, body) = if is_form {
        let bytes = axum::body::to_bytes(body, 1 << 20).await.expect("a form");
        (
            String::from_utf8(bytes.to_vec()).expect("text"),
            Body::from(bytes),
        )
    } else {
        (String::new(), body)
    };
    let seen = {
        let mut all = proxy.seen.lock().expect("no panic");
        let seen = Seen {
            method: method.to_string(),
            // A proxy gets the whole URL.
            target: uri
                .path_and_query()
                .map_or_else(String::new, ToString::to_string),
            host: text("host").expect("a host"),
            authorization: text("authorization"),
            length: text("content-length").map(|length| length.parse().expect("a number")),
            form,
            number: all.len(),
        };
        all.push(seen.clone());
        seen
    };
    let mut target = seen.target.clone();
    let mut lie = None;
    let (mut is_longer, mut is_cut) = (false, false);
    let (mut status, mut patience) = (None, Duration::from_mins(10));
    match (proxy.rule)(&seen) {
        Turn::Pass => {}
        Turn::PassAs(authorization) => {
            headers.insert("authorization", authorization.parse().expect("a header"));
        }
        Turn::Rewrite(other) => target = other,
        Turn::Lie(name, value) => lie = Some((name, value)),
        Turn::Status(other) => status = Some(other),
        Turn::GiveUpAfter(time) => patience = time,
        Turn::Append => is_longer = true,
        Turn::Truncate => is_cut = true,
        Turn::WithoutRange => drop(headers.remove("range")),
        Turn::Answer(status, fields, text) => {
            // The body is read, so that the connection can be kept.
            let mut pieces = body.into_data_stream();
            while let Some(Ok(_)) = pieces.next().await {}
            return own_answer(status, fields, text);
        }
    }
    let url = format!("http://{}{target}", proxy.upstream);
    let body = reqwest::Body::wrap_stream(body.into_data_stream());
    let sending = proxy.client.request(method.clone(), url).headers(headers);
    let sending = if seen.length.unwrap_or(0) > 0 {
        sending.body(body)
    } else {
        sending
    };
    let failed = |status: u16| {
        let answer = Response::builder().status(status).body(Body::empty());
        answer.expect("an answer")
    };
    let sending = tokio::spawn(sending.send());
    let upstream = match tokio::time::timeout(patience, sending).await {
        Ok(sent) => sent.expect("no panic"),
        Err(_) => return failed(504),
    };
    let Ok(upstream) = upstream else {
        return failed(502);
    };
    let status = status.unwrap_or(upstream.status().as_u16());
    let mut answer = Response::builder().status(status);
    for (name, value) in upstream.headers() {
        if !["transfer-encoding", "connection"].contains(&name.as_str())
            && lie.as_ref().is_none_or(|(lie, _)| name != lie)
            && !(is_longer && name == "content-length")
        {
            answer = answer.header(name, value);
        }
    }
    if let Some((name, value)) = lie {
        answer = answer.header(name, value);
    }
    if method == Method::HEAD {
        return answer.body(Body::empty()).expect("an answer");
    }
    if is_cut {
        return half(answer, upstream).await;
    }
    let more = is_longer.then_some(Ok(Bytes::from_static(b"x")));
    let body = upstream
        .bytes_stream()
        .chain(futures_util::stream::iter(more));
    answer.body(Body::from_stream(body)).expect("an answer")
}
