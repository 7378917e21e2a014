//! `store dev`.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::arguments::{DevOptions, Global};
use super::domains::{DomainReporter, DomainRoutes, LocalDomains};
use super::environment::{self, Screen};
use super::project;
use super::run::{Live, live_with, request};
use super::serving::services;
use crate::config::Project;
use crate::error::Error as AnyError;
use crate::event::{Events, ServerId, Stage};
use crate::pipeline::{Access, Interrupt, ScriptEnvironment, SessionLock};
use crate::plan::{self, Plan, ServeMode, ServePlan};
use crate::report::{Detail, Lines, Ndjson, Reporter, ScreenCommand, ServerScreen};
use crate::serve::{RestartPolicy, Supervisor, SupervisorHandle, SupervisorOptions};
use crate::store::StoreId;
use crate::watch::{OutSync, SyncOptions};

pub fn dev(global: &Global, options: &DevOptions) -> Result<(), AnyError> {
    let (project, environment) = project(global)?;
    let request = request(&project, &options.select, Stage::Compose)?;
    let stores = request.selection.stores(&project)?;
    let stores: Vec<StoreId> = stores.into_iter().map(|store| store.id.clone()).collect();
    let session = SessionLock::take(&project.root, "store dev", &stores)?;
    let (commands, received) = unbounded_channel();
    let routes = DomainRoutes::default();
    let mut reporter = reporter(options, commands);
    if options.with_local_domains {
        reporter = Box::new(DomainReporter {
            inner: reporter,
            routes: routes.clone(),
        });
    }
    let run = DevRun {
        sync: SyncOptions {
            root: project.root,
            request,
            skips_first: options.skip_compose,
        },
        // Development servers see the user's environment, as they do when the user starts them.
        shell: environment.scripts(true),
        access: environment.secrets(),
        session,
        routes: options.with_local_domains.then_some(routes),
        commands: received,
    };
    live_with(reporter, |live| run.run(&live))
}

/// On a terminal a screen with keys, else lines or NDJSON.
fn reporter(options: &DevOptions, commands: UnboundedSender<ScreenCommand>) -> Box<dyn Reporter> {
    let detail = if options.verbose {
        Detail::Full
    } else {
        Detail::Short
    };
    if options.output.json {
        return Box::new(Ndjson::new(std::io::stdout()));
    }
    if environment::screen() == Screen::Terminal
        && let Ok(screen) = ServerScreen::start("alokai store dev", commands)
    {
        return Box::new(screen);
    }
    Box::new(Lines::new(std::io::stderr(), detail))
}

/// A run of `store dev`.
struct DevRun {
    sync: SyncOptions,
    shell: ScriptEnvironment,
    access: Access,
    session: SessionLock,
    routes: Option<DomainRoutes>,
    commands: UnboundedReceiver<ScreenCommand>,
}

impl DevRun {
    /// Starts the servers, and keeps `.out` in step until the user interrupts them.
    fn run(self, live: &Live) -> Result<(), AnyError> {
        let root = self.sync.root.clone();
        let services = Arc::new(services(&root, live, self.access));
        let sync = OutSync::start(self.sync, &live.events, &live.interrupt)?;
        let (project, plan) = sync.plan();
        let serve_plan = serve_plan(project, plan)?;
        for notice in &serve_plan.notices {
            live.events.notice(notice);
        }
        let domains = match self.routes {
            None => None,
            Some(routes) => {
                routes.set(project, &serve_plan);
                Some(Arc::new(LocalDomains::start(routes, &root, live)?))
            }
        };
        let options = SupervisorOptions {
            policy: RestartPolicy::WithBackoff,
            shell: self.shell,
        };
        let supervisor = Supervisor::start(&serve_plan, options, &services);
        let servers = supervisor.handle();
        let addresses = Arc::new(Mutex::new(addresses(&serve_plan)));
        let keys = ScreenKeys {
            servers: servers.clone(),
            events: live.events.clone(),
            interrupt: live.interrupt.clone(),
            addresses: Arc::clone(&addresses),
        };
        let keys = live.runtime.spawn(keys.follow(self.commands));
        let mut follower = Follower {
            servers,
            events: live.events.clone(),
            session: self.session,
            domains: domains.clone(),
            addresses,
            shown: serve_plan.notices,
        };
        let stop = sync.stop();
        let following = std::thread::spawn(move || {
            sync.run(|project, plan| follower.follow(project, plan));
        });
        let ended = live.runtime.block_on(supervisor.ended());
        keys.abort();
        stop.stop();
        // A panic of the thread is one of this program.
        if let Err(panic) = following.join() {
            std::panic::resume_unwind(panic);
        }
        if let Some(domains) = domains {
            domains.stop(live);
        }
        Ok(ended?)
    }
}

