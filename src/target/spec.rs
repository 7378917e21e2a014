//! What a target is asked to run.

use std::collections::BTreeMap;
use std::time::Duration;

use secrecy::SecretString;

use crate::config::{AppReference, TemplatePart, ValueTemplate};
use crate::ledger::RecordId;
use crate::plan::browser_variable;
use crate::redaction::is_public;
use crate::store::{AppKind, AppName, StoreId};
use crate::target::Settings;

/// Values of `.env` files, by app.
pub type EnvValues = BTreeMap<AppName, Settings>;

/// A release of a store: all of its apps.
#[derive(Debug, Clone)]
pub struct ReleaseSpec {
    /// The release.
    pub id: RecordId,
    /// The store.
    pub store: StoreId,
    /// Its apps: the middleware first and the frontends last.
    pub apps: Vec<ReleasedApp>,
    /// The version of its settings.
    pub settings: Option<String>,
    /// The release of which this one is a copy.
    pub copy_of: Option<RecordId>,
    /// The public names of the store, without a port.
    pub hosts: Vec<String>,
    /// How long an app has between SIGTERM and SIGKILL.
    pub stop_timeout: Duration,
}

impl ReleaseSpec {
    /// A release whose apps are not known. It can get the traffic again if it runs already.
    pub fn without_apps(id: RecordId, store: StoreId) -> Self {
        Self {
            id,
            store,
            apps: Vec::new(),
            settings: None,
            copy_of: None,
            hosts: Vec::new(),
            stop_timeout: Duration::from_secs(10),
        }
    }

    /// The same release, whose apps have these values of `.env` files instead of those of the working tree. A
    /// variable that the config sets now keeps its value. Apps that are not listed stay as they are.
    #[must_use]
    pub fn with_env_values(&self, mut values: EnvValues) -> Self {
        let mut spec = self.clone();
        for app in &mut spec.apps {
            let Some(values) = values.remove(&app.app) else {
                continue;
            };
            let variables = &mut app.variables;
            variables.retain(|_, variable| matches!(variable, SpecVariable::Template(_)));
            for (name, value) in values {
                variables.entry(name).or_insert(SpecVariable::Secret(value));
            }
        }
        spec
    }

    /// The notice that a copy does not get the values of `.env` files of its original, because the target
    /// does not have them any more.
    pub fn without_original(&self, original: &RecordId) -> String {
        format!(
            "`{}`: the target does not have the values of `.env` files of release {original} any more, so its copy {} gets those of this working tree",
            self.store, self.id
        )
    }

    /// The app that a placeholder of the app `own` names. `None` if the release does not have it.
    pub fn app<'a>(
        &'a self,
        own: &'a ReleasedApp,
        reference: &AppReference,
    ) -> Option<&'a ReleasedApp> {
        let mut apps = self.apps.iter();
        match reference {
            AppReference::Own => Some(own),
            AppReference::Middleware => apps.find(|app| app.kind == AppKind::Middleware),
            AppReference::Frontend => apps.find(|app| app.kind.framework().is_some()),
            AppReference::Named(name) => apps.find(|app| app.app == *name),
        }
    }

    /// The middleware, if the variable `name` of the app `own` is its address for browsers. They need its
    /// public address, because they do not reach the address that other apps use.
    pub fn browser_middleware<'a>(
        &'a self,
        own: &'a ReleasedApp,
        name: &str,
        value: &ValueTemplate,
    ) -> Option<&'a ReleasedApp> {
        let of_middleware = [TemplatePart::Url(AppReference::Middleware)];
        if browser_variable(own.kind) != Some(name) || value.parts() != of_middleware {
            return None;
        }
        self.app(own, &AppReference::Middleware)
    }
}

/// An app of a release.
#[derive(Debug, Clone)]
pub struct ReleasedApp {
    /// The app.
    pub app: AppName,
    /// Its kind.
    pub kind: AppKind,
    /// The image: `<registry>/<repository>:<tag>`, or `oci:<dir>:<repository>:<tag>`.
    pub reference: String,
    /// The digest of its manifest. Targets run the image by its digest.
    pub digest: String,
    /// The port on which the app listens in its container.
    pub port: u16,
    /// The public path below which the app answers, such as `/api/`. None for the frontend.
    pub path_prefix: Option<String>,
    /// Whether the app sees the path without the prefix.
    pub strips_prefix: bool,
    /// Its variables, without the settings, which win.
    pub variables: BTreeMap<String, SpecVariable>,
    /// How it is probed.
    pub health: HealthProbe,
}

impl ReleasedApp {
    /// The variables with values of `.env` files that output must not show.
    pub fn hidden(&self) -> impl Iterator<Item = (&str, &SecretString)> {
        let variables = self.variables.iter();
        let hidden = variables.filter(|(name, _)| !is_public(name));
        hidden.filter_map(|(name, variable)| match variable {
            SpecVariable::Secret(secret) => Some((name.as_str(), secret)),
            SpecVariable::Template(_) => None,
        })
    }
}

/// A variable of an app.
#[derive(Debug, Clone)]
pub enum SpecVariable {
    /// A value with placeholders, which the target fills in with its own ports and addresses.
    Template(ValueTemplate),
    /// A value of a `.env` file.
    Secret(SecretString),
}

/// How the health of an app is probed: requests for `path` until `consecutive` of them succeed in a
/// row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthProbe {
    /// The path.
    pub path: String,
    /// The expected status. None accepts every status below 500.
    pub status: Option<u16>,
    /// The pause between two requests.
    pub interval: Duration,
    /// The time limit of a request.
    pub timeout: Duration,
    /// The time limit of all of them.
    pub deadline: Duration,
    /// The successes in a row that are needed.
    pub consecutive: u32,
}

impl Default for HealthProbe {
    fn default() -> Self {
        Self {
            path: "/".into(),
            status: None,
            interval: Duration::from_secs(1),
            timeout: Duration::from_secs(5),
            deadline: Duration::from_mins(1),
            consecutive: 2,
        }
    }
}
