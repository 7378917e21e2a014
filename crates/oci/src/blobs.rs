//! Blobs on disk. Each is a file that is named by its digest, as in an OCI image layout:
//! `blobs/sha256/<hex>` or `blobs/sha512/<hex>`.
//!
//! A blob is written under a temporary name and then renamed, so a file with a digest's name is
//! complete. Each use of a blob sets its file's time; [`collect`](super::collect) removes the least
//! recently used blobs first.

use std::fs::File;
use std::io::{BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use super::files::{persist, remove, temporary, touch};
use super::{Descriptor, Digest, Error, Hasher};

/// Largest blob that is read into memory, in bytes. Manifests and configs are far smaller.
const SMALL: u64 = 16 << 20;

/// The blobs of one folder.
#[derive(Debug, Clone)]
pub struct Blobs {
    folder: PathBuf,
}

impl Blobs {
    /// The blobs of this folder. The folder is created by the first write.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self {
            folder: folder.into(),
        }
    }

    /// The folder that contains `blobs`.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The path of a blob, whether it exists or not.
    pub fn path(&self, digest: &Digest) -> PathBuf {
        self.folder.join(digest.folder()).join(digest.hex())
    }

    /// Whether the blob exists and has the right size. Marks the blob as used.
    pub fn holds(&self, descriptor: &Descriptor) -> bool {
        let path = self.path(&descriptor.digest);
        let is_there = path
            .metadata()
            .is_ok_and(|file| file.is_file() && file.len() == descriptor.size);
        if is_there {
            touch(&path);
        }
        is_there
    }

    /// Writes a small blob, unless it exists with the right content.
    pub fn write(&self, media_type: &str, bytes: &[u8]) -> Result<Descriptor, Error> {
        let descriptor = Descriptor::of(media_type, bytes);
        if !self.holds(&descriptor) || self.read(&descriptor).is_err() {
            let mut file = self.temporary()?;
            file.write_all(bytes)
                .map_err(Error::at("write", file.path()))?;
            self.take(file, &descriptor)?;
        }
        Ok(descriptor)
    }

    /// Reads a small blob and checks its digest. A blob over 16 MiB is an error.
    pub fn read(&self, descriptor: &Descriptor) -> Result<Vec<u8>, Error> {
        let path = self.path(&descriptor.digest);
        let damaged = |reason: String| {
            let path = path.clone();
            Err(Error::DigestMismatch { path, reason })
        };
        if descriptor.size > SMALL {
            return damaged(format!(
                "its size is {} bytes, which is too large for a manifest or config",
                descriptor.size
            ));
        }
        let mut bytes = Vec::new();
        self.open(descriptor)?
            .take(descriptor.size + 1)
            .read_to_end(&mut bytes)
            .map_err(Error::at("read", &path))?;
        let found = descriptor.digest.like(&bytes);
        if found != descriptor.digest {
            return damaged(format!("the digest of its content is `{found}`"));
        }
        if bytes.len() as u64 != descriptor.size {
            return damaged(format!(
                "its size differs from the {} bytes in its descriptor",
                descriptor.size
            ));
        }
        Ok(bytes)
    }

    /// Checks the digest of a blob of any size.
    pub fn verify(&self, descriptor: &Descriptor) -> Result<(), Error> {
        let path = self.path(&descriptor.digest);
        let mut file = self.open(descriptor)?;
        let mut hasher = Hasher::like(&descriptor.digest);
        let mut buffer = vec![0; 64 << 10];
        loop {
            let length = file.read(&mut buffer).map_err(Error::at("read", &path))?;
            if length == 0 {
                break;
            }
            hasher.update(&buffer[..length]);
        }
        let found = hasher.end();
        if found == descriptor.digest {
            return Ok(());
        }
        let reason = format!("the digest of its content is `{found}`");
        Err(Error::DigestMismatch { path, reason })
    }

    /// Opens a blob and checks its size, but not its digest.
    pub fn open(&self, descriptor: &Descriptor) -> Result<File, Error> {
        let path = self.path(&descriptor.digest);
        let file = match File::open(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(Error::Missing {
                    digest: descriptor.digest,
                    folder: self.folder.clone(),
                });
            }
            opened => opened.map_err(Error::at("open", &path))?,
        };
        let size = file.metadata().map_err(Error::at("read", &path))?.len();
        if size != descriptor.size {
            return Err(Error::DigestMismatch {
                reason: format!("its size is {size} bytes, not {}", descriptor.size),
                path,
            });
        }
        touch(&path);
        Ok(file)
    }

    /// Creates a temporary file beside the blobs. It is removed unless [`Self::take`] takes it.
    pub fn temporary(&self) -> Result<NamedTempFile, Error> {
        let folder = self.folder.join("blobs/sha256");
        temporary(&folder)
    }

    /// Makes a temporary file this blob. Checks the size; the caller has checked the digest.
    pub fn take(&self, file: NamedTempFile, descriptor: &Descriptor) -> Result<(), Error> {
        let written = file.as_file().metadata();
        let size = written.map_err(Error::at("read", file.path()))?.len();
        if size != descriptor.size {
            return Err(Error::DigestMismatch {
                path: file.path().to_owned(),
                reason: format!("{size} bytes were written, not {}", descriptor.size),
            });
        }
        // An existing file is replaced, since its content may be wrong.
        let path = self.path(&descriptor.digest);
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(Error::at("create the folder", folder))?;
        }
        persist(file, &path)
    }

    /// Writes a blob in pieces.
    pub fn writer(&self) -> Result<BlobWriter, Error> {
        self.with_hasher(Hasher::default())
    }

    /// Writes a blob in pieces, whose digest has the algorithm of this one.
    pub fn writer_like(&self, digest: &Digest) -> Result<BlobWriter, Error> {
        self.with_hasher(Hasher::like(digest))
    }

    fn with_hasher(&self, hasher: Hasher) -> Result<BlobWriter, Error> {
        Ok(BlobWriter {
            blobs: self.clone(),
            file: BufWriter::with_capacity(256 << 10, self.temporary()?),
            hasher,
            size: 0,
        })
    }

    /// Removes a blob. A missing blob is not an error.
    pub fn remove(&self, digest: &Digest) -> Result<(), Error> {
        remove(&self.path(digest))
    }
}

