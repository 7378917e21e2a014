//! The connection to an engine: by a socket, TCP, TLS or ssh.

use std::error::Error as StdError;
use std::fs::File;
use std::io::ErrorKind;
use std::path::Path;
use std::time::Duration;

use bollard::Docker;
use bollard::errors::Error as Bollard;

use super::Error;
use super::ssh::SshEngine;

/// The engine's address where `DOCKER_HOST` is not set.
pub const DEFAULT_SOCKET: &str = "unix:///var/run/docker.sock";

/// The time limit of one request to the engine, in seconds. It does not apply to streamed output of
/// builds.
const TIMEOUT: u64 = 600;

/// The time limit for connecting to the engine.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);

/// Where an engine is.
#[derive(Debug, Clone, Copy)]
pub struct EngineAddress<'a> {
    /// The address, as `DOCKER_HOST` has it.
    pub host: &'a str,
    /// The folder with the certificates for TLS. None without `DOCKER_TLS_VERIFY`.
    pub certificates: Option<&'a Path>,
}

/// Connects to the engine and negotiates an API version.
pub async fn connect(engine: EngineAddress<'_>) -> Result<Docker, Error> {
    let address = engine.host;
    let version = bollard::API_DEFAULT_VERSION;
    let mut ssh = None;
    let docker = if let Some(path) = address.strip_prefix("unix://") {
        // The library has one error for a missing socket and for missing permissions.
        let reachable = tokio::net::UnixStream::connect(path).await;
        if let Err(error) = reachable {
            return Err(refused(address, &error));
        }
        Docker::connect_with_unix(address, TIMEOUT, version)
    } else if address.starts_with("ssh://") {
        let engine = SshEngine::new(address)?;
        ssh = Some(engine.messages());
        engine.connect(TIMEOUT)
    } else if ["tcp://", "http://", "https://"]
        .iter()
        .any(|scheme| address.starts_with(scheme))
    {
        match engine.certificates {
            Some(folder) => connect_by_tls(address, folder)?,
            None if address.starts_with("https://") => {
                return Err(Error::Address {
                    address: address.to_owned(),
                    reason: "`https://` needs the variable `DOCKER_TLS_VERIFY`",
                });
            }
            None => Docker::connect_with_http(address, TIMEOUT, version),
        }
    } else {
        return Err(Error::Address {
            address: address.to_owned(),
            reason: "its scheme is not supported",
        });
    };
    let unreachable = |error: Bollard| {
        if let Some(messages) = &ssh
            && let Some(reason) = messages.last()
        {
            let address = address.to_owned();
            return Error::Unreachable { address, reason };
        }
        match io_error(&error) {
            Some(error) => refused(address, error),
            None => Error::Unreachable {
                address: address.to_owned(),
                reason: error.to_string(),
            },
        }
    };
    let negotiating = docker.map_err(unreachable)?.negotiate_version();
    match tokio::time::timeout(CONNECT_TIMEOUT, negotiating).await {
        Ok(docker) => docker.map_err(unreachable),
        Err(_) => Err(Error::Unreachable {
            address: address.to_owned(),
            reason: format!("no response within {} s", CONNECT_TIMEOUT.as_secs()),
        }),
    }
}

fn connect_by_tls(address: &str, folder: &Path) -> Result<Result<Docker, Bollard>, Error> {
    let file = |name: &str| {
        let path = folder.join(name);
        match File::open(&path) {
            Ok(_) => Ok(path),
            Err(error) => Err(Error::Certificate {
                path,
                reason: error.to_string(),
            }),
        }
    };
    let (key, certificate, ca) = (file("key.pem")?, file("cert.pem")?, file("ca.pem")?);
    let version = bollard::API_DEFAULT_VERSION;
    Ok(Docker::connect_with_ssl(
        address,
        &key,
        &certificate,
        &ca,
        TIMEOUT,
        version,
    ))
}

fn refused(address: &str, error: &std::io::Error) -> Error {
    let address = address.to_owned();
    match error.kind() {
        ErrorKind::PermissionDenied => Error::Permission { address },
        ErrorKind::NotFound => Error::Unreachable {
            address,
            reason: "the socket does not exist".into(),
        },
        _ => Error::Unreachable {
            address,
            reason: error.to_string(),
        },
    }
}

/// The system's error that caused a library's error.
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
