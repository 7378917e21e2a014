//! The registry: whether it takes our credentials, and what its refusals mean.

use std::time::Duration;

use miette::Diagnostic;
use reqwest::{Client, Response, StatusCode, header};
use secrecy::ExposeSecret;

use super::context::Credentials;

/// Time that a login may take.
const TIMEOUT: Duration = Duration::from_secs(15);

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

    /// What a push's error message means. The engine passes on the registry's answer as text.
    pub fn of_push(reference: &str, registry: &str, user: &str, message: String) -> Self {
        let what = reference.to_owned();
        let user = user.to_owned();
        match push_status(&message) {
            Some(401) => Self::Unauthorized {
                registry: registry.to_owned(),
                user,
                message,
            },
            Some(403) => Self::Forbidden {
                what,
                user,
                message,
            },
            Some(404) => Self::NotFound { what, message },
            Some(413) => Self::TooLarge { what, message },
            Some(429 | 500..=599) => Self::Server { what, message },
            None if is_of_network(&message) => Self::Unreachable { what, message },
            _ => Self::Push { what, message },
        }
    }
}

/// The HTTP status behind the engine's words: it names the number in some of its messages, and
/// the distribution specification's code in lower-case words in others.
fn push_status(message: &str) -> Option<u16> {
    let text = message.to_lowercase();
    for before in [
        "http status: ",
        "status code ",
        "status code: ",
        "parsing http ",
    ] {
        if let Some(start) = text.find(before).map(|start| start + before.len())
            && let Some(status) = text
                .get(start..start + 3)
                .and_then(|digits| digits.parse().ok())
        {
            return Some(status);
        }
    }
    // A code stands at the beginning, or behind what the engine was doing: `push: denied: …`.
    let has = |codes: &[&str]| {
        codes.iter().any(|code| {
            text == *code
                || text.starts_with(&format!("{code}:"))
                || text.contains(&format!(": {code}"))
        })
    };
    if has(&[
        "unauthorized",
        "no basic auth credentials",
        "authentication required",
    ]) {
        Some(401)
    } else if has(&[
        "denied",
        "forbidden",
        "requested access to the resource is denied",
    ]) {
        Some(403)
    } else if has(&["name unknown", "not found", "name invalid"]) {
        Some(404)
    } else if has(&["size invalid", "request entity too large"]) {
        Some(413)
    } else if has(&["toomanyrequests", "too many requests"]) {
        Some(429)
    } else {
        None
    }
}

fn is_of_network(message: &str) -> bool {
    let text = message.to_lowercase();
    let signs = [
        "connection refused",
        "no such host",
        "timeout",
        "timed out",
        "dial tcp",
        "eof",
        "connection reset",
        "broken pipe",
        "no route to host",
    ];
    signs.iter().any(|sign| text.contains(sign))
}

/// The address of a registry as HTTP needs it, and its bare host.
fn base(registry: &str) -> (String, String) {
    let (scheme, rest) = match registry.split_once("://") {
        Some((scheme, rest)) => (Some(scheme), rest),
        None => (None, registry),
    };
    let host = rest.split('/').next().unwrap_or(rest);
    // As the engine does: plain HTTP on the loopback, TLS everywhere else.
    let scheme = scheme.unwrap_or(if is_loopback(host) { "http" } else { "https" });
    (format!("{scheme}://{host}"), host.to_owned())
}

fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or(rest),
        None => host.split(':').next().unwrap_or(host),
    };
    let address = name.parse::<std::net::IpAddr>();
    name == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

/// An HTTP client. Proxies of the environment hold, but not for this machine itself.
pub fn client(address: &str, timeout: Duration) -> reqwest::Result<Client> {
    let host = base(address).1;
    let builder = Client::builder()
        .timeout(timeout)
        .connect_timeout(Duration::from_secs(10))
        .user_agent(concat!("alokai/", env!("CARGO_PKG_VERSION")));
    if is_loopback(&host) {
        builder.no_proxy().build()
    } else {
        builder.build()
    }
}

/// The causes of an HTTP error, without the address, which may carry a query.
pub fn reason(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut text = error.to_string();
    let mut source = std::error::Error::source(&error);
    while let Some(cause) = source {
        text = cause.to_string();
        source = cause.source();
    }
    text
}

