//! The variables of started apps.

use std::collections::BTreeMap;

use super::{Launch, PlannedVariable, means};
use crate::config::{AppReference, BaseApp, Project, TemplatePart, ValueTemplate};
use crate::dotenv;
use crate::overlay::{Composition, ContentId, Entry};
use crate::plan::EnvFileError;
use crate::store::{AppKind, Framework, UnitId};

/// A `.env` file of a composed app.
#[derive(Debug, Clone)]
pub struct EnvFile {
    /// Its path in the app.
    pub name: String,
    /// Whether the app reads the file itself and follows its changes, so that its values are not set
    /// in the environment.
    pub read_by_app: bool,
    unit: UnitId,
    entry: Entry,
}

impl EnvFile {
    /// Names and values in the file, as they are now.
    pub fn values(&self) -> Result<Vec<(String, String)>, EnvFileError> {
        let text = self.entry.read().map_err(|source| EnvFileError {
            unit: self.unit.to_string(),
            file: self.name.clone(),
            source,
        })?;
        Ok(dotenv::parse(&String::from_utf8_lossy(&text)))
    }

    /// The identity of the content.
    pub fn id(&self) -> ContentId {
        self.entry.id()
    }
}

/// The composed `.env` files of an app, the strongest last: those that its framework reads in
/// production, or in development.
pub fn env_files(composition: &Composition, kind: AppKind, launch: &Launch) -> Vec<EnvFile> {
    let is_development = launch.is_development();
    let names: &[&str] = match kind {
        AppKind::Frontend(Framework::Nextjs) if is_development => &[
            ".env",
            ".env.development",
            ".env.local",
            ".env.development.local",
        ],
        AppKind::Frontend(Framework::Nextjs) => &[
            ".env",
            ".env.production",
            ".env.local",
            ".env.production.local",
        ],
        _ => &[".env"],
    };
    let files = names.iter().filter_map(|name| {
        Some(EnvFile {
            name: (*name).to_owned(),
            // `next dev` and `nuxt dev` apply a changed file without a restart.
            read_by_app: is_development && kind.framework().is_some(),
            unit: composition.unit.clone(),
            entry: composition.entries.get(*name)?.clone(),
        })
    });
    files.collect()
}

/// Plans the variables of the apps of one store.
pub struct EnvironmentPlanner<'a> {
    /// The project.
    pub project: &'a Project,
    /// All apps of the store that are started.
    pub apps: Vec<&'a BaseApp>,
}

impl EnvironmentPlanner<'_> {
    /// The variables of an app.
    pub fn environment(
        &self,
        app: &BaseApp,
        launch: &Launch,
        env_files: &[EnvFile],
    ) -> Result<BTreeMap<String, PlannedVariable>, EnvFileError> {
        let mut environment = BTreeMap::new();
        for file in env_files.iter().filter(|file| !file.read_by_app) {
            for (name, _) in file.values()? {
                environment.insert(name, PlannedVariable::EnvFile(file.name.clone()));
            }
        }
        let mut own = own_variables(app.kind, launch);
        own.retain(|(_, value)| self.has_apps_of(value));
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
        let configured = self.project.settings.start.of(&app.name).cloned();
        let all = of_siblings.chain(configured);
        // Without the app, the value of a `.env` file is used, such as the address of a middleware elsewhere.
        for (name, value) in all.filter(|(_, value)| self.has_apps_of(value)) {
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
    fn has_apps_of(&self, value: &ValueTemplate) -> bool {
        let is_started = |reference: &AppReference| {
            let mut apps = self.apps.iter();
            *reference == AppReference::Own || apps.any(|app| means(reference, &app.name, app.kind))
        };
        value.parts().iter().all(|part| match part {
            TemplatePart::Text(_) | TemplatePart::Store => true,
            TemplatePart::Port(reference) | TemplatePart::Url(reference) => is_started(reference),
        })
    }
}

/// The variables with the port and the host name on which an app listens. Without this host name, Next.js
/// uses `HOSTNAME` of the shell.
fn own_variables(kind: AppKind, launch: &Launch) -> Vec<(&'static str, ValueTemplate)> {
    if kind == AppKind::Playwright {
        return test_variables();
    }
    let port = || ValueTemplate::from(TemplatePart::Port(AppReference::Own));
    // A published port of a container leads to an address that is not its loopback.
    let host = match launch {
        Launch::Image { .. } => "0.0.0.0",
        Launch::Artifact { .. } | Launch::Script { .. } => "localhost",
    };
    let mode = if launch.is_development() {
        "development"
    } else {
        "production"
    };
    let mut variables = vec![("NODE_ENV", ValueTemplate::from(mode)), ("PORT", port())];
    match kind {
        AppKind::Frontend(Framework::Nextjs) => variables.push(("HOSTNAME", host.into())),
        AppKind::Frontend(Framework::Nuxt) => variables.extend([
            ("NITRO_PORT", port()),
            ("HOST", host.into()),
            ("NITRO_HOST", host.into()),
        ]),
        AppKind::Middleware => variables.push(("API_PORT", port())),
        AppKind::Playwright | AppKind::Other => {}
    }
    variables
}

/// The variable in which a frontend has the address of its middleware for the browser.
pub fn browser_variable(kind: AppKind) -> Option<&'static str> {
    address_variables(kind).first().copied()
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

/// The variables in which browser tests have the addresses of their store. `PLAYWRIGHT_TEST_BASE_URL` is
/// the default of Playwright's `baseURL`.
fn test_variables() -> Vec<(&'static str, ValueTemplate)> {
    let frontend = || ValueTemplate::from(TemplatePart::Url(AppReference::Frontend));
    let middleware = || ValueTemplate::from(TemplatePart::Url(AppReference::Middleware));
    vec![
        ("BASE_URL", frontend()),
        ("PLAYWRIGHT_BASE_URL", frontend()),
        ("PLAYWRIGHT_TEST_BASE_URL", frontend()),
        ("MIDDLEWARE_URL", middleware()),
        ("ALOKAI_STORE_ID", TemplatePart::Store.into()),
    ]
}
