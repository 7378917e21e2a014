//! What `compose`, `build`, `run` and `deploy` share: make a plan, then print it or carry it out.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use miette::Diagnostic;
use serde_json::{Value, json};

use super::arguments::flow::ReleaseOptions;
use super::arguments::{EnvMode, Select, WorkOptions};
use super::changed::selection;
use super::environment::{self, Environment};
use super::events::{live_with, reporter};
use super::killed_runs::record_killed_runs;
use super::record::{BuildRecorder, EndedRun, FinishedStores};
use super::releasing::{self, Released, RunTargets};
use super::services::{RunServices, services};
use super::{answer, resume};
use crate::cache::{Cache, RemoteCacheSettings};
use crate::config::{HookStage, Project};
use crate::error::{Error as AnyError, Exit};
use crate::event::{Stage, seconds};
use crate::ledger::{BuildStatus, first_line};
use crate::pipeline::{
    self, Access, CACHE, ProjectLock, ResultOrigin, RunSummary, ScriptEnvironment, SessionLock,
    forecast,
};
use crate::plan::{self, BuilderChoice, Filter, Plan, Request, Selection};
use crate::report::{Detail, PackageRow, Recording, SummaryRow, SummaryTable, Transcripts};
use crate::store::StoreId;

/// What a run needs beside its plan.
#[derive(Default)]
pub struct RunSetup {
    pub access: Access,
    pub scripts: ScriptEnvironment,
    pub remote: Option<RemoteCacheSettings>,
    /// Whether the config turns the sandbox on.
    pub sandbox: bool,
    /// Messages to print at the start.
    pub notices: Vec<&'static str>,
}

impl RunSetup {
    /// Takes them from the command line and the environment.
    pub fn new(
        project: &Project,
        environment: &Environment,
        access: Access,
        work: &WorkOptions,
    ) -> Self {
        let (remote, notices) = remote_of(environment, work.allow_insecure);
        Self {
            access,
            scripts: environment.scripts(work.env_mode == EnvMode::Loose),
            remote,
            sandbox: project.settings.sandbox,
            notices,
        }
    }
}

/// The remote cache of the environment, and why it is not used.
pub fn remote_of(
    environment: &Environment,
    allow_insecure: bool,
) -> (Option<RemoteCacheSettings>, Vec<&'static str>) {
    let mut notices = Vec::new();
    if environment.has_lonely_token() {
        notices.push(
            "the remote cache is not used: `TURBO_TOKEN` is set, but neither `TURBO_API` nor `TURBO_TEAM`",
        );
    }
    let mut remote = environment.remote();
    let exposed = |remote: &RemoteCacheSettings| http_client::is_exposed(&remote.api);
    if !allow_insecure && remote.as_ref().is_some_and(exposed) {
        remote = None;
        notices.push(
            "the remote cache is not used: `TURBO_API` uses plain HTTP on another machine, so `TURBO_TOKEN` would be sent unencrypted (pass `--allow-insecure` to allow it)",
        );
    }
    (remote, notices)
}

/// The request of a command that stops after `until` and needs no registry.
pub fn request(project: &Project, select: &Select, until: Stage) -> Result<Request, AnyError> {
    Ok(Request {
        selection: selection(project, select)?,
        filter: Filter::new(select.filter.clone()),
        until,
        allow_dirty: false,
        registry: None,
        console: None,
        builder: BuilderChoice::Auto,
        local: false,
        attest: false,
        concurrency: None,
        work: plan::Work::default(),
        host: plan::HostEnvironment::default(),
    })
}

/// The project and its `.env` as they are now, and the request of the command line.
pub struct PreparedCommand {
    pub project: Project,
    pub request: Request,
    pub surroundings: RunSetup,
    /// Whether stores are left out that an earlier run of the same plan has deployed.
    pub resume: bool,
    pub release: ReleaseOptions,
}

impl PreparedCommand {
    fn plan(&mut self, work: Option<&WorkOptions>) -> Result<Plan, AnyError> {
        let concurrency = work.and_then(|work| work.concurrency);
        self.request.concurrency = concurrency.map(usize::from);
        let plan = Plan::make(&self.project, &self.request)?;
        if !self.resume {
            return Ok(plan);
        }
        let missing = resume::missing(self, &plan)?;
        if missing.len() == plan.stores.len() {
            return Ok(plan);
        }
        self.request.selection = Selection::Exactly(missing);
        Ok(Plan::make(&self.project, &self.request)?)
    }
}

/// Prepares a run. It is called again after the run has waited for another run.
pub type PrepareRun<'a> = &'a dyn Fn() -> Result<PreparedCommand, AnyError>;

