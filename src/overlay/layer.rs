//! Listing one layer, from disk or from a commit: the files that git would not ignore, plus
//! `.env` and `.env.*`.
//!
//! An own walk and not the `ignore` crate's: ignored `.env` files must be seen, tracked files
//! count although a rule ignores them, and a link is kept, followed or refused by where it leads.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Serialize, Serializer};

use super::content::ContentId;
use super::gitignore::Gitignore;
use super::{Error, Problem};
use crate::files::{Disk, FileStat, Files, Node};
use crate::git::{self, Index, Objects, Repository, Tree};
use crate::path::{normalize, relative};
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
pub enum Kind {
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
pub struct File {
    /// File or link.
    pub kind: Kind,
    /// Identity of the content; of the target's text for a link.
    pub id: ContentId,
    /// Where the content lies.
    pub source: Source,
}

/// Where a file's content lies.
#[derive(Debug, Clone)]
pub enum Source {
    /// In this file of the working tree.
    Disk(Arc<Path>, Stamp),
    /// In the blob with the file's id.
    Blob(Arc<Objects>),
    /// In the link itself.
    Link,
}

impl File {
    /// Its content; a link's target.
    pub fn read(&self) -> std::io::Result<Vec<u8>> {
        match (&self.kind, &self.source) {
            (Kind::Link { target }, _) => Ok(target.as_bytes().to_vec()),
            (_, Source::Disk(path, _)) => std::fs::read(path),
            (_, Source::Blob(objects)) => objects.blob(self.id.oid()),
            (_, Source::Link) => Ok(Vec::new()),
        }
    }
}

/// Size and time of a file: while they stay, its content does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stamp {
    size: u64,
    modified: (i64, i64),
}

impl Stamp {
    /// Of a file as it was looked at.
    pub fn new(stat: &FileStat) -> Self {
        Self {
            size: stat.size,
            modified: stat.modified,
        }
    }

    /// Its size in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Whether the file still is as it was.
    pub fn is_of(&self, path: &Path) -> bool {
        path.metadata()
            .is_ok_and(|metadata| Self::new(&FileStat::new(&metadata)) == *self)
    }
}

/// One owner's files for one app, by path relative to the app, with `/`.
#[derive(Debug, Clone)]
pub struct Layer {
    /// Whose they are.
    pub owner: Owner,
    /// The files.
    pub files: BTreeMap<Arc<str>, Arc<File>>,
    /// Whether everything in it lies in its own folder: no link has led out of it, to content
    /// that can change while the folder does not.
    pub is_closed: bool,
}

/// Lists layers of one project.
pub struct Lister {
    project: PathBuf,
    /// Content may be copied from below here.
    boundary: PathBuf,
    files: Arc<dyn Files>,
    /// Where blobs are, for a commit.
    objects: Option<Arc<Objects>>,
    index: Index,
    /// Rules that hold in all of `apps/`, weakest first.
    outer: Vec<Gitignore>,
    /// Whether `.env` files count although git ignores them.
    takes_ignored_env: bool,
}

impl Lister {
    /// Gets ready to list layers of `project`; without a repository only `.gitignore` files count.
    pub fn new(project: &Path, repository: Option<&Repository>) -> Result<Self, Error> {
        let project = canonical(project)?;
        let mut outer = Vec::new();
        let mut boundary = project.clone();
        let mut index = Index::default();
        if let Some(repository) = repository {
            boundary = canonical(repository.root())?;
            index = repository.index()?;
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
            files: Arc::new(Disk),
            objects: None,
            index,
            outer,
            takes_ignored_env: true,
        })
    }

    /// Gets ready to list layers as they were in a commit.
    pub fn of_commit(project: &Path, repository: &Repository, tree: Tree) -> Result<Self, Error> {
        Ok(Self {
            project: canonical(project)?,
            boundary: canonical(repository.root())?,
            objects: Some(Arc::clone(tree.objects())),
            files: Arc::new(tree),
            index: Index::default(),
            outer: Vec::new(),
            takes_ignored_env: false,
        })
    }

    /// Leaves out `.env` files that git ignores: no commit has them, so that they would make
    /// the working tree differ from every one.
    #[must_use]
    pub fn without_ignored_env(mut self) -> Self {
        self.takes_ignored_env = false;
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

    /// Where the layers' files are read from.
    pub fn files(&self) -> &dyn Files {
        &*self.files
    }

    /// Lists what `owner` has for an app in `folder`, relative to the project. A folder that
    /// does not exist is an empty layer.
    pub fn layer(&self, owner: Owner, folder: &str) -> Result<(Layer, Vec<Problem>), Error> {
        let root = self.project.join(folder);
        let mut walk = Walk {
            lister: self,
            folder,
            root: &root,
            files: BTreeMap::new(),
            problems: Vec::new(),
            is_closed: true,
        };
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
            if !ignored {
                walk.folder(&root, "", &mut rules)?;
            }
            walk.tracked()?;
        }
        let layer = Layer {
            owner,
            files: walk.files,
            is_closed: walk.is_closed,
        };
        Ok((layer, walk.problems))
    }

    fn rules_in(&self, folder: &Path) -> Option<Gitignore> {
        self.files.has_ignored().then(|| rules_in(folder)).flatten()
    }

    /// Whether git would ignore the path: nearest rules first, the last match in a file wins.
    fn ignores(&self, rules: &[Gitignore], path: &Path, is_dir: bool) -> bool {
        for rules in rules.iter().rev().chain(self.outer.iter().rev()) {
            if let Some(ignored) = rules.decides(path, is_dir) {
                return ignored;
            }
        }
        false
    }

    fn tracks(&self, path: &Path) -> bool {
        let inside = path.strip_prefix(&self.project).ok().and_then(Path::to_str);
        inside.is_some_and(|path| self.index.tracks(path))
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

fn is_env(name: &str) -> bool {
    name == ".env" || name.starts_with(".env.")
}

struct Walk<'a> {
    lister: &'a Lister,
    folder: &'a str,
    root: &'a Path,
    files: BTreeMap<Arc<str>, Arc<File>>,
    problems: Vec<Problem>,
    is_closed: bool,
}

