//! A client of the Turborepo Remote Cache protocol (v8), which many teams already run a server
//! of: `GET` and `PUT /v8/artifacts/{hash}`, a bearer token, a team in the query, and a
//! signature of each artifact where a key is set.
//!
//! An artifact's body is the archive, with its entry in a skippable frame of zstd in front
//! (RFC 8878, section 3.1.2): whatever reads tar and zstd reads the rest. Nothing that goes
//! wrong here ends a build. What is out of reach three times is left alone for a while.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use aws_lc_rs::{constant_time, hmac};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use reqwest::header::{CONTENT_LENGTH, CONTENT_TYPE};
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode};
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::OnceCell;
use tokio_util::io::ReaderStream;

use super::key::Sha256;
use super::{Cache, Entry, Error, Key, is_digest};

/// What a skippable frame of zstd begins with, as it lies in the file.
const FRAME: [u8; 4] = 0x184D_2A50_u32.to_le_bytes();

/// Bytes that an entry in front of an archive may have.
const LONGEST_ENTRY: usize = 64 * 1024;

/// Failures in a row after which the server is left alone.
const OUTAGES: u32 = 3;

/// For how long.
const PAUSE: Duration = Duration::from_secs(30);

/// How long a connection may take to be made.
const CONNECT: Duration = Duration::from_secs(10);

/// Where the remote cache is, and as whom it is asked.
pub struct Settings {
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
pub struct Remote {
    settings: Settings,
    client: Client,
    /// Whether the server wants to be used; asked once.
    enabled: OnceCell<bool>,
    /// It said that it is not to be used.
    off: AtomicBool,
    outages: Mutex<(u32, Option<Instant>)>,
    warning: Mutex<Warning>,
}

#[derive(Default)]
struct Warning {
    message: Option<String>,
    is_told: bool,
}

/// Why a request did not bring what it should.
enum Trouble {
    /// The server has no such artifact.
    Missing,
    /// It could not be reached, or has trouble itself.
    Outage(String),
    /// It said no.
    Refused(String),
    /// What came is not what was asked for.
    Wrong(String),
}

impl Remote {
    /// Gets ready; nothing is asked yet.
    pub fn new(settings: Settings) -> Result<Self, String> {
        let client = Client::builder()
            .user_agent(concat!("alokai ", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT.min(settings.timeout))
            .read_timeout(settings.timeout)
            .build()
            .map_err(|error| error.to_string())?;
        let remote = Self {
            client,
            enabled: OnceCell::new(),
            off: AtomicBool::new(false),
            outages: Mutex::default(),
            warning: Mutex::default(),
            settings,
        };
        let key = remote.settings.signature_key.as_ref();
        if key.is_some_and(|key| key.expose_secret().len() < 32) {
            remote.warn(
                "the signature key of the remote cache has fewer than 32 bytes, which turbo will refuse"
                    .into(),
            );
        }
        Ok(remote)
    }

    /// What a person should know, once.
    pub fn take_warning(&self) -> Option<String> {
        self.warning
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .message
            .take()
    }

    /// Only the first is told: what follows mostly has the same cause.
    fn warn(&self, message: String) {
        let mut warning = self
            .warning
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        if !warning.is_told {
            warning.is_told = true;
            warning.message = Some(message);
        }
    }

    /// Brings the entry of the first key that the server has into the cache.
    pub async fn fetch(&self, cache: &Cache, keys: &[Key]) -> Option<Entry> {
        for key in keys {
            if !self.is_open().await {
                return None;
            }
            let mut result = self.download(cache, *key).await;
            if matches!(result, Err(Trouble::Outage(_))) && self.count(true) {
                // Reading may be repeated.
                result = self.download(cache, *key).await;
            }
            match result {
                Ok(entry) => {
                    self.count(false);
                    return Some(entry);
                }
                Err(Trouble::Missing) => {
                    self.count(false);
                }
                Err(trouble) => self.note(trouble),
            }
        }
        None
    }

    /// Sends a kept result.
    pub async fn send(&self, cache: &Cache, entry: &Entry) {
        if self.settings.read_only || !self.is_open().await {
            return;
        }
        match self.upload(cache, entry).await {
            Ok(()) => {
                self.count(false);
            }
            Err(trouble) => self.note(trouble),
        }
    }

    fn note(&self, trouble: Trouble) {
        let host = &self.settings.api;
        match trouble {
            Trouble::Missing => {}
            Trouble::Outage(reason) => {
                self.count(true);
                self.warn(format!("the remote cache `{host}` cannot be used: {reason}; building goes on without it"));
            }
            Trouble::Refused(reason) => {
                self.off.store(true, Ordering::Relaxed);
                self.warn(format!(
                    "the remote cache `{host}` refuses: {reason}; building goes on without it"
                ));
            }
            Trouble::Wrong(reason) => self.warn(format!(
                "an artifact of the remote cache `{host}` is not used: {reason}"
            )),
        }
    }

    /// Counts an outage or the end of all; says whether the server may be asked again at once.
    fn count(&self, is_outage: bool) -> bool {
        let mut outages = self
            .outages
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
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
            let mut outages = self
                .outages
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner);
            match outages.1 {
                Some(until) if Instant::now() < until => true,
                // One more attempt; if it fails too, the pause begins anew.
                Some(_) => {
                    *outages = (OUTAGES - 1, None);
                    false
                }
                None => false,
            }
        };
        if is_paused || self.off.load(Ordering::Relaxed) {
            return false;
        }
        let enabled = self.enabled.get_or_init(|| async {
            match self.status().await {
                Ok(()) => true,
                Err(trouble) => {
                    self.note(trouble);
                    false
                }
            }
        });
        *enabled.await
    }

