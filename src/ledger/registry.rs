//! The records of a store in a registry: pages in the repository of the store's frontend.
//!
//! Every writer writes pages with names of its own and overwrites none, because registries ignore
//! conditional writes. What a machine has read once it keeps, so that a listing later asks for new
//! pages only.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use futures_util::{StreamExt, TryStreamExt, stream};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::folder::{FolderError, LEDGER, RecordFolder};
use super::id::RecordId;
use super::logs::LogFolder;
use super::page::{self, InvalidPage};
use super::record::LogReference;
use super::set::{RecordSet, StoredRecord};
use crate::disk;
use oci::{Descriptor, Digest, MANIFEST, Manifest};
use oci_distribution::{BlobSource, Client};

/// Requests that are under way at the same time.
const AT_ONCE: usize = 16;

/// Pages of a repository above which small ones are gathered.
const MOST_PAGES: usize = 100;

/// The most records of one page.
const LARGEST_PAGE: usize = 1000;

/// Records of a page that is not gathered any more.
const FULL_PAGE: usize = 100;

/// Why records in a registry cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// The registry.
    #[error(transparent)]
    Client(#[from] oci_distribution::Error),
    /// This machine.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// A page cannot be packed.
    #[error("records cannot be compressed: {0}")]
    Pack(#[from] std::io::Error),
}

/// The records of one store in a registry.
pub struct RegistryRecords<'a> {
    client: &'a Client,
    repository: String,
    records: RecordFolder,
    logs: LogFolder,
    index: PathBuf,
}

/// What an exchange has changed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Exchange {
    /// Records that this machine did not have.
    pub received: usize,
    /// Records that the registry did not have.
    pub sent: usize,
    /// Pages that were gathered into larger ones.
    pub gathered: usize,
    /// Tags of pages that are not valid, with the reason.
    pub invalid: Vec<(String, String)>,
}

/// The pages that this machine has read, by tag.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct KnownPages {
    #[serde(default)]
    pages: BTreeMap<String, KnownPage>,
}

/// A page that this machine has read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct KnownPage {
    /// The digest of its manifest.
    digest: String,
    ids: BTreeSet<RecordId>,
    #[serde(default)]
    logs: Vec<LogReference>,
}

/// A page that was fetched.
struct FetchedPage {
    tag: String,
    content: Result<(KnownPage, Vec<StoredRecord>), String>,
}

impl<'a> RegistryRecords<'a> {
    /// The records in a repository, as the project knows them. Nothing is requested yet.
    pub fn new(client: &'a Client, repository: String, project: &Path) -> Self {
        let name = format!("{}/{repository}", client.host());
        let name = Digest::of(name.as_bytes()).hex();
        Self {
            client,
            repository,
            records: RecordFolder::of_project(project),
            logs: LogFolder::of_project(project),
            index: project.join(LEDGER).join(format!("pages/{name}.json")),
        }
    }

    /// Reads the records that this machine does not have.
    pub async fn pull(&self) -> Result<Exchange, RegistryError> {
        let mut exchange = Exchange::default();
        let mut known = self.known();
        let updated = self.update(&mut known, &mut exchange).await;
        self.keep(&known)?;
        updated.map(|()| exchange)
    }

    /// Makes both sides equal for the given records of this machine: reads what is new, and writes
    /// what the registry does not have, as one page.
    pub async fn exchange(&self, own: &RecordSet) -> Result<Exchange, RegistryError> {
        let mut exchange = Exchange::default();
        let mut known = self.known();
        let updated = self.update(&mut known, &mut exchange).await;
        self.keep(&known)?;
        updated?;
        let there: BTreeSet<&RecordId> = known.pages.values().flat_map(|page| &page.ids).collect();
        let missing = own.iter();
        let missing = missing.filter(|stored| !there.contains(stored.record.id()));
        let missing: Vec<&StoredRecord> = missing.collect();
        exchange.sent = missing.len();
        for records in missing.chunks(LARGEST_PAGE) {
            let (tag, page) = self.put_page(records).await?;
            known.pages.insert(tag, page);
            self.keep(&known)?;
        }
        if known.pages.len() > MOST_PAGES {
            // The records are there. The next exchange tries to gather them again.
            exchange.gathered = self.gather(&mut known).await.unwrap_or_default();
            self.keep(&known)?;
        }
        Ok(exchange)
    }

