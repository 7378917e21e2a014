//! `store history`: what was done to stores.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::arguments::Global;
use super::arguments::ledger::StatusOption;
use super::arguments::questions::{HistoryCommand, HistoryOptions, OperationOptions};
use super::environment::tell;
use super::listing::{
    self, CellFormat, ID_CHARACTERS, ListLine, ListWords, RunningRuns, check_stores, date, plain,
    records,
};
use super::run::document;
use super::shared_records::RegistryAccess;
use super::{answer, answer_bytes, builds, project};
use crate::config::Project;
use crate::error::Error as AnyError;
use crate::ledger::{
    self, BuildRecord, BuildStatus, EventRecord, LogFolder, LogReference, Operation, Record,
    RecordId, RecordSet, ReleaseRecord, StoreEvent, TargetState, operations,
};
use crate::report::duration;
use crate::store::StoreId;

const WORDS: ListWords = ListWords {
    key: "operations",
    columns: &[
        "STORE",
        "OPERATION",
        "STATUS",
        "STARTED",
        "ELAPSED",
        "BY",
        "DETAIL",
    ],
    none: "no operations are recorded; `alokai store deploy` records each deploy",
    no_match: "no recorded operation matches",
};

pub fn history(global: &Global, options: &HistoryOptions) -> Result<(), AnyError> {
    let (project, environment) = project(global)?;
    let access = match &options.command {
        None => &options.access,
        Some(HistoryCommand::Info(options)) => &options.record.access,
    };
    let registry = RegistryAccess::new(&project, &environment, access)?;
    if options.push {
        return push(&project, &registry, &options.list.stores);
    }
    let records = records(&project, &registry)?;
    match &options.command {
        None => list(&project, &records, options),
        Some(HistoryCommand::Info(options)) => info(&project, &registry, &records, options),
    }
}

/// What an event is about, in a few words.
pub fn words(event: &EventRecord) -> String {
    let name = match &event.what {
        StoreEvent::Started { operation, .. } => return plain(operation),
        StoreEvent::Ended { succeeded, .. } if *succeeded => "run ended",
        StoreEvent::Ended { .. } => "run failed",
        StoreEvent::Staged => "staged",
        StoreEvent::Healthy => "healthy",
        StoreEvent::Released { observed: false } => "released",
        StoreEvent::Released { observed: true } => "released (found out later)",
        StoreEvent::Drained => "drained",
        StoreEvent::Retired => "retired",
        StoreEvent::Failed => "failed",
        StoreEvent::SwitchedBack { .. } => "switched back",
        StoreEvent::Pinned => "pinned",
        StoreEvent::Unpinned => "unpinned",
        StoreEvent::Locked => "locked",
        StoreEvent::Unlocked => "unlocked",
        StoreEvent::Hook { .. } => "hook",
        StoreEvent::ImagesRemoved { .. } => "images removed",
        StoreEvent::Maintenance { on: true } => "maintenance on",
        StoreEvent::Maintenance { on: false } => "maintenance off",
    };
    name.to_owned()
}

/// The starts of runs that were stopped or killed, with the seconds until then. A later run has recorded
/// the end of a killed run.
type StoppedRuns<'a> = BTreeMap<&'a RecordId, f64>;

fn stopped(records: &RecordSet) -> StoppedRuns<'_> {
    let builds = records.builds();
    let stopped = builds.filter(|it| it.status == BuildStatus::Interrupted);
    stopped
        .filter_map(|it| Some((it.start.as_ref()?, it.seconds)))
        .collect()
}

struct Line<'a> {
    operation: Operation<'a>,
    status: StatusOption,
    seconds: Option<f64>,
    records: &'a RecordSet,
}

impl<'a> Line<'a> {
    fn of(
        operation: Operation<'a>,
        records: &'a RecordSet,
        running: &RunningRuns,
        interrupted: &StoppedRuns,
    ) -> Self {
        let stopped = interrupted.get(&operation.event.id);
        let status = match status(&operation, running) {
            StatusOption::Failed if stopped.is_some() => StatusOption::Interrupted,
            status => status,
        };
        Self {
            seconds: stopped.copied().or_else(|| operation.seconds()),
            operation,
            status,
            records,
        }
    }

    fn event(&self) -> &'a EventRecord {
        self.operation.event
    }
}

fn status(operation: &Operation, running: &RunningRuns) -> StatusOption {
    match (&operation.event.what, operation.end) {
        (StoreEvent::Started { .. }, Some(end)) => match end.what {
            StoreEvent::Ended {
                interrupted: true, ..
            } => StatusOption::Interrupted,
            StoreEvent::Ended {
                succeeded: false, ..
            } => StatusOption::Failed,
            _ => StatusOption::Complete,
        },
        (StoreEvent::Started { .. }, None) if running.has(operation.event) => StatusOption::Running,
        (StoreEvent::Started { .. }, None) => StatusOption::Interrupted,
        (StoreEvent::Failed | StoreEvent::SwitchedBack { .. }, _) => StatusOption::Failed,
        (StoreEvent::Hook { code, .. }, _) if *code != Some(0) => StatusOption::Failed,
        _ => StatusOption::Complete,
    }
}

