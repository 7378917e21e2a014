//! Where images go: a registry, or a folder that is an OCI image layout.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::SystemTime;

use serde_json::Value;

use super::context::Context;
use super::failure::{Io, StageError};
use crate::cache::CacheLimits;
use crate::plan::{Reference, Target};
use oci::{self, Blobs, Collected, Descriptor, Digest, Layout, Listing, Manifest};
use oci_distribution::{BlobSource, Client};

/// Images that are made or pushed at the same time; the disk is the bottleneck.
pub const AT_ONCE: usize = 4;

/// Where images go.
pub enum Destination {
    /// A registry.
    Registry {
        /// Speaks to it.
        client: Client,
        /// What stands between its host and repositories: `team/`, or nothing.
        path: String,
    },
    /// An image layout.
    Layout(Folder),
}

/// An image layout, which is made when the first image comes.
pub struct Folder {
    path: PathBuf,
    layout: OnceLock<Layout>,
    /// What is to be listed next.
    waiting: Mutex<Vec<Listing>>,
}

impl Folder {
    /// Makes the layout, unless that was done.
    pub fn layout(&self) -> Result<&Layout, oci::Error> {
        if let Some(layout) = self.layout.get() {
            return Ok(layout);
        }
        let layout = Layout::create(&self.path)?;
        Ok(self.layout.get_or_init(|| layout))
    }

    fn waiting(&self) -> MutexGuard<'_, Vec<Listing>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn list_next(&self, name: Option<&str>, image: Descriptor) -> Result<(), oci::Error> {
        let listing = self.layout()?.listing(name, image)?;
        self.waiting().push(listing);
        Ok(())
    }

    /// Lists what waits. The list is a file that is written as a whole.
    fn list(&self) -> Result<(), oci::Error> {
        let mut waiting = self.waiting();
        if !waiting.is_empty() {
            // What could not be listed goes on waiting, so all that wait for it get the error.
            self.layout()?.put_all(&waiting)?;
            waiting.clear();
        }
        Ok(())
    }
}

/// An image that has its name already.
pub struct Tagged {
    /// Of its manifest.
    pub digest: Digest,
    /// Bytes of its layers, as they are stored.
    pub size: u64,
    /// What it says of itself.
    pub labels: BTreeMap<String, String>,
}

impl Destination {
    /// Gets ready; nothing is asked and nothing is written yet.
    pub async fn new(target: &Target, context: &Context) -> Result<Self, StageError> {
        match target {
            Target::Registry { address, host, .. } => {
                let client = context.client(address).await?;
                let path = host.split_once('/').map(|(_, path)| format!("{path}/"));
                let path = path.unwrap_or_default();
                Ok(Self::Registry { client, path })
            }
            Target::Layout { folder, .. } => Ok(Self::Layout(Folder {
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

    /// What has that name, if anything has.
    pub async fn find(&self, reference: &Reference) -> Result<Option<Tagged>, StageError> {
        let (manifest, digest, config) = match self {
            Self::Registry { client, path } => {
                let repository = format!("{path}{}", reference.repository);
                let Some(found) = client.manifest(&repository, &reference.tag).await? else {
                    return Ok(None);
                };
                // A list of manifests is none of ours, nor is anything unreadable.
                let Ok(manifest) = serde_json::from_slice::<Manifest>(&found.bytes) else {
                    return Ok(Some(Tagged::foreign(found.digest)));
                };
                let config = client.blob(&repository, &manifest.config).await?;
                (manifest, found.digest, config)
            }
            Self::Layout(folder) => {
                let layout = folder.layout()?;
                let Some(found) = layout.find(&reference.within())? else {
                    return Ok(None);
                };
                // What is not whole is made again.
                let Ok(bytes) = layout.blobs().read(&found) else {
                    return Ok(None);
                };
                let Ok(manifest) = serde_json::from_slice::<Manifest>(&bytes) else {
                    return Ok(Some(Tagged::foreign(found.digest)));
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
        Ok(Some(Tagged {
            digest,
            size: manifest.size(),
            labels: serde_json::from_value(labels).unwrap_or_default(),
        }))
    }

    /// Brings a layer that these blobs hold; `from` is a repository of the same registry that
    /// has it too.
    pub async fn put_layer(
        &self,
        reference: &Reference,
        layer: &Descriptor,
        blobs: &Blobs,
        from: Option<&str>,
    ) -> Result<(), StageError> {
        match self {
            Self::Registry { client, path } => {
                let repository = format!("{path}{}", reference.repository);
                let file = blobs.path(&layer.digest);
                let source = BlobSource::File(&file);
                client.put_blob(&repository, layer, source, from).await?;
            }
            Self::Layout(folder) => folder.layout()?.take_blob(blobs, layer)?,
        }
        Ok(())
    }

    /// Brings a small blob.
    pub async fn put_bytes(
        &self,
        reference: &Reference,
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

    /// Brings a manifest that has no name yet; everything that it names is there.
    pub async fn put_manifest(
        &self,
        reference: &Reference,
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

    /// Whether names are given by [`Self::list`], to many images at once.
    pub fn lists(&self) -> bool {
        matches!(self, Self::Layout(_))
    }

    /// Gives names to all images that wait for them.
    pub fn list(&self) -> Result<(), StageError> {
        match self {
            Self::Registry { .. } => Ok(()),
            Self::Layout(folder) => Ok(folder.list()?),
        }
    }

    /// Gives a manifest its name; in a folder the next [`Self::list`] does.
    pub async fn name(
        &self,
        reference: &Reference,
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
                folder.list_next(Some(&reference.within()), manifest.clone())?;
            }
        }
        Ok(())
    }

    /// What a digest names.
    pub async fn describe(
        &self,
        reference: &Reference,
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
                    message: "it was pushed, but the registry does not have it".into(),
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

    /// Brings what refers to an image: an artifact with one blob.
    pub async fn attach(
        &self,
        reference: &Reference,
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
                // Registries older than the referrers API are told by a tag.
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
                folder.list_next(None, referrer)?;
            }
        }
        Ok(())
    }
}

impl Tagged {
    /// Something that none of our runs has made.
    fn foreign(digest: Digest) -> Self {
        Self {
            digest,
            size: 0,
            labels: BTreeMap::new(),
        }
    }
}

/// Removes layers that nobody has used for long, by the rules of the cache. Nothing goes that was
/// used since `begun`.
pub fn collect_layers(
    project: &Path,
    limits: CacheLimits,
    begun: SystemTime,
) -> Result<Collected, oci::Error> {
    oci::collect(&packed(project).0, limits.bytes, limits.age, begun)
}

/// The store of what was packed here and brought here, in the project's cache.
pub fn packed(project: &Path) -> (PathBuf, Blobs) {
    let folder = project.join(super::CACHE).join("oci");
    let blobs = Blobs::new(folder.clone());
    (folder, blobs)
}
