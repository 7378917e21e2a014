//! The push stage: uploads images to the destination with their attestations, and tags them last.

use std::sync::Arc;

use futures_util::{FutureExt, StreamExt};
use tokio::sync::Semaphore;

use super::attest;
use super::builder::Image;
use super::destination::{AT_ONCE, Destination};
use super::failure::{StageError, StageResult};
use super::halt::Halt;
use super::services::{PipelineOptions, Services};
use crate::event::{EventSubject, Events, Stage};
use crate::plan::{DestinationReference, Plan};
use crate::registry::Error;
use crate::store::UnitId;
use oci::Digest;

/// The number of images of a layout that are tagged by one write of its index.
const TAGGED_AT_ONCE: usize = 64;

/// An image that is at its destination.
#[derive(Debug, Clone)]
pub struct Pushed {
    /// Store and app.
    pub unit: UnitId,
    /// Its full name.
    pub reference: DestinationReference,
    /// The digest of its manifest.
    pub digest: Digest,
}

impl Pushed {
    /// Store and app.
    pub fn unit(&self) -> &UnitId {
        &self.unit
    }
}

/// Pushes every image.
pub async fn run(
    plan: &Plan,
    destination: &Destination,
    images: Vec<Image>,
    services: &Arc<Services>,
    options: &PipelineOptions,
) -> StageResult<Pushed> {
    let halt = Halt::new(services, options.keep_going);
    let uploading = Semaphore::new(AT_ONCE.into());
    let at_once = if destination.tags_in_batches() {
        TAGGED_AT_ONCE
    } else {
        AT_ONCE.into()
    };
    let results: Vec<_> = futures_util::stream::iter(&images)
        .map(async |image| {
            let unit = EventSubject::app(Stage::Push, image.unit());
            let note = |pushed: &Pushed| pushed.digest.to_string();
            let work = async {
                let _outside = services.events.waiting();
                let target = (destination, &uploading);
                let work = push(plan, target, &unit, image, &services.events).boxed_local();
                services
                    .interrupt
                    .unless_stopped(Error::Interrupted.into(), work)
                    .await
            };
            halt.unless_halted(unit.clone(), note, work).await
        })
        .buffered(at_once)
        .collect()
        .await;
    results.into_iter().flatten().collect()
}

/// Pushes one image. It is tagged last, so that a client that pulls the tag gets a complete image
/// with its attestations.
async fn push(
    plan: &Plan,
    (destination, uploading): (&Destination, &Semaphore),
    unit: &EventSubject,
    image: &Image,
    events: &Events,
) -> Result<Pushed, StageError> {
    let permit = uploading.acquire().await;
    let digest = image.push(unit, destination).await?;
    if plan.attest {
        attest::attach(plan, image, digest, destination, events).await?;
    }
    image.tag(destination).await?;
    drop(permit);
    if destination.tags_in_batches() {
        // This waits for the uploads that were queued before it, so that one write of the index
        // lists them all.
        let _alone = uploading.acquire_many(AT_ONCE.into()).await;
        destination.write_tags()?;
    }
    Ok(Pushed {
        unit: image.unit().clone(),
        reference: image.reference().clone(),
        digest,
    })
}
