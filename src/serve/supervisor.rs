//! The servers of a run: started together, replaced when the config changes, stopped in order.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::watch;
use tokio::task::{JoinError, JoinHandle, JoinSet};

use super::server::{ServerProgram, ServerSpec, ServerTask};
use super::{Error, ServerFailure, SupervisorOptions};
use crate::event::ServerId;
use crate::pipeline::{Interrupt, Services, StartError};
use crate::plan::{Launch, ServePlan, StoreServers};
use crate::store::AppKind;

/// Running servers. When this value is dropped, they are stopped.
pub struct Supervisor {
    handle: SupervisorHandle,
    ready: Vec<watch::Receiver<bool>>,
    task: JoinHandle<Result<(), Error>>,
}

/// Sends commands to a [`Supervisor`]. Commands to one that has ended are ignored.
#[derive(Debug, Clone)]
pub struct SupervisorHandle(UnboundedSender<Command>);

#[derive(Debug)]
enum Command {
    Restart(ServerId),
    Replace(Box<ServePlan>),
    Stop,
}

impl SupervisorHandle {
    /// Stops a server and starts it again without a pause. A server that does not exist is ignored.
    pub fn restart(&self, server: ServerId) {
        self.send(Command::Restart(server));
    }

    /// Changes the servers to those of a new plan: stops servers that it does not have, starts new
    /// servers, and restarts servers with another program, port or variable. Other servers run on.
    pub fn replace(&self, plan: ServePlan) {
        self.send(Command::Replace(Box::new(plan)));
    }

    /// Stops all servers.
    pub fn stop(&self) {
        self.send(Command::Stop);
    }

    fn send(&self, command: Command) {
        let _ = self.0.send(command);
    }
}

impl Supervisor {
    /// Starts the servers of a plan.
    pub fn start(plan: &ServePlan, options: SupervisorOptions, services: &Arc<Services>) -> Self {
        let (sender, commands) = unbounded_channel();
        let mut servers = Servers {
            running: BTreeMap::new(),
            readiness: BTreeMap::new(),
            tasks: JoinSet::new(),
            options: Arc::new(options),
            services: Arc::clone(services),
        };
        let _runtime = services.runtime.enter();
        servers.start(specs(plan));
        let readiness = servers.readiness.values();
        Self {
            handle: SupervisorHandle(sender),
            ready: readiness.map(|ready| ready.subscribe()).collect(),
            task: services.runtime.spawn(servers.run(commands)),
        }
    }

    /// A handle for commands.
    pub fn handle(&self) -> SupervisorHandle {
        self.handle.clone()
    }

    /// Waits until all servers of the first plan have been ready. Returns false if the servers have
    /// ended before.
    pub async fn ready(&mut self) -> bool {
        for ready in &mut self.ready {
            if ready.wait_for(|ready| *ready).await.is_err() {
                return false;
            }
        }
        true
    }

    /// Waits until all servers have ended: after [`SupervisorHandle::stop`], an interruption of the run,
    /// or with [`RestartPolicy::Never`](super::RestartPolicy::Never) the end of one server.
    pub async fn ended(mut self) -> Result<(), Error> {
        match (&mut self.task).await {
            Ok(result) => result,
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            // The runtime ends.
            Err(_) => Err(Error::Interrupted),
        }
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        self.handle.stop();
    }
}

/// A server whose task has ended.
type ServerEnd = (ServerId, Result<(), StartError>);

/// A server with a task.
struct SupervisedServer {
    spec: ServerSpec,
    interrupt: Interrupt,
}

/// The state of a supervisor.
struct Servers {
    running: BTreeMap<ServerId, SupervisedServer>,
    /// Whether each server is ready. A server that is restarted keeps its channel.
    readiness: BTreeMap<ServerId, Arc<watch::Sender<bool>>>,
    tasks: JoinSet<ServerEnd>,
    options: Arc<SupervisorOptions>,
    services: Arc<Services>,
}

impl Servers {
    async fn run(mut self, mut commands: UnboundedReceiver<Command>) -> Result<(), Error> {
        let interrupt = self.services.interrupt.clone();
        loop {
            let failures = tokio::select! {
                () = interrupt.stopping() => {
                    self.stop_all().await;
                    return Err(Error::Interrupted);
                }
                Some(ended) = self.tasks.join_next() => self.remove(ended).into_iter().collect(),
                command = commands.recv() => match command {
                    Some(Command::Restart(id)) => self.restart(id).await,
                    Some(Command::Replace(plan)) => self.replace(specs(&plan)).await,
                    // Without a sender, nobody waits for the servers any more.
                    Some(Command::Stop) | None => {
                        self.stop_all().await;
                        return Ok(());
                    }
                },
            };
            if !failures.is_empty() {
                let others = self.stop_all().await;
                let failures = failures.into_iter().chain(others).collect();
                return Err(Error::Failed { failures });
            }
        }
    }

