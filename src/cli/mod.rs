//! The edge: flags and environment become values, values become answers.

mod arguments;
mod build;
mod cache;
mod changed;
mod check;
mod clean;
mod compose;
mod diff;
pub mod dotenv;
mod drift;
mod environment;
mod list;
mod run;
mod sandbox;
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

use crate::compare::Standing;
use crate::config::Project;
use crate::error::Error as AnyError;

/// What can be wrong with the command line and the environment, and with standard output.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum Error {
    /// The folder given with `--cwd`.
    #[error("`{}` is no folder", path.display())]
    #[diagnostic(
        code(alokai::cli::cwd),
        help("`--cwd` takes the project's folder or one below it")
    )]
    Cwd {
        /// As given.
        path: PathBuf,
    },
    /// `.env` cannot be read.
    #[error("cannot read `{}`", path.display())]
    #[diagnostic(code(alokai::cli::env_file), help("check that you may read it"))]
    EnvFile {
        /// The file.
        path: PathBuf,
        /// The system's word.
        source: std::io::Error,
    },
    /// `--cloud-password-stdin` without a password there.
    #[error("`--cloud-password-stdin` is given, and standard input has no password")]
    #[diagnostic(
        code(alokai::cli::password),
        help("pipe it in: `echo \"$PASSWORD\" | alokai store deploy … --cloud-password-stdin`")
    )]
    NoPassword,
    /// `compose --check` found differences.
    #[error("`.out` differs from the composition: {write} to write, {remove} to remove")]
    #[diagnostic(
        code(alokai::cli::differs),
        help("write it: the same command without `--check`")
    )]
    Differs {
        /// Files to write.
        write: usize,
        /// Files to remove.
        remove: usize,
    },
    /// `drift --fail-on` found some.
    #[error("{}", overrides(*count, *standing))]
    #[diagnostic(code(alokai::cli::drift), help("{}", mend(*standing)))]
    Drift {
        /// How many.
        count: usize,
        /// How they stand.
        standing: Standing,
    },
    /// `drift --fail-on` found none, and cannot know.
    #[error("history ends before {} made, so whether they are behind is not known", if *count == 1 { "1 override was".to_owned() } else { format!("{count} overrides were") })]
    #[diagnostic(
        code(alokai::cli::history_ends),
        help(
            "bring the rest of it: `git fetch --unshallow` (actions/checkout: `fetch-depth: 0`; GitLab: `GIT_DEPTH: 0`)"
        )
    )]
    HistoryEnds {
        /// How many.
        count: usize,
    },
    /// `check` found something.
    #[error("{count} {} odd", if *count == 1 { "thing is" } else { "things are" })]
    #[diagnostic(
        code(alokai::cli::findings),
        help("each is listed with its place and its mend")
    )]
    Findings {
        /// How many.
        count: usize,
    },
    /// A merge that a person has to finish.
    #[error("`{path}` is merged with {count} {}", if *count == 1 { "conflict" } else { "conflicts" })]
    #[diagnostic(
        code(alokai::cli::conflicts),
        help("resolve what stands between `<<<<<<<` and `>>>>>>>`, then commit the file")
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
        help("check who owns `.alokai/cache`; it may be removed as a whole")
    )]
    Cache {
        /// What went wrong.
        source: crate::cache::Error,
    },
    /// A store that is not there.
    #[error("there is no store `{}`", id.escape_debug())]
    #[diagnostic(code(alokai::cli::no_store), help("{}", nearest.as_ref().map_or_else(|| "`alokai store list` shows them".into(), |near| format!("did you mean `{near}`?"))))]
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
        help("check that you may write it, and that there is room")
    )]
    Write {
        /// The file.
        path: PathBuf,
        /// The system's word.
        source: std::io::Error,
    },
    /// Standard output is gone.
    #[error("cannot write to standard output")]
    #[diagnostic(code(alokai::cli::output))]
    Output {
        /// The system's word.
        source: std::io::Error,
    },
    /// A script could not be started in its sandbox. The run that started it reads why from a file.
    #[error("cannot start a script in its sandbox: {reason}")]
    #[diagnostic(
        code(alokai::cli::sandbox),
        help("this command is alokai's own: use `alokai store build --sandbox`")
    )]
    Sandbox {
        /// Why.
        reason: String,
    },
    /// The asynchronous runtime or the signal handlers cannot be set up.
    #[error("cannot start: {source}")]
    #[diagnostic(
        code(alokai::cli::start),
        help("check the limits of this user: `ulimit -a`")
    )]
    Start {
        /// The system's word.
        source: std::io::Error,
    },
}

fn overrides(count: usize, standing: Standing) -> String {
    match (count, standing) {
        (1, Standing::Orphan) => "1 override is an orphan".into(),
        (count, Standing::Orphan) => format!("{count} overrides are orphans"),
        (1, standing) => format!("1 override is {standing}"),
        (count, standing) => format!("{count} overrides are {standing}"),
    }
}

fn mend(standing: Standing) -> &'static str {
    match standing {
        Standing::Orphan => "remove them too, or move them to where the file has gone",
        Standing::Identical => "remove them; the stores inherit the same",
        Standing::Behind | Standing::Current => {
            "`alokai store drift --patch` shows what was missed, `--merge <path>` takes it over"
        }
    }
}

/// Parses, runs, prints the error; the exit code says of which kind it was.
pub fn main() -> ExitCode {
    environment::started();
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // Help and version come this way too, and are no error.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    match dispatch(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        // Who closes our output has what he wanted (`alokai store list | head`).
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
        Command::Sandbox(options) => return sandbox::execute(options),
    };
    match &store.command {
        StoreCommand::List(options) => list::list(global, options),
        StoreCommand::Compose(options) => compose::compose(global, options),
        StoreCommand::Build(options) => build::build(global, options),
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

/// The project that the command line means.
fn project(global: &Global) -> Result<(Project, Environment), AnyError> {
    let start = environment::start(global.cwd.as_deref())?;
    let project = Project::find(&start)?;
    let environment = Environment::load(&project.root)?;
    Ok((project, environment))
}

/// Writes an answer to standard output.
fn answer(text: &str) -> Result<(), AnyError> {
    answer_bytes(text.as_bytes())
}

/// The same, for what may be no text.
fn answer_bytes(bytes: &[u8]) -> Result<(), AnyError> {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    out.write_all(bytes)
        .and_then(|()| out.flush())
        .map_err(|source| Error::Output { source }.into())
}
