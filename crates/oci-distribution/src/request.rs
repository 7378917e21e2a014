//! One request: sent as whom the registry wants, followed where it leads, and judged.
//!
//! Redirects are followed here and not by the HTTP client, because credentials go to the registry
//! alone, and a 401 of another host is no challenge to answer.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use reqwest::header::{AUTHORIZATION, CONTENT_LENGTH, HeaderName, HeaderValue, LOCATION};
use reqwest::{Method, StatusCode, Url};

use super::Error;
use super::address::reason;
use super::auth::TokenScope;
use super::client::Client;
use super::response::RegistryResponse;
use super::retry::AttemptError;
use super::source::BlobChunk;

/// Redirects that are followed in a row.
const REDIRECTS: usize = 5;

/// What a request is for, which is what a refusal is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestPurpose {
    /// To see whether the login is good.
    Check,
    /// To read.
    Read,
    /// To write.
    Push,
}

/// What is sent with a request.
pub enum RequestBody<'a> {
    None,
    Bytes(&'a [u8]),
    Chunk(&'a BlobChunk),
}

/// A request that can be made again and again.
pub struct RegistryRequest<'a> {
    pub method: Method,
    pub url: Url,
    pub scope: &'a TokenScope,
    pub purpose: RequestPurpose,
    /// As people are told.
    pub what: String,
    pub headers: Vec<(HeaderName, String)>,
    pub payload: RequestBody<'a>,
    /// Whether it gets a connection of its own.
    pub is_fresh: bool,
    /// Whether the registry has long work to do when it has got everything.
    pub is_commit: bool,
    /// How far it is.
    pub moved: TransferProgress,
}

impl<'a> RegistryRequest<'a> {
    /// To read something.
    pub fn read(method: Method, url: Url, scope: &'a TokenScope, what: String) -> Self {
        Self {
            method,
            url,
            scope,
            purpose: RequestPurpose::Read,
            what,
            headers: Vec::new(),
            payload: RequestBody::None,
            is_fresh: false,
            is_commit: false,
            moved: TransferProgress::default(),
        }
    }

    /// To write something.
    pub fn push(method: Method, url: Url, scope: &'a TokenScope, what: String) -> Self {
        Self {
            purpose: RequestPurpose::Push,
            ..Self::read(method, url, scope, what)
        }
    }

    /// With this header too.
    pub fn with(mut self, name: HeaderName, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}

/// When a byte of a request was last seen on its way, and whether that was its last.
#[derive(Clone)]
pub struct TransferProgress(Arc<Mutex<(Instant, bool)>>);

impl Default for TransferProgress {
    fn default() -> Self {
        Self(Arc::new(Mutex::new((Instant::now(), false))))
    }
}

impl TransferProgress {
    /// A byte moves now; whether it is the last one.
    pub fn now(&self, is_last: bool) {
        *self.lock() = (Instant::now(), is_last);
    }

    /// How long ago a byte was last seen.
    pub fn since(&self) -> Duration {
        self.lock().0.elapsed()
    }

    /// Whether everything has left.
    pub fn is_sent(&self) -> bool {
        self.lock().1
    }

    fn lock(&self) -> MutexGuard<'_, (Instant, bool)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Client {
    /// Tries once. What another try may help is trouble; every other answer is the caller's.
    pub(super) async fn once(
        &self,
        ask: &RegistryRequest<'_>,
    ) -> Result<RegistryResponse, AttemptError> {
        let mut url = ask.url.clone();
        for _ in 0..=REDIRECTS {
            let answer = self.answered(ask, &url).await?;
            let is_reading = [Method::GET, Method::HEAD].contains(&ask.method);
            let followed: &[u16] = if is_reading {
                &[301, 302, 303, 307, 308]
            } else {
                &[307, 308]
            };
            if !followed.contains(&answer.status().as_u16()) {
                return self.judge(ask, answer).await;
            }
            let next = answer.header(LOCATION.as_str());
            let next = next.and_then(|next| self.led(&url, next));
            // What is written goes nowhere but where the registry was told to be.
            let is_good = |next: &Url| {
                let is_hidden = next.scheme() == "https" || url.scheme() == "http";
                is_hidden && (is_reading || next.origin() == url.origin())
            };
            match next.filter(is_good) {
                Some(next) => url = next,
                None => return Err(self.refusal(ask, answer).await.into()),
            }
        }
        Err(AttemptError::Final(self.refused(
            ask,
            StatusCode::LOOP_DETECTED,
            "it redirects again and again".into(),
        )))
    }

