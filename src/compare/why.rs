//! Why a composed file is what it is: which layer gives it, which layers it hides, which rule drops it.

use serde::Serialize;

use super::{Error, OFFERED, owner_folder};
use crate::config::Project;
use crate::git::{Commit, Repository};
use crate::overlay::{Composer, Composition, EntryContent, FileKind, LayerReader, RuleOrigin};
use crate::store::{AppName, Store, StoreId, UnitId};

/// The answer of [`why`].
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
    /// The layer that gives the file; `None` where a rule drops it.
    pub winner: Option<LayerAnswer>,
    /// The layers whose file is hidden or dropped, nearest first.
    pub hidden: Vec<LayerAnswer>,
    /// The rule that drops the file.
    pub dropped: Option<DroppedBy>,
    /// How the file is treated specially, as the predicate of a sentence.
    pub special: Option<String>,
}

/// The composed path (`<app>/<path>`) of a path of the project: a file of one of the store's layers,
/// or a file under `.out`.
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

/// The file of one layer.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LayerAnswer {
    /// `base` or a store's id.
    pub layer: String,
    /// Relative to the project.
    pub file: String,
    /// The commit that last changed it; `None` while no commit has it.
    pub last_commit: Option<Commit>,
}

/// An `ignorePaths` rule and its place in the config.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DroppedBy {
    /// The rule as written.
    pub rule: String,
    /// The store whose `ignorePaths` has it.
    pub store_id: String,
    /// Line in the config file, counted from 1.
    pub line: Option<usize>,
}

/// Splits `<app>/<path>` of a store. The path of the app's folder is empty. It is an error if the store has
/// no such app.
pub fn split_path<'p>(
    project: &Project,
    store: &Store,
    path: &'p str,
) -> Result<(AppName, &'p str), Error> {
    let inside = path.trim_start_matches("./");
    let (name, path_in_app) = inside.split_once('/').unwrap_or((inside, ""));
    let mut apps = project.apps_of(store).map(|app| &app.name);
    let app = apps.find(|app| app.as_str() == name);
    app.map(|app| (app.clone(), path_in_app))
        .ok_or_else(|| Error::App {
            path: path.to_owned(),
            store: store.id.to_string(),
            apps: project
                .apps_of(store)
                .map(|app| app.name.to_string())
                .collect(),
        })
}

/// The number of files that a composition has in a folder. The path of the app's folder is empty.
pub fn files_in(composition: &Composition, folder: &str) -> usize {
    let folder = folder.trim_end_matches('/');
    let paths = composition.entries.keys().map(|path| &**path);
    let is_inside = |path: &&str| {
        let rest = path.strip_prefix(folder);
        folder.is_empty() || rest.is_some_and(|rest| rest.starts_with('/'))
    };
    paths.filter(is_inside).count()
}

/// The error for a path at which a composition has no file. It names similar paths.
pub fn unknown_path(
    project: &Project,
    store: &Store,
    composition: &Composition,
    path: &str,
) -> Error {
    let files = files_in(composition, path);
    if files > 0 {
        let path = format!("{}/{path}", composition.unit.app);
        return Error::Folder {
            path: path.trim_end_matches('/').to_owned(),
            files,
        };
    }
    let known = composition.entries.keys().chain(composition.dropped.keys());
    Error::Path {
        unit: composition.unit.clone(),
        path: path.to_owned(),
        nearest: nearest_paths(known.map(|path| &**path), path),
        others: others(project, store, &composition.unit, path),
    }
}

/// Says which layers have `<app>/<path>` of a store, and which of them gives the file.
pub fn why(project: &Project, store: &Store, path: &str) -> Result<Why, Error> {
    let (app, path_in_app) = split_path(project, store, path)?;
    let repository = Repository::around(&project.root)?;
    let reader = LayerReader::new(&project.root, repository.as_ref())?;
    let compositions = Composer::new(project, &reader).compose(&[store])?;
    let composition = compositions
        .into_iter()
        .find(|composition| composition.unit.app == app);
    let Some(composition) = composition else {
        return Err(Error::App {
            path: path.to_owned(),
            store: store.id.to_string(),
            apps: Vec::new(),
        });
    };
    let question = Question {
        project,
        repository: repository.as_ref(),
        composition: &composition,
        path: path_in_app,
    };
    question
        .answer()?
        .ok_or_else(|| unknown_path(project, store, &composition, path_in_app))
}

