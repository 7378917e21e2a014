//! Scripts to run, and what each waits for: packages, then middleware, then frontends.

use std::collections::{BTreeMap, BTreeSet};

use crate::config::{BaseApp, PackageJson, Project, WorkspacePackage};
use crate::overlay::Composition;
use crate::store::{AppKind, Framework, UnitId};

use super::select::Chosen;
use super::{Error, StorePlan};

/// One script to run.
#[derive(Debug, Clone)]
pub struct Task {
    /// Whose script.
    pub subject: Subject,
    /// Program and arguments.
    pub command: Vec<String>,
    /// Where it runs, relative to the project.
    pub folder: String,
    /// Folders and files that the script writes anew, relative to `folder`. They go before it
    /// runs: what an earlier build left of a source that is gone would be shipped otherwise.
    pub outputs: Vec<String>,
    /// Indices of tasks that have to be done before.
    pub needs: Vec<usize>,
}

/// Whose script a task runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// A workspace package, by name; built once for all stores.
    Package(String),
    /// One app of one store.
    Unit(UnitId),
}

impl std::fmt::Display for Subject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Package(name) => f.write_str(name),
            Self::Unit(unit) => unit.fmt(f),
        }
    }
}

/// What runs scripts in this project.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PackageManager {
    /// `package-lock.json`, or nothing at all.
    Npm,
    /// `yarn.lock`.
    Yarn,
    /// `pnpm-lock.yaml`.
    Pnpm,
    /// `bun.lock` or `bun.lockb`.
    Bun,
}

impl PackageManager {
    /// The `packageManager` field, else the lock file, else npm.
    pub fn detect(project: &Project) -> Result<Self, Error> {
        if let Some(field) = &project.package.package_manager {
            let name = field.split('@').next().unwrap_or_default();
            return match name {
                "npm" => Ok(Self::Npm),
                "yarn" => Ok(Self::Yarn),
                "pnpm" => Ok(Self::Pnpm),
                "bun" => Ok(Self::Bun),
                other => Err(Error::PackageManager {
                    path: project.root.join("package.json"),
                    name: other.to_owned(),
                }),
            };
        }
        let lock_files = [
            ("package-lock.json", Self::Npm),
            ("pnpm-lock.yaml", Self::Pnpm),
            ("yarn.lock", Self::Yarn),
            ("bun.lock", Self::Bun),
            ("bun.lockb", Self::Bun),
        ];
        let found = lock_files
            .iter()
            .find(|(file, _)| project.root.join(file).is_file());
        Ok(found.map_or(Self::Npm, |(_, manager)| *manager))
    }

    /// The command that runs a script of the package in the current folder.
    pub fn run(self, script: &str) -> Vec<String> {
        [self.name(), "run", script].map(str::to_owned).to_vec()
    }

    /// The command that installs what the lock file says.
    pub fn install(self, project: &Project) -> &'static str {
        match self {
            Self::Npm if !project.root.join("package-lock.json").is_file() => "npm install",
            Self::Npm => "npm ci",
            Self::Yarn => "yarn install --frozen-lockfile",
            Self::Pnpm => "pnpm install --frozen-lockfile",
            Self::Bun => "bun install --frozen-lockfile",
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Npm => "npm",
            Self::Yarn => "yarn",
            Self::Pnpm => "pnpm",
            Self::Bun => "bun",
        }
    }
}

/// Whether units of this app are built: a frontend and a middleware must be, another app is
/// when it has a `build` script, and Playwright's tests never are.
pub fn is_built(kind: AppKind, package: &PackageJson) -> bool {
    match kind {
        AppKind::Frontend(_) | AppKind::Middleware => true,
        AppKind::Playwright => false,
        AppKind::Other => package.scripts.contains_key("build"),
    }
}

