//! Overrides move one layer up, if each store keeps its files.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use super::folders::remove_emptied;
use super::layers::{FileOfLayer, ReadLayers, content, owner, real_root};
use super::revert::own_override;
use super::{OverrideChanged, OverrideError, OverrideProposal};
use crate::compare::{owner_folder, split_path};
use crate::config::Project;
use crate::edit::uncommitted::uncommitted;
use crate::edit::{Change, EditedFiles, Error, TreeEdit};
use crate::files::DiskFiles;
use crate::git::Repository;
use crate::overlay::{Composer, Composition, Entry, FileKind, LayerReader, Layers, Owner};
use crate::store::{AppName, Store, StoreId};

/// Moves overrides (`<app>/<path>`) of a store to its parent; those of a store of root go to the base
/// app. Overrides of other stores that become needless are removed. It is an error if a store would
/// get another file than it has now.
pub fn raise(
    project: &Project,
    store: &Store,
    paths: &[String],
    command: &str,
) -> Result<OverrideProposal, Error> {
    let all: Vec<&Store> = project.stores.iter().collect();
    let layers = ReadLayers::new(project, &all)?;
    let root = real_root(project)?;
    let mut raising = Raising {
        layers: &layers,
        root: &root,
        store,
        parent: layers.above(store)[0].clone(),
        edit: TreeEdit::new(command),
        files: Vec::new(),
        emptied: BTreeMap::new(),
    };
    let mut raised = Vec::new();
    for path in paths {
        let (app, path) = split_path(project, store, path)?;
        let one = (app, path.to_owned());
        if !raised.contains(&one) {
            raising.add(&one.0, path)?;
            raised.push(one);
        }
    }
    raising.finish(&raised)
}

/// Moves of overrides that are being put together.
struct Raising<'a> {
    layers: &'a ReadLayers<'a>,
    root: &'a Path,
    store: &'a Store,
    parent: Owner,
    edit: TreeEdit,
    files: Vec<OverrideChanged>,
    /// The files that are taken out of each store.
    emptied: BTreeMap<StoreId, Vec<String>>,
}

