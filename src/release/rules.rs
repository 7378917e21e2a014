//! Whether a release may replace the active one.

use super::Error;
use crate::git::Repository;
use crate::ledger::{BuildRecord, RecordId};
use crate::store::StoreId;
use std::path::Path;

/// Whether the first commit is a proper ancestor of the second one. `None` if that is not known.
pub type CommitOrder<'a> = dyn Fn(&str, &str) -> Option<bool> + Send + Sync + 'a;

/// The history of the project's repository.
pub fn ancestry_of(project: &Path) -> impl Fn(&str, &str) -> Option<bool> + Send + Sync + use<> {
    let project = project.to_owned();
    move |earlier, later| {
        let repository = Repository::around(&project).ok()??;
        repository.is_ancestor(earlier, later)
    }
}

/// Why one build is older than another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Older {
    /// Its commit is an ancestor of the other commit.
    Commit,
    /// The commits cannot be compared, and it was built earlier.
    Build,
}

/// Whether a build is older than the build that is live.
pub fn older(build: &BuildRecord, live: &BuildRecord, ancestry: &CommitOrder) -> Option<Older> {
    let by_age = || (build.started < live.started).then_some(Older::Build);
    let (Some(own), Some(other)) = (&build.commit, &live.commit) else {
        return by_age();
    };
    if own.sha == other.sha {
        return None;
    }
    match ancestry(&own.sha, &other.sha) {
        Some(is_older) => is_older.then_some(Older::Commit),
        None => by_age(),
    }
}

/// Refuses a build that is older than the one that is live.
pub fn refuse_older(
    store: &StoreId,
    build: &BuildRecord,
    (active, live): (&RecordId, &BuildRecord),
    ancestry: &CommitOrder,
) -> Result<(), Error> {
    let Some(older) = older(build, live, ancestry) else {
        return Ok(());
    };
    let commit = |build: &BuildRecord| {
        let sha = build.commit.as_ref().map(|commit| commit.sha.as_str());
        sha.map_or_else(|| "no commit".into(), |sha| short(sha).to_owned())
    };
    let reason = match older {
        Older::Commit => format!("{} is an ancestor of {}", commit(build), commit(live)),
        Older::Build => format!(
            "{} and {} cannot be compared in this clone, and the build of {} started earlier",
            commit(build),
            commit(live),
            commit(build)
        ),
    };
    Err(Error::Older {
        store: store.clone(),
        active: active.clone(),
        reason,
    })
}

fn short(sha: &str) -> &str {
    sha.get(..7).unwrap_or(sha)
}

#[cfg(test)]
mod tests {
    use super::{Older, older};
    use crate::ledger::BuildRecord;

    fn build(sha: Option<&str>, started: &str) -> BuildRecord {
        let commit = sha.map(|sha| serde_json::json!({ "sha": sha }));
        let id = "B0000000000000000";
        let record = serde_json::json!({
            "schemaVersion": 1, "id": id, "store": "us", "status": "complete",
            "started": started, "seconds": 1.0, "commit": commit, "apps": {},
            "composition": "", "tool": "", "actor": { "user": "", "host": "" }, "reached": "push",
        });
        serde_json::from_value(record).unwrap()
    }

    #[test]
    fn commits_decide_and_without_history_the_time_of_the_build() {
        const EARLY: &str = "2026-01-01T00:00:00Z";
        const LATE: &str = "2026-01-02T00:00:00Z";
        let known = |earlier: &str, later: &str| Some(earlier < later);
        let unknown = |_: &str, _: &str| None;
        let (a, b) = (build(Some("a"), LATE), build(Some("b"), EARLY));
        assert_eq!(older(&a, &b, &known), Some(Older::Commit));
        assert_eq!(older(&b, &a, &known), None);
        assert_eq!(older(&a, &b, &unknown), None);
        assert_eq!(older(&b, &a, &unknown), Some(Older::Build));
        let again = build(Some("a"), EARLY);
        assert_eq!(older(&again, &a, &known), None);
        let without = build(None, EARLY);
        assert_eq!(older(&without, &a, &known), Some(Older::Build));
    }
}
