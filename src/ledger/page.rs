//! A page: records as one artifact of a registry or an image layout.
//!
//! A run writes one page with its records. When there are many pages, small ones are gathered into
//! larger ones, so that the number of tags stays small.

use jiff::Timestamp;

use super::id::{RecordId, RecordKind};
use super::record::{LogReference, Record};
use super::set::StoredRecord;
use oci::{Descriptor, Digest, Manifest};

/// Media type of the records: JSON, one record on each line, compressed.
pub const RECORDS: &str = "application/vnd.alokai.records.v1+zstd";

/// Media type of a compressed log.
pub const LOG: &str = "application/vnd.alokai.log.v1+zstd";

/// What tags of pages start with. Images have no such tags, because tags of images are SHAs.
pub const TAG_PREFIX: &str = "alokai.";

/// The most bytes of a page after decompression.
const MOST_BYTES: usize = 16 << 20;

/// A new name for a page, unique like an id.
pub fn new_tag(at: Timestamp) -> String {
    format!("{TAG_PREFIX}{}", RecordId::new(RecordKind::Event, at))
}

/// Whether a tag is that of a page.
pub fn is_page(tag: &str) -> bool {
    let id = tag.strip_prefix(TAG_PREFIX);
    id.is_some_and(|id| id.parse::<RecordId>().is_ok())
}

/// The records of a page.
#[derive(Debug, Default)]
pub struct PageContent {
    /// The records that this version knows.
    pub records: Vec<StoredRecord>,
    /// Why other lines are not records. A later version may know them.
    pub invalid: Vec<String>,
}

/// The records as lines.
pub fn lines<'a>(records: impl Iterator<Item = &'a StoredRecord>) -> Vec<u8> {
    let mut text = Vec::new();
    for record in records {
        text.extend_from_slice(record.bytes.trim_ascii_end());
        text.push(b'\n');
    }
    text
}

/// The records as the bytes of a page.
pub fn pack<'a>(records: impl Iterator<Item = &'a StoredRecord>) -> std::io::Result<Vec<u8>> {
    zstd::bulk::compress(&lines(records), 0)
}

/// The lines of a page.
pub fn unpack(bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    zstd::bulk::decompress(bytes, MOST_BYTES)
}

/// The records in these lines.
pub fn records_of(lines: &[u8]) -> PageContent {
    let mut content = PageContent::default();
    for line in lines.split_inclusive(|byte| *byte == b'\n') {
        match StoredRecord::read(line) {
            Ok(record) => content.records.push(record),
            Err(error) => content.invalid.push(error.to_string()),
        }
    }
    content
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
