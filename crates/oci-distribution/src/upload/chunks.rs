//! Sending a blob in chunks: each is a `PATCH` with its content range.

use http_client::AttemptError;
use reqwest::header::{CONTENT_RANGE, CONTENT_TYPE};
use reqwest::{Method, StatusCode};

use super::super::Error;
use super::super::request::RequestBody;
use super::super::session::{UploadSession, held_bytes};
use super::{BlobUpload, UploadState, is_throttled};

/// Accepted chunks in a row after which chunks become larger again. It is not tried with a registry
/// that ends the session of a broken connection: the whole blob would have to be sent again.
const STREAK: u32 = 16;

impl BlobUpload<'_> {
    pub(super) async fn send_chunk(
        &mut self,
        session: UploadSession,
        offset: u64,
    ) -> Result<UploadState, Error> {
        let length = self.chunk.max(session.smallest_chunk);
        let end = self.blob.size.min(offset + length);
        let chunk = self.reader.chunk(offset..end);
        let mut request = self
            .request(Method::PATCH, session.url.clone())
            .with(CONTENT_TYPE, "application/octet-stream")
            .with(CONTENT_RANGE, format!("{offset}-{}", end - 1));
        request.body = RequestBody::Chunk(&chunk);
        let response = match self.client.attempt(&request).await {
            Ok(response) => response,
            Err(failure) if is_throttled(&failure) => {
                self.backoff.wait(failure).await?;
                return Ok(UploadState::SendChunk(session, offset));
            }
            Err(failure) => return self.chunk_failed(session, failure).await,
        };
        let status = response.status();
        if status.is_success() {
            // The specification says 202; some registries answer 201 or 204.
            let held = held_bytes(&response).filter(|held| *held > 0);
            let held = held.unwrap_or(end);
            let session = session.moved(self.client, &response);
            if held <= offset || held > end {
                let message =
                    format!("{end} bytes were sent, but the registry reports {held} bytes");
                let what = self.what.clone();
                return self.chunk_refused(Error::Server { what, message }).await;
            }
            return Ok(self.chunk_accepted(session, held));
        }
        let error = self.refusal(&request, response).await?;
        match status.as_u16() {
            413 if self.shrink() => Ok(UploadState::Resume(session)),
            // The registry had not noticed the broken connection before, and has now ended the
            // session.
            400 | 404 | 409 | 416 if self.is_resumed => {
                self.is_resumed = false;
                self.backoff.wait(AttemptError::transient(error)).await?;
                Ok(UploadState::Start(None))
            }
            400 | 404 | 405 | 409 | 411 | 416 | 501 => self.chunk_refused(error).await,
            _ => Err(error),
        }
    }

    fn chunk_accepted(&mut self, session: UploadSession, held: u64) -> UploadState {
        self.accepted_chunk = true;
        self.chunk_failures = 0;
        self.is_resumed = false;
        self.record_progress(held);
        self.grow();
        UploadState::SendChunk(session, held)
    }

    async fn chunk_failed(
        &mut self,
        session: UploadSession,
        failure: AttemptError<Error>,
    ) -> Result<UploadState, Error> {
        if failure.status() == Some(StatusCode::INTERNAL_SERVER_ERROR) {
            self.backoff.wait(failure).await?;
            self.chunk_failures += 1;
            // A registry that accepts chunks may fail now and then. If it fails at one chunk
            // twice, it does not accept that chunk. Where the whole blob broke on its way, the first
            // chunk is tried again, too, because the whole blob breaks again.
            let may_accept = self.accepted_chunk || self.whole_failures > 0;
            return Ok(if may_accept && self.chunk_failures < 2 {
                UploadState::Resume(session)
            } else {
                self.switch_to_whole()
            });
        }
        if failure.is_disconnect() {
            self.is_unpooled = true;
            // A smaller chunk is a new attempt. Chunks have a smallest size, so this ends.
            if self.shrink() {
                self.backoff.reset();
            }
        }
        self.backoff.wait(failure).await?;
        Ok(UploadState::Resume(session))
    }

    /// Sends the blob whole: a registry that refuses a chunk may accept that.
    pub(super) async fn chunk_refused(&mut self, error: Error) -> Result<UploadState, Error> {
        self.backoff.wait(AttemptError::transient(error)).await?;
        Ok(self.switch_to_whole())
    }

    fn switch_to_whole(&mut self) -> UploadState {
        self.in_chunks = false;
        self.chunk_failures = 0;
        self.refusals += 1;
        self.whole_failures = 0;
        UploadState::Start(None)
    }

    fn record_progress(&mut self, held: u64) {
        if held > self.furthest {
            self.furthest = held;
            self.backoff.reset();
        }
    }

    /// Halves the size of chunks; false if they have the smallest size.
    pub(super) fn shrink(&mut self) -> bool {
        let before = self.chunk;
        self.streak = 0;
        let smallest = self.client.limits().smallest_chunk;
        self.chunk = (self.chunk.min(self.blob.size) / 2).max(smallest);
        self.chunk < before
    }

    /// Doubles the size of chunks after many that were accepted.
    fn grow(&mut self) {
        self.streak += 1;
        if self.streak >= STREAK && self.keeps_partial_chunks {
            self.streak = 0;
            self.chunk = (2 * self.chunk).min(self.client.limits().chunk);
        }
    }

    /// Continues after a broken chunk: at the offset that the session reports, or in a new session.
    /// The broken request may have completed the upload, with only its response lost.
    pub(super) async fn resume(&mut self, session: UploadSession) -> Result<UploadState, Error> {
        let request = self.request(Method::GET, session.url.clone());
        let response = self
            .client
            .with_retries(|| self.client.attempt(&request))
            .await?;
        let status = response.status();
        if [StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN].contains(&status) {
            return Err(self.client.refusal(&request, response).await);
        }
        let held = held_bytes(&response);
        if let Some(held) = held.filter(|held| status.is_success() && *held <= self.blob.size) {
            // More than before means that part of the broken chunk was kept. The contrary is not
            // known: the registry may not have noticed the broken connection yet.
            self.keeps_partial_chunks |= held > self.furthest;
            self.is_resumed = true;
            self.record_progress(held);
            let session = session.moved(self.client, &response);
            return Ok(UploadState::SendChunk(session, held));
        }
        Ok(if self.has_arrived().await? {
            UploadState::Done
        } else {
            UploadState::Start(None)
        })
    }
}
