//! The places of a project's images, records and releases: registry, repositories, console, target.

use super::target::DestinationPlan;
use super::{DEFAULT_CONSOLE, DEFAULT_REGISTRY, Error, Request, StorePlan, image};
use crate::config::Project;
use crate::store::{AppKind, AppName, Store, TargetKind};

/// The destination of images, with the registry from flags, environment or config.
pub fn plan_destination(
    project: &Project,
    request: &Request,
    stores: &[StorePlan],
) -> Result<DestinationPlan, Error> {
    let destination = destination_of(project, &request.registry)?;
    let is_console = |store: &StorePlan| store.target == TargetKind::Console;
    destination.suits(request, stores.iter().any(is_console))?;
    Ok(destination)
}

/// The destination of a project's images. `registry` is the value of the flag or the environment.
pub fn destination_of(
    project: &Project,
    registry: &Option<String>,
) -> Result<DestinationPlan, Error> {
    let configured = &project.settings.registry;
    let registry =
        first_set([registry, &configured.url]).unwrap_or_else(|| DEFAULT_REGISTRY.into());
    let is_insecure = configured.insecure && configured.url.as_ref() == Some(&registry);
    DestinationPlan::new(&project.root, &registry, is_insecure)
}

/// The address of a project's console. `console` is the value of the flag or the environment.
pub fn console_of(project: &Project, console: &Option<String>) -> String {
    let console = first_set([console, &project.settings.console.url]);
    console.unwrap_or_else(|| DEFAULT_CONSOLE.into())
}

/// One repository for each deployable store, below the path of the registry.
pub fn repositories_of(project: &Project) -> Vec<String> {
    let stores = project.stores.deployables();
    let repositories = stores.filter_map(|store| {
        let mut apps = project.apps_of(store);
        let app = apps.find(|app| app.kind != AppKind::Playwright)?;
        let deployment = store.deployment.as_ref()?;
        Some(image::repository(project, deployment, app))
    });
    repositories.collect()
}

/// The repository for the images of an app of a store, below the path of the registry. None for a
/// template, and for an app that the store does not have.
pub fn image_repository(project: &Project, store: &Store, app: &AppName) -> Option<String> {
    let deployment = store.deployment.as_ref()?;
    let mut apps = project.apps_of(store);
    let app = apps.find(|own| own.name == *app)?;
    Some(image::repository(project, deployment, app))
}

/// The repository with the records of a store: that of its frontend, or of its first app. None for a
/// template.
pub fn record_repository(project: &Project, store: &Store) -> Option<String> {
    let deployment = store.deployment.as_ref()?;
    let apps = project.apps_of(store);
    let apps = apps.filter(|app| app.kind != AppKind::Playwright);
    let app = apps.min_by_key(|app| app.kind.framework().is_none())?;
    Some(image::repository(project, deployment, app))
}

fn first_set(values: [&Option<String>; 2]) -> Option<String> {
    values
        .into_iter()
        .flatten()
        .find(|value| !value.is_empty())
        .cloned()
}