/// Logs in without pushing anything: asks `/v2/`, and follows the challenge that comes back.
pub async fn login(registry: &str, credentials: &Credentials) -> Result<(), Error> {
    let (url, host) = base(registry);
    let url = format!("{url}/v2/");
    let unreachable = |error: reqwest::Error| Error::Unreachable {
        what: host.clone(),
        message: reason(error),
    };
    let client = client(registry, TIMEOUT).map_err(unreachable)?;
    let first = client.get(&url).send().await.map_err(unreachable)?;
    if first.status() != StatusCode::UNAUTHORIZED {
        return accepted(first, &host, credentials).await;
    }
    let challenge = first
        .headers()
        .get(header::WWW_AUTHENTICATE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default()
        .to_owned();
    let password = credentials.password.expose_secret();
    let Some(parameters) = challenge.strip_prefix("Bearer ") else {
        let answer = client
            .get(&url)
            .basic_auth(&credentials.user, Some(password))
            .send()
            .await;
        return accepted(answer.map_err(unreachable)?, &host, credentials).await;
    };
    let parameter = |name: &str| {
        let start = parameters.find(&format!("{name}=\""))? + name.len() + 2;
        let end = parameters[start..].find('"')?;
        Some(&parameters[start..start + end])
    };
    let Some(realm) = parameter("realm") else {
        return Err(Error::Server {
            what: host,
            message: "its challenge names no realm".into(),
        });
    };
    let mut token = reqwest::Url::parse(realm).map_err(|_| Error::Server {
        what: host.clone(),
        message: "the realm of its challenge is no address".into(),
    })?;
    token
        .query_pairs_mut()
        .append_pair("account", &credentials.user);
    if let Some(service) = parameter("service") {
        token.query_pairs_mut().append_pair("service", service);
    }
    let answer = client
        .get(token)
        .basic_auth(&credentials.user, Some(password))
        .send()
        .await;
    accepted(answer.map_err(unreachable)?, &host, credentials).await
}

async fn accepted(answer: Response, host: &str, credentials: &Credentials) -> Result<(), Error> {
    let status = answer.status();
    if status.is_success() {
        return Ok(());
    }
    let text = answer.text().await.unwrap_or_default();
    let message = credentials.redact(&first_message(&text).unwrap_or_else(|| status.to_string()));
    let what = host.to_owned();
    let user = credentials.user.clone();
    Err(match status.as_u16() {
        401 => Error::Unauthorized {
            registry: what,
            user,
            message,
        },
        403 => Error::Forbidden {
            what,
            user,
            message,
        },
        404 => Error::NotFound { what, message },
        500..=599 => Error::Server { what, message },
        _ => Error::Push { what, message },
    })
}

/// The message of the distribution specification's error document.
fn first_message(text: &str) -> Option<String> {
    let document: serde_json::Value = serde_json::from_str(text).ok()?;
    Some(document["errors"][0]["message"].as_str()?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::{is_loopback, push_status};

    #[test]
    fn a_status_is_read_and_not_guessed_from_digits() {
        for (message, status) in [
            ("unauthorized: authentication required", Some(401)),
            (
                "denied: requested access to the resource is denied",
                Some(403),
            ),
            (
                "received unexpected HTTP status: 500 Internal Server Error",
                Some(500),
            ),
            (
                "error parsing HTTP 413 response body: invalid character '<'",
                Some(413),
            ),
            (
                "name unknown: repository name not known to registry",
                Some(404),
            ),
            ("toomanyrequests: slow down", Some(429)),
            (
                "read tcp 127.0.0.1:40134->127.0.0.1:5000: connection reset by peer",
                None,
            ),
            ("layer sha256:401403404413 does not fit", None),
        ] {
            assert_eq!(push_status(message), status, "{message}");
        }
    }

    #[test]
    fn the_loopback_is_an_address_and_not_a_beginning() {
        for host in ["127.0.0.1:5000", "localhost", "[::1]:5000", "[::1]"] {
            assert!(is_loopback(host), "{host}");
        }
        for host in ["127.example.com", "registry.example.com:443", "10.0.0.1"] {
            assert!(!is_loopback(host), "{host}");
        }
    }
}