/// One path of one composition.
struct Question<'a> {
    project: &'a Project,
    repository: Option<&'a Repository>,
    composition: &'a Composition,
    /// Relative to the app.
    path: &'a str,
}

impl Question<'_> {
    /// `None` where no layer has the path.
    fn answer(&self) -> Result<Option<Why>, Error> {
        let (winner, hidden, dropped) = if let Some(entry) = self.composition.entries.get(self.path)
        {
            let winner = self.layer(entry.winner())?;
            (Some(winner), self.layers(entry.hidden().rev())?, None)
        } else if let Some(dropped) = self.composition.dropped.get(self.path) {
            let layers = dropped.layers.iter().rev().copied();
            (None, self.layers(layers)?, Some(self.rule(&dropped.origin)))
        } else {
            return Ok(None);
        };
        let unit = self.composition.unit.clone();
        Ok(Some(Why {
            store_id: unit.store.clone(),
            app: unit.app.clone(),
            unit,
            path: self.path.to_owned(),
            winner,
            hidden,
            dropped,
            special: special(self.composition, self.path),
        }))
    }

    fn layers(&self, indices: impl Iterator<Item = usize>) -> Result<Vec<LayerAnswer>, Error> {
        indices.map(|index| self.layer(index)).collect()
    }

    /// The path's file in the layer at an index of the composition.
    fn layer(&self, index: usize) -> Result<LayerAnswer, Error> {
        let owner = &self.composition.layers[index];
        let folder = owner_folder(self.project, owner, &self.composition.unit.app);
        let file = format!("{folder}/{}", self.path);
        let last_commit = match self.repository {
            Some(repository) => repository.last_commit(&file)?,
            None => None,
        };
        Ok(LayerAnswer {
            layer: owner.to_string(),
            file,
            last_commit,
        })
    }

    fn rule(&self, origin: &RuleOrigin) -> DroppedBy {
        let position = origin.position.to_string();
        let pointer = ["stores", origin.store.as_str(), "ignorePaths", &position];
        DroppedBy {
            rule: origin.rule.clone(),
            store_id: origin.store.to_string(),
            line: self.project.config_line(&pointer),
        }
    }
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
        owners => format!("; the file of {} is not used", owners.join(" and ")),
    };
    let entry = composition.entries.get(path)?;
    match (path, entry.content(), entry.kind()) {
        ("package.json", EntryContent::Text(_), _) => Some(format!(
            "always comes from the base app, with the name `{}`{not_used}",
            composition.unit.package_name()
        )),
        ("tsconfig.json", EntryContent::Text(_), _) => Some(format!(
            "always comes from the base app; paths out of `apps/` get one more `../`{not_used}"
        )),
        (_, _, FileKind::Link { target }) => Some(format!("is a link to `{target}`")),
        _ => None,
    }
}

/// Other stores, no ancestors of this one, that have the file in their own folder.
fn others(project: &Project, store: &Store, unit: &UnitId, path: &str) -> Vec<String> {
    let lineage = project.stores.lineage(store);
    let others = project.stores.iter().filter(|other| {
        let is_ancestor = lineage.iter().any(|link| link.id == other.id);
        let folder = other.folder_of(&unit.app).filter(|_| !is_ancestor);
        folder.is_some_and(|folder| project.root.join(folder).join(path).is_file())
    });
    others.map(|other| format!("`{}`", other.id)).collect()
}

/// The known paths most similar to an unknown one. A file with the same name in another folder comes
/// first.
pub fn nearest_paths<'k>(known: impl Iterator<Item = &'k str>, path: &str) -> Vec<String> {
    let name = |path: &str| path.rsplit('/').next().unwrap_or_default().to_owned();
    let wanted = name(path);
    let mut all: Vec<_> = known
        .map(|known| {
            let similarity = strsim::normalized_levenshtein(path, known)
                + strsim::normalized_levenshtein(&wanted, &name(known));
            (similarity, known)
        })
        .collect();
    all.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(b.1)));
    all.into_iter()
        .take(OFFERED)
        .map(|(_, path)| path.to_owned())
        .collect()
}
