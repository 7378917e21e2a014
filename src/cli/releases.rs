//! `store releases`: builds with settings, for a target, and what has become of them.

use std::fmt::Write as _;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::arguments::Global;
use super::arguments::questions::{
    RecordOptions, ReleaseStatusOption, ReleasesCommand, ReleasesOptions,
};
use super::listing::{
    self, CellFormat, ListLine, ListWords, check_stores, date, plain, records, short_commit,
};
use super::run::document;
use super::shared_records::RegistryAccess;
use super::{answer, builds, project, release_diff, releases_prune};
use crate::config::Project;
use crate::error::Error as AnyError;
use crate::ledger::{
    self, BuildRecord, LedgerTargets, Record, RecordId, RecordSet, ReleaseReason, ReleaseRecord,
    ReleaseStatus, StoreEvent,
};
use crate::store::StoreId;

const WORDS: ListWords = ListWords {
    key: "releases",
    columns: &[
        "STORE", "STATUS", "TARGET", "COMMIT", "CREATED", "BY", "REASON",
    ],
    none: "no releases are recorded; `alokai store deploy` records each release",
    no_match: "no recorded release matches",
};

pub fn releases(global: &Global, options: &ReleasesOptions) -> Result<(), AnyError> {
    if let Some(ReleasesCommand::Prune(options)) = &options.command {
        return releases_prune::prune(global, options);
    }
    let (project, environment) = project(global)?;
    let access = match &options.command {
        None | Some(ReleasesCommand::Prune(_)) => &options.access,
        Some(ReleasesCommand::Info(options)) => &options.access,
        Some(ReleasesCommand::Diff(options)) => &options.access,
    };
    let registry = RegistryAccess::new(&project, &environment, access)?;
    let records = records(&project, &registry)?;
    match &options.command {
        None | Some(ReleasesCommand::Prune(_)) => list(&project, &records, options),
        Some(ReleasesCommand::Info(options)) => info(&records, options),
        Some(ReleasesCommand::Diff(options)) => release_diff::diff(&project, &records, options),
    }
}

impl ReleaseStatusOption {
    fn name(self) -> &'static str {
        match self {
            Self::Active => ReleaseStatus::Active,
            Self::Staged => ReleaseStatus::Staged,
            Self::Created => ReleaseStatus::Created,
            Self::Replaced => ReleaseStatus::Replaced,
            Self::Retired => ReleaseStatus::Retired,
            Self::Failed => ReleaseStatus::Failed,
        }
        .name()
    }
}

struct Line<'a> {
    release: &'a ReleaseRecord,
    status: ReleaseStatus,
    build: Option<&'a BuildRecord>,
}

impl Line<'_> {
    /// The first characters of the commit. `+` stands for uncommitted changes.
    fn commit(&self) -> String {
        let commit = self.build.and_then(|build| build.commit.as_ref());
        commit.map_or_else(String::new, |commit| {
            let changes = if commit.dirty { "+" } else { "" };
            format!("{}{changes}", short_commit(&commit.sha))
        })
    }
}

impl ListLine for Line<'_> {
    fn id(&self) -> &RecordId {
        &self.release.id
    }

    fn other_id(&self) -> Option<&RecordId> {
        self.release.copy_of.as_ref()
    }

    fn store(&self) -> &StoreId {
        &self.release.store
    }

    fn status(&self) -> &'static str {
        self.status.name()
    }

    fn at(&self) -> Timestamp {
        self.release.id.made_at()
    }

    fn cells(&self, format: &CellFormat) -> Vec<String> {
        vec![
            self.release.store.to_string(),
            self.status.name().into(),
            self.release.target.escape_debug().to_string(),
            self.commit(),
            format.age(self.at()),
            self.release.actor.user.clone(),
            match &self.release.copy_of {
                Some(original) => format!("copy of {}", format.id(original)),
                None => reason(self.release.reason).into(),
            },
        ]
    }

    fn json(&self) -> Value {
        document_of(self.release, self.status)
    }
}

/// The record with its status.
fn document_of(release: &ReleaseRecord, status: ReleaseStatus) -> Value {
    let mut value = serde_json::to_value(release).unwrap_or_default();
    if let Some(object) = value.as_object_mut() {
        object.insert("status".into(), status.name().into());
        object.insert("created".into(), json!(release.id.made_at()));
    }
    value
}

/// The word for a reason.
pub fn reason(reason: ReleaseReason) -> &'static str {
    match reason {
        ReleaseReason::Deploy => "deploy",
        ReleaseReason::Settings => "settings",
        ReleaseReason::Rollback => "rollback",
        ReleaseReason::Promote => "promote",
    }
}

fn list(project: &Project, records: &RecordSet, options: &ReleasesOptions) -> Result<(), AnyError> {
    check_stores(project, records, &options.list.stores)?;
    let targets = records.targets();
    let lines = records.releases().map(|release| Line {
        release,
        status: targets.status(release),
        build: records.build(&release.build),
    });
    let status = options.status.map(ReleaseStatusOption::name);
    listing::list(&WORDS, lines.collect(), &options.list, status)
}

/// The release whose id starts with these characters.
pub fn release<'a>(records: &'a RecordSet, prefix: &str) -> Result<&'a ReleaseRecord, AnyError> {
    let record = records.find(prefix).map_err(ledger::Error::from)?;
    match record {
        Record::Release(release) => Ok(release),
        other => Err(ledger::Error::NotARelease {
            id: other.id().clone(),
        }
        .into()),
    }
}

fn info(records: &RecordSet, options: &RecordOptions) -> Result<(), AnyError> {
    let release = release(records, &options.id)?;
    let targets = records.targets();
    let status = targets.status(release);
    if options.json {
        return document(&document_of(release, status));
    }
    answer(&text(records, &targets, release))
}

fn text(records: &RecordSet, targets: &LedgerTargets, release: &ReleaseRecord) -> String {
    let mut text = String::new();
    let mut row = |name: &str, value: &str| {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{name:<12} {}", plain(value));
    };
    row("release", release.id.as_str());
    row("store", release.store.as_str());
    row("status", targets.status(release).name());
    row("target", &release.target.escape_debug().to_string());
    row("reason", reason(release.reason));
    row("created", &date(release.id.made_at()));
    let actor = &release.actor;
    row("by", &format!("{} on {}", actor.user, actor.host));
    if let Some(run) = &actor.run {
        row("run", run);
    }
    row("build", release.build.as_str());
    let build = records.build(&release.build);
    if let Some(build) = build {
        row("commit", &builds::description(build));
    }
    if let Some(original) = &release.copy_of {
        row("copy of", original.as_str());
    }
    if let Some(previous) = &release.previous {
        row("previous", previous.as_str());
    }
    if let Some(version) = &release.settings {
        row("settings", &format!("version {version}"));
        row("", &release.setting_names.join(", "));
    }
    for (app, built) in build.iter().flat_map(|build| &build.apps) {
        let reference = plain(built.reference.as_deref().unwrap_or("no image"));
        let _ = writeln!(text, "\n{app}\n  {:<10} {reference}", "image");
        if let Some(digest) = &built.digest {
            let _ = writeln!(text, "  {:<10} {}", "digest", plain(digest));
        }
    }
    let events = records.events();
    let mut events = events
        .filter(|event| {
            let back_to = match &event.what {
                StoreEvent::SwitchedBack { to } => to.as_ref(),
                _ => None,
            };
            [event.release.as_ref(), back_to].contains(&Some(&release.id))
        })
        .peekable();
    if events.peek().is_some() {
        text.push('\n');
    }
    for event in events {
        text.push_str(&super::history::step_of(event));
    }
    text
}
