//! The services of a release: their names, variables, secrets and ports.

use std::collections::HashMap;
use std::fmt::Write;

use bollard::models::{
    EndpointPortConfig, EndpointPortConfigProtocolEnum, EndpointPortConfigPublishModeEnum,
    EndpointSpec, EndpointSpecModeEnum, NetworkAttachmentConfig, ServiceSpec, TaskSpec,
    TaskSpecContainerSpec, TaskSpecContainerSpecFile, TaskSpecContainerSpecSecrets,
    TaskSpecLogDriver, TaskSpecRestartPolicy, TaskSpecRestartPolicyConditionEnum,
};
use ring::digest::{SHA256, digest};
use secrecy::ExposeSecret;

use super::error::Error;
use super::manager::{AppService, IMAGE, replicas};
use crate::config::is_variable_name;
use crate::target::container_variables::{ContainerVariables, host_name, lines};
use crate::target::docker::apps::LOG_FILES;
use crate::target::docker::data::StoreData;
use crate::target::haproxy::lower;
use crate::target::labels::{APP, PORT, RELEASE, SETTINGS, StoreLabels};
use crate::target::{ReleaseSpec, ReleasedApp, Settings};

/// The most characters of a store and of an app in the name of a service, which has at most 63.
const LONGEST: (usize, usize) = (12, 28);

/// The most characters of an owner in the name of a config, which has at most 64.
const LONGEST_OWNER: usize = 16;

/// The file with the values of `.env` files of an app, below `/run/secrets`. The copy of a release has the
/// secret of its original.
const ENV_FILE: &str = "alokai.env";

/// The file with the settings of an app. It is read last, because settings win.
const SETTINGS_FILE: &str = "alokai-settings.env";

/// The pause before Swarm starts an app again that has ended.
const RESTART_DELAY: i64 = 1_000_000_000;

/// The inputs of all services of a release.
pub struct ReleaseServices<'a> {
    /// The release.
    pub spec: &'a ReleaseSpec,
    /// The owner.
    pub owner: &'a StoreLabels,
    /// The network of the store.
    pub network: &'a str,
    /// The variables of its apps.
    pub variables: ContainerVariables<'a>,
    /// The data of the store.
    pub data: Option<StoreData<'a>>,
}

/// An image with its command.
pub struct ServiceImage {
    /// Its name, with its digest.
    pub name: String,
    /// Its entry point and its arguments.
    pub command: Vec<String>,
}

/// A secret of an app: a shell script that exports its variables.
pub struct AppSecret {
    /// Its name.
    pub name: String,
    /// Its content.
    pub script: String,
    /// The file in which the app has it.
    pub file: &'static str,
}

/// The name of the service of an app. The position distinguishes apps whose names differ only in special
/// characters.
pub fn service_name(spec: &ReleaseSpec, app: &ReleasedApp) -> String {
    let position = position(spec, app);
    let store = cleaned(spec.store.as_str(), LONGEST.0);
    let name = cleaned(app.app.as_str(), LONGEST.1);
    format!("{store}-{name}-{position}-{}", lower(&spec.id))
}

/// The name of an object of a store, such as its lock.
pub fn object_name(kind: &str, owner: &StoreLabels) -> String {
    let key = owner.key();
    let hash = digest(&SHA256, key.as_bytes());
    let hash = hash.as_ref()[..4]
        .iter()
        .fold(String::new(), |mut text, b| {
            let _ = write!(text, "{b:02x}");
            text
        });
    format!(
        "alokai-{kind}-{}-{hash}",
        cleaned(&owner.name(), LONGEST_OWNER)
    )
}

fn position(spec: &ReleaseSpec, app: &ReleasedApp) -> usize {
    let position = spec.apps.iter().position(|it| it.app == app.app);
    position.unwrap_or_default()
}

fn cleaned(name: &str, longest: usize) -> String {
    let allowed = |c: char| match c {
        c if c.is_ascii_alphanumeric() => c.to_ascii_lowercase(),
        _ => '-',
    };
    let name: String = name.chars().take(longest).map(allowed).collect();
    // A name begins and ends with a letter or a digit.
    match name.trim_matches('-') {
        "" => "x".to_owned(),
        name => name.to_owned(),
    }
}

