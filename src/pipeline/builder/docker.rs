//! The Docker builder: the engine builds images from a streamed build context and pushes them.

use std::collections::{HashMap, HashSet, VecDeque};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bollard::Docker;
use bollard::auth::DockerCredentials;
use bollard::models::BuildInfo;
use bollard::query_parameters::{
    BuildImageOptions, BuildImageOptionsBuilder, PushImageOptionsBuilder,
};
use futures_util::{Stream, StreamExt};
use tokio::io::DuplexStream;
use tokio::task::JoinHandle;
use tokio_util::io::{ReaderStream, SyncIoBridge};

use super::context::ContextArchive;
use super::{BuiltContent, Image, ImageOrder, PreparedImage};
use crate::event::{EventSubject, WaitingGuard};
use crate::pipeline::docker::{self, Error};
use crate::pipeline::failure::{Io, StageError};
use crate::pipeline::services::Services;
use crate::plan::DestinationReference;
use oci::Digest;

/// The number of lines of the engine's output that an error shows.
const TAIL: usize = 20;

/// The waits before each further attempt of a push.
const BACKOFF: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(4)];

/// The size of the buffer between packing and sending, in bytes.
const BUFFER: usize = 256 * 1024;

/// Builds images by the engine.
#[derive(Clone)]
pub struct DockerBuilder {
    docker: Docker,
    services: Arc<Services>,
}

/// What the engine printed during a build.
#[derive(Default)]
struct BuildOutput {
    /// The last lines.
    tail: VecDeque<String>,
    /// The error that ended the build.
    error: Option<String>,
}

impl DockerBuilder {
    /// A builder that uses this engine.
    pub fn new(docker: Docker, services: Arc<Services>) -> Self {
        Self { docker, services }
    }

    /// Builds an image from the files of a composed app.
    pub async fn build(&self, order: ImageOrder<'_>) -> Result<Image, StageError> {
        let image = order.image;
        let name = image.reference.to_string();
        let workdir = &order.artifact.workdir;
        let (context, packing) = self.pack(ContextArchive {
            workdir: workdir.clone(),
            dockerfile: image.plan.dockerfile.clone(),
            modified: u64::try_from(image.plan.modified).unwrap_or(0),
        });
        let logins = self.logins(&image.plan.bases, &name).await;
        let body = bollard::body_try_stream(ReaderStream::new(context));
        let stream = self
            .docker
            .build_image(options(image, &name), logins, Some(body));
        // The stream ends here, so that packing ends too if the engine stopped reading.
        let output = self.read_output(order.unit, stream).await;
        // If a file cannot be read, the engine reports an incomplete context. The cause is the file.
        match packing.await {
            Ok(Err(error))
                if output.error.is_none()
                    || error.source.kind() != std::io::ErrorKind::BrokenPipe =>
            {
                return Err(error.into());
            }
            Ok(_) => {}
            Err(crashed) => std::panic::resume_unwind(crashed.into_panic()),
        }
        if let Some(message) = output.error {
            let message = self.services.redact(&message);
            return Err(classify(name, message, output.tail, workdir).into());
        }
        Ok(Image {
            prepared: Arc::clone(image),
            size: self.size(&name).await?,
            content: BuiltContent::InDocker(self.clone()),
        })
    }

    /// Starts packing the build context. It is packed while the engine reads it, so that it is
    /// never in memory as a whole. Once it is packed, the engine works alone, which the returned
    /// guard counts.
    fn pack(
        &self,
        archive: ContextArchive,
    ) -> (DuplexStream, JoinHandle<Result<WaitingGuard, Io>>) {
        let (reader, writer) = tokio::io::duplex(BUFFER);
        let events = self.services.events.clone();
        let packing = tokio::task::spawn_blocking(move || {
            let _working = events.working();
            archive.write(SyncIoBridge::new(writer))?;
            Ok(events.waiting())
        });
        (reader, packing)
    }

    /// The logins for the base images, which can be in any registry, and for the image itself.
    async fn logins(
        &self,
        bases: &[String],
        name: &String,
    ) -> Option<HashMap<String, DockerCredentials>> {
        let mut logins = HashMap::new();
        for image in bases.iter().chain([name]) {
            if let Some(login) = self.services.engine_login(image).await {
                logins.insert(login.serveraddress.clone().unwrap_or_default(), login);
            }
        }
        (!logins.is_empty()).then_some(logins)
    }

    /// Reads the output of a build to its end or to an error, and sends each line as an event.
    async fn read_output(
        &self,
        unit: &EventSubject,
        stream: impl Stream<Item = Result<BuildInfo, bollard::errors::Error>>,
    ) -> BuildOutput {
        let mut stream = std::pin::pin!(stream);
        let mut output = BuildOutput::default();
        while let Some(info) = stream.next().await {
            let info = match info {
                Ok(info) => info,
                Err(error) => {
                    output.error = Some(docker::message(&error));
                    break;
                }
            };
            if let Some(detail) = info.error_detail {
                let message = detail.message;
                output.error = Some(message.unwrap_or_else(|| "no reason was given".into()));
                break;
            }
            let lines = info.stream.iter().flat_map(|text| text.lines());
            for line in lines.filter(|line| !line.trim().is_empty()) {
                let line = self.services.redact(line);
                if output.tail.len() == TAIL {
                    output.tail.pop_front();
                }
                output.tail.push_back(line.clone());
                self.services.events.output(unit, line).await;
            }
        }
        output
    }

