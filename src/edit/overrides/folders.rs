//! Folders that an edit leaves empty. Git keeps no empty folders.

use std::collections::BTreeSet;
use std::path::Path;

use crate::edit::places::{after, has_file, is_left_empty, kept};
use crate::edit::{Change, TreeEdit};
use crate::store::Store;

/// Removes the folders that the edit leaves empty in a store, in which it removes or moves `files`. The
/// store's own folder stays where it says who the parent is: without it a deployable store inherits
/// from root, and a template does not exist.
pub fn remove_emptied(edit: &mut TreeEdit, root: &Path, store: &Store, files: &[String]) {
    let Some(store_folder) = &store.folder else {
        return;
    };
    let mut folders = BTreeSet::new();
    for file in files {
        let mut folder = file.as_str();
        while let Some((parent, _)) = folder.rsplit_once('/') {
            if parent == store_folder {
                break;
            }
            folders.insert(parent.to_owned());
            folder = parent;
        }
    }
    // A folder comes after the folders in it.
    for folder in folders.iter().rev() {
        remove_if_empty(edit, root, folder);
    }
    if store.parent.is_none() && store.deployment.is_some() {
        remove_if_empty(edit, root, store_folder);
    } else if !has_file(&after(edit, root), &root.join(store_folder)) {
        edit.changes.push(kept(store_folder));
    }
}

fn remove_if_empty(edit: &mut TreeEdit, root: &Path, folder: &str) {
    if is_left_empty(edit, root, folder) {
        let path = folder.to_owned();
        edit.changes.push(Change::RemoveEmptyFolder { path });
    }
}
