//! Building images: by the Docker engine, or by this program.
//!
//! An image is a [`PreparedImage`] before it is built, an [`Image`] once it is built, and
//! `Pushed` once it is at its destination.

mod context;
mod daemonless;
mod docker;
mod layers;
mod refusal;

use std::collections::BTreeMap;
use std::sync::Arc;

use indexmap::IndexMap;
use tokio::sync::OnceCell;

pub use self::daemonless::DaemonlessBuilder;
pub use self::docker::DockerBuilder;

use self::daemonless::AssembledImage;
use super::base::{PinnedBase, ReadableBase};
use super::destination::Destination;
use super::docker::{Error as DockerError, connect};
use super::failure::StageError;
use super::prune::Artifact;
use super::services::Services;
use super::skip;
use crate::event::EventSubject;
use crate::plan::{DestinationReference, ImagePlan, Plan};
use crate::store::UnitId;
use oci::Digest;
use oci::dockerfile::{self, ParsedDockerfile};

/// An image to build, with its base images resolved.
pub struct PreparedImage {
    /// How the image is built.
    pub plan: ImagePlan,
    /// Its full name.
    pub reference: DestinationReference,
    /// The images that its Dockerfile names, in the same order.
    pub bases: Vec<PinnedBase>,
    /// The digest of everything that the image is made from.
    pub inputs: String,
    /// All its labels.
    pub labels: BTreeMap<String, String>,
    /// What builds it.
    pub builder: ChosenBuilder,
}

/// What builds one image.
pub enum ChosenBuilder {
    /// The Docker engine.
    Docker,
    /// This program.
    Daemonless {
        /// The instructions of the Dockerfile.
        recipe: ParsedDockerfile,
        /// The base image.
        base: Arc<ReadableBase>,
    },
}

impl PreparedImage {
    /// Prepares an image. `bases` are in the order of the Dockerfile.
    pub fn new(
        plan: ImagePlan,
        reference: DestinationReference,
        bases: Vec<PinnedBase>,
        builder: ChosenBuilder,
    ) -> Self {
        let digests: Vec<_> = bases.iter().map(|base| base.digest.to_string()).collect();
        let inputs = plan.inputs_label(digests.iter().map(String::as_str));
        let planned = plan.labels.iter();
        let mut labels: BTreeMap<String, String> = planned
            .map(|(name, value)| ((*name).to_owned(), value.clone()))
            .collect();
        labels.insert(skip::INPUTS.into(), inputs.clone());
        // The last `FROM` names the base of the final image.
        if let Some(base) = bases.last() {
            labels.insert(skip::BASE_NAME.into(), base.name.clone());
            labels.insert(skip::BASE_DIGEST.into(), base.digest.to_string());
        }
        Self {
            plan,
            reference,
            bases,
            inputs,
            labels,
            builder,
        }
    }
}

/// One image to build from a pruned app.
#[derive(Clone, Copy)]
pub struct ImageOrder<'a> {
    /// The unit of the events.
    pub unit: &'a EventSubject,
    /// The pruned app.
    pub artifact: &'a Artifact,
    /// The image.
    pub image: &'a Arc<PreparedImage>,
}

/// The images of a run and the builders for them.
pub struct ImageBuilders {
    /// In the order of the plan.
    images: IndexMap<UnitId, Arc<PreparedImage>>,
    daemonless: DaemonlessBuilder,
    /// Connected when the first image needs the engine.
    docker: OnceCell<DockerBuilder>,
    /// Whether the engine builds images with instructions that this program does not support.
    has_fallback: bool,
}

impl ImageBuilders {
    /// Builders for these images. `docker` is the engine, if it is connected already.
    pub fn new(
        images: impl IntoIterator<Item = PreparedImage>,
        daemonless: DaemonlessBuilder,
        docker: Option<DockerBuilder>,
        has_fallback: bool,
    ) -> Self {
        let images = images.into_iter();
        Self {
            images: images
                .map(|image| (image.plan.unit.clone(), Arc::new(image)))
                .collect(),
            daemonless,
            docker: OnceCell::new_with(docker),
            has_fallback,
        }
    }

    /// All images of the run.
    pub fn images(&self) -> impl Iterator<Item = &PreparedImage> {
        self.images.values().map(Arc::as_ref)
    }

    /// The image of a unit.
    pub fn image(&self, unit: &UnitId) -> Option<&Arc<PreparedImage>> {
        self.images.get(unit)
    }

    /// Builds an image. Some instructions turn out to be unsupported only when they are applied to
    /// the base image and the files, such as `ADD` of an archive or an unknown signal. Then the
    /// engine builds the image.
    pub async fn build(
        &self,
        plan: &Plan,
        order: ImageOrder<'_>,
        services: &Arc<Services>,
    ) -> Result<Image, StageError> {
        let ChosenBuilder::Daemonless { recipe, base } = &order.image.builder else {
            return self.docker(services).await?.build(order).await;
        };
        match self.daemonless.build(order, recipe, base).await {
            Err(StageError::Dockerfile(dockerfile::Error::Refused(refusal)))
                if self.has_fallback =>
            {
                let line = order.image.plan.dockerfile.line(&plan.project, &refusal);
                services
                    .events
                    .notice(format!("{line}, needs the Docker engine: {}", refusal.why));
                self.docker(services).await?.build(order).await
            }
            other => other,
        }
    }

    async fn docker(&self, services: &Arc<Services>) -> Result<&DockerBuilder, DockerError> {
        self.docker
            .get_or_try_init(async || {
                let docker = connect(services.access.engine(None)).await?;
                Ok(DockerBuilder::new(docker, Arc::clone(services)))
            })
            .await
    }
}

/// An image that is built.
pub struct Image {
    /// What it was built from.
    pub prepared: Arc<PreparedImage>,
    /// Bytes with the base image. The engine counts unpacked layers, this program packed ones.
    pub size: u64,
    content: BuiltContent,
}

/// Where the content of a built image is.
enum BuiltContent {
    /// The engine has the image.
    InDocker(DockerBuilder),
    /// The layers are files on this machine.
    Assembled(Box<AssembledImage>),
}

impl Image {
    /// Store and app.
    pub fn unit(&self) -> &UnitId {
        &self.prepared.plan.unit
    }

    /// Its full name.
    pub fn reference(&self) -> &DestinationReference {
        &self.prepared.reference
    }

    /// The builder's name, as `--builder` takes it.
    pub fn builder_name(&self) -> &'static str {
        match self.content {
            BuiltContent::InDocker(_) => "docker",
            BuiltContent::Assembled(_) => "oci",
        }
    }

    /// Uploads the image. It can be repeated: blobs that the destination has are not sent again.
    /// The engine also tags the image; this program does so in [`Self::tag`].
    pub async fn push(
        &self,
        unit: &EventSubject,
        destination: &Destination,
    ) -> Result<Digest, StageError> {
        match &self.content {
            BuiltContent::InDocker(docker) => docker.push(unit, self.reference()).await,
            BuiltContent::Assembled(image) => image.push(self.reference(), destination).await,
        }
    }

    /// Tags the uploaded image.
    pub async fn tag(&self, destination: &Destination) -> Result<(), StageError> {
        match &self.content {
            BuiltContent::InDocker(_) => Ok(()),
            BuiltContent::Assembled(image) => image.tag(self.reference(), destination).await,
        }
    }
}
