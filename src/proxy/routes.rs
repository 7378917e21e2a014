//! The routing table: which request belongs to which app of which store.
//!
//! The table is replaced as a whole. A request takes its [`RoutedApp`] from one table and counts as in
//! flight in the same moment, so that [`Routes::drained`] misses no request.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use serde::Serialize;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

use crate::store::{AppName, StoreId};

/// The addresses and the apps of one store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct StoreRoutes {
    /// The store.
    pub store: StoreId,
    /// Names of the store without a port, such as `us.localhost`. Case does not matter.
    pub hosts: Vec<String>,
    /// The apps that answer for these names.
    pub apps: Vec<AppRoute>,
    /// The last change of the store's files in one line, for the list of stores.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_change: Option<String>,
    /// The page that is shown instead of the store, as HTML.
    #[serde(skip)]
    pub maintenance: Option<Arc<str>>,
}

impl StoreRoutes {
    /// The name under which every browser finds a store on this machine without a hosts file. A
    /// character that is not allowed in a host name is replaced by `-`.
    pub fn localhost(store: &StoreId) -> String {
        let allowed = |c: char| match c {
            '.' | '-' => c,
            c if c.is_ascii_alphanumeric() => c.to_ascii_lowercase(),
            _ => '-',
        };
        let name: String = store.as_str().chars().map(allowed).collect();
        format!("{}.localhost", name.trim_end_matches(['.', '-']))
    }
}

/// One app of a store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AppRoute {
    /// The app.
    pub app: AppName,
    /// The port of the app on the loopback.
    pub port: u16,
    /// The path below which the app answers, such as `/api/`. `None` for the app that gets all other
    /// requests.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path_prefix: Option<String>,
    /// Whether the app sees the path without the prefix.
    pub strips_prefix: bool,
    /// The state of the app in one word, for the list of stores.
    pub state: String,
}

impl AppRoute {
    /// The prefix without slashes at its end. Empty for the app that gets all other requests.
    pub(super) fn prefix(&self) -> &str {
        let prefix = self.path_prefix.as_deref().unwrap_or_default();
        prefix.trim_end_matches('/')
    }

    /// The path as the app sees it. `None` if another app has to answer.
    fn path<'path>(&self, path: &'path str) -> Option<&'path str> {
        let rest = path.strip_prefix(self.prefix())?;
        match rest.as_bytes().first() {
            _ if !self.strips_prefix || self.prefix().is_empty() => {
                (rest.is_empty() || rest.starts_with('/') || self.prefix().is_empty())
                    .then_some(path)
            }
            None => Some("/"),
            Some(b'/') => Some(rest),
            Some(_) => None,
        }
    }
}

/// A handle to the routing table, cheap to clone. A running proxy sees a new table at once.
#[derive(Debug, Clone, Default)]
pub struct Routes(Arc<RwLock<RoutingTable>>);

#[derive(Debug, Default)]
struct RoutingTable {
    stores: Arc<Vec<StoreRoutes>>,
    /// How often the stores have changed.
    revision: u64,
    by_host: HashMap<String, usize>,
    /// What is open to each port, also to ports that are not in the table any more.
    open: HashMap<u16, OpenRequests>,
}

/// The open requests to one port.
#[derive(Debug, Default)]
struct OpenRequests {
    /// Requests in flight.
    requests: TaskTracker,
    /// Connections that have switched to another protocol, such as a WebSocket.
    tunnels: TaskTracker,
}

/// Who answers a request.
#[derive(Debug)]
pub(super) enum RouteMatch {
    /// To an app.
    App(RoutedApp),
    /// No app of this store answers for the path.
    NoApp,
    /// The page that is shown instead of the store.
    Maintenance(Arc<str>),
    /// The host belongs to this machine and to no store.
    Index,
    /// No store has this host.
    UnknownHost,
}

/// An app that answers a request.
#[derive(Debug)]
pub(super) struct RoutedApp {
    pub store: StoreId,
    pub app: AppName,
    pub port: u16,
    pub state: String,
    /// The path for the app, without the query.
    pub path: String,
    /// Counts the request as in flight until it is dropped.
    pub in_flight: TaskTrackerToken,
    /// Counts the connection after it has switched to another protocol.
    pub tunnel: TaskTrackerToken,
}