    /// Starts servers, each in a task of its own.
    fn start(&mut self, specs: Vec<ServerSpec>) {
        for spec in &specs {
            let ready = || Arc::new(watch::channel(false).0);
            self.readiness.entry(spec.id.clone()).or_insert_with(ready);
        }
        for spec in specs {
            let id = spec.id.clone();
            let needs = spec.needs.iter();
            let needs = needs.filter_map(|id| Some(self.readiness.get(id)?.subscribe()));
            let Some(ready) = self.readiness.get(&id) else {
                continue;
            };
            let task = ServerTask {
                needs: needs.collect(),
                ready: Arc::clone(ready),
                // An interruption of the run stops the servers in order.
                interrupt: self.services.interrupt.part(),
                options: Arc::clone(&self.options),
                services: Arc::clone(&self.services),
                spec,
            };
            let server = SupervisedServer {
                spec: task.spec.clone(),
                interrupt: task.interrupt.clone(),
            };
            self.running.insert(id.clone(), server);
            self.tasks.spawn(async move { (id, task.run().await) });
        }
    }

    /// Stops one server and starts it again. Returns servers that have failed meanwhile.
    async fn restart(&mut self, id: ServerId) -> Vec<ServerFailure> {
        let Some(spec) = self.running.get(&id).map(|server| server.spec.clone()) else {
            return Vec::new();
        };
        let failures = self.stop(&BTreeSet::from([id])).await;
        if failures.is_empty() {
            self.start(vec![spec]);
        }
        failures
    }

    /// Changes the servers to these. Returns servers that have failed meanwhile.
    async fn replace(&mut self, wanted: Vec<ServerSpec>) -> Vec<ServerFailure> {
        let is_kept = |id: &ServerId, server: &SupervisedServer| {
            let mut wanted = wanted.iter();
            wanted.any(|spec| spec.id == *id && !spec.differs(&server.spec))
        };
        let running = self.running.iter();
        let outdated = running.filter(|(id, server)| !is_kept(id, server));
        let outdated: BTreeSet<ServerId> = outdated.map(|(id, _)| id.clone()).collect();
        // All old servers end before a new one starts, because a new server may have the port of an old one.
        let failures = self.stop(&outdated).await;
        if !failures.is_empty() {
            return failures;
        }
        self.readiness
            .retain(|id, _| wanted.iter().any(|spec| spec.id == *id));
        let is_new = |spec: &ServerSpec| !self.running.contains_key(&spec.id);
        let new: Vec<_> = wanted.into_iter().filter(is_new).collect();
        self.start(new);
        failures
    }

    /// Stops all servers.
    async fn stop_all(&mut self) -> Vec<ServerFailure> {
        let all = self.running.keys().cloned().collect();
        self.stop(&all).await
    }

    /// Stops these servers and waits for their ends, a middleware after the servers that need it.
    /// Returns servers that have failed meanwhile.
    async fn stop(&mut self, ids: &BTreeSet<ServerId>) -> Vec<ServerFailure> {
        let mut failures = Vec::new();
        for is_last in [false, true] {
            let needs = self.running.values().flat_map(|it| &it.spec.needs);
            let needed: BTreeSet<ServerId> = needs.cloned().collect();
            let stopped = self.running.iter().filter(|(id, _)| ids.contains(id));
            let stopped = stopped.filter(|(id, _)| is_last || !needed.contains(id));
            let mut waited = BTreeSet::new();
            for (id, server) in stopped {
                server.interrupt.raise();
                waited.insert(id.clone());
            }
            while waited.iter().any(|id| self.running.contains_key(id)) {
                let Some(ended) = self.tasks.join_next().await else {
                    break;
                };
                failures.extend(self.remove(ended));
            }
        }
        failures
    }

    /// Removes a server whose task has ended. Returns its failure, if it failed.
    fn remove(&mut self, ended: Result<ServerEnd, JoinError>) -> Option<ServerFailure> {
        let (server, result) = match ended {
            Ok(ended) => ended,
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        };
        self.running.remove(&server);
        let error = result.err()?;
        Some(ServerFailure { server, error })
    }
}

/// The servers of a plan. A middleware that several stores share is one server.
fn specs(plan: &ServePlan) -> Vec<ServerSpec> {
    let mut specs: Vec<ServerSpec> = Vec::new();
    let spec = |id, program, needs, stores| ServerSpec {
        id,
        program,
        needs,
        stores,
        project: plan.project.clone(),
        start_timeout: plan.start_timeout,
    };
    for package in &plan.packages {
        let id = ServerId::package(&package.name);
        let program = ServerProgram::Package(package.clone());
        specs.push(spec(id, program, Vec::new(), Vec::new()));
    }
    for store in &plan.stores {
        let needed = needed(store);
        for app in &store.servers {
            let id = ServerId::app(&app.unit);
            if let Some(known) = specs.iter_mut().find(|spec| spec.id == id) {
                known.stores.push(store.store.clone());
                continue;
            }
            let needs: Vec<_> = needed.iter().filter(|it| **it != id).cloned().collect();
            let program = ServerProgram::App {
                servers: Box::new(store.clone()),
                app: Box::new(app.clone()),
            };
            specs.push(spec(id, program, needs, vec![store.store.clone()]));
        }
    }
    specs
}

/// The servers that must be ready before the other servers of the store are started: its middleware.
/// Containers use the network of the store's first container.
fn needed(store: &StoreServers) -> Vec<ServerId> {
    let servers = store.servers.iter().enumerate();
    let needed = servers.filter(|(position, server)| {
        let is_container = matches!(server.launch, Launch::Image { .. });
        server.kind == AppKind::Middleware || (is_container && *position == 0)
    });
    needed
        .map(|(_, server)| ServerId::app(&server.unit))
        .collect()
}
