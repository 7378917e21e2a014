//! Errors of the proxy and of the traffic that it switches.

use std::path::PathBuf;

use miette::Diagnostic;

use crate::ledger::RecordId;
use crate::pipeline::DeployFault;
use crate::store::{AppName, StoreId};

/// Why the traffic of a store cannot be moved.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum Error {
    /// A release that has no running container for an app.
    #[error("the app `{app}` of release {release} of `{store}` does not run")]
    #[diagnostic(
        code(alokai::target::not_staged),
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
        code(alokai::target::no_routes),
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
        "the path `{path}` of the app `{app}` has {segments} segments; HAProxy can remove {limit}"
    )]
    #[diagnostic(
        code(alokai::target::path_segments),
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
        code(alokai::target::active),
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
    /// A name that another store has.
    #[error("`{host}` is a name of `{other}`, so it cannot be a name of `{store}` too")]
    #[diagnostic(
        code(alokai::target::host_taken),
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
        code(alokai::target::other_proxy),
        help(
            "run alokai there, or set `deploy.<target>.proxy.folder` to its folder; if that proxy does not exist any more, run `{removal}`"
        )
    )]
    OtherProxy {
        /// The store.
        store: StoreId,
        /// Machine and folder of the other proxy.
        place: String,
        /// The command that removes the record of it.
        removal: String,
    },
    /// The maintenance page is too large.
    #[error("the maintenance page has {bytes} bytes; the limit is {limit}")]
    #[diagnostic(
        code(alokai::target::page_size),
        help("link to images and style sheets at another address")
    )]
    PageSize {
        /// Its size.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// Another program listens where HAProxy has to listen.
    #[error("another program listens on `{address}`, on which HAProxy has to listen")]
    #[diagnostic(
        code(alokai::haproxy::address_in_use),
        help(
            "stop the program, or change `deploy.<target>.proxy.bind`; to use the HAProxy of another project or clone, set `deploy.<target>.proxy.folder` to its folder"
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
            "install it: `apt-get install haproxy`; the target `docker` works without HAProxy if `deploy.docker.proxy` is `null`, but each switch then interrupts the store"
        )
    )]
    ProxyMissing,
    /// HAProxy does not start.
    #[error("HAProxy cannot be started with `{}`: {message}", config.display())]
    #[diagnostic(
        code(alokai::haproxy::start),
        help("check `deploy.<target>.proxy.bind`, and that no other program listens there")
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
        help("set `deploy.<target>.proxy.folder`, such as `/var/lib/alokai/proxy`")
    )]
    ProxyFolder {
        /// The folder.
        folder: PathBuf,
        /// The cause.
        reason: String,
    },
}

impl Error {
    /// What the error means for the exit code.
    pub fn fault(&self) -> DeployFault {
        match self {
            Self::ProxyMissing
            | Self::ProxyStart { .. }
            | Self::AddressInUse { .. }
            | Self::ProxyUnreachable { .. } => DeployFault::Unreachable,
            Self::HostTaken { .. }
            | Self::OtherProxy { .. }
            | Self::ProxyFolder { .. }
            | Self::PageSize { .. }
            | Self::PathSegments { .. } => DeployFault::Input,
            _ => DeployFault::Work,
        }
    }
}
