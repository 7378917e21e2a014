//! One task: its cached result is put in place, or its script runs and the result is cached.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use super::super::failure::Io;
use super::super::process::{self, ScriptCommand};
use super::clear::StashedFiles;
use super::copies::PackageCopies;
use super::lookup::{TaskKey, miss};
use super::memory::ProcessMemory;
use super::outcome::{JudgedCommand, judge};
use super::restore::RestoreError;
use super::result::{FolderSnapshot, ScriptOutputs, TaskFolder};
use super::sources;
use super::stage::TaskEnd;
use super::surroundings;
use super::tools::{self, KeptToolCache, ToolCacheStart};
use super::watch::{OpenWatcher, OpenedFiles};
use super::{BuildRun, ResultOrigin, event_unit};
use crate::cache::{self, CachedResult, FinishedTask, OutputDigest, ScriptTimes, TaskFigures};
use crate::event::{Event, EventSubject, Span, ToolCacheUse};
use crate::pipeline::failure::StageError;
use crate::pipeline::sandbox::{self, Sandbox, UpstreamResult};
use crate::pipeline::services::Services;
use crate::plan::{Plan, Task, TaskId};

/// A script that has succeeded.
pub struct ScriptRun {
    /// How long it took.
    pub elapsed: Duration,
    /// Its time and memory.
    pub figures: TaskFigures,
    /// Its result.
    pub kept: KeptResult,
    /// The kept tool cache that was put in place before the script.
    pub began_with: Option<ToolCacheUse>,
    /// The tool cache that was kept after the script, if any.
    pub tool_cache: Option<CachedResult>,
}

/// A result after its script has run.
#[derive(Default)]
pub struct KeptResult {
    /// Its entry in the cache; none if it is not cached.
    pub entry: Option<CachedResult>,
    /// Its digest; none if its inputs are not certain.
    pub output: Option<OutputDigest>,
}

