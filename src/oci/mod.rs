//! Images as values: what the OCI image specification calls descriptors, manifests and indexes,
//! the layers that they name, and the Dockerfiles that say how they come about. Nothing here
//! speaks to a network.
//!
//! The types are few and our own: what is written has to be the same to the byte each time, so
//! maps are sorted, and what a base image's config says has to survive although no
//! specification knows it (`Healthcheck`, `OnBuild`).

mod digest;
mod manifest;
mod tree;

pub use digest::{Digest, Hasher};
pub use manifest::{
    CONFIG, Descriptor, EMPTY, INDEX, Index, LAYER, MANIFEST, Manifest, Platform, is_index,
    is_manifest,
};
pub use tree::{Content, Entry, Owner};
