//! The destination of images: a registry, or a folder that is an OCI image layout.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::SystemTime;

use serde_json::Value;

use super::failure::{Io, StageError};
use super::services::Services;
use crate::cache::CacheLimits;
use crate::plan::{DestinationPlan, DestinationReference};
use oci::{self, Blobs, CollectedBlobs, Descriptor, Digest, IndexEntry, Layout, Manifest};
use oci_distribution::{BlobSource, Client};

/// The number of images that are built or pushed at the same time. The disk is the bottleneck.
pub const AT_ONCE: u8 = 4;

/// The destination of images.
pub enum Destination {
    /// A registry.
    Registry {
        /// The client for it.
        client: Client,
        /// The path between host and repository, such as `team/`; can be empty.
        path: String,
    },
    /// An image layout.
    Layout(LayoutFolder),
}

/// An image layout, which is created when the first image is written.
pub struct LayoutFolder {
    path: PathBuf,
    layout: OnceLock<Layout>,
    /// Images that the next write of the index adds.
    waiting: Mutex<Vec<IndexEntry>>,
}

impl LayoutFolder {
    /// Creates the layout, unless it exists.
    pub fn layout(&self) -> Result<&Layout, oci::Error> {
        if let Some(layout) = self.layout.get() {
            return Ok(layout);
        }
        let layout = Layout::create(&self.path)?;
        Ok(self.layout.get_or_init(|| layout))
    }

    fn waiting(&self) -> MutexGuard<'_, Vec<IndexEntry>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, name: Option<&str>, image: Descriptor) -> Result<(), oci::Error> {
        let listing = self.layout()?.listing(name, image)?;
        self.waiting().push(listing);
        Ok(())
    }

    /// Adds all waiting images to the index, which is a file that is written as a whole.
    fn write_index(&self) -> Result<(), oci::Error> {
        let mut waiting = self.waiting();
        if !waiting.is_empty() {
            // After an error the images stay in the list, so that each of their pushes fails.
            self.layout()?.put_all(&waiting)?;
            waiting.clear();
        }
        Ok(())
    }
}

/// A tagged image at the destination.
pub struct TaggedImage {
    /// The digest of its manifest.
    pub digest: Digest,
    /// The bytes of its packed layers.
    pub size: u64,
    /// The labels of its config.
    pub labels: BTreeMap<String, String>,
}

impl Destination {
    /// Prepares the destination. Nothing is requested or written yet.
    pub async fn new(target: &DestinationPlan, services: &Services) -> Result<Self, StageError> {
        match target {
            DestinationPlan::Registry { address, host, .. } => {
                let client = services.client(address).await?;
                let path = host.split_once('/').map(|(_, path)| format!("{path}/"));
                let path = path.unwrap_or_default();
                Ok(Self::Registry { client, path })
            }
            DestinationPlan::Layout { folder, .. } => Ok(Self::Layout(LayoutFolder {
                path: folder.clone(),
                layout: OnceLock::new(),
                waiting: Mutex::default(),
            })),
        }
    }

    /// The host, if it is a registry.
    pub fn host(&self) -> Option<&str> {
        match self {
            Self::Registry { client, .. } => Some(client.host()),
            Self::Layout(_) => None,
        }
    }

    /// The image with this tag, if there is one.
    pub async fn find(
        &self,
        reference: &DestinationReference,
    ) -> Result<Option<TaggedImage>, StageError> {
        let (manifest, digest, config) = match self {
            Self::Registry { client, path } => {
                let repository = format!("{path}{}", reference.repository);
                let Some(found) = client.manifest(&repository, &reference.tag).await? else {
                    return Ok(None);
                };
                // An index, or a document that cannot be parsed, was not pushed by this program.
                let Ok(manifest) = serde_json::from_slice::<Manifest>(&found.bytes) else {
                    return Ok(Some(TaggedImage::foreign(found.digest)));
                };
                let config = client.blob(&repository, &manifest.config).await?;
                (manifest, found.digest, config)
            }
            Self::Layout(folder) => {
                let layout = folder.layout()?;
                let Some(found) = layout.find(&reference.within())? else {
                    return Ok(None);
                };
                // An incomplete image is built again.
                let Ok(bytes) = layout.blobs().read(&found) else {
                    return Ok(None);
                };
                let Ok(manifest) = serde_json::from_slice::<Manifest>(&bytes) else {
                    return Ok(Some(TaggedImage::foreign(found.digest)));
                };
                let mut layers = manifest.layers.iter();
                let is_whole = layers.all(|layer| layout.blobs().holds(layer));
                let Ok(config) = layout.blobs().read(&manifest.config) else {
                    return Ok(None);
                };
                if !is_whole {
                    return Ok(None);
                }
                (manifest, found.digest, config)
            }
        };
        let config: Value = serde_json::from_slice(&config).unwrap_or_default();
        let labels = config["config"]["Labels"].clone();
        Ok(Some(TaggedImage {
            digest,
            size: manifest.size(),
            labels: serde_json::from_value(labels).unwrap_or_default(),
        }))
    }

    /// Uploads a layer from these blobs. `mount_from` is a repository of the same registry that
    /// has the layer.
    pub async fn put_layer(
        &self,
        reference: &DestinationReference,
        layer: &Descriptor,
        blobs: &Blobs,
        mount_from: Option<&str>,
    ) -> Result<(), StageError> {
        match self {
            Self::Registry { client, path } => {
                let repository = format!("{path}{}", reference.repository);
                let file = blobs.path(&layer.digest);
                let source = BlobSource::File(&file);
                client
                    .put_blob(&repository, layer, source, mount_from)
                    .await?;
            }
            Self::Layout(folder) => folder.layout()?.take_blob(blobs, layer)?,
        }
        Ok(())
    }

