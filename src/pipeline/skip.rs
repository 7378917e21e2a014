//! Images that are at the destination already. If such an image has the same inputs, its unit is skipped.
//! If it has other inputs, its tag is not overwritten.

use futures_util::StreamExt;
use miette::Diagnostic;

use super::context::PipelineOptions;
use super::destination::{Destination, TaggedImage};
use super::failure::StageError;
use super::preflight::PreparedRun;
use super::push::Pushed;
use crate::plan::{DestinationReference, ImagePlan, Plan};
use oci::Digest;

/// The label with the digest of an image's inputs.
pub const INPUTS: &str = "com.alokai.inputs";

/// How many images are looked up at the same time.
const AT_ONCE: usize = 8;

/// An image at the destination with the same inputs.
#[derive(Debug, Clone)]
pub struct PresentImage {
    /// The image, as the push stage returns it.
    pub pushed: Pushed,
    /// Bytes of its layers, compressed.
    pub size: u64,
}

/// A tag at the destination that belongs to an image with other inputs.
#[derive(Debug, thiserror::Error, Diagnostic)]
#[error("`{reference}` already exists with other inputs: {what}")]
#[diagnostic(code(alokai::image::taken), help("{help}"))]
pub struct TagConflict {
    reference: String,
    what: String,
    help: &'static str,
}

/// Finds the images of the plan that are at the destination already.
pub async fn look(
    plan: &Plan,
    ready: &PreparedRun,
    destination: &Destination,
    options: &PipelineOptions,
) -> Result<Vec<PresentImage>, Vec<StageError>> {
    if options.force && plan.is_clean() {
        return Ok(Vec::new());
    }
    let found: Vec<_> = futures_util::stream::iter(&plan.images)
        .map(async |image| {
            let reference = image.reference.as_ref()?;
            let found = match destination.find(reference).await {
                Ok(found) => found?,
                Err(error) => return Some(Err(error)),
            };
            judge(plan, ready, (image, reference), &found, options).transpose()
        })
        .buffered(AT_ONCE)
        .collect()
        .await;
    let mut there = Vec::new();
    let mut problems = Vec::new();
    for result in found.into_iter().flatten() {
        match result {
            Ok(one) => there.push(one),
            Err(error) => problems.push(error),
        }
    }
    if problems.is_empty() {
        Ok(there)
    } else {
        Err(problems)
    }
}

fn judge(
    plan: &Plan,
    ready: &PreparedRun,
    (image, reference): (&ImagePlan, &DestinationReference),
    found: &TaggedImage,
    options: &PipelineOptions,
) -> Result<Option<PresentImage>, StageError> {
    let inputs = ready.inputs(image);
    let before = found.labels.get(INPUTS);
    if before == Some(&inputs) {
        // `--force` builds the image again. With `--local`, its files must be on this machine.
        if options.force || (plan.local && !super::prune::is_of(plan, image)) {
            return Ok(None);
        }
        return Ok(Some(PresentImage {
            pushed: Pushed {
                unit: image.unit.clone(),
                reference: reference.clone(),
                digest: found.digest,
            },
            size: found.size,
        }));
    }
    Err(TagConflict {
        reference: reference.to_string(),
        what: difference(before, found.digest, &inputs, ready, image, found),
        help: if plan.is_clean() {
            "an input outside the commit has changed (a base image, Node, variables, ignored files); to replace the image, pass `--force`"
        } else {
            "the tag of uncommitted changes is not replaced; commit them, or change another file"
        },
    }
    .into())
}

/// The difference between the inputs, as far as it is known.
fn difference(
    before: Option<&String>,
    digest: Digest,
    inputs: &str,
    ready: &PreparedRun,
    image: &ImagePlan,
    found: &TaggedImage,
) -> String {
    let Some(before) = before else {
        return format!("{digest} has no label `{INPUTS}`");
    };
    let own = ready.labels(image);
    let key = "org.opencontainers.image.base.digest";
    match (found.labels.get(key), own.get(key)) {
        (Some(old), Some(new)) if old != new => {
            let name = own.get("org.opencontainers.image.base.name");
            format!(
                "its base image `{}` was {old} and is now {new}",
                name.map_or("", String::as_str)
            )
        }
        _ => format!("the digest of its inputs is {before}, and is now {inputs}"),
    }
}
