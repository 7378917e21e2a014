//! Reading one layer, from the working tree or from a commit: the files that git does not ignore,
//! and `.env` and `.env.*` also where git ignores them.
//!
//! The walk is our own and not the `ignore` crate's: a tracked file belongs to a layer although a
//! rule ignores it, and a link is kept, followed or refused depending on its target.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Serialize, Serializer};

use super::content::ContentId;
use super::gitignore::Gitignore;
use super::known::KnownContents;
use super::walk::{LayerWalk, WalkScope};
use super::{Error, LayerProblem};
use crate::disk::Stamp;
use crate::files::{DiskFiles, FileTree};
use crate::git::{self, GitObjects, Repository, Tree, WorkTree};
use crate::store::{AppName, StoreId};

const GITIGNORE: &str = ".gitignore";

/// The owner of a layer.
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

/// What a path of a layer is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum FileKind {
    /// A file whose content is copied.
    File {
        /// Whether its owner may execute it.
        executable: bool,
    },
    /// A link to a path in the same app. It stays a link.
    Link {
        /// Its target, relative to the link.
        target: Arc<str>,
    },
}

/// A file or link of a layer.
#[derive(Debug, Clone)]
pub struct LayerFile {
    /// Whether it is a file or a link.
    pub kind: FileKind,
    /// Identity of the content; for a link, of the target's text.
    pub id: ContentId,
    /// Where the content is read from.
    pub source: ContentSource,
}

/// Where a file's content is read from.
#[derive(Debug, Clone)]
pub enum ContentSource {
    /// This file of the working tree.
    Disk(Arc<Path>, Stamp),
    /// The git blob with the file's id.
    Blob(Arc<GitObjects>),
    /// The git blob with the file's id, which git makes of this file of the working tree by its
    /// filters and line end rules.
    Stored(Arc<GitObjects>, Arc<Path>),
    /// The content itself, of a file that exists only in a simulated change.
    Memory(Arc<[u8]>),
    /// The link itself: its target is the content.
    Link,
}

impl LayerFile {
    /// The mode in git, in octal.
    pub fn mode(&self) -> &'static str {
        match self.kind {
            FileKind::File { executable: false } => "100644",
            FileKind::File { executable: true } => "100755",
            FileKind::Link { .. } => "120000",
        }
    }

    /// Reads the content; for a link, the target.
    pub fn read(&self) -> std::io::Result<Vec<u8>> {
        match (&self.kind, &self.source) {
            (FileKind::Link { target }, _) => Ok(target.as_bytes().to_vec()),
            (_, ContentSource::Disk(path, _)) => std::fs::read(path),
            (_, ContentSource::Blob(objects) | ContentSource::Stored(objects, _)) => {
                objects.blob(self.id.oid())
            }
            (_, ContentSource::Memory(content)) => Ok(content.to_vec()),
            (_, ContentSource::Link) => Ok(Vec::new()),
        }
    }

    /// Length of the content in bytes. The content is not read.
    pub fn size(&self) -> std::io::Result<u64> {
        match (&self.kind, &self.source) {
            (FileKind::Link { target }, _) => Ok(target.len() as u64),
            (_, ContentSource::Disk(_, stamp)) => Ok(stamp.size),
            (_, ContentSource::Blob(objects) | ContentSource::Stored(objects, _)) => {
                objects.size(self.id.oid())
            }
            (_, ContentSource::Memory(content)) => Ok(content.len() as u64),
            (_, ContentSource::Link) => Ok(0),
        }
    }

    /// Whether both have the same content and kind.
    pub fn is_like(&self, other: &Self) -> bool {
        self.id == other.id && self.kind == other.kind
    }
}

/// One owner's files for one app, by path relative to the app, with `/`.
#[derive(Debug, Clone)]
pub struct Layer {
    /// Their owner.
    pub owner: Owner,
    /// The files.
    pub files: BTreeMap<Arc<str>, Arc<LayerFile>>,
    /// Whether all content comes from the layer's own folder. If a link leads out of it, content can
    /// change while the folder stays the same.
    pub is_closed: bool,
    /// The folders whose entries decide which files the layer has: the folders that were read, and
    /// those of files that links lead to. Absolute.
    pub folders: BTreeSet<PathBuf>,
}

