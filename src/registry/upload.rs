//! Sending a blob, as a machine whose states are [`State`]'s.
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

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use reqwest::header::{CONTENT_RANGE, CONTENT_TYPE};
use reqwest::{Method, StatusCode, Url};

use super::answer::Answer;
use super::ask::{Ask, Payload};
use super::auth::Scope;
use super::client::Client;
use super::retry::{Patience, Trouble};
use super::session::{Session, held};
use super::source::{Piece, Reading};
use super::{Error, Source};
use crate::oci::Descriptor;

/// How often a connection may break, or the registry fail, while a blob goes whole, before it goes
/// in pieces.
const BREAKS: u32 = 2;

/// Pieces in a row that got through, after which they become larger again. A registry that ends
/// an upload whose connection breaks is not asked for that: it would all be sent once more.
const STREAK: u32 = 16;

/// An answer that took that many pauses was being worked on: the work may still end well.
const LONG: u32 = 20;

/// The longest pause between two questions whether a blob is in its place by now.
const ASKING: Duration = Duration::from_secs(10);

/// What a registry takes, as far as this run knows.
#[derive(Debug, Clone, Copy)]
struct Habits {
    /// Blobs of so many bytes and more do not get through whole.
    too_large: u64,
    /// Bytes of a piece that gets through.
    piece: Option<u64>,
    /// Whether it takes pieces.
    takes_pieces: bool,
}

/// What uploads of one run have learnt of a registry, so that a thousand images do not each learn
/// it anew.
pub struct Learnt(Mutex<Habits>);

impl Default for Learnt {
    fn default() -> Self {
        Self(Mutex::new(Habits {
            too_large: u64::MAX,
            piece: None,
            takes_pieces: true,
        }))
    }
}

