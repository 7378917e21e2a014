//! Everything that a task can see, as one list: each file with path, identity and stamp, what is
//! installed, variables, tools, and the results of the tasks before it.
//!
//! A key is made in two steps. The *primary* key has everything that is known before the script
//! runs. Some files count only for scripts that open them (see [`OptionalFile`]); which these
//! are is learned from earlier runs and completes the key.

mod making;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use self::making::InputReader;
use super::files::{
    self, BaseAppFolder, FileGroup, OptionalFile, PathState, WatchedPath, identity,
};
use super::installed::DependencyLock;
use super::task::{Subject, Task, TaskId};
use super::{Error, StorePlan, workspaces};
use crate::cache::{FileInput, InputRecord, Key, KeyHasher, OutputDigest};
use crate::config::Project;
use crate::overlay::{Composition, LayerReader};
use crate::store::UnitId;

/// Grows when a key means something else, so that older results are not taken for newer ones.
const SCHEMA: &[u8] = b"alokai 2";

/// Bytes of an ignored file up to which its content is part of what an image is made of; of
/// larger ones (a database dump) it is the size.
const LARGE: u64 = 16 << 20;

/// The identity of a file that is not there.
const ABSENT: &str = "absent";

/// What the edge knows of the surroundings.
#[derive(Debug, Clone, Default)]
pub struct HostEnvironment {
    /// The environment over the project's `.env`.
    pub environment: BTreeMap<String, String>,
    /// Versions of what runs scripts.
    pub tools: BTreeMap<String, String>,
}

/// What all tasks of a plan can see.
#[derive(Debug, Default)]
pub struct AllInputs {
    project: PathBuf,
    tools: BTreeMap<String, String>,
    top: Arc<FileGroup>,
    top_optional: Vec<OptionalFile>,
    lock_file: Arc<FileGroup>,
    /// Folders of base apps and workspace packages, relative to the project.
    folders: Vec<String>,
    tasks: Vec<TaskInputs>,
}

/// What one task can see.
#[derive(Debug)]
pub struct TaskInputs {
    /// What its app is composed of; none for a package.
    pub composition: Option<Arc<Composition>>,
    /// A digest of that, with the store's name taken out.
    own: Option<Key>,
    /// Apps of the same store that it may read.
    siblings: Vec<Sibling>,
    /// Workspace packages, and what TypeScript configs and local dependencies lead to.
    groups: Vec<Arc<FileGroup>>,
    /// Base apps that it reaches as packages of the workspace.
    bases: Vec<Arc<BaseAppFolder>>,
    /// What is installed.
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
    /// A digest of the paths, if the task may read it. Its composed files then count for a
    /// script that opens them.
    names: Option<Key>,
}

impl AllInputs {
    /// Looks at everything that these tasks can see. A task of which something cannot be seen is
    /// marked as never kept.
    pub fn new(
        project: &Project,
        lister: &LayerReader,
        stores: &[StorePlan],
        tasks: &mut [Task],
        surroundings: &HostEnvironment,
        notices: &mut Vec<String>,
    ) -> Result<Self, Error> {
        if tasks.is_empty() {
            return Ok(Self::default());
        }
        let (top, top_optional) = files::top(project, lister, notices)?;
        // Its stamp first: what changes from here on is noticed.
        let lock_file = files::lock_file_name(project)
            .map_or_else(FileGroup::default, |name| files::lock_file(project, name));
        let lock = DependencyLock::read(project);
        let has_dependencies = tasks.iter().any(|task| !task.dependencies.is_empty());
        if matches!(lock, DependencyLock::None(_)) && has_dependencies {
            notices.push(
                "there is no lock file; versions are those of the packages directly in `node_modules`"
                    .into(),
            );
        }
        let mut making = InputReader::new(project, lister, lock, stores, surroundings)?;
        let by_unit: BTreeMap<&UnitId, usize> = stores
            .iter()
            .enumerate()
            .flat_map(|(at, store)| store.compositions.iter().map(move |it| (&it.unit, at)))
            .collect();
        let mut inputs = Vec::with_capacity(tasks.len());
        for index in 0..tasks.len() {
            let store = tasks[index]
                .subject
                .unit()
                .and_then(|unit| by_unit.get(unit));
            let store = store.map(|at| &stores[*at]);
            let needs: Vec<Subject> = tasks[index]
                .needs
                .iter()
                .map(|need| tasks[need.index()].subject.clone())
                .collect();
            inputs.push(making.task(&mut tasks[index], &needs, store)?);
        }
        let all = Self {
            project: project.root.clone(),
            tools: surroundings.tools.clone(),
            top: Arc::new(top),
            top_optional,
            lock_file: Arc::new(lock_file),
            folders: workspaces(project),
            tasks: inputs,
        };
        all.complete(tasks);
        Ok(all)
    }

