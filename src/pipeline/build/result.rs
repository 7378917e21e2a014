//! What a task wrote, where it lies: noticed after its script, put there from the cache.
//!
//! Outputs are not declared but seen: what is new or other in a task's folder after its script
//! has run. A record of them lies in `.alokai/results`, so that they are known to be in place,
//! and so that the next result does not mix with this one. Incremental caches (Next.js's,
//! and what tools keep in `node_modules/.cache`) belong to no result and stay.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use walkdir::{DirEntry, WalkDir};

use super::super::compose::remove;
use super::super::failure::Io;
use super::super::stored;
use crate::cache::{self, Cache, CachedResult, Key, OutputDigest};
use crate::files::Stamp;
use crate::overlay::{self, Composition, ContentId};
use crate::plan::{BUILD, Plan, Subject, TaskId};
use crate::store::AppName;
use virtual_path::normalize;

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

/// What is remembered of a task's result.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Record {
    /// The key of the result; none while it is made or put in place, and when it is not known
    /// what it was made of.
    pub key: Option<Key>,
    /// Identity of the files.
    #[serde(default)]
    pub output: Option<OutputDigest>,
    /// The digest under which it is kept, if it is.
    #[serde(default)]
    pub blob: Option<String>,
    pub files: BTreeMap<String, Stamp>,
}

impl Record {
    /// Files whose result is not known, or not whole.
    pub fn unknown(files: BTreeMap<String, Stamp>) -> Self {
        Self {
            key: None,
            output: None,
            blob: None,
            files,
        }
    }
}

/// A folder in which a task works, or whose result it reads.
pub struct Place<'a> {
    pub(super) project: &'a Path,
    /// The script that works here.
    pub(super) script: &'a str,
    /// Absolute.
    pub folder: PathBuf,
    record: PathBuf,
    /// Everything that the task printed.
    pub log: PathBuf,
    /// Paths in the folder that are its sources.
    pub(super) sources: Sources,
    /// What is composed there; none for a package.
    pub(super) composition: Option<Arc<Composition>>,
    /// Where the records of all scripts are.
    pub(super) records: PathBuf,
    /// The name of its records.
    pub(super) record_name: String,
}

/// Paths in a task's folder that are its sources.
pub(super) enum Sources {
    /// Those of a composed app.
    Composed(Arc<Composition>),
    /// A package's own.
    OfPackage(BTreeSet<Arc<str>>),
}

impl Sources {
    pub fn contains(&self, path: &str) -> bool {
        match self {
            Self::Composed(composition) => composition.entries.contains_key(path),
            Self::OfPackage(paths) => paths.contains(path),
        }
    }

    /// Whether one of them begins so.
    pub fn has_below(&self, start: &str) -> bool {
        let from: Arc<str> = start.into();
        let next = match self {
            Self::Composed(composition) => {
                let mut entries = composition.entries.range(from..);
                entries.next().map(|(path, _)| path)
            }
            Self::OfPackage(paths) => paths.range(from..).next(),
        };
        next.is_some_and(|path| path.starts_with(start))
    }

    pub fn iter(&self) -> Box<dyn Iterator<Item = &Arc<str>> + '_> {
        match self {
            Self::Composed(composition) => Box::new(composition.entries.keys()),
            Self::OfPackage(paths) => Box::new(paths.iter()),
        }
    }
}

/// The name in the `package.json` of an app that is built for no store.
pub fn neutral_name(app: &AppName) -> String {
    format!("{app}-shared")
}

/// What is in a folder, as it was left.
#[derive(Debug, Default)]
pub struct Snapshot {
    files: BTreeMap<String, Stamp>,
    /// Names that are not valid UTF-8.
    invalid: Vec<PathBuf>,
}

impl Snapshot {
    /// A path that is not the same in both; folders count by what is in them.
    pub fn differs<'a>(&'a self, other: &'a Self) -> Option<&'a str> {
        let not_in = |one: &'a Self, other: &'a Self| {
            let differs = move |(path, stamp): &(&String, &Stamp)| {
                !stamp.is_folder() && other.files.get(*path) != Some(stamp)
            };
            one.files
                .iter()
                .find(differs)
                .map(|(path, _)| path.as_str())
        };
        not_in(self, other).or_else(|| not_in(other, self))
    }
}

