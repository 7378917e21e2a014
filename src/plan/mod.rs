//! Decides everything that a run does, and does nothing itself.
//!
//! A [`Plan`] contains the work of every stage: commands, references, Dockerfiles and requests. So
//! `--dry-run` can print it, and the pipeline only carries it out. It contains no secret.

mod callbacks;
mod document;
mod error;
mod files;
mod graph;
mod hooks;
mod image;
mod inputs;
mod installed;
mod links;
mod release;
mod scope;
mod select;
mod start;
mod tag;
mod target;
mod task;
mod task_map;
mod tool_caches;
mod tsconfig;
mod variables;
mod watched;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

pub use callbacks::DEPLOYED_ENTRYPOINT;
pub use document::{Forecast, ReleaseSteps, SCHEMA_VERSION, document, text};
pub use error::{EnvFileError, Error};
pub use files::{EXISTS_ONLY, OptionalFile};
pub use hooks::{HookPlan, hooks_of, no_staging, run_stage};
pub use image::{
    BuilderChoice, Dockerfile, DockerfileSource, ImageMaker, ImagePlan, SCRATCH, container_port,
};
pub use inputs::HostEnvironment;
pub use links::{OutLinks, check_store_ids};
pub use release::{ConsoleRequest, DEFAULT_CONSOLE, PlannedRelease, check_console};
pub use scope::RunScope;
pub use select::{Filter, Selection};
pub use start::{
    BrowserTests, ContainerNetwork, EnvFile, KnownVariable, Launch, LocalPortPlan, PackageScript,
    PlannedVariable, ServeMode, ServePlan, ServerPlan, ServerSettings, StoreServers, TestArguments,
    browser_variable, container_name, released_servers,
};
pub use target::{DestinationPlan, DestinationReference};
pub use task::{Script, Subject, Task, Work};
pub use task_map::{TaskId, TaskMap};
pub use tool_caches::ToolCacheScope;
pub use variables::is_system;
pub use watched::{LayerChange, ListedLayers, UnitChange, WatchedPlan};

use crate::cache::{CacheLimits, InputRecord, Key, OutputDigest, ToolCacheName};
use crate::config::{HookStage, Project, PruneRules};
use crate::event::Stage;
use crate::files::DiskFiles;
use crate::git::{Repository, Revision};
use crate::overlay::{Composer, Composition, LayerReader, Layers, Owner, fail_on};
use crate::store::{AppKind, AppName, Deployment, Store, StoreId, TargetKind, UnitId};
use crate::workspace::{PackageManager, UnknownManager};
use image::ImagePlanner;
use inputs::AllInputs;
use oci::Digest;

/// The registry if config, environment and flags name none.
pub const DEFAULT_REGISTRY: &str = "registry.vuestorefront.cloud";

/// The destination of images with `--local`.
pub const LOCAL_REGISTRY: &str = "oci:.alokai/registry";

/// The variable with the key for server actions of Next.js.
pub const ACTION_KEY: &str = "NEXT_SERVER_ACTIONS_ENCRYPTION_KEY";

/// What the user asks a run to do.
#[derive(Debug, Clone)]
pub struct Request {
    /// The stores.
    pub selection: Selection,
    /// The units of those stores.
    pub filter: Filter,
    /// The last stage.
    pub until: Stage,
    /// Whether a dirty working tree gets a tag of its own instead of an error.
    pub allow_dirty: bool,
    /// The registry from flags or environment.
    pub registry: Option<String>,
    /// The console's address from flags or environment.
    pub console: Option<String>,
    /// The image builder.
    pub builder: BuilderChoice,
    /// Whether the stores run on this machine instead of being deployed.
    pub local: bool,
    /// Whether images get an SBOM and provenance.
    pub attest: bool,
    /// How many scripts may run at once, if the command line says.
    pub concurrency: Option<usize>,
    /// The script to run in each unit.
    pub work: Work,
    /// The environment of scripts.
    pub host: HostEnvironment,
}

