//! The services of commands: events, access to registry and engine, the cache.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use tokio::runtime::Handle;

use super::arguments::{OutputLogs, WorkOptions};
use super::events::Live;
use super::run::PreparedCommand;
use super::{Error, environment};
use crate::cache::{Cache, RemoteCache};
use crate::event::Events;
use crate::pipeline::{Access, CACHE, Interrupt, PipelineOptions, RegistryClients, Services};
use crate::plan::{DestinationPlan, Plan};
use crate::report::Transcripts;

/// What exists before the plan is final.
pub struct RunServices<'a> {
    pub events: Events,
    pub interrupt: Interrupt,
    pub runtime: Handle,
    pub work: Option<&'a WorkOptions>,
    /// The output of each store.
    pub transcripts: Transcripts,
}

/// The services and options of a run.
pub fn services(
    plan: &Plan,
    prepared: PreparedCommand,
    around: RunServices,
) -> Result<(Services, PipelineOptions), Error> {
    let RunServices {
        events,
        interrupt,
        runtime,
        work,
        ..
    } = around;
    let surroundings = prepared.surroundings;
    let remote = match surroundings.remote.map(RemoteCache::new).transpose() {
        Ok(remote) => remote,
        Err(reason) => {
            events.notice(format!("the remote cache is not used: {reason}"));
            None
        }
    };
    for notice in surroundings.notices {
        events.notice(notice);
    }
    if surroundings.scripts.loose {
        events.notice(
            "`--env-mode loose`: scripts can read variables that are not in the cache key, so cached results can be wrong",
        );
    }
    let services = Services {
        started: environment::started(),
        events,
        interrupt,
        runtime,
        access: Access {
            registry: match &plan.destination {
                Some(DestinationPlan::Registry { address, .. }) => Some(address.clone()),
                _ => None,
            },
            ..surroundings.access
        },
        cache: Cache::new(plan.project.join(CACHE)),
        remote,
        warned: AtomicBool::new(false),
        clients: RegistryClients::default(),
    };
    let options = PipelineOptions {
        keep_going: work.is_some_and(|work| work.keep_going),
        force: work.is_some_and(|work| work.force),
        scripts: surroundings.scripts,
        sandbox: if surroundings.sandbox || work.is_some_and(|work| work.sandbox) {
            Some(environment::own_program().map_err(|source| Error::Start { source })?)
        } else {
            None
        },
        replays: work.is_none_or(|work| work.output_logs == OutputLogs::Full),
        builds: BTreeMap::new(),
    };
    Ok((services, options))
}

/// The services of a command that runs no pipeline. Their events are not read.
pub fn services_without_run(root: &Path, access: Access, runtime: Handle) -> Services {
    let (events, _) = Events::channel();
    Services {
        started: environment::started(),
        events,
        interrupt: Interrupt::default(),
        runtime,
        access,
        cache: Cache::new(root.join(CACHE)),
        remote: None,
        clients: RegistryClients::default(),
        warned: AtomicBool::new(false),
    }
}

/// The services of a command that starts servers and needs neither credentials nor a registry.
pub fn local_services(live: &Live, project: &Path) -> Services {
    Services {
        events: live.events.clone(),
        interrupt: live.interrupt.clone(),
        ..services_without_run(project, Access::default(), live.runtime.clone())
    }
}
