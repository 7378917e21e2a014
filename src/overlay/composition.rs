//! What layers make together, for one store and one app.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
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

/// One store's app as it would lie under `.out`: a value, independent of the disk.
#[derive(Debug, Clone)]
pub struct Composition {
    /// The store and the app.
    pub unit: UnitId,
    /// What the app is.
    pub kind: AppKind,
    /// Owners of the layers, the base app first, the store last.
    pub layers: Vec<Owner>,
    /// Every path, relative to the app, with `/`.
    pub entries: BTreeMap<Arc<str>, Entry>,
    /// Paths that an `ignorePaths` rule dropped, with the rule.
    pub dropped: BTreeMap<Arc<str>, DroppedPath>,
    /// Files of stores that are not used, since they come from the base app.
    pub unused: Vec<UnusedFile>,
    /// Whether the base app has `node_modules` of its own, which the composed app links to.
    pub own_node_modules: bool,
}

/// A path that a rule keeps out.
#[derive(Debug, Clone)]
pub struct DroppedPath {
    /// The rule.
    pub origin: RuleOrigin,
    /// Indices of the layers that have it, outermost first.
    pub layers: Vec<usize>,
}

/// A store's own `package.json` or `tsconfig.json`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnusedFile {
    /// The file's name.
    pub path: &'static str,
    /// Whose it is.
    pub owner: Owner,
}

impl Composition {
    /// The same files with another name in `package.json`.
    pub fn renamed(&self, name: &str) -> Result<Self, String> {
        let mut renamed = self.clone();
        if let Some(entry) = renamed.entries.get_mut("package.json") {
            *entry = entry.renamed(name)?;
        }
        Ok(renamed)
    }

    /// How many files each layer gives, in the order of the layers.
    pub fn files_by_layer(&self) -> Vec<(&Owner, usize)> {
        let mut counts = vec![0; self.layers.len()];
        for entry in self.entries.values() {
            counts[entry.winner()] += 1;
        }
        self.layers.iter().zip(counts).collect()
    }

    /// Identity of the whole: equal when every path, mode and content is.
    pub fn id(&self) -> ContentId {
        let mut listing = String::new();
        for (path, entry) in &self.entries {
            let mode = entry.mode();
            // Writing to a string cannot fail. NUL separates, since a path may hold a newline.
            let _ = write!(listing, "{mode} {}\0{path}\0", entry.id());
        }
        ContentId::of(listing.as_bytes())
    }
}

/// Composes stores of one project; every layer is listed once, however many stores take it.
pub struct Composer<'a> {
    project: &'a Project,
    lister: &'a LayerReader,
}

/// A store together with one of its apps.
type Wanted<'a> = (&'a Store, &'a BaseApp);

/// Listed layers, by owner and app.
#[derive(Debug, Default)]
pub struct Layers {
    edits: BaseEdits,
    listed: HashMap<(Owner, AppName), Arc<Layer>>,
}

impl Layers {
    /// Who has a layer, and for which app.
    pub fn keys(&self) -> impl Iterator<Item = &(Owner, AppName)> {
        self.listed.keys()
    }

    /// The layer, if its owner has a folder for the app.
    pub fn get(&self, owner: &Owner, app: &AppName) -> Option<&Arc<Layer>> {
        self.listed.get(&(owner.clone(), app.clone()))
    }
}

impl<'a> Composer<'a> {
    /// Gets ready to compose; the lister's files are the project's.
    pub fn new(project: &'a Project, lister: &'a LayerReader) -> Self {
        Self { project, lister }
    }

    /// Composes every app of these stores. All problems of all stores come at once.
    pub fn compose(&self, stores: &[&Store]) -> Result<Vec<Composition>, Error> {
        let (layers, problems) = self.layers(stores, |_, _| None)?;
        fail_on(problems)?;
        self.compose_listed(stores, &layers)
    }

