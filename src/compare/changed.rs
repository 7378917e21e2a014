//! Which deployable stores differ between two revisions, and why: the stores of which a composed
//! file differs, or a file outside of the composition on which they depend.
//!
//! No store is composed whole. A composition is a function of its layers and rules, so a path can
//! differ only where a layer differs, or where the list of layers or rules differs. Only these paths
//! are resolved on both sides, by the same code that composes.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use std::sync::Arc;

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use rayon::prelude::*;
use serde::Serialize;

use super::snapshot::{is_absent, repository};
use super::{Error, ProjectSnapshot};
use crate::config::{BaseApp, Project};
use crate::overlay::{Entry, Layer, Layers, Owner, UnitLayers};
use crate::store::{AppName, Store, StoreId};
use crate::workspace::PackageManager;

/// The two sides of the comparison.
#[derive(Debug, Clone, Default)]
pub struct Comparison {
    /// The earlier revision.
    pub since: String,
    /// The later revision; `None` for the working tree.
    pub to: Option<String>,
    /// Globs of files on which every store depends, relative to the project.
    pub global_dependencies: Vec<String>,
}

/// Why a store counts as changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ChangeReason {
    /// A file of the store itself, or its own settings, changed.
    StoreChanged,
    /// A file that the store inherits from a base app or an ancestor changed.
    AncestorChanged,
    /// The lock file changed.
    PackageLockChanged,
    /// A file changed that a given glob matches, or a file of a workspace package that an app
    /// depends on.
    GlobalDependenciesChanged,
}

/// A store that differs.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ChangedStore {
    /// The store.
    pub store_id: StoreId,
    /// Why, in the order of [`ChangeReason`].
    pub reasons: BTreeSet<ChangeReason>,
    /// Composed files that differ.
    pub files: Vec<ChangedPath>,
    /// Changed files outside of the composition: the lock file, global dependencies.
    pub dependencies: BTreeSet<String>,
}

/// A composed path that differs.
#[derive(Debug, Clone, Serialize)]
pub struct ChangedPath {
    /// The app.
    pub app: AppName,
    /// Relative to the app.
    pub path: String,
    /// The owner of the layer that gave it; `None` where it did not exist.
    pub old: Option<Owner>,
    /// The owner of the layer that gives it now; `None` where it was removed.
    pub new: Option<Owner>,
    /// Whether the store itself is the cause, and not an ancestor.
    #[serde(skip)]
    by_store: bool,
}

/// The result of [`changed`].
#[derive(Debug, Clone)]
pub struct ChangedStores {
    /// The stores that differ, parents before children.
    pub stores: Vec<ChangedStore>,
    /// What limits the result, for people.
    pub notices: Vec<String>,
}

/// The deployable stores of the project in `root` that differ.
pub fn changed(root: &Path, comparison: &Comparison) -> Result<ChangedStores, Error> {
    let globs = globs(&comparison.global_dependencies)?;
    let repository = repository(root)?;
    let objects = repository.objects();
    let at = |revision: &str| ProjectSnapshot::commit(root, &repository, &objects, revision);
    let old_tree = repository.tree(&objects, &comparison.since)?;
    let new = match &comparison.to {
        Some(revision) => at(revision)?,
        None => ProjectSnapshot::working_tree(root, &repository)?,
    };
    let (old, notices) = match at(&comparison.since) {
        Ok(old) => (Some(old), Vec::new()),
        Err(error @ Error::Project { .. }) => {
            (None, vec![without_project(&comparison.since, &error)])
        }
        Err(error) => return Err(error),
    };
    let sides = [Some(&new), old.as_ref()];
    let dependencies = Dependencies {
        paths: repository.changed_paths(&old_tree, new.tree.as_ref())?,
        lock_files: sides.into_iter().flatten().flat_map(lock_files).collect(),
        globs,
    };
    let layers = ComparedLayers::new(old.as_ref(), &new)?;
    let stores: Vec<&Store> = new.project.stores.deployables().collect();
    let compared: Vec<ChangedStore> = stores
        .par_iter()
        .map(|store| compare(store, &layers, &dependencies))
        .collect::<Result<_, Error>>()?;
    let changed = compared.into_iter().filter(|it| !it.reasons.is_empty());
    Ok(ChangedStores {
        stores: changed.collect(),
        notices,
    })
}

