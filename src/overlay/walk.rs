//! Walking a layer's folder: what counts, and what becomes of links.

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

/// What of a folder is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WalkScope {
    /// What git does not ignore, and what it tracks.
    Visible,
    /// What git tracks: the folder is ignored.
    Tracked,
}

/// One layer, while it is listed.
pub struct LayerWalk<'a> {
    lister: &'a LayerReader,
    folder: &'a str,
    root: &'a Path,
    files: BTreeMap<Arc<str>, Arc<LayerFile>>,
    problems: Vec<LayerProblem>,
    is_closed: bool,
}

impl<'a> LayerWalk<'a> {
    /// Gets ready to list `root`, which is `folder` relative to the project.
    pub fn new(lister: &'a LayerReader, folder: &'a str, root: &'a Path) -> Self {
        Self {
            lister,
            folder,
            root,
            files: BTreeMap::new(),
            problems: Vec::new(),
            is_closed: true,
        }
    }

    /// What has been found.
    pub fn end(self, owner: Owner) -> (Layer, Vec<LayerProblem>) {
        let layer = Layer {
            owner,
            files: self.files,
            is_closed: self.is_closed,
        };
        (layer, self.problems)
    }

    /// Lists a folder and what is below it; `path` is the way to it, empty or ending in `/`.
    /// `through` are the folders that links have led through.
    pub fn folder(
        &mut self,
        folder: &Path,
        path: &str,
        taken: WalkScope,
        through: &mut Vec<PathBuf>,
        rules: &mut Vec<Gitignore>,
    ) -> Result<(), Error> {
        let depth = rules.len();
        rules.extend(self.lister.rules_in(folder));
        for (name, node) in self.entries(folder)? {
            if name == ".git" || name == "node_modules" {
                continue;
            }
            let entry = folder.join(&name);
            let is_folder = node == PathKind::Folder;
            let is_ignored =
                taken == WalkScope::Tracked || self.lister.ignores(rules, &entry, is_folder);
            if is_ignored && !self.counts(&entry, is_folder, taken) {
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
                let taken = if is_ignored {
                    WalkScope::Tracked
                } else {
                    taken
                };
                self.folder(&entry, &format!("{inner}/"), taken, through, rules)?;
            } else {
                self.add(&entry, inner, node, through)?;
            }
        }
        rules.truncate(depth);
        Ok(())
    }

    /// Whether something counts although git ignores it: what is tracked, and `.env` files.
    fn counts(&self, entry: &Path, is_folder: bool, taken: WalkScope) -> bool {
        if is_folder {
            return self.lister.tracks_below(entry);
        }
        let is_env = entry
            .file_name()
            .and_then(|name| name.to_str())
            .is_some_and(is_env);
        (is_env && taken == WalkScope::Visible && !self.lister.as_stored)
            || self.lister.tracks(entry)
    }

    /// Lists the files in the walk's own folder, and none below.
    pub fn top(&mut self) -> Result<(), Error> {
        for (name, node) in self.entries(self.root)? {
            let file = self.root.join(&name);
            let Some(name) = name.to_str() else { continue };
            let is_ignored = self.lister.ignores(&[], &file, false) && !self.lister.tracks(&file);
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
            FileState::OnDisk(stamp) => self.on_disk(file, stamp),
        };
        let added = added.map_err(reading(file))?;
        self.files.insert(path.into(), Arc::new(added));
        Ok(())
    }

    fn committed(&self, blob: git2::Oid, executable: bool) -> std::io::Result<LayerFile> {
        let objects = self.lister.objects.as_ref();
        let objects = objects.ok_or_else(|| std::io::Error::other("it is not in a commit"))?;
        Ok(LayerFile {
            kind: FileKind::File { executable },
            id: blob.into(),
            source: ContentSource::Blob(Arc::clone(objects)),
        })
    }

