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
use crate::overlay::{self, Composition, Kind};
use crate::plan::{BUILD, Plan, Task};

/// Where the records lie, below this tool's own folder.
const RESULTS: &str = "results";

/// What lies in the units of a project, by unit and script: the key of the result, none where it
/// is not known what it was made of.
pub fn in_place(project: &Path) -> BTreeMap<String, BTreeMap<String, Option<Key>>> {
    /// Only the key: a record has very many files.
    #[derive(Deserialize)]
    struct Head {
        key: Option<Key>,
        #[serde(default)]
        is_known: bool,
    }
    let mut units = BTreeMap::<String, BTreeMap<String, Option<Key>>>::new();
    let records = project.join(".alokai").join(RESULTS);
    for entry in WalkDir::new(&records)
        .min_depth(3)
        .max_depth(3)
        .into_iter()
        .flatten()
    {
        let path = entry.path().strip_prefix(&records).unwrap_or(entry.path());
        let mut parts = path.iter().map(|part| part.to_string_lossy().into_owned());
        let (Some(script), Some(store), Some(app)) = (parts.next(), parts.next(), parts.next())
        else {
            continue;
        };
        let head = std::fs::read(entry.path()).ok();
        let head = head.and_then(|text| serde_json::from_slice::<Head>(&text).ok());
        // What is known to be a failed script's goes before the next begins.
        if head
            .as_ref()
            .is_some_and(|head| head.key.is_none() && head.is_known)
        {
            continue;
        }
        let unit = format!("{store}/{}", app.trim_end_matches(".json"));
        units
            .entry(unit)
            .or_default()
            .insert(script, head.and_then(|head| head.key));
    }
    units
}

