//! The build stage: cached results are put in place, and the scripts of all other tasks run, upstream
//! before downstream, as many at once as memory and cores allow.

mod clear;
mod copies;
mod lookup;
mod memory;
mod outcome;
mod queue;
mod restore;
mod result;
mod script;
mod sharing;
mod sources;
mod stage;
mod surroundings;
mod tools;
mod watch;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use miette::Diagnostic;

use self::lookup::not_installed;
pub use self::lookup::{CacheLookup, forecast};
pub use self::memory::{ProcessMemory, free as free_memory};
pub use self::stage::run;
use super::compose::Workdir;
use super::failure::{Error as RunError, quote};
use super::sandbox;
use super::services::{PipelineOptions, Services};
use crate::event::{EventSubject, Stage, ToolCacheUse};
use crate::plan::{Plan, RunScope, Subject, Task, TaskId};
use crate::store::UnitId;

/// What the tasks of a run share.
#[derive(Clone)]
pub struct BuildRun {
    /// The plan.
    pub plan: Arc<Plan>,
    /// The services of the run.
    pub services: Arc<Services>,
    /// The options of the run.
    pub options: Arc<PipelineOptions>,
}

/// A built app: its folder contains the result of its script.
#[derive(Debug, Clone)]
pub struct Built {
    /// Its folder.
    pub workdir: Workdir,
    /// How long the task took.
    pub elapsed: Duration,
    /// Where the result comes from.
    pub origin: ResultOrigin,
}

/// A built workspace package.
#[derive(Debug, Clone)]
pub struct BuiltPackage {
    /// Its name.
    pub name: String,
    /// How long the task took.
    pub elapsed: Duration,
    /// Where the result comes from.
    pub origin: ResultOrigin,
}

/// The origin of a result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ResultOrigin {
    /// Its script ran, with the tool cache that was put in place before the script.
    Script(Option<ToolCacheUse>),
    /// The cache, or the task's folder as an earlier run left it.
    Cache,
    /// The script of this other store's app.
    Reused(String),
}

impl Built {
    /// Store and app.
    pub fn unit(&self) -> &UnitId {
        &self.workdir.unit
    }
}

/// Why a task failed.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum Error {
    /// Dependencies that are not installed.
    #[error("the dependencies of `{}` are not installed: {}", project.display(), some(missing))]
    #[diagnostic(code(alokai::build::not_installed), help("install them: `{command}`"))]
    NotInstalled {
        /// The project.
        project: PathBuf,
        /// The missing packages, each with the app or package that needs it.
        missing: Vec<String>,
        /// The command that installs them.
        command: &'static str,
    },
    /// A script that ended with an error.
    #[error("`{command}` {ended} in `{}`\n{}", folder.display(), quote(tail))]
    #[diagnostic(code(alokai::build::script), help("{}full log: `{}`", advice.as_ref().map(|advice| format!("{advice}; ")).unwrap_or_default(), log.display()))]
    Script {
        /// The command.
        command: Box<str>,
        /// The folder in which it ran.
        folder: PathBuf,
        /// How it ended, such as `exited with code 1`.
        ended: Box<str>,
        /// What to do, if the way it ended tells.
        advice: Option<&'static str>,
        /// Its last lines.
        tail: Vec<String>,
        /// The file with everything that it printed.
        log: PathBuf,
    },
    /// A script that cannot be started.
    #[error("cannot start `{command}` in `{}`", folder.display())]
    #[diagnostic(
        code(alokai::build::start),
        help("check that `{program}` is installed and on the PATH: `{program} --version`")
    )]
    Start {
        /// The command.
        command: String,
        /// The program.
        program: String,
        /// The folder in which it runs.
        folder: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// A script in a sandbox that opened a file that is not an input.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Undeclared(Box<sandbox::Undeclared>),
    /// Sandboxes are not supported on this machine.
    #[error("`--sandbox` needs Landlock, which is not available: {why}")]
    #[diagnostic(
        code(alokai::build::no_sandbox),
        help(
            "use Linux 5.13 or newer with Landlock enabled, or run without `--sandbox` and `build.sandbox`"
        )
    )]
    NoSandbox {
        /// Why.
        why: String,
    },
    /// The user interrupted the run.
    #[error("interrupted")]
    #[diagnostic(code(alokai::build::interrupted))]
    Interrupted,
}

fn some(names: &[String]) -> String {
    let mut shown: Vec<_> = names.iter().take(5).cloned().collect();
    if names.len() > 5 {
        shown.push(format!("and {} more", names.len() - 5));
    }
    shown.join(", ")
}

/// Looks up the results of all tasks but the distrusted ones, and checks that the scripts to run can
/// be run: their dependencies are installed, and sandboxes are supported if they are used.
pub async fn look_up(
    run: &BuildRun,
    scope: &RunScope,
    distrusted: &BTreeSet<TaskId>,
) -> Result<CacheLookup, RunError> {
    let plan = &run.plan;
    let lookup = CacheLookup::new(run, scope, distrusted).await;
    let is_sandboxed = run.options.sandbox.is_some() && lookup.running(plan).next().is_some();
    if is_sandboxed && let Err(why) = sandbox::support() {
        let why = why.to_string();
        return Err(RunError::Preflight {
            problems: vec![Error::NoSandbox { why }.into()],
        });
    }
    let missing = not_installed(plan, lookup.running(plan));
    if missing.is_empty() {
        return Ok(lookup);
    }
    let error = Error::NotInstalled {
        project: plan.project.clone(),
        missing,
        command: plan.install,
    };
    Err(RunError::Preflight {
        problems: vec![error.into()],
    })
}

/// The unit of a task in events.
fn event_unit(task: &Task) -> EventSubject {
    let unit = match &task.subject {
        Subject::Package(name) => EventSubject::package(Stage::Build, name),
        Subject::Unit(unit) => EventSubject::app(Stage::Build, unit),
    };
    EventSubject {
        script: task.work.other_script().map(str::to_owned),
        ..unit
    }
}
