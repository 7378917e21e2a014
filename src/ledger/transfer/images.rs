//! Images where they were pushed: in a registry, or in an image layout.

use std::fs::File;
use std::path::Path;

use super::BuildTransferError;
use oci::{Blobs, Descriptor, Digest, Layout, MANIFEST, Manifest, NAME, StoredImage};
use oci_distribution::{BlobSource, Client};

/// A place of images.
#[derive(Clone)]
pub enum ImagePlace {
    /// A registry.
    Registry(Client),
    /// An image layout.
    Layout(Layout),
}

/// The digest of a record.
fn digest_of(text: &str) -> Result<Digest, BuildTransferError> {
    let digest = text.parse();
    digest.map_err(|reason| BuildTransferError::Archive { reason })
}

impl ImagePlace {
    /// An image layout that exists.
    pub fn open(folder: &Path) -> Result<Self, BuildTransferError> {
        Ok(Self::Layout(Layout::open(folder)?))
    }

    /// An image layout, which is created if it does not exist.
    pub fn create(folder: &Path) -> Result<Self, BuildTransferError> {
        Ok(Self::Layout(Layout::create(folder)?))
    }

    /// Reads a manifest by its digest. None if it does not exist.
    pub async fn manifest(
        &self,
        name: &StoredImage,
        digest: &str,
    ) -> Result<Option<(Descriptor, Vec<u8>)>, BuildTransferError> {
        let digest = digest_of(digest)?;
        match self {
            Self::Registry(client) => {
                let digest = digest.to_string();
                let found = client.manifest(&name.repository, &digest).await?;
                Ok(found.map(|it| (Descriptor::of(&it.media_type, &it.bytes), it.bytes)))
            }
            Self::Layout(layout) => {
                let path = layout.blobs().path(&digest);
                let Ok(file) = path.metadata() else {
                    return Ok(None);
                };
                let bytes = layout
                    .blobs()
                    .read(&Descriptor::new(MANIFEST, digest, file.len()))?;
                Ok(Some((Descriptor::of(MANIFEST, &bytes), bytes)))
            }
        }
    }

    /// Opens a blob for reading. A blob of a registry is downloaded into `scratch` first, a folder for
    /// temporary files. Its content is not checked.
    pub async fn open_blob(
        &self,
        repository: &str,
        blob: &Descriptor,
        scratch: &Path,
    ) -> Result<File, BuildTransferError> {
        match self {
            Self::Registry(client) => {
                let path = scratch.join(blob.digest.hex());
                client.download(repository, blob, &path).await?;
                let opened = File::open(&path).map_err(BuildTransferError::at("read", &path));
                // The content stays readable until the file is closed.
                std::fs::remove_file(&path).map_err(BuildTransferError::at("remove", &path))?;
                opened
            }
            Self::Layout(layout) => Ok(layout.blobs().open(blob)?),
        }
    }

    /// The digest of the image with this tag.
    pub async fn tagged(&self, name: &StoredImage) -> Result<Option<Digest>, BuildTransferError> {
        let found = match self {
            Self::Registry(client) => client.head_manifest(&name.repository, &name.tag).await?,
            Self::Layout(layout) => layout.find(&name.within())?,
        };
        Ok(found.map(|image| image.digest))
    }

    /// Copies the blobs of an image.
    pub async fn put_blobs(
        &self,
        repository: &str,
        manifest: &Manifest,
        from: &Blobs,
    ) -> Result<(), BuildTransferError> {
        for blob in manifest.layers.iter().chain([&manifest.config]) {
            match self {
                Self::Registry(client) => {
                    let path = from.path(&blob.digest);
                    let source = BlobSource::File(&path);
                    client.put_blob(repository, blob, source, None).await?;
                }
                Self::Layout(layout) => layout.take_blob(from, blob)?,
            }
        }
        Ok(())
    }

    /// Copies a manifest whose blobs are there, and tags it.
    pub async fn put_manifest(
        &self,
        name: &StoredImage,
        image: &Descriptor,
        from: &Blobs,
    ) -> Result<(), BuildTransferError> {
        match self {
            Self::Registry(client) => {
                let bytes = from.read(image)?;
                let (repository, tag) = (&name.repository, &name.tag);
                client
                    .put_manifest(repository, tag, &image.media_type, &bytes)
                    .await?;
            }
            Self::Layout(layout) => {
                layout.take_blob(from, image)?;
                let image = Descriptor::new(&image.media_type, image.digest, image.size);
                layout.put(Some(&name.within()), image)?;
            }
        }
        Ok(())
    }

    /// Removes an image with all of its tags and attestations. False if the registry does not support
    /// that. The blobs of a layout stay until they are swept.
    pub async fn remove(
        &self,
        name: &StoredImage,
        digest: &str,
    ) -> Result<bool, BuildTransferError> {
        let repository = &name.repository;
        let digest = &digest_of(digest)?;
        match self {
            Self::Registry(client) => {
                self.remove_attestations(client, repository, digest).await?;
                Ok(client.delete_manifest(repository, digest).await?)
            }
            Self::Layout(layout) => {
                let is_attestation = |it: &Descriptor| {
                    let read = it.artifact_type.is_some().then(|| layout.blobs().read(it));
                    let manifest = read.and_then(Result::ok);
                    let manifest =
                        manifest.and_then(|bytes| serde_json::from_slice::<Manifest>(&bytes).ok());
                    let subject = manifest.and_then(|manifest| manifest.subject);
                    subject.is_some_and(|subject| subject.digest == *digest)
                };
                let prefix = format!("{repository}:");
                layout.remove(|it| {
                    let name = it.annotations.get(NAME);
                    // Another store may have the same image under its own name.
                    let is_own = name.is_some_and(|name| name.starts_with(&prefix));
                    it.digest == *digest && is_own || name.is_none() && is_attestation(it)
                })?;
                Ok(true)
            }
        }
    }

    /// Removes the attestations that are listed under the tag of the referrers fallback.
    async fn remove_attestations(
        &self,
        client: &Client,
        repository: &str,
        digest: &Digest,
    ) -> Result<(), BuildTransferError> {
        let tag = digest.to_string().replace(':', "-");
        let Some(found) = client.manifest(repository, &tag).await? else {
            return Ok(());
        };
        let index: oci::Index = serde_json::from_slice(&found.bytes).unwrap_or_default();
        let listed = index.manifests.iter().map(|it| it.digest);
        for attestation in listed.chain([found.digest]) {
            if !client.delete_manifest(repository, &attestation).await? {
                break;
            }
        }
        Ok(())
    }
}
