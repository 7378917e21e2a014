//! The inputs of a task as one list: each file with path, identity and stamp, installed
//! dependencies, variables, tools, and the results of upstream tasks.
//!
//! A key is computed in two steps. The *primary* key contains everything that is known before the
//! script runs. Some files are inputs only of a script that opens them (see [`OptionalFile`]).
//! Earlier runs have recorded which files a script opens; their content completes the key.

mod reader;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use self::reader::InputReader;
use super::files::{
    self, BaseAppFolder, FileGroup, OptionalFile, PathState, WatchedPath, identity,
};
use super::installed::DependencyLock;
use super::task::{Subject, Task};
use super::task_map::{TaskId, TaskMap};
use super::tool_caches::is_tool;
use super::{Error, StorePlan, workspaces};
use crate::cache::{FileInput, InputRecord, Key, KeyHasher, OutputDigest};
use crate::config::Project;
use crate::overlay::{Composition, LayerReader};
use crate::store::UnitId;

/// The version of all keys. It changes when a key covers other inputs, so results with older keys are
/// no longer found.
const SCHEMA: &[u8] = b"alokai 2";

/// The size in bytes up to which the content of an ignored file is an input of an image. For larger
/// files (a database dump) the size is the input.
const LARGE: u64 = 16 << 20;

/// The identity of a missing file.
const ABSENT: &str = "absent";

/// The machine's environment, as the command line reads it.
#[derive(Debug, Clone, Default)]
pub struct HostEnvironment {
    /// Environment variables; they take precedence over the project's `.env`.
    pub environment: BTreeMap<String, String>,
    /// Versions of the tools that run scripts.
    pub tools: BTreeMap<String, String>,
}

/// The inputs of all tasks of a plan.
#[derive(Debug, Default)]
pub struct AllInputs {
    project: PathBuf,
    tools: BTreeMap<String, String>,
    top: Arc<FileGroup>,
    top_optional: Vec<OptionalFile>,
    lock_file: Arc<FileGroup>,
    /// Folders of base apps and workspace packages, relative to the project.
    folders: Vec<String>,
    tasks: TaskMap<TaskInputs>,
}

/// The inputs of one task.
#[derive(Debug)]
pub struct TaskInputs {
    /// The composition of its app; none for a package.
    pub composition: Option<Arc<Composition>>,
    /// A digest of the composition, without the store's name.
    own: Option<Key>,
    /// The other composed apps of the same store.
    siblings: Vec<Sibling>,
    /// Files of workspace packages, and files that TypeScript configs and local dependencies name.
    groups: Vec<Arc<FileGroup>>,
    /// Base apps that it depends on as workspace packages.
    bases: Vec<Arc<BaseAppFolder>>,
    /// Installed dependencies.
    dependencies: Arc<BTreeMap<String, String>>,
    /// Declared variables that are set, with digests of their values.
    variables: Arc<BTreeMap<String, Key>>,
}

/// Another composed app of the same store.
#[derive(Debug, Clone)]
struct Sibling {
    composition: Arc<Composition>,
    /// A digest of its files.
    files: Key,
    /// A digest of the paths, if the task may read the app. A composed file is then an input of a
    /// script that opens it.
    names: Option<Key>,
}

impl Sibling {
    /// Whether its base app is in this folder, relative to the project.
    fn is_composed_from(&self, folder: &str) -> bool {
        folder.strip_prefix("apps/") == Some(self.composition.unit.app.as_str())
    }
}

