//! `store list`: the tree of stores.

use std::fmt::Write as _;
use std::sync::Arc;

use serde_json::{Value, json};

use super::arguments::{Global, ListOptions};
use super::environment::tell;
use super::run::document;
use super::{answer, project};
use crate::config::Project;
use crate::error::Error as AnyError;
use crate::git::Repository;
use crate::overlay::{Composer, LayerReader, Layers, Owner, is_from_base};
use crate::store::{AppName, Store, StoreId};

pub fn list(global: &Global, options: &ListOptions) -> Result<(), AnyError> {
    let (project, _) = project(global)?;
    for notice in &project.notices {
        tell(&format!("note: {notice}"));
    }
    let repository = Repository::around(&project.root)?;
    // A `.env` file that git ignores is composed, but it is a setting of this machine and not a part
    // of the store.
    let lister = LayerReader::new(&project.root, repository.as_ref())?.as_stored();
    let stores: Vec<&Store> = project.stores.iter().collect();
    let (layers, _) = Composer::new(&project, &lister).layers(&stores, |_, _| None)?;
    if options.json {
        let stores = stores.iter().map(|store| entry(&project, store, &layers));
        let stores: Vec<_> = stores.collect();
        let apps: Vec<_> = project.apps.iter().map(|app| &app.name).collect();
        return document(&json!({ "schemaVersion": 1, "apps": apps, "stores": stores }));
    }
    let mut out = String::new();
    let apps: Vec<_> = project.apps.iter().map(|app| app.name.as_str()).collect();
    // Writing to a string cannot fail.
    let _ = writeln!(out, "root: {}", apps.join(", "));
    draw(&project, &layers, None, "", &mut out);
    answer(&out)
}

/// The number of files in a store's own layer of an app.
struct OwnFiles<'a> {
    app: &'a AppName,
    files: usize,
    /// How many of them override an inherited file.
    overrides: usize,
}

impl OwnFiles<'_> {
    /// `2 overrides, 1 addition`.
    fn counts(&self) -> String {
        let additions = self.files - self.overrides;
        let count = |count: usize, what: &str| match count {
            0 => None,
            1 => Some(format!("1 {what}")),
            count => Some(format!("{count} {what}s")),
        };
        let counts = [
            count(self.overrides, "override"),
            count(additions, "addition"),
        ];
        counts.into_iter().flatten().collect::<Vec<_>>().join(", ")
    }
}

fn own_layers<'a>(project: &Project, store: &'a Store, layers: &Layers) -> Vec<OwnFiles<'a>> {
    let lineage = project.stores.lineage(store);
    let above = lineage[..lineage.len() - 1].iter();
    let above: Vec<_> = [Owner::Base]
        .into_iter()
        .chain(above.map(|link| Owner::Store(link.id.clone())))
        .collect();
    let own = Owner::Store(store.id.clone());
    let of_app = |app: &'a AppName| {
        let layer = layers.get(&own, app)?;
        let hides = |path: &&Arc<str>| {
            let mut above = above.iter().filter_map(|owner| layers.get(owner, app));
            above.any(|layer| layer.files.contains_key(*path))
        };
        // An app that the store does not use overrides nothing.
        let used = || layer.files.keys().filter(|path| !is_from_base(path));
        Some(OwnFiles {
            app,
            files: used().count(),
            overrides: used().filter(hides).count(),
        })
    };
    store.apps.iter().filter_map(of_app).collect()
}

fn entry(project: &Project, store: &Store, layers: &Layers) -> Value {
    let apps: Vec<_> = project.apps_of(store).map(|app| &app.name).collect();
    let layers: serde_json::Map<_, _> = own_layers(project, store, layers)
        .into_iter()
        .map(|own| {
            let counts = json!({ "files": own.files, "overrides": own.overrides });
            (own.app.to_string(), counts)
        })
        .collect();
    json!({
        "storeId": store.id,
        "kind": if store.deployment.is_some() { "deployable" } else { "template" },
        "parent": store.parent,
        "folder": store.folder,
        "deployment": store.deployment,
        "apps": apps,
        "layers": layers,
    })
}

fn draw(
    project: &Project,
    layers: &Layers,
    parent: Option<&StoreId>,
    indent: &str,
    out: &mut String,
) {
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
        let layers_of = own_layers(project, store, layers);
        for own in layers_of.iter().filter(|own| own.files > 0) {
            let _ = writeln!(out, "{inner}{}: {}", own.app, own.counts());
        }
        draw(
            project,
            layers,
            Some(&store.id),
            &format!("{indent}{below}"),
            out,
        );
    }
}
