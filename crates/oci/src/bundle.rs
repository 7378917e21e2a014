//! An image layout as a tar, as `skopeo` reads and writes it under the name `oci-archive`.
//!
//! Blobs are streamed in both directions. The digest of each blob is checked on the way.

use std::io::{BufRead, Read, Write};
use std::path::Path;

use serde_json::json;
use tar::EntryType;

use super::archive::file_header;
use super::layout::{LIST, MARK, VERSION};
use super::members::TarReader;
use super::{Blobs, Descriptor, Digest, Error, Hasher, Index, Layout};

/// Largest `index.json` in bytes.
const LARGEST_INDEX: u64 = 4 << 20;

/// Bytes that are copied at once.
const BUFFER: usize = 256 << 10;

/// Writes an image layout as a tar. The same images give the same bytes.
pub struct LayoutWriter<Output> {
    output: Output,
}

impl<Output: Write> LayoutWriter<Output> {
    /// Writes the beginning: the files `oci-layout` and `index.json`.
    pub fn new(output: Output, index: &Index) -> Result<Self, Error> {
        let mut writer = Self { output };
        let mark = json!({ "imageLayoutVersion": VERSION }).to_string();
        writer.file(MARK, mark.as_bytes())?;
        let index = serde_json::to_vec(index).map_err(|error| invalid(&error))?;
        writer.file(LIST, &index)?;
        Ok(writer)
    }

    /// Writes a blob. Content with another size or digest is an error.
    pub fn blob(&mut self, blob: &Descriptor, content: &mut dyn Read) -> Result<(), Error> {
        let name = name_of(&blob.digest);
        self.write(&file_header(&name, blob.size)?)?;
        let mut hasher = Hasher::like(&blob.digest);
        let mut buffer = vec![0; BUFFER];
        let mut left = blob.size;
        loop {
            let read = content.read(&mut buffer).map_err(unreadable)?;
            if read == 0 {
                break;
            }
            left = left
                .checked_sub(read as u64)
                .ok_or_else(|| invalid(&format!("`{name}` has more than {} bytes", blob.size)))?;
            hasher.update(&buffer[..read]);
            self.write(&buffer[..read])?;
        }
        let found = hasher.end();
        if left > 0 || found != blob.digest {
            return Err(invalid(&format!(
                "the content of `{name}` has the digest `{found}`"
            )));
        }
        self.pad(blob.size)
    }

    /// Writes the end.
    pub fn end(mut self) -> Result<(), Error> {
        self.write(&[0; 1024])?;
        self.output.flush().map_err(unwritable)
    }

    fn file(&mut self, name: &str, content: &[u8]) -> Result<(), Error> {
        let size = content.len() as u64;
        self.write(&file_header(name, size)?)?;
        self.write(content)?;
        self.pad(size)
    }

    fn pad(&mut self, size: u64) -> Result<(), Error> {
        let over = usize::try_from(size % 512).unwrap_or_default();
        self.write(&[0; 512][..(512 - over) % 512])
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.output.write_all(bytes).map_err(unwritable)
    }
}

/// Unpacks a tar into a folder that is empty or does not exist. The content of each blob has the
/// digest of its name.
pub fn unpack_layout(tar: impl BufRead, folder: &Path) -> Result<Layout, Error> {
    let mut members = TarReader::new(tar);
    let blobs = Blobs::new(folder);
    let damaged = |error: std::io::Error| invalid(&error);
    while let Some(member) = members.next().map_err(damaged)? {
        let path = member.path.strip_prefix("./").unwrap_or(&member.path);
        match member.kind {
            EntryType::Directory => {}
            EntryType::Regular if path == MARK || path == LIST => {
                let content = members.content(LARGEST_INDEX).map_err(damaged)?;
                let path = folder.join(path);
                std::fs::create_dir_all(folder).map_err(Error::at("create the folder", folder))?;
                std::fs::write(&path, content).map_err(Error::at("write", &path))?;
            }
            EntryType::Regular => {
                let digest = digest_of(path).ok_or_else(|| {
                    invalid(&format!("it has the file `{}`", path.escape_debug()))
                })?;
                let mut writer = blobs.writer_like(&digest)?;
                members.copy(&mut writer).map_err(damaged)?;
                writer.end_as(&digest)?;
            }
            _ => {
                let path = path.escape_debug();
                return Err(invalid(&format!("`{path}` is not a regular file")));
            }
        }
    }
    if !folder.join(MARK).exists() {
        return Err(invalid(&"it has no file `oci-layout`"));
    }
    Layout::open(folder)
}

