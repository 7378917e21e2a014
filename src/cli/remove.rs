//! `store remove`.

use super::arguments::{Global, RemoveOptions};
use super::edit::edit_tree;
use crate::edit;
use crate::error::Error as AnyError;

pub fn remove(global: &Global, options: &RemoveOptions) -> Result<(), AnyError> {
    edit_tree(global, &options.edit, &|project| {
        let parent = options.reparent.as_deref();
        Ok(edit::remove(project, &options.id, parent)?)
    })
}
