//! Errors of the target `local`.

use std::path::PathBuf;

use miette::Diagnostic;

use crate::ledger::RecordId;
use crate::pipeline::{DeployFault, Io, StageError, StartError};
use crate::proxy;
use crate::store::StoreId;
use crate::target::hosts::HostTaken;

/// Why the target `local` cannot do something.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum Error {
    /// An image needs more than Node and its own layers.
    #[error("the image `{reference}` cannot run on this machine without containers: {reason}")]
    #[diagnostic(
        code(alokai::local::image),
        help(
            "use a Dockerfile that starts `node`, `sh` or a file of the app, and that runs no commands; or deploy the store to the target `docker`"
        )
    )]
    Image {
        /// The image.
        reference: String,
        /// What it needs.
        reason: String,
    },
    /// A host name that another store has.
    #[error(transparent)]
    #[diagnostic(transparent)]
    HostTaken(#[from] HostTaken),
    /// The background process was started by another version.
    #[error(
        "the background process of `{}` was started by another version of alokai", project.display()
    )]
    #[diagnostic(
        code(alokai::local::other_version),
        help("deploy again, which starts the stores of this project in a new process")
    )]
    OtherVersion {
        /// The project.
        project: PathBuf,
    },
    /// The background process does not answer.
    #[error("the background process of `{}` does not answer: {reason}", project.display())]
    #[diagnostic(
        code(alokai::local::process),
        help("see `{}` for the reason, then run the command again", log.display())
    )]
    Process {
        /// The project.
        project: PathBuf,
        /// What was tried.
        reason: String,
        /// Its output.
        log: PathBuf,
    },
    /// The background process could not do what it was asked for.
    #[error("{message}")]
    #[diagnostic(code(alokai::local::refused))]
    Refused {
        /// Its message.
        message: String,
        /// What to do next.
        #[help]
        help: Option<String>,
    },
    /// A message between this program and its background process is not valid.
    #[error("a message of the background process is not valid: {reason}")]
    #[diagnostic(
        code(alokai::local::protocol),
        help("run `alokai store stop`, then deploy again")
    )]
    Protocol {
        /// The error.
        reason: String,
    },
    /// A file of the target cannot be read.
    #[error("`{}` is damaged: {reason}", path.display())]
    #[diagnostic(
        code(alokai::local::damaged),
        help("remove the file, then deploy again")
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The error.
        reason: String,
    },
    /// A version of settings that cannot be a file name.
    #[error("`{}` is not a valid version of settings", version.escape_debug())]
    #[diagnostic(
        code(alokai::local::settings_version),
        help("use letters, digits, `-` and `_`")
    )]
    SettingsVersion {
        /// The version.
        version: String,
    },
    /// The settings of a release are missing.
    #[error("the settings of `{store}` in the version `{version}` are not on this machine")]
    #[diagnostic(
        code(alokai::local::no_settings),
        help("set them again with `alokai store settings set --store {store} --local`")
    )]
    NoSettings {
        /// The store.
        store: StoreId,
        /// The version.
        version: String,
    },
    /// A release is a copy of a release that was never staged here.
    #[error(
        "the values of the `.env` files of release `{}` are not on this machine", release.as_str()
    )]
    #[diagnostic(
        code(alokai::local::unknown_original),
        help(
            "the target `local` keeps them for the last 50 releases; deploy the commit of that release again"
        )
    )]
    UnknownOriginal {
        /// The release.
        release: RecordId,
    },
    /// A release that does not run cannot get traffic.
    #[error("release `{}` cannot get the traffic: it is not staged", release.as_str())]
    #[diagnostic(
        code(alokai::local::not_staged),
        help("run the command again, which stages the release first")
    )]
    NotStaged {
        /// The release.
        release: RecordId,
    },
    /// A release with traffic is not stopped.
    #[error("release `{}` cannot be stopped: it gets the traffic of its store", release.as_str())]
    #[diagnostic(
        code(alokai::local::gets_traffic),
        help("release another one first, or run `alokai store stop`")
    )]
    GetsTraffic {
        /// The release.
        release: RecordId,
    },
    /// The traffic was switched since it was observed.
    #[error("the traffic was switched by another run meanwhile")]
    #[diagnostic(code(alokai::local::out_of_sequence))]
    OutOfSequence,
    /// This machine has no Node.
    #[error("cannot run `node --version`")]
    #[diagnostic(
        code(alokai::local::node),
        help("install Node.js, and check that `node` is in `PATH`")
    )]
    Node {
        /// The error of the system.
        source: std::io::Error,
    },
    /// The proxy cannot be started.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Proxy(#[from] proxy::Error),
    /// An app cannot be started.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Start(#[from] StartError),
    /// A registry or an image fails.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Stage(Box<StageError>),
    /// A file operation failed.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Io(#[from] Io),
}

impl Error {
    /// What the error means for the exit code.
    pub fn fault(&self) -> DeployFault {
        match self {
            Self::Image { .. } | Self::SettingsVersion { .. } | Self::HostTaken(_) => {
                DeployFault::Input
            }
            Self::Node { .. } | Self::Proxy(_) => DeployFault::Unreachable,
            _ => DeployFault::Work,
        }
    }
}

impl From<StageError> for Error {
    fn from(error: StageError) -> Self {
        Self::Stage(Box::new(error))
    }
}

impl From<oci::Error> for Error {
    fn from(error: oci::Error) -> Self {
        StageError::from(error).into()
    }
}
