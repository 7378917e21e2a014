//! Reads the inputs of tasks. An input of several tasks is read once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rayon::prelude::*;

use super::super::files::{self, BaseAppFolder, FileGroup};
use super::super::installed::{DependencyLock, ReachedDependencies};
use super::super::task::{SiblingAccess, Subject, Task, has_build_script};
use super::super::variables::DeclaredVariables;
use super::super::{Error, StorePlan, tsconfig};
use super::{HostEnvironment, Sibling, TaskInputs};
use crate::cache::{Key, KeyHasher};
use crate::config::Project;
use crate::overlay::{Composition, LayerReader};
use crate::store::{AppKind, UnitId};

/// Digests of one composition.
#[derive(Debug, Clone, Copy)]
struct CompositionDigests {
    files: Key,
    names: Key,
}

/// Reads inputs, and remembers what it has read for the next tasks.
pub struct InputReader<'a> {
    project: &'a Project,
    lister: &'a LayerReader,
    lock: DependencyLock,
    declared: DeclaredVariables,
    host: &'a HostEnvironment,
    digests: BTreeMap<UnitId, CompositionDigests>,
    groups: BTreeMap<(String, bool), Arc<FileGroup>>,
    bases: BTreeMap<String, Arc<BaseAppFolder>>,
    reached: BTreeMap<String, Arc<ReachedDependencies>>,
    variables: BTreeMap<String, Arc<BTreeMap<String, Key>>>,
    /// Paths that TypeScript configs name, by the config's path and content.
    named_by_config: BTreeMap<(String, String), BTreeSet<String>>,
}

impl<'a> InputReader<'a> {
    /// Hashes the compositions. Everything else is read when a task needs it.
    pub fn new(
        project: &'a Project,
        lister: &'a LayerReader,
        lock: DependencyLock,
        stores: &[StorePlan],
        host: &'a HostEnvironment,
    ) -> Result<Self, Error> {
        Ok(Self {
            project,
            lister,
            lock,
            declared: DeclaredVariables::new(project)?,
            host,
            digests: digests(stores),
            groups: BTreeMap::new(),
            bases: BTreeMap::new(),
            reached: BTreeMap::new(),
            variables: BTreeMap::new(),
            named_by_config: BTreeMap::new(),
        })
    }

    /// The inputs of one task. `needs` are the tasks that it needs, `store` is its store.
    pub fn task(
        &mut self,
        task: &mut Task,
        needs: &[Subject],
        store: Option<&StorePlan>,
    ) -> Result<TaskInputs, Error> {
        let reached = self.reached(task);
        if let Some(unreadable) = &reached.unreadable
            && task.never_cached.is_none()
        {
            task.never_cached = Some(format!("its dependency {unreadable} cannot be read"));
        }
        let composition = task.subject.unit().and_then(|unit| {
            let mut compositions = store?.compositions.iter();
            compositions.find(|it| it.unit == *unit).cloned()
        });
        let mut groups = Vec::new();
        for (folder, is_built) in self.package_folders(task, &reached) {
            groups.push(self.package(&folder, is_built)?);
        }
        for path in self.named_by_configs(task, composition.as_deref()) {
            groups.push(self.named(&path)?);
        }
        for path in &reached.named {
            groups.push(self.named(path)?);
        }
        let siblings = self.siblings(task, needs, composition.as_deref(), store, &reached);
        // By its package name, a composed app finds the store's own apps. A package finds base apps,
        // and so does an app whose store does not have the other app.
        let is_sibling = |folder: &str| siblings.iter().any(|it| it.is_composed_from(folder));
        let mut bases = Vec::new();
        for folder in reached.bases.iter().filter(|it| !is_sibling(it)) {
            bases.push(self.base(folder)?);
        }
        let name = task.subject.name();
        let variables = Arc::clone(
            self.variables
                .entry(name.to_owned())
                .or_insert_with(|| Arc::new(self.declared.of(name, &self.host.environment))),
        );
        Ok(TaskInputs {
            own: composition.as_ref().map(|it| self.digests_of(it).files),
            siblings,
            composition,
            groups,
            bases,
            dependencies: Arc::new(reached.versions.clone()),
            variables,
        })
    }

    /// Folders of the workspace packages that a task may read, each with whether it is built.
    fn package_folders(
        &self,
        task: &Task,
        reached: &ReachedDependencies,
    ) -> BTreeSet<(String, bool)> {
        let is_named = |name: &String| {
            task.packages.contains(name)
                || matches!(&task.subject, Subject::Package(own) if own == name)
        };
        let packages = self.project.packages.iter();
        let packages =
            packages.filter(|it| is_named(&it.name) || reached.packages.contains(&it.folder));
        packages
            .map(|it| (it.folder.clone(), has_build_script(&it.package)))
            .collect()
    }

    fn digests_of(&self, composition: &Composition) -> CompositionDigests {
        let known = self.digests.get(&composition.unit).copied();
        known.unwrap_or_else(|| composition_digests(composition))
    }

