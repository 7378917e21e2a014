//! `store builds`: what was built, by whom, from what.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::arguments::Global;
use super::arguments::ledger::{
    BuildInfoOptions, BuildListOptions, BuildLogsOptions, BuildsCommand, BuildsOptions,
    StatusOption,
};
use super::builds_prune::prune;
use super::builds_running as running;
use super::builds_transfer::{export, import};
use super::environment::tell;
use super::listing::{
    self, CellFormat, ListLine, ListWords, RunningRuns, check_stores, date, plain, records,
    short_commit,
};
use super::run::document;
use super::shared_records::RegistryAccess;
use super::show::Page;
use super::{answer, answer_bytes, environment, project};
use crate::config::Project;
use crate::error::Error as AnyError;
use crate::event::bytes;
use crate::ledger::{
    self, BuildRecord, BuildStatus, EventRecord, LogFolder, Record, RecordId, RecordSet,
    StoreEvent, open_runs, removed_builds,
};
use crate::plan;
use crate::report::duration;
use crate::store::StoreId;

/// The operation of a run that releases settings. It makes no build.
pub const DEPLOY_SETTINGS: &str = "deploy --settings";

pub fn builds(global: &Global, options: &BuildsOptions) -> Result<(), AnyError> {
    let (project, environment) = project(global)?;
    let access = match &options.command {
        None => &options.access,
        Some(BuildsCommand::Info(options)) => &options.access,
        Some(BuildsCommand::Logs(options)) => &options.access,
        Some(BuildsCommand::Export(options)) => &options.access,
        Some(BuildsCommand::Import(options)) => &options.access,
        Some(BuildsCommand::Prune(options)) => &options.access,
    };
    let registry = RegistryAccess::new(&project, &environment, access)?;
    let console = plan::console_of(&project, &environment.console(access));
    let project = Arc::new(project);
    match &options.command {
        None => list(&project, &registry, &options.list),
        Some(BuildsCommand::Info(options)) => info(&project, &registry, options),
        Some(BuildsCommand::Logs(options)) => logs(&project, &registry, options),
        Some(BuildsCommand::Export(options)) => export(&project, &registry, options),
        Some(BuildsCommand::Import(options)) => import(&project, &registry, options),
        Some(BuildsCommand::Prune(options)) => prune(&project, &registry, console, options),
    }
}

/// A line of the list: a build, or a run that has not recorded its end.
struct Line<'a> {
    id: &'a RecordId,
    store: &'a StoreId,
    /// The newest release of the build.
    release: Option<&'a RecordId>,
    status: StatusOption,
    started: Timestamp,
    seconds: Option<f64>,
    /// The commit and its subject.
    description: String,
}

/// What lines of builds show beside their records.
struct BuildFacts<'a> {
    registry: &'a RegistryAccess,
    /// Builds whose images were removed.
    removed: BTreeSet<RecordId>,
    /// The newest release of each build.
    releases: BTreeMap<&'a RecordId, &'a RecordId>,
}

impl<'a> BuildFacts<'a> {
    fn new(records: &'a RecordSet, registry: &'a RegistryAccess) -> Self {
        let releases = records.releases();
        Self {
            registry,
            removed: removed_builds(records),
            releases: releases.map(|it| (&it.build, &it.id)).collect(),
        }
    }

    fn status(&self, build: &BuildRecord) -> StatusOption {
        match build.status {
            BuildStatus::Failed => StatusOption::Failed,
            BuildStatus::Interrupted => StatusOption::Interrupted,
            BuildStatus::Complete
                if self.removed.contains(&build.id) || self.registry.is_gone(build) =>
            {
                StatusOption::Gone
            }
            BuildStatus::Complete => StatusOption::Complete,
        }
    }
}

impl<'a> Line<'a> {
    fn of_build(build: &'a BuildRecord, facts: &BuildFacts<'a>) -> Self {
        Self {
            id: &build.id,
            store: &build.store,
            release: facts.releases.get(&build.id).copied(),
            status: facts.status(build),
            started: build.started,
            seconds: Some(build.seconds),
            description: match &build.imported_from {
                Some(_) => format!("imported: {}", description(build)),
                None => description(build),
            },
        }
    }

