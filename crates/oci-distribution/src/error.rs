//! What can go wrong between a client and a registry.

use std::path::PathBuf;

use oci::Digest;

use super::Account;

/// What can go wrong with a registry, its token server, or the credentials for it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The registry or its token server rejected the credentials (401), or requires some.
    #[error("{} (401): {message}", rejected(registry, account))]
    Unauthorized {
        /// Host of the registry.
        registry: String,
        /// As whom it was asked.
        account: Account,
        /// The registry's message.
        message: String,
    },
    /// The token server has no TLS, so it gets no credentials.
    #[error(
        "the token server `{realm}` of the registry `{registry}` uses plain HTTP: credentials are not sent there"
    )]
    InsecureTokenServer {
        /// Host of the registry.
        registry: String,
        /// Host and path of the token server.
        realm: String,
    },
    /// The account may not push (403).
    #[error("the registry does not allow a push of `{what}` {account} (403): {message}")]
    Forbidden {
        /// Reference, or registry and repository.
        what: String,
        /// As whom the registry was asked.
        account: Account,
        /// The registry's message.
        message: String,
    },
    /// The repository does not exist (404).
    #[error("the registry does not have `{what}` (404): {message}")]
    NotFound {
        /// Reference, or registry and repository.
        what: String,
        /// The registry's message.
        message: String,
    },
    /// A request is too large for the registry or a proxy in front of it (413).
    #[error("a layer of `{what}` is too large for the registry (413): {message}")]
    TooLarge {
        /// Reference, or registry and repository.
        what: String,
        /// The registry's message.
        message: String,
    },
    /// The registry failed (5xx), or refused for now (429).
    #[error("the registry failed to process a request for `{what}`: {message}")]
    Server {
        /// Reference, or registry and repository.
        what: String,
        /// The registry's message.
        message: String,
    },
    /// The connection failed.
    #[error("the registry `{what}` cannot be reached: {message}")]
    Unreachable {
        /// Host of the registry.
        what: String,
        /// The operating system's message.
        message: String,
    },
    /// An image could not be read: 401, 403, 404, or another refusal.
    #[error("cannot read `{what}` {account}: {message}")]
    Unreadable {
        /// Image, or a part of it.
        what: String,
        /// The host for which a `docker login` may help. `None` if the credentials were provided
        /// by the caller.
        login_host: Option<String>,
        /// As whom the registry was asked.
        account: Account,
        /// The registry's message.
        message: String,
    },
    /// The specification does not allow this name, so it was not sent.
    #[error("`{name}` is not a valid {kind}")]
    InvalidName {
        /// The name, escaped.
        name: String,
        /// What it should be: `repository name`, or `tag or digest`.
        kind: &'static str,
    },
    /// Content that was received, or that the registry says it has stored, does not have the
    /// expected digest or size.
    #[error("`{what}` does not match its digest or size: {message}")]
    DigestMismatch {
        /// Reference.
        what: String,
        /// How it differs.
        message: String,
    },
    /// A file no longer has the content that its digest was computed from.
    #[error("the file `{path}` has changed: its digest is no longer `{digest}`")]
    Changed {
        /// The file.
        path: PathBuf,
        /// The digest that it had.
        digest: Digest,
    },
    /// A local file cannot be read or written.
    #[error("cannot {action} `{path}`")]
    File {
        /// `read` or `write`.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The operating system's error.
        source: std::io::Error,
    },
    /// Docker's config has no usable credentials for a host.
    #[error("cannot use the credentials for `{host}` in `{path}`: {message}")]
    DockerConfig {
        /// The config.
        path: PathBuf,
        /// Host of the registry.
        host: String,
        /// What is wrong.
        message: String,
    },
    /// A Docker credential helper failed.
    #[error("the credential helper `{helper}` failed for `{host}`: {message}")]
    CredentialHelper {
        /// Program.
        helper: String,
        /// Host of the registry.
        host: String,
        /// What is wrong.
        message: String,
    },
    /// The credential helper that Docker's config names is not installed.
    #[error("the credential helper `{helper}` for `{host}` is not on the `PATH`")]
    MissingCredentialHelper {
        /// Program.
        helper: String,
        /// Host of the registry.
        host: String,
    },
    /// A file of certificates cannot be used.
    #[error("cannot use the certificates in `{path}` for the registry `{host}`: {message}")]
    Certificates {
        /// The file or folder.
        path: PathBuf,
        /// Host of the registry.
        host: String,
        /// What is wrong.
        message: String,
    },
    /// Another refusal of a push.
    #[error("pushing `{what}` failed: {message}")]
    PushFailed {
        /// Reference, or registry and repository.
        what: String,
        /// The registry's message.
        message: String,
    },
}

fn rejected(registry: &str, account: &Account) -> String {
    match account {
        Account::Anonymous => format!("the registry `{registry}` requires credentials"),
        Account::User(user) => {
            format!("the registry `{registry}` does not accept the credentials of `{user}`")
        }
        Account::IdentityToken => {
            format!("the registry `{registry}` does not accept the identity token")
        }
    }
}

impl Error {
    /// Whether another attempt may succeed.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Server { .. } | Self::Unreachable { .. })
    }
}