/// The notice for an old side without a valid project. No store can be composed there, so every
/// store counts as changed.
fn without_project(since: &str, error: &Error) -> String {
    let reason = std::error::Error::source(error).filter(|_| !is_absent(error));
    let reason = reason.map_or_else(String::new, |reason| format!(" ({reason})"));
    format!(
        "the revision `{since}` does not contain a valid project{reason}; all stores are treated as changed"
    )
}

/// Changed files outside of the composition on which stores may depend.
struct Dependencies {
    /// Every path of the project that differs.
    paths: Vec<String>,
    /// Names of the lock files of both sides.
    lock_files: BTreeSet<&'static str>,
    /// Files on which every store depends.
    globs: GlobSet,
}

impl Dependencies {
    /// The changed paths on which a store depends. `packages` are the folders of the workspace
    /// packages that its apps depend on.
    fn of_store(
        &self,
        packages: &BTreeSet<String>,
    ) -> impl Iterator<Item = (&String, ChangeReason)> {
        self.paths.iter().filter_map(|path| {
            if self.lock_files.contains(path.as_str()) {
                return Some((path, ChangeReason::PackageLockChanged));
            }
            let is_dependency =
                self.globs.is_match(path) || packages.iter().any(|it| path.starts_with(it));
            is_dependency.then_some((path, ChangeReason::GlobalDependenciesChanged))
        })
    }
}

/// Everything in which a store differs.
fn compare(
    store: &Store,
    layers: &ComparedLayers,
    dependencies: &Dependencies,
) -> Result<ChangedStore, Error> {
    let mut files = Vec::new();
    for app in layers.apps(store) {
        layers.compare_unit(store, &app, &mut files)?;
    }
    let reason = |change: &ChangedPath| {
        if change.by_store {
            ChangeReason::StoreChanged
        } else {
            ChangeReason::AncestorChanged
        }
    };
    let mut reasons: BTreeSet<ChangeReason> = files.iter().map(reason).collect();
    // The old side's packages count too, so that a removed package is a change.
    let mut packages = package_folders(&layers.new.project, store);
    if let Some((old, before)) = layers.before(store) {
        packages.extend(package_folders(&old.project, before));
    }
    let mut changed = BTreeSet::new();
    for (path, reason) in dependencies.of_store(&packages) {
        reasons.insert(reason);
        changed.insert(path.clone());
    }
    Ok(ChangedStore {
        store_id: store.id.clone(),
        reasons,
        files,
        dependencies: changed,
    })
}

fn globs(globs: &[String]) -> Result<GlobSet, Error> {
    let mut set = GlobSetBuilder::new();
    for glob in globs {
        let path = glob.trim_start_matches("./").trim_end_matches('/');
        // A folder stands for everything below it.
        for path in [path.to_owned(), format!("{path}/**")] {
            let built = GlobBuilder::new(&path)
                .literal_separator(true)
                .build()
                .map_err(|error| Error::Glob {
                    glob: glob.clone(),
                    reason: error.kind().to_string(),
                })?;
            set.add(built);
        }
    }
    Ok(set.build().unwrap_or_default())
}

/// Names of the lock files of this side's package manager; of all, where it is not known.
fn lock_files(side: &ProjectSnapshot) -> Vec<&'static str> {
    let root = &side.project.root;
    let field = side.project.package.package_manager.as_deref();
    match PackageManager::detect(side.files(), root, field) {
        Ok(manager) => manager.lock_files().to_vec(),
        Err(_) => PackageManager::ALL
            .iter()
            .flat_map(|manager| manager.lock_files())
            .copied()
            .collect(),
    }
}

/// Folders of the workspace packages that an app of the store depends on, with a `/` at the end.
fn package_folders(project: &Project, store: &Store) -> BTreeSet<String> {
    let apps = project.apps_of(store);
    let packages = apps.flat_map(|app| project.packages_of(&app.package));
    packages
        .map(|package| format!("{}/", package.folder))
        .collect()
}

/// The layers of both sides, and the paths in which each layer differs.
struct ComparedLayers<'a> {
    old: Option<&'a ProjectSnapshot>,
    new: &'a ProjectSnapshot,
    old_layers: Layers,
    new_layers: Layers,
    differing: HashMap<(Owner, AppName), Vec<Arc<str>>>,
}

