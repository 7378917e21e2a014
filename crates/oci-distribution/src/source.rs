//! What an upload reads: a file in pieces, never whole in memory, or bytes that are there. All
//! bytes are hashed on their first way out, so that a file that is not what its digest says is
//! found before a registry is told that it is all there.

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::stream;
use reqwest::Body;
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncSeekExt, SeekFrom};

use super::Error;
use super::request::TransferProgress;
use oci::{Descriptor, Digest, Hasher};

/// Bytes that are read at once.
const BUFFER: u64 = 128 << 10;

/// Where a blob's bytes are.
#[derive(Debug, Clone, Copy)]
pub enum BlobSource<'a> {
    /// In a file, which is streamed.
    File(&'a Path),
    /// Here.
    Bytes(&'a [u8]),
}

/// A blob that is read, perhaps more than once.
#[derive(Clone)]
pub struct BlobReader(Arc<BlobReaderState>);

struct BlobReaderState {
    from: OwnedSource,
    digest: Digest,
    size: u64,
    state: Mutex<HashState>,
}

enum OwnedSource {
    File(PathBuf),
    Bytes(Vec<u8>),
}

#[derive(Default)]
struct HashState {
    hasher: Option<Hasher>,
    /// Bytes from the beginning that the hasher has taken.
    hashed: u64,
    /// Why there is no use in reading on.
    wrong: Option<Error>,
}

impl BlobReader {
    pub fn new(blob: &Descriptor, source: BlobSource<'_>) -> Self {
        Self(Arc::new(BlobReaderState {
            from: match source {
                BlobSource::File(path) => OwnedSource::File(path.to_owned()),
                BlobSource::Bytes(bytes) => OwnedSource::Bytes(bytes.to_vec()),
            },
            digest: blob.digest,
            size: blob.size,
            state: Mutex::default(),
        }))
    }

    /// A part of it, to be sent.
    pub fn piece(&self, range: Range<u64>) -> BlobChunk {
        BlobChunk {
            reading: self.clone(),
            range,
        }
    }

    /// Why there is no use in sending more: the file cannot be read, or is another.
    pub fn take_wrong(&self) -> Option<Error> {
        self.state().wrong.take()
    }

    /// Reads all of it again: a registry says that it got something else.
    pub async fn look_again(&self) -> Result<(), Error> {
        let OwnedSource::File(path) = &self.0.from else {
            return Ok(());
        };
        *self.state() = HashState::default();
        let read = async {
            let mut run = FileReader::begin(path, 0..self.0.size, self.clone()).await?;
            while run.next().await?.is_some() {}
            Ok::<_, io::Error>(())
        };
        let _ = read.await;
        self.take_wrong().map_or(Ok(()), Err)
    }

    fn state(&self) -> MutexGuard<'_, HashState> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes note of a file that cannot be read; the HTTP client would tell it as its own trouble.
    fn failed(&self, path: &Path, error: io::Error) -> io::Error {
        let told = io::Error::new(error.kind(), error.to_string());
        self.state().wrong.get_or_insert(Error::File {
            action: "read",
            path: path.to_owned(),
            source: error,
        });
        told
    }

    fn altered(&self, path: &Path) -> io::Error {
        self.state().wrong.get_or_insert(Error::Altered {
            path: path.to_owned(),
            digest: self.0.digest,
        });
        io::Error::other("the file was altered")
    }

    /// Hashes what has not been hashed yet; whether it is still what it should be.
    fn hash(&self, position: u64, bytes: &[u8]) -> bool {
        let mut state = self.state();
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

/// A part of a blob that goes into one request.
pub struct BlobChunk {
    reading: BlobReader,
    range: Range<u64>,
}

impl BlobChunk {
    pub fn length(&self) -> u64 {
        self.range.end - self.range.start
    }

    /// It, as a request's body.
    pub async fn body(&self, moved: &TransferProgress) -> Result<Body, Error> {
        let path = match &self.reading.0.from {
            OwnedSource::File(path) => path,
            OwnedSource::Bytes(bytes) => {
                let place = |at: u64| usize::try_from(at).unwrap_or(usize::MAX);
                let part = bytes.get(place(self.range.start)..place(self.range.end));
                moved.now(true);
                return Ok(Body::from(part.unwrap_or_default().to_vec()));
            }
        };
        let run = match FileReader::begin(path, self.range.clone(), self.reading.clone()).await {
            Ok(run) => run,
            Err(source) => {
                let told = Error::File {
                    action: "read",
                    path: path.clone(),
                    source,
                };
                return Err(self.reading.take_wrong().unwrap_or(told));
            }
        };
        let pieces = stream::try_unfold((run, moved.clone()), |(mut run, moved)| async move {
            let piece = run.next().await?;
            // No more is asked for when the length that was announced is reached.
            moved.now(run.range.is_empty());
            Ok::<_, io::Error>(piece.map(|piece| (piece, (run, moved))))
        });
        Ok(Body::wrap_stream(pieces))
    }
}

/// One walk through a part of the file.
struct FileReader {
    file: File,
    path: PathBuf,
    range: Range<u64>,
    reading: BlobReader,
}

impl FileReader {
    async fn begin(path: &Path, range: Range<u64>, reading: BlobReader) -> io::Result<Self> {
        let open = async {
            let mut file = File::open(path).await?;
            file.seek(SeekFrom::Start(range.start)).await?;
            let length = file.metadata().await?.len();
            Ok((file, length))
        };
        match open.await {
            Ok((_, length)) if length != reading.0.size => Err(reading.altered(path)),
            Ok((file, _)) => Ok(Self {
                file,
                path: path.to_owned(),
                range,
                reading,
            }),
            Err(error) => Err(reading.failed(path, error)),
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
            return Err(self.reading.failed(&self.path, error));
        }
        let position = self.range.start;
        if bytes.len() as u64 != length || !self.reading.hash(position, &bytes) {
            return Err(self.reading.altered(&self.path));
        }
        self.range.start += length;
        Ok(Some(bytes))
    }
}
