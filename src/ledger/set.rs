//! A set of records. Sets from several places merge by union: records are immutable, so the order
//! of merging does not matter.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::id::{PrefixProblem, RecordId};
use super::record::{BuildRecord, EventRecord, Record, ReleaseReason, ReleaseRecord, StoreEvent};
use crate::store::{StoreId, TargetKind};

/// The prefix of references of images in a folder.
const LAYOUT: &str = "oci:";

/// A record with its bytes, which are the same in every place.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredRecord {
    /// The record.
    pub record: Record,
    /// The bytes as they were written first.
    pub bytes: Arc<[u8]>,
}

/// Bytes that are not a record.
#[derive(Debug, thiserror::Error)]
pub enum InvalidRecord {
    /// Not JSON of a known kind of record.
    #[error("it is not a valid record: {source}")]
    Format {
        /// The error of the parser.
        #[from]
        source: serde_json::Error,
    },
    /// Stored under another name.
    #[error("it has the id {id}, and not {name}")]
    Misnamed {
        /// The id in the record.
        id: RecordId,
        /// The name under which it is stored.
        name: RecordId,
    },
}

impl StoredRecord {
    /// A new record.
    pub fn new(record: Record) -> Result<Self, InvalidRecord> {
        let mut bytes = serde_json::to_vec(&record)?;
        bytes.push(b'\n');
        Ok(Self {
            record,
            bytes: bytes.into(),
        })
    }

    /// The record with these bytes.
    pub fn read(bytes: &[u8]) -> Result<Self, InvalidRecord> {
        Ok(Self {
            record: serde_json::from_slice(bytes)?,
            bytes: bytes.into(),
        })
    }

    /// A record that is stored under this name.
    pub fn parse(name: &RecordId, bytes: &[u8]) -> Result<Self, InvalidRecord> {
        let stored = Self::read(bytes)?;
        if stored.record.id() != name {
            return Err(InvalidRecord::Misnamed {
                id: stored.record.id().clone(),
                name: name.clone(),
            });
        }
        Ok(stored)
    }
}

/// Records by id.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RecordSet {
    records: BTreeMap<RecordId, StoredRecord>,
    /// The ids of each store's records. A deploy of many stores asks for the records of each of them.
    by_store: BTreeMap<StoreId, BTreeSet<RecordId>>,
}

impl RecordSet {
    /// Adds a record. Of two records with one id, the one with the smaller bytes stays, so that every
    /// machine keeps the same one.
    pub fn insert(&mut self, record: StoredRecord) {
        let id = record.record.id().clone();
        if let Some(known) = self.records.get(&id) {
            if known.bytes <= record.bytes {
                return;
            }
            self.remove(&id);
        }
        let own = self.by_store.entry(record.record.store().clone());
        own.or_default().insert(id.clone());
        self.records.insert(id, record);
    }

    fn remove(&mut self, id: &RecordId) {
        let Some(removed) = self.records.remove(id) else {
            return;
        };
        let store = removed.record.store();
        if let Some(own) = self.by_store.get_mut(store) {
            own.remove(id);
            if own.is_empty() {
                self.by_store.remove(store);
            }
        }
    }

    /// Adds all records of another set.
    pub fn merge(&mut self, other: Self) {
        self.extend(other.records.into_values());
    }

    /// The record with this id.
    pub fn get(&self, id: &RecordId) -> Option<&Record> {
        self.records.get(id).map(|stored| &stored.record)
    }

    /// The record with this id, with its bytes.
    pub fn stored(&self, id: &RecordId) -> Option<&StoredRecord> {
        self.records.get(id)
    }

    /// Whether the set has this record.
    pub fn contains(&self, id: &RecordId) -> bool {
        self.records.contains_key(id)
    }

    /// The records of one store.
    #[must_use]
    pub fn of_store(&self, store: &StoreId) -> Self {
        self.selected(store, |_| true)
    }

    /// The records of one store that `is_selected` accepts.
    fn selected(&self, store: &StoreId, is_selected: impl Fn(&Record) -> bool) -> Self {
        let own = self.by_store.get(store).into_iter().flatten();
        let own = own.filter_map(|id| self.records.get(id));
        let mut selected = Self::default();
        selected.extend(own.filter(|it| is_selected(&it.record)).cloned());
        selected
    }

