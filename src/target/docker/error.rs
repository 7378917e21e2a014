//! Errors of the target `docker`.

use std::path::PathBuf;

use miette::Diagnostic;

use crate::ledger::RecordId;
use crate::pipeline::{DeployFault, DockerError};
use crate::store::{AppName, StoreId};

/// Why a step at a Docker engine or its HAProxy failed.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum Error {
    /// A request to the engine failed.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Engine(#[from] DockerError),
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
    /// A release that has no running container for an app.
    #[error("the app `{app}` of release {release} of `{store}` does not run")]
    #[diagnostic(
        code(alokai::docker::not_staged),
        help("run the command again: it starts the release before the switch")
    )]
    NotStaged {
        /// The store.
        store: StoreId,
        /// The release.
        release: RecordId,
        /// The app.
        app: AppName,
    },
    /// The proxy has no routes to a release.
    #[error("the proxy has no routes to release {release} of `{store}`")]
    #[diagnostic(
        code(alokai::docker::no_routes),
        help("run the command again: it starts the release before the switch")
    )]
    NoRoutes {
        /// The store.
        store: StoreId,
        /// The release.
        release: RecordId,
    },
    /// A path of which HAProxy cannot remove all segments.
    #[error(
        "the path `{path}` of the app `{app}` has {segments} segments; the limit of the target `docker` is {limit}"
    )]
    #[diagnostic(
        code(alokai::docker::path_segments),
        help(
            "set `console.apps.{app}.path` to a shorter path, or let the app answer at the whole path and set `console.apps.{app}.hasBasePath` to `true`"
        )
    )]
    PathSegments {
        /// The app.
        app: String,
        /// The path.
        path: String,
        /// How many segments it has.
        segments: usize,
        /// The limit.
        limit: usize,
    },
    /// The release gets the traffic.
    #[error("release {release} of `{store}` gets the traffic and is not stopped")]
    #[diagnostic(
        code(alokai::docker::active),
        help(
            "make another release live first; `alokai store status --store {store}` shows what is live"
        )
    )]
    Active {
        /// The store.
        store: StoreId,
        /// The release.
        release: RecordId,
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
    /// A name that another store has.
    #[error("`{host}` is a name of `{other}`, so it cannot be a name of `{store}` too")]
    #[diagnostic(
        code(alokai::docker::host_taken),
        help("give each store names of its own")
    )]
    HostTaken {
        /// The name.
        host: String,
        /// The store with the name, as `<project>/<store>`.
        other: String,
        /// The store that asks for the name.
        store: String,
    },
    /// The store is behind a proxy elsewhere.
    #[error("the traffic of `{store}` is switched by another proxy: {place}")]
    #[diagnostic(
        code(alokai::docker::other_proxy),
        help(
            "run alokai there, or set `deploy.docker.proxy.folder` to its folder; if that proxy does not exist any more, run `docker volume rm {volume}`"
        )
    )]
    OtherProxy {
        /// The store.
        store: StoreId,
        /// Machine and folder of the other proxy.
        place: String,
        /// The volume that records it.
        volume: String,
    },
    /// Another program listens where HAProxy has to listen.
    #[error("another program listens on `{address}`, on which HAProxy has to listen")]
    #[diagnostic(
        code(alokai::haproxy::address_in_use),
        help(
            "stop the program, or change `deploy.docker.proxy.bind`; to use the HAProxy of another project or clone, set `deploy.docker.proxy.folder` to its folder"
        )
    )]
    AddressInUse {
        /// Address and port.
        address: String,
    },
    /// HAProxy is not installed.
    #[error("the program `haproxy` was not found")]
    #[diagnostic(
        code(alokai::haproxy::missing),
        help(
            "install it (`apt-get install haproxy`), or set `deploy.docker.proxy` to `null`: each switch then interrupts the store"
        )
    )]
    ProxyMissing,
    /// HAProxy does not start.
    #[error("HAProxy cannot be started with `{}`: {message}", config.display())]
    #[diagnostic(
        code(alokai::haproxy::start),
        help("check `deploy.docker.proxy.bind`, and that no other program listens there")
    )]
    ProxyStart {
        /// Its config file.
        config: PathBuf,
        /// What it printed.
        message: String,
    },
    /// HAProxy does not answer.
    #[error("HAProxy does not answer on `{}`: {reason}", socket.display())]
    #[diagnostic(
        code(alokai::haproxy::unreachable),
        help("the user that runs alokai must be the user that started HAProxy")
    )]
    ProxyUnreachable {
        /// The socket.
        socket: PathBuf,
        /// The cause.
        reason: String,
    },
    /// HAProxy refused a command.
    #[error("HAProxy refused `{command}`: {message}")]
    #[diagnostic(
        code(alokai::haproxy::refused),
        help("HAProxy 2.6 or newer is needed, with the config file of alokai")
    )]
    ProxyRefused {
        /// The command.
        command: String,
        /// The response.
        message: String,
    },
    /// A folder that cannot be used for HAProxy's files.
    #[error("`{}` cannot be the folder of HAProxy: {reason}", folder.display())]
    #[diagnostic(
        code(alokai::haproxy::folder),
        help("set `deploy.docker.proxy.folder`, such as `/var/lib/alokai/proxy`")
    )]
    ProxyFolder {
        /// The folder.
        folder: PathBuf,
        /// The cause.
        reason: String,
    },
    /// The maintenance page is too large.
    #[error("the maintenance page has {bytes} bytes; the limit is {limit}")]
    #[diagnostic(
        code(alokai::docker::page_size),
        help("link to images and style sheets at another address")
    )]
    PageSize {
        /// Its size.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
}

impl Error {
    /// What the error means for the exit code.
    pub fn fault(&self) -> DeployFault {
        match self {
            Self::Engine(
                DockerError::Unreachable { .. }
                | DockerError::Permission { .. }
                | DockerError::Address { .. },
            )
            | Self::ProxyMissing
            | Self::ProxyStart { .. }
            | Self::AddressInUse { .. }
            | Self::ProxyUnreachable { .. } => DeployFault::Unreachable,
            Self::Layout { .. }
            | Self::UnknownStore { .. }
            | Self::HostTaken { .. }
            | Self::OtherProxy { .. }
            | Self::ProxyFolder { .. }
            | Self::PageSize { .. }
            | Self::PathSegments { .. } => DeployFault::Input,
            _ => DeployFault::Work,
        }
    }
}
