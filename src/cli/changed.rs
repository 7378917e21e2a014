//! `store changed`, and the option `--changed` of other commands.

use serde_json::{Value, json};

use super::answer;
use super::arguments::{ChangedOptions, Global, Matrix, SINCE, Select};
use super::environment::tell;
use super::run::document;
use crate::compare::{self, ChangedStore, Comparison};
use crate::config::Project;
use crate::error::Error as AnyError;
use crate::plan::Selection;

pub fn changed(global: &Global, options: &ChangedOptions) -> Result<(), AnyError> {
    // With `--to`, the working tree plays no part.
    let root = super::root(global)?;
    let comparison = Comparison {
        since: options.since.clone(),
        to: options.to.clone(),
        global_dependencies: options.global_dependencies.clone(),
    };
    let answered = compare::changed(&root, &comparison)?;
    for notice in &answered.notices {
        tell(&format!("note: {notice}"));
    }
    let mut stores = answered.stores;
    if let Some(shard) = options.shard {
        let ids = stores.iter().map(|store| store.store_id.to_string());
        let ids = shard.of(ids.collect());
        stores.retain(|store| ids.iter().any(|id| id == store.store_id.as_str()));
    }
    if options.condensed {
        let ids: Vec<_> = stores.iter().map(|store| &store.store_id).collect();
        return answer(&format!("{}\n", json!(ids)));
    }
    match options.matrix {
        Some(matrix) => answer(&format!("{}\n", of_matrix(matrix, &stores))),
        None => document(&list(&stores, options.json)),
    }
}

fn list(stores: &[ChangedStore], with_files: bool) -> Value {
    if with_files {
        return json!(stores);
    }
    let short =
        |store: &ChangedStore| json!({ "storeId": store.store_id, "reasons": store.reasons });
    stores.iter().map(short).collect()
}

fn of_matrix(matrix: Matrix, stores: &[ChangedStore]) -> Value {
    let ids: Vec<_> = stores.iter().map(|store| &store.store_id).collect();
    match matrix {
        Matrix::Github => {
            let include: Vec<_> = ids.iter().map(|id| json!({ "storeId": id })).collect();
            json!({ "include": include })
        }
        // GitLab refuses an empty matrix, so the job never runs instead.
        Matrix::Gitlab if ids.is_empty() => {
            json!({ ".alokai-stores": { "rules": [{ "when": "never" }] } })
        }
        Matrix::Gitlab => {
            json!({ ".alokai-stores": { "parallel": { "matrix": [{ "STORE_ID": ids }] } } })
        }
    }
}

/// The stores that the command line selects.
pub fn selection(project: &Project, select: &Select) -> Result<Selection, AnyError> {
    if !select.changed {
        return Ok(select.named());
    }
    let since = select.since.as_deref().unwrap_or(SINCE);
    let comparison = Comparison {
        since: since.to_owned(),
        ..Comparison::default()
    };
    let answered = compare::changed(&project.root, &comparison)?;
    for notice in &answered.notices {
        tell(&format!("note: {notice}"));
    }
    let ids = answered
        .stores
        .iter()
        .map(|store| store.store_id.to_string());
    let ids: Vec<String> = ids.collect();
    tell(&match ids.as_slice() {
        [] => format!("note: no store has changed since `{since}`"),
        ids => format!("note: changed since `{since}`: {}", ids.join(", ")),
    });
    Ok(Selection::Exactly(ids))
}