impl Routes {
    /// Replaces the table. When this returns, every new request follows the new table. If two stores
    /// have the same host, the first store gets it.
    pub fn set(&self, stores: Vec<StoreRoutes>) {
        let mut by_host = HashMap::new();
        for (index, store) in stores.iter().enumerate() {
            for host in &store.hosts {
                by_host.entry(host.to_ascii_lowercase()).or_insert(index);
            }
        }
        let mut table = self.0.write().unwrap_or_else(PoisonError::into_inner);
        table.by_host = by_host;
        table
            .open
            .retain(|_, open| !open.requests.is_empty() || !open.tunnels.is_empty());
        for app in stores.iter().flat_map(|store| &store.apps) {
            // A tracker can be waited for only after it is closed. It counts as before.
            table.open.entry(app.port).or_default().requests.close();
        }
        if *table.stores != stores {
            table.revision += 1;
            table.stores = Arc::new(stores);
        }
    }

    /// The stores of the current table.
    pub fn stores(&self) -> Arc<Vec<StoreRoutes>> {
        self.revision().1
    }

    /// How often the stores have changed, and the stores.
    pub(super) fn revision(&self) -> (u64, Arc<Vec<StoreRoutes>>) {
        let table = self.0.read().unwrap_or_else(PoisonError::into_inner);
        (table.revision, Arc::clone(&table.stores))
    }

    /// Waits until no request to a port is in flight. The caller first removes the port from the
    /// table; as long as the table has it, new requests are in flight again and again. A WebSocket
    /// does not count after its handshake, since it ends only with its server.
    pub async fn drained(&self, port: u16) {
        let requests = {
            let table = self.0.read().unwrap_or_else(PoisonError::into_inner);
            table.open.get(&port).map(|open| open.requests.clone())
        };
        if let Some(requests) = requests {
            requests.wait().await;
        }
    }

    /// How many requests and connections of another protocol, such as a WebSocket, are open to a port.
    pub fn open_requests(&self, port: u16) -> usize {
        let table = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let open = table.open.get(&port);
        open.map_or(0, |open| open.requests.len() + open.tunnels.len())
    }

    /// Finds the app for a host without a port and a path.
    pub(super) fn find(&self, host: &str, path: &str) -> RouteMatch {
        let host = normalized(host);
        let table = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let store = table.by_host.get(&host);
        let Some(store) = store.and_then(|it| table.stores.get(*it)) else {
            return if LOOPBACK.contains(&&*host) {
                RouteMatch::Index
            } else {
                RouteMatch::UnknownHost
            };
        };
        if let Some(page) = &store.maintenance {
            return RouteMatch::Maintenance(Arc::clone(page));
        }
        let answers = |app| Some((app, AppRoute::path(app, path)?));
        let found = store.apps.iter().filter_map(answers);
        let nearest = found.max_by_key(|(app, _)| app.prefix().len());
        let target = nearest.and_then(|(app, path)| {
            let open = table.open.get(&app.port)?;
            Some(RoutedApp {
                store: store.store.clone(),
                app: app.app.clone(),
                port: app.port,
                state: app.state.clone(),
                path: path.to_owned(),
                in_flight: open.requests.token(),
                tunnel: open.tunnels.token(),
            })
        });
        target.map_or(RouteMatch::NoApp, RouteMatch::App)
    }

    /// Whether a store has this host.
    pub(super) fn has_host(&self, host: &str) -> bool {
        let table = self.0.read().unwrap_or_else(PoisonError::into_inner);
        table.by_host.contains_key(&normalized(host))
    }

    /// Whether a host is a name of the loopback or a host of a store. Only such a host cannot
    /// belong to somebody else.
    pub(super) fn is_local(&self, host: &str) -> bool {
        is_loopback(&normalized(host)) || self.has_host(host)
    }

    /// The port of an app of the store with this host.
    pub(super) fn port(&self, host: &str, app: &str) -> Option<u16> {
        let table = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let store = table.stores.get(*table.by_host.get(&normalized(host))?)?;
        let app = store.apps.iter().find(|it| it.app.as_str() == app)?;
        Some(app.port)
    }
}

/// The names of this machine that belong to no store.
const LOOPBACK: [&str; 3] = ["localhost", "127.0.0.1", "[::1]"];

