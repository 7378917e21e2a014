//! Bringing a blob to a repository: it is there, the registry mounts it from another repository,
//! or it is sent.

use reqwest::{Method, StatusCode};

use super::auth::TokenScope;
use super::client::Client;
use super::locations::BlobRoute;
use super::request::RegistryRequest;
use super::session::UploadSession;
use super::upload::BlobUpload;
use super::{BlobSource, Error};
use oci::{Descriptor, Digest};

/// How a blob came to a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PutBlob {
    /// It was there.
    There,
    /// The registry took it from another repository.
    Mounted,
    /// It was sent.
    Uploaded,
}

/// What became of a mount.
enum MountOutcome {
    Done,
    /// It was refused, perhaps with a session to send the blob in.
    No(Option<UploadSession>),
}

impl Client {
    /// Brings a blob to a repository. `from` is another repository of this registry that may
    /// have it; of those to which this client has brought it the client knows itself, and of
    /// many who bring one blob at once the first sends it and the others wait.
    pub async fn put_blob(
        &self,
        repository: &str,
        blob: &Descriptor,
        source: BlobSource<'_>,
        from: Option<&str>,
    ) -> Result<PutBlob, Error> {
        if let BlobSource::Bytes(bytes) = source
            && blob.digest.like(bytes) != blob.digest
        {
            return Err(Error::Mismatch {
                what: self.named(repository, &blob.digest.to_string()),
                message: "other bytes are to be sent".into(),
            });
        }
        let turn = self.known().turn(blob.digest, repository).await;
        if turn.is_there() {
            return Ok(PutBlob::There);
        }
        let scope = TokenScope::push(repository);
        if self.has(&scope, repository, &blob.digest).await? {
            turn.note();
            return Ok(PutBlob::There);
        }
        let way = turn.way().await;
        let from = match &way {
            BlobRoute::MountFrom(holder) => Some(holder.as_str()),
            BlobRoute::UploadFirst { .. } => from.filter(|from| *from != repository),
        };
        let mount = match from {
            Some(from) => self.mount(repository, blob, from).await?,
            None => MountOutcome::No(None),
        };
        let sent = match mount {
            MountOutcome::Done => PutBlob::Mounted,
            MountOutcome::No(session) => {
                let upload = BlobUpload::new(self, repository, &scope, blob, source);
                upload.run(session).await?;
                PutBlob::Uploaded
            }
        };
        turn.note();
        Ok(sent)
    }

    /// Whether a repository has a blob.
    pub(super) async fn has(
        &self,
        scope: &TokenScope,
        repository: &str,
        digest: &Digest,
    ) -> Result<bool, Error> {
        let url = self.url(repository, &format!("blobs/{digest}"))?;
        let what = format!("{}/{repository}", self.host());
        let ask = RegistryRequest::push(Method::HEAD, url, scope, what);
        self.patiently(|| async {
            let answer = self.once(&ask).await?;
            match answer.status() {
                StatusCode::OK => Ok(true),
                StatusCode::NOT_FOUND => Ok(false),
                // A storage that lets nobody ask: sending it once more is right, if slow.
                _ if !self.is_own(answer.url()) => Ok(false),
                _ => Err(self.refusal(&ask, answer).await.into()),
            }
        })
        .await
    }

    /// Asks the registry to take a blob from another repository. A registry that does not may
    /// open a session at once.
    async fn mount(
        &self,
        repository: &str,
        blob: &Descriptor,
        from: &str,
    ) -> Result<MountOutcome, Error> {
        let scope = TokenScope::push(repository).and_pull(from);
        let mut url = self.url(repository, "blobs/uploads/")?;
        // Its name stands in a query, but has to be a name all the same.
        self.url(from, "")?;
        url.query_pairs_mut()
            .append_pair("mount", &blob.digest.to_string())
            .append_pair("from", from);
        let what = format!("{}/{repository}", self.host());
        let ask = RegistryRequest::push(Method::POST, url, &scope, what);
        let answer = self.patiently(|| self.once(&ask)).await;
        let answer = match answer {
            Ok(answer) => answer,
            Err(error @ Error::Unreachable { .. }) => return Err(error),
            // Whatever is wrong with mounting, sending may still work.
            Err(_) => return Ok(MountOutcome::No(None)),
        };
        Ok(match answer.status() {
            StatusCode::CREATED => MountOutcome::Done,
            StatusCode::ACCEPTED => MountOutcome::No(UploadSession::of(self, &answer)),
            // Also those that do not let us read there: then it is sent.
            _ => MountOutcome::No(None),
        })
    }
}