    /// The records of one store that other machines need. Images in folders stay on this machine, so
    /// builds with such images stay there too, with the records of their runs.
    #[must_use]
    pub fn shared_of_store(&self, store: &StoreId) -> Self {
        let of_folder = self.of_folder_and_store(store);
        let is_in_folder = |build: &&BuildRecord| {
            let mut references = build.apps.values().filter_map(|app| app.reference.as_ref());
            references.any(|reference| reference.starts_with(LAYOUT))
        };
        let builds = of_folder.builds().filter(is_in_folder);
        let own = builds.flat_map(|build| [Some(&build.id), build.start.as_ref()]);
        let own: BTreeSet<&RecordId> = own.flatten().collect();
        of_folder.selected(store, |record| {
            let of = match record {
                Record::Build(_) | Record::Release(_) => None,
                Record::Event(event) => match &event.what {
                    StoreEvent::Ended { start, .. } => Some(start),
                    StoreEvent::ImagesRemoved { build } => Some(build),
                    _ => event.run.as_ref(),
                },
            };
            !own.contains(record.id()) && of.is_none_or(|of| !own.contains(of))
        })
    }

    /// The records of one store for machines that reach the same image layout. A release at the target
    /// `local` belongs to one folder of one machine, so its records stay there.
    #[must_use]
    pub fn of_folder_and_store(&self, store: &StoreId) -> Self {
        self.selected(store, |record| {
            let target = match record {
                Record::Build(_) => None,
                Record::Release(release) => Some(release.target.as_str()),
                Record::Event(event) => event.target.as_deref(),
            };
            target != Some(TargetKind::Local.name())
        })
    }

    /// All records, by kind and time.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &StoredRecord> {
        self.records.values()
    }

    /// How many records there are.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// The record whose id starts with `prefix`.
    pub fn find(&self, prefix: &str) -> Result<&Record, PrefixProblem> {
        let id = RecordId::with_prefix(prefix, self.records.keys())?;
        Ok(&self.records[id].record)
    }

    /// The builds, the oldest first.
    pub fn builds(&self) -> impl DoubleEndedIterator<Item = &BuildRecord> {
        self.iter().filter_map(|stored| match &stored.record {
            Record::Build(build) => Some(build),
            _ => None,
        })
    }

    /// The releases, the oldest first.
    pub fn releases(&self) -> impl DoubleEndedIterator<Item = &ReleaseRecord> {
        self.iter().filter_map(|stored| match &stored.record {
            Record::Release(release) => Some(release),
            _ => None,
        })
    }

    /// The build with this id.
    pub fn build(&self, id: &RecordId) -> Option<&BuildRecord> {
        match self.get(id) {
            Some(Record::Build(build)) => Some(build),
            _ => None,
        }
    }

    /// The release with this id.
    pub fn release(&self, id: &RecordId) -> Option<&ReleaseRecord> {
        match self.get(id) {
            Some(Record::Release(release)) => Some(release),
            _ => None,
        }
    }

    /// The event with this id.
    pub fn event(&self, id: &RecordId) -> Option<&EventRecord> {
        match self.get(id) {
            Some(Record::Event(event)) => Some(event),
            _ => None,
        }
    }

    /// The release whose settings the next release of a store has: the live one, or the newest change of
    /// the settings that was made after it. `live` is the release that is live, or that was live last. A
    /// store that was never live has the settings of its newest release.
    ///
    /// The copy of a rollback has the settings of an earlier release, and counts only while it is live.
    pub fn next_settings(
        &self,
        store: &StoreId,
        target: &str,
        live: Option<&RecordId>,
    ) -> Option<&ReleaseRecord> {
        let newest = || {
            let releases = self.releases().rev();
            releases.filter(|it| it.store == *store && it.target == target)
        };
        let Some(live) = live.and_then(|live| self.release(live)) else {
            return newest().find(|it| it.reason != ReleaseReason::Rollback);
        };
        let mut later = newest().take_while(|it| it.id > live.id);
        let changed = later.find(|it| it.reason == ReleaseReason::Settings);
        Some(changed.unwrap_or(live))
    }

    /// The events, the oldest first.
    pub fn events(&self) -> impl DoubleEndedIterator<Item = &EventRecord> {
        self.iter().filter_map(|stored| match &stored.record {
            Record::Event(event) => Some(event),
            _ => None,
        })
    }
}

