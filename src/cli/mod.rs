//! The command line: options and environment variables become values, and results become output.

mod arguments;
mod build;
mod builds;
mod cache;
mod changed;
mod check;
mod clean;
mod completions;
mod compose;
mod diff;
mod doctor;
mod drift;
mod environment;
mod init;
mod list;
mod man;
mod record;
mod run;
mod sandbox;
mod shared_records;
mod show;
mod stat;
mod why;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use miette::Diagnostic;

pub use arguments::Arguments;
use arguments::{Command, Global, StoreCommand};
use environment::Environment;

use crate::compare::OverrideState;
use crate::config::Project;
use crate::error::Error as AnyError;

/// Errors of the command line, the environment and standard output.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum Error {
    /// The folder given with `--cwd` does not exist or is not a folder.
    #[error("`{}` is not a folder", path.display())]
    #[diagnostic(
        code(alokai::cli::cwd),
        help("set `--cwd` to the folder of a project, or to a folder in it")
    )]
    Cwd {
        /// As given.
        path: PathBuf,
    },
    /// `.env` cannot be read.
    #[error("cannot read `{}`", path.display())]
    #[diagnostic(code(alokai::cli::env_file), help("check the permissions of the file"))]
    EnvFile {
        /// The file.
        path: PathBuf,
        /// The error of the system.
        source: std::io::Error,
    },
    /// `--cloud-password-stdin` is given, but standard input is empty.
    #[error("`--cloud-password-stdin` is given, but standard input has no password")]
    #[diagnostic(
        code(alokai::cli::password),
        help(
            "pipe the password in: `echo \"$PASSWORD\" | alokai store deploy … --cloud-password-stdin`"
        )
    )]
    NoPassword,
    /// `compose --check` found differences.
    #[error("`.out` is not up to date; files to write: {write}, files to remove: {remove}")]
    #[diagnostic(
        code(alokai::cli::differs),
        help("run the same command without `--check` to update `.out`")
    )]
    Differs {
        /// Files to write.
        write: usize,
        /// Files to remove.
        remove: usize,
    },
    /// `drift --fail-on` found overrides.
    #[error("{}", overrides(*count, *standing))]
    #[diagnostic(code(alokai::cli::drift), help("{}", help_for(*standing)))]
    Drift {
        /// How many.
        count: usize,
        /// Their kind.
        standing: OverrideState,
    },
    /// `drift --fail-on` cannot tell, since the clone is shallow.
    #[error("the history of this clone starts after {} made, so `drift` cannot determine whether an override is behind", if *count == 1 { "1 override was".to_owned() } else { format!("{count} overrides were") })]
    #[diagnostic(
        code(alokai::cli::history_ends),
        help(
            "fetch the whole history: `git fetch --unshallow` (actions/checkout: `fetch-depth: 0`; GitLab: `GIT_DEPTH: 0`)"
        )
    )]
    HistoryEnds {
        /// How many.
        count: usize,
    },
    /// `check` found problems.
    #[error("found {count} {}", if *count == 1 { "problem" } else { "problems" })]
    #[diagnostic(
        code(alokai::cli::findings),
        help("each problem is listed above, with its place and how to fix it")
    )]
    Findings {
        /// How many.
        count: usize,
    },
    /// A merge has conflicts.
    #[error("`{path}` was merged with {count} {}", if *count == 1 { "conflict" } else { "conflicts" })]
    #[diagnostic(
        code(alokai::cli::conflicts),
        help("resolve the conflicts between `<<<<<<<` and `>>>>>>>`, then commit the file")
    )]
    Conflicts {
        /// The override.
        path: String,
        /// How many.
        count: usize,
    },
    /// The cache cannot be read or written.
    #[error("{source}")]
    #[diagnostic(
        code(alokai::cli::cache),
        help("check the permissions of `.alokai/cache`; it is safe to remove the whole folder")
    )]
    Cache {
        /// The cause.
        source: crate::cache::Error,
    },
    /// A store does not exist.
    #[error("there is no store `{}`", id.escape_debug())]
    #[diagnostic(code(alokai::cli::no_store), help("{}", nearest.as_ref().map_or_else(|| "`alokai store list` lists the stores".into(), |near| format!("did you mean `{near}`?"))))]
    NoStore {
        /// As given.
        id: String,
        /// The nearest one.
        nearest: Option<String>,
    },
    /// A file cannot be written.
    #[error("cannot write `{}`", path.display())]
    #[diagnostic(
        code(alokai::cli::write),
        help("check the permissions, and that the disk is not full")
    )]
    Write {
        /// The file.
        path: PathBuf,
        /// The error of the system.
        source: std::io::Error,
    },
    /// `init` needs a confirmation, but standard input is not a terminal.
    #[error(
        "`init` cannot ask for confirmation, because standard input is not a terminal; no file was changed"
    )]
    #[diagnostic(
        code(alokai::cli::unconfirmed),
        help("read the changes above, then run the command again with `--yes`")
    )]
    Unconfirmed,
    /// `doctor` found problems.
    #[error("a deploy to the console is not possible: {count} {}", if *count == 1 { "problem" } else { "problems" })]
    #[diagnostic(
        code(alokai::cli::not_ready),
        help("each problem is listed above, with what to do next")
    )]
    NotReady {
        /// The number of problems.
        count: usize,
        /// Whether the config or the command line is wrong.
        is_input: bool,
    },
    /// Standard output is closed.
    #[error("cannot write to standard output")]
    #[diagnostic(code(alokai::cli::output))]
    Output {
        /// The error of the system.
        source: std::io::Error,
    },
    /// A script cannot be started in its sandbox. The parent process reads the reason from a file.
    #[error("cannot start a script in its sandbox: {reason}")]
    #[diagnostic(
        code(alokai::cli::sandbox),
        help("this command is internal; use `alokai store build --sandbox`")
    )]
    Sandbox {
        /// The reason.
        reason: String,
    },
    /// The asynchronous runtime or the signal handlers cannot be set up.
    #[error("cannot set up threads and signal handlers: {source}")]
    #[diagnostic(
        code(alokai::cli::start),
        help("check the limits of your user: `ulimit -a`")
    )]
    Start {
        /// The error of the system.
        source: std::io::Error,
    },
}

