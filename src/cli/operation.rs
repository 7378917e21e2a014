//! The record of an operation on one store: its start, and its end with the result.

use super::environment::{self, tell};
use crate::config::Project;
use crate::ledger::{
    EventRecord, Happening, Record, RecordFolder, RecordId, RecordKind, SCHEMA_VERSION,
    StoredRecord, first_line, folder_id,
};
use crate::release::next_moment;
use crate::store::StoreId;

/// Seconds after which an operation without a recorded end counts as interrupted.
const LEASE: u64 = 10 * 60;

/// An operation that has started.
pub struct RecordedOperation<'a> {
    records: RecordFolder,
    store: &'a StoreId,
    target: &'static str,
    start: RecordId,
}

impl<'a> RecordedOperation<'a> {
    /// Records the start.
    pub fn start(
        project: &Project,
        store: &'a StoreId,
        target: &'static str,
        operation: &str,
    ) -> Self {
        let started = Self {
            records: RecordFolder::of_project(&project.root),
            store,
            target,
            start: RecordId::new(RecordKind::Event, next_moment()),
        };
        let happening = Happening::Started {
            operation: operation.to_owned(),
            lease: LEASE,
            folder: folder_id(&project.root),
            plan: None,
        };
        started.append(&started.start, happening, None, None);
        started
    }

    /// The record of its start.
    pub fn id(&self) -> &RecordId {
        &self.start
    }

    /// Records something that happened in it.
    pub fn event(&self, happening: Happening, release: Option<&RecordId>, detail: Option<String>) {
        let id = RecordId::new(RecordKind::Event, next_moment());
        self.append(&id, happening, release, detail);
    }

    /// Records the end.
    pub fn end(&self, failure: Option<&str>, release: Option<&RecordId>) {
        let ended = Happening::Ended {
            start: self.start.clone(),
            succeeded: failure.is_none(),
            interrupted: false,
        };
        let detail = failure.map(first_line);
        self.event(ended, release, detail);
    }

    fn append(
        &self,
        id: &RecordId,
        happening: Happening,
        release: Option<&RecordId>,
        detail: Option<String>,
    ) {
        let record = StoredRecord::new(Record::Event(EventRecord {
            schema_version: SCHEMA_VERSION,
            id: id.clone(),
            store: self.store.clone(),
            target: Some(self.target.to_owned()),
            release: release.cloned(),
            run: (*id != self.start).then(|| self.start.clone()),
            happening,
            seconds: None,
            detail,
            actor: environment::actor(),
            log: None,
        }));
        let written = record.map_err(|error| error.to_string());
        let written = written.and_then(|record| {
            let appended = self.records.append(&record);
            appended.map_err(|error| error.to_string())
        });
        if let Err(reason) = written {
            tell(&format!("note: the operation is not recorded: {reason}"));
        }
    }
}
