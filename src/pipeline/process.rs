//! One script as a child process: its process group, its output, its log and its end.

use std::collections::VecDeque;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader};
use tokio::process::{Child, Command};

use super::build::ProcessMemory;
use super::failure::Io;
use super::sandbox::{DenialScanner, DeniedPath, NotStarted, Sandbox};
use super::services::{Interrupt, ScriptEnvironment, Services};
use crate::event::EventSubject;
use http_client::Redactor;

/// How many of the last lines of a failed script its error shows.
pub const TAIL: usize = 40;

/// How long the rest of the output of a child is read that was ended. A process that has left its group may
/// keep the pipe open.
const LAST_OUTPUT: Duration = Duration::from_millis(500);

/// The length in bytes at which a line is split.
const LONGEST_LINE: u64 = 16 * 1024;

/// A script to run.
pub struct ScriptCommand<'a> {
    /// The unit of its output in events.
    pub unit: &'a EventSubject,
    /// Program and arguments.
    pub command: &'a [String],
    /// The folder in which it runs.
    pub folder: &'a Path,
    /// The file for everything that it prints.
    pub log: PathBuf,
    /// Whether the log continues that of an earlier script.
    pub continues_log: bool,
    /// The names of the declared variables that it sees.
    pub variables: &'a [String],
    /// Variables that this program sets.
    pub settings: &'a [(&'static str, &'static str)],
    /// The environment from which its variables come.
    pub environment: &'a ScriptEnvironment,
    /// Measures the memory of its processes.
    pub memory: &'a ProcessMemory,
    /// Its sandbox, if it has one.
    pub sandbox: Option<&'a Sandbox>,
    /// Its time limit, if it has one.
    pub timeout: Option<Duration>,
    /// Secrets of its own, which are replaced in its output.
    pub redactor: Option<&'a Redactor>,
}

/// How a script ended.
pub struct ScriptEnd {
    /// Its status.
    pub status: ExitStatus,
    /// Its last lines.
    pub tail: Vec<String>,
    /// The paths that its sandbox has denied, as far as its output shows them.
    pub denied: Vec<DeniedPath>,
}

/// Why a script has no exit status.
pub enum ProcessError {
    /// It could not be started.
    Start(std::io::Error),
    /// Its log could not be written.
    Log(Io),
    /// Its sandbox could not be set up.
    Sandbox(String),
    /// It did not end within its time limit. These are its last lines.
    TimedOut(Vec<String>),
    /// The user interrupted the run.
    Interrupted,
}

/// Why a child ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum EndReason {
    /// It ended by itself.
    Exit,
    /// Its time limit.
    Timeout,
    /// The user interrupted the run.
    Interruption,
}

/// Runs a script in a process group of its own. When it has ended, no process of its group is left.
pub async fn run(
    script: ScriptCommand<'_>,
    services: &Services,
) -> Result<ScriptEnd, ProcessError> {
    let log = if script.continues_log {
        continue_log(&script.log)
    } else {
        open_log(&script.log)
    };
    let log = log.map_err(ProcessError::Log)?;
    let mut command = command(&script)?;
    command
        .current_dir(script.folder)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true);
    let outside = services.events.waiting();
    let mut child = command.spawn().map_err(ProcessError::Start)?;
    let mut sink = OutputSink::new(log, script.unit, script.redactor);
    sink.scanner = script
        .sandbox
        .map(|it| DenialScanner::new(it, script.folder));
    let sink = Mutex::new(sink);
    let mut group = RunningGroup::of(&child);
    let (status, reason) = wait(&mut child, &script, &sink, services).await;
    group.release();
    drop(outside);
    match reason {
        EndReason::Exit => {}
        EndReason::Timeout => return Err(ProcessError::TimedOut(tail(sink))),
        EndReason::Interruption => return Err(ProcessError::Interrupted),
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
        .into_inner()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    let denied = sink.scanner.map(|scanner| {
        if status.success() {
            scanner.refused()
        } else {
            scanner.denied()
        }
    });
    Ok(ScriptEnd {
        status,
        tail: sink.tail.into(),
        denied: denied.unwrap_or_default(),
    })
}

/// A process group that is killed if the wait for its leader is abandoned.
pub struct RunningGroup(Option<Pid>);

