//! `store builds`: what was built, by whom, from what.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::arguments::Global;
use super::arguments::ledger::{
    BuildInfoOptions, BuildListOptions, BuildLogsOptions, BuildsCommand, BuildsOptions,
    StatusOption,
};
use super::builds_prune::prune;
use super::builds_transfer::{export, import};
use super::environment::tell;
use super::run::document;
use super::shared_records::RegistryAccess;
use super::show::Page;
use super::{Error, answer, answer_bytes, environment, project};
use crate::config::{Project, nearest};
use crate::error::Error as AnyError;
use crate::event::bytes;
use crate::ledger::{
    self, BuildRecord, BuildStatus, EventRecord, Happening, LogFolder, Record, RecordFolder,
    RecordId, RecordSet, folder_id, open_runs,
};
use crate::pipeline::ProjectLock;
use crate::report::duration;
use crate::store::StoreId;

/// The least characters of ids in lists.
const ID_CHARACTERS: usize = 11;

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
    match &options.command {
        None => list(&project, &registry, &options.list),
        Some(BuildsCommand::Info(options)) => info(&project, &registry, options),
        Some(BuildsCommand::Logs(options)) => logs(&project, &registry, options),
        Some(BuildsCommand::Export(options)) => export(&project, &registry, options),
        Some(BuildsCommand::Import(options)) => import(&project, &registry, options),
        Some(BuildsCommand::Prune(options)) => prune(&project, &registry, options),
    }
}

/// A line of the list: a build, or a run that has not recorded its end.
struct Line<'a> {
    id: &'a RecordId,
    store: &'a StoreId,
    status: StatusOption,
    started: Timestamp,
    seconds: Option<f64>,
    /// The commit and its subject.
    description: String,
}

impl<'a> Line<'a> {
    fn of_build(build: &'a BuildRecord) -> Self {
        Self {
            id: &build.id,
            store: &build.store,
            status: status(build),
            started: build.started,
            seconds: Some(build.seconds),
            description: description(build),
        }
    }

    /// A run of which only the start is recorded. It is running, or was killed.
    /// `idle` is the id of the project's folder if no run holds its lock.
    fn of_run(start: &'a EventRecord, now: Timestamp, idle: Option<&str>) -> Option<Self> {
        let Happening::Started { lease, folder, .. } = &start.happening else {
            return None;
        };
        let started = start.id.made_at();
        let age = now.duration_since(started).as_secs();
        // A run holds the lock of its project folder until it ends.
        let is_here = start.actor.host == environment::actor().host;
        let was_killed = is_here && idle == Some(folder.as_str());
        let is_running = u64::try_from(age).is_ok_and(|age| age < *lease) && !was_killed;
        Some(Self {
            id: &start.id,
            store: &start.store,
            status: if is_running {
                StatusOption::Running
            } else {
                StatusOption::Interrupted
            },
            started,
            seconds: None,
            description: format!("by {} on {}", start.actor.user, start.actor.host),
        })
    }

    fn json(&self) -> Value {
        json!({
            "id": self.id,
            "storeId": self.store,
            "status": self.status.name(),
            "started": self.started,
            "seconds": self.seconds,
            "description": self.description,
        })
    }
}

impl StatusOption {
    fn name(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::Failed => "failed",
            Self::Interrupted => "interrupted",
            Self::Running => "running",
            Self::Gone => "gone",
        }
    }
}

fn status(build: &BuildRecord) -> StatusOption {
    match build.status {
        BuildStatus::Complete => StatusOption::Complete,
        BuildStatus::Failed => StatusOption::Failed,
        BuildStatus::Interrupted => StatusOption::Interrupted,
    }
}

/// `0bf4d65 Add a page`, or the tag of a dirty working tree.
fn description(build: &BuildRecord) -> String {
    match &build.commit {
        Some(commit) if commit.dirty => build.tag.as_deref().map_or_else(
            || format!("{} with changes", short(&commit.sha)),
            |tag| tag.replacen(&commit.sha, short(&commit.sha), 1),
        ),
        Some(commit) => {
            let subject = commit.subject.as_deref().unwrap_or_default();
            format!("{} {subject}", short(&commit.sha))
        }
        None => String::new(),
    }
}

fn short(sha: &str) -> &str {
    sha.get(..7).unwrap_or(sha)
}

/// The records of the project, with those of other machines. Files that are not valid records are
/// named on standard error.
pub fn records(project: &Project, registry: &RegistryAccess) -> Result<RecordSet, AnyError> {
    registry.pull(project);
    let (records, damaged) = RecordFolder::of_project(&project.root)
        .read()
        .map_err(ledger::Error::from)?;
    for damaged in damaged {
        tell(&format!(
            "note: `{}` is ignored: {}",
            damaged.path.display(),
            damaged.reason
        ));
    }
    Ok(records)
}

