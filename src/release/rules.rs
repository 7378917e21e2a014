//! Whether a release may replace the active one.

use std::path::Path;

use jiff::Timestamp;

use super::Error;
use crate::git::Repository;
use crate::ledger::{BuildRecord, RecordId, RecordSet, ReleaseRecord};
use crate::target::place_options;

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
    /// The commits cannot be compared, and the first build of its commit started earlier.
    Build,
}

/// When the first build of a commit started, of any store. A later build of the same commit, such as a job
/// of a CI system that is run again, does not make the commit newer.
fn first_build(records: &RecordSet, sha: &str) -> Option<Timestamp> {
    let builds = records.builds();
    let of_commit = builds.filter(|it| it.commit.as_ref().is_some_and(|own| own.sha == sha));
    of_commit.map(|build| build.started).min()
}

/// Whether a build is older than the build that is live. Without the history of the commits, their first
/// builds are compared. `records` are those of all stores.
pub fn older(
    build: &BuildRecord,
    live: &BuildRecord,
    (records, ancestry): (&RecordSet, &CommitOrder),
) -> Option<Older> {
    let age = |build: &BuildRecord| {
        let commit = build.commit.as_ref();
        let first = commit.and_then(|commit| first_build(records, &commit.sha));
        first.map_or(build.started, |first| build.started.min(first))
    };
    let by_age = || (age(build) < age(live)).then_some(Older::Build);
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
    release: &ReleaseRecord,
    build: &BuildRecord,
    (active, live): (&RecordId, &BuildRecord),
    history: (&RecordSet, &CommitOrder),
) -> Result<(), Error> {
    let Some(older) = older(build, live, history) else {
        return Ok(());
    };
    let commit = |build: &BuildRecord| {
        let sha = build.commit.as_ref().map(|commit| commit.sha.as_str());
        sha.map_or_else(|| "no commit".into(), |sha| short(sha).to_owned())
    };
    let reason = match older {
        Older::Commit => format!("{} is an ancestor of {}", commit(build), commit(live)),
        Older::Build => format!(
            "{} and {} cannot be compared in this clone, and the first build of {} started earlier",
            commit(build),
            commit(live),
            commit(build)
        ),
    };
    Err(Error::Older {
        store: release.store.clone(),
        active: active.clone(),
        reason,
        place: place_options(&release.store, &release.target),
    })
}

fn short(sha: &str) -> &str {
    sha.get(..7).unwrap_or(sha)
}

#[cfg(test)]
mod tests {
    use super::{Older, older};
    use crate::ledger::{BuildRecord, Record, RecordSet, StoredRecord};

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
        let none = RecordSet::default();
        assert_eq!(older(&a, &b, (&none, &known)), Some(Older::Commit));
        assert_eq!(older(&b, &a, (&none, &known)), None);
        assert_eq!(older(&a, &b, (&none, &unknown)), None);
        assert_eq!(older(&b, &a, (&none, &unknown)), Some(Older::Build));
        let again = build(Some("a"), EARLY);
        assert_eq!(older(&again, &a, (&none, &known)), None);
        let without = build(None, EARLY);
        assert_eq!(older(&without, &a, (&none, &known)), Some(Older::Build));
    }

    #[test]
    fn a_commit_is_not_newer_because_it_is_built_again() {
        let unknown = |_: &str, _: &str| None;
        let first = build(Some("old"), "2026-01-01T00:00:00Z");
        let live = build(Some("new"), "2026-01-02T00:00:00Z");
        let mut again = build(Some("old"), "2026-01-03T00:00:00Z");
        again.id = "B0000000000000001".parse().unwrap();
        let mut records = RecordSet::default();
        for build in [&first, &live, &again] {
            let mut build = build.clone();
            if build.started == live.started {
                build.id = "B0000000000000002".parse().unwrap();
            }
            records.insert(StoredRecord::new(Record::Build(build)).unwrap());
        }
        let older = |build, live| older(build, live, (&records, &unknown));
        assert_eq!(older(&again, &live), Some(Older::Build));
        assert_eq!(older(&live, &again), None);
    }
}
