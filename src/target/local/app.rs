//! A running app: its process group, its output, and its restarts.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use http_client::Redactor;
use rustix::process::{Pid, Signal};
use tokio::io::AsyncRead;
use tokio::process::{Child, Command};
use tokio_util::sync::CancellationToken;

use super::logs::LogFile;
use super::processes::Processes;
use crate::pipeline::{PieceReader, TAIL, group_of, how, lives, readable, signal};
use crate::store::AppName;
use crate::target::AppState;

/// The pause before the first restart. It doubles with every restart.
const FIRST_PAUSE: Duration = Duration::from_millis(500);

/// The longest pause before a restart.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// After this time without an exit, the pause starts again at `FIRST_PAUSE`.
const STEADY: Duration = Duration::from_mins(1);

/// The pause between two checks of an ending process group.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// How long the rest of an ended app's output is read.
const LAST_OUTPUT: Duration = Duration::from_secs(2);

/// How an app is started.
pub struct AppStart {
    /// The app.
    pub app: AppName,
    /// Program and arguments.
    pub command: Vec<String>,
    /// The folder in which it runs.
    pub folder: PathBuf,
    /// All of its variables.
    pub variables: BTreeMap<String, String>,
    /// Replaces secrets in its output.
    pub redactor: Redactor,
    /// The file for its output.
    pub log: PathBuf,
    /// How long it has between SIGTERM and SIGKILL.
    pub stop_timeout: Duration,
}

/// An app that is started again whenever it ends, until it is stopped.
pub struct RunningApp {
    status: Arc<Mutex<AppStatus>>,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

#[derive(Default)]
struct AppStatus {
    running: bool,
    ended: Option<String>,
    restarts: u32,
    tail: VecDeque<String>,
}

impl RunningApp {
    /// Starts an app. An app that cannot be started is tried again like one that has ended.
    pub fn start(start: AppStart, processes: Arc<Processes>) -> Self {
        let status = Arc::new(Mutex::new(AppStatus {
            running: true,
            ..AppStatus::default()
        }));
        let stop = CancellationToken::new();
        let supervisor = AppSupervisor {
            start,
            processes,
            status: Arc::clone(&status),
            stop: stop.clone(),
        };
        Self {
            status,
            stop,
            task: tokio::spawn(supervisor.run()),
        }
    }

    /// The state of the app.
    pub fn health(&self, app: &AppName) -> AppState {
        let status = locked(&self.status);
        AppState {
            app: app.clone(),
            running: status.running,
            ended: status.ended.clone(),
            restarts: status.restarts,
            tail: status.tail.iter().cloned().collect(),
        }
    }

    /// Stops the app: SIGTERM, and SIGKILL after its time to stop. Returns when its process group has
    /// ended.
    pub async fn stop(self) {
        self.stop.cancel();
        // A task that has panicked has dropped its child, which is killed then.
        let _ = self.task.await;
    }
}

fn locked(status: &Mutex<AppStatus>) -> MutexGuard<'_, AppStatus> {
    status.lock().unwrap_or_else(PoisonError::into_inner)
}

struct AppSupervisor {
    start: AppStart,
    processes: Arc<Processes>,
    status: Arc<Mutex<AppStatus>>,
    stop: CancellationToken,
}

impl AppSupervisor {
    async fn run(self) {
        let mut pause = FIRST_PAUSE;
        loop {
            let began = Instant::now();
            let Some(ended) = self.once().await else {
                return;
            };
            {
                let mut status = locked(&self.status);
                status.running = false;
                status.ended = Some(ended);
            }
            if began.elapsed() >= STEADY {
                pause = FIRST_PAUSE;
            }
            let sleep = tokio::time::sleep(pause);
            if self.stop.run_until_cancelled(sleep).await.is_none() {
                return;
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
            let mut status = locked(&self.status);
            status.running = true;
            status.restarts += 1;
        }
    }

    /// Runs the app until it ends, and returns how it ended. `None` if it was stopped.
    async fn once(&self) -> Option<String> {
        let mut child = match self.spawn() {
            Ok(child) => child,
            Err(error) => {
                let command = self.start.command.join(" ");
                return Some(format!("cannot be started: `{command}`: {error}"));
            }
        };
        let group = group_of(&child);
        let process = child.id();
        self.processes.add(process);
        let output = Mutex::new(AppOutput {
            // If the log cannot be opened, the app runs without it.
            log: LogFile::open(&self.start.log).ok(),
            redactor: self.start.redactor.clone(),
            status: Arc::clone(&self.status),
        });
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let reading = tokio::spawn(async move {
            tokio::join!(read(stdout, &output), read(stderr, &output));
        });
        let ended = tokio::select! {
            status = child.wait() => Some(how(status)),
            () = self.stop.cancelled() => {
                self.end(&mut child, group).await;
                None
            }
        };
        // What is left of the group would keep its pipes and its port.
        signal(group, Signal::KILL);
        let _ = child.wait().await;
        self.processes.remove(process);
        let _ = tokio::time::timeout(LAST_OUTPUT, reading).await;
        ended
    }

    fn spawn(&self) -> std::io::Result<Child> {
        let (program, arguments) = self
            .start
            .command
            .split_first()
            .ok_or_else(|| std::io::Error::other("the command is empty"))?;
        Command::new(program)
            .args(arguments)
            .current_dir(&self.start.folder)
            .env_clear()
            .envs(&self.start.variables)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
    }

    /// Ends the process group: SIGTERM, and SIGKILL after its time to stop.
    async fn end(&self, child: &mut Child, group: Option<Pid>) {
        signal(group, Signal::TERM);
        let ended = async {
            let _ = child.wait().await;
            while lives(group) {
                tokio::time::sleep(POLL_INTERVAL).await;
            }
        };
        let _ = tokio::time::timeout(self.start.stop_timeout, ended).await;
    }
}

/// Takes the lines of an app.
struct AppOutput {
    log: Option<LogFile>,
    redactor: Redactor,
    status: Arc<Mutex<AppStatus>>,
}

impl AppOutput {
    fn add(&mut self, line: &[u8]) {
        let text = self.redactor.redact(&String::from_utf8_lossy(line));
        let shown = readable(&text);
        if shown.is_empty() {
            return;
        }
        if let Some(log) = &mut self.log {
            log.add(&shown);
        }
        let mut status = locked(&self.status);
        if status.tail.len() == TAIL {
            status.tail.pop_front();
        }
        status.tail.push_back(shown);
    }
}

async fn read(pipe: Option<impl AsyncRead + Unpin>, output: &Mutex<AppOutput>) {
    let Some(pipe) = pipe else {
        return;
    };
    let redactor = {
        let output = output.lock().unwrap_or_else(PoisonError::into_inner);
        output.redactor.clone()
    };
    let mut pieces = PieceReader::new(pipe, vec![redactor]);
    while let Some(line) = pieces.read_piece().await {
        let mut output = output.lock().unwrap_or_else(PoisonError::into_inner);
        output.add(&line);
    }
}
