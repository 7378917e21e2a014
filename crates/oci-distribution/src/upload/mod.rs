//! Uploading a blob, as a state machine over [`UploadState`].
//!
//! ```text
//! Start ──► SendWhole ───────────────────────────────► Done
//!   │           │ no response to the last byte ─► Confirm ─► Done, or Start
//!   │           └ too large, or broke twice ────► Start, in chunks
//!   └─────► SendChunk ─► … ─► Commit ────────────────► Done
//!               │ ▲             └ no response ──► Confirm
//!               │ └─ Resume ◄─ broke
//!               └ refused ──────────────────────► Start, whole
//! ```
//!
//! A blob is sent whole first, since every registry supports that. Chunks help where a proxy limits
//! the size of a request, or where connections break; several registries support no chunks, or
//! refuse the second one. What a registry supports is remembered by its client.

mod chunks;
mod commit;

use std::time::Duration;

use http_client::{AttemptError, Backoff};
use reqwest::header::CONTENT_TYPE;
use reqwest::{Method, StatusCode, Url};

use super::auth::TokenScope;
use super::client::Client;
use super::request::{RegistryRequest, RequestBody};
use super::response::{ErrorMessage, RegistryResponse};
use super::session::UploadSession;
use super::source::{BlobChunk, BlobReader};
use super::{BlobSource, Error};
use oci::Descriptor;

/// How often a connection may break, or the registry fail, while a blob is sent whole, before it is
/// sent in chunks.
const MAX_WHOLE_FAILURES: u32 = 2;

/// How often a registry may refuse a chunk of a blob before the blob is sent whole or fails: a
/// registry that fails now and then also refuses chunks.
const MAX_CHUNK_REFUSALS: u32 = 3;

/// What an upload does next.
enum UploadState {
    /// Start over, in this session or a new one.
    Start(Option<UploadSession>),
    /// Send the whole blob in one request.
    SendWhole(UploadSession),
    /// Send the chunk at this offset. The session holds the bytes before it.
    SendChunk(UploadSession, u64),
    /// Ask the session how many bytes it holds, after a chunk broke.
    Resume(UploadSession),
    /// Close a session that holds everything.
    Commit(UploadSession),
    /// Find out whether the registry has stored the blob.
    Confirm(UnconfirmedUpload),
    /// The repository has the blob.
    Done,
}

/// An upload whose last byte was sent, and whose success is not known.
struct UnconfirmedUpload {
    failure: AttemptError<Error>,
    /// How long the response was waited for.
    waited: Duration,
    /// The session, if it may be continued.
    session: Option<UploadSession>,
}

/// The upload of one blob.
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is an independent observation of the registry"
)]
pub struct BlobUpload<'a> {
    client: &'a Client,
    repository: &'a str,
    what: String,
    scope: &'a TokenScope,
    blob: &'a Descriptor,
    reader: BlobReader,
    backoff: Backoff,
    /// Whether the blob is sent in chunks now.
    in_chunks: bool,
    /// Bytes of one chunk.
    chunk: u64,
    /// Chunks in a row that were accepted.
    streak: u32,
    /// Whether the registry has accepted a chunk of this blob.
    accepted_chunk: bool,
    /// How often the registry has refused a chunk.
    refusals: u32,
    /// How often in a row the registry has failed at a chunk.
    chunk_failures: u32,
    /// Whether the blob could not be sent whole.
    failed_whole: bool,
    /// How often the blob was sent whole and did not arrive.
    whole_failures: u32,
    /// The most bytes that any session has held. Only more than that is progress, so that a
    /// registry which loses sessions does not keep the upload going forever.
    furthest: u64,
    /// Whether each request gets a connection of its own.
    is_unpooled: bool,
    /// Whether the registry keeps the bytes that a broken request delivered.
    keeps_partial_chunks: bool,
    /// Whether the last chunk of the current session broke.
    is_resumed: bool,
}

impl<'a> BlobUpload<'a> {
    /// An upload that has not started.
    pub fn new(
        client: &'a Client,
        repository: &'a str,
        scope: &'a TokenScope,
        blob: &'a Descriptor,
        source: BlobSource<'_>,
    ) -> Self {
        let capabilities = client.capabilities().get();
        Self {
            client,
            repository,
            what: format!("{}/{repository}", client.host()),
            scope,
            blob,
            reader: BlobReader::new(blob, source),
            backoff: Backoff::new(client.retry_policy()),
            in_chunks: capabilities.accepts_chunks && blob.size >= capabilities.too_large,
            chunk: capabilities.chunk.unwrap_or(client.limits().chunk),
            streak: 0,
            accepted_chunk: false,
            refusals: if capabilities.accepts_chunks {
                0
            } else {
                MAX_CHUNK_REFUSALS
            },
            chunk_failures: 0,
            failed_whole: false,
            whole_failures: 0,
            furthest: 0,
            is_unpooled: false,
            keeps_partial_chunks: false,
            is_resumed: false,
        }
    }

    /// Uploads the blob, in this session if there is one.
    pub async fn run(mut self, session: Option<UploadSession>) -> Result<(), Error> {
        let mut state = UploadState::Start(session);
        loop {
            let next = self.step(state).await;
            // A file that cannot be read, or has changed, explains every other failure.
            if let Some(error) = self.reader.take_error() {
                return Err(error);
            }
            state = next?;
            if matches!(state, UploadState::Done) {
                self.learn();
                return Ok(());
            }
        }
    }

