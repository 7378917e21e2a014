//! The containers of a release: their names, variables and limits.

use std::collections::HashMap;

use bollard::models::{
    ContainerCreateBody, EndpointSettings, HostConfig, HostConfigLogConfig, NetworkingConfig,
    PortBinding, RestartPolicy, RestartPolicyNameEnum,
};

use super::data::StoreData;
use crate::target::container_variables::{ContainerVariables, host_name};
use crate::target::labels::{APP, ENV_FILES, PORT, RELEASE, SECRETS, StoreLabels};
use crate::target::{ReleaseSpec, ReleasedApp};

/// The limits of a container's output: three files.
pub const LOG_FILES: [(&str, &str); 2] = [("max-size", "10m"), ("max-file", "3")];

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
    /// The variables of its apps.
    pub variables: ContainerVariables<'a>,
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
        labels.insert(
            SECRETS.to_owned(),
            self.variables.secret_names(app).join(","),
        );
        labels.insert(
            ENV_FILES.to_owned(),
            self.variables.file_names(app).join(","),
        );
        let endpoint = EndpointSettings {
            aliases: Some(vec![host_name(self.spec, app)]),
            ..EndpointSettings::default()
        };
        let stop_timeout = i64::try_from(self.spec.stop_timeout.as_secs());
        ContainerCreateBody {
            image: Some(image.to_owned()),
            env: Some(self.variables.all(app)),
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
}
