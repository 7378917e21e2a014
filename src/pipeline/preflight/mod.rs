//! The preflight checks, before the first build, that everything the later stages need is
//! available. So a wrong password fails within a second, and not after an hour of builds.
//!
//! Its results hold for the whole run: the digests of base images, the builder of each image, and
//! the images that are at the destination already.

mod bases;

use std::collections::BTreeSet;
use std::sync::Arc;

use self::bases::prepare_images;
use super::builder::ImageBuilders;
use super::destination::Destination;
use super::failure::{Error, StageError};
use super::services::{PipelineOptions, Services};
use super::skip::{self, PresentImage};
use super::{TargetChecks, docker, hooks};
use crate::event::Stage;
use crate::plan::{ImageMaker, ImagePlan, Plan};
use crate::registry;
use oci_distribution;

/// What the stages after the build need, checked and ready.
pub enum PreparedRun {
    /// The run ends before images are built.
    WithoutImages,
    /// The run builds images and keeps them on this machine.
    Build(ImageBuilders),
    /// The run builds images and pushes them.
    Push {
        /// What builds the images.
        builders: ImageBuilders,
        /// Where they are pushed.
        destination: Destination,
        /// The images that the destination already has.
        present: Vec<PresentImage>,
    },
}

impl PreparedRun {
    /// What builds the images. None where the run ends before that.
    pub fn builders(&self) -> Option<&ImageBuilders> {
        match self {
            Self::WithoutImages => None,
            Self::Build(builders) | Self::Push { builders, .. } => Some(builders),
        }
    }

    /// Where images are pushed. None where the run ends before that.
    pub fn destination(&self) -> Option<&Destination> {
        match self {
            Self::WithoutImages | Self::Build(_) => None,
            Self::Push { destination, .. } => Some(destination),
        }
    }

    /// The images that the destination already has.
    pub fn present(&self) -> &[PresentImage] {
        match self {
            Self::WithoutImages | Self::Build(_) => &[],
            Self::Push { present, .. } => present,
        }
    }
}

/// Checks engine, registry and targets at the same time, and reports everything that is missing.
/// Then it resolves base images and looks up images.
pub async fn check(
    plan: &Plan,
    services: &Arc<Services>,
    options: &PipelineOptions,
    targets: TargetChecks<'_>,
) -> Result<PreparedRun, Error> {
    let _outside = services.events.waiting();
    let interrupted = || Error::Interrupted {
        stage: Stage::Compose,
        failures: Vec::new(),
    };
    tokio::select! {
        prepared = prepare(plan, services, options, targets) => prepared,
        () = services.interrupt.stopping() => Err(interrupted()),
    }
}

async fn prepare(
    plan: &Plan,
    services: &Arc<Services>,
    options: &PipelineOptions,
    targets: TargetChecks<'_>,
) -> Result<PreparedRun, Error> {
    let wrong_hooks = hooks::check(plan, services, &options.scripts).await;
    if plan.until < Stage::Image {
        if !wrong_hooks.is_empty() {
            return Err(Error::Preflight {
                problems: wrong_hooks,
            });
        }
        return Ok(PreparedRun::WithoutImages);
    }
    // Checked before any request, since a request sends the password.
    let exposed = exposed(plan, services);
    if !exposed.is_empty() {
        return Err(Error::Preflight { problems: exposed });
    }
    let is_docker = |image: &ImagePlan| matches!(image.maker, ImageMaker::Docker(_));
    let engine = async {
        if !plan.images.iter().any(is_docker) {
            return Ok(None);
        }
        let docker = docker::connect(services.access.engine(None)).await?;
        Ok::<_, StageError>(Some(docker))
    };
    let (engine, destination, wrong_targets) =
        tokio::join!(engine, destination(plan, services), targets);
    let mut problems = wrong_hooks;
    let docker = engine.map_err(|error| problems.push(error));
    let destination = destination.map_err(|error| problems.push(error));
    problems.extend(wrong_targets);
    let builders = match docker {
        Ok(docker) => prepare_images(plan, docker, services)
            .await
            .map_err(|more| problems.extend(more)),
        Err(()) => Err(()),
    };
    let (Ok(builders), Ok(destination), true) = (builders, destination, problems.is_empty()) else {
        return Err(Error::Preflight { problems });
    };
    let prepared = match destination {
        None => PreparedRun::Build(builders),
        Some(destination) => {
            let present = skip::find_present(plan, &builders, &destination, options)
                .await
                .map_err(|problems| Error::Preflight { problems })?;
            PreparedRun::Push {
                builders,
                destination,
                present,
            }
        }
    };
    for notice in docker_notices(plan, prepared.present()) {
        services.events.notice(notice);
    }
    Ok(prepared)
}

/// Errors for addresses to which the password would be sent unencrypted.
fn exposed(plan: &Plan, services: &Services) -> Vec<StageError> {
    if services.access.trust.allow_insecure {
        return Vec::new();
    }
    let mut problems = Vec::new();
    if plan.until >= Stage::Push
        && let Some(destination) = &plan.destination
    {
        problems.extend(services.refuse_exposed(destination).err());
    }
    if plan.uses_console() && http_client::is_exposed(&plan.console) {
        problems.push(registry::Error::PlainHttp {
            server: "console",
            address: plan.console.clone(),
            help: "use `https://` in `CLI_CONSOLE_API_URL` (or `console.url` in `alokai.config.json`), or pass `--allow-insecure` in a private network",
        });
    }
    problems.into_iter().map(StageError::from).collect()
}

/// Notices about Dockerfile lines that need the engine. A line that several stores have is in one
/// notice.
fn docker_notices(plan: &Plan, present: &[PresentImage]) -> BTreeSet<String> {
    let is_present =
        |image: &&ImagePlan| present.iter().any(|other| other.pushed.unit == image.unit);
    let to_build = plan.images.iter().filter(|image| !is_present(image));
    to_build
        .filter_map(|image| {
            let ImageMaker::Docker(Some(refusal)) = &image.maker else {
                return None;
            };
            let line = image.dockerfile.line(&plan.project, refusal);
            Some(format!("{line}, needs the Docker engine: {}", refusal.why))
        })
        .collect()
}

/// The destination, with a login that the registry accepts.
async fn destination(plan: &Plan, services: &Services) -> Result<Option<Destination>, StageError> {
    let Some(target) = plan
        .destination
        .as_ref()
        .filter(|_| plan.until >= Stage::Push)
    else {
        return Ok(None);
    };
    let destination = Destination::new(target, services).await?;
    if let Destination::Layout(folder) = &destination {
        // Created now, so that an error is found before the first build.
        folder.layout()?;
    }
    if let Destination::Registry { client, .. } = &destination {
        let unauthorized = match client.check().await {
            Err(error @ oci_distribution::Error::Unauthorized { .. }) => error,
            other => return Ok(other.map(|()| Some(destination))?),
        };
        // Without credentials, the cause is that they are missing.
        if services
            .access
            .logins()
            .for_host(client.host())
            .await?
            .is_none()
        {
            return Err(StageError::from(registry::Error::NoCredentials {
                server: format!("the registry `{}`", target.name()),
                missing: services.access.missing.clone(),
            }));
        }
        return Err(unauthorized.into());
    }
    Ok(Some(destination))
}
