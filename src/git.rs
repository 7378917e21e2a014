//! The repository around the project: revision, dirty paths, and what the index knows of files.
//!
//! The project may lie below the repository's root, so every path that leaves this module is
//! relative to the project, with `/`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use git2::{ErrorCode, Oid, Status, StatusOptions};
use miette::Diagnostic;

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
    /// Anything else libgit2 reports.
    #[error("git cannot read {what} of `{}`", project.display())]
    #[diagnostic(
        code(alokai::git::read),
        help("`git fsck` tells whether the repository is sound")
    )]
    Read {
        /// What was asked for.
        what: &'static str,
        /// The project.
        project: PathBuf,
        /// The library's word.
        source: git2::Error,
    },
}

/// The repository that a project lies in.
pub struct Repository {
    inner: git2::Repository,
    project: PathBuf,
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

/// A commit, as far as people want to know it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Commit {
    /// Full SHA.
    pub sha: String,
    /// Author date in the author's own time, `2026-01-31T12:00:00`.
    pub date: String,
    /// First line of its message.
    pub subject: String,
}

/// What the index remembers of one file.
#[derive(Debug, Clone, Copy)]
pub struct Tracked {
    id: Oid,
    size: u32,
    /// Seconds and nanoseconds; zero when the index cannot vouch for the file.
    modified: (i64, u32),
}

/// Files that git tracks under the project, by path relative to it.
#[derive(Debug, Default)]
pub struct Index {
    files: BTreeMap<String, Tracked>,
}

impl Repository {
    /// Opens the repository around `project`.
    pub fn open(project: &Path) -> Result<Self, Error> {
        let owned = || project.to_owned();
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
        let inside = canonical(project)
            .strip_prefix(canonical(root))
            .map(Path::to_owned)
            .map_err(|_| Error::NoRepository { project: owned() })?;
        let mut prefix = inside.to_string_lossy().into_owned();
        if !prefix.is_empty() {
            prefix.push('/');
        }
        Ok(Self {
            project: project.to_owned(),
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

    /// The file with the excludes of this clone alone.
    pub fn exclude_file(&self) -> PathBuf {
        self.inner.commondir().join("info/exclude")
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
        let mut paths: Vec<String> = statuses
            .iter()
            .filter(|entry| entry.status() != Status::CURRENT && entry.status() != Status::IGNORED)
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

    /// The commit that last changed a path, as `git log -1 -- <path>` finds it: back from HEAD,
    /// always to a parent in which the path is the same.
    pub fn last_commit(&self, path: &str) -> Result<Option<Commit>, Error> {
        let failed = |source| self.failed("the history", source);
        let path = format!("{}{path}", self.prefix);
        let Ok(head) = self.inner.head() else {
            return Ok(None);
        };
        let content = |commit: &git2::Commit| -> Result<Option<Oid>, git2::Error> {
            match commit.tree()?.get_path(Path::new(&path)) {
                Ok(entry) => Ok(Some(entry.id())),
                Err(error) if error.code() == ErrorCode::NotFound => Ok(None),
                Err(error) => Err(error),
            }
        };
        let mut commit = head.peel_to_commit().map_err(failed)?;
        let Some(wanted) = content(&commit).map_err(failed)? else {
            return Ok(None);
        };
        'back: loop {
            // In a shallow clone the history ends where the parents are not there.
            for parent in commit.parents() {
                if content(&parent).map_err(failed)? == Some(wanted) {
                    commit = parent;
                    continue 'back;
                }
            }
            break;
        }
        let author = commit.author().when();
        let offset = jiff::tz::Offset::from_seconds(author.offset_minutes() * 60);
        let date = jiff::Timestamp::from_second(author.seconds()).map(|time| {
            offset
                .unwrap_or(jiff::tz::Offset::UTC)
                .to_datetime(time)
                .to_string()
        });
        Ok(Some(Commit {
            sha: commit.id().to_string(),
            date: date.unwrap_or_default(),
            subject: commit
                .summary()
                .ok()
                .flatten()
                .unwrap_or_default()
                .to_owned(),
        }))
    }

    /// What the index knows of files under the project.
    pub fn index(&self) -> Result<Index, Error> {
        let index = self
            .inner
            .index()
            .map_err(|source| self.failed("the index", source))?;
        // A file changed in the same instant the index was written may have the recorded time
        // and other content ("racy git"); such files are read.
        let written = index
            .path()
            .and_then(|path| path.metadata().ok())
            .and_then(|metadata| metadata.modified().ok())
            .and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok())
            .map_or(0, |time| i64::try_from(time.as_secs()).unwrap_or(i64::MAX));
        let mut files = BTreeMap::new();
        for entry in index.iter() {
            let stage = (entry.flags >> 12) & 0x3;
            let Ok(path) = std::str::from_utf8(&entry.path) else {
                continue;
            };
            // Conflicts have no one content; 0o160000 is a submodule.
            if stage != 0 || entry.mode == 0o160_000 {
                continue;
            }
            if let Some(path) = path.strip_prefix(&self.prefix) {
                let seconds = i64::from(entry.mtime.seconds());
                let racy = seconds >= written;
                files.insert(
                    path.to_owned(),
                    Tracked {
                        id: entry.id,
                        size: entry.file_size,
                        modified: if racy {
                            (0, 0)
                        } else {
                            (seconds, entry.mtime.nanoseconds())
                        },
                    },
                );
            }
        }
        Ok(Index { files })
    }

    fn failed(&self, what: &'static str, source: git2::Error) -> Error {
        Error::Read {
            what,
            project: self.project.clone(),
            source,
        }
    }
}

impl Index {
    /// The blob id of a file that has not changed since git looked at it, without reading it.
    pub fn unchanged(&self, path: &str, metadata: &std::fs::Metadata) -> Option<Oid> {
        use std::os::unix::fs::MetadataExt;
        let tracked = self.files.get(path)?;
        // The index keeps sizes modulo 2^32.
        let same = tracked.modified.0 != 0
            && u64::from(tracked.size) == metadata.size() & 0xffff_ffff
            && tracked.modified.0 == metadata.mtime()
            && i64::from(tracked.modified.1) == metadata.mtime_nsec();
        same.then_some(tracked.id)
    }

    /// Whether git tracks the file.
    pub fn tracks(&self, path: &str) -> bool {
        self.files.contains_key(path)
    }

    /// Tracked paths below `folder` (ending in `/`).
    pub fn below<'a>(&'a self, folder: &'a str) -> impl Iterator<Item = &'a str> {
        self.files
            .range(folder.to_owned()..)
            .map(|(path, _)| path.as_str())
            .take_while(move |path| path.starts_with(folder))
    }
}
