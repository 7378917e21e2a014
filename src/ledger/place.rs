//! Where pages of records are: a repository of a registry, or an image layout.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;

use super::page;
use super::record::LogReference;
use super::set::StoredRecord;
use super::shared::SharedError;
use oci::{Descriptor, Digest, IndexEntry, LAYOUT_PREFIX, Layout, MANIFEST, Manifest, NAME};
use oci_distribution::{BlobSource, Client};

/// A place for the pages of one store.
#[derive(Clone, Copy)]
pub enum RecordPlace<'a> {
    /// A repository of a registry.
    Registry {
        /// The client of the registry.
        client: &'a Client,
        /// The repository, with the path of the registry.
        repository: &'a str,
    },
    /// An image layout.
    Layout {
        /// The layout.
        layout: &'a LayoutPages,
        /// The repository in the names of images.
        repository: &'a str,
    },
}

/// An image layout with pages of many stores. New pages and removals become visible together, by
/// [`LayoutPages::write`], because the index of a layout is a file that is written as a whole.
pub struct LayoutPages {
    layout: Layout,
    waiting: Mutex<WaitingPages>,
    /// Held by the thread that writes the waiting pages of all threads. The others wait for it, because it
    /// may write their pages too.
    writing: Mutex<()>,
}

#[derive(Default, Clone)]
struct WaitingPages {
    new: Vec<IndexEntry>,
    removed: BTreeSet<String>,
}

impl LayoutPages {
    /// The pages of an existing layout. None if the folder does not exist.
    pub fn open(folder: &Path) -> Result<Option<Self>, oci::Error> {
        if !folder.exists() {
            return Ok(None);
        }
        Ok(Some(Self {
            layout: Layout::open(folder)?,
            waiting: Mutex::default(),
            writing: Mutex::default(),
        }))
    }

    /// Adds new pages to the index of the layout, and takes removed ones out of it.
    pub fn write(&self) -> Result<(), oci::Error> {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        // Pages stay in `waiting` until they are written, so that other threads find them. If the write
        // fails, they stay, and each thread that has added one fails too.
        let WaitingPages { new, removed } = self.waiting().clone();
        if !new.is_empty() {
            self.layout.put_all(&new)?;
        }
        if !removed.is_empty() {
            let is_removed = |it: &Descriptor| {
                let name = it.annotations.get(NAME);
                name.is_some_and(|name| removed.contains(name))
            };
            self.layout.remove(is_removed)?;
        }
        let mut waiting = self.waiting();
        waiting.new.drain(..new.len());
        waiting.removed.retain(|name| !removed.contains(name));
        Ok(())
    }

    fn waiting(&self) -> MutexGuard<'_, WaitingPages> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn find(&self, name: &str) -> Result<Option<Descriptor>, oci::Error> {
        let waiting = self.waiting();
        let mut new = waiting.new.iter().map(IndexEntry::image);
        match new.find(|image| image.annotations.get(NAME).is_some_and(|own| own == name)) {
            Some(page) => Ok(Some(page.clone())),
            None => self.layout.find(name),
        }
    }
}

/// A page as it is stored.
pub struct StoredPage {
    /// Digest of its manifest.
    pub digest: Digest,
    /// Its manifest and its packed records, or why they are not valid.
    pub content: Result<(Manifest, Vec<u8>), String>,
}

