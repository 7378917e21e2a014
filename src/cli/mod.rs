//! The command line: options and environment variables become values, and results become output.

mod add;
mod arguments;
mod ask_targets;
mod build;
mod builds;
mod builds_prune;
mod builds_running;
mod builds_transfer;
mod cache;
mod changed;
mod check;
mod clean;
mod completions;
mod compose;
mod deploy_settings;
mod dev;
mod diff;
mod doctor;
mod domains;
mod drift;
mod edit;
mod environment;
mod error;
mod events;
mod flatten;
mod history;
mod init;
mod keys;
mod killed_runs;
mod list;
mod listing;
mod live_records;
mod locks;
mod logs;
mod maintenance;
mod make_live;
mod man;
mod manifests;
mod one_store;
mod operation;
mod overlays;
mod overriding;
mod questions;
mod record;
mod release_diff;
mod releases;
mod releases_prune;
mod releasing;
mod relocate;
mod remove;
mod rename;
mod resume;
mod run;
mod sandbox;
mod services;
mod serving;
mod settings;
mod shared_records;
mod show;
mod start;
mod stat;
mod status;
mod stop;
mod store_targets;
mod test;
mod why;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;

pub use arguments::Arguments;
use arguments::{Command, Global, StoreCommand};
use environment::{Environment, tell};
pub use error::Error;

use crate::config::Project;
use crate::error::{Error as AnyError, Exit};
use crate::pipeline::{self, ProjectLock};
use crate::serve;

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
        // A command that prints until it is ended has not failed.
        Err(AnyError::Cli(Error::Stopped)) => ExitCode::from(Exit::Interrupted as u8),
        // The user knows why, so there is no code and no help.
        Err(AnyError::Serve(error @ serve::Error::Interrupted)) => {
            tell(&error.to_string());
            ExitCode::from(Exit::Interrupted as u8)
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
        Command::Local(options) => return stop::background(options),
    };
    match &store.command {
        StoreCommand::List(options) => list::list(global, options),
        StoreCommand::Compose(options) => compose::compose(global, options),
        StoreCommand::Dev(options) => dev::dev(global, options),
        StoreCommand::Build(options) => build::build(global, options),
        StoreCommand::Builds(options) => builds::builds(global, options),
        StoreCommand::Releases(options) => releases::releases(global, options),
        StoreCommand::History(options) => history::history(global, options),
        StoreCommand::Status(options) => status::status(global, options),
        StoreCommand::Logs(options) => logs::logs(global, options),
        StoreCommand::Lock(options) => locks::locks(global, &options.command),
        StoreCommand::Maintenance(options) => maintenance::maintenance(global, &options.command),
        StoreCommand::Settings(options) => settings::settings(global, &options.command),
        StoreCommand::Release(options) => make_live::release(global, options),
        StoreCommand::Rollback(options) => make_live::rollback(global, options),
        StoreCommand::Unpin(options) => make_live::unpin(global, options),
        StoreCommand::Unstage(options) => make_live::unstage(global, options),
        StoreCommand::Manifests(options) => manifests::manifests(global, options),
        StoreCommand::Run(options) => build::run_script(global, options),
        StoreCommand::Deploy(options) => build::deploy(global, options),
        StoreCommand::Start(options) => start::start(global, options),
        StoreCommand::Stop(options) => stop::stop(global, options),
        StoreCommand::Test(options) => test::test(global, options),
        StoreCommand::Changed(options) => changed::changed(global, options),
        StoreCommand::Diff(options) => diff::diff(global, options),
        StoreCommand::Drift(options) => drift::drift(global, options),
        StoreCommand::Overlays(options) => overlays::overlays(global, options),
        StoreCommand::Check(options) => check::check(global, options),
        StoreCommand::Clean => clean::clean(global),
        StoreCommand::Why(options) => why::why(global, options),
        StoreCommand::Override(options) => overriding::override_files(global, options),
        StoreCommand::Flatten(options) => flatten::flatten(global, options),
        StoreCommand::Add(options) => add::add(global, options),
        StoreCommand::Move(options) => relocate::relocate(global, options),
        StoreCommand::Remove(options) => remove::remove(global, options),
        StoreCommand::Rename(options) => rename::rename(global, options),
    }
}

/// The folder of the project of the command line, without a half-made edit.
fn root(global: &Global) -> Result<PathBuf, AnyError> {
    let start = environment::start(global.cwd.as_deref())?;
    let root = Project::root_of(&start)?;
    settle(&root)?;
    Ok(root)
}

/// The project of the command line.
fn project(global: &Global) -> Result<(Project, Environment), AnyError> {
    let project = Project::load(&root(global)?)?;
    let environment = Environment::load(&project.root)?;
    Ok((project, environment))
}

/// Undoes or completes an edit of the tree whose process was killed, and says so. Without this, the
/// project could be read half-edited.
fn settle(root: &Path) -> Result<(), AnyError> {
    const PAUSE: Duration = Duration::from_millis(50);
    const PAUSES: usize = 200;
    for attempt in 0.. {
        if !crate::edit::is_interrupted(root) {
            break;
        }
        match ProjectLock::take_now(root) {
            Ok(lock) => {
                if let Some(recovery) = lock.recovery() {
                    tell(&format!("note: {recovery}"));
                }
            }
            // Another process is making its edit, which takes less than a second.
            Err(error) if is_locked(&error) && attempt < PAUSES => std::thread::sleep(PAUSE),
            Err(error) => return Err(pipeline::Error::from(error).into()),
        }
    }
    Ok(())
}

/// Takes the project's lock. Waits for another run, and says so.
fn lock(root: &Path) -> Result<ProjectLock, AnyError> {
    let mut is_told = false;
    loop {
        match ProjectLock::take_now(root) {
            Err(error) if is_locked(&error) => {
                if !is_told {
                    tell(&format!("waiting for another run to end: {}", error.source));
                    is_told = true;
                }
                std::thread::sleep(Duration::from_millis(100));
            }
            Ok(lock) => return Ok(lock),
            Err(error) => return Err(pipeline::Error::from(error).into()),
        }
    }
}

fn is_locked(error: &pipeline::Io) -> bool {
    error.source.kind() == std::io::ErrorKind::WouldBlock
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
