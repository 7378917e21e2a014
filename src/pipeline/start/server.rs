//! One started server: its program, its port and its end.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use tokio::time::{Instant, sleep, timeout};

use super::Error;
use super::environment::ServerEnvironment;
use super::folder::isolated_copy;
use super::listening::{listener, listening_ports};
use super::ports::{connectable, first_status, is_in_use};
use super::process::{ServerCommand, ServerProcess, how};
use crate::event::ServerId;
use crate::pipeline::failure::Io;
use crate::pipeline::services::{Interrupt, Services};
use crate::plan::{Launch, PackageScript, ServerPlan};

/// The pause between two attempts to connect.
const PAUSE: Duration = Duration::from_millis(50);

/// How long an app may take for its first response. A slow response is not an error.
const FIRST_RESPONSE: Duration = Duration::from_secs(10);

/// What starting a server needs.
pub struct ServerStart<'a> {
    /// The project's folder.
    pub project: &'a Path,
    /// The time limit for an app to accept connections on its port.
    pub limit: Duration,
    /// Ends the server.
    pub interrupt: &'a Interrupt,
    /// The server whose output is sent as events, if it is.
    pub reported: Option<ServerId>,
    /// The services of the run.
    pub services: &'a Arc<Services>,
}

/// A started server. An app of a store answers on its port. When this value is dropped, the processes of
/// the server are killed.
pub struct RunningServer {
    /// The status of its response to `GET /`; none without an HTTP response in time, and for an app
    /// that is started for development, which would build the page first.
    pub first_status: Option<u16>,
    // The order of the fields is the order in which they are dropped: the copy is removed last.
    process: ServerProcess,
    _copy: Option<TempDir>,
}

impl ServerStart<'_> {
    /// Starts an app, and waits until it answers on its port.
    pub async fn app(
        self,
        server: &ServerPlan,
        environment: &ServerEnvironment,
    ) -> Result<RunningServer, Error> {
        let (unit, port) = (&server.unit, server.port);
        if is_in_use(port).await {
            return Err(Error::PortInUse {
                unit: unit.to_string(),
                port,
                by: listener(port),
            });
        }
        let (command, folder, copy) = match &server.launch {
            Launch::Artifact { folder, entry } => {
                let copy = self.copy(folder).await?;
                let folder = copy.path().to_owned();
                (vec!["node".into(), entry.clone()], folder, Some(copy))
            }
            Launch::Script { command, folder } => {
                (command.clone(), self.project.join(folder), None)
            }
            Launch::Image { reference } => {
                return Err(Error::Program {
                    command: reference.clone(),
                    source: std::io::Error::other("images are not supported yet"),
                });
            }
        };
        let command = ServerCommand {
            command: &command,
            folder: &folder,
            environment,
            log: self.log(&unit.to_string()),
            reported: self.reported.clone(),
        };
        let mut process = ServerProcess::spawn(command, self.services)?;
        let waiting = Waiting {
            server,
            limit: self.limit,
        };
        let first_status = waiting.answer(&mut process, self.interrupt).await?;
        Ok(RunningServer {
            first_status,
            process,
            _copy: copy,
        })
    }

    /// Starts the script of a workspace package.
    pub fn package(
        self,
        package: &PackageScript,
        environment: &ServerEnvironment,
    ) -> Result<RunningServer, Error> {
        let command = ServerCommand {
            command: &package.command,
            folder: &self.project.join(&package.folder),
            environment,
            log: self.log(&package.name),
            reported: self.reported.clone(),
        };
        Ok(RunningServer {
            first_status: None,
            process: ServerProcess::spawn(command, self.services)?,
            _copy: None,
        })
    }

    async fn copy(&self, folder: &str) -> Result<TempDir, Error> {
        let deploy = self.project.join(folder);
        let copying = tokio::task::spawn_blocking(move || isolated_copy(&deploy));
        copying.await.unwrap_or_else(|_| {
            let error = std::io::Error::other("the copy was not finished");
            Err(Io::at("copy", Path::new(folder))(error).into())
        })
    }

    fn log(&self, name: &str) -> PathBuf {
        self.project.join(format!(".alokai/logs/start/{name}.log"))
    }
}

impl RunningServer {
    /// Waits until the server ends by itself, and returns that as an error.
    pub async fn ended(&mut self) -> Error {
        let status = self.process.child.wait().await;
        self.process.read_rest().await;
        Error::Exited {
            ended: how(status).into(),
            app: Box::new(self.process.failed()),
        }
    }

    /// Ends the server: SIGTERM, and SIGKILL after 5 s or at the second interruption.
    pub async fn stop(mut self, interrupt: &Interrupt) {
        self.process.stop(interrupt).await;
    }
}

/// An app that has been started and does not answer yet.
struct Waiting<'a> {
    server: &'a ServerPlan,
    limit: Duration,
}

impl Waiting<'_> {
    /// Waits until the app accepts a connection, and requests `/`, because an app may load packages only at
    /// the first request. Returns the status of the response.
    async fn answer(
        &self,
        process: &mut ServerProcess,
        interrupt: &Interrupt,
    ) -> Result<Option<u16>, Error> {
        let deadline = Instant::now() + self.limit;
        let address = loop {
            if let Some(address) = connectable(self.server.port).await {
                break address;
            }
            if Instant::now() >= deadline {
                return Err(self.silent(process).await);
            }
            tokio::select! {
                ended = process.child.wait() => return Err(self.ended(process, ended).await),
                () = interrupt.stopping() => return Err(interrupted(process, interrupt).await),
                () = sleep(PAUSE) => {}
            }
        };
        if self.server.launch.is_development() {
            return Ok(None);
        }
        let asking = timeout(FIRST_RESPONSE, first_status(address, self.server.port));
        let status = tokio::select! {
            ended = process.child.wait() => return Err(self.ended(process, ended).await),
            () = interrupt.stopping() => return Err(interrupted(process, interrupt).await),
            status = asking => status.ok().flatten(),
        };
        // An app that crashes while it answers closes the connection first.
        if status.is_none()
            && let Ok(ended) = timeout(PAUSE * 10, process.child.wait()).await
        {
            return Err(self.ended(process, ended).await);
        }
        Ok(status)
    }

    async fn ended(
        &self,
        process: &mut ServerProcess,
        status: std::io::Result<std::process::ExitStatus>,
    ) -> Error {
        process.read_rest().await;
        Error::Ended {
            ended: how(status).into(),
            port: self.server.port,
            app: Box::new(process.failed()),
        }
    }

    async fn silent(&self, process: &mut ServerProcess) -> Error {
        let listens_on = process.group.and_then(listening_ports);
        process.read_rest().await;
        Error::Silent {
            seconds: self.limit.as_secs(),
            port: self.server.port,
            port_names: self.server.port_names().map(str::to_owned).collect(),
            listens_on,
            app: Box::new(process.failed()),
        }
    }
}

async fn interrupted(process: &mut ServerProcess, interrupt: &Interrupt) -> Error {
    process.stop(interrupt).await;
    Error::Interrupted
}
