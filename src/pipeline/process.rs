//! One script as a child process: its group, its lines, its log, its end.

use std::collections::VecDeque;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader};
use tokio::process::{Child, Command};

use super::build::ProcessMemory;
use super::context::{Interrupt, Services};
use super::failure::Io;
use super::sandbox::{DenialScanner, DeniedPath, NotStarted, Sandbox};
use crate::event::Unit;

/// Lines of a failed script that its error shows.
const TAIL: usize = 40;

/// Bytes after which a line is cut into pieces.
const LONGEST_LINE: u64 = 16 * 1024;

/// A script to run.
pub struct ScriptCommand<'a> {
    /// Whose.
    pub unit: &'a Unit,
    /// Program and arguments.
    pub command: &'a [String],
    /// Where.
    pub folder: &'a Path,
    /// Where everything that it prints is kept.
    pub log: PathBuf,
    /// Names of variables that it sees beside the system's own.
    pub variables: &'a [String],
    /// What its processes take.
    pub memory: &'a ProcessMemory,
    /// What it may open, where that is restricted.
    pub sandbox: Option<&'a Sandbox>,
}

/// How a script ended.
pub struct ScriptEnd {
    /// Its status.
    pub status: ExitStatus,
    /// Its last lines.
    pub tail: Vec<String>,
    /// What its sandbox refused it, as far as it says so.
    pub denied: Vec<DeniedPath>,
}

/// Why a script could not be run to its end.
pub enum ProcessError {
    /// It could not be started.
    Start(std::io::Error),
    /// Its log could not be written.
    Log(Io),
    /// Its sandbox could not be put on.
    Sandbox(String),
    /// A person ended the run.
    Interrupted,
}

/// Runs a script in a process group of its own. However it ends, nothing of its group lives on.
pub async fn run(script: ScriptCommand<'_>, context: &Services) -> Result<ScriptEnd, ProcessError> {
    let log = open_log(&script.log).map_err(ProcessError::Log)?;
    let mut command = command(&script, context)?;
    command
        .current_dir(script.folder)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true);
    let outside = context.events.outside();
    let mut child = command.spawn().map_err(ProcessError::Start)?;
    // The group's id is the leader's, and stays valid for its other members after the leader.
    let group = child
        .id()
        .and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
    let sink = Arc::new(Mutex::new(OutputSink {
        log,
        tail: VecDeque::with_capacity(TAIL),
        watch: script
            .sandbox
            .map(|it| DenialScanner::new(it, script.folder)),
    }));
    let stdout = child
        .stdout
        .take()
        .map(|pipe| read(pipe, &script, context, Arc::clone(&sink)));
    let stderr = child
        .stderr
        .take()
        .map(|pipe| read(pipe, &script, context, Arc::clone(&sink)));
    let reading = async {
        tokio::join!(
            async {
                if let Some(reading) = stdout {
                    reading.await;
                }
            },
            async {
                if let Some(reading) = stderr {
                    reading.await;
                }
            },
        );
    };
    tokio::pin!(reading);

    let mut read_all = false;
    let (status, interrupted) = {
        let ending = end(&mut child, group, &context.interrupt);
        tokio::pin!(ending);
        // Both at once: a full pipe would keep the child from ending.
        let watching = script.memory.watch(group);
        tokio::pin!(watching);
        loop {
            tokio::select! {
                ended = &mut ending => break ended,
                () = &mut reading, if !read_all => read_all = true,
                () = &mut watching => {}
            }
        }
    };
    // Whatever the leader has left behind ends with it, and so lets go of the pipes.
    signal(group, Signal::KILL);
    if !read_all {
        // What is in the pipes is still read; but neither a reader that is stalled nor a process
        // that has left the group may hold the run.
        tokio::select! {
            () = &mut reading => {}
            () = context.interrupt.stopping() => {}
            () = tokio::time::sleep(Interrupt::GRACE) => {}
        }
    }
    drop(outside);
    if interrupted {
        return Err(ProcessError::Interrupted);
    }
    let status = status.map_err(ProcessError::Start)?;
    match script.sandbox.and_then(Sandbox::not_started) {
        None => {}
        Some(NotStarted::Restrict(reason)) => return Err(ProcessError::Sandbox(reason)),
        Some(NotStarted::Execute(error)) => {
            return Err(ProcessError::Start(std::io::Error::from_raw_os_error(
                error,
            )));
        }
    }
    let sink = sink
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    let denied = sink.watch.as_ref().map(|watch| {
        if status.success() {
            watch.refused()
        } else {
            watch.denied()
        }
    });
    Ok(ScriptEnd {
        status,
        tail: sink.tail.iter().cloned().collect(),
        denied: denied.unwrap_or_default(),
    })
}

/// The program with its arguments and variables, in its sandbox if it has one.
fn command(script: &ScriptCommand<'_>, context: &Services) -> Result<Command, ProcessError> {
    let (program, arguments) = script
        .command
        .split_first()
        .ok_or_else(|| ProcessError::Start(std::io::Error::other("the command is empty")))?;
    let mut command = match script.sandbox {
        None => {
            let mut command = Command::new(program);
            command.args(arguments);
            command
        }
        Some(sandbox) => {
            let (launcher, arguments) = sandbox.command(script.command);
            let mut command = Command::new(launcher);
            command.args(arguments);
            command
        }
    };
    command.env_clear();
    command.envs(context.scripts.seen(script.variables));
    command.envs(script.sandbox.into_iter().flat_map(Sandbox::variables));
    Ok(command)
}

