//! Everything decided, nothing done.
//!
//! A [`Plan`] holds what every stage will do, down to commands, references and requests, so
//! that `--dry-run` can print it and a pipeline can only carry it out. It holds no secret.

mod document;
mod error;
mod files;
mod image;
mod inputs;
mod installed;
mod release;
mod select;
mod tag;
mod target;
mod task;
mod tsconfig;
mod variables;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

pub use document::{Forecast, SCHEMA_VERSION, document, text};
pub use error::Error;
pub use files::{BY_NAME, OptionalFile};
pub use image::{BuilderChoice, Dockerfile, DockerfileSource, ImageMaker, ImagePlan, SCRATCH};
pub use inputs::HostEnvironment;
pub use release::{DEFAULT_CONSOLE, LocalRun, Release};
pub use select::{Filter, Selection};
pub use target::{DestinationPlan, DestinationReference};
pub use task::{BUILD, Script, Subject, Task, TaskId};
pub use variables::is_system;

use crate::cache::{CacheLimits, InputRecord, Key, OutputDigest};
use crate::config::{Project, PruneRules};
use crate::event::Stage;
use crate::files::DiskFiles;
use crate::git::{Repository, Revision};
use crate::overlay::{Composer, Composition, LayerReader, Owner};
use crate::store::{AppName, Deployment, Store, StoreId, UnitId};
use crate::workspace::{PackageManager, UnknownManager};
use image::ImagePlanner;
use inputs::AllInputs;
use oci::Digest;

/// The registry where neither config, environment nor flag names one.
pub const DEFAULT_REGISTRY: &str = "registry.vuestorefront.cloud";

/// Where `--local` keeps images.
pub const LOCAL_REGISTRY: &str = "oci:.alokai/registry";

/// What a run is asked to do.
#[derive(Debug, Clone)]
pub struct Request {
    /// Which stores.
    pub selection: Selection,
    /// Which units of them.
    pub filter: Filter,
    /// The last stage.
    pub until: Stage,
    /// Whether a dirty tree gets a tag that says so, instead of an error.
    pub allow_dirty: bool,
    /// The registry, as flag or environment have it.
    pub registry: Option<String>,
    /// The console's address, as flag or environment have it.
    pub console: Option<String>,
    /// Who makes images.
    pub builder: BuilderChoice,
    /// Whether everything stays on this machine.
    pub local: bool,
    /// Whether images are told what they are made of, for others to verify.
    pub attest: bool,
    /// How many scripts at once, if the command line says.
    pub concurrency: Option<usize>,
    /// What is run of each unit.
    pub script: Script,
    /// What scripts run in.
    pub surroundings: HostEnvironment,
}

/// A store that takes part.
#[derive(Debug, Clone)]
pub struct StorePlan {
    /// Its id.
    pub id: StoreId,
    /// Where it runs.
    pub deployment: Deployment,
    /// Every app that the store consists of, whether it takes part or not.
    pub apps: Vec<AppName>,
    /// Its apps that take part, composed.
    pub compositions: Vec<Arc<Composition>>,
}

/// Everything a run will do.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The project's folder.
    pub project: PathBuf,
    /// The last stage.
    pub until: Stage,
    /// The commit; none where the run needs none and there is none.
    pub revision: Option<Revision>,
    /// The tag of every image of this run.
    pub tag: Option<String>,
    /// The stores.
    pub stores: Vec<StorePlan>,
    /// The script that was asked for.
    pub script: String,
    /// Scripts to run, upstream before downstream.
    pub tasks: Vec<Task>,
    /// Units to prune and to make images of.
    pub images: Vec<ImagePlan>,
    /// Calls of the console, one a store.
    pub releases: Vec<Release>,
    /// Where images go; none when none is made.
    pub target: Option<DestinationPlan>,
    /// Who is to make them.
    pub builder: BuilderChoice,
    /// Whether nobody but this machine is told.
    pub local: bool,
    /// Whether images get a list of what is in them, and of what they were made of.
    pub attest: bool,
    /// The console's address.
    pub console: String,
    /// How many scripts at once; none leaves it to the machine.
    pub concurrency: Option<usize>,
    /// Bytes that all running scripts may take; none leaves it to the machine.
    pub max_memory: Option<u64>,
    /// What the cache may take.
    pub cache_limits: CacheLimits,
    /// What installs dependencies.
    pub install: &'static str,
    /// Folders of base apps and workspace packages, relative to the project. Package managers read
    /// the `package.json` of each, whichever script they run.
    pub workspaces: Vec<String>,
    inputs: Arc<AllInputs>,
    /// What stays in `.deploy`.
    pub prune: PruneRules,
    /// What is odd but stops nothing.
    pub notices: Vec<String>,
}

