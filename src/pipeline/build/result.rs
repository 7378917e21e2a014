//! What a task wrote, where it lies: noticed after its script, taken away before the next, put
//! there from the cache.
//!
//! Outputs are not declared but seen: what is new or other in a task's folder after its script
//! has run. A record of them lies in `.alokai/results`, so that they are known to be in place,
//! and so that the next result does not mix with this one. Incremental caches (Next.js's, and
//! whatever lies in `node_modules`) belong to no result and stay.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use walkdir::WalkDir;

use super::super::failure::Io;
use crate::cache::{self, Cache, Entry, Key};
use crate::plan::{Plan, Task};

/// Paths below a task's folder that are no output: what is installed, what is pruned, and what
/// tools keep to be faster the next time.
const APART: [&str; 6] = [
    "node_modules",
    ".deploy",
    ".next/cache",
    ".turbo",
    ".cache",
    ".git",
];

/// How a file was left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Left(u64, i64, i64, i64, i64, u32);

impl Left {
    fn new(metadata: &std::fs::Metadata) -> Self {
        Self(
            metadata.size(),
            metadata.mtime(),
            metadata.mtime_nsec(),
            metadata.ctime(),
            metadata.ctime_nsec(),
            metadata.mode(),
        )
    }
}

/// What is remembered of a task's result.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Record {
    /// The key of the result; none while it is put in place.
    key: Option<Key>,
    files: BTreeMap<String, Left>,
}

/// Where one task works.
pub struct Place<'a> {
    project: &'a Path,
    task: &'a Task,
    /// Absolute.
    pub folder: PathBuf,
    record: PathBuf,
    /// Everything that the task printed.
    pub log: PathBuf,
    /// Paths in the folder that are its sources.
    sources: BTreeSet<&'a str>,
}

