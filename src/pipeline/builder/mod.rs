//! Who makes images and brings them to where they go: the Docker engine, or this program itself.

mod context;
mod daemonless;
mod docker;
mod layers;
mod refusal;

use std::collections::BTreeMap;

use futures_util::future::LocalBoxFuture;

pub use self::daemonless::{AssembledImage, DaemonlessBuilder};
pub use self::docker::DockerBuilder;
use super::failure::StageError;
use super::prune::Artifact;
use crate::event::Unit;
use crate::plan::{DestinationReference, ImagePlan};
use crate::store::UnitId;
use oci::Digest;

/// Makes images.
pub trait ImageBuilder: Send + Sync {
    /// Makes the image of an artifact.
    fn build<'a>(&'a self, order: ImageOrder<'a>) -> LocalBoxFuture<'a, Result<Image, StageError>>;

    /// Brings it to where images go. Repeating is safe: what is there already is
    /// not sent again.
    fn push<'a>(
        &'a self,
        unit: &'a Unit,
        image: &'a Image,
    ) -> LocalBoxFuture<'a, Result<Digest, StageError>>;

    /// Gives what was pushed its name.
    fn tag<'a>(
        &'a self,
        image: &'a Image,
        digest: Digest,
    ) -> LocalBoxFuture<'a, Result<(), StageError>>;
}

/// One image to make.
#[derive(Clone, Copy)]
pub struct ImageOrder<'a> {
    /// Whose events these are.
    pub unit: &'a Unit,
    /// What goes into it.
    pub artifact: &'a Artifact,
    /// How it is made.
    pub image: &'a ImagePlan,
    /// Its name.
    pub reference: &'a DestinationReference,
    /// Its labels, those about its bases and inputs among them.
    pub labels: &'a BTreeMap<String, String>,
}

/// An image that is made.
#[derive(Debug, Clone)]
pub struct Image {
    /// Store and app.
    pub unit: UnitId,
    /// Its full name.
    pub reference: DestinationReference,
    /// Bytes with the base: of the engine's as they are unpacked, of our own as they are sent.
    pub size: u64,
    /// What was made, where this program has made it.
    pub made: Option<AssembledImage>,
}

impl Image {
    /// Store and app.
    pub fn unit(&self) -> &UnitId {
        &self.unit
    }
}
