//! Another id for a store.

use super::Error;
use super::change::{Change, TreeEdit, command_line};
use super::proposal::{ConfigEdit, EditProposal};
use super::relocate::affected_deployables;
use super::uncommitted::moved_along;
use super::{mentions, places};
use crate::compare::is_dns_label;
use crate::config::Project;
use crate::store::{Store, StoreId, TargetKind};

/// Proposes another id for a store: its folder, its key in the config, and its `localDomain`.
pub fn rename(project: &Project, old: &str, new: &str) -> Result<EditProposal, Error> {
    let store = places::store(project, old)?;
    let id = places::new_id(project, new)?;
    let mut edit = TreeEdit::new(command_line(&["rename", old, new]));
    if let Some(folder) = &store.folder {
        let parent = folder.strip_suffix(store.id.as_str()).unwrap_or_default();
        edit.changes.push(Change::Move {
            from: folder.clone(),
            to: format!("{parent}{id}"),
        });
    }
    let config = ConfigEdit::read(&project.root)?;
    config.text().rename_store(old, new);
    edit.changes.extend(config.change());
    let former = |after: &StoreId| {
        if *after == id {
            store.id.clone()
        } else {
            after.clone()
        }
    };
    let mut proposal = EditProposal::new(project, edit, std::slice::from_ref(&id), &former)?;
    let folder = store.folder.as_deref();
    proposal
        .notes
        .extend(moved_along(&project.root, folder.as_slice())?);
    if let Some(deployment) = &store.deployment {
        proposal.notes.push(format!(
            "`projectName` stays `{}`, so images and the instance of the console keep their names",
            deployment.project_name
        ));
    }
    if !is_dns_label(id.as_str()) {
        proposal.notes.push(format!(
            "`{id}` is not a DNS label, so it cannot be part of a host name: use lower-case letters, digits and `-`"
        ));
    }
    proposal.notes.extend(mentions::note(project, old));
    proposal.outdated = [
        format!(".out/{old}"),
        format!(".alokai/manifests/{old}.json"),
    ]
    .into_iter()
    .filter(|path| project.root.join(path).exists())
    .collect();
    let affected = affected_deployables(&proposal.after, std::slice::from_ref(&id));
    if affected.contains(&id.to_string()) {
        proposal
            .next
            .push(format!("run `alokai store compose --store {id}`"));
    }
    proposal.next.extend(at_target(project, store, &id, old));
    proposal.next.push(
        "commit the new folder name and the config together: `git add alokai.config.json`, then `git commit`"
            .into(),
    );
    Ok(proposal)
}

/// What is left to do at the target of a renamed store.
fn at_target(project: &Project, store: &Store, id: &StoreId, old: &str) -> Vec<String> {
    let Some(deployment) = &store.deployment else {
        return Vec::new();
    };
    let mut next = Vec::new();
    let target = deployment.target.unwrap_or(project.settings.deploy.target);
    if matches!(target, TargetKind::Docker | TargetKind::Swarm) {
        let name = &deployment.project_name;
        let place = format!("--target {} --store {name}/{old}", target.name());
        next.push(format!(
            "after the first deploy of `{id}`, stop the releases with the earlier id: `alokai store stop {place}`"
        ));
    }
    if target != TargetKind::Console {
        next.push(format!(
            "set the settings of `{id}` again, and copy its data: both stay with the earlier id"
        ));
    }
    next
}
