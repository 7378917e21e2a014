//! Requests to the remote cache: `GET` and `PUT /v8/artifacts/{key}` with a bearer token, the team
//! in the query, and a signature of each artifact where a key is set.

use std::io::Cursor;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use futures_util::StreamExt;
use http_client::{
    TransferError, TransferProgress, display_address, is_loopback, next_chunk, read_at_most,
    redirect_target, while_active,
};
use reqwest::header::{CONTENT_LENGTH, CONTENT_TYPE};
use reqwest::{Method, RequestBuilder, Response, StatusCode, Url};
use secrecy::ExposeSecret;
use serde_json::Value;
use tempfile::NamedTempFile;
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_util::io::ReaderStream;

use super::{RemoteCache, RemoteFailure, local};
use crate::cache::artifact::{self, Signature};
use crate::cache::{Cache, CacheLimits, CachedResult, DownloadedToolCache, Key, ScriptTimes};

/// Redirects of a download that are followed, without the token.
const MAX_REDIRECTS: usize = 3;

/// The time after which the speed of a download is measured.
const MEASURED: Duration = Duration::from_secs(1);

/// Bytes of a response that is not an artifact.
const LONGEST_MESSAGE_BODY: u64 = 64 * 1024;

/// Characters of a server's message that a warning shows.
const LONGEST_MESSAGE: usize = 200;

impl From<TransferError> for RemoteFailure {
    fn from(error: TransferError) -> Self {
        match error {
            TransferError::Idle(_) => Self::Idle,
            TransferError::Connection(error) if error.is_timeout() => Self::Idle,
            error @ TransferError::Connection(_) => Self::Outage(error.to_string()),
        }
    }
}

/// A downloaded artifact that was not verified yet.
struct Download {
    archive: NamedTempFile,
    result: CachedResult,
    /// The bytes in front of the archive, which its signature includes.
    front: Vec<u8>,
    /// The artifact's signature, as the server names it.
    tag: Option<Vec<u8>>,
}

impl RemoteCache {
    /// Asks whether the remote cache may be used.
    pub(super) async fn status(&self) -> Result<(), RemoteFailure> {
        let response = self
            .send_request(self.request(Method::GET, "status"))
            .await?;
        let response = match self.accept(response).await {
            // A server that does not implement the question is used.
            Err(RemoteFailure::Missing) => return Ok(()),
            other => other?,
        };
        match self.json(response).await["status"].as_str() {
            None | Some("enabled") => Ok(()),
            Some(status) => {
                let status = self.sanitize(status);
                Err(RemoteFailure::Refused(format!("its status is `{status}`")))
            }
        }
    }

    /// Downloads the artifact of a key into the local cache, which gets it only after it is
    /// verified.
    pub(super) async fn download(
        &self,
        cache: &Cache,
        key: Key,
    ) -> Result<CachedResult, RemoteFailure> {
        let (archive, result) = self.verified(cache, key, |_| Ok(None)).await?;
        cache.adopt(archive, &result)?;
        Ok(result)
    }

    /// Downloads a tool cache, while that takes less time than it saves.
    pub(super) async fn download_tool_cache(
        &self,
        cache: &Cache,
        key: Key,
        known: ScriptTimes,
        limits: CacheLimits,
    ) -> Result<DownloadedToolCache, RemoteFailure> {
        let judge = |entry: &CachedResult| match entry.tool_cache(known, limits) {
            Some(usable) => Ok(Some(usable.saved)),
            None => Err(RemoteFailure::Declined),
        };
        let (archive, entry) = self.verified(cache, key, judge).await?;
        Ok(DownloadedToolCache { archive, entry })
    }