/// What is in a folder, as it was left.
pub type Snapshot = BTreeMap<String, Left>;

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
                .join("results")
                .join(&task.script)
                .join(format!("{name}.json")),
            log: own
                .join("logs")
                .join(&task.script)
                .join(format!("{name}.log")),
            sources: plan.sources_of(task),
        }
    }

    fn read(&self) -> Option<Record> {
        serde_json::from_slice(&std::fs::read(&self.record).ok()?).ok()
    }

    fn write(&self, record: &Record) -> Result<(), Io> {
        let failed = || Io::at("write", &self.record);
        let folder = self.record.parent().unwrap_or(self.project);
        std::fs::create_dir_all(folder).map_err(Io::at("make the folder", folder))?;
        let text = serde_json::to_vec(record).map_err(|error| failed()(error.into()))?;
        let mut file = tempfile::NamedTempFile::new_in(folder).map_err(failed())?;
        std::io::Write::write_all(&mut file, &text).map_err(failed())?;
        file.persist(&self.record)
            .map_err(|error| failed()(error.error))?;
        Ok(())
    }

    /// Whether the result of the task's key lies here as it was left.
    pub fn holds(&self) -> bool {
        let Some(record) = self
            .read()
            .filter(|record| record.key == Some(self.task.keys.own))
        else {
            return false;
        };
        record.files.iter().all(|(path, left)| {
            let metadata = self.folder.join(path).symlink_metadata();
            metadata.is_ok_and(|metadata| metadata.is_dir() || Left::new(&metadata) == *left)
        })
    }

    /// Takes away what the last result has left, and what the script is known to write anew: of
    /// a source that is gone it would be shipped otherwise. Composed files stay.
    pub fn clear(&self) -> Result<(), Io> {
        let old = self.read().map(|record| record.files).unwrap_or_default();
        // From here on nobody takes for whole what is not.
        remove(&self.record)?;
        let gone: Vec<&str> = old
            .keys()
            .map(String::as_str)
            .filter(|path| !self.sources.contains(path))
            .collect();
        for path in &gone {
            let full = self.folder.join(path);
            match full.symlink_metadata() {
                Ok(metadata) if !metadata.is_dir() => remove(&full)?,
                _ => {}
            }
        }
        let folders: BTreeSet<&Path> = gone
            .iter()
            .flat_map(|path| Path::new(path).ancestors().skip(1))
            .collect();
        // Deepest first; those with something else in them stay.
        for folder in folders
            .into_iter()
            .rev()
            .filter(|folder| *folder != Path::new(""))
        {
            let _ = std::fs::remove_dir(self.folder.join(folder));
        }
        self.task
            .outputs
            .iter()
            .try_for_each(|output| remove(&self.folder.join(output)))
    }

    /// What is in the folder now, but for what belongs to no result.
    pub fn snapshot(&self) -> Result<Snapshot, Io> {
        let mut snapshot = Snapshot::new();
        let inside = |path: &Path| {
            path.strip_prefix(&self.folder)
                .map(Path::to_owned)
                .unwrap_or_default()
        };
        let walk = WalkDir::new(&self.folder).into_iter();
        let walk = walk.filter_entry(|entry| {
            let path = inside(entry.path());
            !APART.iter().any(|apart| path == Path::new(apart))
        });
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
            let (Some(path), Ok(metadata)) = (path.to_str(), entry.metadata()) else {
                continue;
            };
            if !path.is_empty() {
                snapshot.insert(path.to_owned(), Left::new(&metadata));
            }
        }
        Ok(snapshot)
    }

    /// What the script wrote: everything that is new or other than before. Of folders only those
    /// that are new and have nothing in them. A package's own sources are no output.
    pub fn outputs(&self, before: &Snapshot) -> Result<BTreeMap<String, Left>, Io> {
        let mut after = self.snapshot()?;
        let is_folder = |left: &Left| left.5 & 0o170_000 == 0o040_000;
        let is_package = self.task.subject.unit().is_none();
        let filled: BTreeSet<String> = after
            .keys()
            .filter_map(|path| Some(path.rsplit_once('/')?.0.to_owned()))
            .collect();
        after.retain(|path, left| {
            if is_folder(left) {
                return !before.contains_key(path) && !filled.contains(path);
            }
            before.get(path) != Some(left) && !(is_package && self.sources.contains(path.as_str()))
        });
        Ok(after)
    }

    /// Remembers that the result of the task's key lies here.
    pub fn remember(&self, files: BTreeMap<String, Left>) -> Result<(), Io> {
        self.write(&Record {
            key: Some(self.task.keys.own),
            files,
        })
    }

    /// Puts a result here in the place of the one before. All of it is unpacked and checked
    /// before anything moves.
    pub fn restore(&self, cache: &Cache, entry: &Entry) -> Result<(), Trouble> {
        let temporary = self.project.join(".out/.tmp");
        std::fs::create_dir_all(&temporary).map_err(Io::at("make the folder", &temporary))?;
        let staged =
            tempfile::tempdir_in(&temporary).map_err(Io::at("make a folder in", &temporary))?;
        let paths = cache.unpack(entry, staged.path())?;
        self.clear()?;
        let files = staged.path().join(cache::FILES);
        if files.is_dir() {
            // Whoever finds this cut short knows what may lie around.
            let under_way = paths
                .iter()
                .map(|path| (path.clone(), Left(0, 0, 0, 0, 0, 0)));
            self.write(&Record {
                key: None,
                files: under_way.collect(),
            })?;
            std::fs::create_dir_all(&self.folder)
                .map_err(Io::at("make the folder", &self.folder))?;
            self.move_in(&files, Path::new(""))?;
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
        Ok(self.remember(files)?)
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

/// Why a result could not be put in place.
pub enum Trouble {
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

/// Removes a file, a link or a folder with all that is in it.
pub fn remove(path: &Path) -> Result<(), Io> {
    let removed = match path.symlink_metadata() {
        Ok(metadata) if metadata.is_dir() => std::fs::remove_dir_all(path),
        Ok(_) => std::fs::remove_file(path),
        Err(_) => Ok(()),
    };
    removed.map_err(Io::at("remove", path))
}
