//! Needless overrides are removed.

use super::folders::remove_emptied;
use super::layers::{ReadLayers, owner, real_root};
use super::{OverrideChanged, OverrideError, OverrideProposal};
use crate::compare::{difference, nearest_paths, split_path};
use crate::config::Project;
use crate::edit::{Change, Error, TreeEdit};
use crate::overlay::is_from_base;
use crate::store::{AppName, Store};

/// Removes overrides of a store that are the same as the files that they hide: content, executable bit,
/// and for a link its target. Without `paths` these are all such overrides; with `paths` an override
/// that differs is an error.
pub fn revert(
    project: &Project,
    store: &Store,
    paths: &[String],
    command: &str,
) -> Result<OverrideProposal, Error> {
    let layers = ReadLayers::new(project, &[store])?;
    let mut edit = TreeEdit::new(command);
    let mut files = Vec::new();
    let mut differing = 0;
    for (app, path) in candidates(&layers, store, paths)? {
        let (Some(own), Some(hidden)) = (
            layers.file(&owner(store), &app, &path),
            layers.inherited(store, &app, &path),
        ) else {
            continue;
        };
        if !own.content.is_like(hidden.content) {
            differing += 1;
            if paths.is_empty() {
                continue;
            }
            let difference = difference(own.content, hidden.content, &own.file)?;
            return Err(OverrideError::Differs {
                file: own.file,
                hidden: hidden.file,
                difference: difference.to_string(),
            }
            .into());
        }
        edit.changes.push(Change::Remove {
            path: own.file.clone(),
            keep: None,
        });
        files.push(OverrideChanged::Remove {
            store_id: store.id.clone(),
            file: own.file,
            inherits_from: hidden.owner,
            inherited: hidden.file,
        });
    }
    let removed: Vec<_> = files.iter().filter_map(removed_file).collect();
    remove_emptied(&mut edit, &real_root(project)?, store, &removed);
    edit.verify(&project.root)?;
    let notes = match differing {
        0 => Vec::new(),
        1 => vec!["1 override differs from the file that it hides, and stays".to_owned()],
        count => vec![format!(
            "{count} overrides differ from the files that they hide, and stay"
        )],
    };
    Ok(OverrideProposal { edit, files, notes })
}

fn removed_file(changed: &OverrideChanged) -> Option<String> {
    match changed {
        OverrideChanged::Remove { file, .. } => Some(file.clone()),
        _ => None,
    }
}

/// The named overrides, or all files of the store.
fn candidates(
    layers: &ReadLayers,
    store: &Store,
    paths: &[String],
) -> Result<Vec<(AppName, String)>, Error> {
    let mut found = Vec::new();
    if paths.is_empty() {
        for app in &store.apps {
            let own = layers.layer(&owner(store), app);
            let names = own.into_iter().flat_map(|layer| layer.files.keys());
            let names = names.filter(|path| !is_from_base(path));
            found.extend(names.map(|path| (app.clone(), path.to_string())));
        }
        return Ok(found);
    }
    for path in paths {
        let (app, path) = split_path(layers.project, store, path)?;
        let own = own_override(layers, store, &app, path)?;
        if layers.inherited(store, &app, path).is_none() {
            return Err(OverrideError::Addition { file: own }.into());
        }
        if !found.contains(&(app.clone(), path.to_owned())) {
            found.push((app, path.to_owned()));
        }
    }
    Ok(found)
}

/// The file of the store at a path. It is an error if the store has none, or if it is not used.
pub fn own_override(
    layers: &ReadLayers,
    store: &Store,
    app: &AppName,
    path: &str,
) -> Result<String, Error> {
    let shown = format!("{app}/{path}");
    if is_from_base(path) {
        return Err(OverrideError::FromBase { path: shown }.into());
    }
    if let Some(own) = layers.file(&owner(store), app, path) {
        return Ok(own.file);
    }
    let known = layers.layer(&owner(store), app);
    let known = known.into_iter().flat_map(|layer| layer.files.keys());
    let folder = path.trim_end_matches('/');
    let is_inside = |path: &str| {
        let rest = path.strip_prefix(folder);
        folder.is_empty() || rest.is_some_and(|rest| rest.starts_with('/'))
    };
    let files = known.clone().filter(|path| is_inside(path)).count();
    if files > 0 {
        return Err(OverrideError::OwnFolder {
            store: store.id.clone(),
            path: shown.trim_end_matches('/').to_owned(),
            files,
        }
        .into());
    }
    Err(OverrideError::NoOverride {
        store: store.id.clone(),
        path: shown,
        nearest: nearest_paths(known.map(|path| &**path), path)
            .into_iter()
            .map(|path| format!("{app}/{path}"))
            .collect(),
    }
    .into())
}
