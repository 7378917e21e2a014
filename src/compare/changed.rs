//! Which deployable stores a change touches, and why: exactly those of which something that
//! would be composed differs, or one of the few things beside the composition that count.
//!
//! Nothing is composed whole. A composition is a function of its layers and rules, so a path can
//! only differ where a layer does, or where layers and rules are others than before; those
//! paths alone are resolved on both sides, by the same code that composes.

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

/// What is compared with what.
#[derive(Debug, Clone, Default)]
pub struct Comparison {
    /// The earlier revision.
    pub since: String,
    /// The later one; none for the working tree.
    pub to: Option<String>,
    /// Globs of files that count for every store, relative to the project.
    pub global_dependencies: Vec<String>,
}

/// Why a store is listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ChangeReason {
    /// A file of the store itself, or its own settings.
    StoreChanged,
    /// A file of the base apps or of an ancestor that this store does not override.
    AncestorChanged,
    /// The lock file.
    PackageLockChanged,
    /// A file that a given glob matches, or one of a workspace package that an app depends on.
    GlobalDependenciesChanged,
}

/// A store that a change touches.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ChangedStore {
    /// The store.
    pub store_id: StoreId,
    /// Why, in the order of [`ChangeReason`].
    pub reasons: BTreeSet<ChangeReason>,
    /// Composed files that differ.
    pub files: Vec<ChangedPath>,
    /// Files beside the composition that count: the lock file, global dependencies.
    pub dependencies: BTreeSet<String>,
}

/// A composed path that differs.
#[derive(Debug, Clone, Serialize)]
pub struct ChangedPath {
    /// The app.
    pub app: AppName,
    /// Relative to the app.
    pub path: String,
    /// Who gave it; nobody where it was not there.
    pub old: Option<Owner>,
    /// Who gives it now; nobody where it is not there any more.
    pub new: Option<Owner>,
    /// Whether the store itself is the cause.
    #[serde(skip)]
    by_store: bool,
}

/// The answer.
#[derive(Debug, Clone)]
pub struct ChangedStores {
    /// The stores that differ, parents before children.
    pub stores: Vec<ChangedStore>,
    /// Every deployable store, in the same order.
    pub deployable: Vec<StoreId>,
    /// What people should know of it.
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
    let mut notices = Vec::new();
    let old = match at(&comparison.since) {
        Ok(old) => Some(old),
        Err(error @ Error::Project { .. }) => {
            // Nothing can be composed there, so that everything that can be now is new.
            let reason = std::error::Error::source(&error).map(ToString::to_string);
            let reason = reason.filter(|_| !is_absent(&error));
            notices.push(format!(
                "there is no valid project at `{}`{}; every store counts as changed",
                comparison.since,
                reason
                    .map(|reason| format!(" ({reason})"))
                    .unwrap_or_default()
            ));
            None
        }
        Err(error) => return Err(error),
    };
    let compared = ComparedLayers::new(old.as_ref(), &new)?;
    let paths = repository.changed_paths(&old_tree, new.tree.as_ref())?;
    let stores: Vec<&Store> = new.project.stores.deployables().collect();
    let sides = [Some(&new), old.as_ref()];
    let lock_files: BTreeSet<&str> = sides.into_iter().flatten().flat_map(lock_files).collect();
    let found: Vec<ChangedStore> = stores
        .par_iter()
        .map(|store| {
            let mut files = Vec::new();
            for app in compared.apps(store) {
                compared.unit(store, &app, &mut files)?;
            }
            let mut reasons: BTreeSet<ChangeReason> = files
                .iter()
                .map(|change: &ChangedPath| {
                    if change.by_store {
                        ChangeReason::StoreChanged
                    } else {
                        ChangeReason::AncestorChanged
                    }
                })
                .collect();
            let mut dependencies = BTreeSet::new();
            // A package that is gone counts as one that changed.
            let mut packages = package_folders(&new.project, store);
            if let Some((old, before)) = compared.before(store) {
                packages.extend(package_folders(&old.project, before));
            }
            for path in &paths {
                let reason = if lock_files.contains(path.as_str()) {
                    ChangeReason::PackageLockChanged
                } else if globs.is_match(path) || packages.iter().any(|it| path.starts_with(it)) {
                    ChangeReason::GlobalDependenciesChanged
                } else {
                    continue;
                };
                reasons.insert(reason);
                dependencies.insert(path.clone());
            }
            Ok(ChangedStore {
                store_id: store.id.clone(),
                reasons,
                files,
                dependencies,
            })
        })
        .collect::<Result<_, Error>>()?;
    let listed = found.into_iter().filter(|store| !store.reasons.is_empty());
    Ok(ChangedStores {
        deployable: stores.iter().map(|store| store.id.clone()).collect(),
        stores: listed.collect(),
        notices,
    })
}

