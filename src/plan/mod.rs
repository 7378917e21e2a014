//! Decides everything that a run does, and does nothing itself.
//!
//! A [`Plan`] contains the work of every stage: commands, references, Dockerfiles and requests. So
//! `--dry-run` can print it, and the pipeline only carries it out. It contains no secret.

mod callbacks;
mod destination;
mod document;
mod error;
mod files;
mod graph;
mod hooks;
mod image;
mod inputs;
mod installed;
mod links;
mod notices;
mod queries;
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

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

pub use callbacks::DEPLOYED_ENTRYPOINT;
pub use destination::{
    console_of, destination_of, image_repository, record_repository, repositories_of,
};
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

use crate::cache::CacheLimits;
use crate::config::{Project, PruneRules};
use crate::event::Stage;
use crate::files::DiskFiles;
use crate::git::{Repository, Revision};
use crate::overlay::{Composer, Composition, LayerReader, Layers, fail_on};
use crate::store::{AppName, Deployment, Store, StoreId, TargetKind};
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
        let made_from = (stores.as_slice(), &tasks);
        let commit = (tag.as_deref(), revision.as_ref());
        let planned = planned_images(project, request, chosen, made_from, commit)?;
        let (images, destination) = planned.unzip();
        let images = images.unwrap_or_default();
        let console = console_of(project, &request.console);
        let mut releases = Vec::new();
        if request.until >= Stage::Deploy {
            let tag = tag.as_deref().unwrap_or_default();
            releases = release::releases(project, &stores, &images, &console, tag)?;
        }
        let servers = start::servers(project, &stores, &images)?;
        let hooks = hooks::planned_hooks(project, request, (&stores, &releases), &mut notices);
        notices.extend(notices::notices(&stores));
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

/// The images and their destination. `None` if the run ends before the prune stage.
fn planned_images(
    project: &Project,
    request: &Request,
    chosen: &select::ChosenUnits,
    (stores, tasks): (&[StorePlan], &TaskMap<Task>),
    (tag, revision): (Option<&str>, Option<&Revision>),
) -> Result<Option<(Vec<ImagePlan>, DestinationPlan)>, Error> {
    if request.until < Stage::Prune {
        return Ok(None);
    }
    let destination = destination::plan_destination(project, request, stores)?;
    let planner = ImagePlanner {
        project,
        stores,
        chosen,
        tasks,
        destination: &destination,
        tag,
        revision,
        builder: request.builder,
    };
    Ok(Some((planner.images()?, destination)))
}

/// The command that installs dependencies; empty if the run ends before the build stage.
fn install(project: &Project, request: &Request) -> Result<&'static str, Error> {
    if request.until < Stage::Build {
        return Ok("");
    }
    Ok(manager(project)?.install(&DiskFiles, &project.root))
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
                target: project.target_of(deployment),
                deployment: deployment.clone(),
                apps: project.apps_of(store).map(|app| app.name.clone()).collect(),
                compositions: own,
            });
        }
    }
    Ok(plans)
}

/// The project's package manager.
fn manager(project: &Project) -> Result<PackageManager, Error> {
    let manager = project.package_manager();
    manager.map_err(|UnknownManager(name)| Error::PackageManager {
        path: project.root.join("package.json"),
        name,
    })
}
