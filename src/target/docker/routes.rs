//! The routes of a release: its public names, and the paths of its apps.

use super::apps::{container_name, lower, prefix};
use super::engine::StoreLabels;
use super::error::Error;
use super::haproxy::{MOST_SEGMENTS, RoutedRelease, RoutedServer, RoutingTable};
use crate::target::ReleaseSpec;

/// The public names of a store, in lower case.
pub fn hosts(spec: &ReleaseSpec) -> Vec<String> {
    let hosts = spec.hosts.iter();
    hosts.map(|host| host.to_ascii_lowercase()).collect()
}

/// Fails if another store has one of the names.
pub fn check_hosts(
    table: &RoutingTable,
    spec: &ReleaseSpec,
    owner: &StoreLabels,
) -> Result<(), Error> {
    for host in hosts(spec) {
        let other = table
            .stores
            .iter()
            .find(|(key, store)| **key != owner.key() && store.hosts.contains(&host));
        if let Some((other, _)) = other {
            return Err(Error::HostTaken {
                host,
                other: other.clone(),
                store: owner.key(),
            });
        }
    }
    Ok(())
}

/// Fails if HAProxy cannot remove all segments of a path.
pub fn check_segments(app: &str, path: &str) -> Result<(), Error> {
    let segments = path.trim_matches('/').split('/').count();
    if segments <= MOST_SEGMENTS {
        return Ok(());
    }
    Err(Error::PathSegments {
        app: app.to_owned(),
        path: path.to_owned(),
        segments,
        limit: MOST_SEGMENTS,
    })
}

/// The routes to the apps of a release.
pub fn routes(
    spec: &ReleaseSpec,
    owner: &StoreLabels,
    address: &str,
    ports: &[u16],
) -> RoutedRelease {
    let servers = spec.apps.iter().zip(ports).map(|(app, port)| RoutedServer {
        name: container_name(spec, app),
        address: format!("{address}:{port}"),
        prefix: prefix(app).to_owned(),
        strips_prefix: app.strips_prefix,
    });
    let host = hosts(spec).into_iter().next();
    RoutedRelease {
        store: owner.key(),
        host: host.map(|host| format!("{}.{host}", lower(&spec.id))),
        servers: servers.collect(),
    }
}
