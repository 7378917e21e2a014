//! `store build`, `store run` and `store deploy`.

use super::arguments::flow::ReleaseOptions;
use super::arguments::{BuildOptions, DeployOptions, Global, RunOptions, Select, WorkOptions};
use super::environment::{Environment, NodeVersion, surroundings as surroundings_of};
use super::project;
use super::run::{PreparedCommand, RunSetup, request, run};
use crate::config::Project;
use crate::error::Error as AnyError;
use crate::event::Stage;
use crate::pipeline::Access;
use crate::plan::{self, LOCAL_REGISTRY};

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
    run(&prepare, Some(work), &options.output)
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
    run(&prepare, Some(work), &options.output)
}

pub fn deploy(global: &Global, options: &DeployOptions) -> Result<(), AnyError> {
    let (select, work) = (&options.select, &options.work);
    // Standard input can be read once.
    let password = options.access.password()?;
    let prepare = || {
        let (project, environment) = project(global)?;
        let mut access = environment.access(&options.access, password.clone());
        access.trust.allow_insecure = work.allow_insecure;
        let ca = project.settings.registry.ca.as_ref();
        access.trust.ca = ca.map(|ca| project.root.join(ca));
        let until = options.until;
        let mut prepared = prepare(project, &environment, access, select, work, until)?;
        prepared.release = options.release.clone();
        let request = &mut prepared.request;
        request.allow_dirty = options.allow_dirty;
        request.builder = options.builder.builder();
        request.attest = !options.no_attest;
        request.local = options.local;
        if options.local {
            request.registry = Some(LOCAL_REGISTRY.into());
        } else {
            request.registry = environment.registry(&options.access);
            request.console = environment.console(&options.access);
        }
        Ok(prepared)
    };
    run(&prepare, Some(work), &options.output)
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
    request.host = surroundings_of(
        &surroundings.scripts,
        node,
        surroundings.sandbox || work.sandbox,
    );
    Ok(PreparedCommand {
        project,
        request,
        surroundings,
        release: ReleaseOptions::default(),
    })
}
