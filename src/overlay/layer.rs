//! Listing one layer from disk: the files that git would not ignore, plus `.env` and `.env.*`.
//!
//! An own walk and not the `ignore` crate's: ignored `.env` files must be seen, tracked files
//! count although a rule ignores them, and a link is kept, followed or refused by where it leads.

use std::collections::BTreeMap;
use std::fs::Metadata;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ignore::Match;
use ignore::gitignore::{Gitignore, GitignoreBuilder};
use serde::Serialize;

use super::content::ContentId;
use super::{Error, Problem};
use crate::git::{Index, Repository};
use crate::path::{normalize, relative};
use crate::store::{AppName, StoreId};

/// Whose layer it is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
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
    pub source: Arc<Path>,
    /// What the source looked like when its id was taken.
    pub stamp: Stamp,
}

/// Size and time of a file: while they stay, its content does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stamp {
    size: u64,
    modified: (i64, i64),
}

impl Stamp {
    /// Of a file as it is now.
    pub fn new(metadata: &Metadata) -> Self {
        use std::os::unix::fs::MetadataExt;
        Self {
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
        }
    }

    /// Whether the file still is as it was.
    pub fn is_of(&self, path: &Path) -> bool {
        path.metadata()
            .is_ok_and(|metadata| Self::new(&metadata) == *self)
    }
}

/// One owner's files for one app, by path relative to the app, with `/`.
#[derive(Debug, Clone)]
pub struct Layer {
    /// Whose they are.
    pub owner: Owner,
    /// The files.
    pub files: BTreeMap<Arc<str>, File>,
}

/// Lists layers of one project.
pub struct Lister {
    project: PathBuf,
    /// Content may be copied from below here.
    boundary: PathBuf,
    index: Index,
    /// Rules that hold in all of `apps/`, weakest first.
    outer: Vec<Gitignore>,
}

impl Lister {
    /// Gets ready to list layers of `project`; without a repository only `.gitignore` files count.
    pub fn new(project: &Path, repository: Option<&Repository>) -> Result<Self, Error> {
        let canonical = |path: &Path| {
            path.canonicalize().map_err(|source| Error::Read {
                path: path.to_owned(),
                source,
            })
        };
        let project = canonical(project)?;
        let mut outer = vec![Gitignore::global().0];
        let mut boundary = project.clone();
        let mut index = Index::default();
        if let Some(repository) = repository {
            boundary = canonical(repository.root())?;
            index = repository.index()?;
            let exclude = repository.exclude_file();
            if exclude.is_file() {
                outer.push(rules_of(&boundary, &exclude));
            }
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
            index,
            outer,
        })
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
        };
        if root.is_dir() {
            let mut rules = Vec::new();
            let mut parent = self.project.clone();
            let mut ignored = false;
            for part in Path::new(folder) {
                rules.extend(rules_in(&parent).filter(|_| parent != self.project));
                parent.push(part);
                ignored |= self.ignores(&rules, &parent, true);
            }
            if !ignored {
                walk.folder(&root, "", &mut rules)?;
            }
            walk.tracked()?;
        }
        let Walk {
            files, problems, ..
        } = walk;
        Ok((Layer { owner, files }, problems))
    }

    /// Whether git would ignore the path: nearest rules first, the last match in a file wins.
    fn ignores(&self, rules: &[Gitignore], path: &Path, is_dir: bool) -> bool {
        for rules in rules.iter().rev().chain(self.outer.iter().rev()) {
            match rules.matched(path, is_dir) {
                Match::Ignore(_) => return true,
                Match::Whitelist(_) => return false,
                Match::None => {}
            }
        }
        false
    }
}

/// The base app's folder, relative to the project.
pub fn base_folder(app: &AppName) -> String {
    format!("apps/{app}")
}

fn rules_in(folder: &Path) -> Option<Gitignore> {
    let file = folder.join(".gitignore");
    file.is_file().then(|| rules_of(folder, &file))
}

/// The rules of a file, which count from `root`. A rule that cannot be parsed is git's
/// business, and git passes over it too; so it does with a file that is no text.
fn rules_of(root: &Path, file: &Path) -> Gitignore {
    let mut builder = GitignoreBuilder::new(root);
    let text = std::fs::read(file).unwrap_or_default();
    for line in String::from_utf8_lossy(&text)
        .trim_start_matches('\u{feff}')
        .lines()
    {
        // Braces are alternatives to the crate and mean themselves to git.
        let _ = builder.add_line(None, &line.replace('{', "\\{").replace('}', "\\}"));
    }
    builder.build().unwrap_or_else(|_| Gitignore::empty())
}

fn is_env(name: &str) -> bool {
    name == ".env" || name.starts_with(".env.")
}

struct Walk<'a> {
    lister: &'a Lister,
    folder: &'a str,
    root: &'a Path,
    files: BTreeMap<Arc<str>, File>,
    problems: Vec<Problem>,
}