fn overrides(count: usize, standing: OverrideState) -> String {
    match (count, standing) {
        (1, OverrideState::Orphan) => "1 override is an orphan".into(),
        (count, OverrideState::Orphan) => format!("{count} overrides are orphans"),
        (1, standing) => format!("1 override is {standing}"),
        (count, standing) => format!("{count} overrides are {standing}"),
    }
}

fn help_for(standing: OverrideState) -> &'static str {
    match standing {
        OverrideState::Orphan => "remove the override, or move it to the new place of the file",
        OverrideState::Identical => "remove the override: the store inherits the same file",
        OverrideState::Behind | OverrideState::Current => {
            "run `alokai store drift --patch` to show the missed changes, or `--merge <path>` to merge them"
        }
    }
}

/// Parses the command line, runs the command and prints its error. The exit code tells the kind
/// of the error.
pub fn main() -> ExitCode {
    environment::started();
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // `--help` and `--version` are errors for clap too.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    match dispatch(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        // A reader that closes the pipe is not an error: `alokai store list | head`.
        Err(AnyError::Cli(Error::Output { source }))
            if source.kind() == std::io::ErrorKind::BrokenPipe =>
        {
            ExitCode::SUCCESS
        }
        Err(error) => {
            let exit = error.exit();
            environment::print_error(error);
            ExitCode::from(exit as u8)
        }
    }
}

fn dispatch(arguments: &Arguments) -> Result<(), AnyError> {
    let global = &arguments.global;
    let store = match &arguments.command {
        Command::Store(store) => store,
        Command::Cache(options) => return cache::cache(global, &options.command),
        Command::Completions(options) => return completions::completions(options),
        Command::Complete(options) => return completions::candidates(options),
        Command::Man(options) => return man::write(&options.folder),
        Command::Init(options) => return init::init(global, options),
        Command::Doctor(options) => return doctor::doctor(global, options),
        Command::Sandbox(options) => return sandbox::execute(options),
    };
    match &store.command {
        StoreCommand::List(options) => list::list(global, options),
        StoreCommand::Compose(options) => compose::compose(global, options),
        StoreCommand::Build(options) => build::build(global, options),
        StoreCommand::Builds(options) => builds::builds(global, options),
        StoreCommand::Run(options) => build::run_script(global, options),
        StoreCommand::Deploy(options) => build::deploy(global, options),
        StoreCommand::Changed(options) => changed::changed(global, options),
        StoreCommand::Diff(options) => diff::diff(global, options),
        StoreCommand::Drift(options) => drift::drift(global, options),
        StoreCommand::Check(options) => check::check(global, options),
        StoreCommand::Clean => clean::clean(global),
        StoreCommand::Why(options) => why::why(global, options),
    }
}

/// The project of the command line.
fn project(global: &Global) -> Result<(Project, Environment), AnyError> {
    let start = environment::start(global.cwd.as_deref())?;
    let project = Project::find(&start)?;
    let environment = Environment::load(&project.root)?;
    Ok((project, environment))
}

/// Writes text to standard output.
fn answer(text: &str) -> Result<(), AnyError> {
    answer_bytes(text.as_bytes())
}

/// Writes bytes that may not be UTF-8 to standard output.
fn answer_bytes(bytes: &[u8]) -> Result<(), AnyError> {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    out.write_all(bytes)
        .and_then(|()| out.flush())
        .map_err(|source| Error::Output { source }.into())
}