/// Waits for the child; on interruption asks its group to end, and then makes it.
async fn end(
    child: &mut Child,
    group: Option<Pid>,
    interrupt: &Interrupt,
) -> (std::io::Result<ExitStatus>, bool) {
    tokio::select! {
        status = child.wait() => return (status, false),
        () = interrupt.stopping() => {}
    }
    signal(group, Signal::TERM);
    // The leader (mostly the package manager) may end at once; what works is below it.
    let ended = async {
        let status = child.wait().await;
        while lives(group) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        status
    };
    tokio::select! {
        status = ended => return (status, true),
        () = interrupt.killing() => {}
        () = tokio::time::sleep(Interrupt::GRACE) => {}
    }
    signal(group, Signal::KILL);
    (child.wait().await, true)
}

/// Whether a process of the group still works. One that has ended and waits to be reaped does
/// not; only Linux tells that without asking a library for more rights.
fn lives(group: Option<Pid>) -> bool {
    let Some(group) = group else {
        return false;
    };
    let Ok(processes) = std::fs::read_dir("/proc") else {
        return rustix::process::test_kill_process_group(group).is_ok();
    };
    let number = group.as_raw_nonzero().to_string();
    processes.flatten().any(|process| {
        let stat = std::fs::read_to_string(process.path().join("stat")).unwrap_or_default();
        // `pid (name) state parent group …`; the name may hold anything, brackets too.
        let mut fields = stat.rsplit(") ").next().unwrap_or_default().split(' ');
        let state = fields.next().unwrap_or("Z");
        state != "Z" && state != "X" && fields.nth(1) == Some(&number)
    })
}

fn signal(group: Option<Pid>, signal: Signal) {
    if let Some(group) = group {
        // A group that is gone already is what is wanted.
        let _ = kill_process_group(group, signal);
    }
}

struct OutputSink<'a> {
    log: std::fs::File,
    tail: VecDeque<String>,
    watch: Option<DenialScanner<'a>>,
}

async fn read(
    pipe: impl AsyncRead + Unpin,
    script: &ScriptCommand<'_>,
    context: &Services,
    sink: Arc<Mutex<OutputSink<'_>>>,
) {
    let mut reader = BufReader::new(pipe);
    let mut line = Vec::new();
    loop {
        // A line without end comes in pieces: whatever a script prints, memory stays bounded.
        let mut bounded = (&mut reader).take(LONGEST_LINE);
        match bounded.read_until(b'\n', &mut line).await {
            Ok(0) if line.is_empty() => return,
            Err(_) => return,
            Ok(_) => {}
        }
        // A piece keeps back as much as a password is long, which may go on in the next.
        let is_piece = !line.ends_with(b"\n") && line.len() as u64 >= LONGEST_LINE;
        let kept = if is_piece {
            line.split_off(line.len() - context.longest_secret())
        } else {
            Vec::new()
        };
        let text = context.redact(&String::from_utf8_lossy(&line));
        line = kept;
        let shown = readable(&text);
        {
            let mut sink = sink
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner);
            // A log that cannot be written any more is no reason to end a build.
            let _ = sink.log.write_all(text.as_bytes());
            if let Some(watch) = &mut sink.watch {
                watch.line(&shown);
            }
            if !shown.is_empty() {
                if sink.tail.len() == TAIL {
                    sink.tail.pop_front();
                }
                sink.tail.push_back(shown.clone());
            }
        }
        if !shown.is_empty() {
            context.events.output(script.unit, shown).await;
        }
    }
}

/// Reads a log again, line by line as they were shown. One without end comes in pieces, as it
/// did when it was printed.
pub fn shown_again(log: impl std::io::Read) -> impl Iterator<Item = String> {
    use std::io::{BufRead, Read};
    let mut log = std::io::BufReader::new(log);
    let lines = std::iter::from_fn(move || {
        let mut line = Vec::new();
        let read = (&mut log).take(LONGEST_LINE).read_until(b'\n', &mut line);
        // What cannot be read any more ends the log.
        read.is_ok_and(|length| length > 0).then_some(line)
    });
    let lines = lines.map(|line| readable(&String::from_utf8_lossy(&line)));
    lines.filter(|line| !line.is_empty())
}

/// The line as a person would read it: without colours, and of a line that was drawn over and
/// over only its last state.
pub fn readable(text: &str) -> String {
    let plain = anstream::adapter::strip_str(text).to_string();
    plain
        .trim_end()
        .rsplit('\r')
        .next()
        .unwrap_or_default()
        .to_owned()
}

fn open_log(path: &Path) -> Result<std::fs::File, Io> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(Io::at("make the folder", folder))?;
    }
    std::fs::File::create(path).map_err(Io::at("write the log", path))
}

#[cfg(test)]
mod tests {
    use super::{readable, shown_again};

    #[test]
    fn a_log_is_shown_again_in_bounded_pieces() {
        let unbroken = "x".repeat(40_000);
        let log = format!("one\n\n\u{1b}[31mtwo\u{1b}[0m\r\n{unbroken}\nlast");
        let lines: Vec<String> = shown_again(log.as_bytes()).collect();
        assert_eq!(lines[..2], ["one", "two"]);
        assert!(lines.iter().all(|line| line.len() <= 16 * 1024));
        assert_eq!(lines[2..].concat(), format!("{unbroken}last"));
    }

    #[test]
    fn lines_are_shown_without_colours_and_redrawing() {
        assert_eq!(readable("\u{1b}[32m✓\u{1b}[0m ready\r\n"), "✓ ready");
        assert_eq!(readable("10 %\r50 %\r100 %\n"), "100 %");
    }
}