/// Uses a cached result: leaves it in place, or puts it there. If that is not possible, the user is
/// told and the task must run.
pub fn take(
    run: &BuildRun,
    id: TaskId,
    resolved: &TaskKey,
    entry: Option<&CachedResult>,
) -> Result<TaskEnd, StageError> {
    let BuildRun { plan, services, .. } = run;
    let task = plan.task(id);
    let place = TaskFolder::new(plan, id);
    let unit = event_unit(task);
    let span = services.events.span(&unit);
    let mut origin = ResultOrigin::Cache;
    let held = place.holds(resolved.key, entry);
    if held.is_none() {
        let Some(entry) = entry else {
            return Ok(TaskEnd::NotRestored);
        };
        if entry.maker != task.subject.to_string() {
            origin = ResultOrigin::Reused(entry.maker.clone());
        }
        if let Err(error) = place.restore(&services.cache, entry) {
            return not_taken(error, &place, &unit, span, services);
        }
        remember(plan, id, resolved, services);
    }
    replay(&place, &unit, run);
    // Other tasks read files that the user has put into a package's folder, and no key contains them.
    let extra = place.composition.is_none().then(|| place.extra()).flatten();
    let output = match extra {
        Some(extra) => {
            services.events.notice(format!(
                "{unit}: results that use this package are not cached, because `{extra}` was not created by a build; remove it, or track it with git"
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

/// Tells the user why a result could not be put in place.
fn not_taken(
    error: RestoreError,
    place: &TaskFolder,
    unit: &EventSubject,
    span: Span,
    services: &Services,
) -> Result<TaskEnd, StageError> {
    match error {
        RestoreError::Io(error) => {
            span.end(Err(error.to_string()));
            return Err(error.into());
        }
        RestoreError::Occupied(path) => {
            let path = place.folder.join(path);
            services.events.notice(format!(
                "{unit}: the script runs although its result is cached, because `{}` was not created by a build and is not overwritten",
                path.display()
            ));
        }
        RestoreError::Cache(error) => {
            let notice = format!("{unit}: the script runs although its result is cached: {error}");
            services.events.notice(notice);
        }
    }
    Ok(TaskEnd::NotRestored)
}

/// Prints the script's output again. A slow reader delays it, as it delays a running script.
fn replay(place: &TaskFolder, unit: &EventSubject, run: &BuildRun) {
    if !run.options.replays {
        return;
    }
    let Ok(log) = std::fs::File::open(&place.log) else {
        return;
    };
    for line in process::shown_again(log) {
        let sent = async {
            run.services.events.output(unit, line).await;
            Ok(())
        };
        let sent = run.services.interrupt.unless_stopped((), sent);
        if run.services.wait(sent).is_err() {
            return;
        }
    }
}

/// Records the inputs of the task, from which a later run explains a cache miss.
fn remember(plan: &Plan, id: TaskId, resolved: &TaskKey, services: &Services) {
    let inputs = plan.explained_inputs(id, &resolved.upstream, &resolved.reads);
    // Without the record, a miss is explained in less detail.
    let _ = services.cache.remember(&plan.task(id).name(), &inputs);
}

/// The state before a script runs.
struct ScriptStart {
    before: FolderSnapshot,
    aside: Option<StashedFiles>,
    around: surroundings::SurroundingsBefore,
    watch: OpenWatcher,
    copies: Option<PackageCopies>,
    /// Sources that had changed before the script.
    changed_sources: BTreeSet<PathBuf>,
    tools: ToolCacheStart,
}

/// Prepares everything that the script sees, and its sandbox if scripts are sandboxed.
fn prepare(
    run: &BuildRun,
    id: TaskId,
    mut tools: ToolCacheStart,
) -> Result<(ScriptStart, Option<Sandbox>, TaskFolder<'_>), StageError> {
    let BuildRun { plan, services, .. } = run;
    let _working = services.events.working();
    let place = TaskFolder::of_script(plan, id)?;
    let aside = place.clear()?;
    let mut observe = || {
        if plan.task(id).shared {
            surroundings::prepare(plan, id, &place, &services.cache)?;
        }
        tools.put_in_place(run, id);
        let before = place.snapshot()?;
        let around = surroundings::SurroundingsBefore::new(plan, id)?;
        let watch = OpenWatcher::begin(plan.optional_files(id, &place.folder));
        let copies = PackageCopies::make(plan, id, &place.folder)?;
        let sandbox = sandbox(run, id, &place)?;
        Ok::<_, StageError>((before, around, watch, copies, sandbox))
    };
    let (before, around, watch, copies, sandbox) = match observe() {
        Ok(observed) => observed,
        Err(error) => {
            place.put_back(aside)?;
            return Err(error);
        }
    };
    let begun = ScriptStart {
        before,
        aside,
        around,
        watch,
        copies,
        changed_sources: sources::changed(plan, id),
        tools,
    };
    Ok((begun, sandbox, place))
}

/// Runs the script and caches its result. A result that cannot be cached is no failure. Without a key
/// (`resolved`) the result is not cached.
pub async fn run(
    run: &BuildRun,
    id: TaskId,
    resolved: Option<TaskKey>,
    memory: &ProcessMemory,
) -> Result<ScriptRun, StageError> {
    let BuildRun {
        plan,
        services,
        options,
    } = run;
    let task = plan.task(id);
    let unit = event_unit(task);
    let tools = tools::stage(run, id).await;
    services.events.send(Event::Missed {
        miss: miss(plan, id, resolved.as_ref(), &services.cache, options.force),
        unit: unit.clone(),
        tool_cache: tools.used(),
    });
    let span = services.events.begin(&unit);
    let (begun, sandbox, place) = match prepare(run, id, tools) {
        Ok(ready) => ready,
        Err(error) => {
            span.end(Err(error.to_string()));
            return Err(error);
        }
    };
    let result = run_commands(run, task, &place, memory, sandbox.as_ref()).await;
    drop(sandbox);
    let message = result.as_ref().map(|()| None).map_err(ToString::to_string);
    let elapsed = span.end(message);
    if let Err(error) = result {
        // Files that were moved away come back; what the failed script wrote is not a result.
        begun.copies.map_or(Ok(()), PackageCopies::replace)?;
        place.put_back(begun.aside)?;
        return Err(error);
    }
    let figures = TaskFigures {
        milliseconds: u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX),
        peak_bytes: memory.peak(),
        times: ScriptTimes::default(),
    };
    let began_with = begun.tools.used();
    let finished = FinishedScript {
        begun,
        resolved,
        elapsed,
        figures,
    };
    let (kept, tools) = settle_on_thread(run, id, finished).await?;
    Ok(ScriptRun {
        elapsed,
        figures: TaskFigures {
            times: tools.times,
            ..figures
        },
        kept,
        began_with,
        tool_cache: tools.entry,
    })
}

/// Runs the commands of a task one after another, until one of them fails. Their output is one log.
async fn run_commands(
    run: &BuildRun,
    task: &Task,
    place: &TaskFolder<'_>,
    memory: &ProcessMemory,
    sandbox: Option<&Sandbox>,
) -> Result<(), StageError> {
    let unit = event_unit(task);
    for (position, command) in task.commands().enumerate() {
        let script = ScriptCommand {
            unit: &unit,
            command,
            folder: &place.folder,
            log: place.log.clone(),
            continues_log: position > 0,
            variables: &task.variables,
            settings: task.settings,
            environment: &run.options.scripts,
            memory,
            sandbox,
            timeout: None,
            redactor: None,
        };
        let ended = process::run(script, &run.services).await;
        let judged = JudgedCommand {
            task,
            command,
            place,
            memory,
            is_sandboxed: sandbox.is_some(),
        };
        judge(&judged, ended, &run.services)?;
    }
    Ok(())
}

/// The sandbox of a task's script; none if scripts are not sandboxed.
fn sandbox(run: &BuildRun, id: TaskId, place: &TaskFolder) -> Result<Option<Sandbox>, Io> {
    let Some(launcher) = &run.options.sandbox else {
        return Ok(None);
    };
    let plan = &run.plan;
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
    Sandbox::new(launcher, &scope, &run.options.scripts).map(Some)
}

/// A script that has succeeded, with the state before it.
struct FinishedScript {
    begun: ScriptStart,
    resolved: Option<TaskKey>,
    elapsed: Duration,
    figures: TaskFigures,
}

/// Settles a result on a thread for blocking work. The tool cache is kept only with the result.
async fn settle_on_thread(
    run: &BuildRun,
    id: TaskId,
    mut finished: FinishedScript,
) -> Result<(KeptResult, KeptToolCache), StageError> {
    let run = run.clone();
    let settling = tokio::task::spawn_blocking(move || {
        let _working = run.services.events.working();
        let time = finished.figures.milliseconds;
        let tools = std::mem::replace(&mut finished.begun.tools, ToolCacheStart::NotKept);
        let kept = settle(&run.plan, id, finished, &run.services)?;
        let tools = match &kept.entry {
            Some(_) => tools.keep(&run.plan, &run.services, id, time),
            None => KeptToolCache::default(),
        };
        Ok((kept, tools))
    });
    match settling.await {
        Ok(kept) => kept,
        Err(crashed) => std::panic::resume_unwind(crashed.into_panic()),
    }
}

/// Caches a result. The result of a shared app is also put into the task's own folder.
fn settle(
    plan: &Plan,
    id: TaskId,
    finished: FinishedScript,
    services: &Services,
) -> Result<KeptResult, StageError> {
    let task = plan.task(id);
    let place = TaskFolder::of_script(plan, id)?;
    if let Some(note) = sources::note(plan, id, &finished.begun.changed_sources) {
        services.events.notice(note);
    }
    let kept = match keep(plan, id, &place, finished, services) {
        Ok(kept) => kept,
        Err(NotCached(reason)) => {
            services.not_cached(&event_unit(task), reason);
            KeptResult::default()
        }
    };
    for need in surroundings::mend(plan, id, &services.cache)? {
        let need = plan.task(need).name();
        services.events.notice(format!(
            "{}: the script changed the result of {need}, which was restored",
            event_unit(task)
        ));
    }
    if task.shared {
        let own = TaskFolder::new(plan, id);
        match &kept.entry {
            Some(entry) => own.restore(&services.cache, entry).map_err(moving)?,
            None => own.copy_from(&place)?,
        }
    }
    Ok(kept)
}

fn moving(error: RestoreError) -> StageError {
    match error {
        RestoreError::Io(error) => error.into(),
        RestoreError::Occupied(path) => {
            let error = std::io::Error::from(std::io::ErrorKind::AlreadyExists);
            Io::at("write", std::path::Path::new(&path))(error).into()
        }
        RestoreError::Cache(error) => {
            let error = std::io::Error::other(error.to_string());
            Io::at("unpack", std::path::Path::new(crate::pipeline::CACHE))(error).into()
        }
    }
}

/// Why a result is not cached. Mostly it may depend on something that its key does not contain.
struct NotCached(String);

impl From<Io> for NotCached {
    fn from(error: Io) -> Self {
        Self(format!("{error}: {}", error.source))
    }
}

/// Records which files the script wrote, and caches them.
fn keep(
    plan: &Plan,
    id: TaskId,
    place: &TaskFolder,
    done: FinishedScript,
    services: &Services,
) -> Result<KeptResult, NotCached> {
    let task = plan.task(id);
    let replaced = done.begun.copies.map_or(Ok(()), PackageCopies::replace);
    let wrote = place.wrote(&done.begun.before);
    let opened = done.begun.watch.end();
    // Files that were moved away come back also if the result is not cached.
    place.put_back(done.begun.aside)?;
    replaced?;
    let outputs = match wrote? {
        ScriptOutputs::These(outputs) => outputs,
        ScriptOutputs::Unsure(reason) => return Err(NotCached(reason)),
    };
    if task.never_cached.is_some() {
        return Ok(KeptResult::default());
    }
    if let Some(changed) = changed_input(plan, id, &opened, done.begun.around)? {
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
    let reads = services.cache.add_reads(resolved.primary, &resolved.reads);
    let entry = match reads.and_then(|_| services.cache.keep(&finished)) {
        Ok(entry) => Some(entry),
        Err(error) => {
            services.not_cached_once(&event_unit(task), error);
            None
        }
    };
    // A result that cannot be cached is in place all the same.
    let output = match &entry {
        Some(entry) => Some(entry.output),
        None => cache::output(&place.folder, &paths).map_err(Io::at("read", &place.folder))?,
    };
    if let Some(output) = output {
        place.remember(outputs, resolved.key, output, entry.as_ref())?;
        remember(plan, id, &resolved, services);
    }
    Ok(KeptResult { entry, output })
}

/// Leaves out the `package.json` of a base app or a package of which no other file was opened: npm
/// reads the manifests of all workspaces before it runs a script.
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

/// An input that has changed since the key was computed, so it is not known what the script read.
fn changed_input(
    plan: &Plan,
    id: TaskId,
    opened: &OpenedFiles,
    around: surroundings::SurroundingsBefore,
) -> Result<Option<String>, Io> {
    let changed = |path: &str| format!("`{}` changed while the script ran", path.escape_debug());
    if let Some(path) = plan.changed_input(id) {
        return Ok(Some(changed(&path)));
    }
    if let Some(path) = &opened.changed {
        return Ok(Some(changed(path)));
    }
    if let Some(path) = around.changed(plan, id)? {
        return Ok(Some(changed(&path)));
    }
    Ok(around.undeclared())
}
