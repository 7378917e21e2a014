//! How stages fail: errors that carry what was being done, to what, and the next action.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use miette::Diagnostic;

use super::{base, build, deploy, docker, prune, skip};
use crate::event::{Stage, Unit};
use crate::registry;
use crate::store::UnitId;
use oci;

/// Why a run did not end well.
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
    /// Something that the run needs is not there; found before the first build.
    #[error("{} before anything was built", if problems.len() == 1 { "a check failed" } else { "checks failed" })]
    #[diagnostic(code(alokai::pipeline::preflight))]
    Preflight {
        /// Everything that is missing.
        #[related]
        problems: Vec<StageError>,
    },
    /// A person ended it.
    #[error("interrupted while `{stage}` ran; nothing is left running")]
    #[diagnostic(
        code(alokai::pipeline::interrupted),
        help(
            "run the same command again; what is composed stays, what was being built is built again"
        )
    )]
    Interrupted {
        /// The stage.
        stage: Stage,
        /// Units that had failed before.
        #[related]
        failures: Vec<Failure>,
    },
    /// The project's lock or a file under `.out` cannot be written.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Io(#[from] Io),
    /// Images on this machine's disk.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Oci(#[from] oci::Error),
}

fn count(failures: &[Failure]) -> String {
    match failures {
        [one] => format!("`{}` failed in stage `{}`", one.unit, one.unit.stage),
        several => format!("{} units failed", several.len()),
    }
}

/// The last lines of a child, set off from the message above them.
pub fn quote(lines: &[String]) -> String {
    if lines.is_empty() {
        return "  (it printed nothing)".into();
    }
    let lines: Vec<_> = lines.iter().map(|line| format!("  │ {line}")).collect();
    lines.join("\n")
}

/// One unit's failure.
#[derive(Debug)]
pub struct Failure {
    /// Which unit, in which stage.
    pub unit: Unit,
    /// Why.
    pub error: StageError,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.unit, self.error)
    }
}

impl std::error::Error for Failure {
    // The error is in the message already; what follows is its own cause.
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

/// Whatever a stage can fail with.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum StageError {
    /// A script.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Build(#[from] build::Error),
    /// `.deploy`.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Prune(#[from] prune::Error),
    /// The engine.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Docker(#[from] docker::Error),
    /// The registry.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Registry(#[from] registry::Error),
    /// Images on this machine's disk.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Oci(#[from] oci::Error),
    /// A Dockerfile that is carried out here.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Dockerfile(#[from] oci::dockerfile::Error),
    /// A base image.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Base(#[from] base::Missing),
    /// A tag that stands for something else.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Taken(#[from] skip::Taken),
    /// The console.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Console(#[from] deploy::Error),
    /// The disk.
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
    /// Whether a person ended the unit, and nothing else is wrong with it.
    pub fn is_interruption(&self) -> bool {
        matches!(
            self,
            Self::Build(build::Error::Interrupted)
                | Self::Docker(docker::Error::Interrupted)
                | Self::Registry(registry::Error::Interrupted)
        )
    }
}

/// What a stage did with each unit.
pub struct Settled<T> {
    /// Products.
    pub done: Vec<T>,
    /// Failures.
    pub failed: Vec<Failure>,
    /// Units that were not begun, because of others.
    pub skipped: Vec<UnitId>,
    /// What would save time the next time, for people.
    pub hints: Vec<String>,
}

impl<T> Default for Settled<T> {
    fn default() -> Self {
        Self {
            done: Vec::new(),
            failed: Vec::new(),
            skipped: Vec::new(),
            hints: Vec::new(),
        }
    }
}

impl<T> Settled<T> {
    /// Files one unit's result where it belongs.
    pub fn add(&mut self, unit: Unit, result: Result<T, StageError>) {
        match result {
            Ok(product) => self.done.push(product),
            Err(error) => self.failed.push(Failure { unit, error }),
        }
    }
}

impl<T> FromIterator<(Unit, Result<T, StageError>)> for Settled<T> {
    fn from_iter<I: IntoIterator<Item = (Unit, Result<T, StageError>)>>(results: I) -> Self {
        let mut settled = Self::default();
        for (unit, result) in results {
            settled.add(unit, result);
        }
        settled
    }
}

/// A file operation that failed, with what was being done to which path.
#[derive(Debug, thiserror::Error)]
#[error("cannot {doing} `{}`", path.display())]
pub struct Io {
    /// Such as `write`.
    pub doing: &'static str,
    /// To which path.
    pub path: PathBuf,
    /// The system's word.
    pub source: std::io::Error,
}

impl Io {
    /// For `map_err`.
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
                "the disk is full: free some space (`docker system prune`, old folders under `.out`) and run again; `.out` is as it was before",
            ),
            ErrorKind::PermissionDenied => Box::new("check who owns the file and its folder"),
            ErrorKind::ReadOnlyFilesystem => {
                Box::new("the project has to lie on a disk that can be written")
            }
            ErrorKind::IsADirectory | ErrorKind::DirectoryNotEmpty | ErrorKind::NotADirectory => {
                Box::new("something that a build made is in the way; remove it and run again")
            }
            _ => Box::new("check the path; if something else changed it meanwhile, run again"),
        })
    }
}
