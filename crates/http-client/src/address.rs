//! Addresses: where they lead, and whether what is sent there can be read on the way.

use std::net::IpAddr;

use reqwest::header::LOCATION;
use reqwest::{Response, Url};

/// Whether others can read what is sent to this address: plain HTTP to another machine. An address
/// without a scheme is not exposed.
pub fn is_exposed(address: &str) -> bool {
    Url::parse(address).is_ok_and(|url| is_plain_http(&url) && !is_loopback(&url))
}

/// Whether the address has no TLS.
pub fn is_plain_http(url: &Url) -> bool {
    url.scheme() == "http"
}

/// Whether the address leads to this machine.
pub fn is_loopback(url: &Url) -> bool {
    url.host_str().is_some_and(is_loopback_host)
}

/// Whether a host, perhaps with a port, is this machine.
pub fn is_loopback_host(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or(rest),
        None => host.split(':').next().unwrap_or(host),
    };
    let address = name.parse::<IpAddr>();
    name == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

/// The address that a redirect leads to. `None` if the response is not a redirect or its
/// `Location` is missing or not a valid address.
pub fn redirect_target(response: &Response) -> Option<Url> {
    if !response.status().is_redirection() {
        return None;
    }
    let location = response.headers().get(LOCATION)?.to_str().ok()?;
    response.url().join(location).ok()
}

/// Host, port and path of an address, for messages. User, password and query are left out, since
/// they may be secret.
pub fn display_address(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    let port = url.port().map(|port| format!(":{port}"));
    format!("{host}{}{}", port.unwrap_or_default(), url.path())
}

#[cfg(test)]
mod tests {
    use reqwest::Url;

    use super::{display_address, is_exposed, is_loopback_host};

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
    fn a_loopback_host_is_an_address_and_not_a_prefix() {
        for host in ["127.0.0.1:5000", "localhost", "[::1]:5000", "[::1]"] {
            assert!(is_loopback_host(host), "{host}");
        }
        for host in ["127.example.com", "registry.example.com:443", "10.0.0.1"] {
            assert!(!is_loopback_host(host), "{host}");
        }
    }

    #[test]
    fn a_displayed_address_has_no_secrets() {
        let url = Url::parse("https://user:secret@example.com:8443/path?token=secret").unwrap();
        assert_eq!(display_address(&url), "example.com:8443/path");
    }
}