    /// A run of which only the start is recorded. It is running, or was killed.
    fn of_run(start: &'a EventRecord, running: &RunningRuns) -> Self {
        Self {
            id: &start.id,
            store: &start.store,
            release: None,
            status: if running.has(start) {
                StatusOption::Running
            } else {
                StatusOption::Interrupted
            },
            started: start.id.made_at(),
            seconds: None,
            description: format!("by {} on {}", start.actor.user, start.actor.host),
        }
    }
}

impl ListLine for Line<'_> {
    fn id(&self) -> &RecordId {
        self.id
    }

    fn other_id(&self) -> Option<&RecordId> {
        self.release
    }

    fn store(&self) -> &StoreId {
        self.store
    }

    fn status(&self) -> &'static str {
        self.status.name()
    }

    fn at(&self) -> Timestamp {
        self.started
    }

    fn cells(&self, format: &CellFormat) -> Vec<String> {
        vec![
            self.store.to_string(),
            self.status.name().into(),
            self.release.map_or("-".into(), |it| format.id(it)),
            format.age(self.started),
            self.seconds.map_or("-".into(), duration),
            self.description.clone(),
        ]
    }

    fn json(&self) -> Value {
        json!({
            "id": self.id,
            "storeId": self.store,
            "status": self.status.name(),
            "release": self.release,
            "started": self.started,
            "seconds": self.seconds,
            "description": self.description,
        })
    }
}

impl StatusOption {
    /// The word for lists.
    pub fn name(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::Failed => "failed",
            Self::Interrupted => "interrupted",
            Self::Running => "running",
            Self::Gone => "gone",
        }
    }
}

/// `0bf4d65 Add a page`, or the tag of a dirty working tree.
pub fn description(build: &BuildRecord) -> String {
    match &build.commit {
        Some(commit) if commit.dirty => build.tag.as_deref().map_or_else(
            || format!("{} with changes", short_commit(&commit.sha)),
            |tag| tag.replacen(&commit.sha, short_commit(&commit.sha), 1),
        ),
        Some(commit) => {
            let subject = commit.subject.as_deref().unwrap_or_default();
            format!("{} {subject}", short_commit(&commit.sha))
        }
        None => String::new(),
    }
}

fn list(
    project: &Project,
    registry: &RegistryAccess,
    options: &BuildListOptions,
) -> Result<(), AnyError> {
    const WORDS: ListWords = ListWords {
        key: "builds",
        columns: &[
            "STORE",
            "STATUS",
            "RELEASE",
            "STARTED",
            "ELAPSED",
            "DESCRIPTION",
        ],
        none: "no builds are recorded; `alokai store deploy` records each build",
        no_match: "no recorded build matches",
    };
    let records = records(project, registry)?;
    check_stores(project, &records, &options.list.stores)?;
    let mut runs = open_runs(records.events());
    runs.retain(|run| makes_build(run));
    let facts = BuildFacts::new(&records, registry);
    let builds = records.builds();
    let mut lines: Vec<Line> = builds.map(|it| Line::of_build(it, &facts)).collect();
    if !runs.is_empty() {
        let running = RunningRuns::of_project(project);
        lines.extend(runs.into_iter().map(|run| Line::of_run(run, &running)));
    }
    let status = options.status.map(StatusOption::name);
    listing::list(&WORDS, lines, &options.list, status)
}

/// Whether a run records a build at its end.
pub fn makes_build(start: &EventRecord) -> bool {
    let StoreEvent::Started { operation, .. } = &start.what else {
        return false;
    };
    operation.starts_with("deploy") && operation != DEPLOY_SETTINGS
}

/// The build whose id starts with these characters.
pub fn build<'a>(records: &'a RecordSet, prefix: &str) -> Result<&'a BuildRecord, AnyError> {
    let record = records.find(prefix).map_err(ledger::Error::from)?;
    match record {
        Record::Build(build) => Ok(build),
        other => Err(ledger::Error::NotABuild {
            id: other.id().clone(),
        }
        .into()),
    }
}

