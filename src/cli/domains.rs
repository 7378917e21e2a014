//! `--with-local-domains`: the reverse proxy, whose routes follow the plan of the servers, their states and
//! changed files.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

use super::Error;
use super::environment;
use super::run::Live;
use crate::config::Project;
use crate::disk::write_atomically;
use crate::error::Error as AnyError;
use crate::event::{Event, ServerId, ServerState, SyncEvent};
use crate::plan::{ServePlan, ServerPlan, StoreServers};
use crate::proxy::{
    self, AppRoute, CertificateAuthority, ProxyOptions, Routes, RunningProxy, StoreRoutes,
};
use crate::report::Reporter;
use crate::store::{AppKind, StoreId};

/// The path of the middleware, as in the cloud.
const MIDDLEWARE_PATH: &str = "/api/";

/// The folder of our own certificate authority, relative to the project.
const AUTHORITY: &str = ".alokai/authority";

/// The file for users of Caddy, relative to the project.
const CADDYFILE: &str = ".alokai/Caddyfile";

/// The routes of the proxy, and what they are made of. Cheap to clone.
#[derive(Clone, Default)]
pub struct DomainRoutes {
    routes: Routes,
    content: Arc<Mutex<RouteContent>>,
}

#[derive(Default)]
struct RouteContent {
    /// The stores of the plan, with the server of each app.
    stores: Vec<(StoreRoutes, Vec<ServerId>)>,
    states: BTreeMap<ServerId, &'static str>,
    changes: BTreeMap<StoreId, String>,
}

impl DomainRoutes {
    /// Takes the servers of a plan.
    pub fn set(&self, project: &Project, plan: &ServePlan) {
        let stores = plan.stores.iter().map(|store| store_routes(project, store));
        let mut content = self.content();
        content.stores = stores.collect();
        self.routes.set(content.routes());
    }

    /// Takes the state of a server, or a changed file.
    fn apply(&self, event: &Event) {
        let mut content = self.content();
        match event {
            Event::Server { server, state } => {
                let state = match state {
                    ServerState::Waiting { .. } => "waiting",
                    ServerState::Starting => "starting",
                    ServerState::Ready { .. } => "ready",
                    ServerState::Ended { .. } => "ended",
                    ServerState::Restarting { .. } => "restarting",
                    ServerState::Stopped => "stopped",
                };
                content.states.insert(server.clone(), state);
            }
            Event::Sync {
                sync: SyncEvent::Files { files },
            } => {
                for file in files {
                    for store in &file.stores {
                        let line = format!("{}/{}", file.app, file.path);
                        content.changes.insert(store.clone(), line);
                    }
                }
            }
            _ => return,
        }
        self.routes.set(content.routes());
    }

    fn content(&self) -> MutexGuard<'_, RouteContent> {
        self.content.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RouteContent {
    fn routes(&self) -> Vec<StoreRoutes> {
        let route = |(store, servers): &(StoreRoutes, Vec<ServerId>)| {
            let mut store = store.clone();
            for (app, server) in store.apps.iter_mut().zip(servers) {
                let state = self.states.get(server).copied();
                state.unwrap_or("waiting").clone_into(&mut app.state);
            }
            store.last_change = self.changes.get(&store.store).cloned();
            store
        };
        self.stores.iter().map(route).collect()
    }
}

/// The routes of one store: the middleware and other apps below their paths, the frontend for all other
/// requests.
fn store_routes(project: &Project, store: &StoreServers) -> (StoreRoutes, Vec<ServerId>) {
    let mut hosts = vec![StoreRoutes::localhost(&store.store)];
    let local = project
        .local
        .iter()
        .find(|(id, _)| *id == store.store.as_str());
    hosts.extend(local.and_then(|(_, local)| local.domain.clone()));
    let has_frontend = store
        .servers
        .iter()
        .any(|server| server.kind.framework().is_some());
    let apps = store
        .servers
        .iter()
        .map(|server| app_route(project, server, has_frontend));
    let routes = StoreRoutes {
        store: store.store.clone(),
        hosts,
        apps: apps.collect(),
        last_change: None,
    };
    let servers = store.servers.iter().map(|it| ServerId::app(&it.unit));
    (routes, servers.collect())
}

fn app_route(project: &Project, server: &ServerPlan, has_frontend: bool) -> AppRoute {
    let app = &server.unit.app;
    let settings = project.settings.console.apps.get(app.as_str());
    let (path, strips) = match server.kind {
        AppKind::Frontend(_) => (None, false),
        AppKind::Middleware if !has_frontend => (None, false),
        AppKind::Middleware => (Some(MIDDLEWARE_PATH.to_owned()), true),
        _ => {
            let path = settings.and_then(|settings| settings.path.clone());
            let strips = settings.is_none_or(|settings| !settings.has_base_path);
            (Some(path.unwrap_or_else(|| format!("/{app}/"))), strips)
        }
    };
    AppRoute {
        app: app.clone(),
        port: server.port,
        path_prefix: path,
        strips_prefix: strips,
        state: String::new(),
    }
}

/// A reporter that also passes events to the routes.
pub struct DomainReporter {
    pub inner: Box<dyn Reporter>,
    pub routes: DomainRoutes,
}

impl Reporter for DomainReporter {
    fn report(&mut self, event: &Event) {
        self.routes.apply(event);
        self.inner.report(event);
    }

    fn finish(&mut self) {
        self.inner.finish();
    }
}

/// The running proxy.
pub struct LocalDomains {
    routes: DomainRoutes,
    proxy: RunningProxy,
    shutdown: CancellationToken,
    caddyfile: PathBuf,
}

impl LocalDomains {
    /// Starts the proxy for these routes, writes the file for Caddy, and tells the addresses.
    pub fn start(routes: DomainRoutes, project: &Path, live: &Live) -> Result<Self, AnyError> {
        let mkcert = environment::mkcert_folder();
        let authority = CertificateAuthority::find(mkcert.as_deref(), &project.join(AUTHORITY));
        let authority = authority.map_err(proxy::Error::from)?;
        let options = ProxyOptions {
            authority,
            ..ProxyOptions::default()
        };
        let shutdown = CancellationToken::new();
        let started = proxy::start(routes.routes.clone(), options, shutdown.clone());
        let proxy = live.runtime.block_on(started)?;
        let domains = Self {
            routes,
            proxy,
            shutdown,
            caddyfile: project.join(CADDYFILE),
        };
        domains.write_caddyfile()?;
        for store in domains.routes.routes.stores().iter() {
            let urls = store
                .hosts
                .iter()
                .map(|host| domains.proxy.addresses.url(host));
            let urls: Vec<_> = urls.collect();
            live.events
                .notice(format!("{}: {}", store.store, urls.join(", ")));
        }
        Ok(domains)
    }

    /// Takes the servers of a new plan.
    pub fn set(&self, project: &Project, plan: &ServePlan) -> Result<(), Error> {
        self.routes.set(project, plan);
        self.write_caddyfile()
    }

    fn write_caddyfile(&self) -> Result<(), Error> {
        let text = proxy::caddyfile(&self.routes.routes.stores());
        write_atomically(&self.caddyfile, text.as_bytes()).map_err(|source| Error::Write {
            path: self.caddyfile.clone(),
            source,
        })
    }

    /// Stops the proxy and waits for requests in flight.
    pub fn stop(&self, live: &Live) {
        self.shutdown.cancel();
        live.runtime.block_on(self.proxy.ended());
    }
}