    /// Downloads an artifact and verifies it. `judge` receives its entry before the archive is
    /// downloaded, and returns the time limit of the download.
    async fn verified(
        &self,
        cache: &Cache,
        key: Key,
        judge: impl Fn(&CachedResult) -> Result<Option<Duration>, RemoteFailure>,
    ) -> Result<(NamedTempFile, CachedResult), RemoteFailure> {
        let request = self.request(Method::GET, &key.to_string());
        let mut response = self.send_request(request).await?;
        for _ in 0..MAX_REDIRECTS {
            // Some servers redirect to a storage whose address is the permission (a signed URL).
            let Some(next) = redirect_target(&response).filter(is_protected) else {
                break;
            };
            response = self.send_request(self.client.get(next)).await?;
        }
        let response = self.accept(response).await?;
        let download = self.receive(cache, key, response, judge).await?;
        // The signature starts with the artifact's length, which the server need not name before.
        let length = download.front.len() as u64 + download.result.length;
        let signature = self.signature(key, length).map(|mut signature| {
            signature.update(&download.front);
            (signature, download.tag.unwrap_or_default())
        });
        let (archive, result) = (download.archive, download.result);
        let verification = tokio::task::spawn_blocking(move || {
            artifact::verify(&archive, &result, signature).map(|()| (archive, result))
        });
        match verification.await {
            Ok(verified) => Ok(verified?),
            Err(panic) => std::panic::resume_unwind(panic.into_panic()),
        }
    }

    /// Receives an artifact, whose entry comes in front of the archive.
    async fn receive(
        &self,
        cache: &Cache,
        key: Key,
        mut response: Response,
        judge: impl Fn(&CachedResult) -> Result<Option<Duration>, RemoteFailure>,
    ) -> Result<Download, RemoteFailure> {
        let invalid =
            || RemoteFailure::Invalid("its key or size does not match its metadata".into());
        let tag = response.headers().get("x-artifact-tag");
        let tag = tag.and_then(|tag| BASE64.decode(tag).ok());
        let archive = cache.temporary()?;
        let mut file = File::from_std(archive.reopen().map_err(local)?);
        let (mut front, mut result) = (Vec::new(), None::<CachedResult>);
        let mut length = 0;
        let (begun, mut allowed) = (Instant::now(), None);
        while let Some(chunk) = next_chunk(&mut response, self.settings.timeout).await? {
            let chunk = chunk.as_ref();
            let mut rest = chunk;
            if result.is_none() {
                front.extend_from_slice(chunk);
                let Some((entry, end)) = artifact::parse_front(&front)? else {
                    continue;
                };
                allowed = judge(&entry)?;
                result = Some(entry);
                rest = &chunk[chunk.len() - (front.len() - end)..];
                front.truncate(end);
            }
            length += rest.len() as u64;
            if let Some(entry) = &result {
                if length > entry.length {
                    return Err(invalid());
                }
                if allowed.is_some_and(|it| is_too_slow(begun.elapsed(), length, entry.length, it))
                {
                    return Err(RemoteFailure::Declined);
                }
            }
            file.write_all(rest).await.map_err(local)?;
        }
        file.flush().await.map_err(local)?;
        let result = result.ok_or_else(artifact::unknown_format)?;
        if result.key != key || result.length != length {
            return Err(invalid());
        }
        Ok(Download {
            archive,
            result,
            front,
            tag,
        })
    }

    /// Uploads a result as an artifact.
    pub(super) async fn upload(
        &self,
        cache: &Cache,
        result: &CachedResult,
    ) -> Result<(), RemoteFailure> {
        let front = artifact::front(result)?;
        let length = front.len() as u64 + result.length;
        let archive = cache.blob_path(&result.blob);
        let mut request = self
            .request(Method::PUT, &result.key.to_string())
            .header(CONTENT_TYPE, "application/octet-stream")
            .header(CONTENT_LENGTH, length)
            .header("x-artifact-duration", result.milliseconds);
        if let Some(mut signature) = self.signature(result.key, length) {
            signature.update(&front);
            let mut file = File::open(&archive).await.map_err(local)?;
            let mut buffer = vec![0; 1 << 16];
            loop {
                let read = file.read(&mut buffer).await.map_err(local)?;
                if read == 0 {
                    break;
                }
                signature.update(&buffer[..read]);
            }
            request = request.header("x-artifact-tag", BASE64.encode(signature.sign()));
        }
        let file = File::open(&archive).await.map_err(local)?;
        let progress = TransferProgress::default();
        let sent = progress.clone();
        let body = ReaderStream::new(Cursor::new(front).chain(file));
        let body = body.inspect(move |_| sent.record(false));
        let request = request.body(reqwest::Body::wrap_stream(body));
        let limits = self.settings.timeout.into();
        let response = while_active(request.send(), &progress, limits).await?;
        match self.accept(response).await {
            // Only the address can be missing for an upload.
            Err(RemoteFailure::Missing) => Err(RemoteFailure::Refused(
                "it does not store artifacts at this address (404)".into(),
            )),
            other => other.map(drop),
        }
    }

