//! What the target remembers of stores and releases. It survives the end of the background process and
//! a restart of the machine.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::image::LocalImage;
use super::protocol::ObservedStore;
use crate::ledger::RecordId;
use crate::proxy::{AppRoute, ProxyAddresses, StoreRoutes};
use crate::store::{AppName, StoreId};
use crate::target::hosts::EarlierNames;

/// How many releases of a store are remembered with the values of their `.env` files.
const REMEMBERED: usize = 50;

/// Everything that is remembered.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LocalState {
    /// The port of the proxy. It stays the same as long as it is free.
    pub port: Option<u16>,
    /// The stores.
    #[serde(default)]
    pub stores: BTreeMap<StoreId, StoreState>,
}

/// One store.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StoreState {
    /// How often the traffic was switched.
    pub switches: u64,
    /// The release that gets the traffic.
    pub active: Option<RecordId>,
    /// Since when.
    pub since: Option<Timestamp>,
    /// Its public host names.
    #[serde(default)]
    pub hosts: Vec<String>,
    /// The host names before the last switch.
    #[serde(default)]
    pub earlier: Option<EarlierNames<StoreId, RecordId>>,
    /// The page that is shown instead of the store.
    #[serde(default)]
    pub maintenance: Option<String>,
    /// The releases that were staged, by id, which is by time.
    #[serde(default)]
    pub releases: BTreeMap<RecordId, ReleaseState>,
}

/// A release that was staged.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReleaseState {
    /// Whether it has to run.
    pub runs: bool,
    /// The unpacked apps, each in a folder of its name. None if they were removed.
    pub folder: Option<PathBuf>,
    /// The apps.
    pub apps: Vec<AppRecord>,
    /// The version of its settings.
    pub settings: Option<String>,
    /// How long an app has between SIGTERM and SIGKILL.
    pub stop_timeout: Duration,
}

/// An app of a release.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AppRecord {
    /// The app.
    pub app: AppName,
    /// Its image.
    pub image: LocalImage,
    /// Its port on this machine.
    pub port: u16,
    /// The public path below which it answers.
    pub path_prefix: Option<String>,
    /// Whether it sees the path without the prefix.
    pub strips_prefix: bool,
}

/// The variables of a release, which are in a file of its own.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReleaseEnvironment {
    /// Variables of this machine, such as `PATH`, as the command that staged the release has them.
    pub system: BTreeMap<String, String>,
    /// The variables of its apps.
    pub apps: ReleaseVariables,
}

/// The variables of the apps of a release.
pub type ReleaseVariables = BTreeMap<AppName, BTreeMap<String, StoredVariable>>;

/// A variable of an app.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum StoredVariable {
    /// A value of a `.env` file.
    Secret(String),
    /// A value with ports and addresses of apps.
    Parts(Vec<ValuePart>),
    /// The address at which browsers reach this app.
    BrowserMiddleware(AppName),
}

/// A part of a value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ValuePart {
    /// Text as it is.
    Text(String),
    /// The port of an app of the release.
    Port(AppName),
    /// The address of an app of the release.
    Address(AppName),
}

impl LocalState {
    /// Whether a release has to run.
    pub fn is_needed(&self) -> bool {
        let mut releases = self.stores.values().flat_map(|it| it.releases.values());
        releases.any(|release| release.runs)
    }

    /// The ports of all releases that have to run.
    pub fn ports(&self) -> impl Iterator<Item = u16> {
        let releases = self.stores.values().flat_map(|it| it.releases.values());
        let apps = releases.filter(|it| it.runs).flat_map(|it| &it.apps);
        apps.map(|app| app.port)
    }

