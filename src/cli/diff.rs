//! `store diff`.

use std::collections::BTreeMap;

use serde_json::json;

use super::arguments::{DiffOptions, Global};
use super::environment::{self, tell};
use super::run::document;
use super::show::Page;
use super::stat::{quoted, stat};
use crate::compare::{self, Diff, FileDiff};
use crate::config::Project;
use crate::error::Error as AnyError;
use crate::event::bytes;
use crate::plan::Selection;

pub fn diff(global: &Global, options: &DiffOptions) -> Result<(), AnyError> {
    let root = super::root(global)?;
    let app = options.app.as_deref();
    let diff = if let Some(other) = &options.other {
        let project = Project::load(&root)?;
        let chosen = vec![options.store.clone(), other.clone()];
        let stores = Selection::Stores(chosen).stores(&project)?;
        compare::between_stores(&project, stores[0], stores[stores.len() - 1], app)?
    } else {
        // With `--to`, the working tree plays no part.
        let since = options.since.as_deref().unwrap_or("HEAD");
        let store = options.store.as_str();
        compare::across_revisions(&root, (store, since), (store, options.to.as_deref()), app)?
    };
    if options.json {
        return document(&json!({
            "schemaVersion": 1,
            "old": diff.old,
            "new": diff.new,
            "files": diff.files,
        }));
    }
    let mut page = Page::new(&root);
    if options.name_status {
        for file in &diff.files {
            page.plain(&name_status(file));
        }
    } else if options.stat || options.patch {
        if options.stat {
            stat(&diff.files, environment::columns(), &mut page);
        }
        if options.stat && options.patch {
            page.plain("\n");
        }
        if options.patch {
            page.patch(&diff.patch.lines);
        }
    } else {
        overview(&diff, &mut page);
    }
    page.show()?;
    let binary = diff.files.iter().filter(|file| file.binary);
    let binary: Vec<_> = binary.map(|file| file.path.as_str()).collect();
    if options.patch && !binary.is_empty() {
        tell(&format!(
            "note: the patch does not contain these binary files: {}",
            binary.join(", ")
        ));
    }
    Ok(())
}

/// One file in the format of `git diff --name-status`.
fn name_status(file: &FileDiff) -> String {
    match (&file.old_path, file.similarity) {
        (Some(old), similarity) => {
            format!("R{:03}\t{old}\t{}\n", similarity.unwrap_or(0), file.path)
        }
        _ => format!("{}\t{}\n", file.status, quoted(&file.path)),
    }
}

/// The files that differ, grouped by the layers that make the difference.
fn overview(diff: &Diff, page: &mut Page) {
    let count = match diff.files.len() {
        0 => "no composed file differs".into(),
        1 => "1 file differs".into(),
        count => format!("{count} files differ"),
    };
    page.plain(&format!("{} → {}: {count}\n", diff.old, diff.new));
    by_layer(&diff.files, page);
}

/// Files, grouped by the layers that make the difference.
pub fn by_layer(files: &[FileDiff], page: &mut Page) {
    let mut groups = BTreeMap::<&str, Vec<&FileDiff>>::new();
    for file in files {
        groups.entry(&file.because).or_default().push(file);
    }
    for (because, files) in groups {
        page.plain("\n");
        page.title(because);
        for file in files {
            let from = file
                .old_path
                .as_ref()
                .map(|old| format!("{} → ", old.escape_debug()));
            let size = |size: Option<u64>| size.map_or_else(|| "nothing".into(), bytes);
            let binary = if file.binary {
                let (old, new) = (size(file.old_bytes), size(file.new_bytes));
                format!(" (binary, {old} → {new})")
            } else {
                String::new()
            };
            page.plain(&format!(
                "  {} {}{}{binary}\n",
                file.status,
                from.unwrap_or_default(),
                file.path.escape_debug()
            ));
        }
    }
}
