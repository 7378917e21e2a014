//! The containers of a release: their names, variables and limits.

use std::collections::HashMap;

use bollard::models::{
    ContainerCreateBody, EndpointSettings, HostConfig, HostConfigLogConfig, NetworkingConfig,
    PortBinding, RestartPolicy, RestartPolicyNameEnum,
};
use secrecy::ExposeSecret;

use super::data::StoreData;
use super::engine::{APP, PORT, RELEASE, SECRETS, StoreLabels};
use crate::config::{AppReference, TemplatePart, ValueTemplate};
use crate::ledger::RecordId;
use crate::target::{ReleaseSpec, ReleasedApp, Settings, SpecVariable};

/// The most characters of an app's name in its host name. A label of a host name has at most 63.
const LONGEST_NAME: usize = 36;

/// Values with fewer bytes are not replaced in output: they are mostly flags and numbers.
pub const SHORTEST_SECRET: usize = 6;

/// The starts of names whose values browsers receive.
const PUBLIC: [&str; 2] = ["NEXT_PUBLIC_", "NUXT_PUBLIC_"];

/// The limits of a container's output: three files.
const LOG_FILES: [(&str, &str); 2] = [("max-size", "10m"), ("max-file", "3")];

/// What the containers of a release have in common.
pub struct ReleaseContainers<'a> {
    /// The release.
    pub spec: &'a ReleaseSpec,
    /// The owner.
    pub owner: &'a StoreLabels,
    /// The network of the store.
    pub network: &'a str,
    /// The address on which ports are published.
    pub address: &'a str,
    /// The address of the store for browsers.
    pub public: String,
    /// The settings, which win over other variables.
    pub settings: Settings,
    /// The data of the store.
    pub data: Option<StoreData<'a>>,
    /// Whether the engine starts containers again from their first start on.
    pub restarts: bool,
}

/// The engine starts a container again whenever it ends, until somebody stops it.
pub fn always_restarts() -> RestartPolicy {
    RestartPolicy {
        name: Some(RestartPolicyNameEnum::UNLESS_STOPPED),
        maximum_retry_count: None,
    }
}

/// The name of the container of an app.
pub fn container_name(spec: &ReleaseSpec, app: &ReleasedApp) -> String {
    format!("{}-{}-{}", spec.store, app.app, spec.id)
}

/// The path below which an app answers, without slashes at its ends.
pub fn prefix(app: &ReleasedApp) -> &str {
    app.path_prefix
        .as_deref()
        .unwrap_or_default()
        .trim_matches('/')
}

impl ReleaseContainers<'_> {
    /// The container of an app, with this published port.
    pub fn body(&self, app: &ReleasedApp, image: &str, port: u16) -> ContainerCreateBody {
        let binding = PortBinding {
            host_ip: Some(self.address.to_owned()),
            host_port: Some(port.to_string()),
        };
        let exposed = format!("{}/tcp", app.port);
        let mut labels = self.owner.map();
        labels.insert(APP.to_owned(), app.app.to_string());
        labels.insert(RELEASE.to_owned(), self.spec.id.to_string());
        labels.insert(PORT.to_owned(), port.to_string());
        labels.insert(SECRETS.to_owned(), self.secret_names(app).join(","));
        let endpoint = EndpointSettings {
            aliases: Some(vec![host_name(self.spec, app)]),
            ..EndpointSettings::default()
        };
        let stop_timeout = i64::try_from(self.spec.stop_timeout.as_secs());
        ContainerCreateBody {
            image: Some(image.to_owned()),
            env: Some(self.environment(app)),
            labels: Some(labels),
            exposed_ports: Some(vec![exposed.clone()]),
            stop_timeout: stop_timeout.ok(),
            host_config: Some(HostConfig {
                network_mode: Some(self.network.to_owned()),
                port_bindings: Some(HashMap::from([(exposed, Some(vec![binding]))])),
                // Apps may need services of the machine.
                extra_hosts: Some(vec!["host.docker.internal:host-gateway".into()]),
                init: Some(true),
                mounts: self.data.as_ref().map(|data| vec![data.mount()]),
                // A release that ends before the switch stays as it ended.
                restart_policy: self.restarts.then(always_restarts),
                log_config: Some(HostConfigLogConfig {
                    typ: Some("json-file".into()),
                    config: Some(
                        LOG_FILES
                            .map(|(name, value)| (name.to_owned(), value.to_owned()))
                            .into(),
                    ),
                }),
                ..HostConfig::default()
            }),
            networking_config: Some(NetworkingConfig {
                endpoints_config: Some(HashMap::from([(self.network.to_owned(), endpoint)])),
            }),
            ..ContainerCreateBody::default()
        }
    }

    /// The names of the variables whose values are replaced in output. Browsers receive public ones.
    fn secret_names<'n>(&'n self, app: &'n ReleasedApp) -> Vec<&'n str> {
        let is_secret = |name: &str, variable: &SpecVariable| {
            let is_public = PUBLIC.iter().any(|start| name.starts_with(start));
            matches!(variable, SpecVariable::Secret(_)) && !is_public
        };
        let variables = app.variables.iter();
        let of_files = variables.filter(|(name, variable)| is_secret(name, variable));
        let names = of_files.map(|(name, _)| name.as_str());
        names
            .chain(self.settings.keys().map(String::as_str))
            .collect()
    }

    fn environment(&self, app: &ReleasedApp) -> Vec<String> {
        let mut values: HashMap<&str, String> = HashMap::new();
        let data = self.data.as_ref().map(StoreData::variable);
        let data = data.map(|(name, path)| (name, path.to_owned()));
        for (name, variable) in &app.variables {
            let value = match variable {
                SpecVariable::Template(template) => self.value(app, name, template),
                SpecVariable::Secret(secret) => Some(secret.expose_secret().to_owned()),
            };
            values.extend(value.map(|value| (name.as_str(), value)));
        }
        // A value of a `.env` file leads to no folder that outlives the release.
        values.extend(data);
        for (name, value) in &self.settings {
            values.insert(name, value.expose_secret().to_owned());
        }
        let mut lines: Vec<String> = values
            .into_iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        lines.sort();
        lines
    }

    /// The value of a template; none if it names an app that the release does not have.
    fn value(&self, app: &ReleasedApp, name: &str, template: &ValueTemplate) -> Option<String> {
        if let Some(middleware) = self.spec.browser_middleware(app, name, template) {
            return Some(self.public_address(middleware));
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

    fn public_address(&self, app: &ReleasedApp) -> String {
        match prefix(app) {
            "" => self.public.clone(),
            prefix => format!("{}/{prefix}", self.public),
        }
    }
}

/// The name of an app in the network of its store. It has the release, so each release has its own apps
/// as siblings. The position makes names different that are equal without their special characters.
fn host_name(spec: &ReleaseSpec, app: &ReleasedApp) -> String {
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

/// A release as a part of a host name.
pub fn lower(release: &RecordId) -> String {
    release.as_str().to_ascii_lowercase()
}
