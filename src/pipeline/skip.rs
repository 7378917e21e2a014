//! Images that are where they go already: if they were made of the same, nothing of their units
//! has to be done; if not, their names are not taken from them by accident.

use futures_util::StreamExt;
use miette::Diagnostic;

use super::context::Services;
use super::destination::{Destination, TaggedImage};
use super::failure::StageError;
use super::preflight::PreparedRun;
use super::push::Pushed;
use crate::plan::{ImagePlan, Plan};
use oci::Digest;

/// The label with the digest of everything that an image is made of.
pub const INPUTS: &str = "com.alokai.inputs";

/// Images that are asked for at the same time.
const AT_ONCE: usize = 8;

/// An image that is there, made of what it would be made of now.
#[derive(Debug, Clone)]
pub struct PresentImage {
    /// What the stages after this one take.
    pub pushed: Pushed,
    /// Bytes of its layers, as they are stored.
    pub size: u64,
}

/// A name that stands for something else.
#[derive(Debug, thiserror::Error, Diagnostic)]
#[error("`{reference}` is there, made of something else: {what}")]
#[diagnostic(code(alokai::image::taken), help("{help}"))]
pub struct TagConflict {
    reference: String,
    what: String,
    help: &'static str,
}

/// Looks which of the plan's images are there.
pub async fn look(
    plan: &Plan,
    ready: &PreparedRun,
    destination: &Destination,
    context: &Services,
) -> Result<Vec<PresentImage>, Vec<StageError>> {
    if context.force && plan.is_clean() {
        return Ok(Vec::new());
    }
    let found: Vec<_> = futures_util::stream::iter(&plan.images)
        .map(async |image| {
            let reference = image.reference.as_ref()?;
            let found = match destination.find(reference).await {
                Ok(found) => found?,
                Err(error) => return Some(Err(error)),
            };
            judge(plan, ready, image, &found, context).transpose()
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
    image: &ImagePlan,
    found: &TaggedImage,
    context: &Services,
) -> Result<Option<PresentImage>, StageError> {
    let inputs = ready.inputs(image);
    let reference = image.reference.as_ref().expect("it was looked for by it");
    let before = found.labels.get(INPUTS);
    if before == Some(&inputs) {
        // What runs here has to lie here; and who says so wants it done again.
        if context.force || (plan.local && !super::prune::is_of(plan, image)) {
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
            "the same commit gives something else now (a base image, Node, variables, ignored files); to replace the image, pass `--force`"
        } else {
            "a tag of changes that are in no commit is not replaced; commit them, or change something more"
        },
    }
    .into())
}

/// What can be told of the difference.
fn difference(
    before: Option<&String>,
    digest: Digest,
    inputs: &str,
    ready: &PreparedRun,
    image: &ImagePlan,
    found: &TaggedImage,
) -> String {
    let Some(before) = before else {
        return format!("{digest} does not say of what (no label `{INPUTS}`)");
    };
    let own = ready.labels(image);
    let key = "org.opencontainers.image.base.digest";
    match (found.labels.get(key), own.get(key)) {
        (Some(old), Some(new)) if old != new => {
            let name = own.get("org.opencontainers.image.base.name");
            format!(
                "its base `{}` was {old} and is {new}",
                name.map_or("", String::as_str)
            )
        }
        _ => format!("its inputs have the digest {before}, and now {inputs}"),
    }
}
