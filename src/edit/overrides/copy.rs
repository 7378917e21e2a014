//! New overrides: copies of the files that a store inherits.

use std::sync::Arc;

use super::layers::{FileOfLayer, ReadLayers, app_folder, content, owner, real_root};
use super::{OverrideChanged, OverrideError, OverrideProposal};
use crate::compare::{self, files_in, split_path, unknown_path};
use crate::config::Project;
use crate::edit::{Change, EditedFiles, Error, TreeEdit};
use crate::files::DiskFiles;
use crate::git::Repository;
use crate::overlay::{Composer, Composition, LayerReader, Owner, is_from_base};
use crate::store::{AppName, Store};

/// Overrides paths (`<app>/<path>`) in a store. Each override starts as a copy of the file that the
/// store inherits now, or of the file of the layer `from`, which may be any store.
pub fn copy_inherited(
    project: &Project,
    store: &Store,
    paths: &[String],
    from: Option<&Owner>,
    command: &str,
) -> Result<OverrideProposal, Error> {
    let mut stores = vec![store];
    if let Some(Owner::Store(id)) = from {
        stores.extend(project.stores.get(id.as_str()));
    }
    let layers = ReadLayers::new(project, &stores)?;
    let compositions =
        Composer::new(project, &layers.reader).compose_from(&[store], &layers.layers)?;
    let request = CopyRequest {
        layers: &layers,
        store,
        compositions: &compositions,
        from,
    };
    let mut edit = TreeEdit::new(command);
    let mut files = Vec::new();
    for path in paths {
        let (app, path) = split_path(project, store, path)?;
        let original = request.original(&app, path)?;
        let file = format!("{}/{path}", app_folder(store, &app));
        let copied = OverrideChanged::Copy {
            file: file.clone(),
            from: original.owner.clone(),
            original: original.file.clone(),
        };
        if !files.contains(&copied) {
            edit.changes.push(Change::Write {
                path: file,
                old: None,
                new: content(&original)?,
            });
            files.push(copied);
        }
    }
    edit.verify(&project.root)?;
    check_composed(project, store, paths, &edit)?;
    Ok(OverrideProposal {
        edit,
        files,
        notes: Vec::new(),
    })
}

/// What is asked for.
struct CopyRequest<'a> {
    layers: &'a ReadLayers<'a>,
    store: &'a Store,
    compositions: &'a [Composition],
    from: Option<&'a Owner>,
}

impl CopyRequest<'_> {
    /// The file to copy.
    fn original(&self, app: &AppName, path: &str) -> Result<FileOfLayer<'_>, Error> {
        let Self { layers, store, .. } = self;
        let shown = || format!("{app}/{path}");
        if is_from_base(path) {
            return Err(OverrideError::FromBase { path: shown() }.into());
        }
        let project = layers.project;
        let mut compositions = self.compositions.iter();
        let composition = compositions.find(|it| it.unit.app == *app);
        let composition = composition.ok_or_else(|| compare::Error::App {
            path: shown(),
            store: store.id.to_string(),
            apps: Vec::new(),
        })?;
        let unit = Composer::new(project, &layers.reader);
        let app_of_project = project.apps.iter().find(|it| it.name == *app);
        let rule = app_of_project.and_then(|app| {
            let unit = unit.unit(store, app, &layers.layers);
            unit.dropped_by(path).cloned()
        });
        if let Some(rule) = rule {
            return Err(OverrideError::Dropped {
                store: store.id.clone(),
                path: shown(),
                rule: format!("`{}` in `ignorePaths` of {}", rule.rule, rule.store),
            }
            .into());
        }
        if let Some(own) = layers.file(&owner(store), app, path) {
            return Err(OverrideError::Overridden {
                store: store.id.clone(),
                file: own.file,
                hidden: layers.inherited(store, app, path).map(|it| it.file),
            }
            .into());
        }
        let original = match self.from {
            Some(from) => layers.file(from, app, path),
            None => layers.inherited(store, app, path),
        };
        original.ok_or_else(|| self.missing(composition, path))
    }

    /// Why there is no file to copy.
    fn missing(&self, composition: &Composition, path: &str) -> Error {
        let app = &composition.unit.app;
        let shown = format!("{app}/{}", path.trim_end_matches('/'));
        let files = files_in(composition, path);
        if files > 0 {
            let path = shown.trim_end_matches('/').to_owned();
            return OverrideError::Folder { path, files }.into();
        }
        let layers = self.layers;
        match self.from {
            Some(from) if composition.entries.contains_key(path) => OverrideError::NotInLayer {
                from: from.clone(),
                path: shown,
                layers: layers
                    .above(self.store)
                    .into_iter()
                    .filter(|owner| layers.file(owner, app, path).is_some())
                    .collect(),
            }
            .into(),
            _ => unknown_path(layers.project, self.store, composition, path).into(),
        }
    }
}

/// Fails if the store would not be composed of the new files.
fn check_composed(
    project: &Project,
    store: &Store,
    paths: &[String],
    edit: &TreeEdit,
) -> Result<(), Error> {
    let root = real_root(project)?;
    let files = Arc::new(EditedFiles::new(&root, edit, Arc::new(DiskFiles)));
    let after = Project::load_from(&*files, &root).map_err(|error| Error::Invalid {
        command: edit.command.clone(),
        causes: vec![error],
    })?;
    let repository = Repository::around(&root)?;
    let reader = LayerReader::new(&root, repository.as_ref())?.simulating(files);
    let Some(store) = after.stores.get(store.id.as_str()) else {
        return Ok(());
    };
    let compositions = Composer::new(&after, &reader).compose(&[store]);
    let compositions = compositions.map_err(|error| Error::Uncomposable {
        command: edit.command.clone(),
        causes: vec![error],
    })?;
    for path in paths {
        let (app, path) = split_path(project, store, path)?;
        let entry = compositions
            .iter()
            .filter(|it| it.unit.app == app)
            .find_map(|it| Some(&it.layers[it.entries.get(path)?.winner()]));
        if entry != Some(&owner(store)) {
            let file = format!("{}/{path}", app_folder(store, &app));
            return Err(OverrideError::Ignored { file }.into());
        }
    }
    Ok(())
}
