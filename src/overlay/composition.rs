//! Composing: reading and merging the layers of one store and one app.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::Arc;

use rayon::prelude::*;

use super::content::ContentId;
use super::entry::{BaseEdits, Entry, FROM_BASE, is_from_base};
use super::layer::{Layer, LayerReader, Owner, base_folder};
use super::merge::{MergedPath, merge, winner};
use super::rules::{IgnoreRules, RuleOrigin};
use super::{Error, LayerProblem};
use crate::config::{BaseApp, Project};
use crate::store::{AppKind, AppName, Store, UnitId};

/// The files that one store's app has under `.out`. A value: nothing is written.
#[derive(Debug, Clone)]
pub struct Composition {
    /// The store and the app.
    pub unit: UnitId,
    /// The kind of app.
    pub kind: AppKind,
    /// Owners of the layers, the base app first, the store last.
    pub layers: Vec<Owner>,
    /// Every composed path, relative to the app, with `/`.
    pub entries: BTreeMap<Arc<str>, Entry>,
    /// Paths that an `ignorePaths` rule drops.
    pub dropped: BTreeMap<Arc<str>, DroppedPath>,
    /// Files of stores that are not used, since these files always come from the base app.
    pub unused: Vec<UnusedFile>,
}

/// A path that a rule drops.
#[derive(Debug, Clone)]
pub struct DroppedPath {
    /// The rule.
    pub origin: RuleOrigin,
    /// Indices of the layers that have the path, outermost first.
    pub layers: Vec<usize>,
}

/// A store's own `package.json` or `tsconfig.json`, which is not used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnusedFile {
    /// The file's name.
    pub path: &'static str,
    /// The layer's owner.
    pub owner: Owner,
}

impl Composition {
    /// The same composition with another `name` in `package.json`. The error is the reason.
    pub fn renamed(&self, name: &str) -> Result<Self, String> {
        let mut renamed = self.clone();
        if let Some(entry) = renamed.entries.get_mut("package.json") {
            *entry = entry.renamed(name)?;
        }
        Ok(renamed)
    }

    /// The number of files that each layer gives, in the order of the layers.
    pub fn files_by_layer(&self) -> Vec<(&Owner, usize)> {
        let mut counts = vec![0; self.layers.len()];
        for entry in self.entries.values() {
            counts[entry.winner()] += 1;
        }
        self.layers.iter().zip(counts).collect()
    }

    /// Identity of the composition: equal where every path, mode and content is equal.
    pub fn id(&self) -> ContentId {
        let mut listing = String::new();
        for (path, entry) in &self.entries {
            let mode = entry.mode();
            // Writing to a string cannot fail. NUL is the separator, since a path may have a newline.
            let _ = write!(listing, "{mode} {}\0{path}\0", entry.id());
        }
        ContentId::of(listing.as_bytes())
    }
}

/// Composes stores of one project. Each layer is read once, however many stores have it.
pub struct Composer<'a> {
    project: &'a Project,
    reader: &'a LayerReader,
}

/// The layers of several units, by owner and app.
#[derive(Debug, Default)]
pub struct Layers {
    edits: BaseEdits,
    by_owner: HashMap<(Owner, AppName), Arc<Layer>>,
}

impl Layers {
    /// Owner and app of each layer.
    pub fn keys(&self) -> impl Iterator<Item = &(Owner, AppName)> {
        self.by_owner.keys()
    }

    /// The same layers, with these instead of the layers of the same owner and app.
    #[must_use]
    pub fn with(&self, renewed: impl IntoIterator<Item = ((Owner, AppName), Arc<Layer>)>) -> Self {
        let mut by_owner = self.by_owner.clone();
        by_owner.extend(renewed);
        // Edits are known by the addresses of files, and a new file can have the address of an old one.
        Self {
            edits: BaseEdits::default(),
            by_owner,
        }
    }

    /// All layers.
    pub fn iter(&self) -> impl Iterator<Item = (&(Owner, AppName), &Arc<Layer>)> {
        self.by_owner.iter()
    }

