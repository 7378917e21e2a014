//! What the end of a script means for its task, and what the user can do about a failure.

use super::memory::ProcessMemory;
use super::result::TaskFolder;
use super::{Error, event_unit};
use crate::pipeline::failure::StageError;
use crate::pipeline::process::{ProcessError, ScriptEnd};
use crate::pipeline::sandbox::{self, Undeclared};
use crate::pipeline::services::Services;
use crate::plan::Task;

/// A command of a task that has ended.
pub struct JudgedCommand<'a> {
    /// The task.
    pub task: &'a Task,
    /// Program and arguments.
    pub command: &'a [String],
    /// Where it ran.
    pub place: &'a TaskFolder<'a>,
    /// The memory of its processes.
    pub memory: &'a ProcessMemory,
    /// Whether it ran in a sandbox.
    pub is_sandboxed: bool,
}

/// Turns the end of a command into the result of its task.
pub fn judge(
    judged: &JudgedCommand,
    ended: Result<ScriptEnd, ProcessError>,
    services: &Services,
) -> Result<(), StageError> {
    let JudgedCommand {
        task,
        place,
        memory,
        is_sandboxed,
        ..
    } = judged;
    let command = || judged.command.join(" ");
    let folder = place.folder.clone();
    match ended {
        Ok(ScriptEnd { status, denied, .. }) if status.success() => {
            for notice in sandbox::notices(place.project, &place.folder, &denied) {
                let unit = event_unit(task);
                services.events.notice(format!("{unit}: {notice}"));
            }
            Ok(())
        }
        Ok(end) if !end.denied.is_empty() => Err(undeclared(judged, end)),
        // Scripts have no time limit.
        Err(ProcessError::TimedOut(tail)) => Err(StageError::from(Error::Script {
            command: command().into(),
            folder,
            ended: "did not end in time".into(),
            advice: None,
            tail,
            log: place.log.clone(),
        })),
        Ok(ScriptEnd { status, tail, .. }) => {
            let (ended, advice) = describe(status, &tail, memory.peak());
            let advice = advice.or(is_sandboxed.then_some(UNNAMED));
            Err(StageError::from(Error::Script {
                command: command().into(),
                folder,
                ended: ended.into(),
                advice,
                tail,
                log: place.log.clone(),
            }))
        }
        Err(ProcessError::Start(source)) => Err(Error::Start {
            command: command(),
            program: judged.command.first().cloned().unwrap_or_default(),
            folder,
            source,
        }
        .into()),
        Err(ProcessError::Log(error)) => Err(error.into()),
        Err(ProcessError::Sandbox(why)) => Err(Error::NoSandbox { why }.into()),
        Err(ProcessError::Interrupted) => Err(Error::Interrupted.into()),
    }
}

/// The error for a script that failed in a sandbox, which has refused paths.
fn undeclared(judged: &JudgedCommand, end: ScriptEnd) -> StageError {
    let ScriptEnd {
        status,
        tail,
        denied,
    } = end;
    let (ended, _) = describe(status, &tail, judged.memory.peak());
    let place = judged.place;
    let undeclared = Undeclared {
        command: judged.command.join(" "),
        project: place.project.to_owned(),
        folder: place.folder.clone(),
        ended,
        denied,
        tail,
        log: place.log.clone(),
    };
    Error::Undeclared(Box::new(undeclared)).into()
}

/// The advice for a script that failed in a sandbox and printed no denied path.
const UNNAMED: &str = "the script failed in the sandbox, but its output does not name a denied path; run it without `--sandbox`; if it succeeds, run its command with `strace -f -e trace=%file` to list the files that it opens";

/// Node's message when its own memory limit is reached.
const HEAP: &str = "heap out of memory";

fn describe(
    status: std::process::ExitStatus,
    tail: &[String],
    peak: u64,
) -> (String, Option<&'static str>) {
    use std::os::unix::process::ExitStatusExt;
    let took = match peak {
        0 => String::new(),
        peak => format!(" after using {}", crate::event::bytes(peak)),
    };
    // Package managers and shells exit with 128 + the signal that ended their child.
    let signal = status.signal().or(status.code().map(|code| code - 128));
    if tail.iter().any(|line| line.contains(HEAP)) {
        let advice = "give Node more memory: `NODE_OPTIONS=--max-old-space-size=4096` (megabytes)";
        return (format!("reached Node's heap limit{took},"), Some(advice));
    }
    match (status.code(), signal) {
        (Some(137) | None, Some(9)) => {
            let advice = "run fewer scripts at once: pass `--concurrency 1`, or set `build.maxMemory` below the machine's memory";
            let ended = format!(
                "was killed by signal 9{took}, probably because the machine is out of memory,"
            );
            (ended, Some(advice))
        }
        (Some(code), _) => (format!("exited with code {code}"), None),
        (None, Some(signal)) => (format!("was killed by signal {signal}"), None),
        (None, None) => ("ended without an exit code".into(), None),
    }
}
