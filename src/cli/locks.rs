//! `store lock`: who deploys a store at its target.

use serde_json::json;

use super::answer;
use super::arguments::Global;
use super::arguments::questions::{LockCommand, StatusOptions, TargetOptions};
use super::ask_targets::{Answer, ask};
use super::environment::tell;
use super::listing::{CellFormat, plain, table};
use super::operation::RecordedOperation;
use super::run::document;
use super::store_targets::StoreTargets;
use crate::error::Error as AnyError;
use crate::ledger::StoreEvent;
use crate::release;
use crate::store::Store;

pub fn locks(global: &Global, command: &LockCommand) -> Result<(), AnyError> {
    match command {
        LockCommand::Status(options) => status(global, options),
        LockCommand::Release(options) => remove(global, options),
    }
}

fn status(global: &Global, options: &StatusOptions) -> Result<(), AnyError> {
    let targets = StoreTargets::new(global, options.target.chosen())?;
    let stores = targets.stores()?;
    let answers = ask(&targets, &stores, |target, store| async move {
        if target.capabilities().locks {
            Ok(Some(target.lock_holder(&store).await?))
        } else {
            Ok(None)
        }
    });
    if options.json {
        let stores: Vec<_> = answers
            .iter()
            .map(|(store, answer)| {
                let (has_locks, lock, error) = match answer {
                    Answer::Given(Some(lock)) => (Some(true), lock.as_ref(), None),
                    Answer::Given(None) => (Some(false), None, None),
                    Answer::Missing(reason) => (None, None, Some(reason)),
                };
                json!({
                    "storeId": store.id,
                    "target": targets.kind(store).name(),
                    "hasLocks": has_locks,
                    "lock": lock,
                    "error": error,
                })
            })
            .collect();
        return document(&json!({ "schemaVersion": 1, "stores": stores }));
    }
    let format = CellFormat::new([].into_iter());
    let titles = ["STORE", "TARGET", "LOCK", "SINCE", "FOR", "BY"];
    let mut rows = vec![titles.map(str::to_owned).to_vec()];
    for (store, answer) in &answers {
        let mut row = vec![store.id.to_string(), targets.kind(store).name().to_owned()];
        row.extend(match answer {
            Answer::Given(Some(Some(claim))) => vec![
                "locked".to_owned(),
                format.age(claim.since),
                claim.operation.clone(),
                claim.who.clone(),
            ],
            Answer::Given(Some(None)) => vec!["free".to_owned()],
            Answer::Given(None) => vec!["the target has no locks".to_owned()],
            Answer::Missing(reason) => vec![format!("unknown: {reason}")],
        });
        rows.push(row);
    }
    answer(&table(&rows))
}

fn remove(global: &Global, options: &TargetOptions) -> Result<(), AnyError> {
    let targets = StoreTargets::new(global, options.chosen())?;
    for store in targets.named()? {
        remove_of(&targets, store)?;
    }
    Ok(())
}

fn remove_of(targets: &StoreTargets, store: &Store) -> Result<(), AnyError> {
    let target = targets.of(store)?;
    let id = &store.id;
    if !target.capabilities().locks {
        return Err(super::Error::NoLocks {
            target: target.name(),
            store: id.clone(),
        }
        .into());
    }
    let holder = targets.registry.wait(target.lock_holder(id));
    let Some(claim) = holder.map_err(release::Error::from)? else {
        tell(&format!("the store `{id}` is not locked"));
        return Ok(());
    };
    let operation = RecordedOperation::start(&targets.project, id, target.name(), "lock release");
    // The lock may have another holder by now, whose lock stays.
    let unlocked = targets.registry.wait(target.unlock(id, &claim.holder));
    let unlocked = unlocked.map_err(release::Error::from);
    let detail = format!("the lock of {} for {}", claim.who, claim.operation);
    if unlocked.is_ok() {
        operation.event(StoreEvent::Unlocked, None, Some(detail));
    }
    let failure = unlocked.as_ref().err().map(ToString::to_string);
    operation.end(failure.as_deref(), None);
    unlocked?;
    targets.registry.share(&targets.project, id);
    answer(&format!(
        "{id}: removed the lock of {} for {}\n",
        plain(&claim.who),
        plain(&claim.operation)
    ))
}
