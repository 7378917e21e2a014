//! What can go wrong between here and a registry, and what to do about it.

use miette::Diagnostic;

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
    /// Whether trying again may help.
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::Server { .. } | Self::Unreachable { .. })
    }
}