/// A store of the run.
#[derive(Debug, Clone)]
pub struct StorePlan {
    /// Its id.
    pub id: StoreId,
    /// Its deployment.
    pub deployment: Deployment,
    /// Where it runs after this run.
    pub target: TargetKind,
    /// All apps of the store, also those outside the run.
    pub apps: Vec<AppName>,
    /// The compositions of its apps in the run.
    pub compositions: Vec<Arc<Composition>>,
    /// The repository that also has the records of its builds: that of its frontend.
    pub repository: Option<String>,
}

impl StorePlan {
    /// Identity of all composed files of the store in this run.
    pub fn identity(&self) -> String {
        let compositions = self.compositions.iter();
        let lines = compositions.map(|it| format!("{} {}\n", it.unit.app, it.id()));
        Digest::of(lines.collect::<String>().as_bytes()).to_string()
    }
}

/// Everything that a run does.
#[derive(Debug)]
pub struct Plan {
    /// The project's folder.
    pub project: PathBuf,
    /// The last stage.
    pub until: Stage,
    /// The commit; none if the run ends before the image stage.
    pub revision: Option<Revision>,
    /// The tag of every image of this run.
    pub tag: Option<String>,
    /// The stores.
    pub stores: Vec<StorePlan>,
    /// The script that the run was asked for.
    pub work: Work,
    /// The scripts to run, upstream before downstream.
    pub tasks: TaskMap<Task>,
    /// The units to prune and the images to build.
    pub images: Vec<ImagePlan>,
    /// The stores to make live. Empty if the run ends before.
    pub releases: Vec<PlannedRelease>,
    /// The hooks of the stages of this run, by store, in the order of the config.
    pub hooks: Vec<HookPlan>,
    /// How the apps of each store are started on this machine. Empty if the run does not start apps and
    /// prints no commands for it.
    pub servers: Vec<StoreServers>,
    /// The time limit for a started app to accept connections on its port.
    pub start_timeout: Duration,
    /// The destination of images; none if the run builds none.
    pub destination: Option<DestinationPlan>,
    /// The image builder that the user has chosen.
    pub builder: BuilderChoice,
    /// Whether the stores run on this machine instead of being deployed.
    pub local: bool,
    /// Whether images get an SBOM and provenance.
    pub attest: bool,
    /// The console's address.
    pub console: String,
    /// How many scripts may run at once; none means one for each core.
    pub concurrency: Option<usize>,
    /// How many bytes of memory all running scripts may use; none means the free memory.
    pub max_memory: Option<u64>,
    /// The size and age limits of the cache.
    pub cache_limits: CacheLimits,
    /// The names under which the tool caches of this run are kept.
    pub tool_caches: ToolCacheScope,
    /// The command that installs dependencies.
    pub install: &'static str,
    /// Folders of base apps and workspace packages, relative to the project. Package managers read
    /// the `package.json` in each of them, whichever script they run.
    pub workspaces: Vec<String>,
    /// The links below `.out`.
    pub links: OutLinks,
    inputs: AllInputs,
    /// Which files stay in `.deploy`.
    pub prune: PruneRules,
    /// Notices for the user about problems that do not stop the run.
    pub notices: Vec<String>,
}

impl Plan {
    /// Plans everything that `request` asks for. Reads the project and writes nothing.
    pub fn make(project: &Project, request: &Request) -> Result<Self, Error> {
        let selected = selected(project, request)?;
        let (repository, revision) = revision(project, request)?;
        let tag = revision
            .as_ref()
            .map(|revision| tag::tag(&project.root, revision, request.allow_dirty))
            .transpose()?;
        let lister = LayerReader::new(&project.root, repository.as_ref())?;
        let chosen = request.filter.units(project, &selected)?;
        let composer = Composer::new(project, &lister);
        let (layers, problems) = composer.layers(&selected, |_, _| None)?;
        fail_on(problems)?;
        let mut stores = compose(project, &composer, &layers, &selected, &chosen)?;
        if request.local {
            for store in &mut stores {
                store.target = TargetKind::Local;
            }
        }
        let repository = PlannedRepository {
            repository,
            revision,
            tag,
        };
        Self::of_stores(project, request, repository, &lister, &chosen, stores)
    }