    async fn status(&self) -> Result<(), Trouble> {
        let response = answer(self.request(Method::GET, "status")).await;
        let response = match response {
            // A server that does not know the question is used.
            Err(Trouble::Missing) => return Ok(()),
            other => other?,
        };
        let body: Value = response.json().await.unwrap_or_default();
        match body["status"].as_str() {
            None | Some("enabled") => Ok(()),
            Some(other) => Err(Trouble::Refused(format!("its status is `{other}`"))),
        }
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

    /// What the signature of a body of that length begins with.
    fn signature(&self, key: Key, length: u64) -> Option<hmac::Context> {
        let secret = self.settings.signature_key.as_ref()?;
        let secret = hmac::Key::new(hmac::HMAC_SHA256, secret.expose_secret().as_bytes());
        let mut context = hmac::Context::with_key(&secret);
        for part in ["artifact-signature:v2", &key.to_string(), self.team_id()] {
            context.update(&(part.len() as u64).to_le_bytes());
            context.update(part.as_bytes());
        }
        context.update(&length.to_le_bytes());
        Some(context)
    }

    async fn download(&self, cache: &Cache, key: Key) -> Result<Entry, Trouble> {
        let broken = |error: reqwest::Error| Trouble::Outage(plain(&error));
        let local = |error: &dyn std::fmt::Display| Trouble::Wrong(error.to_string());
        let request = self.request(Method::GET, &key.to_string());
        let mut response = answer(request).await?;
        let length = response.content_length();
        let tag = header(&response, "x-artifact-tag");
        let mut signature = match (self.signature(key, length.unwrap_or(0)), length) {
            (Some(_), None) => {
                return Err(Trouble::Wrong(
                    "it has no length to check its signature with".into(),
                ));
            }
            (signature, _) => signature,
        };
        let temporary = cache.temporary().map_err(|error| local(&error))?;
        let file = temporary.reopen().map_err(|error| local(&error))?;
        let mut file = tokio::fs::File::from_std(file);
        let mut front = Vec::new();
        let mut entry: Option<Entry> = None;
        let (mut digest, mut rest, mut all) = (Sha256::default(), 0, 0);
        while let Some(piece) = response.chunk().await.map_err(broken)? {
            all += piece.len() as u64;
            if let Some(signature) = &mut signature {
                signature.update(&piece);
            }
            let mut archive: &[u8] = &piece;
            if entry.is_none() {
                front.extend_from_slice(&piece);
                let Some((found, end)) = in_front(&front)? else {
                    continue;
                };
                entry = Some(found);
                archive = &piece[piece.len() - (front.len() - end)..];
            }
            digest.update(archive);
            rest += archive.len() as u64;
            file.write_all(archive)
                .await
                .map_err(|error| local(&error))?;
        }
        file.flush().await.map_err(|error| local(&error))?;
        if length.is_some_and(|length| length != all) {
            return Err(Trouble::Outage("an artifact came only in part".into()));
        }
        if let Some(signature) = signature {
            let given = tag
                .and_then(|tag| BASE64.decode(tag).ok())
                .unwrap_or_default();
            let valid = constant_time::verify_slices_are_equal(signature.sign().as_ref(), &given);
            valid.map_err(|_| Trouble::Wrong("its signature is missing or wrong".into()))?;
        }
        let entry = entry.ok_or_else(|| Trouble::Wrong("it is not one of ours".into()))?;
        if entry.key != key || entry.length != rest || digest.end() != entry.blob {
            return Err(Trouble::Wrong("its content is not what it says".into()));
        }
        cache
            .adopt(temporary, &entry)
            .map_err(|error| local(&error))?;
        Ok(entry)
    }

    async fn upload(&self, cache: &Cache, entry: &Entry) -> Result<(), Trouble> {
        let local = |error: &dyn std::fmt::Display| Trouble::Wrong(error.to_string());
        let front = front(entry).map_err(|error| local(&error))?;
        let length = front.len() as u64 + entry.length;
        let blob = cache.blob_path(&entry.blob);
        let mut request = self
            .request(Method::PUT, &entry.key.to_string())
            .header(CONTENT_TYPE, "application/octet-stream")
            .header(CONTENT_LENGTH, length)
            .header("x-artifact-duration", entry.milliseconds);
        if let Some(mut signature) = self.signature(entry.key, length) {
            signature.update(&front);
            let mut file = tokio::fs::File::open(&blob)
                .await
                .map_err(|error| local(&error))?;
            let mut buffer = vec![0; 1 << 16];
            loop {
                let read = file
                    .read(&mut buffer)
                    .await
                    .map_err(|error| local(&error))?;
                if read == 0 {
                    break;
                }
                signature.update(&buffer[..read]);
            }
            request = request.header("x-artifact-tag", BASE64.encode(signature.sign().as_ref()));
        }
        let file = tokio::fs::File::open(&blob)
            .await
            .map_err(|error| local(&error))?;
        let body = std::io::Cursor::new(front).chain(file);
        let body = reqwest::Body::wrap_stream(ReaderStream::new(body));
        answer(request.body(body)).await.map(drop)
    }
}

/// Sends, and sorts what comes back.
async fn answer(request: RequestBuilder) -> Result<Response, Trouble> {
    let response = request
        .send()
        .await
        .map_err(|error| Trouble::Outage(plain(&error)))?;
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    if status == StatusCode::NOT_FOUND {
        return Err(Trouble::Missing);
    }
    let body: Value = response.json().await.unwrap_or_default();
    let said = body["error"]["message"]
        .as_str()
        .or_else(|| body["message"].as_str());
    let reason = match said {
        Some(said) => format!("{status}, {}", said.escape_debug()),
        None => status.to_string(),
    };
    Err(
        if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS {
            Trouble::Outage(reason)
        } else {
            Trouble::Refused(reason)
        },
    )
}

/// The error with its causes, and without the address, which may have a token in it.
fn plain(error: &reqwest::Error) -> String {
    let mut text = if error.is_timeout() {
        "no answer in time".to_owned()
    } else {
        String::new()
    };
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

fn header(response: &Response, name: &str) -> Option<String> {
    response
        .headers()
        .get(name)?
        .to_str()
        .ok()
        .map(str::to_owned)
}

/// The entry as a frame that readers of zstd skip.
fn front(entry: &Entry) -> Result<Vec<u8>, Error> {
    let failed = |error: serde_json::Error| Error::Unfit {
        reason: error.to_string(),
    };
    let text = serde_json::to_vec(entry).map_err(failed)?;
    let length = u32::try_from(text.len()).unwrap_or(u32::MAX);
    Ok([&FRAME[..], &length.to_le_bytes(), &text].concat())
}

/// The entry in front of an archive and where it ends, once all of it is there.
fn in_front(body: &[u8]) -> Result<Option<(Entry, usize)>, Trouble> {
    let wrong = || Trouble::Wrong("it is not one of ours".into());
    let Some((front, rest)) = body.split_first_chunk::<8>() else {
        return Ok(None);
    };
    let (magic, length) = front.split_at(4);
    let length = length
        .iter()
        .rev()
        .fold(0, |length, byte| length << 8 | usize::from(*byte));
    if magic != FRAME || length > LONGEST_ENTRY {
        return Err(wrong());
    }
    let Some(text) = rest.get(..length) else {
        return Ok(None);
    };
    let entry: Entry = serde_json::from_slice(text).map_err(|_| wrong())?;
    if !is_digest(&entry.blob) {
        return Err(wrong());
    }
    Ok(Some((entry, front.len() + length)))
}