/// What a script wrote.
pub enum Wrote {
    /// These files, and nothing else decides what is in them but what the task sees.
    These(BTreeMap<String, Stamp>),
    /// Something else may have decided too.
    Unsure(String),
}

impl<'a> Place<'a> {
    /// Where the result of a task belongs.
    pub fn new(plan: &'a Plan, id: TaskId) -> Self {
        let task = plan.task(id);
        let name = match &task.subject {
            Subject::Unit(unit) => unit.to_string(),
            Subject::Package(name) => format!("packages/{}", name.replace('/', "+")),
        };
        let sources = match plan.composition_of(id) {
            Some(composition) => Sources::Composed(Arc::clone(composition)),
            None => Sources::OfPackage(plan.package_files(id).map(Arc::from).collect()),
        };
        Self::at(plan, &task.script, &task.folder, &name, sources)
    }

    /// Where the script of a task runs: where its result belongs, or for a shared app its
    /// neutral folder.
    pub fn of_script(plan: &'a Plan, id: TaskId) -> Result<Self, Io> {
        let task = plan.task(id);
        match (plan.composition_of(id), task.subject.unit()) {
            (Some(composition), Some(unit)) if task.shared => {
                let name = format!("_{}/{}", unit.app, unit.app);
                Self::neutral(plan, &task.script, &task.run_folder(), &name, composition)
            }
            _ => Ok(Self::new(plan, id)),
        }
    }

    /// An app beside a shared one, in the neutral folder.
    pub fn beside(
        plan: &'a Plan,
        id: TaskId,
        sibling: &'a Composition,
    ) -> Result<Option<Self>, Io> {
        let task = plan.task(id);
        let Some(unit) = task.subject.unit().filter(|_| task.shared) else {
            return Ok(None);
        };
        let app = &sibling.unit.app;
        let folder = format!(".out/_{}/{app}", unit.app);
        let name = format!("_{}/{app}", unit.app);
        Self::neutral(plan, BUILD, &folder, &name, sibling).map(Some)
    }

    fn neutral(
        plan: &'a Plan,
        script: &'a str,
        folder: &str,
        name: &str,
        composition: &Composition,
    ) -> Result<Self, Io> {
        let renamed = composition.renamed(&neutral_name(&composition.unit.app));
        let renamed = renamed.map_err(|reason| {
            let path = plan.project.join(folder).join("package.json");
            Io::at("rename the package in", &path)(std::io::Error::other(reason))
        })?;
        let sources = Sources::Composed(Arc::new(renamed));
        Ok(Self::at(plan, script, folder, name, sources))
    }

