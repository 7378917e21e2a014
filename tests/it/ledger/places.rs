//! Records in a registry and on several machines are one set in the end.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use alokai::event::Stage;
use alokai::ledger::{
    Actor, BuildRecord, BuildStatus, EventRecord, Exchange, LayoutPages, LogFolder, LogText,
    Record, RecordFolder, RecordId, RecordKind, RecordPlace, RecordSet, SCHEMA_VERSION,
    SharedRecords, StoreEvent, StoredRecord,
};
use alokai::store::StoreId;
use jiff::Timestamp;
use oci_distribution::{Client, ClientOptions, Login};
use tempfile::TempDir;

use crate::deploy::unique;
use crate::support::{Before, Registry, Turn, registry, second_registry};

fn client(registry: &Registry, address: &str) -> Client {
    let login = Login::password(registry.user.clone(), registry.password.clone());
    Client::new(address, Some(login), &ClientOptions::default()).unwrap()
}

fn event(detail: &str) -> StoredRecord {
    StoredRecord::new(Record::Event(EventRecord {
        schema_version: SCHEMA_VERSION,
        id: RecordId::new(RecordKind::Event, Timestamp::now()),
        store: StoreId::new("us").unwrap(),
        target: None,
        release: None,
        run: None,
        what: StoreEvent::Pinned,
        seconds: None,
        detail: Some(detail.into()),
        actor: Actor::default(),
        log: None,
    }))
    .unwrap()
}

/// A machine with a project.
pub struct Machine {
    folder: TempDir,
    client: Client,
    repository: String,
}

impl Machine {
    pub fn new(registry: &Registry, address: &str, repository: &str) -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            client: client(registry, address),
            repository: repository.to_owned(),
        }
    }

    pub fn records(&self) -> RecordSet {
        let (records, damaged) = RecordFolder::of_project(self.folder.path()).read().unwrap();
        assert!(damaged.is_empty(), "{damaged:?}");
        Arc::unwrap_or_clone(records)
    }

    fn append(&self, record: &StoredRecord) {
        RecordFolder::of_project(self.folder.path())
            .append(record)
            .unwrap();
    }

    /// Writes a record without waiting for the disk.
    pub fn append_unsynced(&self, record: &StoredRecord) {
        let id = record.record.id();
        let folder = self
            .folder
            .path()
            .join(".alokai/ledger")
            .join(id.kind().folder());
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join(format!("{id}.json")), &record.bytes).unwrap();
    }

    /// Packs the records of this machine.
    pub fn gather(&self) {
        RecordFolder::of_project(self.folder.path())
            .gather()
            .unwrap();
    }

    /// The number of tags in the repository.
    pub async fn tags(&self) -> usize {
        self.client.tags(&self.repository).await.unwrap().len()
    }

    pub fn place(&self) -> SharedRecords<'_> {
        let place = RecordPlace::Registry {
            client: &self.client,
            repository: &self.repository,
        };
        SharedRecords::new(place, &RecordFolder::of_project(self.folder.path()))
    }

    async fn exchange(&self) -> Exchange {
        let exchange = self.place().exchange(&self.records()).await.unwrap();
        assert_eq!(exchange.invalid, []);
        exchange
    }
}

#[tokio::test]
async fn records_of_eight_machines_are_one_set() {
    for registry in [registry(), second_registry()] {
        let Some(registry) = registry else { return };
        let repository = unique("ledger");
        let machines = (0..8).map(|_| Machine::new(&registry, &registry.address, &repository));
        let machines: Vec<_> = machines.map(Arc::new).collect();
        let tasks = machines
            .iter()
            .cloned()
            .enumerate()
            .map(|(number, machine)| {
                tokio::spawn(async move {
                    for step in 0..6 {
                        machine.append(&event(&format!("{number}: {step}")));
                        machine.exchange().await;
                    }
                })
            });
        for task in tasks.collect::<Vec<_>>() {
            task.await.unwrap();
        }
        let mut sets = Vec::new();
        for machine in &machines {
            machine.exchange().await;
            sets.push(machine.records());
        }
        assert_eq!(sets[0].len(), 48);
        assert!(sets.iter().all(|set| *set == sets[0]));
        // A machine that has nothing reads all of it; a machine that has all of it reads nothing.
        let new = Machine::new(&registry, &registry.address, &repository);
        assert_eq!(
            new.place()
                .pull(&RecordSet::default())
                .await
                .unwrap()
                .received,
            48
        );
        assert_eq!(
            new.place().pull(&RecordSet::default()).await.unwrap(),
            Exchange::default()
        );
        assert_eq!(new.records(), sets[0]);
    }
}

