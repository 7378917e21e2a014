//! The process group of a started app, its output and its end.

use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http_client::Redactor;
use rustix::process::{Pid, Signal};
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};
use tokio_util::task::AbortOnDropHandle;

use super::environment::ServerEnvironment;
use super::output::{ServerOutput, read, tail};
use super::{Error, FailedServer};
use crate::event::ServerId;
use crate::pipeline::process::{group_of, lives, open_log, signal};
use crate::pipeline::services::{Interrupt, Services};

/// The pause between two looks at an ending process group.
const PAUSE: Duration = Duration::from_millis(50);

/// How long an app has between SIGTERM and SIGKILL.
const GRACE: Duration = Duration::from_secs(5);

/// How long the rest of an ended app's output is read.
const LAST_OUTPUT: Duration = Duration::from_secs(2);

/// A command that runs a server.
pub struct ServerCommand<'a> {
    /// Program and arguments.
    pub command: &'a [String],
    /// The folder in which it runs.
    pub folder: &'a Path,
    /// Its variables.
    pub environment: &'a ServerEnvironment,
    /// The file for everything that it prints.
    pub log: PathBuf,
    /// The server whose output is sent as events, if it is.
    pub reported: Option<ServerId>,
}

/// The process group of an app. It is killed when this value is dropped.
pub struct ServerProcess {
    /// The leader of the group.
    pub child: Child,
    /// The group.
    pub group: Option<Pid>,
    log: PathBuf,
    command: String,
    given: Vec<String>,
    output: Arc<Mutex<ServerOutput>>,
    reading: AbortOnDropHandle<()>,
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        signal(self.group, Signal::KILL);
    }
}

impl ServerProcess {
    /// Starts the command in a process group of its own.
    pub fn spawn(server: ServerCommand, services: &Arc<Services>) -> Result<Self, Error> {
        let shown = server.command.join(" ");
        let failed = |source| Error::Program {
            command: shown.clone(),
            source,
        };
        let Some((program, arguments)) = server.command.split_first() else {
            return Err(failed(std::io::Error::other("the command is empty")));
        };
        let log = open_log(&server.log)?;
        let mut command = Command::new(program);
        command
            .args(arguments)
            .current_dir(server.folder)
            .env_clear()
            .envs(server.environment.variables())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true);
        let mut child = command.spawn().map_err(failed)?;
        let redactor: Redactor = server.environment.redactor.clone();
        let output = ServerOutput::new(log, Arc::clone(services), redactor, server.reported);
        let output = Arc::new(Mutex::new(output));
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let (of_stdout, of_stderr) = (Arc::clone(&output), Arc::clone(&output));
        let reading = tokio::spawn(async move {
            tokio::join!(read(stdout, of_stdout), read(stderr, of_stderr));
        });
        Ok(Self {
            group: group_of(&child),
            child,
            log: server.log,
            command: shown,
            given: server.environment.given.clone(),
            output,
            reading: AbortOnDropHandle::new(reading),
        })
    }

    /// Ends the app: SIGTERM, and SIGKILL after 5 s or at the second interruption.
    pub async fn stop(&mut self, interrupt: &Interrupt) {
        signal(self.group, Signal::TERM);
        let group = self.group;
        let ended = async {
            let _ = self.child.wait().await;
            while lives(group) {
                sleep(PAUSE).await;
            }
        };
        tokio::select! {
            () = ended => {}
            () = interrupt.killing() => {}
            () = sleep(GRACE) => {}
        }
        self.read_rest().await;
    }

    /// Kills what is left of the group, which closes its pipes, and reads the rest of the output.
    pub async fn read_rest(&mut self) {
        signal(self.group, Signal::KILL);
        let _ = self.child.wait().await;
        // A process that has left the group may keep a pipe open.
        let _ = timeout(LAST_OUTPUT, &mut self.reading).await;
    }

    /// The command with its last lines, for an error.
    pub fn failed(&self) -> FailedServer {
        FailedServer {
            command: self.command.clone(),
            variables: self.given.clone(),
            tail: tail(&self.output),
            log: self.log.clone(),
        }
    }
}

/// How a process ended, such as `exited with code 3`.
pub fn how(status: std::io::Result<ExitStatus>) -> String {
    use std::os::unix::process::ExitStatusExt;
    let status = match status {
        Ok(status) => status,
        Err(error) => return error.to_string(),
    };
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exited with code {code}"),
        (None, Some(signal)) => format!("was killed by signal {signal}"),
        (None, None) => "ended without an exit code".into(),
    }
}
