//! The repository around the project: revision, dirty paths, and what the index knows of files.
//!
//! The project may lie below the repository's root, so every path that leaves this module is
//! relative to the project, with `/`.

mod ancestry;
mod entries;
mod follow;
mod history;
mod index;
mod tree;
mod work_tree;

use std::cell::LazyCell;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use git2::{Delta, DiffOptions, ErrorCode, Status, StatusEntry, StatusOptions};
use miette::Diagnostic;

use crate::disk::Stamp;

pub use history::{Commit, PathChange, PathHistory};
pub use index::GitIndex;
pub use tree::{GitObjects, Tree};
pub use work_tree::{StoredBlob, WorkTree};

/// Folders of this tool in a project; never dirty, whether ignored by the user or not.
const OWN: [&str; 2] = [".out", ".alokai"];

/// What git cannot tell us.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum Error {
    /// The project is in no repository.
    #[error("`{}` is in no git repository, so its images cannot be tagged", project.display())]
    #[diagnostic(
        code(alokai::git::no_repository),
        help("make one: `git init && git add . && git commit -m \"first commit\"`")
    )]
    NoRepository {
        /// The project.
        project: PathBuf,
    },
    /// The repository has no commit.
    #[error("the git repository at `{}` has no commit yet, so its images cannot be tagged", repository.display())]
    #[diagnostic(
        code(alokai::git::empty),
        help("make the first one: `git add . && git commit -m \"first commit\"`")
    )]
    Empty {
        /// The repository's work tree.
        repository: PathBuf,
    },
    /// Git refuses a repository of another user.
    #[error("the git repository of `{}` belongs to another user", project.display())]
    #[diagnostic(
        code(alokai::git::owner),
        help("if you trust it: `git config --global --add safe.directory '{}'`", project.display())
    )]
    Owner {
        /// The project.
        project: PathBuf,
    },
    /// A revision that is not here.
    #[error("there is no commit `{}` in the repository of `{}`", revision.escape_debug(), project.display())]
    #[diagnostic(code(alokai::git::revision), help("{}", deepen(revision, *shallow)))]
    Revision {
        /// As given.
        revision: String,
        /// The project.
        project: PathBuf,
        /// Whether the clone lacks a part of its history.
        shallow: bool,
    },
    /// Anything else libgit2 reports.
    #[error("git cannot read {what} of `{}`", project.display())]
    #[diagnostic(code(alokai::git::read), help("{}", read_help(source)))]
    Read {
        /// What was asked for.
        what: &'static str,
        /// The project.
        project: PathBuf,
        /// The library's word.
        source: git2::Error,
    },
}

fn read_help(source: &git2::Error) -> &'static str {
    let reason = source.message();
    if reason.contains("extension") || reason.contains("refstorage") || reason.contains("format") {
        "sparse and split indexes, SHA-256 and reftable are not read; the first two go with \
         `git sparse-checkout reapply --no-sparse-index` and `git update-index --no-split-index`"
    } else if source.code() == ErrorCode::NotFound || reason.contains("not found") {
        "a partial clone lacks objects: `git fetch --refetch --no-filter` brings them; else \
         `git fsck` tells whether the repository is sound"
    } else {
        "`git fsck` tells whether the repository is sound"
    }
}

fn deepen(revision: &str, shallow: bool) -> &'static str {
    if shallow {
        "this clone is shallow, so its history ends early; deepen it: `git fetch --deepen=100` \
         or `git fetch --unshallow` (actions/checkout: `fetch-depth: 0`; GitLab: `GIT_DEPTH: 0`)"
    } else if revision == "HEAD~1" {
        "HEAD is the first commit; name another one with `--since`, such as a branch or a tag"
    } else {
        "name a commit, a branch or a tag; `git log --oneline` lists commits"
    }
}

/// The repository that a project lies in.
pub struct Repository {
    inner: git2::Repository,
    project: PathBuf,
    /// The work tree's root, without links.
    real_root: PathBuf,
    /// The project's path in the repository, empty or ending in `/`.
    prefix: String,
}

/// The commit a run works on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revision {
    /// Full SHA of HEAD.
    pub sha: String,
    /// Commit time in seconds since the epoch.
    pub time: i64,
    /// Paths under the project that differ from HEAD, sorted.
    pub dirty: Vec<String>,
}

