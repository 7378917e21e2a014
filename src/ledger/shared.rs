//! The records of a store that several machines share: pages beside the images, in a registry or in an
//! image layout.
//!
//! Every writer writes pages with names of its own and overwrites none, because registries ignore
//! conditional writes. What a machine has read once it keeps as a pack, so that a listing later asks
//! for new pages only.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use futures_util::{StreamExt, TryStreamExt, stream};
use serde::{Deserialize, Serialize};

use super::folder::{FolderError, RecordFolder};
use super::id::RecordId;
use super::logs::LogFolder;
use super::page;
use super::place::RecordPlace;
use super::record::LogReference;
use super::set::{RecordSet, StoredRecord};
use crate::disk;
use oci::{Descriptor, Digest, Manifest};

/// Requests that are under way at the same time.
const AT_ONCE: usize = 16;

/// Pages of a repository above which small ones are gathered.
const MOST_PAGES: usize = 100;

/// The most records of one page.
const LARGEST_PAGE: usize = 1000;

/// Records of a page that is not gathered any more.
const FULL_PAGE: usize = 100;

/// Why shared records cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum SharedError {
    /// The registry.
    #[error(transparent)]
    Client(#[from] oci_distribution::Error),
    /// The image layout.
    #[error(transparent)]
    Layout(#[from] oci::Error),
    /// This machine.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// A page cannot be packed.
    #[error("records cannot be compressed: {0}")]
    Pack(#[from] std::io::Error),
}

/// The shared records of one store, and what this machine knows of them.
pub struct SharedRecords<'a> {
    place: RecordPlace<'a>,
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
    /// Tags of images.
    pub images: BTreeSet<String>,
}

/// The pages that this machine has read, by tag.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct KnownPages {
    #[serde(default)]
    pages: BTreeMap<String, KnownPage>,
}

/// A page that this machine has read or written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct KnownPage {
    /// The digest of its manifest.
    digest: String,
    ids: BTreeSet<RecordId>,
    #[serde(default)]
    logs: Vec<LogReference>,
    /// The pack with its records. None if this machine has written the page: the records are here
    /// already.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pack: Option<String>,
    /// Whether it has records that this version does not know. Such a page is never replaced.
    #[serde(default)]
    is_foreign: bool,
}

/// A page that was fetched.
struct FetchedPage {
    page: KnownPage,
    lines: Vec<u8>,
    records: Vec<StoredRecord>,
    /// Why parts of it are not valid.
    invalid: Vec<String>,
}

impl KnownPages {
    /// Whether the records of a page are in other pages too.
    fn is_covered(&self, page: &KnownPage) -> bool {
        let others = self.pages.values().filter(|it| it.digest != page.digest);
        let others: BTreeSet<&RecordId> = others.flat_map(|it| &it.ids).collect();
        page.ids.iter().all(|id| others.contains(id))
    }
}

impl<'a> SharedRecords<'a> {
    /// The records of one store in a place, as the project knows them. Nothing is requested yet.
    pub fn new(place: RecordPlace<'a>, records: &RecordFolder) -> Self {
        let name = Digest::of(place.name().as_bytes()).hex();
        Self {
            place,
            logs: records.logs(),
            index: records.pages(&name),
            records: records.clone(),
        }
    }

    /// Reads the records that this machine does not have. `here` are the records of this machine; those
    /// that it lacks are looked for in the folder of records.
    pub async fn pull(&self, here: &RecordSet) -> Result<Exchange, SharedError> {
        let mut exchange = Exchange::default();
        let mut known = self.known(here)?;
        self.update(&mut known, &mut exchange).await?;
        Ok(exchange)
    }

