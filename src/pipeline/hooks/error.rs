//! Why hooks fail.

use std::path::{Path, PathBuf};

use miette::Diagnostic;

use crate::pipeline::failure::{Io, quote};
use crate::pipeline::{docker, start};
use crate::plan::HookPlan;
use crate::store::AppName;

/// Why a hook failed.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum Error {
    /// It ended with an error, or not in time.
    #[error("{hook} {how}\n{}", quote(tail))]
    #[diagnostic(
        code(alokai::hook::failed),
        help(
            "full log: `{}`; with `\"onFailure\": \"continue\"` the store continues after a failure of this hook",
            log.display()
        )
    )]
    Failed {
        /// The hook.
        hook: Box<str>,
        /// How it ended.
        how: Box<str>,
        /// Its last lines.
        tail: Vec<String>,
        /// The file with its output.
        log: PathBuf,
    },
    /// Its program cannot be started.
    #[error("{hook} cannot be started")]
    #[diagnostic(
        code(alokai::hook::start),
        help(
            "check that `{program}` exists, that it can be executed, and that it is on the PATH or begins with `./`, relative to the project"
        )
    )]
    Start {
        /// The hook.
        hook: Box<str>,
        /// The program.
        program: String,
        /// The cause.
        source: std::io::Error,
    },
    /// A variable that it needs is not set.
    #[error("{hook} needs variables that are not set: {}", names.join(", "))]
    #[diagnostic(
        code(alokai::hook::variable),
        help(
            "set them in the environment or in the project's `.env`, or remove them from `env` of the hook; the credentials of alokai itself are never passed to hooks"
        )
    )]
    Variables {
        /// The hook.
        hook: Box<str>,
        /// The names.
        names: Vec<String>,
    },
    /// The store has no image of the app.
    #[error("{hook} runs in the image of `{app}`, and the store has no such image")]
    #[diagnostic(
        code(alokai::hook::no_image),
        help("set `app` of the hook to an app of which the store has an image")
    )]
    NoImage {
        /// The hook.
        hook: Box<str>,
        /// The app.
        app: AppName,
    },
    /// The images are in a folder, which no engine reads.
    #[error("{hook} runs in an image, and the images of this run are in the folder `{layout}`")]
    #[diagnostic(
        code(alokai::hook::folder),
        help(
            "a Docker engine runs the image, and it cannot read a folder: push to a registry, remove `\"in\": \"image\"` from the hook, or limit the hook by `stores`"
        )
    )]
    Folder {
        /// The hook.
        hook: Box<str>,
        /// The folder.
        layout: String,
    },
    /// The engine cannot be used.
    #[error("{hook} runs in an image: {source}")]
    #[diagnostic(
        code(alokai::hook::engine),
        help("{}", source.help().map(|help| help.to_string()).unwrap_or_default())
    )]
    Engine {
        /// The hook.
        hook: Box<str>,
        /// The cause.
        source: docker::Error,
    },
    /// The image cannot be pulled.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Image(#[from] start::Error),
    /// A log cannot be written.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Io(#[from] Io),
    /// The user interrupted the run.
    #[error("interrupted")]
    #[diagnostic(code(alokai::hook::interrupted))]
    Interrupted,
}

impl Error {
    /// The hook in a message.
    pub(super) fn name(hook: &HookPlan) -> Box<str> {
        let name = format!(
            "the hook `{}` ({} of `{}`)",
            hook.command_line(),
            hook.place(),
            hook.store
        );
        name.into()
    }

    pub(super) fn failed(hook: &HookPlan, how: String, tail: Vec<String>, log: &Path) -> Self {
        Self::Failed {
            hook: Self::name(hook),
            how: how.into(),
            tail,
            log: log.to_owned(),
        }
    }

    pub(super) fn start(hook: &HookPlan, source: std::io::Error) -> Self {
        Self::Start {
            hook: Self::name(hook),
            program: hook.command.first().cloned().unwrap_or_default(),
            source,
        }
    }

    pub(super) fn needs_registry(hook: &HookPlan, layout: &str) -> Self {
        Self::Folder {
            hook: Self::name(hook),
            layout: layout.to_owned(),
        }
    }

    pub(super) fn engine(hook: &HookPlan, source: docker::Error) -> Self {
        Self::Engine {
            hook: Self::name(hook),
            source,
        }
    }

    /// How the hook ended, in one line.
    pub(super) fn short(&self) -> String {
        match self {
            Self::Failed { how, .. } => how.to_string(),
            Self::Start { source, .. } => format!("cannot be started: {source}"),
            other => other.to_string(),
        }
    }
}
