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
use crate::edit::{OverrideChanged, OverrideProposal, command_line, copy_inherited, raise, revert};
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
    if let Some(editor) = editor {
        open(&root, &editor, &proposal.files)?;
    }
    for next in proposal.next() {
        tell(&format!("next: {next}"));
    }
    Ok(())
}

fn proposal(
    project: &Project,
    store: &Store,
    options: &OverrideOptions,
    paths: &[String],
) -> Result<OverrideProposal, AnyError> {
    let mut words = vec!["override", store.id.as_str()];
    words.extend(paths.iter().map(String::as_str));
    if options.revert {
        words.push("--revert");
        return Ok(revert(project, store, paths, &command_line(&words))?);
    }
    if options.up {
        words.push("--up");
        return Ok(raise(project, store, paths, &command_line(&words))?);
    }
    if let Some(from) = &options.from {
        words.extend(["--from", from]);
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
        &command_line(&words),
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
            "next": proposal.next(),
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