    /// The same from layers that are listed already.
    pub fn compose_listed(
        &self,
        stores: &[&Store],
        layers: &Layers,
    ) -> Result<Vec<Composition>, Error> {
        let made: Vec<_> = self
            .wanted(stores)
            .par_iter()
            .map(|(store, app)| self.view(store, app, layers).compose(self))
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

    fn wanted<'s>(&self, stores: &[&'s Store]) -> Vec<Wanted<'s>>
    where
        'a: 's,
    {
        stores
            .iter()
            .flat_map(|store| self.project.apps_of(store).map(|app| (*store, app)))
            .collect()
    }

    /// Lists each layer that any unit of the stores has, once, but for those that `known`
    /// (asked with the owner and the folder) has already.
    pub fn layers(
        &self,
        stores: &[&Store],
        known: impl Fn(&Owner, &str) -> Option<Arc<Layer>> + Sync,
    ) -> Result<(Layers, Vec<LayerProblem>), Error> {
        let mut folders = BTreeMap::new();
        for (store, app) in self.wanted(stores) {
            folders.insert((Owner::Base, app.name.clone()), base_folder(&app.name));
            for link in self.project.stores.lineage(store) {
                if let Some(folder) = link.folder_of(&app.name) {
                    folders.insert((Owner::Store(link.id.clone()), app.name.clone()), folder);
                }
            }
        }
        let listed: Vec<_> = folders
            .into_par_iter()
            .map(|(key, folder)| {
                if let Some(layer) = known(&key.0, &folder) {
                    return Ok((key, layer, Vec::new()));
                }
                let (layer, problems) = self.lister.layer(key.0.clone(), &folder)?;
                Ok((key, Arc::new(layer), problems))
            })
            .collect::<Result<_, Error>>()?;
        let mut layers = Layers::default();
        let mut problems = Vec::new();
        for (key, layer, found) in listed {
            problems.extend(found);
            layers.listed.insert(key, layer);
        }
        Ok((layers, problems))
    }

    /// The layers of one unit, outermost first, with the rules that hold for it.
    pub fn view<'l>(&self, store: &Store, app: &BaseApp, layers: &'l Layers) -> UnitLayers<'l> {
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
            folder: self.lister.project().join(base_folder(&app.name)),
        }
    }
}

/// The layers of one unit and the rules that hold for it: a composition whose paths are
/// answered one by one.
#[derive(Debug)]
pub struct UnitLayers<'l> {
    /// The store and the app.
    pub unit: UnitId,
    kind: AppKind,
    /// The base app's first.
    pub layers: Vec<&'l Layer>,
    rules: IgnoreRules,
    edits: &'l BaseEdits,
    /// The base app's, for messages.
    folder: PathBuf,
}

impl UnitLayers<'_> {
    /// What the composition has at the path.
    pub fn entry(&self, path: &str) -> Result<Option<Entry>, Error> {
        let drops = !is_from_base(path) && self.rules.drops(path).is_some();
        let keep = |layer: usize, path: &str| !drops && (layer == 0 || !is_from_base(path));
        let merged = winner(&self.layers, keep, path);
        merged.map(|merged| self.resolve(path, merged)).transpose()
    }

    /// The rule that keeps the path out.
    pub fn dropped_by(&self, path: &str) -> Option<&RuleOrigin> {
        if is_from_base(path) {
            return None;
        }
        self.rules.drops(path)
    }

    /// The rules in their order: all ancestors' first, the store's own last.
    pub fn rules(&self) -> &IgnoreRules {
        &self.rules
    }

    fn resolve(&self, path: &str, merged: MergedPath) -> Result<Entry, Error> {
        Entry::new(&self.unit, path, merged, self.edits, &self.folder)
    }

    fn compose(self, composer: &Composer) -> Result<(Composition, Vec<LayerProblem>), Error> {
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
        // Collected and not inserted one by one, which would leave the tree's nodes half empty.
        let entries = merged
            .into_iter()
            .map(|(path, merged)| Ok((Arc::clone(&path), self.resolve(&path, merged)?)))
            .collect::<Result<_, Error>>()?;
        let composition = Composition {
            layers: layers.iter().map(|layer| layer.owner.clone()).collect(),
            kind: self.kind,
            own_node_modules: composer.lister.is_on_disk()
                && has_packages(&self.folder.join("node_modules")),
            unit: self.unit,
            entries,
            dropped,
            unused,
        };
        Ok((composition, problems))
    }
}

/// All of them as one error, each once and in a stable order.
pub fn fail_on(mut problems: Vec<LayerProblem>) -> Result<(), Error> {
    problems.sort();
    problems.dedup();
    if problems.is_empty() {
        Ok(())
    } else {
        Err(Error::Files { problems })
    }
}

/// Whether packages are installed there: caches that tools keep in `node_modules/.cache` and
/// the like make no dependency.
fn has_packages(node_modules: &Path) -> bool {
    std::fs::read_dir(node_modules).is_ok_and(|mut entries| {
        entries.any(|entry| {
            entry.is_ok_and(|entry| {
                let name = entry.file_name();
                let name = name.to_string_lossy();
                !name.starts_with('.') || name == ".bin" || name == ".pnpm"
            })
        })
    })
}
