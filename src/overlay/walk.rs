//! Walking a layer's folder: which files belong to the layer, and how links are treated.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use super::content::ContentId;
use super::gitignore::Gitignore;
use super::layer::{ContentSource, FileKind, Layer, LayerFile, LayerReader, Owner};
use super::{Error, LayerProblem};
use crate::disk::Stamp;
use crate::files::{FileState, PathKind};
use virtual_path::{normalize, relative};

fn is_env(name: &str) -> bool {
    name == ".env" || name.starts_with(".env.")
}

/// Which files of a folder belong to a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WalkScope {
    /// Files that git does not ignore, and files that it tracks.
    NotIgnored,
    /// Only files that git tracks, since it ignores the folder.
    Tracked,
}

/// One layer while it is read.
pub struct LayerWalk<'a> {
    reader: &'a LayerReader,
    folder: &'a str,
    root: &'a Path,
    files: BTreeMap<Arc<str>, Arc<LayerFile>>,
    problems: Vec<LayerProblem>,
    is_closed: bool,
}

impl<'a> LayerWalk<'a> {
    /// A walk of `root`, whose path relative to the project is `folder`.
    pub fn new(reader: &'a LayerReader, folder: &'a str, root: &'a Path) -> Self {
        Self {
            reader,
            folder,
            root,
            files: BTreeMap::new(),
            problems: Vec::new(),
            is_closed: true,
        }
    }

    /// The layer and the problems found.
    pub fn finish(self, owner: Owner) -> (Layer, Vec<LayerProblem>) {
        let layer = Layer {
            owner,
            files: self.files,
            is_closed: self.is_closed,
        };
        (layer, self.problems)
    }

    /// Adds the files below a folder. `path` is the folder's path in the layer, empty or ending in
    /// `/`. `through` are the folders that links on the way have led to.
    pub fn folder(
        &mut self,
        folder: &Path,
        path: &str,
        scope: WalkScope,
        through: &mut Vec<PathBuf>,
        rules: &mut Vec<Gitignore>,
    ) -> Result<(), Error> {
        let depth = rules.len();
        rules.extend(self.reader.rules_in(folder));
        for (name, node) in self.entries(folder)? {
            if name == ".git" || name == "node_modules" {
                continue;
            }
            let entry = folder.join(&name);
            let is_folder = node == PathKind::Folder;
            let is_ignored =
                scope == WalkScope::Tracked || self.reader.ignores(rules, &entry, is_folder);
            if is_ignored && !self.is_included(&entry, is_folder, scope) {
                continue;
            }
            let Some(name) = name.to_str() else {
                self.problems.push(LayerProblem::Name {
                    path: format!("{}/{path}{}", self.folder, name.to_string_lossy()),
                });
                continue;
            };
            let inner = format!("{path}{name}");
            if is_folder {
                let scope = if is_ignored {
                    WalkScope::Tracked
                } else {
                    scope
                };
                self.folder(&entry, &format!("{inner}/"), scope, through, rules)?;
            } else {
                self.add(&entry, inner, node, through)?;
            }
        }
        rules.truncate(depth);
        Ok(())
    }

    /// Whether a path that git ignores belongs to the layer: tracked files and `.env` files do.
    fn is_included(&self, entry: &Path, is_folder: bool, scope: WalkScope) -> bool {
        if is_folder {
            return self.reader.tracks_below(entry);
        }
        let is_env = entry
            .file_name()
            .and_then(|name| name.to_str())
            .is_some_and(is_env);
        (is_env && scope == WalkScope::NotIgnored && !self.reader.as_stored)
            || self.reader.tracks(entry)
    }

    /// Adds the files directly in the walk's folder.
    pub fn top_files(&mut self) -> Result<(), Error> {
        for (name, node) in self.entries(self.root)? {
            let file = self.root.join(&name);
            let Some(name) = name.to_str() else { continue };
            let is_ignored = self.reader.ignores(&[], &file, false) && !self.reader.tracks(&file);
            if node != PathKind::Folder && !is_ignored {
                self.add(&file, name.to_owned(), node, &mut Vec::new())?;
            }
        }
        Ok(())
    }

    fn add(
        &mut self,
        file: &Path,
        path: String,
        node: PathKind,
        through: &mut Vec<PathBuf>,
    ) -> Result<(), Error> {
        match node {
            PathKind::Link => self.link(file, path, through),
            PathKind::File(state) => self.content(file, path, state),
            PathKind::Folder | PathKind::Special => {
                self.problems.push(LayerProblem::Special {
                    path: format!("{}/{path}", self.folder),
                });
                Ok(())
            }
        }
    }

