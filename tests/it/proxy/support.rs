//! A proxy and apps in the process of the test, and clients that see each byte.

use std::time::Duration;

use alokai::proxy::{
    AppRoute, CertificateAuthority, PortChoice, ProxyOptions, Routes, RunningProxy, StoreRoutes,
    start,
};
use alokai::store::{AppName, StoreId};
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::response::Response;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

/// More than any step of these tests takes.
pub const LONG: Duration = Duration::from_secs(20);

/// A proxy that is shut down with the test.
pub struct LocalProxy {
    pub routes: Routes,
    pub running: RunningProxy,
    pub shutdown: CancellationToken,
}

impl LocalProxy {
    pub async fn start(stores: Vec<StoreRoutes>) -> Self {
        Self::with_authority(stores, None).await
    }

    pub async fn with_authority(
        stores: Vec<StoreRoutes>,
        authority: Option<CertificateAuthority>,
    ) -> Self {
        let routes = Routes::default();
        routes.set(stores);
        let any = PortChoice {
            standard: None,
            fallback: 0,
        };
        let options = ProxyOptions {
            http: any,
            https: any,
            authority,
        };
        let shutdown = CancellationToken::new();
        let running = start(routes.clone(), options, shutdown.clone()).await;
        Self {
            routes,
            running: running.unwrap(),
            shutdown,
        }
    }

    pub fn port(&self) -> u16 {
        self.running.addresses.http
    }

    pub async fn connect(&self) -> TcpStream {
        connect(self.port()).await
    }

    /// Sends bytes and reads until the proxy closes the connection.
    pub async fn exchange(&self, request: impl AsRef<[u8]>) -> String {
        let mut stream = self.connect().await;
        stream.write_all(request.as_ref()).await.unwrap();
        let mut response = Vec::new();
        let read = stream.read_to_end(&mut response);
        tokio::time::timeout(LONG, read).await.unwrap().unwrap();
        String::from_utf8_lossy(&response).into_owned()
    }

    /// The response to a `GET` of a browser.
    pub async fn get(&self, host: &str, path: &str) -> String {
        self.exchange(format!(
            "GET {path} HTTP/1.1\r\nHost: {host}\r\nAccept: text/html,*/*\r\nConnection: close\r\n\r\n"
        ))
        .await
    }
}

impl Drop for LocalProxy {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

pub async fn connect(port: u16) -> TcpStream {
    TcpStream::connect(("127.0.0.1", port)).await.unwrap()
}

/// Reads until the text has `end`.
pub async fn read_until(stream: &mut (impl tokio::io::AsyncRead + Unpin), end: &str) -> String {
    let mut text = Vec::new();
    let reading = async {
        while !String::from_utf8_lossy(&text).contains(end) {
            let mut part = [0; 1024];
            let count = stream.read(&mut part).await.unwrap();
            assert!(
                count > 0,
                "ended after {:?}",
                String::from_utf8_lossy(&text)
            );
            text.extend_from_slice(&part[..count]);
        }
    };
    let read = tokio::time::timeout(LONG, reading).await;
    let text = String::from_utf8_lossy(&text).into_owned();
    assert!(read.is_ok(), "no {end:?} in {text:?}");
    text
}

/// The routes of a store with its frontend at `/` and its middleware below `/api/`.
pub fn store(id: &str, frontend: u16, middleware: u16) -> StoreRoutes {
    StoreRoutes {
        store: StoreId::new(id).unwrap(),
        hosts: vec![format!("{id}.localhost"), format!("{id}.local")],
        apps: vec![
            AppRoute {
                app: AppName::new("storefront-unified-nextjs").unwrap(),
                port: frontend,
                path_prefix: None,
                strips_prefix: false,
                state: "ready".into(),
            },
            AppRoute {
                app: AppName::new("storefront-middleware").unwrap(),
                port: middleware,
                path_prefix: Some("/api/".into()),
                strips_prefix: true,
                state: "ready".into(),
            },
        ],
        last_change: None,
        maintenance: None,
    }
}

/// A port on which nothing listens.
pub async fn closed_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap().port()
}

/// Serves a router until the runtime of the test ends.
pub async fn serve(router: Router) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    port
}

/// An app that answers with the request that it has got. `x-received` has the length of the body
/// and the headers that delimit it.
pub async fn echo() -> u16 {
    serve(Router::new().fallback(answer_with_request)).await
}

async fn answer_with_request(request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = to_bytes(body, usize::MAX).await.unwrap();
    // The answer to `HEAD` has no body that could show it.
    let mut received = vec![format!("{} bytes", body.len())];
    for name in ["transfer-encoding", "content-length"] {
        for value in parts.headers.get_all(name) {
            received.push(format!("{name}: {}", value.to_str().unwrap()));
        }
    }
    let mut lines = vec![format!(
        "{} {} {:?}",
        parts.method, parts.uri, parts.version
    )];
    for (name, value) in &parts.headers {
        lines.push(format!(
            "{name}: {}",
            String::from_utf8_lossy(value.as_bytes())
        ));
    }
    lines[1..].sort();
    let head = format!("{}\n\n", lines.join("\n"));
    let answer = [head.as_bytes(), &body].concat();
    let response = Response::builder()
        .status(
            parts
                .headers
                .get("x-status")
                .map_or("200", |it| it.to_str().unwrap()),
        )
        .header("x-received", received.join(", "))
        .header("x-twice", "1")
        .header("x-twice", "2");
    let is_chunked = parts.headers.contains_key("x-chunked");
    let body = if is_chunked {
        let parts: Vec<_> = answer.chunks(7).map(<[u8]>::to_vec).collect();
        Body::from_stream(futures_util::stream::iter(
            parts.into_iter().map(Ok::<_, std::io::Error>),
        ))
    } else {
        Body::from(answer)
    };
    response.body(body).unwrap()
}
