//! The releases of `store deploy`: what its builds become at their targets.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::future::join_all;
use jiff::Timestamp;

use super::environment;
use crate::config::Project;
use crate::error::Error as AnyError;
use crate::event::Stage;
use crate::ledger::{
    BuildRecord, BuildStatus, RecordFolder, RecordId, RecordKind, ReleaseReason, ReleaseRecord,
    SCHEMA_VERSION,
};
use crate::pipeline::{self, PipelineOptions, Services, StageError, TargetChecks};
use crate::plan::{Plan, ServerPlan};
use crate::release::{self, Flow, FlowOptions, ReleaseOrder, StoreOutcome, Wish};
use crate::report::Deployed;
use crate::store::TargetKind;
use crate::target::{Target, TargetContext, target_of};

/// The targets of the stores of a run.
pub struct RunTargets {
    context: TargetContext,
    targets: BTreeMap<&'static str, Arc<dyn Target>>,
}

/// The stores that were deployed, and how the run ended.
type ReleasedRun = (Vec<Deployed>, Result<(), pipeline::Error>);

impl RunTargets {
    /// The targets of the stores that the plan makes live.
    pub fn new(
        plan: &Arc<Plan>,
        project: Arc<Project>,
        services: &Arc<Services>,
    ) -> Result<Self, AnyError> {
        let context = TargetContext {
            project,
            services: Arc::clone(services),
            console: plan.console.clone(),
            plan: Some(Arc::clone(plan)),
        };
        let mut targets = BTreeMap::new();
        for release in &plan.releases {
            let kind = release.target;
            if let std::collections::btree_map::Entry::Vacant(entry) = targets.entry(kind.name()) {
                entry.insert(target_of(kind, &context).map_err(release::Error::from)?);
            }
        }
        Ok(Self { context, targets })
    }

    /// Checks that all targets can be used.
    pub fn checks(&self) -> TargetChecks<'_> {
        let checks = self.targets.values().map(|target| target.preflight());
        Box::pin(async {
            let results = join_all(checks).await;
            let problems = results.into_iter().filter_map(Result::err);
            problems.map(StageError::from).collect()
        })
    }

    /// Makes the builds live whose images are all at the destination.
    pub fn release(
        &self,
        plan: &Plan,
        builds: &[BuildRecord],
        result: Result<(), pipeline::Error>,
        options: &PipelineOptions,
    ) -> ReleasedRun {
        let services = &self.context.services;
        let records = RecordFolder::of_project(&plan.project);
        let flow = Flow {
            project: &self.context.project,
            plan: Some(plan),
            services,
            records: &records,
            options: FlowOptions {
                keep_going: options.keep_going,
                allow_older: false,
                actor: environment::actor(),
                operation: "deploy".into(),
            },
        };
        let orders = plan.releases.iter().filter_map(|release| {
            let build = builds.iter().find(|it| it.store == release.store)?;
            let is_complete = build.status == BuildStatus::Complete;
            let target = self.targets.get(release.target.name())?;
            is_complete.then(|| self.order(build, release.target, target))
        });
        let flowed = services.wait(flow.run(orders.collect()));
        let done = flowed.done.iter().filter(|it| it.is_active);
        let deployed = done.map(|outcome| deployed(plan, outcome)).collect();
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
        (deployed, result)
    }

    fn order(
        &self,
        build: &BuildRecord,
        kind: TargetKind,
        target: &Arc<dyn Target>,
    ) -> ReleaseOrder {
        ReleaseOrder {
            target: Arc::clone(target),
            build: build.clone(),
            release: ReleaseRecord {
                schema_version: SCHEMA_VERSION,
                id: RecordId::new(RecordKind::Release, Timestamp::now()),
                store: build.store.clone(),
                target: kind.name().to_owned(),
                build: build.id.clone(),
                settings: None,
                setting_names: Vec::new(),
                reason: ReleaseReason::Deploy,
                copy_of: None,
                staged_only: false,
                previous: None,
                actor: environment::actor(),
            },
            is_recorded: false,
            wish: Wish::Deploy,
        }
    }
}

fn deployed(plan: &Plan, outcome: &StoreOutcome) -> Deployed {
    let servers = plan
        .local
        .then(|| plan.servers_of(&outcome.store))
        .flatten();
    let each = || servers.into_iter().flat_map(|it| &it.servers);
    Deployed {
        store_id: outcome.store.to_string(),
        address: outcome.address.clone().unwrap_or_default(),
        commands: each().map(ServerPlan::command).collect(),
        settings: servers
            .into_iter()
            .flat_map(|it| it.servers.iter().map(|server| it.settings(server)))
            .collect(),
    }
}
