//! The push stage: images from the engine to the registry.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use bollard::Docker;
use bollard::auth::DockerCredentials;
use bollard::query_parameters::PushImageOptionsBuilder;
use futures_util::StreamExt;
use secrecy::ExposeSecret;

use super::context::Context;
use super::docker;
use super::failure::{Settled, StageError};
use super::image::{AT_ONCE, Image};
use super::registry::Error;
use crate::event::{Event, Stage, Unit};
use crate::plan::Reference;
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
    let results: Vec<_> = futures_util::stream::iter(&images)
        .map(async |image| {
            let unit = Unit::app(Stage::Push, &image.unit);
            let note = |pushed: &Pushed| pushed.digest.clone();
            let work = tries(docker, &unit, image, context);
            let result = context.attempt(&unit, Error::Interrupted, note, work).await;
            (unit, result.map_err(StageError::from))
        })
        .buffered(AT_ONCE)
        .collect()
        .await;
    results.into_iter().collect()
}

async fn tries(
    docker: &Docker,
    unit: &Unit,
    image: &Image,
    context: &Context,
) -> Result<Pushed, Error> {
    let mut waits = BACKOFF.into_iter();
    loop {
        let error = match once(docker, unit, image, context).await {
            Ok(pushed) => return Ok(pushed),
            Err(error) => error,
        };
        match waits.next() {
            Some(wait) if error.is_passing() => {
                context.events.send(Event::Output {
                    unit: unit.clone(),
                    line: format!("{error}; trying again in {} s", wait.as_secs()),
                });
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
) -> Result<Pushed, Error> {
    let reference = &image.reference;
    let credentials = context.access.credentials.as_ref();
    let user = credentials
        .map(|credentials| credentials.user.clone())
        .unwrap_or_default();
    let failed = |message: String| {
        Error::of_push(
            &reference.to_string(),
            &reference.registry,
            &user,
            context.redact(&message),
        )
    };
    let login = credentials.map(|credentials| DockerCredentials {
        username: Some(credentials.user.clone()),
        password: Some(credentials.password.expose_secret().to_owned()),
        serveraddress: Some(reference.registry.clone()),
        ..DockerCredentials::default()
    });
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
            context.events.send(Event::Output {
                unit: unit.clone(),
                line: context.redact(&status),
            });
        }
    }
    let inspected = docker
        .inspect_image(&reference.to_string())
        .await
        .map_err(|error| failed(docker::message(&error)))?;
    let prefix = format!("{}@", reference.name());
    let digest = inspected
        .repo_digests
        .iter()
        .flatten()
        .find_map(|known| known.strip_prefix(&prefix))
        .ok_or_else(|| failed("the engine reports no digest after the push".into()))?
        .to_owned();
    Ok(Pushed {
        unit: image.unit.clone(),
        reference: reference.clone(),
        digest,
    })
}
