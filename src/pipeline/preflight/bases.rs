//! Resolving the base images of a run. This also decides what builds each image: the engine builds
//! images on base images that only the engine has.

use std::collections::BTreeMap;
use std::sync::Arc;

use bollard::Docker;
use futures_util::StreamExt;

use crate::pipeline::base::{BaseSources, BaseUnavailable, PinnedBase, ReadableBase};
use crate::pipeline::builder::{
    ChosenBuilder, DaemonlessBuilder, DockerBuilder, ImageBuilders, PreparedImage,
};
use crate::pipeline::destination::blob_store;
use crate::pipeline::docker;
use crate::pipeline::failure::StageError;
use crate::pipeline::services::Services;
use crate::plan::{BuilderChoice, DestinationPlan, ImageMaker, ImagePlan, Plan};
use oci::Platform;

/// The number of base images that are resolved at the same time.
const AT_ONCE: usize = 8;

/// Resolves the base images of all images, and prepares the images. `docker` is the engine, if it
/// is connected already.
pub async fn prepare_images(
    plan: &Plan,
    docker: Option<Docker>,
    services: &Arc<Services>,
) -> Result<ImageBuilders, Vec<StageError>> {
    let layout = match &plan.destination {
        Some(DestinationPlan::Layout { folder, .. }) => Some(folder.as_path()),
        _ => None,
    };
    // The engine cannot push to a layout.
    let has_fallback = plan.builder == BuilderChoice::Auto && layout.is_none();
    let mut resolver = BaseResolver {
        services,
        has_fallback,
        docker,
        readable: BTreeMap::new(),
        only_docker: BTreeMap::new(),
        in_docker: BTreeMap::new(),
        problems: Vec::new(),
    };
    let sources = BaseSources {
        project: &plan.project,
        layout,
        services,
    };
    resolver.resolve_readable(plan, &sources).await;
    resolver.resolve_in_docker(plan).await;
    if !resolver.problems.is_empty() {
        return Err(resolver.problems);
    }
    let images = plan.images.iter();
    let images: Vec<_> = images.filter_map(|image| resolver.prepare(image)).collect();
    let docker = resolver.docker;
    Ok(ImageBuilders::new(
        images,
        DaemonlessBuilder::new(blob_store(&plan.project)),
        docker.map(|docker| DockerBuilder::new(docker, Arc::clone(services))),
        has_fallback,
    ))
}

/// Resolves base images. They are identified by name and platform.
struct BaseResolver<'a> {
    services: &'a Services,
    /// Whether the engine is asked for base images that cannot be resolved without it.
    has_fallback: bool,
    docker: Option<Docker>,
    readable: BTreeMap<String, Arc<ReadableBase>>,
    /// The names of base images that the engine has to resolve for images of the other builder.
    only_docker: BTreeMap<String, String>,
    in_docker: BTreeMap<String, PinnedBase>,
    problems: Vec<StageError>,
}

impl BaseResolver<'_> {
    /// Resolves the base images of the images that this program builds.
    async fn resolve_readable(&mut self, plan: &Plan, sources: &BaseSources<'_>) {
        let mut wanted: BTreeMap<String, (&str, &Platform)> = BTreeMap::new();
        for image in plan.images.iter().filter(|image| !is_of_docker(image)) {
            for (key, name) in image.base_keys().zip(&image.bases) {
                wanted.insert(key, (name, &image.platform));
            }
        }
        let resolved: Vec<_> = futures_util::stream::iter(wanted)
            .map(async |(key, (name, platform))| (key, name, sources.find(name, platform).await))
            .buffered(AT_ONCE)
            .collect()
            .await;
        for (key, name, result) in resolved {
            match result {
                Ok(base) if self.has_fallback && base.has_triggers() => {
                    self.leave_to_docker(key, name).await;
                }
                Ok(base) => drop(self.readable.insert(key, Arc::new(base))),
                Err(error) => self.find_in_docker(key, name, error).await,
            }
        }
    }

    /// Leaves a base image with `ONBUILD` instructions to the engine.
    async fn leave_to_docker(&mut self, key: String, name: &str) {
        match self.connected().await {
            Ok(_) => drop(self.only_docker.insert(key, name.to_owned())),
            Err(error) => self.problems.push(error.into()),
        }
        self.services.events.notice(format!(
            "images based on `{name}` are built by Docker, because the base image has `ONBUILD` instructions"
        ));
    }

    /// Looks for a base image in the engine, which also has images that were built on this machine
    /// and are in no registry.
    async fn find_in_docker(&mut self, key: String, name: &str, error: StageError) {
        let mut engine = None;
        if self.has_fallback {
            match self.check_in_docker(name).await {
                Ok(()) => {
                    self.services.events.notice(format!(
                        "images based on `{name}` are built by Docker, because the base image is available only in the Docker engine ({error})"
                    ));
                    self.only_docker.insert(key, name.to_owned());
                    return;
                }
                Err(error) => engine = Some(Box::new(error)),
            }
        }
        self.problems.push(StageError::from(BaseUnavailable {
            name: name.to_owned(),
            own: Box::new(error),
            engine,
        }));
    }

    async fn check_in_docker(&mut self, name: &str) -> Result<(), docker::Error> {
        docker::check_present(self.connected().await?, name).await
    }

    /// The engine. It is connected when it is first needed.
    async fn connected(&mut self) -> Result<&Docker, docker::Error> {
        let engine = match self.docker.take() {
            Some(engine) => engine,
            None => docker::connect(self.services.access.engine(None)).await?,
        };
        Ok(self.docker.insert(engine))
    }

    /// Resolves the base images of the images that the engine builds.
    async fn resolve_in_docker(&mut self, plan: &Plan) {
        let Some(docker) = &self.docker else {
            return;
        };
        let mut wanted = self.only_docker.clone();
        for image in plan.images.iter().filter(|image| is_of_docker(image)) {
            wanted.extend(image.base_keys().zip(image.bases.iter().cloned()));
        }
        for (key, name) in wanted {
            match docker::resolve_base(docker, &name, self.services).await {
                Ok(base) => drop(self.in_docker.insert(key, base)),
                Err(error) => self.problems.push(error.into()),
            }
        }
    }

    /// The image with its base images. None for an image without a reference, which is not built.
    fn prepare(&self, image: &ImagePlan) -> Option<PreparedImage> {
        let reference = image.reference.clone()?;
        let builder = match &image.maker {
            ImageMaker::Docker(_) => None,
            ImageMaker::Oci(recipe) => {
                let base = image.base_keys().find_map(|key| self.readable.get(&key));
                base.map(|base| ChosenBuilder::Daemonless {
                    recipe: recipe.clone(),
                    base: Arc::clone(base),
                })
            }
        };
        let bases = image.base_keys().filter_map(|key| self.pinned(&key));
        Some(PreparedImage::new(
            image.clone(),
            reference,
            bases.collect(),
            builder.unwrap_or(ChosenBuilder::Docker),
        ))
    }

    /// A resolved base image. The digest of the registry takes precedence over that of the engine,
    /// so that all images of a run have the same label.
    fn pinned(&self, key: &str) -> Option<PinnedBase> {
        let readable = self.readable.get(key).map(|base| &base.pinned);
        readable.or_else(|| self.in_docker.get(key)).cloned()
    }
}

fn is_of_docker(image: &ImagePlan) -> bool {
    matches!(image.maker, ImageMaker::Docker(_))
}
