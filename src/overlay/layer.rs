//! Listing one layer, from disk or from a commit: the files that git would not ignore, plus
//! `.env` and `.env.*`.
//!
//! An own walk: ignored `.env` files must be seen, tracked files count although a rule ignores
//! them, and a link is kept, followed or refused by where it leads.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Serialize, Serializer};

use super::content::ContentId;
use super::gitignore::Gitignore;
use super::walk::{LayerWalk, WalkScope};
use super::{Error, LayerProblem};
use crate::disk::Stamp;
use crate::files::{DiskFiles, FileTree};
use crate::git::{self, GitObjects, Repository, Tree, WorkTree};
use crate::store::{AppName, StoreId};

/// Whose layer it is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Owner {
    /// The base app in `apps/<app>`.
    Base,
    /// A store that the composed store descends from, or the store itself.
    Store(StoreId),
}

impl std::fmt::Display for Owner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Base => f.write_str("base"),
            Self::Store(id) => id.fmt(f),
        }
    }
}

impl Serialize for Owner {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// What a path is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum FileKind {
    /// A file whose content is copied.
    File {
        /// Whether its owner may execute it.
        executable: bool,
    },
    /// A link inside the app, kept as a link.
    Link {
        /// Its target, relative to the link.
        target: Arc<str>,
    },
}

/// One path of a layer.
#[derive(Debug, Clone)]
pub struct LayerFile {
    /// File or link.
    pub kind: FileKind,
    /// Identity of the content; of the target's text for a link.
    pub id: ContentId,
    /// Where the content lies.
    pub source: ContentSource,
}

/// Where a file's content lies.
#[derive(Debug, Clone)]
pub enum ContentSource {
    /// In this file of the working tree.
    Disk(Arc<Path>, Stamp),
    /// In the blob with the file's id.
    Blob(Arc<GitObjects>),
    /// In the blob with the file's id, which git would make of this file of the working tree.
    Stored(Arc<GitObjects>, Arc<Path>),
    /// In the link itself.
    Link,
}

impl LayerFile {
    /// Git's mode of it, in octal.
    pub fn mode(&self) -> &'static str {
        match self.kind {
            FileKind::File { executable: false } => "100644",
            FileKind::File { executable: true } => "100755",
            FileKind::Link { .. } => "120000",
        }
    }

    /// Its content; a link's target.
    pub fn read(&self) -> std::io::Result<Vec<u8>> {
        match (&self.kind, &self.source) {
            (FileKind::Link { target }, _) => Ok(target.as_bytes().to_vec()),
            (_, ContentSource::Disk(path, _)) => std::fs::read(path),
            (_, ContentSource::Blob(objects) | ContentSource::Stored(objects, _)) => {
                objects.blob(self.id.oid())
            }
            (_, ContentSource::Link) => Ok(Vec::new()),
        }
    }
}

/// One owner's files for one app, by path relative to the app, with `/`.
#[derive(Debug, Clone)]
pub struct Layer {
    /// Whose they are.
    pub owner: Owner,
    /// The files.
    pub files: BTreeMap<Arc<str>, Arc<LayerFile>>,
    /// Whether everything in it lies in its own folder: no link has led out of it, to content
    /// that can change while the folder does not.
    pub is_closed: bool,
}

/// Lists layers of one project.
pub struct LayerReader {
    pub(super) project: PathBuf,
    /// Content may be copied from below here.
    pub(super) boundary: PathBuf,
    pub(super) files: Arc<dyn FileTree>,
    /// Where blobs are, for a commit.
    pub(super) objects: Option<Arc<GitObjects>>,
    /// What git knows of the working tree.
    pub(super) work_tree: Option<WorkTree>,
    /// Rules that hold in all of `apps/`, weakest first.
    outer: Vec<Gitignore>,
    /// Whether files count as git would store them, and `.env` files that it ignores do not.
    pub(super) as_stored: bool,
}

impl LayerReader {
    /// Gets ready to list layers of `project`; without a repository only `.gitignore` files count.
    pub fn new(project: &Path, repository: Option<&Repository>) -> Result<Self, Error> {
        let project = canonical(project)?;
        let mut outer = Vec::new();
        let mut boundary = project.clone();
        let mut work_tree = None;
        if let Some(repository) = repository {
            boundary = canonical(repository.root())?;
            let known = work_tree.insert(repository.work_tree()?);
            let prefix = repository.prefix();
            let missing = |path: &&str| boundary.join(path).symlink_metadata().is_err();
            let apps = format!("{prefix}apps/");
            let mut skipped = known.index().skipped(&apps).filter(missing);
            if let Some(first) = skipped.next() {
                let path = first[prefix.len()..].to_owned();
                let count = 1 + skipped.count();
                return Err(Error::Files {
                    problems: vec![LayerProblem::Sparse { path, count }],
                });
            }
        }
        // The user's for all repositories, then this clone's.
        let excludes = [
            git::excludes_file(repository),
            repository.map(Repository::exclude_file),
        ];
        for file in excludes.into_iter().flatten().filter(|it| it.is_file()) {
            outer.push(Gitignore::read(&boundary, &file));
        }
        // From the repository's root down to the folder that holds the layers.
        let mut folders: Vec<_> = project
            .ancestors()
            .take_while(|folder| folder.starts_with(&boundary))
            .collect();
        folders.reverse();
        outer.extend(folders.into_iter().filter_map(rules_in));
        Ok(Self {
            project,
            boundary,
            files: Arc::new(DiskFiles),
            objects: None,
            work_tree,
            outer,
            as_stored: false,
        })
    }

