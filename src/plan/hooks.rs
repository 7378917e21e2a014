//! The hooks of a store: commands of the config that run before and after its stages.

use std::fmt::Write;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::{Plan, PlannedRelease, Request, StorePlan, Work};
use crate::config::{
    Hook, HookFailure, HookPlace, HookStage, HookTime, HookValue, Project, default_app,
};
use crate::event::Stage;
use crate::store::{AppName, Store, StoreId, TargetKind};

/// A hook of one store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HookPlan {
    /// The store.
    pub store: StoreId,
    /// Its number in the config, from 1.
    pub number: usize,
    /// Before or after the stage.
    pub when: HookTime,
    /// The stage.
    pub stage: HookStage,
    /// Program and arguments.
    pub command: Vec<String>,
    /// The app in whose image it runs. None for this machine.
    pub image_of: Option<AppName>,
    /// The address of the engine that runs the image, if it is not `DOCKER_HOST`: that of the target
    /// `docker`.
    pub engine: Option<String>,
    /// What its failure means.
    pub on_failure: HookFailure,
    /// Its time limit.
    pub timeout: Duration,
    /// Its own variables.
    pub env: Vec<(String, HookValue)>,
}

/// The hooks of a store, in the order of the config. A hook in the image of an app runs only for stores
/// that have the app.
pub fn hooks_of(project: &Project, store: &Store) -> Vec<HookPlan> {
    let of_store = |hook: &&Hook| {
        let stores = hook.stores.as_ref();
        stores.is_none_or(|stores| stores.contains(&store.id))
    };
    let deployment = store.deployment.as_ref();
    let is_docker = deployment.is_some_and(|it| project.target_of(it) == TargetKind::Docker);
    let engine = project.settings.deploy.docker.host.clone();
    let engine = engine.filter(|_| is_docker);
    let hooks = project.settings.hooks.iter().filter(of_store);
    let plans = hooks.filter_map(|hook| {
        let image_of = match hook.place {
            HookPlace::Host => None,
            HookPlace::Image => {
                let mut apps = project.apps_of(store);
                let app = match &hook.app {
                    Some(name) => apps.find(|app| app.name == *name),
                    None => default_app(apps),
                };
                Some(app?.name.clone())
            }
        };
        Some(HookPlan {
            store: store.id.clone(),
            number: hook.number,
            when: hook.when,
            stage: hook.stage,
            command: hook.command.clone(),
            image_of,
            engine: engine.clone(),
            on_failure: hook.on_failure,
            timeout: hook.timeout,
            env: hook.env.clone(),
        })
    });
    plans.collect()
}

/// The hooks of the stages of a run. Only builds and deploys have hooks. A rollback is not planned here.
pub fn planned_hooks(
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

/// The stage of a run in which hooks of this stage run.
pub fn run_stage(stage: HookStage) -> Stage {
    match stage {
        HookStage::Compose => Stage::Compose,
        HookStage::Build => Stage::Build,
        HookStage::Prune => Stage::Prune,
        HookStage::Image => Stage::Image,
        HookStage::Push => Stage::Push,
        HookStage::Stage | HookStage::Release | HookStage::Rollback => Stage::Deploy,
    }
}

impl HookPlan {
    /// Time and stage, such as `before push`.
    pub fn place(&self) -> String {
        format!("{} {}", self.when, self.stage)
    }

    /// The command in one line.
    pub fn command_line(&self) -> String {
        self.command.join(" ")
    }

    /// One line for people.
    pub fn text(&self) -> String {
        let place = match &self.image_of {
            Some(app) => format!(", in the image of {app}"),
            None => String::new(),
        };
        let on_failure = match self.on_failure {
            HookFailure::Fail => "",
            HookFailure::Continue => "; a failure is only reported",
        };
        format!(
            "{}  {}: {}{place}{on_failure}",
            self.store,
            self.place(),
            self.command_line()
        )
    }

    /// The hook as JSON.
    pub fn document(&self) -> Value {
        let env: Map<String, Value> = self
            .env
            .iter()
            .map(|(name, value)| (name.clone(), json!(value.to_string())))
            .collect();
        json!({
            "storeId": self.store,
            "number": self.number,
            "when": self.when,
            "stage": self.stage,
            "command": self.command,
            "in": if self.image_of.is_some() { HookPlace::Image } else { HookPlace::Host },
            "app": self.image_of,
            "onFailure": self.on_failure,
            "timeout": self.timeout.as_secs(),
            "env": env,
        })
    }
}

/// Writes the hooks at one place, one line for each store.
pub fn write_at(
    plan: &Plan,
    place: (HookTime, HookStage),
    out: &mut impl Write,
) -> std::fmt::Result {
    let hooks = plan.hooks.iter();
    for hook in hooks.filter(|hook| (hook.when, hook.stage) == place) {
        writeln!(out, "  hook {}", hook.text())?;
    }
    Ok(())
}

/// Writes the hooks of a stage whose units are not listed.
pub fn write_stage(
    plan: &Plan,
    stage: HookStage,
    title: &str,
    out: &mut impl Write,
) -> std::fmt::Result {
    if plan.hooks.iter().any(|hook| hook.stage == stage) {
        writeln!(out, "\n{title}")?;
        write_at(plan, (HookTime::Before, stage), out)?;
        write_at(plan, (HookTime::After, stage), out)?;
    }
    Ok(())
}

/// The notice for hooks of a stage that a target does not have.
pub fn no_staging(store: &StoreId, target: &str) -> String {
    format!(
        "the hooks of the stage `stage` do not run for `{store}`, because the target `{target}` has no staging"
    )
}