impl AllInputs {
    /// Reads the inputs of these tasks. A task with an input that cannot be read is marked as never
    /// cached.
    pub fn new(
        project: &Project,
        lister: &LayerReader,
        stores: &[StorePlan],
        tasks: &mut TaskMap<Task>,
        host: &HostEnvironment,
        notices: &mut Vec<String>,
    ) -> Result<Self, Error> {
        if tasks.is_empty() {
            return Ok(Self::default());
        }
        let (top, top_optional) = files::top(project, lister, notices)?;
        // The stamp is taken before the file is read, so a later change is noticed.
        let lock_file = files::lock_file_name(project)
            .map_or_else(FileGroup::default, |name| files::lock_file(project, name));
        let lock = DependencyLock::read(project);
        let has_dependencies = tasks.values().any(|task| !task.dependencies.is_empty());
        if matches!(lock, DependencyLock::None(_)) && has_dependencies {
            notices.push(
                "the project has no lock file; the versions of the packages directly in the `node_modules` of the project and of each app are used"
                    .into(),
            );
        }
        let mut reader = InputReader::new(project, lister, lock, stores, host)?;
        let by_unit: BTreeMap<&UnitId, &StorePlan> = stores
            .iter()
            .flat_map(|store| store.compositions.iter().map(move |it| (&it.unit, store)))
            .collect();
        let mut inputs = TaskMap::default();
        for id in tasks.ids() {
            let unit = tasks[id].subject.unit();
            let store = unit.and_then(|unit| by_unit.get(unit)).copied();
            let needs = tasks[id].needs.iter();
            let needs: Vec<Subject> = needs.map(|need| tasks[*need].subject.clone()).collect();
            inputs.push(reader.task(&mut tasks[id], &needs, store)?);
        }
        let all = Self {
            project: project.root.clone(),
            tools: host.tools.clone(),
            top: Arc::new(top),
            top_optional,
            lock_file: Arc::new(lock_file),
            folders: workspaces(project),
            tasks: inputs,
        };
        all.complete(tasks);
        Ok(all)
    }

    /// Gives each task the names of its variables, and a digest of all inputs.
    fn complete(&self, tasks: &mut TaskMap<Task>) {
        let ignored = self.ignored();
        for id in tasks.ids() {
            let task = &tasks[id];
            let own = &self.tasks[id];
            let mut hasher = self.hasher(task, &task.key_name(), own);
            hasher.part(ignored.as_bytes());
            for need in task.upstream.iter().map(|need| &tasks[*need]) {
                hasher.part(need.subject.name().as_bytes());
                hasher.part(need.source_digest.as_bytes());
            }
            for sibling in own.siblings.iter().filter(|it| it.names.is_some()) {
                hasher.part(sibling.files.as_bytes());
            }
            let task = &mut tasks[id];
            task.source_digest = hasher.end();
            task.variables = own.variables.keys().cloned().collect();
        }
    }

    /// A digest of the files at the top of the project that git ignores. All of them are included,
    /// because it is not known here which of them a script reads.
    fn ignored(&self) -> Key {
        let mut hasher = KeyHasher::default();
        for file in &self.top_optional {
            let counts = self.top.files.contains_key(&file.name);
            if !counts {
                continue;
            }
            let size = file.place.metadata().map_or(0, |it| it.len());
            let content = (size <= LARGE).then(|| identity(&file.place).ok());
            let id = content.flatten().unwrap_or_else(|| size.to_string());
            hasher.part(file.name.as_bytes());
            hasher.part(id.as_bytes());
        }
        hasher.end()
    }

    /// The inputs of one task.
    pub fn of(&self, task: TaskId) -> &TaskInputs {
        &self.tasks[task]
    }

    /// The primary key of a task, which has this name in its key. `upstream` are the results of the
    /// tasks that it needs.
    pub fn primary_key(
        &self,
        id: TaskId,
        task: &Task,
        key_name: &str,
        upstream: &BTreeMap<String, OutputDigest>,
    ) -> Key {
        let mut hasher = self.hasher(task, key_name, self.of(id));
        hasher.part(b"upstream");
        for (name, output) in upstream {
            hasher.part(name.as_bytes());
            hasher.part(output.to_string().as_bytes());
        }
        hasher.end()
    }

    /// Hashes all inputs but the results of upstream tasks.
    fn hasher(&self, task: &Task, key_name: &str, own: &TaskInputs) -> KeyHasher {
        let mut hasher = KeyHasher::default();
        let mut part = |bytes: &[u8]| hasher.part(bytes);
        part(SCHEMA);
        part(key_name.as_bytes());
        // NUL, because an argument may contain a space.
        part(task.command.join("\0").as_bytes());
        if let Some(before) = &task.before {
            part(b"before");
            part(before.join("\0").as_bytes());
        }
        for (name, value) in task.settings {
            part(name.as_bytes());
            part(value.as_bytes());
        }
        part(self.top.digest.as_bytes());
        if let Some(key) = own.own {
            part(key.as_bytes());
        }
        part(b"siblings");
        for sibling in &own.siblings {
            if let Some(names) = sibling.names {
                part(sibling.composition.unit.app.as_str().as_bytes());
                part(names.as_bytes());
            }
        }
        part(b"groups");
        for group in &own.groups {
            part(group.digest.as_bytes());
        }
        for base in &own.bases {
            part(base.names.as_bytes());
        }
        for (what, values) in [("dependencies", &*own.dependencies), ("tools", &self.tools)] {
            part(what.as_bytes());
            for (name, value) in values {
                part(name.as_bytes());
                part(value.as_bytes());
            }
        }
        part(b"variables");
        for (name, value) in &*own.variables {
            part(name.as_bytes());
            part(value.as_bytes());
        }
        hasher
    }