impl Learnt {
    fn get(&self) -> Habits {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, change: impl FnOnce(&mut Habits)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// Where an upload is.
enum State {
    /// Nothing is sent yet, or nothing that counts.
    Begin(Option<Session>),
    /// All of the blob goes in one request.
    Whole(Session),
    /// The session holds so many bytes, and the next piece goes.
    Pieces(Session, u64),
    /// A piece broke: the session is asked what it holds.
    Resume(Session),
    /// The session holds everything; a request without a body ends it.
    Commit(Session),
    /// Everything was sent, and whether the blob is in its place is not known.
    Settle(Unknown),
    /// The repository has the blob.
    Done,
}

/// What is known where the answer to the last byte did not come.
struct Unknown {
    trouble: Trouble,
    /// How long the answer was waited for.
    waited: Duration,
    /// The session, if it may have to go on.
    session: Option<Session>,
}

/// A blob on its way.
pub struct Upload<'a> {
    client: &'a Client,
    repository: &'a str,
    what: String,
    scope: &'a Scope,
    blob: &'a Descriptor,
    reading: Reading,
    patience: Patience,
    /// Whether it goes in pieces now.
    in_pieces: bool,
    /// Bytes of a piece.
    piece: u64,
    /// Pieces that got through since one did not.
    streak: u32,
    /// Whether the registry has taken a piece of this blob.
    took_piece: bool,
    /// Whether the registry has refused one.
    refused_piece: bool,
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

impl<'a> Upload<'a> {
    /// Nothing is sent yet.
    pub fn new(
        client: &'a Client,
        repository: &'a str,
        scope: &'a Scope,
        blob: &'a Descriptor,
        source: Source<'_>,
    ) -> Self {
        let habits = client.learnt().get();
        Self {
            client,
            repository,
            what: format!("{}/{repository}", client.host()),
            scope,
            blob,
            reading: Reading::new(blob, source),
            patience: Patience::new(client.limits()),
            in_pieces: habits.takes_pieces && blob.size >= habits.too_large,
            piece: habits.piece.unwrap_or(client.limits().piece),
            streak: 0,
            took_piece: false,
            refused_piece: !habits.takes_pieces,
            failed_whole: false,
            breaks: 0,
            furthest: 0,
            is_fresh: false,
            resumes: false,
            is_resumed: false,
        }
    }

    /// Sends it, beginning in this session if there is one.
    pub async fn run(mut self, session: Option<Session>) -> Result<(), Error> {
        let mut state = State::Begin(session);
        loop {
            let next = self.step(state).await;
            // A file that cannot be read, or was altered, explains whatever else went wrong.
            if let Some(wrong) = self.reading.take_wrong() {
                return Err(wrong);
            }
            state = next?;
            if matches!(state, State::Done) {
                self.learn();
                return Ok(());
            }
        }
    }

    async fn step(&mut self, state: State) -> Result<State, Error> {
        match state {
            State::Begin(session) => {
                let session = match session {
                    Some(session) => session,
                    None => self.client.open(self.repository, self.scope).await?,
                };
                Ok(if self.in_pieces {
                    State::Pieces(session, 0)
                } else {
                    State::Whole(session)
                })
            }
            State::Whole(session) => self.whole(session).await,
            State::Pieces(session, offset) if offset == self.blob.size => {
                Ok(State::Commit(session))
            }
            State::Pieces(session, offset) => self.next_piece(session, offset).await,
            State::Resume(session) => self.resume(session).await,
            State::Commit(session) => self.commit(session).await,
            State::Settle(unknown) => self.settle(unknown).await,
            State::Done => Ok(State::Done),
        }
    }

    // ---- whole -----------------------------------------------------------------------------

    async fn whole(&mut self, session: Session) -> Result<State, Error> {
        let piece = self.reading.piece(0..self.blob.size);
        let ask = self.put(&session.url, Some(&piece));
        let answer = match self.client.once(&ask).await {
            Ok(answer) => answer,
            Err(trouble) if trouble.is_refused_for_now() => {
                self.patience.wait(trouble).await?;
                return Ok(State::Whole(session));
            }
            Err(trouble) if ask.moved.is_sent() => {
                return Ok(State::Settle(Unknown {
                    trouble,
                    waited: ask.moved.since(),
                    session: None,
                }));
            }
            Err(trouble) => return self.broke_whole(trouble).await,
        };
        let status = answer.status();
        if status.is_success() {
            return self.ended(answer, None);
        }
        let error = self.refusal(&ask, answer).await?;
        match status.as_u16() {
            413 if self.divide() => Ok(State::Begin(None)),
            // Registries have many ways to say that a session is gone or was used.
            400 | 404 | 409 | 416 => {
                self.patience.wait(Trouble::passing(error)).await?;
                Ok(State::Begin(None))
            }
            _ => Err(error),
        }
    }

    /// The blob does not get through whole: it goes in pieces from now on, unless the registry
    /// takes none, or a piece of it would be all of it.
    fn divide(&mut self) -> bool {
        let takes_pieces = self.took_piece || !self.refused_piece;
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

    async fn broke_whole(&mut self, trouble: Trouble) -> Result<State, Error> {
        self.is_fresh |= trouble.is_break();
        self.breaks += 1;
        self.patience.wait(trouble).await?;
        if self.breaks >= BREAKS {
            self.divide();
        }
        Ok(State::Begin(None))
    }

    // ---- pieces ----------------------------------------------------------------------------

    async fn next_piece(&mut self, session: Session, offset: u64) -> Result<State, Error> {
        let length = self.piece.max(session.smallest);
        let end = self.blob.size.min(offset + length);
        let piece = self.reading.piece(offset..end);
        let mut ask = self
            .ask(Method::PATCH, session.url.clone())
            .with(CONTENT_TYPE, "application/octet-stream")
            .with(CONTENT_RANGE, format!("{offset}-{}", end - 1));
        ask.payload = Payload::Piece(&piece);
        let answer = match self.client.once(&ask).await {
            Ok(answer) => answer,
            Err(trouble) if trouble.is_refused_for_now() => {
                self.patience.wait(trouble).await?;
                return Ok(State::Pieces(session, offset));
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
            self.is_resumed = false;
            self.progress(held);
            self.grow();
            return Ok(State::Pieces(session, held));
        }
        let error = self.refusal(&ask, answer).await?;
        match status.as_u16() {
            413 if self.shrink() => Ok(State::Resume(session)),
            // The session had not seen yet that its connection broke, and is gone now.
            400 | 404 | 409 | 416 if self.is_resumed => {
                self.is_resumed = false;
                self.patience.wait(Trouble::passing(error)).await?;
                Ok(State::Begin(None))
            }
            400 | 404 | 405 | 409 | 411 | 416 | 501 => self.refused(error).await,
            _ => Err(error),
        }
    }

    async fn broke_piece(&mut self, session: Session, trouble: Trouble) -> Result<State, Error> {
        if trouble.status() == Some(StatusCode::INTERNAL_SERVER_ERROR) {
            self.patience.wait(trouble).await?;
            return Ok(self.whole_again());
        }
        if trouble.is_break() {
            self.is_fresh = true;
            // A smaller piece is another try than all before. There is an end to it.
            if self.shrink() {
                self.patience.renew();
            }
        }
        self.patience.wait(trouble).await?;
        Ok(State::Resume(session))
    }

    /// A registry that refuses a piece may take the blob whole.
    async fn refused(&mut self, error: Error) -> Result<State, Error> {
        self.patience.wait(Trouble::passing(error)).await?;
        Ok(self.whole_again())
    }

    fn whole_again(&mut self) -> State {
        self.in_pieces = false;
        self.refused_piece = true;
        self.breaks = 0;
        State::Begin(None)
    }

    fn progress(&mut self, held: u64) {
        if held > self.furthest {
            self.furthest = held;
            self.patience.renew();
        }
    }

    /// Sends less at once from now on, if there is less.
    fn shrink(&mut self) -> bool {
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
    async fn resume(&mut self, session: Session) -> Result<State, Error> {
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
            return Ok(State::Pieces(session.moved(self.client, &answer), held));
        }
        Ok(if self.is_there().await? {
            State::Done
        } else {
            State::Begin(None)
        })
    }

    // ---- the end ---------------------------------------------------------------------------

    async fn commit(&mut self, session: Session) -> Result<State, Error> {
        let ask = self.put(&session.url, None);
        let answer = match self.client.once(&ask).await {
            Ok(answer) => answer,
            Err(trouble) if trouble.is_refused_for_now() => {
                self.patience.wait(trouble).await?;
                return Ok(State::Commit(session));
            }
            Err(trouble) => {
                return Ok(State::Settle(Unknown {
                    trouble,
                    waited: ask.moved.since(),
                    session: Some(session),
                }));
            }
        };
        let status = answer.status();
        if status.is_success() {
            return self.ended(answer, Some(session));
        }
        let error = self.refusal(&ask, answer).await?;
        match status.as_u16() {
            // It has not what it said that it had.
            400 | 404 | 405 | 409 | 411 | 416 | 501 => self.refused(error).await,
            _ => Err(error),
        }
    }

    /// A session ended well, if its registry says so.
    fn ended(&mut self, answer: Answer, session: Option<Session>) -> Result<State, Error> {
        if answer.status() != StatusCode::CREATED {
            return Ok(State::Settle(Unknown {
                trouble: Trouble::passing(Error::Server {
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
            _ => Ok(State::Done),
        }
    }

    /// Asks whether the blob is in its place by now. Where the registry was at work when the
    /// connection ended, it is asked for as long as the work may take; sending it all once more
    /// would take longer, and end the same way.
    async fn settle(&mut self, unknown: Unknown) -> Result<State, Error> {
        let Unknown {
            trouble,
            waited,
            session,
        } = unknown;
        let limits = self.client.limits();
        let begun = Instant::now();
        let mut pause = limits.pause;
        loop {
            if self.is_there().await? {
                return Ok(State::Done);
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
                Ok(State::Resume(session))
            }
            None => self.broke_whole(trouble).await,
        }
    }

    async fn is_there(&self) -> Result<bool, Error> {
        let digest = &self.blob.digest;
        self.client.has(self.scope, self.repository, digest).await
    }

    // ---- requests --------------------------------------------------------------------------

    fn ask(&self, method: Method, url: Url) -> Ask<'a> {
        let mut ask = Ask::push(method, url, self.scope, self.what.clone());
        ask.is_fresh = self.is_fresh;
        ask
    }

    /// Ends a session, with what it does not hold yet.
    fn put<'b>(&self, url: &Url, piece: Option<&'b Piece>) -> Ask<'b>
    where
        'a: 'b,
    {
        let mut url = url.clone();
        url.query_pairs_mut()
            .append_pair("digest", &self.blob.digest.to_string());
        let mut ask: Ask<'b> = self
            .ask(Method::PUT, url)
            .with(CONTENT_TYPE, "application/octet-stream");
        ask.is_commit = true;
        if let Some(piece) = piece.filter(|piece| piece.length() > 0) {
            ask.payload = Payload::Piece(piece);
        }
        ask
    }

    /// The error of a refusal in a session.
    async fn refusal(&self, ask: &Ask<'_>, answer: Answer) -> Result<Error, Error> {
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
        } else if self.refused_piece && !self.took_piece {
            self.client
                .learnt()
                .set(|habits| habits.takes_pieces = false);
        }
    }
}
