//! Container images on disk, without a container engine and without a network.
//!
//! - Documents of the OCI image specification: [`Descriptor`], [`Manifest`], [`Index`], [`Digest`].
//! - [`Blobs`] and [`Layout`]: images in a folder.
//! - [`pack`]: files as a reproducible layer, packed on all cores.
//! - [`unpack`]: a layer as files.
//! - [`BaseTree`]: users, folders and links of an image, read from its layers.
//! - [`dockerfile`]: Dockerfiles that run no commands, applied to a base image.
//!
//! The written bytes are reproducible: the same input gives the same digest. Fields of a base
//! image's config that the specification does not know (`Healthcheck`, `OnBuild`) are kept.
//!
//! ```
//! use oci::{Blobs, CONFIG, Descriptor, Digest};
//!
//! let folder = tempfile::tempdir()?;
//! let blobs = Blobs::new(folder.path());
//! let config: Descriptor = blobs.write(CONFIG, b"{}")?;
//! assert_eq!(config.digest, Digest::of(b"{}"));
//! assert_eq!(blobs.read(&config)?, b"{}");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! `examples/layout.rs` builds an image from a Dockerfile and writes it as an OCI image layout.

mod archive;
mod base;
mod blobs;
mod bundle;
mod choose;
mod collect;
mod digest;
pub mod dockerfile;
mod error;
mod files;
mod gzip;
mod layer;
mod layout;
mod manifest;
mod members;
mod reference;
mod stack;
mod stored;
mod tree;
mod unpack;

pub use base::{BaseLayer, BaseTree, FolderAttributes};
pub use blobs::{BlobWriter, Blobs};
pub use bundle::{LayoutWriter, unpack_layout};
pub use choose::{choose, fits, index, manifest, resolve};
pub use collect::{CollectedBlobs, collect};
pub use digest::{Digest, Hasher};
pub use error::Error;
pub use layer::{PackedLayer, pack};
pub use layout::{IndexEntry, Layout, LayoutIndex, NAME};
pub use manifest::{
    CONFIG, Descriptor, EMPTY, INDEX, Index, LAYER, MANIFEST, Manifest, Platform, is_index,
    is_manifest, layer_type,
};
pub use reference::ImageReference;
pub use stored::{LAYOUT_PREFIX, StoredImage};
pub use tree::{FileOwner, TreeContent, TreeEntry};
pub use unpack::unpack;