impl RunningGroup {
    /// The group that a child leads.
    pub fn of(child: &Child) -> Self {
        Self(group_of(child))
    }

    /// From here on, the group is not killed any more. Its leader has ended.
    pub fn release(&mut self) {
        self.0 = None;
    }
}

impl Drop for RunningGroup {
    fn drop(&mut self) {
        signal(self.0, Signal::KILL);
    }
}

/// The process group that a child leads. Its id stays valid after the child has ended.
pub fn group_of(child: &Child) -> Option<Pid> {
    child
        .id()
        .and_then(|id| Pid::from_raw(i32::try_from(id).ok()?))
}

/// Reads the child's output until it has ended, and returns its status and why it ended.
async fn wait(
    child: &mut Child,
    script: &ScriptCommand<'_>,
    sink: &Mutex<OutputSink<'_>>,
    services: &Services,
) -> (std::io::Result<ExitStatus>, EndReason) {
    let group = group_of(child);
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let reading = async {
        tokio::join!(read(stdout, services, sink), read(stderr, services, sink));
    };
    tokio::pin!(reading);
    let mut read_all = false;
    let ended = {
        let ending = end(child, group, &services.interrupt, script.timeout);
        tokio::pin!(ending);
        let watching = script.memory.watch(group);
        tokio::pin!(watching);
        // The output is read at the same time, because a full pipe stops the child.
        loop {
            tokio::select! {
                ended = &mut ending => break ended,
                () = &mut reading, if !read_all => read_all = true,
                () = &mut watching => {}
            }
        }
    };
    // Ends the processes that the leader has left behind, which also closes the pipes.
    signal(group, Signal::KILL);
    if !read_all {
        // A child that was ended has had its time already.
        let last_output = match ended.1 {
            EndReason::Exit => Interrupt::GRACE,
            EndReason::Timeout | EndReason::Interruption => LAST_OUTPUT,
        };
        // The rest of the output is read, but neither a stalled reader nor a process that has left
        // the group may hold up the run.
        tokio::select! {
            () = &mut reading => {}
            () = services.interrupt.stopping() => {}
            () = tokio::time::sleep(last_output) => {}
        }
    }
    ended
}

/// The program with its arguments and variables, in its sandbox if it has one.
fn command(script: &ScriptCommand<'_>) -> Result<Command, ProcessError> {
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
    command.envs(script.settings.iter().copied());
    command.envs(script.environment.seen(script.variables));
    command.envs(script.sandbox.into_iter().flat_map(Sandbox::variables));
    Ok(command)
}

/// Waits for the child. An interruption, and the end of its time limit, send SIGTERM to its group, and
/// later SIGKILL.
async fn end(
    child: &mut Child,
    group: Option<Pid>,
    interrupt: &Interrupt,
    timeout: Option<Duration>,
) -> (std::io::Result<ExitStatus>, EndReason) {
    let reason = tokio::select! {
        status = child.wait() => return (status, EndReason::Exit),
        () = interrupt.stopping() => EndReason::Interruption,
        () = expired(timeout) => EndReason::Timeout,
    };
    signal(group, Signal::TERM);
    // The leader (mostly the package manager) may end at once, while its children still work.
    let ended = async {
        let status = child.wait().await;
        while lives(group) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        status
    };
    tokio::select! {
        status = ended => return (status, reason),
        () = interrupt.killing() => {}
        () = tokio::time::sleep(Interrupt::GRACE) => {}
    }
    signal(group, Signal::KILL);
    (child.wait().await, reason)
}

/// Waits for the end of a time limit; for ever without one.
pub async fn expired(timeout: Option<Duration>) {
    match timeout {
        Some(timeout) => tokio::time::sleep(timeout).await,
        None => std::future::pending().await,
    }
}

/// Whether a process of the group still runs. A zombie does not, but only `/proc` tells them apart.
pub fn lives(group: Option<Pid>) -> bool {
    let Some(group) = group else {
        return false;
    };
    match members(group) {
        Some(processes) => !processes.is_empty(),
        None => rustix::process::test_kill_process_group(group).is_ok(),
    }
}

