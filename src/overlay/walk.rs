//! Walking a layer's folder: what counts, and what becomes of links.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::content::ContentId;
use super::gitignore::Gitignore;
use super::layer::{File, Kind, Layer, Lister, Owner, Source, Stamp};
use super::{Error, Problem};
use crate::files::{FileStat, Node};
use crate::path::{normalize, relative};

fn is_env(name: &str) -> bool {
    name == ".env" || name.starts_with(".env.")
}

/// One layer, while it is listed.
pub struct Walk<'a> {
    lister: &'a Lister,
    folder: &'a str,
    root: &'a Path,
    files: BTreeMap<Arc<str>, Arc<File>>,
    problems: Vec<Problem>,
    is_closed: bool,
}

impl<'a> Walk<'a> {
    /// Gets ready to list `root`, which is `folder` relative to the project.
    pub fn new(lister: &'a Lister, folder: &'a str, root: &'a Path) -> Self {
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
    pub fn end(self, owner: Owner) -> (Layer, Vec<Problem>) {
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
        through: &mut Vec<PathBuf>,
        rules: &mut Vec<Gitignore>,
    ) -> Result<(), Error> {
        let depth = rules.len();
        rules.extend(self.lister.rules_in(folder));
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
            if self.lister.ignores(rules, &entry, is_folder) {
                let is_env = is_env(name) && self.lister.takes_ignored_env;
                if is_folder || !(is_env || self.lister.tracks(&entry)) {
                    continue;
                }
            }
            if is_folder {
                self.folder(&entry, &format!("{inner}/"), through, rules)?;
            } else {
                self.add(&entry, inner, node, through)?;
            }
        }
        rules.truncate(depth);
        Ok(())
    }

    /// Lists the files in the walk's own folder, and none below.
    pub fn top(&mut self) -> Result<(), Error> {
        for (name, node) in self.entries(self.root)? {
            let file = self.root.join(&name);
            let Some(name) = name.to_str() else { continue };
            if node != Node::Folder && !self.lister.ignores(&[], &file, false) {
                self.add(&file, name.to_owned(), node, &mut Vec::new())?;
            }
        }
        Ok(())
    }

    /// Files that git tracks in folders that a rule ignores.
    pub fn tracked(&mut self) -> Result<(), Error> {
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
                Ok(node) => self.add(&file, path.to_owned(), node, &mut Vec::new())?,
            }
        }
        Ok(())
    }

    fn add(
        &mut self,
        file: &Path,
        path: String,
        node: Node,
        through: &mut Vec<PathBuf>,
    ) -> Result<(), Error> {
        match node {
            Node::Link => self.link(file, path, through),
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
        self.folder(&real, &format!("{path}/"), through, &mut rules)?;
        through.pop();
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