/// The file with the user's excludes for all repositories.
pub fn excludes_file(repository: Option<&Repository>) -> Option<PathBuf> {
    let config = match repository {
        Some(repository) => repository.inner.config(),
        None => git2::Config::open_default(),
    };
    let named = config.and_then(|config| config.get_path("core.excludesFile"));
    named
        .ok()
        .or_else(|| gix_path::env::xdg_config("ignore", &mut |name| gix_path::env::var(name)))
}

impl Repository {
    /// Opens the repository around `project`.
    pub fn open(project: &Path) -> Result<Self, Error> {
        let owned = || project.to_owned();
        // Git itself does not hash again what it reads; `git fsck` is for that.
        git2::opts::strict_hash_verification(false);
        // The library would keep up to 256 MB of objects, and a walk through history sees each
        // once. What is needed again is kept where that is known.
        git2::opts::enable_caching(false);
        let inner = git2::Repository::discover(project).map_err(|source| match source.code() {
            ErrorCode::NotFound => Error::NoRepository { project: owned() },
            ErrorCode::Owner => Error::Owner { project: owned() },
            _ => Error::Read {
                what: "the repository",
                project: owned(),
                source,
            },
        })?;
        let root = inner
            .workdir()
            .ok_or_else(|| Error::NoRepository { project: owned() })?;
        // Both sides canonical: a project reached through a link is still under its work tree.
        let canonical = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
        let real_root = canonical(root);
        let inside = canonical(project)
            .strip_prefix(&real_root)
            .map(Path::to_owned)
            .map_err(|_| Error::NoRepository { project: owned() })?;
        let mut prefix = inside.to_string_lossy().into_owned();
        if !prefix.is_empty() {
            prefix.push('/');
        }
        Ok(Self {
            project: project.to_owned(),
            real_root,
            prefix,
            inner,
        })
    }

