//! Cutting a store loose: its composed apps become ordinary apps in a folder beside `apps`.

use serde::Serialize;

use super::change::{Change, NewContent, TreeEdit, command_line};
use super::{Error, places};
use crate::compare;
use crate::config::Project;
use crate::git::Repository;
use crate::overlay::{Composer, Composition, Entry, FileKind, LayerReader, Layers, Owner, fail_on};

/// Folders beside which, and not in which, apps are written.
const RESERVED: [&str; 5] = ["apps", "packages", "node_modules", ".git", ".github"];

/// The apps of a store as ordinary apps.
#[derive(Debug, Clone)]
pub struct FlattenProposal {
    /// The changes.
    pub edit: TreeEdit,
    /// The apps.
    pub apps: Vec<FlattenedApp>,
    /// What the user has to know or to do.
    pub notes: Vec<String>,
}

/// One app.
#[derive(Debug, Clone, Serialize)]
pub struct FlattenedApp {
    /// Its folder, relative to the project.
    pub folder: String,
    /// The name in its `package.json`.
    pub package: String,
    /// The number of files.
    pub files: usize,
}

/// Writes the composed apps of a store to a folder directly in the project. There relative paths mean the
/// same as in `apps/<app>`, so `tsconfig.json` is the base app's; `package.json` has the unit's name,
/// since names of workspace packages are unique. The store itself stays.
pub fn flatten(project: &Project, id: &str, to: &str) -> Result<FlattenProposal, Error> {
    let store = places::store(project, id)?;
    if store.deployment.is_none() {
        return Err(Error::Option {
            message: format!("`{id}` is a template, which is never composed"),
            help: "flatten the deployable stores that inherit from it".into(),
        });
    }
    let to = to.trim_start_matches("./").trim_end_matches('/');
    check_folder(project, to)?;
    let repository = Repository::around(&project.root)?;
    let reader = LayerReader::new(&project.root, repository.as_ref())?;
    let composer = Composer::new(project, &reader);
    let (layers, problems) = composer.layers(&[store], |_, _| None)?;
    fail_on(problems)?;
    let compositions = composer.compose_from(&[store], &layers)?;
    let mut edit = TreeEdit::new(command_line(&["flatten", id, "--to", to]));
    let mut apps = Vec::new();
    let mut settings = Vec::new();
    for composition in &compositions {
        let folder = format!("{to}/{}", composition.unit.app);
        for (path, entry) in &composition.entries {
            let file = format!("{folder}/{path}");
            let name = path.rsplit('/').next().unwrap_or(path);
            if name == ".env" || name.starts_with(".env.") {
                settings.push(file.clone());
            }
            edit.changes.push(Change::Write {
                new: content(composition, path, entry, &layers, &file)?,
                path: file,
                old: None,
            });
        }
        apps.push(FlattenedApp {
            files: composition.entries.len(),
            package: composition.unit.package_name(),
            folder,
        });
    }
    edit.verify(&project.root)?;
    let mut notes = vec![workspaces(to), by_name(project, &compositions)];
    if !settings.is_empty() {
        notes.push(format!(
            "these files have settings, perhaps secrets; check them before you commit: {}",
            settings.join(", ")
        ));
    }
    notes.retain(|note| !note.is_empty());
    Ok(FlattenProposal { edit, apps, notes })
}

fn check_folder(project: &Project, to: &str) -> Result<(), Error> {
    let refused = |message: String, help: &str| {
        Err(Error::Option {
            message,
            help: help.to_owned(),
        })
    };
    let shown = to.escape_debug();
    if to.is_empty() || to.contains('/') || to.starts_with('.') {
        return refused(
            format!("`{shown}` is not the name of a folder directly in the project"),
            "choose a name such as `shop-us`: beside `apps`, relative paths such as `../../packages` stay right",
        );
    }
    let is_same = |name: &str| name.eq_ignore_ascii_case(to);
    if RESERVED.iter().any(|name| is_same(name)) {
        return refused(
            format!("`{shown}` has another meaning in a project"),
            "choose another name, such as `shop-us`",
        );
    }
    if project
        .stores
        .iter()
        .any(|store| is_same(store.id.as_str()))
    {
        return refused(
            format!("`{shown}` is the id of a store"),
            "choose another name, such as `shop-us`: names at the top of the project are no store ids",
        );
    }
    if project.root.join(to).symlink_metadata().is_ok() {
        return Err(Error::Exists {
            path: to.to_owned(),
        });
    }
    Ok(())
}

/// The content at a path. `tsconfig.json` is the base app's as it is.
fn content(
    composition: &Composition,
    path: &str,
    entry: &Entry,
    layers: &Layers,
    file: &str,
) -> Result<NewContent, Error> {
    let failed = |source| compare::Error::Read {
        path: file.to_owned(),
        source,
    };
    if let FileKind::Link { target } = entry.kind() {
        return Ok(NewContent::Link {
            target: target.to_string(),
        });
    }
    let base = layers.get(&Owner::Base, &composition.unit.app);
    let unedited = base.filter(|_| path == "tsconfig.json");
    let bytes = match unedited.and_then(|layer| layer.files.get(path)) {
        Some(unedited) => unedited.read(),
        None => entry.read(),
    };
    Ok(NewContent::File {
        bytes: bytes.map_err(failed)?,
        executable: matches!(entry.kind(), FileKind::File { executable: true }),
    })
}

/// How the package manager finds the apps.
fn workspaces(to: &str) -> String {
    format!(
        "add `{to}/*` to the workspaces of the project (`workspaces` in `package.json`, or `pnpm-workspace.yaml`), so that the package manager installs the dependencies of the apps"
    )
}

/// Apps that depend on another app by its package name: outside of a store it is the base app's.
fn by_name(project: &Project, compositions: &[Composition]) -> String {
    let packages = project
        .apps
        .iter()
        .filter_map(|app| app.package.name.as_ref());
    let packages: Vec<_> = packages.collect();
    let mut found = Vec::new();
    for composition in compositions {
        let app = &composition.unit.app;
        let Some(app) = project.apps.iter().find(|it| it.name == *app) else {
            continue;
        };
        let sections = [&app.package.dependencies, &app.package.dev_dependencies];
        let names = sections.into_iter().flat_map(|section| section.keys());
        for name in names.filter(|name| packages.contains(name)) {
            found.push(format!(
                "{} depends on `{name}`",
                composition.unit.package_name()
            ));
        }
    }
    if found.is_empty() {
        return String::new();
    }
    format!(
        "a package name means the base app, not the flattened one: {}; import the app by its relative path, or by its new name",
        found.join(", ")
    )
}
