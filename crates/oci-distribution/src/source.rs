//! What an upload reads: a file that is streamed, or bytes in memory.
//!
//! All bytes are hashed when they are sent for the first time, so that a file which does not match
//! its digest is noticed before the registry is told that the upload is complete.

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::stream;
use http_client::TransferProgress;
use reqwest::Body;
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncSeekExt, SeekFrom};

use super::Error;
use oci::{Descriptor, Digest, Hasher};

/// Bytes that are read at once.
const BUFFER: u64 = 128 << 10;

/// Where the bytes of a blob are.
#[derive(Debug, Clone, Copy)]
pub enum BlobSource<'a> {
    /// In a file, which is streamed.
    File(&'a Path),
    /// In memory.
    Bytes(&'a [u8]),
}

/// Reads a blob, perhaps more than once. Clones share what was hashed.
#[derive(Clone)]
pub struct BlobReader(Arc<BlobReaderState>);

struct BlobReaderState {
    source: OwnedSource,
    digest: Digest,
    size: u64,
    hash: Mutex<HashState>,
}

enum OwnedSource {
    File(PathBuf),
    Bytes(Vec<u8>),
}

#[derive(Default)]
struct HashState {
    hasher: Option<Hasher>,
    /// Bytes from the start that the hasher has.
    hashed: u64,
    /// Why the file cannot be uploaded.
    error: Option<Error>,
}

impl BlobReader {
    pub fn new(blob: &Descriptor, source: BlobSource<'_>) -> Self {
        Self(Arc::new(BlobReaderState {
            source: match source {
                BlobSource::File(path) => OwnedSource::File(path.to_owned()),
                BlobSource::Bytes(bytes) => OwnedSource::Bytes(bytes.to_vec()),
            },
            digest: blob.digest,
            size: blob.size,
            hash: Mutex::default(),
        }))
    }

    /// A part of the blob.
    pub fn chunk(&self, range: Range<u64>) -> BlobChunk {
        BlobChunk {
            reader: self.clone(),
            range,
        }
    }

    /// Why the file cannot be uploaded: it cannot be read, or has changed.
    pub fn take_error(&self) -> Option<Error> {
        self.hash_state().error.take()
    }

    /// Reads and hashes the whole file again, because the registry has received something else.
    pub async fn verify_again(&self) -> Result<(), Error> {
        let OwnedSource::File(path) = &self.0.source else {
            return Ok(());
        };
        *self.hash_state() = HashState::default();
        let read = async {
            let mut file = FileReader::open(path, 0..self.0.size, self.clone()).await?;
            while file.next().await?.is_some() {}
            Ok::<_, io::Error>(())
        };
        // Each failure is also recorded in the state.
        let _ = read.await;
        self.take_error().map_or(Ok(()), Err)
    }

    fn hash_state(&self) -> MutexGuard<'_, HashState> {
        self.0.hash.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records that the file cannot be read. The HTTP client would report it as its own failure.
    fn read_failed(&self, path: &Path, error: io::Error) -> io::Error {
        let copy = io::Error::new(error.kind(), error.to_string());
        self.hash_state().error.get_or_insert(Error::File {
            action: "read",
            path: path.to_owned(),
            source: error,
        });
        copy
    }

    /// Records that the file has changed.
    fn changed(&self, path: &Path) -> io::Error {
        self.hash_state().error.get_or_insert(Error::Changed {
            path: path.to_owned(),
            digest: self.0.digest,
        });
        io::Error::other("the file has changed")
    }

    /// Hashes the bytes that were not hashed yet. False if the whole does not match its digest.
    fn hash(&self, position: u64, bytes: &[u8]) -> bool {
        let mut state = self.hash_state();
        let end = position + bytes.len() as u64;
        if end > state.hashed && position <= state.hashed {
            let known = usize::try_from(state.hashed - position).unwrap_or(bytes.len());
            let digest = &self.0.digest;
            let hasher = state.hasher.get_or_insert_with(|| Hasher::like(digest));
            hasher.update(&bytes[known..]);
            state.hashed = end;
            if end == self.0.size
                && let Some(hasher) = state.hasher.take()
            {
                return hasher.end() == self.0.digest;
            }
        }
        true
    }
}

/// The part of a blob that is sent in one request.
pub struct BlobChunk {
    reader: BlobReader,
    range: Range<u64>,
}

impl BlobChunk {
    pub fn length(&self) -> u64 {
        self.range.end - self.range.start
    }

    /// The chunk as the body of a request.
    pub async fn body(&self, progress: &TransferProgress) -> Result<Body, Error> {
        let path = match &self.reader.0.source {
            OwnedSource::File(path) => path,
            OwnedSource::Bytes(bytes) => {
                let index = |position: u64| usize::try_from(position).unwrap_or(usize::MAX);
                let part = bytes.get(index(self.range.start)..index(self.range.end));
                progress.record(true);
                return Ok(Body::from(part.unwrap_or_default().to_vec()));
            }
        };
        let opened = FileReader::open(path, self.range.clone(), self.reader.clone()).await;
        let file = opened.map_err(|source| {
            let error = Error::File {
                action: "read",
                path: path.clone(),
                source,
            };
            self.reader.take_error().unwrap_or(error)
        })?;
        let buffers = stream::try_unfold(
            (file, progress.clone()),
            |(mut file, progress)| async move {
                let buffer = file.next().await?;
                // The HTTP client reads no further than the announced length.
                progress.record(file.range.is_empty());
                Ok::<_, io::Error>(buffer.map(|buffer| (buffer, (file, progress))))
            },
        );
        Ok(Body::wrap_stream(buffers))
    }
}

/// Reads a part of the file once.
struct FileReader {
    file: File,
    path: PathBuf,
    range: Range<u64>,
    reader: BlobReader,
}

impl FileReader {
    async fn open(path: &Path, range: Range<u64>, reader: BlobReader) -> io::Result<Self> {
        let open = async {
            let mut file = File::open(path).await?;
            file.seek(SeekFrom::Start(range.start)).await?;
            let length = file.metadata().await?.len();
            Ok((file, length))
        };
        match open.await {
            Ok((_, length)) if length != reader.0.size => Err(reader.changed(path)),
            Ok((file, _)) => Ok(Self {
                file,
                path: path.to_owned(),
                range,
                reader,
            }),
            Err(error) => Err(reader.read_failed(path, error)),
        }
    }

    async fn next(&mut self) -> io::Result<Option<Vec<u8>>> {
        let length = BUFFER.min(self.range.end - self.range.start);
        if length == 0 {
            return Ok(None);
        }
        let mut bytes = Vec::with_capacity(usize::try_from(length).unwrap_or_default());
        let read = (&mut self.file).take(length).read_to_end(&mut bytes).await;
        if let Err(error) = read {
            return Err(self.reader.read_failed(&self.path, error));
        }
        let position = self.range.start;
        if bytes.len() as u64 != length || !self.reader.hash(position, &bytes) {
            return Err(self.reader.changed(&self.path));
        }
        self.range.start += length;
        Ok(Some(bytes))
    }
}
