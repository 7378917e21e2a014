//! Errors of the target `swarm`.

use std::path::PathBuf;

use miette::Diagnostic;

use crate::pipeline::{DeployFault, DockerError};
use crate::store::{AppName, StoreId};
use crate::target::{docker, haproxy};

/// Why a step at a Docker Swarm failed.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum Error {
    /// The engine failed.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Engine(#[from] docker::Error),
    /// The traffic cannot be moved.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Traffic(#[from] haproxy::Error),
    /// The engine does not manage a swarm.
    #[error("the Docker engine at `{address}` is not a swarm manager: {state}")]
    #[diagnostic(
        code(alokai::swarm::not_a_manager),
        help(
            "make a swarm with `docker swarm init`, or set `deploy.swarm.host` to the address of a manager"
        )
    )]
    NotManager {
        /// The engine.
        address: String,
        /// What the engine is instead.
        state: String,
    },
    /// An object with a name that is needed has other labels.
    #[error("a {kind} `{name}` exists, and it does not belong to this store")]
    #[diagnostic(
        code(alokai::swarm::foreign),
        help(
            "see `docker {kind} inspect {name}`; if nothing uses it, remove it: `docker {kind} rm {name}`"
        )
    )]
    Foreign {
        /// `service`, `config` or `secret`.
        kind: &'static str,
        /// Its name.
        name: String,
    },
    /// A task cannot be started.
    #[error("the service `{service}` cannot be started: {message}")]
    #[diagnostic(
        code(alokai::swarm::start),
        help("`docker service ps --no-trunc {service}` lists the tasks of a service")
    )]
    Start {
        /// The service.
        service: String,
        /// The message of Swarm.
        message: String,
    },
    /// No node can run a task.
    #[error("no node of the swarm can run the service `{service}`: {message}")]
    #[diagnostic(
        code(alokai::swarm::no_node),
        help("`docker node ls` lists the nodes; at least one has to be `Ready` and `Active`")
    )]
    NoNode {
        /// The service.
        service: String,
        /// The message of Swarm.
        message: String,
    },
    /// A task did not start in time.
    #[error("the service `{service}` did not start within {seconds} s; its task is `{state}`")]
    #[diagnostic(
        code(alokai::swarm::slow),
        help("`docker service ps --no-trunc {service}` lists the tasks of a service")
    )]
    Slow {
        /// The service.
        service: String,
        /// The time limit.
        seconds: u64,
        /// The last state, and its message.
        state: String,
    },
    /// The values that output must not show are not known.
    #[error(
        "the swarm does not have the values of `.env` files of release {release} of `{store}`, so they cannot be replaced in output"
    )]
    #[diagnostic(
        code(alokai::swarm::env_missing),
        help("deploy the store again; `docker service logs` shows the output with all values")
    )]
    EnvMissing {
        /// The store.
        store: StoreId,
        /// The release.
        release: String,
    },
    /// Swarm stopped an update, or rolled it back.
    #[error("Swarm did not finish the update of the service `{service}` ({state}): {message}")]
    #[diagnostic(
        code(alokai::swarm::update),
        help("`docker service ps --no-trunc {service}` lists the tasks of a service")
    )]
    Update {
        /// The service.
        service: String,
        /// The state of the update.
        state: String,
        /// The message of Swarm.
        message: String,
    },
    /// Another run or a person changed a service.
    #[error("the service `{service}` was changed by another run or by a person at the same time")]
    #[diagnostic(
        code(alokai::swarm::changed),
        help("run the command again: it reads the services again")
    )]
    Changed {
        /// The service.
        service: String,
    },
    /// A name that a shell cannot export.
    #[error("`{name}` is not a valid name of a secret variable of the app `{app}`")]
    #[diagnostic(
        code(alokai::swarm::variable_name),
        help("use letters, digits and underscores, and begin with a letter or an underscore")
    )]
    VariableName {
        /// The app.
        app: AppName,
        /// The name.
        name: String,
    },
    /// Settings that the swarm does not have.
    #[error("the settings of version {version} of `{store}` are not in the swarm")]
    #[diagnostic(
        code(alokai::swarm::settings_missing),
        help(
            "set them again with `alokai store settings set --store {store}`, or roll back with `--current-settings`"
        )
    )]
    SettingsMissing {
        /// The store.
        store: StoreId,
        /// The version.
        version: String,
    },
    /// Settings that were encrypted with another key.
    #[error(
        "the settings of version {version} of `{store}` cannot be decrypted with the key `{}`",
        key.display()
    )]
    #[diagnostic(
        code(alokai::swarm::settings_key),
        help(
            "restore the key file from a copy, or remove the settings with `alokai store settings unset --all --store {store}` and set them again"
        )
    )]
    SettingsKey {
        /// The store.
        store: StoreId,
        /// The version.
        version: String,
        /// The key.
        key: PathBuf,
    },
    /// The values of `.env` files were encrypted with another key.
    #[error(
        "the values of `.env` files of release {release} of `{store}` cannot be decrypted with the key `{}`",
        key.display()
    )]
    #[diagnostic(
        code(alokai::swarm::env_key),
        help(
            "restore the key file from a copy, or make a new release with `alokai store deploy --store {store}`"
        )
    )]
    EnvKey {
        /// The store.
        store: StoreId,
        /// The release.
        release: String,
        /// The key.
        key: PathBuf,
    },
    /// The key of the settings cannot be used.
    #[error("the key file `{}`, which encrypts the settings, cannot be used: {reason}", key.display())]
    #[diagnostic(
        code(alokai::swarm::key),
        help("the user that runs alokai has to be able to read and write the file")
    )]
    Key {
        /// The key.
        key: PathBuf,
        /// The cause.
        reason: String,
    },
}

impl From<DockerError> for Error {
    fn from(error: DockerError) -> Self {
        Self::Engine(error.into())
    }
}

impl Error {
    /// What the error means for the exit code.
    pub fn fault(&self) -> DeployFault {
        match self {
            Self::Engine(error) => error.fault(),
            Self::Traffic(error) => error.fault(),
            Self::NotManager { .. } => DeployFault::Unreachable,
            Self::VariableName { .. } => DeployFault::Input,
            _ => DeployFault::Work,
        }
    }
}