/// The first line of a text, with control characters escaped.
fn plain_line(text: &str) -> String {
    plain(text.lines().next().unwrap_or_default())
}

/// What a line says beside its columns: the reason, the command of a hook, or the release.
fn summary(records: &RecordSet, operation: &Operation) -> String {
    let reason = detail(operation);
    if !reason.is_empty() {
        return plain_line(&reason);
    }
    let Some(release) = release(operation).and_then(|id| records.release(id)) else {
        return String::new();
    };
    let id: String = release.id.as_str().chars().take(ID_CHARACTERS).collect();
    let commit = records.build(&release.build).map(builds::description);
    let text = format!(
        "{}{id} {}",
        staged(records, operation, release),
        commit.unwrap_or_default()
    );
    plain_line(text.trim_end())
}

/// `staged: ` or `staged, pinned: ` for an operation that did not make its release live.
fn staged(records: &RecordSet, operation: &Operation, release: &ReleaseRecord) -> &'static str {
    let of_release = |it: &&&EventRecord| it.release.as_ref() == Some(&release.id);
    let steps = operation.steps.iter();
    let own: Vec<_> = steps.filter(of_release).map(|it| &it.what).collect();
    let is_live = own
        .iter()
        .any(|it| matches!(it, StoreEvent::Released { .. }));
    if is_live || !own.contains(&&StoreEvent::Staged) {
        return "";
    }
    let until = operation.end.map_or(&operation.event.id, |end| &end.id);
    let events = records.events().filter(|it| {
        it.store == release.store && it.target.as_ref() == Some(&release.target) && it.id <= *until
    });
    if TargetState::after(events).pin.is_some() {
        "staged, pinned: "
    } else {
        "staged: "
    }
}

/// The reason of a failure, or the command of a hook.
fn detail(operation: &Operation) -> String {
    let ended = operation.end.and_then(|end| end.detail.as_deref());
    let detail = ended.or(operation.event.detail.as_deref());
    match (&operation.event.what, detail) {
        (StoreEvent::Hook { command, code }, None) => match code {
            Some(0) => command.clone(),
            Some(code) => format!("{command} (exit code {code})"),
            None => format!("{command} (ended by a signal)"),
        },
        (StoreEvent::Hook { command, .. }, Some(detail)) => format!("{command}: {detail}"),
        (_, Some(detail)) => detail.to_owned(),
        (_, None) => String::new(),
    }
}

/// The release that an operation is about.
fn release<'a>(operation: &Operation<'a>) -> Option<&'a RecordId> {
    // The first step stages the release of the run; the last one may retire an earlier release.
    let mut steps = operation.steps.iter();
    let step = steps.find_map(|step| step.release.as_ref());
    let end = operation.end.and_then(|end| end.release.as_ref());
    operation.event.release.as_ref().or(end).or(step)
}

impl ListLine for Line<'_> {
    fn id(&self) -> &RecordId {
        &self.event().id
    }

    fn store(&self) -> &StoreId {
        &self.event().store
    }

    fn status(&self) -> &'static str {
        self.status.name()
    }

    fn at(&self) -> Timestamp {
        self.event().id.made_at()
    }

    fn cells(&self, format: &CellFormat) -> Vec<String> {
        vec![
            self.event().store.to_string(),
            words(self.event()),
            self.status.name().into(),
            format.age(self.at()),
            self.seconds.map_or("-".into(), duration),
            self.event().actor.user.clone(),
            summary(self.records, &self.operation),
        ]
    }

    fn json(&self) -> Value {
        let event = self.event();
        json!({
            "id": event.id,
            "storeId": event.store,
            "operation": words(event),
            "status": self.status.name(),
            "started": self.at(),
            "seconds": self.seconds,
            "target": event.target,
            "release": release(&self.operation),
            "actor": event.actor,
            "detail": detail(&self.operation),
        })
    }
}

fn list(project: &Project, records: &RecordSet, options: &HistoryOptions) -> Result<(), AnyError> {
    check_stores(project, records, &options.list.stores)?;
    let running = RunningRuns::of_project(project);
    let operations = operations(&records.events().collect::<Vec<_>>());
    let stopped = stopped(records);
    let operations = operations.into_iter();
    let lines = operations.map(|it| Line::of(it, records, &running, &stopped));
    let status = options.status.map(|it| StatusOption::from(it).name());
    listing::list(&WORDS, lines.collect(), &options.list, status)
}

/// The operation whose id starts with these characters. A step belongs to its run.
fn operation<'a>(records: &'a RecordSet, prefix: &str) -> Result<Operation<'a>, AnyError> {
    let record = records.find(prefix).map_err(ledger::Error::from)?;
    let not_one = || ledger::Error::NotAnOperation {
        id: record.id().clone(),
    };
    let Record::Event(event) = record else {
        return Err(not_one().into());
    };
    let of_store = records.events().filter(|it| it.store == event.store);
    let found = operations(&of_store.collect::<Vec<_>>());
    let has_it = |it: &&Operation| {
        let end = it.end.into_iter();
        end.chain(it.steps.iter().copied())
            .any(|it| it.id == event.id)
    };
    let exact = found.iter().find(|it| it.event.id == event.id);
    let found = exact.or_else(|| found.iter().find(has_it));
    Ok(found.cloned().ok_or_else(not_one)?)
}