    /// Plans everything but the compositions.
    fn of_stores(
        project: &Project,
        request: &Request,
        repository: PlannedRepository,
        lister: &LayerReader,
        chosen: &select::ChosenUnits,
        stores: Vec<StorePlan>,
    ) -> Result<Self, Error> {
        let PlannedRepository {
            repository,
            revision,
            tag,
        } = repository;
        let mut notices: Vec<String> = project.notices.iter().map(ToString::to_string).collect();
        callbacks::check(&stores)?;
        let (tasks, inputs) = plan_tasks(project, request, lister, &stores, chosen, &mut notices)?;
        let mut images = Vec::new();
        let mut destination = None;
        if request.until >= Stage::Prune {
            let to = plan_destination(project, request, &stores)?;
            let planner = ImagePlanner {
                project,
                stores: &stores,
                chosen,
                tasks: &tasks,
                destination: &to,
                tag: tag.as_deref(),
                revision: revision.as_ref(),
                builder: request.builder,
            };
            images = planner.images()?;
            destination = Some(to);
        }
        let console = console_of(project, &request.console);
        let mut releases = Vec::new();
        if request.until >= Stage::Deploy {
            let tag = tag.as_deref().unwrap_or_default();
            releases = release::releases(project, &stores, &images, &console, tag)?;
        }
        let servers = start::servers(project, &stores, &images)?;
        let hooks = planned_hooks(project, request, (&stores, &releases), &mut notices);
        notices.extend(unused(&stores).into_iter().chain(dropped(&stores)));
        if request.work == Work::Build {
            notices.extend(callbacks::notices(&stores, &images, &tasks));
            notices.extend(callbacks::ignored(project, repository.as_ref())?);
        }
        Ok(Self {
            project: project.root.clone(),
            until: request.until,
            revision,
            tag,
            stores,
            work: request.work.clone(),
            tasks,
            destination,
            builder: request.builder,
            local: request.local,
            attest: request.attest,
            images,
            releases,
            hooks,
            servers,
            start_timeout: project.settings.start.timeout,
            console,
            concurrency: request.concurrency.or(project.settings.concurrency),
            max_memory: project.settings.max_memory,
            cache_limits: cache_limits(project),
            tool_caches: ToolCacheScope::new(project, repository.as_ref()),
            install: install(project, request)?,
            workspaces: workspaces(project),
            links: OutLinks::read(project)?,
            inputs,
            prune: project.settings.prune.clone(),
            notices,
        })
    }

    /// The images of a store.
    pub fn images_of<'a>(&'a self, store: &'a StoreId) -> impl Iterator<Item = &'a ImagePlan> {
        self.images
            .iter()
            .filter(move |image| image.unit.store == *store)
    }

    /// The digest of all decisions about the images of a store. It is the same in every folder.
    pub fn store_digest(&self, store: &StoreId) -> Digest {
        let decided = self.images_of(store);
        let decided = decided.map(|image| format!("{}\n", self.digest_of(&image.unit)));
        Digest::of(decided.collect::<String>().as_bytes())
    }

    /// The digest of what the run brings a store to: its images, their tag, the last stage, and the target.
    pub fn release_digest(&self, store: &StoreId) -> Digest {
        let release = self.releases.iter().find(|it| it.store == *store);
        let target = release.map_or("", |release| release.target.name());
        let (images, tag) = (self.store_digest(store), self.tag.as_deref());
        let text = format!(
            "{images}\n{}\n{}\n{target}\n",
            tag.unwrap_or(""),
            self.until
        );
        Digest::of(text.as_bytes())
    }

    /// The task with this id.
    pub fn task(&self, id: TaskId) -> &Task {
        &self.tasks[id]
    }

    /// The composition of the task's app; none for a package.
    pub fn composition_of(&self, id: TaskId) -> Option<&Arc<Composition>> {
        self.inputs.of(id).composition.as_ref()
    }

