//! The records of hooks, with their output.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use jiff::Timestamp;

use crate::event::seconds;
use crate::ledger::{
    Actor, EventRecord, FolderError, Happening, LogFolder, LogText, RecordId, RecordKind,
    SCHEMA_VERSION,
};
use crate::pipeline::HookRun;

/// The most bytes of a hook's output that are recorded: its end.
const MOST_OUTPUT: u64 = 4 << 20;

/// The record of a hook that ran. `released` are the release and the target of a hook around a release.
pub fn hook_record(
    run: &HookRun,
    released: Option<(&RecordId, &str)>,
    actor: &Actor,
    logs: &LogFolder,
) -> Result<EventRecord, FolderError> {
    // A hook that could not be started has no output.
    let output = output_of(&run.log).unwrap_or_default();
    let log = (!output.text.is_empty()).then(|| logs.write(&output));
    Ok(EventRecord {
        schema_version: SCHEMA_VERSION,
        id: RecordId::new(RecordKind::Event, Timestamp::now()),
        store: run.hook.store.clone(),
        target: released.map(|(_, target)| target.to_owned()),
        release: released.map(|(release, _)| release.clone()),
        happening: Happening::Hook {
            command: run.hook.command_line(),
            code: run.code,
        },
        seconds: Some(seconds(run.elapsed)),
        detail: Some(format!("{}: {}", run.hook.place(), run.ended)),
        actor: actor.clone(),
        log: log.transpose()?,
    })
}

/// The end of a log.
fn output_of(path: &Path) -> std::io::Result<LogText> {
    let mut log = File::open(path)?;
    let size = log.metadata()?.len();
    let start = size.saturating_sub(MOST_OUTPUT);
    log.seek(SeekFrom::Start(start))?;
    let mut text = Vec::new();
    log.take(MOST_OUTPUT).read_to_end(&mut text)?;
    let truncated = start > 0;
    if truncated {
        // The first line is not whole.
        let end = text.iter().position(|byte| *byte == b'\n');
        text.drain(..end.map_or(0, |end| end + 1));
    }
    Ok(LogText { text, truncated })
}
