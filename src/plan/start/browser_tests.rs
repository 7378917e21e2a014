//! The Playwright tests of a store, and the variables with which they find its apps.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::environment::{EnvFile, EnvironmentPlanner, env_files};
use super::{Launch, PlannedVariable, StoreServers};
use crate::config::{BaseApp, Project};
use crate::overlay::Composition;
use crate::plan::{Error, manager};
use crate::store::{AppKind, UnitId};
use crate::workspace::PackageManager;

/// The scripts that run the tests. The first one that the app has is run.
const SCRIPTS: [&str; 2] = ["test:integration:pw", "test"];

/// The script that opens Playwright's user interface.
const UI_SCRIPT: &str = "test:integration:ui";

/// The option of Playwright that opens its user interface.
const UI: &str = "--ui";

/// The Playwright tests of one store.
#[derive(Debug, Clone)]
pub struct BrowserTests {
    /// Store and app.
    pub unit: UnitId,
    /// The composed app, relative to the project.
    pub folder: String,
    /// The command that runs the tests.
    pub command: Vec<String>,
    /// The `.env` files of the app.
    pub env_files: Vec<EnvFile>,
    /// The variables of the tests, by name.
    pub environment: BTreeMap<String, PlannedVariable>,
}

/// The arguments of the tests.
#[derive(Debug, Clone, Default)]
pub struct TestArguments {
    /// Whether Playwright's user interface is opened.
    pub ui: bool,
    /// Arguments for Playwright.
    pub others: Vec<String>,
}

impl BrowserTests {
    /// Plans the tests of each composed Playwright app. `stores` have the apps that the tests visit.
    pub fn plan(
        project: &Project,
        compositions: &[Arc<Composition>],
        stores: &[StoreServers],
        arguments: &TestArguments,
    ) -> Result<Vec<Self>, Error> {
        let manager = manager(project)?;
        let mut tests = Vec::new();
        for composition in compositions {
            let unit = &composition.unit;
            let Some(app) = project.app(&unit.app) else {
                continue;
            };
            if app.kind != AppKind::Playwright {
                continue;
            }
            let servers = stores.iter().find(|it| it.store == unit.store);
            let started = servers.into_iter().flat_map(|it| &it.servers);
            let apps = started.filter_map(|server| project.app(&server.unit.app));
            let planner = EnvironmentPlanner {
                project,
                apps: apps.collect(),
            };
            let command = command(manager, app, arguments);
            let folder = format!(".out/{unit}");
            let launch = Launch::Script {
                command: command.clone(),
                folder: folder.clone(),
            };
            let env_files = env_files(composition, app.kind, &launch);
            tests.push(Self {
                unit: unit.clone(),
                folder,
                command,
                environment: planner.environment(app, &launch, &env_files)?,
                env_files,
            });
        }
        Ok(tests)
    }
}

/// The command that runs the tests with these arguments.
fn command(manager: PackageManager, app: &BaseApp, arguments: &TestArguments) -> Vec<String> {
    let has = |script: &&&str| app.package.scripts.contains_key(**script);
    let of_ui = [UI_SCRIPT].iter().find(has).filter(|_| arguments.ui);
    let mut given = arguments.others.clone();
    if arguments.ui && of_ui.is_none() {
        given.insert(0, UI.to_owned());
    }
    match of_ui.or_else(|| SCRIPTS.iter().find(has)) {
        Some(script) => manager.run(script, &given),
        // `npx` finds the installed program also in a folder above, and every Node.js has it.
        None => ["npx", "--no-install", "playwright", "test"]
            .map(str::to_owned)
            .into_iter()
            .chain(given)
            .collect(),
    }
}
