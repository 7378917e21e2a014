//! `store move`.

use super::arguments::{Global, MoveOptions};
use super::edit::edit_tree;
use super::{Error, environment, project, questions};
use crate::config::Project;
use crate::edit;
use crate::error::Error as AnyError;

pub fn relocate(global: &Global, options: &MoveOptions) -> Result<(), AnyError> {
    let mut ids = options.ids.clone();
    let mut parent = options.parent.clone().unwrap_or_default();
    if environment::can_ask() && !options.edit.yes {
        let (project, _) = project(global)?;
        if ids.is_empty() {
            let asked = questions::ask("Stores to move: ", |line| stores(&project, line));
            ids = asked.unwrap_or_default();
        }
        if parent.is_empty() && !ids.is_empty() {
            let asked = questions::parent(&project, "New parent", None);
            parent = asked.unwrap_or_default();
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

/// The ids in a line, with spaces or commas between them. A blank line has none.
fn stores(project: &Project, line: &str) -> Result<Vec<String>, AnyError> {
    let words = line.split([' ', ',']).filter(|word| !word.is_empty());
    let ids = words.map(|id| Ok(edit::store(project, id)?.id.to_string()));
    ids.collect()
}
