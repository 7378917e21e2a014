//! Registries: the OCI distribution protocol, and what their refusals mean.

mod address;
mod credentials;
mod error;

use std::time::Duration;

use reqwest::{Response, StatusCode, header};
use secrecy::ExposeSecret;

use self::address::base;
pub use self::address::{client, reason};
pub use self::credentials::Credentials;
pub use self::error::Error;

/// Time that a login may take.
const TIMEOUT: Duration = Duration::from_secs(15);

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
