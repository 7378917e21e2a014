//! What can go wrong between here and a registry, and what to do about it.

use std::path::PathBuf;

use miette::Diagnostic;

use oci::Digest;

/// What can go wrong with the registry.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum Error {
    /// Nobody said who we are.
    #[error("no credentials for {whom}: {} not set", missing.join(" and "))]
    #[diagnostic(
        code(alokai::registry::no_credentials),
        help(
            "set `CLI_CLOUD_USERNAME` and `CLI_CLOUD_PASSWORD` (environment or `.env`), or pass `--cloud-username` and `--cloud-password-stdin`"
        )
    )]
    NoCredentials {
        /// Registry or console.
        whom: String,
        /// What is missing.
        missing: Vec<&'static str>,
    },
    /// An address without TLS, to which credentials would go.
    #[error(
        "the {what} `{address}` is plain HTTP and not on this machine: the password could be read on the way"
    )]
    #[diagnostic(code(alokai::registry::insecure), help("{help}"))]
    Insecure {
        /// Registry or console.
        what: &'static str,
        /// Without credentials.
        address: String,
        /// What to do.
        help: &'static str,
    },
    /// 401.
    #[error(
        "the registry `{registry}` does not accept the credentials of `{user}` (401): {message}"
    )]
    #[diagnostic(
        code(alokai::registry::unauthorized),
        help(
            "check `CLI_CLOUD_USERNAME` and `CLI_CLOUD_PASSWORD`; a password that has been changed lately has to be changed in the pipeline's secrets too"
        )
    )]
    Unauthorized {
        /// Host.
        registry: String,
        /// As whom.
        user: String,
        /// The registry's word.
        message: String,
    },
    /// 403.
    #[error("the registry refuses `{user}` to push `{what}` (403): {message}")]
    #[diagnostic(
        code(alokai::registry::forbidden),
        help(
            "check `projectName` in `alokai.config.json`, and ask for the right to push to that project"
        )
    )]
    Forbidden {
        /// Reference or host.
        what: String,
        /// As whom.
        user: String,
        /// The registry's word.
        message: String,
    },
    /// 404.
    #[error("the registry does not know `{what}` (404): {message}")]
    #[diagnostic(
        code(alokai::registry::not_found),
        help(
            "check the registry's address (`CLI_DOCKER_REGISTRY_URL`, or `registry.url`) and `projectName` in `alokai.config.json`"
        )
    )]
    NotFound {
        /// Reference or host.
        what: String,
        /// The registry's word.
        message: String,
    },
    /// 413.
    #[error("a layer of `{what}` is too large for the registry (413): {message}")]
    #[diagnostic(
        code(alokai::registry::too_large),
        help(
            "look at what makes `.deploy` large (`du -sh .out/*/*/.deploy/*`), or raise the limit of the proxy before the registry (nginx: `client_max_body_size`)"
        )
    )]
    TooLarge {
        /// Reference.
        what: String,
        /// The registry's word.
        message: String,
    },
    /// 5xx.
    #[error("the registry failed for `{what}`: {message}")]
    #[diagnostic(
        code(alokai::registry::server),
        help(
            "it was tried several times; run again later, what is pushed already is not pushed twice"
        )
    )]
    Server {
        /// Reference or host.
        what: String,
        /// The registry's word.
        message: String,
    },
    /// Nobody answers.
    #[error("the registry `{what}` cannot be reached: {message}")]
    #[diagnostic(
        code(alokai::registry::unreachable),
        help(
            "check the address (`CLI_DOCKER_REGISTRY_URL`, or `registry.url` in `alokai.config.json`) and the network"
        )
    )]
    Unreachable {
        /// Reference or host.
        what: String,
        /// The system's word.
        message: String,
    },
    /// Something could not be read: 401, 403, 404, or another no.
    #[error("cannot read `{what}` {whom}: {message}")]
    #[diagnostic(code(alokai::registry::unreadable), help("{}", self.how_to_read()))]
    Unreadable {
        /// Image, or a part of it.
        what: String,
        /// Where `docker login` would help; nothing where the run's own credentials are used.
        login: Option<String>,
        /// "as `user`", or "without a login".
        whom: String,
        /// The registry's word.
        message: String,
    },
    /// The specification knows no such name, so no registry has it.
    #[error("`{name}` is no name of a {kind} in a registry")]
    #[diagnostic(
        code(alokai::registry::name),
        help("names have lower-case letters, digits, and `.`, `_`, `-` or `/` between them")
    )]
    Name {
        /// As it was given.
        name: String,
        /// Repository, or tag or digest.
        kind: &'static str,
    },
    /// What came, or what the registry says it took, is not what its digest names.
    #[error("the registry's `{what}` is not what was asked for: {message}")]
    #[diagnostic(
        code(alokai::registry::mismatch),
        help(
            "the registry, or a proxy before it, changes what it is given; see whether another client gets the same"
        )
    )]
    Mismatch {
        /// Reference.
        what: String,
        /// What is wrong.
        message: String,
    },
    /// The file is not what it was when its digest was made.
    #[error("the packed layer `{path}` was altered on disk: it is no longer `{digest}`")]
    #[diagnostic(
        code(alokai::registry::altered),
        help("run again; nothing else may write there meanwhile")
    )]
    Altered {
        /// The layer.
        path: PathBuf,
        /// What it was.
        digest: Digest,
    },
    /// The own disk.
    #[error("cannot {action} `{path}`")]
    #[diagnostic(code(alokai::registry::file))]
    File {
        /// Read or write.
        action: &'static str,
        /// Which file.
        path: PathBuf,
        /// The system's word.
        source: std::io::Error,
    },
    /// Docker's config cannot be used.
    #[error("cannot take the login of `{host}` from `{path}`: {message}")]
    #[diagnostic(
        code(alokai::registry::docker_config),
        help("`docker login {host}` writes it anew")
    )]
    DockerConfig {
        /// The config.
        path: PathBuf,
        /// Whose login.
        host: String,
        /// What is wrong.
        message: String,
    },
    /// A credential helper of Docker failed.
    #[error("the credential helper `{helper}` gives no login of `{host}`: {message}")]
    #[diagnostic(
        code(alokai::registry::helper),
        help("`echo {host} | {helper} get` shows the same; Docker's config names it")
    )]
    Helper {
        /// Program.
        helper: String,
        /// Whose login.
        host: String,
        /// What is wrong.
        message: String,
    },
    /// The credential helper that Docker's config names is not installed.
    #[error("the credential helper `{helper}` for `{host}` is not on the `PATH`: no such program")]
    #[diagnostic(
        code(alokai::registry::no_helper),
        help(
            "install `{helper}`, or take it out of Docker's config and run `docker login {host}`"
        )
    )]
    NoHelper {
        /// Program.
        helper: String,
        /// Whose login.
        host: String,
    },
    /// A file of certificates cannot be used.
    #[error("cannot use the certificates in `{path}` for the registry `{host}`: {message}")]
    #[diagnostic(
        code(alokai::registry::certificates),
        help(
            "it has to hold certificates as PEM (`-----BEGIN CERTIFICATE-----`); `registry.ca` and Docker's `certs.d` name such files"
        )
    )]
    Certificates {
        /// The file.
        path: PathBuf,
        /// For whom.
        host: String,
        /// What is wrong.
        message: String,
    },
    /// Anything else.
    #[error("pushing `{what}` failed: {message}")]
    #[diagnostic(
        code(alokai::registry::push),
        help("`docker push {what}` shows the same")
    )]
    Push {
        /// Reference.
        what: String,
        /// The engine's or the registry's word.
        message: String,
    },
    /// A person ended the run.
    #[error("interrupted")]
    #[diagnostic(code(alokai::registry::interrupted))]
    Interrupted,
}

impl Error {
    fn how_to_read(&self) -> String {
        match self {
            Self::Unreadable {
                login: Some(host), ..
            } => format!(
                "check the image's name; if it is private, `docker login {host}` as somebody who may read it"
            ),
            _ => "check the image's name, and that this user may read it".into(),
        }
    }

    /// Whether trying again may help.
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::Server { .. } | Self::Unreachable { .. })
    }
}
