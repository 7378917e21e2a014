//! How the apps of a store are started on this machine: program, ports, addresses and environment.
//!
//! Values of `.env` files are secrets, so the plan has only their names. They are read when an app is
//! started.

mod browser_tests;
mod environment;
mod ports;
mod released;
mod serving;
mod sharing;

use std::collections::BTreeMap;

pub use browser_tests::{BrowserTests, TestArguments};
pub use environment::{EnvFile, browser_variable};
pub use ports::LocalPortPlan;
pub use released::released_servers;
pub use serving::{PackageScript, ServeMode, ServePlan};

use crate::config::{AppReference, BaseApp, Project, TemplatePart, ValueTemplate, VerifyMode};
use crate::overlay::{Composition, ContentId};
use crate::store::{AppKind, AppName, StoreId, UnitId};

use self::environment::EnvironmentPlanner;
use super::image::ImagePlan;
use super::{EnvFileError, StorePlan};

/// The apps of one store that can be started, in the order in which they are started.
#[derive(Debug, Clone)]
pub struct StoreServers {
    /// The store.
    pub store: StoreId,
    /// Its apps: the middleware first and the frontends last. A middleware that several stores share
    /// is the same plan in each of them, with the unit of the first store.
    pub servers: Vec<ServerPlan>,
}

/// How one app is started.
#[derive(Debug, Clone)]
pub struct ServerPlan {
    /// Store and app.
    pub unit: UnitId,
    /// The kind of the app.
    pub kind: AppKind,
    /// The program that is started.
    pub launch: Launch,
    /// The port on which it has to listen.
    pub port: u16,
    /// Its `.env` files in the composition. Of two values of one name, the later file's counts.
    pub env_files: Vec<EnvFile>,
    /// Its variables, by name.
    pub environment: BTreeMap<String, PlannedVariable>,
}

/// The program that an app is started with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Launch {
    /// Node runs `entry` in a copy of `folder`, with no `node_modules` above it.
    Artifact {
        /// The `.deploy` of the app, relative to the project.
        folder: String,
        /// The file that Node starts, relative to `folder`.
        entry: String,
    },
    /// The package manager runs a script in the composed app.
    Script {
        /// Program and arguments.
        command: Vec<String>,
        /// The composed app, relative to the project.
        folder: String,
    },
    /// The Docker engine runs an image.
    Image {
        /// The name of the image.
        reference: String,
        /// The network of its container.
        network: ContainerNetwork,
    },
}

/// The network of a container. All containers of a store have one network, so `localhost` with the port of
/// an app means this app in each of them, as it does on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ContainerNetwork {
    /// A network of its own, with these published ports: those of all apps of the store.
    Own {
        /// The ports.
        ports: Vec<u16>,
    },
    /// The network of the store's first container.
    Of {
        /// The name of that container.
        container: String,
    },
}

/// The name of an app's container. A character that the engine does not allow is replaced by `-`.
pub fn container_name(unit: &UnitId) -> String {
    let allowed = |c: char| match c {
        '.' | '_' => c,
        c if c.is_ascii_alphanumeric() => c,
        _ => '-',
    };
    let name = format!("alokai-{}-{}", unit.store, unit.app);
    name.chars().map(allowed).collect()
}

impl Launch {
    /// Whether the app is started for development: from its sources, with `NODE_ENV=development`.
    pub fn is_development(&self) -> bool {
        matches!(self, Self::Script { .. })
    }
}

impl std::fmt::Display for Launch {
    /// The command, as errors name it.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Artifact { entry, .. } => write!(f, "node {entry}"),
            Self::Script { command, .. } => f.write_str(&command.join(" ")),
            Self::Image { reference, .. } => f.write_str(reference),
        }
    }
}

/// Where the value of a variable comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PlannedVariable {
    /// A `.env` file of the composed app. The value is read when the app is started.
    EnvFile(String),
    /// A value that is known while planning.
    Known {
        /// The value.
        value: ValueTemplate,
        /// Whether it also replaces a variable of the user's shell. Ports do, because each app has
        /// its own.
        replaces_shell: bool,
    },
}

/// A variable with its final value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownVariable {
    /// The name.
    pub name: String,
    /// The value. It is not a secret.
    pub value: String,
    /// Whether it also replaces a variable of the user's shell.
    pub replaces_shell: bool,
}

/// Everything that decides how a server runs. A server has to be restarted when it differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerSettings {
    launch: Launch,
    port: u16,
    known: Vec<KnownVariable>,
    env_files: Vec<(String, ContentId)>,
}

/// Plans how the apps of each store are started. The plan is empty for a run that neither starts apps nor
/// prints the commands that start them.
pub fn servers(
    project: &Project,
    stores: &[StorePlan],
    images: &[ImagePlan],
) -> Result<Vec<StoreServers>, EnvFileError> {
    if project.settings.prune.verify != VerifyMode::Start {
        return Ok(Vec::new());
    }
    let ports = LocalPortPlan::new(project);
    let plan_store = |store: &StorePlan| {
        let images = images.iter().filter(|image| image.unit.store == store.id);
        let started = images.filter_map(|image| {
            Some(StartedApp {
                app: project.app(&image.unit.app)?,
                composition: store.compositions.iter().find(|it| it.unit == image.unit)?,
                launch: artifact(&image.unit, image.entry.clone()),
            })
        });
        store_servers(project, &ports, &store.id, started.collect())
    };
    stores.iter().map(plan_store).collect()
}

/// The artifact of a unit.
fn artifact(unit: &UnitId, entry: String) -> Launch {
    let folder = format!(".out/{unit}/.deploy");
    Launch::Artifact { folder, entry }
}