    /// Adds a regular file.
    fn content(&mut self, file: &Path, path: String, state: FileState) -> Result<(), Error> {
        let added = match state {
            FileState::Committed { blob, executable } => self.committed(blob, executable),
            FileState::OnDisk(stamp) => self.on_disk(&self.reader.files.origin(file), stamp),
            FileState::Simulated { executable } => self.simulated(file, executable),
        };
        let added = added.map_err(reading(file))?;
        self.files.insert(path.into(), Arc::new(added));
        Ok(())
    }

    fn committed(&self, blob: git2::Oid, executable: bool) -> std::io::Result<LayerFile> {
        let objects = self.reader.objects.as_ref();
        let objects = objects
            .ok_or_else(|| std::io::Error::other("the repository of this commit is not open"))?;
        Ok(LayerFile {
            kind: FileKind::File { executable },
            id: blob.into(),
            source: ContentSource::Blob(Arc::clone(objects)),
        })
    }

    fn simulated(&self, file: &Path, executable: bool) -> std::io::Result<LayerFile> {
        let content = self.reader.files.read(file)?;
        Ok(LayerFile {
            kind: FileKind::File { executable },
            id: ContentId::of(&content),
            source: ContentSource::Memory(content.into()),
        })
    }

    fn on_disk(&self, file: &Path, stamp: Stamp) -> std::io::Result<LayerFile> {
        let unconverted = |id, executable| LayerFile {
            kind: FileKind::File { executable },
            id,
            source: ContentSource::Disk(file.into(), stamp),
        };
        let Some(tree) = &self.reader.work_tree else {
            return Ok(unconverted(
                ContentId::of_file(file)?,
                stamp.is_executable(),
            ));
        };
        let executable = tree.is_executable(file, &stamp);
        if !self.reader.as_stored {
            return Ok(unconverted(tree.on_disk(file, &stamp)?.into(), executable));
        }
        let stored = tree.stored(file, &stamp)?;
        if !stored.is_converted {
            return Ok(unconverted(stored.id.into(), executable));
        }
        Ok(LayerFile {
            kind: FileKind::File { executable },
            id: stored.id.into(),
            source: ContentSource::Stored(Arc::clone(tree.objects()), file.into()),
        })
    }

    /// Adds a link. A link to a path in the app stays a link. For a link to another path in the
    /// repository, the target's content is added, unless git ignores it. A link out of the repository
    /// is a problem. `through` are the folders that links on the way have led to; a link to one of
    /// them is a cycle.
    fn link(&mut self, file: &Path, path: String, through: &mut Vec<PathBuf>) -> Result<(), Error> {
        let target = self.reader.files.target(file).map_err(reading(file))?;
        let parent = file.parent().unwrap_or(self.root);
        let lexical = normalize(&parent.join(&target));
        let mut links = Vec::new();
        let mut visit = |link: &Path| links.push(link.to_owned());
        let real = self.reader.files.resolve(file, &mut visit);
        // `x/../y` is `y` only where `x` is not a link.
        let is_plain = || !has_detour(&target) || real.as_ref().is_ok_and(|real| *real == lexical);
        if through.is_empty() && lexical.starts_with(self.root) && is_plain() {
            self.keep(file, path, parent, &lexical);
            return Ok(());
        }
        self.is_closed = false;
        let problem = match &real {
            Ok(real) => self.refusal(real, &links[1.min(links.len())..]),
            Err(_) if lexical.starts_with(&self.reader.boundary) => Some(RefusedLink::Dangling),
            Err(_) => Some(RefusedLink::Outside),
        };
        let problem = match (problem, real) {
            (None, Ok(real)) => match self.reader.files.kind(&real).map_err(reading(&real))? {
                PathKind::File(state) => return self.content(&real, path, state),
                PathKind::Folder if through.contains(&real) || file.starts_with(&real) => {
                    RefusedLink::Cycle
                }
                PathKind::Folder => return self.linked_folder(&real, &path, through),
                PathKind::Link | PathKind::Special => RefusedLink::Special,
            },
            (problem, _) => problem.unwrap_or(RefusedLink::Dangling),
        };
        // A commit does not have `.env` files that git ignores, so a link to such a file is left out.
        let is_missing = matches!(problem, RefusedLink::Dangling | RefusedLink::Ignored);
        let name = lexical.file_name().and_then(|name| name.to_str());
        if self.reader.as_stored && is_missing && name.is_some_and(is_env) {
            return Ok(());
        }
        let path = format!("{}/{path}", self.folder);
        let target = target.to_string_lossy().into_owned();
        self.problems.push(problem.at(path, target));
        Ok(())
    }

