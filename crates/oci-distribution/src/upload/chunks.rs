//! A blob in pieces: each in a PATCH that says where it belongs.

use reqwest::header::{CONTENT_RANGE, CONTENT_TYPE};
use reqwest::{Method, StatusCode};

use super::super::Error;
use super::super::request::RequestBody;
use super::super::retry::AttemptError;
use super::super::session::{UploadSession, held};
use super::{BlobUpload, UploadState};

/// Pieces in a row that got through, after which they become larger again. A registry that ends
/// an upload whose connection breaks is not asked for that: it would all be sent once more.
const STREAK: u32 = 16;

impl BlobUpload<'_> {
    pub(super) async fn next_piece(
        &mut self,
        session: UploadSession,
        offset: u64,
    ) -> Result<UploadState, Error> {
        let length = self.piece.max(session.smallest);
        let end = self.blob.size.min(offset + length);
        let piece = self.reading.piece(offset..end);
        let mut ask = self
            .ask(Method::PATCH, session.url.clone())
            .with(CONTENT_TYPE, "application/octet-stream")
            .with(CONTENT_RANGE, format!("{offset}-{}", end - 1));
        ask.payload = RequestBody::Chunk(&piece);
        let answer = match self.client.once(&ask).await {
            Ok(answer) => answer,
            Err(trouble) if trouble.is_refused_for_now() => {
                self.patience.wait(trouble).await?;
                return Ok(UploadState::Pieces(session, offset));
            }
            Err(trouble) => return self.broke_piece(session, trouble).await,
        };
        let status = answer.status();
        if status.is_success() {
            // The specification says 202; some answer 201 or 204.
            let held = held(&answer).filter(|held| *held > 0).unwrap_or(end);
            let session = session.moved(self.client, &answer);
            if held <= offset || held > end {
                return self
                    .refused(Error::Server {
                        what: self.what.clone(),
                        message: format!("it was sent {end} bytes and says that it has {held}"),
                    })
                    .await;
            }
            self.took_piece = true;
            self.failures = 0;
            self.is_resumed = false;
            self.progress(held);
            self.grow();
            return Ok(UploadState::Pieces(session, held));
        }
        let error = self.refusal(&ask, answer).await?;
        match status.as_u16() {
            413 if self.shrink() => Ok(UploadState::Resume(session)),
            // The session had not seen yet that its connection broke, and is gone now.
            400 | 404 | 409 | 416 if self.is_resumed => {
                self.is_resumed = false;
                self.patience.wait(AttemptError::passing(error)).await?;
                Ok(UploadState::Begin(None))
            }
            400 | 404 | 405 | 409 | 411 | 416 | 501 => self.refused(error).await,
            _ => Err(error),
        }
    }

    async fn broke_piece(
        &mut self,
        session: UploadSession,
        trouble: AttemptError,
    ) -> Result<UploadState, Error> {
        if trouble.status() == Some(StatusCode::INTERNAL_SERVER_ERROR) {
            self.patience.wait(trouble).await?;
            self.failures += 1;
            // A registry that takes pieces may fail now and then; one that fails at the same piece
            // twice does not take it.
            return Ok(if self.took_piece && self.failures < 2 {
                UploadState::Resume(session)
            } else {
                self.whole_again()
            });
        }
        if trouble.is_break() {
            self.is_fresh = true;
            // A smaller piece is another try than all before. There is an end to it.
            if self.shrink() {
                self.patience.renew();
            }
        }
        self.patience.wait(trouble).await?;
        Ok(UploadState::Resume(session))
    }

    /// A registry that refuses a piece may take the blob whole.
    pub(super) async fn refused(&mut self, error: Error) -> Result<UploadState, Error> {
        self.patience.wait(AttemptError::passing(error)).await?;
        Ok(self.whole_again())
    }

    fn whole_again(&mut self) -> UploadState {
        self.in_pieces = false;
        self.failures = 0;
        self.refusals += 1;
        self.breaks = 0;
        UploadState::Begin(None)
    }

    fn progress(&mut self, held: u64) {
        if held > self.furthest {
            self.furthest = held;
            self.patience.renew();
        }
    }

    /// Sends less at once from now on, if there is less.
    pub(super) fn shrink(&mut self) -> bool {
        let before = self.piece;
        self.streak = 0;
        let smallest = self.client.limits().smallest_piece;
        self.piece = (self.piece.min(self.blob.size) / 2).max(smallest);
        self.piece < before
    }

    /// Sends more at once after many pieces that got through.
    fn grow(&mut self) {
        self.streak += 1;
        if self.streak >= STREAK && self.resumes {
            self.streak = 0;
            self.piece = (2 * self.piece).min(self.client.limits().piece);
        }
    }

    /// Finds out from where to go on after a break: the session says, or a new one begins. Also
    /// sees where the last request did its work and only its answer was lost.
    pub(super) async fn resume(&mut self, session: UploadSession) -> Result<UploadState, Error> {
        let ask = self.ask(Method::GET, session.url.clone());
        let answer = self.client.patiently(|| self.client.once(&ask)).await?;
        let status = answer.status();
        if [StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN].contains(&status) {
            return Err(self.client.refusal(&ask, answer).await);
        }
        let held = held(&answer).filter(|held| status.is_success() && *held <= self.blob.size);
        if let Some(held) = held {
            // Part of a broken piece was kept. Less would not show it: a registry may be asked
            // before it has itself seen the break, after which it ends the upload.
            self.resumes |= held > self.furthest;
            self.is_resumed = true;
            self.progress(held);
            return Ok(UploadState::Pieces(
                session.moved(self.client, &answer),
                held,
            ));
        }
        Ok(if self.is_there().await? {
            UploadState::Done
        } else {
            UploadState::Begin(None)
        })
    }
}