    /// The versions of the tools on which a tool cache of the task depends.
    pub fn toolchain(&self, id: TaskId) -> BTreeMap<&str, &str> {
        let installed = self.of(id).dependencies.iter();
        let installed = installed.filter(|(identity, _)| is_tool(identity));
        let all = self.tools.iter().chain(installed);
        all.map(|(name, version)| (name.as_str(), version.as_str()))
            .collect()
    }

    /// The key of a task's result: the primary key, completed by the content of the files that its
    /// script opens.
    pub fn key(&self, id: TaskId, primary: Key, reads: &BTreeSet<String>) -> Key {
        let identities: Vec<_> = reads.iter().map(|name| self.identity(id, name)).collect();
        let pairs = reads.iter().map(String::as_str);
        primary.with_reads(pairs.zip(identities.iter().map(String::as_str)))
    }

    /// The identity of an optional file as it is now.
    pub fn identity(&self, id: TaskId, name: &str) -> String {
        let own = self.of(id);
        if let Some(rest) = name.strip_prefix("../") {
            let (app, path) = rest.split_once('/').unwrap_or((rest, ""));
            let mut siblings = own.siblings.iter();
            let sibling = siblings.find(|it| it.composition.unit.app.as_str() == app);
            let entry = sibling.and_then(|it| it.composition.entries.get_key_value(path));
            return entry.map_or_else(
                || ABSENT.into(),
                |(path, entry)| entry_identity(path, entry),
            );
        }
        // The list may come from another machine, so a path that leaves the project is not read.
        let place = name
            .strip_prefix("//")
            .map(|path| path.trim_end_matches('/'));
        let place = place.filter(|path| {
            let mut parts = path.split('/');
            parts.all(|part| !matches!(part, "" | "." | ".."))
        });
        let place = place.map(|path| self.project.join(path));
        let identity = place.and_then(|place| identity(&place).ok());
        identity.unwrap_or_else(|| ABSENT.into())
    }

    /// The files that are inputs if the task's script opens them. The folder of a composed sibling
    /// is beside `folder`, in which the script runs. Siblings that the task is not expected to read
    /// count only while they are idle, because other scripts open their own files.
    pub fn optional(
        &self,
        id: TaskId,
        folder: &Path,
        is_idle: impl Fn(&UnitId) -> bool,
    ) -> Vec<OptionalFile> {
        let own = self.of(id);
        let beside = folder.parent().unwrap_or(folder);
        let is_seen = |it: &&Sibling| it.names.is_some() || is_idle(&it.composition.unit);
        let read = own.siblings.iter().filter(is_seen);
        let composed = read.flat_map(|sibling| {
            let app = sibling.composition.unit.app.as_str();
            let paths = sibling.composition.entries.keys();
            paths.map(move |path| OptionalFile {
                name: format!("../{app}/{path}"),
                place: beside.join(app).join(&**path),
            })
        });
        // Through the root `node_modules` an app finds every workspace package and base app, declared
        // or not.
        let groups = own.groups.iter().map(|group| group.folder.as_str());
        let declared: BTreeSet<&str> = groups.collect();
        let others = self.folders.iter().map(String::as_str);
        let others = others.filter(|folder| !declared.contains(folder));
        let others = others.flat_map(|folder| files::optional_in(&self.project, folder));
        composed
            .chain(others)
            .chain(self.top_optional.iter().cloned())
            .collect()
    }

    /// The other composed apps of the task's store, each with whether the task may read it.
    pub fn siblings(&self, id: TaskId) -> impl Iterator<Item = (&Arc<Composition>, bool)> {
        let siblings = self.of(id).siblings.iter();
        siblings.map(|it| (&it.composition, it.names.is_some()))
    }

    fn groups(&self, id: TaskId) -> impl Iterator<Item = &Arc<FileGroup>> {
        [&self.top, &self.lock_file]
            .into_iter()
            .chain(&self.of(id).groups)
    }

