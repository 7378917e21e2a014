//! Addresses, and clients that speak HTTP to them.

use std::time::Duration;

use reqwest::Client;

/// The address of a registry as HTTP needs it, and its bare host.
pub fn base(registry: &str) -> (String, String) {
    let (scheme, rest) = match registry.split_once("://") {
        Some((scheme, rest)) => (Some(scheme), rest),
        None => (None, registry),
    };
    let host = rest.split('/').next().unwrap_or(rest);
    // As the engine does: plain HTTP on the loopback, TLS everywhere else.
    let scheme = scheme.unwrap_or(if is_loopback(host) { "http" } else { "https" });
    (format!("{scheme}://{host}"), host.to_owned())
}

pub fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or(rest),
        None => host.split(':').next().unwrap_or(host),
    };
    let address = name.parse::<std::net::IpAddr>();
    name == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

/// An HTTP client. Proxies of the environment hold, but not for this machine itself.
pub fn client(address: &str, timeout: Duration) -> reqwest::Result<Client> {
    let host = base(address).1;
    let builder = Client::builder()
        .timeout(timeout)
        .connect_timeout(Duration::from_secs(10))
        .user_agent(concat!("alokai/", env!("CARGO_PKG_VERSION")));
    if is_loopback(&host) {
        builder.no_proxy().build()
    } else {
        builder.build()
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
    use super::is_loopback;

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
