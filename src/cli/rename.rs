//! `store rename`.

use super::arguments::{Global, RenameOptions};
use super::edit::edit_tree;
use crate::edit;
use crate::error::Error as AnyError;

pub fn rename(global: &Global, options: &RenameOptions) -> Result<(), AnyError> {
    edit_tree(global, &options.edit, &|project| {
        Ok(edit::rename(project, &options.old, &options.new)?)
    })
}
