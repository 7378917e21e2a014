//! The Docker engine as the maker of images: from a streamed context, pushed by itself.

use std::collections::{HashMap, HashSet, VecDeque};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bollard::Docker;
use bollard::query_parameters::{BuildImageOptionsBuilder, PushImageOptionsBuilder};
use futures_util::future::LocalBoxFuture;
use futures_util::{FutureExt, StreamExt};
use tokio_util::io::{ReaderStream, SyncIoBridge};

use super::context::Pack;
use super::{Builder, Image, Order};
use crate::event::Unit;
use crate::pipeline::context::Context;
use crate::pipeline::docker::{self, Error};
use crate::pipeline::failure::StageError;
use crate::plan::Reference;
use oci::Digest;

/// Lines of the engine's output that a failure shows.
const TAIL: usize = 20;

/// Waits before each further try of a push.
const BACKOFF: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(4)];

/// Makes images by the engine.
pub struct DockerBuilder {
    docker: Docker,
    context: Arc<Context>,
}

impl DockerBuilder {
    /// By this engine.
    pub fn new(docker: Docker, context: Arc<Context>) -> Self {
        Self { docker, context }
    }
}

impl Builder for DockerBuilder {
    fn build<'a>(&'a self, order: Order<'a>) -> LocalBoxFuture<'a, Result<Image, StageError>> {
        async move { Ok(build(&self.docker, order, &self.context).await?) }.boxed_local()
    }

    fn push<'a>(
        &'a self,
        unit: &'a Unit,
        image: &'a Image,
    ) -> LocalBoxFuture<'a, Result<Digest, StageError>> {
        tries(&self.docker, unit, &image.reference, &self.context).boxed_local()
    }

    /// The engine's push has done it.
    fn tag<'a>(
        &'a self,
        _image: &'a Image,
        _digest: Digest,
    ) -> LocalBoxFuture<'a, Result<(), StageError>> {
        async { Ok(()) }.boxed_local()
    }
}

async fn build(docker: &Docker, order: Order<'_>, context: &Context) -> Result<Image, Error> {
    let Order {
        unit,
        artifact,
        image,
        reference,
        labels,
    } = order;
    let name = reference.to_string();
    let labels: HashMap<&str, &str> = labels
        .iter()
        .map(|(key, value)| (key.as_str(), value.as_str()))
        .collect();
    let options = BuildImageOptionsBuilder::default()
        .dockerfile("Dockerfile")
        .t(&name)
        .labels(&labels)
        .platform(&image.platform.to_string())
        .rm(true)
        .forcerm(true)
        .build();

    // The context is written while the engine reads it; it is never whole in memory.
    let (reader, writer) = tokio::io::duplex(256 * 1024);
    let pack = Pack {
        workdir: artifact.workdir.clone(),
        dockerfile: image.dockerfile.clone(),
        modified: u64::try_from(image.modified).unwrap_or(0),
    };
    // Packing is this program's own time; once it is done, the engine works alone.
    let events = context.events.clone();
    let packing = tokio::task::spawn_blocking(move || {
        let _working = events.working();
        let packed = pack.write(SyncIoBridge::new(writer));
        packed.map(|()| events.outside())
    });
    let body = bollard::body_try_stream(ReaderStream::new(reader));

    let mut output = VecDeque::new();
    let mut failed = None;
    // For base images, which an app's own Dockerfile may take from anywhere.
    let mut logins = HashMap::new();
    for base in image.bases.iter().chain([&name]) {
        if let Some(login) = context.engine_login(base).await {
            logins.insert(login.serveraddress.clone().unwrap_or_default(), login);
        }
    }
    let login = (!logins.is_empty()).then_some(logins);
    let mut stream = docker.build_image(options, login, Some(body));
    while let Some(info) = stream.next().await {
        let info = match info {
            Ok(info) => info,
            Err(error) => {
                failed = Some(docker::message(&error));
                break;
            }
        };
        if let Some(detail) = info.error_detail {
            failed = Some(
                detail
                    .message
                    .unwrap_or_else(|| "no reason was given".into()),
            );
            break;
        }
        for line in info
            .stream
            .iter()
            .flat_map(|text| text.lines())
            .filter(|line| !line.trim().is_empty())
        {
            let line = context.redact(line);
            if output.len() == TAIL {
                output.pop_front();
            }
            output.push_back(line.clone());
            context.events.output(unit, line).await;
        }
    }
    drop(stream);
    // An unreadable file is the cause, the engine's complaint of a short context its effect.
    match packing.await {
        Ok(Err(error))
            if failed.is_none() || error.source.kind() != std::io::ErrorKind::BrokenPipe =>
        {
            return Err(error.into());
        }
        Ok(_) => {}
        Err(crashed) => std::panic::resume_unwind(crashed.into_panic()),
    }
    if let Some(message) = failed {
        return Err(classify(
            name,
            context.redact(&message),
            output,
            &artifact.workdir,
        ));
    }
    Ok(Image {
        unit: artifact.unit.clone(),
        reference: reference.clone(),
        size: size(docker, &name).await?,
        made: None,
    })
}

