//! `store dev`.

use std::path::Path;
use std::sync::Arc;

use super::arguments::{DevOptions, Global};
use super::domains::{KnownServers, LocalDomains};
use super::environment::Environment;
use super::events::{Live, live_with};
use super::keys::{Keys, server_reporter};
use super::project;
use super::run::request;
use super::serving::{ServedProject, services};
use crate::config::Project;
use crate::error::Error as AnyError;
use crate::event::{Events, Stage};
use crate::pipeline::{self, PipelineOptions, ProjectLock, Services, SessionLock};
use crate::plan::{self, Filter, Plan, Selection, ServeMode, ServePlan, Work};
use crate::report::Detail;
use crate::serve::{RestartPolicy, Supervisor, SupervisorHandle, SupervisorOptions};
use crate::store::StoreId;
use crate::watch::{OutSync, SyncOptions};

pub fn dev(global: &Global, options: &DevOptions) -> Result<(), AnyError> {
    let (project, environment) = project(global)?;
    let request = request(&project, &options.select, Stage::Compose)?;
    let stores = request.selection.stores(&project)?;
    let stores: Vec<StoreId> = stores.into_iter().map(|store| store.id.clone()).collect();
    let session = SessionLock::take(&project.root, "store dev", &stores)?;
    let sync = SyncOptions {
        root: project.root,
        request,
        skips_first: options.skip_compose,
    };
    let detail = if options.verbose {
        Detail::Full
    } else {
        Detail::Short
    };
    let known = KnownServers::default();
    let (reporter, commands) =
        server_reporter("alokai store dev", options.output.json, detail, &known);
    live_with(known.follow(reporter), |live| {
        let keys = Keys::follow(commands, &live, &known);
        keys.result(serve(
            &live,
            (sync, session),
            &environment,
            options,
            (&known, &keys),
        ))
    })
}

/// Starts the servers, and keeps `.out` in step until the user interrupts them.
fn serve(
    live: &Live,
    (sync, session): (SyncOptions, SessionLock),
    environment: &Environment,
    options: &DevOptions,
    (known, keys): (&KnownServers, &Keys),
) -> Result<(), AnyError> {
    let services = Arc::new(services(&sync.root, live, environment.secrets()));
    let (root, selection) = (sync.root.clone(), sync.request.selection.clone());
    let filter = sync.request.filter.clone();
    let sync = OutSync::start(sync, &live.events, &live.interrupt)?;
    build_packages(&root, selection, filter, &services)?;
    let (project, plan) = sync.plan();
    let mut serve_plan = serve_plan(project, plan)?;
    let servers = (project, &mut serve_plan);
    let domains = LocalDomains::start(options.domains, known, environment, live, servers)?;
    for notice in &serve_plan.notices {
        live.events.notice(notice);
    }
    let supervised = SupervisorOptions {
        policy: RestartPolicy::WithBackoff,
        // Development servers see the user's environment, as they do when the user starts them.
        shell: environment.scripts(true),
    };
    let supervisor = Supervisor::start(&serve_plan, supervised, &services);
    keys.control(supervisor.handle());
    let mut follower = Follower {
        servers: supervisor.handle(),
        domains,
        events: live.events.clone(),
        session,
        shown: serve_plan.notices,
    };
    let stop = sync.stop();
    let following = std::thread::spawn(move || {
        sync.run(|project, plan| follower.follow(project, plan));
    });
    let ended = live.runtime.block_on(supervisor.ended());
    stop.stop();
    // A panic of the thread is one of this program.
    if let Err(panic) = following.join() {
        std::panic::resume_unwind(panic);
    }
    Ok(ended?)
}

/// Builds the workspace packages that the apps need: development servers resolve imports of them when
/// they start, and most do not notice a package that is built later.
fn build_packages(
    root: &Path,
    selection: Selection,
    filter: Filter,
    services: &Arc<Services>,
) -> Result<(), AnyError> {
    let served = ServedProject::load(root)?;
    let mut request = served.request(selection, filter, Stage::Build);
    request.work = Work::Packages;
    let plan = Arc::new(Plan::make(&served.project, &request)?);
    let options = Arc::new(PipelineOptions {
        scripts: served.shell,
        ..PipelineOptions::default()
    });
    let lock = ProjectLock::take(root, &services.events, &services.interrupt)?;
    let (_, result) = pipeline::run(
        &plan,
        services,
        &options,
        pipeline::without_targets(),
        &lock,
    );
    Ok(result?)
}

fn serve_plan(project: &Project, plan: &Plan) -> Result<ServePlan, plan::Error> {
    let compositions: Vec<_> = plan.compositions().cloned().collect();
    ServePlan::new(project, &compositions, ServeMode::Development)
}

/// Lets servers follow the config: stores, ports, variables, scripts.
struct Follower {
    servers: SupervisorHandle,
    domains: Option<LocalDomains>,
    events: Events,
    session: SessionLock,
    /// The messages that the user has seen.
    shown: Vec<String>,
}

impl Follower {
    fn follow(&mut self, project: &Project, plan: &Plan) {
        let stores: Vec<StoreId> = plan.stores.iter().map(|store| store.id.clone()).collect();
        if let Err(error) = self.session.serves(&stores) {
            self.events.notice(error.to_string());
        }
        let mut messages = Vec::new();
        match serve_plan(project, plan) {
            Ok(mut plan) => {
                messages.clone_from(&plan.notices);
                if let Some(domains) = &mut self.domains {
                    domains.follow(project, &mut plan);
                }
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
