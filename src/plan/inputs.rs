//! What tasks can see beside their own composition: the project's files, workspace packages,
//! what is installed, variables and tools; and the keys that come of all of it.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::files::{everything, files, project_files};
use super::installed::Lock;
use super::task::{BUILD, Sees, Subject, Task};
use super::variables::Declared;
use super::{Error, StorePlan};
use crate::cache::{FileInput, Inputs, Key};
use crate::config::Project;
use crate::overlay::{Composition, ContentId, Lister, Owner};
use crate::store::AppKind;

/// What a task's result is found by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keys {
    /// By any store whose task sees the same, names aside.
    pub shared: Key,
    /// By its own store alone.
    pub own: Key,
}

/// What tasks can see beside their own composition.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// By path, with `//` in front.
    project: BTreeMap<String, FileInput>,
    /// The same of each workspace package, by its name.
    packages: BTreeMap<String, BTreeMap<String, FileInput>>,
    /// What is installed, by the folder that reaches it.
    dependencies: BTreeMap<String, BTreeMap<String, String>>,
    /// Names with digests of values, by app or package.
    variables: BTreeMap<String, BTreeMap<String, Key>>,
    tools: BTreeMap<String, String>,
    /// What people should know.
    pub notices: Vec<String>,
}

/// What the edge knows of the surroundings.
#[derive(Debug, Clone, Default)]
pub struct Surroundings {
    /// The environment over the project's `.env`.
    pub environment: BTreeMap<String, String>,
    /// Versions of what runs scripts.
    pub tools: BTreeMap<String, String>,
}

impl Seen {
    /// Looks at everything that these tasks can see.
    pub fn new(
        project: &Project,
        lister: &Lister,
        tasks: &[Task],
        surroundings: &Surroundings,
    ) -> Result<Self, Error> {
        let mut seen = Self {
            tools: surroundings.tools.clone(),
            ..Self::default()
        };
        if tasks.is_empty() {
            return Ok(seen);
        }
        let names: BTreeSet<&str> = tasks
            .iter()
            .flat_map(|task| {
                task.packages
                    .iter()
                    .map(String::as_str)
                    .chain([task.subject.name()])
            })
            .collect();
        for package in project
            .packages
            .iter()
            .filter(|it| names.contains(it.name.as_str()))
        {
            let (layer, _) = lister.layer(Owner::Base, &package.folder)?;
            let mut files = files(&layer, &format!("//{}/", package.folder), |_| true);
            if !package.package.scripts.contains_key(BUILD) {
                // Nobody builds it, so what git ignores in it is what apps import.
                everything(project, &package.folder, &mut files)?;
            }
            seen.packages.insert(package.name.clone(), files);
        }
        seen.project = project_files(project, lister, &mut seen.notices)?;
        let declared = Declared::new(project)?;
        let lock = Lock::read(project);
        if matches!(lock, Lock::None) && tasks.iter().any(|task| !task.dependencies.is_empty()) {
            seen.notices.push(
                "there is no lock file, so a build does not notice when other versions are installed"
                    .into(),
            );
        }
        for task in tasks {
            let name = task.subject.name();
            if !seen.variables.contains_key(name) {
                let variables = declared.of(name, &surroundings.environment);
                seen.variables.insert(name.to_owned(), variables);
            }
            if !seen.dependencies.contains_key(&task.source) {
                let reached = lock.reach(project, task);
                seen.dependencies.insert(task.source.clone(), reached);
            }
        }
        Ok(seen)
    }

    /// Gives each task its keys and the variables of its script.
    pub fn complete(&self, stores: &[StorePlan], tasks: &mut [Task]) {
        for index in 0..tasks.len() {
            let task = &tasks[index];
            let shared = self.inputs(stores, tasks, task).key();
            let own = shared.for_unit(&task.subject.to_string());
            let variables = self.variables(task);
            let task = &mut tasks[index];
            task.keys = Keys { shared, own };
            task.variables = variables;
        }
    }