/// Bytes of an image, as the engine counts them.
async fn size(docker: &Docker, name: &str) -> Result<u64, Error> {
    let inspected = docker.inspect_image(name).await;
    let inspected = inspected.map_err(|error| Error::Request {
        doing: format!("inspect the image `{name}`"),
        message: docker::message(&error),
    })?;
    let size = inspected.size.and_then(|size| u64::try_from(size).ok());
    Ok(size.unwrap_or(0))
}

async fn tries(
    docker: &Docker,
    unit: &Unit,
    reference: &Reference,
    context: &Context,
) -> Result<Digest, StageError> {
    let mut waits = BACKOFF.into_iter();
    loop {
        let error = match once(docker, unit, reference, context).await {
            Ok(digest) => return Ok(digest),
            Err(error) => error,
        };
        match waits.next() {
            Some(wait) if matches!(&error, StageError::Registry(error) if error.is_transient()) => {
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
    reference: &Reference,
    context: &Context,
) -> Result<Digest, StageError> {
    let credentials = context.access.credentials.as_ref();
    let user = credentials
        .map(|credentials| credentials.user.clone())
        .unwrap_or_default();
    let failed = |message: String| {
        StageError::from(super::refusal::of_push(
            &reference.to_string(),
            &reference.registry,
            &user,
            context.redact(&message),
        ))
    };
    let login = context.engine_login(&reference.name()).await;
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
        .ok_or_else(|| odd("it has none after the push".into()))?;
    Ok(digest.parse().map_err(odd)?)
}

fn classify(reference: String, message: String, output: VecDeque<String>, workdir: &Path) -> Error {
    let pull = [
        "pull access denied",
        "manifest unknown",
        "manifest for",
        "lookup ",
        "dial tcp",
        "TLS handshake",
        "failed to resolve",
    ];
    if docker::is_disk_full(&message) {
        Error::DiskFull { message }
    } else if pull.iter().any(|sign| message.contains(sign)) {
        // Only of an app's own Dockerfile: the default's base has been provided before.
        let image = base_of(workdir).unwrap_or_else(|| "(in its Dockerfile)".into());
        Error::Base { image, message }
    } else {
        Error::Build {
            reference,
            message,
            output: output.into(),
            context: workdir.display().to_string(),
        }
    }
}

/// The image after the first `FROM` of an app's own Dockerfile.
fn base_of(workdir: &Path) -> Option<String> {
    let text = std::fs::read_to_string(workdir.join("Dockerfile")).ok()?;
    let mut words = text
        .lines()
        .find_map(|line| line.trim().strip_prefix("FROM "))?
        .split_whitespace();
    words
        .find(|word| !word.starts_with("--"))
        .map(str::to_owned)
}