impl Layer {
    /// The same layer with the files of `renewed` in one folder. `path` is the folder's path in the
    /// layer, empty or ending in `/`. Files of subfolders that `keeps` returns are not replaced.
    fn with_folder(
        &self,
        root: &Path,
        path: &str,
        renewed: Layer,
        keeps: &dyn Fn(&Path) -> bool,
    ) -> Self {
        let folder = root.join(path);
        // The subfolder of `folder` that has the path, absolute.
        let subfolder = |inside: &str| {
            let (name, _) = inside.split_once('/')?;
            Some(folder.join(name))
        };
        let is_kept = |file: &str| match file.strip_prefix(path) {
            Some(inside) => subfolder(inside).is_some_and(|it| keeps(&it)),
            None => true,
        };
        let mut files = self.files.clone();
        files.retain(|file, _| is_kept(file));
        files.extend(renewed.files);
        let mut folders = self.folders.clone();
        folders.retain(|it| match it.strip_prefix(&folder) {
            Ok(inside) => {
                let name = inside.components().next();
                name.is_some_and(|name| keeps(&folder.join(name)))
            }
            Err(_) => true,
        });
        folders.extend(renewed.folders);
        Self {
            owner: self.owner.clone(),
            files,
            is_closed: self.is_closed && renewed.is_closed,
            folders,
        }
    }
}

/// Reads layers of one project.
pub struct LayerReader {
    pub(super) project: PathBuf,
    /// The repository's root, or the project without one. Links may lead to paths below it.
    pub(super) boundary: PathBuf,
    pub(super) files: Arc<dyn FileTree>,
    /// The git objects, for a commit.
    pub(super) objects: Option<Arc<GitObjects>>,
    /// The working tree's index and conversions; `None` for a commit and without a repository.
    pub(super) work_tree: Option<WorkTree>,
    /// Ignore rules from outside of `apps/`: the user's, the clone's, and those of the folders
    /// above. The weakest first.
    outer: Vec<Gitignore>,
    /// Whether content is as git stores it, and `.env` files that git ignores are left out.
    pub(super) as_stored: bool,
    /// Files whose content is known from an earlier reader.
    pub(super) known: Option<Arc<KnownContents>>,
}

