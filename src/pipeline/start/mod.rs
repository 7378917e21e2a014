//! Starting apps on this machine: a pruned app in a copy of its `.deploy` with no `node_modules` above
//! it, as in a container; or a script in the composed app.
//!
//! [`ServerStart::app`] returns when the app answers on its port. When a [`RunningServer`] is
//! dropped, its process group is killed and its copy is removed.

mod container;
mod environment;
mod folder;
mod listening;
mod output;
mod ports;
mod process;
mod server;
mod verify;

use std::path::PathBuf;

use miette::Diagnostic;

pub use container::{LABEL as PROJECT_LABEL, output_of, pull_missing, remove};
pub use environment::ServerEnvironment;
pub use folder::isolated_folder;
pub use ports::{free_ports, is_in_use};
pub use process::{ServerCommand, how};
pub use server::{CommandEnd, RunningServer, ServerStart};
pub use verify::run as verify;

use super::docker;
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
    /// The program of the command cannot be executed.
    #[error("cannot start `{command}`")]
    #[diagnostic(
        code(alokai::start::node),
        help(
            "install Node.js and the project's package manager, and check that both are in `PATH`"
        )
    )]
    Program {
        /// Program and arguments.
        command: String,
        /// The error of the system.
        source: std::io::Error,
    },
    /// Another process listens on the app's port.
    #[error("port {port} of `{unit}` is in use by {}", by.as_deref().unwrap_or("another process"))]
    #[diagnostic(
        code(alokai::start::port_in_use),
        help("end that process, or set another port in `localPorts` of the store")
    )]
    PortInUse {
        /// Store and app.
        unit: String,
        /// The port.
        port: u16,
        /// The name and id of that process, if they are known.
        by: Option<String>,
    },
    /// The app ended before it answered.
    #[error("`{}` {ended} before it answered on port {port}{app}", app.command)]
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
        /// The port on which it had to listen.
        port: u16,
        /// The app.
        app: Box<FailedServer>,
    },
    /// The server ended by itself after it was ready.
    #[error("`{}` {ended}{app}", app.command)]
    #[diagnostic(
        code(alokai::start::exited),
        help("see the lines above for the reason")
    )]
    Exited {
        /// How it ended, such as `exited with code 3`.
        ended: Box<str>,
        /// The server.
        app: Box<FailedServer>,
    },
    /// The app did not answer in time.
    #[error(
        "`{}` did not answer on port {port} within {seconds} s; {}{app}",
        app.command,
        listens(listens_on.as_deref())
    )]
    #[diagnostic(
        code(alokai::start::silent),
        help("{}", advice(port_names, listens_on.as_deref().unwrap_or_default()))
    )]
    Silent {
        /// The time limit.
        seconds: u64,
        /// The port on which it had to listen.
        port: u16,
        /// The names of the variables that have the port.
        port_names: Vec<String>,
        /// The ports on which it listens; none if that cannot be found out.
        listens_on: Option<Vec<u16>>,
        /// The app.
        app: Box<FailedServer>,
    },
    /// The engine does not have an image, and cannot pull it.
    #[error("the image `{reference}` cannot be pulled: {message}")]
    #[diagnostic(
        code(alokai::start::no_image),
        help(
            "push it (`alokai store deploy --until push`), or make it on this machine (`alokai store deploy --builder docker --until image`)"
        )
    )]
    NoImage {
        /// The image.
        reference: String,
        /// The engine's message.
        message: String,
    },
    /// Another container has the name.
    #[error("there is a container `{name}` of another project")]
    #[diagnostic(
        code(alokai::start::container_exists),
        help("end the other run, or remove the container: `docker rm --force {name}`")
    )]
    ContainerExists {
        /// The name.
        name: String,
    },
    /// The Docker engine reports an error.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Docker(#[from] docker::Error),
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

fn advice(port_names: &[String], ports: &[u16]) -> String {
    let given = port_names.iter().map(|name| format!("`{name}`"));
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

/// A server that ended, or that does not answer.
#[derive(Debug)]
pub struct FailedServer {
    /// Program and arguments.
    pub command: String,
    /// The names of the variables that alokai has set.
    pub variables: Vec<String>,
    /// Its last lines.
    pub tail: Vec<String>,
    /// The file with its whole output.
    pub log: PathBuf,
}

impl std::fmt::Display for FailedServer {
    /// The end of an error message: the last lines, and the file with the whole output.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (tail, log) = (quote(&self.tail), self.log.display());
        write!(f, "\n{tail}\n  the whole output is in {log}")
    }
}
