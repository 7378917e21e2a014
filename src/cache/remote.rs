//! A client of the Turborepo Remote Cache protocol (v8), which many teams already run a server
//! of: `GET` and `PUT /v8/artifacts/{hash}`, a bearer token, a team in the query, and a
//! signature of each artifact where a key is set.
//!
//! Nothing that goes wrong here ends a build. What is out of reach three times is left alone for
//! a while.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use futures_util::StreamExt;
use reqwest::header::{CONTENT_LENGTH, CONTENT_TYPE, LOCATION};
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode, Url};
use ring::hmac;
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{OnceCell, Semaphore};
use tokio_util::io::ReaderStream;

use super::{Cache, CachedResult, Error, Key, artifact};

/// Failures in a row after which the server is left alone.
const OUTAGES: u32 = 3;

/// For how long.
const PAUSE: Duration = Duration::from_secs(30);

/// How long a connection may take to be made.
const CONNECT: Duration = Duration::from_secs(10);

/// After how long what failed is asked once more.
const AGAIN: Duration = Duration::from_millis(200);

/// Artifacts sent at once. The others see in their turn that the server is left alone.
const SENDING: usize = 8;

/// Redirects of an artifact that are followed, without the token.
const REDIRECTS: usize = 3;

/// Bytes that are read of an answer that is no artifact.
const LONGEST_ANSWER: usize = 64 * 1024;

/// Characters that are told of what a server says.
const LONGEST_WORD: usize = 200;

/// Where the remote cache is, and as whom it is asked.
pub struct RemoteCacheSettings {
    /// Its address, without `/v8`.
    pub api: String,
    /// Bearer token.
    pub token: SecretString,
    /// The team's name.
    pub team: Option<String>,
    /// The team's id, which begins with `team_`.
    pub team_id: Option<String>,
    /// Signs artifacts, and refuses others.
    pub signature_key: Option<SecretString>,
    /// Whether nothing is uploaded.
    pub read_only: bool,
    /// How long the server may say nothing.
    pub timeout: Duration,
}

/// The remote cache of one run.
pub struct RemoteCache {
    settings: RemoteCacheSettings,
    /// The server as people are told of it: an address may have a password in it.
    host: String,
    client: Client,
    /// Whether the server wants to be used; asked once.
    enabled: OnceCell<bool>,
    /// It said that it is not to be used.
    off: AtomicBool,
    outages: Mutex<(u32, Option<Instant>)>,
    sending: Semaphore,
    warning: Mutex<PendingWarning>,
}

#[derive(Default)]
struct PendingWarning {
    message: Option<String>,
    is_told: bool,
}

/// Why a request did not bring what it should.
enum RemoteFailure {
    /// The server has no such artifact.
    Missing,
    /// It could not be reached, or has trouble itself.
    Outage(String),
    /// It said nothing for as long as it may. Not asked again: that would take as long.
    Silence,
    /// It said no.
    Refused(String),
    /// It does not take this one.
    Unfit(String),
    /// What came is not what was asked for.
    Wrong(String),
    /// The own disk.
    Local(String),
}

impl From<Error> for RemoteFailure {
    fn from(error: Error) -> Self {
        match error {
            Error::Damaged { reason } => Self::Wrong(reason),
            error => local(error),
        }
    }
}

fn local(error: impl std::fmt::Display) -> RemoteFailure {
    RemoteFailure::Local(error.to_string())
}

impl RemoteCache {
    /// Gets ready; nothing is asked yet.
    pub fn new(settings: RemoteCacheSettings) -> Result<Self, String> {
        let url = Url::parse(&settings.api)
            .map_err(|error| format!("`TURBO_API` is no address: {error}"))?;
        // reqwest is built without a TLS provider of its own. This fails where one is installed.
        let _ = rustls::crypto::ring::default_provider().install_default();
        // Time is measured here: the client's own measure of silence ends an upload that takes
        // long, although the server takes bytes all the time.
        let client = Client::builder()
            .user_agent(concat!("alokai ", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT.min(settings.timeout))
            // The token is for this server alone.
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|error| error.to_string())?;
        let key = settings.signature_key.as_ref();
        let is_short = key.is_some_and(|key| key.expose_secret().len() < 32);
        // Advice and no failure, so the first failure is still told.
        let advice = is_short.then(|| {
            "the signature key of the remote cache has fewer than 32 bytes, which turbo will refuse"
                .into()
        });
        Ok(Self {
            host: url.origin().ascii_serialization(),
            client,
            enabled: OnceCell::new(),
            off: AtomicBool::new(false),
            outages: Mutex::default(),
            sending: Semaphore::new(SENDING),
            warning: Mutex::new(PendingWarning {
                message: advice,
                is_told: false,
            }),
            settings,
        })
    }

