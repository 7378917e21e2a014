//! The output of a run that is under way on this machine, or that was killed.

use std::time::Duration;

use super::answer_bytes;
use super::environment::{self, tell};
use super::listing::RunningRuns;
use crate::config::Project;
use crate::error::Error as AnyError;
use crate::ledger::{self, EventRecord, RunningLogReader, StoreEvent, folder_id};

/// The pause between two readings.
const PAUSE: Duration = Duration::from_millis(100);

/// After this many readings without a new line, the run may have been killed.
const READINGS: u32 = 10;

/// Bytes that are read at once.
const BUFFER: usize = 64 << 10;

/// Prints the output of a run so far. With `follow`, prints further lines until the run ends.
pub fn print(
    project: &Project,
    start: &EventRecord,
    log: Option<RunningLogReader>,
    follow: bool,
) -> Result<(), AnyError> {
    let StoreEvent::Started { folder, .. } = &start.what else {
        let id = start.id.clone();
        return Err(ledger::Error::NotABuild { id }.into());
    };
    let is_here = start.actor.host == environment::actor().host;
    if !is_here || *folder != folder_id(&project.root) {
        let (id, host) = (start.id.clone(), start.actor.host.clone());
        return Err(ledger::Error::RunElsewhere { id, host }.into());
    }
    let Some(mut log) = log else {
        tell(&format!("the run {} has no output", start.id));
        return Ok(());
    };
    let mut buffer = vec![0; BUFFER];
    let mut quiet = 0;
    let mut has_ended = !follow;
    loop {
        let read = log.read(&mut buffer).map_err(ledger::Error::from)?;
        if read > 0 {
            answer_bytes(&buffer[..read])?;
            quiet = 0;
        } else if has_ended {
            return Ok(());
        } else {
            std::thread::sleep(PAUSE);
            quiet += 1;
            let may_be_killed = quiet % READINGS == 0;
            has_ended =
                log.has_ended() || may_be_killed && !RunningRuns::of_project(project).has(start);
        }
    }
}
