//! Bringing a blob to a repository: it is there, the registry mounts it from another repository,
//! or it is sent. What is sent goes in pieces, so that a break costs a piece and not a layer.

use reqwest::header::{CONTENT_RANGE, CONTENT_TYPE, LOCATION, RANGE};
use reqwest::{Method, StatusCode, Url};

use super::answer::Answer;
use super::ask::{Ask, Payload};
use super::auth::Scope;
use super::client::Client;
use super::known::Way;
use super::retry::{Patience, Trouble};
use super::source::Reading;
use super::{Error, Source};
use crate::oci::{Descriptor, Digest};

/// Pieces in a row that got through, after which they become larger again. A registry that ends
/// an upload whose connection breaks is not asked for that: it would all be sent once more.
const STREAK: u32 = 16;

/// How a blob came to a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// It was there.
    There,
    /// The registry took it from another repository.
    Mounted,
    /// It was sent.
    Uploaded,
}

impl Client {
    /// Brings a blob to a repository. `from` is another repository of this registry that may
    /// have it; of those to which this client has brought it the client knows itself, and of
    /// many who bring one blob at once the first sends it and the others wait.
    pub async fn put_blob(
        &self,
        repository: &str,
        blob: &Descriptor,
        source: Source<'_>,
        from: Option<&str>,
    ) -> Result<Sent, Error> {
        if let Source::Bytes(bytes) = source
            && Digest::of(bytes) != blob.digest
        {
            return Err(Error::Mismatch {
                what: self.named(repository, &blob.digest.to_string()),
                message: "other bytes are to be sent".into(),
            });
        }
        let turn = self.known().turn(blob.digest, repository).await;
        if turn.is_there() {
            return Ok(Sent::There);
        }
        let scope = Scope::push(repository);
        if self.has(&scope, repository, &blob.digest).await? {
            turn.note();
            return Ok(Sent::There);
        }
        let way = turn.way().await;
        let from = match &way {
            Way::From(holder) => Some(holder.as_str()),
            Way::First { .. } => from.filter(|from| *from != repository),
        };
        let session = match from {
            Some(from) => self.mount(repository, blob, from).await?,
            None => Mount::No(None),
        };
        let session = match session {
            Mount::Done => {
                turn.note();
                return Ok(Sent::Mounted);
            }
            Mount::No(session) => session,
        };
        let mut upload = Upload {
            client: self,
            repository,
            what: format!("{}/{repository}", self.host()),
            scope: &scope,
            blob,
            reading: Reading::new(blob, source),
            session: match session {
                Some(session) => session,
                None => self.open(repository, &scope).await?,
            },
            offset: 0,
            furthest: 0,
            piece: self.limits().piece,
            streak: 0,
            is_fresh: false,
            is_whole: false,
            resumes: false,
        };
        upload.run().await?;
        turn.note();
        Ok(Sent::Uploaded)
    }

    /// Asks the registry to take a blob from another repository. A registry that does not may
    /// open a session at once.
    async fn mount(&self, repository: &str, blob: &Descriptor, from: &str) -> Result<Mount, Error> {
        let scope = Scope::push(repository).and_pull(from);
        let mut url = self.url(repository, "blobs/uploads/")?;
        // Its name stands in a query, but has to be a name all the same.
        self.url(from, "")?;
        url.query_pairs_mut()
            .append_pair("mount", &blob.digest.to_string())
            .append_pair("from", from);
        let what = format!("{}/{repository}", self.host());
        let ask = Ask::push(Method::POST, url, &scope, what);
        let answer = self.patiently(|| self.once(&ask)).await;
        let answer = match answer {
            Ok(answer) => answer,
            Err(error @ Error::Unreachable { .. }) => return Err(error),
            // Whatever is wrong with mounting, sending may still work.
            Err(_) => return Ok(Mount::No(None)),
        };
        Ok(match answer.status() {
            StatusCode::CREATED => Mount::Done,
            StatusCode::ACCEPTED => Mount::No(self.session(&answer)),
            // Also those that do not let us read there: then it is sent.
            _ => Mount::No(None),
        })
    }

    /// Opens a session.
    async fn open(&self, repository: &str, scope: &Scope) -> Result<Session, Error> {
        let url = self.url(repository, "blobs/uploads/")?;
        let what = format!("{}/{repository}", self.host());
        let ask = Ask::push(Method::POST, url, scope, what);
        self.patiently(|| async {
            let answer = self.once(&ask).await?;
            if answer.status() != StatusCode::ACCEPTED {
                return Err(self.refusal(&ask, answer).await.into());
            }
            self.session(&answer).ok_or_else(|| {
                Trouble::Final(Error::Push {
                    what: ask.what.clone(),
                    message: "the registry opens an upload and does not say where".into(),
                })
            })
        })
        .await
    }

