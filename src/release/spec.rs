//! What a target is asked to run for a release.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::Error;
use crate::config::{BaseApp, HealthEntry, Project};
use crate::ledger::{BuildRecord, ReleaseRecord};
use crate::plan::{PlannedVariable, ServerPlan, StorePlan, container_port, released_servers};
use crate::store::{AppKind, AppName, Store, StoreId, TargetKind};
use crate::target::{HealthProbe, ReleaseSpec, ReleasedApp, SpecVariable, hosts, place_options};

/// The plan of a store, if this run has built it.
pub type PlannedStore<'a> = Option<&'a StorePlan>;

/// What a target is asked to run: the images of a build, with the variables, ports and paths of the
/// config as it is now. Fails if the project does not have all apps of the build.
pub fn spec_of(
    project: &Project,
    planned: PlannedStore,
    build: &BuildRecord,
    release: &ReleaseRecord,
) -> Result<ReleaseSpec, Error> {
    check_apps(project, build, release)?;
    spec_of_running(project, planned, build, release)
}

/// Fails if the store does not have all apps of the build any more: a release would run without them.
pub fn check_apps(
    project: &Project,
    build: &BuildRecord,
    release: &ReleaseRecord,
) -> Result<(), Error> {
    let store = deployable(project, &release.store)?;
    let own: BTreeSet<&AppName> = project.apps_of(store).map(|app| &app.name).collect();
    let images = build.apps.iter().filter(|(_, app)| app.reference.is_some());
    let gone = images
        .map(|(name, _)| name)
        .filter(|name| !own.contains(name));
    let apps: Vec<AppName> = gone.cloned().collect();
    if apps.is_empty() {
        return Ok(());
    }
    let commit = build.commit.as_ref().map(|commit| commit.sha.clone());
    Err(Error::AppsGone {
        store: release.store.clone(),
        build: build.id.clone(),
        apps,
        commit: commit.unwrap_or_else(|| "<commit>".into()),
    })
}

fn deployable<'p>(project: &'p Project, id: &StoreId) -> Result<&'p Store, Error> {
    let store = project.stores.get(id.as_str());
    let store = store.filter(|store| store.deployment.is_some());
    store.ok_or_else(|| Error::NoStore { store: id.clone() })
}

/// The specification of a release that a target already runs, without the apps that the project does not have
/// any more.
pub fn spec_of_running(
    project: &Project,
    planned: PlannedStore,
    build: &BuildRecord,
    release: &ReleaseRecord,
) -> Result<ReleaseSpec, Error> {
    let id = &release.store;
    let store = deployable(project, id)?;
    let names: Vec<AppName> = build.apps.keys().cloned().collect();
    let in_containers = release.target != TargetKind::Local.name();
    let servers = released_servers(project, store, planned, &names, in_containers);
    let servers = servers.map_err(Box::new)?;
    let mut apps = Vec::new();
    for server in &servers.servers {
        let name = &server.unit.app;
        let Some(app) = project.app(name) else {
            continue;
        };
        let image = build.apps.get(name);
        let image = image.and_then(|it| Some((it.reference.clone()?, it.digest.clone()?)));
        let (reference, digest) = image.ok_or_else(|| Error::NoImage {
            build: build.id.clone(),
            store: id.clone(),
            app: name.clone(),
            place: place_options(id, &release.target),
        })?;
        let (path_prefix, strips_prefix) = path_of(project, app);
        apps.push(ReleasedApp {
            app: name.clone(),
            kind: app.kind,
            reference,
            digest,
            port: container_port(project, app),
            path_prefix,
            strips_prefix,
            variables: variables(server)?,
            health: probe_of(project, name),
        });
    }
    Ok(ReleaseSpec {
        id: release.id.clone(),
        store: id.clone(),
        apps,
        settings: release.settings.clone(),
        copy_of: release.copy_of.clone(),
        hosts: hosts(project, id),
        stop_timeout: Duration::from_secs(project.settings.deploy.stop_timeout.into()),
    })
}

/// The public path of an app, and whether the app sees the rest of it only.
fn path_of(project: &Project, app: &BaseApp) -> (Option<String>, bool) {
    match app.kind {
        AppKind::Middleware => (Some("/api/".into()), true),
        AppKind::Other => {
            let configured = project.settings.console.apps.get(app.name.as_str());
            let configured = configured.cloned().unwrap_or_default();
            let path = configured.path;
            let path = path.unwrap_or_else(|| format!("/{}/", app.name));
            (Some(path), !configured.has_base_path)
        }
        AppKind::Frontend(_) | AppKind::Playwright => (None, false),
    }
}

fn variables(server: &ServerPlan) -> Result<BTreeMap<String, SpecVariable>, Error> {
    let mut of_files = BTreeMap::new();
    for file in &server.env_files {
        let values = file.values();
        let values = values.map_err(|error| Box::new(crate::plan::Error::from(error)))?;
        of_files.extend(values);
    }
    let variables = server.environment.iter().filter_map(|(name, variable)| {
        let variable = match variable {
            PlannedVariable::EnvFile(_) => SpecVariable::Secret(of_files.get(name)?.clone().into()),
            PlannedVariable::Known { value, .. } => SpecVariable::Template(value.clone()),
        };
        Some((name.clone(), variable))
    });
    Ok(variables.collect())
}

/// How an app is probed: by its own entry in `deploy.health`, or by that of all apps.
fn probe_of(project: &Project, app: &AppName) -> HealthProbe {
    let health = &project.settings.deploy.health;
    let entry = health.get(app.as_str()).or_else(|| health.get("*"));
    let entry = entry.cloned().unwrap_or_default();
    let HealthEntry {
        path,
        status,
        interval,
        timeout,
        deadline,
        consecutive,
    } = entry;
    let seconds = |seconds: u16| Duration::from_secs(seconds.into());
    HealthProbe {
        path,
        status,
        interval: seconds(interval),
        timeout: seconds(timeout.max(1)),
        deadline: seconds(deadline),
        consecutive: consecutive.max(1).into(),
    }
}
