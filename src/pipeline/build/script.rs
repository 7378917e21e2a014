//! One task: its result taken from where it is, or its script run and its result kept.

use std::sync::Arc;
use std::time::Duration;

use super::super::failure::Io;
use super::super::process::{self, Script, Trouble};
use super::clear::Aside;
use super::memory::Memory;
use super::outlook::miss;
use super::result::{self, Place, Wrote};
use super::stage::Ended;
use super::{Error, Origin, event_unit};
use crate::cache::{self, Entry, Figures, Finished, Names};
use crate::event::{Event, Span, Unit};
use crate::pipeline::context::Context;
use crate::pipeline::failure::StageError;
use crate::pipeline::sandbox::{self, Sandbox, Undeclared, Upstream};
use crate::plan::{Plan, Task};

/// A script that has ended well.
pub struct Ran {
    /// How long it took.
    pub elapsed: Duration,
    /// What it took.
    pub figures: Figures,
    /// Its result, if it could be kept.
    pub entry: Option<Entry>,
}

/// Takes a result that was found: leaves it where it lies, or puts it there. What does not hold
/// any more is told and not there.
pub fn take(
    plan: &Plan,
    index: usize,
    entry: Option<&Entry>,
    context: &Context,
) -> Result<Ended, StageError> {
    let task = &plan.tasks[index];
    let place = Place::new(plan, task);
    let unit = event_unit(task);
    let span = context.events.span(&unit);
    if !place.holds(entry) {
        let Some(entry) = entry else {
            return Ok(Ended::NotThere);
        };
        let origin = if entry.maker == task.subject.to_string() {
            Origin::Cache
        } else {
            Origin::Reused(entry.maker.clone())
        };
        match place.restore(&context.cache, entry) {
            Ok(()) => {
                remember(plan, task, context);
                replay(&place, &unit, context);
                return Ok(Ended::Taken(end(span, &origin), origin));
            }
            Err(result::Trouble::Io(error)) => {
                span.end(Err(error.to_string()));
                return Err(error.into());
            }
            Err(result::Trouble::Occupied(path)) => {
                let path = place.folder.join(path);
                context.events.notice(format!(
                    "{unit}: `{}` was not left there by a build, so the kept result is not put over it, and the script runs",
                    path.display()
                ));
                return Ok(Ended::NotThere);
            }
            Err(result::Trouble::Cache(error)) => {
                context
                    .events
                    .notice(format!("{unit}: {error}; its script runs"));
                return Ok(Ended::NotThere);
            }
        }
    }
    replay(&place, &unit, context);
    Ok(Ended::Taken(end(span, &Origin::Cache), Origin::Cache))
}

fn end(span: Span, origin: &Origin) -> Duration {
    span.end(Ok(Some(match origin {
        Origin::Reused(maker) => format!("reused from {maker}"),
        _ => "hit".into(),
    })))
}

/// Prints again what the script printed.
fn replay(place: &Place, unit: &Unit, context: &Context) {
    if !context.replays {
        return;
    }
    let text = std::fs::read(&place.log).unwrap_or_default();
    for line in String::from_utf8_lossy(&text).lines() {
        let line = process::readable(line);
        if !line.is_empty() {
            let (unit, line) = (unit.clone(), line);
            context.events.send(Event::Output { unit, line });
        }
    }
}

/// Remembers what the task sees, so that the next miss can be explained.
fn remember(plan: &Plan, task: &Task, context: &Context) {
    // Without it a miss is explained by less.
    let _ = context.cache.remember(&task.name(), &plan.inputs(task));
}

