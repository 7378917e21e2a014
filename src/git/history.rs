//! What earlier commits say of a path.

use std::path::Path;

use git2::{ErrorCode, Oid};

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

impl Repository {
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
}
