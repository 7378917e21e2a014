//! Runs that were killed: the next run in the same folder records how far they came, so that every
//! machine lists them as interrupted.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;

use super::builds::makes_build;
use crate::event::{Stage, seconds};
use crate::ledger::{
    BuildRecord, BuildStatus, EventRecord, FolderError, LogFolder, LogText, Record, RecordFolder,
    RecordId, RecordKind, RecordSet, SCHEMA_VERSION, StoreEvent, StoredRecord, operations,
};
use crate::pipeline::ProjectLock;

/// Records the end of each run that has left a log and no end. No two processes do so at the same time.
pub fn record_killed_runs(project: &Path, _lock: &ProjectLock) -> Result<(), FolderError> {
    let (records, logs) = (
        RecordFolder::of_project(project),
        LogFolder::of_project(project),
    );
    let left_behind = logs.left_behind();
    if left_behind.is_empty() {
        return Ok(());
    }
    let (known, _) = records.read()?;
    for (start, last_written) in left_behind {
        if let Some(Record::Event(event)) = known.get(&start) {
            for record in missing(event, last_written, &known, &logs)? {
                // A record of this program can be written as JSON.
                if let Ok(record) = StoredRecord::new(record) {
                    records.append(&record)?;
                }
            }
        }
        logs.end(&start);
    }
    Ok(())
}

/// The records that a killed run has not written. It may have recorded its build, and even its end.
fn missing(
    start: &EventRecord,
    last_written: Timestamp,
    known: &RecordSet,
    logs: &LogFolder,
) -> Result<Vec<Record>, FolderError> {
    let mut missing = Vec::new();
    let mut builds = known.builds();
    let has_build = builds.any(|build| build.start.as_ref() == Some(&start.id));
    if makes_build(start) && !has_build {
        missing.push(Record::Build(build(start, last_written, logs)?));
    }
    let mut events = known.events();
    let has_ended = events.any(
        |event| matches!(&event.what, StoreEvent::Ended { start: own, .. } if *own == start.id),
    );
    if !has_ended {
        let ended = StoreEvent::Ended {
            start: start.id.clone(),
            succeeded: false,
            interrupted: true,
        };
        missing.push(Record::Event(EventRecord {
            target: start.target.clone(),
            seconds: Some(seconds(elapsed(
                start,
                last_act(start, last_written, known),
            ))),
            detail: Some("the run was killed".into()),
            ..EventRecord::new(start.store.clone(), ended, start.actor.clone())
        }));
    }
    Ok(missing)
}

/// The time of the last thing that a killed run did: its last line of output, or its last record.
fn last_act(start: &EventRecord, last_written: Timestamp, known: &RecordSet) -> Timestamp {
    let events = known.events().filter(|event| event.store == start.store);
    let events: Vec<_> = events.collect();
    let operations = operations(&events);
    let mut own = operations.iter().filter(|it| it.event.id == start.id);
    let step = own.next().and_then(|own| own.steps.last());
    step.map_or(last_written, |step| last_written.max(step.id.made_at()))
}

fn elapsed(start: &EventRecord, end: Timestamp) -> Duration {
    end.duration_since(start.id.made_at())
        .try_into()
        .unwrap_or_default()
}

fn build(
    start: &EventRecord,
    last_written: Timestamp,
    logs: &LogFolder,
) -> Result<BuildRecord, FolderError> {
    let started = start.id.made_at();
    let (text, truncated) = logs.text_of_run(&start.id)?;
    Ok(BuildRecord {
        schema_version: SCHEMA_VERSION,
        id: RecordId::new(RecordKind::Build, started),
        store: start.store.clone(),
        status: BuildStatus::Interrupted,
        started,
        seconds: seconds(elapsed(start, last_written)),
        commit: None,
        tag: None,
        apps: BTreeMap::new(),
        // The run has not recorded its composed files. The digest in the record of its start is that of
        // the whole run, and not that of the build.
        composition: String::new(),
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
