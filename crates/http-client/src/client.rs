//! Construction of clients: the one place that decides on TLS, proxies and redirects.

use std::time::Duration;

use reqwest::redirect::Policy;
use reqwest::{Certificate, Client, Identity, Url};

use crate::is_loopback;

/// How long a connection may take to be established, by default.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// What a client is built with.
#[derive(Debug, Clone)]
pub struct HttpOptions {
    /// Value of the `User-Agent` header.
    pub user_agent: String,
    /// How long a connection may take to be established.
    pub connect_timeout: Duration,
    /// Certificate authorities that are trusted beside the system's.
    pub certificates: Vec<Certificate>,
    /// Whether the system's certificate authorities are not trusted.
    pub only_certificates: bool,
    /// Whether the server's certificate is not checked.
    pub any_certificate: bool,
    /// The certificate of the client.
    pub identity: Option<Identity>,
    /// Whether a connection serves more than one request.
    pub keeps_connections: bool,
}

impl HttpOptions {
    /// Default options with this user agent.
    pub fn new(user_agent: &str) -> Self {
        Self {
            user_agent: user_agent.to_owned(),
            connect_timeout: CONNECT_TIMEOUT,
            certificates: Vec::new(),
            only_certificates: false,
            any_certificate: false,
            identity: None,
            keeps_connections: true,
        }
    }
}

/// Builds a client for requests to one server.
///
/// The client follows no redirects, since a request may carry a password that another server must
/// not see; see [`redirect_target`](crate::redirect_target). It uses the proxies that the
/// environment names, except for this machine itself.
pub fn build(server: &Url, options: HttpOptions) -> reqwest::Result<Client> {
    // reqwest is built without a TLS provider. This fails if one is already installed, which is then
    // used.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut builder = Client::builder()
        .connect_timeout(options.connect_timeout)
        .redirect(Policy::none())
        .user_agent(options.user_agent)
        .tls_danger_accept_invalid_certs(options.any_certificate);
    // Reading the system's certificate authorities takes milliseconds. Plain HTTP to this machine does not
    // need them, because it uses no proxy and follows no redirect.
    let may_use_tls = server.scheme() != "http" || !is_loopback(server);
    builder = if options.only_certificates || !may_use_tls {
        builder.tls_certs_only(options.certificates)
    } else {
        builder.tls_certs_merge(options.certificates)
    };
    if let Some(identity) = options.identity {
        builder = builder.identity(identity);
    }
    if is_loopback(server) {
        builder = builder.no_proxy();
    }
    if !options.keeps_connections {
        builder = builder.pool_max_idle_per_host(0);
    }
    builder.build()
}
