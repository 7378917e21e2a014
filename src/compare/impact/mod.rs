//! What a change of the tree does to stores: the compositions before and after it, compared.

mod imports;
mod overrides;

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use self::imports::broken_imports;
pub use self::overrides::OverrideChange;
use self::overrides::override_changes;
use super::Error;
use crate::config::Project;
use crate::overlay::{self, Composer, Composition, LayerReader, Layers, Owner, fail_on};
use crate::store::{AppName, Store, StoreId};

/// A project before or after a change.
pub struct ImpactSide<'a> {
    /// Stores and apps.
    pub project: &'a Project,
    /// Reads the layers.
    pub reader: &'a LayerReader,
}

/// What a change does.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Impact {
    /// The deployable stores whose composition was compared, also those that stay the same.
    pub stores: Vec<StoreImpact>,
    /// Overrides that are the same as the file that they hide only after the change.
    pub needless: Vec<OverrideChange>,
    /// Overrides that hide no file any more.
    pub orphaned: Vec<OverrideChange>,
}

/// What a change does to the composition of one store.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct StoreImpact {
    /// The store, by its id after the change.
    pub store_id: StoreId,
    /// Files that it has only after the change.
    pub gained: Vec<PathImpact>,
    /// Files that it has only before the change.
    pub lost: Vec<PathImpact>,
    /// Files whose content or mode changes.
    pub changed: Vec<PathImpact>,
    /// Imports that resolve only before the change.
    pub broken_imports: Vec<BrokenImport>,
}

/// A composed file that is gained, lost or changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PathImpact {
    /// `<app>/<path>`.
    pub path: String,
    /// The owner of the layer that gives it now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<Owner>,
    /// The owner of the layer that gives it afterwards.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<Owner>,
}

/// An import that does not resolve after a change.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct BrokenImport {
    /// The importing file, `<app>/<path>`.
    pub path: String,
    /// The line, counted from 1.
    pub line: usize,
    /// The specifier.
    pub import: String,
    /// The owner of the layer that gives the importing file afterwards.
    pub owner: Owner,
}

impl StoreImpact {
    /// Whether the composition stays the same.
    pub fn is_none(&self) -> bool {
        self.gained.is_empty() && self.lost.is_empty() && self.changed.is_empty()
    }
}

/// The composed apps of a store.
type StoreCompositions = BTreeMap<AppName, Composition>;

/// Compares the compositions of the stores `ids` and of their descendants. `ids` are ids after the
/// change; `former` gives the id before it.
///
/// Only deployable stores that exist on both sides are compared. The error of the side after the
/// change is separate, since it is the change that causes it.
pub fn impact(
    before: &ImpactSide,
    after: &ImpactSide,
    ids: &[StoreId],
    former: &dyn Fn(&StoreId) -> StoreId,
) -> Result<Result<Impact, overlay::Error>, Error> {
    let affected = affected(after.project, ids);
    let pairs = affected.into_iter().filter_map(|new| {
        let old = before.project.stores.get(former(&new.id).as_str())?;
        Some((old, new))
    });
    let pairs: Vec<(&Store, &Store)> = pairs.collect();
    let old_layers = before.layers(pairs.iter().map(|(old, _)| *old))?;
    // Composed now, so that an error that exists already is not the error of the change.
    let is_deployable =
        |(old, new): &(&Store, &Store)| old.deployment.is_some() && new.deployment.is_some();
    let mut compared = Vec::new();
    for (old, new) in pairs.iter().copied().filter(is_deployable) {
        compared.push((new, before.compose(old, &old_layers)?));
    }
    let simulate = || {
        let new_layers = after.layers(pairs.iter().map(|(_, new)| *new))?;
        let mut stores = Vec::new();
        for (new, then) in &compared {
            stores.push(of_store(new, then, &after.compose(new, &new_layers)?));
        }
        let layers = (&old_layers, &new_layers);
        let (needless, orphaned) = override_changes(before, after, &pairs, layers);
        Ok(Impact {
            stores,
            needless,
            orphaned,
        })
    };
    Ok(simulate())
}

impl ImpactSide<'_> {
    /// Reads the layers of all stores, each layer once.
    fn layers<'s>(
        &self,
        stores: impl Iterator<Item = &'s Store>,
    ) -> Result<Layers, overlay::Error> {
        let stores: Vec<_> = stores.collect();
        let composer = Composer::new(self.project, self.reader);
        let (layers, problems) = composer.layers(&stores, |_, _| None)?;
        fail_on(problems).map(|()| layers)
    }

    fn compose(&self, store: &Store, layers: &Layers) -> Result<StoreCompositions, overlay::Error> {
        let composer = Composer::new(self.project, self.reader);
        let composed = composer.compose_from(&[store], layers)?;
        let by_app = composed.into_iter().map(|it| (it.unit.app.clone(), it));
        Ok(by_app.collect())
    }
}

/// The stores and their descendants, parents before children.
fn affected<'a>(project: &'a Project, ids: &[StoreId]) -> Vec<&'a Store> {
    let is_affected = |store: &&Store| {
        let lineage = project.stores.lineage(store);
        lineage.iter().any(|link| ids.contains(&link.id))
    };
    project.stores.iter().filter(is_affected).collect()
}

fn of_store(store: &Store, before: &StoreCompositions, after: &StoreCompositions) -> StoreImpact {
    let mut impact = StoreImpact {
        store_id: store.id.clone(),
        gained: Vec::new(),
        lost: Vec::new(),
        changed: Vec::new(),
        broken_imports: Vec::new(),
    };
    let apps: BTreeSet<_> = before.keys().chain(after.keys()).collect();
    for app in apps {
        compare_app(app, before.get(app), after.get(app), &mut impact);
    }
    impact.broken_imports = broken_imports(before, after, &impact);
    impact
}

fn compare_app(
    app: &AppName,
    before: Option<&Composition>,
    after: Option<&Composition>,
    impact: &mut StoreImpact,
) {
    let entries = |side: Option<&Composition>| {
        let entries = side.map(|side| side.entries.iter());
        entries
            .into_iter()
            .flatten()
            .map(|(path, entry)| (path.clone(), entry.clone()))
            .collect::<BTreeMap<_, _>>()
    };
    let (old, new) = (entries(before), entries(after));
    let owner = |side: Option<&Composition>, winner: usize| {
        side.and_then(|side| side.layers.get(winner)).cloned()
    };
    for (path, entry) in &old {
        let at = |after: Option<Owner>| PathImpact {
            path: format!("{app}/{path}"),
            before: owner(before, entry.winner()),
            after,
        };
        match new.get(path) {
            None => impact.lost.push(at(None)),
            // The name in a `package.json` has the store's id; a new id is no other content.
            Some(now)
                if path.as_ref() == "package.json" && now.source_id() == entry.source_id() => {}
            Some(now) if !now.is_like(entry) => {
                impact.changed.push(at(owner(after, now.winner())));
            }
            Some(_) => {}
        }
    }
    for (path, entry) in new.iter().filter(|(path, _)| !old.contains_key(*path)) {
        impact.gained.push(PathImpact {
            path: format!("{app}/{path}"),
            before: None,
            after: owner(after, entry.winner()),
        });
    }
}