    async fn step(&mut self, state: UploadState) -> Result<UploadState, Error> {
        match state {
            UploadState::Start(session) => {
                let session = match session {
                    Some(session) => session,
                    None => {
                        self.client
                            .open_session(self.repository, self.scope)
                            .await?
                    }
                };
                Ok(if self.in_chunks {
                    UploadState::SendChunk(session, 0)
                } else {
                    UploadState::SendWhole(session)
                })
            }
            UploadState::SendWhole(session) => self.send_whole(session).await,
            UploadState::SendChunk(session, offset) if offset == self.blob.size => {
                Ok(UploadState::Commit(session))
            }
            UploadState::SendChunk(session, offset) => self.send_chunk(session, offset).await,
            UploadState::Resume(session) => self.resume(session).await,
            UploadState::Commit(session) => self.commit(session).await,
            UploadState::Confirm(unconfirmed) => self.confirm(unconfirmed).await,
            UploadState::Done => Ok(UploadState::Done),
        }
    }

    async fn send_whole(&mut self, session: UploadSession) -> Result<UploadState, Error> {
        let whole = self.reader.chunk(0..self.blob.size);
        let request = self.closing_request(&session.url, Some(&whole));
        let response = match self.client.attempt(&request).await {
            Ok(response) => response,
            Err(failure) if is_throttled(&failure) => {
                self.backoff.wait(failure).await?;
                return Ok(UploadState::SendWhole(session));
            }
            Err(failure) if request.progress.is_sent() => {
                return Ok(UploadState::Confirm(UnconfirmedUpload {
                    failure,
                    waited: request.progress.elapsed(),
                    session: None,
                }));
            }
            Err(failure) => return self.whole_failed(failure).await,
        };
        let status = response.status();
        if status.is_success() {
            return self.closed(&response, None);
        }
        let error = self.refusal(&request, response).await?;
        match status.as_u16() {
            413 if self.switch_to_chunks() => Ok(UploadState::Start(None)),
            // Registries use each of these for a session that has expired or was used.
            400 | 404 | 409 | 416 => {
                self.backoff.wait(AttemptError::transient(error)).await?;
                Ok(UploadState::Start(None))
            }
            _ => Err(error),
        }
    }

    /// Sends the blob in chunks from now on. False if the registry accepts none, or if one chunk
    /// would be the whole blob.
    fn switch_to_chunks(&mut self) -> bool {
        let accepts_chunks = self.refusals < MAX_CHUNK_REFUSALS;
        if self.chunk >= self.blob.size {
            self.shrink();
        }
        if !accepts_chunks || self.chunk >= self.blob.size {
            return false;
        }
        if !self.failed_whole {
            self.backoff.reset();
        }
        self.failed_whole = true;
        self.in_chunks = true;
        true
    }

    async fn whole_failed(&mut self, failure: AttemptError<Error>) -> Result<UploadState, Error> {
        self.is_unpooled |= failure.is_disconnect();
        self.whole_failures += 1;
        self.backoff.wait(failure).await?;
        // One more failure is enough where the blob could not be sent whole before: each one uses up
        // an attempt.
        if self.failed_whole || self.whole_failures >= MAX_WHOLE_FAILURES {
            self.switch_to_chunks();
        }
        Ok(UploadState::Start(None))
    }

    fn request(&self, method: Method, url: Url) -> RegistryRequest<'a> {
        let mut request = RegistryRequest::push(method, url, self.scope, self.what.clone());
        request.is_unpooled = self.is_unpooled;
        request
    }

    /// The request that closes a session, with the bytes that it does not hold yet.
    fn closing_request<'b>(&self, url: &Url, rest: Option<&'b BlobChunk>) -> RegistryRequest<'b>
    where
        'a: 'b,
    {
        let mut url = url.clone();
        url.query_pairs_mut()
            .append_pair("digest", &self.blob.digest.to_string());
        let mut request: RegistryRequest<'b> = self
            .request(Method::PUT, url)
            .with(CONTENT_TYPE, "application/octet-stream");
        request.is_commit = true;
        if let Some(rest) = rest.filter(|rest| rest.length() > 0) {
            request.body = RequestBody::Chunk(rest);
        }
        request
    }

    /// The error of a refusal within a session.
    async fn refusal(
        &self,
        request: &RegistryRequest<'_>,
        response: RegistryResponse,
    ) -> Result<Error, Error> {
        let status = response.status();
        let ErrorMessage { code, message } = self.client.error_message(response).await;
        if status == StatusCode::BAD_REQUEST && code == "DIGEST_INVALID" {
            // The file may have changed between two requests.
            self.reader.verify_again().await?;
        }
        Ok(match status {
            StatusCode::NOT_FOUND => Error::Server {
                what: self.what.clone(),
                message: format!("the upload session no longer exists: {message}"),
            },
            _ => self.client.status_error(request, status, message),
        })
    }

    /// Remembers what the registry supports.
    fn learn(&self) {
        let (size, chunk) = (self.blob.size, self.chunk);
        if self.in_chunks {
            self.client.capabilities().update(|capabilities| {
                if self.failed_whole {
                    capabilities.too_large = capabilities.too_large.min(size);
                }
                capabilities.chunk = Some(chunk);
            });
        } else if self.refusals >= MAX_CHUNK_REFUSALS && !self.accepted_chunk {
            self.client
                .capabilities()
                .update(|capabilities| capabilities.accepts_chunks = false);
        }
    }
}

/// Whether the registry did not look at the request, because there were too many.
fn is_throttled(failure: &AttemptError<Error>) -> bool {
    failure.status() == Some(StatusCode::TOO_MANY_REQUESTS)
}
