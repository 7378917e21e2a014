//! Runs the servers of many stores on this machine: order, waiting, restarts, ending.
//!
//! A [`Supervisor`] has one task for each server. The middleware of a store starts before its other apps,
//! which start when it answers; stores start at the same time. Every state is sent as
//! [`Event::Server`](crate::event::Event::Server), every line of output as
//! [`Event::ServerOutput`](crate::event::Event::ServerOutput).

mod browser;
mod pause;
mod server;
mod supervisor;

use std::path::PathBuf;

use miette::Diagnostic;

pub use browser::{BrowserRun, StoreTests};
pub use supervisor::{Supervisor, SupervisorHandle};

use crate::event::ServerId;
use crate::pipeline::{CommandEnd, Io, ScriptEnvironment, StartError};

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
    /// Apps have no `.deploy`.
    #[error("{} not built: {}", if units.len() == 1 { "an app is" } else { "apps are" }, units.join(", "))]
    #[diagnostic(
        code(alokai::serve::not_built),
        help("build them: `alokai store deploy --store {} --local --until prune`", stores.join(","))
    )]
    NotBuilt {
        /// Store and app of each.
        units: Vec<String>,
        /// Their stores.
        stores: Vec<String>,
    },
    /// The project has no Playwright tests.
    #[error("the project has no Playwright tests")]
    #[diagnostic(
        code(alokai::serve::no_tests),
        help(
            "add an app `apps/playwright` with a `package.json` that depends on `@playwright/test`"
        )
    )]
    NoTests,
    /// Browser tests failed.
    #[error("the tests of {} failed", if failures.len() == 1 { "1 store".to_owned() } else { format!("{} stores", failures.len()) })]
    #[diagnostic(code(alokai::serve::tests))]
    Tests {
        /// Each with its store.
        #[related]
        failures: Vec<StoreTestFailure>,
    },
    /// The reporter for Playwright cannot be written.
    #[error("cannot write a temporary file")]
    #[diagnostic(
        code(alokai::serve::reporter),
        help("check that the folder for temporary files exists and has free space")
    )]
    Reporter {
        /// The error of the system.
        source: std::io::Error,
    },
    /// A file operation failed.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Io(#[from] Io),
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

/// The browser tests of a store that failed.
#[derive(Debug, thiserror::Error, Diagnostic)]
#[error("{tests}: {problem}")]
#[diagnostic(code(alokai::serve::store_tests), help("{}", problem.advice()))]
pub struct StoreTestFailure {
    /// The store and the app with the tests.
    pub tests: ServerId,
    /// Why they failed.
    pub problem: TestProblem,
}

/// Why the browser tests of a store failed.
#[derive(Debug)]
pub enum TestProblem {
    /// Tests failed.
    Failed {
        /// Their names.
        tests: Vec<String>,
        /// Errors outside of tests, such as a test file that cannot be loaded.
        errors: Vec<String>,
        /// The file with the whole output.
        log: PathBuf,
    },
    /// The command failed, and the names of failed tests are not known.
    Command(Box<CommandEnd>),
    /// The command could not be started.
    Start(StartError),
    /// The apps of the store do not run.
    Servers(Box<Error>),
}

impl TestProblem {
    fn advice(&self) -> String {
        match self {
            Self::Failed { log, .. } => format!("the whole output is in {}", log.display()),
            Self::Command(_) => "see the lines above for the reason; if packages are missing, install them with the project's package manager".into(),
            Self::Start(error) => error.help().map(|help| help.to_string()).unwrap_or_default(),
            Self::Servers(_) => "run `alokai store start` for this store to see whether its apps start".into(),
        }
    }
}

impl std::fmt::Display for TestProblem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Failed { tests, errors, .. } => {
                match tests.len() {
                    0 => f.write_str("the tests cannot be run")?,
                    1 => f.write_str("1 test failed")?,
                    count => write!(f, "{count} tests failed")?,
                }
                for line in tests.iter().chain(errors) {
                    write!(f, "\n  {line}")?;
                }
                Ok(())
            }
            Self::Command(end) => write!(f, "`{}` {}{}", end.command.command, end.how, end.command),
            Self::Start(error) => error.fmt(f),
            Self::Servers(error) => match &**error {
                Error::Failed { failures } => {
                    let failures: Vec<_> = failures.iter().map(ToString::to_string).collect();
                    f.write_str(&failures.join("\n"))
                }
                other => other.fmt(f),
            },
        }
    }
}
