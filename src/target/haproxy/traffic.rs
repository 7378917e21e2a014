//! The traffic of one store: which of its releases can be reached, and which one is public.

use jiff::Timestamp;

use super::error::Error;
use super::table::{LARGEST_PAGE, MOST_SEGMENTS};
use super::{Haproxy, RoutedRelease, RoutedServer, RoutedStore, RoutingTable};
use crate::config::Project;
use crate::ledger::RecordId;
use crate::store::{AppName, StoreId};
use crate::target::labels::StoreLabels;
use crate::target::{Drained, ReleaseSpec, ReleasedApp, SwitchToken};

/// The traffic of a store.
pub struct StoreTraffic<'a> {
    /// The proxy.
    pub proxy: &'a Haproxy,
    /// The owner of the releases.
    pub owner: &'a StoreLabels,
    /// The store.
    pub store: &'a StoreId,
}

/// A running app of a release: its name in HAProxy, and its address and port.
pub struct AppServer<'a> {
    /// The app.
    pub app: &'a ReleasedApp,
    /// A name that no other app has.
    pub name: String,
    /// Address and port.
    pub address: String,
}

impl StoreTraffic<'_> {
    /// The routes of the store, and the whole routing table.
    pub async fn look(&self) -> Result<(RoutedStore, RoutingTable), Error> {
        let table = self.proxy.table().await?;
        let routed = table.stores.get(&self.owner.key()).cloned();
        Ok((routed.unwrap_or_default(), table))
    }

    /// Makes a release reachable without traffic. Returns its address.
    pub async fn stage(
        &self,
        spec: &ReleaseSpec,
        servers: Vec<AppServer<'_>>,
    ) -> Result<Option<String>, Error> {
        let routes = routes(spec, self.owner, servers);
        let host = routes.host.clone();
        let claim = |table: &mut RoutingTable| {
            self.check_hosts(table, spec)?;
            let store = table.stores.entry(self.owner.key()).or_default();
            if store.active.is_none() {
                store.hosts = hosts(spec);
            }
            table.releases.insert(spec.id.to_string(), routes);
            Ok(())
        };
        self.proxy.change(claim).await?;
        Ok(host.map(|host| self.proxy.url(&host)))
    }

    /// Gives the traffic to a staged release. False if the traffic has moved since the token was made.
    pub async fn switch(&self, spec: &ReleaseSpec, expected: &SwitchToken) -> Result<bool, Error> {
        let switch = |table: &mut RoutingTable| {
            self.check_hosts(table, spec)?;
            // Only a staged release has routes.
            if !table.releases.contains_key(spec.id.as_str()) {
                return Err(Error::NoRoutes {
                    store: self.store.clone(),
                    release: spec.id.clone(),
                });
            }
            let store = table.stores.entry(self.owner.key()).or_default();
            if token(store) != *expected {
                return Ok(false);
            }
            // A switch back may know the id of the release only.
            if !spec.hosts.is_empty() {
                store.hosts = hosts(spec);
            }
            if store.active.as_deref() != Some(spec.id.as_str()) {
                store.active = Some(spec.id.to_string());
                store.since = Some(Timestamp::now());
            }
            Ok(true)
        };
        self.proxy.change(switch).await
    }

    /// Removes the routes to a release. The release with the traffic is an error.
    pub async fn leave(&self, release: &RecordId) -> Result<(), Error> {
        let leave = |table: &mut RoutingTable| {
            let routed = table.stores.get(&self.owner.key());
            if routed.is_some_and(|store| store.active.as_deref() == Some(release.as_str())) {
                return Err(Error::Active {
                    store: self.store.clone(),
                    release: release.clone(),
                });
            }
            table.releases.remove(release.as_str());
            Ok(())
        };
        self.proxy.change(leave).await
    }

    /// Shows a page instead of the store, or the store again.
    pub async fn show_page(&self, page: Option<&str>) -> Result<(), Error> {
        if let Some(page) = page
            && page.len() > LARGEST_PAGE
        {
            return Err(Error::PageSize {
                bytes: page.len(),
                limit: LARGEST_PAGE,
            });
        }
        let show = |table: &mut RoutingTable| {
            let store = table.stores.entry(self.owner.key()).or_default();
            store.page = page.map(str::to_owned);
            Ok(())
        };
        self.proxy.change(show).await
    }

    /// Fails if another proxy switches the traffic of the store: its routes are not known here, so
    /// releases that seem to have no traffic cannot be stopped. `recorded` is the identity that the
    /// engine has for the store.
    pub fn check_identity(
        &self,
        own: &str,
        recorded: Option<&String>,
        place: Option<&String>,
        removal: String,
    ) -> Result<(), Error> {
        if recorded.is_some_and(|identity| identity == own) {
            return Ok(());
        }
        Err(Error::OtherProxy {
            store: self.store.clone(),
            place: place.cloned().unwrap_or_default(),
            removal,
        })
    }

    /// The error for an app that has to run before a switch.
    pub fn not_staged(&self, release: &RecordId, app: &AppName) -> Error {
        Error::NotStaged {
            store: self.store.clone(),
            release: release.clone(),
            app: app.clone(),
        }
    }

    fn check_hosts(&self, table: &RoutingTable, spec: &ReleaseSpec) -> Result<(), Error> {
        let own = self.owner.key();
        for host in hosts(spec) {
            let mut stores = table.stores.iter();
            let other = stores.find(|(key, store)| **key != own && store.hosts.contains(&host));
            if let Some((other, _)) = other {
                return Err(Error::HostTaken {
                    host,
                    other: other.clone(),
                    store: own,
                });
            }
        }
        Ok(())
    }
}