/// Exchanges all records of a project folder with an image layout.
async fn exchange_with_layout(project: &Path, layout: &Path) -> Exchange {
    let folder = RecordFolder::of_project(project);
    let (own, damaged) = folder.read().unwrap();
    assert_eq!(damaged, []);
    let pages = LayoutPages::open(layout).unwrap().unwrap();
    let place = RecordPlace::Layout {
        layout: &pages,
        repository: "acme/frontend",
    };
    let exchange = SharedRecords::new(place, &folder).exchange(&own).await;
    pages.write().unwrap();
    folder.gather().unwrap();
    let exchange = exchange.unwrap();
    assert_eq!(exchange.invalid, []);
    exchange
}

#[tokio::test]
async fn records_of_many_writers_of_one_layout_are_one_set() {
    let folder = tempfile::tempdir().unwrap();
    let layout = folder.path().join("layout");
    oci::Layout::create(&layout).unwrap();
    let projects: Vec<_> = (0..4).map(|_| tempfile::tempdir().unwrap()).collect();
    std::thread::scope(|scope| {
        for project in &projects {
            let layout = &layout;
            scope.spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread();
                let runtime = { runtime }.build().unwrap();
                for step in 0..60 {
                    let records = RecordFolder::of_project(project.path());
                    records.append(&event(&step.to_string())).unwrap();
                    runtime.block_on(exchange_with_layout(project.path(), layout));
                }
            });
        }
    });
    let mut sets = Vec::new();
    for project in &projects {
        exchange_with_layout(project.path(), &layout).await;
        sets.push(RecordFolder::of_project(project.path()).read().unwrap().0);
    }
    assert_eq!(sets[0].len(), 240);
    assert!(sets.iter().all(|set| *set == sets[0]));
    // Small pages were gathered, in the layout and in the folders of the projects.
    let index = oci::Layout::open(&layout).unwrap().index().unwrap();
    let pages = index.images().count();
    assert!(pages <= 200, "{pages}");
    for project in &projects {
        let packs = std::fs::read_dir(project.path().join(".alokai/ledger/packs"));
        let packs = packs.unwrap().count();
        assert!(packs <= 200, "{packs}");
    }
    // A project that has nothing reads everything, also after the blobs of old pages were removed.
    oci::Layout::open(&layout)
        .unwrap()
        .sweep(std::time::Duration::ZERO)
        .unwrap();
    let new = tempfile::tempdir().unwrap();
    exchange_with_layout(new.path(), &layout).await;
    let (read, _) = RecordFolder::of_project(new.path()).read().unwrap();
    assert_eq!(read, sets[0]);
    // A lost pack is read again.
    std::fs::remove_dir_all(new.path().join(".alokai/ledger/packs")).unwrap();
    exchange_with_layout(new.path(), &layout).await;
    let (read, _) = RecordFolder::of_project(new.path()).read().unwrap();
    assert_eq!(read, sets[0]);
}

