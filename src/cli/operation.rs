//! The record of an operation on one store: its start, and its end with the result.

use super::environment::{self, tell};
use crate::config::Project;
use crate::ledger::{
    EventRecord, LogFolder, Record, RecordFolder, RecordId, RunningLog, StoreEvent, StoredRecord,
    first_line, folder_id,
};
use crate::store::StoreId;

/// Seconds after which other machines count an operation without a recorded end as interrupted.
const LEASE: u64 = 10 * 60;

/// An operation that has started.
pub struct RecordedOperation<'a> {
    records: RecordFolder,
    logs: LogFolder,
    store: &'a StoreId,
    target: &'static str,
    start: RecordId,
    /// An empty log, whose lock shows this machine that the operation is under way.
    _running: Option<RunningLog>,
}

impl<'a> RecordedOperation<'a> {
    /// Records the start.
    pub fn start(
        project: &Project,
        store: &'a StoreId,
        target: &'static str,
        operation: &str,
    ) -> Self {
        let what = StoreEvent::Started {
            operation: operation.to_owned(),
            lease: LEASE,
            folder: folder_id(&project.root),
            plan: None,
        };
        let event = EventRecord::new(store.clone(), what, environment::actor());
        let logs = LogFolder::of_project(&project.root);
        let started = Self {
            records: RecordFolder::of_project(&project.root),
            store,
            target,
            start: event.id.clone(),
            // The log is first, so that a kill after the record leaves it for the next run.
            _running: logs.begin(&event.id).ok(),
            logs,
        };
        started.append(event);
        started
    }

    /// The record of its start.
    pub fn id(&self) -> &RecordId {
        &self.start
    }

    /// Records something that happened in it.
    pub fn event(&self, what: StoreEvent, release: Option<&RecordId>, detail: Option<String>) {
        self.append(EventRecord {
            release: release.cloned(),
            run: Some(self.start.clone()),
            detail,
            ..EventRecord::new(self.store.clone(), what, environment::actor())
        });
    }

    /// Records the end.
    pub fn end(&self, failure: Option<&str>, release: Option<&RecordId>) {
        let ended = StoreEvent::Ended {
            start: self.start.clone(),
            succeeded: failure.is_none(),
            interrupted: false,
        };
        let detail = failure.map(first_line);
        self.event(ended, release, detail);
        self.logs.end(&self.start);
    }

    fn append(&self, event: EventRecord) {
        let record = StoredRecord::new(Record::Event(EventRecord {
            target: Some(self.target.to_owned()),
            ..event
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