    /// The other composed apps of the same store, each with whether the task may read it.
    pub fn siblings(&self, id: TaskId) -> impl Iterator<Item = (&Arc<Composition>, bool)> {
        self.inputs.siblings(id)
    }

    /// The files of a package task, relative to its folder.
    pub fn package_files(&self, id: TaskId) -> impl Iterator<Item = &str> {
        self.inputs.package_files(id, &self.task(id).folder)
    }

    /// The primary key: the part of a task's key that is known before its script runs. `upstream` are
    /// the results of the tasks that it needs, by name.
    pub fn primary_key(&self, id: TaskId, upstream: &BTreeMap<String, OutputDigest>) -> Key {
        let task = self.task(id);
        self.inputs
            .primary_key(id, task, &task.key_name(), upstream)
    }

    /// The primary key that the task has if its app is declared shared.
    pub fn neutral_key(&self, id: TaskId, upstream: &BTreeMap<String, OutputDigest>) -> Key {
        let task = self.task(id);
        let name = task.shared_key_name().unwrap_or_else(|| task.name());
        self.inputs.primary_key(id, task, &name, upstream)
    }

    /// The key of a task's result: the primary key, completed by the files that its script opens.
    pub fn key(&self, id: TaskId, primary: Key, reads: &BTreeSet<String>) -> Key {
        self.inputs.key(id, primary, reads)
    }

    /// The files that are inputs if the task's script, which runs in `folder`, opens them.
    pub fn optional_files(&self, id: TaskId, folder: &Path) -> Vec<OptionalFile> {
        self.inputs
            .optional(id, folder, |unit| self.is_idle(unit, id))
    }

    /// Whether no script of the unit can run at the same time as this task.
    pub fn is_idle(&self, unit: &UnitId, id: TaskId) -> bool {
        let is_ordered = |other: TaskId| {
            self.task(other).upstream.contains(&id) || self.task(id).upstream.contains(&other)
        };
        let of_unit = |other: &TaskId| self.task(*other).subject.unit() == Some(unit);
        self.tasks.ids().filter(of_unit).all(is_ordered)
    }

    /// The names of the optional files.
    pub fn optional_names(&self, id: TaskId) -> BTreeSet<String> {
        let files = self.optional_files(id, Path::new("store/app"));
        files.into_iter().map(|file| file.name).collect()
    }

    /// The identity of an optional file as it is now.
    pub fn identity(&self, id: TaskId, name: &str) -> String {
        self.inputs.identity(id, name)
    }

    /// An input of the task that has changed since its key was computed, relative to the project.
    pub fn changed_input(&self, id: TaskId) -> Option<String> {
        self.inputs.changed(id)
    }

    /// The folders in which no file may be added or removed while the task's script runs, absolute.
    pub fn watched_folders(&self, id: TaskId) -> Vec<PathBuf> {
        self.inputs.folders(id)
    }

    /// The name of the cache that the tools of the task keep.
    pub fn tool_cache_name(&self, id: TaskId) -> ToolCacheName {
        let (project, folder) = (&self.project, self.task(id).run_folder());
        let name = self.task(id).key_name();
        let toolchain = self.inputs.toolchain(id);
        self.tool_caches
            .name(&name, &project.join(folder), &toolchain)
    }

    /// Whether the task is a build of Next.js 15 or newer that makes a new key for server actions. On
    /// machines of CI systems it does so in every build, and webpack's cache of another key is not used.
    pub fn makes_action_key(&self, id: TaskId) -> bool {
        let task = self.task(id);
        let is_newer = |identity: &str| {
            let version = identity.strip_prefix("next@")?;
            version
                .split('.')
                .next()?
                .parse()
                .ok()
                .map(|major: u32| major >= 15)
        };
        let toolchain = self.inputs.toolchain(id);
        let is_next = toolchain.keys().any(|it| is_newer(it) == Some(true));
        is_next && !task.variables.iter().any(|name| name == ACTION_KEY)
    }

