//! Sending a blob, as a machine whose states are [`UploadState`]'s.
//!
//! ```text
//! Begin ─► Whole ─────────────────────────────► Done
//!   │        │ no answer to the last byte ─► Settle ─► Done, or Begin
//!   │        └ too large, or broke twice ──► Begin, in pieces
//!   └────► Pieces ─► … ─► Commit ─────────────► Done
//!            │ ▲             └ no answer ──► Settle
//!            │ └─ Resume ◄─ broke
//!            └ refused ──────────────────────► Begin, whole
//! ```
//!
//! A blob goes whole first: every registry takes that. Pieces help where a proxy limits how long a
//! request may be, or where connections break; several registries take none, or not the second.
//! What a registry turned out to take is remembered for the run.

mod chunks;
mod end;

use std::time::Duration;

use reqwest::header::CONTENT_TYPE;
use reqwest::{Method, StatusCode, Url};

use super::auth::TokenScope;
use super::client::Client;
use super::request::{RegistryRequest, RequestBody};
use super::response::RegistryResponse;
use super::retry::{AttemptError, Backoff};
use super::session::UploadSession;
use super::source::{BlobChunk, BlobReader};
use super::{BlobSource, Error};
use oci::Descriptor;

/// How often a connection may break, or the registry fail, while a blob goes whole, before it goes
/// in pieces.
const BREAKS: u32 = 2;

/// How often a registry may refuse a piece of a blob before the blob goes whole or not at all: one
/// that fails now and then refuses too.
const REFUSALS: u32 = 3;

/// Where an upload is.
enum UploadState {
    /// Nothing is sent yet, or nothing that counts.
    Begin(Option<UploadSession>),
    /// All of the blob goes in one request.
    Whole(UploadSession),
    /// The session holds so many bytes, and the next piece goes.
    Pieces(UploadSession, u64),
    /// A piece broke: the session is asked what it holds.
    Resume(UploadSession),
    /// The session holds everything; a request without a body ends it.
    Commit(UploadSession),
    /// Everything was sent, and whether the blob is in its place is not known.
    Settle(UnconfirmedUpload),
    /// The repository has the blob.
    Done,
}

/// What is known where the answer to the last byte did not come.
struct UnconfirmedUpload {
    trouble: AttemptError,
    /// How long the answer was waited for.
    waited: Duration,
    /// The session, if it may have to go on.
    session: Option<UploadSession>,
}

/// A blob on its way.
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is something that was seen of the registry, and none excludes another"
)]
pub struct BlobUpload<'a> {
    client: &'a Client,
    repository: &'a str,
    what: String,
    scope: &'a TokenScope,
    blob: &'a Descriptor,
    reading: BlobReader,
    patience: Backoff,
    /// Whether it goes in pieces now.
    in_pieces: bool,
    /// Bytes of a piece.
    piece: u64,
    /// Pieces that got through since one did not.
    streak: u32,
    /// Whether the registry has taken a piece of this blob.
    took_piece: bool,
    /// How often the registry has refused one.
    refusals: u32,
    /// How often in a row it has failed at one.
    failures: u32,
    /// Whether the blob did not get through whole.
    failed_whole: bool,
    /// How often it went whole and did not arrive.
    breaks: u32,
    /// Bytes that any session ever held. Only what goes beyond is progress: a registry that
    /// loses sessions again and again is not sent to forever.
    furthest: u64,
    /// Whether every request gets its own connection.
    is_fresh: bool,
    /// Whether the registry keeps what a broken connection brought.
    resumes: bool,
    /// Whether the session is one whose last piece broke.
    is_resumed: bool,
}

impl<'a> BlobUpload<'a> {
    /// Nothing is sent yet.
    pub fn new(
        client: &'a Client,
        repository: &'a str,
        scope: &'a TokenScope,
        blob: &'a Descriptor,
        source: BlobSource<'_>,
    ) -> Self {
        let habits = client.learnt().get();
        Self {
            client,
            repository,
            what: format!("{}/{repository}", client.host()),
            scope,
            blob,
            reading: BlobReader::new(blob, source),
            patience: Backoff::new(client.limits()),
            in_pieces: habits.takes_pieces && blob.size >= habits.too_large,
            piece: habits.piece.unwrap_or(client.limits().piece),
            streak: 0,
            took_piece: false,
            refusals: if habits.takes_pieces { 0 } else { REFUSALS },
            failures: 0,
            failed_whole: false,
            breaks: 0,
            furthest: 0,
            is_fresh: false,
            resumes: false,
            is_resumed: false,
        }
    }