impl Plan {
    /// Decides everything that `request` asks for. Reads the project, writes nothing.
    pub fn make(project: &Project, request: &Request) -> Result<Self, Error> {
        let stores = request.selection.stores(project)?;
        if project.apps.is_empty() {
            return Err(Error::NoApps {
                apps: project.root.join("apps"),
            });
        }
        let (repository, revision) = revision(project, request)?;
        let tag = revision
            .as_ref()
            .map(|revision| tag::tag(&project.root, revision, request.allow_dirty))
            .transpose()?;
        let lister = LayerReader::new(&project.root, repository.as_ref())?;
        let composer = Composer::new(project, &lister);
        let chosen = request.filter.units(project, &stores)?;
        let plans = compose(project, &composer, &stores, &chosen)?;

        let mut tasks = Vec::new();
        let mut images = Vec::new();
        let mut releases = Vec::new();
        let mut target = None;
        let mut inputs = AllInputs::default();
        let mut notices: Vec<String> = project.notices.iter().map(ToString::to_string).collect();
        let mut install = "";
        if request.until >= Stage::Build {
            install = manager(project)?.install(&DiskFiles, &project.root);
            tasks = task::tasks(project, &plans, &chosen, &request.script)?;
            let surroundings = &request.surroundings;
            inputs = AllInputs::new(
                project,
                &lister,
                &plans,
                &mut tasks,
                surroundings,
                &mut notices,
            )?;
        }
        let configured = &project.settings.registry;
        let registry = first_set([&request.registry, &configured.url])
            .unwrap_or_else(|| DEFAULT_REGISTRY.into());
        let is_insecure = configured.insecure && configured.url.as_ref() == Some(&registry);
        let console = first_set([&request.console, &project.settings.console.url])
            .unwrap_or_else(|| DEFAULT_CONSOLE.into());
        if request.until >= Stage::Prune {
            let where_to = DestinationPlan::new(&project.root, &registry, is_insecure)?;
            where_to.suits(request)?;
            let imaging = ImagePlanner {
                project,
                stores: &plans,
                chosen: &chosen,
                tasks: &tasks,
                target: &where_to,
                tag: tag.as_deref(),
                revision: revision.as_ref(),
                builder: request.builder,
            };
            images = imaging.images()?;
            target = Some(where_to);
        }
        if request.until >= Stage::Deploy {
            let tag = tag.as_deref().unwrap_or_default();
            releases = release::releases(project, &plans, &images, &console, tag)?;
        }
        notices.extend(unused(&plans));
        notices.extend(dropped(&plans));
        let days = u64::from(project.settings.cache_days);
        Ok(Self {
            project: project.root.clone(),
            until: request.until,
            revision,
            tag,
            stores: plans,
            script: request.script.name.clone(),
            tasks,
            target,
            builder: request.builder,
            local: request.local,
            attest: request.attest,
            images,
            releases,
            console,
            concurrency: request.concurrency.or(project.settings.concurrency),
            max_memory: project.settings.max_memory,
            cache_limits: CacheLimits {
                bytes: project.settings.cache_size,
                age: Duration::from_hours(days * 24),
            },
            install,
            workspaces: workspaces(project),
            inputs: Arc::new(inputs),
            prune: project.settings.prune.clone(),
            notices,
        })
    }

    /// The task of that id.
    pub fn task(&self, id: TaskId) -> &Task {
        &self.tasks[id.index()]
    }

    /// Ids of all tasks, upstream before downstream.
    pub fn task_ids(&self) -> impl DoubleEndedIterator<Item = TaskId> + use<> {
        (0..self.tasks.len()).map(TaskId::new)
    }

    /// What the task's app is composed of; none for a package.
    pub fn composition_of(&self, id: TaskId) -> Option<&Arc<Composition>> {
        self.inputs.of(id).composition.as_ref()
    }

    /// Composed apps of the same store, each with whether the task may read it.
    pub fn siblings(&self, id: TaskId) -> impl Iterator<Item = (&Arc<Composition>, bool)> {
        self.inputs.siblings(id)
    }

    /// Files of a package task, relative to its folder.
    pub fn package_files(&self, id: TaskId) -> impl Iterator<Item = &str> {
        self.inputs.package_files(id, &self.task(id).folder)
    }

    /// The key of a task's result as far as it is known before its script runs. `upstream` are
    /// the results of the tasks that it needs, by name.
    pub fn primary_key(&self, id: TaskId, upstream: &BTreeMap<String, OutputDigest>) -> Key {
        self.inputs.primary_key(id, self.task(id), upstream)
    }

    /// The primary key that the task would have if its app were shared.
    pub fn neutral_key(&self, id: TaskId, upstream: &BTreeMap<String, OutputDigest>) -> Key {
        let task = Task {
            shared: true,
            ..self.task(id).clone()
        };
        self.inputs.primary_key(id, &task, upstream)
    }

    /// The key of a task's result, completed by the files that its script is known to open.
    pub fn key(&self, id: TaskId, primary: Key, reads: &BTreeSet<String>) -> Key {
        self.inputs.key(id, primary, reads)
    }