    /// The files outside composed apps that the task may read, absolute.
    pub fn readable_files(&self, id: TaskId) -> impl Iterator<Item = PathBuf> {
        self.inputs.readable(id)
    }

    /// All inputs of the task, from which a later run explains a cache miss.
    pub fn explained_inputs(
        &self,
        id: TaskId,
        upstream: &BTreeMap<String, OutputDigest>,
        reads: &BTreeSet<String>,
    ) -> InputRecord {
        self.inputs.explained(id, self.task(id), upstream, reads)
    }

    /// The compositions of all stores.
    pub fn compositions(&self) -> impl Iterator<Item = &Arc<Composition>> {
        self.stores.iter().flat_map(|store| &store.compositions)
    }

    /// How the apps of a store are started on this machine.
    pub fn servers_of(&self, store: &StoreId) -> Option<&StoreServers> {
        self.servers.iter().find(|servers| servers.store == *store)
    }

    /// The composition of a unit.
    pub fn composition(&self, unit: &UnitId) -> Option<&Arc<Composition>> {
        self.compositions().find(|one| one.unit == *unit)
    }

    /// The image of a unit.
    pub fn image(&self, unit: &UnitId) -> Option<&ImagePlan> {
        self.images.iter().find(|image| image.unit == *unit)
    }

    /// Whether the working tree has no uncommitted changes.
    pub fn is_clean(&self) -> bool {
        let revision = self.revision.as_ref();
        revision.is_some_and(|revision| revision.dirty.is_empty())
    }

    /// Whether a request is sent to the console.
    pub fn uses_console(&self) -> bool {
        self.releases
            .iter()
            .any(|release| release.console.is_some())
    }

    /// The digest of the decisions about one image, independent of the project's folder and of other
    /// images.
    pub fn digest_of(&self, unit: &UnitId) -> Digest {
        Digest::of(document::decided(self, unit).to_string().as_bytes())
    }

    /// The folder into which a unit is composed.
    pub fn workdir(&self, unit: &UnitId) -> PathBuf {
        self.project
            .join(".out")
            .join(unit.store.as_str())
            .join(unit.app.as_str())
    }
}

/// What a plan takes from git.
struct PlannedRepository {
    repository: Option<Repository>,
    revision: Option<Revision>,
    tag: Option<String>,
}

/// The tasks with their inputs; none if the run ends before the build stage.
fn plan_tasks(
    project: &Project,
    request: &Request,
    lister: &LayerReader,
    stores: &[StorePlan],
    chosen: &select::ChosenUnits,
    notices: &mut Vec<String>,
) -> Result<(TaskMap<Task>, AllInputs), Error> {
    if request.until < Stage::Build {
        return Ok((TaskMap::default(), AllInputs::default()));
    }
    let mut tasks = graph::tasks(project, stores, chosen, &request.work)?;
    let inputs = AllInputs::new(project, lister, stores, &mut tasks, &request.host, notices)?;
    Ok((tasks, inputs))
}

/// The hooks of the stages of a run. Only builds and deploys have hooks. A rollback is not planned here.
fn planned_hooks(
    project: &Project,
    request: &Request,
    (stores, releases): (&[StorePlan], &[PlannedRelease]),
    notices: &mut Vec<String>,
) -> Vec<HookPlan> {
    if request.work != Work::Build {
        return Vec::new();
    }
    let is_due = |hook: &HookPlan| {
        hook.stage != HookStage::Rollback && run_stage(hook.stage) <= request.until
    };
    let stores = stores.iter();
    let stores = stores.filter_map(|store| project.stores.get(store.id.as_str()));
    let hooks = stores.flat_map(|store| hooks_of(project, store));
    let mut hooks: Vec<_> = hooks.filter(is_due).collect();
    for release in releases {
        let is_idle = |hook: &HookPlan| {
            let is_console = release.target == TargetKind::Console;
            is_console && hook.stage == HookStage::Stage && hook.store == release.store
        };
        if hooks.iter().any(is_idle) {
            notices.push(no_staging(&release.store, release.target.name()));
        }
        hooks.retain(|hook| !is_idle(hook));
    }
    hooks
}