/// A host in lower case, without the final dot of an absolute name.
fn normalized(host: &str) -> String {
    let host = host.strip_suffix('.').unwrap_or(host);
    host.to_ascii_lowercase()
}

/// Whether a normalized host is `localhost`, a name below it, or an address of the loopback.
fn is_loopback(host: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    let below = host.strip_suffix(".localhost");
    LOOPBACK.contains(&host)
        || below.is_some_and(|name| !name.is_empty() && name.bytes().all(allowed))
}

#[cfg(test)]
mod tests {
    use super::{AppRoute, RouteMatch, Routes, StoreRoutes};
    use crate::store::{AppName, StoreId};

    fn app(name: &str, port: u16, prefix: Option<&str>, strips_prefix: bool) -> AppRoute {
        AppRoute {
            app: AppName::new(name).unwrap(),
            port,
            path_prefix: prefix.map(str::to_owned),
            strips_prefix,
            state: "ready".into(),
        }
    }

    fn routes() -> Routes {
        let routes = Routes::default();
        routes.set(vec![StoreRoutes {
            store: StoreId::new("us").unwrap(),
            hosts: vec!["us.localhost".into(), "US.local".into()],
            apps: vec![
                app("storefront-unified-nextjs", 3000, None, false),
                app("storefront-middleware", 4000, Some("/api/"), true),
                app("search", 5000, Some("/api/search/"), true),
                app("docs", 6000, Some("/docs"), false),
            ],
            last_change: None,
            maintenance: None,
        }]);
        routes
    }

    fn found(routes: &Routes, host: &str, path: &str) -> String {
        match routes.find(host, path) {
            RouteMatch::App(target) => format!("{} {}", target.port, target.path),
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn the_longest_prefix_at_a_slash_gets_the_request() {
        let routes = routes();
        for (path, expected) in [
            ("/", "3000 /"),
            ("/apix", "3000 /apix"),
            ("/docsx", "3000 /docsx"),
            ("/api", "4000 /"),
            ("/api/", "4000 /"),
            ("/api/commerce/getProduct", "4000 /commerce/getProduct"),
            ("/api//x", "4000 //x"),
            ("/api/search/x", "5000 /x"),
            ("/api/searchx", "4000 /searchx"),
            ("/docs/a", "6000 /docs/a"),
            ("/docs", "6000 /docs"),
        ] {
            assert_eq!(found(&routes, "us.localhost", path), expected, "{path}");
        }
    }

    #[test]
    fn a_host_is_compared_without_case_and_without_a_final_dot() {
        let routes = routes();
        for host in ["us.localhost", "US.LOCALHOST", "us.localhost.", "us.local"] {
            assert_eq!(found(&routes, host, "/"), "3000 /", "{host}");
        }
        for host in ["localhost", "LOCALHOST.", "127.0.0.1", "[::1]"] {
            assert_eq!(found(&routes, host, "/"), "Index", "{host}");
        }
        for host in ["", ".", "eu.localhost", "x.us.localhost", "us.localhost.."] {
            assert_eq!(found(&routes, host, "/"), "UnknownHost", "{host}");
        }
    }

    #[test]
    fn only_names_of_the_loopback_and_hosts_of_stores_are_local() {
        let routes = routes();
        for host in [
            "localhost",
            "LOCALHOST.",
            "127.0.0.1",
            "[::1]",
            "us.localhost",
            "fr.localhost.",
            "a.b.localhost",
            "us.local",
            "US.LOCAL.",
        ] {
            assert!(routes.is_local(host), "{host}");
        }
        for host in [
            "",
            ".",
            ".localhost",
            "localhost..",
            "notlocalhost",
            "localhost.evil.example",
            "us.local.evil.example",
            "x.us.local",
            "evil.example:80.localhost",
            "a@us.localhost",
            "127.0.0.1.evil.example",
            "127.0.0.2",
            "0.0.0.0",
            "[::]",
            "::1",
        ] {
            assert!(!routes.is_local(host), "{host}");
        }
    }

    #[test]
    fn a_store_id_is_made_a_host_name() {
        let host = |id: &str| StoreRoutes::localhost(&StoreId::new(id).unwrap());
        assert_eq!(host("us"), "us.localhost");
        assert_eq!(host("Fashion_US"), "fashion-us.localhost");
        assert_eq!(host("a.b."), "a.b.localhost");
    }
}