    /// Reads a log into the folder of logs. False if the registry does not have it.
    pub async fn fetch_log(&self, log: &LogReference) -> Result<bool, RegistryError> {
        let Ok(digest) = log.digest.parse::<Digest>() else {
            return Ok(false);
        };
        let blob = Descriptor::new(page::LOG, digest, log.size);
        match self.client.blob(&self.repository, &blob).await {
            Ok(compressed) => {
                self.logs.insert(log, &compressed)?;
                Ok(true)
            }
            Err(oci_distribution::Error::NotFound { .. }) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Fetches the pages that are not known, and forgets those that were removed.
    async fn update(
        &self,
        known: &mut KnownPages,
        exchange: &mut Exchange,
    ) -> Result<(), RegistryError> {
        let tags = self.client.tags(&self.repository).await?;
        let tags: BTreeSet<String> = tags.into_iter().filter(|tag| page::is_page(tag)).collect();
        known.pages.retain(|tag, _| tags.contains(tag));
        let new = tags
            .into_iter()
            .filter(|tag| !known.pages.contains_key(tag));
        let new: Vec<String> = new.collect();
        let mut fetched = stream::iter(new)
            .map(|tag| self.fetch(tag))
            .buffer_unordered(AT_ONCE);
        let (mut here, _) = self.records.read()?;
        while let Some(page) = fetched.try_next().await? {
            // A page that is not there any more was gathered into another one, which is new too, or
            // is seen the next time.
            let Some(FetchedPage { tag, content }) = page else {
                continue;
            };
            match content {
                Ok((page, records)) => {
                    for record in records {
                        if !here.contains(record.record.id()) {
                            self.records.append(&record)?;
                            here.insert(record);
                            exchange.received += 1;
                        }
                    }
                    known.pages.insert(tag, page);
                }
                Err(reason) => exchange.invalid.push((tag, reason)),
            }
        }
        Ok(())
    }

    async fn fetch(&self, tag: String) -> Result<Option<FetchedPage>, RegistryError> {
        let Some(found) = self.client.manifest(&self.repository, &tag).await? else {
            return Ok(None);
        };
        let content = match serde_json::from_slice::<Manifest>(&found.bytes) {
            Ok(manifest) => {
                let blob = self.client.blob(&self.repository, &manifest.config).await;
                let bytes = match blob {
                    Ok(bytes) => bytes,
                    Err(oci_distribution::Error::NotFound { .. }) => return Ok(None),
                    Err(error) => return Err(error.into()),
                };
                page_of(&bytes, &manifest, found.digest).map_err(|error| error.to_string())
            }
            Err(error) => Err(error.to_string()),
        };
        Ok(Some(FetchedPage { tag, content }))
    }

    /// Writes a page, with the logs of its records.
    async fn put_page(
        &self,
        records: &[&StoredRecord],
    ) -> Result<(String, KnownPage), RegistryError> {
        let mut logs = Vec::new();
        for log in records.iter().filter_map(|it| page::log_of(&it.record)) {
            if self.put_log(log).await? {
                logs.push(log.clone());
            }
        }
        self.put(records, logs).await
    }

    /// Uploads a log. False if this machine does not have it.
    async fn put_log(&self, log: &LogReference) -> Result<bool, RegistryError> {
        // A damaged log is as good as none. The record is worth more than its log.
        let Ok(Some(compressed)) = self.logs.compressed(log) else {
            return Ok(false);
        };
        let blob = Descriptor::of(page::LOG, &compressed);
        let source = BlobSource::Bytes(&compressed);
        let put = self.client.put_blob(&self.repository, &blob, source, None);
        put.await?;
        Ok(true)
    }

    async fn put(
        &self,
        records: &[&StoredRecord],
        logs: Vec<LogReference>,
    ) -> Result<(String, KnownPage), RegistryError> {
        let bytes = page::pack(records.iter().copied())?;
        let blob = Descriptor::of(page::RECORDS, &bytes);
        let source = BlobSource::Bytes(&bytes);
        let put = self.client.put_blob(&self.repository, &blob, source, None);
        put.await?;
        let manifest = page::manifest(blob, &logs);
        let manifest = serde_json::to_vec(&manifest).map_err(std::io::Error::other)?;
        let tag = page::new_tag(Timestamp::now());
        let put = self
            .client
            .put_manifest(&self.repository, &tag, MANIFEST, &manifest)
            .await?;
        let ids = records.iter().map(|stored| stored.record.id().clone());
        let page = KnownPage {
            digest: put.digest.to_string(),
            ids: ids.collect(),
            logs,
        };
        Ok((tag, page))
    }

    /// Gathers small pages into larger ones. The large page is written and read back before the small
    /// ones are removed. A registry that removes nothing keeps both, which does no harm.
    async fn gather(&self, known: &mut KnownPages) -> Result<usize, RegistryError> {
        let small = known
            .pages
            .iter()
            .filter(|(_, it)| it.ids.len() < FULL_PAGE);
        let small: BTreeMap<String, KnownPage> =
            small.map(|(k, v)| (k.clone(), v.clone())).collect();
        let (here, _) = self.records.read()?;
        let (mut waiting, mut gathered) = (BTreeMap::new(), 0);
        let mut ids = BTreeSet::new();
        for (tag, page) in small {
            ids.extend(page.ids.iter().cloned());
            waiting.insert(tag, page);
            if ids.len() >= FULL_PAGE {
                gathered += self
                    .replace(&here, std::mem::take(&mut waiting), known)
                    .await?;
                ids.clear();
            }
        }
        Ok(gathered)
    }

    /// Replaces small pages by one with all of their records.
    async fn replace(
        &self,
        here: &RecordSet,
        small: BTreeMap<String, KnownPage>,
        known: &mut KnownPages,
    ) -> Result<usize, RegistryError> {
        let ids: BTreeSet<&RecordId> = small.values().flat_map(|page| &page.ids).collect();
        let records: Vec<_> = ids.iter().filter_map(|id| here.stored(id)).collect();
        // A record that this machine has lost is kept where it is.
        if records.len() < ids.len() {
            return Ok(0);
        }
        let mut logs: Vec<LogReference> = small.values().flat_map(|it| it.logs.clone()).collect();
        logs.sort_by(|a, b| a.digest.cmp(&b.digest));
        logs.dedup();
        let (tag, page) = self.put(&records, logs).await?;
        let read_back = self.fetch(tag.clone()).await?;
        let is_whole = read_back.is_some_and(|read| {
            let ids = read.content.map(|(page, _)| page.ids);
            ids.is_ok_and(|ids| ids == page.ids)
        });
        if !is_whole {
            return Ok(0);
        }
        known.pages.insert(tag, page);
        let mut removed = 0;
        for (tag, page) in small {
            let Ok(digest) = page.digest.parse::<Digest>() else {
                continue;
            };
            let deleting = self.client.delete_manifest(&self.repository, &digest);
            if !deleting.await? {
                break;
            }
            known.pages.remove(&tag);
            removed += 1;
        }
        Ok(removed)
    }

    /// The pages that this machine has read. Without the file, all pages are read again.
    fn known(&self) -> KnownPages {
        let text = std::fs::read(&self.index).unwrap_or_default();
        serde_json::from_slice(&text).unwrap_or_default()
    }

    fn keep(&self, known: &KnownPages) -> Result<(), FolderError> {
        let text = serde_json::to_vec(known).unwrap_or_default();
        let write = || {
            let folder = self.index.parent().unwrap_or(Path::new("."));
            std::fs::create_dir_all(folder)?;
            disk::write_atomically(&self.index, &text)
        };
        write().map_err(FolderError::at("write", &self.index))
    }
}

fn page_of(
    bytes: &[u8],
    manifest: &Manifest,
    digest: Digest,
) -> Result<(KnownPage, Vec<StoredRecord>), InvalidPage> {
    let records = page::unpack(bytes)?;
    let logs = records.iter().filter_map(|it| page::log_of(&it.record));
    // The machine that wrote the page may have lost a log.
    let layers = manifest.layers.iter();
    let held: BTreeSet<String> = layers.map(|layer| layer.digest.to_string()).collect();
    let logs = logs.filter(|log| held.contains(&log.digest));
    let page = KnownPage {
        digest: digest.to_string(),
        ids: records.iter().map(|it| it.record.id().clone()).collect(),
        logs: logs.cloned().collect(),
    };
    Ok((page, records))
}
