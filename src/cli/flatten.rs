//! `store flatten`.

use serde_json::json;

use super::arguments::{FlattenOptions, Global};
use super::environment::tell;
use super::overriding::make;
use super::project;
use super::run::document;
use super::show::Page;
use crate::edit;
use crate::error::Error as AnyError;
use crate::plan::Selection;

pub fn flatten(global: &Global, options: &FlattenOptions) -> Result<(), AnyError> {
    let (project, _) = project(global)?;
    let stores = Selection::Stores(vec![options.store.clone()]).stores(&project)?;
    for store in stores {
        let proposal = edit::flatten(&project, store, &options.to)?;
        if options.confirm.json {
            document(&json!({
                "schemaVersion": 1,
                "command": proposal.edit.command,
                "apps": proposal.apps,
                "notes": proposal.notes,
                "changes": proposal.edit.document(),
            }))?;
        } else {
            let mut page = Page::unpaged();
            for app in &proposal.apps {
                let files = if app.files == 1 { "file" } else { "files" };
                page.plain(&format!(
                    "create {}  {} {files}, package `{}`\n",
                    app.folder, app.files, app.package
                ));
            }
            for note in &proposal.notes {
                page.paragraph("note: ", note);
            }
            page.show()?;
        }
        if make(&project, &proposal.edit, &options.confirm, "store flatten")? {
            for app in &proposal.apps {
                tell(&format!("wrote {}", app.folder));
            }
            tell(&format!(
                "next: install dependencies and build the apps; then `alokai store remove {}` removes the store",
                store.id
            ));
        }
    }
    Ok(())
}
