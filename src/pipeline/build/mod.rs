//! The build stage: results that are there already are taken, the other scripts run in the order
//! of the plan's tasks, as many at once as have room.

mod clear;
mod memory;
mod opened;
mod outlook;
mod queue;
mod result;
mod script;
mod sharing;
mod stage;
mod surroundings;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use miette::Diagnostic;

pub use self::memory::ProcessMemory;
use self::outlook::not_installed;
pub use self::outlook::{CacheLookup, forecast};
pub use self::stage::run;
use super::compose::Workdir;
use super::context::Services;
use super::failure::{Error as RunError, quote};
use super::sandbox;
use crate::event::{Stage, Unit};
use crate::plan::{BUILD, Plan, Subject, Task, TaskId};
use crate::store::UnitId;

/// A built app: its folder holds what its script made.
#[derive(Debug, Clone)]
pub struct Built {
    /// Where.
    pub workdir: Workdir,
    /// How long it took.
    pub elapsed: Duration,
    /// Where the result comes from.
    pub origin: ResultOrigin,
}

/// Where a result comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ResultOrigin {
    /// Its script ran.
    Script,
    /// Its script ran in an earlier run, or elsewhere.
    Cache,
    /// Another store's script has made the same.
    Reused(String),
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
    /// Something that scripts need is not installed.
    #[error("the dependencies of `{}` are not installed: {}", project.display(), some(missing))]
    #[diagnostic(code(alokai::build::not_installed), help("install them: `{command}`"))]
    NotInstalled {
        /// The project.
        project: PathBuf,
        /// What is missing, each with who needs it.
        missing: Vec<String>,
        /// What installs them.
        command: &'static str,
    },
    /// It ended with an error.
    #[error("`{command}` {ended} in `{}`\n{}", folder.display(), quote(tail))]
    #[diagnostic(code(alokai::build::script), help("{}the whole log: `{}`", advice.as_ref().map(|advice| format!("{advice}; ")).unwrap_or_default(), log.display()))]
    Script {
        /// As typed.
        command: Box<str>,
        /// Where.
        folder: PathBuf,
        /// Such as `exited with code 1`.
        ended: Box<str>,
        /// What to do, where the way it ended tells.
        advice: Option<&'static str>,
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
    /// It could not open something that its key does not have.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Undeclared(Box<sandbox::Undeclared>),
    /// Scripts cannot be restricted here.
    #[error("`--sandbox` needs Landlock, by which Linux restricts a process: {why}")]
    #[diagnostic(
        code(alokai::build::no_sandbox),
        help(
            "run it on Linux 5.13 or newer with Landlock switched on, or without `--sandbox` and `build.sandbox`"
        )
    )]
    NoSandbox {
        /// Why not.
        why: String,
    },
    /// A person ended the run.
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

/// Looks what there is to do, without the results of distrusted tasks, and whether what scripts need is installed.
pub async fn look(
    plan: &Plan,
    distrusted: &BTreeSet<TaskId>,
    context: &Services,
) -> Result<CacheLookup, RunError> {
    let outlook = CacheLookup::new(plan, distrusted, context).await;
    let is_restricted = context.sandbox.is_some() && outlook.running(plan).next().is_some();
    if is_restricted && let Err(why) = sandbox::support() {
        let why = why.to_string();
        return Err(RunError::Preflight {
            problems: vec![Error::NoSandbox { why }.into()],
        });
    }
    let missing = not_installed(plan, outlook.running(plan));
    if missing.is_empty() {
        return Ok(outlook);
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

/// What events say of a task.
fn event_unit(task: &Task) -> Unit {
    let unit = match &task.subject {
        Subject::Package(name) => Unit::package(Stage::Build, name),
        Subject::Unit(unit) => Unit::app(Stage::Build, unit),
    };
    Unit {
        script: (task.script != BUILD).then(|| task.script.clone()),
        ..unit
    }
}