impl ReleaseServices<'_> {
    /// The labels of everything that an app of the release has.
    pub fn labels(&self, app: &ReleasedApp) -> HashMap<String, String> {
        let mut labels = self.owner.map();
        labels.insert(APP.to_owned(), app.app.to_string());
        labels.insert(RELEASE.to_owned(), self.spec.id.to_string());
        labels
    }

    /// The values of `.env` files of an app. None if it has none.
    pub fn env_secret(&self, app: &ReleasedApp) -> Result<Option<AppSecret>, Error> {
        self.app_secret(app, ENV_FILE, &self.variables.of_files(app))
    }

    /// The settings of an app. None if it has none.
    pub fn settings_secret(&self, app: &ReleasedApp) -> Result<Option<AppSecret>, Error> {
        self.app_secret(app, SETTINGS_FILE, &self.variables.settings)
    }

    fn app_secret(
        &self,
        app: &ReleasedApp,
        file: &'static str,
        values: &Settings,
    ) -> Result<Option<AppSecret>, Error> {
        if values.is_empty() {
            return Ok(None);
        }
        let mut script = String::new();
        for (name, value) in values {
            if !is_variable_name(name) {
                return Err(Error::VariableName {
                    app: app.app.clone(),
                    name: name.clone(),
                });
            }
            let value = value.expose_secret().replace('\'', "'\\''");
            let _ = writeln!(script, "export {name}='{value}'");
        }
        let kind = if file == ENV_FILE {
            "alokai-env"
        } else {
            "alokai"
        };
        let position = position(self.spec, app);
        let name = format!("{kind}-{}-{position}", lower(&self.spec.id));
        Ok(Some(AppSecret { name, script, file }))
    }

    /// The service of an app, with this published port.
    pub fn body(
        &self,
        app: &ReleasedApp,
        image: &ServiceImage,
        secrets: Vec<TaskSpecContainerSpecSecrets>,
        port: u16,
    ) -> ServiceSpec {
        let mut labels = self.labels(app);
        let of_container = labels.clone();
        labels.insert(PORT.to_owned(), port.to_string());
        labels.insert(IMAGE.to_owned(), image.name.clone());
        let settings = self.spec.settings.clone();
        labels.extend(settings.map(|version| (SETTINGS.to_owned(), version)));
        let stop_timeout = i64::try_from(self.spec.stop_timeout.as_nanos());
        let container = TaskSpecContainerSpec {
            image: Some(image.name.clone()),
            labels: Some(of_container),
            command: (!secrets.is_empty()).then(|| with_secrets(&secrets, &image.command)),
            env: Some(lines(self.variables.plain(app))),
            stop_grace_period: stop_timeout.ok(),
            secrets: Some(secrets),
            mounts: self.data.as_ref().map(|data| vec![data.mount()]),
            init: Some(true),
            ..TaskSpecContainerSpec::default()
        };
        let network = NetworkAttachmentConfig {
            target: Some(self.network.to_owned()),
            aliases: Some(vec![host_name(self.spec, app)]),
            ..NetworkAttachmentConfig::default()
        };
        let log_options = LOG_FILES.map(|(name, value)| (name.to_owned(), value.to_owned()));
        ServiceSpec {
            name: Some(service_name(self.spec, app)),
            labels: Some(labels),
            task_template: Some(TaskSpec {
                container_spec: Some(container),
                // The same before and after the switch, because Swarm restarts the app if its policy changes.
                restart_policy: Some(TaskSpecRestartPolicy {
                    condition: Some(TaskSpecRestartPolicyConditionEnum::ANY),
                    delay: Some(RESTART_DELAY),
                    ..TaskSpecRestartPolicy::default()
                }),
                networks: Some(vec![network]),
                log_driver: Some(TaskSpecLogDriver {
                    name: Some("json-file".into()),
                    options: Some(log_options.into()),
                }),
                ..TaskSpec::default()
            }),
            mode: Some(replicas(1)),
            endpoint_spec: Some(EndpointSpec {
                // Host names resolve to the containers themselves, so IPVS is not needed.
                mode: Some(EndpointSpecModeEnum::DNSRR),
                ports: Some(vec![published(app.port, port)]),
            }),
            ..ServiceSpec::default()
        }
    }
}

