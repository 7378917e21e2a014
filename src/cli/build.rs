//! `store build`, `store run` and `store deploy`.

use super::arguments::{BuildOptions, DeployOptions, Global, RunOptions, Select, Work};
use super::environment::{Environment, Node, surroundings as surroundings_of};
use super::project;
use super::run::{Surroundings, request, run};
use crate::config::Project;
use crate::error::Error as AnyError;
use crate::event::Stage;
use crate::pipeline::Access;
use crate::plan::{LOCAL_REGISTRY, Request, Script};

pub fn build(global: &Global, options: &BuildOptions) -> Result<(), AnyError> {
    let until = if options.compose_only {
        Stage::Compose
    } else {
        Stage::Build
    };
    let (project, environment) = project(global)?;
    let access = environment.secrets();
    let (select, work) = (&options.select, &options.work);
    let (request, surroundings) = prepare(&project, &environment, access, select, work, until)?;
    run(&project, request, Some(work), &options.output, surroundings)
}

pub fn run_script(global: &Global, options: &RunOptions) -> Result<(), AnyError> {
    let (project, environment) = project(global)?;
    let access = environment.secrets();
    let (select, work) = (&options.select, &options.work);
    let until = Stage::Build;
    let (mut request, surroundings) = prepare(&project, &environment, access, select, work, until)?;
    request.script = Script {
        name: options.script.clone(),
        arguments: options.arguments.clone(),
    };
    run(&project, request, Some(work), &options.output, surroundings)
}

pub fn deploy(global: &Global, options: &DeployOptions) -> Result<(), AnyError> {
    let (project, environment) = project(global)?;
    let access = environment.access(&options.access)?;
    let (select, work) = (&options.select, &options.work);
    let (mut request, surroundings) =
        prepare(&project, &environment, access, select, work, options.until)?;
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
    run(&project, request, Some(work), &options.output, surroundings)
}

/// The request up to a stage, and what it is carried out in. Node is asked for its version while
/// the stores are chosen.
fn prepare(
    project: &Project,
    environment: &Environment,
    access: Access,
    select: &Select,
    work: &Work,
    until: Stage,
) -> Result<(Request, Surroundings), AnyError> {
    let runs = until > Stage::Compose;
    let node = runs.then(|| Node::ask(&project.root)).flatten();
    let mut request = request(project, select, until)?;
    let surroundings = Surroundings::new(project, environment, access, work);
    request.surroundings = surroundings_of(&surroundings.scripts, node);
    Ok((request, surroundings))
}
