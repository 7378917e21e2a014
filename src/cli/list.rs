//! `store list`: the tree of stores.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::arguments::{Global, ListOptions};
use super::environment::tell;
use super::run::document;
use super::{answer, project};
use crate::config::Project;
use crate::error::Error as AnyError;
use crate::git::Repository;
use crate::overlay::{Lister, Owner};
use crate::store::{Store, StoreId};

pub fn list(global: &Global, options: &ListOptions) -> Result<(), AnyError> {
    let (project, _) = project(global)?;
    for notice in &project.notices {
        tell(&format!("note: {notice}"));
    }
    let repository = Repository::around(&project.root)?;
    let lister = Lister::new(&project.root, repository.as_ref())?;
    if options.json {
        let stores = project
            .stores
            .iter()
            .map(|store| Ok(entry(&project, store, &overrides(&lister, store)?)))
            .collect::<Result<Vec<_>, AnyError>>()?;
        let apps: Vec<_> = project.apps.iter().map(|app| &app.name).collect();
        return document(&json!({ "schemaVersion": 1, "apps": apps, "stores": stores }));
    }
    let mut out = String::new();
    let apps: Vec<_> = project.apps.iter().map(|app| app.name.as_str()).collect();
    // Writing to a string cannot fail.
    let _ = writeln!(out, "root: {}", apps.join(", "));
    draw(&project, &lister, None, "", &mut out)?;
    answer(&out)
}

/// For each app, how many files the store's own layer has.
fn overrides(lister: &Lister, store: &Store) -> Result<Vec<(String, usize)>, AnyError> {
    let mut counts = Vec::new();
    for app in &store.apps {
        if let Some(folder) = &store.folder {
            let (layer, _) =
                lister.layer(Owner::Store(store.id.clone()), &format!("{folder}/{app}"))?;
            counts.push((app.to_string(), layer.files.len()));
        }
    }
    Ok(counts)
}

fn entry(project: &Project, store: &Store, overrides: &[(String, usize)]) -> Value {
    let apps: Vec<_> = project.apps_of(store).map(|app| &app.name).collect();
    let overrides: serde_json::Map<_, _> = overrides
        .iter()
        .map(|(app, files)| (app.clone(), json!(files)))
        .collect();
    json!({
        "storeId": store.id,
        "kind": if store.deployment.is_some() { "deployable" } else { "template" },
        "parent": store.parent,
        "folder": store.folder,
        "deployment": store.deployment,
        "apps": apps,
        "overrides": overrides,
    })
}

fn draw(
    project: &Project,
    lister: &Lister,
    parent: Option<&StoreId>,
    indent: &str,
    out: &mut String,
) -> Result<(), AnyError> {
    let children: Vec<_> = project.stores.children(parent).collect();
    for (position, store) in children.iter().enumerate() {
        let last = position + 1 == children.len();
        let (branch, below) = if last {
            ("└── ", "    ")
        } else {
            ("├── ", "│   ")
        };
        let kind = match &store.deployment {
            None => "template".into(),
            Some(deployment) => {
                let framework = deployment
                    .framework
                    .map(|name| format!(" {name}"))
                    .unwrap_or_default();
                format!(
                    "deployable{framework}, {} in {}",
                    deployment.project_name, deployment.cloud_region
                )
            }
        };
        // Writing to a string cannot fail.
        let _ = writeln!(out, "{indent}{branch}{}  {kind}", store.id);
        let has_children = project.stores.children(Some(&store.id)).next().is_some();
        let inner = format!(
            "{indent}{below}{}",
            if has_children { "│   " } else { "    " }
        );
        for (app, files) in overrides(lister, store)? {
            let files = if files == 1 {
                "1 file".into()
            } else {
                format!("{files} files")
            };
            let _ = writeln!(out, "{inner}{app}: {files}");
        }
        draw(
            project,
            lister,
            Some(&store.id),
            &format!("{indent}{below}"),
            out,
        )?;
    }
    Ok(())
}
