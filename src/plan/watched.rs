//! The plan of a compose that is repeated while files change. It keeps the layers, so that after a change
//! only the changed folders are read, and only the apps with a changed layer are composed.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::select::ChosenUnits;
use super::{Error, Plan, PlannedRepository, Request, compose, selected};
use crate::config::Project;
use crate::git::Repository;
use crate::overlay::{
    Composer, Composition, KnownContents, Layer, LayerFile, LayerProblem, LayerReader, Layers,
    Owner, fail_on,
};
use crate::store::AppName;

/// The layers of the selected stores as they are on disk. They may not compose.
pub struct ListedLayers {
    project: Project,
    request: Request,
    repository: Option<Repository>,
    reader: LayerReader,
    layers: Layers,
    problems: Vec<LayerProblem>,
    /// The folder of each layer, relative to the project.
    folders: BTreeMap<(Owner, AppName), String>,
}

/// A plan with the layers that it was made of.
pub struct WatchedPlan {
    /// The project that was planned.
    pub project: Project,
    /// The plan.
    pub plan: Plan,
    reader: LayerReader,
    layers: Layers,
    folders: BTreeMap<(Owner, AppName), String>,
}

/// The composition of one app of one store, before and after a change.
#[derive(Debug, Clone)]
pub struct UnitChange {
    /// None for a unit that is new.
    pub before: Option<Arc<Composition>>,
    /// None for a unit that no longer exists.
    pub after: Option<Arc<Composition>>,
}

/// A layer before and after a change.
#[derive(Debug, Clone)]
pub struct LayerChange {
    /// Its owner.
    pub owner: Owner,
    /// Its app.
    pub app: AppName,
    /// The paths of the files that were added, removed or changed, relative to the app.
    pub paths: Vec<Arc<str>>,
}

impl ListedLayers {
    /// Reads the layers. Files with the same stamp as in an earlier call with the same `known` are not
    /// read.
    pub fn read(
        project: Project,
        request: Request,
        known: &Arc<KnownContents>,
    ) -> Result<Self, Error> {
        let repository = Repository::around(&project.root)?;
        let reader = LayerReader::new(&project.root, repository.as_ref())?;
        let reader = reader.remembering(Arc::clone(known));
        let stores = selected(&project, &request)?;
        let composer = Composer::new(&project, &reader);
        let folders = composer.folders(&stores);
        let (layers, problems) = composer.layers(&stores, |_, _| None)?;
        Ok(Self {
            project,
            request,
            repository,
            reader,
            layers,
            problems,
            folders,
        })
    }

    /// The folders whose entries decide which files the layers have, absolute.
    pub fn layer_folders(&self) -> impl Iterator<Item = &Path> {
        layer_folders(&self.layers)
    }

    /// The folders whose entries are the apps and stores of the project, absolute.
    pub fn tree_folders(&self) -> Vec<PathBuf> {
        let root = self.reader.project();
        let mut folders = vec![root.join("apps"), root.join("apps/stores")];
        let stores = self.project.stores.iter();
        for folder in stores.filter_map(|store| store.folder.as_ref()) {
            folders.push(root.join(folder));
            folders.push(root.join(folder).join("stores"));
        }
        folders
    }

    /// The project's folder and those above it up to the root of the repository, with links resolved.
    pub fn outer_folders(&self) -> Vec<PathBuf> {
        let folders = self.reader.project().ancestors();
        let boundary = self.reader.boundary();
        let folders = folders.take_while(|folder| folder.starts_with(boundary));
        folders.map(Path::to_owned).collect()
    }

    /// The files of git that decide which files the layers have.
    pub fn git_files(&self) -> Vec<PathBuf> {
        let repository = self.repository.as_ref();
        repository.map_or(Vec::new(), Repository::state_files)
    }

    /// Composes the layers and plans the run.
    pub fn plan(self) -> Result<WatchedPlan, Error> {
        fail_on(self.problems)?;
        let stores = selected(&self.project, &self.request)?;
        let chosen: ChosenUnits = self.request.filter.units(&self.project, &stores)?;
        let composer = Composer::new(&self.project, &self.reader);
        let stores = compose(&self.project, &composer, &self.layers, &stores, &chosen)?;
        let repository = PlannedRepository {
            repository: self.repository,
            revision: None,
            tag: None,
        };
        let plan = Plan::of_stores(
            &self.project,
            &self.request,
            repository,
            &self.reader,
            &chosen,
            stores,
        )?;
        Ok(WatchedPlan {
            plan,
            project: self.project,
            reader: self.reader,
            layers: self.layers,
            folders: self.folders,
        })
    }
}

fn layer_folders(layers: &Layers) -> impl Iterator<Item = &Path> {
    let folders = layers.iter().flat_map(|(_, layer)| &layer.folders);
    folders.map(PathBuf::as_path)
}

