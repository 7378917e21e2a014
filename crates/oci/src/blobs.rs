//! Blobs on disk, each in a file that is called by its digest: `blobs/sha256/<hex>`, as an OCI
//! image layout has them. (Bases of others may be named by `sha512`.)
//!
//! A blob is written under a name that is no digest and then renamed, so that whatever has a
//! digest's name is whole. Using a blob sets its file's time: what was used longest ago goes
//! first when room is made.

use std::fs::{File, Permissions};
use std::io::{BufWriter, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use tempfile::NamedTempFile;

use super::{Descriptor, Digest, Error, Hasher};

/// How the name of a file begins that is being written.
pub(super) const UNDER_WAY: &str = ".under-way-";

/// Bytes of the largest blob that is read into memory: manifests and configs are far smaller.
const SMALL: u64 = 16 << 20;

/// The blobs below one folder.
#[derive(Debug, Clone)]
pub struct Blobs {
    folder: PathBuf,
}

impl Blobs {
    /// Those of this folder, which need not be there yet.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self {
            folder: folder.into(),
        }
    }

    /// The folder in which `blobs` lies.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Where the blob lies or would lie.
    pub fn path(&self, digest: &Digest) -> PathBuf {
        self.folder.join(digest.folder()).join(digest.hex())
    }

    /// Whether the blob is there with the right size. It then counts as used.
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

    /// Writes a small blob that is in memory. One that is there and whole is left as it is.
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

    /// Reads a small blob whole; it is what its digest says. Refused above 16 MiB.
    pub fn read(&self, descriptor: &Descriptor) -> Result<Vec<u8>, Error> {
        let path = self.path(&descriptor.digest);
        let damaged = |reason: String| {
            let path = path.clone();
            Err(Error::DigestMismatch { path, reason })
        };
        if descriptor.size > SMALL {
            return damaged(format!(
                "{} bytes are more than a manifest or config ever has",
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
            return damaged(format!("its content is `{found}`"));
        }
        if bytes.len() as u64 != descriptor.size {
            return damaged(format!(
                "it has not the {} bytes that it is said to have",
                descriptor.size
            ));
        }
        Ok(bytes)
    }

    /// Reads a blob of any size piece by piece; an error unless it is what its digest says.
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
        let reason = format!("its content is `{found}`");
        Err(Error::DigestMismatch { path, reason })
    }

    /// Opens a blob to be read piece by piece. Its size is right; its content is not looked at.
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
                reason: format!("it has {size} bytes and not {}", descriptor.size),
                path,
            });
        }
        touch(&path);
        Ok(file)
    }

    /// A file beside the blobs that goes away unless it is taken over.
    pub fn temporary(&self) -> Result<NamedTempFile, Error> {
        let folder = self.folder.join("blobs/sha256");
        temporary(&folder)
    }

    /// Takes a temporary file over as this blob. That it is this blob is the caller's word; only
    /// its size is looked at.
    pub fn take(&self, file: NamedTempFile, descriptor: &Descriptor) -> Result<(), Error> {
        let written = file.as_file().metadata();
        let size = written.map_err(Error::at("read", file.path()))?.len();
        if size != descriptor.size {
            return Err(Error::DigestMismatch {
                path: file.path().to_owned(),
                reason: format!("{size} bytes were written and not {}", descriptor.size),
            });
        }
        // Also over one that is there: that may be damaged, and this one is not.
        let path = self.path(&descriptor.digest);
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(Error::at("make the folder", folder))?;
        }
        file.persist(&path)
            .map_err(|error| Error::at("write", &path)(error.error))?;
        Ok(())
    }

    /// A blob that comes piece by piece.
    pub fn writer(&self) -> Result<BlobWriter, Error> {
        Ok(BlobWriter {
            blobs: self.clone(),
            file: BufWriter::with_capacity(256 << 10, self.temporary()?),
            hasher: Hasher::default(),
            size: 0,
        })
    }

    /// Removes a blob. One that is not there is no error.
    pub fn remove(&self, digest: &Digest) -> Result<(), Error> {
        remove(&self.path(digest))
    }
}

/// Digests a blob while it is written. It goes away unless it is ended.
pub struct BlobWriter {
    blobs: Blobs,
    file: BufWriter<NamedTempFile>,
    hasher: Hasher,
    size: u64,
}

impl BlobWriter {
    /// The blob is whole.
    pub fn end(self, media_type: &str) -> Result<Descriptor, Error> {
        let path = self.file.get_ref().path().to_owned();
        let file = self.file.into_inner();
        let file = file.map_err(|error| Error::at("write", &path)(error.into_error()))?;
        let descriptor = Descriptor::new(media_type, self.hasher.end(), self.size);
        self.blobs.take(file, &descriptor)?;
        Ok(descriptor)
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

/// A file in this folder, which is made, that others may read once it has its name.
pub(super) fn temporary(folder: &Path) -> Result<NamedTempFile, Error> {
    std::fs::create_dir_all(folder).map_err(Error::at("make the folder", folder))?;
    tempfile::Builder::new()
        .prefix(UNDER_WAY)
        .permissions(Permissions::from_mode(0o644))
        .tempfile_in(folder)
        .map_err(Error::at("make a file in", folder))
}

/// Notes that a file was used. That it cannot be noted harms nobody.
pub(super) fn touch(path: &Path) {
    if let Ok(file) = File::options().append(true).open(path) {
        let _ = file.set_modified(SystemTime::now());
    }
}

/// Removes a file, if it is there.
pub(super) fn remove(path: &Path) -> Result<(), Error> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::at("remove", path)(error))
        }
        _ => Ok(()),
    }
}
