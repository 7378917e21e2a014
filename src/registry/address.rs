//! Addresses, and clients that speak HTTP to them.

use std::time::Duration;

use reqwest::{Client, ClientBuilder};

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

/// Whether it is one of the names of Docker Hub, which is called otherwise than it is reached.
pub fn is_docker_hub(host: &str) -> bool {
    ["docker.io", "index.docker.io", "registry-1.docker.io"].contains(&host)
}

pub fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or(rest),
        None => host.split(':').next().unwrap_or(host),
    };
    let address = name.parse::<std::net::IpAddr>();
    name == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

/// An HTTP client whose requests end after that time.
pub fn client(address: &str, timeout: Duration) -> reqwest::Result<Client> {
    builder(address).timeout(timeout).build()
}

/// An HTTP client to be. Proxies of the environment hold, but not for this machine itself.
pub(super) fn builder(address: &str) -> ClientBuilder {
    let builder = Client::builder()
        .connect_timeout(CONNECT)
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
    use super::{base, is_loopback};

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
    fn the_loopback_is_an_address_and_not_a_beginning() {
        for host in ["127.0.0.1:5000", "localhost", "[::1]:5000", "[::1]"] {
            assert!(is_loopback(host), "{host}");
        }
        for host in ["127.example.com", "registry.example.com:443", "10.0.0.1"] {
            assert!(!is_loopback(host), "{host}");
        }
    }
}