impl Raising<'_> {
    fn project(&self) -> &Project {
        self.layers.project
    }

    /// The stores that inherit from the parent, directly or not, parents before children. The parent
    /// itself is one of them only if it is deployable.
    fn concerned(&self) -> Vec<&Store> {
        let Owner::Store(parent) = &self.parent else {
            return self.project().stores.iter().collect();
        };
        let stores = self.project().stores.iter();
        stores
            .filter(|store| {
                let lineage = self.project().stores.lineage(store);
                let inherits = lineage.iter().any(|link| link.id == *parent);
                inherits && (store.id != *parent || store.deployment.is_some())
            })
            .collect()
    }

    /// Moves one override, and removes those that become needless.
    fn add(&mut self, app: &AppName, path: &str) -> Result<(), Error> {
        let layers = self.layers;
        let file = own_override(layers, self.store, app, path)?;
        let Some(own) = layers.file(&owner(self.store), app, path) else {
            return Ok(());
        };
        self.check_place(&own)?;
        let above = layers.file(&self.parent, app, path);
        if let Some(hidden) = layers.inherited(self.store, app, path)
            && own.content.is_like(hidden.content)
        {
            return Err(OverrideError::Needless {
                file,
                hidden: hidden.file,
            }
            .into());
        }
        let folder = owner_folder(self.project(), &self.parent, app);
        let folder = if folder.is_empty() {
            // The parent has no folder for the app yet.
            format!("{}/{app}", self.parent_folder())
        } else {
            folder
        };
        let raised = format!("{folder}/{path}");
        match &above {
            Some(above) => {
                self.check_place(above)?;
                self.replace(&own, above)?;
            }
            None => self.edit.changes.push(Change::Move {
                from: file.clone(),
                to: raised.clone(),
            }),
        }
        let store = self.store.id.clone();
        self.emptied.entry(store).or_default().push(file.clone());
        self.files.push(OverrideChanged::Raise {
            file,
            to: self.parent.clone(),
            raised: raised.clone(),
            replaces: above.is_some(),
            stores: Vec::new(),
        });
        self.remove_needless(app, path, &own, &raised);
        Ok(())
    }

    /// The folder of the parent store.
    fn parent_folder(&self) -> String {
        let Owner::Store(id) = &self.parent else {
            return "apps".into();
        };
        let parent = self.project().stores.get(id.as_str());
        parent.and_then(|it| it.folder.clone()).unwrap_or_default()
    }

    /// Fails if the file is, or leads through, a link out of the app: elsewhere it has another target.
    fn check_place(&self, file: &FileOfLayer) -> Result<(), Error> {
        let kept = matches!(file.content.kind, FileKind::Link { .. });
        let path = self.root.join(&file.file);
        let is_plain = path
            .parent()
            .is_some_and(|folder| folder.canonicalize().is_ok_and(|real| real == folder));
        if is_plain && (kept || !path.is_symlink()) {
            return Ok(());
        }
        Err(OverrideError::Link {
            file: file.file.clone(),
        }
        .into())
    }

    /// Replaces the file of the parent.
    fn replace(&mut self, own: &FileOfLayer, above: &FileOfLayer) -> Result<(), Error> {
        if !uncommitted(self.root, &above.file)?.is_empty() {
            return Err(Error::Option {
                message: format!(
                    "`{}` would be replaced, and no commit has its content",
                    above.file.escape_debug()
                ),
                help: "commit the file first, or move it away".into(),
            });
        }
        let (old, new) = (&above.content.kind, &own.content.kind);
        if old != new || matches!(old, FileKind::Link { .. }) {
            // A file that is written over keeps its mode.
            return Err(Error::Option {
                message: format!(
                    "`{}` cannot replace `{}`: one of them is a link, or executable",
                    own.file.escape_debug(),
                    above.file.escape_debug()
                ),
                help: "remove the file of the layer above first, then run the command again".into(),
            });
        }
        self.edit.changes.push(Change::Write {
            path: above.file.clone(),
            old: Some(content(above)?.bytes().to_vec()),
            new: content(own)?,
        });
        self.edit.changes.push(Change::Remove {
            path: own.file.clone(),
            keep: None,
        });
        Ok(())
    }

    /// Removes the overrides that are the same as the raised file, and that hide it then.
    fn remove_needless(&mut self, app: &AppName, path: &str, own: &FileOfLayer, raised: &str) {
        let layers = self.layers;
        let mut gone = vec![owner(self.store)];
        let mut removed = Vec::new();
        for other in self.concerned() {
            if other.id == self.store.id || owner(other) == self.parent {
                continue;
            }
            let Some(file) = layers.file(&owner(other), app, path) else {
                continue;
            };
            let above = layers.above(other);
            let mut above = above.iter().filter(|owner| !gone.contains(owner));
            let nearest = above
                .find(|owner| **owner == self.parent || layers.file(owner, app, path).is_some());
            if nearest == Some(&self.parent) && file.content.is_like(own.content) {
                gone.push(owner(other));
                removed.push((other.id.clone(), file.file));
            }
        }
        for (store_id, file) in removed {
            self.edit.changes.push(Change::Remove {
                path: file.clone(),
                keep: None,
            });
            let emptied = self.emptied.entry(store_id.clone()).or_default();
            emptied.push(file.clone());
            self.files.push(OverrideChanged::Remove {
                store_id,
                file,
                inherits_from: self.parent.clone(),
                inherited: raised.to_owned(),
            });
        }
    }

    /// Simulates the moves, and fails if a store gets another file.
    fn finish(mut self, raised: &[(AppName, String)]) -> Result<OverrideProposal, Error> {
        for (id, files) in &self.emptied {
            if let Some(store) = self.layers.project.stores.get(id.as_str()) {
                remove_emptied(&mut self.edit, self.root, store, files);
            }
        }
        self.edit.verify(&self.project().root)?;
        let files = Arc::new(EditedFiles::new(self.root, &self.edit, Arc::new(DiskFiles)));
        let command = || self.edit.command.clone();
        let after = Project::load_from(&*files, self.root).map_err(|error| Error::Invalid {
            command: command(),
            causes: vec![error],
        })?;
        let repository = Repository::around(self.root)?;
        let reader = LayerReader::new(self.root, repository.as_ref())?.simulating(files);
        let ids: Vec<_> = self.concerned().iter().map(|it| it.id.clone()).collect();
        let simulated: Vec<_> = ids
            .iter()
            .filter_map(|id| after.stores.get(id.as_str()))
            .collect();
        let composer = Composer::new(&after, &reader);
        let (read, _) = composer.layers(&simulated, |_, _| None)?;
        let then = composer.compose_from(&deployable(&simulated), &read);
        let then = then.map_err(|error| Error::Uncomposable {
            command: command(),
            causes: vec![error],
        })?;
        let concerned = self.concerned();
        let composer_now = Composer::new(self.project(), &self.layers.reader);
        let now = composer_now.compose_from(&deployable(&concerned), &self.layers.layers)?;
        for (app, path) in raised {
            let mut stores = differing_at(&now, &then, app, path);
            stores.extend(self.differing_templates(&after, &reader, &read, app, path)?);
            if !stores.is_empty() {
                return Err(self.disagreement(app, path, &stores));
            }
        }
        let elsewhere = differing(&now, &then);
        if let (false, Some((app, path))) = (elsewhere.is_empty(), raised.first()) {
            return Err(self.disagreement(app, path, &elsewhere));
        }
        let given = self.given(&then);
        for changed in &mut self.files {
            if let OverrideChanged::Raise { raised, stores, .. } = changed {
                stores.extend(given.get(raised).cloned().unwrap_or_default());
            }
        }
        Ok(OverrideProposal {
            edit: self.edit,
            files: self.files,
            notes: Vec::new(),
        })
    }

    /// The error for a file that stores do not have now.
    fn disagreement(&self, app: &AppName, path: &str, stores: &BTreeSet<StoreId>) -> Error {
        let own = self.layers.file(&owner(self.store), app, path);
        let file = own.map(|own| own.file).unwrap_or_default();
        let to = self.parent.clone();
        let stores = stores.iter().map(ToString::to_string).collect();
        let error = if self.layers.inherited(self.store, app, path).is_some() {
            OverrideError::Disagree { file, to, stores }
        } else {
            let path = path.to_owned();
            OverrideError::NewFile {
                file,
                path,
                to,
                stores,
            }
        };
        error.into()
    }

    /// The templates that get another file at the path. They are not composed, but stores will
    /// inherit from them.
    fn differing_templates(
        &self,
        after: &Project,
        reader: &LayerReader,
        read: &Layers,
        app: &AppName,
        path: &str,
    ) -> Result<BTreeSet<StoreId>, Error> {
        let now = Composer::new(self.project(), &self.layers.reader);
        let then = Composer::new(after, reader);
        let mut differing = BTreeSet::new();
        let Some(app) = self.project().apps.iter().find(|it| it.name == *app) else {
            return Ok(differing);
        };
        let concerned = self.concerned();
        for store in concerned.iter().filter(|it| it.deployment.is_none()) {
            let Some(later) = after.stores.get(store.id.as_str()) else {
                differing.insert(store.id.clone());
                continue;
            };
            let before = now.unit(store, app, &self.layers.layers).entry(path)?;
            let entry = then.unit(later, app, read).entry(path)?;
            if !is_same(before.as_ref(), entry.as_ref()) {
                differing.insert(store.id.clone());
            }
        }
        Ok(differing)
    }

    /// The deployable stores that have each raised file, by its path in the project.
    fn given(&self, compositions: &[Composition]) -> BTreeMap<String, Vec<StoreId>> {
        let mut given = BTreeMap::<String, Vec<StoreId>>::new();
        for changed in &self.files {
            let OverrideChanged::Raise { raised, .. } = changed else {
                continue;
            };
            for composition in compositions {
                let app = &composition.unit.app;
                let folder = match &self.parent {
                    Owner::Base => format!("apps/{app}/"),
                    Owner::Store(_) => format!("{}/{app}/", self.parent_folder()),
                };
                let entry = raised
                    .strip_prefix(&folder)
                    .and_then(|path| composition.entries.get(path));
                if entry.is_some_and(|entry| composition.layers[entry.winner()] == self.parent) {
                    let stores = given.entry(raised.clone()).or_default();
                    stores.push(composition.unit.store.clone());
                }
            }
        }
        given
    }
}

