//! The traffic of one store: which of its releases can be reached, and which one is public.

use std::collections::{BTreeMap, HashMap};

use jiff::Timestamp;

use super::error::Error;
use super::table::{LARGEST_PAGE, MOST_SEGMENTS, page_as_ascii};
use super::{Haproxy, RoutedRelease, RoutedServer, RoutedStore, RoutingTable};
use crate::config::Project;
use crate::ledger::RecordId;
use crate::proxy::StoreRoutes;
use crate::store::{AppName, Store, StoreId};
use crate::target::hosts::{self, EarlierNames, HostTaken};
use crate::target::labels::{PROXY, PROXY_PLACE, StoreLabels};
use crate::target::{Drained, ReleaseSpec, ReleasedApp, SwitchToken};

/// The traffic of a store.
pub struct StoreTraffic<'a> {
    /// The proxy.
    pub proxy: &'a Haproxy,
    /// The project.
    pub project: &'a Project,
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
    /// The routes of the store, and the whole routing table. They may be those of a HAProxy that does not
    /// run.
    pub async fn look(&self) -> Result<(RoutedStore, RoutingTable), Error> {
        let table = self.proxy.table().await?;
        let routed = table.stores.get(&self.owner.key()).cloned();
        Ok((routed.unwrap_or_default(), table))
    }

    /// The routes of the store, and the whole routing table. Fails if a release of the store has the traffic
    /// and HAProxy does not run.
    pub async fn observe(&self) -> Result<(RoutedStore, RoutingTable), Error> {
        let (routed, table) = self.look().await?;
        if let Some(active) = &routed.active
            && let Err(reason) = self.proxy.check_running().await
        {
            return Err(Error::ProxyStopped {
                store: self.store.clone(),
                release: active.clone(),
                reason,
            });
        }
        Ok((routed, table))
    }

    /// Fails if the store cannot have its host names: its `localDomain` belongs to another store, or no name
    /// is left because its default name belongs to another project. `among` are the stores of the project at
    /// this proxy.
    pub async fn check_names<'s>(
        &self,
        among: impl Iterator<Item = &'s Store>,
    ) -> Result<(), Error> {
        hosts::check_config(self.project, self.store, among)?;
        let wanted = hosts::hosts(self.project, self.store);
        let table = self.proxy.table().await?;
        Ok(self.names(&table, &wanted).map(drop)?)
    }

    /// The address of the store, which its apps know as the public one.
    pub async fn public_address(&self, spec: &ReleaseSpec) -> Result<Option<String>, Error> {
        let names = self.names(&self.proxy.table().await?, &spec.hosts)?;
        Ok(names.first().map(|host| self.proxy.url(host)))
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
            let mut names = self.names(table, &spec.hosts)?;
            // The present holder of a name keeps it until the switch.
            names.retain(|host| self.holder(table, host).is_none());
            let key = self.owner.key();
            let store = table.stores.entry(key.clone()).or_default();
            // A release that is staged again gets the names of the config at its switch.
            if store
                .earlier
                .as_ref()
                .is_some_and(|it| it.release == spec.id.as_str())
            {
                store.earlier = None;
            }
            if store.active.is_none() {
                give_names(table, &key, &names);
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
            let names = self.names(table, &spec.hosts)?;
            // Only a staged release has routes.
            if !table.releases.contains_key(spec.id.as_str()) {
                return Err(Error::NoRoutes {
                    store: self.store.clone(),
                    release: spec.id.clone(),
                });
            }
            let key = self.owner.key();
            let now = table.stores.get(&key).cloned().unwrap_or_default();
            if token(&now) != *expected {
                return Ok(false);
            }
            let release = spec.id.as_str();
            let earlier = now.earlier.filter(|it| it.release == release);
            if let Some(earlier) = earlier {
                hosts::give_back(&mut table.stores, &key, earlier.names, |it| &mut it.hosts);
                table.stores.entry(key.clone()).or_default().earlier = None;
            } else if !names.is_empty() {
                // A release whose build is not known has no names.
                let names = give_names(table, &key, &names);
                let store = table.stores.entry(key.clone()).or_default();
                let before = now.active.filter(|active| active != release);
                store.earlier = before.map(|release| EarlierNames { release, names });
            }
            let store = table.stores.entry(key).or_default();
            if store.active.as_deref() != Some(release) {
                store.active = Some(release.to_owned());
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

    /// Removes the store from the table: its traffic ends, and other stores can use its host names.
    pub async fn end(&self) -> Result<(), Error> {
        let end = |table: &mut RoutingTable| {
            let key = self.owner.key();
            table.stores.remove(&key);
            table.releases.retain(|_, release| release.store != key);
            Ok(())
        };
        self.proxy.change(end).await
    }

    /// Shows a page instead of the store, or the store again.
    pub async fn show_page(&self, page: Option<&str>) -> Result<(), Error> {
        let bytes = page.map_or(0, |page| page_as_ascii(page).len());
        if bytes > LARGEST_PAGE {
            return Err(Error::PageSize {
                bytes,
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

    /// The labels with which the engine records that this proxy switches the traffic of the store. A proxy
    /// without an identity gets one, which starts HAProxy.
    pub async fn record(&self) -> Result<HashMap<String, String>, Error> {
        let mut labels = self.owner.map();
        labels.insert(PROXY.to_owned(), self.proxy.identity().await?);
        labels.insert(PROXY_PLACE.to_owned(), self.proxy.place());
        Ok(labels)
    }

    /// Fails if another proxy switches the traffic of the store: its routes are not known here, so
    /// releases that seem to have no traffic cannot be stopped. `recorded` are the labels of the engine's
    /// record, and `removal` is the command that removes it.
    pub async fn check_record(
        &self,
        recorded: &HashMap<String, String>,
        removal: String,
    ) -> Result<(), Error> {
        let own = self.proxy.table().await?.identity;
        if recorded.get(PROXY) == Some(&own) {
            return Ok(());
        }
        let place = recorded.get(PROXY_PLACE);
        Err(Error::OtherProxy {
            store: self.store.clone(),
            place: place.cloned().unwrap_or_default(),
            section: self.proxy.section(),
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

    /// The host names in `wanted` that the store can have.
    fn names(&self, table: &RoutingTable, wanted: &[String]) -> Result<Vec<String>, HostTaken> {
        let default = StoreRoutes::localhost(self.store);
        let (mut names, mut taken) = (Vec::new(), None);
        for host in wanted.iter().map(|host| host.to_ascii_lowercase()) {
            let holder = self.holder(table, &host);
            let holder = holder.filter(|key| !hosts::leaves(self.project, key, &host, self.owner));
            match holder {
                None => names.push(host),
                Some(other) if host == default => taken = Some(self.taken(host, other)),
                Some(other) => return Err(self.taken(host, other)),
            }
        }
        match taken {
            // Without the default name, the `localDomain` is enough.
            Some(taken) if names.is_empty() => Err(taken),
            _ => Ok(names),
        }
    }

    /// The key of another store that has a host name. A store without a release does not count.
    fn holder<'t>(&self, table: &'t RoutingTable, host: &str) -> Option<&'t str> {
        let own = self.owner.key();
        let runs = |key: &String| table.releases.values().any(|it| it.store == *key);
        let mut stores = table.stores.iter();
        let holder = stores.find(|(key, store)| {
            let has_name = store.hosts.iter().any(|it| it.eq_ignore_ascii_case(host));
            **key != own && has_name && (store.active.is_some() || runs(key))
        });
        holder.map(|(key, _)| key.as_str())
    }

    fn taken(&self, host: String, other: &str) -> HostTaken {
        let target = self.proxy.section().split('.').nth(1).unwrap_or_default();
        let place = format!("--target {target} --store {other}");
        HostTaken {
            host,
            other: other.to_owned(),
            store: self.owner.key(),
            help: format!(
                "set another `localDomain` for `{}`; if `{other}` is not used any more, `alokai store stop {place}` stops it and frees its names",
                self.store
            ),
        }
    }
}

/// Gives host names to a store, and takes them from all other stores. Returns the names that they had.
fn give_names(
    table: &mut RoutingTable,
    key: &String,
    names: &[String],
) -> BTreeMap<String, Vec<String>> {
    table.stores.entry(key.clone()).or_default();
    hosts::give(&mut table.stores, (key, names), |it| &mut it.hosts)
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

/// The routes to the apps of a release.
fn routes(spec: &ReleaseSpec, owner: &StoreLabels, servers: Vec<AppServer<'_>>) -> RoutedRelease {
    let servers = servers.into_iter().map(|server| RoutedServer {
        name: server.name,
        address: server.address,
        prefix: prefix(server.app).to_owned(),
        strips_prefix: server.app.strips_prefix,
    });
    // The id of the release makes the name unique, even if another store has the host name after it.
    let host = spec.hosts.first().map(|host| host.to_ascii_lowercase());
    RoutedRelease {
        store: owner.key(),
        host: host.map(|host| format!("{}.{host}", lower(&spec.id))),
        servers: servers.collect(),
    }
}
