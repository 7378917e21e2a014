//! The hooks of all stores of a run around one of its stages. The hooks of different stores run at the
//! same time, those of one store one after another.

use std::collections::BTreeSet;
use std::num::NonZero;

use futures_util::{StreamExt, stream};

use super::{HookContext, HookImage, HookRun, HookRunner};
use crate::config::{HookStage, HookTime};
use crate::event::EventSubject;
use crate::pipeline::failure::Failure;
use crate::pipeline::push::Pushed;
use crate::pipeline::services::{PipelineOptions, Services};
use crate::plan::{HookPlan, Plan, run_stage};
use crate::store::StoreId;

/// The hooks of a run.
pub struct StageHooks<'a> {
    plan: &'a Plan,
    services: &'a Services,
    options: &'a PipelineOptions,
    /// The places at which hooks of a store have run. Stages that are repeated do not repeat them.
    ran: BTreeSet<(HookTime, HookStage, StoreId)>,
}

impl<'a> StageHooks<'a> {
    /// No hook has run yet.
    pub fn new(plan: &'a Plan, services: &'a Services, options: &'a PipelineOptions) -> Self {
        Self {
            plan,
            services,
            options,
            ran: BTreeSet::new(),
        }
    }

    /// Runs the hooks at one place. Returns every hook that ran, and the stores that fail.
    pub async fn run(
        &mut self,
        (when, stage): (HookTime, HookStage),
        stores: &BTreeSet<StoreId>,
        pushed: &[Pushed],
    ) -> (Vec<HookRun>, Vec<Failure>) {
        let mut work = Vec::new();
        for store in self.plan.stores.iter().map(|store| &store.id) {
            let hooks = self.plan.hooks.iter();
            let hooks: Vec<HookPlan> = hooks
                .filter(|hook| hook.store == *store && (hook.when, hook.stage) == (when, stage))
                .cloned()
                .collect();
            let place = (when, stage, store.clone());
            if !hooks.is_empty() && stores.contains(store) && self.ran.insert(place) {
                work.push((store, hooks));
            }
        }
        let runner = HookRunner {
            project: &self.plan.project,
            services: self.services,
            scripts: &self.options.scripts,
        };
        let contexts = work.iter().map(|(store, _)| self.context(store, pushed));
        let contexts: Vec<_> = contexts.collect();
        let running = work.iter().zip(&contexts);
        let running = running.map(|((store, hooks), context)| async move {
            (*store, runner.run((when, stage), hooks, context).await)
        });
        let ended: Vec<_> = stream::iter(running)
            .buffered(self.at_once())
            .collect()
            .await;
        let (mut runs, mut failures) = (Vec::new(), Vec::new());
        for (store, ended) in ended {
            runs.extend(ended.runs);
            failures.extend(ended.failure.map(|error| Failure {
                unit: EventSubject::hook(run_stage(stage), store, format!("{when} {stage}")),
                error: error.into(),
            }));
        }
        (runs, failures)
    }

    /// How many stores run hooks at the same time: as many as scripts run.
    fn at_once(&self) -> usize {
        let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
        self.plan.concurrency.unwrap_or(cores).max(1)
    }

    fn context(&self, store: &StoreId, pushed: &[Pushed]) -> HookContext {
        let own = pushed.iter().filter(|pushed| pushed.unit.store == *store);
        HookContext {
            build: self.options.builds.get(store).cloned(),
            images: own
                .map(|pushed| {
                    let image = HookImage {
                        reference: pushed.reference.to_string(),
                        digest: pushed.digest.to_string(),
                        unpacked: None,
                    };
                    (pushed.unit.app.clone(), image)
                })
                .collect(),
            ..HookContext::default()
        }
    }
}