    fn on_disk(&self, file: &Path, stamp: Stamp) -> std::io::Result<LayerFile> {
        let unconverted = |id, executable| LayerFile {
            kind: FileKind::File { executable },
            id,
            source: ContentSource::Disk(file.into(), stamp),
        };
        let Some(tree) = &self.lister.work_tree else {
            return Ok(unconverted(
                ContentId::of_file(file)?,
                stamp.is_executable(),
            ));
        };
        let executable = tree.is_executable(file, &stamp);
        if !self.lister.as_stored {
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

    /// Inside the app: kept. Elsewhere in the repository: the content, unless git ignores it.
    /// Outside: a problem. `through` are the folders that links have led through, against cycles.
    fn link(&mut self, file: &Path, path: String, through: &mut Vec<PathBuf>) -> Result<(), Error> {
        let target = self.lister.files.target(file).map_err(reading(file))?;
        let parent = file.parent().unwrap_or(self.root);
        let lexical = normalize(&parent.join(&target));
        let mut links = Vec::new();
        let mut note = |link: &Path| links.push(link.to_owned());
        let real = self.lister.files.resolve(file, &mut note);
        // `x/../y` equals `y` only if `x` is not a link.
        let is_plain = || !has_detour(&target) || real.as_ref().is_ok_and(|real| *real == lexical);
        if through.is_empty() && lexical.starts_with(self.root) && is_plain() {
            self.keep(file, path, parent, &lexical);
            return Ok(());
        }
        self.is_closed = false;
        let problem = match &real {
            Ok(real) => self.refuses(real, &links[1.min(links.len())..]),
            Err(_) if lexical.starts_with(&self.lister.boundary) => Some(RefusedLink::Dangling),
            Err(_) => Some(RefusedLink::Outside),
        };
        let problem = match (problem, real) {
            (None, Ok(real)) => match self.lister.files.kind(&real).map_err(reading(&real))? {
                PathKind::File(state) => return self.content(&real, path, state),
                PathKind::Folder if through.contains(&real) || file.starts_with(&real) => {
                    RefusedLink::Cycle
                }
                PathKind::Folder => return self.behind(&real, &path, through),
                PathKind::Link | PathKind::Special => RefusedLink::Special,
            },
            (problem, _) => problem.unwrap_or(RefusedLink::Dangling),
        };
        // No commit has an `.env` file that git ignores, so a link to one is as good as ignored.
        let is_missing = matches!(problem, RefusedLink::Dangling | RefusedLink::Ignored);
        let name = lexical.file_name().and_then(|name| name.to_str());
        if self.lister.as_stored && is_missing && name.is_some_and(is_env) {
            return Ok(());
        }
        let path = format!("{}/{path}", self.folder);
        let target = target.to_string_lossy().into_owned();
        self.problems.push(problem.of(path, target));
        Ok(())
    }

    /// Keeps a link within the app.
    fn keep(&mut self, file: &Path, path: String, parent: &Path, to: &Path) {
        let target = relative(parent, to);
        let Some(target) = target.to_str() else {
            let path = file.strip_prefix(&self.lister.project).unwrap_or(file);
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

    /// Why what a link leads to, over other links, cannot be copied.
    fn refuses(&self, real: &Path, links: &[PathBuf]) -> Option<RefusedLink> {
        let Ok(inside) = real.strip_prefix(&self.lister.boundary) else {
            return Some(RefusedLink::Outside);
        };
        let has = |name: &str| inside.iter().any(|part| part == name);
        if has(".git") {
            return Some(RefusedLink::Outside);
        }
        let lister = self.lister;
        let is_env = |path: &Path| {
            let name = path.file_name().and_then(|name| name.to_str());
            !lister.as_stored && name.is_some_and(is_env)
        };
        let is_hidden = |path: &Path, is_folder: bool| {
            let is_tracked = lister.tracks(path) || (is_folder && lister.tracks_below(path));
            let is_ignored = || match path.parent() {
                // Only the file itself may be ignored, as in a layer.
                Some(parent) if is_env(path) => lister.is_ignored(parent, true),
                _ => lister.is_ignored(path, is_folder),
            };
            !is_tracked && is_ignored()
        };
        let is_folder = matches!(lister.files.kind(real), Ok(PathKind::Folder));
        let hidden = has("node_modules")
            || is_hidden(real, is_folder)
            || links.iter().any(|link| is_hidden(link, false));
        hidden.then_some(RefusedLink::Ignored)
    }

    /// Lists a folder that a link has led to: what git would not ignore, where it really lies.
    fn behind(&mut self, real: &Path, path: &str, through: &mut Vec<PathBuf>) -> Result<(), Error> {
        let above = real
            .ancestors()
            .skip(1)
            .take_while(|folder| folder.starts_with(&self.lister.boundary));
        let mut rules: Vec<_> = above
            .filter_map(|folder| self.lister.rules_in(folder))
            .collect();
        rules.reverse();
        let taken = if self.lister.is_ignored(real, true) {
            WalkScope::Tracked
        } else {
            WalkScope::Visible
        };
        through.push(real.to_owned());
        self.folder(real, &format!("{path}/"), taken, through, &mut rules)?;
        through.pop();
        Ok(())
    }

    /// What a folder holds, sorted, so that problems come in a stable order.
    fn entries(&self, folder: &Path) -> Result<Vec<(std::ffi::OsString, PathKind)>, Error> {
        self.lister.files.entries(folder).map_err(reading(folder))
    }
}

/// Why a link is not followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RefusedLink {
    Outside,
    Dangling,
    Ignored,
    Cycle,
    Special,
}

impl RefusedLink {
    fn of(self, path: String, target: String) -> LayerProblem {
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