    /// Files that count if the task's script, which runs in `folder`, opens them.
    pub fn optional_files(&self, id: TaskId, folder: &Path) -> Vec<OptionalFile> {
        self.inputs.optional(id, folder)
    }

    /// Names of these files.
    pub fn optional_names(&self, id: TaskId) -> BTreeSet<String> {
        let files = self.inputs.optional(id, Path::new("store/app"));
        files.into_iter().map(|file| file.name).collect()
    }

    /// Identity of one of these files as it is now.
    pub fn identity(&self, id: TaskId, name: &str) -> String {
        self.inputs.identity(id, name)
    }

    /// A path of the project that the task can see and that is not as it was when its key was
    /// made.
    pub fn changed_input(&self, id: TaskId) -> Option<String> {
        self.inputs.changed(id)
    }

    /// Folders in which no file may appear or go while the task's script runs, absolute.
    pub fn watched_folders(&self, id: TaskId) -> Vec<PathBuf> {
        self.inputs.folders(id)
    }

    /// Files beside composed apps that the task may read, absolute.
    pub fn readable_files(&self, id: TaskId) -> impl Iterator<Item = PathBuf> {
        self.inputs.readable(id)
    }

    /// Everything that the task can see.
    pub fn explained_inputs(
        &self,
        id: TaskId,
        upstream: &BTreeMap<String, OutputDigest>,
        reads: &BTreeSet<String>,
    ) -> InputRecord {
        self.inputs.explained(id, self.task(id), upstream, reads)
    }

    /// Every composition of every store.
    pub fn compositions(&self) -> impl Iterator<Item = &Arc<Composition>> {
        self.stores.iter().flat_map(|store| &store.compositions)
    }

    /// The image of a unit.
    pub fn image(&self, unit: &UnitId) -> Option<&ImagePlan> {
        self.images.iter().find(|image| image.unit == *unit)
    }

    /// Whether everything that the images are made of is in a commit.
    pub fn is_clean(&self) -> bool {
        let revision = self.revision.as_ref();
        revision.is_some_and(|revision| revision.dirty.is_empty())
    }

    /// The digest of everything that was decided for one image, whatever folder the project lies
    /// in and whatever else the run is for.
    pub fn digest_of(&self, unit: &UnitId) -> Digest {
        Digest::of(document::decided(self, unit).to_string().as_bytes())
    }

    /// The plan without what has to be done for these units, whose images are there already.
    #[must_use]
    pub fn without(&self, units: &BTreeSet<&UnitId>) -> Self {
        let mut rest = self.clone();
        rest.images.retain(|image| !units.contains(&image.unit));
        for task in &mut rest.tasks {
            task.is_wanted &= task.subject.unit().is_none_or(|unit| !units.contains(unit));
        }
        // What has no image, such as tests, is composed beside what has.
        let images = &rest.images;
        let is_left = |store: &StorePlan| images.iter().any(|image| image.unit.store == store.id);
        rest.stores.retain(is_left);
        rest
    }

    /// The folder a unit is composed into.
    pub fn workdir(&self, unit: &UnitId) -> PathBuf {
        self.project
            .join(".out")
            .join(unit.store.as_str())
            .join(unit.app.as_str())
    }
}

fn workspaces(project: &Project) -> Vec<String> {
    let apps = project.apps.iter().map(|app| format!("apps/{}", app.name));
    let packages = project.packages.iter();
    apps.chain(packages.map(|package| package.folder.clone()))
        .collect()
}

/// The repository around the project, and the commit that images are tagged with. Only images need
/// both: without a repository, composing takes `.gitignore` files alone.
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

/// Composes the chosen units, and what their builds read: the middleware of the same store.
fn compose(
    project: &Project,
    composer: &Composer,
    stores: &[&Store],
    chosen: &select::ChosenUnits,
) -> Result<Vec<StorePlan>, Error> {
    let mut compositions = composer.compose(stores)?;
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
                id: store.id.clone(),
                deployment: deployment.clone(),
                apps: project.apps_of(store).map(|app| app.name.clone()).collect(),
                compositions: own,
            });
        }
    }
    Ok(plans)
}

/// Files of a store that a rule of its own, or of an ancestor, drops: seldom what is meant.
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
                    "`{}` of `{}` for `{}` is dropped by the rule `{}` of `{}`; `!{path}` after it brings it back",
                    path.escape_debug(), composition.layers[*layer], composition.unit.app, origin.rule, origin.store
                ));
            }
        }
    }
    notices.sort();
    notices.dedup();
    notices
}

fn unused(stores: &[StorePlan]) -> Vec<String> {
    let mut notices: Vec<String> = stores
        .iter()
        .flat_map(|store| &store.compositions)
        .flat_map(|composition| {
            composition.unused.iter().map(|unused| {
                format!(
                    "`{}` of `{}` for `{}` is not used: it always comes from the base app",
                    unused.path, unused.owner, composition.unit.app
                )
            })
        })
        .collect();
    notices.sort();
    notices.dedup();
    notices
}

/// The package manager, or an error that names the field that is wrong.
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
