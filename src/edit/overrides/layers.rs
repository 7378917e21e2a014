//! The layers of stores, read once.

use std::path::PathBuf;
use std::sync::Arc;

use crate::compare::{self, owner_folder};
use crate::config::Project;
use crate::edit::places::folder_of;
use crate::edit::{Error, NewContent};
use crate::git::Repository;
use crate::overlay::{Composer, FileKind, Layer, LayerFile, LayerReader, Layers, Owner, fail_on};
use crate::store::{AppName, Store};

/// The layers of some stores and of everything that they inherit.
pub struct ReadLayers<'a> {
    pub project: &'a Project,
    pub reader: LayerReader,
    pub layers: Layers,
}

/// An existing file of a layer.
pub struct FileOfLayer<'l> {
    pub owner: Owner,
    /// Relative to the project.
    pub file: String,
    pub content: &'l Arc<LayerFile>,
}

impl<'a> ReadLayers<'a> {
    /// Reads the layers of the stores. Files that cannot be composed are an error.
    pub fn new(project: &'a Project, stores: &[&Store]) -> Result<Self, Error> {
        let repository = Repository::around(&project.root)?;
        let reader = LayerReader::new(&project.root, repository.as_ref())?;
        let (layers, problems) = Composer::new(project, &reader).layers(stores, |_, _| None)?;
        fail_on(problems)?;
        Ok(Self {
            project,
            reader,
            layers,
        })
    }

    /// The layer of an owner for an app, if it has one.
    pub fn layer(&self, owner: &Owner, app: &AppName) -> Option<&Layer> {
        self.layers.get(owner, app).map(|layer| &**layer)
    }

    /// The file that an owner's layer has at a path.
    pub fn file(&self, owner: &Owner, app: &AppName, path: &str) -> Option<FileOfLayer<'_>> {
        Some(FileOfLayer {
            content: self.layers.get(owner, app)?.files.get(path)?,
            file: format!("{}/{path}", owner_folder(self.project, owner, app)),
            owner: owner.clone(),
        })
    }

    /// The owners that a store inherits from, nearest first.
    pub fn above(&self, store: &Store) -> Vec<Owner> {
        let lineage = self.project.stores.lineage(store);
        let ancestors = lineage.iter().rev().skip(1);
        ancestors
            .map(|link| Owner::Store(link.id.clone()))
            .chain([Owner::Base])
            .collect()
    }

    /// The file that a store inherits at a path.
    pub fn inherited(&self, store: &Store, app: &AppName, path: &str) -> Option<FileOfLayer<'_>> {
        let above = self.above(store);
        above.iter().find_map(|owner| self.file(owner, app, path))
    }
}

/// The owner of a store's own layers.
pub fn owner(store: &Store) -> Owner {
    Owner::Store(store.id.clone())
}

/// The folder of a store for an app, which may not exist yet.
pub fn app_folder(store: &Store, app: &AppName) -> String {
    format!("{}/{app}", folder_of(store))
}

/// The project's folder, with links resolved.
pub fn real_root(project: &Project) -> Result<PathBuf, Error> {
    project.root.canonicalize().map_err(|source| Error::Io {
        doing: "read",
        path: project.root.clone(),
        source,
    })
}

/// Reads the content of a layer's file.
pub fn content(file: &FileOfLayer) -> Result<NewContent, Error> {
    match &file.content.kind {
        FileKind::Link { target } => Ok(NewContent::Link {
            target: target.to_string(),
        }),
        FileKind::File { executable } => {
            let bytes = file.content.read().map_err(|source| compare::Error::Read {
                path: file.file.clone(),
                source,
            })?;
            Ok(NewContent::File {
                bytes,
                executable: *executable,
            })
        }
    }
}
