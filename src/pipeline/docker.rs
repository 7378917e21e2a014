//! The Docker engine: connecting, and what its errors mean.

use std::error::Error as StdError;
use std::io::ErrorKind;
use std::time::Duration;

use bollard::Docker;
use bollard::errors::Error as Bollard;
use bollard::models::ImageInspect;
use bollard::query_parameters::CreateImageOptionsBuilder;
use futures_util::StreamExt;
use miette::Diagnostic;

use super::base::PinnedBase;
use super::context::Services;
use super::failure::{Io, quote};
use oci::ImageReference;

/// Where the engine listens when `DOCKER_HOST` says nothing.
const DEFAULT_SOCKET: &str = "unix:///var/run/docker.sock";

/// Seconds that the engine may take to answer one request; a build's output is streamed and
/// not bounded by it.
const TIMEOUT: u64 = 600;

/// How long the engine may take to say which version it is.
const PATIENCE: Duration = Duration::from_secs(15);

/// What can go wrong with the engine.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum Error {
    /// Nothing answers.
    #[error("no Docker engine answers at `{address}`: {reason}")]
    #[diagnostic(
        code(alokai::docker::unreachable),
        help(
            "start it (`systemctl start docker`, or Docker Desktop), or point `DOCKER_HOST` to one that runs"
        )
    )]
    Unreachable {
        /// The socket or address.
        address: String,
        /// Why.
        reason: String,
    },
    /// The socket is there and not for us.
    #[error("the Docker socket `{address}` may not be used by this user")]
    #[diagnostic(
        code(alokai::docker::permission),
        help(
            "add the user to the group that owns it (`sudo usermod -aG docker \"$USER\"`, then log in again), or use a rootless engine through `DOCKER_HOST`"
        )
    )]
    Permission {
        /// The socket.
        address: String,
    },
    /// An address of a kind that is not spoken.
    #[error("`DOCKER_HOST` is `{address}`, which is neither `unix://` nor `tcp://`")]
    #[diagnostic(
        code(alokai::docker::address),
        help(
            "for an engine behind ssh or TLS, forward its socket: `ssh -L /tmp/docker.sock:/var/run/docker.sock host`"
        )
    )]
    Address {
        /// As given.
        address: String,
    },
    /// The build of an image failed.
    #[error(
        "the image `{reference}` could not be built: {message}{}",
        quote(output)
    )]
    #[diagnostic(
        code(alokai::docker::build),
        help(
            "`docker build` in `{context}` shows the same; check its Dockerfile and `image.base` in `alokai.config.json`"
        )
    )]
    Build {
        /// The image.
        reference: String,
        /// The engine's word.
        message: String,
        /// The last lines of the build.
        output: Vec<String>,
        /// The composed app.
        context: String,
    },
    /// The base image cannot be had.
    #[error("the base image `{image}` cannot be pulled: {message}")]
    #[diagnostic(
        code(alokai::docker::base),
        help(
            "check `image.base` in `alokai.config.json` or the app's Dockerfile, or load the image first: `docker pull {image}`"
        )
    )]
    Base {
        /// The image.
        image: String,
        /// The engine's word.
        message: String,
    },
    /// The engine's disk is full.
    #[error("the disk of the Docker engine is full: {message}")]
    #[diagnostic(
        code(alokai::docker::disk_full),
        help("free some space: `docker system prune`, then run again")
    )]
    DiskFull {
        /// The engine's word.
        message: String,
    },
    /// Any other request.
    #[error("the Docker engine failed to {doing}: {message}")]
    #[diagnostic(
        code(alokai::docker::request),
        help("the engine's own log tells more: `journalctl -u docker`")
    )]
    Request {
        /// What was asked.
        doing: String,
        /// The engine's word.
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

/// Connects and agrees on an API version. `host` is `DOCKER_HOST`.
pub async fn connect(host: Option<&str>) -> Result<Docker, Error> {
    let address = host.unwrap_or(DEFAULT_SOCKET);
    let version = bollard::API_DEFAULT_VERSION;
    let docker = if let Some(path) = address.strip_prefix("unix://") {
        // The library reports a socket that is not there and one that is not for us alike.
        let reachable = tokio::net::UnixStream::connect(path).await;
        if let Err(error) = reachable {
            return Err(refused(address, &error));
        }
        Docker::connect_with_unix(address, TIMEOUT, version)
    } else if address.starts_with("tcp://") || address.starts_with("http://") {
        Docker::connect_with_http(address, TIMEOUT, version)
    } else {
        return Err(Error::Address {
            address: address.to_owned(),
        });
    };
    let unreachable = |error: Bollard| match io_error(&error) {
        Some(error) => refused(address, error),
        None => Error::Unreachable {
            address: address.to_owned(),
            reason: error.to_string(),
        },
    };
    let negotiating = docker.map_err(unreachable)?.negotiate_version();
    match tokio::time::timeout(PATIENCE, negotiating).await {
        Ok(docker) => docker.map_err(unreachable),
        Err(_) => Err(Error::Unreachable {
            address: address.to_owned(),
            reason: format!("no answer within {} s", PATIENCE.as_secs()),
        }),
    }
}

/// An error unless the engine has an image.
pub async fn has(docker: &Docker, image: &str) -> Result<(), Error> {
    let found = docker.inspect_image(image).await;
    found.map(drop).map_err(|error| Error::Request {
        doing: format!("find `{image}`"),
        message: message(&error),
    })
}

/// Makes sure that the engine has a base image, pulling it if need be, and says what it is.
pub async fn provide(
    docker: &Docker,
    image: &str,
    context: &Services,
) -> Result<PinnedBase, Error> {
    if image.starts_with("oci:") {
        return Err(Error::Base {
            image: image.to_owned(),
            message: "it lies in an OCI image layout, which Docker does not read".into(),
        });
    }
    match docker.inspect_image(image).await {
        Ok(found) => return base(image, &found),
        Err(Bollard::DockerResponseServerError {
            status_code: 404, ..
        }) => {}
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
    // Without a tag, the engine would pull every one there is.
    let is_named =
        image.contains('@') || image.rsplit('/').next().is_some_and(|it| it.contains(':'));
    let full = if is_named {
        image.to_owned()
    } else {
        format!("{image}:latest")
    };
    let options = CreateImageOptionsBuilder::default()
        .from_image(&full)
        .build();
    context
        .events
        .notice(format!("pulling the base image `{full}`"));
    let login = context.engine_login(&full).await;
    let mut stream = docker.create_image(Some(options), None, login);
    while let Some(info) = stream.next().await {
        let info = info.map_err(|error| failed(message(&error)))?;
        if let Some(detail) = info.error_detail {
            return Err(failed(detail.message.unwrap_or_default()));
        }
    }
    let found = docker.inspect_image(image).await;
    base(image, &found.map_err(|error| failed(message(&error)))?)
}

/// The digest by which a registry knows the image, else the engine's own.
fn base(image: &str, found: &ImageInspect) -> Result<PinnedBase, Error> {
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
            doing: format!("tell the digest of `{image}`"),
            message,
        })?,
        image: None,
    })
}

fn refused(address: &str, error: &std::io::Error) -> Error {
    let address = address.to_owned();
    match error.kind() {
        ErrorKind::PermissionDenied => Error::Permission { address },
        ErrorKind::NotFound => Error::Unreachable {
            address,
            reason: "there is no such socket".into(),
        },
        _ => Error::Unreachable {
            address,
            reason: error.to_string(),
        },
    }
}

/// The system's error at the bottom of a library's, if there is one.
fn io_error<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a std::io::Error> {
    let mut at = Some(error);
    while let Some(error) = at {
        if let Some(io) = error.downcast_ref::<std::io::Error>() {
            return Some(io);
        }
        at = error.source();
    }
    None
}

/// What the engine itself says, without the library's frame around it.
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

/// Whether the engine's word is that its disk is full.
pub fn is_disk_full(message: &str) -> bool {
    message.contains("no space left on device")
}
