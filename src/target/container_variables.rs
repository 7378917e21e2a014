//! The variables of apps in containers, which reach each other by host names in a network.

use std::collections::BTreeMap;

use secrecy::{ExposeSecret, SecretString};

use super::haproxy::{lower, prefix};
use super::{DATA_VARIABLE, ReleaseSpec, ReleasedApp, Settings, SpecVariable};
use crate::config::{AppReference, TemplatePart, ValueTemplate};
use crate::store::AppName;

/// The most characters of an app's name in its host name. A label of a host name has at most 63.
const LONGEST_NAME: usize = 36;

/// The sources of the variables of a release's apps.
pub struct ContainerVariables<'a> {
    /// The release.
    pub spec: &'a ReleaseSpec,
    /// How browsers reach the apps.
    pub public: PublicAddress,
    /// The settings, which replace other variables of the same name.
    pub settings: Settings,
    /// The path of the data in containers.
    pub data: Option<&'a str>,
}

/// How browsers reach the apps of a store.
pub enum PublicAddress {
    /// The address of the store: a proxy has a path for each app.
    Store(String),
    /// The address of each app: there is no proxy.
    Apps(BTreeMap<AppName, String>),
}

impl PublicAddress {
    fn of(&self, app: &ReleasedApp) -> Option<String> {
        match (self, prefix(app)) {
            (Self::Apps(addresses), _) => addresses.get(&app.app).cloned(),
            (Self::Store(address), "") => Some(address.clone()),
            (Self::Store(address), prefix) => Some(format!("{address}/{prefix}")),
        }
    }
}

impl ContainerVariables<'_> {
    /// The variables of an app without secrets and settings.
    pub fn plain(&self, app: &ReleasedApp) -> BTreeMap<String, String> {
        let variables = app.variables.iter().filter_map(|(name, variable)| {
            let SpecVariable::Template(template) = variable else {
                return None;
            };
            Some((name.clone(), self.value(app, name, template)?))
        });
        let data = self
            .data
            .map(|path| (DATA_VARIABLE.to_owned(), path.to_owned()));
        let mut variables: BTreeMap<String, String> = variables.chain(data).collect();
        variables.retain(|name, _| !self.settings.contains_key(name));
        variables
    }

    /// The values of `.env` files of an app. Settings of the same name replace them.
    pub fn of_files(&self, app: &ReleasedApp) -> BTreeMap<String, SecretString> {
        // The path of the volume replaces a path from a `.env` file, which would be removed with the release.
        let is_data = |name: &str| self.data.is_some() && name == DATA_VARIABLE;
        let secrets = app
            .variables
            .iter()
            .filter_map(|(name, variable)| match variable {
                SpecVariable::Secret(secret) if !is_data(name) => {
                    Some((name.clone(), secret.clone()))
                }
                _ => None,
            });
        secrets.collect()
    }

    /// The names of the variables with values of `.env` files that no setting replaces.
    pub fn file_names(&self, app: &ReleasedApp) -> Vec<String> {
        let names = self.of_files(app).into_keys();
        names
            .filter(|name| !self.settings.contains_key(name))
            .collect()
    }

    /// The names of the variables whose values are replaced in output.
    pub fn secret_names<'n>(&'n self, app: &'n ReleasedApp) -> Vec<&'n str> {
        let names = app.hidden().map(|(name, _)| name);
        names
            .chain(self.settings.keys().map(String::as_str))
            .collect()
    }

    /// All variables of an app, as `NAME=value`, sorted.
    pub fn all(&self, app: &ReleasedApp) -> Vec<String> {
        let mut values = self.plain(app);
        for (name, value) in self.of_files(app).into_iter().chain(self.settings.clone()) {
            values.insert(name, value.expose_secret().to_owned());
        }
        lines(values)
    }

    /// The value of a template; none if it names an app that the release does not have.
    fn value(&self, app: &ReleasedApp, name: &str, template: &ValueTemplate) -> Option<String> {
        if let Some(middleware) = self.spec.browser_middleware(app, name, template) {
            return self.public.of(middleware);
        }
        let parts = template.parts().iter().map(|part| {
            Some(match part {
                TemplatePart::Text(text) => text.clone(),
                TemplatePart::Store => self.spec.store.to_string(),
                TemplatePart::Port(reference) => self.spec.app(app, reference)?.port.to_string(),
                TemplatePart::Url(AppReference::Own) => format!("http://localhost:{}", app.port),
                TemplatePart::Url(reference) => {
                    let other = self.spec.app(app, reference)?;
                    format!("http://{}:{}", host_name(self.spec, other), other.port)
                }
            })
        });
        parts.collect()
    }
}

/// Variables as an engine takes them.
pub fn lines(variables: BTreeMap<String, String>) -> Vec<String> {
    let lines = variables
        .into_iter()
        .map(|(name, value)| format!("{name}={value}"));
    lines.collect()
}

/// The name of an app in the network of its store. It contains the release, so an app reaches the other apps
/// of its own release. The position distinguishes apps whose names differ only in special characters.
pub fn host_name(spec: &ReleaseSpec, app: &ReleasedApp) -> String {
    let position = spec.apps.iter().position(|it| it.app == app.app);
    let allowed = |c: char| match c {
        c if c.is_ascii_alphanumeric() => c.to_ascii_lowercase(),
        _ => '-',
    };
    let name: String = app
        .app
        .as_str()
        .chars()
        .map(allowed)
        .take(LONGEST_NAME)
        .collect();
    format!(
        "{name}-{}-{}",
        position.unwrap_or_default(),
        lower(&spec.id)
    )
}
