//! Reading blobs: small ones into memory, layers into files. A connection that breaks is taken up
//! where it broke, and nothing is left behind that is not what its digest names.

use std::path::{Path, PathBuf};

use reqwest::header::{CONTENT_RANGE, RANGE};
use reqwest::{Method, StatusCode};
use tokio::fs::File;
use tokio::io::{AsyncSeekExt, AsyncWriteExt, SeekFrom};

use super::Error;
use super::auth::TokenScope;
use super::client::Client;
use super::request::RegistryRequest;
use super::response::RegistryResponse;
use super::retry::{AttemptError, Backoff};
use oci::{Descriptor, Digest, Hasher};

/// Bytes that a blob may have that is read into memory, as in a layout on disk.
const SMALL: u64 = 16 << 20;

impl Client {
    /// A small blob, such as an image's config. No more is read than its descriptor says, and
    /// nothing of one that is said to have more than 16 MiB.
    pub async fn blob(&self, repository: &str, blob: &Descriptor) -> Result<Vec<u8>, Error> {
        let scope = TokenScope::pull(repository);
        let ask = self.reading(repository, blob, &scope)?;
        if blob.size > SMALL {
            return Err(Error::Mismatch {
                what: ask.what,
                message: format!(
                    "it is said to have {} bytes, more than the {SMALL} that a config may have",
                    blob.size
                ),
            });
        }
        self.patiently(|| async {
            let answer = self.once(&ask).await?;
            if answer.status() != StatusCode::OK {
                return Err(self.refusal(&ask, answer).await.into());
            }
            let bytes = self.body(answer, blob.size).await?;
            let bytes = bytes.ok_or_else(|| longer(&ask.what, blob))?;
            compare(&ask.what, blob, bytes.len() as u64, || {
                blob.digest.like(&bytes)
            })?;
            Ok(bytes)
        })
        .await
    }

    /// Brings a blob into a file, which is there only if all of it is right.
    pub async fn download(
        &self,
        repository: &str,
        blob: &Descriptor,
        to: &Path,
    ) -> Result<(), Error> {
        let scope = TokenScope::pull(repository);
        let ask = self.reading(repository, blob, &scope)?;
        let mut target = DownloadFile::create(to, blob.digest).await?;
        let mut patience = Backoff::new(self.limits());
        loop {
            let before = target.length;
            let trouble = match self.go_on(&ask, blob, &mut target).await {
                Ok(()) => break,
                Err(trouble) => trouble,
            };
            if target.length > before {
                patience.renew();
            }
            patience.wait(trouble).await?;
        }
        target.finish(&ask.what, blob).await
    }

    fn reading<'a>(
        &self,
        repository: &str,
        blob: &Descriptor,
        scope: &'a TokenScope,
    ) -> Result<RegistryRequest<'a>, Error> {
        let digest = blob.digest.to_string();
        let url = self.url(repository, &format!("blobs/{digest}"))?;
        let what = self.named(repository, &digest);
        Ok(RegistryRequest::read(Method::GET, url, scope, what))
    }

    /// Reads from where the file ends.
    async fn go_on(
        &self,
        ask: &RegistryRequest<'_>,
        blob: &Descriptor,
        target: &mut DownloadFile,
    ) -> Result<(), AttemptError> {
        if target.length == blob.size && blob.size > 0 {
            return Ok(());
        }
        let mut ask = RegistryRequest {
            url: ask.url.clone(),
            ..RegistryRequest::read(Method::GET, ask.url.clone(), ask.scope, ask.what.clone())
        };
        if target.length > 0 {
            ask = ask.with(RANGE, format!("bytes={}-", target.length));
        }
        let mut answer = self.once(&ask).await?;
        match answer.status() {
            // Not every registry resumes.
            StatusCode::OK => target.begin_anew().await?,
            StatusCode::PARTIAL_CONTENT if begins_at(&answer, target.length) => {}
            StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE
                if target.length > 0 =>
            {
                target.begin_anew().await?;
                return Err(AttemptError::passing(Error::Server {
                    what: ask.what.clone(),
                    message: "it gives another part than was asked for".into(),
                }));
            }
            _ => return Err(self.refusal(&ask, answer).await.into()),
        }
        while let Some(piece) = self.piece(&mut answer).await? {
            target.take(piece.as_ref()).await?;
            if target.length > blob.size {
                return Err(longer(&ask.what, blob).into());
            }
        }
        if target.length < blob.size {
            return Err(AttemptError::passing(Error::Server {
                what: ask.what.clone(),
                message: format!("{} of {} bytes came", target.length, blob.size),
            }));
        }
        Ok(())
    }
}

/// Whether a part begins there: `bytes 100-199/200`.
fn begins_at(answer: &RegistryResponse, position: u64) -> bool {
    let range = answer.header(CONTENT_RANGE.as_str());
    let range = range.and_then(|range| range.trim().strip_prefix("bytes "));
    let begin = range.and_then(|range| range.split('-').next());
    begin.is_some_and(|begin| begin.trim() == position.to_string())
}

fn longer(what: &str, blob: &Descriptor) -> Error {
    Error::Mismatch {
        what: what.to_owned(),
        message: format!("it is longer than its {} bytes", blob.size),
    }
}

fn compare(
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
        format!("its content is `{digest}`")
    } else {
        format!("it has {size} bytes and not {}", blob.size)
    };
    Err(Error::Mismatch {
        what: what.to_owned(),
        message,
    })
}

/// A file that goes with its owner unless it is finished.
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

    async fn begin_anew(&mut self) -> Result<(), Error> {
        let again = async {
            self.file.seek(SeekFrom::Start(0)).await?;
            self.file.set_len(0).await
        };
        again.await.map_err(|error| unwritable(&self.path, error))?;
        self.hasher = Hasher::like(&self.digest);
        self.length = 0;
        Ok(())
    }

    async fn take(&mut self, bytes: &[u8]) -> Result<(), Error> {
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
        compare(what, blob, self.length, || hasher.end())?;
        self.is_finished = true;
        Ok(())
    }
}

impl Drop for DownloadFile {
    fn drop(&mut self) {
        if !self.is_finished {
            // Also where the task was dropped in the middle.
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
