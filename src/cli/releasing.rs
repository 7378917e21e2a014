//! The release step of `store deploy`: makes the builds of a run live at their targets.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures_util::future::join_all;
use tokio::runtime::Runtime;

use super::arguments::flow::ReleaseOptions;
use super::ask_targets::{Answer, TargetsByKind, ask_each, observe};
use super::listing::short_commit;
use super::live_records::LiveRecords;
use super::record::FinishedStores;
use super::run::PreparedCommand;
use super::services::services_without_run;
use super::{Error, environment};
use crate::config::{HookStage, Project};
use crate::error::Error as AnyError;
use crate::event::Stage;
use crate::ledger::{
    BuildRecord, BuildStatus, RecordFolder, RecordId, RecordSet, ReleaseReason, continue_after,
};
use crate::pipeline::{self, Access, PipelineOptions, Services, StageError, TargetChecks};
use crate::plan::{Plan, ReleaseSteps, no_staging};
use crate::release::{
    self, Flow, FlowOptions, ReleaseAction, ReleaseOrder, StoreOutcome, ancestry_of, build_of,
    new_release, steps_of, waves,
};
use crate::report::Deployed;
use crate::store::{StoreId, TargetKind};
use crate::target::{Observed, Target, TargetContext, place_options, target_of};

/// The targets of the stores of a run.
pub struct RunTargets {
    context: TargetContext,
    targets: BTreeMap<&'static str, Arc<dyn Target>>,
    records: LiveRecords,
    wanted: ReleaseOptions,
    waves: Vec<Vec<StoreId>>,
}

/// The stores whose release was made.
#[derive(Debug, Default)]
pub struct Released {
    /// Those whose release is live.
    pub live: Vec<Deployed>,
    /// Those whose release gets no traffic.
    pub not_live: Vec<Deployed>,
}

impl Released {
    /// Sorts what was done into both.
    pub fn of(done: &[StoreOutcome]) -> Self {
        let (live, not_live): (Vec<_>, Vec<_>) = done.iter().partition(|it| it.is_active);
        let rows = |outcomes: Vec<&StoreOutcome>| outcomes.into_iter().map(deployed).collect();
        Self {
            live: rows(live),
            not_live: rows(not_live),
        }
    }
}

/// The stores whose release was made, as the summary and the records have them, and how the run ended.
type ReleasedRun = (Released, FinishedStores, Result<(), pipeline::Error>);

impl RunTargets {
    /// The targets of the stores that the plan makes live.
    pub fn new(
        plan: &Arc<Plan>,
        project: Arc<Project>,
        services: &Arc<Services>,
        wanted: ReleaseOptions,
    ) -> Result<Self, AnyError> {
        let stores: Vec<_> = plan.releases.iter().map(|it| it.store.clone()).collect();
        let waves = if wanted.wave.is_empty() {
            Vec::new()
        } else {
            waves(&wanted.wave, &stores, &project.settings.deploy.waves)?
        };
        let destination = plan.destination.as_ref();
        let records = LiveRecords::new(&project, destination, Arc::clone(services));
        let context = TargetContext {
            project,
            services: Arc::clone(services),
            console: plan.console.clone(),
            plan: Some(Arc::clone(plan)),
            local: environment::local_client(&plan.project),
            examines: false,
        };
        let mut targets = BTreeMap::new();
        for release in &plan.releases {
            let kind = release.target;
            if let std::collections::btree_map::Entry::Vacant(entry) = targets.entry(kind.name()) {
                entry.insert(target_of(kind, &context).map_err(release::Error::from)?);
            }
        }
        Ok(Self {
            context,
            targets,
            records,
            wanted,
            waves,
        })
    }

    /// Checks that all targets can be used, and that no store runs a newer commit by the records of all
    /// machines.
    pub fn checks<'a>(&'a self, plan: &'a Plan) -> TargetChecks<'a> {
        Box::pin(async {
            let stores = plan.releases.iter().map(|it| &it.store);
            self.records.fetch_all(stores).await;
            let checks = self.targets.values().map(|target| target.preflight());
            let results = join_all(checks).await;
            let problems = results.into_iter().filter_map(Result::err);
            let problems = problems.map(StageError::from);
            problems.chain(self.older(plan)).collect()
        })
    }

