//! `store flatten`.

use serde_json::json;

use super::arguments::{EditOptions, FlattenOptions, Global};
use super::edit::confirmed;
use super::environment::tell;
use super::run::document;
use super::show::Page;
use crate::config::Project;
use crate::edit::{self, FlattenProposal};
use crate::error::Error as AnyError;

pub fn flatten(global: &Global, options: &FlattenOptions) -> Result<(), AnyError> {
    let propose = |project: &Project| Ok(edit::flatten(project, &options.store, &options.to)?);
    let show = |proposal: &FlattenProposal, applied| show(proposal, &options.edit, applied);
    let made = confirmed(global, &options.edit, &propose, |it| &it.edit, &show)?;
    let Some(made) = made else {
        return Ok(());
    };
    for app in &made.proposal.apps {
        tell(&format!("wrote {}", app.folder));
    }
    tell(&format!(
        "next: install the dependencies, build the apps, and commit them; then `alokai store remove {}` removes the store",
        options.store
    ));
    Ok(())
}

fn show(proposal: &FlattenProposal, options: &EditOptions, applied: bool) -> Result<(), AnyError> {
    if options.json {
        return document(&json!({
            "schemaVersion": 1,
            "command": proposal.edit.command,
            "applied": applied,
            "changes": proposal.edit.document(),
            "apps": proposal.apps,
            "notes": proposal.notes,
        }));
    }
    let mut page = Page::unpaged();
    for app in &proposal.apps {
        let files = if app.files == 1 { "file" } else { "files" };
        page.plain(&format!(
            "create {} ({} {files}, package `{}`)\n",
            app.folder, app.files, app.package
        ));
    }
    for note in &proposal.notes {
        page.paragraph("note: ", note);
    }
    page.show()
}
