//! `store stop`, and the background process that it ends.

use super::arguments::Global;
use super::arguments::local::{BackgroundOptions, StopOptions};
use super::operation::RecordedOperation;
use super::{Error, answer, environment, project};
use crate::config::nearest;
use crate::error::Error as AnyError;
use crate::ledger::StoreEvent;
use crate::release;
use crate::store::StoreId;
use crate::target::local::StoreState;
use crate::target::{self, local};

/// Stops stores that run on this machine.
pub fn stop(global: &Global, options: &StopOptions) -> Result<(), AnyError> {
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
            let operation = RecordedOperation::start(&project, id, "local", "stop");
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
    answer(&if lines.is_empty() {
        "none of these stores runs on this machine\n".to_owned()
    } else {
        lines.concat()
    })
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