    fn secrets(&self) -> impl Iterator<Item = &str> {
        let settings = &self.settings;
        let secrets = [Some(&settings.token), settings.signature_key.as_ref()];
        secrets
            .into_iter()
            .flatten()
            .map(ExposeSecret::expose_secret)
    }

    /// Takes token and signature key out of a text that came from outside.
    pub fn redact(&self, text: &str) -> String {
        self.secrets()
            .filter(|secret| !secret.is_empty())
            .fold(text.to_owned(), |text, secret| text.replace(secret, "***"))
    }

    /// Bytes of the longest text that [`Self::redact`] looks for.
    pub fn longest_secret(&self) -> usize {
        self.secrets().map(str::len).max().unwrap_or(0)
    }

    /// What a person should know, once.
    pub fn take_warning(&self) -> Option<String> {
        self.warning
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .message
            .take()
    }

    /// Only the first is told: what follows mostly has the same cause.
    fn warn(&self, message: String) {
        let mut warning = self.warning.lock().unwrap_or_else(PoisonError::into_inner);
        if !warning.is_told {
            warning.is_told = true;
            warning.message = Some(message);
        }
    }

    /// Brings the entry of that key into the cache, if the server has it.
    pub async fn fetch(&self, cache: &Cache, key: Key) -> Option<CachedResult> {
        if !self.is_open().await {
            return None;
        }
        let mut result = self.download(cache, key).await;
        // Reading may be repeated.
        if self.is_worth_another(&result).await {
            result = self.download(cache, key).await;
        }
        match result {
            Ok(entry) => {
                self.count(false);
                Some(entry)
            }
            Err(RemoteFailure::Missing) => {
                self.count(false);
                None
            }
            Err(trouble) => {
                self.note(trouble);
                None
            }
        }
    }

    /// Whether something failed in a way that may be over at once; then waits a moment.
    async fn is_worth_another<T>(&self, result: &Result<T, RemoteFailure>) -> bool {
        let is_worth = matches!(result, Err(RemoteFailure::Outage(_))) && self.count(true);
        if is_worth {
            tokio::time::sleep(AGAIN).await;
        }
        is_worth
    }

    /// Sends a kept result.
    pub async fn send(&self, cache: &Cache, entry: &CachedResult) {
        if self.settings.read_only {
            return;
        }
        let _turn = self.sending.acquire().await;
        if !self.is_open().await {
            return;
        }
        match self.upload(cache, entry).await {
            Ok(()) => {
                self.count(false);
            }
            Err(trouble) => self.note(trouble),
        }
    }

    fn note(&self, trouble: RemoteFailure) {
        let host = &self.host;
        let without = "building goes on without it";
        let message = match trouble {
            RemoteFailure::Missing => return,
            RemoteFailure::Outage(reason) => {
                self.count(true);
                format!("the remote cache `{host}` cannot be used: {reason}; {without}")
            }
            RemoteFailure::Silence => {
                self.count(true);
                let seconds = self.settings.timeout.as_secs();
                format!(
                    "the remote cache `{host}` cannot be used: it says nothing for {seconds} s; {without}"
                )
            }
            RemoteFailure::Refused(reason) => {
                self.off.store(true, Ordering::Relaxed);
                format!("the remote cache `{host}` refuses: {reason}; {without}")
            }
            RemoteFailure::Unfit(reason) => {
                format!("the remote cache `{host}` does not take a result: {reason}")
            }
            RemoteFailure::Wrong(reason) => {
                format!("a result of the remote cache `{host}` is not used: {reason}")
            }
            RemoteFailure::Local(reason) => {
                format!("the remote cache `{host}` cannot be used: {reason}")
            }
        };
        self.warn(message);
    }

