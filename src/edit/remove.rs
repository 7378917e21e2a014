//! Removing a store.

use std::path::Path;
use std::sync::Arc;

use super::Error;
use super::change::{Change, KEPT, TreeEdit, command_line};
use super::proposal::{ConfigEdit, EditProposal, same_id};
use super::relocate::{affected_deployables, reparent};
use super::uncommitted::{shown, uncommitted};
use super::{mentions, places};
use crate::cache::Cache;
use crate::config::Project;
use crate::git::Repository;
use crate::overlay::{Composer, Layer, LayerReader, Owner, fail_on};
use crate::store::{Store, StoreId, TargetKind};

/// Proposes to remove a store. Its children get the parent `reparent_to`.
pub fn remove(
    project: &Project,
    id: &str,
    reparent_to: Option<&str>,
) -> Result<EditProposal, Error> {
    let store = places::store(project, id)?;
    let mut edit = TreeEdit::new(match reparent_to {
        Some(parent) => command_line(&["remove", id, "--reparent", parent]),
        None => command_line(&["remove", id]),
    });
    let children: Vec<_> = project.stores.children(Some(&store.id)).collect();
    let moved = match reparent_to {
        Some(parent) => reparent(project, store, parent, &mut edit)?,
        None if children.is_empty() => Vec::new(),
        None => {
            return Err(Error::Children {
                id: store.id.clone(),
                children: children.iter().map(|child| child.id.to_string()).collect(),
            });
        }
    };
    let mut notes = Vec::new();
    if let Some(folder) = &store.folder {
        refuse_staged(project, folder)?;
        let keep = keep(project, store, folder, &moved, &mut notes)?;
        edit.changes.push(Change::Remove {
            path: folder.clone(),
            keep,
        });
        places::leave(&mut edit, project, store.parent.as_ref());
    }
    let config = ConfigEdit::read(&project.root)?;
    config.text().remove_store(id);
    edit.changes.extend(config.change());
    let mut proposal = EditProposal::new(project, edit, &moved, &same_id)?;
    proposal.only_here = only_here(project, store)?;
    proposal.left_behind = left_behind(project, store);
    notes.extend(mentions::note(project, id));
    proposal.notes = notes;
    let affected = affected_deployables(&proposal.after, &moved);
    if !affected.is_empty() {
        let ids = affected.join(",");
        proposal.next.push(format!(
            "run `alokai store compose --store {ids}`, then build and test"
        ));
    }
    proposal
        .next
        .push("commit the removal: git's index has it already, `git status` shows it".into());
    Ok(proposal)
}

/// Fails if git's index has content that neither a file nor a commit has: it would be lost.
fn refuse_staged(project: &Project, folder: &str) -> Result<(), Error> {
    let Some(repository) = Repository::around(&project.root)? else {
        return Ok(());
    };
    let staged = repository.only_in_index(folder)?;
    if staged.is_empty() {
        return Ok(());
    }
    Err(Error::Option {
        message: format!(
            "git's index has content of {} that neither the file nor HEAD has",
            shown(&staged)
        ),
        help: "commit what is staged, or take it back with `git restore --staged`".into(),
    })
}

/// Where the folder is kept if it has files that no commit has.
fn keep(
    project: &Project,
    store: &Store,
    folder: &str,
    moved: &[StoreId],
    notes: &mut Vec<String>,
) -> Result<Option<String>, Error> {
    let leaves = |file: &String| {
        let children = moved
            .iter()
            .map(|child| format!("{folder}/stores/{child}/"));
        children.into_iter().any(|child| file.starts_with(&child))
    };
    let mut lost = uncommitted(&project.root, folder)?;
    lost.retain(|file| !leaves(file));
    if lost.is_empty() {
        return Ok(None);
    }
    let keep = free_name(&project.root, store.id.as_str());
    notes.push(format!(
        "no commit has {}; the folder is kept in `{keep}`",
        shown(&lost)
    ));
    Ok(Some(keep))
}

/// A name for a kept folder that no other kept folder has.
fn free_name(project: &Path, id: &str) -> String {
    let name = format!("{KEPT}/{id}");
    let numbered = (2_u32..).map(|number| format!("{KEPT}/{id}-{number}"));
    let mut candidates = std::iter::once(name.clone()).chain(numbered);
    candidates
        .find(|name| project.join(name).symlink_metadata().is_err())
        .unwrap_or(name)
}

/// The files of a store that no other layer has with the same path and content.
fn only_here(project: &Project, store: &Store) -> Result<Vec<String>, Error> {
    let repository = Repository::around(&project.root)?;
    let reader = LayerReader::new(&project.root, repository.as_ref())?;
    let stores: Vec<_> = project.stores.iter().collect();
    let (layers, problems) = Composer::new(project, &reader).layers(&stores, |_, _| None)?;
    fail_on(problems)?;
    let own = Owner::Store(store.id.clone());
    let mut found = Vec::new();
    for app in &store.apps {
        let Some(layer) = layers.get(&own, app) else {
            continue;
        };
        let others: Vec<_> = layers
            .keys()
            .filter(|(owner, other)| *owner != own && other == app)
            .filter_map(|(owner, app)| layers.get(owner, app))
            .collect();
        for (path, file) in &layer.files {
            let has_it = |other: &&Arc<Layer>| {
                let same = other.files.get(path);
                same.is_some_and(|other| other.id == file.id && other.kind == file.kind)
            };
            if !others.iter().any(has_it) {
                let folder = store.folder_of(app).unwrap_or_default();
                found.push(format!("{folder}/{path}"));
            }
        }
    }
    Ok(found)
}

/// What a removed store leaves behind on this machine and in the cloud.
fn left_behind(project: &Project, store: &Store) -> Vec<String> {
    let mut left = Vec::new();
    let out = format!(".out/{}", store.id);
    if project.root.join(&out).exists() {
        left.push(format!("the composed apps in `{out}`"));
    }
    // A cache that cannot be read may have results.
    let cache = Cache::new(project.root.join(".alokai/cache"));
    if cache.has_results_of(store.id.as_str()).unwrap_or(true) {
        left.push("its results in `.alokai/cache`, until `alokai cache gc` removes them".into());
    }
    let Some(deployment) = &store.deployment else {
        return left;
    };
    let (name, region) = (&deployment.project_name, &deployment.cloud_region);
    let images = format!("{name}-storefrontcloud-io");
    let index = std::fs::read_to_string(project.root.join(".alokai/registry/index.json"));
    if index.is_ok_and(|index| index.contains(&format!("\"{images}/"))) {
        left.push(format!("images `{images}/…` in `.alokai/registry`"));
    }
    left.push(format!(
        "images `{images}/…` in the registry, if any were pushed"
    ));
    let target = deployment.target.unwrap_or(project.settings.deploy.target);
    let id = &store.id;
    left.push(match target {
        TargetKind::Console => format!(
            "the instance `{name}-{region}-gcp-storefrontcloud-io` of the console, if it was deployed: it may be live at https://{name}.{region}.gcp.storefrontcloud.io"
        ),
        TargetKind::Local => format!(
            "its releases on this machine, if it was deployed: `alokai store stop --store {id}` stops them"
        ),
        TargetKind::Docker | TargetKind::Swarm => {
            let place = format!("--target {} --store {name}/{id}", target.name());
            format!(
                "its releases at the target `{}`, if it was deployed: `alokai store stop {place}` stops them",
                target.name()
            )
        }
        TargetKind::Kubernetes | TargetKind::Command => format!(
            "its releases at the target `{}`, if it was deployed: stop them there",
            target.name()
        ),
    });
    left
}
