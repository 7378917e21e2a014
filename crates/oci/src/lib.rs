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
mod reference;
mod stack;
mod tree;

pub use base::{BaseLayer, BaseTree, FolderAttributes};
pub use blobs::{BlobWriter, Blobs};
pub use choose::{choose, fits, index, manifest, resolve};
pub use collect::{CollectedBlobs, collect};
pub use digest::{Digest, Hasher};
pub use error::Error;
pub use layer::{PackedLayer, pack};
pub use layout::{IndexEntry, Layout, NAME};
pub use manifest::{
    CONFIG, Descriptor, EMPTY, INDEX, Index, LAYER, MANIFEST, Manifest, Platform, is_index,
    is_manifest, layer_type,
};
pub use reference::ImageReference;
pub use tree::{FileOwner, TreeContent, TreeEntry};