/// A blob that exists nowhere any more is not an error: the page was removed meanwhile.
fn unless_missing(read: Result<Vec<u8>, oci::Error>) -> Result<Option<Vec<u8>>, SharedError> {
    match read {
        Ok(bytes) => Ok(Some(bytes)),
        Err(oci::Error::Missing { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

impl RecordPlace<'_> {
    /// The name of this place, which differs from those of all other places.
    pub fn name(&self) -> String {
        match self {
            Self::Registry { client, repository } => format!("{}/{repository}", client.host()),
            Self::Layout { layout, repository } => {
                let folder = layout.layout.folder();
                let folder = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
                format!("{LAYOUT_PREFIX}{}:{repository}", folder.display())
            }
        }
    }

    /// The tags of the repository: those of pages, and those of images.
    pub async fn tags(&self) -> Result<(BTreeSet<String>, BTreeSet<String>), SharedError> {
        let tags = match self {
            Self::Registry { client, repository } => client.tags(repository).await?,
            Self::Layout { layout, repository } => {
                let index = layout.layout.index()?;
                let names = index.images().filter_map(|it| it.annotations.get(NAME));
                let tags = names.filter_map(|name| {
                    let (own, tag) = name.rsplit_once(':')?;
                    (own == *repository).then(|| tag.to_owned())
                });
                tags.collect()
            }
        };
        Ok(tags.into_iter().partition(|tag| page::is_page(tag)))
    }

    /// Reads a page. None if it was removed.
    pub async fn fetch(&self, tag: &str) -> Result<Option<StoredPage>, SharedError> {
        let (digest, bytes) = match self {
            Self::Registry { client, repository } => {
                let Some(found) = client.manifest(repository, tag).await? else {
                    return Ok(None);
                };
                (found.digest, found.bytes)
            }
            Self::Layout { layout, repository } => {
                let Some(found) = layout.find(&format!("{repository}:{tag}"))? else {
                    return Ok(None);
                };
                let Some(bytes) = unless_missing(layout.layout.blobs().read(&found))? else {
                    return Ok(None);
                };
                (found.digest, bytes)
            }
        };
        let manifest: Manifest = match serde_json::from_slice(&bytes) {
            Ok(manifest) => manifest,
            Err(error) => {
                let content = Err(error.to_string());
                return Ok(Some(StoredPage { digest, content }));
            }
        };
        let content = match self.blob(&manifest.config).await {
            Ok(Some(records)) => Ok((manifest, records)),
            Ok(None) => return Ok(None),
            Err(SharedError::Layout(error @ oci::Error::DigestMismatch { .. })) => {
                Err(error.to_string())
            }
            Err(error) => return Err(error),
        };
        Ok(Some(StoredPage { digest, content }))
    }

    /// Reads a small blob. None if it does not exist.
    pub async fn blob(&self, blob: &Descriptor) -> Result<Option<Vec<u8>>, SharedError> {
        match self {
            Self::Registry { client, repository } => match client.blob(repository, blob).await {
                Ok(bytes) => Ok(Some(bytes)),
                Err(oci_distribution::Error::NotFound { .. }) => Ok(None),
                Err(error) => Err(error.into()),
            },
            Self::Layout { layout, .. } => unless_missing(layout.layout.blobs().read(blob)),
        }
    }

    /// Writes a blob.
    pub async fn put_blob(
        &self,
        media_type: &str,
        bytes: &[u8],
    ) -> Result<Descriptor, SharedError> {
        let blob = Descriptor::of(media_type, bytes);
        match self {
            Self::Registry { client, repository } => {
                let source = BlobSource::Bytes(bytes);
                client.put_blob(repository, &blob, source, None).await?;
            }
            Self::Layout { layout, .. } => {
                layout.layout.blobs().write(media_type, bytes)?;
            }
        }
        Ok(blob)
    }

    /// Writes a page with a new tag. The logs are there already.
    pub async fn put_page(
        &self,
        records: &[&StoredRecord],
        logs: &[LogReference],
    ) -> Result<(String, Digest), SharedError> {
        let bytes = page::pack(records.iter().copied())?;
        let blob = self.put_blob(page::RECORDS, &bytes).await?;
        let manifest = page::manifest(blob, logs);
        let manifest = serde_json::to_vec(&manifest).map_err(std::io::Error::other)?;
        let tag = page::new_tag(Timestamp::now());
        let digest = match self {
            Self::Registry { client, repository } => {
                let put = client.put_manifest(repository, &tag, MANIFEST, &manifest);
                put.await?.digest
            }
            Self::Layout { layout, repository } => {
                let mut image = layout.layout.blobs().write(MANIFEST, &manifest)?;
                image.artifact_type = Some(page::RECORDS.to_owned());
                let name = format!("{repository}:{tag}");
                let digest = image.digest;
                let entry = layout.layout.listing(Some(&name), image)?;
                layout.waiting().new.push(entry);
                digest
            }
        };
        Ok((tag, digest))
    }

    /// Removes a page. False if the place does not support that.
    pub async fn remove_page(&self, tag: &str, digest: &Digest) -> Result<bool, SharedError> {
        match self {
            Self::Registry { client, repository } => {
                Ok(client.delete_manifest(repository, digest).await?)
            }
            Self::Layout { layout, repository } => {
                let name = format!("{repository}:{tag}");
                layout.waiting().removed.insert(name);
                Ok(true)
            }
        }
    }
}