/// Makes a plan, then prints it or carries it out.
pub fn run(prepare: PrepareRun, work: Option<&WorkOptions>, json: bool) -> Result<(), AnyError> {
    let mut prepared = prepare()?;
    let mut plan = prepared.plan(work)?;
    if work.is_some_and(|work| work.dry_run) {
        let staged_only = prepared.release.no_release;
        plan.hooks
            .retain(|hook| !staged_only || hook.stage != HookStage::Release);
        let cache = Cache::new(plan.project.join(CACHE));
        let forecasts = forecast(&plan, &cache, work.is_some_and(|work| work.force));
        let releases = releasing::steps(&plan, prepared)?;
        return if json {
            document(&plan::document(&plan, &forecasts, &releases))
        } else {
            answer(&plan::text(&plan, &forecasts, &releases))
        };
    }
    let until = prepared.request.until;
    let script = prepared.request.work.other_script().map(str::to_owned);
    let carried = carry_out((plan, prepared), prepare, work, json);
    let (summary, released, result) = match carried {
        Ok((summary, released, result)) => (summary, released, result.map_err(AnyError::from)),
        Err(error) if json => (RunSummary::default(), Released::default(), Err(error)),
        Err(error) => return Err(error),
    };
    let mut table = table(summary);
    table.deployed = released.live;
    table.not_live = released.not_live;
    table.script = script;
    let shown = show(&table, until, result.as_ref().err(), json);
    // An error of the run is more important than an error of printing.
    result.and(shown)
}

fn show(
    table: &SummaryTable,
    until: Stage,
    error: Option<&AnyError>,
    json: bool,
) -> Result<(), AnyError> {
    if json {
        summary_event(table, error)
    } else if until > Stage::Compose && (error.is_none() || !table.units.is_empty()) {
        answer(&format!("\n{}", table.text()))
    } else {
        Ok(())
    }
}

/// Prints the last event of a run, with the errors of a run that failed.
pub fn summary_event(table: &SummaryTable, error: Option<&AnyError>) -> Result<(), AnyError> {
    let mut event = serde_json::to_value(table).unwrap_or_default();
    if let Some(object) = event.as_object_mut() {
        object.shift_insert(0, "event".into(), "summary".into());
        if let Some(error) = error {
            object.insert("errors".into(), errors(error).into());
        }
        object.insert("ok".into(), error.is_none().into());
    }
    answer(&format!("{event}\n"))
}

/// The errors of a run, each with its code if it has one. An error that only counts others is left out.
fn errors(error: &AnyError) -> Vec<Value> {
    let related: Vec<&dyn Diagnostic> = error.related().into_iter().flatten().collect();
    let (is_failed, only_counts) = match error {
        AnyError::Pipeline(pipeline::Error::Failed { .. }) => (true, true),
        AnyError::Pipeline(pipeline::Error::Preflight { .. }) => (false, true),
        _ => (false, false),
    };
    let own: &dyn Diagnostic = error;
    let own = (!only_counts || related.is_empty()).then_some(own);
    let all = own.into_iter().chain(related);
    all.map(|error| {
        let mut message = with_causes(error);
        if is_failed {
            // The output of the unit is in earlier events.
            message = first_line(&message);
        }
        let code = error.code().map(|code| code.to_string());
        json!({ "message": message, "code": code })
    })
    .collect()
}

/// The message of an error, and those of its causes that it does not repeat.
fn with_causes(error: &dyn Diagnostic) -> String {
    let mut message = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        if !message.contains(&text) {
            message = format!("{message}: {text}");
        }
        cause = error.source();
    }
    message
}

/// Prints one JSON document.
pub fn document(value: &Value) -> Result<(), AnyError> {
    answer(&format!("{value:#}\n"))
}

type RunResult = (RunSummary, Released, Result<(), pipeline::Error>);

fn carry_out(
    planned: (Plan, PreparedCommand),
    prepare: PrepareRun,
    work: Option<&WorkOptions>,
    json: bool,
) -> Result<RunResult, AnyError> {
    let detail = if work.is_some_and(|work| work.explain) {
        Detail::Full
    } else {
        Detail::Short
    };
    let transcripts = Transcripts::default();
    let reporter = Recording::new(reporter(json, detail), transcripts.clone());
    live_with(Box::new(reporter), |live| {
        let around = RunServices {
            events: live.events,
            interrupt: live.interrupt,
            runtime: live.runtime,
            work,
            transcripts,
        };
        under_lock(planned, prepare, around)
    })
}