    /// Uploads a small blob.
    pub async fn put_bytes(
        &self,
        reference: &DestinationReference,
        media_type: &str,
        bytes: &[u8],
    ) -> Result<Descriptor, StageError> {
        let blob = Descriptor::of(media_type, bytes);
        match self {
            Self::Registry { client, path } => {
                let repository = format!("{path}{}", reference.repository);
                let source = BlobSource::Bytes(bytes);
                client.put_blob(&repository, &blob, source, None).await?;
            }
            Self::Layout(folder) => {
                folder.layout()?.blobs().write(media_type, bytes)?;
            }
        }
        Ok(blob)
    }

    /// Uploads a manifest without a tag. The blobs that it names are there already.
    pub async fn put_manifest(
        &self,
        reference: &DestinationReference,
        bytes: &[u8],
    ) -> Result<Descriptor, StageError> {
        let manifest = Descriptor::of(oci::MANIFEST, bytes);
        match self {
            Self::Registry { client, path } => {
                let repository = format!("{path}{}", reference.repository);
                let digest = manifest.digest.to_string();
                client
                    .put_manifest(&repository, &digest, oci::MANIFEST, bytes)
                    .await?;
            }
            Self::Layout(folder) => {
                folder.layout()?.blobs().write(oci::MANIFEST, bytes)?;
            }
        }
        Ok(manifest)
    }

    /// Whether tags are written by [`Self::write_tags`], for many images at once.
    pub fn tags_in_batches(&self) -> bool {
        matches!(self, Self::Layout(_))
    }

    /// Writes all waiting tags.
    pub fn write_tags(&self) -> Result<(), StageError> {
        match self {
            Self::Registry { .. } => Ok(()),
            Self::Layout(folder) => Ok(folder.write_index()?),
        }
    }

    /// Tags a manifest. In a layout, the tag is written by the next [`Self::write_tags`].
    pub async fn tag(
        &self,
        reference: &DestinationReference,
        manifest: &Descriptor,
        bytes: &[u8],
    ) -> Result<(), StageError> {
        match self {
            Self::Registry { client, path } => {
                let repository = format!("{path}{}", reference.repository);
                client
                    .put_manifest(&repository, &reference.tag, oci::MANIFEST, bytes)
                    .await?;
            }
            Self::Layout(folder) => {
                folder.add(Some(&reference.within()), manifest.clone())?;
            }
        }
        Ok(())
    }

    /// The descriptor of an uploaded manifest.
    pub async fn describe(
        &self,
        reference: &DestinationReference,
        digest: Digest,
    ) -> Result<Descriptor, StageError> {
        match self {
            Self::Registry { client, path } => {
                let repository = format!("{path}{}", reference.repository);
                let found = client
                    .head_manifest(&repository, &digest.to_string())
                    .await?;
                let missing = || oci_distribution::Error::NotFound {
                    what: format!("{}@{digest}", reference.name()),
                    message: "the image is missing after the push".into(),
                };
                Ok(found.ok_or_else(missing)?)
            }
            Self::Layout(folder) => {
                let blob = Descriptor::new(oci::MANIFEST, digest, 0);
                let path = folder.layout()?.blobs().path(&digest);
                let size = path.metadata().map_err(Io::at("read", &path))?.len();
                Ok(Descriptor { size, ..blob })
            }
        }
    }

    /// Uploads a referrer of an image.
    pub async fn attach(
        &self,
        reference: &DestinationReference,
        manifest: &Manifest,
    ) -> Result<(), StageError> {
        let bytes = serde_json::to_vec(manifest).unwrap_or_default();
        let mut referrer = Descriptor::of(oci::MANIFEST, &bytes);
        referrer.artifact_type.clone_from(&manifest.artifact_type);
        referrer.annotations.clone_from(&manifest.annotations);
        match self {
            Self::Registry { client, path } => {
                let repository = format!("{path}{}", reference.repository);
                let digest = referrer.digest.to_string();
                let put = client
                    .put_manifest(&repository, &digest, oci::MANIFEST, &bytes)
                    .await?;
                // Registries without the referrers API list referrers under a tag.
                if !put.subject_taken
                    && let Some(subject) = &manifest.subject
                {
                    client
                        .add_referrer(&repository, &subject.digest, referrer)
                        .await?;
                }
            }
            Self::Layout(folder) => {
                folder.layout()?.blobs().write(oci::MANIFEST, &bytes)?;
                folder.add(None, referrer)?;
            }
        }
        Ok(())
    }
}

impl TaggedImage {
    /// An image that this program has not pushed.
    fn foreign(digest: Digest) -> Self {
        Self {
            digest,
            size: 0,
            labels: BTreeMap::new(),
        }
    }
}

/// Removes the layers that were not used for the longest time, by the limits of the cache. Layers
/// that were used since `begun` are kept.
pub fn collect_layers(
    project: &Path,
    limits: CacheLimits,
    begun: SystemTime,
) -> Result<CollectedBlobs, oci::Error> {
    oci::collect(&blob_store(project).0, limits.bytes, limits.age, begun)
}

/// The packed and downloaded blobs in the project's cache, and their folder.
pub fn blob_store(project: &Path) -> (PathBuf, Blobs) {
    let folder = project.join(super::CACHE).join("oci");
    let blobs = Blobs::new(folder.clone());
    (folder, blobs)
}
