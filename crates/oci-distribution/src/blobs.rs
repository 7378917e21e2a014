//! Bringing a blob to a repository: it is present, the registry mounts it from another repository,
//! or it is uploaded.

use http_client::AttemptError;
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
    /// The repository had it.
    AlreadyPresent,
    /// The registry mounted it from another repository.
    Mounted,
    /// It was uploaded.
    Uploaded,
}

/// The registry's answer to a mount.
enum MountOutcome {
    Mounted,
    /// Refused, perhaps with an upload session for the blob.
    Refused(Option<UploadSession>),
}

impl Client {
    /// Brings a blob to a repository.
    ///
    /// `from` is another repository of this registry that may have it. The client itself remembers
    /// the repositories to which it has brought the blob; of many concurrent calls for one blob,
    /// the first uploads it and the others wait.
    pub async fn put_blob(
        &self,
        repository: &str,
        blob: &Descriptor,
        source: BlobSource<'_>,
        from: Option<&str>,
    ) -> Result<PutBlob, Error> {
        if let BlobSource::Bytes(bytes) = source {
            let digest = blob.digest.like(bytes);
            if digest != blob.digest {
                return Err(Error::DigestMismatch {
                    what: self.full_reference(repository, &blob.digest.to_string()),
                    message: format!("the bytes to upload have the digest `{digest}`"),
                });
            }
        }
        let lock = self.locations().lock(blob.digest, repository).await;
        if lock.is_present() {
            return Ok(PutBlob::AlreadyPresent);
        }
        let scope = TokenScope::push(repository);
        if self.has_blob(&scope, repository, &blob.digest).await? {
            lock.record();
            return Ok(PutBlob::AlreadyPresent);
        }
        let route = lock.route().await;
        let from = match &route {
            BlobRoute::MountFrom(holder) => Some(holder.as_str()),
            BlobRoute::UploadFirst { .. } => from.filter(|from| *from != repository),
        };
        let mount = match from {
            Some(from) => self.mount(repository, blob, from).await?,
            None => MountOutcome::Refused(None),
        };
        let put = match mount {
            MountOutcome::Mounted => PutBlob::Mounted,
            MountOutcome::Refused(session) => {
                let upload = BlobUpload::new(self, repository, &scope, blob, source);
                upload.run(session).await?;
                PutBlob::Uploaded
            }
        };
        lock.record();
        Ok(put)
    }

    /// Whether a repository has a blob.
    pub(super) async fn has_blob(
        &self,
        scope: &TokenScope,
        repository: &str,
        digest: &Digest,
    ) -> Result<bool, Error> {
        let url = self.url(repository, &format!("blobs/{digest}"))?;
        let what = format!("{}/{repository}", self.host());
        let request = RegistryRequest::push(Method::HEAD, url, scope, what);
        self.with_retries(|| async {
            let response = self.attempt(&request).await?;
            match response.status() {
                StatusCode::OK => Ok(true),
                StatusCode::NOT_FOUND => Ok(false),
                // The registry redirects to a storage that refuses `HEAD`. An upload is slower,
                // but right in either case.
                _ if !self.is_same_origin(response.url()) => Ok(false),
                _ => Err(AttemptError::Final(self.refusal(&request, response).await)),
            }
        })
        .await
    }

    /// Asks the registry to mount a blob from another repository. A registry that refuses may open
    /// an upload session at once.
    async fn mount(
        &self,
        repository: &str,
        blob: &Descriptor,
        from: &str,
    ) -> Result<MountOutcome, Error> {
        let scope = TokenScope::push(repository).and_pull(from);
        let mut url = self.url(repository, "blobs/uploads/")?;
        // Checks that `from` is a valid name, although it is sent in the query.
        self.url(from, "")?;
        url.query_pairs_mut()
            .append_pair("mount", &blob.digest.to_string())
            .append_pair("from", from);
        let what = format!("{}/{repository}", self.host());
        let request = RegistryRequest::push(Method::POST, url, &scope, what);
        let response = match self.with_retries(|| self.attempt(&request)).await {
            Ok(response) => response,
            Err(error @ Error::Unreachable { .. }) => return Err(error),
            // An upload may still succeed.
            Err(_) => return Ok(MountOutcome::Refused(None)),
        };
        Ok(match response.status() {
            StatusCode::CREATED => MountOutcome::Mounted,
            StatusCode::ACCEPTED => {
                MountOutcome::Refused(UploadSession::opened_by(self, &response))
            }
            // For example, the account may not read the other repository.
            _ => MountOutcome::Refused(None),
        })
    }
}
