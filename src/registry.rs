//! Registries, as this program uses them: its identity, and what to do about each error of the
//! registry client, which itself knows no product.

use std::fmt::Display;

use miette::Diagnostic;
use oci_distribution::{Client, ClientOptions, Error as ClientError, Login, Trust};

/// The `User-Agent` of every HTTP request of this program.
pub const USER_AGENT: &str = concat!("alokai/", env!("CARGO_PKG_VERSION"));

/// The `client_id` for token servers.
const CLIENT_ID: &str = "alokai";

/// A client of a registry that introduces itself as this program.
pub fn client(registry: &str, login: Option<Login>, trust: Trust) -> Result<Client, Error> {
    let options = ClientOptions {
        user_agent: USER_AGENT.into(),
        client_id: CLIENT_ID.into(),
        trust,
        ..ClientOptions::default()
    };
    Ok(Client::new(registry, login, &options)?)
}

/// What can go wrong with a registry or its credentials.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The registry, its token server, or the credentials for it.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// No credentials are set.
    #[error("the credentials for {server} are missing; not set: {}", missing.join(" and "))]
    NoCredentials {
        /// Registry or console, with its address.
        server: String,
        /// Variables that are not set.
        missing: Vec<&'static str>,
    },
    /// Credentials would be sent to another machine over plain HTTP.
    #[error(
        "the {server} `{address}` uses plain HTTP and is not on this machine, so the password would be sent unencrypted"
    )]
    PlainHttp {
        /// `registry` or `console`.
        server: &'static str,
        /// Its address, without credentials.
        address: String,
        /// What to do.
        help: &'static str,
    },
    /// A person ended the run.
    #[error("interrupted")]
    Interrupted,
}

impl Error {
    /// Whether another attempt may succeed.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Client(error) if error.is_transient())
    }
}

impl Diagnostic for Error {
    fn code<'a>(&'a self) -> Option<Box<dyn Display + 'a>> {
        let code = match self {
            Self::Client(error) => client_code(error),
            Self::NoCredentials { .. } => "no_credentials",
            Self::PlainHttp { .. } => "insecure",
            Self::Interrupted => "interrupted",
        };
        Some(Box::new(format!("alokai::registry::{code}")))
    }

    fn help<'a>(&'a self) -> Option<Box<dyn Display + 'a>> {
        match self {
            Self::Client(error) => {
                let help = client_help(error)?;
                Some(Box::new(help))
            }
            Self::NoCredentials { .. } => Some(Box::new(
                "set `CLI_CLOUD_USERNAME` and `CLI_CLOUD_PASSWORD` (environment or `.env`), or pass `--cloud-username` and `--cloud-password-stdin`",
            )),
            Self::PlainHttp { help, .. } => Some(Box::new(help)),
            Self::Interrupted => None,
        }
    }
}

fn client_code(error: &ClientError) -> &'static str {
    match error {
        ClientError::Unauthorized { .. } => "unauthorized",
        ClientError::InsecureTokenServer { .. } => "insecure_token_server",
        ClientError::Forbidden { .. } => "forbidden",
        ClientError::NotFound { .. } => "not_found",
        ClientError::TooLarge { .. } => "too_large",
        ClientError::Server { .. } => "server",
        ClientError::Unreachable { .. } => "unreachable",
        ClientError::Unreadable { .. } => "unreadable",
        ClientError::InvalidName { .. } => "name",
        ClientError::DigestMismatch { .. } => "mismatch",
        ClientError::Changed { .. } => "changed",
        ClientError::File { .. } => "file",
        ClientError::DockerConfig { .. } => "docker_config",
        ClientError::CredentialHelper { .. } => "helper",
        ClientError::MissingCredentialHelper { .. } => "no_helper",
        ClientError::Certificates { .. } => "certificates",
        ClientError::PushFailed { .. } => "push",
    }
}

fn client_help(error: &ClientError) -> Option<String> {
    let help = match error {
        ClientError::Unauthorized { .. } => {
            "check `CLI_CLOUD_USERNAME` and `CLI_CLOUD_PASSWORD`; if the password was changed, update the CI secrets too"
        }
        ClientError::InsecureTokenServer { .. } => {
            "use a registry whose token server supports HTTPS; in a private network, pass `--allow-insecure` to send the password over plain HTTP"
        }
        ClientError::Forbidden { .. } => {
            "check `projectName` in `alokai.config.json`, and that this user has permission to push to that project"
        }
        ClientError::NotFound { .. } => {
            "check the registry's address (`CLI_DOCKER_REGISTRY_URL`, or `registry.url`) and `projectName` in `alokai.config.json`"
        }
        ClientError::TooLarge { .. } => {
            "find what makes `.deploy` large (`du -sh .out/*/*/.deploy/*`), or raise the limit of the proxy in front of the registry (nginx: `client_max_body_size`)"
        }
        ClientError::Server { .. } => {
            "all retries failed; run again later (images that are already pushed are skipped)"
        }
        ClientError::Unreachable { .. } => {
            "check the address (`CLI_DOCKER_REGISTRY_URL`, or `registry.url` in `alokai.config.json`) and the network"
        }
        ClientError::Unreadable {
            login_host: None, ..
        } => "check the image name, and that this user has permission to pull the image",
        ClientError::InvalidName { .. } => {
            "use lower-case letters and digits, separated by `.`, `_`, `-` or `/`"
        }
        ClientError::DigestMismatch { .. } => {
            "run again; if the error persists, check whether the registry or a proxy in front of it changes the content"
        }
        ClientError::Changed { .. } => {
            "make sure that no other process writes to the file, then run again"
        }
        ClientError::Certificates { .. } => {
            "use a PEM file with certificates (`-----BEGIN CERTIFICATE-----`); the file is set in `registry.ca` or is in Docker's `certs.d`"
        }
        ClientError::File { .. } => return None,
        ClientError::Unreadable {
            login_host: Some(host),
            ..
        } => {
            return Some(format!(
                "check the image name; if the image is private, run `docker login {host}` as a user with permission to pull it"
            ));
        }
        ClientError::DockerConfig { host, .. } => {
            return Some(format!(
                "run `docker login {host}` to write the credentials again"
            ));
        }
        ClientError::CredentialHelper { helper, host, .. } => {
            return Some(format!(
                "run `echo {host} | {helper} get` to reproduce the error; the helper is set in Docker's config"
            ));
        }
        ClientError::MissingCredentialHelper { helper, host } => {
            return Some(format!(
                "install `{helper}`, or remove it from Docker's config and run `docker login {host}`"
            ));
        }
        ClientError::PushFailed { what, .. } => {
            return Some(format!("run `docker push {what}` to reproduce the error"));
        }
    };
    Some(help.to_owned())
}
