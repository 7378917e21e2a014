//! The result of a task in its folder: which files it has, and whether they are as recorded.
//!
//! Outputs are not declared. They are the files in the task's folder that are new or changed after its
//! script has run. A record in `.alokai/results` lists them, so a later run knows that they are in
//! place, and removes them before the next result. Incremental caches (of Next.js, and of tools in
//! `node_modules/.cache`) are not part of a result and stay in place.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use walkdir::{DirEntry, WalkDir};

use super::super::failure::Io;
use super::super::stored;
use crate::cache::{CachedResult, Key, OutputDigest};
use crate::disk::Stamp;
use crate::overlay::Composition;
use crate::plan::{Plan, Subject, TaskId, Work};
use crate::store::AppName;
use crate::workspace::installed::NODE_MODULES;
use virtual_path::normalize;

/// The folder of the records, in `.alokai`.
const RESULTS: &str = "results";

/// Paths in a composed app that are not outputs: the pruned folder, and incremental tool caches.
pub(super) const NOT_OUTPUTS: [&str; 7] = [
    ".deploy",
    ".next/cache",
    ".turbo",
    ".cache",
    ".git",
    "node_modules/.cache",
    "node_modules/.bin",
];

/// The same for a workspace package. Its dependencies are installed in it.
const NOT_OUTPUTS_OF_PACKAGE: [&str; 4] = ["node_modules", ".turbo", ".cache", ".git"];

/// The record of a task's result.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct ResultRecord {
    /// The key of the result; none while it is built or put in place, and if its inputs are not
    /// certain.
    pub key: Option<Key>,
    /// The digest of the files.
    #[serde(default)]
    pub output: Option<OutputDigest>,
    /// The digest of its archive in the cache, if it is cached.
    #[serde(default)]
    pub blob: Option<String>,
    pub files: BTreeMap<String, Stamp>,
}

impl ResultRecord {
    /// A record of files that may not be a complete result.
    pub fn unknown(files: BTreeMap<String, Stamp>) -> Self {
        Self {
            key: None,
            output: None,
            blob: None,
            files,
        }
    }
}

/// A folder in which a task runs, or whose result it reads.
pub struct TaskFolder<'a> {
    pub(super) project: &'a Path,
    /// The work of the task.
    pub(super) work: &'a Work,
    /// Absolute.
    pub folder: PathBuf,
    record: PathBuf,
    /// The log with everything that the task printed.
    pub log: PathBuf,
    /// The paths of its sources.
    pub(super) sources: TaskSources,
    /// The composition; none for a package.
    pub(super) composition: Option<Arc<Composition>>,
    /// The folder with the records of all scripts.
    pub(super) records: PathBuf,
    /// The file name of its records.
    pub(super) record_name: String,
}

/// The paths of the sources in a task's folder.
pub(super) enum TaskSources {
    /// The sources of a composed app.
    Composed(Arc<Composition>),
    /// The sources of a package.
    OfPackage(BTreeSet<Arc<str>>),
}

impl TaskSources {
    pub fn contains(&self, path: &str) -> bool {
        match self {
            Self::Composed(composition) => composition.entries.contains_key(path),
            Self::OfPackage(paths) => paths.contains(path),
        }
    }

    /// Whether the path of a source has this prefix.
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

/// Whether the path is that of a package in the app's `node_modules`.
fn is_module(path: &Path) -> bool {
    let Ok(inside) = path.strip_prefix(NODE_MODULES) else {
        return false;
    };
    match inside.parent() {
        Some(folder) if folder == Path::new("") => inside != folder,
        Some(_) => path.parent().is_some_and(is_scope),
        None => false,
    }
}

/// Whether the path is a folder of packages with a common scope.
pub(super) fn is_scope(path: &Path) -> bool {
    let name = path.strip_prefix(NODE_MODULES).ok().and_then(Path::to_str);
    name.is_some_and(|name| name.starts_with('@') && !name.contains('/'))
}

/// The name in the `package.json` of a shared app.
pub fn neutral_name(app: &AppName) -> String {
    format!("{app}-shared")
}

/// The files in a folder with their stamps.
#[derive(Debug, Default)]
pub struct FolderSnapshot {
    pub(super) files: BTreeMap<String, Stamp>,
    /// Names that are not valid UTF-8.
    invalid: Vec<PathBuf>,
}

impl FolderSnapshot {
    /// A file that differs between both. Empty folders are ignored.
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

/// The outputs of a script.
pub enum ScriptOutputs {
    /// These files, and they depend only on the inputs of the task.
    These(BTreeMap<String, Stamp>),
    /// The files may depend on something else, for this reason.
    Unsure(String),
}

impl<'a> TaskFolder<'a> {
    /// The folder of a task's result.
    pub fn new(plan: &'a Plan, id: TaskId) -> Self {
        let task = plan.task(id);
        let name = match &task.subject {
            Subject::Unit(unit) => unit.to_string(),
            Subject::Package(name) => format!("packages/{}", name.replace('/', "+")),
        };
        let sources = match plan.composition_of(id) {
            Some(composition) => TaskSources::Composed(Arc::clone(composition)),
            None => TaskSources::OfPackage(plan.package_files(id).map(Arc::from).collect()),
        };
        Self::at(plan, &task.work, &task.folder, &name, sources)
    }

