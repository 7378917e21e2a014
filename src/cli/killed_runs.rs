//! Runs that were killed: the next run in the same folder records how far they came, so that every
//! machine lists them as interrupted.

use std::collections::BTreeMap;
use std::path::Path;

use jiff::Timestamp;

use super::builds::makes_build;
use crate::event::{Stage, seconds};
use crate::ledger::{
    BuildRecord, BuildStatus, EventRecord, FolderError, Happening, LogFolder, LogText, Record,
    RecordFolder, RecordId, RecordKind, SCHEMA_VERSION, StoredRecord,
};
use crate::pipeline::ProjectLock;

/// Records the end of each run that has left a log and no end. The lock proves that no run is under
/// way.
pub fn record_killed_runs(project: &Path, _lock: &ProjectLock) -> Result<(), FolderError> {
    let (records, logs) = (
        RecordFolder::of_project(project),
        LogFolder::of_project(project),
    );
    for (start, last_written) in logs.left_behind() {
        if let Some(Record::Event(event)) = records.get(&start)? {
            record(&event, last_written, &records, &logs)?;
        }
        logs.end(&start);
    }
    Ok(())
}

fn record(
    start: &EventRecord,
    last_written: Timestamp,
    records: &RecordFolder,
    logs: &LogFolder,
) -> Result<(), FolderError> {
    let mut made = Vec::new();
    if makes_build(start) {
        made.push(Record::Build(build(start, last_written, logs)?));
    }
    made.push(Record::Event(EventRecord {
        id: RecordId::new(RecordKind::Event, Timestamp::now()),
        happening: Happening::Ended {
            start: start.id.clone(),
            succeeded: false,
        },
        detail: Some("the run was killed".into()),
        ..start.clone()
    }));
    for record in made {
        // A record of this program can be written as JSON.
        if let Ok(record) = StoredRecord::new(record) {
            records.append(&record)?;
        }
    }
    Ok(())
}

fn build(
    start: &EventRecord,
    last_written: Timestamp,
    logs: &LogFolder,
) -> Result<BuildRecord, FolderError> {
    let composition = match &start.happening {
        Happening::Started { plan, .. } => plan.clone().unwrap_or_default(),
        _ => String::new(),
    };
    let started = start.id.made_at();
    let elapsed = last_written.duration_since(started);
    let (text, truncated) = logs.text_of_run(&start.id)?;
    Ok(BuildRecord {
        schema_version: SCHEMA_VERSION,
        id: RecordId::new(RecordKind::Build, started),
        store: start.store.clone(),
        status: BuildStatus::Interrupted,
        started,
        seconds: seconds(elapsed.unsigned_abs()),
        commit: None,
        tag: None,
        apps: BTreeMap::new(),
        composition,
        plan: None,
        start: Some(start.id.clone()),
        imported_from: None,
        tool: env!("CARGO_PKG_VERSION").to_owned(),
        actor: start.actor.clone(),
        reached: Stage::Compose,
        failures: vec!["the run was killed".into()],
        log: Some(logs.write(&LogText { text, truncated })?),
    })
}
