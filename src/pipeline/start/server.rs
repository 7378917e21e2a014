//! One started server: its program, its port and its end.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use tokio::time::{Instant, sleep, timeout};

use super::container::ServerContainer;
use super::environment::ServerEnvironment;
use super::folder::isolated_copy;
use super::listening::{listener, listening_ports};
use super::ports::{connectable, first_status, is_in_use};
use super::process::{ServerCommand, ServerProcess, how};
use super::{Error, FailedServer};
use crate::event::ServerId;
use crate::pipeline::failure::Io;
use crate::pipeline::services::{Interrupt, Services};
use crate::plan::{ContainerNetwork, Launch, PackageScript, ServerPlan, container_name};

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
    program: ServerProgram,
    _copy: Option<TempDir>,
}

/// The program of a running server.
enum ServerProgram {
    Process(Box<ServerProcess>),
    Container(Box<ServerContainer>),
}

impl ServerProgram {
    /// Waits until the program ends, and returns how it ended.
    async fn exited(&mut self) -> String {
        match self {
            Self::Process(process) => how(process.child.wait().await),
            Self::Container(container) => container.exited().await,
        }
    }

    async fn stop(&mut self, interrupt: &Interrupt) {
        match self {
            Self::Process(process) => process.stop(interrupt).await,
            Self::Container(container) => container.stop(interrupt).await,
        }
    }

    /// Ends what is left of the program, and reads the rest of its output.
    async fn read_rest(&mut self) {
        match self {
            Self::Process(process) => process.read_rest().await,
            Self::Container(container) => container.read_rest().await,
        }
    }

    fn failed(&self) -> FailedServer {
        match self {
            Self::Process(process) => process.failed(),
            Self::Container(container) => container.failed(),
        }
    }

    /// The ports on which it listens, if that can be found out.
    fn ports(&self) -> Option<Vec<u16>> {
        match self {
            Self::Process(process) => process.group.and_then(listening_ports),
            Self::Container(_) => None,
        }
    }
}

/// The ports of this machine that must be free before the server is started. The first container of a
/// store publishes the ports of all.
fn needed_ports(server: &ServerPlan) -> Vec<u16> {
    match &server.launch {
        Launch::Artifact { .. } | Launch::Script { .. } => vec![server.port],
        Launch::Image { network, .. } => match network {
            ContainerNetwork::Own { ports } => ports.clone(),
            ContainerNetwork::Of { .. } => Vec::new(),
        },
    }
}

