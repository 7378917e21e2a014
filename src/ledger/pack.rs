//! Packs: many records in one file, one record on each line.
//!
//! Ten thousand small files take long to read. The records of other machines are stored as packs, as
//! they come, and old records of this machine are gathered into packs. A pack is named by the digest of
//! its content and is never changed.

use std::collections::BTreeSet;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use super::folder::{DamagedRecord, FolderError};
use super::page;
use super::set::{RecordSet, StoredRecord};
use oci::Digest;

/// What the names of packs end with.
const ENDING: &str = ".jsonl";

/// How often a list of packs is read again because another process has replaced packs meanwhile.
const MOST_READINGS: usize = 10;

/// The packs of a folder of records.
#[derive(Debug, Clone)]
pub struct Packs {
    root: PathBuf,
}

impl Packs {
    /// The packs in the folder of a ledger.
    pub fn of(ledger: &Path) -> Self {
        Self {
            root: ledger.join("packs"),
        }
    }

    /// Writes these records as one pack, and returns its name.
    pub fn write<'a>(
        &self,
        records: impl Iterator<Item = &'a StoredRecord>,
    ) -> Result<String, FolderError> {
        self.write_lines(&page::lines(records))
    }

    /// Writes the lines of a page as a pack, and returns its name.
    pub fn write_lines(&self, lines: &[u8]) -> Result<String, FolderError> {
        let name = format!("{}{ENDING}", Digest::of(lines).hex());
        let path = self.root.join(&name);
        let write = || {
            std::fs::create_dir_all(&self.root)?;
            let mut file = tempfile::NamedTempFile::new_in(&self.root)?;
            file.write_all(lines)?;
            file.as_file().sync_data()?;
            // A pack with this name has the same content, unless it is damaged.
            file.persist(&path).map_err(|error| error.error)
        };
        write().map_err(FolderError::at("write", &path))?;
        Ok(name)
    }

    /// Whether there is a pack with this name.
    pub fn has(&self, name: &str) -> bool {
        self.root.join(name).exists()
    }

    /// Removes a pack whose records are in other packs too.
    pub fn remove(&self, name: &str) -> Result<(), FolderError> {
        let path = self.root.join(name);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(FolderError::at("remove", &path)(error))
            }
            _ => Ok(()),
        }
    }

    /// Reads the packs that are not known. Valid packs are known then; damaged ones are read each time.
    pub fn read(
        &self,
        known: &mut BTreeSet<PathBuf>,
        records: &mut RecordSet,
        damaged: &mut Vec<DamagedRecord>,
    ) -> Result<(), FolderError> {
        let mut seen = known.clone();
        for _ in 0..MOST_READINGS {
            let mut is_complete = true;
            for path in self.list()? {
                if seen.contains(&path) {
                    continue;
                }
                match std::fs::read(&path) {
                    Ok(lines) => {
                        let before = damaged.len();
                        add(&path, &lines, records, damaged);
                        if damaged.len() == before {
                            known.insert(path.clone());
                        }
                    }
                    // Another process has put its records into a pack that is not in this list.
                    Err(error) if error.kind() == ErrorKind::NotFound => is_complete = false,
                    Err(error) if error.kind() == ErrorKind::IsADirectory => {
                        damaged.push(DamagedRecord {
                            path: path.clone(),
                            reason: "it is a folder; remove it".into(),
                        });
                    }
                    Err(error) => return Err(FolderError::at("read", &path)(error)),
                }
                seen.insert(path);
            }
            if is_complete {
                break;
            }
        }
        Ok(())
    }

    /// The files of packs.
    pub fn list(&self) -> Result<Vec<PathBuf>, FolderError> {
        let failed = FolderError::at("read", &self.root);
        let entries = match std::fs::read_dir(&self.root) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(failed(error)),
        };
        let mut paths = Vec::new();
        for entry in entries {
            let path = entry.map_err(&failed)?.path();
            // Temporary files of other processes have other names.
            if path.to_string_lossy().ends_with(ENDING) {
                paths.push(path);
            }
        }
        Ok(paths)
    }
}

fn add(path: &Path, lines: &[u8], records: &mut RecordSet, damaged: &mut Vec<DamagedRecord>) {
    let name = format!("{}{ENDING}", Digest::of(lines).hex());
    if path.file_name().is_none_or(|own| *own != *name) {
        damaged.push(DamagedRecord {
            path: path.to_owned(),
            reason: "its content does not have the digest of its name; its records are read again from the registry".into(),
        });
        return;
    }
    let page = page::records_of(lines);
    records.extend(page.records);
    damaged.extend(page.invalid.into_iter().map(|reason| DamagedRecord {
        path: path.to_owned(),
        reason,
    }));
}
