//! Folders that an edit leaves empty. Git keeps no empty folders.

use crate::edit::TreeEdit;
use crate::edit::places::{kept, remove_if_left_empty};
use crate::store::Store;
use std::collections::BTreeSet;
use std::path::Path;

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
        remove_if_left_empty(edit, root, folder);
    }
    let changes = edit.changes.len();
    remove_if_left_empty(edit, root, store_folder);
    let does_without = store.parent.is_none() && store.deployment.is_some();
    if !does_without && edit.changes.len() > changes {
        edit.changes.truncate(changes);
        edit.changes.push(kept(store_folder));
    }
}
