//! `store build` and `store deploy`.

use super::arguments::{BuildOptions, DeployOptions, Global};
use super::project;
use super::run::{Surroundings, request, run};
use crate::error::Error as AnyError;
use crate::event::Stage;

pub fn build(global: &Global, options: &BuildOptions) -> Result<(), AnyError> {
    let (project, environment) = project(global)?;
    let until = if options.compose_only {
        Stage::Compose
    } else {
        Stage::Build
    };
    let surroundings = Surroundings {
        access: environment.secrets(),
        scripts: environment.scripts(),
    };
    run(
        &project,
        request(&project, &options.select, until)?,
        Some(&options.work),
        &options.output,
        surroundings,
    )
}

pub fn deploy(global: &Global, options: &DeployOptions) -> Result<(), AnyError> {
    let (project, environment) = project(global)?;
    let mut request = request(&project, &options.select, options.until)?;
    request.allow_dirty = options.allow_dirty;
    request.registry = environment.registry(&options.access);
    request.console = environment.console(&options.access);
    let surroundings = Surroundings {
        access: environment.access(&options.access)?,
        scripts: environment.scripts(),
    };
    run(
        &project,
        request,
        Some(&options.work),
        &options.output,
        surroundings,
    )
}
