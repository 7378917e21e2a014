//! The errors of stages: what was being done, with which file or unit, and what to do next.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use miette::Diagnostic;

use super::lock::Session;
use super::{base, build, docker, hooks, prune, skip, start};
use crate::event::{EventSubject, Stage};
use crate::registry;
use crate::store::{StoreId, UnitId};
use oci;

/// Why a run failed.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum Error {
    /// Units failed.
    #[error("{}", count(failures))]
    #[diagnostic(code(alokai::pipeline::failed))]
    Failed {
        /// Each with its unit.
        #[related]
        failures: Vec<Failure>,
    },
    /// Checks before the first build failed.
    #[error("{} before anything was built", if problems.len() == 1 { "a check failed" } else { "checks failed" })]
    #[diagnostic(code(alokai::pipeline::preflight))]
    Preflight {
        /// All failed checks.
        #[related]
        problems: Vec<StageError>,
    },
    /// The user interrupted it.
    #[error("interrupted in stage `{stage}`; all child processes have ended")]
    #[diagnostic(
        code(alokai::pipeline::interrupted),
        help(
            "run the same command again; composed files are kept, and interrupted scripts are started again"
        )
    )]
    Interrupted {
        /// The stage.
        stage: Stage,
        /// Units that failed before.
        #[related]
        failures: Vec<Failure>,
    },
    /// Another program keeps `.out` of the project in step.
    #[error("{} keeps `.out` of `{}` in step already", session.as_deref().map_or_else(|| "another process".into(), named), project.display())]
    #[diagnostic(
        code(alokai::pipeline::session),
        help("use that program, or end it with Ctrl-C in its terminal")
    )]
    Session {
        /// The project.
        project: PathBuf,
        /// The other program, if it is known.
        session: Option<Box<Session>>,
    },
    /// A script is to run in a folder in which a development server runs.
    #[error(
        "{} runs development servers of {} in the folders that this command changes",
        named(session),
        quoted(stores)
    )]
    #[diagnostic(
        code(alokai::pipeline::served),
        help("end that program with Ctrl-C in its terminal first, or name other stores")
    )]
    Served {
        /// The program.
        session: Box<Session>,
        /// The stores of both.
        stores: Vec<StoreId>,
    },
    /// A file operation failed outside of a unit.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Io(#[from] Io),
    /// An image layout cannot be read or written.
    #[error(transparent)]
    #[diagnostic(help("{}", _0.help()))]
    Oci(#[from] oci::Error),
}

fn named(session: &Session) -> String {
    let Session {
        command,
        pid,
        since,
        ..
    } = session;
    format!("`alokai {command}` (pid {pid}, since {since})")
}

fn quoted(stores: &[StoreId]) -> String {
    let stores: Vec<_> = stores.iter().map(|store| format!("`{store}`")).collect();
    stores.join(", ")
}

fn count(failures: &[Failure]) -> String {
    match failures {
        [one] => format!("`{}` failed in stage `{}`", one.unit, one.unit.stage),
        several => format!("{} units failed", several.len()),
    }
}

/// The last lines of a child process, indented.
pub fn quote(lines: &[String]) -> String {
    if lines.is_empty() {
        return "  (no output)".into();
    }
    let lines: Vec<_> = lines.iter().map(|line| format!("  │ {line}")).collect();
    lines.join("\n")
}

/// One unit's failure.
#[derive(Debug)]
pub struct Failure {
    /// The unit and the stage.
    pub unit: EventSubject,
    /// Why.
    pub error: StageError,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.unit, self.error)
    }
}

impl std::error::Error for Failure {
    // The message contains the error already, so its cause comes next.
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.error.source()
    }
}

impl Diagnostic for Failure {
    fn code<'a>(&'a self) -> Option<Box<dyn std::fmt::Display + 'a>> {
        self.error.code()
    }

    fn help<'a>(&'a self) -> Option<Box<dyn std::fmt::Display + 'a>> {
        self.error.help()
    }
}