    fn session(&self, answer: &Answer) -> Option<Session> {
        let smallest = answer.header("oci-chunk-min-length");
        Some(Session {
            url: self.led(answer.url(), answer.header(LOCATION.as_str())?)?,
            smallest: smallest.and_then(|said| said.parse().ok()).unwrap_or(0),
        })
    }
}

/// What became of a mount.
enum Mount {
    Done,
    /// It was refused, perhaps with a session to send the blob in.
    No(Option<Session>),
}

/// Where a blob is sent to.
struct Session {
    /// Changes with every answer.
    url: Url,
    /// Bytes that the registry wants a piece to have at least; the last one may have fewer.
    smallest: u64,
}

/// A blob on its way.
struct Upload<'a> {
    client: &'a Client,
    repository: &'a str,
    what: String,
    scope: &'a Scope,
    blob: &'a Descriptor,
    reading: Reading,
    session: Session,
    /// Bytes that the session has.
    offset: u64,
    /// Bytes that any session ever had. Only what goes beyond is progress: a registry that
    /// loses sessions again and again is not sent to forever.
    furthest: u64,
    piece: u64,
    streak: u32,
    /// Whether every request gets its own connection.
    is_fresh: bool,
    /// Whether the registry takes no pieces.
    is_whole: bool,
    /// Whether the registry keeps what a broken connection brought.
    resumes: bool,
}

/// What a request of an upload brought.
enum Step {
    /// The blob is there.
    Done,
    /// The session has more than before.
    Further,
    /// Neither; how it is tried again.
    Not(Trouble),
    /// The request was too large for something on the way.
    TooLarge(Error),
}