    fn at(plan: &'a Plan, script: &'a str, folder: &str, name: &str, sources: Sources) -> Self {
        let own = plan.project.join(".alokai");
        let file = |folder: &str, end: &str| {
            let folder = own.join(folder).join(script);
            folder.join(format!("{name}.{end}"))
        };
        Self {
            project: &plan.project,
            script,
            folder: plan.project.join(folder),
            record: file(RESULTS, "json"),
            log: file("logs", "log"),
            records: own.join(RESULTS),
            record_name: format!("{name}.json"),
            composition: match &sources {
                Sources::Composed(composition) => Some(Arc::clone(composition)),
                Sources::OfPackage(_) => None,
            },
            sources,
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

    /// Identity of the result that lies here, if it has this key, is as it was left, and nothing
    /// lies beside it; the kept one, where one is.
    pub fn holds(&self, key: Key, kept: Option<&CachedResult>) -> Option<OutputDigest> {
        let record = self.read().filter(|record| record.key == Some(key))?;
        let is_same = match (kept, &record.blob) {
            (Some(kept), Some(blob)) => kept.digest().hex() == *blob,
            _ => true,
        };
        let output = record.output.filter(|_| is_same)?;
        let is_as_left = |(path, left): (&String, &Stamp)| {
            let now = Stamp::of(&self.folder.join(path));
            now.is_some_and(|now| now == *left || now.is_folder() && left.is_folder())
        };
        let is_whole = record.files.iter().all(is_as_left);
        (is_whole && self.beside_result(&record).ok()?.is_none()).then_some(output)
    }

    /// Something that neither is a source nor belongs to the result that lies here.
    pub fn extra(&self) -> Option<String> {
        let record = self
            .read()
            .unwrap_or_else(|| Record::unknown(BTreeMap::new()));
        let extra = self.beside_result(&record).ok()??;
        Some(self.folder.join(extra).display().to_string())
    }

    /// The first path here that neither is a source nor in the record. Sources are compose's to
    /// look at, so nothing is asked of a file but its name. Folders of a package are its people's.
    fn beside_result(&self, record: &Record) -> Result<Option<String>, Io> {
        let start = self.folder.as_os_str().len() + 1;
        let mut first: Option<String> = None;
        for entry in self.walk() {
            let entry = entry?;
            let path = after(entry.path(), start);
            let is_folder = entry.file_type().is_dir();
            let is_known = |path: &str| {
                self.sources.contains(path)
                    || record.files.contains_key(path)
                    || is_folder && (self.composition.is_none() || self.has_below(path, record))
            };
            if path.as_os_str().is_empty() || path.to_str().is_some_and(is_known) {
                continue;
            }
            let path = path.display().to_string();
            if first.as_ref().is_none_or(|first| path < *first) {
                first = Some(path);
            }
        }
        Ok(first)
    }

    /// Whether something that belongs here lies below the folder.
    fn has_below(&self, folder: &str, record: &Record) -> bool {
        let start = format!("{folder}/");
        let mut made = record.files.range(start.clone()..);
        made.next()
            .is_some_and(|(path, _)| path.starts_with(&start))
            || self.sources.has_below(&start)
            || APART.iter().any(|apart| apart.starts_with(&start))
    }

    pub(super) fn is_apart(&self, path: &Path, is_link: bool) -> bool {
        // By bytes: this is asked for every path, and comparing paths takes them apart.
        let is = |list: &[&str]| list.iter().any(|apart| path.as_os_str() == *apart);
        match self.composition {
            // A link to what is installed is compose's.
            Some(_) => is(&APART) || is_link && is(&["node_modules"]),
            None => is(&APART_IN_PACKAGE),
        }
    }

    /// Everything in the folder but what belongs to no result. What is gone meanwhile is left
    /// out.
    fn walk(&self) -> impl Iterator<Item = Result<DirEntry, Io>> {
        let start = self.folder.as_os_str().len() + 1;
        let is_gone = |error: &walkdir::Error| {
            let error = error.io_error();
            error.is_some_and(|it| it.kind() == std::io::ErrorKind::NotFound)
        };
        WalkDir::new(&self.folder)
            .into_iter()
            .filter_entry(move |entry| {
                !self.is_apart(after(entry.path(), start), entry.path_is_symlink())
            })
            .filter(move |entry| !entry.as_ref().is_err_and(is_gone))
            .map(|entry| {
                entry.map_err(|error| {
                    let path = error.path().unwrap_or(&self.folder).to_owned();
                    Io::at("read", &path)(error.into())
                })
            })
    }

    /// What is in the folder now, but for what belongs to no result.
    pub fn snapshot(&self) -> Result<Snapshot, Io> {
        let mut snapshot = Snapshot::default();
        let start = self.folder.as_os_str().len() + 1;
        for entry in self.walk() {
            let entry = entry?;
            let path = after(entry.path(), start);
            let Ok(metadata) = entry.metadata() else {
                continue;
            };
            match path.to_str() {
                None => snapshot.invalid.push(path.to_owned()),
                Some("") => {}
                Some(path) => {
                    snapshot
                        .files
                        .insert(path.to_owned(), Stamp::new(&metadata));
                }
            }
        }
        Ok(snapshot)
    }

    /// What the script wrote: everything that is new or other than before. Of folders only those
    /// that are new and have nothing in them. A package's own sources are no output.
    pub fn wrote(&self, before: &Snapshot) -> Result<Wrote, Io> {
        let Snapshot { files, invalid } = self.snapshot()?;
        let unsure = |path: &Path, what: &str| {
            let path = path.to_string_lossy();
            Ok(Wrote::Unsure(format!("`{}` {what}", path.escape_debug())))
        };
        if let Some(path) = invalid.first() {
            return unsure(path, "has a name that is not valid UTF-8");
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
            } else if is_new && self.leads_apart(path) {
                let what = "is a link to what belongs to no result";
                return unsure(Path::new(path), what);
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

    /// Whether a link leads to what belongs to no result, such as a tool's cache.
    fn leads_apart(&self, path: &str) -> bool {
        let Ok(target) = std::fs::read_link(self.folder.join(path)) else {
            return false;
        };
        let folder = Path::new(path).parent().unwrap_or(Path::new(""));
        let target = normalize(&folder.join(target));
        let mut above = target.ancestors();
        above.any(|inner| inner != Path::new("") && self.is_apart(inner, false))
    }

    /// Remembers that this result lies here.
    pub fn remember(
        &self,
        files: BTreeMap<String, Stamp>,
        key: Key,
        output: OutputDigest,
        kept: Option<&CachedResult>,
    ) -> Result<(), Io> {
        self.write(&Record {
            key: Some(key),
            output: Some(output),
            blob: kept.map(|entry| entry.digest().hex()),
            files,
        })
    }

    /// Puts a result here in the place of the one before. All of it is unpacked and checked
    /// before anything moves.
    pub fn restore(&self, cache: &Cache, entry: &CachedResult) -> Result<(), RestoreError> {
        let staged = temporary(self.project)?;
        let paths = cache.unpack(entry, staged.path())?;
        // What people have put into a package is theirs.
        if let Some(path) = paths.iter().find(|path| self.is_theirs(path)) {
            return Err(RestoreError::Occupied(path.clone()));
        }
        let files = staged.path().join(cache::FILES);
        if files.is_dir() || self.script == BUILD {
            let aside = self.clear()?;
            // Whoever finds this cut short knows what may lie around.
            let under_way = paths.iter().map(|path| (path.clone(), Stamp::default()));
            self.write(&Record::unknown(under_way.collect()))?;
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
            Ok((path, Stamp::new(&metadata)))
        };
        let files = paths.into_iter().map(left).collect::<Result<_, Io>>()?;
        Ok(self.remember(files, entry.key, entry.output, Some(entry))?)
    }

    /// Copies what was just made in another folder here, in the place of the result before.
    pub fn copy_from(&self, made: &Self) -> Result<(), Io> {
        let aside = self.clear()?;
        for (path, stamp) in &made.snapshot()?.files {
            let (from, to) = (made.folder.join(path), self.folder.join(path));
            if stamp.is_folder() {
                std::fs::create_dir_all(&to).map_err(Io::at("make the folder", &to))?;
                continue;
            }
            // A composed file only where the script has written over it; its name is the store's.
            let composed = made
                .composition
                .as_ref()
                .and_then(|it| it.entries.get(path.as_str()));
            let is_same =
                |entry: &overlay::Entry| ContentId::of_file(&from).is_ok_and(|id| id == entry.id());
            if composed.is_some_and(|entry| path == "package.json" || is_same(entry)) {
                continue;
            }
            if composed.is_some() {
                remove(&to)?;
            }
            match std::fs::read_link(&from) {
                Ok(target) => std::os::unix::fs::symlink(target, &to),
                Err(_) => std::fs::copy(&from, &to).map(drop),
            }
            .map_err(Io::at("write", &to))?;
        }
        self.put_back(aside)
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
        !now.is_dir() && left != Some(Stamp::new(&now))
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

/// What comes after so many bytes of a path.
fn after(path: &Path, start: usize) -> &Path {
    let bytes = path.as_os_str().as_bytes();
    Path::new(OsStr::from_bytes(bytes.get(start..).unwrap_or_default()))
}

/// A folder below `.out`, where the next compose sweeps what a killed run has left.
pub(super) fn temporary(project: &Path) -> Result<tempfile::TempDir, Io> {
    let folder = project.join(".out/.tmp");
    std::fs::create_dir_all(&folder).map_err(Io::at("make the folder", &folder))?;
    tempfile::tempdir_in(&folder).map_err(Io::at("make a folder in", &folder))
}

/// Why a result could not be put in place.
pub enum RestoreError {
    /// In a package something lies at this path that is not ours.
    Occupied(String),
    /// The cache.
    Cache(cache::Error),
    /// The disk.
    Io(Io),
}

impl From<cache::Error> for RestoreError {
    fn from(error: cache::Error) -> Self {
        Self::Cache(error)
    }
}

impl From<Io> for RestoreError {
    fn from(error: Io) -> Self {
        Self::Io(error)
    }
}