/// All build tasks of these stores, upstream before downstream.
pub fn tasks(project: &Project, stores: &[StorePlan], chosen: &Chosen) -> Result<Vec<Task>, Error> {
    let manager = PackageManager::detect(project)?;
    let mut built = Vec::new();
    for composition in stores.iter().flat_map(|store| &store.compositions) {
        let Some(app) = project.app(&composition.unit.app) else {
            continue;
        };
        if is_built(app.kind, &app.package)
            && (chosen.contains(&composition.unit) || chosen.feeds(&composition.unit, app.kind))
        {
            built.push((composition, app));
        }
    }
    let without: BTreeSet<String> = built
        .iter()
        .filter(|(_, app)| !app.package.scripts.contains_key("build"))
        .map(|(_, app)| app.name.to_string())
        .collect();
    if !without.is_empty() {
        return Err(Error::NoBuildScript {
            apps: without.into_iter().collect(),
        });
    }
    installed(project, manager, built.iter().map(|(_, app)| *app))?;

    let mut tasks = Vec::new();
    let mut packages = Packages::new(project);
    for (_, app) in &built {
        packages.order(&app.package)?;
    }
    let mut task_of_package = BTreeMap::new();
    for package in &packages.ordered {
        if !package.package.scripts.contains_key("build") {
            continue;
        }
        let needs = packages.needs(&package.package, &task_of_package);
        task_of_package.insert(package.name.as_str(), tasks.len());
        tasks.push(Task {
            subject: Subject::Package(package.name.clone()),
            command: manager.run("build"),
            folder: package.folder.clone(),
            outputs: Vec::new(),
            needs,
        });
    }
    // Middleware before the frontends, which read its types.
    built.sort_by_key(|(_, app)| app.kind.framework().is_some());
    let mut middleware = BTreeMap::<_, Vec<usize>>::new();
    for (composition, app) in built {
        let unit = &composition.unit;
        let mut needs = packages.needs(&app.package, &task_of_package);
        if app.kind == AppKind::Middleware {
            middleware.entry(&unit.store).or_default().push(tasks.len());
        } else if app.kind.framework().is_some() {
            needs.extend(middleware.get(&unit.store).into_iter().flatten());
        }
        tasks.push(Task {
            subject: Subject::Unit(unit.clone()),
            command: manager.run("build"),
            folder: format!(".out/{}/{}", unit.store, unit.app),
            outputs: outputs(app, composition),
            needs,
        });
    }
    Ok(tasks)
}

/// What the app's build writes and an image takes, but for folders with composed files in them.
/// Incremental caches stay, and with TypeScript's goes its note of what is written already.
fn outputs(app: &BaseApp, composition: &Composition) -> Vec<String> {
    let mut outputs = match app.kind {
        AppKind::Frontend(Framework::Nextjs) => vec![".next/standalone".to_owned()],
        AppKind::Frontend(Framework::Nuxt) => vec![".output".to_owned()],
        _ => {
            let entry = super::image::entry(app).unwrap_or_default();
            let folder = entry.split_once('/').map(|(folder, _)| folder.to_owned());
            folder
                .into_iter()
                .chain(["tsconfig.tsbuildinfo".to_owned()])
                .collect()
        }
    };
    outputs.retain(|output| {
        let inside = format!("{output}/");
        let is_composed = |path: &str| path == output || path.starts_with(&inside);
        !composition.entries.keys().any(|path| is_composed(path))
    });
    outputs
}

/// Says so before the first build, and with the command, when nothing is installed.
fn installed<'a>(
    project: &Project,
    manager: PackageManager,
    mut apps: impl Iterator<Item = &'a BaseApp>,
) -> Result<(), Error> {
    // Node looks upwards, beyond the project too.
    let at_root = project
        .root
        .ancestors()
        .any(|folder| folder.join("node_modules").is_dir());
    let missing = apps.any(|app| {
        let own = project
            .root
            .join("apps")
            .join(app.name.as_str())
            .join("node_modules");
        app.package.build_dependencies().next().is_some() && !at_root && !own.is_dir()
    });
    if missing {
        return Err(Error::NotInstalled {
            project: project.root.clone(),
            command: manager.install(project),
        });
    }
    Ok(())
}

/// Workspace packages that apps reach, each after those that it needs itself.
struct Packages<'a> {
    project: &'a Project,
    ordered: Vec<&'a WorkspacePackage>,
    path: Vec<&'a str>,
}

impl<'a> Packages<'a> {
    fn new(project: &'a Project) -> Self {
        Self {
            project,
            ordered: Vec::new(),
            path: Vec::new(),
        }
    }

    fn order(&mut self, of: &PackageJson) -> Result<(), Error> {
        let project = self.project;
        for package in project.packages.iter().filter(|package| {
            let is_itself = of.name.as_ref() == Some(&package.name);
            !is_itself && of.build_dependencies().any(|name| name == package.name)
        }) {
            if let Some(start) = self.path.iter().position(|name| *name == package.name) {
                let mut cycle: Vec<_> =
                    self.path[start..].iter().map(ToString::to_string).collect();
                cycle.push(package.name.clone());
                return Err(Error::Cycle { cycle });
            }
            if self.ordered.iter().any(|done| done.name == package.name) {
                continue;
            }
            self.path.push(&package.name);
            self.order(&package.package)?;
            self.path.pop();
            self.ordered.push(package);
        }
        Ok(())
    }

    /// Tasks of packages that `of` depends on, directly or through packages without a script.
    fn needs(&self, of: &PackageJson, tasks: &BTreeMap<&str, usize>) -> Vec<usize> {
        let mut needs = BTreeSet::new();
        for name in of.build_dependencies() {
            if let Some(task) = tasks.get(name) {
                needs.insert(*task);
            } else if let Some(package) = self.ordered.iter().find(|package| package.name == name) {
                needs.extend(self.needs(&package.package, tasks));
            }
        }
        needs.into_iter().collect()
    }
}
