//! The build stage: scripts in the order of the plan's tasks, as many at once as fit.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use miette::Diagnostic;
use tokio::task::JoinSet;

use super::compose::Workdir;
use super::context::Context;
use super::failure::{Failure, Io, Settled, StageError, quote};
use super::process::{self, Ended, Script, Trouble};
use crate::event::{Stage, Unit};
use crate::plan::{Plan, Subject, Task};
use crate::store::UnitId;

/// Memory that one running build is expected to need.
const MEMORY_PER_BUILD: u64 = 2 << 30;

/// A built app: its folder holds what its script made.
#[derive(Debug, Clone)]
pub struct Built {
    /// Where.
    pub workdir: Workdir,
    /// How long the script took.
    pub elapsed: Duration,
}

impl Built {
    /// Store and app.
    pub fn unit(&self) -> &UnitId {
        &self.workdir.unit
    }
}

/// Why a script did not end well.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum Error {
    /// It ended with an error.
    #[error("`{command}` {ended} in `{}`\n{}", folder.display(), quote(tail))]
    #[diagnostic(code(alokai::build::script), help("the whole log: `{}`", log.display()))]
    Script {
        /// As typed.
        command: String,
        /// Where.
        folder: PathBuf,
        /// Such as `exited with code 1`.
        ended: String,
        /// Its last lines.
        tail: Vec<String>,
        /// Everything that it printed.
        log: PathBuf,
    },
    /// It could not be started.
    #[error("cannot start `{command}` in `{}`", folder.display())]
    #[diagnostic(
        code(alokai::build::start),
        help("check that `{program}` is installed and on the PATH: `{program} --version`")
    )]
    Start {
        /// As typed.
        command: String,
        /// The program.
        program: String,
        /// Where.
        folder: PathBuf,
        /// The system's word.
        source: std::io::Error,
    },
    /// A person ended the run.
    #[error("interrupted")]
    #[diagnostic(code(alokai::build::interrupted))]
    Interrupted,
}

enum State {
    Waiting,
    Running,
    Done,
    /// Failed, or skipped because of the unit that it names.
    Lost(String),
}

/// Runs every task. Units above a failed one are skipped and say because of whom; without
/// `--keep-going` nothing new begins after a failure, and what runs may end.
pub async fn run(plan: &Plan, workdirs: Vec<Workdir>, context: &Arc<Context>) -> Settled<Built> {
    let mut settled = Settled::default();
    let is_composed = |task: &Task| match &task.subject {
        Subject::Unit(unit) => workdirs.iter().any(|workdir| workdir.unit == *unit),
        Subject::Package(_) => true,
    };
    // With `--keep-going`, a store that could not be composed has dropped out already.
    let state = |task| {
        if is_composed(task) {
            State::Waiting
        } else {
            State::Lost(task.subject.to_string())
        }
    };
    let mut states: Vec<State> = plan.tasks.iter().map(state).collect();
    let limit = plan.concurrency.unwrap_or_else(default_concurrency).max(1);
    let mut running = JoinSet::new();
    let mut stop_because: Option<String> = None;
    loop {
        for (index, task) in plan.tasks.iter().enumerate() {
            if !matches!(states[index], State::Waiting) {
                continue;
            }
            let lost = task.needs.iter().find_map(|need| match &states[*need] {
                State::Lost(because) => Some(because.clone()),
                _ => None,
            });
            let because = lost.or_else(|| stop_because.clone());
            if let Some(because) = because {
                skip(task, &because, context, &mut settled);
                states[index] = State::Lost(because);
            } else if running.len() < limit
                && task
                    .needs
                    .iter()
                    .all(|need| matches!(states[*need], State::Done))
            {
                states[index] = State::Running;
                let (plan_folder, task) = (plan.project.clone(), task.clone());
                let context = Arc::clone(context);
                running.spawn(async move { (index, one(&plan_folder, &task, &context).await) });
            }
        }
        let Some(joined) = running.join_next().await else {
            break;
        };
        let (index, result) = match joined {
            Ok(ended) => ended,
            // Tasks are never aborted, so this is a panic: a bug must not look like success.
            Err(crashed) => std::panic::resume_unwind(crashed.into_panic()),
        };
        let task = &plan.tasks[index];
        match result {
            Ok(elapsed) => {
                states[index] = State::Done;
                if let Subject::Unit(unit) = &task.subject
                    && let Some(workdir) = workdirs.iter().find(|workdir| workdir.unit == *unit)
                {
                    settled.done.push(Built {
                        workdir: workdir.clone(),
                        elapsed,
                    });
                }
            }
            Err(error) => {
                let name = task.subject.to_string();
                if !context.keep_going || context.interrupt.stopped() {
                    stop_because = Some(name.clone());
                }
                states[index] = State::Lost(name);
                settled.failed.push(Failure {
                    unit: event_unit(task),
                    error,
                });
            }
        }
    }
    // In the plan's order, whatever ended first.
    let order: Vec<_> = plan
        .compositions()
        .map(|composition| &composition.unit)
        .collect();
    settled
        .done
        .sort_by_key(|built| order.iter().position(|unit| *unit == built.unit()));
    settled
}

