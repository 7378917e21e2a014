//! Carries out a plan stage by stage, up to the push. Each stage takes the product of the stage before it and returns
//! its own, so `push` cannot be called before `image`.
//!
//! The driver in this file is synchronous. Compose and prune use rayon's threads, the other stages
//! use tokio's. No thread or task outlives its stage.

mod attest;
mod base;
mod build;
mod builder;
mod clean;
mod compose;
mod destination;
pub mod docker;
mod failure;
mod gate;
mod halt;
mod hooks;
mod image;
mod lock;
mod preflight;
mod probe;
mod process;
mod prune;
mod push;
mod sandbox;
mod services;
mod skip;
mod start;
mod stored;
mod summary;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

pub use build::{Built, Error as BuildError, ResultOrigin, forecast, free_memory};
pub use builder::Image;
pub use clean::clean;
pub use compose::{
    ChangedFiles, ComposeChanges, NAMED_FILES, SyncScope, Workdir, changes, keep_server_edits,
    put_in_step,
};
pub use destination::collect_layers;
pub use docker::Error as DockerError;
pub use failure::{DeployError, DeployFault, Error, Failure, Io, StageError};
pub use hooks::{
    Error as HookError, HookContext, HookImage, HookRun, HookRunner, HookRuns, UnpackedImage,
};
pub use lock::{ProjectLock, Session, SessionLock, own_folder};
pub use probe::{EngineFound, base_image, engine, registry, sandbox_support};
pub use process::{PieceReader, RunningGroup, TAIL, group_of, lives, readable, signal};
pub use prune::{
    Artifact, Error as PruneError, FOLDER as ARTIFACT_FOLDER, MissingModule, ModuleRequest,
    RequestKind, RequestTime, Sizes, is_current as artifact_is_current, unresolved,
};
pub use push::Pushed;
pub use sandbox::{COMMAND as SANDBOX_COMMAND, NotStarted, SandboxRules, enforce};
pub use services::{
    Access, EngineAccess, Interrupt, KubernetesAccess, PipelineOptions, RegistryClients,
    ScriptEnvironment, Services,
};
pub use start::{
    CommandEnd, Error as StartError, FailedServer, RunningServer, ServerCommand, ServerEnvironment,
    ServerStart, free_ports, how, is_in_use, isolated_folder,
};
pub use summary::{RunSummary, UnitSummary};

use crate::config::{HookStage, HookTime};
use crate::event::{Event, Stage, seconds};
use crate::plan::{Plan, RunScope, Work, run_stage};
use crate::store::{StoreId, UnitId};
use build::BuildRun;
use failure::StageResult;
use futures_util::future::LocalBoxFuture;
use gate::StageGate;
use hooks::StageHooks;
use preflight::PreparedRun;

/// The folder of the cache, relative to the project.
pub const CACHE: &str = ".alokai/cache";

/// The checks of the targets, which run before the first build. They return everything that is wrong.
pub type TargetChecks<'a> = LocalBoxFuture<'a, Vec<StageError>>;

/// The checks of a run that makes no store live.
pub fn without_targets<'a>() -> TargetChecks<'a> {
    Box::pin(async { Vec::new() })
}

/// Carries out the plan under the project's lock, up to the push. The summary contains all results,
/// also those of a failed run.
pub fn run(
    plan: &Arc<Plan>,
    services: &Arc<Services>,
    options: &Arc<PipelineOptions>,
    targets: TargetChecks,
    _lock: &ProjectLock,
) -> (RunSummary, Result<(), Error>) {
    let mut driver = Driver {
        plan,
        services,
        options,
        targets: Some(targets),
        gate: StageGate {
            keep_going: options.keep_going,
            failures: Vec::new(),
        },
        hooks: StageHooks::new(plan, services, options),
        summary: RunSummary::default(),
    };
    let result = driver.run();
    let mut summary = driver.summary;
    // At the end of the run, so that no blob is removed that the run still needs.
    if plan.until >= Stage::Image
        && let Err(error) = collect_layers(&plan.project, plan.cache_limits, services.began())
    {
        services.events.notice(format!(
            "old layers could not be removed from the cache: {error}"
        ));
    }
    summary.elapsed = services.started.elapsed();
    let outside = services.events.waiting_time();
    summary.own = summary.elapsed.saturating_sub(outside);
    (summary, result)
}

/// The stages of one run, in order.
struct Driver<'a> {
    plan: &'a Arc<Plan>,
    services: &'a Arc<Services>,
    options: &'a Arc<PipelineOptions>,
    targets: Option<TargetChecks<'a>>,
    gate: StageGate,
    hooks: StageHooks<'a>,
    summary: RunSummary,
}

