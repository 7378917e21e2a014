//! Doing what the plan says, stage by stage: each stage takes the product of the stage before
//! it and returns its own, so `push` cannot be called before `image`.
//!
//! The driver here is plain code. Compose and prune work on rayon's threads, the others on
//! tokio's; the border is a stage's return, and no task outlives its stage.

mod attest;
mod base;
mod build;
mod builder;
mod clean;
mod compose;
mod context;
mod deploy;
mod destination;
mod docker;
mod failure;
mod halt;
mod image;
mod live;
mod lock;
mod preflight;
mod process;
mod prune;
mod push;
mod sandbox;
mod skip;
mod stored;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use build::{Built, Error as BuildError, ResultOrigin, forecast};
pub use builder::Image;
pub use clean::clean;
pub use compose::{ComposeChanges, Workdir, changes};
pub use context::{Access, Interrupt, RegistryClients, ScriptEnvironment, Services};
pub use deploy::{Error as ConsoleError, LiveStore};
pub use destination::collect_layers;
pub use docker::Error as DockerError;
pub use failure::{Error, Failure, Io, StageError};
pub use lock::ProjectLock;
pub use prune::{Artifact, Error as PruneError, Sizes};
pub use push::Pushed;
pub use sandbox::{COMMAND as SANDBOX_COMMAND, NotStarted, SandboxRules, enforce};

use crate::event::{Event, Stage, seconds};
use crate::plan::{BUILD, Plan};
use crate::store::{StoreId, UnitId};
use failure::StageResult;
use preflight::PreparedRun;
use skip::PresentImage;

/// Where results are kept, relative to the project.
pub const CACHE: &str = ".alokai/cache";

/// What a run made, whether it ended well or not.
#[derive(Debug, Default)]
pub struct RunSummary {
    /// A row a unit that was at least built.
    pub units: Vec<UnitSummary>,
    /// Stores that are live now.
    pub live: Vec<LiveStore>,
    /// What would save time the next time, for people.
    pub hints: Vec<String>,
    /// Wall time of the whole run.
    pub elapsed: Duration,
    /// Wall time of this program itself: without scripts, the engine and the network.
    pub own: Duration,
}

/// One unit's results, as far as it came.
#[derive(Debug, Clone)]
pub struct UnitSummary {
    /// Store and app.
    pub unit: UnitId,
    /// Time of its build script.
    pub build: Option<Duration>,
    /// Where the result of that comes from.
    pub origin: Option<ResultOrigin>,
    /// Bytes in `.deploy`.
    pub deploy_size: Option<u64>,
    /// Whether its image was there before the run, so that nothing was done for it.
    pub was_there: bool,
    /// Bytes of the image, base included: of the engine's as they are unpacked, of others as
    /// they are sent.
    pub image_size: Option<u64>,
    /// Digest of the pushed manifest.
    pub digest: Option<String>,
    /// Full reference.
    pub reference: Option<String>,
}

/// Carries the plan out as far as it reaches, under the project's lock. The summary tells what was made even when the
/// run failed.
pub fn run(
    plan: &Arc<Plan>,
    context: &Arc<Services>,
    _lock: &ProjectLock,
) -> (RunSummary, Result<(), Error>) {
    let mut summary = RunSummary::default();
    let result = stages(plan, context, &mut summary);
    // At the end: whatever clocks say, nothing goes that this run still needs.
    if plan.until >= Stage::Image
        && let Err(error) = collect_layers(&plan.project, plan.cache_limits, context.began())
    {
        context.warn_once(error);
    }
    summary.elapsed = context.started.elapsed();
    summary.own = summary
        .elapsed
        .saturating_sub(context.events.outside_time());
    (summary, result)
}

