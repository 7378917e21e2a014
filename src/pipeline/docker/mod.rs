//! The Docker engine: the connection to it, and its errors.

mod connect;
mod ssh;

use std::error::Error as _;
use std::path::PathBuf;

use bollard::Docker;
use bollard::errors::Error as Bollard;
use bollard::models::ImageInspect;
use bollard::query_parameters::CreateImageOptionsBuilder;
use futures_util::StreamExt;
use miette::Diagnostic;

use super::base::PinnedBase;
use super::failure::{Io, quote};
use super::services::Services;
use oci::ImageReference;

pub use connect::{DEFAULT_SOCKET, EngineAddress, connect};

/// Errors of the engine.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum Error {
    /// The engine does not answer.
    #[error("the Docker engine at `{address}` cannot be reached: {reason}")]
    #[diagnostic(
        code(alokai::docker::unreachable),
        help(
            "start it (`systemctl start docker`, or Docker Desktop), or set `DOCKER_HOST` to the address of a running engine"
        )
    )]
    Unreachable {
        /// The socket or address.
        address: String,
        /// The cause.
        reason: String,
    },
    /// This user has no permission to use the socket.
    #[error("this user does not have permission to use the Docker socket `{address}`")]
    #[diagnostic(
        code(alokai::docker::permission),
        help(
            "add the user to the group that owns the socket (`sudo usermod -aG docker \"$USER\"`, then log in again), or set `DOCKER_HOST` to a rootless engine"
        )
    )]
    Permission {
        /// The socket.
        address: String,
    },
    /// The address is not valid.
    #[error("`{address}` is not a valid address of a Docker engine: {reason}")]
    #[diagnostic(
        code(alokai::docker::address),
        help(
            "set `DOCKER_HOST`, or `host` of the target in `alokai.config.json`, to `unix:///path`, `tcp://host:port` or `ssh://user@host:port`"
        )
    )]
    Address {
        /// The address.
        address: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A file for TLS cannot be used.
    #[error("`DOCKER_TLS_VERIFY` is set, but `{}` cannot be read: {reason}", path.display())]
    #[diagnostic(
        code(alokai::docker::certificate),
        help(
            "TLS needs the files `ca.pem`, `cert.pem` and `key.pem` in the folder `DOCKER_CERT_PATH` (default: `~/.docker`)"
        )
    )]
    Certificate {
        /// The file.
        path: PathBuf,
        /// The error of the system.
        reason: String,
    },
    /// The build of an image failed.
    #[error(
        "the image `{reference}` could not be built: {message}{}",
        quote(output)
    )]
    #[diagnostic(
        code(alokai::docker::build),
        help(
            "check the Dockerfile and `image.base` in `alokai.config.json`; to reproduce the error, run `docker build` in `{context}`"
        )
    )]
    Build {
        /// The image.
        reference: String,
        /// The engine's message.
        message: String,
        /// The last lines of the build.
        output: Vec<String>,
        /// The composed app.
        context: String,
    },
    /// The base image cannot be pulled.
    #[error("the base image `{image}` cannot be pulled: {message}")]
    #[diagnostic(
        code(alokai::docker::base),
        help(
            "check `image.base` in `alokai.config.json` and the app's Dockerfile, or pull the image first: `docker pull {image}`"
        )
    )]
    Base {
        /// The image.
        image: String,
        /// The engine's message.
        message: String,
    },
    /// The engine's disk is full.
    #[error("the disk of the Docker engine is full: {message}")]
    #[diagnostic(
        code(alokai::docker::disk_full),
        help("free some space, for example by `docker system prune`, then run again")
    )]
    DiskFull {
        /// The engine's message.
        message: String,
    },
    /// The connection to the engine failed in the middle of the work.
    #[error(
        "the Docker engine at `{address}` stopped responding when it was asked to {doing}: {reason}"
    )]
    #[diagnostic(
        code(alokai::docker::lost),
        help(
            "check that the engine runs and can be reached, then run the same command again: it removes what this run has left"
        )
    )]
    Lost {
        /// The socket or address.
        address: String,
        /// The request.
        doing: String,
        /// The cause.
        reason: String,
    },
    /// Another request failed.
    #[error("the Docker engine failed to {doing}: {message}")]
    #[diagnostic(
        code(alokai::docker::request),
        help("see the engine's log: `journalctl -u docker`")
    )]
    Request {
        /// The request.
        doing: String,
        /// The engine's message.
        message: String,
    },
    /// A person ended the run.
    #[error("interrupted")]
    #[diagnostic(code(alokai::docker::interrupted))]
    Interrupted,
    /// The build context cannot be read.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Io(#[from] Io),
}

