//! Overrides that a change makes needless or orphans.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;

use super::ImpactSide;
use crate::overlay::{Layers, Owner, is_from_base};
use crate::store::{AppName, Store, StoreId};

/// An override that a change affects.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct OverrideChange {
    /// The override after the change, relative to the project.
    pub file: String,
    /// The store that has it.
    pub store_id: StoreId,
    /// The owner of the file that it hides: after the change for a needless override, before it for an
    /// orphan.
    pub hides: Owner,
}

/// A file of a store: its app, and its path in the app.
type StoreFile = (AppName, Arc<str>);

/// What the nearest outer layer with the same path has.
#[derive(Debug, Clone, PartialEq, Eq)]
struct StoreOverride {
    /// The owner of that layer.
    pub hides: Owner,
    /// Whether both files are the same.
    pub is_same: bool,
}

/// The overrides of a store, which are the files of its own layers that hide an inherited file.
fn overrides(
    side: &ImpactSide,
    store: &Store,
    layers: &Layers,
) -> BTreeMap<StoreFile, StoreOverride> {
    let lineage = side.project.stores.lineage(store);
    let above = lineage[..lineage.len() - 1].iter().rev();
    let above: Vec<_> = above
        .map(|link| Owner::Store(link.id.clone()))
        .chain([Owner::Base])
        .collect();
    let mut found = BTreeMap::new();
    for app in side.project.apps_of(store) {
        let Some(own) = layers.get(&Owner::Store(store.id.clone()), &app.name) else {
            continue;
        };
        for (path, file) in own.files.iter().filter(|(path, _)| !is_from_base(path)) {
            let hidden = above.iter().find_map(|owner| {
                let layer = layers.get(owner, &app.name)?;
                Some((owner, layer.files.get(path)?))
            });
            if let Some((owner, hidden)) = hidden {
                let is_same = hidden.id == file.id && hidden.kind == file.kind;
                let hides = owner.clone();
                let key = (app.name.clone(), Arc::clone(path));
                found.insert(key, StoreOverride { hides, is_same });
            }
        }
    }
    found
}

type NeedlessAndOrphaned = (Vec<OverrideChange>, Vec<OverrideChange>);

/// The overrides that become needless, and those that become orphans. `pairs` are the stores before
/// and after the change.
pub fn override_changes(
    before: &ImpactSide,
    after: &ImpactSide,
    pairs: &[(&Store, &Store)],
    (old_layers, new_layers): (&Layers, &Layers),
) -> NeedlessAndOrphaned {
    let (mut needless, mut orphaned) = (Vec::new(), Vec::new());
    for (old, new) in pairs {
        let then = overrides(before, old, old_layers);
        let now = overrides(after, new, new_layers);
        let change = |(app, path): &StoreFile, hides: &Owner| OverrideChange {
            file: format!("{}/{path}", new.folder_of(app).unwrap_or_default()),
            store_id: new.id.clone(),
            hides: hides.clone(),
        };
        for (file, one) in now.iter().filter(|(_, one)| one.is_same) {
            if !then.get(file).is_some_and(|one| one.is_same) {
                needless.push(change(file, &one.hides));
            }
        }
        let own = Owner::Store(new.id.clone());
        for (file, one) in then.iter().filter(|(file, _)| !now.contains_key(*file)) {
            let layer = new_layers.get(&own, &file.0);
            if layer.is_some_and(|layer| layer.files.contains_key(&file.1)) {
                orphaned.push(change(file, &one.hides));
            }
        }
    }
    (needless, orphaned)
}
