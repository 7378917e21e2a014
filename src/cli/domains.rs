//! Local domains of `dev` and `start`: the routes follow plans and events.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

use super::arguments::DomainOptions;
use super::environment::Environment;
use super::events::Live;
use crate::config::Project;
use crate::disk;
use crate::error::Error as AnyError;
use crate::event::{Event, Events, ServerId, ServerState, SyncEvent};
use crate::plan::{ServePlan, ServerPlan, StoreServers};
use crate::proxy::{
    self, AppRoute, AuthorityOrigin, CertificateAuthority, ProxyAddresses, ProxyOptions, Routes,
    RunningProxy, StoreRoutes, caddyfile,
};
use crate::report::Reporter;
use crate::store::{AppKind, StoreId};

/// The path below which browsers reach the middleware of a store, as in production.
const MIDDLEWARE_PATH: &str = "/api/";

/// The servers of a run: their routes, states and addresses. It is cheap to clone.
#[derive(Clone, Default)]
pub struct KnownServers {
    routes: Routes,
    known: Arc<Mutex<Known>>,
}

#[derive(Default)]
struct Known {
    stores: Vec<KnownStore>,
    states: HashMap<ServerId, String>,
    /// The addresses without local domains.
    urls: HashMap<ServerId, String>,
    changes: HashMap<StoreId, String>,
}

struct KnownStore {
    store: StoreId,
    hosts: Vec<String>,
    apps: Vec<(ServerId, AppRoute)>,
    /// The address for browsers. `None` without local domains.
    address: Option<String>,
}

impl KnownServers {
    /// A reporter that also keeps states and last changes for the list of stores.
    pub fn follow(&self, inner: Box<dyn Reporter>) -> Box<dyn Reporter> {
        let servers = self.clone();
        Box::new(FollowingReporter { servers, inner })
    }

    /// The address that a browser opens for a server.
    pub fn url(&self, server: &ServerId) -> Option<String> {
        let store = server.store.as_ref();
        let domain = store.and_then(|store| self.domain_url(store, &server.name));
        domain.or_else(|| self.known().urls.get(server).cloned())
    }

    /// The address of an app at the local domain of a store. `None` without local domains.
    pub fn domain_url(&self, store: &StoreId, app: &str) -> Option<String> {
        let known = self.known();
        let store = known.stores.iter().find(|known| known.store == *store)?;
        let mut apps = store.apps.iter();
        let (_, route) = apps.find(|(_, route)| route.app.as_str() == app)?;
        let path = route.path_prefix.as_deref().unwrap_or_default();
        Some(format!("{}{path}", store.address.as_ref()?))
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn apply(&self, event: &Event) {
        let mut known = self.known();
        match event {
            Event::Server { server, state } => {
                if let ServerState::Ready { url: Some(url), .. } = state {
                    known.urls.insert(server.clone(), url.clone());
                }
                known.states.insert(server.clone(), state_text(state));
            }
            Event::Sync {
                sync: SyncEvent::Files { files },
            } => {
                for file in files {
                    for store in &file.stores {
                        let line = format!("{}/{}", file.app, file.path);
                        known.changes.insert(store.clone(), line);
                    }
                }
            }
            _ => return,
        }
        self.publish(&known);
    }

    fn publish(&self, known: &Known) {
        let routes = known.stores.iter().map(|store| StoreRoutes {
            store: store.store.clone(),
            hosts: store.hosts.clone(),
            apps: store
                .apps
                .iter()
                .map(|(server, route)| AppRoute {
                    state: known
                        .states
                        .get(server)
                        .map_or("waiting", String::as_str)
                        .into(),
                    ..route.clone()
                })
                .collect(),
            last_change: known.changes.get(&store.store).cloned(),
            maintenance: None,
        });
        self.routes.set(routes.collect());
    }
}

fn state_text(state: &ServerState) -> String {
    match state {
        ServerState::Waiting { .. } => "waiting".into(),
        ServerState::Starting => "starting".into(),
        ServerState::Ready { .. } => "ready".into(),
        ServerState::Ended { how } => format!("ended: {how}"),
        ServerState::CannotStart { how, .. } => format!("cannot start: {how}"),
        ServerState::Restarting { .. } => "restarting".into(),
        ServerState::Stopped => "stopped".into(),
    }
}

struct FollowingReporter {
    servers: KnownServers,
    inner: Box<dyn Reporter>,
}

impl Reporter for FollowingReporter {
    fn report(&mut self, event: &Event) {
        self.servers.apply(event);
        self.inner.report(event);
    }

