//! The variables of the apps of a release.

use std::collections::BTreeMap;

use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};

use super::kinds::SECRET;
use super::manifests::{ReleaseObjects, path_of, public_hosts};
use super::names;
use crate::config::{AppReference, TemplatePart, ValueTemplate};
use crate::target::{DATA_VARIABLE, ReleasedApp, SpecVariable};

/// The variables of an app.
pub struct AppVariables<'a> {
    /// Values that are not secret.
    pub plain: BTreeMap<&'a str, String>,
    /// Values of `.env` files.
    pub secret: BTreeMap<&'a str, &'a SecretString>,
}

impl ReleaseObjects<'_> {
    /// The Secret with the values of an app's `.env` files, if it has any.
    pub fn environment_secret(&self, app: &ReleasedApp) -> Option<Value> {
        let secret = self.variables(app).secret;
        if secret.is_empty() {
            return None;
        }
        let mut object = self.head(SECRET, &names::environment_secret(self.spec, app));
        let values: BTreeMap<_, _> = secret
            .iter()
            .map(|(name, value)| (name, value.expose_secret()))
            .collect();
        object["type"] = "Opaque".into();
        object["immutable"] = true.into();
        object["stringData"] = json!(values);
        Some(object)
    }

    /// The names of the variables in an app's Secret.
    pub fn secret_names(&self, app: &ReleasedApp) -> Vec<String> {
        let secret = self.variables(app).secret;
        secret.into_keys().map(str::to_owned).collect()
    }

    /// The variables of an app, without its settings.
    pub fn variables<'a>(&'a self, app: &'a ReleasedApp) -> AppVariables<'a> {
        let mut variables = AppVariables {
            plain: BTreeMap::new(),
            secret: BTreeMap::new(),
        };
        if let Some(storage) = self.storage()
            && !self.has_setting(DATA_VARIABLE)
        {
            let path = storage.data.path.clone();
            variables.plain.insert(DATA_VARIABLE, path);
        }
        for (name, variable) in &app.variables {
            match variable {
                // The path of the volume replaces a path from a `.env` file, which would be removed with the release.
                _ if name == DATA_VARIABLE && self.storage().is_some() => {}
                SpecVariable::Secret(secret) => {
                    variables.secret.insert(name, secret);
                }
                // Values of `env` would win over those of Secrets.
                SpecVariable::Template(_) if self.has_setting(name) => {}
                SpecVariable::Template(template) => {
                    let value = self.value(app, name, template);
                    variables.plain.extend(value.map(|it| (name.as_str(), it)));
                }
            }
        }
        variables
    }

    fn has_setting(&self, name: &str) -> bool {
        self.settings.iter().any(|setting| setting == name)
    }

    /// The value of a template; none if it names an app that the release does not have.
    fn value(&self, app: &ReleasedApp, name: &str, template: &ValueTemplate) -> Option<String> {
        let host = public_hosts(self.spec).into_iter().next();
        let public = host.and_then(|host| self.address(&host));
        let middleware = self.spec.browser_middleware(app, name, template);
        if let Some((middleware, public)) = middleware.zip(public) {
            return Some(match path_of(middleware) {
                "" => public,
                path => format!("{public}/{path}"),
            });
        }
        let parts = template.parts().iter().map(|part| {
            Some(match part {
                TemplatePart::Text(text) => text.clone(),
                TemplatePart::Store => self.spec.store.to_string(),
                TemplatePart::Port(reference) => self.spec.app(app, reference)?.port.to_string(),
                TemplatePart::Url(AppReference::Own) => format!("http://localhost:{}", app.port),
                TemplatePart::Url(reference) => {
                    let other = self.spec.app(app, reference)?;
                    let mut numbered = self.numbered().into_iter();
                    let (_, number) = numbered.find(|(it, _)| it.app == other.app)?;
                    format!("http://{}:{number}", self.service_name())
                }
            })
        });
        parts.collect()
    }
}
