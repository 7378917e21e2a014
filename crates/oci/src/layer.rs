//! Packing layers.
//!
//! The same entries give the same bytes: on any machine, with any number of cores, at any time.
//! So a layer that a registry has is not sent again, and one that was packed before is not
//! packed again: a key over everything that is packed (files by the digest of their content)
//! finds the layer that came of it.

use std::collections::HashSet;
use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::archive::{HashedEntry, LayerTar};
use super::blobs::{temporary, touch};
use super::gzip::{BLOCK, compress};
use super::{Blobs, Descriptor, Digest, Error, Hasher, LAYER, TreeContent, TreeEntry};

/// Where records of packed layers lie, beside the blobs.
pub(super) const RECORDS: &str = "layers";

/// Part of every key: raised when the same entries are packed to other bytes than before.
const FORMAT: &str = "alokai layer 1";

/// A layer that is among the blobs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackedLayer {
    /// Of the compressed bytes; the media type is [`LAYER`].
    pub descriptor: Descriptor,
    /// Of the tar itself, as an image's config lists it.
    pub diff_id: Digest,
    /// Packed now, and not found.
    pub is_new: bool,
}

/// What is known of a layer that was packed.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct LayerRecord {
    pub descriptor: Descriptor,
    diff_id: Digest,
}

/// Packs entries as one layer, or finds that they were packed before. Every entry gets `time`
/// (seconds since 1970) as the time of its last change.
///
/// Folders that no entry names are not invented. Nothing is kept of a layer that could not be
/// packed whole.
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
            written.map_err(Error::at("write a layer in", blobs.folder()))
        },
        Error::at("compress a layer for", blobs.folder()),
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

/// Entries by path, so that a folder comes before what is in it. What no runtime could unpack,
/// or each another way, is refused.
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
            return wrong(entry, "it is there twice");
        }
        for part in entry.path.split('/') {
            if ["", ".", ".."].contains(&part) {
                return wrong(entry, "it is no path from the image's root");
            }
            if part.starts_with(".wh.") {
                return wrong(
                    entry,
                    "a name such as `.wh.<name>` removes files of other layers",
                );
            }
        }
        if entry.path.contains('\0') {
            return wrong(entry, "it has a zero byte");
        }
        let mut above = entry.path.match_indices('/');
        if above.any(|(end, _)| no_folders.contains(&entry.path[..end])) {
            return wrong(entry, "what is above it is a file or a link");
        }
        match &entry.content {
            TreeContent::Folder => continue,
            TreeContent::Link { target } if target.is_empty() || target.contains('\0') => {
                return wrong(entry, "it is a link to nowhere");
            }
            TreeContent::File { .. } | TreeContent::Link { .. } => {}
        }
        no_folders.insert(entry.path.as_str());
    }
    Ok(sorted)
}

/// The digest of a file that has that many bytes.
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

/// What a layer is found by. Texts have their length before them, so that none runs into the
/// next.
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

/// A record; nothing where it is missing or broken.
pub(super) fn read(path: &Path) -> Option<LayerRecord> {
    serde_json::from_slice(&std::fs::read(path).ok()?).ok()
}

fn write(path: &Path, record: &LayerRecord) -> Result<(), Error> {
    let failed = || Error::at("write", path);
    let folder = path.parent().unwrap_or(path);
    let mut file = temporary(folder)?;
    let text = serde_json::to_vec(record).map_err(|error| failed()(error.into()))?;
    file.write_all(&text).map_err(failed())?;
    file.persist(path).map_err(|error| failed()(error.error))?;
    Ok(())
}