    /// The repository around `project`, or none where there is none. Any other trouble is an
    /// error: passing over it would change what a layer holds.
    pub fn around(project: &Path) -> Result<Option<Self>, Error> {
        match Self::open(project) {
            Ok(repository) => Ok(Some(repository)),
            Err(Error::NoRepository { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The work tree's root.
    pub fn root(&self) -> &Path {
        self.inner.workdir().unwrap_or(&self.project)
    }

    /// The project's path in the repository, empty or ending in `/`.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The file with the excludes of this clone alone.
    pub fn exclude_file(&self) -> PathBuf {
        self.inner.commondir().join("info/exclude")
    }

    /// A setting of git, such as `core.pager`, wherever the user has it.
    pub fn setting(&self, name: &str) -> Option<String> {
        self.inner.config().ok()?.get_string(name).ok()
    }

    /// Whether history ends early.
    pub fn is_shallow(&self) -> bool {
        self.inner.is_shallow()
    }

    /// Objects, for trees that are to share what they read.
    pub fn objects(&self) -> Arc<GitObjects> {
        Arc::new(GitObjects::new(self.inner.path()))
    }

    /// The files of the commit that `revision` names.
    pub fn tree(&self, objects: &Arc<GitObjects>, revision: &str) -> Result<Tree, Error> {
        let commit = self.commit(revision)?;
        Ok(self.tree_of(objects, &commit))
    }

    fn tree_of(&self, objects: &Arc<GitObjects>, commit: &git2::Commit) -> Tree {
        Tree::new(
            Arc::clone(objects),
            self.real_root.clone(),
            commit.tree_id(),
        )
    }

    /// Paths under the project that differ between a commit and another one, or the working
    /// tree with its untracked files; relative to the project, sorted.
    pub fn changed_paths(&self, old: &Tree, new: Option<&Tree>) -> Result<Vec<String>, Error> {
        let failed = |source| self.failed("what has changed", source);
        let mut paths = BTreeSet::new();
        let inside = |path: &str| path.strip_prefix(&self.prefix).map(str::to_owned);
        if let Some(new) = new {
            let folder = Path::new(self.prefix.trim_end_matches('/'));
            let differences = new
                .since(old, folder)
                .map_err(|error| failed(git2::Error::from_str(&error.to_string())))?;
            paths.extend(
                differences
                    .iter()
                    .filter_map(|it| inside(it.path.to_str()?)),
            );
        } else {
            let old = self.inner.find_tree(old.root_id()).map_err(failed)?;
            let mut options = DiffOptions::new();
            options.include_untracked(true).recurse_untracked_dirs(true);
            let diff = self
                .inner
                .diff_tree_to_workdir_with_index(Some(&old), Some(&mut options))
                .map_err(failed)?;
            let work_tree = LazyCell::new(|| self.work_tree());
            for delta in diff.deltas() {
                let (old, new) = (delta.old_file(), delta.new_file());
                if let (Delta::Modified, Some(path)) = (delta.status(), new.path())
                    && old.mode() == new.mode()
                    && let Ok(work_tree) = &*work_tree
                    && self.stores(work_tree, path, old.id())
                {
                    continue;
                }
                for file in [delta.old_file(), delta.new_file()] {
                    let path = file.path_bytes().map(String::from_utf8_lossy);
                    paths.extend(path.as_deref().and_then(inside));
                }
            }
        }
        Ok(paths.into_iter().collect())
    }

    /// Whether git would store this blob for the file. Its library cannot run filters, and calls
    /// a file modified that git does not.
    fn stores(&self, work_tree: &WorkTree, path: &Path, id: git2::Oid) -> bool {
        let file = self.real_root.join(path);
        let Some(stamp) = Stamp::of(&file).filter(|stamp| stamp.is_file()) else {
            return false;
        };
        let stored = work_tree.stored(&file, &stamp);
        stored.is_ok_and(|stored| stored.is_converted && stored.id == id)
    }

    fn commit(&self, revision: &str) -> Result<git2::Commit<'_>, Error> {
        let found = self.inner.revparse_single(revision);
        found
            .and_then(|object| object.peel_to_commit())
            .map_err(|_| Error::Revision {
                revision: revision.to_owned(),
                project: self.project.clone(),
                shallow: self.is_shallow(),
            })
    }

    /// HEAD and what differs from it under the project.
    pub fn revision(&self) -> Result<Revision, Error> {
        let head = self.inner.head().and_then(|head| head.peel_to_commit());
        let commit = head.map_err(|source| match source.code() {
            ErrorCode::UnbornBranch | ErrorCode::NotFound => Error::Empty {
                repository: self.root().to_owned(),
            },
            _ => self.failed("HEAD", source),
        })?;
        Ok(Revision {
            sha: commit.id().to_string(),
            time: commit.time().seconds(),
            dirty: self.dirty()?,
        })
    }

    fn dirty(&self) -> Result<Vec<String>, Error> {
        let mut options = StatusOptions::new();
        options
            .include_untracked(true)
            .recurse_untracked_dirs(true)
            .include_ignored(false)
            .disable_pathspec_match(true);
        if !self.prefix.is_empty() {
            options.pathspec(&self.prefix);
        }
        let statuses = self
            .inner
            .statuses(Some(&mut options))
            .map_err(|source| self.failed("the status", source))?;
        let work_tree = LazyCell::new(|| self.work_tree());
        let is_stored = |entry: &StatusEntry| {
            let (Status::WT_MODIFIED, Some(delta)) = (entry.status(), entry.index_to_workdir())
            else {
                return false;
            };
            let (old, new) = (delta.old_file(), delta.new_file());
            let path = new.path().filter(|_| old.mode() == new.mode());
            path.zip(work_tree.as_ref().ok())
                .is_some_and(|(path, work_tree)| self.stores(work_tree, path, old.id()))
        };
        let mut paths: Vec<String> = statuses
            .iter()
            .filter(|entry| entry.status() != Status::CURRENT && entry.status() != Status::IGNORED)
            .filter(|entry| !is_stored(entry))
            .filter_map(|entry| {
                let path = String::from_utf8_lossy(entry.path_bytes()).into_owned();
                path.strip_prefix(&self.prefix).map(str::to_owned)
            })
            .filter(|path| !OWN.iter().any(|own| path.split('/').next() == Some(own)))
            .collect();
        paths.sort();
        paths.dedup();
        Ok(paths)
    }

    fn failed(&self, what: &'static str, source: git2::Error) -> Error {
        Error::Read {
            what,
            project: self.project.clone(),
            source,
        }
    }
}