    /// Sends it, beginning in this session if there is one.
    pub async fn run(mut self, session: Option<UploadSession>) -> Result<(), Error> {
        let mut state = UploadState::Begin(session);
        loop {
            let next = self.step(state).await;
            // A file that cannot be read, or was altered, explains whatever else went wrong.
            if let Some(wrong) = self.reading.take_wrong() {
                return Err(wrong);
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
            UploadState::Begin(session) => {
                let session = match session {
                    Some(session) => session,
                    None => self.client.open(self.repository, self.scope).await?,
                };
                Ok(if self.in_pieces {
                    UploadState::Pieces(session, 0)
                } else {
                    UploadState::Whole(session)
                })
            }
            UploadState::Whole(session) => self.whole(session).await,
            UploadState::Pieces(session, offset) if offset == self.blob.size => {
                Ok(UploadState::Commit(session))
            }
            UploadState::Pieces(session, offset) => self.next_piece(session, offset).await,
            UploadState::Resume(session) => self.resume(session).await,
            UploadState::Commit(session) => self.commit(session).await,
            UploadState::Settle(unknown) => self.settle(unknown).await,
            UploadState::Done => Ok(UploadState::Done),
        }
    }

    async fn whole(&mut self, session: UploadSession) -> Result<UploadState, Error> {
        let piece = self.reading.piece(0..self.blob.size);
        let ask = self.put(&session.url, Some(&piece));
        let answer = match self.client.once(&ask).await {
            Ok(answer) => answer,
            Err(trouble) if trouble.is_refused_for_now() => {
                self.patience.wait(trouble).await?;
                return Ok(UploadState::Whole(session));
            }
            Err(trouble) if ask.moved.is_sent() => {
                return Ok(UploadState::Settle(UnconfirmedUpload {
                    trouble,
                    waited: ask.moved.since(),
                    session: None,
                }));
            }
            Err(trouble) => return self.broke_whole(trouble).await,
        };
        let status = answer.status();
        if status.is_success() {
            return self.ended(&answer, None);
        }
        let error = self.refusal(&ask, answer).await?;
        match status.as_u16() {
            413 if self.divide() => Ok(UploadState::Begin(None)),
            // Registries have many ways to say that a session is gone or was used.
            400 | 404 | 409 | 416 => {
                self.patience.wait(AttemptError::passing(error)).await?;
                Ok(UploadState::Begin(None))
            }
            _ => Err(error),
        }
    }

    /// The blob does not get through whole: it goes in pieces from now on, unless the registry
    /// takes none, or a piece of it would be all of it.
    fn divide(&mut self) -> bool {
        let takes_pieces = self.refusals < REFUSALS;
        if self.piece >= self.blob.size {
            self.shrink();
        }
        if !takes_pieces || self.piece >= self.blob.size {
            return false;
        }
        if !self.failed_whole {
            self.patience.renew();
        }
        self.failed_whole = true;
        self.in_pieces = true;
        true
    }

    async fn broke_whole(&mut self, trouble: AttemptError) -> Result<UploadState, Error> {
        self.is_fresh |= trouble.is_break();
        self.breaks += 1;
        self.patience.wait(trouble).await?;
        if self.breaks >= BREAKS {
            self.divide();
        }
        Ok(UploadState::Begin(None))
    }

    fn ask(&self, method: Method, url: Url) -> RegistryRequest<'a> {
        let mut ask = RegistryRequest::push(method, url, self.scope, self.what.clone());
        ask.is_fresh = self.is_fresh;
        ask
    }

    /// Ends a session, with what it does not hold yet.
    fn put<'b>(&self, url: &Url, piece: Option<&'b BlobChunk>) -> RegistryRequest<'b>
    where
        'a: 'b,
    {
        let mut url = url.clone();
        url.query_pairs_mut()
            .append_pair("digest", &self.blob.digest.to_string());
        let mut ask: RegistryRequest<'b> = self
            .ask(Method::PUT, url)
            .with(CONTENT_TYPE, "application/octet-stream");
        ask.is_commit = true;
        if let Some(piece) = piece.filter(|piece| piece.length() > 0) {
            ask.payload = RequestBody::Chunk(piece);
        }
        ask
    }

    /// The error of a refusal in a session.
    async fn refusal(
        &self,
        ask: &RegistryRequest<'_>,
        answer: RegistryResponse,
    ) -> Result<Error, Error> {
        let status = answer.status();
        let (code, message) = self.client.said(answer).await;
        if status == StatusCode::BAD_REQUEST && code == "DIGEST_INVALID" {
            // What arrived is not what was read: was it read right?
            self.reading.look_again().await?;
        }
        Ok(match status {
            StatusCode::NOT_FOUND => Error::Server {
                what: self.what.clone(),
                message: format!("it has lost the upload: {message}"),
            },
            _ => self.client.refused(ask, status, message),
        })
    }

    /// Remembers what the registry turned out to take.
    fn learn(&self) {
        let (size, piece) = (self.blob.size, self.piece);
        if self.in_pieces {
            self.client.learnt().set(|habits| {
                if self.failed_whole {
                    habits.too_large = habits.too_large.min(size);
                }
                habits.piece = Some(piece);
            });
        } else if self.refusals >= REFUSALS && !self.took_piece {
            self.client
                .learnt()
                .set(|habits| habits.takes_pieces = false);
        }
    }
}