    /// Makes the builds live whose images are all at the destination. `runs` are the recorded starts.
    pub fn release(
        &self,
        plan: &Plan,
        builds: &[BuildRecord],
        result: Result<(), pipeline::Error>,
        (options, runs): (&PipelineOptions, BTreeMap<StoreId, RecordId>),
    ) -> ReleasedRun {
        let services = &self.context.services;
        let records = &self.records;
        let ancestry = ancestry_of(&plan.project);
        let flow = Flow {
            project: &self.context.project,
            plan: Some(plan),
            services,
            records,
            ancestry: &ancestry,
            options: FlowOptions {
                keep_going: options.keep_going,
                allow_older: self.wanted.allow_older,
                waves: self.waves.clone(),
                actor: environment::actor(),
                operation: "deploy".into(),
                failed: failed_stores(plan, builds),
                runs,
                scripts: options.scripts.clone(),
            },
        };
        let known = release::Records::read(records).unwrap_or_default();
        continue_after(&known);
        let recorded = known.targets();
        let orders = plan.releases.iter().filter_map(|release| {
            let build = builds.iter().find(|it| it.store == release.store)?;
            let is_complete = build.status == BuildStatus::Complete;
            let target = self.targets.get(release.target.name())?;
            let live = recorded.last_live(&release.store, release.target.name());
            is_complete.then(|| self.order(build, release.target, target, (&*known, live)))
        });
        let flowed = services.wait(flow.run(orders.collect()));
        for outcome in flowed.done.iter().filter(|it| !it.is_active) {
            services.events.notice(not_live(outcome));
        }
        if !flowed.untouched.is_empty() {
            let stores: Vec<_> = flowed.untouched.iter().map(ToString::to_string).collect();
            let stores = stores.join(", ");
            services
                .events
                .notice(format!("these stores are unchanged: {stores}"));
        }
        let released = Released::of(&flowed.done);
        let finished = flowed.done.iter();
        let finished = finished
            .map(|it| (it.store.clone(), Some(it.release.id.clone())))
            .collect();
        let mut failures = match result {
            Err(pipeline::Error::Failed { failures }) => failures,
            _ => Vec::new(),
        };
        failures.extend(flowed.failed);
        let result = if services.interrupt.stopped() {
            failures.retain(|failure| !failure.error.is_interruption());
            Err(pipeline::Error::Interrupted {
                stage: Stage::Deploy,
                failures,
            })
        } else if failures.is_empty() {
            Ok(())
        } else {
            Err(pipeline::Error::Failed { failures })
        };
        (released, finished, result)
    }

    /// The order that makes a build live. `known` are the records, and `live` is the release that is live by
    /// them.
    fn order(
        &self,
        build: &BuildRecord,
        kind: TargetKind,
        target: &Arc<dyn Target>,
        (known, live): (&RecordSet, Option<&RecordId>),
    ) -> ReleaseOrder {
        let settings = known.next_settings(&build.store, kind.name(), live);
        let (reason, actor) = (ReleaseReason::Deploy, environment::actor());
        ReleaseOrder {
            target: Arc::clone(target),
            build: build.clone(),
            release: new_release(build, kind.name(), reason, settings, &actor),
            is_recorded: false,
            action: if self.wanted.no_release {
                ReleaseAction::Stage
            } else {
                ReleaseAction::Deploy
            },
        }
    }

    /// Stores whose live release is of a newer commit, by the records.
    fn older(&self, plan: &Plan) -> Vec<StageError> {
        let Ok((records, _)) = RecordFolder::of_project(&plan.project).read() else {
            return Vec::new();
        };
        let older = older(plan, &self.wanted, &records).into_iter();
        older.map(StageError::from).collect()
    }
}

