//! Errors of the proxy and of the traffic that it switches.

use std::path::PathBuf;

use miette::Diagnostic;

use crate::ledger::RecordId;
use crate::pipeline::DeployFault;
use crate::store::{AppName, StoreId};
use crate::target::hosts::HostTaken;

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
    /// A host name that another store has.
    #[error(transparent)]
    #[diagnostic(transparent)]
    HostTaken(#[from] HostTaken),
    /// The store is behind a proxy elsewhere.
    #[error("the traffic of `{store}` is switched by another proxy: {place}")]
    #[diagnostic(
        code(alokai::target::other_proxy),
        help(
            "run alokai there, or set `{section}.folder` to its folder; if that proxy does not exist any more, run `{removal}`"
        )
    )]
    OtherProxy {
        /// The store.
        store: StoreId,
        /// Machine and folder of the other proxy.
        place: String,
        /// The section of the config with the proxy.
        section: &'static str,
        /// The command that removes the record of it.
        removal: String,
    },
    /// HAProxy does not run, so the live release gets no traffic.
    #[error("HAProxy does not run, so release {release} of `{store}` gets no traffic: {reason}")]
    #[diagnostic(
        code(alokai::haproxy::stopped),
        help(
            "`alokai store release {release} --store {store}` starts HAProxy with the traffic as it was, or says why it does not start"
        )
    )]
    ProxyStopped {
        /// The store.
        store: StoreId,
        /// The release that had the traffic.
        release: String,
        /// Why HAProxy did not answer.
        reason: String,
    },
    /// The maintenance page is too large.
    #[error("the maintenance page has {bytes} bytes as HAProxy gets it; the limit is {limit}")]
    #[diagnostic(
        code(alokai::target::page_size),
        help(
            "link to images and style sheets at another address; a character that is not ASCII has the size of its HTML reference, such as `&#252;`"
        )
    )]
    PageSize {
        /// Its size, with references for characters that are not ASCII.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// Another program listens where HAProxy has to listen.
    #[error("another program listens on `{address}`, on which HAProxy has to listen")]
    #[diagnostic(
        code(alokai::haproxy::address_in_use),
        help(
            "stop the program, or change `{section}.bind`; to use the HAProxy of another project or clone, set `{section}.folder` to its folder"
        )
    )]
    AddressInUse {
        /// Address and port.
        address: String,
        /// The section of the config with the proxy.
        section: &'static str,
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
        help("check `{section}.bind`, and that no other program listens there")
    )]
    ProxyStart {
        /// The section of the config with the proxy.
        section: &'static str,
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
    /// Another run changes HAProxy for too long.
    #[error("another run has locked `{}` for {seconds} s and changes HAProxy", lock.display())]
    #[diagnostic(
        code(alokai::haproxy::locked),
        help("run the command again when the other run has ended")
    )]
    ProxyLocked {
        /// The lock file.
        lock: PathBuf,
        /// The time limit.
        seconds: u64,
    },
    /// A folder that cannot be used for HAProxy's files.
    #[error("`{}` cannot be the folder of HAProxy: {reason}", folder.display())]
    #[diagnostic(
        code(alokai::haproxy::folder),
        help("set `{section}.folder` to another folder, such as `/var/lib/alokai/proxy`")
    )]
    ProxyFolder {
        /// The section of the config with the proxy.
        section: &'static str,
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
            | Self::ProxyStopped { .. }
            | Self::ProxyUnreachable { .. } => DeployFault::Unreachable,
            Self::HostTaken(_)
            | Self::OtherProxy { .. }
            | Self::ProxyFolder { .. }
            | Self::PageSize { .. }
            | Self::PathSegments { .. } => DeployFault::Input,
            _ => DeployFault::Work,
        }
    }
}