impl Walk<'_> {
    fn folder(
        &mut self,
        folder: &Path,
        path: &str,
        rules: &mut Vec<Gitignore>,
    ) -> Result<(), Error> {
        let own = self.lister.rules_in(folder);
        let depth = rules.len();
        rules.extend(own);
        for (name, node) in self.entries(folder)? {
            let entry = folder.join(&name);
            let Some(name) = name.to_str() else {
                self.problems.push(Problem::Name {
                    path: format!("{}/{path}{}", self.folder, name.to_string_lossy()),
                });
                continue;
            };
            if name == ".git" || name == "node_modules" {
                continue;
            }
            let inner = format!("{path}{name}");
            let is_folder = node == Node::Folder;
            let ignored = self.lister.ignores(rules, &entry, is_folder);
            if is_folder {
                if !ignored {
                    self.folder(&entry, &format!("{inner}/"), rules)?;
                }
            } else if !ignored || (is_env(name) && self.lister.takes_ignored_env) {
                self.add(&entry, inner, node)?;
            }
        }
        rules.truncate(depth);
        Ok(())
    }

    /// Files that a rule ignores and git tracks all the same.
    fn tracked(&mut self) -> Result<(), Error> {
        let prefix = format!("{}/", self.folder);
        let lister = self.lister;
        for tracked in lister.index.below(&prefix) {
            let path = &tracked[prefix.len()..];
            if self.files.contains_key(path) || path.split('/').any(|part| part == "node_modules") {
                continue;
            }
            let file = self.root.join(path);
            // Deleted, or now below a link: the walk has seen what is there.
            let real = file
                .parent()
                .and_then(|parent| self.lister.files.real(parent).ok());
            if real.as_deref() != file.parent() {
                continue;
            }
            match self.lister.files.node(&file) {
                Ok(Node::Folder) | Err(_) => {}
                Ok(node) => self.add(&file, path.to_owned(), node)?,
            }
        }
        Ok(())
    }

    fn add(&mut self, file: &Path, path: String, node: Node) -> Result<(), Error> {
        match node {
            Node::Link => self.link(file, path, &mut Vec::new()),
            Node::File(stat) => self.content(file, path, &stat),
            Node::Folder | Node::Special => {
                self.problems.push(Problem::Special {
                    path: format!("{}/{path}", self.folder),
                });
                Ok(())
            }
        }
    }

    fn content(&mut self, file: &Path, path: String, stat: &FileStat) -> Result<(), Error> {
        let known = || {
            let inside = file.strip_prefix(&self.lister.project).ok()?.to_str()?;
            self.lister.index.unchanged(inside, stat)
        };
        let (id, source) = if let (Some(blob), Some(objects)) = (stat.blob, &self.lister.objects) {
            (blob.into(), Source::Blob(Arc::clone(objects)))
        } else {
            let id = match known() {
                Some(id) => id.into(),
                None => ContentId::of_file(file).map_err(reading(file))?,
            };
            (id, Source::Disk(file.into(), Stamp::new(stat)))
        };
        let kind = Kind::File {
            executable: stat.executable,
        };
        let file = File { kind, id, source };
        self.files.insert(path.into(), Arc::new(file));
        Ok(())
    }

    /// Inside the app: kept. Elsewhere in the repository: the content. Outside: a problem.
    /// `through` are the folders that links have led through, against cycles.
    fn link(&mut self, file: &Path, path: String, through: &mut Vec<PathBuf>) -> Result<(), Error> {
        let target = self.lister.files.target(file).map_err(reading(file))?;
        let shown = |problem: fn(String, String) -> Problem| {
            let folder = self.folder;
            problem(
                format!("{folder}/{path}"),
                target.to_string_lossy().into_owned(),
            )
        };
        let parent = file.parent().unwrap_or(self.root);
        let lexical = normalize(&parent.join(&target));
        if through.is_empty() && lexical.starts_with(self.root) {
            let target = relative(parent, &lexical);
            let Some(target) = target.to_str() else {
                self.problems.push(shown(|path, _| Problem::Name { path }));
                return Ok(());
            };
            let link = File {
                kind: Kind::Link {
                    target: target.into(),
                },
                id: ContentId::of(target.as_bytes()),
                source: Source::Link,
            };
            self.files.insert(path.into(), Arc::new(link));
            return Ok(());
        }
        self.is_closed = false;
        let Ok(real) = self.lister.files.real(file) else {
            let outside = !lexical.starts_with(&self.lister.boundary);
            self.problems.push(if outside {
                shown(|path, target| Problem::LinkOutside { path, target })
            } else {
                shown(|path, target| Problem::LinkDangling { path, target })
            });
            return Ok(());
        };
        let in_git = real.components().any(|part| part.as_os_str() == ".git");
        if in_git || !real.starts_with(&self.lister.boundary) {
            self.problems
                .push(shown(|path, target| Problem::LinkOutside { path, target }));
            return Ok(());
        }
        match self.lister.files.node(&real).map_err(reading(&real))? {
            Node::File(stat) => return self.content(&real, path, &stat),
            Node::Folder => {}
            Node::Link | Node::Special => {
                self.problems
                    .push(shown(|path, _| Problem::Special { path }));
                return Ok(());
            }
        }
        if through.contains(&real) || file.starts_with(&real) {
            self.problems
                .push(shown(|path, target| Problem::LinkCycle { path, target }));
            return Ok(());
        }
        through.push(real.clone());
        // What git would not ignore, where it really lies.
        let above = real
            .ancestors()
            .skip(1)
            .take_while(|folder| folder.starts_with(&self.lister.boundary));
        let mut rules: Vec<_> = above
            .filter_map(|folder| self.lister.rules_in(folder))
            .collect();
        rules.reverse();
        self.linked_folder(&real, &path, through, &mut rules)?;
        through.pop();
        Ok(())
    }

    fn linked_folder(
        &mut self,
        folder: &Path,
        path: &str,
        through: &mut Vec<PathBuf>,
        rules: &mut Vec<Gitignore>,
    ) -> Result<(), Error> {
        let depth = rules.len();
        rules.extend(self.lister.rules_in(folder));
        for (name, node) in self.entries(folder)? {
            let entry = folder.join(&name);
            let Some(name) = name.to_str() else {
                self.problems.push(Problem::Name {
                    path: format!("{}/{path}/{}", self.folder, name.to_string_lossy()),
                });
                continue;
            };
            if name == ".git" || name == "node_modules" {
                continue;
            }
            let inner = format!("{path}/{name}");
            let ignored = self.lister.ignores(rules, &entry, node == Node::Folder);
            let counts = (is_env(name) && self.lister.takes_ignored_env)
                || (node != Node::Folder && self.lister.tracks(&entry));
            if ignored && !counts {
                continue;
            }
            match node {
                Node::Folder => self.linked_folder(&entry, &inner, through, rules)?,
                Node::Link => self.link(&entry, inner, through)?,
                Node::File(stat) => self.content(&entry, inner, &stat)?,
                Node::Special => self.problems.push(Problem::Special {
                    path: format!("{}/{inner}", self.folder),
                }),
            }
        }
        rules.truncate(depth);
        Ok(())
    }

    /// What a folder holds, sorted, so that problems come in a stable order.
    fn entries(&self, folder: &Path) -> Result<Vec<(std::ffi::OsString, Node)>, Error> {
        self.lister.files.entries(folder).map_err(reading(folder))
    }
}

fn reading(path: &Path) -> impl FnOnce(std::io::Error) -> Error {
    move |source| Error::Read {
        path: path.to_owned(),
        source,
    }
}