    /// Gives each task the names of its variables, and a digest of all that it is made of.
    fn complete(&self, tasks: &mut [Task]) {
        let ignored = self.ignored();
        for index in 0..tasks.len() {
            let upstream: Vec<(String, Key)> = tasks[index]
                .upstream
                .iter()
                .map(|need| &tasks[need.index()])
                .map(|need| (need.subject.name().to_owned(), need.source_digest))
                .collect();
            let own = &self.tasks[index];
            let mut hasher = self.hasher(&tasks[index], own);
            hasher.part(ignored.as_bytes());
            for (name, digest) in &upstream {
                hasher.part(name.as_bytes());
                hasher.part(digest.as_bytes());
            }
            for sibling in own.siblings.iter().filter(|it| it.names.is_some()) {
                hasher.part(sibling.files.as_bytes());
            }
            let task = &mut tasks[index];
            task.source_digest = hasher.end();
            task.variables = own.variables.keys().cloned().collect();
        }
    }

    /// A digest of the files at the top of the project that git ignores. Which of them a script
    /// reads is not known here, so all count.
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

    /// What one task can see.
    pub fn of(&self, task: TaskId) -> &TaskInputs {
        &self.tasks[task.index()]
    }

    /// The primary key of a task. `upstream` are the results of the tasks that it needs.
    pub fn primary_key(
        &self,
        id: TaskId,
        task: &Task,
        upstream: &BTreeMap<String, OutputDigest>,
    ) -> Key {
        let mut hasher = self.hasher(task, self.of(id));
        hasher.part(b"upstream");
        for (name, output) in upstream {
            hasher.part(name.as_bytes());
            hasher.part(output.to_string().as_bytes());
        }
        hasher.end()
    }

    /// Everything but upstream tasks.
    fn hasher(&self, task: &Task, own: &TaskInputs) -> KeyHasher {
        let mut hasher = KeyHasher::default();
        let mut part = |bytes: &[u8]| hasher.part(bytes);
        part(SCHEMA);
        part(task.key_name().as_bytes());
        // NUL, since an argument may hold a space.
        part(task.command.join("\0").as_bytes());
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

    /// The key of a task's result: the primary key, completed by the content of the files that
    /// its script is known to open.
    pub fn key(&self, id: TaskId, primary: Key, reads: &BTreeSet<String>) -> Key {
        let identities: Vec<_> = reads.iter().map(|name| self.identity(id, name)).collect();
        let pairs = reads.iter().map(String::as_str);
        primary.with_reads(pairs.zip(identities.iter().map(String::as_str)))
    }

    /// Identity of a file that counts for scripts that open it.
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
        // Only what can be meant: the list may come from another machine.
        let place = name.strip_prefix("//").filter(|path| {
            let mut parts = path.split('/');
            parts.all(|part| !matches!(part, "" | "." | ".."))
        });
        let place = place.map(|path| self.project.join(path));
        let identity = place.and_then(|place| identity(&place).ok());
        identity.unwrap_or_else(|| ABSENT.into())
    }