#[tokio::test]
async fn records_that_this_version_does_not_know_are_kept_for_later_versions() {
    let Some(registry) = registry() else { return };
    let repository = unique("later");
    let machine = Machine::new(&registry, &registry.address, &repository);
    let known = event("known");
    let text = String::from_utf8(known.bytes.to_vec()).unwrap();
    let later = text.replace("\"pinned\"", "\"teleported\"");
    assert_ne!(text, later);
    let lines = zstd::bulk::compress((later + &text).as_bytes(), 0).unwrap();
    let media_type = "application/vnd.alokai.records.v1+zstd";
    let config = oci::Descriptor::of(media_type, &lines);
    let client = &machine.client;
    let source = oci_distribution::BlobSource::Bytes(&lines);
    let put = client.put_blob(&repository, &config, source, None);
    put.await.unwrap();
    let manifest = serde_json::to_vec(&oci::Manifest::new(config, Vec::new())).unwrap();
    let tag = format!(
        "alokai.{}",
        RecordId::new(RecordKind::Event, Timestamp::now())
    );
    let put = client.put_manifest(&repository, &tag, oci::MANIFEST, &manifest);
    put.await.unwrap();
    let pulled = machine.place().pull(&RecordSet::default()).await.unwrap();
    assert_eq!((pulled.received, pulled.invalid.len()), (1, 1));
    let folder = RecordFolder::of_project(machine.folder.path());
    let (records, damaged) = folder.read().unwrap();
    assert_eq!((records.len(), damaged.len()), (1, 1));
    assert!(records.contains(known.record.id()));
}

#[tokio::test]
async fn many_pages_are_gathered_where_the_registry_removes_them() {
    let Some(registry) = registry() else { return };
    let repository = unique("pages");
    let machine = Machine::new(&registry, &registry.address, &repository);
    let mut gathered = 0;
    for number in 0..205 {
        machine.append(&event(&number.to_string()));
        gathered += machine.exchange().await.gathered;
    }
    let tags = machine.client.tags(&repository).await.unwrap();
    let all = 205 + gathered / 100;
    assert!(gathered == 0 || tags.len() < all, "{} of {all}", tags.len());
    let new = Machine::new(&registry, &registry.address, &repository);
    new.place().pull(&RecordSet::default()).await.unwrap();
    assert_eq!(new.records(), machine.records());
}

#[tokio::test]
async fn a_page_that_is_not_valid_is_named_and_hides_nothing() {
    let Some(registry) = registry() else { return };
    let repository = unique("foreign");
    let machine = Machine::new(&registry, &registry.address, &repository);
    machine.append(&event("good"));
    machine.exchange().await;
    let page = RecordId::new(RecordKind::Event, Timestamp::now());
    let manifest = br#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.empty.v1+json","digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a","size":2},"layers":[]}"#;
    let empty = oci::Descriptor::of(oci::EMPTY, b"{}");
    let source = oci_distribution::BlobSource::Bytes(b"{}");
    let client = &machine.client;
    client
        .put_blob(&repository, &empty, source, None)
        .await
        .unwrap();
    for tag in [
        format!("alokai.{page}"),
        "alokai.latest".into(),
        "0bf4d65".into(),
    ] {
        client
            .put_manifest(&repository, &tag, oci::MANIFEST, manifest)
            .await
            .unwrap();
    }
    let new = Machine::new(&registry, &registry.address, &repository);
    let pulled = new.place().pull(&RecordSet::default()).await.unwrap();
    assert_eq!(pulled.received, 1);
    assert_eq!(pulled.invalid.len(), 1);
    assert_eq!(pulled.invalid[0].0, format!("alokai.{page}"));
}

#[tokio::test]
async fn a_log_travels_with_its_build_and_is_read_only_when_it_is_wanted() {
    let Some(registry) = registry() else { return };
    let repository = unique("logs");
    let machine = Machine::new(&registry, &registry.address, &repository);
    let logs = LogFolder::of_project(machine.folder.path());
    let text = b"a line\n".repeat(1000);
    let log = logs
        .write(&LogText {
            text: text.clone(),
            truncated: false,
        })
        .unwrap();
    let at = Timestamp::now();
    let record = Record::Build(BuildRecord {
        schema_version: SCHEMA_VERSION,
        id: RecordId::new(RecordKind::Build, at),
        store: StoreId::new("us").unwrap(),
        status: BuildStatus::Failed,
        started: at,
        seconds: 1.0,
        commit: None,
        tag: None,
        apps: std::collections::BTreeMap::new(),
        composition: String::new(),
        plan: None,
        start: None,
        imported_from: None,
        tool: String::new(),
        actor: Actor::default(),
        reached: Stage::Build,
        failures: vec!["it failed".into()],
        log: Some(log.clone()),
    });
    machine.append(&StoredRecord::new(record).unwrap());
    machine.exchange().await;
    let new = Machine::new(&registry, &registry.address, &repository);
    new.place().pull(&RecordSet::default()).await.unwrap();
    let there = LogFolder::of_project(new.folder.path());
    assert_eq!(there.read(&log).unwrap(), None);
    assert!(new.place().fetch_log(&log).await.unwrap());
    assert_eq!(there.read(&log).unwrap(), Some(text));
}