/// The paths at which two layers have another content or kind.
fn changed_paths(before: &Layer, after: &Layer) -> Vec<Arc<str>> {
    let is_same = |one: &LayerFile, other: &LayerFile| one.id == other.id && one.kind == other.kind;
    let files = after.files.iter();
    let written = files.filter(|(path, file)| {
        let before = before.files.get(*path);
        before.is_none_or(|before| !is_same(before, file))
    });
    let removed = before.files.keys();
    let removed = removed.filter(|path| !after.files.contains_key(*path));
    written
        .map(|(path, _)| path)
        .chain(removed)
        .cloned()
        .collect()
}

impl WatchedPlan {
    /// Whether the entries of the folder decide which files a layer has.
    pub fn is_layer_folder(&self, folder: &Path) -> bool {
        self.layers
            .iter()
            .any(|(_, layer)| layer.folders.contains(folder))
    }

    /// The folders of these layers, absolute.
    pub fn folders_of(&self, layers: &BTreeSet<(Owner, AppName)>) -> BTreeSet<&Path> {
        let layers = self.layers.iter().filter(|(key, _)| layers.contains(*key));
        let folders = layers.flat_map(|(_, layer)| &layer.folders);
        folders.map(PathBuf::as_path).collect()
    }

    /// Reads these folders again, without subfolders that are known already and are not below a path
    /// of `replaced`. Returns the layers that have these folders, with what has changed in them. Nothing is
    /// composed.
    pub fn read_again(
        &mut self,
        folders: &BTreeSet<PathBuf>,
        replaced: &BTreeSet<PathBuf>,
    ) -> Result<Vec<LayerChange>, Error> {
        let mut renewed = BTreeMap::<(Owner, AppName), Arc<Layer>>::new();
        let mut problems = Vec::new();
        let is_stale = |folder: &Path| replaced.iter().any(|path| folder.starts_with(path));
        for (key, layer) in self.layers.iter() {
            let Some(folder) = self.folders.get(key) else {
                continue;
            };
            let changed: Vec<&PathBuf> = folders
                .iter()
                .filter(|folder| layer.folders.contains(*folder))
                .collect();
            if changed.is_empty() {
                continue;
            }
            // A link that leads out of the layer can lead to any of the folders.
            if !layer.is_closed {
                let (layer, found) = self.reader.layer(key.0.clone(), folder)?;
                problems.extend(found);
                renewed.insert(key.clone(), Arc::new(layer));
                continue;
            }
            let root = self.reader.project().join(folder);
            let mut layer = Arc::clone(layer);
            for changed in changed {
                let Some(inner) = changed.strip_prefix(&root).ok().and_then(Path::to_str) else {
                    continue;
                };
                let (read, found) = self.reader.renewed(&layer, folder, inner, &is_stale)?;
                problems.extend(found);
                layer = Arc::new(read);
            }
            renewed.insert(key.clone(), layer);
        }
        fail_on(problems)?;
        let change = |(key, after): (&(Owner, AppName), &Arc<Layer>)| LayerChange {
            owner: key.0.clone(),
            app: key.1.clone(),
            paths: self
                .layers
                .get(&key.0, &key.1)
                .map_or(Vec::new(), |before| changed_paths(before, after)),
        };
        let changes = renewed.iter().map(change).collect();
        self.layers = self.layers.with(renewed);
        Ok(changes)
    }

    /// Composes the apps that have one of these layers again. Without an error, the plan has the new
    /// compositions.
    pub fn compose_again(
        &mut self,
        renewed: &BTreeSet<(Owner, AppName)>,
    ) -> Result<Vec<UnitChange>, Error> {
        let has_changed = |one: &Composition| {
            let mut owners = one.layers.iter();
            owners.any(|owner| renewed.contains(&(owner.clone(), one.unit.app.clone())))
        };
        let compositions = self.plan.compositions().filter(|one| has_changed(one));
        let units = compositions.filter_map(|one| {
            let store = self.project.stores.get(one.unit.store.as_str())?;
            Some((store, self.project.app(&one.unit.app)?))
        });
        let units: Vec<_> = units.collect();
        let composer = Composer::new(&self.project, &self.reader);
        let compositions = composer.compose_units(&units, &self.layers)?;
        let mut changes = Vec::new();
        for after in compositions.into_iter().map(Arc::new) {
            let stores = self.plan.stores.iter_mut();
            let mut compositions = stores.flat_map(|store| &mut store.compositions);
            if let Some(place) = compositions.find(|one| one.unit == after.unit) {
                let before = std::mem::replace(place, Arc::clone(&after));
                changes.push(UnitChange {
                    before: Some(before),
                    after: Some(after),
                });
            }
        }
        Ok(changes)
    }

    /// The compositions that differ from those of an earlier plan, or may differ.
    pub fn changes_since(&self, earlier: &Plan) -> Vec<UnitChange> {
        let mut changes = Vec::new();
        for before in earlier.compositions() {
            changes.push(UnitChange {
                before: Some(Arc::clone(before)),
                after: self.plan.composition(&before.unit).cloned(),
            });
        }
        for after in self.plan.compositions() {
            if earlier.composition(&after.unit).is_none() {
                changes.push(UnitChange {
                    before: None,
                    after: Some(Arc::clone(after)),
                });
            }
        }
        changes
    }
}