/// The command that installs dependencies; empty if the run ends before the build stage.
fn install(project: &Project, request: &Request) -> Result<&'static str, Error> {
    if request.until < Stage::Build {
        return Ok("");
    }
    Ok(manager(project)?.install(&DiskFiles, &project.root))
}

/// The destination of images, with the registry from flags, environment or config.
fn plan_destination(
    project: &Project,
    request: &Request,
    stores: &[StorePlan],
) -> Result<DestinationPlan, Error> {
    let destination = destination_of(project, &request.registry)?;
    let is_console = |store: &StorePlan| store.target == TargetKind::Console;
    destination.suits(request, stores.iter().any(is_console))?;
    Ok(destination)
}

/// The destination of a project's images. `registry` is the value of the flag or the environment.
pub fn destination_of(
    project: &Project,
    registry: &Option<String>,
) -> Result<DestinationPlan, Error> {
    let configured = &project.settings.registry;
    let registry =
        first_set([registry, &configured.url]).unwrap_or_else(|| DEFAULT_REGISTRY.into());
    let is_insecure = configured.insecure && configured.url.as_ref() == Some(&registry);
    DestinationPlan::new(&project.root, &registry, is_insecure)
}

/// The address of a project's console. `console` is the value of the flag or the environment.
pub fn console_of(project: &Project, console: &Option<String>) -> String {
    let console = first_set([console, &project.settings.console.url]);
    console.unwrap_or_else(|| DEFAULT_CONSOLE.into())
}

/// One repository for each deployable store, below the path of the registry.
pub fn repositories_of(project: &Project) -> Vec<String> {
    let stores = project.stores.deployables();
    let repositories = stores.filter_map(|store| {
        let mut apps = project.apps_of(store);
        let app = apps.find(|app| app.kind != AppKind::Playwright)?;
        let deployment = store.deployment.as_ref()?;
        Some(image::repository(project, deployment, app))
    });
    repositories.collect()
}

/// The repository for the images of an app of a store, below the path of the registry. None for a
/// template, and for an app that the store does not have.
pub fn image_repository(project: &Project, store: &Store, app: &AppName) -> Option<String> {
    let deployment = store.deployment.as_ref()?;
    let mut apps = project.apps_of(store);
    let app = apps.find(|own| own.name == *app)?;
    Some(image::repository(project, deployment, app))
}

/// The repository with the records of a store: that of its frontend, or of its first app. None for a
/// template.
pub fn record_repository(project: &Project, store: &Store) -> Option<String> {
    let deployment = store.deployment.as_ref()?;
    let apps = project.apps_of(store);
    let apps = apps.filter(|app| app.kind != AppKind::Playwright);
    let app = apps.min_by_key(|app| app.kind.framework().is_none())?;
    Some(image::repository(project, deployment, app))
}

/// The limits of the cache in the project's config.
pub fn cache_limits(project: &Project) -> CacheLimits {
    let settings = &project.settings;
    let days = |days: u16| Duration::from_hours(u64::from(days) * 24);
    CacheLimits {
        bytes: settings.cache_size,
        age: days(settings.cache_days),
        tool_bytes: settings.tool_cache_size,
        tool_age: days(settings.tool_cache_days),
    }
}

/// Folders of base apps and workspace packages, relative to the project.
fn workspaces(project: &Project) -> Vec<String> {
    let apps = project.apps.iter().map(|app| format!("apps/{}", app.name));
    let packages = project.packages.iter();
    apps.chain(packages.map(|package| package.folder.clone()))
        .collect()
}

/// The selected stores of a project that has base apps.
fn selected<'a>(project: &'a Project, request: &Request) -> Result<Vec<&'a Store>, Error> {
    let stores = request.selection.stores(project)?;
    if project.apps.is_empty() {
        let apps = project.root.join("apps");
        return Err(Error::NoApps { apps });
    }
    Ok(stores)
}

