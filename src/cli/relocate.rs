//! `store move`.

use super::arguments::{Global, MoveOptions};
use super::edit::edit_tree;
use super::{Error, environment};
use crate::edit::{self, ROOT};
use crate::error::Error as AnyError;

pub fn relocate(global: &Global, options: &MoveOptions) -> Result<(), AnyError> {
    let mut ids = options.ids.clone();
    let mut parent = options.parent.clone().unwrap_or_default();
    if environment::can_ask() && !options.edit.yes {
        if ids.is_empty() {
            let line = environment::ask("Stores to move: ");
            let words = line.split([' ', ',']).filter(|word| !word.is_empty());
            ids = words.map(str::to_owned).collect();
        }
        if parent.is_empty() {
            parent = environment::ask(&format!("New parent (a store, or {ROOT}): "));
        }
    }
    let missing = |what| Error::MissingArgument {
        what,
        usage: "alokai store move <store>… --parent <store>",
    };
    if ids.is_empty() {
        return Err(missing("the store to move").into());
    }
    if parent.is_empty() {
        return Err(missing("the new parent").into());
    }
    edit_tree(global, &options.edit, &|project| {
        Ok(edit::relocate(project, &ids, &parent)?)
    })
}
