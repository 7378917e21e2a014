//! Records in a folder: one file for each, `<kind>/<id>.json`, and packs.

use std::collections::BTreeSet;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::id::{RecordId, RecordKind};
use super::logs::LogFolder;
use super::pack::Packs;
use super::set::{RecordSet, StoredRecord};
use oci::Digest;

/// The folder of records, relative to the project.
pub const LEDGER: &str = ".alokai/ledger";

/// Records with files of their own above which [`RecordFolder::gather`] packs them.
const MOST_FILES: usize = 500;

/// Tells project folders of one machine apart, without their path.
pub fn folder_id(project: &Path) -> String {
    Digest::of(project.as_os_str().as_encoded_bytes()).to_string()
}

/// Records in a folder. A clone shares what was read, so that a process that reads the folder for each store
/// parses each record once.
#[derive(Debug, Clone)]
pub struct RecordFolder {
    root: PathBuf,
    known: Arc<Mutex<KnownFiles>>,
}

/// The files of a folder that were read. Records and packs are never changed, only added and removed.
#[derive(Debug, Default)]
struct KnownFiles {
    files: BTreeSet<RecordId>,
    packs: BTreeSet<PathBuf>,
    records: Arc<RecordSet>,
}

/// A file or folder of records that cannot be read or written.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
#[error("cannot {action} `{}`", path.display())]
#[diagnostic(
    code(alokai::ledger::folder),
    help("check its permissions, and that the disk is not full")
)]
pub struct FolderError {
    action: &'static str,
    path: PathBuf,
    source: std::io::Error,
}

impl FolderError {
    /// An error while doing something with a path.
    pub(super) fn at(action: &'static str, path: &Path) -> impl Fn(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self {
            action,
            path: path.clone(),
            source,
        }
    }
}

/// A file that is not a valid record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DamagedRecord {
    /// The file.
    pub path: PathBuf,
    /// Why it is not valid.
    pub reason: String,
}

impl RecordFolder {
    /// The records of a project.
    pub fn of_project(project: &Path) -> Self {
        Self {
            root: project.join(LEDGER),
            known: Arc::default(),
        }
    }

    /// Writes a record whole. A record that exists already stays as it is.
    pub fn append(&self, record: &StoredRecord) -> Result<(), FolderError> {
        let id = record.record.id();
        let folder = self.root.join(id.kind().folder());
        let path = self.path(id);
        let write = || {
            std::fs::create_dir_all(&folder)?;
            let mut file = tempfile::NamedTempFile::new_in(&folder)?;
            file.write_all(&record.bytes)?;
            file.as_file().sync_data()?;
            // A rename would replace the record of a process that had the same id.
            match file.persist_noclobber(&path) {
                Err(error) if error.error.kind() != ErrorKind::AlreadyExists => Err(error.error),
                _ => Ok(()),
            }
        };
        write().map_err(FolderError::at("write", &path))
    }

    /// Replaces the file of a record that is damaged by the bytes that another place has. A record without
    /// a file of its own gets none, and a valid file stays as it is.
    pub(super) fn repair(&self, record: &StoredRecord) -> Result<(), FolderError> {
        let id = record.record.id();
        let path = self.path(id);
        let is_damaged =
            std::fs::read(&path).is_ok_and(|bytes| StoredRecord::parse(id, &bytes).is_err());
        if !is_damaged {
            return Ok(());
        }
        crate::disk::write_atomically(&path, &record.bytes).map_err(FolderError::at("write", &path))
    }

    /// The logs of the same project.
    pub fn logs(&self) -> LogFolder {
        LogFolder::of(&self.root)
    }

    /// The file with the pages of a place that were read.
    pub(super) fn pages(&self, name: &str) -> PathBuf {
        self.root.join(format!("pages/{name}.json"))
    }

    /// The packs with records of other machines, and with old records of this machine.
    pub fn packs(&self) -> Packs {
        Packs::of(&self.root)
    }