    /// A path, relative to the project, that has changed since the task's key was computed.
    pub fn changed(&self, id: TaskId) -> Option<String> {
        let mut watched = self.groups(id).flat_map(|group| &group.watched);
        let changed = watched.find_map(WatchedPath::changed)?;
        let inside = changed.strip_prefix(&self.project).unwrap_or(&changed);
        Some(inside.display().to_string())
    }

    /// The folders in which no file may be added or removed while the script runs. They do not
    /// include a package's own folder, into which its script writes.
    pub fn folders(&self, id: TaskId) -> Vec<PathBuf> {
        let watched = self.groups(id).flat_map(|group| &group.watched);
        let folders = watched.filter(|watched| matches!(watched.state, PathState::Folder(_)));
        let mut folders: Vec<_> = folders.map(|watched| watched.path.clone()).collect();
        folders.dedup();
        folders
    }

    /// The files outside composed apps that the task may read, absolute: the files in its key, and
    /// the optional files.
    pub fn readable(&self, id: TaskId) -> impl Iterator<Item = PathBuf> {
        let files = self.groups(id).flat_map(|group| &group.files);
        // For a link that is not followed, the key contains only its target.
        let files = files.filter(|(_, file)| !file.id.starts_with("120000 "));
        let files = files.map(|(name, _)| self.project.join(name.trim_start_matches("//")));
        let locks = self.lock_file.watched.iter().map(|it| it.path.clone());
        let bases = self.of(id).bases.iter();
        let bases = bases.flat_map(|base| files::optional_in(&self.project, &base.folder));
        let optional = self.top_optional.iter().cloned().chain(bases);
        files.chain(locks).chain(optional.map(|file| file.place))
    }

    /// All inputs of the task, from which a later run explains a cache miss.
    pub fn explained(
        &self,
        id: TaskId,
        task: &Task,
        upstream: &BTreeMap<String, OutputDigest>,
        reads: &BTreeSet<String>,
    ) -> InputRecord {
        let own = self.of(id);
        let mut files: BTreeMap<String, FileInput> = BTreeMap::new();
        for group in self.groups(id) {
            let group = group.files.iter();
            files.extend(group.map(|(path, file)| (path.clone(), file.clone())));
        }
        if let Some(composition) = &own.composition {
            files.extend(composed(composition));
        }
        for sibling in own.siblings.iter().filter(|it| it.names.is_some()) {
            let app = &sibling.composition.unit.app;
            let names = sibling.composition.entries.keys();
            let id = || FileInput {
                id: files::EXISTS_ONLY.to_owned(),
                layer: None,
            };
            files.extend(names.map(|path| (format!("../{app}/{path}"), id())));
        }
        for name in reads {
            let id = self.identity(id, name);
            files.insert(name.clone(), FileInput { id, layer: None });
        }
        let mut tools = self.tools.clone();
        tools.insert("unit".into(), task.key_name());
        InputRecord {
            command: task
                .commands()
                .map(|it| it.join("\0"))
                .collect::<Vec<_>>()
                .join("\0"),
            files,
            variables: BTreeMap::clone(&own.variables),
            dependencies: BTreeMap::clone(&own.dependencies),
            tools,
            upstream: upstream.clone(),
        }
    }

    /// The files of a package task, relative to its folder.
    pub fn package_files(&self, id: TaskId, folder: &str) -> impl Iterator<Item = &str> {
        let start = format!("//{folder}/");
        let groups = self.of(id).groups.iter();
        let files = groups.flat_map(|group| group.files.keys());
        files.filter_map(move |path| path.strip_prefix(&start))
    }
}

/// The files of a composition.
fn composed(composition: &Composition) -> impl Iterator<Item = (String, FileInput)> {
    composition.entries.iter().map(move |(path, entry)| {
        let file = FileInput {
            id: entry_identity(path, entry),
            layer: Some(composition.layers[entry.winner()].to_string()),
        };
        (path.to_string(), file)
    })
}

/// Mode and content. For `package.json`, into which composing writes the store's name, the content is
/// the one before that.
fn entry_identity(path: &str, entry: &crate::overlay::Entry) -> String {
    let id = if path == "package.json" {
        entry.source_id()
    } else {
        entry.id()
    };
    format!("{} {id}", entry.mode())
}