/// The error of a unit in a stage.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum StageError {
    /// The task failed.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Build(#[from] build::Error),
    /// The app cannot be pruned.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Prune(#[from] prune::Error),
    /// The app cannot be started.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Start(#[from] start::Error),
    /// A hook failed.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Hook(#[from] hooks::Error),
    /// The Docker engine reports an error.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Docker(#[from] docker::Error),
    /// The registry reports an error.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Registry(#[from] registry::Error),
    /// An image layout cannot be read or written.
    #[error(transparent)]
    #[diagnostic(help("{}", _0.help()))]
    Oci(#[from] oci::Error),
    /// The Dockerfile cannot be carried out by this program.
    #[error(transparent)]
    #[diagnostic(help("{}", _0.help()))]
    Dockerfile(#[from] oci::dockerfile::Error),
    /// A base image cannot be resolved.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Base(#[from] base::BaseUnavailable),
    /// A base image has no shell for an entrypoint script.
    #[error(transparent)]
    #[diagnostic(transparent)]
    NoShell(#[from] base::NoShell),
    /// The tag belongs to another image.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Taken(#[from] skip::TagConflict),
    /// The store cannot be made live.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Deploy(#[from] DeployError),
    /// A file operation failed.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Io(#[from] Io),
}

impl From<oci_distribution::Error> for StageError {
    fn from(error: oci_distribution::Error) -> Self {
        Self::Registry(error.into())
    }
}

impl StageError {
    /// Whether the user interrupted the unit.
    pub fn is_interruption(&self) -> bool {
        matches!(
            self,
            Self::Build(build::Error::Interrupted)
                | Self::Hook(hooks::Error::Interrupted)
                | Self::Start(start::Error::Interrupted)
                | Self::Docker(docker::Error::Interrupted)
                | Self::Registry(registry::Error::Interrupted)
                | Self::Deploy(DeployError {
                    fault: DeployFault::Interrupted,
                    ..
                })
        )
    }
}

/// What an error of a release means for the exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeployFault {
    /// The work failed: what runs is not what was asked for.
    Work,
    /// The input is wrong.
    Input,
    /// Something outside is out of reach.
    Unreachable,
    /// The user interrupted it.
    Interrupted,
}

/// An error of a target or a release. Their rooms are above this one, so their types are not known here.
#[derive(Debug)]
pub struct DeployError {
    /// The error.
    pub error: Box<dyn Diagnostic + Send + Sync>,
    /// What it means for the exit code.
    pub fault: DeployFault,
}

impl DeployError {
    /// Wraps an error.
    pub fn new(error: impl Diagnostic + Send + Sync + 'static, fault: DeployFault) -> Self {
        Self {
            error: Box::new(error),
            fault,
        }
    }
}

impl std::fmt::Display for DeployError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.error.fmt(f)
    }
}

impl std::error::Error for DeployError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.error.source()
    }
}

impl Diagnostic for DeployError {
    fn code<'a>(&'a self) -> Option<Box<dyn std::fmt::Display + 'a>> {
        self.error.code()
    }

    fn help<'a>(&'a self) -> Option<Box<dyn std::fmt::Display + 'a>> {
        self.error.help()
    }
}

/// The results of a stage, by unit.
pub struct StageResult<T> {
    /// Products.
    pub done: Vec<T>,
    /// Failures.
    pub failed: Vec<Failure>,
    /// Units that were skipped because of other units.
    pub skipped: Vec<UnitId>,
    /// Workspace packages that were built. Only the build stage has them.
    pub packages: Vec<build::BuiltPackage>,
    /// Hints for the user about settings that make the next run faster.
    pub hints: Vec<String>,
}

impl<T> Default for StageResult<T> {
    fn default() -> Self {
        Self {
            done: Vec::new(),
            failed: Vec::new(),
            skipped: Vec::new(),
            packages: Vec::new(),
            hints: Vec::new(),
        }
    }
}

impl<T> StageResult<T> {
    /// Adds the result of one unit.
    pub fn add(&mut self, unit: EventSubject, result: Result<T, StageError>) {
        match result {
            Ok(product) => self.done.push(product),
            Err(error) => self.failed.push(Failure { unit, error }),
        }
    }
}

impl<T> FromIterator<(EventSubject, Result<T, StageError>)> for StageResult<T> {
    fn from_iter<I: IntoIterator<Item = (EventSubject, Result<T, StageError>)>>(
        results: I,
    ) -> Self {
        let mut settled = Self::default();
        for (unit, result) in results {
            settled.add(unit, result);
        }
        settled
    }
}

/// A failed file operation, with its path.
#[derive(Debug, thiserror::Error)]
#[error("cannot {doing} `{}`", path.display())]
pub struct Io {
    /// The operation, such as `write`.
    pub doing: &'static str,
    /// The path.
    pub path: PathBuf,
    /// The cause.
    pub source: std::io::Error,
}

impl Io {
    /// Makes the error; for `map_err`.
    pub fn at(doing: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self {
            doing,
            path,
            source,
        }
    }
}

impl Diagnostic for Io {
    fn code<'a>(&'a self) -> Option<Box<dyn std::fmt::Display + 'a>> {
        Some(Box::new(match self.source.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => "alokai::disk_full",
            _ => "alokai::io",
        }))
    }

    fn help<'a>(&'a self) -> Option<Box<dyn std::fmt::Display + 'a>> {
        Some(match self.source.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Box::new(
                "the disk is full: free some space (`docker system prune`, old folders in `.out`) and run again; `.out` has not changed",
            ),
            ErrorKind::PermissionDenied => {
                Box::new("check the owner and the permissions of the file and its folder")
            }
            ErrorKind::ReadOnlyFilesystem => {
                Box::new("move the project to a file system that is not read-only")
            }
            ErrorKind::IsADirectory | ErrorKind::DirectoryNotEmpty | ErrorKind::NotADirectory => {
                Box::new(
                    "a file or folder from a build already exists at this path; remove it and run again",
                )
            }
            _ => Box::new("check the path; if another program changed it meanwhile, run again"),
        })
    }
}
