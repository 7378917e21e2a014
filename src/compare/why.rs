//! Why is this file the one it is: who gives it, whom it hides, which rule dropped it.

use serde::Serialize;

use super::{Error, OFFERED, owner_folder};
use crate::config::Project;
use crate::git::{Commit, Repository};
use crate::overlay::{Composer, Composition, EntryContent, FileKind, LayerReader};
use crate::store::{AppName, Store, StoreId, UnitId};

/// The answer.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Why {
    /// The store.
    pub store_id: StoreId,
    /// The store and the app.
    #[serde(skip)]
    pub unit: UnitId,
    /// The app.
    pub app: AppName,
    /// Relative to the app.
    pub path: String,
    /// Who gives it; nobody when it is dropped.
    pub winner: Option<LayerAnswer>,
    /// Whose file is not seen, nearest first.
    pub hidden: Vec<LayerAnswer>,
    /// The rule that dropped it.
    pub dropped: Option<DroppedBy>,
    /// What is special about the file, as a sentence.
    pub special: Option<String>,
}

/// `<app>/<path>` of what a path of the project is in the composed store: a file of one of its
/// layers, or of `.out`.
pub fn composed_path(project: &Project, store: &Store, path: &str) -> Option<String> {
    let out = format!(".out/{}/", store.id);
    if let Some(inside) = path.strip_prefix(&out) {
        return Some(inside.to_owned());
    }
    let lineage = project.stores.lineage(store);
    let folders = lineage.iter().rev().filter_map(|link| link.folder.clone());
    let mut inside = folders
        .chain(["apps".to_owned()])
        .filter_map(|folder| path.strip_prefix(&folder)?.strip_prefix('/'));
    let is_of_app = |path: &&str| {
        let app = path.split('/').next();
        project
            .apps
            .iter()
            .any(|one| Some(one.name.as_str()) == app)
    };
    inside.find(is_of_app).map(str::to_owned)
}

/// One layer's file.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LayerAnswer {
    /// `base` or a store's id.
    pub layer: String,
    /// Relative to the project.
    pub file: String,
    /// The commit that last changed it; none while it is in none.
    pub last_commit: Option<Commit>,
}

/// An `ignorePaths` rule and its place.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DroppedBy {
    /// As written.
    pub rule: String,
    /// The store in whose list it is.
    pub store_id: String,
    /// Line in the config file, from 1.
    pub line: Option<usize>,
}

/// Answers for `<app>/<path>` of a store.
pub fn why(project: &Project, store: &Store, path: &str) -> Result<Why, Error> {
    let unknown_app = || Error::App {
        path: path.to_owned(),
        store: store.id.to_string(),
        apps: project
            .apps_of(store)
            .map(|app| app.name.to_string())
            .collect(),
    };
    let (app, inner) = path
        .trim_start_matches("./")
        .split_once('/')
        .ok_or_else(unknown_app)?;
    let repository = Repository::around(&project.root)?;
    let lister = LayerReader::new(&project.root, repository.as_ref())?;
    let compositions = Composer::new(project, &lister).compose(&[store])?;
    let composition = compositions
        .into_iter()
        .find(|composition| composition.unit.app.as_str() == app)
        .ok_or_else(unknown_app)?;
    let layer = |index: usize| -> Result<LayerAnswer, Error> {
        let owner = &composition.layers[index];
        let file = format!(
            "{}/{inner}",
            owner_folder(project, owner, &composition.unit.app)
        );
        let last_commit = match &repository {
            Some(repository) => repository.last_commit(&file)?,
            None => None,
        };
        Ok(LayerAnswer {
            layer: owner.to_string(),
            file,
            last_commit,
        })
    };
    let mut why = Why {
        store_id: store.id.clone(),
        app: composition.unit.app.clone(),
        unit: composition.unit.clone(),
        path: inner.to_owned(),
        winner: None,
        hidden: Vec::new(),
        dropped: None,
        special: special(&composition, inner),
    };
    if let Some(entry) = composition.entries.get(inner) {
        why.winner = Some(layer(entry.winner())?);
        let hidden = entry.hidden().rev();
        why.hidden = hidden.map(layer).collect::<Result<_, _>>()?;
    } else if let Some(dropped) = composition.dropped.get(inner) {
        let origin = &dropped.origin;
        let position = origin.position.to_string();
        let pointer = ["stores", origin.store.as_str(), "ignorePaths", &position];
        let layers = dropped.layers.iter().rev();
        why.hidden = layers
            .map(|index| layer(*index))
            .collect::<Result<_, _>>()?;
        why.dropped = Some(DroppedBy {
            rule: origin.rule.clone(),
            store_id: origin.store.to_string(),
            line: project.config_line(&pointer),
        });
    } else {
        return Err(Error::Path {
            unit: composition.unit.clone(),
            path: inner.to_owned(),
            nearest: nearest(&composition, inner),
            others: others(project, store, &composition.unit, inner),
        });
    }
    Ok(why)
}

fn special(composition: &Composition, path: &str) -> Option<String> {
    let unused: Vec<_> = composition
        .unused
        .iter()
        .filter(|unused| unused.path == path)
        .map(|unused| format!("`{}`", unused.owner))
        .collect();
    let not_used = match unused.as_slice() {
        [] => String::new(),
        owners => format!("; that of {} is not used", owners.join(" and ")),
    };
    let entry = composition.entries.get(path)?;
    match (path, entry.body(), entry.kind()) {
        ("package.json", EntryContent::Text(_), _) => Some(format!(
            "always comes from the base app, under the name `{}`{not_used}",
            composition.unit.package_name()
        )),
        ("tsconfig.json", EntryContent::Text(_), _) => Some(format!(
            "always comes from the base app; paths that leave `apps/` gain one `../`{not_used}"
        )),
        (_, _, FileKind::Link { target }) => Some(format!("is a link to `{target}`")),
        _ => None,
    }
}

/// Stores that are no ancestors, and have the file in their own folder.
fn others(project: &Project, store: &Store, unit: &UnitId, path: &str) -> Vec<String> {
    let lineage = project.stores.lineage(store);
    let others = project.stores.iter().filter(|other| {
        let is_ancestor = lineage.iter().any(|link| link.id == other.id);
        let folder = other.folder_of(&unit.app).filter(|_| !is_ancestor);
        folder.is_some_and(|folder| project.root.join(folder).join(path).is_file())
    });
    others.map(|other| format!("`{}`", other.id)).collect()
}

/// Existing paths most like the unknown one: the same name elsewhere comes first.
fn nearest(composition: &Composition, path: &str) -> Vec<String> {
    let name = |path: &str| path.rsplit('/').next().unwrap_or_default().to_owned();
    let wanted = name(path);
    let mut all: Vec<_> = composition
        .entries
        .keys()
        .chain(composition.dropped.keys())
        .map(|known| {
            let likeness = strsim::normalized_levenshtein(path, known)
                + strsim::normalized_levenshtein(&wanted, &name(known));
            (likeness, known)
        })
        .collect();
    all.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(b.1)));
    all.into_iter()
        .take(OFFERED)
        .map(|(_, path)| path.to_string())
        .collect()
}