impl ServerStart<'_> {
    /// Starts an app, and waits until it answers on its port.
    pub async fn app(
        self,
        server: &ServerPlan,
        environment: &ServerEnvironment,
    ) -> Result<RunningServer, Error> {
        for port in needed_ports(server) {
            if is_in_use(port).await {
                return Err(Error::PortInUse {
                    unit: server.unit.to_string(),
                    port,
                    by: listener(port),
                });
            }
        }
        let (mut program, copy) = self.launch(server, environment).await?;
        let waiting = Waiting {
            server,
            limit: self.limit,
        };
        let first_status = waiting.answer(&mut program, self.interrupt).await?;
        Ok(RunningServer {
            first_status,
            program,
            _copy: copy,
        })
    }

    /// Starts the program of an app.
    async fn launch(
        &self,
        server: &ServerPlan,
        environment: &ServerEnvironment,
    ) -> Result<(ServerProgram, Option<TempDir>), Error> {
        let run = |command, folder| ServerCommand {
            command,
            folder,
            environment,
            log: self.log(&server.unit.to_string()),
            reported: self.reported.clone(),
        };
        match &server.launch {
            Launch::Artifact { folder, entry } => {
                let copy = self.copy(folder).await?;
                let command = ["node".to_owned(), entry.clone()];
                let process = ServerProcess::spawn(run(&command, copy.path()), self.services)?;
                Ok((ServerProgram::Process(Box::new(process)), Some(copy)))
            }
            Launch::Script { command, folder } => {
                let folder = self.project.join(folder);
                let process = ServerProcess::spawn(run(command, &folder), self.services)?;
                Ok((ServerProgram::Process(Box::new(process)), None))
            }
            Launch::Image { reference, network } => {
                let name = container_name(&server.unit);
                let run = run(&[], self.project);
                let starting = ServerContainer::run(
                    (&name, reference),
                    network,
                    run,
                    self.services,
                    self.interrupt,
                );
                let container = starting.await?;
                Ok((ServerProgram::Container(Box::new(container)), None))
            }
        }
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
            log: self.log(&package.folder),
            reported: self.reported.clone(),
        };
        let process = ServerProcess::spawn(command, self.services)?;
        Ok(RunningServer {
            first_status: None,
            program: ServerProgram::Process(Box::new(process)),
            _copy: None,
        })
    }

    /// Runs a command to its end, and ends it when the run is interrupted.
    pub async fn to_end(self, command: ServerCommand<'_>) -> Result<CommandEnd, Error> {
        let mut process = ServerProcess::spawn(command, self.services)?;
        let status = tokio::select! {
            status = process.child.wait() => status,
            () = self.interrupt.stopping() => {
                process.stop(self.interrupt).await;
                return Err(Error::Interrupted);
            }
        };
        process.read_rest().await;
        Ok(CommandEnd {
            success: status.as_ref().is_ok_and(std::process::ExitStatus::success),
            how: how(status),
            command: process.failed(),
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
        let ended = self.program.exited().await;
        self.program.read_rest().await;
        Error::Exited {
            ended: ended.into(),
            app: Box::new(self.program.failed()),
        }
    }

    /// Ends the server: SIGTERM, and SIGKILL after 5 s or at the second interruption.
    pub async fn stop(mut self, interrupt: &Interrupt) {
        self.program.stop(interrupt).await;
    }
}

/// How a command ended.
#[derive(Debug)]
pub struct CommandEnd {
    /// Whether its exit code is 0.
    pub success: bool,
    /// How it ended, such as `exited with code 1`.
    pub how: String,
    /// The command with its last lines.
    pub command: FailedServer,
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
        program: &mut ServerProgram,
        interrupt: &Interrupt,
    ) -> Result<Option<u16>, Error> {
        let deadline = Instant::now() + self.limit;
        let address = loop {
            tokio::select! {
                biased;
                address = self.reachable() => if let Some(address) = address {
                    break address;
                },
                ended = program.exited() => return Err(self.ended(program, ended).await),
                () = interrupt.stopping() => return Err(interrupted(program, interrupt).await),
            }
            if Instant::now() >= deadline {
                return Err(self.silent(program).await);
            }
            tokio::select! {
                ended = program.exited() => return Err(self.ended(program, ended).await),
                () = interrupt.stopping() => return Err(interrupted(program, interrupt).await),
                () = sleep(PAUSE) => {}
            }
        };
        if self.server.launch.is_development() {
            return Ok(None);
        }
        let asking = timeout(FIRST_RESPONSE, first_status(address, self.server.port));
        let status = tokio::select! {
            ended = program.exited() => return Err(self.ended(program, ended).await),
            () = interrupt.stopping() => return Err(interrupted(program, interrupt).await),
            status = asking => status.ok().flatten(),
        };
        // An app that crashes while it answers closes the connection first.
        if status.is_none()
            && let Ok(ended) = timeout(PAUSE * 10, program.exited()).await
        {
            return Err(self.ended(program, ended).await);
        }
        Ok(status)
    }

    /// The address of `localhost` on which the app accepts connections. The engine accepts connections to
    /// a published port before the app listens on it, so a container has to answer.
    async fn reachable(&self) -> Option<&'static str> {
        let port = self.server.port;
        let address = connectable(port).await?;
        if matches!(self.server.launch, Launch::Image { .. }) {
            let asking = timeout(FIRST_RESPONSE, first_status(address, port));
            asking.await.ok().flatten()?;
        }
        Some(address)
    }

    async fn ended(&self, program: &mut ServerProgram, ended: String) -> Error {
        program.read_rest().await;
        Error::Ended {
            ended: ended.into(),
            port: self.server.port,
            app: Box::new(program.failed()),
        }
    }

    async fn silent(&self, program: &mut ServerProgram) -> Error {
        let listens_on = program.ports();
        program.read_rest().await;
        Error::Silent {
            seconds: self.limit.as_secs(),
            port: self.server.port,
            port_names: self.server.port_names().map(str::to_owned).collect(),
            listens_on,
            app: Box::new(program.failed()),
        }
    }
}

async fn interrupted(program: &mut ServerProgram, interrupt: &Interrupt) -> Error {
    program.stop(interrupt).await;
    Error::Interrupted
}