/// The project's repository, and the commit that is the tag of images. Both are required only for
/// images; without a repository, composing uses `.gitignore` files alone.
fn revision(
    project: &Project,
    request: &Request,
) -> Result<(Option<Repository>, Option<Revision>), Error> {
    if request.until < Stage::Image {
        return Ok((Repository::around(&project.root)?, None));
    }
    let repository = Repository::open(&project.root)?;
    let revision = repository.revision()?;
    Ok((Some(repository), Some(revision)))
}

/// Composes the chosen units, and the units whose files their builds read.
fn compose(
    project: &Project,
    composer: &Composer,
    layers: &Layers,
    stores: &[&Store],
    chosen: &select::ChosenUnits,
) -> Result<Vec<StorePlan>, Error> {
    let mut compositions = composer.compose_from(stores, layers)?;
    compositions.retain(|composition| chosen.is_seen(&composition.unit, composition.kind));
    let mut of_stores: BTreeMap<StoreId, Vec<Arc<Composition>>> = BTreeMap::new();
    for composition in compositions {
        let of_store = of_stores.entry(composition.unit.store.clone()).or_default();
        of_store.push(Arc::new(composition));
    }
    let mut plans: Vec<StorePlan> = Vec::new();
    for store in stores {
        let own = of_stores.remove(&store.id).unwrap_or_default();
        if let Some(deployment) = &store.deployment
            && !own.is_empty()
        {
            plans.push(StorePlan {
                repository: record_repository(project, store),
                id: store.id.clone(),
                target: target_of(project, deployment),
                deployment: deployment.clone(),
                apps: project.apps_of(store).map(|app| app.name.clone()).collect(),
                compositions: own,
            });
        }
    }
    Ok(plans)
}

/// Where a store runs, without `--local`.
pub fn target_of(project: &Project, deployment: &Deployment) -> TargetKind {
    deployment.target.unwrap_or(project.settings.deploy.target)
}

/// Notices about files of a store that a rule of the same store or of an ancestor drops. Such a rule
/// is seldom intended.
fn dropped(stores: &[StorePlan]) -> Vec<String> {
    let mut notices = Vec::new();
    for composition in stores.iter().flat_map(|store| &store.compositions) {
        for (path, dropped) in &composition.dropped {
            let origin = &dropped.origin;
            let is_of = |owner: &Owner| matches!(owner, Owner::Store(id) if *id == origin.store);
            let Some(rule) = composition.layers.iter().position(is_of) else {
                continue;
            };
            for layer in dropped.layers.iter().filter(|layer| **layer >= rule) {
                notices.push(format!(
                    "`{}` of `{}` for the app `{}` is dropped by the rule `{}` in `ignorePaths` of `{}`; to keep the file, add `!{path}` after that rule",
                    path.escape_debug(), composition.layers[*layer], composition.unit.app, origin.rule, origin.store
                ));
            }
        }
    }
    notices.sort();
    notices.dedup();
    notices
}

/// Notices about files of stores that composing never uses.
fn unused(stores: &[StorePlan]) -> Vec<String> {
    let mut notices: Vec<String> = stores
        .iter()
        .flat_map(|store| &store.compositions)
        .flat_map(|composition| {
            composition.unused.iter().map(|unused| {
                format!(
                    "`{}` of `{}` for the app `{}` is ignored, because this file always comes from the base app",
                    unused.path, unused.owner, composition.unit.app
                )
            })
        })
        .collect();
    notices.sort();
    notices.dedup();
    notices
}

/// The project's package manager.
fn manager(project: &Project) -> Result<PackageManager, Error> {
    let manager = project.package_manager();
    manager.map_err(|UnknownManager(name)| Error::PackageManager {
        path: project.root.join("package.json"),
        name,
    })
}

fn first_set(values: [&Option<String>; 2]) -> Option<String> {
    values
        .into_iter()
        .flatten()
        .find(|value| !value.is_empty())
        .cloned()
}