fn list(
    project: &Project,
    registry: &RegistryAccess,
    options: &BuildListOptions,
) -> Result<(), AnyError> {
    let records = records(project, registry)?;
    check_stores(project, &records, &options.stores)?;
    let now = Timestamp::now();
    let runs = open_runs(records.events());
    let is_idle = !runs.is_empty() && ProjectLock::take_now(&project.root).is_ok();
    let idle = is_idle.then(|| folder_id(&project.root));
    let runs = runs.into_iter();
    let runs = runs.filter_map(|run| Line::of_run(run, now, idle.as_deref()));
    let mut lines: Vec<Line> = records.builds().map(Line::of_build).chain(runs).collect();
    let is_wanted = |line: &Line| {
        let stores = &options.stores;
        (stores.is_empty() || stores.iter().any(|id| id == line.store.as_str()))
            && options.status.is_none_or(|status| status == line.status)
    };
    let is_empty = lines.is_empty();
    lines.retain(is_wanted);
    lines.sort_by(|a, b| (b.started, b.id).cmp(&(a.started, a.id)));
    let hidden = lines.len().saturating_sub(options.limit);
    lines.truncate(options.limit);
    if options.json {
        let lines: Vec<_> = lines.iter().map(Line::json).collect();
        return document(&json!({ "schemaVersion": 1, "builds": lines }));
    }
    if lines.is_empty() {
        tell(if is_empty {
            "no builds are recorded; `alokai store deploy` records each build"
        } else {
            "no recorded build matches"
        });
        return Ok(());
    }
    let length = RecordId::distinct_length(lines.iter().map(|line| line.id), ID_CHARACTERS);
    answer(&table(&lines, length, now))?;
    if hidden > 0 {
        tell(&format!(
            "{hidden} more; use `--limit` to list more of them"
        ));
    }
    Ok(())
}

/// Fails if a store does not exist and no record names it. Records outlive the store.
pub fn check_stores(
    project: &Project,
    records: &RecordSet,
    ids: &[String],
) -> Result<(), AnyError> {
    let existing = project.stores.iter().map(|store| &store.id);
    let built = records.builds().map(|build| &build.store);
    let started = records.events().map(|event| &event.store);
    let known = existing.chain(built).chain(started);
    let known: BTreeSet<&str> = known.map(StoreId::as_str).collect();
    match ids.iter().find(|id| !known.contains(id.as_str())) {
        None => Ok(()),
        Some(id) => Err(Error::NoStore {
            id: id.clone(),
            nearest: nearest(id, known.iter().copied()).map(str::to_owned),
        }
        .into()),
    }
}

/// The list in columns. The last column is cut at the width of the terminal.
fn table(lines: &[Line], id_length: usize, now: Timestamp) -> String {
    let mut rows =
        vec![["ID", "STORE", "STATUS", "STARTED", "ELAPSED", "DESCRIPTION"].map(String::from)];
    for line in lines {
        rows.push([
            line.id.as_str().chars().take(id_length).collect(),
            line.store.to_string(),
            line.status.name().into(),
            age(now.duration_since(line.started).as_secs()),
            line.seconds.map_or("-".into(), duration),
            line.description.escape_debug().to_string(),
        ]);
    }
    let widths: [usize; 6] = std::array::from_fn(|column| {
        let widths = rows.iter().map(|row| row[column].chars().count());
        widths.max().unwrap_or_default()
    });
    let mut text = String::new();
    for row in &rows {
        let cells = row.iter().zip(widths);
        let line: Vec<_> = cells
            .map(|(cell, width)| format!("{cell:<width$}"))
            .collect();
        let line = line.join("  ");
        let line = if environment::is_terminal() {
            line.chars().take(environment::columns()).collect()
        } else {
            line
        };
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{}", line.trim_end());
    }
    text
}

/// `12 s ago`, `3 min ago`, `2 h ago`, `5 days ago`.
fn age(seconds: i64) -> String {
    match seconds.max(0) {
        seconds @ ..60 => format!("{seconds} s ago"),
        seconds @ ..3600 => format!("{} min ago", seconds / 60),
        seconds @ ..86_400 => format!("{} h ago", seconds / 3600),
        seconds @ ..172_800 => format!("{} day ago", seconds / 86_400),
        seconds => format!("{} days ago", seconds / 86_400),
    }
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
        let _ = writeln!(text, "{name:<12} {value}");
    };
    row("build", build.id.as_str());
    row("store", build.store.as_str());
    row("status", status(build).name());
    row(
        "started",
        &build.started.strftime("%Y-%m-%d %H:%M:%S UTC").to_string(),
    );
    row("elapsed", &duration(build.seconds));
    row("stage", &build.reached.to_string());
    if let Some(commit) = &build.commit {
        row("commit", &commit.sha);
        if let Some(subject) = &commit.subject {
            row("subject", &subject.escape_debug().to_string());
        }
    }
    if let Some(tag) = &build.tag {
        row("tag", tag);
    }
    row("composition", &build.composition);
    row(
        "by",
        &format!("{} on {}", build.actor.user, build.actor.host),
    );
    if let Some(run) = &build.actor.run {
        row("run", run);
    }
    row("alokai", &build.tool);
    for (app, built) in &build.apps {
        let _ = writeln!(text, "\n{app}");
        let mut row = |name: &str, value: Option<String>| {
            if let Some(value) = value {
                let _ = writeln!(text, "  {name:<10} {value}");
            }
        };
        row("image", built.reference.clone());
        row("digest", built.digest.clone());
        row("cache", built.cache.clone());
        row("script", built.seconds.map(duration));
        row("artifact", built.deploy_bytes.map(bytes));
        row("size", built.image_bytes.map(bytes));
    }
    for failure in &build.failures {
        let _ = write!(text, "\nfailed: {failure}\n");
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
    let build = build(&records, &options.build)?;
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
