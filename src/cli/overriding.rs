//! `store override`.

use std::path::PathBuf;
use std::process::Command;

use serde_json::json;

use super::arguments::{ConfirmOptions, Global, OverrideOptions};
use super::environment::{self, tell};
use super::run::document;
use super::show::Page;
use super::why::path_in_store;
use super::{Error, answer, drift, project};
use crate::config::Project;
use crate::edit::{
    OverrideChanged, OverrideProposal, TreeEdit, apply, copy_inherited, raise, revert,
};
use crate::error::Error as AnyError;
use crate::overlay::Owner;
use crate::pipeline::{self, ProjectLock};
use crate::store::Store;

pub fn override_files(global: &Global, options: &OverrideOptions) -> Result<(), AnyError> {
    let (project, _) = project(global)?;
    let store = store(&project, &options.store)?;
    let editor = if options.open {
        Some(environment::editor().ok_or(Error::NoEditor)?)
    } else {
        None
    };
    let given = options.paths.iter();
    let paths = given.map(|path| path_in_store(global, &project, store, path));
    let paths = paths.collect::<Result<Vec<_>, _>>()?;
    let proposal = proposal(&project, store, options, &paths)?;
    if proposal.edit.changes.is_empty() && !options.confirm.json {
        for note in &proposal.notes {
            tell(&format!("note: {note}"));
        }
        return answer(&format!("{} has no needless overrides\n", store.id));
    }
    show(&proposal, &options.confirm)?;
    if !make(&project, &proposal.edit, &options.confirm, "store override")? {
        return Ok(());
    }
    for changed in &proposal.files {
        tell(&done(changed));
    }
    match editor {
        Some(editor) => open(&project, &editor, &proposal.files),
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

fn show(proposal: &OverrideProposal, options: &ConfirmOptions) -> Result<(), AnyError> {
    if options.json {
        return document(&json!({
            "schemaVersion": 1,
            "command": proposal.edit.command,
            "files": proposal.files,
            "notes": proposal.notes,
            "changes": proposal.edit.document(),
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

/// Makes an edit that was shown, if the user confirms it. Returns whether it was made.
pub fn make(
    project: &Project,
    edit: &TreeEdit,
    options: &ConfirmOptions,
    command: &'static str,
) -> Result<bool, AnyError> {
    if options.dry_run {
        if !options.json {
            answer("Dry run: no file was changed.\n")?;
        }
        return Ok(false);
    }
    if !options.yes {
        if !environment::can_ask() {
            return Err(Error::UnconfirmedEdit { command }.into());
        }
        if !environment::confirms("Make these changes? [y/N] ") {
            answer("No file was changed.\n")?;
            return Ok(false);
        }
    }
    let _lock = ProjectLock::take_now(&project.root).map_err(pipeline::Error::from)?;
    apply(edit, &project.root)?;
    Ok(true)
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
fn open(project: &Project, editor: &str, files: &[OverrideChanged]) -> Result<(), AnyError> {
    let files = files.iter().filter_map(|changed| match changed {
        OverrideChanged::Copy { file, .. } => Some(project.root.join(file)),
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
