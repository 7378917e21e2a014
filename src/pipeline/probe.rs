//! Checks of the services that a run uses, without a run. Each function checks one service as the
//! preflight does, and changes nothing.

use std::path::Path;

use futures_util::StreamExt;

use super::base::{BaseSources, BaseUnavailable};
use super::failure::StageError;
use super::services::Services;
use super::{docker, sandbox};
use crate::plan::DestinationPlan;
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

/// Resolves a base image as a deploy to a destination does. None if only the engine has it. Its layers are
/// not read.
pub async fn base_image(
    project: &Path,
    destination: &DestinationPlan,
    name: &str,
    platform: &Platform,
    services: &Services,
) -> Result<Option<Digest>, StageError> {
    let layout = match destination {
        DestinationPlan::Layout { folder, .. } => Some(folder.as_path()),
        DestinationPlan::Registry { .. } => None,
    };
    let sources = BaseSources {
        project,
        layout,
        services,
    };
    let own = match sources.find(name, platform).await {
        Ok(base) => return Ok(Some(base.pinned.digest)),
        Err(error) => Box::new(error),
    };
    // The engine cannot push to a layout.
    let engine = if layout.is_some() {
        None
    } else {
        match in_engine(name, services).await {
            Ok(()) => return Ok(None),
            Err(error) => Some(Box::new(error)),
        }
    };
    Err(StageError::from(BaseUnavailable {
        name: name.to_owned(),
        own,
        engine,
    }))
}

async fn in_engine(name: &str, services: &Services) -> Result<(), docker::Error> {
    let engine = docker::connect(services.access.engine(None)).await?;
    docker::check_present(&engine, name).await
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