    fn siblings(
        &self,
        task: &Task,
        needs: &[Subject],
        own: Option<&Composition>,
        store: Option<&StorePlan>,
        reached: &ReachedDependencies,
    ) -> Vec<Sibling> {
        let Some(own) = own else { return Vec::new() };
        let compositions = store.into_iter().flat_map(|store| &store.compositions);
        let others = compositions.filter(|it| it.unit != own.unit);
        let sibling = |composition: &Arc<Composition>| {
            let is_need = needs
                .iter()
                .any(|need| need.unit() == Some(&composition.unit));
            let is_read = match task.sibling_access {
                SiblingAccess::Needed => is_need,
                SiblingAccess::Middleware => is_need || composition.kind == AppKind::Middleware,
                SiblingAccess::All => true,
            };
            let digests = self.digests_of(composition);
            let mut sibling = Sibling {
                composition: Arc::clone(composition),
                files: digests.files,
                names: is_read.then_some(digests.names),
            };
            let mut bases = reached.bases.iter();
            if bases.any(|base| sibling.is_composed_from(base)) {
                sibling.names = Some(digests.names);
            }
            sibling
        };
        others.map(sibling).collect()
    }

    fn reached(&mut self, task: &Task) -> Arc<ReachedDependencies> {
        let name = match &task.subject {
            Subject::Package(_) => task.source.clone(),
            Subject::Unit(unit) => format!("apps/{}", unit.app),
        };
        if let Some(known) = self.reached.get(&name) {
            return Arc::clone(known);
        }
        let reached = Arc::new(self.lock.reach(self.project, task));
        self.reached.insert(name, Arc::clone(&reached));
        reached
    }

    fn package(&mut self, folder: &str, is_built: bool) -> Result<Arc<FileGroup>, Error> {
        let key = (folder.to_owned(), is_built);
        if let Some(known) = self.groups.get(&key) {
            return Ok(Arc::clone(known));
        }
        let group = Arc::new(files::package(self.project, self.lister, folder, is_built)?);
        self.groups.insert(key, Arc::clone(&group));
        Ok(group)
    }

    fn named(&mut self, path: &str) -> Result<Arc<FileGroup>, Error> {
        let key = (format!("named {path}"), false);
        if let Some(known) = self.groups.get(&key) {
            return Ok(Arc::clone(known));
        }
        let group = Arc::new(files::named(self.project, path)?);
        self.groups.insert(key, Arc::clone(&group));
        Ok(group)
    }

    fn base(&mut self, folder: &str) -> Result<Arc<BaseAppFolder>, Error> {
        if let Some(known) = self.bases.get(folder) {
            return Ok(Arc::clone(known));
        }
        let base = files::base_folder(self.lister, folder)?;
        self.bases.insert(folder.to_owned(), Arc::clone(&base));
        Ok(base)
    }

    /// Paths outside the app that its TypeScript configs name.
    fn named_by_configs(
        &mut self,
        task: &Task,
        composition: Option<&Composition>,
    ) -> BTreeSet<String> {
        let root = &self.project.root;
        let mut found = BTreeSet::new();
        let Some(composition) = composition else {
            let config = root.join(&task.source).join("tsconfig.json");
            let text = std::fs::read(config).unwrap_or_default();
            return tsconfig::named_paths(root, &text, std::slice::from_ref(&task.source));
        };
        let entries = composition.entries.iter();
        for (path, entry) in entries.filter(|(path, _)| tsconfig::is_config(path)) {
            let key = (format!("{}/{path}", task.source), entry.id().to_string());
            if let Some(known) = self.named_by_config.get(&key) {
                found.extend(known.iter().cloned());
                continue;
            }
            let inner = path.rsplit_once('/').map_or("", |(folder, _)| folder);
            let folders = [&task.source, &task.folder].map(|it| format!("{it}/{inner}"));
            let text = entry.read().unwrap_or_default();
            let mut paths = tsconfig::named_paths(root, &text, &folders);
            let packages = self.project.packages.iter();
            let named = packages.filter(|it| tsconfig::names(&text, &it.name));
            paths.extend(named.map(|package| package.folder.clone()));
            found.extend(paths.iter().cloned());
            self.named_by_config.insert(key, paths);
        }
        found
    }
}

/// Digests of all compositions.
fn digests(stores: &[StorePlan]) -> BTreeMap<UnitId, CompositionDigests> {
    let all = stores.par_iter().flat_map_iter(|store| &store.compositions);
    all.map(|it| (it.unit.clone(), composition_digests(it)))
        .collect()
}

fn composition_digests(composition: &Composition) -> CompositionDigests {
    let (mut files, mut names) = (KeyHasher::default(), KeyHasher::default());
    for (path, entry) in &composition.entries {
        names.part(path.as_bytes());
        files.part(path.as_bytes());
        files.part(entry.mode().as_bytes());
        let id = if &**path == "package.json" {
            entry.source_id()
        } else {
            entry.id()
        };
        files.part(id.oid().as_bytes());
    }
    CompositionDigests {
        files: files.end(),
        names: names.end(),
    }
}