/// Paths in a composed app that are no output: what is pruned, and what tools keep to be faster
/// the next time.
const APART: [&str; 6] = [
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
    /// The key of the result; none while it is made or put in place, and when it is not known
    /// what it was made of.
    key: Option<Key>,
    /// The digest under which it is kept, if it is.
    #[serde(default)]
    blob: Option<String>,
    /// Whether the files are all that it has left, although it has no key.
    #[serde(default)]
    is_known: bool,
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
    /// What is composed there; none for a package.
    composition: Option<&'a Composition>,
    /// Where the records of all scripts are.
    records: PathBuf,
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
                metadata.is_ok_and(|metadata| metadata.is_dir() || Left::new(&metadata) == *left)
            })
    }

    /// Makes the folder what the task sees and nothing else: a result must not depend on what
    /// was there by chance. In a composed app a build finds composed files and incremental
    /// caches; another script also finds what a build has left, which is part of its key. Of a
    /// package, whose folder is its people's, only what an earlier result has left goes.
    pub fn clear(&self) -> Result<(), Io> {
        let old = self.read().map(|record| record.files).unwrap_or_default();
        if self.composition.is_some() && self.task.script == BUILD {
            self.forget_others()?;
            self.sweep(Path::new(""))?;
        } else {
            self.remove_failed()?;
            self.remove_old(&old)?;
        }
        // Nobody takes for whole what is under way, nor for unknown what it leaves.
        self.write(&Record {
            key: None,
            blob: None,
            is_known: false,
            files: BTreeMap::new(),
        })?;
        // What the last result wrote over is as composed again.
        for (path, entry) in self.composition.iter().flat_map(|one| &one.entries) {
            if old.contains_key(&**path) {
                self.recompose(path, entry)?;
            }
        }
        Ok(())
    }

    fn recompose(&self, path: &str, entry: &overlay::Entry) -> Result<(), Io> {
        let place = self.folder.join(path);
        let content = entry.read().map_err(Io::at("compose", &place))?;
        match entry.kind() {
            Kind::File { .. } if std::fs::read(&place).is_ok_and(|now| now == content) => Ok(()),
            // Written in place: its permissions are those that compose gave it.
            Kind::File { .. } => std::fs::write(&place, content).map_err(Io::at("write", &place)),
            Kind::Link { target } => {
                remove(&place)?;
                std::os::unix::fs::symlink(&**target, &place).map_err(Io::at("link", &place))
            }
        }
    }

    /// Forgets what other scripts have left here, which goes.
    fn forget_others(&self) -> Result<(), Io> {
        let own = self.task.subject.to_string();
        for script in std::fs::read_dir(&self.records)
            .into_iter()
            .flatten()
            .flatten()
        {
            remove(&script.path().join(format!("{own}.json")))?;
        }
        Ok(())
    }

    /// Removes what other scripts have left here that failed.
    fn remove_failed(&self) -> Result<(), Io> {
        let own = format!("{}.json", self.task.subject);
        for script in std::fs::read_dir(&self.records)
            .into_iter()
            .flatten()
            .flatten()
        {
            let path = script.path().join(&own);
            let record = std::fs::read(&path).ok();
            let record = record.and_then(|text| serde_json::from_slice::<Record>(&text).ok());
            let is_failed = |record: &Record| record.key.is_none() && record.is_known;
            if let Some(record) = record.filter(|record| path != self.record && is_failed(record)) {
                self.remove_old(&record.files)?;
                remove(&path)?;
            }
        }
        Ok(())
    }

    /// Removes everything below a folder that is neither composed nor apart; says whether
    /// something stays.
    fn sweep(&self, folder: &Path) -> Result<bool, Io> {
        let full = self.folder.join(folder);
        let entries = match std::fs::read_dir(&full) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
            entries => entries.map_err(Io::at("read", &full))?,
        };
        let mut stays = false;
        for entry in entries {
            let entry = entry.map_err(Io::at("read", &full))?;
            let inner = folder.join(entry.file_name());
            let path = entry.path();
            let kind = entry.file_type().map_err(Io::at("read", &path))?;
            let is_source = inner
                .to_str()
                .is_some_and(|path| self.sources.contains(path));
            if is_source || self.is_apart(&inner, kind.is_symlink()) {
                stays = true;
            } else if !kind.is_dir() {
                remove(&path)?;
            } else if self.sweep(&inner)? {
                stays = true;
            } else {
                std::fs::remove_dir(&path).map_err(Io::at("remove", &path))?;
            }
        }
        Ok(stays)
    }

    /// Removes what the last result has left, and folders that this leaves empty.
    fn remove_old(&self, old: &BTreeMap<String, Left>) -> Result<(), Io> {
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
            .flat_map(|path| Path::new(path).ancestors())
            .collect();
        // Deepest first; those with something else in them stay.
        let folders = folders.into_iter().rev();
        for folder in folders.filter(|folder| *folder != Path::new("")) {
            let _ = std::fs::remove_dir(self.folder.join(folder));
        }
        Ok(())
    }

    fn is_apart(&self, path: &Path, is_link: bool) -> bool {
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
            if !files.contains_key(path) {
                return unsure(
                    Path::new(path),
                    "was removed by the script, although it is a source",
                );
            }
        }
        let is_folder = |left: &Left| left.5 & 0o170_000 == 0o040_000;
        let filled: BTreeSet<&str> = files
            .keys()
            .filter_map(|path| Some(path.rsplit_once('/')?.0))
            .collect();
        let mut outputs = BTreeMap::new();
        for (path, left) in &files {
            let is_source = self.sources.contains(path.as_str());
            let is_new = before.files.get(path) != Some(left);
            if is_folder(left) {
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

    /// Remembers that something lies here of which nobody knows what it was made of.
    pub fn remember_unsure(&self, before: &Snapshot) -> Result<(), Io> {
        let mut files = self.snapshot()?.files;
        files.retain(|path, left| before.files.get(path) != Some(left));
        self.write(&Record {
            key: None,
            blob: None,
            is_known: true,
            files,
        })
    }

    /// Remembers that the result of the task's key lies here.
    pub fn remember(&self, files: BTreeMap<String, Left>, kept: Option<&Entry>) -> Result<(), Io> {
        self.write(&Record {
            key: Some(self.task.keys.own),
            blob: kept.map(|entry| entry.digest().to_owned()),
            is_known: true,
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
                blob: None,
                is_known: false,
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
        Ok(self.remember(files, Some(entry))?)
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
