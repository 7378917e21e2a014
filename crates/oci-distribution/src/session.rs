//! Upload sessions: a registry opens one, says where it is, and how many bytes it holds.

use reqwest::header::{LOCATION, RANGE};
use reqwest::{Method, StatusCode, Url};

use super::Error;
use super::auth::TokenScope;
use super::client::Client;
use super::request::RegistryRequest;
use super::response::RegistryResponse;
use super::retry::AttemptError;

/// Where a blob is sent to.
pub struct UploadSession {
    /// Changes with every answer.
    pub url: Url,
    /// Bytes that the registry wants a piece to have at least; the last one may have fewer.
    pub smallest: u64,
}

impl UploadSession {
    /// The session that an answer names.
    pub fn of(client: &Client, answer: &RegistryResponse) -> Option<Self> {
        let smallest = answer.header("oci-chunk-min-length");
        Some(Self {
            url: client.led(answer.url(), answer.header(LOCATION.as_str())?)?,
            smallest: smallest.and_then(|said| said.parse().ok()).unwrap_or(0),
        })
    }

    /// The same session, which may have another address after this answer.
    pub fn moved(self, client: &Client, answer: &RegistryResponse) -> Self {
        let next = answer.header(LOCATION.as_str());
        let next = next.and_then(|next| client.led(answer.url(), next));
        Self {
            url: next.unwrap_or(self.url),
            ..self
        }
    }
}

impl Client {
    /// Opens a session.
    pub(super) async fn open(
        &self,
        repository: &str,
        scope: &TokenScope,
    ) -> Result<UploadSession, Error> {
        let url = self.url(repository, "blobs/uploads/")?;
        let what = format!("{}/{repository}", self.host());
        let ask = RegistryRequest::push(Method::POST, url, scope, what);
        self.patiently(|| async {
            let answer = self.once(&ask).await?;
            if answer.status() != StatusCode::ACCEPTED {
                return Err(self.refusal(&ask, answer).await.into());
            }
            UploadSession::of(self, &answer).ok_or_else(|| {
                AttemptError::Final(Error::Push {
                    what: ask.what.clone(),
                    message: "the registry opens an upload and does not say where".into(),
                })
            })
        })
        .await
    }
}

/// Bytes that a session holds, by the `Range: 0-99` of an answer. Some write `bytes=0-99`. For no
/// byte at all registries write `0-0`, as for one; no single byte is ever sent by itself.
pub fn held(answer: &RegistryResponse) -> Option<u64> {
    let range = answer.header(RANGE.as_str())?;
    let range = range.trim().trim_start_matches("bytes=");
    let last: u64 = range.split_once('-')?.1.trim().parse().ok()?;
    Some(if last == 0 { 0 } else { last + 1 })
}
