//! Servers that record all requests in full.

use std::sync::{Arc, Mutex};

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Method, Uri};
use axum::response::Response;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::web::{on_loopback, serve_all};

/// The answer of a [`Recorder`]: status, headers, body.
pub type Reply = (u16, Vec<(&'static str, String)>, String);

type Rule = Box<dyn Fn(&Method, &Uri) -> Reply + Send + Sync>;

struct Shared {
    rule: Rule,
    seen: Mutex<Vec<String>>,
}

/// A server that records each request as text: its first line, headers and body.
pub struct Recorder {
    /// Host and port.
    pub address: String,
    state: Arc<Shared>,
}

impl Recorder {
    /// Answers 200 to everything.
    pub fn start() -> Self {
        Self::answering(|_, _| (200, Vec::new(), "{}".into()))
    }

    pub fn answering(rule: impl Fn(&Method, &Uri) -> Reply + Send + Sync + 'static) -> Self {
        let state = Arc::new(Shared {
            rule: Box::new(rule),
            seen: Mutex::default(),
        });
        Self {
            address: serve_all(record, &state),
            state,
        }
    }

    /// All requests so far.
    pub fn seen(&self) -> Vec<String> {
        self.state.seen.lock().expect("no panic").clone()
    }

    /// The number of requests that start with a text.
    pub fn count(&self, beginning: &str) -> usize {
        let seen = self.seen();
        seen.iter()
            .filter(|text| text.starts_with(beginning))
            .count()
    }

    /// Whether any request contains the secret.
    pub fn knows(&self, secret: &str) -> bool {
        self.seen().iter().any(|text| text.contains(secret))
    }
}

async fn record(
    State(state): State<Arc<Shared>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let body = String::from_utf8_lossy(&body);
    let text = format!("{method} {uri}\n{headers:?}\n{body}");
    state.seen.lock().expect("no panic").push(text);
    let (status, headers, body) = (state.rule)(&method, &uri);
    let mut answer = Response::builder().status(status);
    for (name, value) in headers {
        answer = answer.header(name, value);
    }
    answer.body(body.into()).expect("an answer")
}

/// A SOCKS 5 proxy that connects all clients to one address and records the names that they ask
/// for.
pub struct Socks {
    pub address: String,
    names: Arc<Mutex<Vec<String>>>,
}

impl Socks {
    pub fn to(upstream: &str) -> Self {
        let upstream = upstream.to_owned();
        let names = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&names);
        let relay = async move |listener: TcpListener| loop {
            let (near, _) = listener.accept().await.expect("a connection");
            let (upstream, kept) = (upstream.clone(), Arc::clone(&kept));
            tokio::spawn(async move {
                // A client may break off its connection.
                let _ = through(near, &upstream, &kept).await;
            });
        };
        Self {
            address: on_loopback(relay).to_string(),
            names,
        }
    }

    /// The host names of all requested connections.
    pub fn names(&self) -> Vec<String> {
        self.names.lock().expect("no panic").clone()
    }
}

/// One connection as in RFC 1928: greeting, request, and then bytes in both directions.
async fn through(
    mut near: TcpStream,
    upstream: &str,
    names: &Mutex<Vec<String>>,
) -> std::io::Result<()> {
    let [version, methods] = read(&mut near).await?;
    assert_eq!(version, 5);
    let mut offered = vec![0; usize::from(methods)];
    near.read_exact(&mut offered).await?;
    near.write_all(&[5, 0]).await?;
    let [_, command, _, kind] = read(&mut near).await?;
    assert_eq!((command, kind), (1, 3), "to connect, and by name");
    let [length] = read(&mut near).await?;
    let mut name = vec![0; usize::from(length)];
    near.read_exact(&mut name).await?;
    let [_, _] = read(&mut near).await?;
    let name = String::from_utf8_lossy(&name).into_owned();
    names.lock().expect("no panic").push(name);
    near.write_all(&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0]).await?;
    let mut far = TcpStream::connect(upstream).await?;
    tokio::io::copy_bidirectional(&mut near, &mut far).await?;
    Ok(())
}

async fn read<const LENGTH: usize>(from: &mut TcpStream) -> std::io::Result<[u8; LENGTH]> {
    let mut bytes = [0; LENGTH];
    from.read_exact(&mut bytes).await?;
    Ok(bytes)
}