/// Runs the script and keeps its result. That it cannot be kept is told and ends nothing.
pub async fn run(
    plan: &Arc<Plan>,
    index: usize,
    may_share: bool,
    memory: &Memory,
    context: &Arc<Context>,
) -> Result<Ran, StageError> {
    let task = &plan.tasks[index];
    let place = Place::new(plan, task);
    let unit = event_unit(task);
    context.events.send(Event::Missed {
        miss: miss(plan, task, &context.cache, context.force),
        unit: unit.clone(),
    });
    let span = context.events.begin(&unit);
    let ready = place.clear().and_then(|aside| {
        let before = place.snapshot()?;
        Ok((aside, before, restrict(plan, task, context)?))
    });
    let (aside, before, sandbox) = match ready {
        Ok(ready) => ready,
        Err(error) => {
            span.end(Err(error.to_string()));
            return Err(error.into());
        }
    };
    let script = Script {
        unit: &unit,
        command: &task.command,
        folder: &place.folder,
        log: place.log.clone(),
        variables: &task.variables,
        memory,
        sandbox: sandbox.as_ref(),
    };
    let ended = process::run(script, context).await;
    drop(sandbox);
    let result = judge(task, &place, ended, memory, context);
    let message = result.as_ref().map(|()| None).map_err(ToString::to_string);
    let elapsed = span.end(message);
    if let Err(error) = result {
        // A result that is not kept is no result; what a build has left comes back.
        place.put_back(aside)?;
        return Err(error);
    }
    let figures = Figures {
        milliseconds: u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX),
        peak_bytes: memory.peak(),
    };
    let keeping = {
        let (plan, context) = (Arc::clone(plan), Arc::clone(context));
        let done = Done {
            before,
            aside,
            elapsed,
            figures,
            may_share,
        };
        tokio::task::spawn_blocking(move || keep(&plan, index, done, &context))
    };
    let entry = match keeping.await {
        Ok(Ok(entry)) => entry,
        Ok(Err(reason)) => {
            context.warn_once(format!("{unit}: {reason}"));
            None
        }
        Err(crashed) => std::panic::resume_unwind(crashed.into_panic()),
    };
    Ok(Ran {
        elapsed,
        figures,
        entry,
    })
}

/// The sandbox of a task's script, where scripts are restricted.
fn restrict(plan: &Plan, task: &Task, context: &Context) -> Result<Option<Sandbox>, Io> {
    let Some(launcher) = &context.sandbox else {
        return Ok(None);
    };
    let upstream = |task: &Task| {
        let place = Place::new(plan, task);
        Upstream {
            made: place.files(),
            folder: place.folder,
        }
    };
    let scope = sandbox::of_task(plan, task, upstream);
    Sandbox::new(launcher, &scope, &context.scripts).map(Some)
}

/// A script that has ended well, and what it began with.
struct Done {
    before: result::Snapshot,
    aside: Option<Aside>,
    elapsed: Duration,
    figures: Figures,
    /// Whether what it read from fits every store.
    may_share: bool,
}

/// Remembers what the script wrote, and keeps it.
fn keep(plan: &Plan, index: usize, done: Done, context: &Context) -> Result<Option<Entry>, String> {
    let task = &plan.tasks[index];
    let place = Place::new(plan, task);
    let wrote = place.wrote(&done.before).map_err(|error| told(&error));
    // Whatever becomes of the result, what a build has left comes back.
    let back = place.put_back(done.aside).map_err(|error| told(&error));
    let wrote = wrote?;
    back?;
    let unsure = match (wrote, plan.changed_source(task, context.began())) {
        (Wrote::These(outputs), None) => Ok(outputs),
        (Wrote::Unsure(reason), _) => Err(reason),
        (_, Some(path)) => Err(format!("`{path}` was changed while the script ran")),
    };
    let outputs = unsure?;
    let paths = outputs.keys().cloned().collect();
    place
        .remember(outputs.clone(), None)
        .map_err(|error| told(&error))?;
    if task.never_kept.is_some() {
        return Ok(None);
    }
    remember(plan, task, context);
    let names = match task.subject.unit() {
        _ if !done.may_share => None,
        Some(unit) => Some(Names::new(
            unit.store.as_str(),
            &unit.package_name(),
            &task.folder,
        )),
        None => Some(Names::none()),
    };
    let finished = Finished {
        folder: &place.folder,
        paths: &paths,
        log: &place.log,
        maker: &task.subject.to_string(),
        names: names.as_ref(),
        shared: task.keys.shared,
        own: task.keys.own,
        elapsed: done.elapsed,
        peak_bytes: done.figures.peak_bytes,
    };
    let kept = context.cache.keep(&finished);
    let kept = kept.map_err(|error: cache::Error| error.to_string())?;
    place
        .remember(outputs, Some(&kept))
        .map_err(|error| told(&error))?;
    Ok(Some(kept))
}

