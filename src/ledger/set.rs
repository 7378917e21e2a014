//! A set of records. Sets from several places merge by union: records are immutable, so the order
//! of merging does not matter.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::id::{PrefixProblem, RecordId};
use super::record::{BuildRecord, EventRecord, Record, ReleaseRecord};
use crate::store::{StoreId, TargetKind};

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
}

impl RecordSet {
    /// Adds a record. Of two records with one id, the one with the smaller bytes stays, so that every
    /// machine keeps the same one.
    pub fn insert(&mut self, record: StoredRecord) {
        let id = record.record.id().clone();
        match self.records.get(&id) {
            Some(known) if known.bytes <= record.bytes => {}
            _ => {
                self.records.insert(id, record);
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
        let records = self.records.iter();
        let records = records.filter(|(_, stored)| stored.record.store() == store);
        Self {
            records: records
                .map(|(id, stored)| (id.clone(), stored.clone()))
                .collect(),
        }
    }

    /// The records of one store that other machines need. A release at the target `local` belongs to one
    /// folder of one machine, so its records stay there.
    #[must_use]
    pub fn shared_of_store(&self, store: &StoreId) -> Self {
        let mut shared = self.of_store(store);
        shared.records.retain(|_, stored| {
            let target = match &stored.record {
                Record::Build(_) => None,
                Record::Release(release) => Some(release.target.as_str()),
                Record::Event(event) => event.target.as_deref(),
            };
            target != Some(TargetKind::Local.name())
        });
        shared
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

    /// The newest release of a store at a target. The next release has its settings.
    pub fn latest_release(&self, store: &StoreId, target: &str) -> Option<&ReleaseRecord> {
        let mut releases = self.releases().rev();
        releases.find(|it| it.store == *store && it.target == target)
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
