//! Scripts to run, and what each waits for: packages, then middleware, then frontends.

use std::collections::{BTreeMap, BTreeSet};

use super::select::ChosenUnits;
use super::{Error, StorePlan};
use crate::cache::Key;
use crate::config::{BaseApp, PackageJson, Project, WorkspacePackage};
use crate::overlay::Composition;
use crate::store::{AppKind, AppName, UnitId};
use crate::workspace::PackageManager;

/// The script that makes an app what an image takes.
pub const BUILD: &str = "build";

/// What is run of each unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Script {
    /// Its name in `package.json`.
    pub name: String,
    /// What it is given.
    pub arguments: Vec<String>,
}

impl Default for Script {
    fn default() -> Self {
        Self {
            name: BUILD.into(),
            arguments: Vec::new(),
        }
    }
}

/// One script to run.
#[derive(Debug, Clone)]
pub struct Task {
    /// Whose script.
    pub subject: Subject,
    /// Its name in `package.json`.
    pub script: String,
    /// Whether it was asked for; others are only there for those that need them.
    pub is_wanted: bool,
    /// Why its result is not kept, if it is not.
    pub never_kept: Option<String>,
    /// Whether it runs without a store's name, so that its result is any store's.
    pub shared: bool,
    /// Which apps of its store it may read beside its own.
    pub sees: SiblingAccess,
    /// Program and arguments.
    pub command: Vec<String>,
    /// Where its sources lie, relative to the project: the base app, or the package.
    pub source: String,
    /// Names of what has to be installed for it.
    pub dependencies: Vec<String>,
    /// Names of workspace packages whose files it may read.
    pub packages: Vec<String>,
    /// Names of declared variables that are set: what its script sees beside the system's own.
    pub variables: Vec<String>,
    /// A digest of everything that it and the tasks before it are made of. The key of a result
    /// is another: it has what the tasks before it made instead of what they were made of.
    pub source_digest: Key,
    /// Where its result belongs, relative to the project.
    pub folder: String,
    /// Tasks that have to be done before.
    pub needs: Vec<TaskId>,
    /// Those and all before them: what they made can be read through what the others made.
    pub upstream: Vec<TaskId>,
}

/// Where an app is built that is built for no store; `_` begins no store's id.
pub fn neutral_folder(app: &AppName) -> String {
    format!(".out/_{app}/{app}")
}

/// The place of a task in its plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskId(usize);

impl TaskId {
    /// The id of the task at this place.
    pub fn new(index: usize) -> Self {
        Self(index)
    }

    /// Its place in the plan.
    pub fn index(self) -> usize {
        self.0
    }
}

/// Which apps of its store a script may read beside its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SiblingAccess {
    /// None, or only what is built before it.
    Own,
    /// The middleware, although nobody builds it.
    Middleware,
    /// All of them.
    All,
}

/// Whose script a task runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// A workspace package, by name; built once for all stores.
    Package(String),
    /// One app of one store.
    Unit(UnitId),
}

impl Task {
    /// Whose result it is, as keys have it: a shared app's is no store's.
    pub fn key_name(&self) -> String {
        match &self.subject {
            Subject::Unit(unit) if self.shared => format!("shared {}#{}", unit.app, self.script),
            _ => self.name(),
        }
    }

    /// Where its script runs, relative to the project: as deep as where its result belongs.
    pub fn run_folder(&self) -> String {
        match &self.subject {
            Subject::Unit(unit) if self.shared => neutral_folder(&unit.app),
            _ => self.folder.clone(),
        }
    }

    /// Whether its script runs in the same folder as the other's.
    pub fn runs_where(&self, other: &Self) -> bool {
        match (self.subject.unit(), other.subject.unit()) {
            (Some(unit), Some(theirs)) if self.shared && other.shared => unit.app == theirs.app,
            _ => self.shared == other.shared && self.folder == other.folder,
        }
    }

    /// How it is called: `us/storefront-middleware`, or a package's name; another script than
    /// `build` comes after a `#`.
    pub fn name(&self) -> String {
        if self.script == BUILD {
            self.subject.to_string()
        } else {
            format!("{}#{}", self.subject, self.script)
        }
    }
}

impl Subject {
    /// The app or the package.
    pub fn name(&self) -> &str {
        match self {
            Self::Package(name) => name,
            Self::Unit(unit) => unit.app.as_str(),
        }
    }

    /// The unit, if it is one.
    pub fn unit(&self) -> Option<&UnitId> {
        match self {
            Self::Package(_) => None,
            Self::Unit(unit) => Some(unit),
        }
    }
}