    /// The layer of an owner for an app; `None` where the owner has no folder for it.
    pub fn get(&self, owner: &Owner, app: &AppName) -> Option<&Arc<Layer>> {
        self.by_owner.get(&(owner.clone(), app.clone()))
    }
}

impl<'a> Composer<'a> {
    /// A composer for the project whose layers `reader` reads.
    pub fn new(project: &'a Project, reader: &'a LayerReader) -> Self {
        Self { project, reader }
    }

    /// Composes every app of these stores. The error has the problems of all stores.
    pub fn compose(&self, stores: &[&Store]) -> Result<Vec<Composition>, Error> {
        let (layers, problems) = self.layers(stores, |_, _| None)?;
        fail_on(problems)?;
        self.compose_from(stores, &layers)
    }

    /// The same as [`Composer::compose`], from layers that are read already.
    pub fn compose_from(
        &self,
        stores: &[&Store],
        layers: &Layers,
    ) -> Result<Vec<Composition>, Error> {
        self.compose_units(&self.wanted(stores), layers)
    }

    /// Composes these apps of stores, from layers that are read already. The error has the problems of
    /// all of them.
    pub fn compose_units(
        &self,
        units: &[(&Store, &BaseApp)],
        layers: &Layers,
    ) -> Result<Vec<Composition>, Error> {
        let made: Vec<_> = units
            .par_iter()
            .map(|(store, app)| self.unit(store, app, layers).compose())
            .collect::<Result<_, Error>>()?;
        let mut problems = Vec::new();
        let mut compositions = Vec::new();
        for (composition, clashes) in made {
            compositions.push(composition);
            problems.extend(clashes);
        }
        fail_on(problems)?;
        Ok(compositions)
    }

    /// The stores, each with each of its apps.
    pub fn wanted<'s>(&self, stores: &[&'s Store]) -> Vec<(&'s Store, &'s BaseApp)>
    where
        'a: 's,
    {
        stores
            .iter()
            .flat_map(|store| self.project.apps_of(store).map(|app| (*store, app)))
            .collect()
    }

    /// The folder of each layer of the stores, relative to the project.
    pub fn folders(&self, stores: &[&Store]) -> BTreeMap<(Owner, AppName), String> {
        let mut folders = BTreeMap::new();
        for (store, app) in self.wanted(stores) {
            folders.insert((Owner::Base, app.name.clone()), base_folder(&app.name));
            for link in self.project.stores.lineage(store) {
                if let Some(folder) = link.folder_of(&app.name) {
                    folders.insert((Owner::Store(link.id.clone()), app.name.clone()), folder);
                }
            }
        }
        folders
    }

    /// Reads the layers of all units of the stores, each layer once. A layer that `known` returns for
    /// its owner and folder is not read.
    pub fn layers(
        &self,
        stores: &[&Store],
        known: impl Fn(&Owner, &str) -> Option<Arc<Layer>> + Sync,
    ) -> Result<(Layers, Vec<LayerProblem>), Error> {
        let read: Vec<_> = self
            .folders(stores)
            .into_par_iter()
            .map(|(key, folder)| {
                if let Some(layer) = known(&key.0, &folder) {
                    return Ok((key, layer, Vec::new()));
                }
                let (layer, problems) = self.reader.layer(key.0.clone(), &folder)?;
                Ok((key, Arc::new(layer), problems))
            })
            .collect::<Result<_, Error>>()?;
        let mut layers = Layers::default();
        let mut problems = Vec::new();
        for (key, layer, found) in read {
            problems.extend(found);
            layers.by_owner.insert(key, layer);
        }
        Ok((layers, problems))
    }

    /// The layers of one unit, and the rules that apply to it.
    pub fn unit<'l>(&self, store: &Store, app: &BaseApp, layers: &'l Layers) -> UnitLayers<'l> {
        let lineage = self.project.stores.lineage(store);
        let owners = lineage.iter().map(|link| Owner::Store(link.id.clone()));
        UnitLayers {
            unit: UnitId {
                store: store.id.clone(),
                app: app.name.clone(),
            },
            kind: app.kind,
            layers: [Owner::Base]
                .into_iter()
                .chain(owners)
                .filter_map(|owner| layers.get(&owner, &app.name).map(|layer| &**layer))
                .collect(),
            rules: IgnoreRules::new(&lineage),
            edits: &layers.edits,
            folder: self.reader.project().join(base_folder(&app.name)),
        }
    }
}

