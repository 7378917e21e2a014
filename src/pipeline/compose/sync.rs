//! Keeps `.out` equal to a plan that changes: the same comparison, staging and renames as in a compose,
//! for the whole of each store or for single paths.

use std::collections::{BTreeMap, BTreeSet};

use rayon::prelude::*;

use super::links;
use super::manifest::ManifestFiles;
use super::sources::SourceFiles;
use super::staging::StagingFolder;
use super::update::{StagedStore, StoreUpdate};
use super::{ChangedFiles, Io};
use crate::pipeline::lock::ProjectLock;
use crate::plan::{Plan, StorePlan};
use crate::store::StoreId;

/// What is compared with the plan.
#[derive(Debug, Clone, Copy)]
pub enum SyncScope<'a> {
    /// Every file of every store, and the links.
    Everything,
    /// These paths of stores, relative to the folder of the store.
    Paths(&'a BTreeMap<StoreId, BTreeSet<String>>),
}

/// Brings `.out` in step with the plan, and returns what has changed in each store. If a file cannot be
/// read or staged, `.out` is not changed.
pub fn put_in_step(
    plan: &Plan,
    scope: SyncScope,
    _lock: &ProjectLock,
) -> Result<BTreeMap<StoreId, ChangedFiles>, Io> {
    let decide = |store| match scope {
        SyncScope::Everything => Some(StoreUpdate::decide(plan, store)),
        SyncScope::Paths(paths) => {
            let paths = paths.get(&store.id)?;
            Some(StoreUpdate::of_paths(plan, store, paths))
        }
    };
    let stores: Vec<_> = plan.stores.par_iter().collect();
    let decided = stores
        .into_par_iter()
        .filter_map(|store: &StorePlan| Some((store, decide(store)?)));
    let decided: Vec<_> = decided
        .map(|(store, update)| Ok((store, update?)))
        .collect::<Result<_, Io>>()?;
    let staging = StagingFolder::new(&plan.project)?;
    let updates = decided.iter().map(|(_, update)| update);
    let sources = SourceFiles::new(updates.flat_map(StoreUpdate::entries));
    let staged: Vec<(&StorePlan, StagedStore)> = decided
        .into_par_iter()
        .map(|(store, update)| Ok((store, update.stage(&staging, &sources)?)))
        .collect::<Result<_, Io>>()?;
    if matches!(scope, SyncScope::Everything) {
        links::put_top_in_place(plan)?;
    }
    staged
        .into_par_iter()
        .map(|(store, staged)| Ok((store.id.clone(), staged.put_in_place()?)))
        .collect()
}

/// Records each composed `tsconfig.json` as it is now. Development servers edit this file (Next.js adds
/// options to it), and the edit is kept until the composed content changes.
pub fn keep_server_edits(plan: &Plan, _lock: &ProjectLock) -> Result<(), Io> {
    for store in &plan.stores {
        let manifest_files = ManifestFiles::new(&plan.project, store.id.as_str());
        if !manifest_files.is_complete() {
            continue;
        }
        let Some(mut manifest) = manifest_files.read()? else {
            continue;
        };
        let folder = plan.project.join(".out").join(store.id.as_str());
        let is_edited = |path: &str| {
            let inside = path.split_once('/').map(|(_, inside)| inside);
            inside == Some("tsconfig.json")
        };
        if manifest.record_paths(&folder, is_edited) {
            manifest_files.write(&manifest)?;
        }
    }
    Ok(())
}
