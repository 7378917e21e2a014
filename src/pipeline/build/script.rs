//! One task: its result taken from where it is, or its script run and its result kept.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::super::failure::Io;
use super::super::process::{self, ProcessError, ScriptCommand};
use super::clear::StashedFiles;
use super::memory::ProcessMemory;
use super::opened::{OpenWatcher, OpenedFiles};
use super::outlook::{TaskKey, miss};
use super::result::{self, FolderSnapshot, ScriptOutputs, TaskFolder};
use super::stage::TaskEnd;
use super::surroundings;
use super::{Error, ResultOrigin, event_unit};
use crate::cache::{self, CachedResult, FinishedTask, OutputDigest, TaskFigures};
use crate::event::{Event, Span, Unit};
use crate::pipeline::context::Services;
use crate::pipeline::failure::StageError;
use crate::pipeline::sandbox::{self, Sandbox, Undeclared, UpstreamResult};
use crate::plan::{Plan, Task, TaskId};

/// A script that has ended well.
pub struct ScriptRun {
    /// How long it took.
    pub elapsed: Duration,
    /// What it took.
    pub figures: TaskFigures,
    /// What became of its result.
    pub kept: KeptResult,
}

/// What became of a result.
#[derive(Default)]
pub struct KeptResult {
    /// Where it is kept.
    pub entry: Option<CachedResult>,
    /// Its identity, if it is known what it was made of.
    pub output: Option<OutputDigest>,
}

/// Takes a result that was found: leaves it where it lies, or puts it there. What does not hold
/// any more is told and not there.
pub fn take(
    plan: &Plan,
    id: TaskId,
    resolved: &TaskKey,
    entry: Option<&CachedResult>,
    context: &Services,
) -> Result<TaskEnd, StageError> {
    let task = plan.task(id);
    let place = TaskFolder::new(plan, id);
    let unit = event_unit(task);
    let span = context.events.span(&unit);
    let mut origin = ResultOrigin::Cache;
    let held = place.holds(resolved.key, entry);
    if held.is_none() {
        let Some(entry) = entry else {
            return Ok(TaskEnd::NotThere);
        };
        if entry.maker != task.subject.to_string() {
            origin = ResultOrigin::Reused(entry.maker.clone());
        }
        if let Err(error) = place.restore(&context.cache, entry) {
            return not_taken(error, &place, &unit, span, context);
        }
        remember(plan, id, resolved, context);
    }
    replay(&place, &unit, context);
    // What people have put into a package's folder is read by others, and is in no key.
    let extra = place.composition.is_none().then(|| place.extra()).flatten();
    let output = match extra {
        Some(extra) => {
            context.events.notice(format!(
                "{unit}: no build has left `{extra}` there, so what is built with it is not cached; remove it, or let git track it"
            ));
            None
        }
        None => entry.map(|entry| entry.output).or(held),
    };
    let note = match &origin {
        ResultOrigin::Reused(maker) => format!("reused from {maker}"),
        _ => "hit".into(),
    };
    let elapsed = span.end(Ok(Some(note)));
    Ok(TaskEnd::Taken {
        elapsed,
        origin,
        output,
    })
}

/// Says why a result could not be put in place.
fn not_taken(
    error: result::RestoreError,
    place: &TaskFolder,
    unit: &Unit,
    span: Span,
    context: &Services,
) -> Result<TaskEnd, StageError> {
    match error {
        result::RestoreError::Io(error) => {
            span.end(Err(error.to_string()));
            return Err(error.into());
        }
        result::RestoreError::Occupied(path) => {
            let path = place.folder.join(path);
            context.events.notice(format!(
                "{unit}: no build has left `{}` there, so the cached result is not put over it, and the script runs",
                path.display()
            ));
        }
        result::RestoreError::Cache(error) => {
            context
                .events
                .notice(format!("{unit}: {error}; its script runs"));
        }
    }
    Ok(TaskEnd::NotThere)
}

/// Prints again what the script printed. It waits for a slow reader, as the script did.
fn replay(place: &TaskFolder, unit: &Unit, context: &Services) {
    if !context.replays {
        return;
    }
    let Ok(log) = std::fs::File::open(&place.log) else {
        return;
    };
    for line in process::shown_again(log) {
        let sent = async {
            context.events.output(unit, line).await;
            Ok(())
        };
        let sent = context.interrupt.unless_stopped((), sent);
        if context.wait(sent).is_err() {
            return;
        }
    }
}

/// Remembers what the task sees, so that the next miss can be explained.
fn remember(plan: &Plan, id: TaskId, resolved: &TaskKey, context: &Services) {
    let inputs = plan.explained_inputs(id, &resolved.upstream, &resolved.reads);
    // Without it a miss is explained by less.
    let _ = context.cache.remember(&plan.task(id).name(), &inputs);
}

/// What a script begins with.
struct ScriptStart {
    before: FolderSnapshot,
    aside: Option<StashedFiles>,
    around: surroundings::SurroundingsBefore,
    watch: OpenWatcher,
}

