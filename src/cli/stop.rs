//! `store stop`, and the background process that it ends.

use std::sync::Arc;

use super::arguments::Global;
use super::arguments::local::{BackgroundOptions, StopOptions, StoppedTarget};
use super::arguments::questions::ChosenTargets;
use super::events::live;
use super::one_store::StoreAtTarget;
use super::operation::RecordedOperation;
use super::services::local_services;
use super::store_targets::StoreTargets;
use super::{Error, answer, environment, project, tell};
use crate::config::{Project, nearest};
use crate::error::Error as AnyError;
use crate::ledger::{RecordFolder, StoreEvent};
use crate::release::{self, ReleaseJournal, StoreRun, locked};
use crate::report::Detail;
use crate::store::{Deployment, Store, StoreId, StoreTree, TargetKind};
use crate::target::local::StoreState;
use crate::target::{self, Target, TargetContext, local, target_of};

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
    // Unpacked folders are removed too, also where nothing runs any more.
    let is_left =
        |store: &StoreState| store.runs() || store.releases.values().any(|it| it.folder.is_some());
    let due = remembered.stores.iter();
    let due =
        due.filter(|(id, store)| is_left(store) && (chosen.is_empty() || chosen.contains(id)));
    let due: Vec<StoreId> = due.map(|(id, _)| id.clone()).collect();
    let chosen: Vec<StoreId> = chosen.into_iter().cloned().collect();
    live(false, Detail::Short, |live| {
        let context = TargetContext {
            services: Arc::new(local_services(&live, &project.root)),
            project: Arc::new(project),
            console: String::new(),
            plan: None,
            local: client,
            examines: false,
        };
        let target = target_of(TargetKind::Local, &context).map_err(release::Error::from)?;
        let (mut has_stopped, mut failure) = (false, None);
        for id in &due {
            match stop_here(&context, &*target, id) {
                Ok(false) => {}
                Ok(true) => {
                    has_stopped = true;
                    answer(&format!("stopped {id}\n"))?;
                }
                // One store does not keep the others running.
                Err(error) => drop(failure.get_or_insert(error)),
            }
        }
        match failure {
            Some(error) => Err(error.into()),
            None if has_stopped => Ok(()),
            None => {
                answer("none of these stores runs on this machine\n")?;
                for id in &chosen {
                    tell_target(&context.project, id);
                }
                Ok(())
            }
        }
    })
}

/// Says how a store is stopped that has another target.
fn tell_target(project: &Project, id: &StoreId) {
    let store = project.stores.get(id.as_str());
    let deployment = store.and_then(|store| store.deployment.as_ref());
    let target = deployment.map(|it| project.target_of(it));
    if let Some(target @ (TargetKind::Docker | TargetKind::Swarm)) = target {
        let place = format!("--target {} --store {id}", target.name());
        tell(&format!(
            "note: `{id}` has the target `{}`: `alokai store stop {place}` stops it there",
            target.name()
        ));
    }
}

/// Stops a store that runs on this machine, under its lock. Returns whether it was running.
fn stop_here(
    context: &TargetContext,
    target: &dyn Target,
    id: &StoreId,
) -> Result<bool, release::Error> {
    let operation = RecordedOperation::start(&context.project, id, target.name(), "stop");
    let (records, actor) = (
        RecordFolder::of_project(&context.project.root),
        environment::actor(),
    );
    let journal = ReleaseJournal {
        records: &records,
        store: id,
        target: target.name(),
        actor: &actor,
        run: Some(operation.id()),
        events: &context.services.events,
    };
    let stopping = async {
        let failed = |error: local::Error| target::Error::from(error);
        let mut stores = context.local.remembered().map_err(failed)?.stores;
        let store = stores.remove(id).unwrap_or_default();
        let stopped = context.local.stop(Some(id)).await.map_err(failed)?;
        record(&journal, &store);
        Ok((store, !stopped.is_empty()))
    };
    let stopped = context
        .services
        .wait(locked(target, "stop", &journal, stopping));
    let failure = stopped.as_ref().err().map(ToString::to_string);
    let live = stopped
        .as_ref()
        .ok()
        .and_then(|(store, _)| store.active.as_ref());
    operation.end(failure.as_deref(), live);
    stopped.map(|(_, was_running)| was_running)
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

/// Records which releases of a store were stopped.
fn record(journal: &ReleaseJournal, store: &StoreState) {
    let detail = || Some("the store was stopped".to_owned());
    let running = store.releases.iter().filter(|(_, release)| release.runs);
    for (release, _) in running {
        journal.event(StoreEvent::Retired, Some(release), None, detail());
    }
    if store.maintenance.is_some() {
        let off = StoreEvent::Maintenance { on: false };
        journal.event(off, None, None, detail());
    }
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