/// The stores of a plan without a complete build.
fn failed_stores(plan: &Plan, builds: &[BuildRecord]) -> BTreeSet<StoreId> {
    let complete = builds
        .iter()
        .filter(|it| it.status == BuildStatus::Complete);
    let complete: BTreeSet<_> = complete.map(|build| &build.store).collect();
    let stores = plan.releases.iter().map(|release| &release.store);
    stores
        .filter(|store| !complete.contains(store))
        .cloned()
        .collect()
}

/// Why a deploy is refused: stores whose live release is of a newer commit.
fn older(plan: &Plan, wanted: &ReleaseOptions, records: &RecordSet) -> Vec<release::Error> {
    let revision = plan.revision.as_ref();
    let Some(own) = revision.filter(|_| !wanted.allow_older && !wanted.no_release) else {
        return Vec::new();
    };
    let targets = records.targets();
    let ancestry = ancestry_of(&plan.project);
    let problems = plan.releases.iter().filter_map(|planned| {
        let history = targets.get(&planned.store, planned.target.name())?;
        let active = history.state.active.as_ref()?;
        if history.state.pin.is_some() {
            return None;
        }
        let live = build_of(records, active)?.commit.as_ref()?;
        let is_older = own.sha != live.sha && ancestry(&own.sha, &live.sha) == Some(true);
        let error = release::Error::Older {
            store: planned.store.clone(),
            active: active.clone(),
            reason: format!(
                "{} is an ancestor of {}",
                short_commit(&own.sha),
                short_commit(&live.sha)
            ),
            place: place_options(&planned.store, planned.target.name()),
        };
        is_older.then_some(error)
    });
    problems.collect()
}

/// What the records say about the stores of a plan at one target, for a dry run.
fn notes(
    plan: &Plan,
    kind: TargetKind,
    groups: &[Vec<StoreId>],
    pinned: &BTreeSet<&StoreId>,
) -> Vec<String> {
    let is_here = |store: &StoreId| {
        let mut releases = plan.releases.iter();
        releases.any(|it| it.store == *store && it.target == kind)
    };
    let names = |stores: &[&StoreId]| {
        let names: Vec<_> = stores.iter().map(ToString::to_string).collect();
        names.join(", ")
    };
    let mut notes = Vec::new();
    let pinned = pinned.iter().copied().filter(|store| is_here(store));
    notes.extend(pinned.map(|store| {
        format!(
            "`{store}` is pinned: its release is staged and gets no traffic. `alokai store unpin {}` removes the pin.",
            place_options(store, kind.name())
        )
    }));
    let grouped: BTreeSet<&StoreId> = groups.iter().flatten().collect();
    let all = plan.releases.iter().map(|it| &it.store);
    let rest: Vec<_> = all.filter(|store| !grouped.contains(store)).collect();
    let groups = groups.iter().map(|group| group.iter().collect::<Vec<_>>());
    let waves = groups.chain([rest]).filter(|wave| !wave.is_empty());
    for (number, wave) in (1..).zip(waves) {
        let here: Vec<_> = wave.into_iter().filter(|store| is_here(store)).collect();
        if !grouped.is_empty() && !here.is_empty() {
            notes.push(format!("Wave {number}: {}.", names(&here)));
        }
    }
    notes
}

/// What targets are made from for questions about a plan that is not carried out.
fn context_of(plan: &Plan, project: Project, access: Access, runtime: &Runtime) -> TargetContext {
    let services = services_without_run(&plan.project, access, runtime.handle().clone());
    TargetContext {
        services: Arc::new(services),
        project: Arc::new(project),
        console: plan.console.clone(),
        plan: None,
        local: environment::local_client(&plan.project),
        examines: false,
    }
}

/// What the targets of these stores of a plan run. `None` for a target that does not say.
pub fn observed(
    plan: &Plan,
    prepared: &PreparedCommand,
    stores: &[&StoreId],
) -> Result<BTreeMap<StoreId, Answer<Option<Observed>>>, AnyError> {
    let releases = plan.releases.iter();
    let releases: Vec<_> = releases.filter(|it| stores.contains(&&it.store)).collect();
    if releases.is_empty() {
        return Ok(BTreeMap::new());
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|source| Error::Start { source })?;
    let access = prepared.surroundings.access.clone();
    let context = context_of(plan, prepared.project.clone(), access, &runtime);
    let mut targets = TargetsByKind::new(&context);
    let known = releases
        .into_iter()
        .map(|release| (release.store.clone(), targets.of(release.target)));
    let asking = ask_each(known.collect(), observe);
    Ok(runtime.block_on(asking).into_iter().collect())
}