    /// Everything that the task can see, given the keys of the tasks before it.
    pub fn inputs(&self, stores: &[StorePlan], tasks: &[Task], task: &Task) -> Inputs {
        let mut files = self.project.clone();
        match &task.subject {
            Subject::Package(name) => {
                let own = self.packages.get(name).into_iter().flatten();
                files.extend(own.map(|(path, file)| (path.clone(), file.clone())));
            }
            Subject::Unit(unit) => {
                let store = stores.iter().find(|store| store.id == unit.store);
                for composition in store.into_iter().flat_map(|store| &store.compositions) {
                    if composition.unit == *unit {
                        files.extend(composed(composition, ""));
                    } else if sees(task.sees, composition.kind) {
                        let folder = format!("../{}/", composition.unit.app);
                        files.extend(composed(composition, &folder));
                    }
                }
            }
        }
        for package in &task.packages {
            let of_package = self.packages.get(package).into_iter().flatten();
            files.extend(of_package.map(|(path, file)| (path.clone(), file.clone())));
        }
        let upstream = task.needs.iter().map(|need| {
            let need = &tasks[*need];
            (need.subject.name().to_owned(), need.keys.shared)
        });
        Inputs {
            // NUL, since an argument may hold a space.
            command: task.command.join("\0"),
            files,
            variables: self
                .variables
                .get(task.subject.name())
                .cloned()
                .unwrap_or_default(),
            dependencies: self
                .dependencies
                .get(&task.source)
                .cloned()
                .unwrap_or_default(),
            tools: self.tools_of(task),
            upstream: upstream.collect(),
        }
    }

    /// Tools, and the store itself where its app makes something of the id.
    fn tools_of(&self, task: &Task) -> BTreeMap<String, String> {
        let mut tools = self.tools.clone();
        if let (true, Some(unit)) = (task.per_store, task.subject.unit()) {
            tools.insert("store".into(), unit.store.to_string());
        }
        tools
    }

    /// A package's source that is not what the task's key was made of any more: changed since
    /// the run began, and with other content.
    pub fn changed_source(&self, project: &Path, task: &Task, began: SystemTime) -> Option<String> {
        let Subject::Package(name) = &task.subject else {
            return None;
        };
        let changed = |(path, file): (&String, &FileInput)| {
            let path = path.strip_prefix("//")?;
            let place = project.join(path);
            let Ok(metadata) = place.symlink_metadata() else {
                return Some(path.to_owned());
            };
            let changed = Duration::new(
                u64::try_from(metadata.ctime()).unwrap_or(0),
                u32::try_from(metadata.ctime_nsec()).unwrap_or(0),
            );
            // A clock of a file system may be some milliseconds behind.
            let is_old = UNIX_EPOCH + changed + Duration::from_millis(20) < began;
            let is_same = || {
                let id = ContentId::of_file(&place).ok();
                metadata.is_symlink() || id.is_some_and(|id| file.id.ends_with(&id.to_string()))
            };
            (!is_old && !is_same()).then(|| path.to_owned())
        };
        self.packages.get(name)?.iter().find_map(changed)
    }

    /// Files of a package, relative to its folder.
    pub fn files_of<'a>(&'a self, package: &str, folder: &str) -> impl Iterator<Item = &'a str> {
        let start = "//".len() + folder.len() + "/".len();
        let files = self.packages.get(package).into_iter().flatten();
        files.filter_map(move |(path, _)| path.get(start..))
    }

    /// Names of declared variables that are set, for the task's script.
    fn variables(&self, task: &Task) -> Vec<String> {
        let variables = self.variables.get(task.subject.name());
        variables
            .into_iter()
            .flatten()
            .map(|(name, _)| name.clone())
            .collect()
    }
}

/// The composed files. What a store's name changes in them (`package.json`) counts as it was.
fn composed(composition: &Composition, folder: &str) -> impl Iterator<Item = (String, FileInput)> {
    composition.entries.iter().map(move |(path, entry)| {
        let id = if &**path == "package.json" {
            entry.source_id()
        } else {
            entry.id()
        };
        let file = FileInput {
            id: format!("{} {id}", entry.mode()),
            layer: Some(composition.layers[entry.winner()].to_string()),
        };
        (format!("{folder}{path}"), file)
    })
}

fn sees(sees: Sees, kind: AppKind) -> bool {
    match sees {
        Sees::Own => false,
        Sees::Middleware => kind == AppKind::Middleware,
        Sees::All => true,
    }
}