    /// Gets ready to list layers as they were in a commit.
    pub fn of_commit(project: &Path, repository: &Repository, tree: Tree) -> Result<Self, Error> {
        Ok(Self {
            project: canonical(project)?,
            boundary: canonical(repository.root())?,
            objects: Some(Arc::clone(tree.objects())),
            files: Arc::new(tree),
            work_tree: None,
            outer: Vec::new(),
            as_stored: true,
        })
    }

    /// Lists what a commit of everything would have: `.env` files that git ignores are left
    /// out, and of a file that git converts (line ends, filters) counts what it would store.
    #[must_use]
    pub fn as_stored(mut self) -> Self {
        self.as_stored = true;
        self
    }

    /// The project's folder, without links.
    pub fn project(&self) -> &Path {
        &self.project
    }

    /// Whether it lists the working tree.
    pub fn is_on_disk(&self) -> bool {
        self.objects.is_none()
    }

    /// Lists what `owner` has for an app in `folder`, relative to the project. A folder that
    /// does not exist is an empty layer.
    pub fn layer(&self, owner: Owner, folder: &str) -> Result<(Layer, Vec<LayerProblem>), Error> {
        let root = self.project.join(folder);
        let mut walk = LayerWalk::new(self, folder, &root);
        if self.files.is_folder(&root) {
            let mut rules = Vec::new();
            let mut parent = self.project.clone();
            let mut ignored = false;
            for part in Path::new(folder) {
                if parent != self.project {
                    rules.extend(self.rules_in(&parent));
                }
                parent.push(part);
                ignored |= self.ignores(&rules, &parent, true);
            }
            if !ignored || self.tracks_below(&root) {
                let taken = if ignored {
                    WalkScope::Tracked
                } else {
                    WalkScope::Visible
                };
                walk.folder(&root, "", taken, &mut Vec::new(), &mut rules)?;
            }
        }
        Ok(walk.end(owner))
    }

    /// Lists the files that lie directly in the project, and in no folder.
    pub fn top(&self) -> Result<Layer, Error> {
        let root = self.project.clone();
        let mut walk = LayerWalk::new(self, "", &root);
        walk.top()?;
        Ok(walk.end(Owner::Base).0)
    }

    pub(super) fn rules_in(&self, folder: &Path) -> Option<Gitignore> {
        self.files.has_ignored().then(|| rules_in(folder)).flatten()
    }

    /// Whether git would ignore the path: nearest rules first, the last match in a file wins.
    pub(super) fn ignores(&self, rules: &[Gitignore], path: &Path, is_dir: bool) -> bool {
        for rules in rules.iter().rev().chain(self.outer.iter().rev()) {
            if let Some(ignored) = rules.decides(path, is_dir) {
                return ignored;
            }
        }
        false
    }

    /// Whether git ignores the path, or a folder that it lies in.
    pub(super) fn is_ignored(&self, path: &Path, is_dir: bool) -> bool {
        let Ok(inside) = path.strip_prefix(&self.boundary) else {
            return false;
        };
        let mut rules = Vec::new();
        let mut place = self.boundary.clone();
        for part in inside {
            rules.extend(self.rules_in(&place));
            place.push(part);
            if self.ignores(&rules, &place, is_dir || place != path) {
                return true;
            }
        }
        false
    }

    pub(super) fn tracks(&self, path: &Path) -> bool {
        self.work_tree.as_ref().is_some_and(|tree| {
            let inside = tree.inside(path);
            inside.is_some_and(|path| tree.index().tracks(path))
        })
    }

    /// Whether git tracks a file in the folder.
    pub(super) fn tracks_below(&self, folder: &Path) -> bool {
        self.work_tree.as_ref().is_some_and(|tree| {
            let inside = tree.inside(folder);
            inside.is_some_and(|path| tree.index().tracks_below(&format!("{path}/")))
        })
    }
}

fn canonical(path: &Path) -> Result<PathBuf, Error> {
    path.canonicalize().map_err(|source| Error::Read {
        path: path.to_owned(),
        source,
    })
}

/// The base app's folder, relative to the project.
pub fn base_folder(app: &AppName) -> String {
    format!("apps/{app}")
}

fn rules_in(folder: &Path) -> Option<Gitignore> {
    let file = folder.join(".gitignore");
    file.is_file().then(|| Gitignore::read(folder, &file))
}