fn told(error: &Io) -> String {
    format!("{error}: {}", error.source)
}

/// What the way a script ended means.
fn judge(
    task: &Task,
    place: &Place,
    ended: Result<process::Ended, Trouble>,
    memory: &Memory,
    context: &Context,
) -> Result<(), StageError> {
    let command = || task.command.join(" ");
    let folder = place.folder.clone();
    match ended {
        Ok(process::Ended { status, denied, .. }) if status.success() => {
            for notice in sandbox::notices(place.project, &place.folder, &denied) {
                let unit = event_unit(task);
                context.events.notice(format!("{unit}: {notice}"));
            }
            Ok(())
        }
        Ok(process::Ended {
            status,
            tail,
            denied,
        }) if !denied.is_empty() => {
            let (ended, _) = describe(status, &tail, memory.peak());
            let undeclared = Undeclared {
                command: command(),
                project: place.project.to_owned(),
                folder,
                ended,
                denied,
                tail,
                log: place.log.clone(),
            };
            Err(Error::Undeclared(Box::new(undeclared)).into())
        }
        Ok(process::Ended { status, tail, .. }) => {
            let (ended, advice) = describe(status, &tail, memory.peak());
            let advice = advice.or_else(|| context.sandbox.as_ref().map(|_| UNNAMED));
            Err(StageError::from(Error::Script {
                command: command().into(),
                folder,
                ended: ended.into(),
                advice,
                tail,
                log: place.log.clone(),
            }))
        }
        Err(Trouble::Start(source)) => Err(Error::Start {
            command: command(),
            program: task.command.first().cloned().unwrap_or_default(),
            folder,
            source,
        }
        .into()),
        Err(Trouble::Log(error)) => Err(error.into()),
        Err(Trouble::Sandbox(why)) => Err(Error::NoSandbox { why }.into()),
        Err(Trouble::Interrupted) => Err(Error::Interrupted.into()),
    }
}

/// What is said of a script that failed in its sandbox and names nothing that it was refused.
const UNNAMED: &str = "it ran in a sandbox, and no line of it names a file that it was refused: try it without `--sandbox`, and if it ends well then, `strace -f -e trace=%file` before its command shows what it opens";

/// What Node says when its own limit is reached, and not the machine's.
const HEAP: &str = "heap out of memory";

fn describe(
    status: std::process::ExitStatus,
    tail: &[String],
    peak: u64,
) -> (String, Option<&'static str>) {
    use std::os::unix::process::ExitStatusExt;
    let took = match peak {
        0 => String::new(),
        peak => format!(" after taking {}", crate::event::bytes(peak)),
    };
    // A package manager or a shell says 128 + the signal that ended its child.
    let signal = status.signal().or(status.code().map(|code| code - 128));
    if tail.iter().any(|line| line.contains(HEAP)) {
        let advice = "give Node more: `NODE_OPTIONS=--max-old-space-size=4096` (megabytes)";
        return (format!("ran out of Node's heap{took},"), Some(advice));
    }
    match (status.code(), signal) {
        (Some(137) | None, Some(9)) => {
            let advice = "let fewer run at once: `--concurrency 1`, or `build.maxMemory` below what the machine has";
            let ended =
                format!("was killed by signal 9{took}, which mostly means that memory ran out,");
            (ended, Some(advice))
        }
        (Some(code), _) => (format!("exited with code {code}"), None),
        (None, Some(signal)) => (format!("was killed by signal {signal}"), None),
        (None, None) => ("ended without a code".into(), None),
    }
}
