//! Folders that an edit leaves empty. Git keeps no empty folders.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use crate::edit::{Change, EditedFiles, NewContent, TreeEdit};
use crate::files::{DiskFiles, FileTree as _};
use crate::store::Store;

/// The file that lets git keep a store's folder. It is not in an app, so it is not composed.
const KEEP: &str = ".gitkeep";

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
        if is_empty_after(edit, root, folder) {
            let path = folder.clone();
            edit.changes.push(Change::RemoveEmptyFolder { path });
        }
    }
    if !is_empty_after(edit, root, store_folder) {
        return;
    }
    let does_without = store.parent.is_none() && store.deployment.is_some();
    edit.changes.push(if does_without {
        Change::RemoveEmptyFolder {
            path: store_folder.clone(),
        }
    } else {
        Change::Write {
            path: format!("{store_folder}/{KEEP}"),
            old: None,
            new: NewContent::text(""),
        }
    });
}

fn is_empty_after(edit: &TreeEdit, root: &Path, folder: &str) -> bool {
    let after = EditedFiles::new(root, edit, Arc::new(DiskFiles));
    let entries = after.entries(&root.join(folder));
    entries.is_ok_and(|entries| entries.is_empty())
}