/// Makes everything ready that the script sees.
fn begin(
    plan: &Plan,
    id: TaskId,
    place: &TaskFolder,
    context: &Services,
) -> Result<ScriptStart, StageError> {
    let aside = place.clear()?;
    if plan.task(id).shared {
        surroundings::prepare(plan, id, place, &context.cache)?;
    }
    Ok(ScriptStart {
        before: place.snapshot()?,
        aside,
        around: surroundings::SurroundingsBefore::new(plan, id)?,
        watch: OpenWatcher::begin(plan.optional_files(id, &place.folder)),
    })
}

/// Runs the script and keeps its result. That it cannot be kept is told and ends nothing.
/// Without what it is made of (`resolved`), its result cannot be kept.
pub async fn run(
    plan: &Arc<Plan>,
    id: TaskId,
    resolved: Option<TaskKey>,
    memory: &ProcessMemory,
    context: &Arc<Services>,
) -> Result<ScriptRun, StageError> {
    let task = plan.task(id);
    let unit = event_unit(task);
    context.events.send(Event::Missed {
        miss: miss(plan, id, resolved.as_ref(), &context.cache, context.force),
        unit: unit.clone(),
    });
    let span = context.events.begin(&unit);
    let working = context.events.working();
    let ready = TaskFolder::of_script(plan, id)
        .map_err(StageError::from)
        .and_then(|place| {
            let begun = begin(plan, id, &place, context)?;
            let sandbox = restrict(plan, id, &place, context)?;
            Ok((begun, sandbox, place))
        });
    drop(working);
    let (begun, sandbox, place) = match ready {
        Ok(ready) => ready,
        Err(error) => {
            span.end(Err(error.to_string()));
            return Err(error);
        }
    };
    let script = ScriptCommand {
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
        // What a failed script has left is no result; what a build has left comes back.
        place.put_back(begun.aside)?;
        return Err(error);
    }
    let figures = TaskFigures {
        milliseconds: u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX),
        peak_bytes: memory.peak(),
    };
    let keeping = {
        let (plan, context) = (Arc::clone(plan), Arc::clone(context));
        let done = FinishedScript {
            begun,
            resolved,
            elapsed,
            figures,
        };
        tokio::task::spawn_blocking(move || {
            let _working = context.events.working();
            settle(&plan, id, done, &context)
        })
    };
    let kept = match keeping.await {
        Ok(kept) => kept?,
        Err(crashed) => std::panic::resume_unwind(crashed.into_panic()),
    };
    Ok(ScriptRun {
        elapsed,
        figures,
        kept,
    })
}

/// The sandbox of a task's script, where scripts are restricted.
fn restrict(
    plan: &Plan,
    id: TaskId,
    place: &TaskFolder,
    context: &Services,
) -> Result<Option<Sandbox>, Io> {
    let Some(launcher) = &context.sandbox else {
        return Ok(None);
    };
    let mut upstream = Vec::new();
    for need in &plan.task(id).upstream {
        let place = surroundings::read_by(plan, id, *need)?;
        let sources = place.sources.iter().map(ToString::to_string);
        upstream.push(UpstreamResult {
            made: place
                .files()
                .map(|made| made.into_iter().chain(sources).collect()),
            folder: place.folder,
        });
    }
    let scope = sandbox::of_task(plan, id, &place.folder, upstream);
    Sandbox::new(launcher, &scope, &context.scripts).map(Some)
}

/// A script that has ended well, and what it began with.
struct FinishedScript {
    begun: ScriptStart,
    resolved: Option<TaskKey>,
    elapsed: Duration,
    figures: TaskFigures,
}

/// Keeps a result, and puts it where it belongs if its script ran elsewhere.
fn settle(
    plan: &Plan,
    id: TaskId,
    done: FinishedScript,
    context: &Services,
) -> Result<KeptResult, StageError> {
    let task = plan.task(id);
    let place = TaskFolder::of_script(plan, id)?;
    let kept = match keep(plan, id, &place, done, context) {
        Ok(kept) => kept,
        Err(NotCached(reason)) => {
            let unit = event_unit(task);
            context
                .events
                .notice(format!("{unit}: not cached: {reason}"));
            KeptResult::default()
        }
    };
    for need in surroundings::mend(plan, id, &context.cache)? {
        let need = plan.task(need).name();
        context.events.notice(format!(
            "{}: its script has changed the result of {need}, which was put back",
            event_unit(task)
        ));
    }
    if task.shared {
        let own = TaskFolder::new(plan, id);
        match &kept.entry {
            Some(entry) => own.restore(&context.cache, entry).map_err(moving)?,
            None => own.copy_from(&place)?,
        }
    }
    Ok(kept)
}

fn moving(error: result::RestoreError) -> StageError {
    match error {
        result::RestoreError::Io(error) => error.into(),
        result::RestoreError::Occupied(path) => {
            let error = std::io::Error::from(std::io::ErrorKind::AlreadyExists);
            Io::at("write", std::path::Path::new(&path))(error).into()
        }
        result::RestoreError::Cache(error) => {
            let error = std::io::Error::other(error.to_string());
            Io::at("unpack", std::path::Path::new(crate::pipeline::CACHE))(error).into()
        }
    }
}

