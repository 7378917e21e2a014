//! The tasks of a run and the order between them: packages, then middleware, then frontends.

use std::collections::{BTreeMap, BTreeSet};

use super::select::ChosenUnits;
use super::task::{
    Script, SiblingAccess, Subject, Task, Work, has_build_script, is_built, settings,
};
use super::task_map::{TaskId, TaskMap};
use super::{Error, StorePlan, callbacks};
use crate::cache::Key;
use crate::config::{BaseApp, PackageJson, Project, WorkspacePackage};
use crate::overlay::Composition;
use crate::store::AppKind;
use crate::workspace::PackageManager;

/// A composed app of one store, with its base app.
type ComposedApp<'a> = (&'a Composition, &'a BaseApp);

/// All tasks of these stores, upstream before downstream: the script of every chosen unit, and the
/// builds that those scripts read (packages, and the middleware of the same store).
pub fn tasks(
    project: &Project,
    stores: &[StorePlan],
    chosen: &ChosenUnits,
    work: &Work,
) -> Result<TaskMap<Task>, Error> {
    let compositions = stores.iter().flat_map(|store| &store.compositions);
    let apps: Vec<ComposedApp> = compositions
        .filter_map(|composition| Some((&**composition, project.app(&composition.unit.app)?)))
        .collect();
    let (mut builds, mut runs) = match work {
        Work::Build => (builds(&apps, chosen)?, Vec::new()),
        Work::Packages => (Vec::new(), Vec::new()),
        Work::Script(script) => runs(&apps, chosen, script)?,
    };
    let mut graph = TaskGraph::new(project)?;
    let is_for_packages = *work == Work::Packages;
    let is_chosen = |(composition, _): &&ComposedApp| chosen.contains(&composition.unit);
    let served = apps.iter().filter(is_chosen).filter(|_| is_for_packages);
    for (_, app) in builds.iter().chain(&runs).chain(served) {
        let package = graph.needed_by(app);
        graph.packages.order(&package)?;
    }
    graph.add_packages(is_for_packages);
    // The middleware first, because frontends read its types; at last the apps that may read all.
    let order = |(_, app): &ComposedApp| match app.kind {
        AppKind::Middleware => 0,
        AppKind::Frontend(_) => 1,
        AppKind::Playwright | AppKind::Other => 2,
    };
    builds.sort_by_key(order);
    runs.sort_by_key(order);
    for app in builds {
        let is_wanted = work.is_build() && chosen.contains(&app.0.unit);
        graph.add_unit(app, &Work::Build, is_wanted);
    }
    for app in runs {
        graph.add_unit(app, work, true);
    }
    Ok(with_upstream(graph.tasks))
}

/// The apps to build where `build` is the work. Each must have the script.
fn builds<'a>(
    apps: &[ComposedApp<'a>],
    chosen: &ChosenUnits,
) -> Result<Vec<ComposedApp<'a>>, Error> {
    let is_one = |(composition, app): &&ComposedApp| {
        is_built(app.kind, &app.package)
            && (chosen.feeds(&composition.unit, composition.kind)
                || chosen.contains(&composition.unit))
    };
    let builds: Vec<_> = apps.iter().filter(is_one).copied().collect();
    let lacking = builds
        .iter()
        .filter(|(_, app)| !has_build_script(&app.package));
    let lacking: BTreeSet<String> = lacking.map(|(_, app)| app.name.to_string()).collect();
    if lacking.is_empty() {
        Ok(builds)
    } else {
        let apps = lacking.into_iter().collect();
        Err(Error::NoBuildScript { apps })
    }
}

/// The apps to build before another script runs, and the apps whose script runs.
fn runs<'a>(
    apps: &[ComposedApp<'a>],
    chosen: &ChosenUnits,
    script: &Script,
) -> Result<(Vec<ComposedApp<'a>>, Vec<ComposedApp<'a>>), Error> {
    let has_script = |(composition, app): &&ComposedApp| {
        chosen.contains(&composition.unit) && app.package.scripts.contains_key(&script.name)
    };
    let runs: Vec<_> = apps.iter().filter(has_script).copied().collect();
    if runs.is_empty() {
        return Err(Error::NoScript {
            script: script.name.clone(),
            known: scripts(apps.iter().map(|(_, app)| *app)),
        });
    }
    // An app without a `build` script has no result that others could read.
    let feeds = |(composition, app): &&ComposedApp| {
        is_built(app.kind, &app.package)
            && has_build_script(&app.package)
            && chosen.feeds(&composition.unit, composition.kind)
    };
    Ok((apps.iter().filter(feeds).copied().collect(), runs))
}

/// Completes each task by all tasks that it needs directly or indirectly.
fn with_upstream(mut tasks: TaskMap<Task>) -> TaskMap<Task> {
    for id in tasks.ids() {
        let needs = tasks[id].needs.iter();
        let upstream: BTreeSet<TaskId> = needs
            .flat_map(|need| tasks[*need].upstream.iter().chain([need]))
            .copied()
            .collect();
        tasks[id].upstream = upstream.into_iter().collect();
    }
    tasks
}

/// The names of all scripts of these apps.
fn scripts<'a>(apps: impl Iterator<Item = &'a BaseApp>) -> Vec<String> {
    let scripts = apps.flat_map(|app| app.package.scripts.keys().cloned());
    scripts.collect::<BTreeSet<_>>().into_iter().collect()
}

/// The tasks of a plan while they are collected.
struct TaskGraph<'a> {
    project: &'a Project,
    manager: PackageManager,
    packages: PackageOrder<'a>,
    of_package: BTreeMap<&'a str, TaskId>,
    /// The builds of each store's middleware.
    middleware: BTreeMap<String, Vec<TaskId>>,
    /// The builds of each store's frontends.
    frontends: BTreeMap<String, Vec<TaskId>>,
    tasks: TaskMap<Task>,
}