/// The layers of one unit and the rules that apply to it. Composes the whole unit, or answers for
/// single paths.
#[derive(Debug)]
pub struct UnitLayers<'l> {
    /// The store and the app.
    pub unit: UnitId,
    kind: AppKind,
    /// Outermost first: the base app's layer, then the stores' layers.
    pub layers: Vec<&'l Layer>,
    rules: IgnoreRules,
    edits: &'l BaseEdits,
    /// The base app's folder, for error messages.
    folder: PathBuf,
}

impl UnitLayers<'_> {
    /// The entry that the composition has at the path.
    pub fn entry(&self, path: &str) -> Result<Option<Entry>, Error> {
        let drops = !is_from_base(path) && self.rules.drops(path).is_some();
        let keep = |layer: usize, path: &str| !drops && (layer == 0 || !is_from_base(path));
        let merged = winner(&self.layers, keep, path);
        merged.map(|merged| self.resolve(path, merged)).transpose()
    }

    /// The rule that drops the path.
    pub fn dropped_by(&self, path: &str) -> Option<&RuleOrigin> {
        if is_from_base(path) {
            return None;
        }
        self.rules.drops(path)
    }

    /// The rules of the store's ancestors and its own.
    pub fn rules(&self) -> &IgnoreRules {
        &self.rules
    }

    fn resolve(&self, path: &str, merged: MergedPath) -> Result<Entry, Error> {
        Entry::new(&self.unit, path, merged, self.edits, &self.folder)
    }

    fn compose(self) -> Result<(Composition, Vec<LayerProblem>), Error> {
        let layers = &self.layers;
        let mut unused = Vec::new();
        for layer in &layers[1..] {
            for path in FROM_BASE {
                if layer.files.contains_key(path) {
                    unused.push(UnusedFile {
                        path,
                        owner: layer.owner.clone(),
                    });
                }
            }
        }
        let mut dropped = BTreeMap::<Arc<str>, DroppedPath>::new();
        for (index, layer) in layers.iter().enumerate() {
            for path in layer.files.keys() {
                if let Some(dropped) = dropped.get_mut(path) {
                    dropped.layers.push(index);
                } else if let Some(origin) = self.dropped_by(path) {
                    let (origin, layers) = (origin.clone(), vec![index]);
                    dropped.insert(Arc::clone(path), DroppedPath { origin, layers });
                }
            }
        }
        let keep = |layer: usize, path: &str| {
            if is_from_base(path) {
                layer == 0
            } else {
                !dropped.contains_key(path)
            }
        };
        let (merged, clashes) = merge(layers, keep);
        let problems = clashes
            .iter()
            .map(|clash| LayerProblem::Clash {
                path: format!("{}/{}", self.unit, clash.path),
                file: layers[clash.file].owner.to_string(),
                folder: layers[clash.folder].owner.to_string(),
                below: clash.below.to_string(),
            })
            .collect();
        // Collecting fills the nodes of the map; inserting one by one leaves them half empty.
        let entries = merged
            .into_iter()
            .map(|(path, merged)| Ok((Arc::clone(&path), self.resolve(&path, merged)?)))
            .collect::<Result<_, Error>>()?;
        let composition = Composition {
            layers: layers.iter().map(|layer| layer.owner.clone()).collect(),
            kind: self.kind,
            unit: self.unit,
            entries,
            dropped,
            unused,
        };
        Ok((composition, problems))
    }
}

/// An error with each problem once and in a stable order, if there are problems.
pub fn fail_on(mut problems: Vec<LayerProblem>) -> Result<(), Error> {
    problems.sort();
    problems.dedup();
    if problems.is_empty() {
        Ok(())
    } else {
        Err(Error::Files { problems })
    }
}
