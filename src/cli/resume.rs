//! `store deploy --resume` and `--retry-failed`: the stores that earlier runs have left.

use std::collections::BTreeMap;

use super::ask_targets::Answer;
use super::environment::tell;
use super::listing::{RunningRuns, stored_records};
use super::releasing::observed;
use super::run::PreparedCommand;
use crate::config::Project;
use crate::error::Error as AnyError;
use crate::ledger::{Operation, RecordSet, last_deploys};
use crate::plan::{Plan, Selection};
use crate::store::StoreId;

/// The stores of a plan that their last deploy has not brought to the end of this plan. The last deploy of
/// the other stores had the same plan and has succeeded, and their targets still have its release.
pub fn missing(prepared: &PreparedCommand, plan: &Plan) -> Result<Vec<String>, AnyError> {
    let records = stored_records(&prepared.project)?;
    let last = last_deploys(&records);
    let succeeded = plan.stores.iter().filter_map(|store| {
        let run = last.get(&store.id)?;
        let digest = plan.release_digest(&store.id).to_string();
        let is_same = run.succeeded() && run.plan() == Some(&digest);
        is_same.then_some((&store.id, run))
    });
    let succeeded: BTreeMap<&StoreId, &Operation> = succeeded.collect();
    let stores: Vec<_> = succeeded.keys().copied().collect();
    let observed = observed(plan, prepared, &stores)?;
    let targets = records.targets();
    let is_there = |store: &StoreId, run: &Operation| {
        let release = run.end.and_then(|end| end.release.as_ref());
        let (Some(release), Some(observed)) = (release, observed.get(store)) else {
            return true;
        };
        let observed = match observed {
            Answer::Given(Some(observed)) => observed,
            Answer::Given(None) => return true,
            Answer::Missing(_) => return false,
        };
        let history = records
            .release(release)
            .and_then(|it| targets.get(store, &it.target));
        let is_pinned = history.is_some_and(|it| it.state.pin.is_some());
        let is_staged = || observed.staged.iter().any(|it| it.release == *release);
        observed.active.as_ref() == Some(release)
            || (prepared.release.no_release || is_pinned) && is_staged()
    };
    let (done, missing): (Vec<_>, Vec<_>) = plan.stores.iter().partition(|store| {
        let run = succeeded.get(&store.id);
        run.is_some_and(|run| is_there(&store.id, run))
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
        [] => "note: nothing to retry: the last deploy of each selected store succeeded".to_owned(),
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