/// The steps of each target of a plan.
pub fn steps(plan: &Plan, prepared: PreparedCommand) -> Result<Vec<ReleaseSteps>, AnyError> {
    if plan.releases.is_empty() {
        return Ok(Vec::new());
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|source| Error::Start { source })?;
    let wanted = prepared.release;
    let access = prepared.surroundings.access;
    let context = context_of(plan, prepared.project, access, &runtime);
    let kinds: BTreeMap<_, _> = plan
        .releases
        .iter()
        .map(|it| (it.target.name(), it.target))
        .collect();
    let settings = &context.project.settings.deploy;
    let records = RecordFolder::of_project(&plan.project).read();
    let (records, _) = records.unwrap_or_default();
    let stores: Vec<_> = plan.releases.iter().map(|it| it.store.clone()).collect();
    let groups = if wanted.wave.is_empty() {
        Vec::new()
    } else {
        waves(&wanted.wave, &stores, &settings.waves)?
    };
    let known = records.targets();
    let pinned = plan.releases.iter().filter(|it| {
        let history = known.get(&it.store, it.target.name());
        history.is_some_and(|history| history.state.pin.is_some())
    });
    let pinned: BTreeSet<_> = pinned.map(|it| &it.store).collect();
    let refused = older(plan, &wanted, &records);
    let steps = kinds.into_values().map(|kind| {
        let target = target_of(kind, &context).map_err(release::Error::from)?;
        let mut here = plan.releases.iter().filter(|it| it.target == kind);
        let all_pinned = here.all(|it| pinned.contains(&it.store));
        let mut steps = steps_of(&*target, settings, wanted.no_release || all_pinned);
        let refusals = refused.iter().filter(|error| match error {
            release::Error::Older { store, .. } => plan
                .releases
                .iter()
                .any(|it| it.store == *store && it.target == kind),
            _ => false,
        });
        steps.notes = refusals
            .map(|error| format!("This deploy is refused without `--allow-older`: {error}."))
            .collect();
        steps.notes.extend(notes(plan, kind, &groups, &pinned));
        if !target.capabilities().staging {
            let idle = plan.hooks.iter().filter(|it| it.stage == HookStage::Stage);
            let idle: BTreeSet<_> = idle.map(|hook| &hook.store).collect();
            let here = plan.releases.iter().filter(|it| it.target == kind);
            let idle = here.filter(|it| idle.contains(&it.store));
            let notices = idle.map(|it| no_staging(&it.store, kind.name()));
            steps
                .notes
                .extend(notices.map(|notice| format!("Note: {notice}.")));
        }
        Ok(steps)
    });
    steps.collect()
}

fn not_live(outcome: &StoreOutcome) -> String {
    let reason = outcome.reason.as_deref().unwrap_or_default();
    let address = outcome.address.as_ref();
    let place = address.map_or_else(String::new, |address| format!(" at {address}"));
    let state = if outcome.is_staged {
        format!("is staged{place} and gets no traffic")
    } else {
        "is recorded and does not run".to_owned()
    };
    format!(
        "{}: {} {state}, because {reason}; `alokai store release {} {}` makes it live",
        outcome.store,
        outcome.release.id,
        outcome.release.id,
        place_options(&outcome.store, &outcome.release.target)
    )
}

fn deployed(outcome: &StoreOutcome) -> Deployed {
    Deployed {
        store_id: outcome.store.to_string(),
        release: outcome.release.id.to_string(),
        target: outcome.release.target.clone(),
        address: outcome.address.clone().unwrap_or_default(),
        is_local: outcome.release.target == TargetKind::Local.name(),
    }
}
