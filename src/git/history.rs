//! What earlier commits did to paths, and what they had at them.

use std::collections::HashMap;
use std::path::Path;

use git2::{ErrorCode, Oid};

use super::ancestry::Ancestry;
use super::follow::Follower;
use super::{Error, Repository};

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

impl Commit {
    fn new(commit: &git2::Commit) -> Self {
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
            subject: commit
                .summary()
                .ok()
                .flatten()
                .unwrap_or_default()
                .to_owned(),
        }
    }
}

/// A commit that changed a followed path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PathChange {
    /// The commit; smaller is newer.
    pub commit: usize,
    /// What the path had from then on; none where it was removed.
    pub blob: Option<Oid>,
}

/// What every commit that can be reached from HEAD did to some paths. A path is followed through
/// renames, as far as git's library finds them.
pub struct PathHistory<'a> {
    repository: &'a Repository,
    ancestry: Ancestry,
    followed: HashMap<String, FollowedPath>,
}

/// A path that is followed.
#[derive(Debug)]
pub(super) struct FollowedPath {
    /// Newest first.
    pub(super) touches: Vec<PathChange>,
    /// The names it had, with the newest commit at which it had them; newest first.
    pub(super) names: Vec<(usize, String)>,
}

impl FollowedPath {
    pub(super) fn new(path: &str) -> Self {
        Self {
            touches: Vec::new(),
            names: vec![(0, path.to_owned())],
        }
    }

    /// The oldest name that is known.
    pub(super) fn name(&self) -> &str {
        self.names.last().map_or("", |(_, name)| name)
    }
}

impl PathHistory<'_> {
    /// Commits that changed the path, newest first.
    pub fn touches(&self, path: &str) -> &[PathChange] {
        self.followed
            .get(path)
            .map_or(&[], |followed| &followed.touches)
    }

    /// What the path, under the name it had then, had in the commit.
    pub fn blob_at(&self, path: &str, commit: usize) -> Result<Option<Oid>, Error> {
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
            .find_commit(self.ancestry.commits[commit].id)
            .and_then(|commit| blob(&commit, &inside));
        blob.map_err(|source| self.repository.failed("the history", source))
    }

    /// What people want to know of a commit.
    pub fn commit(&self, index: usize) -> Result<Commit, Error> {
        let id = self.ancestry.commits[index].id;
        let commit = self.repository.inner.find_commit(id);
        commit
            .map(|commit| Commit::new(&commit))
            .map_err(|source| self.repository.failed("the history", source))
    }

    /// Whether the path was there already where a shallow clone's history ends.
    pub fn is_cut_off(&self, path: &str) -> bool {
        let oldest = self.touches(path).last();
        self.repository.is_shallow()
            && oldest.is_some_and(|it| self.ancestry.commits[it.commit].parents.is_empty())
    }

    /// Whether one commit can be reached from another one.
    pub fn has_seen(&self, later: usize, earlier: usize) -> bool {
        self.ancestry.reaches(later, earlier)
    }

    /// How many commits it has.
    pub fn len(&self) -> usize {
        self.ancestry.commits.len()
    }

    /// Whether there is no commit.
    pub fn is_empty(&self) -> bool {
        self.ancestry.commits.is_empty()
    }

    /// The content of a blob.
    pub fn content(&self, blob: Oid) -> Result<Vec<u8>, Error> {
        let found = self.repository.inner.find_blob(blob);
        found
            .map(|blob| blob.content().to_vec())
            .map_err(|source| self.repository.failed("the history", source))
    }
}

/// The blob at a path of the repository in a commit.
fn blob(commit: &git2::Commit, path: &str) -> Result<Option<Oid>, git2::Error> {
    match commit.tree()?.get_path(Path::new(path)) {
        Ok(entry) => Ok(Some(entry.id())),
        Err(error) if error.code() == ErrorCode::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

impl Repository {
    /// The commit that last changed a path, as `git log -1 -- <path>` finds it: back from HEAD,
    /// always to a parent in which the path is the same.
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
            // In a shallow clone the history ends where the parents are not there.
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

    /// Follows paths (relative to the project, all below `folder`) through the whole history.
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