/// The folders in `/proc` of the running processes of a group; `None` on a system without `/proc`.
pub fn members(group: Pid) -> Option<Vec<PathBuf>> {
    let processes = std::fs::read_dir("/proc").ok()?.flatten();
    let number = group.as_raw_nonzero().to_string();
    let running = processes.map(|process| process.path()).filter(|process| {
        let stat = std::fs::read_to_string(process.join("stat")).unwrap_or_default();
        // `pid (name) state parent group …`; the name may contain anything, also brackets.
        let mut fields = stat.rsplit(") ").next().unwrap_or_default().split(' ');
        let state = fields.next().unwrap_or("Z");
        state != "Z" && state != "X" && fields.nth(1) == Some(&number)
    });
    Some(running.collect())
}

/// Sends a signal to all processes of the group.
pub fn signal(group: Option<Pid>, signal: Signal) {
    if let Some(group) = group {
        // An error means that the group has ended already.
        let _ = kill_process_group(group, signal);
    }
}

/// Receives the output of a child: the log, events, and the last lines.
pub struct OutputSink<'a> {
    unit: &'a EventSubject,
    log: std::fs::File,
    tail: VecDeque<String>,
    scanner: Option<DenialScanner<'a>>,
    redactor: Option<&'a Redactor>,
}

impl<'a> OutputSink<'a> {
    /// Writes to a log, and sends events about this unit. The redactor replaces secrets that only this
    /// child has.
    pub fn new(log: std::fs::File, unit: &'a EventSubject, redactor: Option<&'a Redactor>) -> Self {
        Self {
            unit,
            log,
            tail: VecDeque::with_capacity(TAIL),
            scanner: None,
            redactor,
        }
    }

    /// Takes a line without secrets, as it was printed and as it is shown.
    fn take(&mut self, text: &str, shown: &str) {
        // A log that cannot be written does not fail the child.
        let _ = self.log.write_all(text.as_bytes());
        if let Some(scanner) = &mut self.scanner {
            scanner.scan_line(shown);
        }
        if shown.is_empty() {
            return;
        }
        if self.tail.len() == TAIL {
            self.tail.pop_front();
        }
        self.tail.push_back(shown.to_owned());
    }
}

/// The last lines of a child that has ended.
pub fn tail(sink: Mutex<OutputSink>) -> Vec<String> {
    let sink = sink
        .into_inner()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    sink.tail.into()
}

/// Reads a pipe line by line into the sink and events.
pub async fn read(
    pipe: Option<impl AsyncRead + Unpin>,
    services: &Services,
    sink: &Mutex<OutputSink<'_>>,
) {
    let Some(pipe) = pipe else {
        return;
    };
    let locked = || {
        sink.lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    };
    let (unit, redactor) = {
        let sink = locked();
        (sink.unit, sink.redactor)
    };
    let redactors = services.redactors().chain(redactor).cloned();
    let mut pieces = PieceReader::new(pipe, redactors.collect());
    while let Some(line) = pieces.read_piece().await {
        let text = services.redact(&String::from_utf8_lossy(&line));
        let text = redactor.map_or_else(|| text.clone(), |it| it.redact(&text));
        let shown = readable(&text);
        locked().take(&text, &shown);
        if !shown.is_empty() {
            services.events.output(unit, shown).await;
        }
    }
}

/// Reads a pipe line by line. A long line is split, so a script that prints no line end does not fill
/// the memory. It is not split within a secret, because no piece of a secret is recognized.
pub struct PieceReader<Pipe> {
    reader: BufReader<Pipe>,
    /// The bytes at the start of the next piece.
    kept: Vec<u8>,
    /// The secrets.
    redactors: Vec<Redactor>,
}

impl<Pipe: AsyncRead + Unpin> PieceReader<Pipe> {
    /// Reads the pipe.
    pub fn new(pipe: Pipe, redactors: Vec<Redactor>) -> Self {
        Self {
            reader: BufReader::new(pipe),
            kept: Vec::new(),
            redactors,
        }
    }

    /// The next line with its end, or a piece of a long one; `None` at the end of the pipe.
    pub async fn read_piece(&mut self) -> Option<Vec<u8>> {
        let mut line = std::mem::take(&mut self.kept);
        loop {
            let mut bounded = (&mut self.reader).take(LONGEST_LINE);
            let read = match bounded.read_until(b'\n', &mut line).await {
                Ok(0) if line.is_empty() => return None,
                Err(_) => return None,
                Ok(read) => read as u64,
            };
            if line.ends_with(b"\n") || read < LONGEST_LINE {
                return Some(line);
            }
            let end = self.end_of_piece(&line);
            if end > 0 {
                self.kept = line.split_off(end);
                return Some(line);
            }
        }
    }