impl LayerReader {
    /// A reader of the working tree. Without a repository, only `.gitignore` files say what is
    /// ignored.
    pub fn new(project: &Path, repository: Option<&Repository>) -> Result<Self, Error> {
        let project = canonical(project)?;
        let mut outer = Vec::new();
        let mut boundary = project.clone();
        let mut work_tree = None;
        if let Some(repository) = repository {
            boundary = canonical(repository.root())?;
            let known = work_tree.insert(repository.work_tree()?);
            let prefix = repository.prefix();
            let is_missing = |path: &&str| boundary.join(path).symlink_metadata().is_err();
            let apps = format!("{prefix}apps/");
            let mut skipped = known.index().skipped(&apps).filter(is_missing);
            if let Some(first) = skipped.next() {
                let path = first[prefix.len()..].to_owned();
                let count = 1 + skipped.count();
                return Err(Error::Files {
                    problems: vec![LayerProblem::Sparse { path, count }],
                });
            }
        }
        // The user's excludes for all repositories, then the excludes of this clone.
        let excludes = [
            git::excludes_file(repository),
            repository.map(Repository::exclude_file),
        ];
        for file in excludes.into_iter().flatten().filter(|it| it.is_file()) {
            outer.push(Gitignore::read(&boundary, &file));
        }
        // The `.gitignore` files from the repository's root down to the project.
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
            known: None,
        })
    }

    /// A reader of a commit.
    pub fn of_commit(project: &Path, repository: &Repository, tree: Tree) -> Result<Self, Error> {
        Ok(Self {
            project: canonical(project)?,
            boundary: canonical(repository.root())?,
            objects: Some(Arc::clone(tree.objects())),
            files: Arc::new(tree),
            work_tree: None,
            outer: Vec::new(),
            as_stored: true,
            known: None,
        })
    }

    /// Reads the working tree as a commit of all its files has it: `.env` files that git ignores
    /// are left out, and a file that git converts (line ends, filters) has the stored content.
    #[must_use]
    pub fn as_stored(mut self) -> Self {
        self.as_stored = true;
        self
    }

    /// Takes the ids of unchanged files from `known` and adds those of the other files to it.
    #[must_use]
    pub fn remembering(mut self, known: Arc<KnownContents>) -> Self {
        self.known = Some(known);
        self
    }

    /// The root of the repository, or the project without one, with links resolved.
    pub fn boundary(&self) -> &Path {
        &self.boundary
    }

    /// Reads the working tree through another tree of files, which simulates a change of it.
    #[must_use]
    pub fn simulating(mut self, files: Arc<dyn FileTree>) -> Self {
        self.files = files;
        self
    }

    /// The project's folder, with links resolved.
    pub fn project(&self) -> &Path {
        &self.project
    }

    /// Reads the layer of `owner` in `folder`, which is relative to the project. A folder that does
    /// not exist gives an empty layer.
    pub fn layer(&self, owner: Owner, folder: &str) -> Result<(Layer, Vec<LayerProblem>), Error> {
        let root = self.project.join(folder);
        let mut walk = LayerWalk::new(self, folder, &root, None);
        if let Some((scope, mut rules)) = self.scope_of(folder) {
            walk.folder(&root, "", scope, &mut Vec::new(), &mut rules)?;
        }
        Ok(walk.finish(owner))
    }

    /// Reads one folder of a layer again. `folder` is the layer's folder, `inner` the path of the
    /// folder to read in it. Subfolders that the layer has are not read, except those for which
    /// `is_stale` returns true.
    pub fn renewed(
        &self,
        layer: &Layer,
        folder: &str,
        inner: &str,
        is_stale: &(dyn Fn(&Path) -> bool + Sync),
    ) -> Result<(Layer, Vec<LayerProblem>), Error> {
        let root = self.project.join(folder);
        let keeps = |folder: &Path| layer.folders.contains(folder) && !is_stale(folder);
        let mut walk = LayerWalk::new(self, folder, &root, Some(&keeps));
        let (path, whole) = if inner.is_empty() {
            (String::new(), folder.to_owned())
        } else {
            (format!("{inner}/"), format!("{folder}/{inner}"))
        };
        if let Some((scope, mut rules)) = self.scope_of(&whole) {
            walk.folder(&root.join(inner), &path, scope, &mut Vec::new(), &mut rules)?;
        }
        let kept = walk.kept();
        let (renewed, problems) = walk.finish(layer.owner.clone());
        let is_kept = |folder: &Path| kept.contains(folder);
        let renewed = layer.with_folder(&root, &path, renewed, &is_kept);
        Ok((renewed, problems))
    }

    /// Which files of a folder belong to a layer, and the rules of the folders above it. None if the
    /// folder does not exist, or git ignores it and tracks no file in it. `folder` is relative to the
    /// project.
    fn scope_of(&self, folder: &str) -> Option<(WalkScope, Vec<Gitignore>)> {
        let root = self.project.join(folder);
        if !self.files.is_folder(&root) {
            return None;
        }
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
        if !ignored {
            return Some((WalkScope::NotIgnored, rules));
        }
        let is_tracked = self.tracks_below(&root);
        is_tracked.then_some((WalkScope::Tracked, rules))
    }

    /// Reads the files directly in the project's folder, without its subfolders.
    pub fn top_files(&self) -> Result<Layer, Error> {
        let root = self.project.clone();
        let mut walk = LayerWalk::new(self, "", &root, None);
        walk.top_files()?;
        Ok(walk.finish(Owner::Base).0)
    }

    /// The patterns of the folder's `.gitignore` file, if it has one that applies.
    pub(super) fn rules_in(&self, folder: &Path) -> Option<Gitignore> {
        if !self.files.has_ignored() {
            return None;
        }
        let file = folder.join(GITIGNORE);
        let file = self.files.origin(&file);
        file.is_file().then(|| Gitignore::read(folder, &file))
    }

    /// Whether git's rules ignore the path itself. The nearest `.gitignore` file decides, and in it
    /// the last match.
    pub(super) fn ignores(&self, rules: &[Gitignore], path: &Path, is_dir: bool) -> bool {
        for rules in rules.iter().rev().chain(self.outer.iter().rev()) {
            if let Some(ignored) = rules.decides(path, is_dir) {
                return ignored;
            }
        }
        false
    }

    /// Whether git's rules ignore the path or a folder above it.
    pub(super) fn is_ignored(&self, path: &Path, is_dir: bool) -> bool {
        let Ok(inside) = path.strip_prefix(&self.boundary) else {
            return false;
        };
        let mut rules = Vec::new();
        let mut ancestor = self.boundary.clone();
        for part in inside {
            rules.extend(self.rules_in(&ancestor));
            ancestor.push(part);
            if self.ignores(&rules, &ancestor, is_dir || ancestor != path) {
                return true;
            }
        }
        false
    }

    /// Whether git tracks the file.
    pub(super) fn tracks(&self, path: &Path) -> bool {
        let path = self.files.origin(path);
        self.work_tree.as_ref().is_some_and(|tree| {
            let inside = tree.inside(&path);
            inside.is_some_and(|path| tree.index().tracks(path))
        })
    }

    /// Whether git tracks a file below the folder.
    pub(super) fn tracks_below(&self, folder: &Path) -> bool {
        let folder = self.files.origin(folder);
        self.work_tree.as_ref().is_some_and(|tree| {
            let inside = tree.inside(&folder);
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
    let file = folder.join(GITIGNORE);
    file.is_file().then(|| Gitignore::read(folder, &file))
}