    async fn send_request(&self, request: RequestBuilder) -> Result<Response, TransferError> {
        let progress = TransferProgress::default();
        while_active(request.send(), &progress, self.settings.timeout.into()).await
    }

    /// The response, if it is successful.
    async fn accept(&self, response: Response) -> Result<Response, RemoteFailure> {
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        if status == StatusCode::NOT_FOUND {
            return Err(RemoteFailure::Missing);
        }
        if status.is_redirection() {
            let target = redirect_target(&response);
            let target = target.map(|url| self.sanitize(&display_address(&url)));
            return Err(RemoteFailure::Refused(format!(
                "it redirects ({}) to `{}`, but the token is not sent to another address",
                status.as_u16(),
                target.as_deref().unwrap_or("an invalid address")
            )));
        }
        let body = self.json(response).await;
        let message = body["error"]["message"]
            .as_str()
            .or_else(|| body["message"].as_str());
        let reason = match message {
            Some(message) => format!("{status}, {}", self.sanitize(message)),
            None => status.to_string(),
        };
        Err(match status {
            // `turborepo-remote-cache` from npm answers 412 when its storage fails.
            StatusCode::REQUEST_TIMEOUT
            | StatusCode::PRECONDITION_FAILED
            | StatusCode::TOO_MANY_REQUESTS => RemoteFailure::Outage(reason),
            StatusCode::PAYLOAD_TOO_LARGE => RemoteFailure::NotAccepted(reason),
            status if status.is_server_error() => RemoteFailure::Outage(reason),
            _ => RemoteFailure::Refused(reason),
        })
    }

    /// A response's body as JSON; null if it is not JSON or too long.
    async fn json(&self, response: Response) -> Value {
        let body = read_at_most(response, LONGEST_MESSAGE_BODY, self.settings.timeout).await;
        serde_json::from_slice(&body.unwrap_or_default().bytes).unwrap_or_default()
    }

    /// A server's text for messages: short, escaped, and without secrets, which it may repeat.
    fn sanitize(&self, text: &str) -> String {
        let text = self.redactor.redact(text);
        let short: String = text.chars().take(LONGEST_MESSAGE).collect();
        short.escape_debug().to_string()
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let api = self.settings.api.trim_end_matches('/');
        let url = format!("{api}/v8/artifacts/{path}");
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

    /// The team's id, if it is valid; else empty.
    fn team_id(&self) -> &str {
        let id = self.settings.team_id.as_deref().unwrap_or_default();
        if id.starts_with("team_") { id } else { "" }
    }

    /// The signature of an artifact of this length, if a key is set.
    fn signature(&self, key: Key, length: u64) -> Option<Signature> {
        let secret = self.settings.signature_key.as_ref()?;
        let (secret, team) = (secret.expose_secret(), self.team_id());
        Some(Signature::new(secret, team, key, length))
    }
}

/// Whether a download, at its speed so far, exceeds its time limit.
fn is_too_slow(elapsed: Duration, received: u64, length: u64, allowed: Duration) -> bool {
    if elapsed < MEASURED || received >= length {
        return false;
    }
    let rest = elapsed.as_millis() * u128::from(length - received) / u128::from(received.max(1));
    elapsed.as_millis() + rest > allowed.as_millis()
}

/// Whether others cannot change what is downloaded from an address.
fn is_protected(url: &Url) -> bool {
    url.scheme() == "https" || is_loopback(url)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::is_too_slow;

    #[test]
    fn a_download_ends_when_it_takes_longer_than_it_saves() {
        let allowed = Duration::from_secs(10);
        let seconds = Duration::from_secs;
        assert!(!is_too_slow(seconds(2), 20, 100, allowed), "10 s in all");
        assert!(is_too_slow(seconds(2), 19, 100, allowed));
        assert!(is_too_slow(seconds(2), 0, 100, allowed));
        assert!(
            !is_too_slow(Duration::from_millis(900), 0, 100, allowed),
            "the speed is not known yet"
        );
        assert!(
            !is_too_slow(seconds(60), 100, 100, allowed),
            "it is complete"
        );
    }
}
