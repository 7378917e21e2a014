//! The one place that maps errors to exit codes.

use miette::Diagnostic;

use crate::pipeline::{self, BuildError, DeployFault, HookError, StageError, StartError};
use crate::registry::Error as RegistryError;
use crate::{
    cli, compare, config, edit, git, init, ledger, overlay, plan, proxy, release, serve, watch,
};
use oci_distribution::Error as ClientError;

/// Everything that a command can fail with.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum Error {
    /// The config or the folders are not valid.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Config(#[from] config::Error),
    /// The plan cannot be made.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Plan(#[from] plan::Error),
    /// A store cannot be composed.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Overlay(#[from] overlay::Error),
    /// Git failed.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Git(#[from] git::Error),
    /// A question about compositions cannot be answered.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Compare(#[from] compare::Error),
    /// A first config cannot be proposed or written.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Init(#[from] init::Error),
    /// The tree of stores cannot be edited.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Edit(#[from] edit::Error),
    /// Records cannot be read, or a record does not exist.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Ledger(Box<ledger::Error>),
    /// A store cannot be released.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Release(Box<release::Error>),
    /// A stage failed.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Pipeline(#[from] pipeline::Error),
    /// Servers failed.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Serve(#[from] serve::Error),
    /// The proxy of local domains cannot be started.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Proxy(#[from] proxy::Error),
    /// The command line or the environment is wrong.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Cli(#[from] cli::Error),
}

impl From<ledger::Error> for Error {
    fn from(error: ledger::Error) -> Self {
        Self::Ledger(Box::new(error))
    }
}

impl From<release::Error> for Error {
    fn from(error: release::Error) -> Self {
        Self::Release(Box::new(error))
    }
}

impl From<watch::Error> for Error {
    fn from(error: watch::Error) -> Self {
        match error {
            watch::Error::Config(error) => error.into(),
            watch::Error::Plan(error) => error.into(),
            watch::Error::Pipeline(error) => error.into(),
        }
    }
}

/// The exit codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// The work failed.
    Failed = 1,
    /// The input is wrong.
    Input = 2,
    /// Something outside is missing: git, Docker, the registry, the console, credentials.
    Surroundings = 3,
    /// The user interrupted the run.
    Interrupted = 130,
}

fn of_transfer(error: &ledger::BuildTransferError) -> Exit {
    match error {
        ledger::BuildTransferError::NoImages { .. }
        | ledger::BuildTransferError::NotPushed { .. }
        | ledger::BuildTransferError::Archive { .. }
        | ledger::BuildTransferError::NoApp { .. } => Exit::Input,
        ledger::BuildTransferError::Registry(_) => Exit::Surroundings,
        ledger::BuildTransferError::Gone { .. }
        | ledger::BuildTransferError::Files { .. }
        | ledger::BuildTransferError::File { .. } => Exit::Failed,
    }
}

impl Error {
    /// The exit code of this error.
    pub fn exit(&self) -> Exit {
        match self {
            Self::Config(_) => Exit::Input,
            Self::Plan(error) => of_plan(error),
            Self::Overlay(error) => of_overlay(error),
            Self::Git(error) => of_git(error),
            Self::Compare(error) => of_compare(error),
            Self::Init(error) => of_init(error),
            Self::Edit(error) => of_edit(error),
            Self::Ledger(error) => match &**error {
                ledger::Error::Folder(_)
                | ledger::Error::NoLog { .. }
                | ledger::Error::RunElsewhere { .. }
                | ledger::Error::NoOutput { .. } => Exit::Failed,
                ledger::Error::Transfer(error) => of_transfer(error),
                ledger::Error::Prefix(_)
                | ledger::Error::NotABuild { .. }
                | ledger::Error::NotARelease { .. }
                | ledger::Error::NotAnOperation { .. } => Exit::Input,
            },
            Self::Release(error) => match error.fault() {
                DeployFault::Work => Exit::Failed,
                DeployFault::Input => Exit::Input,
                DeployFault::Unreachable => Exit::Surroundings,
                DeployFault::Interrupted => Exit::Interrupted,
            },
            Self::Pipeline(error) => of_pipeline(error),
            Self::Serve(error) => of_serve(error),
            Self::Proxy(_) => Exit::Surroundings,
            Self::Cli(error) => match error {
                cli::Error::Differs { .. }
                | cli::Error::Drift { .. }
                | cli::Error::Findings { .. }
                | cli::Error::Conflicts { .. }
                | cli::Error::Write { .. }
                | cli::Error::Cache { .. }
                | cli::Error::Editor { .. }
                | cli::Error::Yaml { .. }
                | cli::Error::Output { .. } => Exit::Failed,
                cli::Error::Stopped => Exit::Interrupted,
                cli::Error::Start { .. }
                | cli::Error::HistoryEnds { .. }
                | cli::Error::NotSent { .. }
                | cli::Error::NotReady {
                    is_input: false, ..
                } => Exit::Surroundings,
                _ => Exit::Input,
            },
        }
    }
}

fn of_git(error: &git::Error) -> Exit {
    match error {
        git::Error::Revision { shallow: false, .. }
        | git::Error::Conflicted { .. }
        | git::Error::Submodule { .. } => Exit::Input,
        _ => Exit::Surroundings,
    }
}

