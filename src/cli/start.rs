//! `store start`.

use std::sync::Arc;

use super::answer;
use super::arguments::{Global, StartOptions};
use super::changed::selection;
use super::domains::{KnownServers, LocalDomains};
use super::events::{Live, live_with};
use super::keys::{Keys, server_reporter};
use super::serving::{ServedProject, columns, root, services};
use crate::error::Error as AnyError;
use crate::event::Stage;
use crate::pipeline::ProjectLock;
use crate::plan::{Filter, Plan, ServePlan};
use crate::report::Detail;
use crate::serve::{RestartPolicy, Supervisor, SupervisorOptions};

pub fn start(global: &Global, options: &StartOptions) -> Result<(), AnyError> {
    let known = KnownServers::default();
    let json = options.output.json;
    let (reporter, commands) = server_reporter("alokai store start", json, Detail::Short, &known);
    live_with(known.follow(reporter), |live| {
        let keys = Keys::follow(commands, &live, &known);
        keys.result(run(global, options, &live, (&known, &keys)))
    })
}

fn run(
    global: &Global,
    options: &StartOptions,
    live: &Live,
    (known, keys): (&KnownServers, &Keys),
) -> Result<(), AnyError> {
    let root = root(global.cwd.as_deref())?;
    // No build may replace a `.deploy` while it is copied.
    let lock = ProjectLock::take(&root, &live.events, &live.interrupt)?;
    let served = ServedProject::load(&root)?;
    let selection = selection(&served.project, &options.select)?;
    let filter = Filter::new(options.select.filter.clone());
    let until = if options.image {
        Stage::Image
    } else {
        Stage::Prune
    };
    let request = served.request(selection, filter, until);
    let plan = Plan::make(&served.project, &request)?;
    let (mut serve, access) = if options.image {
        (served.images(&plan)?, served.registry_access(&plan))
    } else {
        let serve = served.artifacts(&plan, &live.events)?;
        (serve, served.environment.secrets())
    };
    let servers = (&served.project, &mut serve);
    let _domains = LocalDomains::start(options.domains, known, &served.environment, live, servers)?;
    let services = Arc::new(services(&root, live, access));
    let supervised = SupervisorOptions {
        policy: RestartPolicy::Never,
        shell: served.shell,
    };
    let mut supervisor = Supervisor::start(&serve, supervised, &services);
    keys.control(supervisor.handle());
    let shown = if services.wait(supervisor.ready()) {
        drop(lock);
        if options.output.json || keys.has_screen() {
            Ok(())
        } else {
            answer(&addresses(&serve, known))
        }
    } else {
        Ok(())
    };
    services.wait(supervisor.ended())?;
    shown
}

/// The addresses of all servers. With local domains, each server has a second one.
fn addresses(plan: &ServePlan, known: &KnownServers) -> String {
    let mut rows = vec![["store", "app", "address"].map(str::to_owned).to_vec()];
    for store in &plan.stores {
        for server in &store.servers {
            let app = server.unit.app.to_string();
            let mut row = vec![store.store.to_string(), app, server.address()];
            row.extend(known.domain_url(&store.store, server.unit.app.as_str()));
            rows.push(row);
        }
    }
    format!("\n{}\n", columns(&rows))
}