    /// The size of an image as the engine counts it, in bytes.
    async fn size(&self, name: &str) -> Result<u64, Error> {
        let inspected = self.docker.inspect_image(name).await;
        let inspected = inspected.map_err(|error| Error::Request {
            doing: format!("inspect the image `{name}`"),
            message: docker::message(&error),
        })?;
        let size = inspected.size.and_then(|size| u64::try_from(size).ok());
        Ok(size.unwrap_or(0))
    }

    /// Pushes an image, again after a failure that can be temporary.
    pub async fn push(
        &self,
        unit: &EventSubject,
        reference: &DestinationReference,
    ) -> Result<Digest, StageError> {
        let mut waits = BACKOFF.into_iter();
        loop {
            let error = match self.push_once(unit, reference).await {
                Ok(digest) => return Ok(digest),
                Err(error) => error,
            };
            match waits.next() {
                Some(wait) if matches!(&error, StageError::Registry(error) if error.is_transient()) =>
                {
                    let line = format!("{error}; retrying in {} s", wait.as_secs());
                    self.services.events.output(unit, line).await;
                    tokio::time::sleep(wait).await;
                }
                _ => return Err(error),
            }
        }
    }

    async fn push_once(
        &self,
        unit: &EventSubject,
        reference: &DestinationReference,
    ) -> Result<Digest, StageError> {
        let credentials = self.services.access.credentials.as_ref();
        let user = credentials
            .map(|credentials| credentials.user.clone())
            .unwrap_or_default();
        let failed = |message: String| {
            StageError::from(super::refusal::of_push(
                &reference.to_string(),
                &reference.registry,
                &user,
                self.services.redact(&message),
            ))
        };
        let login = self.services.engine_login(&reference.name()).await;
        let options = PushImageOptionsBuilder::default()
            .tag(&reference.tag)
            .build();
        let mut stream = self
            .docker
            .push_image(&reference.name(), Some(options), login);
        let mut seen = HashSet::new();
        let mut digest = None;
        while let Some(info) = stream.next().await {
            let info = info.map_err(|error| failed(docker::message(&error)))?;
            // The engine repeats a status for every layer and every chunk.
            let Some(status) = info.status else {
                continue;
            };
            digest = pushed_digest(&status, &reference.tag).or(digest);
            if seen.insert(status.clone()) {
                let line = self.services.redact(&status);
                self.services.events.output(unit, line).await;
            }
        }
        match digest {
            Some(digest) => Ok(digest),
            None => Ok(self.known_digest(reference).await?),
        }
    }

    /// The digest of a pushed image in the engine's store. Podman has the digest of its own manifest there,
    /// which differs from the manifest that it pushes.
    async fn known_digest(&self, reference: &DestinationReference) -> Result<Digest, Error> {
        let name = reference.to_string();
        let unknown = |message: String| Error::Request {
            doing: format!("return the digest of `{name}`"),
            message,
        };
        let inspected = self.docker.inspect_image(&name).await;
        let inspected = inspected.map_err(|error| unknown(docker::message(&error)))?;
        let prefix = format!("{}@", reference.name());
        let digest = inspected
            .repo_digests
            .iter()
            .flatten()
            .find_map(|known| known.strip_prefix(&prefix))
            .ok_or_else(|| unknown("the image has no digest after the push".into()))?;
        digest.parse().map_err(unknown)
    }
}

/// The digest in the last line of a push: `<tag>: digest: <digest> size: <bytes>`.
fn pushed_digest(status: &str, tag: &str) -> Option<Digest> {
    let rest = status.strip_prefix(tag)?.strip_prefix(": digest: ")?;
    rest.split(' ').next()?.parse().ok()
}

fn options(image: &PreparedImage, name: &str) -> BuildImageOptions {
    let labels = image.labels.iter();
    let labels: HashMap<&str, &str> = labels
        .map(|(key, value)| (key.as_str(), value.as_str()))
        .collect();
    BuildImageOptionsBuilder::default()
        .dockerfile("Dockerfile")
        .t(name)
        .labels(&labels)
        .platform(&image.plan.platform.to_string())
        .rm(true)
        .forcerm(true)
        .build()
}

/// Finds the kind of a failed build in the engine's message.
fn classify(reference: String, message: String, tail: VecDeque<String>, workdir: &Path) -> Error {
    let of_pull = [
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
    } else if of_pull.iter().any(|text| message.contains(text)) {
        // The base of the default Dockerfile was pulled in the preflight, so this is the base of
        // the app's own Dockerfile.
        let image = first_base(workdir).unwrap_or_else(|| "(in its Dockerfile)".into());
        Error::Base { image, message }
    } else {
        Error::Build {
            reference,
            message,
            output: tail.into(),
            context: workdir.display().to_string(),
        }
    }
}

/// The image in the first `FROM` of an app's own Dockerfile.
fn first_base(workdir: &Path) -> Option<String> {
    let text = std::fs::read_to_string(workdir.join("Dockerfile")).ok()?;
    let mut words = text
        .lines()
        .find_map(|line| line.trim().strip_prefix("FROM "))?
        .split_whitespace();
    words
        .find(|word| !word.starts_with("--"))
        .map(str::to_owned)
}
