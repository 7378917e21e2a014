//! `store deploy --resume` and `--retry-failed`: the stores that earlier runs have left.

use std::collections::BTreeMap;

use super::environment::tell;
use super::listing::{RunningRuns, stored_records};
use crate::config::Project;
use crate::error::Error as AnyError;
use crate::ledger::{Operation, RecordSet, last_deploys};
use crate::plan::{Plan, Selection};
use crate::store::StoreId;

/// The stores of a plan that their last deploy has not brought to the end of this plan. The last deploy of
/// the other stores had the same plan and has succeeded.
pub fn missing(project: &Project, plan: &Plan) -> Result<Vec<String>, AnyError> {
    let records = stored_records(project)?;
    let last = last_deploys(&records);
    let (done, missing): (Vec<_>, Vec<_>) = plan.stores.iter().partition(|store| {
        let last = last.get(&store.id);
        let digest = plan.release_digest(&store.id).to_string();
        last.is_some_and(|run| run.succeeded() && run.plan() == Some(&digest))
    });
    let names = |stores: Vec<&crate::plan::StorePlan>| -> Vec<String> {
        stores.iter().map(|store| store.id.to_string()).collect()
    };
    let (done, missing) = (names(done), names(missing));
    tell(&match (done.as_slice(), missing.as_slice()) {
        ([], _) => "note: no store of this plan is done; all of them are deployed".to_owned(),
        (done, []) => format!(
            "note: all stores of this plan are done: {}",
            done.join(", ")
        ),
        (done, missing) => format!(
            "note: done by an earlier run of this plan: {}; missing: {}",
            done.join(", "),
            missing.join(", ")
        ),
    });
    Ok(missing)
}

/// Those of the selected stores whose last deploy has failed or was interrupted.
pub fn failed(project: &Project, selection: &Selection) -> Result<Selection, AnyError> {
    let records = stored_records(project)?;
    let failed = failed_stores(project, &records);
    let stores = selection.stores(project)?.into_iter();
    let stores = stores.filter(|store| failed.contains_key(&store.id));
    let ids: Vec<String> = stores.map(|store| store.id.to_string()).collect();
    tell(&match ids.as_slice() {
        [] => "note: the last deploy of no selected store has failed".to_owned(),
        ids => format!("note: the last deploy has failed: {}", ids.join(", ")),
    });
    Ok(Selection::Exactly(ids))
}

fn failed_stores<'a>(
    project: &Project,
    records: &'a RecordSet,
) -> BTreeMap<&'a StoreId, Operation<'a>> {
    let running = RunningRuns::of_project(project);
    let mut last = last_deploys(records);
    last.retain(|_, run| match run.end {
        Some(_) => !run.succeeded(),
        None => !running.has(run.event),
    });
    last
}