fn of_compare(error: &compare::Error) -> Exit {
    match error {
        compare::Error::Overlay(error) => of_overlay(error),
        compare::Error::Git(error) => of_git(error),
        compare::Error::NoRepository { .. } => Exit::Surroundings,
        compare::Error::Read { .. } | compare::Error::Patch { .. } => Exit::Failed,
        compare::Error::App { .. }
        | compare::Error::Path { .. }
        | compare::Error::Project { .. }
        | compare::Error::Config(_)
        | compare::Error::NoStore { .. }
        | compare::Error::NoSuchApp { .. }
        | compare::Error::NoOverride { .. }
        | compare::Error::NothingInherited { .. }
        | compare::Error::BinaryMerge { .. }
        | compare::Error::Unresolved { .. }
        | compare::Error::Folder { .. }
        | compare::Error::Glob { .. } => Exit::Input,
    }
}

fn of_init(error: &init::Error) -> Exit {
    match error {
        init::Error::Configured { .. }
        | init::Error::Layout { .. }
        | init::Error::PipelineExists { .. }
        | init::Error::Config(_) => Exit::Input,
        init::Error::Git(error) => of_git(error),
        init::Error::Read { .. }
        | init::Error::Write { .. }
        | init::Error::Left { .. }
        | init::Error::Changed { .. } => Exit::Failed,
    }
}

fn of_edit(error: &edit::Error) -> Exit {
    match error {
        edit::Error::Overlay(error) => of_overlay(error),
        edit::Error::Compare(error) => of_compare(error),
        edit::Error::Git(error) => of_git(error),
        edit::Error::Io { .. } | edit::Error::Stuck { .. } | edit::Error::Changed { .. } => {
            Exit::Failed
        }
        _ => Exit::Input,
    }
}

fn of_plan(error: &plan::Error) -> Exit {
    match error {
        plan::Error::Git(_) => Exit::Surroundings,
        plan::Error::Overlay(error) => of_overlay(error),
        plan::Error::Read { .. } => Exit::Failed,
        _ => Exit::Input,
    }
}

fn of_overlay(error: &overlay::Error) -> Exit {
    match error {
        overlay::Error::Git(_) => Exit::Surroundings,
        overlay::Error::Read { .. } => Exit::Failed,
        overlay::Error::Files { .. } | overlay::Error::Rewrite { .. } => Exit::Input,
    }
}

fn of_pipeline(error: &pipeline::Error) -> Exit {
    match error {
        pipeline::Error::Interrupted { .. } => Exit::Interrupted,
        pipeline::Error::Preflight { problems } if problems.iter().any(is_input) => Exit::Input,
        pipeline::Error::Preflight { .. } => Exit::Surroundings,
        pipeline::Error::Failed { failures } => {
            // One failure of the work is enough for exit code 1.
            if failures
                .iter()
                .all(|failure| is_out_of_reach(&failure.error))
            {
                Exit::Surroundings
            } else {
                Exit::Failed
            }
        }
        pipeline::Error::Io(_)
        | pipeline::Error::Oci(_)
        | pipeline::Error::Session { .. }
        | pipeline::Error::Served { .. } => Exit::Failed,
    }
}

fn of_serve(error: &serve::Error) -> Exit {
    match error {
        serve::Error::Failed { failures } if failures.iter().all(|it| cannot_start(&it.error)) => {
            Exit::Surroundings
        }
        serve::Error::NotBuilt { .. } | serve::Error::NoTests => Exit::Input,
        serve::Error::Failed { .. }
        | serve::Error::Tests { .. }
        | serve::Error::Reporter { .. }
        | serve::Error::Io(_) => Exit::Failed,
        serve::Error::Interrupted => Exit::Interrupted,
    }
}

/// The user has to decide: a tag that is taken, an address without TLS, a
/// file of certificates that is none.
fn is_input(error: &StageError) -> bool {
    match error {
        StageError::Taken(_) | StageError::Hook(HookError::Folder { .. }) => true,
        StageError::Deploy(error) => error.fault == DeployFault::Input,
        StageError::Registry(error) => matches!(
            error,
            RegistryError::PlainHttp { .. }
                | RegistryError::Client(ClientError::Certificates { .. })
        ),
        _ => false,
    }
}

fn is_out_of_reach(error: &StageError) -> bool {
    match error {
        StageError::Build(error) => matches!(
            error,
            BuildError::Start { .. }
                | BuildError::NotInstalled { .. }
                | BuildError::NoSandbox { .. }
        ),
        StageError::Docker(error) => error.is_unreachable(),
        StageError::Registry(error) => matches!(
            error,
            RegistryError::Client(ClientError::Unreachable { .. })
                | RegistryError::NoCredentials { .. }
        ),
        StageError::Start(error) | StageError::Hook(HookError::Image(error)) => cannot_start(error),
        StageError::Hook(HookError::Engine { source, .. }) => source.is_unreachable(),
        StageError::Hook(HookError::Start { .. }) | StageError::Base(_) => true,
        StageError::Deploy(error) => error.fault == DeployFault::Unreachable,
        StageError::Prune(_)
        | StageError::Hook(_)
        | StageError::NoShell(_)
        | StageError::Io(_)
        | StageError::Oci(_)
        | StageError::Dockerfile(_)
        | StageError::Taken(_) => false,
    }
}

/// Whether the program or the image of an app is missing.
fn cannot_start(error: &StartError) -> bool {
    match error {
        StartError::Program { .. } | StartError::NoImage { .. } => true,
        StartError::Docker(error) => error.is_unreachable(),
        _ => false,
    }
}
