//! The ports of the proxy on the loopback, and the connections to them.

use std::convert::Infallible;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::gateway::Gateway;
use super::headers::Connection;
use super::{Error, MAX_HEADERS};

/// How long requests in flight may go on after the shutdown.
const GRACE: Duration = Duration::from_secs(3);

/// How long a client may take for a TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// The pause after a connection could not be accepted, for example because too many files are open.
const PAUSE: Duration = Duration::from_millis(50);

/// The ports that are tried: the first one, the second one, and those after the second one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortChoice {
    /// The port that addresses need not name: 80 or 443. `None` if it is not tried.
    pub standard: Option<u16>,
    /// The next choice. 0 takes any free port.
    pub fallback: u16,
}

impl PortChoice {
    /// 80, else 8080 or the next free port.
    pub const HTTP: Self = Self {
        standard: Some(80),
        fallback: 8080,
    };
    /// 443, else 8443 or the next free port.
    pub const HTTPS: Self = Self {
        standard: Some(443),
        fallback: 8443,
    };

    /// How many ports are tried.
    const ATTEMPTS: u16 = 100;
}

/// The listeners of one port: IPv4, and IPv6 if the system has it.
pub(super) struct Listeners {
    pub port: u16,
    all: Vec<TcpListener>,
}

impl Listeners {
    /// Listens on the first free port. `avoid` are ports that belong to apps.
    pub async fn bind(choice: PortChoice, avoid: &[u16]) -> Result<Self, Error> {
        let last = match choice.fallback {
            0 => 0,
            first => first.saturating_add(PortChoice::ATTEMPTS - 1),
        };
        let next = |attempt: u16| choice.fallback.saturating_add(attempt).min(last);
        let candidates = (0..PortChoice::ATTEMPTS).map(next);
        let candidates = choice.standard.into_iter().chain(candidates);
        let mut cause = None;
        for port in candidates.filter(|port| !avoid.contains(port)) {
            match Self::on(port).await {
                Ok(listeners) => return Ok(listeners),
                Err(source) => cause = Some(source),
            }
        }
        Err(Error::NoPort {
            first: choice.fallback,
            last,
            source: cause.unwrap_or_else(|| ErrorKind::AddrInUse.into()),
        })
    }

    /// A port counts as free only if it is free for IPv4 and for IPv6: browsers try both for
    /// `localhost`, and must not reach two programs.
    async fn on(port: u16) -> std::io::Result<Self> {
        let four = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
        let port = four.local_addr()?.port();
        let mut all = vec![four];
        match TcpListener::bind((Ipv6Addr::LOCALHOST, port)).await {
            Ok(six) => all.push(six),
            Err(error) if error.kind() == ErrorKind::AddrInUse => return Err(error),
            // The system has no IPv6.
            Err(_) => {}
        }
        Ok(Self { port, all })
    }

    /// Accepts connections until the shutdown.
    pub fn serve(self, server: &Server, tls: Option<&TlsAcceptor>) {
        for listener in self.all {
            let (server, tls) = (server.clone(), tls.cloned());
            server.tasks.clone().spawn(server.accept(listener, tls));
        }
    }
}

/// What all connections share.
#[derive(Clone)]
pub(super) struct Server {
    pub gateway: Arc<Gateway>,
    pub tasks: TaskTracker,
    pub shutdown: CancellationToken,
}

impl Server {
    async fn accept(self, listener: TcpListener, tls: Option<TlsAcceptor>) {
        loop {
            let accepted = self.shutdown.run_until_cancelled(listener.accept()).await;
            match accepted {
                None => return,
                Some(Ok((stream, client))) => {
                    let server = self.clone();
                    self.tasks
                        .spawn(server.connected(stream, client, tls.clone()));
                }
                Some(Err(_)) => tokio::time::sleep(PAUSE).await,
            }
        }
    }

    async fn connected(self, stream: TcpStream, client: SocketAddr, tls: Option<TlsAcceptor>) {
        let connection = Connection {
            client: client.ip(),
            is_secure: tls.is_some(),
        };
        // Small parts of a stream are sent at once.
        let _ = stream.set_nodelay(true);
        let Some(tls) = tls else {
            return self.serve(stream, connection).await;
        };
        let handshake = tokio::time::timeout(HANDSHAKE, tls.accept(stream));
        // A browser that does not trust the certificate ends the handshake.
        if let Some(Ok(Ok(stream))) = self.shutdown.run_until_cancelled(handshake).await {
            self.serve(stream, connection).await;
        }
    }

    async fn serve<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
        self,
        stream: S,
        connection: Connection,
    ) {
        let mut builder = Builder::new(TokioExecutor::new());
        let timer = TokioTimer::new();
        builder
            .http1()
            .timer(timer.clone())
            .max_headers(MAX_HEADERS);
        builder.http2().timer(timer);
        let gateway = &self.gateway;
        let service = service_fn(|request| {
            let gateway = Arc::clone(gateway);
            async move { Ok::<_, Infallible>(gateway.answer(request, connection).await) }
        });
        let served = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
        let mut served = std::pin::pin!(served);
        tokio::select! {
            // The client has seen the error of its connection.
            _ = served.as_mut() => {}
            () = self.shutdown.cancelled() => {
                served.as_mut().graceful_shutdown();
                let _ = tokio::time::timeout(GRACE, served).await;
            }
        }
    }
}
