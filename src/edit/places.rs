//! Ids and folders of stores: which ids are free, and where a store's folder is.

use std::path::Path;
use std::sync::Arc;

use super::Error;
use super::change::{Change, NewContent, TreeEdit};
use super::simulation::EditedFiles;
use crate::config::{Project, nearest};
use crate::files::{DiskFiles, FileTree as _, PathKind};
use crate::store::{Store, StoreId};

/// The name that stands for the base apps where a parent is named.
pub const ROOT: &str = "root";

/// Names that output and options use for the base apps.
const RESERVED: [&str; 2] = [ROOT, "base"];

/// The file that lets git keep a store's folder. It is not in an app, so it is not composed.
const KEEP: &str = ".gitkeep";

/// The store with this id.
pub fn store<'a>(project: &'a Project, id: &str) -> Result<&'a Store, Error> {
    project.stores.get(id).ok_or_else(|| {
        let known = project.stores.iter().map(|store| store.id.as_str());
        Error::NoStore {
            id: id.to_owned(),
            nearest: nearest(id, known).map(str::to_owned),
        }
    })
}

/// The store that a parent option names; `None` for the base apps.
pub fn parent<'a>(project: &'a Project, id: &str) -> Result<Option<&'a Store>, Error> {
    if id == ROOT {
        return Ok(None);
    }
    store(project, id).map(Some)
}

/// The folder of a store. One without a folder gets it at the top, where its parent is root.
pub fn folder_of(store: &Store) -> String {
    let folder = store.folder.clone();
    folder.unwrap_or_else(|| format!("apps/stores/{}", store.id))
}

/// The folder for the children of a store; with `None`, for the stores of root.
pub fn children_folder(parent: Option<&Store>) -> String {
    match parent {
        Some(parent) => format!("{}/stores", folder_of(parent)),
        None => "apps/stores".into(),
    }
}

/// A new id, which no store and no entry of the config has.
pub fn new_id(project: &Project, id: &str) -> Result<StoreId, Error> {
    let new = StoreId::new(id)?;
    if RESERVED.iter().any(|name| name.eq_ignore_ascii_case(id))
        || id.eq_ignore_ascii_case("stores")
    {
        return Err(Error::Option {
            message: format!("`{id}` is a reserved name"),
            help: format!(
                "choose another id: `{}` mean the base apps, and `stores` is the name of the folder of stores",
                RESERVED.join("` and `")
            ),
        });
    }
    let stores = project.stores.iter().map(|store| store.id.as_str());
    let mut known = stores.chain(project.local.iter().map(|(id, _)| id.as_str()));
    if let Some(other) = known.find(|known| known.eq_ignore_ascii_case(id)) {
        return Err(Error::IdInUse {
            id: new,
            other: other.to_owned(),
        });
    }
    Ok(new)
}

/// Moves a store into the folder of another parent. A store without a folder gets one, unless its new
/// parent is root. `None` where the store is there already.
pub fn relocation(store: &Store, parent: Option<&Store>) -> Option<Vec<Change>> {
    if store.parent.as_ref() == parent.map(|parent| &parent.id) {
        return None;
    }
    let to = format!("{}/{}", children_folder(parent), store.id);
    Some(match &store.folder {
        Some(folder) => vec![Change::Move {
            from: folder.clone(),
            to,
        }],
        None => vec![kept(&to)],
    })
}

/// Writes the file that lets git keep a folder.
pub fn kept(folder: &str) -> Change {
    Change::Write {
        path: format!("{folder}/{KEEP}"),
        old: None,
        new: NewContent::text(""),
    }
}

/// Takes care of the folder that stores have left. The folder for children is removed if it is empty.
/// If the former parent has no file left, git would lose its folder, and with it a template or the
/// parent's own parent: then the folder gets a `.gitkeep`. A deployable store of root does without a
/// folder.
pub fn leave(edit: &mut TreeEdit, project: &Project, former_parent: Option<&StoreId>) {
    let parent = former_parent.and_then(|id| project.stores.get(id.as_str()));
    let stores = children_folder(parent);
    if !is_left_empty(edit, &project.root, &stores) {
        return;
    }
    edit.changes
        .push(Change::RemoveEmptyFolder { path: stores });
    let Some(parent) = parent else { return };
    let folder = folder_of(parent);
    if parent.deployment.is_some() && parent.parent.is_none() {
        if is_left_empty(edit, &project.root, &folder) {
            edit.changes
                .push(Change::RemoveEmptyFolder { path: folder });
        }
    } else if !has_file(&after(edit, &project.root), &project.root.join(&folder)) {
        edit.changes.push(kept(&folder));
    }
}

/// The tree of files after the edit.
pub fn after(edit: &TreeEdit, project: &Path) -> EditedFiles {
    EditedFiles::new(project, edit, Arc::new(DiskFiles))
}

/// Whether a folder exists after the edit, and has no entry.
pub fn is_left_empty(edit: &TreeEdit, project: &Path, folder: &str) -> bool {
    let entries = after(edit, project).entries(&project.join(folder));
    entries.is_ok_and(|entries| entries.is_empty())
}

/// Whether a file or link is below the folder.
pub fn has_file(files: &EditedFiles, folder: &Path) -> bool {
    let entries = files.entries(folder).unwrap_or_default();
    entries.iter().any(|(name, kind)| match kind {
        PathKind::Folder => has_file(files, &folder.join(name)),
        _ => true,
    })
}