impl Extend<StoredRecord> for RecordSet {
    fn extend<Records: IntoIterator<Item = StoredRecord>>(&mut self, records: Records) {
        records.into_iter().for_each(|record| self.insert(record));
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use serde_json::{Value, json};

    use super::{RecordSet, StoredRecord};
    use crate::ledger::{Record, RecordId, RecordKind};
    use crate::store::StoreId;

    fn id(kind: RecordKind, number: i64) -> RecordId {
        let at = Timestamp::from_second(number).unwrap();
        RecordId::from_parts(kind, at, 0)
    }

    /// A run that has made a build, and what happened to the build.
    fn run(number: i64, reference: &str) -> [Value; 4] {
        let actor = json!({ "user": "a", "host": "b" });
        let event = |offset: i64| {
            json!({
                "kind": "event", "schemaVersion": 1, "id": id(RecordKind::Event, number + offset),
                "store": "us", "actor": actor,
            })
        };
        let with = |mut event: Value, what: Value| {
            let keys = what.as_object().unwrap().clone();
            event.as_object_mut().unwrap().extend(keys);
            event
        };
        let (build, start) = (id(RecordKind::Build, number), id(RecordKind::Event, number));
        [
            with(
                event(0),
                json!({ "what": "started", "operation": "deploy", "lease": 60, "folder": "f" }),
            ),
            json!({
                "kind": "build", "schemaVersion": 1, "id": build, "store": "us",
                "status": "complete", "started": "2026-01-02T03:04:05Z", "seconds": 1.0,
                "apps": { "web": { "reference": reference, "digest": "sha256:1" } },
                "composition": "", "tool": "", "actor": actor, "reached": "push", "start": start,
            }),
            with(
                event(1),
                json!({ "what": "ended", "start": start, "succeeded": true, "interrupted": false }),
            ),
            with(
                event(2),
                json!({ "what": "images-removed", "build": build }),
            ),
        ]
    }

    #[test]
    fn builds_with_images_in_a_folder_are_not_shared_with_other_machines() {
        let mut records = RecordSet::default();
        let runs = [
            run(100, "oci:.alokai/registry:shop/web:1"),
            run(200, "r.example.com/shop/web:1"),
        ];
        for record in runs.into_iter().flatten() {
            let record: Record = serde_json::from_value(record).unwrap();
            records.insert(StoredRecord::new(record).unwrap());
        }
        let store = StoreId::new("us").unwrap();
        let shared = records.shared_of_store(&store);
        let earliest = shared.iter().map(|it| it.record.id().made_at()).min();
        assert_eq!(shared.len(), 4);
        assert_eq!(earliest, Some(Timestamp::from_second(200).unwrap()));
        assert_eq!(records.of_folder_and_store(&store).len(), 8);
    }

    proptest::proptest! {
        /// Also if two records have one id and different stores, as after an edit by hand.
        #[test]
        fn the_records_of_a_store_are_those_that_name_it(
            events in proptest::collection::vec((0i64..6, 0usize..3, 0u8..3), 0..24),
        ) {
            let mut records = RecordSet::default();
            let mut merged = RecordSet::default();
            for (number, store, user) in events {
                let record = json!({
                    "kind": "event", "schemaVersion": 1, "id": id(RecordKind::Event, number),
                    "store": (["us", "eu", "jp"][store]), "what": "unpinned",
                    "actor": { "user": user.to_string(), "host": "h" },
                });
                let record: Record = serde_json::from_value(record).unwrap();
                let mut one = RecordSet::default();
                one.insert(StoredRecord::new(record).unwrap());
                records.merge(one.clone());
                one.merge(merged);
                merged = one;
            }
            proptest::prop_assert_eq!(&records, &merged);
            for store in ["us", "eu", "jp"] {
                let store = StoreId::new(store).unwrap();
                let own = records.of_store(&store);
                let named: Vec<_> = records.iter().filter(|it| it.record.store() == &store).collect();
                proptest::prop_assert_eq!(own.iter().collect::<Vec<_>>(), named);
            }
        }
    }
}