/// An app of a store that is started.
struct StartedApp<'a> {
    app: &'a BaseApp,
    composition: &'a Composition,
    launch: Launch,
}

/// Plans the servers of one store.
fn store_servers(
    project: &Project,
    ports: &LocalPortPlan,
    store: &StoreId,
    started: Vec<StartedApp>,
) -> Result<StoreServers, EnvFileError> {
    let apps: Vec<_> = started.iter().map(|it| it.app).collect();
    let planner = EnvironmentPlanner { project, apps };
    let mut servers = Vec::new();
    for StartedApp {
        app,
        composition,
        launch,
    } in started
    {
        let env_files = environment::env_files(composition, app.kind, &launch);
        let unit = UnitId {
            store: store.clone(),
            app: app.name.clone(),
        };
        servers.push(ServerPlan {
            kind: app.kind,
            port: ports.of(&unit),
            environment: planner.environment(app, &launch, &env_files)?,
            unit,
            launch,
            env_files,
        });
    }
    servers.sort_by_key(|server| match server.kind {
        AppKind::Middleware => 0,
        AppKind::Frontend(_) => 2,
        _ => 1,
    });
    Ok(StoreServers {
        store: store.clone(),
        servers,
    })
}

/// Whether a placeholder names this app.
fn means(reference: &AppReference, name: &AppName, kind: AppKind) -> bool {
    match reference {
        AppReference::Own => false,
        AppReference::Middleware => kind == AppKind::Middleware,
        AppReference::Frontend => kind.framework().is_some(),
        AppReference::Named(wanted) => wanted == name,
    }
}

impl StoreServers {
    /// The address of the store: that of its frontend, or of its first app.
    pub fn address(&self) -> Option<String> {
        let frontend = self.find(&AppReference::Frontend, None);
        Some(frontend.or(self.servers.first())?.address())
    }

    /// Gives frontends the address at which browsers reach the middleware. A value of the config stays.
    pub fn set_middleware_for_browsers(&mut self, address: &str) {
        let default = ValueTemplate::from(TemplatePart::Url(AppReference::Middleware));
        for server in &mut self.servers {
            let name = environment::browser_variable(server.kind);
            let variable = name.and_then(|name| server.environment.get_mut(name));
            if let Some(PlannedVariable::Known { value, .. }) = variable
                && *value == default
            {
                *value = address.into();
            }
        }
    }

    /// The same apps on other ports, in the order of [`Self::servers`].
    #[must_use]
    pub fn on_ports(&self, ports: &[u16]) -> Self {
        let mut moved = self.clone();
        for (server, port) in moved.servers.iter_mut().zip(ports) {
            server.port = *port;
        }
        moved
    }

    /// The variables of an app that are not secrets.
    pub fn known(&self, server: &ServerPlan) -> Vec<KnownVariable> {
        self.known_of(&server.environment, Some(server))
    }

    /// The variables of browser tests that are not secrets.
    pub fn known_to_tests(&self, tests: &BrowserTests) -> Vec<KnownVariable> {
        self.known_of(&tests.environment, None)
    }

    /// The values that are not secrets. Without an own port, a value that contains it is left out.
    fn known_of(
        &self,
        environment: &BTreeMap<String, PlannedVariable>,
        own: Option<&ServerPlan>,
    ) -> Vec<KnownVariable> {
        let known = environment.iter().filter_map(|(name, variable)| {
            let PlannedVariable::Known {
                value,
                replaces_shell,
            } = variable
            else {
                return None;
            };
            Some(KnownVariable {
                name: name.clone(),
                value: self.value(own, value)?,
                replaces_shell: *replaces_shell,
            })
        });
        known.collect()
    }

    /// Everything that decides how a server runs.
    pub fn settings_of(&self, server: &ServerPlan) -> ServerSettings {
        let read = server.env_files.iter().filter(|file| !file.read_by_app);
        ServerSettings {
            launch: server.launch.clone(),
            port: server.port,
            known: self.known(server),
            env_files: read.map(|file| (file.name.clone(), file.id())).collect(),
        }
    }

    fn value(&self, own: Option<&ServerPlan>, template: &ValueTemplate) -> Option<String> {
        let parts = template.parts().iter().map(|part| match part {
            TemplatePart::Text(text) => Some(text.clone()),
            TemplatePart::Store => Some(self.store.to_string()),
            TemplatePart::Port(app) => Some(self.find(app, own)?.port.to_string()),
            TemplatePart::Url(app) => Some(self.find(app, own)?.address()),
        });
        parts.collect()
    }

    fn find<'a>(
        &'a self,
        app: &AppReference,
        own: Option<&'a ServerPlan>,
    ) -> Option<&'a ServerPlan> {
        let mut servers = self.servers.iter();
        match app {
            AppReference::Own => own,
            other => servers.find(|it| means(other, &it.unit.app, it.kind)),
        }
    }
}

impl ServerPlan {
    /// Its address on this machine.
    pub fn address(&self) -> String {
        format!("http://localhost:{}", self.port)
    }

    /// The names of the variables that have its port.
    pub fn port_names(&self) -> impl Iterator<Item = &str> {
        let own = ValueTemplate::from(TemplatePart::Port(AppReference::Own));
        let names = self.environment.iter().filter(move |(_, variable)| {
            matches!(variable, PlannedVariable::Known { value, .. } if *value == own)
        });
        names.map(|(name, _)| name.as_str())
    }

    /// The names of the variables whose values are in `.env` files, each with its file.
    pub fn secret_names(&self) -> impl Iterator<Item = (&str, &str)> {
        self.environment.iter().filter_map(|(name, variable)| {
            let PlannedVariable::EnvFile(file) = variable else {
                return None;
            };
            Some((name.as_str(), file.as_str()))
        })
    }
}