impl std::fmt::Display for Subject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Package(name) => f.write_str(name),
            Self::Unit(unit) => unit.fmt(f),
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

/// All tasks of these stores, upstream before downstream: the script of every chosen unit, and
/// the builds that those read from: packages, then the middleware of the same store.
pub fn tasks(
    project: &Project,
    stores: &[StorePlan],
    chosen: &ChosenUnits,
    script: &Script,
) -> Result<Vec<Task>, Error> {
    let mut graph = TaskGraph {
        project,
        manager: super::manager(project)?,
        packages: PackageOrder::new(project),
        of_package: BTreeMap::new(),
        middleware: BTreeMap::new(),
        frontends: BTreeMap::new(),
        tasks: Vec::new(),
    };
    let units: Vec<_> = stores
        .iter()
        .flat_map(|store| &store.compositions)
        .filter_map(|composition| Some((composition, project.app(&composition.unit.app)?)))
        .collect();
    let feeds = |composition: &Composition| chosen.feeds(&composition.unit, composition.kind);
    let is_chosen = |composition: &Composition| chosen.contains(&composition.unit);
    let is_build = script.name == BUILD;
    let mut built: Vec<_> = units
        .iter()
        .filter(|(composition, app)| {
            is_built(app.kind, &app.package)
                && (feeds(composition) || is_build && is_chosen(composition))
        })
        .collect();
    let mut run: Vec<_> = units
        .iter()
        .filter(|(composition, app)| {
            !is_build && is_chosen(composition) && app.package.scripts.contains_key(&script.name)
        })
        .collect();
    if is_build {
        have_scripts(built.iter().map(|(_, app)| *app))?;
    } else if run.is_empty() {
        return Err(Error::NoScript {
            script: script.name.clone(),
            known: scripts(units.iter().map(|(_, app)| *app)),
        });
    } else {
        // A middleware that has nothing to build feeds nobody.
        built.retain(|(_, app)| app.package.scripts.contains_key(BUILD));
    }
    for (_, app) in built.iter().chain(&run) {
        let package = graph.needed_by(app);
        graph.packages.order(&package)?;
    }
    graph.add_packages();
    // Middleware before the frontends, which read its types; then what may read all of them.
    let order = |kind: AppKind| match kind {
        AppKind::Middleware => 0,
        AppKind::Frontend(_) => 1,
        AppKind::Playwright | AppKind::Other => 2,
    };
    built.sort_by_key(|(_, app)| order(app.kind));
    run.sort_by_key(|(_, app)| order(app.kind));
    for (composition, app) in built {
        graph.add_unit(
            composition,
            app,
            &Script::default(),
            is_build && is_chosen(composition),
        );
    }
    for (composition, app) in run {
        graph.add_unit(composition, app, script, true);
    }
    for index in 0..graph.tasks.len() {
        let needs = graph.tasks[index].needs.clone();
        let inner = needs
            .iter()
            .flat_map(|need| graph.tasks[need.0].upstream.clone());
        let all: BTreeSet<TaskId> = needs.iter().copied().chain(inner).collect();
        graph.tasks[index].upstream = all.into_iter().collect();
    }
    Ok(graph.tasks)
}

fn have_scripts<'a>(apps: impl Iterator<Item = &'a BaseApp>) -> Result<(), Error> {
    let without: BTreeSet<String> = apps
        .filter(|app| !app.package.scripts.contains_key(BUILD))
        .map(|app| app.name.to_string())
        .collect();
    if without.is_empty() {
        return Ok(());
    }
    Err(Error::NoBuildScript {
        apps: without.into_iter().collect(),
    })
}

/// Names of all scripts of these apps.
fn scripts<'a>(apps: impl Iterator<Item = &'a BaseApp>) -> Vec<String> {
    let scripts = apps.flat_map(|app| app.package.scripts.keys().cloned());
    scripts.collect::<BTreeSet<_>>().into_iter().collect()
}

/// Tasks while they are put together.
struct TaskGraph<'a> {
    project: &'a Project,
    manager: PackageManager,
    packages: PackageOrder<'a>,
    of_package: BTreeMap<&'a str, TaskId>,
    /// Builds of each store's middleware.
    middleware: BTreeMap<String, Vec<TaskId>>,
    /// Builds of each store's frontends.
    frontends: BTreeMap<String, Vec<TaskId>>,
    tasks: Vec<Task>,
}