    /// Counts an outage or the end of all; says whether the server may be asked again at once.
    fn count(&self, is_outage: bool) -> bool {
        let mut outages = self.outages.lock().unwrap_or_else(PoisonError::into_inner);
        if !is_outage {
            *outages = (0, None);
            return true;
        }
        outages.0 += 1;
        if outages.0 >= OUTAGES {
            outages.1 = Some(Instant::now() + PAUSE);
        }
        outages.0 < OUTAGES
    }

    /// Whether the server is to be asked: it did not refuse, and is not left alone.
    async fn is_open(&self) -> bool {
        let is_paused = {
            let mut outages = self.outages.lock().unwrap_or_else(PoisonError::into_inner);
            match outages.1 {
                Some(until) if Instant::now() < until => true,
                // One attempt of one; all others wait for what becomes of it.
                Some(_) => {
                    *outages = (OUTAGES, Some(Instant::now() + PAUSE));
                    false
                }
                None => false,
            }
        };
        if is_paused || self.off.load(Ordering::Relaxed) {
            return false;
        }
        let enabled = self.enabled.get_or_init(|| async {
            let mut status = self.status().await;
            if self.is_worth_another(&status).await {
                status = self.status().await;
            }
            match status {
                Ok(()) => true,
                Err(trouble) => {
                    self.note(trouble);
                    false
                }
            }
        });
        *enabled.await
    }

    async fn status(&self) -> Result<(), RemoteFailure> {
        let response = match self.ask("status").await {
            // A server that does not know the question is used.
            Err(RemoteFailure::Missing) => return Ok(()),
            other => other?,
        };
        match self.json(response).await["status"].as_str() {
            None | Some("enabled") => Ok(()),
            Some(other) => {
                let other = self.told(other);
                Err(RemoteFailure::Refused(format!("its status is `{other}`")))
            }
        }
    }

    /// Gets something.
    async fn ask(&self, what: &str) -> Result<Response, RemoteFailure> {
        let asking = self.request(Method::GET, what).send();
        self.judge(self.in_time(asking).await?).await
    }

    /// What comes, unless nothing does for too long.
    async fn in_time<T>(
        &self,
        coming: impl Future<Output = reqwest::Result<T>>,
    ) -> Result<T, RemoteFailure> {
        match tokio::time::timeout(self.settings.timeout, coming).await {
            Ok(come) => come.map_err(|error| failed(&error)),
            Err(_) => Err(RemoteFailure::Silence),
        }
    }

    /// An answer, if it is a good one.
    async fn judge(&self, response: Response) -> Result<Response, RemoteFailure> {
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        if status == StatusCode::NOT_FOUND {
            return Err(RemoteFailure::Missing);
        }
        if status.is_redirection() {
            let to = onward(&response).map(|url| {
                let host = url.host_str().unwrap_or_default();
                self.told(&format!("{host}{}", url.path()))
            });
            let to = to.unwrap_or_else(|| "nowhere".into());
            return Err(RemoteFailure::Refused(format!(
                "it redirects ({}) to `{to}`, where the token is not sent",
                status.as_u16()
            )));
        }
        let body = self.json(response).await;
        let said = body["error"]["message"]
            .as_str()
            .or_else(|| body["message"].as_str());
        let reason = match said {
            Some(said) => format!("{status}, {}", self.told(said)),
            None => status.to_string(),
        };
        Err(match status {
            // The server from npm says the second of a store that fails.
            StatusCode::REQUEST_TIMEOUT
            | StatusCode::PRECONDITION_FAILED
            | StatusCode::TOO_MANY_REQUESTS => RemoteFailure::Outage(reason),
            StatusCode::PAYLOAD_TOO_LARGE => RemoteFailure::Unfit(reason),
            status if status.is_server_error() => RemoteFailure::Outage(reason),
            _ => RemoteFailure::Refused(reason),
        })
    }

