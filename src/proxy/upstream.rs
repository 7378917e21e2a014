//! Requests to the apps: connections are kept open between requests, and one request is sent again
//! where that cannot do harm.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use http_body_util::{Either, Empty};
use hyper::body::{Body, Bytes, Incoming};
use hyper::http::request::Parts;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper::{Request, Response, Uri};
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::client::legacy::{Client, Error};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::TcpStream;

/// How long an unused connection stays open. Node.js closes a connection after 5 s, and a request
/// that is sent in this moment fails.
const IDLE: Duration = Duration::from_secs(4);

type RequestBody = Either<Incoming, Empty<Bytes>>;

/// The clients for requests to apps.
#[derive(Debug, Clone)]
pub(super) struct Upstream {
    pooled: Client<Loopback, RequestBody>,
    fresh: Client<Loopback, RequestBody>,
}

/// Why there is no response of an app.
#[derive(Debug)]
pub(super) enum UpstreamError {
    /// Nothing listens on the port.
    NotListening,
    /// The connection was closed without a response.
    Closed(Error),
}

impl Upstream {
    pub fn new() -> Self {
        let mut builder = Client::builder(TokioExecutor::new());
        builder
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE);
        // The proxy sets the `Host` header.
        builder
            .set_host(false)
            .http1_max_headers(super::MAX_HEADERS);
        let pooled = builder.build(Loopback);
        builder.pool_max_idle_per_host(0);
        Self {
            pooled,
            fresh: builder.build(Loopback),
        }
    }

    /// Sends a request to an app. A request is sent a second time, on a new connection, if it has no
    /// body, its method may be repeated, and the app closed a connection of earlier requests without
    /// a response.
    pub async fn send(
        &self,
        parts: Parts,
        body: Incoming,
    ) -> Result<Response<Incoming>, UpstreamError> {
        let again = (body.is_end_stream() && parts.method.is_idempotent()).then(|| parts.clone());
        let body = if body.is_end_stream() {
            Either::Right(Empty::new())
        } else {
            Either::Left(body)
        };
        let error = match self.pooled.request(Request::from_parts(parts, body)).await {
            Ok(response) => return Ok(answered(response)),
            Err(error) => error,
        };
        if error.is_connect() {
            return Err(UpstreamError::NotListening);
        }
        let Some(parts) = again.filter(|_| was_reused(&error)) else {
            return Err(UpstreamError::Closed(error));
        };
        let request = Request::from_parts(parts, Either::Right(Empty::new()));
        match self.fresh.request(request).await {
            Ok(response) => Ok(answered(response)),
            Err(error) if error.is_connect() => Err(UpstreamError::NotListening),
            Err(error) => Err(UpstreamError::Closed(error)),
        }
    }
}

/// Whether a connection has carried a response.
#[derive(Debug, Clone, Default)]
struct Used(Arc<AtomicBool>);

fn answered(mut response: Response<Incoming>) -> Response<Incoming> {
    if let Some(Used(used)) = response.extensions_mut().remove() {
        used.store(true, Ordering::Relaxed);
    }
    response
}

fn was_reused(error: &Error) -> bool {
    let mut extensions = hyper::http::Extensions::new();
    if let Some(connected) = error.connect_info() {
        connected.get_extras(&mut extensions);
    }
    let used = extensions.get::<Used>();
    used.is_some_and(|Used(used)| used.load(Ordering::Relaxed))
}

/// Connects to a port of the loopback: with IPv4, then with IPv6. Some development servers listen
/// on one of them only.
#[derive(Debug, Clone, Copy)]
struct Loopback;

/// Whether something listens on a port of the loopback.
pub(super) async fn is_listening(port: u16) -> bool {
    connect(port).await.is_ok()
}

async fn connect(port: u16) -> std::io::Result<TcpStream> {
    let addresses = [
        SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
        SocketAddr::from((Ipv6Addr::LOCALHOST, port)),
    ];
    let stream = TcpStream::connect(&addresses[..]).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

impl tower_service::Service<Uri> for Loopback {
    type Response = AppConnection;
    type Error = std::io::Error;
    type Future = Pin<Box<dyn Future<Output = std::io::Result<AppConnection>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        Box::pin(async move {
            let port = uri.port_u16().ok_or(std::io::ErrorKind::InvalidInput)?;
            let stream = TokioIo::new(connect(port).await?);
            let used = Used::default();
            Ok(AppConnection { stream, used })
        })
    }
}

/// A connection to an app.
#[derive(Debug)]
struct AppConnection {
    stream: TokioIo<TcpStream>,
    used: Used,
}

impl Connection for AppConnection {
    fn connected(&self) -> Connected {
        Connected::new().extra(self.used.clone())
    }
}

impl Read for AppConnection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl Write for AppConnection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, buffers)
    }
}
