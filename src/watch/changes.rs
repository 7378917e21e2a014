//! What a change did to the compositions: which files of which stores have to be written or removed, and
//! the lines that tell it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::event::{FileChange, SyncedFile};
use crate::overlay::{Composition, Entry, Owner};
use crate::plan::{LayerChange, Plan, UnitChange};
use crate::store::{AppName, StoreId};

/// The difference between two plans.
#[derive(Debug, Default)]
pub struct Changes {
    /// The paths that differ, relative to the folder of the store.
    pub paths: BTreeMap<StoreId, BTreeSet<String>>,
    /// One for each changed file of a layer.
    pub files: Vec<SyncedFile>,
    /// Stores with units that are new.
    pub added: BTreeSet<StoreId>,
    /// Stores with units that no longer exist.
    pub gone: BTreeSet<StoreId>,
}

type Grouped = BTreeMap<(AppName, Arc<str>, FileChange), Vec<StoreId>>;

impl Changes {
    /// Compares compositions. `layers` are changed files that may change no composition, and `plan` is the
    /// new plan.
    pub fn new(units: &[UnitChange], layers: &[LayerChange], plan: &Plan) -> Self {
        let mut changes = Self::default();
        let mut grouped = Grouped::new();
        for unit in units {
            match (&unit.before, &unit.after) {
                (Some(before), Some(after)) => changes.compare(before, after, &mut grouped),
                (None, Some(after)) => drop(changes.added.insert(after.unit.store.clone())),
                (Some(before), None) => drop(changes.gone.insert(before.unit.store.clone())),
                (None, None) => {}
            }
        }
        for layer in layers {
            for path in &layer.paths {
                let is_told =
                    |key: &(AppName, Arc<str>, FileChange)| key.0 == layer.app && key.1 == *path;
                if !grouped.keys().any(is_told) {
                    let change = FileChange::Written {
                        layer: layer.owner.to_string(),
                    };
                    grouped.insert((layer.app.clone(), Arc::clone(path), change), Vec::new());
                }
            }
        }
        let files = grouped.into_iter().map(|((app, path, change), stores)| {
            let overridden_in = match &change {
                FileChange::Written { layer } => overriding(plan, &app, &path, layer, &stores),
                _ => Vec::new(),
            };
            SyncedFile {
                app,
                path: path.to_string(),
                change,
                stores,
                overridden_in,
            }
        });
        // A change that no composition shows and no override hides was to a file that is not used.
        let is_shown =
            |file: &SyncedFile| !file.stores.is_empty() || !file.overridden_in.is_empty();
        changes.files = files.filter(is_shown).collect();
        changes
    }

    /// The number of paths that differ.
    pub fn count(&self) -> usize {
        self.paths.values().map(BTreeSet::len).sum()
    }

    fn compare(&mut self, before: &Composition, after: &Composition, grouped: &mut Grouped) {
        let mut add = |path: &Arc<str>, change: FileChange| {
            let unit = &after.unit;
            let paths = self.paths.entry(unit.store.clone()).or_default();
            paths.insert(format!("{}/{path}", unit.app));
            let stores = grouped.entry((unit.app.clone(), Arc::clone(path), change));
            stores.or_default().push(unit.store.clone());
        };
        for (path, entry) in &after.entries {
            let old = before.entries.get(path);
            if old.is_none_or(|old| !old.is_like(entry)) {
                add(path, written(before, old, after, entry));
            }
        }
        for (path, entry) in &before.entries {
            if after.entries.contains_key(path) {
                continue;
            }
            let change = if after.dropped.contains_key(path) {
                FileChange::Dropped
            } else {
                FileChange::Removed {
                    layer: before.layers[entry.winner()].to_string(),
                    now_from: None,
                }
            };
            add(path, change);
        }
    }
}

/// How a composed file has changed: a nearer layer no longer gives it, or its layer has another content.
fn written(
    before: &Composition,
    old: Option<&Entry>,
    after: &Composition,
    new: &Entry,
) -> FileChange {
    let now = &after.layers[new.winner()];
    let was = old.map(|old| &before.layers[old.winner()]);
    let place = |owner: &Owner| after.layers.iter().position(|layer| layer == owner);
    match was {
        Some(was) if place(was) > place(now) => FileChange::Removed {
            layer: was.to_string(),
            now_from: Some(now.to_string()),
        },
        _ => FileChange::Written {
            layer: now.to_string(),
        },
    }
}

/// The stores below a layer in which another file hides the layer's file.
fn overriding(
    plan: &Plan,
    app: &AppName,
    path: &str,
    layer: &str,
    changed: &[StoreId],
) -> Vec<StoreId> {
    let compositions = plan.compositions().filter(|one| one.unit.app == *app);
    let hides = |one: &&Arc<Composition>| {
        let layer = one
            .layers
            .iter()
            .position(|owner| owner.to_string() == layer);
        let entry = one.entries.get(path);
        let hidden = entry.zip(layer);
        hidden.is_some_and(|(entry, layer)| entry.hidden().any(|hidden| hidden == layer))
    };
    let stores = compositions.filter(hides).map(|one| one.unit.store.clone());
    stores.filter(|store| !changed.contains(store)).collect()
}