    /// The folder in which a task's script runs: the folder of its result, or the neutral folder of a
    /// shared app.
    pub fn of_script(plan: &'a Plan, id: TaskId) -> Result<Self, Io> {
        let task = plan.task(id);
        match (plan.composition_of(id), task.subject.unit()) {
            (Some(composition), Some(unit)) if task.shared => {
                let name = format!("_{}/{}", unit.app, unit.app);
                Self::neutral(plan, &task.work, &task.run_folder(), &name, composition)
            }
            _ => Ok(Self::new(plan, id)),
        }
    }

    /// Another app beside a shared one, in the neutral folder.
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
        Self::neutral(plan, &Work::Build, &folder, &name, sibling).map(Some)
    }

    fn neutral(
        plan: &'a Plan,
        work: &'a Work,
        folder: &str,
        name: &str,
        composition: &Composition,
    ) -> Result<Self, Io> {
        let renamed = composition.renamed(&neutral_name(&composition.unit.app));
        let renamed = renamed.map_err(|reason| {
            let path = plan.project.join(folder).join("package.json");
            Io::at("rename the package in", &path)(std::io::Error::other(reason))
        })?;
        let sources = TaskSources::Composed(Arc::new(renamed));
        Ok(Self::at(plan, work, folder, name, sources))
    }

    fn at(plan: &'a Plan, work: &'a Work, folder: &str, name: &str, sources: TaskSources) -> Self {
        let own = plan.project.join(".alokai");
        let file = |folder: &str, end: &str| {
            let folder = own.join(folder).join(work.name());
            folder.join(format!("{name}.{end}"))
        };
        Self {
            project: &plan.project,
            work,
            folder: plan.project.join(folder),
            record: file(RESULTS, "json"),
            log: file("logs", "log"),
            records: own.join(RESULTS),
            record_name: format!("{name}.json"),
            composition: match &sources {
                TaskSources::Composed(composition) => Some(Arc::clone(composition)),
                TaskSources::OfPackage(_) => None,
            },
            sources,
        }
    }

    pub(super) fn read(&self) -> Option<ResultRecord> {
        stored::read(&self.record).ok().flatten()
    }

    /// The files of the task's result; none if they are not known.
    pub fn files(&self) -> Option<Vec<String>> {
        let record = self.read().filter(|record| record.key.is_some())?;
        Some(record.files.into_keys().collect())
    }

    pub(super) fn write(&self, record: &ResultRecord) -> Result<(), Io> {
        stored::write(&self.record, record)
    }

    /// The digest of the result in this folder, if it has this key, is unchanged, and has no other files
    /// beside it. If the result is cached, it must be the same one.
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

    /// A file that is neither a source nor part of the result.
    pub fn extra(&self) -> Option<String> {
        let record = self
            .read()
            .unwrap_or_else(|| ResultRecord::unknown(BTreeMap::new()));
        let extra = self.beside_result(&record).ok()??;
        Some(self.folder.join(extra).display().to_string())
    }

