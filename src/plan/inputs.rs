//! What tasks can see beside their own composition: the project's files, workspace packages,
//! what is installed, variables and tools; and the keys that come of all of it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use globset::{Glob, GlobSetBuilder};

use super::task::{Subject, Task};
use super::variables::Declared;
use super::{Error, StorePlan};
use crate::cache::{FileInput, Inputs, Key};
use crate::config::{PackageJson, Project};
use crate::lockfile::{Folder, Lockfile, Workspace};
use crate::overlay::{Composition, ContentId, Layer, Lister, Owner};

/// Files at the top of a project that no script depends on. The config's effects are in the
/// compositions; of the lock file the slice counts.
const UNSEEN: [&str; 6] = [
    "alokai.config.json",
    "LICENSE",
    ".gitignore",
    ".gitattributes",
    ".dockerignore",
    ".gitlab-ci.yml",
];

/// Folders that patch what is installed.
const PATCHES: [&str; 2] = ["patches", ".yarn/patches"];

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
            let files = files(&layer, &format!("//{}/", package.folder), |_| true);
            seen.packages.insert(package.name.clone(), files);
        }
        seen.project = project_files(project, lister)?;
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
                    } else if task.sees_store {
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
            command: task.command.join(" "),
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
            tools: self.tools.clone(),
            upstream: upstream.collect(),
        }
    }

    /// Files of a package, relative to its folder.
    pub fn files_of<'a>(&'a self, package: &str, folder: &str) -> impl Iterator<Item = &'a str> {
        let start = "//".len() + folder.len() + "/".len();
        let files = self.packages.get(package).into_iter().flatten();
        files.filter_map(move |(path, _)| path.get(start..))
    }

    /// Names of declared variables that are set, for the task's script.
    pub fn variables(&self, task: &Task) -> Vec<String> {
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

fn files(layer: &Layer, prefix: &str, keep: impl Fn(&str) -> bool) -> BTreeMap<String, FileInput> {
    let kept = layer.files.iter().filter(|(path, _)| keep(path));
    let input = |(path, file): (&Arc<str>, &Arc<crate::overlay::File>)| {
        let file = FileInput {
            id: format!("{} {}", file.mode(), file.id),
            layer: None,
        };
        (format!("{prefix}{path}"), file)
    };
    kept.map(input).collect()
}

/// Files at the top of the project, patches, and what `build.globalDependencies` names.
fn project_files(project: &Project, lister: &Lister) -> Result<BTreeMap<String, FileInput>, Error> {
    let is_seen = |path: &str| {
        let is_text = Path::new(path).extension().is_some_and(|end| end == "md");
        !is_text && !UNSEEN.contains(&path) && !Lockfile::NAMES.contains(&path)
    };
    let mut all = files(&lister.top()?, "//", is_seen);
    for folder in PATCHES {
        let (layer, _) = lister.layer(Owner::Base, folder)?;
        all.extend(files(&layer, &format!("//{folder}/"), |_| true));
    }
    for pattern in &project.settings.global_dependencies {
        let wrong = |_| Error::GlobalDependencies {
            pattern: pattern.clone(),
        };
        let glob = Glob::new(pattern.trim_start_matches("./")).map_err(wrong)?;
        let globs = GlobSetBuilder::new().add(glob).build().map_err(wrong)?;
        // Only what comes before the first wildcard is looked through.
        let plain = pattern
            .find(['*', '?', '[', '{'])
            .map_or(pattern.as_str(), |at| &pattern[..at]);
        let folder = plain.rfind('/').map_or("", |slash| &plain[..slash]);
        if folder.is_empty() {
            all.extend(files(&lister.top()?, "//", |path| globs.is_match(path)));
            if !pattern.contains('/') && !pattern.contains("**") {
                continue;
            }
        }
        let (layer, _) = lister.layer(Owner::Base, folder)?;
        let prefix = if folder.is_empty() {
            "//".to_owned()
        } else {
            format!("//{folder}/")
        };
        let whole = |path: &str| format!("{}{path}", &prefix[2..]);
        all.extend(files(&layer, &prefix, |path| globs.is_match(whole(path))));
    }
    Ok(all)
}

/// The project's lock file.
enum Lock {
    /// There is none.
    None,
    /// It can be followed.
    Known(Lockfile, String, ContentId),
    /// It cannot, so all of it counts.
    Whole(String, ContentId),
}

impl Lock {
    fn read(project: &Project) -> Self {
        let found = Lockfile::NAMES.iter().find_map(|name| {
            let text = std::fs::read(project.root.join(name)).ok()?;
            Some((*name, text))
        });
        let Some((name, text)) = found else {
            return Self::None;
        };
        let id = ContentId::of(&text);
        let root = folder("", &project.package);
        let apps: Vec<_> = project
            .apps
            .iter()
            .map(|app| format!("apps/{}", app.name))
            .collect();
        let of_apps = apps
            .iter()
            .zip(&project.apps)
            .map(|(path, app)| folder(path, &app.package));
        let packages = project
            .packages
            .iter()
            .map(|it| folder(&it.folder, &it.package));
        let workspace = Workspace {
            folders: [root].into_iter().chain(of_apps).chain(packages).collect(),
            resolutions: project
                .package
                .resolutions
                .keys()
                .map(String::as_str)
                .collect(),
        };
        match Lockfile::parse(name, &text, &workspace) {
            Some(lock) => Self::Known(lock, name.to_owned(), id),
            None => Self::Whole(name.to_owned(), id),
        }
    }

    /// What is installed for the task: what its folder reaches, what the packages reach whose
    /// files it may read, and what the root brings for all.
    fn reach(&self, project: &Project, task: &Task) -> BTreeMap<String, String> {
        let (name, id) = match self {
            Self::None => return BTreeMap::new(),
            Self::Whole(name, id) => (name, id),
            Self::Known(lock, name, id) => {
                let packages = project.packages.iter();
                let packages = packages.filter(|package| task.packages.contains(&package.name));
                let folders: Vec<&str> = ["", &task.source]
                    .into_iter()
                    .chain(packages.map(|package| package.folder.as_str()))
                    .collect();
                if let Some(reached) = lock.reach(&folders) {
                    return reached;
                }
                (name, id)
            }
        };
        [(name.clone(), id.to_string())].into()
    }
}

fn folder<'a>(path: &'a str, package: &'a PackageJson) -> Folder<'a> {
    let needs = [
        &package.dependencies,
        &package.dev_dependencies,
        &package.optional_dependencies,
    ];
    let needs = needs.into_iter().flatten();
    Folder {
        path,
        name: package.name.as_deref(),
        needs: needs
            .map(|(name, range)| (name.as_str(), range.as_str()))
            .collect(),
    }
}
