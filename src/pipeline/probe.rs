//! Checks of the services that a run uses, without a run. Each function checks one service as the
//! preflight does, and changes nothing.

use std::path::Path;

use futures_util::StreamExt;

use super::base::{BaseSources, BaseUnavailable};
use super::failure::StageError;
use super::services::Services;
use super::{docker, sandbox};
use crate::registry;
use oci::{Digest, Platform};
use oci_distribution::Client;

/// The number of repositories that are checked at the same time.
const AT_ONCE: usize = 8;

/// A Docker engine that responds.
#[derive(Debug, Clone)]
pub struct EngineFound {
    /// Its version, if the response has it.
    pub version: Option<String>,
}

/// Checks that the registry accepts the login, and lets it push to each of these repositories.
pub async fn registry(
    address: &str,
    repositories: &[String],
    services: &Services,
) -> Result<Client, StageError> {
    let client = services.client(address).await?;
    match client.check().await {
        Err(error @ oci_distribution::Error::Unauthorized { .. }) => {
            let login = services.access.logins().for_host(client.host()).await?;
            return Err(match login {
                Some(_) => error.into(),
                None => StageError::from(registry::Error::NoCredentials {
                    server: format!("the registry `{}`", client.host()),
                    missing: services.access.missing.clone(),
                }),
            });
        }
        other => other?,
    }
    let checks = futures_util::stream::iter(repositories)
        .map(async |repository| client.check_push(repository).await);
    let results: Vec<_> = checks.buffered(AT_ONCE).collect().await;
    results.into_iter().collect::<Result<(), _>>()?;
    Ok(client)
}

/// Resolves a base image. Its layers are not read.
pub async fn base_image(
    project: &Path,
    name: &str,
    platform: &Platform,
    services: &Services,
) -> Result<Digest, StageError> {
    let sources = BaseSources {
        project,
        layout: None,
        services,
    };
    match sources.find(name, platform).await {
        Ok(base) => Ok(base.pinned.digest),
        Err(error) => Err(StageError::from(BaseUnavailable {
            name: name.to_owned(),
            own: Box::new(error),
            engine: None,
        })),
    }
}

/// Connects to the Docker engine.
pub async fn engine(services: &Services) -> Result<EngineFound, StageError> {
    let docker = docker::connect(services.access.engine(None)).await?;
    let version = docker.version().await.ok().and_then(|it| it.version);
    Ok(EngineFound { version })
}

/// Why scripts cannot run in a sandbox on this machine. `None` if they can.
pub fn sandbox_support() -> Option<String> {
    sandbox::support().err().map(|reason| reason.to_string())
}