    /// The first path that is neither a source nor in the record. Only names are compared, because
    /// composing has checked the content of sources. Folders in a package belong to its developers.
    fn beside_result(&self, record: &ResultRecord) -> Result<Option<String>, Io> {
        let start = self.folder.as_os_str().len() + 1;
        let mut first: Option<String> = None;
        for entry in self.walk() {
            let entry = entry?;
            let path = after(entry.path(), start);
            let is_folder = entry.file_type().is_dir();
            let is_known = |path: &str| {
                self.sources.contains(path)
                    || record.files.contains_key(path)
                    || is_folder
                        && (self.composition.is_none()
                            || is_scope(Path::new(path))
                            || self.has_below(path, record))
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

    /// Whether a source, an output or an incremental cache lies below the folder.
    fn has_below(&self, folder: &str, record: &ResultRecord) -> bool {
        let start = format!("{folder}/");
        let mut made = record.files.range(start.clone()..);
        made.next()
            .is_some_and(|(path, _)| path.starts_with(&start))
            || self.sources.has_below(&start)
            || NOT_OUTPUTS.iter().any(|apart| apart.starts_with(&start))
    }

    /// Whether the folder is that of a tool cache. It exists before a script that starts with a cache, and
    /// the result must be the same without a cache.
    fn has_caches(&self, folder: &str) -> bool {
        let start = format!("{folder}/");
        self.composition.is_some() && NOT_OUTPUTS.iter().any(|apart| apart.starts_with(&start))
    }

    pub(super) fn is_never_output(&self, path: &Path, is_link: bool) -> bool {
        // As bytes, because this runs for every path, and comparing paths parses them.
        let is = |list: &[&str]| list.iter().any(|apart| path.as_os_str() == *apart);
        match self.composition {
            // Composing makes the links to installed packages.
            Some(_) => is(&NOT_OUTPUTS) || is_link && is_module(path),
            None => is(&NOT_OUTPUTS_OF_PACKAGE),
        }
    }

    /// The files in the folder that can be part of a result. A file that is removed meanwhile is left
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
                !self.is_never_output(after(entry.path(), start), entry.path_is_symlink())
            })
            .filter(move |entry| !entry.as_ref().is_err_and(is_gone))
            .map(|entry| {
                entry.map_err(|error| {
                    let path = error.path().unwrap_or(&self.folder).to_owned();
                    Io::at("read", &path)(error.into())
                })
            })
    }

    /// The current files in the folder that can be part of a result.
    pub fn snapshot(&self) -> Result<FolderSnapshot, Io> {
        let mut snapshot = FolderSnapshot::default();
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

    /// The outputs of the script: all new or changed files, and new empty folders. The sources of a
    /// package are not outputs.
    pub fn wrote(&self, before: &FolderSnapshot) -> Result<ScriptOutputs, Io> {
        let FolderSnapshot { files, invalid } = self.snapshot()?;
        let unsure = |path: &Path, what: &str| {
            let path = path.to_string_lossy();
            Ok(ScriptOutputs::Unsure(format!(
                "`{}` {what}",
                path.escape_debug()
            )))
        };
        if let Some(path) = invalid.first() {
            return unsure(path, "is not valid UTF-8");
        }
        let is_package = self.composition.is_none();
        for path in before
            .files
            .keys()
            .filter(|path| self.sources.contains(path.as_str()))
        {
            if files.get(path).is_none_or(|left| left.is_folder()) {
                return unsure(Path::new(path), "is a source file that the script removed");
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
                let is_empty = !filled.contains(path.as_str()) && !self.has_caches(path);
                if !before.files.contains_key(path) && is_empty {
                    outputs.insert(path.clone(), *left);
                }
            } else if is_new && self.links_to_non_output(path) {
                let what = "is a link to an incremental cache, which is not stored with the result";
                return unsure(Path::new(path), what);
            } else if is_new && !(is_package && is_source) {
                outputs.insert(path.clone(), *left);
            } else if is_package && !is_source && !is_new {
                let what = "existed before the script ran and was not written by the script; remove it and run again";
                return unsure(&self.folder.join(path), what);
            }
        }
        Ok(ScriptOutputs::These(outputs))
    }

    /// Whether a link leads to a path that is not part of a result, such as a tool's cache.
    fn links_to_non_output(&self, path: &str) -> bool {
        let Ok(target) = std::fs::read_link(self.folder.join(path)) else {
            return false;
        };
        let folder = Path::new(path).parent().unwrap_or(Path::new(""));
        let target = normalize(&folder.join(target));
        let mut above = target.ancestors();
        above.any(|inner| inner != Path::new("") && self.is_never_output(inner, false))
    }

    /// Records that this result is in the folder.
    pub fn remember(
        &self,
        files: BTreeMap<String, Stamp>,
        key: Key,
        output: OutputDigest,
        kept: Option<&CachedResult>,
    ) -> Result<(), Io> {
        self.write(&ResultRecord {
            key: Some(key),
            output: Some(output),
            blob: kept.map(|entry| entry.digest().hex()),
            files,
        })
    }
}

/// The rest of a path after this many bytes.
fn after(path: &Path, start: usize) -> &Path {
    let bytes = path.as_os_str().as_bytes();
    Path::new(OsStr::from_bytes(bytes.get(start..).unwrap_or_default()))
}

/// A temporary folder below `.out`. The next compose removes the folders of a killed run.
pub(super) fn temporary(project: &Path) -> Result<tempfile::TempDir, Io> {
    let folder = project.join(".out/.tmp");
    std::fs::create_dir_all(&folder).map_err(Io::at("create the folder", &folder))?;
    tempfile::tempdir_in(&folder).map_err(Io::at("make a folder in", &folder))
}
