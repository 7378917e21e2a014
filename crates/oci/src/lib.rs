//! Images as values: what the OCI image specification calls descriptors, manifests and indexes,
//! the layers that they name, and the Dockerfiles that say how they come about. Nothing here
//! speaks to a network.
//!
//! The types are few and our own: what is written has to be the same to the byte each time, so
//! maps are sorted, and what a base image's config says has to survive although no
//! specification knows it (`Healthcheck`, `OnBuild`).

mod archive;
mod base;
mod blobs;
mod choose;
mod collect;
mod digest;
pub mod dockerfile;
mod error;
mod gzip;
mod layer;
mod layout;
mod manifest;
mod members;
mod name;
mod stack;
mod tree;

pub use base::{BaseLayer, BaseTree, Folder};
pub use blobs::{BlobWriter, Blobs};
pub use choose::{choose, fits, index, manifest, resolve};
pub use collect::{Collected, collect};
pub use digest::{Digest, Hasher};
pub use error::Error;
pub use layer::{Layer, pack};
pub use layout::{Layout, Listing, NAME};
pub use manifest::{
    CONFIG, Descriptor, EMPTY, INDEX, Index, LAYER, MANIFEST, Manifest, Platform, is_index,
    is_manifest, layer_type,
};
pub use name::ImageName;
pub use tree::{Content, Entry, Owner};