impl Driver<'_> {
    fn run(&mut self) -> Result<(), Error> {
        for notice in &self.plan.notices {
            self.services.events.notice(notice);
        }
        // `--changed` may select no store.
        if self.plan.stores.is_empty() {
            return Ok(());
        }
        match &self.plan.work {
            Work::Build => self.push_images(),
            Work::Packages | Work::Script(_) => self.run_scripts(),
        }
    }

    /// Runs other scripts than the `build` scripts of apps. No stage follows.
    fn run_scripts(&mut self) -> Result<(), Error> {
        let scope = RunScope::all(self.plan);
        if let Some(ran) = self.compose_and_build(&scope)? {
            self.pass(Stage::Build, ran, Built::unit)?;
        }
        self.gate.end()
    }

    /// All stages up to the push, or the plan's last one.
    fn push_images(&mut self) -> Result<(), Error> {
        let (plan, services) = (self.plan, self.services);
        let targets = self.targets.take();
        let targets = targets.unwrap_or_else(without_targets);
        let preparing = preflight::check(plan, services, self.options, targets);
        let prepared = services.wait(preparing)?;
        let present = prepared.present();
        let units = present.iter().map(|image| &image.pushed.unit);
        let scope = RunScope::without(plan, &units.collect());
        let rows = present.iter().map(UnitSummary::present);
        self.summary.units.extend(rows);

        let mut images = Vec::new();
        // Without an image to build, all images are at the destination already.
        if scope.images() > 0 || present.is_empty() {
            match self.build_images(&scope, &prepared)? {
                Some(built) => images = built,
                None => return self.gate.end(),
            }
        }
        let Some(destination) = prepared.destination() else {
            return self.gate.end();
        };
        let images = self.begin(HookStage::Push, images, Image::unit)?;
        let pushed = stage(services, Stage::Push, None, images.len(), || {
            services.wait(push::run(plan, destination, images, services, self.options))
        });
        self.summary
            .each(&pushed.done, Pushed::unit, |row, pushed| {
                row.digest = Some(pushed.digest.to_string());
            });
        let mut pushed = self.pass(Stage::Push, pushed, Pushed::unit)?;
        let stores = stores_of(&pushed, Pushed::unit);
        // A store with a failed image is not deployed with the images that were present.
        let present = present.iter().map(|image| image.pushed.clone());
        pushed.extend(present.filter(|pushed| !self.gate.has_lost(&pushed.unit.store)));
        self.run_hooks((HookTime::After, HookStage::Push), &stores, &pushed)?;
        pushed.retain(|pushed| !self.gate.has_lost(&pushed.unit.store));
        let is_whole = |store: &StoreId| {
            let mut images = plan.images.iter();
            images.all(|image| {
                image.unit.store != *store || pushed.iter().any(|it| it.unit == image.unit)
            })
        };
        let whole = pushed.iter().filter(|it| is_whole(&it.unit.store));
        self.summary.pushed = whole.cloned().collect();
        self.gate.end()
    }

    /// The stages up to the image stage; none if the run ends before it or with it.
    fn build_images(
        &mut self,
        scope: &RunScope,
        prepared: &PreparedRun,
    ) -> Result<Option<Vec<Image>>, Error> {
        let (plan, services) = (self.plan, self.services);
        let Some(built) = self.compose_and_build(scope)? else {
            return Ok(None);
        };
        if let Err(error) = compose::keep(plan, &built.done) {
            services.events.notice(format!(
                "{error}; the next compose overwrites composed files that builds have changed"
            ));
        }
        let mut built = self.end(HookStage::Build, built, Built::unit)?;
        if plan.until == Stage::Build {
            return Ok(None);
        }

        built.retain(|built| scope.has_image(built.unit()));
        let built = self.begin(HookStage::Prune, built, Built::unit)?;
        let artifacts = stage(services, Stage::Prune, None, scope.images(), || {
            prune::run(plan, built, services)
        });
        let artifacts = start::verify(plan, artifacts, services, self.options);
        self.summary
            .each(&artifacts.done, Artifact::unit, |row, artifact| {
                row.deploy_size = Some(artifact.sizes.total());
            });
        let artifacts = self.end(HookStage::Prune, artifacts, Artifact::unit)?;
        let Some(builders) = prepared.builders() else {
            return Ok(None);
        };
        let artifacts = self.begin(HookStage::Image, artifacts, Artifact::unit)?;

        let images = stage(services, Stage::Image, None, artifacts.len(), || {
            services.wait(image::run(
                plan,
                builders,
                artifacts,
                services,
                self.options,
            ))
        });
        self.summary.each(&images.done, Image::unit, |row, image| {
            row.image_size = Some(image.size);
            row.reference = Some(image.reference().to_string());
        });
        let images = self.end(HookStage::Image, images, Image::unit)?;
        Ok(Some(images))
    }

    /// Composes, and runs the scripts; none if the run ends with composing. If a cached result turns
    /// out to be damaged when it is unpacked, both stages are repeated without it, because its script
    /// may need files that were not composed.
    fn compose_and_build(&mut self, scope: &RunScope) -> Result<Option<StageResult<Built>>, Error> {
        let (plan, services) = (self.plan, self.services);
        let run = BuildRun {
            plan: Arc::clone(plan),
            services: Arc::clone(services),
            options: Arc::clone(self.options),
        };
        let mut distrusted = BTreeSet::new();
        loop {
            let lookup = services.wait(build::look_up(&run, scope, &distrusted))?;
            let workdirs = match plan.work {
                Work::Packages if lookup.count() == 0 => return Ok(None),
                Work::Packages => Vec::new(),
                Work::Build | Work::Script(_) => {
                    let mut stores = lookup.stores_to_compose(plan, scope);
                    let ids = stores.iter().map(|store| store.id.clone()).collect();
                    self.run_hooks((HookTime::Before, HookStage::Compose), &ids, &[])?;
                    stores.retain(|store| !self.gate.has_lost(&store.id));
                    let workdirs = stage(services, Stage::Compose, None, stores.len(), || {
                        compose::run(plan, &stores, services, self.options)
                    })?;
                    self.end(HookStage::Compose, workdirs, Workdir::unit)?
                }
            };
            if plan.until == Stage::Compose {
                return Ok(None);
            }
            let workdirs = self.begin(HookStage::Build, workdirs, Workdir::unit)?;
            let script = plan.work.other_script();
            let built = stage(services, Stage::Build, script, lookup.count(), || {
                services.wait(build::run(&run, &lookup, workdirs))
            });
            match built {
                Ok(built) => {
                    self.summary.built(&built.done);
                    self.summary.packages.clone_from(&built.packages);
                    self.summary.hints.clone_from(&built.hints);
                    return Ok(Some(built));
                }
                Err(damaged) => distrusted.extend(damaged),
            }
        }
    }

    /// Passes the products of a stage on to the next one.
    fn pass<T>(
        &mut self,
        stage: Stage,
        result: StageResult<T>,
        unit: impl Fn(&T) -> &UnitId,
    ) -> Result<Vec<T>, Error> {
        self.gate.pass(stage, self.services, result, unit)
    }

    /// Passes products on to a stage, after the hooks before it.
    fn begin<T>(
        &mut self,
        stage: HookStage,
        mut products: Vec<T>,
        unit: impl Fn(&T) -> &UnitId,
    ) -> Result<Vec<T>, Error> {
        let stores = stores_of(&products, &unit);
        self.run_hooks((HookTime::Before, stage), &stores, &[])?;
        products.retain(|product| !self.gate.has_lost(&unit(product).store));
        Ok(products)
    }

    /// Passes the products of a stage on, after the hooks after it. The products of a store with a
    /// failed hook are not used.
    fn end<T>(
        &mut self,
        stage: HookStage,
        result: StageResult<T>,
        unit: impl Fn(&T) -> &UnitId,
    ) -> Result<Vec<T>, Error> {
        let mut products = self.pass(run_stage(stage), result, &unit)?;
        let stores = stores_of(&products, &unit);
        self.run_hooks((HookTime::After, stage), &stores, &[])?;
        products.retain(|product| !self.gate.has_lost(&unit(product).store));
        Ok(products)
    }

    /// Runs the hooks at one place. A store with a failed hook is left out of all later stages.
    fn run_hooks(
        &mut self,
        place: (HookTime, HookStage),
        stores: &BTreeSet<StoreId>,
        pushed: &[Pushed],
    ) -> Result<(), Error> {
        let services = self.services;
        let (runs, failures) = services.wait(self.hooks.run(place, stores, pushed));
        self.summary.hooks.extend(runs);
        let has_failed = !failures.is_empty();
        self.gate.failures.extend(failures);
        if services.interrupt.stopped() || (has_failed && !self.gate.keep_going) {
            return self.gate.end_of(run_stage(place.1), services);
        }
        Ok(())
    }
}

/// The stores of products.
fn stores_of<T>(products: &[T], unit: impl Fn(&T) -> &UnitId) -> BTreeSet<StoreId> {
    products
        .iter()
        .map(|product| unit(product).store.clone())
        .collect()
}

/// Sends the events of a stage's beginning and end around its work.
fn stage<T>(
    services: &Services,
    stage: Stage,
    script: Option<&str>,
    units: usize,
    work: impl FnOnce() -> T,
) -> T {
    services.events.send(Event::StageStarted {
        stage,
        units,
        script: script.map(str::to_owned),
    });
    let started = Instant::now();
    let product = work();
    services.events.send(Event::StageFinished {
        stage,
        seconds: seconds(started.elapsed()),
    });
    product
}