    /// An answer as JSON; nothing where it is none, or too long.
    async fn json(&self, mut response: Response) -> Value {
        let mut body = Vec::new();
        while let Ok(Some(piece)) = self.in_time(response.chunk()).await {
            body.extend_from_slice(&piece);
            if body.len() > LONGEST_ANSWER {
                break;
            }
        }
        serde_json::from_slice(&body).unwrap_or_default()
    }

    /// What a server says, as people are told: a careless one repeats what it was sent.
    fn told(&self, said: &str) -> String {
        let said = self.redact(said);
        let short: String = said.chars().take(LONGEST_WORD).collect();
        short.escape_debug().to_string()
    }

    fn request(&self, method: Method, what: &str) -> RequestBuilder {
        let url = format!(
            "{}/v8/artifacts/{what}",
            self.settings.api.trim_end_matches('/')
        );
        let mut query = Vec::new();
        if let Some(team) = &self.settings.team {
            query.push(("slug", team.as_str()));
        }
        if !self.team_id().is_empty() {
            query.push(("teamId", self.team_id()));
        }
        self.client
            .request(method, url)
            .query(&query)
            .bearer_auth(self.settings.token.expose_secret())
    }

    /// The team's id, where it is one.
    fn team_id(&self) -> &str {
        let id = self.settings.team_id.as_deref().unwrap_or_default();
        if id.starts_with("team_") { id } else { "" }
    }

    /// The signature of a body of that length, where a key is set.
    fn signature(&self, key: Key, length: u64) -> Option<hmac::Context> {
        let secret = self.settings.signature_key.as_ref()?;
        let (secret, team) = (secret.expose_secret(), self.team_id());
        Some(artifact::signature(secret, team, key, length))
    }

    async fn download(&self, cache: &Cache, key: Key) -> Result<CachedResult, RemoteFailure> {
        let wrong = || RemoteFailure::Wrong("its content is not what it says".into());
        let asking = self.request(Method::GET, &key.to_string()).send();
        let mut response = self.in_time(asking).await?;
        for _ in 0..REDIRECTS {
            // Some servers redirect to a storage whose address is the permission (a signed URL).
            let Some(next) = onward(&response).filter(is_safe) else {
                break;
            };
            response = self.in_time(self.client.get(next).send()).await?;
        }
        let mut response = self.judge(response).await?;
        let tag = response.headers().get("x-artifact-tag").cloned();
        let temporary = cache.temporary()?;
        let file = temporary.reopen().map_err(local)?;
        let mut file = tokio::fs::File::from_std(file);
        let (mut front, mut entry) = (Vec::new(), None::<CachedResult>);
        let mut length = 0;
        while let Some(piece) = self.in_time(response.chunk()).await? {
            let mut archive: &[u8] = &piece;
            if entry.is_none() {
                front.extend_from_slice(&piece);
                let Some((found, end)) = artifact::in_front(&front)? else {
                    continue;
                };
                entry = Some(found);
                archive = &piece[piece.len() - (front.len() - end)..];
                front.truncate(end);
            }
            length += archive.len() as u64;
            if entry.as_ref().is_some_and(|entry| length > entry.length) {
                return Err(wrong());
            }
            file.write_all(archive).await.map_err(local)?;
        }
        file.flush().await.map_err(local)?;
        let entry = entry.ok_or_else(artifact::not_ours)?;
        if entry.key != key || entry.length != length {
            return Err(wrong());
        }
        // A server need not say how long an artifact is, and its signature begins with that: so
        // it is made when all is there.
        let signature = self.signature(key, front.len() as u64 + length);
        let signature = signature.map(|mut signature| {
            signature.update(&front);
            let tag = tag.and_then(|tag| BASE64.decode(tag).ok());
            (signature, tag.unwrap_or_default())
        });
        let checking = tokio::task::spawn_blocking(move || {
            artifact::check(&temporary, &entry, signature).map(|()| (temporary, entry))
        });
        let (temporary, entry) = match checking.await {
            Ok(checked) => checked?,
            Err(crashed) => std::panic::resume_unwind(crashed.into_panic()),
        };
        cache.adopt(temporary, &entry)?;
        Ok(entry)
    }

