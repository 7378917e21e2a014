//! Which commits changed a path, and the content that it had in a commit.

use std::collections::HashMap;
use std::path::Path;

use git2::{ErrorCode, Oid};

use super::ancestry::{Ancestry, CommitIndex};
use super::follow::Follower;
use super::{Error, Repository};

/// A commit as it is shown to people.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Commit {
    /// Full SHA.
    pub sha: String,
    /// Author date in the author's time zone, such as `2026-01-31T12:00:00`.
    pub date: String,
    /// First line of its message.
    pub subject: String,
}

impl Commit {
    pub(super) fn new(commit: &git2::Commit) -> Self {
        let author = commit.author().when();
        let offset = jiff::tz::Offset::from_seconds(author.offset_minutes() * 60);
        let date = jiff::Timestamp::from_second(author.seconds()).map(|time| {
            offset
                .unwrap_or(jiff::tz::Offset::UTC)
                .to_datetime(time)
                .to_string()
        });
        Self {
            sha: commit.id().to_string(),
            date: date.unwrap_or_default(),
            subject: super::first_line(commit),
        }
    }
}

/// A change of a followed path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PathChange {
    /// The commit that made it.
    pub commit: CommitIndex,
    /// The content from this commit on; `None` where the commit removed the path.
    pub blob: Option<Oid>,
}

/// The changes of some paths in all commits that are reachable from HEAD. A path is followed through
/// the renames that libgit2 detects.
pub struct PathHistory<'a> {
    repository: &'a Repository,
    ancestry: Ancestry,
    followed: HashMap<String, FollowedPath>,
}

/// A path that is followed.
#[derive(Debug)]
pub(super) struct FollowedPath {
    /// Newest first.
    pub(super) changes: Vec<PathChange>,
    /// Its names, each with the newest commit in which it has that name; newest first.
    pub(super) names: Vec<(CommitIndex, String)>,
}

impl FollowedPath {
    pub(super) fn new(path: &str) -> Self {
        Self {
            changes: Vec::new(),
            names: vec![(CommitIndex::HEAD, path.to_owned())],
        }
    }

    /// The oldest known name.
    pub(super) fn name(&self) -> &str {
        self.names.last().map_or("", |(_, name)| name)
    }
}

impl PathHistory<'_> {
    /// The changes of the path, newest first.
    pub fn changes(&self, path: &str) -> &[PathChange] {
        self.followed
            .get(path)
            .map_or(&[], |followed| &followed.changes)
    }

    /// The content of the path in a commit, where it may have another name; `None` where it does not
    /// exist.
    pub fn blob_at(&self, path: &str, commit: CommitIndex) -> Result<Option<Oid>, Error> {
        let Some(followed) = self.followed.get(path) else {
            return Ok(None);
        };
        let names = followed.names.iter().rev();
        let Some((_, name)) = names.into_iter().find(|(since, _)| *since <= commit) else {
            return Ok(None);
        };
        let inside = format!("{}{name}", self.repository.prefix);
        let blob = self
            .repository
            .inner
            .find_commit(self.ancestry.commit(commit).id)
            .and_then(|commit| blob(&commit, &inside));
        blob.map_err(|source| self.repository.failed("the history", source))
    }

    /// A commit's id, date and subject.
    pub fn commit(&self, index: CommitIndex) -> Result<Commit, Error> {
        let id = self.ancestry.commit(index).id;
        let commit = self.repository.inner.find_commit(id);
        commit
            .map(|commit| Commit::new(&commit))
            .map_err(|source| self.repository.failed("the history", source))
    }

    /// Whether the path already exists in the oldest commit of a shallow clone, so that earlier changes
    /// are unknown.
    pub fn is_cut_off(&self, path: &str) -> bool {
        let oldest = self.changes(path).last();
        self.repository.is_shallow()
            && oldest.is_some_and(|it| self.ancestry.commit(it.commit).parents.is_empty())
    }

    /// Whether the later commit has the earlier one among its ancestors.
    pub fn has_seen(&self, later: CommitIndex, earlier: CommitIndex) -> bool {
        self.ancestry.reaches(later, earlier)
    }

    /// How many commits are reachable from HEAD.
    pub fn commit_count(&self) -> usize {
        self.ancestry.len()
    }

    /// The oldest commit; `None` where there is no commit.
    pub fn oldest(&self) -> Result<Option<Commit>, Error> {
        let oldest = self.ancestry.indices().next_back();
        oldest.map(|index| self.commit(index)).transpose()
    }

    /// The content of a blob.
    pub fn content(&self, blob: Oid) -> Result<Vec<u8>, Error> {
        let found = self.repository.inner.find_blob(blob);
        found
            .map(|blob| blob.content().to_vec())
            .map_err(|source| self.repository.failed("the history", source))
    }
}

/// The blob of a commit at a path relative to the repository.
fn blob(commit: &git2::Commit, path: &str) -> Result<Option<Oid>, git2::Error> {
    match commit.tree()?.get_path(Path::new(path)) {
        Ok(entry) => Ok(Some(entry.id())),
        Err(error) if error.code() == ErrorCode::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

impl Repository {
    /// The commit that last changed a path, as `git log -1 -- <path>` finds it: from HEAD always to a
    /// parent in which the path is the same.
    pub fn last_commit(&self, path: &str) -> Result<Option<Commit>, Error> {
        let failed = |source| self.failed("the history", source);
        let path = format!("{}{path}", self.prefix);
        let Ok(head) = self.inner.head() else {
            return Ok(None);
        };
        let mut commit = head.peel_to_commit().map_err(failed)?;
        let Some(wanted) = blob(&commit, &path).map_err(failed)? else {
            return Ok(None);
        };
        'back: loop {
            // The oldest commits of a shallow clone have no parents here.
            for parent in commit.parents() {
                if blob(&parent, &path).map_err(failed)? == Some(wanted) {
                    commit = parent;
                    continue 'back;
                }
            }
            break;
        }
        Ok(Some(Commit::new(&commit)))
    }

    /// Follows paths through the whole history of HEAD. The paths are relative to the project and all
    /// below `folder`.
    pub fn history(&self, paths: &[String], folder: &str) -> Result<PathHistory<'_>, Error> {
        let failed = |source| self.failed("the history", source);
        let ancestry = Ancestry::of_head(self).map_err(failed)?;
        let odb = self.inner.odb().map_err(failed)?;
        let walk = Follower::new(self, &ancestry, &odb, paths, folder);
        let followed = walk.follow().map_err(failed)?;
        Ok(PathHistory {
            repository: self,
            ancestry,
            followed: paths.iter().cloned().zip(followed).collect(),
        })
    }
}