    /// Where the first piece of a line ends that is not complete. The rest may begin with a secret or with a
    /// part of it.
    fn end_of_piece(&self, line: &[u8]) -> usize {
        let longest = self.redactors.iter().map(Redactor::longest).max();
        let longest = longest.unwrap_or_default();
        let mut end = line.len().saturating_sub(longest.saturating_sub(1));
        let split = |end| {
            self.redactors
                .iter()
                .filter_map(move |it| it.split_secret(line, end))
        };
        while let Some(start) = split(end).min() {
            end = start;
        }
        // A line of overlapping secrets only has no other place, and must not fill the memory.
        let is_too_long = (line.len() - longest.min(line.len())) as u64 > 4 * LONGEST_LINE;
        if end == 0 && is_too_long {
            line.len()
        } else {
            end
        }
    }
}

/// The lines of a log as they were shown. Long lines are split as they were when they were printed.
pub fn shown_again(log: impl std::io::Read) -> impl Iterator<Item = String> {
    use std::io::{BufRead, Read};
    let mut log = std::io::BufReader::new(log);
    let lines = std::iter::from_fn(move || {
        let mut line = Vec::new();
        let read = (&mut log).take(LONGEST_LINE).read_until(b'\n', &mut line);
        // A log that cannot be read ends here.
        read.is_ok_and(|length| length > 0).then_some(line)
    });
    let lines = lines.map(|line| readable(&String::from_utf8_lossy(&line)));
    lines.filter(|line| !line.is_empty())
}

/// The line as a terminal shows it, without colours: of a redrawn line only its last state.
pub fn readable(text: &str) -> String {
    let plain = anstream::adapter::strip_str(text).to_string();
    plain
        .trim_end()
        .rsplit('\r')
        .next()
        .unwrap_or_default()
        .to_owned()
}

/// Opens the log of an earlier script, to write after its end.
fn continue_log(path: &Path) -> Result<std::fs::File, Io> {
    let mut options = std::fs::OpenOptions::new();
    options.append(true).create(true).mode(0o600);
    options.open(path).map_err(Io::at("write the log", path))
}

/// Creates a log, with its folders.
pub fn open_log(path: &Path) -> Result<std::fs::File, Io> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(Io::at("create the folder", folder))?;
    }
    // Secrets are replaced where they are recognized, so others must not read what is left.
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    options.open(path).map_err(Io::at("write the log", path))
}

#[cfg(test)]
mod tests {
    use http_client::Redactor;

    use super::{LONGEST_LINE, PieceReader, readable, shown_again};

    #[test]
    fn a_long_line_is_not_split_within_a_secret() {
        // More than the longest line, and without a repetition.
        let number = |number: u32| format!("{number:05}");
        let long: String = (0..4000).map(number).collect();
        for secret in ["secret", &long[..6200], &long] {
            let mut line = String::new();
            for count in 0..60 {
                line += &"x".repeat(count * 37);
                line += secret;
            }
            let redactors = vec![Redactor::new([secret])];
            let redactor = redactors[0].clone();
            let runtime = tokio::runtime::Builder::new_current_thread();
            let shown = { runtime }.build().unwrap().block_on(async {
                let mut pieces = PieceReader::new(line.as_bytes(), redactors);
                let mut shown = String::new();
                while let Some(piece) = pieces.read_piece().await {
                    shown += &redactor.redact(std::str::from_utf8(&piece).unwrap());
                }
                shown
            });
            assert_eq!(shown, line.replace(secret, "***"));
        }
    }

    #[test]
    fn a_line_of_overlapping_secrets_is_split() {
        let line = vec![b'a'; 20 * usize::try_from(LONGEST_LINE).unwrap()];
        let runtime = tokio::runtime::Builder::new_current_thread();
        let pieces = { runtime }.build().unwrap().block_on(async {
            let mut pieces = PieceReader::new(&*line, vec![Redactor::new(["aaaaaaa"])]);
            let mut count = 0;
            while pieces.read_piece().await.is_some() {
                count += 1;
            }
            count
        });
        assert!(pieces > 2, "{pieces}");
    }

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