fn event_unit(task: &Task) -> Unit {
    match &task.subject {
        Subject::Package(name) => Unit::package(Stage::Build, name),
        Subject::Unit(unit) => Unit::app(Stage::Build, unit),
    }
}

fn skip(task: &Task, because: &str, context: &Context, settled: &mut Settled<Built>) {
    if let Subject::Unit(unit) = &task.subject {
        settled.skipped.push(unit.clone());
    }
    context.skip(event_unit(task), because);
}

async fn one(
    project: &std::path::Path,
    task: &Task,
    context: &Context,
) -> Result<Duration, StageError> {
    let unit = event_unit(task);
    let folder = project.join(&task.folder);
    let name = match &task.subject {
        Subject::Package(name) => format!("packages/{}", name.replace('/', "+")),
        Subject::Unit(unit) => unit.to_string(),
    };
    let log = project
        .join(".alokai/logs/build")
        .join(format!("{name}.log"));
    let span = context.events.begin(&unit);
    for output in &task.outputs {
        if let Err(error) = remove(&folder.join(output)) {
            span.end(Err(error.to_string()));
            return Err(error.into());
        }
    }
    let script = Script {
        unit: &unit,
        command: &task.command,
        folder: &folder,
        log: log.clone(),
    };
    let command = || task.command.join(" ");
    let result = match process::run(script, context).await {
        Ok(Ended { status, .. }) if status.success() => Ok(()),
        Ok(Ended { status, tail }) => Err(StageError::from(Error::Script {
            command: command(),
            folder,
            ended: describe(status),
            tail,
            log,
        })),
        Err(Trouble::Start(source)) => Err(Error::Start {
            command: command(),
            program: task.command.first().cloned().unwrap_or_default(),
            folder,
            source,
        }
        .into()),
        Err(Trouble::Log(error)) => Err(error.into()),
        Err(Trouble::Interrupted) => Err(Error::Interrupted.into()),
    };
    let message = result.as_ref().map(|()| None).map_err(ToString::to_string);
    let elapsed = span.end(message);
    result.map(|()| elapsed)
}

/// Removes a file, a link or a folder with all that is in it.
fn remove(path: &std::path::Path) -> Result<(), Io> {
    let removed = match path.symlink_metadata() {
        Ok(metadata) if metadata.is_dir() => std::fs::remove_dir_all(path),
        Ok(_) => std::fs::remove_file(path),
        Err(_) => Ok(()),
    };
    removed.map_err(Io::at("remove", path))
}

fn describe(status: std::process::ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt;
    // A package manager or a shell says 128 + the signal that ended its child.
    let signal = status.signal().or(status.code().map(|code| code - 128));
    match (status.code(), signal) {
        (Some(137) | None, Some(9)) => "was killed by signal 9, which mostly means that memory ran out (fewer builds at once need less: `--concurrency 1`),".into(),
        (Some(code), _) => format!("exited with code {code}"),
        (None, Some(signal)) => format!("was killed by signal {signal}"),
        (None, None) => "ended without a code".into(),
    }
}

/// As many as there are cores, and 2 GiB of free memory for each.
fn default_concurrency() -> usize {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let free = std::fs::read_to_string("/proc/meminfo")
        .ok()
        .and_then(|text| {
            let line = text
                .lines()
                .find(|line| line.starts_with("MemAvailable:"))?;
            line.split_whitespace().nth(1)?.parse::<u64>().ok()
        });
    let fit = free.map_or(cores, |kib| {
        usize::try_from(kib * 1024 / MEMORY_PER_BUILD).unwrap_or(cores)
    });
    cores.min(fit).max(1)
}
