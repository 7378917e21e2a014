//! Packs layers.
//!
//! The same entries give the same bytes on every machine, with any number of cores. A registry
//! that has a layer therefore does not receive it again, and a layer that was packed before is
//! found by a key over its entries (files by the digest of their content).

use std::collections::HashSet;
use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::archive::{HashedEntry, LayerTar};
use super::files::{persist, temporary, touch};
use super::gzip::{BLOCK, compress};
use super::{Blobs, Descriptor, Digest, Error, Hasher, LAYER, TreeContent, TreeEntry};

/// Folder of the records of packed layers, beside `blobs`.
pub(super) const RECORDS: &str = "layers";

/// Part of every key. The number changes when the same entries are packed to other bytes.
const FORMAT: &str = "oci layer 1";

/// A packed layer, stored as a blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackedLayer {
    /// Descriptor of the compressed layer, with the media type [`LAYER`].
    pub descriptor: Descriptor,
    /// Digest of the uncompressed tar, which an image's config lists.
    pub diff_id: Digest,
    /// Whether the layer was packed now. `false` if it was packed before.
    pub is_new: bool,
}

/// The record of a layer that was packed before.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct LayerRecord {
    pub descriptor: Descriptor,
    diff_id: Digest,
}

/// Packs entries as one layer, or finds the layer that was packed from the same entries. `time` is
/// the modification time of every entry, in seconds since 1970.
///
/// The layer has exactly these entries: missing parent folders are not added. After an error no
/// part of the layer is kept.
pub fn pack(entries: &[TreeEntry], time: i64, blobs: &Blobs) -> Result<PackedLayer, Error> {
    let sorted = sorted(entries)?;
    let members = sorted
        .into_par_iter()
        .map(|entry| {
            let digest = match &entry.content {
                TreeContent::File { from, bytes } => Some(digest(from, *bytes)?),
                _ => None,
            };
            Ok(HashedEntry { entry, digest })
        })
        .collect::<Result<Vec<_>, Error>>()?;
    let key = key(&members, time);
    let known = blobs.folder().join(RECORDS).join(key.hex());
    if let Some(record) = read(&known)
        && blobs.holds(&record.descriptor)
    {
        touch(&known);
        return Ok(PackedLayer {
            descriptor: record.descriptor,
            diff_id: record.diff_id,
            is_new: false,
        });
    }

    let mut archive = LayerTar::new(&members, time);
    let mut plain = Hasher::default();
    let mut packed = blobs.writer()?;
    compress(
        |block| {
            archive.read(block, BLOCK)?;
            plain.update(block);
            Ok(())
        },
        |bytes| {
            let written = packed.write_all(bytes);
            written.map_err(Error::at("write a layer to", blobs.folder()))
        },
        Error::at("compress a layer in", blobs.folder()),
    )?;
    let record = LayerRecord {
        descriptor: packed.end(LAYER)?,
        diff_id: plain.end(),
    };
    write(&known, &record)?;
    Ok(PackedLayer {
        descriptor: record.descriptor,
        diff_id: record.diff_id,
        is_new: true,
    })
}

/// Sorts entries by path, so that a folder precedes its content. Entries that runtimes cannot
/// unpack, or unpack differently, are an error.
fn sorted(entries: &[TreeEntry]) -> Result<Vec<&TreeEntry>, Error> {
    let mut sorted: Vec<&TreeEntry> = entries.iter().collect();
    sorted.sort_by(|a, b| a.path.as_bytes().cmp(b.path.as_bytes()));
    let wrong = |entry: &TreeEntry, reason| {
        let path = entry.path.clone();
        Err(Error::Entry { path, reason })
    };
    let mut no_folders = HashSet::new();
    let mut last = None;
    for &entry in &sorted {
        if last.replace(&entry.path) == Some(&entry.path) {
            return wrong(entry, "its path occurs twice");
        }
        for part in entry.path.split('/') {
            if ["", ".", ".."].contains(&part) {
                return wrong(entry, "its path is not a valid relative path");
            }
            if part.starts_with(".wh.") {
                return wrong(
                    entry,
                    "a name that begins with `.wh.` removes files of other layers",
                );
            }
        }
        if entry.path.contains('\0') {
            return wrong(entry, "its path has a zero byte");
        }
        let mut above = entry.path.match_indices('/');
        if above.any(|(end, _)| no_folders.contains(&entry.path[..end])) {
            return wrong(entry, "a parent of it is a file or a link");
        }
        match &entry.content {
            TreeContent::Folder => continue,
            TreeContent::Link { target } if target.is_empty() || target.contains('\0') => {
                return wrong(entry, "it is a link without a valid target");
            }
            TreeContent::File { .. } | TreeContent::Link { .. } => {}
        }
        no_folders.insert(entry.path.as_str());
    }
    Ok(sorted)
}

/// The digest of a file. Its size must be `bytes`.
fn digest(path: &Path, bytes: u64) -> Result<Digest, Error> {
    thread_local! {
        static BUFFER: std::cell::RefCell<Vec<u8>> = const { std::cell::RefCell::new(Vec::new()) };
    }
    let mut file = File::open(path).map_err(Error::at("open", path))?;
    let mut hasher = Hasher::default();
    let mut size = 0;
    BUFFER.with_borrow_mut(|buffer| {
        buffer.resize(128 << 10, 0);
        loop {
            let read = file.read(buffer).map_err(Error::at("read", path))?;
            if read == 0 {
                break;
            }
            hasher.update(&buffer[..read]);
            size += read as u64;
        }
        Ok::<_, Error>(())
    })?;
    if size == bytes {
        Ok(hasher.end())
    } else {
        let path = path.to_owned();
        Err(Error::Changed { path })
    }
}

/// The key of a layer. A length precedes each field, so that different fields cannot give the
/// same bytes.
fn key(members: &[HashedEntry], time: i64) -> Digest {
    let mut hasher = Hasher::default();
    let mut text = |text: &[u8]| {
        hasher.update(&(text.len() as u64).to_le_bytes());
        hasher.update(text);
    };
    text(FORMAT.as_bytes());
    text(&time.to_le_bytes());
    for HashedEntry { entry, digest } in members {
        text(entry.path.as_bytes());
        text(&entry.mode.to_le_bytes());
        text(&entry.owner.user.to_le_bytes());
        text(&entry.owner.group.to_le_bytes());
        match &entry.content {
            TreeContent::Folder => text(b"folder"),
            TreeContent::File { .. } => {
                text(b"file");
                text(
                    digest
                        .map(|digest| digest.hex())
                        .unwrap_or_default()
                        .as_bytes(),
                );
            }
            TreeContent::Link { target } => {
                text(b"link");
                text(target.as_bytes());
            }
        }
    }
    hasher.end()
}

/// Reads a record. `None` if it is missing or not valid.
pub(super) fn read(path: &Path) -> Option<LayerRecord> {
    serde_json::from_slice(&std::fs::read(path).ok()?).ok()
}

fn write(path: &Path, record: &LayerRecord) -> Result<(), Error> {
    let failed = || Error::at("write", path);
    let folder = path.parent().unwrap_or(path);
    let mut file = temporary(folder)?;
    let text = serde_json::to_vec(record).map_err(|error| failed()(error.into()))?;
    file.write_all(&text).map_err(failed())?;
    persist(file, path)
}