/// Why a result is not kept: something else than its key may have decided what is in it.
struct NotCached(String);

impl From<Io> for NotCached {
    fn from(error: Io) -> Self {
        Self(format!("{error}: {}", error.source))
    }
}

/// Remembers what the script wrote, and keeps it.
fn keep(
    plan: &Plan,
    id: TaskId,
    place: &TaskFolder,
    done: FinishedScript,
    context: &Services,
) -> Result<KeptResult, NotCached> {
    let task = plan.task(id);
    let wrote = place.wrote(&done.begun.before);
    let opened = done.begun.watch.end();
    // Whatever becomes of the result, what a build has left comes back.
    place.put_back(done.begun.aside)?;
    let outputs = match wrote? {
        ScriptOutputs::These(outputs) => outputs,
        ScriptOutputs::Unsure(reason) => return Err(NotCached(reason)),
    };
    if task.never_kept.is_some() {
        return Ok(KeptResult::default());
    }
    if let Some(changed) = changed(plan, id, &opened, done.begun.around)? {
        return Err(NotCached(changed));
    }
    let Some(mut resolved) = done.resolved else {
        let needs: Vec<_> = task
            .needs
            .iter()
            .map(|need| plan.task(*need).name())
            .collect();
        return Err(NotCached(format!(
            "it depends on a result that is not cached ({})",
            needs.join(", ")
        )));
    };
    resolved
        .reads
        .extend(without_manifests(opened.names, &plan.workspaces));
    if !resolved.reads.is_empty() {
        resolved.key = plan.key(id, resolved.primary, &resolved.reads);
    }
    let paths: BTreeSet<String> = outputs.keys().cloned().collect();
    let finished = FinishedTask {
        folder: &place.folder,
        paths: &paths,
        log: &place.log,
        maker: &task.subject.to_string(),
        key: resolved.key,
        elapsed: done.elapsed,
        peak_bytes: done.figures.peak_bytes,
    };
    let reads = context.cache.add_reads(resolved.primary, &resolved.reads);
    let entry = match reads.and_then(|_| context.cache.keep(&finished)) {
        Ok(entry) => Some(entry),
        Err(error) => {
            context.warn_once(format!("{}: {error}", event_unit(task)));
            None
        }
    };
    // What cannot be cached lies in place all the same.
    let output = match &entry {
        Some(entry) => Some(entry.output),
        None => cache::output(&place.folder, &paths).map_err(Io::at("read", &place.folder))?,
    };
    if let Some(output) = output {
        place.remember(outputs, resolved.key, output, entry.as_ref())?;
        remember(plan, id, &resolved, context);
    }
    Ok(KeptResult { entry, output })
}

/// Leaves out the `package.json` of a base app or a package of which nothing else was opened: npm
/// reads those of all workspaces before it runs anything.
fn without_manifests(mut names: BTreeSet<String>, workspaces: &[String]) -> BTreeSet<String> {
    for folder in workspaces {
        let start = format!("//{folder}/");
        let manifest = format!("{start}package.json");
        let is_alone = |names: &BTreeSet<String>| {
            let inside = names.range(start.clone()..);
            let mut inside = inside.take_while(|name| name.starts_with(&start));
            inside.all(|name| *name == manifest)
        };
        if is_alone(&names) {
            names.remove(&manifest);
        }
    }
    names
}

/// Something that is not as it was when the key was made: then it is not known what was read.
fn changed(
    plan: &Plan,
    id: TaskId,
    opened: &OpenedFiles,
    around: surroundings::SurroundingsBefore,
) -> Result<Option<String>, Io> {
    let told = |path: &str| format!("`{}` was changed while the script ran", path.escape_debug());
    if let Some(path) = plan.changed_input(id) {
        return Ok(Some(told(&path)));
    }
    if let Some(path) = &opened.changed {
        return Ok(Some(told(path)));
    }
    if let Some(path) = around.changed(plan, id)? {
        return Ok(Some(told(&path)));
    }
    Ok(around.undeclared())
}

/// What the way a script ended means.
fn judge(
    task: &Task,
    place: &TaskFolder,
    ended: Result<process::ScriptEnd, ProcessError>,
    memory: &ProcessMemory,
    context: &Services,
) -> Result<(), StageError> {
    let command = || task.command.join(" ");
    let folder = place.folder.clone();
    match ended {
        Ok(process::ScriptEnd { status, denied, .. }) if status.success() => {
            for notice in sandbox::notices(place.project, &place.folder, &denied) {
                let unit = event_unit(task);
                context.events.notice(format!("{unit}: {notice}"));
            }
            Ok(())
        }
        Ok(process::ScriptEnd {
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
        Ok(process::ScriptEnd { status, tail, .. }) => {
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
        Err(ProcessError::Start(source)) => Err(Error::Start {
            command: command(),
            program: task.command.first().cloned().unwrap_or_default(),
            folder,
            source,
        }
        .into()),
        Err(ProcessError::Log(error)) => Err(error.into()),
        Err(ProcessError::Sandbox(why)) => Err(Error::NoSandbox { why }.into()),
        Err(ProcessError::Interrupted) => Err(Error::Interrupted.into()),
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