    fn finish(&mut self) {
        self.inner.finish();
    }
}

/// The running proxy of a project's stores.
pub struct LocalDomains {
    servers: KnownServers,
    events: Events,
    runtime: tokio::runtime::Handle,
    addresses: ProxyAddresses,
    /// Who made the authority of HTTPS, if HTTPS is on.
    authority: Option<AuthorityOrigin>,
    caddyfile: PathBuf,
    /// Whether each `localDomain` leads to this machine.
    resolved: BTreeMap<String, bool>,
    running: RunningProxy,
    shutdown: CancellationToken,
}

impl LocalDomains {
    /// Starts the proxy for the servers of a plan, if the user has asked for local domains, and sets
    /// the addresses of the middleware for browsers in the plan.
    pub fn start(
        options: DomainOptions,
        servers: &KnownServers,
        environment: &Environment,
        live: &Live,
        (project, plan): (&Project, &mut ServePlan),
    ) -> Result<Option<Self>, AnyError> {
        if !options.with_local_domains {
            return Ok(None);
        }
        let authority = authority(options, environment, &live.events)?;
        let certificate = authority.as_ref().map(|it| it.certificate.clone());
        let origin = authority.as_ref().map(|it| it.origin);
        servers.known().stores = known_stores(project, plan);
        servers.publish(&servers.known());
        let shutdown = CancellationToken::new();
        let proxy_options = ProxyOptions {
            authority,
            ..ProxyOptions::default()
        };
        let start = proxy::start(servers.routes.clone(), proxy_options, shutdown.clone());
        let running = live.runtime.block_on(start)?;
        let mut domains = Self {
            servers: servers.clone(),
            events: live.events.clone(),
            runtime: live.runtime.clone(),
            addresses: running.addresses,
            authority: origin,
            caddyfile: project.root.join(".alokai/Caddyfile"),
            resolved: BTreeMap::new(),
            running,
            shutdown,
        };
        let index = domains.addresses.url("localhost");
        domains.events.notice(format!("all stores: {index}"));
        if let Some(certificate) = certificate {
            domains.events.notice(format!(
                "HTTPS uses the certificate authority `{}`; browsers have to trust it",
                certificate.display()
            ));
        }
        domains.follow(project, plan);
        Ok(Some(domains))
    }

    /// Follows a changed config: replaces the routes, and sets the addresses in the new plan.
    pub fn follow(&mut self, project: &Project, plan: &mut ServePlan) {
        let mut stores = known_stores(project, plan);
        self.resolve(&stores);
        for store in &mut stores {
            let is_usable = |host: &&String| {
                self.resolved.get(*host).is_none_or(|leads| *leads)
                    && self
                        .authority
                        .is_none_or(|authority| authority.covers(host))
            };
            // The domain of the config is the last one.
            let host = store.hosts.iter().rfind(is_usable);
            store.address = host.map(|host| self.addresses.url(host));
        }
        for servers in &mut plan.stores {
            let mut known = stores.iter();
            let store = known.find(|store| store.store == servers.store);
            if let Some(address) = store.and_then(|store| store.address.as_ref()) {
                let middleware = format!("{address}{}", MIDDLEWARE_PATH.trim_end_matches('/'));
                servers.set_middleware_for_browsers(&middleware);
            }
        }
        let mut known = self.servers.known();
        for store in &stores {
            let mut old = known.stores.iter();
            let is_known = old.any(|it| it.store == store.store && it.address == store.address);
            if let Some(address) = store.address.as_ref().filter(|_| !is_known) {
                self.events.notice(format!("{}: {address}", store.store));
            }
        }
        known.stores = stores;
        self.servers.publish(&known);
        drop(known);
        self.write_caddyfile();
    }