fn stages(
    plan: &Arc<Plan>,
    context: &Arc<Services>,
    summary: &mut RunSummary,
) -> Result<(), Error> {
    for notice in &plan.notices {
        context.events.notice(notice);
    }
    // `--changed`, and nothing has.
    if plan.stores.is_empty() {
        return Ok(());
    }
    let mut ready = context.wait(preflight::check(plan, context))?;
    let there = std::mem::take(&mut ready.there);
    let order = plan;
    let rest = less(plan, &there);
    let plan = &rest;
    let mut gate = StageGate {
        keep_going: context.keep_going,
        failures: Vec::new(),
    };

    summary.units.extend(there.iter().map(UnitSummary::there));
    // Everything may be there.
    let mut images = Vec::new();
    if !plan.images.is_empty() || there.is_empty() {
        match to_images(plan, &ready, context, &mut gate, summary)? {
            Some(made) => images = made,
            None => return gate.end(),
        }
    }
    let pushed = stage(context, Stage::Push, images.len(), || {
        context.wait(push::run(plan, &ready, images, context))
    });
    summary.each(&pushed.done, Pushed::unit, |row, pushed| {
        row.digest = Some(pushed.digest.to_string());
    });
    let mut pushed = gate.pass(Stage::Push, context, pushed, Pushed::unit)?;
    if plan.until == Stage::Push {
        return gate.end();
    }

    // A store whose other images failed does not go on for those that were there.
    let there = there.into_iter().map(|there| there.pushed);
    pushed.extend(there.filter(|pushed| !gate.has_lost(&pushed.unit.store)));
    let stores = order
        .releases
        .iter()
        .filter(|release| deploy::is_due(order, release, &pushed))
        .count();
    let live = stage(context, Stage::Deploy, stores, || {
        if order.local {
            live::run(order, &pushed, context)
        } else {
            context.wait(deploy::run(order, &pushed, context))
        }
    });
    summary.live.clone_from(&live.done);
    gate.failures.extend(live.failed);
    gate.end_of(Stage::Deploy, context)
}

/// The plan without what is there already.
fn less(plan: &Arc<Plan>, there: &[PresentImage]) -> Arc<Plan> {
    if there.is_empty() {
        return Arc::clone(plan);
    }
    let units = there.iter().map(|there| &there.pushed.unit);
    Arc::new(plan.without(&units.collect()))
}

/// The first four stages; none when that is all that was asked for.
fn to_images(
    plan: &Arc<Plan>,
    ready: &PreparedRun,
    context: &Arc<Services>,
    gate: &mut StageGate,
    summary: &mut RunSummary,
) -> Result<Option<Vec<Image>>, Error> {
    let Some(built) = to_built(plan, context, gate)? else {
        return Ok(None);
    };
    // What another script writes over composed files is no build's, and the next compose mends it.
    if plan.script == BUILD
        && let Err(error) = compose::keep(plan, &built.done)
    {
        context.events.notice(format!(
            "{error}: what builds wrote over composed files will be written over"
        ));
    }
    summary.built(&built.done);
    summary.hints.clone_from(&built.hints);
    let built = gate.pass(Stage::Build, context, built, Built::unit)?;
    if plan.until == Stage::Build {
        return Ok(None);
    }

    let artifacts = stage(context, Stage::Prune, plan.images.len(), || {
        prune::run(plan, built, context)
    });
    summary.each(&artifacts.done, Artifact::unit, |row, artifact| {
        row.deploy_size = Some(artifact.sizes.total());
    });
    let artifacts = gate.pass(Stage::Prune, context, artifacts, Artifact::unit)?;
    if plan.until == Stage::Prune {
        return Ok(None);
    }

    let images = stage(context, Stage::Image, artifacts.len(), || {
        context.wait(image::run(plan, ready, artifacts, context))
    });
    summary.each(&images.done, Image::unit, |row, image| {
        row.image_size = Some(image.size);
        row.reference = Some(image.reference.to_string());
    });
    let images = gate.pass(Stage::Image, context, images, Image::unit)?;
    Ok((plan.until > Stage::Image).then_some(images))
}

/// Composes and builds; none when that is all that was asked for. Mostly once: a kept result
/// that turns out to be damaged when it is unpacked is removed, and it is looked anew what has to
/// be there for its script.
fn to_built(
    plan: &Arc<Plan>,
    context: &Arc<Services>,
    gate: &mut StageGate,
) -> Result<Option<StageResult<Built>>, Error> {
    let mut distrusted = BTreeSet::new();
    loop {
        let outlook = context.wait(build::look(plan, &distrusted, context))?;
        let less = outlook.composed(plan);
        let composed = less.as_ref().unwrap_or(plan);
        let workdirs = stage(context, Stage::Compose, composed.stores.len(), || {
            compose::run(composed, context)
        })?;
        let workdirs = gate.pass(Stage::Compose, context, workdirs, Workdir::unit)?;
        if plan.until == Stage::Compose {
            return Ok(None);
        }
        let built = stage(context, Stage::Build, outlook.count(), || {
            context.wait(build::run(plan, &outlook, workdirs, context))
        });
        match built {
            Ok(built) => return Ok(Some(built)),
            Err(damaged) => distrusted.extend(damaged),
        }
    }
}