fn deployable<'s>(stores: &[&'s Store]) -> Vec<&'s Store> {
    let stores = stores.iter().copied();
    stores.filter(|store| store.deployment.is_some()).collect()
}

fn is_same(before: Option<&Entry>, after: Option<&Entry>) -> bool {
    match (before, after) {
        (Some(before), Some(after)) => before.is_like(after),
        (before, after) => before.is_none() && after.is_none(),
    }
}

/// The stores whose composition has another file at the path.
fn differing_at(
    now: &[Composition],
    then: &[Composition],
    app: &AppName,
    path: &str,
) -> BTreeSet<StoreId> {
    let mut differing = BTreeSet::new();
    for composition in now.iter().filter(|it| it.unit.app == *app) {
        let later = then.iter().find(|it| it.unit == composition.unit);
        let after = later.and_then(|later| later.entries.get(path));
        if !is_same(composition.entries.get(path), after) {
            differing.insert(composition.unit.store.clone());
        }
    }
    differing
}

/// The stores whose composition differs.
fn differing(now: &[Composition], then: &[Composition]) -> BTreeSet<StoreId> {
    let mut later: BTreeMap<_, _> = then.iter().map(|it| (&it.unit, it)).collect();
    let mut differing = BTreeSet::new();
    for composition in now {
        let is_same = later.remove(&composition.unit).is_some_and(|later| {
            let (a, b) = (&composition.entries, &later.entries);
            let mut pairs = a.iter().zip(b);
            a.len() == b.len() && pairs.all(|(a, b)| a.0 == b.0 && a.1.is_like(b.1))
        });
        if !is_same {
            differing.insert(composition.unit.store.clone());
        }
    }
    differing.extend(later.into_keys().map(|unit| unit.store.clone()));
    differing
}