fn write_apps(text: &mut String, build: &BuildRecord) {
    for (app, built) in &build.apps {
        let _ = writeln!(text, "\n{app}");
        let mut row = |name: &str, value: Option<String>| {
            if let Some(value) = value {
                let _ = writeln!(text, "  {name:<10} {}", plain(&value));
            }
        };
        row("image", built.reference.clone());
        row("digest", built.digest.clone());
        row("inputs", built.inputs.clone());
        row("cache", built.cache.clone());
        row("script", built.seconds.map(duration));
        row("artifact", built.deploy_bytes.map(bytes));
        row("size", built.image_bytes.map(bytes));
    }
}

fn info(
    project: &Project,
    registry: &RegistryAccess,
    options: &BuildInfoOptions,
) -> Result<(), AnyError> {
    let records = records(project, registry)?;
    let build = build(&records, &options.build)?;
    if options.json {
        return document(&serde_json::to_value(build).unwrap_or_default());
    }
    let mut text = String::new();
    let mut row = |name: &str, value: &str| {
        let _ = writeln!(text, "{name:<12} {}", plain(value));
    };
    row("build", build.id.as_str());
    row("store", build.store.as_str());
    let facts = BuildFacts::new(&records, registry);
    row("status", facts.status(build).name());
    if let Some(release) = facts.releases.get(&build.id) {
        row("release", release.as_str());
    }
    row("started", &date(build.started));
    row("elapsed", &duration(build.seconds));
    row("stage", &build.reached.to_string());
    if let Some(commit) = &build.commit {
        row("commit", &commit.sha);
        if let Some(subject) = &commit.subject {
            row("subject", &plain(subject));
        }
    }
    if let Some(tag) = &build.tag {
        row("tag", tag);
    }
    if let Some(from) = &build.imported_from {
        row(
            "imported",
            &format!(
                "{} of `{}`, by {} on {}",
                from.id, from.store, from.actor.user, from.actor.host
            ),
        );
    }
    row("composition", &build.composition);
    if let Some(plan) = &build.plan {
        row("plan", plan);
    }
    row(
        "by",
        &format!("{} on {}", build.actor.user, build.actor.host),
    );
    if let Some(run) = &build.actor.run {
        row("run", run);
    }
    row("alokai", &build.tool);
    write_apps(&mut text, build);
    for failure in &build.failures {
        let lines: Vec<_> = failure.lines().map(plain).collect();
        let _ = write!(text, "\nfailed: {}\n", lines.join("\n"));
    }
    if build.log.is_some() {
        let _ = writeln!(text, "\noutput: alokai store builds logs {}", build.id);
    }
    answer(&text)
}

fn logs(
    project: &Project,
    registry: &RegistryAccess,
    options: &BuildLogsOptions,
) -> Result<(), AnyError> {
    let records = records(project, registry)?;
    if let Ok(Record::Event(start)) = records.find(&options.build) {
        // A run that releases its build has output still to come.
        let logs = LogFolder::of_project(&project.root);
        let running = logs.open_running(&start.id);
        let running = running.map_err(ledger::Error::from)?;
        let mut builds = records.builds();
        let build = builds.find(|build| build.start.as_ref() == Some(&start.id));
        return match (running, build) {
            (None, Some(build)) => log_of_build(project, registry, build),
            (running, _) => running::print(project, start, running, options.follow),
        };
    }
    log_of_build(project, registry, build(&records, &options.build)?)
}

fn log_of_build(
    project: &Project,
    registry: &RegistryAccess,
    build: &BuildRecord,
) -> Result<(), AnyError> {
    let missing = || ledger::Error::NoLog {
        id: build.id.clone(),
    };
    let Some(log) = &build.log else {
        tell(&format!("the build {} has no output", build.id));
        return Ok(());
    };
    let folder = LogFolder::of_project(&project.root);
    let mut text = folder.read(log).map_err(ledger::Error::from)?;
    if text.is_none() {
        registry.fetch_log(project, &build.store, log);
        text = folder.read(log).map_err(ledger::Error::from)?;
    }
    let text = text.ok_or_else(missing)?;
    if environment::is_terminal() {
        let mut page = Page::new(&project.root);
        page.plain(&String::from_utf8_lossy(&text));
        return page.show();
    }
    answer_bytes(&text)
}