fn serve_plan(project: &Project, plan: &Plan) -> Result<ServePlan, plan::Error> {
    let compositions: Vec<_> = plan.compositions().cloned().collect();
    ServePlan::new(project, &compositions, ServeMode::Development)
}

type Addresses = Vec<(ServerId, String)>;

/// The address of each server.
fn addresses(plan: &ServePlan) -> Addresses {
    let servers = plan.stores.iter().flat_map(|store| &store.servers);
    let address = |server: &plan::ServerPlan| (ServerId::app(&server.unit), server.address());
    servers.map(address).collect()
}

/// Carries out what the user asks for on the screen.
struct ScreenKeys {
    servers: SupervisorHandle,
    events: Events,
    interrupt: Interrupt,
    addresses: Arc<Mutex<Addresses>>,
}

impl ScreenKeys {
    async fn follow(self, mut commands: UnboundedReceiver<ScreenCommand>) {
        while let Some(command) = commands.recv().await {
            match command {
                ScreenCommand::Restart(server) => self.servers.restart(server),
                ScreenCommand::Quit => self.interrupt.raise(),
                ScreenCommand::Open(server) => self.open(&server),
            }
        }
    }

    fn open(&self, server: &ServerId) {
        let address = {
            let known = self.addresses.lock();
            let known = known.unwrap_or_else(PoisonError::into_inner);
            let address = known.iter().find(|(id, _)| id == server);
            address.map(|(_, address)| address.clone())
        };
        let Some(address) = address else { return };
        if let Err(error) = environment::open_address(&address) {
            self.events
                .notice(format!("`{address}` cannot be opened: {error}"));
        }
    }
}

/// Lets servers follow the config: stores, ports, variables, scripts.
struct Follower {
    servers: SupervisorHandle,
    events: Events,
    session: SessionLock,
    domains: Option<Arc<LocalDomains>>,
    addresses: Arc<Mutex<Addresses>>,
    /// The messages that the user has seen.
    shown: Vec<String>,
}

impl Follower {
    fn follow(&mut self, project: &Project, plan: &Plan) {
        let stores: Vec<StoreId> = plan.stores.iter().map(|store| store.id.clone()).collect();
        let mut messages = Vec::new();
        if let Err(error) = self.session.serves(&stores) {
            messages.push(error.to_string());
        }
        match serve_plan(project, plan) {
            Ok(plan) => {
                messages.extend(plan.notices.iter().cloned());
                let domains = self.domains.as_deref();
                if let Some(Err(error)) = domains.map(|domains| domains.set(project, &plan)) {
                    messages.push(error.to_string());
                }
                let known = self.addresses.lock();
                *known.unwrap_or_else(PoisonError::into_inner) = addresses(&plan);
                self.servers.replace(plan);
            }
            Err(error) => messages.push(format!("the servers stay as they are: {error}")),
        }
        for message in &messages {
            if !self.shown.contains(message) {
                self.events.notice(message);
            }
        }
        self.shown = messages;
    }
}