impl<'a> TaskGraph<'a> {
    fn new(project: &'a Project) -> Result<Self, Error> {
        Ok(Self {
            project,
            manager: super::manager(project)?,
            packages: PackageOrder::new(project),
            of_package: BTreeMap::new(),
            middleware: BTreeMap::new(),
            frontends: BTreeMap::new(),
            tasks: TaskMap::default(),
        })
    }

    /// The dependencies that are installed for an app: its own, its peers, and those of the root,
    /// which every app finds.
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

    fn add_packages(&mut self, is_wanted: bool) {
        for package in &self.packages.ordered {
            if !has_build_script(&package.package) {
                continue;
            }
            let id = self.tasks.push(Task {
                subject: Subject::Package(package.name.clone()),
                work: Work::Build,
                is_wanted,
                never_cached: None,
                before: None,
                shared: false,
                sibling_access: SiblingAccess::Needed,
                command: self.manager.run(Work::Build.name(), &[]),
                folder: package.folder.clone(),
                source: package.folder.clone(),
                dependencies: required(&package.package),
                packages: self.packages.sources(&package.package),
                variables: Vec::new(),
                settings: &[],
                source_digest: Key::default(),
                needs: self.packages.needs(&package.package, &self.of_package),
                upstream: Vec::new(),
            });
            self.of_package.insert(package.name.as_str(), id);
        }
    }

    fn add_unit(&mut self, (composition, app): ComposedApp, work: &Work, is_wanted: bool) {
        let unit = &composition.unit;
        let package = self.needed_by(app);
        let shared = self.project.settings.shared.iter();
        let has_middleware = self.middleware.contains_key(unit.store.as_str());
        let id = self.tasks.push(Task {
            subject: Subject::Unit(unit.clone()),
            work: work.clone(),
            is_wanted,
            never_cached: (app.kind == AppKind::Playwright && runs_tests(app, work.name())).then(
                || "its result depends on running apps, which are not part of the cache key".into(),
            ),
            shared: shared.into_iter().any(|it| *it == *app.name.as_str()),
            sibling_access: match app.kind {
                AppKind::Middleware => SiblingAccess::Needed,
                AppKind::Frontend(_) if has_middleware => SiblingAccess::Needed,
                AppKind::Frontend(_) => SiblingAccess::Middleware,
                _ => SiblingAccess::All,
            },
            before: callbacks::find(composition, callbacks::BUILD)
                .filter(|_| work.is_build())
                .map(|path| vec!["sh".into(), path]),
            command: self.manager.run(work.name(), work.arguments()),
            folder: format!(".out/{}/{}", unit.store, unit.app),
            source: format!("apps/{}", app.name),
            dependencies: required(&app.package),
            packages: self.packages.sources(&package),
            variables: Vec::new(),
            settings: settings(app.kind, work),
            source_digest: Key::default(),
            needs: self.needs(composition, app.kind, &package),
            upstream: Vec::new(),
        });
        if !work.is_build() {
            return;
        }
        let builds = match app.kind {
            AppKind::Middleware => &mut self.middleware,
            AppKind::Frontend(_) => &mut self.frontends,
            AppKind::Playwright | AppKind::Other => return,
        };
        builds.entry(unit.store.to_string()).or_default().push(id);
    }

    /// The tasks that an app's script needs: packages, and builds of the same store.
    fn needs(
        &self,
        composition: &Composition,
        kind: AppKind,
        package: &PackageJson,
    ) -> Vec<TaskId> {
        let store = composition.unit.store.as_str();
        let middleware = self.middleware.get(store).into_iter().flatten();
        let frontends = self.frontends.get(store).into_iter().flatten();
        let mut needs = self.packages.needs(package, &self.of_package);
        match kind {
            AppKind::Middleware => {}
            AppKind::Frontend(_) => needs.extend(middleware),
            // Such an app may read the results of all others in its store.
            AppKind::Playwright | AppKind::Other => needs.extend(middleware.chain(frontends)),
        }
        needs
    }
}

/// Whether a script of Playwright tests runs them: by its name, or because its command starts
/// Playwright, itself or through another script.
fn runs_tests(app: &BaseApp, script: &str) -> bool {
    let scripts = &app.package.scripts;
    let mut waiting = vec![script];
    let mut seen = BTreeSet::new();
    while let Some(name) = waiting.pop() {
        if !seen.insert(name) {
            continue;
        }
        if name == "test" || name.starts_with("test:") || name.contains("e2e") {
            return true;
        }
        let command = scripts.get(name).map_or("", String::as_str);
        let words = command.split(|c: char| c.is_whitespace() || "&|;()'\"".contains(c));
        for word in words {
            if word == "playwright" || word.ends_with("/playwright") {
                return true;
            }
            waiting.extend(scripts.contains_key(word).then_some(word));
        }
    }
    false
}

/// The dependencies that must be installed: all but the optional ones, or the development
/// dependencies if the package has no others. Development dependencies beside others may be absent on
/// purpose (`npm ci --omit=dev`); a script that needs one then fails with its own message.
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

/// The workspace packages that apps depend on, each after the packages that it depends on.
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

    /// The build tasks of the packages that `of` depends on, directly or through packages without a
    /// `build` script.
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

    /// Names of the packages that `of` depends on, directly or indirectly.
    fn sources(&self, of: &PackageJson) -> Vec<String> {
        let reached = self.project.packages_of(of).into_iter();
        let others = reached.filter(|package| of.name.as_ref() != Some(&package.name));
        others.map(|package| package.name.clone()).collect()
    }
}
