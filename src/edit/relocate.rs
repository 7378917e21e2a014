//! Another parent for stores.

use super::Error;
use super::change::{Change, TreeEdit, command_line};
use super::places;
use super::proposal::{EditProposal, same_id};
use super::uncommitted::moved_along;
use crate::config::Project;
use crate::store::{Store, StoreId};

/// Proposes another parent for stores: a store's id, or `root`.
pub fn relocate(project: &Project, ids: &[String], parent_id: &str) -> Result<EditProposal, Error> {
    let parent = places::parent(project, parent_id)?;
    let words = ["move"].into_iter().chain(ids.iter().map(String::as_str));
    let words: Vec<_> = words.chain(["--parent", parent_id]).collect();
    let mut edit = TreeEdit::new(command_line(&words));
    let mut moved: Vec<&Store> = Vec::new();
    let mut notes = Vec::new();
    for id in ids {
        let store = places::store(project, id)?;
        not_below(project, store, parent)?;
        if !moved.iter().any(|known| known.id == store.id) {
            moved.push(store);
        }
    }
    // A store leaves the folder of an ancestor before that ancestor moves.
    moved.sort_by_key(|store| std::cmp::Reverse(project.stores.lineage(store).len()));
    for store in &moved {
        match places::relocation(store, parent) {
            Some(changes) => edit.changes.extend(changes),
            None => notes.push(format!(
                "`{}` has the parent `{parent_id}` already",
                store.id
            )),
        }
    }
    for store in &moved {
        let is_there = store.parent.as_ref() == parent.map(|parent| &parent.id);
        let leaves_with_parent = moved
            .iter()
            .any(|other| Some(&other.id) == store.parent.as_ref());
        if !is_there && store.folder.is_some() && !leaves_with_parent {
            places::leave(&mut edit, project, store.parent.as_ref());
        }
    }
    let ids: Vec<StoreId> = moved.iter().map(|store| store.id.clone()).collect();
    let folders = edit.changes.iter().filter_map(|change| match change {
        Change::Move { from, .. } => Some(from.as_str()),
        _ => None,
    });
    notes.extend(moved_along(&project.root, &folders.collect::<Vec<_>>())?);
    let mut proposal = EditProposal::new(project, edit, &ids, &same_id)?;
    proposal.notes = notes;
    let below = affected_deployables(&proposal.after, &ids);
    if !below.is_empty() {
        let ids = below.join(",");
        proposal.next.push(format!(
            "run `alokai store compose --store {ids}`, then build and test"
        ));
    }
    proposal.next.push(
        "commit the move: git's index has the new paths already, `git status` shows them".into(),
    );
    Ok(proposal)
}

/// Fails if `parent` is the store or one of its descendants.
fn not_below(project: &Project, store: &Store, parent: Option<&Store>) -> Result<(), Error> {
    let Some(parent) = parent else { return Ok(()) };
    let lineage = project.stores.lineage(parent);
    if lineage.iter().any(|link| link.id == store.id) {
        return Err(Error::Cycle {
            id: store.id.clone(),
            parent: parent.id.clone(),
        });
    }
    Ok(())
}

/// The deployable stores among these stores and their descendants.
pub(super) fn affected_deployables(project: &Project, ids: &[StoreId]) -> Vec<String> {
    let is_affected = |store: &&Store| {
        let lineage = project.stores.lineage(store);
        lineage.iter().any(|link| ids.contains(&link.id))
    };
    let affected = project.stores.deployables().filter(is_affected);
    affected.map(|store| store.id.to_string()).collect()
}

/// The changes that give every child of a store another parent.
pub(super) fn reparent(
    project: &Project,
    store: &Store,
    parent_id: &str,
    edit: &mut TreeEdit,
) -> Result<Vec<StoreId>, Error> {
    let parent = places::parent(project, parent_id)?;
    not_below(project, store, parent)?;
    let children: Vec<_> = project.stores.children(Some(&store.id)).collect();
    for child in &children {
        edit.changes
            .extend(places::relocation(child, parent).into_iter().flatten());
    }
    Ok(children.iter().map(|child| child.id.clone()).collect())
}
