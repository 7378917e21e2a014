//! The push stage: images from the engine to the registry.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use bollard::Docker;
use bollard::query_parameters::PushImageOptionsBuilder;
use futures_util::StreamExt;

use super::context::Context;
use super::docker;
use super::failure::{Settled, StageError};
use super::halt::Halt;
use super::image::{AT_ONCE, Image};

use crate::event::{Stage, Unit};
use crate::plan::Reference;
use crate::registry::Error;
use crate::store::UnitId;

/// Waits before each further try.
const BACKOFF: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(4)];

/// An image that the registry has.
#[derive(Debug, Clone)]
pub struct Pushed {
    /// Store and app.
    pub unit: UnitId,
    /// Its full name.
    pub reference: Reference,
    /// Digest of its manifest, `sha256:…`.
    pub digest: String,
}

impl Pushed {
    /// Store and app.
    pub fn unit(&self) -> &UnitId {
        &self.unit
    }
}

/// Pushes every image. Repeating is safe: a layer that is there is not sent again.
pub async fn run(docker: &Docker, images: Vec<Image>, context: &Arc<Context>) -> Settled<Pushed> {
    let halt = Halt::new(context);
    let results: Vec<_> = futures_util::stream::iter(&images)
        .map(async |image| {
            let unit = Unit::app(Stage::Push, &image.unit);
            let note = |pushed: &Pushed| pushed.digest.clone();
            let work = async {
                let _outside = context.events.outside();
                let work = tries(docker, &unit, image, context);
                context
                    .interrupt
                    .unless_stopped(Error::Interrupted.into(), work)
                    .await
            };
            halt.unless_halted(unit.clone(), note, work).await
        })
        .buffered(AT_ONCE)
        .collect()
        .await;
    results.into_iter().flatten().collect()
}

async fn tries(
    docker: &Docker,
    unit: &Unit,
    image: &Image,
    context: &Context,
) -> Result<Pushed, StageError> {
    let mut waits = BACKOFF.into_iter();
    loop {
        let error = match once(docker, unit, image, context).await {
            Ok(pushed) => return Ok(pushed),
            Err(error) => error,
        };
        match waits.next() {
            Some(wait) if matches!(&error, StageError::Registry(error) if error.is_passing()) => {
                context
                    .events
                    .output(
                        unit,
                        format!("{error}; trying again in {} s", wait.as_secs()),
                    )
                    .await;
                tokio::time::sleep(wait).await;
            }
            _ => return Err(error),
        }
    }
}

async fn once(
    docker: &Docker,
    unit: &Unit,
    image: &Image,
    context: &Context,
) -> Result<Pushed, StageError> {
    let reference = &image.reference;
    let credentials = context.access.credentials.as_ref();
    let user = credentials
        .map(|credentials| credentials.user.clone())
        .unwrap_or_default();
    let failed = |message: String| {
        StageError::from(of_push(
            &reference.to_string(),
            &reference.registry,
            &user,
            context.redact(&message),
        ))
    };
    let login = context.access.login(&reference.name());
    let options = PushImageOptionsBuilder::default()
        .tag(&reference.tag)
        .build();
    let mut stream = docker.push_image(&reference.name(), Some(options), login);
    let mut seen = HashSet::new();
    while let Some(info) = stream.next().await {
        let info = info.map_err(|error| failed(docker::message(&error)))?;
        // The engine repeats a status for every layer and every chunk; once is enough.
        let Some(status) = info.status else {
            continue;
        };
        if seen.insert(status.clone()) {
            context.events.output(unit, context.redact(&status)).await;
        }
    }
    let name = reference.to_string();
    let odd = |message: String| docker::Error::Request {
        doing: format!("tell the digest of `{name}`"),
        message,
    };
    let inspected = docker.inspect_image(&name).await;
    let inspected = inspected.map_err(|error| odd(docker::message(&error)))?;
    let prefix = format!("{}@", reference.name());
    let digest = inspected
        .repo_digests
        .iter()
        .flatten()
        .find_map(|known| known.strip_prefix(&prefix))
        .ok_or_else(|| odd("it has none after the push".into()))?
        .to_owned();
    Ok(Pushed {
        unit: image.unit.clone(),
        reference: reference.clone(),
        digest,
    })
}

/// What a push's error message means. The engine passes on the registry's answer as text.
fn of_push(reference: &str, registry: &str, user: &str, message: String) -> Error {
    let what = reference.to_owned();
    let user = user.to_owned();
    match push_status(&message) {
        Some(401) => Error::Unauthorized {
            registry: registry.to_owned(),
            user,
            message,
        },
        Some(403) => Error::Forbidden {
            what,
            user,
            message,
        },
        Some(404) => Error::NotFound { what, message },
        Some(413) => Error::TooLarge { what, message },
        Some(429 | 500..=599) => Error::Server { what, message },
        None if is_of_network(&message) => Error::Unreachable { what, message },
        _ => Error::Push { what, message },
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

#[cfg(test)]
mod tests {
    use super::push_status;

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
}
