//! Records that a test writes, and transcripts without what differs from run to run.

use std::collections::BTreeMap;
use std::time::Duration;

use alokai::event::Stage;
use alokai::ledger::{
    Actor, BuildRecord, BuildStatus, BuiltApp, CommitSummary, EventRecord, Record, RecordFolder,
    RecordId, RecordKind, ReleaseReason, ReleaseRecord, SCHEMA_VERSION, StoreEvent, StoredRecord,
};
use alokai::store::{AppName, StoreId};
use jiff::Timestamp;
use regex::Regex;

use crate::support::{FRONTEND, MIDDLEWARE, Project};

/// The characters of ids in lists.
const SHORT: usize = 11;

/// The records of a project, each with a name that stands for its id in transcripts.
pub struct Memory {
    records: RecordFolder,
    now: Timestamp,
    names: Vec<(RecordId, String)>,
}

impl Memory {
    pub fn of(project: &Project) -> Self {
        Self {
            records: RecordFolder::of_project(project.root()),
            now: Timestamp::now(),
            names: Vec::new(),
        }
    }

    fn id(&mut self, kind: RecordKind, seconds_ago: u64, name: &str) -> RecordId {
        let random = u64::try_from(self.names.len()).unwrap();
        let id = RecordId::from_parts(kind, self.at(seconds_ago), random);
        self.names.push((id.clone(), name.to_owned()));
        id
    }

    fn at(&self, seconds_ago: u64) -> Timestamp {
        self.now - Duration::from_secs(seconds_ago)
    }

    fn append(&self, record: Record) {
        let record = StoredRecord::new(record).unwrap();
        self.records.append(&record).unwrap();
    }

    /// A build of both apps. `digest` is the first character of the digests.
    pub fn build(
        &mut self,
        name: &str,
        (store, seconds_ago): (&str, u64),
        sha: &str,
        digest: char,
    ) -> RecordId {
        let id = self.id(RecordKind::Build, seconds_ago, name);
        let apps = [FRONTEND, MIDDLEWARE].into_iter().zip([digest, 'a']);
        let apps = apps.map(|(app, digest)| {
            let digest = format!("sha256:{}", digest.to_string().repeat(64));
            let built = BuiltApp {
                reference: Some(format!("registry.example.com/acme/{app}:1")),
                digest: Some(digest),
                ..BuiltApp::default()
            };
            (AppName::new(app).unwrap(), built)
        });
        self.append(Record::Build(BuildRecord {
            schema_version: SCHEMA_VERSION,
            id: id.clone(),
            store: StoreId::new(store).unwrap(),
            status: BuildStatus::Complete,
            started: self.at(seconds_ago),
            seconds: 61.0,
            commit: Some(CommitSummary {
                sha: sha.to_owned(),
                subject: Some(format!("Build {name}")),
                dirty: false,
            }),
            tag: Some(sha.to_owned()),
            apps: apps.collect::<BTreeMap<_, _>>(),
            composition: "sha256:0".into(),
            plan: None,
            start: None,
            imported_from: None,
            tool: "1.0.0".into(),
            actor: actor("ci"),
            reached: Stage::Deploy,
            failures: Vec::new(),
            log: None,
        }));
        id
    }

    /// A release of a build at the console, with names of settings.
    pub fn release(
        &mut self,
        name: &str,
        (store, seconds_ago): (&str, u64),
        build: &RecordId,
        (reason, settings): (ReleaseReason, &[&str]),
    ) -> RecordId {
        let id = self.id(RecordKind::Release, seconds_ago, name);
        self.append(Record::Release(ReleaseRecord {
            schema_version: SCHEMA_VERSION,
            id: id.clone(),
            store: StoreId::new(store).unwrap(),
            target: "console".into(),
            build: build.clone(),
            settings: (!settings.is_empty()).then(|| id.to_string()),
            setting_names: settings.iter().map(ToString::to_string).collect(),
            reason,
            copy_of: None,
            staged_only: false,
            previous: None,
            actor: actor("ci"),
        }));
        id
    }

    /// An event at the console.
    pub fn event(
        &mut self,
        name: &str,
        (store, seconds_ago): (&str, u64),
        what: StoreEvent,
        release: Option<&RecordId>,
    ) -> RecordId {
        self.event_by("ci", name, (store, seconds_ago), what, release)
    }

    /// The same by another user.
    pub fn event_by(
        &mut self,
        user: &str,
        name: &str,
        (store, seconds_ago): (&str, u64),
        what: StoreEvent,
        release: Option<&RecordId>,
    ) -> RecordId {
        let id = self.id(RecordKind::Event, seconds_ago, name);
        self.append(Record::Event(EventRecord {
            schema_version: SCHEMA_VERSION,
            id: id.clone(),
            store: StoreId::new(store).unwrap(),
            target: Some("console".into()),
            release: release.cloned(),
            run: None,
            what,
            seconds: None,
            detail: None,
            actor: actor(user),
            log: None,
        }));
        id
    }

    /// A run with an end.
    pub fn run(
        &mut self,
        name: &str,
        (store, seconds_ago, seconds): (&str, u64, u64),
        operation: &str,
        (succeeded, plan): (bool, Option<&str>),
    ) -> RecordId {
        let start = self.event(name, (store, seconds_ago), started(operation, plan), None);
        let ended = StoreEvent::Ended {
            start: start.clone(),
            succeeded,
            interrupted: false,
        };
        let end = format!("{name}-end");
        self.event(&end, (store, seconds_ago - seconds), ended, None);
        start
    }

    /// The output with names in place of ids, each as long as the id.
    pub fn shown(&self, text: &str, project: &Project) -> String {
        let mut text = text.to_owned();
        for (id, name) in &self.names {
            let id = id.as_str();
            for length in [id.len(), SHORT] {
                let name = format!("{name:=<length$}");
                text = text.replace(&id[..length], &name[..length]);
            }
        }
        let date = Regex::new(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC").unwrap();
        let text = date.replace_all(&text, "2026-01-01 12:00:00 UTC");
        let commit = Regex::new(r"\b[0-9a-f]{7} ").unwrap();
        let text = commit.replace_all(&text, "[sha 7] ");
        crate::support::filtered(&text, project)
    }
}

pub fn started(operation: &str, plan: Option<&str>) -> StoreEvent {
    StoreEvent::Started {
        operation: operation.to_owned(),
        lease: 600,
        folder: String::new(),
        plan: plan.map(str::to_owned),
    }
}

fn actor(user: &str) -> Actor {
    Actor {
        user: user.to_owned(),
        host: "runner".into(),
        run: None,
    }
}
