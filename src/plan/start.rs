//! How the apps of a store are started on this machine: ports, addresses and environment.
//!
//! Values of `.env` files are secrets, so the plan has only their names. They are read when an app is
//! started.

use std::collections::{BTreeMap, BTreeSet};

use crate::config::{AppReference, BaseApp, Project, TemplatePart, ValueTemplate, VerifyMode};
use crate::dotenv;
use crate::overlay::Composition;
use crate::store::{AppKind, AppName, Framework, StoreId, UnitId};

use super::image::ImagePlan;
use super::{EnvFileError, StorePlan};

/// The ports of apps without `localPorts`, in the first store.
const NEXTJS_PORT: u16 = 3000;
const NUXT_PORT: u16 = 3333;

/// The lowest port that does not need special permissions.
const LOWEST_PORT: u16 = 1024;

/// The apps of one store that can be started, in the order in which they are started.
#[derive(Debug, Clone)]
pub struct StoreServers {
    /// The store.
    pub store: StoreId,
    /// Its apps: the middleware first and the frontends last.
    pub servers: Vec<ServerPlan>,
}

/// How one app is started.
#[derive(Debug, Clone)]
pub struct ServerPlan {
    /// Store and app.
    pub unit: UnitId,
    /// The kind of the app.
    pub kind: AppKind,
    /// Its `.deploy`, relative to the project.
    pub folder: String,
    /// The file that Node starts, relative to `folder`.
    pub entry: String,
    /// The port on which it has to listen.
    pub port: u16,
    /// Its `.env` files in the composition. Of two values of one name, the later file's counts.
    pub env_files: Vec<String>,
    /// Its variables, by name.
    pub environment: BTreeMap<String, PlannedVariable>,
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

/// Plans how the apps of each store are started. The plan is empty for a run that neither starts apps nor
/// prints the commands that start them.
pub fn servers(
    project: &Project,
    is_local: bool,
    stores: &[StorePlan],
    images: &[ImagePlan],
) -> Result<Vec<StoreServers>, EnvFileError> {
    if !is_local && project.settings.prune.verify != VerifyMode::Start {
        return Ok(Vec::new());
    }
    let ports = LocalPortPlan::new(project);
    let mut planned = Vec::new();
    for store in stores {
        let mut servers = Vec::new();
        let images = images.iter().filter(|image| image.unit.store == store.id);
        let started = images.filter_map(|image| Some((image, project.app(&image.unit.app)?)));
        let started: Vec<_> = started.collect();
        let apps: Vec<_> = started.iter().map(|(_, app)| *app).collect();
        for (image, app) in started {
            let mut compositions = store.compositions.iter();
            let composition = compositions.find(|one| one.unit == image.unit);
            let env_files = composition.map_or(Vec::new(), |one| env_files(one, app.kind));
            servers.push(ServerPlan {
                unit: image.unit.clone(),
                kind: app.kind,
                folder: format!(".out/{}/.deploy", image.unit),
                entry: image.entry.clone(),
                port: ports.of(&image.unit),
                environment: environment(
                    project,
                    app,
                    &apps,
                    composition.map(|it| &**it),
                    &env_files,
                )?,
                env_files,
            });
        }
        servers.sort_by_key(|server| match server.kind {
            AppKind::Middleware => 0,
            AppKind::Frontend(_) => 2,
            _ => 1,
        });
        planned.push(StoreServers {
            store: store.id.clone(),
            servers,
        });
    }
    Ok(planned)
}

/// The port of every app of every deployable store of the project. Ports do not depend on which
/// stores are selected.
struct LocalPortPlan(BTreeMap<UnitId, u16>);

impl LocalPortPlan {
    fn new(project: &Project) -> Self {
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

    fn of(&self, unit: &UnitId) -> u16 {
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
        AppKind::Middleware => super::release::MIDDLEWARE_PORT,
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

/// The composed `.env` files that the app's framework reads in production, the strongest last.
fn env_files(composition: &Composition, kind: AppKind) -> Vec<String> {
    let names: &[&str] = match kind {
        AppKind::Frontend(Framework::Nextjs) => &[
            ".env",
            ".env.production",
            ".env.local",
            ".env.production.local",
        ],
        _ => &[".env"],
    };
    let composed = names
        .iter()
        .filter(|name| composition.entries.contains_key(**name));
    composed.map(|name| (*name).to_owned()).collect()
}

/// The variables of an app. `apps` are all apps of its store that are started.
fn environment(
    project: &Project,
    app: &BaseApp,
    apps: &[&BaseApp],
    composition: Option<&Composition>,
    env_files: &[String],
) -> Result<BTreeMap<String, PlannedVariable>, EnvFileError> {
    let mut environment = BTreeMap::new();
    for file in env_files {
        let values = composition.map(|it| env_values(it, file)).transpose()?;
        for (name, _) in values.unwrap_or_default() {
            environment.insert(name, PlannedVariable::EnvFile(file.clone()));
        }
    }
    let own = own_variables(app.kind);
    for (name, value) in &own {
        let known = PlannedVariable::Known {
            value: value.clone(),
            replaces_shell: true,
        };
        environment.insert((*name).to_owned(), known);
    }
    let middleware = ValueTemplate::from(TemplatePart::Url(AppReference::Middleware));
    let of_siblings = address_variables(app.kind)
        .iter()
        .map(|name| ((*name).to_owned(), middleware.clone()));
    let configured = project.settings.start.of(&app.name).cloned();
    let all = of_siblings.chain(configured);
    // Without the app, the value of a `.env` file is used, such as the address of a middleware elsewhere.
    for (name, value) in all.filter(|(_, value)| has_its_apps(value, apps)) {
        let replaces_shell = own.iter().any(|(own, _)| *own == name);
        let known = PlannedVariable::Known {
            value,
            replaces_shell,
        };
        environment.insert(name, known);
    }
    Ok(environment)
}

/// Whether the store has the apps that the value's placeholders name.
fn has_its_apps(value: &ValueTemplate, apps: &[&BaseApp]) -> bool {
    value.parts().iter().all(|part| match part {
        TemplatePart::Text(_) | TemplatePart::Store => true,
        TemplatePart::Port(reference) | TemplatePart::Url(reference) => {
            *reference == AppReference::Own
                || apps.iter().any(|app| means(reference, &app.name, app.kind))
        }
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

/// Names and values of a composed `.env` file.
pub fn env_values(
    composition: &Composition,
    file: &str,
) -> Result<Vec<(String, String)>, EnvFileError> {
    let Some(entry) = composition.entries.get(file) else {
        return Ok(Vec::new());
    };
    let text = entry.read().map_err(|source| EnvFileError {
        unit: composition.unit.to_string(),
        file: file.to_owned(),
        source,
    })?;
    Ok(dotenv::parse(&String::from_utf8_lossy(&text)))
}

/// The variables with the port and the host name on which an app listens. Without this host name, Next.js
/// uses `HOSTNAME` of the shell.
fn own_variables(kind: AppKind) -> Vec<(&'static str, ValueTemplate)> {
    let port = || ValueTemplate::from(TemplatePart::Port(AppReference::Own));
    let mut variables = vec![
        ("NODE_ENV", ValueTemplate::from("production")),
        ("PORT", port()),
    ];
    match kind {
        AppKind::Frontend(Framework::Nextjs) => variables.push(("HOSTNAME", "localhost".into())),
        AppKind::Frontend(Framework::Nuxt) => variables.extend([
            ("NITRO_PORT", port()),
            ("HOST", "localhost".into()),
            ("NITRO_HOST", "localhost".into()),
        ]),
        AppKind::Middleware => variables.push(("API_PORT", port())),
        AppKind::Playwright | AppKind::Other => {}
    }
    variables
}

/// The variables in which a frontend of the vendor's starters has the address of its middleware: for
/// the browser, and for the server.
fn address_variables(kind: AppKind) -> &'static [&'static str] {
    match kind {
        AppKind::Frontend(Framework::Nextjs) => &[
            "NEXT_PUBLIC_ALOKAI_MIDDLEWARE_API_URL",
            "NEXT_PUBLIC_ALOKAI_MIDDLEWARE_SSR_API_URL",
        ],
        AppKind::Frontend(Framework::Nuxt) => &[
            "NUXT_PUBLIC_ALOKAI_MIDDLEWARE_API_URL",
            "NUXT_PUBLIC_ALOKAI_MIDDLEWARE_SSR_API_URL",
        ],
        _ => &[],
    }
}

impl StoreServers {
    /// The address of the store: that of its frontend, or of its first app.
    pub fn address(&self) -> Option<String> {
        let frontend = self.find(&AppReference::Frontend, None);
        Some(frontend.or(self.servers.first())?.address())
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
        let known = server.environment.iter().filter_map(|(name, variable)| {
            let PlannedVariable::Known {
                value,
                replaces_shell,
            } = variable
            else {
                return None;
            };
            Some(KnownVariable {
                name: name.clone(),
                value: self.value(server, value)?,
                replaces_shell: *replaces_shell,
            })
        });
        known.collect()
    }

    /// The variables of an app in one line: values that are not secrets, and names of those in `.env`
    /// files.
    pub fn settings(&self, server: &ServerPlan) -> String {
        let known = self.known(server).into_iter();
        let known = known.map(|it| format!("{}={}", it.name, it.value));
        let mut line = known.collect::<Vec<_>>().join(" ");
        let mut by_file = BTreeMap::<&str, Vec<&str>>::new();
        for (name, file) in server.secret_names() {
            by_file.entry(file).or_default().push(name);
        }
        for (file, names) in by_file {
            line = format!("{line}; from {file}: {}", names.join(", "));
        }
        line
    }

    fn value(&self, server: &ServerPlan, template: &ValueTemplate) -> Option<String> {
        let parts = template.parts().iter().map(|part| match part {
            TemplatePart::Text(text) => Some(text.clone()),
            TemplatePart::Store => Some(self.store.to_string()),
            TemplatePart::Port(app) => Some(self.find(app, Some(server))?.port.to_string()),
            TemplatePart::Url(app) => Some(self.find(app, Some(server))?.address()),
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

    /// The script that starts it, relative to the project. A run with `--local` writes it.
    pub fn script(&self) -> String {
        format!("{START_SCRIPTS}/{}.sh", self.unit)
    }

    /// The command that starts it, in the project's folder.
    pub fn command(&self) -> String {
        format!("sh {}", self.script())
    }
}

/// The folder of start scripts, relative to the project.
pub const START_SCRIPTS: &str = ".alokai/start";