/// Computes a blob's digest while the blob is written. The blob is discarded unless
/// [`Self::end`] is called.
pub struct BlobWriter {
    blobs: Blobs,
    file: BufWriter<NamedTempFile>,
    hasher: Hasher,
    size: u64,
}

impl BlobWriter {
    /// Completes the blob.
    pub fn end(self, media_type: &str) -> Result<Descriptor, Error> {
        let path = self.file.get_ref().path().to_owned();
        let file = self.file.into_inner();
        let file = file.map_err(|error| Error::at("write", &path)(error.into_error()))?;
        let descriptor = Descriptor::new(media_type, self.hasher.end(), self.size);
        self.blobs.take(file, &descriptor)?;
        Ok(descriptor)
    }

    /// Completes the blob if it has this digest. Otherwise it is discarded.
    pub fn end_as(self, digest: &Digest) -> Result<(), Error> {
        let path = self.file.get_ref().path().to_owned();
        let file = self.file.into_inner();
        let file = file.map_err(|error| Error::at("write", &path)(error.into_error()))?;
        let found = self.hasher.end();
        if found != *digest {
            return Err(Error::DigestMismatch {
                path: self.blobs.path(digest),
                reason: format!("the digest of its content is `{found}`"),
            });
        }
        let descriptor = Descriptor::new("", *digest, self.size);
        self.blobs.take(file, &descriptor)
    }
}

impl Write for BlobWriter {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        self.size += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.file.flush()
    }
}
