//! HTTP servers in the process of the test: the console, and a registry with faults.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::handler::Handler;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::Response;
use serde_json::Value;
use tokio::net::TcpListener;

/// Starts a server on a port of the loopback, on a thread of its own. The server runs until the
/// process of the test ends.
pub(super) fn on_loopback<Work>(
    work: impl FnOnce(TcpListener) -> Work + Send + 'static,
) -> SocketAddr
where
    Work: Future<Output = ()>,
{
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        runtime.block_on(async {
            let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
            let address = listener.local_addr().expect("bound");
            sender.send(address).expect("the test waits");
            work(listener).await;
        });
    });
    receiver.recv().expect("the server starts")
}

/// Serves a router and returns its address.
pub(super) fn serve(router: Router) -> SocketAddr {
    on_loopback(async |listener| axum::serve(listener, router).await.expect("served"))
}

/// Serves one handler for all requests and returns host and port.
pub(super) fn serve_all<Extracted: 'static, State: Send + Sync + 'static>(
    handler: impl Handler<Extracted, Arc<State>>,
    state: &Arc<State>,
) -> String {
    let router = Router::new().fallback(handler);
    serve(router.with_state(Arc::clone(state))).to_string()
}

/// A request to the console.
#[derive(Debug, Clone)]
pub struct Request {
    pub method: String,
    pub path: String,
    pub content_type: String,
    pub body: Value,
}

/// A console that records each PATCH and gives the same answer to all.
pub struct Console {
    pub address: String,
    requests: Arc<Mutex<Vec<Request>>>,
}

struct Answer {
    status: StatusCode,
    body: String,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl Console {
    /// A console that accepts.
    pub fn start() -> Self {
        Self::answering(200, "{}")
    }

    /// A console that answers with this status and body.
    pub fn answering(status: u16, body: &str) -> Self {
        let requests = Arc::new(Mutex::new(Vec::new()));
        let answer = Answer {
            status: StatusCode::from_u16(status).expect("a status"),
            body: body.to_owned(),
            requests: Arc::clone(&requests),
        };
        let router = Router::new().fallback(record).with_state(Arc::new(answer));
        Self {
            address: format!("http://{}", serve(router)),
            requests,
        }
    }

    /// The deploy calls so far.
    pub fn requests(&self) -> Vec<Request> {
        self.requests.lock().expect("no panic").clone()
    }
}

async fn record(
    State(answer): State<Arc<Answer>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> (StatusCode, String) {
    if method != Method::PATCH {
        return (StatusCode::OK, String::new());
    }
    let content_type = headers
        .get("content-type")
        .map(|value| value.to_str().expect("text").to_owned());
    answer.requests.lock().expect("no panic").push(Request {
        method: method.to_string(),
        path: uri.path().to_owned(),
        content_type: content_type.unwrap_or_default(),
        body: serde_json::from_slice(&body).expect("JSON"),
    });
    // A careless server repeats the request in its answer.
    let sent = String::from_utf8_lossy(&body);
    (answer.status, answer.body.replace("{{request}}", &sent))
}

/// A real registry behind a proxy that answers some requests itself.
pub struct FaultyRegistry {
    pub address: String,
}

/// A client for servers on this machine. reqwest is built without a TLS provider of its own, and
/// fails without one even where no address has TLS.
pub fn http_client() -> reqwest::ClientBuilder {
    // This fails where one is installed, which is then used.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder().no_proxy()
}

struct Fault {
    upstream: String,
    status: StatusCode,
    /// The method and a part of the path of the requests that fail.
    method: Method,
    part: String,
    body: String,
    client: reqwest::Client,
}

impl FaultyRegistry {
    /// Passes all requests on to `upstream`, except `method` on paths with `part`.
    pub fn before(upstream: &str, method: &str, part: &str, status: u16, body: &str) -> Self {
        let fault = Fault {
            upstream: upstream.to_owned(),
            status: StatusCode::from_u16(status).expect("a status"),
            method: Method::from_bytes(method.as_bytes()).expect("a method"),
            part: part.to_owned(),
            body: body.to_owned(),
            client: http_client().build().expect("a client"),
        };
        let router = Router::new().fallback(pass).with_state(Arc::new(fault));
        Self {
            address: serve(router).to_string(),
        }
    }
}

async fn pass(
    State(fault): State<Arc<Fault>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let authenticated = headers.contains_key("authorization");
    if method == fault.method && uri.path().contains(&fault.part) && authenticated {
        let answer = Response::builder()
            .status(fault.status)
            .header("content-type", "application/json")
            .header("docker-distribution-api-version", "registry/2.0");
        return answer
            .body(Body::from(fault.body.clone()))
            .expect("an answer");
    }
    let body = axum::body::to_bytes(body, usize::MAX)
        .await
        .expect("a body");
    let url = format!("http://{}{uri}", fault.upstream);
    // The request keeps the host of the client, so that links of the registry lead through this
    // proxy.
    let sent = fault
        .client
        .request(method, url)
        .headers(headers)
        .body(body)
        .send()
        .await;
    let upstream = sent.expect("the registry answers");
    let mut answer = Response::builder().status(upstream.status());
    for (name, value) in upstream.headers() {
        answer = answer.header(name, value);
    }
    answer
        .body(Body::from(upstream.bytes().await.expect("a body")))
        .expect("an answer")
}