/// Sends a stage's beginning and end around its work.
fn stage<T>(context: &Services, stage: Stage, units: usize, work: impl FnOnce() -> T) -> T {
    let script = context.script.clone().filter(|_| stage == Stage::Build);
    context.events.send(Event::StageStarted {
        stage,
        units,
        script,
    });
    let started = Instant::now();
    let product = work();
    context.events.send(Event::StageFinished {
        stage,
        seconds: seconds(started.elapsed()),
    });
    product
}

impl UnitSummary {
    /// Of a unit for which nothing has to be done.
    fn there(there: &PresentImage) -> Self {
        Self {
            unit: there.pushed.unit.clone(),
            build: None,
            origin: None,
            deploy_size: None,
            was_there: true,
            image_size: Some(there.size),
            digest: Some(there.pushed.digest.to_string()),
            reference: Some(there.pushed.reference.to_string()),
        }
    }
}

impl RunSummary {
    /// Adds a row for each unit. One whose image is there has one already: it was built for
    /// others.
    fn built(&mut self, all: &[Built]) {
        let rows = self.units.iter().enumerate();
        let mut known: BTreeMap<UnitId, usize> =
            rows.map(|(at, row)| (row.unit.clone(), at)).collect();
        for built in all {
            let (time, origin) = (Some(built.elapsed), Some(built.origin.clone()));
            if let Some(at) = known.get(built.unit()) {
                let row = &mut self.units[*at];
                (row.build, row.origin) = (time, origin);
                continue;
            }
            known.insert(built.unit().clone(), self.units.len());
            self.units.push(UnitSummary {
                unit: built.unit().clone(),
                build: time,
                origin,
                deploy_size: None,
                was_there: false,
                image_size: None,
                digest: None,
                reference: None,
            });
        }
    }

    fn each<T>(
        &mut self,
        products: &[T],
        unit: impl Fn(&T) -> &UnitId,
        set: impl Fn(&mut UnitSummary, &T),
    ) {
        let by_unit: BTreeMap<&UnitId, &T> = products.iter().map(|one| (unit(one), one)).collect();
        for row in &mut self.units {
            if let Some(product) = by_unit.get(&row.unit) {
                set(row, product);
            }
        }
    }
}

/// The barrier between stages: nothing goes on while anything failed, or, with `--keep-going`,
/// whole stores drop out and the rest goes on.
struct StageGate {
    keep_going: bool,
    failures: Vec<Failure>,
}

impl StageGate {
    fn pass<T>(
        &mut self,
        stage: Stage,
        context: &Services,
        settled: StageResult<T>,
        unit: impl Fn(&T) -> &UnitId,
    ) -> Result<Vec<T>, Error> {
        self.failures.extend(settled.failed);
        if context.interrupt.stopped() || (!self.failures.is_empty() && !self.keep_going) {
            self.end_of(stage, context)?;
        }
        let lost = |store: &StoreId| {
            self.has_lost(store) || settled.skipped.iter().any(|unit| unit.store == *store)
        };
        Ok(settled
            .done
            .into_iter()
            .filter(|product| !lost(&unit(product).store))
            .collect())
    }

    /// Whether a unit of the store has failed.
    fn has_lost(&self, store: &StoreId) -> bool {
        let mut failures = self.failures.iter();
        failures.any(|failure| failure.unit.store.as_ref() == Some(store))
    }

    fn end_of(&mut self, stage: Stage, context: &Services) -> Result<(), Error> {
        if context.interrupt.stopped() {
            // What failed before is told too; that a unit was interrupted says nothing new.
            let mut failures = std::mem::take(&mut self.failures);
            failures.retain(|failure| !failure.error.is_interruption());
            return Err(Error::Interrupted { stage, failures });
        }
        self.end()
    }

    fn end(&mut self) -> Result<(), Error> {
        if self.failures.is_empty() {
            return Ok(());
        }
        Err(Error::Failed {
            failures: std::mem::take(&mut self.failures),
        })
    }
}
