//! Upload sessions: the registry opens one, names its address, and says how many bytes it holds.

use reqwest::header::{LOCATION, RANGE};
use reqwest::{Method, StatusCode, Url};

use http_client::AttemptError;

use super::Error;
use super::auth::TokenScope;
use super::client::Client;
use super::request::RegistryRequest;
use super::response::RegistryResponse;

/// An open upload session.
pub struct UploadSession {
    /// Where to send the next request. Each response may change it.
    pub url: Url,
    /// Bytes that each chunk but the last must have at least.
    pub smallest_chunk: u64,
}

impl UploadSession {
    /// The session that a response opens, if it names one.
    pub fn opened_by(client: &Client, response: &RegistryResponse) -> Option<Self> {
        let smallest = response.header("oci-chunk-min-length");
        Some(Self {
            url: client.resolve(response.url(), response.header(LOCATION.as_str())?)?,
            smallest_chunk: smallest.and_then(|text| text.parse().ok()).unwrap_or(0),
        })
    }

    /// The same session, with the address that a response names.
    pub fn moved(self, client: &Client, response: &RegistryResponse) -> Self {
        let next = response.header(LOCATION.as_str());
        let next = next.and_then(|next| client.resolve(response.url(), next));
        Self {
            url: next.unwrap_or(self.url),
            ..self
        }
    }
}

impl Client {
    /// Checks that the registry lets this client push to a repository: opens an upload session and
    /// cancels it. Nothing is uploaded. A registry that cannot cancel a session drops it later.
    pub async fn check_push(&self, repository: &str) -> Result<(), Error> {
        let scope = TokenScope::push(repository);
        let session = self.open_session(repository, &scope).await?;
        let what = format!("{}/{repository}", self.host());
        let cancel = RegistryRequest::push(Method::DELETE, session.url, &scope, what);
        let _ = self.attempt(&cancel).await;
        Ok(())
    }

    /// Opens an upload session.
    pub(super) async fn open_session(
        &self,
        repository: &str,
        scope: &TokenScope,
    ) -> Result<UploadSession, Error> {
        let url = self.url(repository, "blobs/uploads/")?;
        let what = format!("{}/{repository}", self.host());
        let request = RegistryRequest::push(Method::POST, url, scope, what);
        self.with_retries(|| async {
            let response = self.attempt(&request).await?;
            if response.status() != StatusCode::ACCEPTED {
                return Err(self.refusal(&request, response).await.into());
            }
            UploadSession::opened_by(self, &response).ok_or_else(|| {
                AttemptError::Final(Error::PushFailed {
                    what: request.what.clone(),
                    message: "the registry opened an upload session without a `Location`".into(),
                })
            })
        })
        .await
    }
}

/// Bytes that a session holds, by the `Range: 0-99` of a response. Some registries write
/// `bytes=0-99`. An empty session is written `0-0`, as is a session that holds one byte; a chunk of
/// one byte is never sent.
pub fn held_bytes(response: &RegistryResponse) -> Option<u64> {
    let range = response.header(RANGE.as_str())?;
    let range = range.trim().trim_start_matches("bytes=");
    let last: u64 = range.split_once('-')?.1.trim().parse().ok()?;
    Some(if last == 0 { 0 } else { last + 1 })
}