impl Walk<'_> {
    fn folder(
        &mut self,
        folder: &Path,
        path: &str,
        rules: &mut Vec<Gitignore>,
    ) -> Result<(), Error> {
        let own = rules_in(folder);
        let depth = rules.len();
        rules.extend(own);
        for (name, entry) in entries(folder)? {
            let Some(name) = name.to_str().map(str::to_owned) else {
                self.problems.push(Problem::Name {
                    path: format!("{}/{path}{}", self.folder, name.to_string_lossy()),
                });
                continue;
            };
            if name == ".git" || name == "node_modules" {
                continue;
            }
            let inner = format!("{path}{name}");
            let metadata = stat(&entry)?;
            let ignored = self.lister.ignores(rules, &entry, metadata.is_dir());
            if metadata.is_dir() {
                if !ignored {
                    self.folder(&entry, &format!("{inner}/"), rules)?;
                }
            } else if !ignored || is_env(&name) {
                self.add(&entry, inner, &metadata)?;
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
            let real = file.parent().and_then(|parent| parent.canonicalize().ok());
            if real.as_deref() != file.parent() {
                continue;
            }
            match file.symlink_metadata() {
                Ok(metadata) if !metadata.is_dir() => {
                    self.add(&file, path.to_owned(), &metadata)?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn add(&mut self, file: &Path, path: String, metadata: &Metadata) -> Result<(), Error> {
        if metadata.is_symlink() {
            return self.link(file, path, &mut Vec::new());
        }
        if !metadata.is_file() {
            self.problems.push(Problem::Special {
                path: format!("{}/{path}", self.folder),
            });
            return Ok(());
        }
        self.content(file, path, metadata)
    }

    fn content(&mut self, file: &Path, path: String, metadata: &Metadata) -> Result<(), Error> {
        use std::os::unix::fs::PermissionsExt;
        let known = file
            .strip_prefix(&self.lister.project)
            .ok()
            .and_then(Path::to_str)
            .and_then(|path| self.lister.index.unchanged(path, metadata));
        let id = match known {
            Some(id) => id.into(),
            None => ContentId::of_file(file).map_err(|source| Error::Read {
                path: file.to_owned(),
                source,
            })?,
        };
        let kind = Kind::File {
            executable: metadata.permissions().mode() & 0o100 != 0,
        };
        self.files.insert(
            path.into(),
            File {
                kind,
                id,
                source: file.into(),
                stamp: Stamp::new(metadata),
            },
        );
        Ok(())
    }

    /// Inside the app: kept. Elsewhere in the repository: the content. Outside: a problem.
    /// `through` are the folders that links have led through, against cycles.
    fn link(&mut self, file: &Path, path: String, through: &mut Vec<PathBuf>) -> Result<(), Error> {
        let failed = |source| Error::Read {
            path: file.to_owned(),
            source,
        };
        let target = std::fs::read_link(file).map_err(failed)?;
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
            self.files.insert(
                path.into(),
                File {
                    kind: Kind::Link {
                        target: target.into(),
                    },
                    id: ContentId::of(target.as_bytes()),
                    source: file.into(),
                    stamp: Stamp::default(),
                },
            );
            return Ok(());
        }
        let Ok(real) = file.canonicalize() else {
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
        let metadata = stat(&real)?;
        if metadata.is_file() {
            return self.content(&real, path, &metadata);
        }
        if !metadata.is_dir() {
            self.problems
                .push(shown(|path, _| Problem::Special { path }));
            return Ok(());
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
        let mut rules: Vec<_> = above.filter_map(rules_in).collect();
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
        rules.extend(rules_in(folder));
        for (name, entry) in entries(folder)? {
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
            let metadata = stat(&entry)?;
            if self.lister.ignores(rules, &entry, metadata.is_dir()) && !is_env(name) {
                continue;
            }
            if metadata.is_dir() {
                self.linked_folder(&entry, &inner, through, rules)?;
            } else if metadata.is_symlink() {
                self.link(&entry, inner, through)?;
            } else if metadata.is_file() {
                self.content(&entry, inner, &metadata)?;
            } else {
                self.problems.push(Problem::Special {
                    path: format!("{}/{inner}", self.folder),
                });
            }
        }
        rules.truncate(depth);
        Ok(())
    }
}

fn stat(path: &Path) -> Result<Metadata, Error> {
    path.symlink_metadata().map_err(|source| Error::Read {
        path: path.to_owned(),
        source,
    })
}

/// What a folder holds, sorted, so that problems come in a stable order.
fn entries(folder: &Path) -> Result<Vec<(std::ffi::OsString, PathBuf)>, Error> {
    let failed = |source| Error::Read {
        path: folder.to_owned(),
        source,
    };
    let mut entries = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        entries.push((entry.file_name(), entry.path()));
    }
    entries.sort();
    Ok(entries)
}
