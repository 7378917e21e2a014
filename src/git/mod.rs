//! The git repository of the project: revision, dirty paths, index, trees of commits, history.
//!
//! The project can be a subfolder of the repository, so paths in the public functions are relative to
//! the project, with `/`, unless they say otherwise.

mod ancestry;
mod between;
mod entries;
mod follow;
mod history;
mod index;
mod index_edit;
mod tree;
mod work_tree;

use std::cell::LazyCell;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use git2::{Delta, DiffOptions, ErrorCode, Status, StatusEntry, StatusOptions};
use miette::Diagnostic;

use crate::disk::Stamp;

pub use ancestry::CommitIndex;
pub use between::CommitsBetween;
pub use history::{Commit, PathChange, PathHistory};
pub use index::GitIndex;
pub use index_edit::{ChangedIndex, IndexChange};
pub use tree::{GitObjects, Tree};
pub use work_tree::{StoredBlob, WorkTree};

/// Folders that alokai writes in a project. They never count as dirty.
const OWN: [&str; 2] = [".out", ".alokai"];

/// The names of the default branch, if the repository does not define it.
const DEFAULT_BRANCHES: [&str; 2] = ["main", "master"];

/// The branch in the name of a remote branch: `main` in `refs/remotes/origin/main`.
fn remote_branch(reference: &str) -> Option<&str> {
    let (_remote, branch) = reference.strip_prefix("refs/remotes/")?.split_once('/')?;
    Some(branch)
}

/// Why the git repository cannot be read.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum Error {
    /// The project is not in a repository.
    #[error("`{}` is not in a git repository, so its images cannot be tagged", project.display())]
    #[diagnostic(
        code(alokai::git::no_repository),
        help("create a repository: `git init && git add . && git commit -m \"first commit\"`")
    )]
    NoRepository {
        /// The project.
        project: PathBuf,
    },
    /// The repository has no commit.
    #[error("the git repository at `{}` has no commit yet, so its images cannot be tagged", repository.display())]
    #[diagnostic(
        code(alokai::git::empty),
        help("create the first commit: `git add . && git commit -m \"first commit\"`")
    )]
    Empty {
        /// The repository's work tree.
        repository: PathBuf,
    },
    /// The repository belongs to another user, so git refuses it.
    #[error("the git repository of `{}` belongs to another user", project.display())]
    #[diagnostic(
        code(alokai::git::owner),
        help("if you trust that user: `git config --global --add safe.directory '{}'`", project.display())
    )]
    Owner {
        /// The project.
        project: PathBuf,
    },
    /// A revision that the repository does not have.
    #[error("there is no commit `{}` in the repository of `{}`", revision.escape_debug(), project.display())]
    #[diagnostic(code(alokai::git::revision), help("{}", deepen(revision, *shallow)))]
    Revision {
        /// The value as given.
        revision: String,
        /// The project.
        project: PathBuf,
        /// Whether the clone is shallow.
        shallow: bool,
    },
    /// A path whose tracked name cannot be changed during a merge.
    #[error("`{}` has a merge conflict", path.escape_debug())]
    #[diagnostic(
        code(alokai::git::conflicted),
        help("finish the merge: resolve the conflict, run `git add` on the file, and commit")
    )]
    Conflicted {
        /// The path, relative to the repository.
        path: String,
    },
    /// A submodule, whose path is also in `.gitmodules`.
    #[error("`{}` is a git submodule, which alokai does not move or remove", path.escape_debug())]
    #[diagnostic(
        code(alokai::git::submodule),
        help("move or remove the submodule with `git mv` or `git rm` first")
    )]
    Submodule {
        /// The path, relative to the repository.
        path: String,
    },
    /// Another git process is changing the index, or has left its lock.
    #[error("git's index is locked: `{}` exists", lock.display())]
    #[diagnostic(
        code(alokai::git::locked),
        help("wait until the other git command has ended; if none is running, remove the file")
    )]
    IndexLocked {
        /// The lock file.
        lock: PathBuf,
    },
    /// The index cannot be written.
    #[error("cannot write git's index of `{}`", project.display())]
    #[diagnostic(
        code(alokai::git::write_index),
        help("check the permissions of `.git`, and that no other git command is running")
    )]
    WriteIndex {
        /// The project.
        project: PathBuf,
        /// The error of the system or of libgit2.
        source: std::io::Error,
    },
    /// Another error of libgit2.
    #[error("git cannot read {what} of `{}`", project.display())]
    #[diagnostic(code(alokai::git::read), help("{}", read_help(source)))]
    Read {
        /// What was to be read.
        what: &'static str,
        /// The project.
        project: PathBuf,
        /// The library's error.
        source: git2::Error,
    },
}

