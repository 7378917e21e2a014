//! Runs the servers of many stores on this machine: order, waiting, restarts, ending.
//!
//! A [`Supervisor`] has one task for each server. The middleware of a store starts before its other apps,
//! which start when it answers; stores start at the same time. Every state is sent as
//! [`Event::Server`](crate::event::Event::Server), every line of output as
//! [`Event::ServerOutput`](crate::event::Event::ServerOutput).

mod pause;
mod server;
mod supervisor;

use miette::Diagnostic;

pub use supervisor::{Supervisor, SupervisorHandle};

use crate::event::ServerId;
use crate::pipeline::{ScriptEnvironment, StartError};

/// What happens when a server ends by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RestartPolicy {
    /// All other servers are stopped too.
    Never,
    /// The server is started again after a pause, which grows from 1 s to 30 s.
    WithBackoff,
}

/// How servers run.
#[derive(Debug, Clone)]
pub struct SupervisorOptions {
    /// What happens when a server ends by itself.
    pub policy: RestartPolicy,
    /// The user's environment, of which servers get a part.
    pub shell: ScriptEnvironment,
}

/// Why servers do not run any more.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum Error {
    /// Servers ended, or could not be started.
    #[error("{}", count(failures))]
    #[diagnostic(code(alokai::serve::failed))]
    Failed {
        /// Each with its server.
        #[related]
        failures: Vec<ServerFailure>,
    },
    /// The user interrupted the run.
    #[error("interrupted; all servers have ended")]
    #[diagnostic(code(alokai::serve::interrupted))]
    Interrupted,
}

/// The failure of one server.
#[derive(Debug)]
pub struct ServerFailure {
    /// The server.
    pub server: ServerId,
    /// Why it failed.
    pub error: StartError,
}

fn count(failures: &[ServerFailure]) -> String {
    match failures {
        [one] => format!("`{}` does not run, so all servers were stopped", one.server),
        several => format!(
            "{} servers do not run, so all servers were stopped",
            several.len()
        ),
    }
}

impl std::fmt::Display for ServerFailure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.server, self.error)
    }
}

impl std::error::Error for ServerFailure {
    // The message contains the error already, so its cause comes next.
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.error.source()
    }
}

impl Diagnostic for ServerFailure {
    fn code<'a>(&'a self) -> Option<Box<dyn std::fmt::Display + 'a>> {
        self.error.code()
    }

    fn help<'a>(&'a self) -> Option<Box<dyn std::fmt::Display + 'a>> {
        self.error.help()
    }
}