fn globs(globs: &[String]) -> Result<GlobSet, Error> {
    let mut set = GlobSetBuilder::new();
    for glob in globs {
        let path = glob.trim_start_matches("./").trim_end_matches('/');
        // A folder means what is below it.
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

/// Names of the lock files that the package manager of this side may read.
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

/// Folders of workspace packages that an app of the store depends on, with a `/` at the end.
fn package_folders(project: &Project, store: &Store) -> BTreeSet<String> {
    let apps = project.apps_of(store);
    let packages = apps.flat_map(|app| project.packages_of(&app.package));
    packages
        .map(|package| format!("{}/", package.folder))
        .collect()
}

/// Both sides' layers, and the paths in which each layer differs.
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
        // What cannot be composed in the past can be mended only by a later commit: such a path
        // counts as not there.
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
            let root = new.lister.project();
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

    /// The store as it was, if it was deployable.
    fn before(&self, store: &Store) -> Option<(&'a ProjectSnapshot, &'a Store)> {
        let old = self.old?;
        let before = old.project.stores.get(store.id.as_str())?;
        before.deployment.as_ref()?;
        Some((old, before))
    }

    /// Names of the apps that the store consists of, or did.
    fn apps(&self, store: &Store) -> BTreeSet<AppName> {
        let now = self.new.project.apps_of(store);
        let before = self
            .before(store)
            .into_iter()
            .flat_map(|(old, before)| old.project.apps_of(before));
        now.chain(before).map(|app| app.name.clone()).collect()
    }

    /// Adds what differs in one app of the store.
    fn unit(
        &self,
        store: &Store,
        app: &AppName,
        changes: &mut Vec<ChangedPath>,
    ) -> Result<(), Error> {
        let before = self.before(store);
        let old_app = before.and_then(|(old, before)| app_of(&old.project, before, app));
        let new_app = app_of(&self.new.project, store, app);
        let new_lineage = self.new.project.stores.lineage(store);
        let old_lineage = before.map(|(old, before)| old.project.stores.lineage(before));
        let same_shape = old_app.is_some() == new_app.is_some()
            && old_lineage
                .as_ref()
                .is_some_and(|old| is_alike(old, &new_lineage));
        let mut candidates = BTreeSet::new();
        if same_shape {
            let owners = new_lineage.iter().map(|link| Owner::Store(link.id.clone()));
            for owner in [Owner::Base].into_iter().chain(owners) {
                let paths = self.differing.get(&(owner, app.clone()));
                candidates.extend(paths.into_iter().flatten().cloned());
            }
            if candidates.is_empty() {
                return Ok(());
            }
        }
        let old = match (before, old_app) {
            (Some((old, before)), Some(app)) => {
                Some(old.composer().view(before, app, &self.old_layers))
            }
            _ => None,
        };
        let new = new_app.map(|app| self.new.composer().view(store, app, &self.new_layers));
        if !same_shape {
            let views = old.iter().chain(new.iter());
            let layers = views.flat_map(|view| view.layers.iter());
            candidates.extend(layers.flat_map(|layer| layer.files.keys().cloned()));
        }
        // Another place in the tree, another framework: the store's own doing.
        let framework = |store: &Store| store.deployment.as_ref().map(|it| it.framework);
        let moved = before.is_none_or(|(_, before)| {
            before.parent != store.parent || framework(before) != framework(store)
        });
        let own = Owner::Store(store.id.clone());
        for path in candidates {
            let was = old
                .as_ref()
                .map(|view| past(view, &path))
                .transpose()?
                .flatten();
            let is = new
                .as_ref()
                .map(|view| view.entry(&path))
                .transpose()?
                .flatten();
            if alike(was.as_ref(), is.as_ref()) {
                continue;
            }
            let giver = |view: Option<&UnitLayers>, entry: Option<&Entry>| {
                Some(view?.layers[entry?.winner()].owner.clone())
            };
            let (from, to) = (
                giver(old.as_ref(), was.as_ref()),
                giver(new.as_ref(), is.as_ref()),
            );
            let dropped_by_own = |view: Option<&UnitLayers>| {
                let origin = view.and_then(|view| view.dropped_by(&path));
                origin.is_some_and(|origin| origin.store == store.id)
            };
            let by_store = moved
                || from.as_ref() == Some(&own)
                || to.as_ref() == Some(&own)
                || dropped_by_own(old.as_ref()) != dropped_by_own(new.as_ref());
            changes.push(ChangedPath {
                app: app.clone(),
                path: path.to_string(),
                old: from,
                new: to,
                by_store,
            });
        }
        Ok(())
    }
}

fn app_of<'a>(project: &'a Project, store: &Store, name: &AppName) -> Option<&'a BaseApp> {
    project.apps_of(store).find(|app| app.name == *name)
}

/// Whether stores inherit from the same ones, with the same rules.
fn is_alike(old: &[&Store], new: &[&Store]) -> bool {
    let shape = |store: &&Store| (store.id.clone(), store.ignore_paths.clone());
    old.iter().map(shape).eq(new.iter().map(shape))
}

/// Paths in which two listings of a layer differ.
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

/// An entry of the past. A file that could not be edited then could not be composed, and
/// differs from every one that can be.
fn past(view: &UnitLayers, path: &str) -> Result<Option<Entry>, Error> {
    match view.entry(path) {
        Err(crate::overlay::Error::Rewrite { .. }) => Ok(None),
        other => Ok(other?),
    }
}

fn alike(old: Option<&Entry>, new: Option<&Entry>) -> bool {
    match (old, new) {
        (Some(old), Some(new)) => old.is_like(new),
        (None, None) => true,
        _ => false,
    }
}