fn read_help(source: &git2::Error) -> &'static str {
    let reason = source.message();
    if reason.contains("extension") || reason.contains("refstorage") || reason.contains("format") {
        "sparse indexes, split indexes, SHA-256 repositories and reftable are not supported; convert \
         a sparse index with `git sparse-checkout reapply --no-sparse-index`, and a split index with \
         `git update-index --no-split-index`"
    } else if source.code() == ErrorCode::NotFound || reason.contains("not found") {
        "in a partial clone, fetch the missing objects with `git fetch --refetch --no-filter`; else \
         check the repository with `git fsck`"
    } else {
        "check the repository with `git fsck`"
    }
}

fn deepen(revision: &str, shallow: bool) -> &'static str {
    if shallow {
        "this clone is shallow, so older commits are missing; fetch them: `git fetch --deepen=100` \
         or `git fetch --unshallow` (actions/checkout: `fetch-depth: 0`; GitLab: `GIT_DEPTH: 0`)"
    } else if revision == "HEAD~1" {
        "HEAD is the first commit and has no parent; pass another revision with `--since`, such as a branch or a tag"
    } else {
        "use a commit, a branch or a tag; run `git log --oneline` to list commits"
    }
}

/// The repository that the project is in.
pub struct Repository {
    inner: git2::Repository,
    project: PathBuf,
    /// The working tree's root, with links resolved.
    real_root: PathBuf,
    /// The project's path in the repository, empty or ending in `/`.
    prefix: String,
}

/// The commit that a run builds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revision {
    /// Full SHA of HEAD.
    pub sha: String,
    /// First line of the commit's message.
    pub subject: String,
    /// Commit time in seconds since the epoch.
    pub time: i64,
    /// Paths under the project that differ from HEAD, sorted.
    pub dirty: Vec<String>,
}

/// The user's excludes file for all repositories.
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

/// The first line of a commit's message.
fn first_line(commit: &git2::Commit) -> String {
    let summary = commit.summary().ok().flatten();
    summary.unwrap_or_default().to_owned()
}