/// Fails if HAProxy cannot remove all segments of the path of an app in the config.
pub fn check_paths(project: &Project) -> Result<(), Error> {
    let apps = project.settings.console.apps.iter();
    let mut apps = apps.filter(|(_, it)| !it.has_base_path);
    apps.try_for_each(|(app, it)| check_segments(app, it.path.as_deref().unwrap_or_default()))
}

/// Fails if HAProxy cannot remove all segments of the path of an app of a release.
pub fn check_release(spec: &ReleaseSpec) -> Result<(), Error> {
    let mut apps = spec.apps.iter().filter(|app| app.strips_prefix);
    apps.try_for_each(|app| check_segments(app.app.as_str(), prefix(app)))
}

fn check_segments(app: &str, path: &str) -> Result<(), Error> {
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

/// The open requests of a release.
pub async fn drained(proxy: &Haproxy, release: &RecordId) -> Result<Drained, Error> {
    let table = proxy.table().await?;
    let Some(routed) = table.releases.get(release.as_str()) else {
        return Ok(Drained::Yes);
    };
    let servers: Vec<String> = routed.servers.iter().map(|it| it.name.clone()).collect();
    Ok(match proxy.open_requests(&servers).await? {
        Some(0) => Drained::Yes,
        Some(open) => Drained::No(open),
        None => Drained::Unknown,
    })
}

/// What the switch compares: the release with the traffic.
pub fn token(store: &RoutedStore) -> SwitchToken {
    SwitchToken(store.active.clone().unwrap_or_default())
}

/// The path below which an app answers, without slashes at its ends.
pub fn prefix(app: &ReleasedApp) -> &str {
    app.path_prefix
        .as_deref()
        .unwrap_or_default()
        .trim_matches('/')
}

/// A release as a part of a host name.
pub fn lower(release: &RecordId) -> String {
    release.as_str().to_ascii_lowercase()
}

fn hosts(spec: &ReleaseSpec) -> Vec<String> {
    let hosts = spec.hosts.iter();
    hosts.map(|host| host.to_ascii_lowercase()).collect()
}

/// The routes to the apps of a release.
fn routes(spec: &ReleaseSpec, owner: &StoreLabels, servers: Vec<AppServer<'_>>) -> RoutedRelease {
    let servers = servers.into_iter().map(|server| RoutedServer {
        name: server.name,
        address: server.address,
        prefix: prefix(server.app).to_owned(),
        strips_prefix: server.app.strips_prefix,
    });
    let host = hosts(spec).into_iter().next();
    RoutedRelease {
        store: owner.key(),
        host: host.map(|host| format!("{}.{host}", lower(&spec.id))),
        servers: servers.collect(),
    }
}