    async fn upload(&self, cache: &Cache, entry: &CachedResult) -> Result<(), RemoteFailure> {
        let front = artifact::front(entry)?;
        let length = front.len() as u64 + entry.length;
        let blob = cache.blob_path(&entry.blob);
        let mut request = self
            .request(Method::PUT, &entry.key.to_string())
            .header(CONTENT_TYPE, "application/octet-stream")
            .header(CONTENT_LENGTH, length)
            .header("x-artifact-duration", entry.milliseconds);
        if let Some(mut signature) = self.signature(entry.key, length) {
            signature.update(&front);
            let mut file = tokio::fs::File::open(&blob).await.map_err(local)?;
            let mut buffer = vec![0; 1 << 16];
            loop {
                let read = file.read(&mut buffer).await.map_err(local)?;
                if read == 0 {
                    break;
                }
                signature.update(&buffer[..read]);
            }
            request = request.header("x-artifact-tag", BASE64.encode(signature.sign().as_ref()));
        }
        let file = tokio::fs::File::open(&blob).await.map_err(local)?;
        let moved = Arc::new(Mutex::new(Instant::now()));
        let moving = Arc::clone(&moved);
        let body = ReaderStream::new(std::io::Cursor::new(front).chain(file));
        let body = body.inspect(move |_| {
            *moving.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        });
        let sending = request.body(reqwest::Body::wrap_stream(body)).send();
        match self.while_moving(sending, &moved).await {
            Ok(response) => match self.judge(response).await {
                // Of what is sent nothing can be missing but the place.
                Err(RemoteFailure::Missing) => {
                    Err(RemoteFailure::Refused("it keeps no artifacts here".into()))
                }
                other => other.map(drop),
            },
            Err(trouble) => Err(trouble),
        }
    }

    /// What comes, unless it has not come for too long after something has last moved. An upload
    /// may take its time as long as it goes on.
    async fn while_moving<T>(
        &self,
        coming: impl Future<Output = reqwest::Result<T>>,
        moved: &Mutex<Instant>,
    ) -> Result<T, RemoteFailure> {
        tokio::pin!(coming);
        loop {
            let since = *moved.lock().unwrap_or_else(PoisonError::into_inner);
            let left = self.settings.timeout.saturating_sub(since.elapsed());
            if left.is_zero() {
                return Err(RemoteFailure::Silence);
            }
            tokio::select! {
                come = &mut coming => return come.map_err(|error| failed(&error)),
                () = tokio::time::sleep(left) => {}
            }
        }
    }
}

/// Where an answer redirects to.
fn onward(response: &Response) -> Option<Url> {
    if !response.status().is_redirection() {
        return None;
    }
    let next = response.headers().get(LOCATION)?.to_str().ok()?;
    response.url().join(next).ok()
}

/// Whether nobody on the way can change what comes from there.
fn is_safe(url: &Url) -> bool {
    let is_here = match url.host_str() {
        Some("localhost") => true,
        Some(host) => {
            let host = host.trim_start_matches('[').trim_end_matches(']');
            let address = host.parse::<std::net::IpAddr>();
            address.is_ok_and(|address| address.is_loopback())
        }
        None => false,
    };
    url.scheme() == "https" || is_here
}

/// What a request that failed means.
fn failed(error: &reqwest::Error) -> RemoteFailure {
    if error.is_timeout() {
        RemoteFailure::Silence
    } else {
        RemoteFailure::Outage(plain(error))
    }
}

/// The error with its causes, and without the address, which may have a token in it.
fn plain(error: &reqwest::Error) -> String {
    let mut text = String::new();
    let mut cause = std::error::Error::source(error);
    while let Some(next) = cause {
        let said = next.to_string();
        if !text.contains(&said) {
            if !text.is_empty() {
                text.push_str(": ");
            }
            text.push_str(&said);
        }
        cause = next.source();
    }
    if text.is_empty() {
        "the connection failed".into()
    } else {
        text
    }
}
