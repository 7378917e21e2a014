//! Local domains: a reverse proxy on the loopback, which gives each store addresses of its own.
//!
//! Three things are apart from each other. The routing table ([`Routes`]) decides which app answers
//! a request, is replaced as a whole, and counts the requests in flight. Connections of clients
//! (`listen`) know no routes. Connections to apps (`upstream`) are kept open and know no stores.

mod authority;
mod caddyfile;
mod gateway;
mod headers;
mod listen;
mod pages;
mod resolve;
mod routes;
mod upstream;

use std::sync::Arc;

pub use authority::{AuthorityError, AuthorityOrigin, CertificateAuthority};
pub use caddyfile::caddyfile;
use gateway::Gateway;
pub use listen::PortChoice;
use listen::{Listeners, Server};
use miette::Diagnostic;
pub use resolve::lead_to_loopback;
pub use routes::{AppRoute, Routes, StoreRoutes};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The most headers of a request or a response.
const MAX_HEADERS: usize = 256;

/// Errors of the start of the proxy.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum Error {
    /// All ports that the proxy tries are in use.
    #[error("cannot listen on a port from {first} to {last} on the loopback")]
    #[diagnostic(
        code(alokai::proxy::no_port),
        help("end the program that uses one of these ports")
    )]
    NoPort {
        /// The first port, after the standard port.
        first: u16,
        /// The last port.
        last: u16,
        /// The error of the last attempt.
        source: std::io::Error,
    },
    /// No certificate can be made with the certificate authority.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Authority(#[from] AuthorityError),
}

/// Where and how the proxy listens.
#[derive(Debug)]
pub struct ProxyOptions {
    /// The port for HTTP.
    pub http: PortChoice,
    /// The port for HTTPS. It is used only with an authority.
    pub https: PortChoice,
    /// The authority that signs certificates. `None` means HTTP only.
    pub authority: Option<CertificateAuthority>,
}

impl Default for ProxyOptions {
    /// The standard ports, without HTTPS.
    fn default() -> Self {
        Self {
            http: PortChoice::HTTP,
            https: PortChoice::HTTPS,
            authority: None,
        }
    }
}

/// The ports on which the proxy listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProxyAddresses {
    /// The port for HTTP.
    pub http: u16,
    /// The port for HTTPS.
    pub https: Option<u16>,
}

impl ProxyAddresses {
    /// The address of a host, with HTTPS if it is on: `http://us.localhost:8080`.
    pub fn url(self, host: &str) -> String {
        match (self.https, self.http) {
            (Some(443), _) => format!("https://{host}"),
            (Some(port), _) => format!("https://{host}:{port}"),
            (None, 80) => format!("http://{host}"),
            (None, port) => format!("http://{host}:{port}"),
        }
    }
}

/// A proxy that runs until its shutdown.
#[derive(Debug)]
pub struct RunningProxy {
    /// The ports.
    pub addresses: ProxyAddresses,
    tasks: TaskTracker,
}

impl RunningProxy {
    /// Waits until the last connection has ended. It ends only after the shutdown.
    pub async fn ended(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }
}

/// Starts the proxy. It serves the routes, also when they are replaced, until `shutdown` is
/// cancelled. Requests in flight then have 3 s to end. The ports of the apps in `routes` are not
/// taken.
pub async fn start(
    routes: Routes,
    options: ProxyOptions,
    shutdown: CancellationToken,
) -> Result<RunningProxy, Error> {
    let stores = routes.stores();
    let apps = stores.iter().flat_map(|store| &store.apps);
    let avoid: Vec<u16> = apps.map(|app| app.port).collect();
    let http = Listeners::bind(options.http, &avoid).await?;
    let https = match options.authority {
        None => None,
        Some(authority) => {
            let config = authority.server_config(routes.clone())?;
            let listeners = Listeners::bind(options.https, &avoid).await?;
            Some((listeners, TlsAcceptor::from(config)))
        }
    };
    let addresses = ProxyAddresses {
        http: http.port,
        https: https.as_ref().map(|(listeners, _)| listeners.port),
    };
    let tasks = TaskTracker::new();
    let without_https = ProxyAddresses {
        https: None,
        ..addresses
    };
    let gateway = Arc::new(Gateway::new(
        routes,
        tasks.clone(),
        shutdown.clone(),
        without_https.url("localhost"),
    ));
    let server = Server {
        gateway,
        tasks: tasks.clone(),
        shutdown,
    };
    http.serve(&server, None);
    if let Some((https, tls)) = https {
        https.serve(&server, Some(&tls));
    }
    Ok(RunningProxy { addresses, tasks })
}
