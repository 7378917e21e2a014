//! Configs and secrets of a swarm. Two configs, or two secrets, cannot have the same name.

use std::collections::HashMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bollard::models::{Config, ConfigSpec, Secret, SecretSpec};
use bollard::query_parameters::{
    ListConfigsOptionsBuilder, ListSecretsOptionsBuilder, UpdateConfigOptionsBuilder,
};

use super::error::Error;
use super::manager::{Manager, is_out_of_sequence};
use crate::pipeline::docker::is_missing;
use crate::target::docker::engine::is_conflict;
use crate::target::labels::{RELEASE, StoreLabels};

impl Manager {
    /// Creates a config. False if another config has its name.
    pub async fn create_config(
        &self,
        name: &str,
        labels: HashMap<String, String>,
        content: &[u8],
    ) -> Result<bool, Error> {
        let spec = ConfigSpec {
            name: Some(name.to_owned()),
            labels: Some(labels),
            data: Some(BASE64.encode(content)),
            ..ConfigSpec::default()
        };
        match self.engine.docker.create_config(spec).await {
            Ok(_) => Ok(true),
            Err(error) if is_conflict(&error) => Ok(false),
            Err(error) => {
                Err(self.engine.failed(format!("create the config `{name}`"))(error).into())
            }
        }
    }

    /// A config, if it exists.
    pub async fn config(&self, name: &str) -> Result<Option<Config>, Error> {
        match self.engine.docker.inspect_config(name).await {
            Ok(found) => Ok(Some(found)),
            Err(error) if is_missing(&error) => Ok(None),
            Err(error) => {
                Err(self.engine.failed(format!("inspect the config `{name}`"))(error).into())
            }
        }
    }

    /// The configs with values of `.env` files of the releases of a store: their ids and releases.
    pub async fn release_configs(
        &self,
        owner: &StoreLabels,
    ) -> Result<Vec<(String, String)>, Error> {
        let labels: Vec<String> = owner.filters().collect();
        let filters = HashMap::from([("label", labels)]);
        let options = ListConfigsOptionsBuilder::default().filters(&filters);
        let docker = &self.engine.docker;
        let found = docker.list_configs(Some(options.build())).await;
        let found = found.map_err(self.engine.failed("list configs"))?;
        let release = |config: Config| {
            let labels = config.spec?.labels?;
            Some((config.id?, labels.get(RELEASE)?.clone()))
        };
        Ok(found.into_iter().filter_map(release).collect())
    }

    /// Replaces a label of a config. False if somebody has changed or removed it since it was read.
    pub async fn label_config(
        &self,
        config: &Config,
        (key, value): (&str, String),
    ) -> Result<bool, Error> {
        let id = config.id.as_deref().unwrap_or_default();
        let mut spec = config.spec.clone().unwrap_or_default();
        let labels = spec.labels.get_or_insert_default();
        labels.insert(key.to_owned(), value);
        let version = config.version.as_ref().and_then(|it| it.index);
        let version = i64::try_from(version.unwrap_or_default()).unwrap_or_default();
        let options = UpdateConfigOptionsBuilder::default().version(version);
        let docker = &self.engine.docker;
        match docker.update_config(id, spec, options.build()).await {
            Ok(()) => Ok(true),
            Err(error) if is_out_of_sequence(&error) || is_missing(&error) => Ok(false),
            Err(error) => {
                Err(self.engine.failed(format!("change the config `{id}`"))(error).into())
            }
        }
    }

    /// Removes a config, by its id.
    pub async fn remove_config(&self, id: &str) -> Result<(), Error> {
        match self.engine.docker.delete_config(id).await {
            Err(error) if !is_missing(&error) => {
                Err(self.engine.failed(format!("remove the config `{id}`"))(error).into())
            }
            _ => Ok(()),
        }
    }

    /// The id of a secret with this name, which is created if it does not exist.
    pub async fn secret(
        &self,
        name: &str,
        labels: HashMap<String, String>,
        content: &str,
    ) -> Result<String, Error> {
        let spec = SecretSpec {
            name: Some(name.to_owned()),
            labels: Some(labels.clone()),
            data: Some(BASE64.encode(content)),
            ..SecretSpec::default()
        };
        match self.engine.docker.create_secret(spec).await {
            Ok(created) => return Ok(created.id),
            Err(error) if is_conflict(&error) => {}
            Err(error) => {
                return Err(
                    self.engine.failed(format!("create the secret `{name}`"))(error).into(),
                );
            }
        }
        let foreign = || Error::Foreign {
            kind: "secret",
            name: name.to_owned(),
        };
        let found = self.engine.docker.inspect_secret(name).await;
        let found = found.map_err(self.engine.failed(format!("inspect the secret `{name}`")))?;
        let known = found.spec.and_then(|spec| spec.labels);
        if known.as_ref() != Some(&labels) {
            return Err(foreign());
        }
        found.id.ok_or_else(foreign)
    }

    /// The secrets of the releases of a store: their ids and releases.
    pub async fn secrets(&self, owner: &StoreLabels) -> Result<Vec<(String, String)>, Error> {
        let labels: Vec<String> = owner.filters().collect();
        let filters = HashMap::from([("label", labels)]);
        let options = ListSecretsOptionsBuilder::default().filters(&filters);
        let docker = &self.engine.docker;
        let found = docker.list_secrets(Some(options.build())).await;
        let found = found.map_err(self.engine.failed("list secrets"))?;
        let release = |secret: Secret| {
            let labels = secret.spec?.labels?;
            Some((secret.id?, labels.get(RELEASE)?.clone()))
        };
        Ok(found.into_iter().filter_map(release).collect())
    }

    /// Removes a secret, by its id.
    pub async fn remove_secret(&self, id: &str) -> Result<(), Error> {
        match self.engine.docker.delete_secret(id).await {
            Err(error) if !is_missing(&error) => {
                Err(self.engine.failed(format!("remove the secret `{id}`"))(error).into())
            }
            _ => Ok(()),
        }
    }
}
