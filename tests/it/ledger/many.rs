//! Ten thousand records in a registry.

use alokai::event::Stage;
use alokai::ledger::{
    Actor, BuildRecord, BuildStatus, CommitSummary, EventRecord, Record, RecordId, RecordKind,
    RecordSet, ReleaseReason, ReleaseRecord, SCHEMA_VERSION, StoreEvent, StoredRecord,
};
use alokai::store::StoreId;
use jiff::Timestamp;

use super::places::Machine;
use crate::deploy::unique;
use crate::support::{Project, registry};

/// The records of one deploy: a start, a build, a release and an end.
fn deploy(number: i64) -> [Record; 4] {
    let at = Timestamp::from_millisecond(1_760_000_000_000 + number * 60_000).unwrap();
    let id = |kind| RecordId::from_parts(kind, at, 7);
    let end = RecordId::from_parts(RecordKind::Event, at, 8);
    let store = StoreId::new("us").unwrap();
    let actor = Actor {
        user: "deployer".into(),
        host: "runner-1".into(),
        run: Some(format!("https://ci.example.com/runs/{number}")),
    };
    let event = |id: RecordId, what| {
        Record::Event(EventRecord {
            schema_version: SCHEMA_VERSION,
            id,
            store: store.clone(),
            target: None,
            release: None,
            run: None,
            what,
            seconds: None,
            detail: None,
            actor: actor.clone(),
            log: None,
        })
    };
    let start = id(RecordKind::Event);
    let started = StoreEvent::Started {
        operation: "deploy".into(),
        lease: 60,
        folder: String::new(),
        plan: None,
    };
    let ended = StoreEvent::Ended {
        start: start.clone(),
        succeeded: true,
        interrupted: false,
    };
    let build = BuildRecord {
        schema_version: SCHEMA_VERSION,
        id: id(RecordKind::Build),
        store: store.clone(),
        status: BuildStatus::Complete,
        started: at,
        seconds: 42.5,
        commit: Some(CommitSummary {
            sha: format!("{number:040x}"),
            subject: Some(format!("Change number {number}")),
            dirty: false,
        }),
        tag: Some(format!("{number:040x}")),
        apps: std::collections::BTreeMap::new(),
        composition: format!("sha256:{number:064x}"),
        plan: Some(format!("sha256:{number:064x}")),
        start: Some(start.clone()),
        imported_from: None,
        tool: "0.1.0".into(),
        actor: actor.clone(),
        reached: Stage::Deploy,
        failures: Vec::new(),
        log: None,
    };
    let release = ReleaseRecord {
        schema_version: SCHEMA_VERSION,
        id: id(RecordKind::Release),
        store: store.clone(),
        target: "console".into(),
        build: build.id.clone(),
        settings: None,
        setting_names: Vec::new(),
        reason: ReleaseReason::Deploy,
        copy_of: None,
        staged_only: false,
        previous: None,
        actor: actor.clone(),
    };
    [
        event(start, started),
        Record::Build(build),
        Record::Release(release),
        event(end, ended),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_records_have_few_tags_and_every_list_has_all_of_them() {
    let Some(registry) = registry() else { return };
    let name = unique("many");
    let repository = format!("{name}-us-storefrontcloud-io/vue-storefront");
    let machine = Machine::new(&registry, &registry.address, &repository);
    // 125 runs, each of which sends twenty deploys.
    for run in 0..125 {
        let mut records = RecordSet::default();
        for number in run * 20..run * 20 + 20 {
            records.extend(deploy(number).map(|it| StoredRecord::new(it).unwrap()));
        }
        for record in records.iter() {
            machine.append_unsynced(record);
        }
        machine.place().exchange(&records).await.unwrap();
    }
    machine.gather();
    let written = machine.records();
    assert_eq!(written.len(), 10_000);
    let tags = machine.tags().await;
    assert!(tags <= 300, "{tags} tags");

    let project = Project::shop_named(&name);
    let project = registry.used_by(project, "http://127.0.0.1:9");
    let count = |command: &str, key: &str| {
        let command = format!("store {command} --store us --limit 20000 --json");
        let run = project.alokai(command.as_str()).succeeds();
        run.stderr_lacks("note:");
        run.json()[key].as_array().unwrap().len()
    };
    assert_eq!(count("builds", "builds"), 2_500);
    assert_eq!(count("releases", "releases"), 2_500);
    assert_eq!(count("history", "operations"), 2_500);
    let records = alokai::ledger::RecordFolder::of_project(project.root()).read();
    assert_eq!(*records.unwrap().0, written);
}
