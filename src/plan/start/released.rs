//! The apps of a release, as a target runs them.

use std::sync::Arc;

use super::ports::LocalPortPlan;
use super::{ContainerNetwork, Launch, StartedApp, StoreServers, artifact, store_servers};
use crate::config::Project;
use crate::git::Repository;
use crate::overlay::{Composer, Composition, LayerReader, fail_on};
use crate::plan::{Error, StorePlan, image};
use crate::store::{AppName, Store, UnitId};

/// The apps of a release with their variables, the middleware first and the frontends last.
/// Without a plan, the store is composed, because its apps have `.env` files.
pub fn released_servers(
    project: &Project,
    store: &Store,
    planned: Option<&StorePlan>,
    apps: &[AppName],
    in_containers: bool,
) -> Result<StoreServers, Error> {
    let composed;
    let compositions = match planned {
        Some(plan) => &plan.compositions,
        None => {
            composed = compositions(project, store)?;
            &composed
        }
    };
    let mut started = Vec::new();
    for composition in compositions {
        let unit = &composition.unit;
        let Some(app) = project
            .app(&unit.app)
            .filter(|app| apps.contains(&app.name))
        else {
            continue;
        };
        let launch = if in_containers {
            image_of(unit)
        } else {
            artifact(unit, image::entry(app)?)
        };
        started.push(StartedApp {
            app,
            composition,
            launch,
        });
    }
    Ok(store_servers(
        project,
        &LocalPortPlan::new(project),
        &store.id,
        started,
    )?)
}

/// The target knows the reference and the network.
fn image_of(unit: &UnitId) -> Launch {
    Launch::Image {
        reference: unit.to_string(),
        network: ContainerNetwork::Own { ports: Vec::new() },
    }
}

fn compositions(project: &Project, store: &Store) -> Result<Vec<Arc<Composition>>, Error> {
    let repository = Repository::around(&project.root)?;
    let lister = LayerReader::new(&project.root, repository.as_ref())?;
    let composer = Composer::new(project, &lister);
    let (layers, problems) = composer.layers(&[store], |_, _| None)?;
    fail_on(problems)?;
    let all = composer.compose_from(&[store], &layers)?;
    Ok(all.into_iter().map(Arc::new).collect())
}