impl TaskGraph<'_> {
    /// What is installed for an app: what it asks for, peers among it, and what the root brings
    /// for all.
    fn needed_by(&self, app: &BaseApp) -> PackageJson {
        let mut package = app.package.clone();
        let root = &self.project.package;
        let more = [
            &root.dependencies,
            &root.dev_dependencies,
            &app.package.peer_dependencies,
        ];
        for (name, range) in more.into_iter().flatten() {
            package
                .dependencies
                .entry(name.clone())
                .or_insert_with(|| range.clone());
        }
        package
    }

    fn add_packages(&mut self) {
        for package in &self.packages.ordered {
            if !package.package.scripts.contains_key(BUILD) {
                continue;
            }
            let needs = self.packages.needs(&package.package, &self.of_package);
            self.of_package
                .insert(package.name.as_str(), TaskId(self.tasks.len()));
            self.tasks.push(Task {
                subject: Subject::Package(package.name.clone()),
                script: BUILD.into(),
                is_wanted: false,
                never_kept: None,
                shared: false,
                sees: SiblingAccess::Own,
                command: self.manager.run(BUILD, &[]),
                folder: package.folder.clone(),
                source: package.folder.clone(),
                dependencies: required(&package.package),
                packages: self.packages.sources(&package.package),
                variables: Vec::new(),
                source_digest: Key::default(),
                needs,
                upstream: Vec::new(),
            });
        }
    }

    fn add_unit(
        &mut self,
        composition: &Composition,
        app: &BaseApp,
        script: &Script,
        is_wanted: bool,
    ) {
        let unit = &composition.unit;
        let package = self.needed_by(app);
        let mut needs = self.packages.needs(&package, &self.of_package);
        let of_store = self.middleware.entry(unit.store.to_string()).or_default();
        let has_middleware = !of_store.is_empty();
        let is_build = script.name == BUILD;
        match app.kind {
            AppKind::Middleware if is_build => of_store.push(TaskId(self.tasks.len())),
            AppKind::Frontend(_) => {
                needs.extend(of_store.iter());
                if is_build {
                    let frontends = self.frontends.entry(unit.store.to_string());
                    frontends.or_default().push(TaskId(self.tasks.len()));
                }
            }
            AppKind::Middleware => {}
            // It may read what the other apps of its store have become.
            AppKind::Playwright | AppKind::Other => {
                needs.extend(of_store.iter());
                let frontends = self.frontends.get(unit.store.as_str());
                needs.extend(frontends.into_iter().flatten());
            }
        }
        self.tasks.push(Task {
            subject: Subject::Unit(unit.clone()),
            script: script.name.clone(),
            is_wanted,
            never_kept: (app.kind == AppKind::Playwright)
                .then(|| "it tests what runs elsewhere".into()),
            shared: self
                .project
                .settings
                .shared
                .iter()
                .any(|one| *one == *app.name.as_str()),
            sees: match app.kind {
                AppKind::Middleware => SiblingAccess::Own,
                AppKind::Frontend(_) if has_middleware => SiblingAccess::Own,
                AppKind::Frontend(_) => SiblingAccess::Middleware,
                _ => SiblingAccess::All,
            },
            command: self.manager.run(&script.name, &script.arguments),
            folder: format!(".out/{}/{}", unit.store, unit.app),
            source: format!("apps/{}", app.name),
            dependencies: required(&app.package),
            packages: self.packages.sources(&package),
            variables: Vec::new(),
            source_digest: Key::default(),
            needs,
            upstream: Vec::new(),
        });
    }
}

/// What has to be installed: the dependencies but those that a machine may do without; of a
/// package that has none, what it is developed with. Where some are installed, others are left
/// out on purpose (`npm ci --omit=dev`), and a script that misses one says so itself.
fn required(package: &PackageJson) -> Vec<String> {
    let optional = |name: &&String| !package.optional_dependencies.contains_key(*name);
    let own: Vec<String> = package
        .dependencies
        .keys()
        .filter(optional)
        .cloned()
        .collect();
    if own.is_empty() {
        package.dev_dependencies.keys().cloned().collect()
    } else {
        own
    }
}

/// Workspace packages that apps reach, each after those that it needs itself.
struct PackageOrder<'a> {
    project: &'a Project,
    ordered: Vec<&'a WorkspacePackage>,
    path: Vec<&'a str>,
}

impl<'a> PackageOrder<'a> {
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
    fn needs(&self, of: &PackageJson, tasks: &BTreeMap<&str, TaskId>) -> Vec<TaskId> {
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

    /// Packages that `of` depends on, directly or through others.
    fn sources(&self, of: &PackageJson) -> Vec<String> {
        let reached = self.project.packages_of(of).into_iter();
        let others = reached.filter(|package| of.name.as_ref() != Some(&package.name));
        others.map(|package| package.name.clone()).collect()
    }
}