impl Repository {
    /// Opens the repository that `project` is in.
    pub fn open(project: &Path) -> Result<Self, Error> {
        let owned = || project.to_owned();
        // Like git itself, do not verify the hash of every object read; `git fsck` does that.
        git2::opts::strict_hash_verification(false);
        // libgit2 caches up to 256 MB of objects, but a walk through the history reads each object
        // once. The trees that are needed again have a cache of their own.
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
        // With links resolved in both, a project behind a link is still inside its working tree.
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

    /// Opens the repository that `project` is in; `None` where there is none. Any other failure is an
    /// error, since a repository decides which files a layer has.
    pub fn around(project: &Path) -> Result<Option<Self>, Error> {
        match Self::open(project) {
            Ok(repository) => Ok(Some(repository)),
            Err(Error::NoRepository { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The working tree's root.
    pub fn root(&self) -> &Path {
        self.inner.workdir().unwrap_or(&self.project)
    }

    /// The project's path in the repository, empty or ending in `/`.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The excludes file of this clone.
    pub fn exclude_file(&self) -> PathBuf {
        self.inner.commondir().join("info/exclude")
    }

    /// The files in which git keeps what decides which files of the working tree it tracks, ignores and
    /// converts. They need not exist.
    pub fn state_files(&self) -> Vec<PathBuf> {
        let own = ["index", "HEAD"].map(|name| self.inner.path().join(name));
        let shared = ["config", "info/exclude", "info/attributes"];
        let shared = shared.map(|name| self.inner.commondir().join(name));
        own.into_iter().chain(shared).collect()
    }

    /// A git setting, such as `core.pager`, from any of git's config files.
    pub fn setting(&self, name: &str) -> Option<String> {
        self.inner.config().ok()?.get_string(name).ok()
    }

    /// Whether git tracks a file of the project.
    pub fn tracks(&self, file: &str) -> bool {
        let index = self.inner.index().ok();
        let path = format!("{}{file}", self.prefix);
        index.is_some_and(|index| index.get_path(Path::new(&path), 0).is_some())
    }

    /// Whether git ignores a file of the project, or a folder, such as `.out/`. It need not exist.
    pub fn ignores(&self, path: &str) -> Result<bool, Error> {
        let path = format!("{}{path}", self.prefix);
        let ignored = self.inner.is_path_ignored(Path::new(&path));
        ignored.map_err(|source| self.failed("the ignore rules", source))
    }

    /// The default branch of the remote `origin`, or else the current branch.
    pub fn default_branch(&self) -> Option<String> {
        let remote = self.inner.find_reference("refs/remotes/origin/HEAD").ok();
        let target = remote
            .as_ref()
            .and_then(|it| it.symbolic_target().ok().flatten());
        let name = target.and_then(|it| it.strip_prefix("refs/remotes/origin/"));
        name.map(str::to_owned).or_else(|| {
            // HEAD of a repository without commits has a name too.
            let head = self.inner.find_reference("HEAD").ok()?;
            let name = head.symbolic_target().ok().flatten()?;
            Some(name.strip_prefix("refs/heads/")?.to_owned())
        })
    }

    /// Whether the commit `earlier` is a proper ancestor of `later`. `None` if this clone does not have
    /// enough history to tell.
    pub fn is_ancestor(&self, earlier: &str, later: &str) -> Option<bool> {
        let [earlier, later] = [earlier, later].map(|sha| git2::Oid::from_str(sha).ok());
        let (earlier, later) = (earlier?, later?);
        let is_older = self.inner.graph_descendant_of(later, earlier).ok()?;
        // In a shallow clone the path between the two commits may be cut.
        (is_older || !self.is_shallow()).then_some(is_older)
    }

    /// Whether the clone is shallow.
    pub fn is_shallow(&self) -> bool {
        self.inner.is_shallow()
    }

    /// The repository's objects. Trees that are given the same value share what they read.
    pub fn objects(&self) -> Arc<GitObjects> {
        Arc::new(GitObjects::new(self.inner.path()))
    }

    /// The files of a commit, given by any name that git resolves.
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

    /// Paths of the project that differ between a commit and another one, or the working tree with its
    /// untracked files. Sorted.
    pub fn changed_paths(&self, old: &Tree, new: Option<&Tree>) -> Result<Vec<String>, Error> {
        let failed = |source| self.failed("the changed files", source);
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

    /// Whether git stores this blob for the file. libgit2 cannot run filters, so it reports files as
    /// modified that git does not.
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

    /// HEAD, and the project's paths that differ from it.
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
            subject: first_line(&commit),
            time: commit.time().seconds(),
            dirty: self.dirty()?,
        })
    }

    /// The branch that is checked out, and the names that the default branch may have. CI systems
    /// check out a commit and no branch: then it is the remote branch (or the pull request) at this
    /// commit. If there are several, it is the default branch.
    pub fn branches(&self) -> (Option<String>, Vec<String>) {
        let target = |name: &str| {
            let reference = self.inner.find_reference(name).ok()?;
            let target = reference.symbolic_target().ok()??;
            Some(target.to_owned())
        };
        let default = target("refs/remotes/origin/HEAD");
        let default = default.and_then(|it| Some(remote_branch(&it)?.to_owned()));
        let default =
            default.map_or_else(|| DEFAULT_BRANCHES.map(str::to_owned).into(), |it| vec![it]);
        let own = target("HEAD").and_then(|it| Some(it.strip_prefix("refs/heads/")?.to_owned()));
        let own = own.or_else(|| {
            let mut at_head = self.remote_branches_at_head().unwrap_or_default();
            at_head.sort_by_key(|name| (!default.contains(name), name.clone()));
            at_head.into_iter().next()
        });
        (own, default)
    }

    /// The remote branches whose newest commit is HEAD.
    fn remote_branches_at_head(&self) -> Result<Vec<String>, git2::Error> {
        let head = self.inner.head()?.target();
        let mut names = Vec::new();
        for reference in self.inner.references_glob("refs/remotes/*")? {
            let reference = reference?;
            let name = reference.name().ok().and_then(remote_branch);
            if reference.target().is_some() && reference.target() == head {
                names.extend(name.map(str::to_owned));
            }
        }
        Ok(names)
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