/// Takes the lock and runs the plan. A plan that was made while another run was working may be
/// outdated, so it is made again, with the selection of stores and `.env`.
fn under_lock(
    planned: (Plan, PreparedCommand),
    prepare: PrepareRun,
    around: RunServices,
) -> Result<RunResult, AnyError> {
    let (mut plan, mut prepared) = planned;
    let lock = match ProjectLock::take(&plan.project, &around.events, &around.interrupt) {
        Ok(lock) => lock,
        Err(error) => return Ok((RunSummary::default(), Released::default(), Err(error))),
    };
    if lock.has_waited() {
        prepared = prepare()?;
        plan = prepared.plan(around.work)?;
    }
    if plan.until > Stage::Compose {
        let stores = plan.stores.iter().map(|store| store.id.as_str());
        check_not_served(&plan.project, stores)?;
    }
    let transcripts = around.transcripts.clone();
    let project = Arc::new(prepared.project.clone());
    let wanted = prepared.release.clone();
    let (services, mut options) = services(&plan, prepared, around)?;
    let services = Arc::new(services);
    let plan = Arc::new(plan);
    let events = &services.events;
    if let Err(error) = record_killed_runs(&plan.project, &lock) {
        events.notice(format!("earlier runs are not recorded as killed: {error}"));
    }
    let targets = RunTargets::new(&plan, project, &services, wanted);
    // Wrong input, such as an unknown wave, is no deploy that has failed, so it is not recorded.
    let is_wrong_input = |error: &AnyError| error.exit() == Exit::Input;
    let targets = match targets {
        Err(error) if is_wrong_input(&error) => return Err(error),
        targets => targets,
    };
    let recorder = BuildRecorder::start(&plan, environment::actor(), transcripts, events);
    options.builds = recorder
        .as_ref()
        .map(BuildRecorder::ids)
        .unwrap_or_default();
    let options = Arc::new(options);
    let targets = targets.inspect_err(|error| {
        if let Some(recorder) = &recorder {
            recorder.end_early(&error.to_string(), events);
        }
    })?;
    let checks = targets.checks(&plan);
    let (mut summary, mut result) = pipeline::run(&plan, &services, &options, checks, &lock);
    let mut released = Released::default();
    if let Some(recorder) = recorder {
        let run = EndedRun {
            summary: &summary,
            result: &result,
        };
        let builds = recorder.builds(&plan, &run, events);
        let mut finished: FinishedStores = BTreeMap::new();
        if plan.until < Stage::Deploy {
            let complete = builds
                .iter()
                .filter(|it| it.status == BuildStatus::Complete);
            finished.extend(complete.map(|build| (build.store.clone(), None)));
        }
        if plan.until == Stage::Deploy && !summary.pushed.is_empty() {
            (released, finished, result) =
                targets.release(&plan, &builds, result, (&options, recorder.starts()));
        }
        recorder.end(&plan, &result, &finished, &services);
        summary.elapsed = services.started.elapsed();
        let outside = services.events.waiting_time();
        summary.own = summary.elapsed.saturating_sub(outside);
    }
    Ok((summary, released, result))
}

/// Fails if a development server runs in the folder of a store that is to be built or removed.
pub fn check_not_served<'a>(
    project: &Path,
    stores: impl Iterator<Item = &'a str>,
) -> Result<(), pipeline::Error> {
    let Some(session) = SessionLock::holder(project)? else {
        return Ok(());
    };
    let stores: Vec<_> = stores
        .filter(|id| session.served.iter().any(|it| it == id))
        .filter_map(|id| StoreId::new(id).ok())
        .collect();
    if stores.is_empty() {
        return Ok(());
    }
    let session = Box::new(session);
    Err(pipeline::Error::Served { session, stores })
}

/// The origin of a result, as text in the summary.
pub fn cache_state(origin: ResultOrigin) -> String {
    match origin {
        ResultOrigin::Script(_) => "miss".into(),
        ResultOrigin::Cache => "hit".into(),
        ResultOrigin::Reused(maker) => format!("reused from {maker}"),
    }
}

fn table(summary: RunSummary) -> SummaryTable {
    SummaryTable {
        script: None,
        units: summary
            .units
            .into_iter()
            .map(|row| SummaryRow {
                store_id: row.unit.store.to_string(),
                app: row.unit.app.to_string(),
                build_seconds: row.build.map(seconds),
                tool_cache: match &row.origin {
                    Some(ResultOrigin::Script(tools)) => *tools,
                    _ => None,
                },
                cache: row.origin.map(cache_state),
                was_there: row.was_there,
                deploy_bytes: row.deploy_size,
                image_bytes: row.image_size,
                digest: row.digest,
                reference: row.reference,
            })
            .collect(),
        packages: summary
            .packages
            .into_iter()
            .map(|built| PackageRow {
                name: built.name,
                build_seconds: seconds(built.elapsed),
                cache: cache_state(built.origin),
            })
            .collect(),
        deployed: Vec::new(),
        not_live: Vec::new(),
        hints: summary.hints,
        seconds: seconds(summary.elapsed),
        own_seconds: seconds(summary.own),
    }
}