    /// The routing table: each store, and each staged release under a name of its own.
    pub fn routes(&self) -> Vec<StoreRoutes> {
        let mut routes = Vec::new();
        for (id, store) in &self.stores {
            let running = store.releases.iter().filter(|(_, release)| release.runs);
            for (release_id, release) in running {
                let apps = release.apps.iter().map(|app| AppRoute {
                    app: app.app.clone(),
                    port: app.port,
                    path_prefix: app.path_prefix.clone(),
                    strips_prefix: app.strips_prefix,
                    state: "started".into(),
                });
                let of_release = StoreRoutes {
                    store: id.clone(),
                    hosts: vec![staged_host(id, release_id)],
                    apps: apps.collect(),
                    last_change: None,
                    maintenance: None,
                };
                if store.active.as_ref() == Some(release_id) {
                    routes.push(StoreRoutes {
                        hosts: store.hosts.clone(),
                        maintenance: store.maintenance.as_deref().map(Into::into),
                        ..of_release
                    });
                } else {
                    routes.push(of_release);
                }
            }
        }
        routes
    }
}

impl LocalState {
    /// What runs and what is public for one store, with the addresses of this proxy.
    pub fn observed(&self, id: &StoreId, proxy: ProxyAddresses) -> ObservedStore {
        let Some(store) = self.stores.get(id) else {
            return ObservedStore::default();
        };
        let is_active = |release: &RecordId| store.active.as_ref() == Some(release);
        let url = |host: &str| proxy.url(host);
        let staged = store.releases.iter();
        let staged = staged.filter(|(release, it)| it.runs && !is_active(release));
        let kept = store.releases.iter();
        let kept = kept.filter(|(_, it)| !it.runs && it.folder.is_some());
        ObservedStore {
            active: store.active.clone(),
            since: store.since,
            addresses: store.addresses(url),
            staged: staged
                .map(|(release, _)| (release.clone(), url(&staged_host(id, release))))
                .collect(),
            kept: kept.map(|(release, _)| release.clone()).collect(),
            maintenance: store.maintenance.is_some(),
            token: store.token(),
        }
    }
}

impl StoreState {
    /// The state of the traffic for a later comparison.
    pub fn token(&self) -> String {
        let active = self.active.as_ref().map_or("", RecordId::as_str);
        format!("{}:{active}", self.switches)
    }

    /// Whether a release has to run.
    pub fn runs(&self) -> bool {
        self.active.is_some() || self.releases.values().any(|it| it.runs)
    }

    /// The public addresses of the live release. Where all of its apps have a path, an address has the
    /// path of the first one, since nothing answers for `/`.
    pub fn addresses(&self, url: impl Fn(&str) -> String) -> Vec<String> {
        let active = self.active.as_ref().and_then(|id| self.releases.get(id));
        let apps = active.map_or(&[][..], |release| &release.apps);
        let paths = apps.iter().map(|app| app.path_prefix.as_deref());
        let paths: Option<Vec<&str>> = paths.collect();
        let path = paths.and_then(|paths| {
            let of_pages = paths.iter().find(|path| **path != "/api/");
            of_pages.or(paths.first()).copied()
        });
        let path = path.unwrap_or_default();
        let hosts = self.hosts.iter();
        hosts.map(|host| format!("{}{path}", url(host))).collect()
    }

    /// Removes the oldest releases that are neither running nor unpacked, and returns their ids.
    pub fn forget_oldest(&mut self) -> Vec<RecordId> {
        let over = self.releases.len().saturating_sub(REMEMBERED);
        let unused = self.releases.iter();
        let unused = unused.filter(|(_, it)| !it.runs && it.folder.is_none());
        let oldest: Vec<_> = unused.map(|(id, _)| id.clone()).take(over).collect();
        for id in &oldest {
            self.releases.remove(id);
        }
        oldest
    }
}

impl ReleaseState {
    /// The port of an app.
    pub fn port_of(&self, app: &AppName) -> Option<u16> {
        let mut apps = self.apps.iter();
        apps.find(|it| it.app == *app).map(|it| it.port)
    }
}

/// The host name under which a staged release can be tried.
pub fn staged_host(store: &StoreId, release: &RecordId) -> String {
    let release = release.as_str().to_ascii_lowercase();
    format!("{release}.{}", StoreRoutes::localhost(store))
}
