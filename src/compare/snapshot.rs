//! A project at one moment: as it lies on disk, or as a commit has it.

use std::path::Path;
use std::sync::Arc;

use super::Error;
use crate::config::{self, Project};
use crate::files::{DiskFiles, FileTree};
use crate::git::{GitObjects, Repository, Tree};
use crate::overlay::{Composer, LayerReader};

/// A project and where its layers are listed from.
pub struct ProjectSnapshot {
    /// As people call it: a revision, or the working tree.
    pub name: String,
    /// Stores, apps and settings of that moment.
    pub project: Project,
    /// Lists its layers.
    pub lister: LayerReader,
    /// The commit's files; none for the working tree.
    pub tree: Option<Tree>,
}

impl ProjectSnapshot {
    /// The working tree, as a commit of everything in it would be.
    pub fn working_tree(root: &Path, repository: &Repository) -> Result<Self, Error> {
        Ok(Self {
            name: "the working tree".into(),
            project: Project::load(root)?,
            lister: LayerReader::new(root, Some(repository))?.as_stored(),
            tree: None,
        })
    }

    /// A commit of the repository around the project in `root`.
    pub fn commit(
        root: &Path,
        repository: &Repository,
        objects: &Arc<GitObjects>,
        revision: &str,
    ) -> Result<Self, Error> {
        let tree = repository.tree(objects, revision)?;
        let lister = LayerReader::of_commit(root, repository, tree.clone())?;
        let project =
            Project::load_from(&tree, lister.project()).map_err(|source| Error::Project {
                revision: revision.to_owned(),
                source: Box::new(source),
            })?;
        Ok(Self {
            name: revision.to_owned(),
            project,
            lister,
            tree: Some(tree),
        })
    }

    /// What its files are read from.
    pub fn files(&self) -> &dyn FileTree {
        match &self.tree {
            Some(tree) => tree,
            None => &DiskFiles,
        }
    }

    /// Composes its stores.
    pub fn composer(&self) -> Composer<'_> {
        Composer::new(&self.project, &self.lister)
    }
}

/// The repository around the project; a project without one has no revisions.
pub fn repository(project: &Path) -> Result<Repository, Error> {
    Repository::around(project)?.ok_or_else(|| Error::NoRepository {
        project: project.to_owned(),
    })
}

/// Whether the revision has no project at all.
pub fn is_absent(error: &Error) -> bool {
    let Error::Project { source, .. } = error else {
        return false;
    };
    match &**source {
        config::Error::NotFound { .. } => true,
        config::Error::Read { source, .. } => source.kind() == std::io::ErrorKind::NotFound,
        _ => false,
    }
}
