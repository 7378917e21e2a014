//! `store build`, `store run` and `store deploy`.

use super::arguments::flow::ReleaseOptions;
use super::arguments::{BuildOptions, DeployOptions, Global, RunOptions, Select, WorkOptions};
use super::deploy_settings::deploy_settings;
use super::environment::{Environment, NodeVersion, surroundings as surroundings_of, tell};
use super::run::{PreparedCommand, RunSetup, request, run};
use super::shared_records::RegistryAccess;
use super::{project, resume};
use crate::config::Project;
use crate::error::Error as AnyError;
use crate::event::Stage;
use crate::pipeline::Access;
use crate::plan::{self, LOCAL_REGISTRY, Selection};
use crate::store::{Store, TargetKind};

pub fn build(global: &Global, options: &BuildOptions) -> Result<(), AnyError> {
    let until = if options.compose_only {
        Stage::Compose
    } else {
        Stage::Build
    };
    let (select, work) = (&options.select, &options.work);
    let prepare = || {
        let (project, environment) = project(global)?;
        let access = environment.secrets();
        prepare(project, &environment, access, select, work, until)
    };
    run(&prepare, Some(work), options.output.json)
}

pub fn run_script(global: &Global, options: &RunOptions) -> Result<(), AnyError> {
    let (select, work) = (&options.select, &options.work);
    let prepare = || {
        let (project, environment) = project(global)?;
        let access = environment.secrets();
        let until = Stage::Build;
        let mut prepared = prepare(project, &environment, access, select, work, until)?;
        prepared.request.work =
            plan::Work::script(options.script.clone(), options.arguments.clone());
        Ok(prepared)
    };
    run(&prepare, Some(work), options.output.json)
}

pub fn deploy(global: &Global, options: &DeployOptions) -> Result<(), AnyError> {
    if options.settings {
        return deploy_settings(global, options);
    }
    let (select, work) = (options.selected(), &options.work);
    let select = &select;
    // Standard input can be read once.
    let password = options.access.password()?;
    let prepare = || {
        let (project, environment) = project(global)?;
        let mut access = environment.access(&options.access, password.clone());
        access.no_wait |= options.release.no_wait;
        access.trust.allow_insecure = work.allow_insecure;
        let ca = project.settings.registry.ca.as_ref();
        access.trust.ca = ca.map(|ca| project.root.join(ca));
        let until = options.until;
        if (options.resume || options.retry_failed) && !options.local {
            // Another machine may have run the same plan.
            let password = (password.clone(), None);
            RegistryAccess::with_password(&project, &environment, &options.access, password)?
                .pull(&project);
        }
        let mut prepared = prepare(project, &environment, access, select, work, until)?;
        prepared.resume = options.resume;
        prepared.release = options.release.clone();
        let request = &mut prepared.request;
        if options.retry_failed {
            request.selection = resume::failed(&prepared.project, &request.selection)?;
        }
        request.allow_dirty = options.allow_dirty;
        request.builder = options.builder.builder();
        request.attest = !options.no_attest;
        request.registry = environment.registry(&options.access);
        request.console = environment.console(&options.access);
        // The plan reports stores that cannot be selected.
        let stores = request.selection.stores(&prepared.project);
        let stores = stores.unwrap_or_default();
        let registry = &request.registry;
        request.local =
            options.local || is_for_this_machine(&prepared.project, &stores, registry.as_ref());
        if request.local {
            request.registry = Some(LOCAL_REGISTRY.into());
            request.console = None;
        }
        Ok(prepared)
    };
    run(&prepare, Some(work), options.output.json)
}

/// Whether all these stores run on this machine and no registry is configured, so that their images need
/// none. `registry` is that of the command line or the environment.
pub fn is_for_this_machine(
    project: &Project,
    stores: &[&Store],
    registry: Option<&String>,
) -> bool {
    if registry.is_some() || project.settings.registry.url.is_some() {
        return false;
    }
    let is_local = |store: &&Store| {
        let deployment = store.deployment.as_ref();
        deployment.is_some_and(|it| project.target_of(it) == TargetKind::Local)
    };
    !stores.is_empty() && stores.iter().all(is_local)
}

/// The request up to a stage, and what it is carried out in. Node is asked for its version while
/// the stores are chosen.
fn prepare(
    project: Project,
    environment: &Environment,
    access: Access,
    select: &Select,
    work: &WorkOptions,
    until: Stage,
) -> Result<PreparedCommand, AnyError> {
    let runs = until > Stage::Compose;
    let surroundings = RunSetup::new(&project, environment, access, work);
    let node = runs.then(|| NodeVersion::ask(&project.root, &surroundings.scripts));
    let node = node.flatten();
    let mut request = request(&project, select, until)?;
    if let Some(shard) = work.shard {
        let stores = request.selection.stores(&project)?;
        let ids = shard.of(stores.iter().map(|store| store.id.to_string()).collect());
        tell(&match ids.as_slice() {
            [] => format!("note: shard {shard} has no stores"),
            ids => format!("note: shard {shard}: {}", ids.join(", ")),
        });
        request.selection = Selection::Exactly(ids);
    }
    request.host = surroundings_of(
        &surroundings.scripts,
        node,
        surroundings.sandbox || work.sandbox,
    );
    Ok(PreparedCommand {
        project,
        request,
        surroundings,
        resume: false,
        release: ReleaseOptions::default(),
    })
}
