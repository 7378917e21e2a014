//! `prune.verify: "start"`: every new `.deploy` is started once, with the other apps of its store.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::{StreamExt, stream};

use super::Error;
use super::environment::ServerEnvironment;
use super::ports::free_ports;
use super::server::{RunningServer, ServerStart};
use crate::config::VerifyMode;
use crate::event::{EventSubject, Stage};
use crate::pipeline::failure::{StageError, StageResult};
use crate::pipeline::prune::Artifact;
use crate::pipeline::services::{PipelineOptions, Services};
use crate::pipeline::stage;
use crate::plan::{Plan, ServerPlan, StoreServers};
use crate::store::{StoreId, UnitId};

/// How many stores are started at once.
const STORES: usize = 2;

/// The name of this step in events.
const STEP: &str = "start";

type VerifiedUnit = (EventSubject, Result<Artifact, StageError>);

/// Starts the apps that the prune stage has pruned, if the config requires it.
pub fn run(
    plan: &Plan,
    pruned: StageResult<Artifact>,
    services: &Arc<Services>,
    options: &PipelineOptions,
) -> StageResult<Artifact> {
    let is_over = !pruned.failed.is_empty() && !options.keep_going;
    let is_wanted = plan.prune.verify == VerifyMode::Start && !pruned.done.is_empty();
    if !is_wanted || is_over || services.interrupt.stopped() {
        return pruned;
    }
    stage(
        services,
        Stage::Prune,
        Some(STEP),
        pruned.done.len(),
        || services.wait(verify(plan, pruned, services, options)),
    )
}

/// Starts each pruned app, waits until it answers on its port, and ends it. The apps of a store run at
/// the same time, on free ports, so that they can call each other.
async fn verify(
    plan: &Plan,
    mut pruned: StageResult<Artifact>,
    services: &Arc<Services>,
    options: &PipelineOptions,
) -> StageResult<Artifact> {
    let mut by_store = BTreeMap::<StoreId, BTreeMap<UnitId, Artifact>>::new();
    for artifact in std::mem::take(&mut pruned.done) {
        let store = by_store.entry(artifact.unit.store.clone()).or_default();
        store.insert(artifact.unit.clone(), artifact);
    }
    let stores = plan.servers.iter().filter_map(|servers| {
        let artifacts = by_store.remove(&servers.store)?;
        Some(verify_store(plan, servers, artifacts, services, options))
    });
    let _outside = services.events.waiting();
    let verified: Vec<Vec<VerifiedUnit>> = stream::iter(stores).buffered(STORES).collect().await;
    for (unit, result) in verified.into_iter().flatten() {
        pruned.add(unit, result);
    }
    pruned
}

/// Starts the apps of one store, the middleware first. An app that fails does not end the others, so
/// that all failures are reported.
async fn verify_store(
    plan: &Plan,
    servers: &StoreServers,
    mut artifacts: BTreeMap<UnitId, Artifact>,
    services: &Arc<Services>,
    options: &PipelineOptions,
) -> Vec<VerifiedUnit> {
    let servers = match free_ports(servers.servers.len()).await {
        Ok(ports) => servers.on_ports(&ports),
        Err(error) => {
            // One failure is enough to drop the store.
            let first = artifacts.into_keys().next();
            let failed = first.map(|unit| (event_unit(&unit), Err(error.into())));
            return failed.into_iter().collect();
        }
    };
    let mut results = Vec::new();
    let mut running = Vec::new();
    for server in &servers.servers {
        let Some(artifact) = artifacts.remove(&server.unit) else {
            continue;
        };
        let unit = event_unit(&server.unit);
        let span = services.events.begin(&unit);
        let started = start_one(plan, &servers, server, services, options).await;
        let noted = started.as_ref().map(|it| Some(note(server, it)));
        span.end(noted.map_err(ToString::to_string));
        let result = started.map(|server| {
            running.push(server);
            artifact
        });
        results.push((unit, result.map_err(StageError::from)));
    }
    // The frontends end before their middleware.
    for server in running.into_iter().rev() {
        server.stop(&services.interrupt).await;
    }
    results
}

async fn start_one(
    plan: &Plan,
    store: &StoreServers,
    server: &ServerPlan,
    services: &Arc<Services>,
    options: &PipelineOptions,
) -> Result<RunningServer, Error> {
    if services.interrupt.stopped() {
        return Err(Error::Interrupted);
    }
    let environment = ServerEnvironment::new(store, server, &options.scripts)?;
    let start = ServerStart {
        project: &plan.project,
        limit: plan.start_timeout,
        interrupt: &services.interrupt,
        reported: None,
        services,
    };
    start.app(server, &environment).await
}

fn event_unit(unit: &UnitId) -> EventSubject {
    EventSubject {
        script: Some(STEP.to_owned()),
        ..EventSubject::app(Stage::Prune, unit)
    }
}

fn note(server: &ServerPlan, started: &RunningServer) -> String {
    match started.first_status {
        Some(status) => format!("port {}, GET / {status}", server.port),
        None => format!("port {}", server.port),
    }
}
