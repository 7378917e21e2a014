//! The terminal of `dev` and `start`: the screen of servers, and what its keys do.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::task::JoinHandle;

use super::domains::KnownServers;
use super::environment::{self, Screen};
use super::events::Live;
use crate::error::{Error as AnyError, Exit};
use crate::report::{Detail, Lines, Ndjson, Reporter, ScreenCommand, ServerScreen};
use crate::serve::SupervisorHandle;

/// The commands of the screen. `None` if there is no screen.
pub type ScreenCommands = Option<UnboundedReceiver<ScreenCommand>>;

/// The reporter of a command that runs servers: a screen on a terminal, else lines or NDJSON.
pub fn server_reporter(
    title: &str,
    json: bool,
    detail: Detail,
    servers: &KnownServers,
) -> (Box<dyn Reporter>, ScreenCommands) {
    if json {
        return (Box::new(Ndjson::new(std::io::stdout())), None);
    }
    if environment::screen() == Screen::Terminal {
        let (sender, commands) = unbounded_channel();
        let servers = servers.clone();
        let addresses = Box::new(move |server: &_| servers.url(server));
        if let Ok(screen) = ServerScreen::start(title, addresses, sender) {
            return (Box::new(screen), Some(commands));
        }
    }
    (Box::new(Lines::new(std::io::stderr(), detail)), None)
}

/// Carries out the commands of the screen until it is dropped.
pub struct Keys {
    supervisor: Arc<OnceLock<SupervisorHandle>>,
    task: Option<JoinHandle<()>>,
    /// Whether the run was ended with `q`.
    is_quit: Arc<AtomicBool>,
}

impl Keys {
    /// Before [`Self::control`], only quitting has an effect.
    pub fn follow(commands: ScreenCommands, live: &Live, servers: &KnownServers) -> Self {
        let supervisor: Arc<OnceLock<SupervisorHandle>> = Arc::default();
        let (events, interrupt) = (live.events.clone(), live.interrupt.clone());
        let (servers, handle) = (servers.clone(), Arc::clone(&supervisor));
        let is_quit: Arc<AtomicBool> = Arc::default();
        let quit = Arc::clone(&is_quit);
        let task = commands.map(|mut commands| {
            live.runtime.spawn(async move {
                while let Some(command) = commands.recv().await {
                    match command {
                        ScreenCommand::Quit => {
                            if !interrupt.stopped() {
                                quit.store(true, Ordering::Relaxed);
                            }
                            interrupt.raise();
                        }
                        ScreenCommand::Interrupt => {
                            quit.store(false, Ordering::Relaxed);
                            interrupt.raise();
                        }
                        ScreenCommand::Restart(server) => {
                            if let Some(supervisor) = handle.get() {
                                supervisor.restart(server);
                            }
                        }
                        ScreenCommand::Open(server) => match servers.url(&server) {
                            None => events.notice(format!("{server} has no address yet")),
                            Some(url) => {
                                if let Err(error) = environment::open_address(&url) {
                                    events.notice(format!("cannot open {url}: {error}"));
                                }
                            }
                        },
                    }
                }
            })
        });
        Self {
            supervisor,
            task,
            is_quit,
        }
    }

    /// Sends further commands to these servers.
    pub fn control(&self, supervisor: SupervisorHandle) {
        let _ = self.supervisor.set(supervisor);
    }

    /// The result of the run. `q` is the ordinary end of it, and not an error.
    pub fn result(&self, result: Result<(), AnyError>) -> Result<(), AnyError> {
        match result {
            Err(error)
                if error.exit() == Exit::Interrupted && self.is_quit.load(Ordering::Relaxed) =>
            {
                Ok(())
            }
            result => result,
        }
    }

    /// Whether the terminal shows the screen.
    pub fn has_screen(&self) -> bool {
        self.task.is_some()
    }
}

impl Drop for Keys {
    /// The task has a sender of events, and the report ends only without senders.
    fn drop(&mut self) {
        if let Some(task) = self.task.take() {
            task.abort();
        }
    }
}