#[tokio::test]
async fn a_registry_that_fails_in_the_middle_loses_no_record() {
    let Some(registry) = registry() else { return };
    let repository = unique("moody");
    let moody = Before::new(&registry.address, {
        let asked = std::sync::atomic::AtomicUsize::new(0);
        move |seen| match asked.fetch_add(1, std::sync::atomic::Ordering::Relaxed) % 5 {
            3 if seen.is("PUT", "/manifests/") => Turn::error(403, "DENIED"),
            4 => Turn::error(503, "UNAVAILABLE"),
            _ => Turn::Pass,
        }
    });
    let machine = Machine::new(&registry, &moody.address, &repository);
    let mut failures = 0;
    for number in 0..12 {
        machine.append(&event(&number.to_string()));
        let place = machine.place();
        failures += usize::from(place.exchange(&machine.records()).await.is_err());
    }
    let calm = Machine::new(&registry, &registry.address, &repository);
    // Another machine sees only whole records, each once.
    calm.place().pull(&RecordSet::default()).await.unwrap();
    let seen: BTreeSet<_> = calm
        .records()
        .iter()
        .map(|it| it.record.id().clone())
        .collect();
    assert!(seen.iter().all(|id| machine.records().contains(id)));
    // When the registry is well again, nothing is missing.
    let place = RecordPlace::Registry {
        client: &calm.client,
        repository: &repository,
    };
    let well = SharedRecords::new(place, &RecordFolder::of_project(machine.folder.path()));
    well.exchange(&machine.records()).await.unwrap();
    calm.place().pull(&RecordSet::default()).await.unwrap();
    assert_eq!(
        calm.records(),
        machine.records(),
        "after {failures} failures"
    );
}

#[tokio::test]
async fn records_that_were_damaged_or_removed_here_come_back() {
    let Some(registry) = registry() else { return };
    let repository = unique("back");
    let machine = Machine::new(&registry, &registry.address, &repository);
    let records = ["removed", "cut", "whole"].map(event);
    for record in &records {
        machine.append(record);
    }
    machine.exchange().await;
    let folder = machine.folder.path().join(".alokai/ledger/events");
    let file = |record: &StoredRecord| folder.join(format!("{}.json", record.record.id()));
    std::fs::remove_file(file(&records[0])).unwrap();
    std::fs::write(file(&records[1]), &records[1].bytes[..20]).unwrap();
    let pulled = machine.place().pull(&RecordSet::default()).await.unwrap();
    assert_eq!(pulled.received, 2);
    let fresh = Machine::new(&registry, &registry.address, &repository);
    fresh.place().pull(&RecordSet::default()).await.unwrap();
    assert_eq!(machine.records(), fresh.records());
    assert_eq!(fresh.records().len(), 3);
    let cut = std::fs::read(file(&records[1])).unwrap();
    assert_eq!(cut, &*records[1].bytes);
    // Nothing is missing, so nothing is read again.
    let pulled = machine.place().pull(&machine.records()).await.unwrap();
    assert_eq!(pulled.received, 0);

    // A pack of the other machine that was cut is written again.
    let packs = fresh.folder.path().join(".alokai/ledger/packs");
    for pack in std::fs::read_dir(packs).unwrap() {
        std::fs::write(pack.unwrap().path(), "{").unwrap();
    }
    fresh.place().pull(&RecordSet::default()).await.unwrap();
    assert_eq!(machine.records(), fresh.records());

    // A folder with the name of a record is named, and hides nothing.
    let odd = folder.join("E0000000000000000.json");
    std::fs::create_dir(&odd).unwrap();
    let read = RecordFolder::of_project(machine.folder.path()).read();
    let (records, damaged) = read.unwrap();
    assert_eq!((records.len(), damaged.len()), (3, 1));
    assert_eq!(damaged[0].path, odd);
}
