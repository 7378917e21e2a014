//! `store stop`, and the background process that it ends.

use super::arguments::Global;
use super::arguments::local::{BackgroundOptions, StopOptions, StoppedTarget};
use super::arguments::questions::ChosenTargets;
use super::events::live;
use super::make_live::StoreAtTarget;
use super::operation::RecordedOperation;
use super::store_targets::StoreTargets;
use super::{Error, answer, environment, project, tell};
use crate::config::{Project, nearest};
use crate::error::Error as AnyError;
use crate::ledger::StoreEvent;
use crate::plan;
use crate::release::{self, StoreRun};
use crate::report::Detail;
use crate::store::{Deployment, Store, StoreId, StoreTree, TargetKind};
use crate::target::local::StoreState;
use crate::target::{self, local};

/// Stops stores that run on this machine.
pub fn stop(global: &Global, options: &StopOptions) -> Result<(), AnyError> {
    if let Some(target) = options.target {
        return stop_at(global, options, target);
    }
    let (project, _) = project(global)?;
    let client = environment::local_client(&project.root);
    let remembered = client.remembered().map_err(failed)?;
    // A store may run that the config does not have any more.
    let existing = project.stores.iter().map(|store| &store.id);
    let known: Vec<&StoreId> = existing.chain(remembered.stores.keys()).collect();
    let mut chosen: Vec<&StoreId> = Vec::new();
    for id in &options.stores {
        let found = known.iter().find(|known| known.as_str() == id);
        chosen.push(*found.ok_or_else(|| Error::NoStore {
            id: id.clone(),
            nearest: nearest(id, known.iter().map(|it| it.as_str())).map(str::to_owned),
        })?);
    }
    let running = remembered
        .stores
        .iter()
        .filter(|(id, store)| store.runs() && (chosen.is_empty() || chosen.contains(id)));
    let started: Vec<_> = running
        .map(|(id, store)| {
            let operation =
                RecordedOperation::start(&project, id, TargetKind::Local.name(), "stop");
            (operation, store)
        })
        .collect();
    let stopped = runtime()?.block_on(async {
        if chosen.is_empty() {
            return client.stop(None).await;
        }
        let mut stopped = Vec::new();
        for store in &chosen {
            stopped.extend(client.stop(Some(store)).await?);
        }
        Ok(stopped)
    });
    for (operation, store) in &started {
        record(operation, store, stopped.as_ref().err());
    }
    let lines = stopped.map_err(failed)?.into_iter();
    let lines: Vec<_> = lines.map(|store| format!("stopped {store}\n")).collect();
    if !lines.is_empty() {
        return answer(&lines.concat());
    }
    answer("none of these stores runs on this machine\n")?;
    for id in &chosen {
        let store = project.stores.get(id.as_str());
        let deployment = store.and_then(|store| store.deployment.as_ref());
        let target = deployment.map(|it| plan::target_of(&project, it).name());
        if let Some(target @ ("docker" | "swarm")) = target {
            let place = format!("--target {target} --store {id}");
            tell(&format!(
                "note: `{id}` has the target `{target}`: `alokai store stop {place}` stops it there"
            ));
        }
    }
    Ok(())
}

/// Stops stores at another target, including stores that the config does not have any more.
fn stop_at(global: &Global, options: &StopOptions, target: StoppedTarget) -> Result<(), AnyError> {
    let kind = match target {
        StoppedTarget::Docker => TargetKind::Docker,
        StoppedTarget::Swarm => TargetKind::Swarm,
    };
    live(false, Detail::Short, |live| {
        for name in &options.stores {
            let (mut project, environment) = project(global)?;
            let id = with_store(&mut project, name, kind)?;
            let stores = [id.to_string()];
            let chosen = ChosenTargets {
                stores: &stores,
                local: false,
                access: &options.access,
            };
            let loaded = (project, environment);
            let targets = StoreTargets::of_project(loaded, chosen, Some(&live))?;
            let place = StoreAtTarget::new(&targets, name, "stop", false)?;
            let stopped = place.recorded(None, |flow| {
                let run = StoreRun::new(flow, &*place.target, place.id());
                Ok(place.targets.registry.wait(run.stop())?)
            })?;
            let releases: Vec<_> = stopped.iter().map(ToString::to_string).collect();
            answer(&if releases.is_empty() {
                format!("{name} has no release at the target `{}`\n", kind.name())
            } else {
                format!("stopped {name}: {}\n", releases.join(", "))
            })?;
        }
        Ok(())
    })
}

/// Adds a store to a project, or changes it, so that it runs at this target. `name` is the id of a store of
/// the config, or `<project>/<store>`.
fn with_store(project: &mut Project, name: &str, kind: TargetKind) -> Result<StoreId, AnyError> {
    let unknown = || {
        let ids = project.stores.deployables().map(|store| store.id.as_str());
        Error::NoStore {
            id: name.to_owned(),
            nearest: nearest(name, ids).map(str::to_owned),
        }
    };
    let known = |id: &str| project.stores.get(id).cloned();
    let (id, deployment) = if let Some((project_name, id)) = name.split_once('/') {
        let deployment = Deployment {
            project_name: project_name.to_owned(),
            cloud_region: String::new(),
            framework: None,
            target: Some(kind),
            address: None,
        };
        (StoreId::new(id).map_err(|_| unknown())?, deployment)
    } else {
        let store = known(name).ok_or_else(unknown)?;
        let deployment = store.deployment.ok_or_else(unknown)?;
        let target = Some(kind);
        (
            store.id,
            Deployment {
                target,
                ..deployment
            },
        )
    };
    let store = Store {
        deployment: Some(deployment),
        ..known(id.as_str()).unwrap_or_else(|| Store {
            id: id.clone(),
            parent: None,
            folder: None,
            apps: Vec::new(),
            deployment: None,
            ignore_paths: Vec::new(),
        })
    };
    let mut stores: Vec<Store> = project.stores.iter().cloned().collect();
    match stores.iter_mut().find(|known| known.id == id) {
        Some(known) => *known = store,
        None => stores.push(store),
    }
    project.stores = StoreTree::new(stores).map_err(|_| unknown())?;
    Ok(id)
}

/// Records which releases of a store were stopped, or why they were not.
fn record(operation: &RecordedOperation, store: &StoreState, failure: Option<&local::Error>) {
    if failure.is_none() {
        let running = store.releases.iter().filter(|(_, release)| release.runs);
        for (release, _) in running {
            let detail = Some("the store was stopped".to_owned());
            operation.event(StoreEvent::Retired, Some(release), detail);
        }
        if store.maintenance.is_some() {
            let detail = Some("the store was stopped".to_owned());
            operation.event(StoreEvent::Maintenance { on: false }, None, detail);
        }
    }
    operation.end(
        failure.map(ToString::to_string).as_deref(),
        store.active.as_ref(),
    );
}

/// Runs the background process of a project.
pub fn background(options: &BackgroundOptions) -> Result<(), AnyError> {
    let served = runtime()?.block_on(local::serve(&options.project));
    served.map_err(failed)
}

fn failed(error: local::Error) -> AnyError {
    release::Error::from(target::Error::from(error)).into()
}

fn runtime() -> Result<tokio::runtime::Runtime, Error> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|source| Error::Start { source })
}
