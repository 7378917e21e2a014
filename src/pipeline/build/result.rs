//! What a task wrote, where it lies: noticed after its script, put there from the cache.
//!
//! Outputs are not declared but seen: what is new or other in a task's folder after its script
//! has run. A record of them lies in `.alokai/results`, so that they are known to be in place,
//! and so that the next result does not mix with this one. Incremental caches (Next.js's,
//! and what tools keep in `node_modules/.cache`) belong to no result and stay.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use walkdir::WalkDir;

use super::super::compose::remove;
use super::super::failure::Io;
use super::super::stored;
use crate::cache::{self, Cache, Entry, Key};
use crate::overlay::Composition;
use crate::plan::{BUILD, Plan, Task};

/// Where the records lie, below this tool's own folder.
const RESULTS: &str = "results";

/// Paths in a composed app that are no output: what is pruned, and what tools keep to be faster
/// the next time.
pub(super) const APART: [&str; 6] = [
    ".deploy",
    ".next/cache",
    ".turbo",
    ".cache",
    ".git",
    "node_modules/.cache",
];

/// The same of a workspace package, whose dependencies are installed in it.
const APART_IN_PACKAGE: [&str; 4] = ["node_modules", ".turbo", ".cache", ".git"];

/// How a file was left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Left(u64, i64, i64, i64, i64, u32);

impl Left {
    pub(super) fn new(metadata: &std::fs::Metadata) -> Self {
        Self(
            metadata.size(),
            metadata.mtime(),
            metadata.mtime_nsec(),
            metadata.ctime(),
            metadata.ctime_nsec(),
            metadata.mode(),
        )
    }

    fn is_folder(self) -> bool {
        self.5 & 0o170_000 == 0o040_000
    }

    /// The same but for the inode's own time, which a move changes.
    pub(super) fn is_moved(self, to: Self) -> bool {
        (self.0, self.1, self.2, self.5) == (to.0, to.1, to.2, to.5)
    }
}

/// What is remembered of a task's result.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Record {
    /// The key of the result; none while it is made or put in place, and when it is not known
    /// what it was made of.
    pub key: Option<Key>,
    /// The digest under which it is kept, if it is.
    #[serde(default)]
    pub blob: Option<String>,
    pub files: BTreeMap<String, Left>,
}

/// Where one task works.
pub struct Place<'a> {
    pub(super) project: &'a Path,
    pub(super) task: &'a Task,
    /// Absolute.
    pub folder: PathBuf,
    record: PathBuf,
    /// Everything that the task printed.
    pub log: PathBuf,
    /// Paths in the folder that are its sources.
    pub(super) sources: BTreeSet<&'a str>,
    /// What is composed there; none for a package.
    pub(super) composition: Option<&'a Composition>,
    /// Where the records of all scripts are.
    pub(super) records: PathBuf,
}

/// What is in a folder, as it was left.
#[derive(Debug, Default)]
pub struct Snapshot {
    files: BTreeMap<String, Left>,
    /// Names that are no text.
    odd: Vec<PathBuf>,
}

/// What a script wrote.
pub enum Wrote {
    /// These files, and nothing else decides what is in them but what the task sees.
    These(BTreeMap<String, Left>),
    /// Something else may have decided too.
    Unsure(String),
}

impl<'a> Place<'a> {
    /// Of a task of the plan.
    pub fn new(plan: &'a Plan, task: &'a Task) -> Self {
        let name = task.subject.to_string();
        let name = match task.subject.unit() {
            Some(_) => name,
            None => format!("packages/{}", name.replace('/', "+")),
        };
        let own = plan.project.join(".alokai");
        Self {
            project: &plan.project,
            task,
            folder: plan.project.join(&task.folder),
            record: own
                .join(RESULTS)
                .join(&task.script)
                .join(format!("{name}.json")),
            records: own.join(RESULTS),
            composition: task.subject.unit().and_then(|unit| {
                let store = plan.stores.iter().find(|store| store.id == unit.store)?;
                store.compositions.iter().find(|one| one.unit == *unit)
            }),
            log: own
                .join("logs")
                .join(&task.script)
                .join(format!("{name}.log")),
            sources: plan.sources_of(task),
        }
    }

    pub(super) fn read(&self) -> Option<Record> {
        stored::read(&self.record).ok().flatten()
    }

