//! Whether a name leads to this machine.

use std::net::SocketAddr;
use std::time::Duration;

use futures_util::future::join_all;

/// A resolver that asks the network for an unknown `.local` name takes 5 s.
const LIMIT: Duration = Duration::from_secs(1);

/// For each host, whether all its addresses are those of the loopback. Browsers resolve names below
/// `localhost` themselves.
pub async fn lead_to_loopback(hosts: &[String]) -> Vec<bool> {
    join_all(hosts.iter().map(|host| leads_to_loopback(host))).await
}

async fn leads_to_loopback(host: &str) -> bool {
    if host == "localhost" || host.ends_with(".localhost") {
        return true;
    }
    let looked_up = tokio::time::timeout(LIMIT, tokio::net::lookup_host((host, 0)));
    let Ok(Ok(addresses)) = looked_up.await else {
        return false;
    };
    let addresses: Vec<SocketAddr> = addresses.collect();
    !addresses.is_empty() && addresses.iter().all(|address| address.ip().is_loopback())
}
