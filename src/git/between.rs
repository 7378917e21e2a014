//! The commits that one commit has and another one has not.

use super::history::Commit;
use super::{Error, Repository};

/// The commits between two commits.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CommitsBetween {
    /// Commits that only the new one has, the newest first; at most as many as were asked for.
    pub added: Vec<Commit>,
    /// How many commits only the new one has.
    pub added_count: usize,
    /// Commits that only the old one has, the newest first; at most as many as were asked for.
    pub removed: Vec<Commit>,
    /// How many commits only the old one has.
    pub removed_count: usize,
}

impl Repository {
    /// The commits between two commits, with the first `most` of each side. In a shallow clone, commits
    /// beyond its end are not counted.
    pub fn commits_between(
        &self,
        old: &str,
        new: &str,
        most: usize,
    ) -> Result<CommitsBetween, Error> {
        let (old, new) = (self.commit(old)?.id(), self.commit(new)?.id());
        let failed = |source| self.failed("the history", source);
        let (added, added_count) = self.only_in(new, old, most).map_err(failed)?;
        let (removed, removed_count) = self.only_in(old, new, most).map_err(failed)?;
        Ok(CommitsBetween {
            added,
            added_count,
            removed,
            removed_count,
        })
    }

    fn only_in(
        &self,
        own: git2::Oid,
        other: git2::Oid,
        most: usize,
    ) -> Result<(Vec<Commit>, usize), git2::Error> {
        let mut walk = self.inner.revwalk()?;
        walk.set_sorting(git2::Sort::TOPOLOGICAL | git2::Sort::TIME)?;
        walk.push(own)?;
        walk.hide(other)?;
        let (mut commits, mut count) = (Vec::new(), 0);
        for id in walk {
            let id = id?;
            count += 1;
            if commits.len() < most {
                commits.push(Commit::new(&self.inner.find_commit(id)?));
            }
        }
        Ok((commits, count))
    }
}