    /// All records, and the files that are not valid records.
    pub fn read(&self) -> Result<(Arc<RecordSet>, Vec<DamagedRecord>), FolderError> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let result = self.read_new(&mut known);
        if result.is_err() {
            *known = KnownFiles::default();
        }
        let mut damaged = result?;
        damaged.sort_by(|a, b| a.path.cmp(&b.path));
        Ok((Arc::clone(&known.records), damaged))
    }

    /// Reads the files that are not known. A known file that is gone may have had the only copy of a
    /// record, so all files are read again then.
    fn read_new(&self, known: &mut KnownFiles) -> Result<Vec<DamagedRecord>, FolderError> {
        let files = self.files()?;
        let listed: BTreeSet<&RecordId> = files.iter().map(|(id, _)| id).collect();
        let packs = self.packs();
        // One listing for all packs, because a folder is read for each store of a deploy.
        let listed_packs: BTreeSet<PathBuf> = packs.list()?.into_iter().collect();
        if !known.files.iter().all(|id| listed.contains(id))
            || !known.packs.is_subset(&listed_packs)
        {
            *known = KnownFiles::default();
        }
        let mut damaged = Vec::new();
        let records = Arc::make_mut(&mut known.records);
        // A record that another process packs meanwhile is in a pack before its file is removed, so
        // packs are read last.
        for (id, path) in files {
            if known.files.contains(&id) {
                continue;
            }
            let bytes = match std::fs::read(&path) {
                Ok(bytes) => bytes,
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                Err(error) if error.kind() == ErrorKind::IsADirectory => {
                    damaged.push(DamagedRecord {
                        path,
                        reason: "it is a folder; remove it".into(),
                    });
                    continue;
                }
                Err(error) => return Err(FolderError::at("read", &path)(error)),
            };
            match StoredRecord::parse(&id, &bytes) {
                Ok(record) => {
                    records.insert(record);
                    known.files.insert(id);
                }
                Err(error) => damaged.push(DamagedRecord {
                    path,
                    reason: error.to_string(),
                }),
            }
        }
        packs.read(&mut known.packs, records, &mut damaged)?;
        Ok(damaged)
    }

    /// Puts the records that have files of their own into a pack if there are many of them.
    pub fn gather(&self) -> Result<(), FolderError> {
        let files = self.files()?;
        if files.len() <= MOST_FILES {
            return Ok(());
        }
        let mut records = Vec::new();
        let mut packed = Vec::new();
        for (id, path) in files {
            // A damaged file stays, and is named by each listing.
            let stored = std::fs::read(&path).ok();
            let stored = stored.and_then(|bytes| StoredRecord::parse(&id, &bytes).ok());
            if let Some(stored) = stored {
                records.push(stored);
                packed.push(path);
            }
        }
        self.packs().write(records.iter())?;
        for path in packed {
            // Another process may have packed the same records.
            let _ = std::fs::remove_file(path);
        }
        Ok(())
    }

    /// The files of records.
    fn files(&self) -> Result<Vec<(RecordId, PathBuf)>, FolderError> {
        let mut files = Vec::new();
        for kind in RecordKind::ALL {
            let folder = self.root.join(kind.folder());
            let failed = FolderError::at("read", &folder);
            let entries = match std::fs::read_dir(&folder) {
                Ok(entries) => entries,
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                Err(error) => return Err(failed(error)),
            };
            for entry in entries {
                let path = entry.map_err(&failed)?.path();
                // Temporary files of other processes have other names.
                if let Some(id) = id_of(&path) {
                    files.push((id, path));
                }
            }
        }
        Ok(files)
    }

    fn path(&self, id: &RecordId) -> PathBuf {
        self.root
            .join(id.kind().folder())
            .join(format!("{id}.json"))
    }
}