impl Error {
    /// Whether there is no connection to the engine, so that nothing was tried there.
    pub fn is_unreachable(&self) -> bool {
        matches!(
            self,
            Self::Unreachable { .. }
                | Self::Permission { .. }
                | Self::Address { .. }
                | Self::Certificate { .. }
        )
    }
}

/// Fails unless the engine has the image.
pub async fn check_present(docker: &Docker, image: &str) -> Result<(), Error> {
    let found = docker.inspect_image(image).await;
    found.map(drop).map_err(|error| Error::Request {
        doing: format!("find `{image}`"),
        message: message(&error),
    })
}

/// Resolves a base image by the engine, which pulls it if it does not have it.
pub async fn resolve_base(
    docker: &Docker,
    image: &str,
    services: &Services,
) -> Result<PinnedBase, Error> {
    if image.starts_with(oci::LAYOUT_PREFIX) {
        return Err(Error::Base {
            image: image.to_owned(),
            message: "it is in an OCI image layout, which Docker cannot read".into(),
        });
    }
    match docker.inspect_image(image).await {
        Ok(found) => return pinned(image, &found),
        Err(error) if is_missing(&error) => {}
        Err(error) => {
            return Err(Error::Request {
                doing: format!("inspect the image `{image}`"),
                message: message(&error),
            });
        }
    }
    let failed = |message: String| Error::Base {
        image: image.to_owned(),
        message,
    };
    // Without a tag, the engine pulls all tags of the repository.
    let is_named =
        image.contains('@') || image.rsplit('/').next().is_some_and(|it| it.contains(':'));
    let full = if is_named {
        image.to_owned()
    } else {
        format!("{image}:latest")
    };
    services
        .events
        .notice(format!("pulling the base image `{full}`"));
    pull(docker, &full, services).await.map_err(failed)?;
    let found = docker.inspect_image(image).await;
    pinned(image, &found.map_err(|error| failed(message(&error)))?)
}

/// Pulls an image with the login of its registry. The error is the engine's message.
pub async fn pull(docker: &Docker, reference: &str, services: &Services) -> Result<(), String> {
    let options = CreateImageOptionsBuilder::default()
        .from_image(reference)
        .build();
    let login = services.engine_login(reference).await;
    let mut pulling = docker.create_image(Some(options), None, login);
    while let Some(info) = pulling.next().await {
        let info = info.map_err(|error| message(&error))?;
        if let Some(detail) = info.error_detail {
            return Err(detail.message.unwrap_or_default());
        }
    }
    Ok(())
}

/// Whether the engine does not have what a request names.
pub fn is_missing(error: &Bollard) -> bool {
    matches!(
        error,
        Bollard::DockerResponseServerError {
            status_code: 404,
            ..
        }
    )
}

/// Why the connection to the engine failed, if the engine has not answered at all.
pub fn lost_connection(error: &Bollard) -> Option<String> {
    let is_lost = matches!(
        error,
        Bollard::HyperResponseError { .. }
            | Bollard::HyperLegacyError { .. }
            | Bollard::HttpClientError { .. }
            | Bollard::IOError { .. }
            | Bollard::SocketNotFoundError(_)
            | Bollard::RequestTimeoutError
    );
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    is_lost.then(|| cause.to_string())
}

/// The digest under which the image's registry has it, or else the engine's own id.
fn pinned(image: &str, found: &ImageInspect) -> Result<PinnedBase, Error> {
    let of_registry = found.repo_digests.iter().flatten();
    let name = ImageReference::parse(image).ok();
    let is_same = |known: &&String| {
        let known = ImageReference::parse(known).ok();
        known.zip(name.as_ref()).is_some_and(|(known, name)| {
            known.registry == name.registry && known.repository == name.repository
        })
    };
    let known = of_registry.clone().find(is_same);
    let digest = known
        .and_then(|known| known.rsplit_once('@'))
        .map(|(_, digest)| digest);
    let digest = digest.or(found.id.as_deref()).unwrap_or_default();
    Ok(PinnedBase {
        name: image.to_owned(),
        digest: digest.parse().map_err(|message| Error::Request {
            doing: format!("return the digest of `{image}`"),
            message,
        })?,
    })
}

/// The engine's message, without the text that the library adds.
pub fn message(error: &Bollard) -> String {
    match error {
        Bollard::DockerStreamError { error } => error.clone(),
        Bollard::DockerResponseServerError { message, .. } => message.clone(),
        other => {
            let mut text = other.to_string();
            let mut source = other.source();
            while let Some(error) = source {
                text = format!("{text}: {error}");
                source = error.source();
            }
            text
        }
    }
}

/// Whether the engine's message says that its disk is full.
pub fn is_disk_full(message: &str) -> bool {
    message.contains("no space left on device")
}
