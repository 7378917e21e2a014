//! The end of an upload: the session is closed, and the registry confirms that it has the blob.

use std::time::{Duration, Instant};

use http_client::AttemptError;
use reqwest::StatusCode;

use super::super::Error;
use super::super::response::RegistryResponse;
use super::super::session::UploadSession;
use super::{BlobUpload, UnconfirmedUpload, UploadState, is_throttled};

/// If the last request of an upload fails only after this many pauses, the registry is assumed to be
/// still storing the blob.
const BUSY_AFTER_PAUSES: u32 = 20;

/// The longest pause between two checks whether the registry has stored the blob.
const LONGEST_CHECK_PAUSE: Duration = Duration::from_secs(10);

impl BlobUpload<'_> {
    pub(super) async fn commit(&mut self, session: UploadSession) -> Result<UploadState, Error> {
        let request = self.closing_request(&session.url, None);
        let response = match self.client.attempt(&request).await {
            Ok(response) => response,
            Err(failure) if is_throttled(&failure) => {
                self.backoff.wait(failure).await?;
                return Ok(UploadState::Commit(session));
            }
            Err(failure) => {
                return Ok(UploadState::Confirm(UnconfirmedUpload {
                    failure,
                    waited: request.progress.elapsed(),
                    session: Some(session),
                }));
            }
        };
        let status = response.status();
        if status.is_success() {
            return self.closed(&response, Some(session));
        }
        let error = self.refusal(&request, response).await?;
        match status.as_u16() {
            // The session does not hold the bytes that it reported.
            400 | 404 | 405 | 409 | 411 | 416 | 501 => self.chunk_refused(error).await,
            _ => Err(error),
        }
    }

    /// Judges the successful response that closes a session.
    pub(super) fn closed(
        &mut self,
        response: &RegistryResponse,
        session: Option<UploadSession>,
    ) -> Result<UploadState, Error> {
        if response.status() != StatusCode::CREATED {
            return Ok(UploadState::Confirm(UnconfirmedUpload {
                failure: AttemptError::transient(Error::Server {
                    what: self.what.clone(),
                    message: format!(
                        "the registry responded with {} but does not have the blob `{}`",
                        response.status(),
                        self.blob.digest
                    ),
                }),
                // It may store the blob later.
                waited: Duration::MAX,
                session,
            }));
        }
        // A registry may name the blob by another algorithm's digest.
        let reported = response.header("docker-content-digest");
        let reported = reported.filter(|digest| digest.starts_with("sha256:"));
        let expected = self.blob.digest.to_string();
        match reported {
            Some(reported) if expected.starts_with("sha256:") && reported != expected => {
                Err(Error::DigestMismatch {
                    what: self.what.clone(),
                    message: format!(
                        "the registry stored the blob `{expected}` with the digest `{}`",
                        reported.escape_debug()
                    ),
                })
            }
            _ => Ok(UploadState::Done),
        }
    }

    /// Checks whether the registry has stored the blob. If it was busy when the connection ended,
    /// it is asked for as long as that may take: a second upload would take longer and end the same
    /// way.
    pub(super) async fn confirm(
        &mut self,
        unconfirmed: UnconfirmedUpload,
    ) -> Result<UploadState, Error> {
        let UnconfirmedUpload {
            failure,
            waited,
            session,
        } = unconfirmed;
        let limits = self.client.limits();
        let started = Instant::now();
        let mut pause = limits.retry.pause;
        loop {
            if self.has_arrived().await? {
                return Ok(UploadState::Done);
            }
            let is_busy = waited >= limits.retry.pause * BUSY_AFTER_PAUSES;
            if !is_busy || started.elapsed() >= limits.commit {
                break;
            }
            tokio::time::sleep(pause).await;
            pause = (2 * pause).min(LONGEST_CHECK_PAUSE);
        }
        match session {
            Some(session) => {
                self.is_unpooled |= failure.is_disconnect();
                self.backoff.wait(failure).await?;
                Ok(UploadState::Resume(session))
            }
            None => self.whole_failed(failure).await,
        }
    }

    pub(super) async fn has_arrived(&self) -> Result<bool, Error> {
        let digest = &self.blob.digest;
        self.client
            .has_blob(self.scope, self.repository, digest)
            .await
    }
}