impl<'a> ComparedLayers<'a> {
    fn new(old: Option<&'a ProjectSnapshot>, new: &'a ProjectSnapshot) -> Result<Self, Error> {
        let deployables = |snapshot: &'a ProjectSnapshot| -> Vec<&'a Store> {
            snapshot.project.stores.deployables().collect()
        };
        // A past commit cannot be corrected, so a path that cannot be composed there counts as
        // missing.
        let old_layers = match old {
            Some(old) => old.composer().layers(&deployables(old), |_, _| None)?.0,
            None => Layers::default(),
        };
        let unchanged = |owner: &Owner, folder: &str| {
            let (old, old_tree) = (old?, old?.tree.as_ref()?);
            let new_tree = new.tree.as_ref()?;
            let app = AppName::new(folder.rsplit('/').next()?).ok()?;
            let layer = old_layers.get(owner, &app)?;
            let before = match owner {
                Owner::Base => folder.to_owned(),
                Owner::Store(id) => old.project.stores.get(id.as_str())?.folder_of(&app)?,
            };
            let root = new.reader.project();
            let (before, after) = (
                old_tree.id(&root.join(before)).ok()??,
                new_tree.id(&root.join(folder)).ok()??,
            );
            (layer.is_closed && before == after).then(|| Arc::clone(layer))
        };
        let (new_layers, problems) = new.composer().layers(&deployables(new), unchanged)?;
        crate::overlay::fail_on(problems)?;
        let keys: BTreeSet<_> = old_layers.keys().chain(new_layers.keys()).collect();
        let differing = keys
            .into_par_iter()
            .filter_map(|key| {
                let paths = difference(
                    old_layers.get(&key.0, &key.1),
                    new_layers.get(&key.0, &key.1),
                );
                (!paths.is_empty()).then(|| (key.clone(), paths))
            })
            .collect();
        Ok(Self {
            old,
            new,
            old_layers,
            new_layers,
            differing,
        })
    }

    /// The store on the old side, if it was deployable there.
    fn before(&self, store: &Store) -> Option<(&'a ProjectSnapshot, &'a Store)> {
        let old = self.old?;
        let before = old.project.stores.get(store.id.as_str())?;
        before.deployment.as_ref()?;
        Some((old, before))
    }

    /// Names of the apps that the store has or had.
    fn apps(&self, store: &Store) -> BTreeSet<AppName> {
        let now = self.new.project.apps_of(store);
        let before = self
            .before(store)
            .into_iter()
            .flat_map(|(old, before)| old.project.apps_of(before));
        now.chain(before).map(|app| app.name.clone()).collect()
    }

    /// Adds the paths in which one app of the store differs.
    fn compare_unit(
        &self,
        store: &Store,
        app: &AppName,
        changes: &mut Vec<ChangedPath>,
    ) -> Result<(), Error> {
        let before = self.before(store);
        let old_app = before.and_then(|(old, before)| app_of(&old.project, before, app));
        let new_app = app_of(&self.new.project, store, app);
        let lineage = self.new.project.stores.lineage(store);
        let old_lineage = before.map(|(old, before)| old.project.stores.lineage(before));
        let has_same_layers = old_app.is_some() == new_app.is_some()
            && old_lineage.is_some_and(|old| is_same_lineage(&old, &lineage));
        let differing = has_same_layers.then(|| self.differing_paths(&lineage, app));
        if differing.as_ref().is_some_and(BTreeSet::is_empty) {
            return Ok(());
        }
        let old = before.zip(old_app).map(|((old, before), app)| {
            let composer = old.composer();
            composer.unit(before, app, &self.old_layers)
        });
        let new = new_app.map(|app| self.new.composer().unit(store, app, &self.new_layers));
        let sides = ComparedUnit {
            store,
            app,
            is_moved: before.is_none_or(|(_, before)| is_moved(before, store)),
            old,
            new,
        };
        for path in differing.unwrap_or_else(|| sides.all_paths()) {
            changes.extend(sides.change(&path)?);
        }
        Ok(())
    }

    /// The paths in which the layers of one app of a store differ.
    fn differing_paths(&self, lineage: &[&Store], app: &AppName) -> BTreeSet<Arc<str>> {
        let owners = lineage.iter().map(|link| Owner::Store(link.id.clone()));
        let owners = [Owner::Base].into_iter().chain(owners);
        owners
            .filter_map(|owner| self.differing.get(&(owner, app.clone())))
            .flatten()
            .cloned()
            .collect()
    }
}