/// Gives a service another published port.
pub fn move_port(spec: &mut ServiceSpec, port: u16) {
    let labels = spec.labels.get_or_insert_default();
    labels.insert(PORT.to_owned(), port.to_string());
    let endpoint = spec.endpoint_spec.get_or_insert_default();
    for config in endpoint.ports.iter_mut().flatten() {
        config.published_port = Some(port.into());
    }
}

fn published(target: u16, port: u16) -> EndpointPortConfig {
    EndpointPortConfig {
        protocol: Some(EndpointPortConfigProtocolEnum::TCP),
        target_port: Some(target.into()),
        published_port: Some(port.into()),
        publish_mode: Some(EndpointPortConfigPublishModeEnum::HOST),
        ..EndpointPortConfig::default()
    }
}

/// The command of an image, after its variables were read from the secrets.
fn with_secrets(secrets: &[TaskSpecContainerSpecSecrets], command: &[String]) -> Vec<String> {
    let mut script = String::new();
    for file in secrets.iter().filter_map(file_of) {
        let _ = write!(script, ". /run/secrets/{file} && ");
    }
    script.push_str("exec \"$@\"");
    let shell = ["/bin/sh", "-c", &script, "alokai"].map(str::to_owned);
    shell.into_iter().chain(command.iter().cloned()).collect()
}

/// The name of the file in which an app has a secret.
fn file_of(secret: &TaskSpecContainerSpecSecrets) -> Option<&str> {
    secret.file.as_ref()?.name.as_deref()
}

/// The secret with the values of `.env` files that the tasks of a service get.
pub fn env_secret_of(service: &AppService) -> Option<TaskSpecContainerSpecSecrets> {
    let mut secrets = service.secrets();
    secrets.find(|it| file_of(it) == Some(ENV_FILE)).cloned()
}

/// A secret of the swarm, as an app gets it.
pub fn mounted(id: String, secret: AppSecret) -> TaskSpecContainerSpecSecrets {
    TaskSpecContainerSpecSecrets {
        file: Some(TaskSpecContainerSpecFile {
            name: Some(secret.file.into()),
            uid: Some("0".into()),
            gid: Some("0".into()),
            // All users can read it, because images run as different users. Only the app's container has it.
            mode: Some(0o444),
        }),
        secret_id: Some(id),
        secret_name: Some(secret.name),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use jiff::Timestamp;

    use super::*;
    use crate::ledger::{RecordId, RecordKind};
    use crate::store::{AppKind, AppName, StoreId};
    use crate::target::HealthProbe;

    #[test]
    fn the_longest_names_are_valid_in_a_swarm() {
        let owner = |project: &str| StoreLabels {
            project: project.into(),
            store: "us".into(),
        };
        let id = RecordId::new(RecordKind::Release, Timestamp::now());
        let config = object_name("settings", &owner(&"acme_.".repeat(20)));
        assert!(format!("{config}-{id}").len() <= 64, "{config}-{id}");
        assert!(config.starts_with("alokai-settings-acme"), "{config}");
        let names = ["a.b", "a-b"].map(|project| object_name("lock", &owner(project)));
        assert_ne!(names[0], names[1]);

        let store = StoreId::new(&"store".repeat(10)).unwrap();
        let mut spec = ReleaseSpec::without_apps(id, store);
        let app = |number: usize| ReleasedApp {
            app: AppName::new(&format!("{}{number}", "app-".repeat(20))).unwrap(),
            kind: AppKind::Other,
            reference: String::new(),
            digest: String::new(),
            port: 3000,
            path_prefix: None,
            strips_prefix: false,
            variables: BTreeMap::new(),
            health: HealthProbe::default(),
        };
        spec.apps = (0..12).map(app).collect();
        let names = spec.apps.iter().map(|app| service_name(&spec, app));
        let names: BTreeSet<String> = names.collect();
        assert_eq!(names.len(), 12);
        assert!(names.iter().all(|name| name.len() <= 63), "{names:?}");
        assert_eq!(cleaned("--", 5), "x");
        assert_eq!(cleaned("Shop.eu", 5), "shop");
    }
}
