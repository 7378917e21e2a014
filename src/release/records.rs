//! The records of releases: read, and written step by step.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;

use super::Error;
use crate::event::Events;
use crate::ledger::{
    Actor, EventRecord, FolderError, Record, RecordFolder, RecordId, RecordSet, ReleaseRecord,
    StoreEvent, StoredRecord, TargetState,
};
use crate::store::StoreId;

/// A place with records.
#[async_trait(?Send)]
pub trait Records: Send + Sync {
    /// Adds a record. A record that exists already stays as it is.
    fn append(&self, record: &StoredRecord) -> Result<(), FolderError>;

    /// All records.
    fn read(&self) -> Result<Arc<RecordSet>, FolderError>;

    /// Fetches the records of a store that other machines have written. A decision under the lock of the
    /// store depends on them.
    async fn fetch(&self, _store: &StoreId) {}

    /// Sends the records of a store, so that the next holder of its lock can fetch them.
    async fn send(&self, _store: &StoreId) {}
}

impl Records for RecordFolder {
    fn append(&self, record: &StoredRecord) -> Result<(), FolderError> {
        Self::append(self, record)
    }

    fn read(&self) -> Result<Arc<RecordSet>, FolderError> {
        Ok(Self::read(self)?.0)
    }
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
        what: StoreEvent,
        release: Option<&RecordId>,
        seconds: Option<f64>,
        detail: Option<String>,
    ) {
        self.append(Record::Event(EventRecord {
            seconds,
            detail,
            ..self.of(what, release)
        }));
    }

    /// Pins the store to a release. Fails if that cannot be recorded: the next deploy would undo the rollback.
    pub fn pin(&self, release: &RecordId) -> Result<(), Error> {
        let pinned = Record::Event(self.of(StoreEvent::Pinned, Some(release)));
        self.write(pinned).map_err(|reason| Error::NotPinned {
            store: self.store.clone(),
            reason,
        })
    }

    /// Records a release.
    pub fn release(&self, release: ReleaseRecord) {
        self.append(Record::Release(release));
    }

    pub(super) fn append(&self, record: Record) {
        if let Err(reason) = self.write(record) {
            self.events.notice(format!(
                "{}: a step of the release is not recorded: {reason}",
                self.store
            ));
        }
    }

    fn of(&self, what: StoreEvent, release: Option<&RecordId>) -> EventRecord {
        EventRecord {
            target: Some(self.target.to_owned()),
            release: release.cloned(),
            run: self.run.cloned(),
            ..EventRecord::new(self.store.clone(), what, self.actor.clone())
        }
    }

    fn write(&self, record: Record) -> Result<(), String> {
        let record = StoredRecord::new(record).map_err(|error| error.to_string())?;
        let appended = self.records.append(&record);
        appended.map_err(|error| error.to_string())
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
