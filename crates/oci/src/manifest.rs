//! Descriptors, manifests and indexes of the OCI image specification, v1.1. Docker's media types for
//! the same documents are read too. Documents are written with OCI's media types.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::Digest;

/// Media type of an image's manifest.
pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// Media type of a list of manifests.
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// Media type of an image's config.
pub const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// Media type of a layer: a tar compressed with gzip.
pub const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
/// Media type of an artifact's empty config, `{}`.
pub const EMPTY: &str = "application/vnd.oci.empty.v1+json";

/// Whether this is the media type of a manifest.
pub fn is_manifest(media_type: &str) -> bool {
    [
        MANIFEST,
        "application/vnd.docker.distribution.manifest.v2+json",
    ]
    .contains(&media_type)
}

/// Whether this is the media type of an index.
pub fn is_index(media_type: &str) -> bool {
    [
        INDEX,
        "application/vnd.docker.distribution.manifest.list.v2+json",
    ]
    .contains(&media_type)
}

/// Describes a blob: media type, digest and size.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// Media type of the blob.
    pub media_type: String,
    /// Digest of the blob.
    pub digest: Digest,
    /// Size in bytes.
    pub size: u64,
    /// Type of an artifact that is not an image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// Platform of an image in an index.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// Annotations.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// OCI's media type for one of Docker's layer types. Other media types are returned unchanged.
pub fn layer_type(media_type: &str) -> &str {
    match media_type {
        "application/vnd.docker.image.rootfs.diff.tar.gzip" => LAYER,
        "application/vnd.docker.image.rootfs.diff.tar" => "application/vnd.oci.image.layer.v1.tar",
        "application/vnd.docker.image.rootfs.diff.tar.zstd" => {
            "application/vnd.oci.image.layer.v1.tar+zstd"
        }
        other => other,
    }
}

impl Descriptor {
    /// A descriptor without optional fields.
    pub fn new(media_type: &str, digest: Digest, size: u64) -> Self {
        Self {
            media_type: media_type.to_owned(),
            digest,
            size,
            artifact_type: None,
            platform: None,
            annotations: BTreeMap::new(),
        }
    }

    /// The descriptor of these bytes.
    pub fn of(media_type: &str, bytes: &[u8]) -> Self {
        Self::new(media_type, Digest::of(bytes), bytes.len() as u64)
    }
}

/// The manifest of an image or an artifact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// Always 2.
    pub schema_version: u32,
    /// Media type. Missing in some older manifests.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub media_type: String,
    /// Type of an artifact that is not an image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// The image's config.
    pub config: Descriptor,
    /// Layers from the lowest to the highest.
    pub layers: Vec<Descriptor>,
    /// The image to which an artifact refers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<Descriptor>,
    /// Annotations.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

impl Manifest {
    /// The manifest of an image.
    pub fn new(config: Descriptor, layers: Vec<Descriptor>) -> Self {
        Self {
            schema_version: 2,
            media_type: MANIFEST.into(),
            artifact_type: None,
            config,
            layers,
            subject: None,
            annotations: BTreeMap::new(),
        }
    }

    /// Compressed bytes of all layers.
    pub fn size(&self) -> u64 {
        self.layers.iter().map(|layer| layer.size).sum()
    }
}

/// An index of manifests: an image for several platforms, the images of a layout, or the referrers
/// of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    /// Always 2.
    pub schema_version: u32,
    /// Media type. Missing in some older indexes.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub media_type: String,
    /// Descriptors of the manifests.
    pub manifests: Vec<Descriptor>,
    /// Annotations.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

impl Default for Index {
    fn default() -> Self {
        Self {
            schema_version: 2,
            media_type: INDEX.into(),
            manifests: Vec::new(),
            annotations: BTreeMap::new(),
        }
    }
}

/// The platform of an image: `linux/amd64`, `linux/arm/v7`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Platform {
    /// Operating system, such as `linux`.
    pub os: String,
    /// Architecture in Go's terms, such as `amd64`.
    pub architecture: String,
    /// Variant of the architecture, such as `v7`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

impl Platform {
    /// Whether an image for `other` runs on this platform. A platform without a variant accepts every
    /// variant.
    pub fn takes(&self, other: &Self) -> bool {
        let is_variant = self.variant.is_none() || self.variant == other.variant;
        self.os == other.os && self.architecture == other.architecture && is_variant
    }
}

impl Default for Platform {
    fn default() -> Self {
        Self {
            os: "linux".into(),
            architecture: "amd64".into(),
            variant: None,
        }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        match &self.variant {
            Some(variant) => write!(f, "/{variant}"),
            None => Ok(()),
        }
    }
}

impl FromStr for Platform {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut parts = text.split('/').map(str::to_owned);
        let platform = Self {
            os: parts.next().unwrap_or_default(),
            architecture: parts.next().unwrap_or_default(),
            variant: parts.next(),
        };
        let is_word =
            |word: &str| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_alphanumeric());
        let all = [
            Some(&platform.os),
            Some(&platform.architecture),
            platform.variant.as_ref(),
        ];
        if parts.next().is_none() && all.into_iter().flatten().all(|word| is_word(word)) {
            Ok(platform)
        } else {
            Err(format!(
                "`{}` is not a platform such as `linux/amd64`",
                text.escape_debug()
            ))
        }
    }
}