    /// The answer of one address, after its challenge.
    async fn answered(
        &self,
        ask: &RegistryRequest<'_>,
        url: &Url,
    ) -> Result<RegistryResponse, AttemptError> {
        if !self.is_own(url) {
            return self.send(ask, url, None).await;
        }
        let header = self.auth().header(self, ask, None).await?;
        let answer = self.send(ask, url, header).await?;
        if answer.status() != StatusCode::UNAUTHORIZED {
            return Ok(answer);
        }
        self.auth().learn(ask.scope, answer.headers()).await;
        let again = self.auth().header(self, ask, answer.secret()).await?;
        if again.as_ref() == answer.secret() {
            return Ok(answer);
        }
        // Read to its end, so that its connection serves the next one.
        let _ = self.said(answer).await;
        self.send(ask, url, again).await
    }

    async fn send(
        &self,
        ask: &RegistryRequest<'_>,
        url: &Url,
        secret: Option<HeaderValue>,
    ) -> Result<RegistryResponse, AttemptError> {
        let mut request = self
            .http(ask.is_fresh)
            .request(ask.method.clone(), url.clone());
        for (name, value) in &ask.headers {
            request = request.header(name, value);
        }
        if let Some(secret) = &secret {
            request = request.header(AUTHORIZATION, secret);
        }
        ask.moved.now(!matches!(ask.payload, RequestBody::Chunk(_)));
        request = match ask.payload {
            RequestBody::None if ask.method == Method::GET || ask.method == Method::HEAD => request,
            RequestBody::None => request.header(CONTENT_LENGTH, 0),
            RequestBody::Bytes(bytes) => request.body(bytes.to_vec()),
            RequestBody::Chunk(piece) => request
                .header(CONTENT_LENGTH, piece.length())
                .body(piece.body(&ask.moved).await?),
        };
        let commit = ask.is_commit.then_some(self.limits().commit);
        let sending = request.send();
        let response = self.while_moving(sending, &ask.moved, commit).await?;
        self.has_answered();
        Ok(RegistryResponse::new(response, secret))
    }

    /// What comes, unless nothing does for too long.
    pub(super) async fn in_time<T>(
        &self,
        coming: impl Future<Output = reqwest::Result<T>>,
    ) -> Result<T, AttemptError> {
        self.while_moving(coming, &TransferProgress::default(), None)
            .await
    }

    /// What comes, unless it has not come for too long after something has last moved. The HTTP
    /// client's own measure of silence ends an upload that takes long, although bytes move. When
    /// everything is sent, `commit` is how long the answer may take.
    async fn while_moving<T>(
        &self,
        coming: impl Future<Output = reqwest::Result<T>>,
        moved: &TransferProgress,
        commit: Option<Duration>,
    ) -> Result<T, AttemptError> {
        let unreachable = |message: String| {
            AttemptError::broken(Error::Unreachable {
                what: self.host().to_owned(),
                message,
            })
        };
        tokio::pin!(coming);
        loop {
            let silence = self.limits().silence;
            let limit = commit.filter(|_| moved.is_sent()).unwrap_or(silence);
            let left = limit.saturating_sub(moved.since());
            if left.is_zero() {
                let seconds = limit.as_secs();
                return Err(unreachable(format!("nothing moves for {seconds} s")));
            }
            tokio::select! {
                come = &mut coming => return come.map_err(|error| unreachable(reason(error))),
                () = tokio::time::sleep(left.min(silence)) => {}
            }
        }
    }
}
