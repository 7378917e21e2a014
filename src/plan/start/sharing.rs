//! A middleware that several stores share is started once.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{PlannedVariable, ServerPlan, StoreServers};
use crate::config::{AppReference, Project, TemplatePart};
use crate::overlay::{Composition, ContentId};
use crate::store::{AppKind, UnitId};

/// Replaces each middleware by that of an earlier store, if the app is declared in `build.shared` and
/// both stores compose the same files and set the same variables. The other apps of the store then have
/// the address of the earlier store's middleware.
pub fn share(project: &Project, compositions: &[Arc<Composition>], stores: &mut [StoreServers]) {
    let ids = identities(project, compositions);
    let mut first: Vec<ServerPlan> = Vec::new();
    for server in stores.iter_mut().flat_map(|store| &mut store.servers) {
        let Some(id) = ids.get(&server.unit) else {
            continue;
        };
        if server.kind != AppKind::Middleware || depends_on_store(server) {
            continue;
        }
        let is_same = |other: &&ServerPlan| {
            other.unit.app == server.unit.app
                && ids.get(&other.unit) == Some(id)
                && other.environment == server.environment
        };
        match first.iter().find(is_same) {
            Some(earlier) => *server = earlier.clone(),
            None => first.push(server.clone()),
        }
    }
}

/// The identity of each composition of a shared app, without the store's name.
fn identities<'a>(
    project: &Project,
    compositions: &'a [Arc<Composition>],
) -> BTreeMap<&'a UnitId, ContentId> {
    let shared = &project.settings.shared;
    let is_shared = |app: &str| shared.iter().any(|name| name == app);
    let compositions = compositions.iter();
    let shared = compositions.filter(|it| is_shared(it.unit.app.as_str()));
    let ids = shared.filter_map(|composition| {
        let neutral = composition.renamed(composition.unit.app.as_str()).ok()?;
        Some((&composition.unit, neutral.id()))
    });
    ids.collect()
}

/// Whether a variable has another value in each store, other than the port of the app itself.
fn depends_on_store(server: &ServerPlan) -> bool {
    let is_of_store = |part: &TemplatePart| match part {
        TemplatePart::Text(_) => false,
        TemplatePart::Store => true,
        TemplatePart::Port(app) | TemplatePart::Url(app) => match app {
            AppReference::Own | AppReference::Middleware => false,
            AppReference::Frontend | AppReference::Named(_) => true,
        },
    };
    server.environment.values().any(|variable| match variable {
        PlannedVariable::EnvFile(_) => false,
        PlannedVariable::Known { value, .. } => value.parts().iter().any(is_of_store),
    })
}
