//! A page: records as one artifact of a registry or an image layout.
//!
//! A run writes one page with its records. When there are many pages, small ones are gathered into
//! larger ones, so that the number of tags stays small.

use jiff::Timestamp;

use super::id::{RecordId, RecordKind};
use super::record::{LogReference, Record};
use super::set::{InvalidRecord, StoredRecord};
use oci::{Descriptor, Digest, Manifest};

/// Media type of the records: JSON, one record on each line, compressed.
pub const RECORDS: &str = "application/vnd.alokai.records.v1+zstd";

/// Media type of a compressed log.
pub const LOG: &str = "application/vnd.alokai.log.v1+zstd";

/// What tags of pages start with. Images have no such tags, because tags of images are SHAs.
const TAG_PREFIX: &str = "alokai.";

/// The most bytes of a page after decompression.
const MOST_BYTES: usize = 16 << 20;

/// Why a page is not valid.
#[derive(Debug, thiserror::Error)]
pub enum InvalidPage {
    /// It cannot be decompressed.
    #[error("it cannot be decompressed: {source}")]
    Compression {
        /// The error of zstd.
        #[from]
        source: std::io::Error,
    },
    /// A line is not a record.
    #[error(transparent)]
    Record(#[from] InvalidRecord),
}

/// A new name for a page, unique like an id.
pub fn new_tag(at: Timestamp) -> String {
    format!("{TAG_PREFIX}{}", RecordId::new(RecordKind::Event, at))
}

/// Whether a tag is that of a page.
pub fn is_page(tag: &str) -> bool {
    let id = tag.strip_prefix(TAG_PREFIX);
    id.is_some_and(|id| id.parse::<RecordId>().is_ok())
}

/// The records as bytes.
pub fn pack<'a>(records: impl Iterator<Item = &'a StoredRecord>) -> std::io::Result<Vec<u8>> {
    let mut text = Vec::new();
    for record in records {
        text.extend_from_slice(record.bytes.trim_ascii_end());
        text.push(b'\n');
    }
    zstd::bulk::compress(&text, 0)
}

/// The records of a page.
pub fn unpack(bytes: &[u8]) -> Result<Vec<StoredRecord>, InvalidPage> {
    let text = zstd::bulk::decompress(bytes, MOST_BYTES)?;
    let lines = text.split_inclusive(|byte| *byte == b'\n');
    lines
        .map(|line| StoredRecord::read(line).map_err(InvalidPage::from))
        .collect()
}

/// The manifest of a page. The logs of its records are layers, so that a registry keeps them.
pub fn manifest(records: Descriptor, logs: &[LogReference]) -> Manifest {
    let layers = logs.iter().filter_map(|log| {
        let digest: Digest = log.digest.parse().ok()?;
        Some(Descriptor::new(LOG, digest, log.size))
    });
    let mut manifest = Manifest::new(records, layers.collect());
    manifest.artifact_type = Some(RECORDS.to_owned());
    manifest
}

/// The log of a record.
pub fn log_of(record: &Record) -> Option<&LogReference> {
    match record {
        Record::Build(build) => build.log.as_ref(),
        Record::Event(event) => event.log.as_ref(),
        Record::Release(_) => None,
    }
}
