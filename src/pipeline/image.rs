//! The image stage: builds one image for each pruned app.

use std::sync::Arc;

use futures_util::{FutureExt, StreamExt};

use super::builder::{Image, ImageBuilders, ImageOrder};
use super::destination::AT_ONCE;
use super::docker::Error;
use super::failure::StageResult;
use super::halt::Halt;
use super::prune::Artifact;
use super::services::{PipelineOptions, Services};
use crate::event::{EventSubject, Stage, bytes};
use crate::plan::Plan;

/// Builds the image of every artifact.
pub async fn run(
    plan: &Plan,
    builders: &ImageBuilders,
    artifacts: Vec<Artifact>,
    services: &Arc<Services>,
    options: &PipelineOptions,
) -> StageResult<Image> {
    let work = artifacts
        .iter()
        .filter_map(|artifact| Some((artifact, builders.image(&artifact.unit)?)));
    let halt = Halt::new(services, options.keep_going);
    let results: Vec<_> = futures_util::stream::iter(work)
        .map(async |(artifact, image)| {
            let unit = EventSubject::app(Stage::Image, &artifact.unit);
            let note = |image: &Image| bytes(image.size);
            let order = ImageOrder {
                unit: &unit,
                artifact,
                image,
            };
            let work = builders.build(plan, order, services).boxed_local();
            let work = services
                .interrupt
                .unless_stopped(Error::Interrupted.into(), work);
            halt.unless_halted(unit.clone(), note, work).await
        })
        .buffered(AT_ONCE.into())
        .collect()
        .await;
    results.into_iter().flatten().collect()
}
