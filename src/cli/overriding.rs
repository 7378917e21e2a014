//! `store override`.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;

use super::arguments::{EditOptions, Global, OverrideOptions};
use super::edit::confirmed;
use super::environment::{self, tell};
use super::run::document;
use super::show::Page;
use super::why::path_in_store;
use super::{Error, drift};
use crate::config::Project;
use crate::edit::{OverrideChanged, OverrideProposal, copy_inherited, raise, revert};
use crate::error::Error as AnyError;
use crate::overlay::Owner;
use crate::store::Store;

pub fn override_files(global: &Global, options: &OverrideOptions) -> Result<(), AnyError> {
    let editor = if options.open {
        Some(environment::editor().ok_or(Error::NoEditor)?)
    } else {
        None
    };
    let propose = |project: &Project| {
        let store = store(project, &options.store)?;
        let given = options.paths.iter();
        let paths = given.map(|path| path_in_store(global, project, store, path));
        let paths = paths.collect::<Result<Vec<_>, _>>()?;
        proposal(project, store, options, &paths)
    };
    let show = |proposal: &OverrideProposal, applied| show(proposal, &options.edit, applied);
    let Some(made) = confirmed(global, &options.edit, &propose, |it| &it.edit, &show)? else {
        return Ok(());
    };
    for changed in &made.proposal.files {
        tell(&done(changed));
    }
    let (proposal, root) = made.release();
    match editor {
        Some(editor) => open(&root, &editor, &proposal.files),
        None => Ok(()),
    }
}

fn proposal(
    project: &Project,
    store: &Store,
    options: &OverrideOptions,
    paths: &[String],
) -> Result<OverrideProposal, AnyError> {
    let command = |flag: &str| {
        let words = [&["alokai store override", flag, store.id.as_str()][..]].concat();
        let words = words.into_iter().filter(|word| !word.is_empty());
        let words = words.chain(paths.iter().map(String::as_str));
        words.collect::<Vec<_>>().join(" ")
    };
    if options.revert {
        return Ok(revert(project, store, paths, &command("--revert"))?);
    }
    if options.up {
        return Ok(raise(project, store, paths, &command("--up"))?);
    }
    let from = match options.from.as_deref() {
        None => None,
        Some("base") => Some(Owner::Base),
        Some(id) => Some(Owner::Store(self::store(project, id)?.id.clone())),
    };
    Ok(copy_inherited(
        project,
        store,
        paths,
        from.as_ref(),
        &command(""),
    )?)
}

/// The store or template with this id.
fn store<'a>(project: &'a Project, id: &str) -> Result<&'a Store, AnyError> {
    let mut stores = drift::stores(project, &[id.to_owned()])?;
    Ok(stores.remove(0))
}

fn show(proposal: &OverrideProposal, options: &EditOptions, applied: bool) -> Result<(), AnyError> {
    if options.json {
        return document(&json!({
            "schemaVersion": 1,
            "command": proposal.edit.command,
            "applied": applied,
            "changes": proposal.edit.document(),
            "files": proposal.files,
            "notes": proposal.notes,
        }));
    }
    let mut page = Page::unpaged();
    for changed in &proposal.files {
        page.plain(&changed.text());
    }
    for note in &proposal.notes {
        page.paragraph("note: ", note);
    }
    page.show()
}

fn done(changed: &OverrideChanged) -> String {
    match changed {
        OverrideChanged::Copy { file, .. } => format!("wrote {}", file.escape_debug()),
        OverrideChanged::Remove { file, .. } => format!("removed {}", file.escape_debug()),
        OverrideChanged::Raise { file, raised, .. } => {
            format!("moved {} to {}", file.escape_debug(), raised.escape_debug())
        }
    }
}

/// Opens the new files in the editor, and waits until it ends.
fn open(root: &Path, editor: &str, files: &[OverrideChanged]) -> Result<(), AnyError> {
    let files = files.iter().filter_map(|changed| match changed {
        OverrideChanged::Copy { file, .. } => Some(root.join(file)),
        _ => None,
    });
    let files: Vec<PathBuf> = files.collect();
    // As git does: the variable may have arguments.
    let mut command = Command::new("sh");
    command
        .args(["-c", &format!("{editor} \"$@\""), editor])
        .args(files);
    let failed = |reason: String| Error::Editor {
        editor: editor.to_owned(),
        reason,
    };
    let status = command
        .status()
        .map_err(|error| failed(error.to_string()))?;
    if !status.success() {
        return Err(failed(status.to_string()).into());
    }
    Ok(())
}
