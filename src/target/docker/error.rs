//! Errors of the target `docker`.

use miette::Diagnostic;

use crate::pipeline::{DeployFault, DockerError};
use crate::store::StoreId;
use crate::target::haproxy;

/// Why a step at a Docker engine or its HAProxy failed.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum Error {
    /// A request to the engine failed.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Engine(#[from] DockerError),
    /// The traffic cannot be moved.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Traffic(#[from] haproxy::Error),
    /// The config has no proxy, and HAProxy switches the traffic of the store.
    #[error("HAProxy switches the traffic of `{store}`, and `deploy.docker.proxy` is `null`")]
    #[diagnostic(
        code(alokai::docker::behind_proxy),
        help(
            "to run the store without HAProxy, end it first: set `deploy.docker.proxy` as before and run `alokai store stop --target docker --store {store}`; if that HAProxy does not exist any more, run `docker volume rm {volume}`"
        )
    )]
    BehindProxy {
        /// The store.
        store: StoreId,
        /// The volume that records the HAProxy.
        volume: String,
    },
    /// The engine cannot get an image.
    #[error("the image `{reference}` ({digest}) cannot be pulled: {message}")]
    #[diagnostic(
        code(alokai::docker::image_missing),
        help(
            "check that the image is still in the registry, that the engine can reach the registry, and that the login is valid"
        )
    )]
    ImageMissing {
        /// The image.
        reference: String,
        /// The digest that was asked for.
        digest: String,
        /// The engine's message.
        message: String,
    },
    /// The image is in a folder.
    #[error("the image `{reference}` is in an OCI image layout, which the engine cannot pull")]
    #[diagnostic(
        code(alokai::docker::layout),
        help("push to a registry: set `registry.url` or `--docker-registry-url`")
    )]
    Layout {
        /// The image.
        reference: String,
    },
    /// A container cannot be started.
    #[error("the container `{container}` cannot be started: {message}")]
    #[diagnostic(
        code(alokai::docker::start),
        help("see `docker inspect {container}`, and the engine's log: `journalctl -u docker`")
    )]
    Start {
        /// The container.
        container: String,
        /// The engine's message.
        message: String,
    },
    /// A container with a name that is needed has other labels.
    #[error("a container `{name}` exists, and it does not belong to this store")]
    #[diagnostic(
        code(alokai::docker::foreign_container),
        help("remove or rename the container: `docker rename {name} {name}-old`")
    )]
    ForeignContainer {
        /// The container.
        name: String,
    },
    /// An object with a name that is needed belongs to another store.
    #[error("the {kind} `{name}` belongs to the store `{other}`, so `{owner}` cannot use it")]
    #[diagnostic(
        code(alokai::docker::name_taken),
        help(
            "names in the engine are made of the project name and the store id with `-` between them: change `stores.{store}.deployment.projectName`"
        )
    )]
    NameTaken {
        /// `volume`, `network` or `container`.
        kind: &'static str,
        /// Its name.
        name: String,
        /// The store with the object, as `<project>/<store>`.
        other: String,
        /// The store that needs it, as `<project>/<store>`.
        owner: String,
        /// The id of this store.
        store: String,
    },
    /// A store that has no project name.
    #[error("`{store}` is not a deployable store of this project")]
    #[diagnostic(
        code(alokai::docker::unknown_store),
        help("add `stores.{store}.deployment` to `alokai.config.json`")
    )]
    UnknownStore {
        /// The store.
        store: StoreId,
    },
    /// Settings that the engine does not have.
    #[error("the settings of version {version} of `{store}` are not in the volume `{volume}`")]
    #[diagnostic(
        code(alokai::docker::settings_missing),
        help(
            "set them again with `alokai store settings set --store {store}`, or roll back with `--current-settings`"
        )
    )]
    SettingsMissing {
        /// The store.
        store: StoreId,
        /// The version.
        version: String,
        /// The volume.
        volume: String,
    },
}

impl Error {
    /// What the error means for the exit code.
    pub fn fault(&self) -> DeployFault {
        match self {
            Self::Engine(error) if error.is_unreachable() => DeployFault::Unreachable,
            Self::Layout { .. }
            | Self::UnknownStore { .. }
            | Self::NameTaken { .. }
            | Self::BehindProxy { .. } => DeployFault::Input,
            Self::Traffic(error) => error.fault(),
            _ => DeployFault::Work,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_engine_without_a_connection_is_out_of_reach() {
        let certificate = DockerError::Certificate {
            path: "ca.pem".into(),
            reason: "it does not exist".into(),
        };
        assert_eq!(Error::Engine(certificate).fault(), DeployFault::Unreachable);
        let message = "no space left on device".into();
        let full = Error::Engine(DockerError::DiskFull { message });
        assert_eq!(full.fault(), DeployFault::Work);
    }
}