/// One app of a store on both sides.
struct ComparedUnit<'a> {
    store: &'a Store,
    app: &'a AppName,
    /// Whether the store has another parent or framework than before, or did not exist.
    is_moved: bool,
    old: Option<UnitLayers<'a>>,
    new: Option<UnitLayers<'a>>,
}

impl ComparedUnit<'_> {
    /// Every path of any layer, before or now.
    fn all_paths(&self) -> BTreeSet<Arc<str>> {
        let units = self.old.iter().chain(&self.new);
        let layers = units.flat_map(|unit| &unit.layers);
        layers
            .flat_map(|layer| layer.files.keys().cloned())
            .collect()
    }

    /// How the path differs; `None` where it is the same on both sides.
    fn change(&self, path: &str) -> Result<Option<ChangedPath>, Error> {
        let old_entry = match &self.old {
            Some(unit) => old_entry(unit, path)?,
            None => None,
        };
        let new_entry = match &self.new {
            Some(unit) => unit.entry(path)?,
            None => None,
        };
        if is_same_entry(old_entry.as_ref(), new_entry.as_ref()) {
            return Ok(None);
        }
        let (old, new) = (
            giver(self.old.as_ref(), old_entry.as_ref()),
            giver(self.new.as_ref(), new_entry.as_ref()),
        );
        let is_own = |owner: &Option<Owner>| {
            let own = owner.as_ref();
            matches!(own, Some(Owner::Store(id)) if *id == self.store.id)
        };
        let is_dropped_by_own = |unit: Option<&UnitLayers>| {
            let origin = unit.and_then(|unit| unit.dropped_by(path));
            origin.is_some_and(|origin| origin.store == self.store.id)
        };
        let by_store = self.is_moved
            || is_own(&old)
            || is_own(&new)
            || is_dropped_by_own(self.old.as_ref()) != is_dropped_by_own(self.new.as_ref());
        Ok(Some(ChangedPath {
            app: self.app.clone(),
            path: path.to_owned(),
            old,
            new,
            by_store,
        }))
    }
}

/// The owner of the layer that gives an entry.
fn giver(unit: Option<&UnitLayers>, entry: Option<&Entry>) -> Option<Owner> {
    Some(unit?.layers[entry?.winner()].owner.clone())
}

/// Whether the store has another parent or framework than before.
fn is_moved(before: &Store, now: &Store) -> bool {
    let framework = |store: &Store| store.deployment.as_ref().map(|it| it.framework);
    before.parent != now.parent || framework(before) != framework(now)
}

fn app_of<'a>(project: &'a Project, store: &Store, name: &AppName) -> Option<&'a BaseApp> {
    project.apps_of(store).find(|app| app.name == *name)
}

/// Whether two lineages have the same stores with the same rules.
fn is_same_lineage(old: &[&Store], new: &[&Store]) -> bool {
    let shape = |store: &&Store| (store.id.clone(), store.ignore_paths.clone());
    old.iter().map(shape).eq(new.iter().map(shape))
}

/// Paths in which two versions of a layer differ.
fn difference(old: Option<&Arc<Layer>>, new: Option<&Arc<Layer>>) -> Vec<Arc<str>> {
    let empty = BTreeMap::new();
    let (old, new) = match (old, new) {
        (Some(old), Some(new)) if Arc::ptr_eq(old, new) => return Vec::new(),
        (old, new) => (
            old.map_or(&empty, |layer| &layer.files),
            new.map_or(&empty, |layer| &layer.files),
        ),
    };
    let differs = |path: &&Arc<str>| match (old.get(*path), new.get(*path)) {
        (Some(old), Some(new)) => old.id != new.id || old.kind != new.kind,
        _ => true,
    };
    let paths: BTreeSet<_> = old.keys().chain(new.keys()).filter(differs).collect();
    paths.into_iter().cloned().collect()
}

/// The entry on the old side. A `package.json` or `tsconfig.json` that was not valid JSON could not be
/// composed and counts as missing.
fn old_entry(unit: &UnitLayers, path: &str) -> Result<Option<Entry>, Error> {
    match unit.entry(path) {
        Err(crate::overlay::Error::Rewrite { .. }) => Ok(None),
        other => Ok(other?),
    }
}

fn is_same_entry(old: Option<&Entry>, new: Option<&Entry>) -> bool {
    match (old, new) {
        (Some(old), Some(new)) => old.is_like(new),
        (None, None) => true,
        _ => false,
    }
}