    /// Files that count if the task's script opens them. The folder of a composed sibling is
    /// beside `folder`, where the script runs.
    pub fn optional(&self, id: TaskId, folder: &Path) -> Vec<OptionalFile> {
        let own = self.of(id);
        let beside = folder.parent().unwrap_or(folder);
        let read = own.siblings.iter().filter(|it| it.names.is_some());
        let composed = read.flat_map(|sibling| {
            let app = sibling.composition.unit.app.as_str();
            let paths = sibling.composition.entries.keys();
            paths.map(move |path| OptionalFile {
                name: format!("../{app}/{path}"),
                place: beside.join(app).join(&**path),
            })
        });
        // Through the root `node_modules` an app finds every package of the workspace, and the
        // base apps, whether it has declared them or not.
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

    /// Composed apps beside the task's own, each with whether it may read it.
    pub fn siblings(&self, id: TaskId) -> impl Iterator<Item = (&Arc<Composition>, bool)> {
        let siblings = self.of(id).siblings.iter();
        siblings.map(|it| (&it.composition, it.names.is_some()))
    }

    fn groups(&self, id: TaskId) -> impl Iterator<Item = &Arc<FileGroup>> {
        [&self.top, &self.lock_file]
            .into_iter()
            .chain(&self.of(id).groups)
    }

    /// A path, relative to the project, that is not as it was when the task's key was made.
    pub fn changed(&self, id: TaskId) -> Option<String> {
        let mut watched = self.groups(id).flat_map(|group| &group.watched);
        let changed = watched.find_map(WatchedPath::changed)?;
        let inside = changed.strip_prefix(&self.project).unwrap_or(&changed);
        Some(inside.display().to_string())
    }

    /// Folders in which no file may appear or go while the script runs. A package's script
    /// writes into its own.
    pub fn folders(&self, id: TaskId) -> Vec<PathBuf> {
        let watched = self.groups(id).flat_map(|group| &group.watched);
        let folders = watched.filter(|watched| matches!(watched.state, PathState::Folder(_)));
        let mut folders: Vec<_> = folders.map(|watched| watched.path.clone()).collect();
        folders.dedup();
        folders
    }

    /// Files that the task may read beside composed apps, absolute: those of its key, and those
    /// that become part of it when it opens them.
    pub fn readable(&self, id: TaskId) -> impl Iterator<Item = PathBuf> {
        let files = self.groups(id).flat_map(|group| &group.files);
        // Of a link that is not read through, the key has only where it leads.
        let files = files.filter(|(_, file)| !file.id.starts_with("120000 "));
        let files = files.map(|(name, _)| self.project.join(name.trim_start_matches("//")));
        let locks = self.lock_file.watched.iter().map(|it| it.path.clone());
        let bases = self.of(id).bases.iter();
        let bases = bases.flat_map(|base| files::optional_in(&self.project, &base.folder));
        let optional = self.top_optional.iter().cloned().chain(bases);
        files.chain(locks).chain(optional.map(|file| file.place))
    }

    /// Everything that the task can see, to say what has changed since another time.
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
                id: files::BY_NAME.to_owned(),
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
            command: task.command.join("\0"),
            files,
            variables: BTreeMap::clone(&own.variables),
            dependencies: BTreeMap::clone(&own.dependencies),
            tools,
            upstream: upstream.clone(),
        }
    }

    /// Files of a package task, relative to its folder.
    pub fn package_files(&self, id: TaskId, folder: &str) -> impl Iterator<Item = &str> {
        let start = format!("//{folder}/");
        let groups = self.of(id).groups.iter();
        let files = groups.flat_map(|group| group.files.keys());
        files.filter_map(move |path| path.strip_prefix(&start))
    }
}

/// The composed files.
fn composed(composition: &Composition) -> impl Iterator<Item = (String, FileInput)> {
    composition.entries.iter().map(move |(path, entry)| {
        let file = FileInput {
            id: entry_identity(path, entry),
            layer: Some(composition.layers[entry.winner()].to_string()),
        };
        (path.to_string(), file)
    })
}

/// Mode and content. What a store's name changes in a file (`package.json`) counts as it was.
fn entry_identity(path: &str, entry: &crate::overlay::Entry) -> String {
    let id = if path == "package.json" {
        entry.source_id()
    } else {
        entry.id()
    };
    format!("{} {id}", entry.mode())
}