    /// Looks up the configured domains that are new. Names those that do not lead to this machine.
    fn resolve(&mut self, stores: &[KnownStore]) {
        let hosts = stores.iter().flat_map(|store| &store.hosts);
        let new = hosts.filter(|host| !self.resolved.contains_key(*host));
        let new: Vec<String> = new.cloned().collect();
        let leads = self.runtime.block_on(proxy::lead_to_loopback(&new));
        self.resolved.extend(new.iter().cloned().zip(leads));
        let missing = new.iter().filter(|host| !self.resolved[*host]);
        let missing: Vec<&str> = missing.map(String::as_str).collect();
        if !missing.is_empty() {
            self.events.notice(format!(
                "these domains do not lead to this machine; to use them, add this line to `/etc/hosts`: 127.0.0.1 {}",
                missing.join(" ")
            ));
        }
    }

    fn write_caddyfile(&self) {
        let text = caddyfile(&self.servers.routes.stores());
        let folder = self
            .caddyfile
            .parent()
            .map_or(Ok(()), std::fs::create_dir_all);
        let written =
            folder.and_then(|()| disk::write_atomically(&self.caddyfile, text.as_bytes()));
        if let Err(error) = written {
            let path = self.caddyfile.display();
            self.events
                .notice(format!("cannot write `{path}`: {error}"));
        }
    }
}

impl Drop for LocalDomains {
    /// Ends the proxy, and waits for requests in flight.
    fn drop(&mut self) {
        self.shutdown.cancel();
        self.runtime.block_on(self.running.ended());
    }
}

/// The authority for HTTPS: that of mkcert, or our own one, which is made if the user asks for it.
fn authority(
    options: DomainOptions,
    environment: &Environment,
    events: &Events,
) -> Result<Option<CertificateAuthority>, proxy::Error> {
    let Some((mkcert, own)) = environment.certificate_authorities() else {
        return Ok(None);
    };
    match CertificateAuthority::find(Some(&mkcert), &own) {
        Ok(Some(authority)) => Ok(Some(authority)),
        Ok(None) if options.https => {
            let authority = CertificateAuthority::create(&own)?;
            let made = authority.certificate.display();
            events.notice(format!("made the certificate authority `{made}`"));
            Ok(Some(authority))
        }
        Ok(None) => {
            events.notice(
                "HTTPS is off, because there is no local certificate authority; `mkcert -install` or `--https` makes one",
            );
            Ok(None)
        }
        Err(error) if options.https => Err(error.into()),
        Err(error) => {
            events.notice(format!("HTTPS is off: {error}"));
            Ok(None)
        }
    }
}

fn known_stores(project: &Project, plan: &ServePlan) -> Vec<KnownStore> {
    let store = |servers: &StoreServers| KnownStore {
        store: servers.store.clone(),
        hosts: hosts(project, &servers.store),
        apps: servers
            .servers
            .iter()
            .map(|server| app_route(project, server))
            .collect(),
        address: None,
    };
    plan.stores.iter().map(store).collect()
}

/// `us.localhost`, and the domain of the config.
fn hosts(project: &Project, store: &StoreId) -> Vec<String> {
    let mut local = project.local.iter();
    let local = local.find(|(id, _)| id == store.as_str());
    let configured = local.and_then(|(_, local)| local.domain.clone());
    let mut hosts = vec![StoreRoutes::localhost(store)];
    hosts.extend(configured.map(|host| host.to_ascii_lowercase()));
    hosts.dedup();
    hosts
}

/// The path of an app is that of production.
fn app_route(project: &Project, server: &ServerPlan) -> (ServerId, AppRoute) {
    let app = &server.unit.app;
    let (path_prefix, strips_prefix) = match server.kind {
        AppKind::Frontend(_) => (None, false),
        AppKind::Middleware => (Some(MIDDLEWARE_PATH.to_owned()), true),
        AppKind::Playwright | AppKind::Other => {
            let settings = project.settings.console.apps.get(app.as_str());
            let path = settings.and_then(|settings| settings.path.clone());
            let has_base_path = settings.is_some_and(|settings| settings.has_base_path);
            (
                Some(path.unwrap_or_else(|| format!("/{app}/"))),
                !has_base_path,
            )
        }
    };
    let route = AppRoute {
        app: app.clone(),
        port: server.port,
        path_prefix,
        strips_prefix,
        state: String::new(),
    };
    (ServerId::app(&server.unit), route)
}
