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
    #[error("no credentials for {server}: {} not set", missing.join(" and "))]
    NoCredentials {
        /// Registry or console, with its address.
        server: String,
        /// Variables that are not set.
        missing: Vec<&'static str>,
    },
    /// Credentials would be sent to another machine over plain HTTP.
    #[error(
        "the {server} `{address}` uses plain HTTP and is not on this machine: others could read the password"
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
            "check `CLI_CLOUD_USERNAME` and `CLI_CLOUD_PASSWORD`; after a change of the password, change it in the pipeline's secrets too"
        }
        ClientError::InsecureTokenServer { .. } => {
            "use a registry whose token server has TLS; in a network of your own, `--allow-insecure` sends the password"
        }
        ClientError::Forbidden { .. } => {
            "check `projectName` in `alokai.config.json`, and ask for the right to push to that project"
        }
        ClientError::NotFound { .. } => {
            "check the registry's address (`CLI_DOCKER_REGISTRY_URL`, or `registry.url`) and `projectName` in `alokai.config.json`"
        }
        ClientError::TooLarge { .. } => {
            "find what makes `.deploy` large (`du -sh .out/*/*/.deploy/*`), or raise the limit of the proxy in front of the registry (nginx: `client_max_body_size`)"
        }
        ClientError::Server { .. } => {
            "the request was retried; run again later: images that are pushed are not pushed again"
        }
        ClientError::Unreachable { .. } => {
            "check the address (`CLI_DOCKER_REGISTRY_URL`, or `registry.url` in `alokai.config.json`) and the network"
        }
        ClientError::Unreadable {
            login_host: None, ..
        } => "check the image's name, and that this user may read it",
        ClientError::InvalidName { .. } => {
            "names have lower-case letters and digits, and `.`, `_`, `-` or `/` between them"
        }
        ClientError::DigestMismatch { .. } => {
            "the registry, or a proxy in front of it, changes content; compare with what another client receives"
        }
        ClientError::Changed { .. } => "run again, and let no other process write there",
        ClientError::Certificates { .. } => {
            "the file must have certificates as PEM (`-----BEGIN CERTIFICATE-----`); it is named by `registry.ca` or lies in Docker's `certs.d`"
        }
        ClientError::File { .. } => return None,
        ClientError::Unreadable {
            login_host: Some(host),
            ..
        } => {
            return Some(format!(
                "check the image's name; if the image is private, run `docker login {host}` as a user who may read it"
            ));
        }
        ClientError::DockerConfig { host, .. } => {
            return Some(format!("`docker login {host}` writes it again"));
        }
        ClientError::CredentialHelper { helper, host, .. } => {
            return Some(format!(
                "`echo {host} | {helper} get` shows the same; Docker's config names the helper"
            ));
        }
        ClientError::MissingCredentialHelper { helper, host } => {
            return Some(format!(
                "install `{helper}`, or remove it from Docker's config and run `docker login {host}`"
            ));
        }
        ClientError::PushFailed { what, .. } => {
            return Some(format!("`docker push {what}` shows the same"));
        }
    };
    Some(help.to_owned())
}
