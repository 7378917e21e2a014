//! `store start`.

use std::sync::Arc;

use super::answer;
use super::arguments::{Global, StartOptions};
use super::changed::selection;
use super::run::{Live, live_with};
use super::serving::{ServedProject, columns, reporter, root, services};
use crate::error::Error as AnyError;
use crate::event::Stage;
use crate::pipeline::ProjectLock;
use crate::plan::{Filter, Plan, ServePlan};
use crate::serve::{RestartPolicy, Supervisor, SupervisorOptions};

pub fn start(global: &Global, options: &StartOptions) -> Result<(), AnyError> {
    let reporter = reporter(options.output.json);
    live_with(reporter, |live| run(global, options, &live))
}

fn run(global: &Global, options: &StartOptions, live: &Live) -> Result<(), AnyError> {
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
    let (serve, access) = if options.image {
        (served.images(&plan)?, served.registry_access(&plan))
    } else {
        let serve = served.artifacts(&plan, &live.events)?;
        (serve, served.environment.secrets())
    };
    let services = Arc::new(services(&root, live, access));
    let supervised = SupervisorOptions {
        policy: RestartPolicy::Never,
        shell: served.shell,
    };
    let mut supervisor = Supervisor::start(&serve, supervised, &services);
    let shown = if services.wait(supervisor.ready()) {
        drop(lock);
        if options.output.json {
            Ok(())
        } else {
            answer(&addresses(&serve))
        }
    } else {
        Ok(())
    };
    services.wait(supervisor.ended())?;
    shown
}

/// The addresses of all servers.
fn addresses(plan: &ServePlan) -> String {
    let mut rows = vec![["store", "app", "address"].map(str::to_owned).to_vec()];
    for store in &plan.stores {
        for server in &store.servers {
            let app = server.unit.app.to_string();
            rows.push(vec![store.store.to_string(), app, server.address()]);
        }
    }
    format!("\n{}\n", columns(&rows))
}
