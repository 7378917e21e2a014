//! A project in the working tree or in a commit.

use std::path::Path;
use std::sync::Arc;

use super::Error;
use crate::config::{self, Project};
use crate::files::{DiskFiles, FileTree};
use crate::git::{GitObjects, Repository, Tree};
use crate::overlay::{Composer, LayerReader};

/// A project, and the reader of its layers.
pub struct ProjectSnapshot {
    /// The revision as given, or `the working tree`; for messages.
    pub name: String,
    /// Stores, apps and settings.
    pub project: Project,
    /// Reads its layers.
    pub reader: LayerReader,
    /// The commit's files; `None` for the working tree.
    pub tree: Option<Tree>,
}

impl ProjectSnapshot {
    /// The working tree, as a commit of all its files has it.
    pub fn working_tree(root: &Path, repository: &Repository) -> Result<Self, Error> {
        Ok(Self {
            name: "the working tree".into(),
            project: Project::load(root)?,
            reader: LayerReader::new(root, Some(repository))?.as_stored(),
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
        let reader = LayerReader::of_commit(root, repository, tree.clone())?;
        let project =
            Project::load_from(&tree, reader.project()).map_err(|source| Error::Project {
                revision: revision.to_owned(),
                source: Box::new(source),
            })?;
        Ok(Self {
            name: revision.to_owned(),
            project,
            reader,
            tree: Some(tree),
        })
    }

    /// The tree that its files are read from.
    pub fn files(&self) -> &dyn FileTree {
        match &self.tree {
            Some(tree) => tree,
            None => &DiskFiles,
        }
    }

    /// A composer for its stores.
    pub fn composer(&self) -> Composer<'_> {
        Composer::new(&self.project, &self.reader)
    }
}

/// The repository that the project is in. It is an error if there is none.
pub fn repository(project: &Path) -> Result<Repository, Error> {
    Repository::around(project)?.ok_or_else(|| Error::NoRepository {
        project: project.to_owned(),
    })
}

/// Whether the error says that the revision has no project, and not that it is invalid.
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