    /// Makes both sides equal for the given records of this machine: reads what is new, and writes
    /// what the place does not have, as one page.
    pub async fn exchange(&self, own: &RecordSet) -> Result<Exchange, SharedError> {
        let mut exchange = Exchange::default();
        let mut known = self.known(own)?;
        self.update(&mut known, &mut exchange).await?;
        let there: BTreeSet<&RecordId> = known.pages.values().flat_map(|page| &page.ids).collect();
        let missing = own.iter();
        let missing = missing.filter(|stored| !there.contains(stored.record.id()));
        let missing: Vec<&StoredRecord> = missing.collect();
        exchange.sent = missing.len();
        for records in missing.chunks(LARGEST_PAGE) {
            let logs = self.put_logs(records).await?;
            let (tag, page) = self.put(records, logs).await?;
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

    /// Reads a log into the folder of logs. False if the place does not have it.
    pub async fn fetch_log(&self, log: &LogReference) -> Result<bool, SharedError> {
        let Ok(digest) = log.digest.parse::<Digest>() else {
            return Ok(false);
        };
        let blob = Descriptor::new(page::LOG, digest, log.size);
        let Some(compressed) = self.place.blob(&blob).await? else {
            return Ok(false);
        };
        self.logs.insert(log, &compressed)?;
        Ok(true)
    }

    /// Fetches the pages that are not known, and forgets those that were removed.
    async fn update(
        &self,
        known: &mut KnownPages,
        exchange: &mut Exchange,
    ) -> Result<(), SharedError> {
        let (pages, images) = self.place.tags().await?;
        exchange.images = images;
        let before = known.clone();
        known.pages.retain(|tag, _| pages.contains(tag));
        let new = pages.into_iter();
        let new = new.filter(|tag| !known.pages.contains_key(tag));
        let fetched = self.fetch_all(new.collect(), known, exchange).await;
        // After an error, the pages that were read stay known.
        if *known != before {
            self.keep(known)?;
        }
        fetched?;
        // A page that was gathered into another one needs no pack of its own any more.
        for (tag, page) in before.pages {
            if let Some(pack) = &page.pack
                && !known.pages.contains_key(&tag)
                && !known
                    .pages
                    .values()
                    .any(|it| it.pack.as_ref() == Some(pack))
                && known.is_covered(&page)
            {
                self.records.packs().remove(pack)?;
            }
        }
        Ok(())
    }

    async fn fetch_all(
        &self,
        new: Vec<String>,
        known: &mut KnownPages,
        exchange: &mut Exchange,
    ) -> Result<(), SharedError> {
        if new.is_empty() {
            return Ok(());
        }
        let (here, _) = self.records.read()?;
        let here = here.iter().map(|stored| stored.record.id().clone());
        let mut here: BTreeSet<RecordId> = here.collect();
        let mut fetched = stream::iter(new)
            .map(async |tag| Ok::<_, SharedError>((self.fetch(&tag).await?, tag)))
            .buffer_unordered(AT_ONCE);
        while let Some((fetched, tag)) = fetched.try_next().await? {
            match fetched {
                // A page that is not there any more was gathered into another one, which is new too,
                // or is seen the next time.
                None => {}
                Some(Ok(fetched)) => {
                    let mut page = fetched.page;
                    for record in &fetched.records {
                        if !here.contains(record.record.id()) {
                            exchange.received += 1;
                            self.records.repair(record)?;
                        }
                    }
                    here.extend(page.ids.iter().cloned());
                    page.pack = Some(self.records.packs().write_lines(&fetched.lines)?);
                    let reasons = fetched.invalid.into_iter();
                    exchange.invalid.extend(reasons.map(|it| (tag.clone(), it)));
                    known.pages.insert(tag, page);
                }
                Some(Err(reason)) => exchange.invalid.push((tag, reason)),
            }
        }
        Ok(())
    }

    /// Reads a page. None if it was removed; an error in the result if it is not valid.
    async fn fetch(&self, tag: &str) -> Result<Option<Result<FetchedPage, String>>, SharedError> {
        let Some(stored) = self.place.fetch(tag).await? else {
            return Ok(None);
        };
        Ok(Some(match stored.content {
            Ok((manifest, bytes)) => page_of(&bytes, &manifest, stored.digest),
            Err(reason) => Err(reason),
        }))
    }

    /// Writes the logs of these records, and returns those that this machine has.
    async fn put_logs(&self, records: &[&StoredRecord]) -> Result<Vec<LogReference>, SharedError> {
        let mut logs = Vec::new();
        for log in records.iter().filter_map(|it| page::log_of(&it.record)) {
            // A damaged log counts as missing. The record is sent without it.
            if let Ok(Some(compressed)) = self.logs.compressed(log) {
                self.place.put_blob(page::LOG, &compressed).await?;
                logs.push(log.clone());
            }
        }
        Ok(logs)
    }

    async fn put(
        &self,
        records: &[&StoredRecord],
        logs: Vec<LogReference>,
    ) -> Result<(String, KnownPage), SharedError> {
        let (tag, digest) = self.place.put_page(records, &logs).await?;
        let ids = records.iter().map(|stored| stored.record.id().clone());
        let page = KnownPage {
            digest: digest.to_string(),
            ids: ids.collect(),
            logs,
            pack: None,
            is_foreign: false,
        };
        Ok((tag, page))
    }

    /// Gathers small pages into larger ones. The large page is written and read back before the small
    /// ones are removed. If the registry does not remove them, both stay, and readers merge them.
    async fn gather(&self, known: &mut KnownPages) -> Result<usize, SharedError> {
        let is_small = |page: &KnownPage| page.ids.len() < FULL_PAGE && !page.is_foreign;
        let full = known.pages.values().filter(|page| !is_small(page));
        let full: BTreeSet<RecordId> = full.flat_map(|page| page.ids.clone()).collect();
        let small = known.pages.iter().filter(|(_, page)| is_small(page));
        let small: Vec<_> = small
            .map(|(tag, page)| (tag.clone(), page.clone()))
            .collect();
        if small.iter().map(|(_, page)| page.ids.len()).sum::<usize>() < FULL_PAGE {
            return Ok(0);
        }
        let (here, _) = self.records.read()?;
        let (mut waiting, mut ids) = (BTreeMap::new(), BTreeSet::new());
        let mut gathered = 0;
        for (tag, page) in small {
            // It was gathered before, and could not be removed.
            if page.ids.iter().all(|id| full.contains(id)) {
                continue;
            }
            ids.extend(page.ids.iter().cloned());
            waiting.insert(tag, page);
            if ids.len() >= FULL_PAGE {
                let small = std::mem::take(&mut waiting);
                gathered += self.replace(&here, small, known).await?;
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
    ) -> Result<usize, SharedError> {
        let ids: BTreeSet<&RecordId> = small.values().flat_map(|page| &page.ids).collect();
        let records: Vec<_> = ids.iter().filter_map(|id| here.stored(id)).collect();
        // A record that this machine has lost is kept where it is.
        if records.len() < ids.len() {
            return Ok(0);
        }
        let mut logs: Vec<LogReference> = small.values().flat_map(|it| it.logs.clone()).collect();
        logs.sort_by(|a, b| a.digest.cmp(&b.digest));
        logs.dedup();
        let (tag, mut page) = self.put(&records, logs).await?;
        let read_back = self.fetch(&tag).await?;
        let is_whole = read_back.is_some_and(|read| read.is_ok_and(|it| it.page.ids == page.ids));
        if !is_whole {
            return Ok(0);
        }
        page.pack = Some(self.records.packs().write(records.iter().copied())?);
        known.pages.insert(tag, page);
        self.keep(known)?;
        let mut removed = 0;
        for (tag, page) in small {
            let Ok(digest) = page.digest.parse::<Digest>() else {
                continue;
            };
            if !self.place.remove_page(&tag, &digest).await? {
                break;
            }
            known.pages.remove(&tag);
            if let Some(pack) = &page.pack {
                self.records.packs().remove(pack)?;
            }
            removed += 1;
        }
        Ok(removed)
    }

    /// The pages whose records are all on this machine. A page of which a record is missing or damaged here
    /// is read again, and without the file all pages are.
    fn known(&self, here: &RecordSet) -> Result<KnownPages, FolderError> {
        let text = std::fs::read(&self.index).unwrap_or_default();
        let mut known: KnownPages = serde_json::from_slice(&text).unwrap_or_default();
        let packs = self.records.packs();
        known
            .pages
            .retain(|_, page| page.pack.as_ref().is_none_or(|pack| packs.has(pack)));
        let is_in = |page: &KnownPage, set: &RecordSet| page.ids.iter().all(|id| set.contains(id));
        // The caller may have read the records of one store only.
        if known.pages.values().any(|page| !is_in(page, here)) {
            let (all, _) = self.records.read()?;
            known.pages.retain(|_, page| is_in(page, &all));
        }
        Ok(known)
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

fn page_of(bytes: &[u8], manifest: &Manifest, digest: Digest) -> Result<FetchedPage, String> {
    if manifest.config.media_type != page::RECORDS {
        let found = manifest.config.media_type.escape_debug();
        return Err(format!(
            "it has the media type `{found}`, which is not that of records"
        ));
    }
    let lines = page::unpack(bytes);
    let lines = lines.map_err(|error| format!("it cannot be decompressed: {error}"))?;
    let content = page::records_of(&lines);
    let logs = content.records.iter();
    let logs = logs.filter_map(|it| page::log_of(&it.record));
    // The machine that wrote the page may have lost a log.
    let layers = manifest.layers.iter();
    let held: BTreeSet<String> = layers.map(|layer| layer.digest.to_string()).collect();
    let logs = logs.filter(|log| held.contains(&log.digest));
    let ids = content.records.iter().map(|it| it.record.id().clone());
    Ok(FetchedPage {
        page: KnownPage {
            digest: digest.to_string(),
            ids: ids.collect(),
            logs: logs.cloned().collect(),
            pack: None,
            is_foreign: !content.invalid.is_empty(),
        },
        lines,
        records: content.records,
        invalid: content.invalid,
    })
}
