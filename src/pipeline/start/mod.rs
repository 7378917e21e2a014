//! Starting pruned apps on this machine, each in a copy of its `.deploy` with no `node_modules` above
//! it, as in a container.
//!
//! [`server::start`] returns when the app answers on its port. When a [`server::RunningServer`] is
//! dropped, its process group is killed and its copy is removed.

mod environment;
mod folder;
mod listening;
mod output;
mod script;
mod server;
mod verify;

use std::path::PathBuf;

use miette::Diagnostic;

pub use script::write as write_script;
pub use verify::run as verify;

use super::failure::{Io, quote};
use crate::plan::EnvFileError;

/// Why an app cannot be started.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum Error {
    /// Every folder for temporary files has a `node_modules` above it, in which Node would find
    /// packages that `.deploy` lacks.
    #[error(
        "`{}` cannot be started by itself: there is a `node_modules` above each folder for temporary files: {}",
        folder.display(),
        names(found)
    )]
    #[diagnostic(
        code(alokai::start::surrounded),
        help(
            "remove one of them, or set `TMPDIR` to a folder that has no `node_modules` above it; Node also searches these folders, so packages that are missing in `.deploy` are not detected"
        )
    )]
    Surrounded {
        /// The `.deploy`.
        folder: PathBuf,
        /// The folders that were found.
        found: Vec<PathBuf>,
    },
    /// `node` cannot be executed.
    #[error("cannot start `node {entry}`")]
    #[diagnostic(
        code(alokai::start::node),
        help("install Node.js, and check that `node` is in `PATH`")
    )]
    Node {
        /// The file that Node starts.
        entry: String,
        /// The error of the system.
        source: std::io::Error,
    },
    /// Another process listens on the app's port.
    #[error("port {port} of `{unit}` is in use by another process")]
    #[diagnostic(
        code(alokai::start::port_in_use),
        help("end that process, or set another port in `localPorts` of the store")
    )]
    PortInUse {
        /// Store and app.
        unit: String,
        /// The port.
        port: u16,
    },
    /// The app ended before it answered.
    #[error("`node {}` {ended} before it answered on port {}{app}", app.entry, app.port)]
    #[diagnostic(
        code(alokai::start::ended),
        help(
            "see the lines above for the reason; a missing setting belongs in the store's `.env` or in `start.env`, and the app has these variables: {}",
            app.variables.join(", ")
        )
    )]
    Ended {
        /// How it ended, such as `exited with code 3`.
        ended: Box<str>,
        /// The app.
        app: Box<SilentApp>,
    },
    /// The app did not answer in time.
    #[error(
        "`node {}` did not answer on port {} within {seconds} s; {}{app}",
        app.entry,
        app.port,
        listens(ports.as_deref())
    )]
    #[diagnostic(
        code(alokai::start::silent),
        help("{}", advice(app, ports.as_deref().unwrap_or_default()))
    )]
    Silent {
        /// The time limit.
        seconds: u64,
        /// The ports on which it listens; none if that cannot be found out.
        ports: Option<Vec<u16>>,
        /// The app.
        app: Box<SilentApp>,
    },
    /// The user interrupted the run.
    #[error("interrupted")]
    #[diagnostic(code(alokai::start::interrupted))]
    Interrupted,
    /// A `.env` file cannot be read.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Settings(#[from] EnvFileError),
    /// A file operation failed.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Io(#[from] Io),
}

fn names(paths: &[PathBuf]) -> String {
    let names = paths.iter().map(|path| format!("`{}`", path.display()));
    names.collect::<Vec<_>>().join(", ")
}

fn numbers(ports: &[u16]) -> String {
    let ports: Vec<_> = ports.iter().map(u16::to_string).collect();
    ports.join(", ")
}

fn listens(ports: Option<&[u16]>) -> String {
    match ports {
        None => "it still runs".into(),
        Some([]) => "it still runs and listens on no port".into(),
        Some([one]) => format!("it listens on port {one}"),
        Some(several) => format!("it listens on the ports {}", numbers(several)),
    }
}

fn advice(app: &SilentApp, ports: &[u16]) -> String {
    let given = app.port_names.iter().map(|name| format!("`{name}`"));
    let given = given.collect::<Vec<_>>().join(", ");
    if ports.is_empty() {
        return format!(
            "the app has its port in {given}; if it only needs more time, raise `start.timeout`"
        );
    }
    format!(
        "the app does not read its port from {given}; change the app so that it does, or add the variable that it reads to `start.env`: `\"<app>\": {{ \"<NAME>\": \"{{port}}\" }}`"
    )
}

/// An app that does not answer.
#[derive(Debug)]
pub struct SilentApp {
    /// The file that Node started.
    pub entry: String,
    /// The port on which it has to listen.
    pub port: u16,
    /// The names of the variables that have the port.
    pub port_names: Vec<String>,
    /// The names of its variables.
    pub variables: Vec<String>,
    /// Its last lines.
    pub tail: Vec<String>,
    /// The file with its whole output.
    pub log: PathBuf,
}

impl std::fmt::Display for SilentApp {
    /// The end of an error message: the last lines, and the file with the whole output.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (tail, log) = (quote(&self.tail), self.log.display());
        write!(f, "\n{tail}\n  the whole output is in {log}")
    }
}
