//! The records of releases: read, and written step by step.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, Ordering};

use futures_util::FutureExt;
use futures_util::future::LocalBoxFuture;
use jiff::Timestamp;

use crate::event::Events;
use crate::ledger::{
    Actor, EventRecord, FolderError, Happening, Record, RecordFolder, RecordId, RecordKind,
    RecordSet, ReleaseRecord, SCHEMA_VERSION, StoredRecord, TargetState,
};
use crate::store::StoreId;

/// A place with records.
pub trait Records: Send + Sync {
    /// Adds a record. A record that exists already stays as it is.
    fn append(&self, record: &StoredRecord) -> Result<(), FolderError>;

    /// All records.
    fn read(&self) -> Result<RecordSet, FolderError>;

    /// Fetches the records of a store that other machines have written. A decision under the lock of the
    /// store depends on them.
    fn fetch<'a>(&'a self, _store: &'a StoreId) -> LocalBoxFuture<'a, ()> {
        std::future::ready(()).boxed_local()
    }

    /// Sends the records of a store, so that the next holder of its lock can fetch them.
    fn send<'a>(&'a self, _store: &'a StoreId) -> LocalBoxFuture<'a, ()> {
        std::future::ready(()).boxed_local()
    }
}

impl Records for RecordFolder {
    fn append(&self, record: &StoredRecord) -> Result<(), FolderError> {
        Self::append(self, record)
    }

    fn read(&self) -> Result<RecordSet, FolderError> {
        Ok(Self::read(self)?.0)
    }
}

/// The last time that an id of this run has, or that an id of a known record has, in milliseconds.
static LAST: AtomicI64 = AtomicI64::new(0);

/// How far the clock of another machine may be ahead. A record beyond that does not move the times of
/// this run.
const CLOCK_DIFFERENCE: i64 = 24 * 60 * 60 * 1000;

/// Makes the next times later than the ids of these records. Another machine may have written them, with
/// a clock that is ahead of the clock of this machine, and the order of the ids is the order of the steps.
pub fn continue_after(records: &RecordSet) {
    let limit = Timestamp::now().as_millisecond() + CLOCK_DIFFERENCE;
    let known = records
        .iter()
        .map(|it| it.record.id().made_at().as_millisecond());
    if let Some(latest) = known.filter(|moment| *moment <= limit).max() {
        LAST.fetch_max(latest, Ordering::SeqCst);
    }
}

/// The current time, later than every time that was returned before. Ids of records sort by time, so two
/// steps of one millisecond would have no order.
pub fn next_moment() -> Timestamp {
    let now = Timestamp::now().as_millisecond();
    let step = |last: i64| Some(now.max(last + 1));
    let last = LAST.fetch_update(Ordering::SeqCst, Ordering::SeqCst, step);
    let moment = last.map_or(now, |last| now.max(last + 1));
    Timestamp::from_millisecond(moment).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// Writes the records of one store at one target.
pub struct ReleaseJournal<'a> {
    /// Where records are.
    pub records: &'a dyn Records,
    /// The store.
    pub store: &'a StoreId,
    /// The name of the target.
    pub target: &'static str,
    /// Who acts.
    pub actor: &'a Actor,
    /// The start of the run, if it is recorded.
    pub run: Option<&'a RecordId>,
    /// Receives a notice if a record cannot be written.
    pub events: &'a Events,
}

impl ReleaseJournal<'_> {
    /// Records that something happened. A record that cannot be written does not fail a release.
    pub fn event(
        &self,
        happening: Happening,
        release: Option<&RecordId>,
        seconds: Option<f64>,
        detail: Option<String>,
    ) {
        self.append(Record::Event(EventRecord {
            schema_version: SCHEMA_VERSION,
            id: RecordId::new(RecordKind::Event, next_moment()),
            store: self.store.clone(),
            target: Some(self.target.to_owned()),
            release: release.cloned(),
            run: self.run.cloned(),
            happening,
            seconds,
            detail,
            actor: self.actor.clone(),
            log: None,
        }));
    }

    /// Records a release.
    pub fn release(&self, release: ReleaseRecord) {
        self.append(Record::Release(release));
    }

    pub(super) fn append(&self, record: Record) {
        let written = StoredRecord::new(record)
            .map_err(|error| error.to_string())
            .and_then(|record| {
                let appended = self.records.append(&record);
                appended.map_err(|error| error.to_string())
            });
        if let Err(reason) = written {
            self.events.notice(format!(
                "{}: a step of the release is not recorded: {reason}",
                self.store
            ));
        }
    }

    /// The state of the store at the target, by the records.
    pub fn state(&self, records: &RecordSet) -> TargetState {
        let own = |event: &&EventRecord| {
            event.store == *self.store && event.target.as_deref() == Some(self.target)
        };
        // Records of other kinds sort elsewhere; events sort by time.
        let events: BTreeMap<_, _> = records
            .events()
            .filter(own)
            .map(|event| (&event.id, event))
            .collect();
        TargetState::after(events.into_values())
    }
}