/// The id in the name of a record's file.
fn id_of(path: &Path) -> Option<RecordId> {
    let name = path.file_name()?.to_str()?;
    name.strip_suffix(".json")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::RecordFolder;
    use crate::ledger::{
        Actor, EventRecord, Record, RecordId, RecordKind, RecordSet, SCHEMA_VERSION, StoreEvent,
        StoredRecord,
    };
    use crate::store::StoreId;

    fn event(at: i64, random: u64, detail: &str) -> StoredRecord {
        let at = Timestamp::from_millisecond(at).unwrap();
        StoredRecord::new(Record::Event(EventRecord {
            schema_version: SCHEMA_VERSION,
            id: RecordId::from_parts(RecordKind::Event, at, random),
            store: StoreId::new("us").unwrap(),
            target: None,
            release: None,
            run: None,
            what: StoreEvent::Maintenance { on: true },
            seconds: Some(0.5),
            detail: Some(detail.into()),
            actor: Actor::default(),
            log: None,
        }))
        .unwrap()
    }

    #[test]
    fn records_of_many_writers_are_all_there_and_whole() {
        let folder = tempfile::tempdir().unwrap();
        let records = RecordFolder::of_project(folder.path());
        std::thread::scope(|scope| {
            for writer in 0..8 {
                let records = &records;
                scope.spawn(move || {
                    for number in 0..25 {
                        records.append(&event(number, writer, "same time")).unwrap();
                    }
                });
            }
        });
        let (set, damaged) = records.read().unwrap();
        assert_eq!((set.len(), damaged.len()), (200, 0));
    }

    #[test]
    fn a_record_is_never_replaced_and_a_damaged_one_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let records = RecordFolder::of_project(folder.path());
        let first = event(1, 1, "first");
        records.append(&first).unwrap();
        records.append(&event(1, 1, "second")).unwrap();
        let id = first.record.id();
        let damaged = records.path(&event(2, 1, "").record.id().clone());
        std::fs::write(&damaged, &first.bytes).unwrap();
        std::fs::write(damaged.with_file_name("notes.txt"), "mine").unwrap();
        let (set, invalid) = records.read().unwrap();
        assert_eq!(set.get(id), Some(&first.record));
        assert_eq!(set.len(), 1);
        assert_eq!(invalid.len(), 1);
        assert_eq!(invalid[0].path, damaged);
        assert!(invalid[0].reason.contains("it has the id"), "{invalid:?}");
    }

    /// What another process, or a person, does to the folder.
    fn change(folder: &std::path::Path, action: u8, number: i64) {
        let records = RecordFolder::of_project(folder);
        let files: Vec<_> = records.files().unwrap();
        let file = files.get(usize::try_from(number).unwrap() % files.len().max(1));
        let packs = || {
            std::fs::read_dir(records.root.join("packs"))
                .into_iter()
                .flatten()
        };
        match action {
            0..=2 => records.append(&event(number, 1, "new")).unwrap(),
            3 => {
                let pack: Vec<_> = (0..3)
                    .map(|it| event(100 + number + it, 2, "packed"))
                    .collect();
                records.packs().write(pack.iter()).unwrap();
            }
            4 => {
                let (all, _) = records.read().unwrap();
                records.packs().write(all.iter()).unwrap();
                for (_, path) in files {
                    std::fs::remove_file(path).unwrap();
                }
            }
            5 => file
                .iter()
                .for_each(|(_, path)| std::fs::remove_file(path).unwrap()),
            6 => packs()
                .take(1)
                .for_each(|it| std::fs::remove_file(it.unwrap().path()).unwrap()),
            _ => {
                let id = event(200 + number, 3, "").record.id().clone();
                std::fs::create_dir_all(records.root.join("events")).unwrap();
                std::fs::write(records.path(&id), "{").unwrap();
            }
        }
    }

    proptest::proptest! {
        #![proptest_config(proptest::test_runner::Config::with_cases(64))]
        #[test]
        fn a_folder_that_was_read_before_reads_what_a_new_one_reads(
            changes in proptest::collection::vec((0u8..8, 0i64..40), 1..24),
        ) {
            let folder = tempfile::tempdir().unwrap();
            let old = RecordFolder::of_project(folder.path());
            for (action, number) in changes {
                change(folder.path(), action, number);
                let new = RecordFolder::of_project(folder.path()).read().unwrap();
                proptest::prop_assert_eq!(old.clone().read().unwrap(), new);
            }
        }
    }

    #[test]
    fn many_files_become_one_pack_while_others_write_and_read() {
        let folder = tempfile::tempdir().unwrap();
        let records = RecordFolder::of_project(folder.path());
        for number in 0..550 {
            records.append(&event(number, 1, "before")).unwrap();
        }
        std::thread::scope(|scope| {
            for writer in 2..4 {
                let records = &records;
                scope.spawn(move || {
                    for number in 0..20 {
                        records.append(&event(number, writer, "same time")).unwrap();
                        records.gather().unwrap();
                        let (set, damaged) = records.read().unwrap();
                        assert!(set.len() > 550, "{}", set.len());
                        assert_eq!(damaged, []);
                    }
                });
            }
        });
        let (set, _) = records.read().unwrap();
        assert_eq!(set.len(), 590);
        assert!(records.files().unwrap().len() <= super::MOST_FILES);
        // A pack that was changed by something else is named, and its records are not believed.
        let packs = std::fs::read_dir(records.root.join("packs")).unwrap();
        for pack in packs {
            std::fs::write(pack.unwrap().path(), "{}\n").unwrap();
        }
        let again = RecordFolder::of_project(folder.path());
        let (_, damaged) = again.read().unwrap();
        assert!(damaged[0].reason.contains("digest of its name"));
    }

    #[test]
    fn the_order_of_merging_does_not_matter() {
        let records = [
            event(1, 1, "a"),
            event(2, 1, "b"),
            event(1, 1, "other bytes"),
        ];
        let merged = |order: [usize; 3]| {
            let mut set = RecordSet::default();
            for index in order {
                let mut other = RecordSet::default();
                other.insert(records[index].clone());
                set.merge(other);
            }
            set
        };
        let first = merged([0, 1, 2]);
        for order in [[0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
            assert_eq!(merged(order), first, "{order:?}");
        }
        assert_eq!(first.len(), 2);
    }
}
