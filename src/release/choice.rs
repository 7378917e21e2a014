//! Which release a command means: the newest one, the one to go back to, or a new one of a build.

use super::Error;
use super::steps::build_of;
use crate::ledger::{
    Actor, BuildRecord, BuildStatus, Record, RecordId, RecordKind, RecordSet, ReleaseReason,
    ReleaseRecord, ReleaseStatus, SCHEMA_VERSION, TargetState, next_moment,
};
use crate::store::StoreId;
use crate::target::place_options;

/// A release to which a rollback may go: it was active and stayed healthy.
#[derive(Debug, Clone, Copy)]
pub struct Candidate<'r> {
    /// The release.
    pub release: &'r ReleaseRecord,
    /// Its build.
    pub build: &'r BuildRecord,
}

/// A new release of a build, with the settings of another release.
pub fn new_release(
    build: &BuildRecord,
    target: &str,
    reason: ReleaseReason,
    settings: Option<&ReleaseRecord>,
    actor: &Actor,
) -> ReleaseRecord {
    ReleaseRecord {
        schema_version: SCHEMA_VERSION,
        id: RecordId::new(RecordKind::Release, next_moment()),
        store: build.store.clone(),
        target: target.to_owned(),
        build: build.id.clone(),
        settings: settings.and_then(|it| it.settings.clone()),
        setting_names: settings.map_or_else(Vec::new, |it| it.setting_names.clone()),
        reason,
        copy_of: None,
        staged_only: false,
        previous: None,
        actor: actor.clone(),
    }
}

/// A copy of an earlier release, so that the newest release is always the one that was asked for last.
pub fn copy_forward(
    candidate: Candidate,
    settings: &ReleaseRecord,
    actor: &Actor,
) -> ReleaseRecord {
    let Candidate { release, build } = candidate;
    let reason = ReleaseReason::Rollback;
    let copy = new_release(build, &release.target, reason, Some(settings), actor);
    ReleaseRecord {
        copy_of: Some(release.id.clone()),
        ..copy
    }
}

/// The releases to which a rollback may go, the last active one first.
pub fn candidates<'r>(
    records: &'r RecordSet,
    state: &TargetState,
    active: Option<&RecordId>,
) -> Vec<Candidate<'r>> {
    let proven = state.proven.iter().rev();
    let others = proven.filter(|id| Some(*id) != active);
    others.filter_map(|id| candidate(records, id)).collect()
}

fn candidate<'r>(records: &'r RecordSet, id: &RecordId) -> Option<Candidate<'r>> {
    let Some(Record::Release(release)) = records.get(id) else {
        return None;
    };
    let build = build_of(records, id)?;
    Some(Candidate { release, build })
}

/// The release that was active before the active one. The active one may be a copy of an earlier
/// release: then it is what was active before that one, so that repeated rollbacks go further back and
/// end at the first release.
pub fn earlier<'r>(
    records: &'r RecordSet,
    state: &TargetState,
    active: Option<&RecordId>,
) -> Option<Candidate<'r>> {
    let position = |id: &RecordId| state.proven.iter().position(|it| it == id);
    let until = match active {
        Some(active) => {
            let origin = origin(records, active);
            position(origin).or_else(|| position(active))
        }
        None => None,
    };
    let before = &state.proven[..until.unwrap_or(state.proven.len())];
    let live = active.and_then(|id| candidate(records, id));
    let is_other = |it: &Candidate| {
        live.is_none_or(|live| {
            (&live.release.build, &live.release.settings)
                != (&it.release.build, &it.release.settings)
        })
    };
    let earlier = before.iter().rev();
    earlier
        .filter_map(|id| candidate(records, id))
        .find(is_other)
}

/// The release of which this one is a copy, directly or through other copies.
fn origin<'r>(records: &'r RecordSet, release: &'r RecordId) -> &'r RecordId {
    let mut origin = release;
    // Copies are made of earlier releases only; a record of another program could say otherwise.
    for _ in 0..records.len() {
        match records.get(origin) {
            Some(Record::Release(ReleaseRecord {
                copy_of: Some(earlier),
                ..
            })) => origin = earlier,
            _ => break,
        }
    }
    origin
}

/// Why a rollback cannot return to a record.
pub fn no_candidate(
    record: &Record,
    records: &RecordSet,
    (store, target): (&StoreId, &str),
    active: Option<&RecordId>,
) -> Error {
    let why = match record {
        Record::Release(it) if it.store != *store => {
            format!("belongs to the store `{}`, and not to `{store}`", it.store)
        }
        Record::Release(it) if it.target != target => format!(
            "was made for the target `{}`, and `{store}` runs at `{target}`",
            it.target
        ),
        Record::Release(it) if active == Some(&it.id) => "is live".into(),
        Record::Release(it) => match records.targets().status(it) {
            ReleaseStatus::Failed => "did not become or stay healthy".into(),
            ReleaseStatus::Replaced | ReleaseStatus::Active => "has no recorded build".into(),
            ReleaseStatus::Staged | ReleaseStatus::Created | ReleaseStatus::Retired => {
                "was not live at this target, or its build is not recorded".into()
            }
        },
        Record::Build(_) | Record::Event(_) => "is not a release".into(),
    };
    let id = record.id().clone();
    let place = place_options(store, target);
    Error::WrongRelease { id, why, place }
}

/// What `release` is asked to make live.
pub enum Chosen<'r> {
    /// A release that is recorded.
    Release(Candidate<'r>),
    /// A build, of which a release is made.
    Build(&'r BuildRecord),
}

/// The release or the build that an id means. `latest` is the newest release that has not failed and is
/// not the copy that a rollback made, so that it leads forward again.
pub fn chosen<'r>(
    records: &'r RecordSet,
    store: &StoreId,
    target: &str,
    wanted: &str,
) -> Result<Chosen<'r>, Error> {
    if wanted == "latest" {
        let statuses = records.targets();
        let of_store = records.releases().rev();
        let mut usable = of_store.filter(|it| {
            it.store == *store
                && it.target == target
                && it.reason != ReleaseReason::Rollback
                && statuses.status(it) != ReleaseStatus::Failed
        });
        let latest = usable.next().and_then(|it| candidate(records, &it.id));
        return latest.map(Chosen::Release).ok_or_else(|| Error::NoRelease {
            store: store.clone(),
            target: target.to_owned(),
        });
    }
    let wrong = |id: &RecordId, why: String| Error::WrongRelease {
        id: id.clone(),
        why,
        place: place_options(store, target),
    };
    let found = records.find(wanted).map_err(crate::ledger::Error::from)?;
    if found.store() != store {
        let why = format!(
            "belongs to the store `{}`, and not to `{store}`",
            found.store()
        );
        return Err(wrong(found.id(), why));
    }
    match found {
        Record::Release(release) if release.target != target => {
            let why = format!(
                "was made for the target `{}`, and `{store}` runs at `{target}`",
                release.target
            );
            Err(wrong(&release.id, why))
        }
        Record::Release(release) => candidate(records, &release.id)
            .map(Chosen::Release)
            .ok_or_else(|| wrong(&release.id, "has no recorded build".into())),
        Record::Build(build) if build.status == BuildStatus::Complete => Ok(Chosen::Build(build)),
        Record::Build(build) => Err(wrong(&build.id, "is a build that is not complete".into())),
        Record::Event(event) => Err(wrong(&event.id, "is neither a release nor a build".into())),
    }
}
