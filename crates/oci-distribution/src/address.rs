//! Addresses, and clients that speak HTTP to them.

use std::time::Duration;

use reqwest::header::LOCATION;
use reqwest::{Client, ClientBuilder, Response, Url};

/// How long a connection may take to be made.
const CONNECT: Duration = Duration::from_secs(10);

/// The address of a registry as HTTP needs it, and its bare host.
pub fn base(registry: &str) -> (String, String) {
    let (scheme, rest) = match registry.split_once("://") {
        Some((scheme, rest)) => (Some(scheme), rest),
        None => (None, registry),
    };
    let host = rest.split('/').next().unwrap_or(rest);
    // As the engine does: plain HTTP on the loopback, TLS everywhere else.
    let scheme = scheme.unwrap_or(if is_loopback(host) { "http" } else { "https" });
    let speaker = if is_docker_hub(host) {
        "registry-1.docker.io"
    } else {
        host
    };
    (format!("{scheme}://{speaker}"), host.to_owned())
}

/// The bare host of a registry's address, with its port.
pub fn host(registry: &str) -> String {
    base(registry).1
}

/// Whether it is one of the names of Docker Hub, which is called otherwise than it is reached.
pub fn is_docker_hub(host: &str) -> bool {
    ["docker.io", "index.docker.io", "registry-1.docker.io"].contains(&host)
}

/// Whether everybody on the way can read what is sent there: plain HTTP to another machine.
pub fn is_exposed(address: &str) -> bool {
    Url::parse(address).is_ok_and(|url| is_plain(&url) && !is_on_loopback(&url))
}

/// Whether it is spoken to without TLS.
pub fn is_plain(url: &Url) -> bool {
    url.scheme() == "http"
}

/// Whether it is an address of this machine.
pub fn is_on_loopback(url: &Url) -> bool {
    url.host_str().is_some_and(is_loopback)
}

/// Where an answer redirects to: host and path. A query is left out, as it may hold a secret.
pub fn redirected(response: &Response) -> Option<String> {
    if !response.status().is_redirection() {
        return None;
    }
    let next = response.headers().get(LOCATION)?.to_str().ok()?;
    let next = response.url().join(next).ok()?;
    Some(place(&next))
}

/// Host and path of an address, as people are told.
pub fn place(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    let port = url.port().map(|port| format!(":{port}"));
    format!("{host}{}{}", port.unwrap_or_default(), url.path())
}

pub fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or(rest),
        None => host.split(':').next().unwrap_or(host),
    };
    let address = name.parse::<std::net::IpAddr>();
    name == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

/// An HTTP client whose requests end after that time. It follows no redirects.
pub fn client(address: &str, timeout: Duration) -> reqwest::Result<Client> {
    builder(address).timeout(timeout).build()
}

/// An HTTP client to be, which follows no redirects: what is sent may hold a password. Proxies of
/// the environment hold, but not for this machine itself.
pub(super) fn builder(address: &str) -> ClientBuilder {
    // reqwest is built without a TLS provider of its own. This fails where one is installed, which
    // is then used.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let builder = Client::builder()
        .connect_timeout(CONNECT)
        .redirect(reqwest::redirect::Policy::none())
        .user_agent(concat!("alokai/", env!("CARGO_PKG_VERSION")));
    if is_loopback(&base(address).1) {
        builder.no_proxy()
    } else {
        builder
    }
}

/// The causes of an HTTP error, without the address, which may carry a query.
pub fn reason(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut text = error.to_string();
    let mut source = std::error::Error::source(&error);
    while let Some(cause) = source {
        text = cause.to_string();
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{base, is_exposed, is_loopback};

    #[test]
    fn docker_hub_is_reached_under_another_name_than_it_is_called() {
        for (registry, url, host) in [
            ("docker.io", "https://registry-1.docker.io", "docker.io"),
            (
                "https://index.docker.io/v1/",
                "https://registry-1.docker.io",
                "index.docker.io",
            ),
            ("ghcr.io", "https://ghcr.io", "ghcr.io"),
            ("127.0.0.1:5000", "http://127.0.0.1:5000", "127.0.0.1:5000"),
            (
                "http://registry.local",
                "http://registry.local",
                "registry.local",
            ),
        ] {
            assert_eq!(
                base(registry),
                (url.to_owned(), host.to_owned()),
                "{registry}"
            );
        }
    }

    #[test]
    fn plain_http_to_another_machine_is_exposed() {
        for address in [
            "http://console.example.com",
            "HTTP://console.example.com",
            "http://10.0.0.1:8080/api",
            "http://127.0.0.1.example.com",
            "http://localhost.example.com",
        ] {
            assert!(is_exposed(address), "{address}");
        }
        for address in [
            "https://console.example.com",
            "http://127.0.0.1:4000",
            "http://[::1]:4000",
            "http://localhost",
            "registry.example.com",
        ] {
            assert!(!is_exposed(address), "{address}");
        }
    }

    #[test]
    fn the_loopback_is_an_address_and_not_a_beginning() {
        for host in ["127.0.0.1:5000", "localhost", "[::1]:5000", "[::1]"] {
            assert!(is_loopback(host), "{host}");
        }
        for host in ["127.example.com", "registry.example.com:443", "10.0.0.1"] {
            assert!(!is_loopback(host), "{host}");
        }
    }
}