    /// Files that the task's result consists of; none where that is not known.
    pub fn files(&self) -> Option<Vec<String>> {
        let record = self.read().filter(|record| record.key.is_some())?;
        Some(record.files.into_keys().collect())
    }

    pub(super) fn write(&self, record: &Record) -> Result<(), Io> {
        stored::write(&self.record, record)
    }

    /// Whether the result of the task's key lies here as it was left; the kept one, where one is.
    pub fn holds(&self, kept: Option<&Entry>) -> bool {
        let own = Some(self.task.keys.own);
        let Some(record) = self.read().filter(|record| record.key == own) else {
            return false;
        };
        let is_same = match (kept, &record.blob) {
            (Some(kept), Some(blob)) => kept.digest() == blob,
            _ => true,
        };
        is_same
            && record.files.iter().all(|(path, left)| {
                let metadata = self.folder.join(path).symlink_metadata();
                metadata.is_ok_and(|metadata| {
                    let now = Left::new(&metadata);
                    now == *left || now.is_folder() && left.is_folder()
                })
            })
    }

    pub(super) fn is_apart(&self, path: &Path, is_link: bool) -> bool {
        let is = |list: &[&str]| list.iter().any(|apart| path == Path::new(apart));
        match self.composition {
            // A link to what is installed is compose's.
            Some(_) => is(&APART) || is_link && path == Path::new("node_modules"),
            None => is(&APART_IN_PACKAGE),
        }
    }

    /// What is in the folder now, but for what belongs to no result.
    pub fn snapshot(&self) -> Result<Snapshot, Io> {
        let mut snapshot = Snapshot::default();
        let inside = |path: &Path| {
            let inside = path.strip_prefix(&self.folder);
            inside.map(Path::to_owned).unwrap_or_default()
        };
        let walk = WalkDir::new(&self.folder).into_iter();
        let walk = walk
            .filter_entry(|entry| !self.is_apart(&inside(entry.path()), entry.path_is_symlink()));
        for entry in walk {
            let entry = match entry {
                Ok(entry) => entry,
                // What is gone meanwhile is no output.
                Err(error)
                    if error
                        .io_error()
                        .is_some_and(|it| it.kind() == std::io::ErrorKind::NotFound) =>
                {
                    continue;
                }
                Err(error) => {
                    let path = error.path().unwrap_or(&self.folder).to_owned();
                    return Err(Io::at("read", &path)(error.into()));
                }
            };
            let path = inside(entry.path());
            let Ok(metadata) = entry.metadata() else {
                continue;
            };
            match path.to_str() {
                None => snapshot.odd.push(path),
                Some("") => {}
                Some(path) => {
                    snapshot.files.insert(path.to_owned(), Left::new(&metadata));
                }
            }
        }
        Ok(snapshot)
    }

    /// What the script wrote: everything that is new or other than before. Of folders only those
    /// that are new and have nothing in them. A package's own sources are no output.
    pub fn wrote(&self, before: &Snapshot) -> Result<Wrote, Io> {
        let Snapshot { files, odd } = self.snapshot()?;
        let unsure = |path: &Path, what: &str| {
            let path = path.to_string_lossy();
            Ok(Wrote::Unsure(format!("`{}` {what}", path.escape_debug())))
        };
        if let Some(path) = odd.first() {
            return unsure(path, "has a name that is no text");
        }
        let is_package = self.composition.is_none();
        for path in before
            .files
            .keys()
            .filter(|path| self.sources.contains(path.as_str()))
        {
            if files.get(path).is_none_or(|left| left.is_folder()) {
                return unsure(
                    Path::new(path),
                    "was removed by the script, although it is a source",
                );
            }
        }
        let filled: BTreeSet<&str> = files
            .keys()
            .filter_map(|path| Some(path.rsplit_once('/')?.0))
            .collect();
        let mut outputs = BTreeMap::new();
        for (path, left) in &files {
            let is_source = self.sources.contains(path.as_str());
            let is_new = before.files.get(path) != Some(left);
            if left.is_folder() {
                if !before.files.contains_key(path) && !filled.contains(path.as_str()) {
                    outputs.insert(path.clone(), *left);
                }
            } else if is_new && !(is_package && is_source) {
                outputs.insert(path.clone(), *left);
            } else if is_package && !is_source && !is_new {
                let what =
                    "was there before, and the script has not written it anew; remove it once";
                return unsure(&self.folder.join(path), what);
            }
        }
        Ok(Wrote::These(outputs))
    }