/// The output of an operation: its own, or that of the build that its run has made.
fn log<'a>(records: &'a RecordSet, operation: &Operation<'a>) -> Option<&'a LogReference> {
    let end = operation.end.and_then(|end| end.log.as_ref());
    let own = operation.event.log.as_ref().or(end);
    own.or_else(|| build(records, operation)?.log.as_ref())
}

/// The build that a run has made, or the build of its release.
fn build<'a>(records: &'a RecordSet, operation: &Operation) -> Option<&'a BuildRecord> {
    let start = &operation.event.id;
    let made = records.builds().find(|it| it.start.as_ref() == Some(start));
    if operation.event.starts_run() && made.is_some() {
        return made;
    }
    let release = release(operation).and_then(|id| records.release(id));
    release.and_then(|release| records.build(&release.build))
}

fn info(
    project: &Project,
    registry: &RegistryAccess,
    records: &RecordSet,
    options: &OperationOptions,
) -> Result<(), AnyError> {
    let operation = operation(records, &options.record.id)?;
    if options.output {
        return output(project, registry, records, &operation);
    }
    let line = Line::of(
        operation,
        records,
        &RunningRuns::of_project(project),
        &stopped(records),
    );
    if options.record.json {
        let mut value = line.json();
        value["steps"] = json!(line.operation.steps);
        return document(&value);
    }
    let (operation, event) = (&line.operation, line.event());
    let mut text = String::new();
    let mut row = |name: &str, value: &str| {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{name:<12} {}", plain(value));
    };
    row("operation", &words(event));
    row("id", event.id.as_str());
    row("store", event.store.as_str());
    row("status", line.status.name());
    row("started", &date(event.id.made_at()));
    if let Some(seconds) = line.seconds {
        row("elapsed", &duration(seconds));
    }
    let detail = summary(records, operation);
    if !detail.is_empty() {
        row("detail", &detail);
    }
    if let Some(target) = &event.target {
        row("target", &target.escape_debug().to_string());
    }
    if let Some(release) = release(operation) {
        row("release", release.as_str());
    }
    if let Some(build) = build(records, operation) {
        row("build", build.id.as_str());
    }
    row(
        "by",
        &format!("{} on {}", event.actor.user, event.actor.host),
    );
    if let Some(run) = &event.actor.run {
        row("run", run);
    }
    if !operation.steps.is_empty() {
        text.push('\n');
    }
    for step in &operation.steps {
        text.push_str(&step_line(step));
    }
    if log(records, operation).is_some() {
        let _ = writeln!(
            text,
            "\noutput: alokai store history info {} --output",
            event.id
        );
    }
    answer(&text)
}

/// A step: its time, what happened, how long it took, and why.
fn step_line(step: &EventRecord) -> String {
    line_of(step, step.release.as_ref())
}

/// A step of a release that is known: its time, what happened, how long it took, and why.
pub fn step_of(step: &EventRecord) -> String {
    line_of(step, None)
}

fn line_of(step: &EventRecord, release: Option<&RecordId>) -> String {
    let mut parts = vec![date(step.id.made_at()), format!("{:<14}", words(step))];
    parts.extend(release.map(ToString::to_string));
    parts.extend(step.seconds.map(duration));
    let single = Operation {
        event: step,
        end: None,
        steps: Vec::new(),
    };
    parts.push(plain_line(&detail(&single)));
    format!("{}\n", parts.join("  ").trim_end())
}

fn output(
    project: &Project,
    registry: &RegistryAccess,
    records: &RecordSet,
    operation: &Operation,
) -> Result<(), AnyError> {
    let id = &operation.event.id;
    let Some(log) = log(records, operation) else {
        tell(&format!("the operation {id} has no output"));
        return Ok(());
    };
    let folder = LogFolder::of_project(&project.root);
    let mut text = folder.read(log).map_err(ledger::Error::from)?;
    if text.is_none() {
        registry.fetch_log(project, &operation.event.store, log);
        text = folder.read(log).map_err(ledger::Error::from)?;
    }
    let missing = || ledger::Error::NoOutput { id: id.clone() };
    answer_bytes(&text.ok_or_else(missing)?)
}

/// Sends the records of this machine that the registry does not have.
fn push(project: &Project, registry: &RegistryAccess, stores: &[String]) -> Result<(), AnyError> {
    let records = records(project, registry)?;
    check_stores(project, &records, stores)?;
    for (store, sent) in registry.push(project, stores)? {
        answer(&format!(
            "{store}: {sent} {} sent\n",
            if sent == 1 { "record" } else { "records" }
        ))?;
    }
    Ok(())
}
