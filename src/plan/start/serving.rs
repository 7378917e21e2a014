//! Which apps `dev`, `start` and `test` start, and with which program.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::ports::LocalPortPlan;
use super::{
    ContainerNetwork, Launch, StartedApp, StoreServers, artifact, container_name, sharing,
    store_servers,
};
use crate::config::{BaseApp, Project};
use crate::overlay::Composition;
use crate::plan::{Error, image, manager, task};
use crate::store::{AppKind, StoreId, UnitId};
use crate::workspace::PackageManager;

/// The script that runs an app for development.
const DEV: &str = "dev";

/// The scripts that keep a workspace package built. The first one that the package has is run.
const OF_PACKAGES: [&str; 2] = [DEV, "watch"];

/// With which programs apps are started.
#[derive(Debug, Clone, Copy)]
pub enum ServeMode<'a> {
    /// The `dev` scripts of composed apps, and of the workspace packages that they need.
    Development,
    /// What `.deploy` of each app has.
    Artifacts,
    /// The images of the units.
    Images(&'a BTreeMap<UnitId, String>),
}

/// The servers of several stores.
#[derive(Debug, Clone)]
pub struct ServePlan {
    /// The project's folder.
    pub project: PathBuf,
    /// The apps, by store.
    pub stores: Vec<StoreServers>,
    /// Scripts of workspace packages, which listen on no port.
    pub packages: Vec<PackageScript>,
    /// The time limit for an app to accept connections on its port.
    pub start_timeout: Duration,
    /// Messages to the user about apps that are not started.
    pub notices: Vec<String>,
}

/// A script that keeps a workspace package built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackageScript {
    /// The name of the package.
    pub name: String,
    /// Program and arguments.
    pub command: Vec<String>,
    /// The package's folder, relative to the project.
    pub folder: String,
}

impl ServePlan {
    /// Plans how composed apps are started. Playwright tests are not started.
    pub fn new(
        project: &Project,
        compositions: &[Arc<Composition>],
        mode: ServeMode,
    ) -> Result<Self, Error> {
        let mut planner = LaunchPlanner {
            project,
            manager: manager(project)?,
            mode,
            lacking: Vec::new(),
            notices: Vec::new(),
        };
        let mut of_stores: Vec<(&StoreId, Vec<StartedApp>)> = Vec::new();
        for composition in compositions {
            let unit = &composition.unit;
            let Some(app) = project.app(&unit.app) else {
                continue;
            };
            let Some(launch) = planner.launch(unit, app)? else {
                continue;
            };
            let started = StartedApp {
                app,
                composition,
                launch,
            };
            match of_stores.iter_mut().find(|(id, _)| **id == unit.store) {
                Some((_, apps)) => apps.push(started),
                None => of_stores.push((&unit.store, vec![started])),
            }
        }
        if !planner.lacking.is_empty() {
            let apps = planner.lacking;
            return Err(Error::NoDevScript { apps });
        }
        let packages = planner.packages(of_stores.iter().flat_map(|(_, apps)| apps));
        let notices = planner.notices;
        let ports = LocalPortPlan::new(project);
        let stores = of_stores
            .into_iter()
            .map(|(store, apps)| store_servers(project, &ports, store, apps));
        let mut stores = stores.collect::<Result<Vec<_>, _>>()?;
        match mode {
            ServeMode::Images(_) => stores.iter_mut().for_each(connect_containers),
            ServeMode::Development | ServeMode::Artifacts => {
                sharing::share(project, compositions, &mut stores);
            }
        }
        Ok(Self {
            project: project.root.clone(),
            stores,
            packages,
            start_timeout: project.settings.start.timeout,
            notices,
        })
    }
}

/// Lets the first container of a store publish the ports of all, and lets the others use its network.
fn connect_containers(store: &mut StoreServers) {
    let all = store.servers.iter().map(|server| server.port).collect();
    let Some(first) = store.servers.first() else {
        return;
    };
    let container = container_name(&first.unit);
    let mut own = Some(ContainerNetwork::Own { ports: all });
    for server in &mut store.servers {
        if let Launch::Image { network, .. } = &mut server.launch {
            let container = container.clone();
            *network = own.take().unwrap_or(ContainerNetwork::Of { container });
        }
    }
}

/// Decides with which program each app is started.
struct LaunchPlanner<'a> {
    project: &'a Project,
    manager: PackageManager,
    mode: ServeMode<'a>,
    /// Apps that need a `dev` script and do not have it.
    lacking: Vec<String>,
    notices: Vec<String>,
}

impl LaunchPlanner<'_> {
    /// The program of an app; none for an app that is not started.
    fn launch(&mut self, unit: &UnitId, app: &BaseApp) -> Result<Option<Launch>, Error> {
        if app.kind == AppKind::Playwright {
            return Ok(None);
        }
        match self.mode {
            ServeMode::Development => Ok(self.dev_script(unit, app)),
            ServeMode::Artifacts if !task::is_built(app.kind, &app.package) => Ok(None),
            ServeMode::Artifacts => Ok(Some(artifact(unit, image::entry(app)?))),
            ServeMode::Images(images) => Ok(images.get(unit).map(|reference| Launch::Image {
                reference: reference.clone(),
                network: ContainerNetwork::Own { ports: Vec::new() },
            })),
        }
    }

    fn dev_script(&mut self, unit: &UnitId, app: &BaseApp) -> Option<Launch> {
        if app.package.scripts.contains_key(DEV) {
            return Some(Launch::Script {
                command: self.manager.run(DEV, &[]),
                folder: format!(".out/{unit}"),
            });
        }
        let name = app.name.to_string();
        if app.kind == AppKind::Other {
            let notice = format!(
                "`{name}` is not started, because it has no `{DEV}` script in `apps/{name}/package.json`"
            );
            if !self.notices.contains(&notice) {
                self.notices.push(notice);
            }
        } else if !self.lacking.contains(&name) {
            self.lacking.push(name);
        }
        None
    }

    /// The scripts of the workspace packages that the apps need, directly or through others.
    fn packages<'s>(
        &self,
        started: impl Iterator<Item = &'s StartedApp<'s>>,
    ) -> Vec<PackageScript> {
        let mut scripts: Vec<PackageScript> = Vec::new();
        for app in started.filter(|app| app.launch.is_development()) {
            for package in self.project.packages_of(&app.app.package) {
                let mut known = OF_PACKAGES.iter();
                let script = known.find(|name| package.package.scripts.contains_key(**name));
                let Some(script) = script else { continue };
                if scripts.iter().all(|known| known.name != package.name) {
                    scripts.push(PackageScript {
                        name: package.name.clone(),
                        command: self.manager.run(script, &[]),
                        folder: package.folder.clone(),
                    });
                }
            }
        }
        scripts
    }
}