fn name_of(digest: &Digest) -> String {
    format!("{}/{}", digest.folder(), digest.hex())
}

/// The digest in the path of a blob.
fn digest_of(path: &str) -> Option<Digest> {
    let (algorithm, hex) = path.strip_prefix("blobs/")?.split_once('/')?;
    format!("{algorithm}:{hex}").parse().ok()
}

fn invalid(reason: &dyn std::fmt::Display) -> Error {
    Error::Archive {
        reason: reason.to_string(),
    }
}

fn unreadable(source: std::io::Error) -> Error {
    Error::at("read", Path::new("a blob"))(source)
}

fn unwritable(source: std::io::Error) -> Error {
    Error::at("write", Path::new("the archive"))(source)
}

#[cfg(test)]
mod tests {
    use super::{LayoutWriter, unpack_layout};
    use crate::{Descriptor, Index, MANIFEST, Manifest};

    fn archive() -> Vec<u8> {
        let config = Descriptor::of("text/plain", b"config");
        let layer = Descriptor::of("text/plain", b"a layer");
        let manifest = Manifest::new(config.clone(), vec![layer.clone()]);
        let manifest = serde_json::to_vec(&manifest).unwrap();
        let image = Descriptor::of(MANIFEST, &manifest);
        let index = Index {
            manifests: vec![image.clone()],
            ..Index::default()
        };
        let mut tar = Vec::new();
        let mut writer = LayoutWriter::new(&mut tar, &index).unwrap();
        for (blob, content) in [
            (&image, &*manifest),
            (&config, b"config"),
            (&layer, b"a layer"),
        ] {
            writer.blob(blob, &mut &*content).unwrap();
        }
        writer.end().unwrap();
        tar
    }

    #[test]
    fn a_layout_is_unpacked_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let tar = archive();
        let layout = unpack_layout(&*tar, &folder.path().join("layout")).unwrap();
        let image = layout.only().unwrap();
        assert!(layout.missing(&image).unwrap().is_empty());
        assert_eq!(tar, archive());
    }

    #[test]
    fn a_cut_or_changed_archive_is_an_error_or_lacks_blobs() {
        let whole = archive();
        for cut in (0..whole.len() - 1024).step_by(97) {
            let folder = tempfile::tempdir().unwrap();
            let unpacked = unpack_layout(&whole[..cut], folder.path());
            let is_whole = unpacked.is_ok_and(|layout| {
                let image = layout.only().unwrap();
                layout
                    .missing(&image)
                    .is_ok_and(|missing| missing.is_empty())
            });
            assert!(!is_whole, "cut after {cut} of {}", whole.len());
        }
        let position = whole
            .windows(7)
            .position(|bytes| bytes == b"a layer")
            .unwrap();
        let mut forged = whole.clone();
        forged[position] = b'A';
        let folder = tempfile::tempdir().unwrap();
        let error = unpack_layout(&*forged, folder.path()).unwrap_err();
        assert!(error.to_string().contains("does not match"), "{error}");
        let name = whole.windows(5).position(|it| it == b"blobs").unwrap();
        let mut outside = whole;
        outside[name..name + 5].copy_from_slice(b"../ab");
        let folder = tempfile::tempdir().unwrap();
        assert!(unpack_layout(&*outside, folder.path()).is_err());
    }

    #[test]
    fn content_that_does_not_match_is_not_archived() {
        let blob = Descriptor::of("text/plain", b"a layer");
        for other in ["A layer", "a laye", "a layers"] {
            let mut writer = LayoutWriter::new(Vec::new(), &Index::default()).unwrap();
            let error = writer.blob(&blob, &mut other.as_bytes()).unwrap_err();
            assert!(error.to_string().contains(&blob.digest.hex()), "{error}");
        }
    }
}