    /// Remembers that the result of the task's key lies here.
    pub fn remember(&self, files: BTreeMap<String, Left>, kept: Option<&Entry>) -> Result<(), Io> {
        self.write(&Record {
            key: Some(self.task.keys.own),
            blob: kept.map(|entry| entry.digest().to_owned()),
            files,
        })
    }

    /// Puts a result here in the place of the one before. All of it is unpacked and checked
    /// before anything moves.
    pub fn restore(&self, cache: &Cache, entry: &Entry) -> Result<(), Trouble> {
        let staged = temporary(self.project)?;
        let paths = cache.unpack(entry, staged.path())?;
        // What people have put into a package is theirs.
        if let Some(path) = paths.iter().find(|path| self.is_theirs(path)) {
            return Err(Trouble::Occupied(path.clone()));
        }
        let files = staged.path().join(cache::FILES);
        if files.is_dir() || self.task.script == BUILD {
            let aside = self.clear()?;
            // Whoever finds this cut short knows what may lie around.
            let under_way = paths
                .iter()
                .map(|path| (path.clone(), Left(0, 0, 0, 0, 0, 0)));
            self.write(&Record {
                key: None,
                blob: None,
                files: under_way.collect(),
            })?;
            std::fs::create_dir_all(&self.folder)
                .map_err(Io::at("make the folder", &self.folder))?;
            if files.is_dir() {
                self.move_in(&files, Path::new(""))?;
            }
            self.put_back(aside)?;
        }
        let log = staged.path().join(cache::LOG);
        if log.is_file() {
            let folder = self.log.parent().unwrap_or(self.project);
            std::fs::create_dir_all(folder).map_err(Io::at("make the folder", folder))?;
            std::fs::rename(&log, &self.log).map_err(Io::at("write", &self.log))?;
        }
        let left = |path: String| {
            let file = self.folder.join(&path);
            let metadata = file.symlink_metadata().map_err(Io::at("read", &file))?;
            Ok((path, Left::new(&metadata)))
        };
        let files = paths.into_iter().map(left).collect::<Result<_, Io>>()?;
        Ok(self.remember(files, Some(entry))?)
    }

    /// Whether something lies at the path in a package that no result of ours has left there.
    fn is_theirs(&self, path: &str) -> bool {
        if self.composition.is_some() {
            return false;
        }
        let Ok(now) = self.folder.join(path).symlink_metadata() else {
            return false;
        };
        let left = self
            .read()
            .and_then(|record| record.files.get(path).copied());
        !now.is_dir() && left != Some(Left::new(&now))
    }

    /// Moves what is in `from` into the folder: whole folders where nothing is yet.
    fn move_in(&self, from: &Path, to: &Path) -> Result<(), Io> {
        for entry in std::fs::read_dir(from).map_err(Io::at("read", from))? {
            let entry = entry.map_err(Io::at("read", from))?;
            let inner = to.join(entry.file_name());
            let place = self.folder.join(&inner);
            let is_folder = entry
                .file_type()
                .map_err(Io::at("read", &entry.path()))?
                .is_dir();
            match place.symlink_metadata() {
                Ok(metadata) if metadata.is_dir() && is_folder => {
                    self.move_in(&entry.path(), &inner)?;
                    continue;
                }
                Ok(_) => remove(&place)?,
                Err(_) => {}
            }
            std::fs::rename(entry.path(), &place).map_err(Io::at("write", &place))?;
        }
        Ok(())
    }
}

/// A folder below `.out`, where the next compose sweeps what a killed run has left.
pub(super) fn temporary(project: &Path) -> Result<tempfile::TempDir, Io> {
    let folder = project.join(".out/.tmp");
    std::fs::create_dir_all(&folder).map_err(Io::at("make the folder", &folder))?;
    tempfile::tempdir_in(&folder).map_err(Io::at("make a folder in", &folder))
}

/// Why a result could not be put in place.
pub enum Trouble {
    /// In a package something lies at this path that is not ours.
    Occupied(String),
    /// The cache.
    Cache(cache::Error),
    /// The disk.
    Io(Io),
}

impl From<cache::Error> for Trouble {
    fn from(error: cache::Error) -> Self {
        Self::Cache(error)
    }
}

impl From<Io> for Trouble {
    fn from(error: Io) -> Self {
        Self::Io(error)
    }
}