    /// Adds a link to a path in the app.
    fn keep(&mut self, file: &Path, path: String, parent: &Path, to: &Path) {
        let target = relative(parent, to);
        let Some(target) = target.to_str() else {
            let path = file.strip_prefix(&self.reader.project).unwrap_or(file);
            let path = path.to_string_lossy().into_owned();
            self.problems.push(LayerProblem::Name { path });
            return;
        };
        let link = LayerFile {
            kind: FileKind::Link {
                target: target.into(),
            },
            id: ContentId::of(target.as_bytes()),
            source: ContentSource::Link,
        };
        self.files.insert(path.into(), Arc::new(link));
    }

    /// Why the target of a link cannot be copied; `None` where it can. `links` are the further links
    /// on the way to `real`.
    fn refusal(&self, real: &Path, links: &[PathBuf]) -> Option<RefusedLink> {
        let Ok(inside) = real.strip_prefix(&self.reader.boundary) else {
            return Some(RefusedLink::Outside);
        };
        let has = |name: &str| inside.iter().any(|part| part == name);
        if has(".git") {
            return Some(RefusedLink::Outside);
        }
        let reader = self.reader;
        let is_env = |path: &Path| {
            let name = path.file_name().and_then(|name| name.to_str());
            !reader.as_stored && name.is_some_and(is_env)
        };
        let is_hidden = |path: &Path, is_folder: bool| {
            let is_tracked = reader.tracks(path) || (is_folder && reader.tracks_below(path));
            let is_ignored = || match path.parent() {
                // As in a layer, an `.env` file may be ignored itself, and its folder may not.
                Some(parent) if is_env(path) => reader.is_ignored(parent, true),
                _ => reader.is_ignored(path, is_folder),
            };
            !is_tracked && is_ignored()
        };
        let is_folder = matches!(reader.files.kind(real), Ok(PathKind::Folder));
        let hidden = has("node_modules")
            || is_hidden(real, is_folder)
            || links.iter().any(|link| is_hidden(link, false));
        hidden.then_some(RefusedLink::Ignored)
    }

    /// Adds the files of a folder that a link leads to. The ignore rules of the folder's real path
    /// apply.
    fn linked_folder(
        &mut self,
        real: &Path,
        path: &str,
        through: &mut Vec<PathBuf>,
    ) -> Result<(), Error> {
        let above = real
            .ancestors()
            .skip(1)
            .take_while(|folder| folder.starts_with(&self.reader.boundary));
        let mut rules: Vec<_> = above
            .filter_map(|folder| self.reader.rules_in(folder))
            .collect();
        rules.reverse();
        let scope = if self.reader.is_ignored(real, true) {
            WalkScope::Tracked
        } else {
            WalkScope::NotIgnored
        };
        through.push(real.to_owned());
        self.folder(real, &format!("{path}/"), scope, through, &mut rules)?;
        through.pop();
        Ok(())
    }

    /// The entries of a folder, sorted, so that problems have a stable order.
    fn entries(&self, folder: &Path) -> Result<Vec<(std::ffi::OsString, PathKind)>, Error> {
        self.reader.files.entries(folder).map_err(reading(folder))
    }
}

/// Why a link cannot be composed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RefusedLink {
    Outside,
    Dangling,
    Ignored,
    Cycle,
    Special,
}

impl RefusedLink {
    fn at(self, path: String, target: String) -> LayerProblem {
        match self {
            Self::Outside => LayerProblem::LinkOutside { path, target },
            Self::Dangling => LayerProblem::LinkDangling { path, target },
            Self::Ignored => LayerProblem::LinkIgnored { path, target },
            Self::Cycle => LayerProblem::LinkCycle { path, target },
            Self::Special => LayerProblem::Special { path },
        }
    }
}

/// Whether `..` comes after a name in a link's target.
fn has_detour(target: &Path) -> bool {
    let mut parts = target.components();
    parts.any(|part| matches!(part, Component::Normal(_)))
        && parts.any(|part| part == Component::ParentDir)
}

fn reading(path: &Path) -> impl FnOnce(std::io::Error) -> Error {
    move |source| Error::Read {
        path: path.to_owned(),
        source,
    }
}
