//! Images that are already at the destination. If an image was made from the same inputs, its unit
//! is skipped. If not, its tag is not moved without `--force`.

use futures_util::StreamExt;
use miette::Diagnostic;

use super::builder::{ImageBuilders, PreparedImage};
use super::destination::{Destination, TaggedImage};
use super::failure::StageError;
use super::push::Pushed;
use super::services::PipelineOptions;
use crate::plan::Plan;

/// The label with the digest of all inputs of an image.
pub const INPUTS: &str = "com.alokai.inputs";

/// The label with the name of the base image.
pub const BASE_NAME: &str = "org.opencontainers.image.base.name";

/// The label with the digest of the base image.
pub const BASE_DIGEST: &str = "org.opencontainers.image.base.digest";

/// The number of images that are looked up at the same time.
const AT_ONCE: usize = 8;

/// An image at the destination that was made from the current inputs.
#[derive(Debug, Clone)]
pub struct PresentImage {
    /// The image, for the deploy stage.
    pub pushed: Pushed,
    /// The bytes of its packed layers.
    pub size: u64,
}

/// A tag of another image.
#[derive(Debug, thiserror::Error, Diagnostic)]
#[error("the image `{reference}` already exists and is different: {difference}")]
#[diagnostic(code(alokai::image::taken), help("{help}"))]
pub struct TagConflict {
    reference: String,
    difference: String,
    help: &'static str,
}

/// Finds the images that are already at the destination.
pub async fn find_present(
    plan: &Plan,
    builders: &ImageBuilders,
    destination: &Destination,
    options: &PipelineOptions,
) -> Result<Vec<PresentImage>, Vec<StageError>> {
    if options.force && plan.is_clean() {
        return Ok(Vec::new());
    }
    let found: Vec<_> = futures_util::stream::iter(builders.images())
        .map(
            async |image| match destination.find(&image.reference).await {
                Ok(Some(found)) => compare(plan, image, &found, options).transpose(),
                Ok(None) => None,
                Err(error) => Some(Err(error)),
            },
        )
        .buffered(AT_ONCE)
        .collect()
        .await;
    let mut present = Vec::new();
    let mut problems = Vec::new();
    for result in found.into_iter().flatten() {
        match result {
            Ok(image) => present.push(image),
            Err(error) => problems.push(error),
        }
    }
    if problems.is_empty() {
        Ok(present)
    } else {
        Err(problems)
    }
}

/// Compares an image with the one at the destination. Returns none where it has to be built again.
fn compare(
    plan: &Plan,
    image: &PreparedImage,
    found: &TaggedImage,
    options: &PipelineOptions,
) -> Result<Option<PresentImage>, StageError> {
    if found.labels.get(INPUTS) == Some(&image.inputs) {
        // A local deployment runs the app from `.deploy`, so that has to exist too.
        if options.force || (plan.local && !super::prune::is_current(plan, &image.plan)) {
            return Ok(None);
        }
        return Ok(Some(PresentImage {
            pushed: Pushed {
                unit: image.plan.unit.clone(),
                reference: image.reference.clone(),
                digest: found.digest,
            },
            size: found.size,
        }));
    }
    Err(TagConflict {
        reference: image.reference.to_string(),
        difference: difference(image, found),
        help: if plan.is_clean() {
            "an input that is not part of the commit has changed (a base image, the version of Node, a variable, an ignored file); to replace the image, pass `--force`"
        } else {
            "an image of uncommitted changes cannot be replaced; commit the changes, or change another file to get a new tag"
        },
    }
    .into())
}

/// Describes the difference, as far as the labels show it.
fn difference(image: &PreparedImage, found: &TaggedImage) -> String {
    let Some(before) = found.labels.get(INPUTS) else {
        return format!(
            "{} has no label `{INPUTS}`, so alokai has not built it",
            found.digest
        );
    };
    match (found.labels.get(BASE_DIGEST), image.labels.get(BASE_DIGEST)) {
        (Some(old), Some(new)) if old != new => {
            let name = image.labels.get(BASE_NAME);
            format!(
                "its base image `{}` was {old} and is now {new}",
                name.map_or("", String::as_str)
            )
        }
        _ => format!(
            "the digest of its inputs was {before} and is now {}",
            image.inputs
        ),
    }
}
