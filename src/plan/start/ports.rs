//! The ports of apps on this machine.

use std::collections::{BTreeMap, BTreeSet};

use crate::config::{BaseApp, Project};
use crate::plan::release;
use crate::store::{AppKind, Framework, UnitId};

/// The ports of apps without `localPorts`, in the first store.
const NEXTJS_PORT: u16 = 3000;
const NUXT_PORT: u16 = 3333;

/// The lowest port that does not need special permissions.
const LOWEST_PORT: u16 = 1024;

/// The port of every app of every deployable store of the project. Ports do not depend on which
/// stores are selected.
pub struct LocalPortPlan(BTreeMap<UnitId, u16>);

impl LocalPortPlan {
    /// Chooses the ports.
    pub fn new(project: &Project) -> Self {
        let configured = project.local.iter().flat_map(|(_, local)| &local.ports);
        let mut taken: BTreeSet<u16> = configured.map(|(_, port)| *port).collect();
        let mut ports = BTreeMap::new();
        let deployable = project.local.iter().filter_map(|(id, local)| {
            let store = project.stores.get(id)?;
            store.deployment.is_some().then_some((store, local))
        });
        for (position, (store, local)) in deployable.enumerate() {
            let mut apps: Vec<_> = project.apps_of(store).collect();
            apps.retain(|app| app.kind != AppKind::Playwright);
            // Other apps have the same default port as frontends. Frontends get their ports first.
            apps.sort_by_key(|app| app.kind == AppKind::Other);
            for app in apps {
                let key = ports_key(app.kind);
                let given = local.ports.iter().find(|(name, _)| Some(*name) == key);
                let port = match given {
                    Some((_, port)) => *port,
                    None => free_from(default_port(project, app), position, &taken),
                };
                taken.insert(port);
                let unit = UnitId {
                    store: store.id.clone(),
                    app: app.name.clone(),
                };
                ports.insert(unit, port);
            }
        }
        Self(ports)
    }

    /// The port of a unit.
    pub fn of(&self, unit: &UnitId) -> u16 {
        self.0.get(unit).copied().unwrap_or(NEXTJS_PORT)
    }
}

/// The app's key in `localPorts`.
fn ports_key(kind: AppKind) -> Option<&'static str> {
    match kind {
        AppKind::Middleware => Some("middleware"),
        AppKind::Frontend(Framework::Nextjs) => Some("nextjs"),
        AppKind::Frontend(Framework::Nuxt) => Some("nuxt"),
        AppKind::Playwright | AppKind::Other => None,
    }
}

fn default_port(project: &Project, app: &BaseApp) -> u16 {
    match app.kind {
        AppKind::Middleware => release::MIDDLEWARE_PORT,
        AppKind::Frontend(Framework::Nextjs) => NEXTJS_PORT,
        AppKind::Frontend(Framework::Nuxt) => NUXT_PORT,
        AppKind::Playwright | AppKind::Other => {
            let settings = project.settings.console.apps.get(app.name.as_str());
            settings.map_or(NEXTJS_PORT, |settings| settings.port)
        }
    }
}

/// The first port from `default` plus the store's position that is not taken.
fn free_from(default: u16, position: usize, taken: &BTreeSet<u16>) -> u16 {
    let offset = u16::try_from(position).unwrap_or(u16::MAX);
    let first = default.saturating_add(offset).max(LOWEST_PORT);
    let mut candidates = (first..=u16::MAX).chain(LOWEST_PORT..first);
    candidates
        .find(|port| !taken.contains(port))
        .unwrap_or(first)
}
