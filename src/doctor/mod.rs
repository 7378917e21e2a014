//! Everything around a deploy, checked at once: versions, the project, git, this machine, and the
//! services. Each check gives a [`Diagnosis`] with what was found and what to do next. No check
//! changes anything, and no check depends on another check.
//!
//! Checks of this machine run on threads, while the services are checked.

mod machine;
mod network;
mod project;
mod repository;
mod versions;

use std::path::Path;
use std::time::Duration;

use miette::Diagnostic;
use serde::Serialize;

use crate::cache::RemoteCache;
use crate::config::{Error as ConfigError, Project};
use crate::pipeline::{ScriptEnvironment, Services};
use crate::target::TargetContext;

/// How long a program or a service may take to respond.
const TIMEOUT: Duration = Duration::from_secs(8);

/// What has to be corrected to solve a problem.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProblemKind {
    /// The user has to correct the config, the command line or a file.
    Input,
    /// A program, a service or credentials outside of the project are missing or unreachable.
    External,
}

/// The result of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// A deploy can use it.
    Ok,
    /// A deploy works, but something may be wrong.
    Warning,
    /// A deploy fails.
    Problem(ProblemKind),
}

impl Serialize for Verdict {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl Verdict {
    /// Its name, as it is printed.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Problem(_) => "problem",
        }
    }
}

/// The result of one check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Diagnosis {
    /// What was checked.
    pub check: &'static str,
    /// The result.
    pub verdict: Verdict,
    /// What was found.
    pub found: String,
    /// What to do. None if nothing has to be done.
    pub next: Option<String>,
}

impl Diagnosis {
    fn ok(check: &'static str, found: impl Into<String>) -> Self {
        Self {
            check,
            verdict: Verdict::Ok,
            found: found.into(),
            next: None,
        }
    }

    fn warning(check: &'static str, found: impl Into<String>, next: impl Into<String>) -> Self {
        Self {
            check,
            verdict: Verdict::Warning,
            found: found.into(),
            next: Some(next.into()),
        }
    }

    fn problem(
        check: &'static str,
        kind: ProblemKind,
        found: impl Into<String>,
        next: impl Into<String>,
    ) -> Self {
        Self {
            check,
            verdict: Verdict::Problem(kind),
            found: found.into(),
            next: Some(next.into()),
        }
    }

    /// A problem with the message and the help of an error.
    fn of_error(check: &'static str, kind: ProblemKind, error: &dyn Diagnostic) -> Self {
        let mut found = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            let text = error.to_string();
            if !found.contains(&text) {
                found = format!("{found}: {text}");
            }
            cause = error.source();
        }
        Self {
            check,
            verdict: Verdict::Problem(kind),
            found,
            next: error.help().map(|help| help.to_string()),
        }
    }
}

/// What is examined, and with which clients.
pub struct Examination<'a> {
    /// The folder of the project, or the current folder without one.
    pub root: &'a Path,
    /// The project, or why it cannot be read.
    pub project: Result<&'a Project, &'a ConfigError>,
    /// The environment of scripts, in which tools are looked for.
    pub scripts: &'a ScriptEnvironment,
    /// The clients and credentials for services.
    pub services: &'a Services,
    /// What the targets of the stores are made from. None without a project.
    pub targets: Option<&'a TargetContext>,
    /// The remote cache, or why it is not used.
    pub remote: Result<Option<&'a RemoteCache>, String>,
    /// The registry, from a flag or the environment.
    pub registry: Option<String>,
    /// The console, from a flag or the environment.
    pub console: Option<String>,
}

/// Runs all checks. The results are in the order of a deploy.
pub fn examine(subject: &Examination) -> Vec<Diagnosis> {
    let (root, scripts) = (subject.root, subject.scripts);
    let project = subject.project.ok();
    let found = std::thread::scope(|scope| {
        let local = [
            scope.spawn(|| versions::check(root, scripts)),
            scope.spawn(|| project::check(root, subject.project)),
            scope.spawn(|| repository::check(root, project)),
        ];
        let machine = scope.spawn(|| machine::check(root, project));
        let services = subject.services.wait(network::check(subject));
        let mut found = Vec::new();
        for thread in local {
            found.extend(joined(thread));
        }
        found.extend(services);
        found.extend(joined(machine));
        found
    });
    let redact = |text: String| subject.services.redact(&text);
    let found = found.into_iter().map(|it| Diagnosis {
        found: one_line(&redact(it.found)),
        next: it.next.map(|next| one_line(&redact(next))),
        ..it
    });
    found.collect()
}

fn joined(thread: std::thread::ScopedJoinHandle<Vec<Diagnosis>>) -> Vec<Diagnosis> {
    let found = thread.join();
    found.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// A text without line breaks and other control characters.
fn one_line(text: &str) -> String {
    let words = text.split(|c: char| c.is_control() || c == ' ');
    words
        .filter(|word| !word.is_empty())
        .collect::<Vec<_>>()
        .join(" ")
}
