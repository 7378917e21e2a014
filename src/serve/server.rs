//! The task of one server: waits for other servers, starts the server, and starts it again if it ends.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use miette::Diagnostic;
use tokio::sync::watch;

use super::pause::GrowingPause;
use super::{RestartPolicy, SupervisorOptions};
use crate::event::{ServerId, ServerState, seconds};
use crate::pipeline::{
    Interrupt, RunningServer, ServerEnvironment, ServerStart, Services, StartError,
};
use crate::plan::{PackageScript, ServerPlan, ServerSettings, StoreServers};
use crate::store::StoreId;

/// What a server runs.
#[derive(Debug, Clone)]
pub enum ServerProgram {
    /// An app of a store. `servers` has the addresses of the other apps.
    App {
        /// The store with all its apps.
        servers: Box<StoreServers>,
        /// The app.
        app: Box<ServerPlan>,
    },
    /// A workspace package.
    Package(PackageScript),
}

/// One server.
#[derive(Debug, Clone)]
pub struct ServerSpec {
    /// Its name.
    pub id: ServerId,
    /// What it runs.
    pub program: ServerProgram,
    /// The servers that must be ready before it is started.
    pub needs: Vec<ServerId>,
    /// The stores that use it.
    pub stores: Vec<StoreId>,
    /// The project's folder.
    pub project: PathBuf,
    /// The time limit for an app to accept connections on its port.
    pub start_timeout: Duration,
}

impl ServerSpec {
    /// Whether a running server of the other specification has to be restarted.
    pub fn differs(&self, other: &Self) -> bool {
        match (&self.program, &other.program) {
            (ServerProgram::Package(own), ServerProgram::Package(other)) => own != other,
            _ => self.settings() != other.settings(),
        }
    }

    fn settings(&self) -> Option<ServerSettings> {
        match &self.program {
            ServerProgram::App { servers, app } => Some(servers.settings_of(app)),
            ServerProgram::Package(_) => None,
        }
    }

    fn url(&self) -> Option<String> {
        match &self.program {
            ServerProgram::App { app, .. } => Some(app.address()),
            ServerProgram::Package(_) => None,
        }
    }
}

/// The task of one server.
pub struct ServerTask {
    /// The server.
    pub spec: ServerSpec,
    /// Whether each server that it needs is ready.
    pub needs: Vec<watch::Receiver<bool>>,
    /// Whether this server is ready.
    pub ready: Arc<watch::Sender<bool>>,
    /// Stops this server.
    pub interrupt: Interrupt,
    /// How it runs.
    pub options: Arc<SupervisorOptions>,
    /// The services of the run.
    pub services: Arc<Services>,
}

impl ServerTask {
    /// Runs the server until it is stopped. With [`RestartPolicy::Never`], the error is the end of the
    /// server.
    pub async fn run(mut self) -> Result<(), StartError> {
        self.ready.send_replace(false);
        let stores = self.spec.stores.clone();
        self.report(ServerState::Waiting { stores });
        if !self.others_are_ready().await {
            self.report(ServerState::Stopped);
            return Ok(());
        }
        let mut pause = GrowingPause::default();
        loop {
            let Ok((error, lived)) = self.run_once().await else {
                self.report(ServerState::Stopped);
                return Ok(());
            };
            self.ready.send_replace(false);
            self.report(failure(&error));
            if self.options.policy == RestartPolicy::Never {
                return Err(error);
            }
            let pause = pause.after(lived);
            self.report(ServerState::Restarting {
                in_seconds: pause.as_secs(),
            });
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.interrupt.stopping() => {
                    self.report(ServerState::Stopped);
                    return Ok(());
                }
            }
        }
    }

    /// Waits for the servers that this one needs. Returns false if it is stopped before.
    async fn others_are_ready(&mut self) -> bool {
        for other in &mut self.needs {
            tokio::select! {
                // An error means that the other server was removed, so it need not be waited for.
                _ = other.wait_for(|ready| *ready) => {}
                () = self.interrupt.stopping() => return false,
            }
        }
        true
    }

    /// Starts the server and waits for its end. Returns why it ended, and how long it was ready.
    async fn run_once(&self) -> Result<(StartError, Duration), Stopped> {
        self.report(ServerState::Starting);
        let started = Instant::now();
        let mut running = match self.start().await {
            Ok(running) => running,
            Err(StartError::Interrupted) => return Err(Stopped),
            Err(error) => return Ok((error, Duration::ZERO)),
        };
        self.report(ServerState::Ready {
            url: self.spec.url(),
            seconds: seconds(started.elapsed()),
        });
        self.ready.send_replace(true);
        let ready = Instant::now();
        tokio::select! {
            biased;
            () = self.interrupt.stopping() => {}
            error = running.ended() => return Ok((error, ready.elapsed())),
        }
        running.stop(&self.interrupt).await;
        Err(Stopped)
    }

    async fn start(&self) -> Result<RunningServer, StartError> {
        let start = ServerStart {
            project: &self.spec.project,
            limit: self.spec.start_timeout,
            interrupt: &self.interrupt,
            reported: Some(self.spec.id.clone()),
            services: &self.services,
        };
        let shell = &self.options.shell;
        match &self.spec.program {
            ServerProgram::App { servers, app } => {
                let environment = ServerEnvironment::new(servers, app, shell)?;
                start.app(app, &environment).await
            }
            ServerProgram::Package(package) => {
                start.package(package, &ServerEnvironment::of_package(shell))
            }
        }
    }

    fn report(&self, state: ServerState) {
        self.services.events.server(&self.spec.id, state);
    }
}

/// The server was stopped by this program.
struct Stopped;

/// The state of a server that has failed. One that never answered has the error's help too.
fn failure(error: &StartError) -> ServerState {
    let how = match error {
        StartError::Ended { .. } | StartError::Exited { .. } => {
            let how = first_line(error);
            return ServerState::Ended { how };
        }
        StartError::Program { command, source } => format!("`{command}`: {source}"),
        _ => first_line(error),
    };
    let help = error.help().map(|help| help.to_string());
    ServerState::CannotStart { how, help }
}

/// The first line of an error. The others are the server's last lines, which were sent as events.
fn first_line(error: &StartError) -> String {
    let text = error.to_string();
    text.lines().next().unwrap_or_default().to_owned()
}
