//! Addresses of registries: the host that a registry is known by, and the address that it is
//! reached at.

use http_client::is_loopback_host;

/// The address at which a registry is reached, and the host that it is known by.
pub fn registry_address(registry: &str) -> (String, String) {
    let (scheme, rest) = match registry.split_once("://") {
        Some((scheme, rest)) => (Some(scheme), rest),
        None => (None, registry),
    };
    let host = rest.split('/').next().unwrap_or(rest);
    // As the Docker engine does: plain HTTP on the loopback, TLS everywhere else.
    let default = if is_loopback_host(host) {
        "http"
    } else {
        "https"
    };
    let scheme = scheme.unwrap_or(default);
    let reached = if is_docker_hub(host) {
        "registry-1.docker.io"
    } else {
        host
    };
    (format!("{scheme}://{reached}"), host.to_owned())
}

/// The host of a registry's address, with its port and without scheme and path.
pub fn host(registry: &str) -> String {
    registry_address(registry).1
}

/// Whether the host is one of Docker Hub's names. Its API has another host than its images' names.
pub fn is_docker_hub(host: &str) -> bool {
    ["docker.io", "index.docker.io", "registry-1.docker.io"].contains(&host)
}

#[cfg(test)]
mod tests {
    use super::registry_address;

    #[test]
    fn the_api_of_docker_hub_has_another_host_than_its_images_names() {
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
                registry_address(registry),
                (url.to_owned(), host.to_owned()),
                "{registry}"
            );
        }
    }
}
