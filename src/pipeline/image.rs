//! The image stage: one image a unit.

use std::sync::Arc;

use futures_util::{FutureExt, StreamExt};

use super::builder::{Image, ImageOrder};
use super::context::{PipelineOptions, Services};
use super::destination::AT_ONCE;
use super::docker::Error;
use super::failure::StageResult;
use super::halt::Halt;
use super::preflight::PreparedRun;
use super::prune::Artifact;
use crate::event::{Stage, Unit, bytes};
use crate::plan::Plan;

/// Makes an image of every artifact.
pub async fn run(
    plan: &Plan,
    ready: &PreparedRun,
    artifacts: Vec<Artifact>,
    context: &Arc<Services>,
    options: &PipelineOptions,
) -> StageResult<Image> {
    let work = artifacts.iter().filter_map(|artifact| {
        let image = plan
            .images
            .iter()
            .find(|image| image.unit == artifact.unit)?;
        Some((artifact, image, image.reference.as_ref()?))
    });
    let halt = Halt::new(context, options.keep_going);
    let results: Vec<_> = futures_util::stream::iter(work)
        .map(async |(artifact, image, reference)| {
            let unit = Unit::app(Stage::Image, &artifact.unit);
            let note = |image: &Image| bytes(image.size);
            let labels = ready.labels(image);
            let order = ImageOrder {
                unit: &unit,
                artifact,
                image,
                reference,
                labels: &labels,
            };
            let work = ready.build(plan, order, context).boxed_local();
            let work = context
                .interrupt
                .unless_stopped(Error::Interrupted.into(), work);
            halt.unless_halted(unit.clone(), note, work).await
        })
        .buffered(AT_ONCE)
        .collect()
        .await;
    results.into_iter().flatten().collect()
}
