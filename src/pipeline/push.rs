//! The push stage: images to where they go, with what tells of them, and at last their names.

use std::sync::Arc;

use futures_util::{FutureExt, StreamExt};
use tokio::sync::Semaphore;

use super::builder::Image;
use super::context::Context;
use super::destination::AT_ONCE;
use super::failure::{Settled, StageError};
use super::halt::Halt;
use super::preflight::Ready;
use crate::event::{Events, Stage, Unit};
use crate::plan::{Plan, Reference};
use crate::registry::Error;
use crate::store::UnitId;
use oci::Digest;

/// Images of a folder that get their names at once: its list is one file.
const LISTED: usize = 64;

/// An image that is where it goes.
#[derive(Debug, Clone)]
pub struct Pushed {
    /// Store and app.
    pub unit: UnitId,
    /// Its full name.
    pub reference: Reference,
    /// Digest of its manifest.
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
    ready: &Ready,
    images: Vec<Image>,
    context: &Arc<Context>,
) -> Settled<Pushed> {
    let halt = Halt::new(context);
    let sending = Semaphore::new(AT_ONCE);
    let at_once = if ready.destination().lists() {
        LISTED
    } else {
        AT_ONCE
    };
    let results: Vec<_> = futures_util::stream::iter(&images)
        .map(async |image| {
            let unit = Unit::app(Stage::Push, &image.unit);
            let note = |pushed: &Pushed| pushed.digest.to_string();
            let work = async {
                let _outside = context.events.outside();
                let work =
                    one((plan, ready), &unit, image, &sending, &context.events).boxed_local();
                context
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

/// Its name comes last: whoever pulls by it gets all there is.
async fn one(
    (plan, ready): (&Plan, &Ready),
    unit: &Unit,
    image: &Image,
    sending: &Semaphore,
    events: &Events,
) -> Result<Pushed, StageError> {
    let permit = sending.acquire().await;
    let planned = plan.image(&image.unit).expect("made from the plan");
    let builder = ready.maker(image);
    let digest = builder.push(unit, image).await?;
    if plan.attest {
        ready.attest(plan, planned, image, digest, events).await?;
    }
    builder.tag(image, digest).await?;
    drop(permit);
    if ready.destination().lists() {
        // Waits in line behind those that are about to come, so that they are listed with it.
        let all = u32::try_from(AT_ONCE).expect("a few");
        let _alone = sending.acquire_many(all).await;
        ready.destination().list()?;
    }
    Ok(Pushed {
        unit: image.unit.clone(),
        reference: image.reference.clone(),
        digest,
    })
}
