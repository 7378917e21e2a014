//! `store build` and `store deploy`.

use super::arguments::{BuildOptions, DeployOptions, Global, RunOptions};
use super::environment::{Node, surroundings as surroundings_of};
use super::project;
use super::run::{Surroundings, request, run};
use crate::error::Error as AnyError;
use crate::event::Stage;
use crate::pipeline::in_place;
use crate::plan::Script;

pub fn build(global: &Global, options: &BuildOptions) -> Result<(), AnyError> {
    let until = if options.compose_only {
        Stage::Compose
    } else {
        Stage::Build
    };
    let (project, environment) = project(global)?;
    let node = (!options.compose_only)
        .then(|| Node::ask(&project.root))
        .flatten();
    let surroundings = Surroundings::new(&environment, environment.secrets(), &options.work);
    let mut request = request(&project, &options.select, until)?;
    request.surroundings = surroundings_of(&surroundings.scripts, node);
    run(
        &project,
        request,
        Some(&options.work),
        &options.output,
        surroundings,
    )
}

pub fn run_script(global: &Global, options: &RunOptions) -> Result<(), AnyError> {
    let (project, environment) = project(global)?;
    let node = Node::ask(&project.root);
    let surroundings = Surroundings::new(&environment, environment.secrets(), &options.work);
    let mut request = request(&project, &options.select, Stage::Build)?;
    request.script = Script {
        name: options.script.clone(),
        arguments: options.arguments.clone(),
    };
    request.surroundings = surroundings_of(&surroundings.scripts, node);
    request.surroundings.in_place = in_place(&project.root);
    run(
        &project,
        request,
        Some(&options.work),
        &options.output,
        surroundings,
    )
}

pub fn deploy(global: &Global, options: &DeployOptions) -> Result<(), AnyError> {
    let (project, environment) = project(global)?;
    let node = Node::ask(&project.root);
    let mut request = request(&project, &options.select, options.until)?;
    request.allow_dirty = options.allow_dirty;
    request.registry = environment.registry(&options.access);
    request.console = environment.console(&options.access);
    let access = environment.access(&options.access)?;
    let surroundings = Surroundings::new(&environment, access, &options.work);
    request.surroundings = surroundings_of(&surroundings.scripts, node);
    run(
        &project,
        request,
        Some(&options.work),
        &options.output,
        surroundings,
    )
}
