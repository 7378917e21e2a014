//! The end of an upload: a session is ended, and the registry says that it has the blob.

use std::time::{Duration, Instant};

use reqwest::StatusCode;

use super::super::Error;
use super::super::response::RegistryResponse;
use super::super::retry::AttemptError;
use super::super::session::UploadSession;
use super::{BlobUpload, UnconfirmedUpload, UploadState};

/// An answer that took that many pauses was being worked on: the work may still end well.
const LONG: u32 = 20;

/// The longest pause between two questions whether a blob is in its place by now.
const ASKING: Duration = Duration::from_secs(10);

impl BlobUpload<'_> {
    pub(super) async fn commit(&mut self, session: UploadSession) -> Result<UploadState, Error> {
        let ask = self.put(&session.url, None);
        let answer = match self.client.once(&ask).await {
            Ok(answer) => answer,
            Err(trouble) if trouble.is_refused_for_now() => {
                self.patience.wait(trouble).await?;
                return Ok(UploadState::Commit(session));
            }
            Err(trouble) => {
                return Ok(UploadState::Settle(UnconfirmedUpload {
                    trouble,
                    waited: ask.moved.since(),
                    session: Some(session),
                }));
            }
        };
        let status = answer.status();
        if status.is_success() {
            return self.ended(&answer, Some(session));
        }
        let error = self.refusal(&ask, answer).await?;
        match status.as_u16() {
            // It has not what it said that it had.
            400 | 404 | 405 | 409 | 411 | 416 | 501 => self.refused(error).await,
            _ => Err(error),
        }
    }

    /// A session ended well, if its registry says so.
    pub(super) fn ended(
        &mut self,
        answer: &RegistryResponse,
        session: Option<UploadSession>,
    ) -> Result<UploadState, Error> {
        if answer.status() != StatusCode::CREATED {
            return Ok(UploadState::Settle(UnconfirmedUpload {
                trouble: AttemptError::passing(Error::Server {
                    what: self.what.clone(),
                    message: format!(
                        "it answered {} and has no `{}`",
                        answer.status(),
                        self.blob.digest
                    ),
                }),
                // It may have put the work off.
                waited: Duration::MAX,
                session,
            }));
        }
        // A registry may know the blob by another algorithm too.
        let said = answer.header("docker-content-digest");
        let said = said.filter(|said| said.starts_with("sha256:"));
        let expected = self.blob.digest.to_string();
        match said {
            Some(said) if expected.starts_with("sha256:") && said != expected => {
                Err(Error::Mismatch {
                    what: self.what.clone(),
                    message: format!("it took `{expected}` for `{}`", said.escape_debug()),
                })
            }
            _ => Ok(UploadState::Done),
        }
    }

    /// Asks whether the blob is in its place by now. Where the registry was at work when the
    /// connection ended, it is asked for as long as the work may take; sending it all once more
    /// would take longer, and end the same way.
    pub(super) async fn settle(
        &mut self,
        unknown: UnconfirmedUpload,
    ) -> Result<UploadState, Error> {
        let UnconfirmedUpload {
            trouble,
            waited,
            session,
        } = unknown;
        let limits = self.client.limits();
        let begun = Instant::now();
        let mut pause = limits.pause;
        loop {
            if self.is_there().await? {
                return Ok(UploadState::Done);
            }
            let is_at_work = waited >= limits.pause * LONG;
            if !is_at_work || begun.elapsed() >= limits.commit {
                break;
            }
            tokio::time::sleep(pause).await;
            pause = (2 * pause).min(ASKING);
        }
        match session {
            Some(session) => {
                self.is_fresh |= trouble.is_break();
                self.patience.wait(trouble).await?;
                Ok(UploadState::Resume(session))
            }
            None => self.broke_whole(trouble).await,
        }
    }

    pub(super) async fn is_there(&self) -> Result<bool, Error> {
        let digest = &self.blob.digest;
        self.client.has(self.scope, self.repository, digest).await
    }
}