impl Upload<'_> {
    async fn run(&mut self) -> Result<(), Error> {
        let mut patience = Patience::new(self.client.limits());
        loop {
            let step = self.step().await;
            if let Some(wrong) = self.reading.take_wrong() {
                return Err(wrong);
            }
            match step {
                Step::Done => return Ok(()),
                Step::Further => {
                    self.progress(&mut patience);
                    continue;
                }
                Step::TooLarge(error) => {
                    if self.is_whole || !self.shrink() {
                        return Err(error);
                    }
                }
                Step::Not(trouble) => {
                    if matches!(trouble, Trouble::Passing { is_break: true, .. }) {
                        self.is_fresh = true;
                        // A smaller piece is another try than all before. There is an end to it.
                        if self.shrink() {
                            patience.renew();
                        }
                    }
                    patience.wait(trouble).await?;
                }
            }
            // What the registry has of a broken piece is progress too.
            if self.resume().await? {
                return Ok(());
            }
            self.progress(&mut patience);
        }
    }

    fn progress(&mut self, patience: &mut Patience) {
        if self.offset > self.furthest {
            self.furthest = self.offset;
            patience.renew();
        }
    }

    fn smallest(&self) -> u64 {
        self.client
            .limits()
            .smallest_piece
            .max(self.session.smallest)
    }

    /// Sends less at once from now on, if there is less.
    fn shrink(&mut self) -> bool {
        let before = self.piece;
        self.streak = 0;
        self.piece = (self.piece.min(self.blob.size) / 2).max(self.smallest());
        self.piece < before
    }

    /// One request: all that is left, if that is one piece and nothing is there yet, a piece, or
    /// the end.
    async fn step(&mut self) -> Step {
        let left = self.blob.size - self.offset;
        let piece = self.piece.max(self.smallest());
        let is_whole = self.is_whole || self.offset == 0 && left <= piece;
        if is_whole || left == 0 {
            return self.put().await;
        }
        self.patch(piece.min(left)).await
    }

    fn ask(&self, method: Method, url: Url) -> Ask<'_> {
        let mut ask = Ask::push(method, url, self.scope, self.what.clone());
        ask.is_fresh = self.is_fresh;
        ask
    }

    /// Sends what is left, and ends the session.
    async fn put(&mut self) -> Step {
        let mut url = self.session.url.clone();
        url.query_pairs_mut()
            .append_pair("digest", &self.blob.digest.to_string());
        let piece = self.reading.piece(self.offset..self.blob.size);
        let mut ask = self
            .ask(Method::PUT, url)
            .with(CONTENT_TYPE, "application/octet-stream");
        if piece.length() > 0 {
            ask.payload = Payload::Piece(&piece);
        }
        let answer = match self.client.once(&ask).await {
            Ok(answer) => answer,
            Err(trouble) => return Step::Not(trouble),
        };
        if answer.status() != StatusCode::CREATED {
            return self.refused(&ask, answer).await;
        }
        let expected = self.blob.digest.to_string();
        match answer.header("docker-content-digest") {
            Some(said) if said.starts_with("sha256:") && said != expected => {
                Step::Not(Trouble::Final(Error::Mismatch {
                    what: self.what.clone(),
                    message: format!("it took `{expected}` for `{}`", said.escape_debug()),
                }))
            }
            _ => Step::Done,
        }
    }

    /// Sends a piece.
    async fn patch(&mut self, length: u64) -> Step {
        let end = self.offset + length;
        let piece = self.reading.piece(self.offset..end);
        let mut ask = self
            .ask(Method::PATCH, self.session.url.clone())
            .with(CONTENT_TYPE, "application/octet-stream")
            .with(CONTENT_RANGE, format!("{}-{}", self.offset, end - 1));
        ask.payload = Payload::Piece(&piece);
        let answer = match self.client.once(&ask).await {
            Ok(answer) => answer,
            Err(trouble) => return Step::Not(trouble),
        };
        // The specification says 202; some answer 201 or 204.
        if !answer.status().is_success() {
            let takes_none = [400, 405, 411, 501].contains(&answer.status().as_u16());
            if takes_none && self.offset == 0 && !self.is_whole {
                let error = self.client.refusal(&ask, answer).await;
                drop(ask);
                self.is_whole = true;
                return Step::Not(Trouble::passing(error));
            }
            return self.refused(&ask, answer).await;
        }
        let held = held(&answer).filter(|held| *held > 0).unwrap_or(end);
        let next = answer.header(LOCATION.as_str());
        let next = next.and_then(|next| self.client.led(answer.url(), next));
        drop(ask);
        if let Some(next) = next {
            self.session.url = next;
        }
        if held <= self.offset || held > end {
            return Step::Not(Trouble::passing(Error::Server {
                what: self.what.clone(),
                message: format!("it was sent {end} bytes and has {held}"),
            }));
        }
        self.offset = held;
        self.streak += 1;
        if self.streak >= STREAK && self.resumes {
            self.streak = 0;
            self.piece = (2 * self.piece).min(self.client.limits().piece);
        }
        Step::Further
    }

    /// What a refusal in a session means. Registries have many ways to say that a session is gone,
    /// or stands elsewhere; so all but the clear ones are asked about.
    async fn refused(&self, ask: &Ask<'_>, answer: Answer) -> Step {
        let status = answer.status();
        let (code, message) = self.client.said(answer).await;
        let error = match status {
            StatusCode::NOT_FOUND => Error::Server {
                what: self.what.clone(),
                message: format!("it has lost the upload: {message}"),
            },
            _ => self.client.refused(ask, status, message),
        };
        match status.as_u16() {
            413 => Step::TooLarge(error),
            // What arrived is not what was read: was it read right?
            400 if code == "DIGEST_INVALID" => match self.reading.look_again().await {
                Ok(()) => Step::Not(Trouble::passing(error)),
                Err(altered) => Step::Not(Trouble::Final(altered)),
            },
            400 | 404 | 409 | 416 => Step::Not(Trouble::passing(error)),
            _ => Step::Not(Trouble::Final(error)),
        }
    }

    /// Finds out from where to go on after a break: the session says, or a new one begins. Also
    /// sees where the last request did its work and only its answer was lost.
    async fn resume(&mut self) -> Result<bool, Error> {
        let standing = if self.is_whole {
            None
        } else {
            self.standing().await?
        };
        if let Some(offset) = standing {
            // Part of a broken piece was kept. Less would not show it: a registry may be asked
            // before it has itself seen the break, after which it ends the upload.
            self.resumes |= offset > self.offset;
            self.offset = offset;
            return Ok(false);
        }
        let digest = &self.blob.digest;
        if self.client.has(self.scope, self.repository, digest).await? {
            return Ok(true);
        }
        self.session = self.client.open(self.repository, self.scope).await?;
        self.offset = 0;
        Ok(false)
    }

    /// Bytes that the session has; nothing if it is gone, or does not say.
    async fn standing(&mut self) -> Result<Option<u64>, Error> {
        let ask = self.ask(Method::GET, self.session.url.clone());
        let asking = self.client.patiently(|| self.client.once(&ask));
        let answer = asking.await?;
        match answer.status() {
            status if status.is_success() => {}
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                return Err(self.client.refusal(&ask, answer).await);
            }
            _ => return Ok(None),
        }
        let held = held(&answer).filter(|held| *held <= self.blob.size);
        let next = answer.header(LOCATION.as_str());
        let next = next.and_then(|next| self.client.led(answer.url(), next));
        drop(ask);
        if let Some(next) = next {
            self.session.url = next;
        }
        Ok(held)
    }
}

/// Bytes that a session has, by its `Range: 0-99`. Registries write `0-0` for none; a single byte
/// would be written so too, but none is ever sent by itself.
fn held(answer: &Answer) -> Option<u64> {
    let range = answer.header(RANGE.as_str())?;
    let range = range.trim().trim_start_matches("bytes=");
    let last: u64 = range.split_once('-')?.1.trim().parse().ok()?;
    Some(if last == 0 { 0 } else { last + 1 })
}
