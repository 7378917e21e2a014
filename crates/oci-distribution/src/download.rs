//! Reading blobs: small ones into memory, layers into files. A download that breaks is resumed, and
//! content that does not match its digest is not left behind.

use std::path::{Path, PathBuf};

use http_client::{AttemptError, Backoff};
use reqwest::header::{CONTENT_RANGE, RANGE};
use reqwest::{Method, StatusCode};
use tokio::fs::File;
use tokio::io::{AsyncSeekExt, AsyncWriteExt, SeekFrom};

use super::Error;
use super::auth::TokenScope;
use super::client::Client;
use super::request::RegistryRequest;
use super::response::RegistryResponse;
use oci::{Descriptor, Digest, Hasher};

/// Bytes of the largest blob that is read into memory, as for a layout on disk.
const LARGEST_IN_MEMORY: u64 = 16 << 20;

impl Client {
    /// Reads a small blob, such as an image's config, into memory. It may have at most 16 MiB, and
    /// no more is read than its descriptor says.
    pub async fn blob(&self, repository: &str, blob: &Descriptor) -> Result<Vec<u8>, Error> {
        let scope = TokenScope::pull(repository);
        let request = self.blob_request(repository, blob, &scope)?;
        if blob.size > LARGEST_IN_MEMORY {
            return Err(Error::DigestMismatch {
                what: request.what,
                message: format!(
                    "the size in its descriptor is {} bytes, but the limit is {LARGEST_IN_MEMORY}",
                    blob.size
                ),
            });
        }
        self.with_retries(|| async {
            let response = self.attempt(&request).await?;
            if response.status() != StatusCode::OK {
                return Err(self.refusal(&request, response).await.into());
            }
            let body = self.body(response, blob.size).await?;
            if !body.is_complete {
                return Err(too_long(&request.what, blob).into());
            }
            let bytes = body.bytes;
            verify(&request.what, blob, bytes.len() as u64, || {
                blob.digest.like(&bytes)
            })?;
            Ok(bytes)
        })
        .await
    }

    /// Downloads a blob into a file. The file exists afterwards only if the whole content matches.
    pub async fn download(
        &self,
        repository: &str,
        blob: &Descriptor,
        to: &Path,
    ) -> Result<(), Error> {
        let scope = TokenScope::pull(repository);
        let request = self.blob_request(repository, blob, &scope)?;
        let mut file = DownloadFile::create(to, blob.digest).await?;
        let mut backoff = Backoff::new(self.retry_policy());
        loop {
            let before = file.length;
            let failure = match self.download_rest(&request, blob, &mut file).await {
                Ok(()) => break,
                Err(failure) => failure,
            };
            if file.length > before {
                backoff.reset();
            }
            backoff.wait(failure).await?;
        }
        file.finish(&request.what, blob).await
    }

    fn blob_request<'a>(
        &self,
        repository: &str,
        blob: &Descriptor,
        scope: &'a TokenScope,
    ) -> Result<RegistryRequest<'a>, Error> {
        let digest = blob.digest.to_string();
        let url = self.url(repository, &format!("blobs/{digest}"))?;
        let what = self.full_reference(repository, &digest);
        Ok(RegistryRequest::read(Method::GET, url, scope, what))
    }

    /// Downloads from where the file ends.
    async fn download_rest(
        &self,
        request: &RegistryRequest<'_>,
        blob: &Descriptor,
        file: &mut DownloadFile,
    ) -> Result<(), AttemptError<Error>> {
        if file.length == blob.size && blob.size > 0 {
            return Ok(());
        }
        let (url, what) = (request.url.clone(), request.what.clone());
        let mut request = RegistryRequest::read(Method::GET, url, request.scope, what);
        if file.length > 0 {
            request = request.with(RANGE, format!("bytes={}-", file.length));
        }
        let mut response = self.attempt(&request).await?;
        match response.status() {
            // Not every registry supports ranges.
            StatusCode::OK => file.restart().await?,
            StatusCode::PARTIAL_CONTENT if starts_at(&response, file.length) => {}
            StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE if file.length > 0 => {
                file.restart().await?;
                return Err(AttemptError::transient(Error::Server {
                    what: request.what.clone(),
                    message: "the response has another content range than requested".into(),
                }));
            }
            _ => return Err(self.refusal(&request, response).await.into()),
        }
        while let Some(chunk) = self.next_chunk(&mut response).await? {
            file.append(chunk.as_ref()).await?;
            if file.length > blob.size {
                return Err(too_long(&request.what, blob).into());
            }
        }
        if file.length < blob.size {
            return Err(AttemptError::transient(Error::Server {
                what: request.what.clone(),
                message: format!("{} of {} bytes were received", file.length, blob.size),
            }));
        }
        Ok(())
    }
}

/// Whether a partial response starts at this position: `Content-Range: bytes 100-199/200`.
fn starts_at(response: &RegistryResponse, position: u64) -> bool {
    let range = response.header(CONTENT_RANGE.as_str());
    let range = range.and_then(|range| range.trim().strip_prefix("bytes "));
    let start = range.and_then(|range| range.split('-').next());
    start.is_some_and(|start| start.trim() == position.to_string())
}

fn too_long(what: &str, blob: &Descriptor) -> Error {
    Error::DigestMismatch {
        what: what.to_owned(),
        message: format!("it has more than {} bytes", blob.size),
    }
}

fn verify(
    what: &str,
    blob: &Descriptor,
    size: u64,
    digest: impl FnOnce() -> Digest,
) -> Result<(), Error> {
    let message = if size == blob.size {
        let digest = digest();
        if digest == blob.digest {
            return Ok(());
        }
        format!("its digest is `{digest}`")
    } else {
        format!("it has {size} bytes, not {}", blob.size)
    };
    Err(Error::DigestMismatch {
        what: what.to_owned(),
        message,
    })
}

/// A file that is removed when it is dropped, unless it is finished.
struct DownloadFile {
    path: PathBuf,
    file: File,
    hasher: Hasher,
    digest: Digest,
    length: u64,
    is_finished: bool,
}

impl DownloadFile {
    async fn create(path: &Path, digest: Digest) -> Result<Self, Error> {
        let file = File::create(path).await;
        Ok(Self {
            file: file.map_err(|error| unwritable(path, error))?,
            path: path.to_owned(),
            hasher: Hasher::like(&digest),
            digest,
            length: 0,
            is_finished: false,
        })
    }

    async fn restart(&mut self) -> Result<(), Error> {
        let truncated = async {
            self.file.seek(SeekFrom::Start(0)).await?;
            self.file.set_len(0).await
        };
        truncated
            .await
            .map_err(|error| unwritable(&self.path, error))?;
        self.hasher = Hasher::like(&self.digest);
        self.length = 0;
        Ok(())
    }

    async fn append(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let written = self.file.write_all(bytes).await;
        written.map_err(|error| unwritable(&self.path, error))?;
        self.hasher.update(bytes);
        self.length += bytes.len() as u64;
        Ok(())
    }

    async fn finish(mut self, what: &str, blob: &Descriptor) -> Result<(), Error> {
        let flushed = self.file.flush().await;
        flushed.map_err(|error| unwritable(&self.path, error))?;
        let hasher = std::mem::take(&mut self.hasher);
        verify(what, blob, self.length, || hasher.end())?;
        self.is_finished = true;
        Ok(())
    }
}

impl Drop for DownloadFile {
    fn drop(&mut self) {
        if !self.is_finished {
            // Also when the task is cancelled in the middle.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn unwritable(path: &Path, source: std::io::Error) -> Error {
    Error::File {
        action: "write",
        path: path.to_owned(),
        source,
    }
}
