//! A registry's responses: read within limits, and what a refusal means.

use http_client::{AttemptError, LimitedBody, next_chunk, read_at_most, retry_after};
use reqwest::header::{HeaderMap, HeaderValue};
use reqwest::{Response, StatusCode, Url};

use super::client::Client;
use super::request::{RegistryRequest, RequestPurpose};
use super::{Error, Login};

/// Bytes of an error response that are read for its message.
const LONGEST_ERROR: u64 = 64 << 10;

/// Characters of a server's message that an error shows.
const LONGEST_MESSAGE: usize = 300;

/// A response, and the credentials that were sent to get it.
pub struct RegistryResponse {
    response: Response,
    authorization: Option<HeaderValue>,
}

impl RegistryResponse {
    pub fn new(response: Response, authorization: Option<HeaderValue>) -> Self {
        Self {
            response,
            authorization,
        }
    }

    pub fn status(&self) -> StatusCode {
        self.response.status()
    }

    pub fn url(&self) -> &Url {
        self.response.url()
    }

    pub fn headers(&self) -> &HeaderMap {
        self.response.headers()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers().get(name)?.to_str().ok()
    }

    /// The `Authorization` header that was sent.
    pub fn authorization(&self) -> Option<&HeaderValue> {
        self.authorization.as_ref()
    }
}

/// What an error response says.
pub struct ErrorMessage {
    /// The registry's error code, such as `DIGEST_INVALID`; often empty.
    pub code: String,
    /// The registry's message, or else the status.
    pub message: String,
}

impl Client {
    /// Makes a failure of responses that another attempt may not get.
    pub(super) async fn classify(
        &self,
        request: &RegistryRequest<'_>,
        response: RegistryResponse,
    ) -> Result<RegistryResponse, AttemptError<Error>> {
        let status = response.status();
        if !is_transient(status) {
            return Ok(response);
        }
        let retry_after = retry_after(response.headers());
        Err(AttemptError::Transient {
            error: self.refusal(request, response).await,
            status: Some(status),
            retry_after,
            is_disconnect: [408, 502, 504].contains(&status.as_u16()),
        })
    }

    /// The error that an unexpected response means.
    pub(super) async fn refusal(
        &self,
        request: &RegistryRequest<'_>,
        response: RegistryResponse,
    ) -> Error {
        let status = response.status();
        let ErrorMessage { message, .. } = self.error_message(response).await;
        self.status_error(request, status, message)
    }

    /// The error that a status means.
    pub(super) fn status_error(
        &self,
        request: &RegistryRequest<'_>,
        status: StatusCode,
        message: String,
    ) -> Error {
        let login = self.authenticator().login();
        let account = self.account();
        let what = request.what.clone();
        let registry = self.host().to_owned();
        let is_provided = login.is_some_and(Login::is_provided);
        match (status.as_u16(), request.purpose) {
            _ if is_transient(status) => Error::Server { what, message },
            (401, purpose) if is_provided || purpose != RequestPurpose::Read => {
                Error::Unauthorized {
                    registry,
                    account,
                    message,
                }
            }
            (number, RequestPurpose::Read) => Error::Unreadable {
                what,
                login_host: (!is_provided).then_some(registry),
                account,
                message: format!("{message} ({number})"),
            },
            (403, _) => Error::Forbidden {
                what,
                account,
                message,
            },
            (404, _) => Error::NotFound { what, message },
            (413, _) => Error::TooLarge { what, message },
            _ => Error::PushFailed { what, message },
        }
    }

    /// The code and the message of an error response, without secrets.
    pub(super) async fn error_message(&self, response: RegistryResponse) -> ErrorMessage {
        let status = response.status();
        let authorization = response.authorization.clone();
        let body = self.body(response, LONGEST_ERROR).await.unwrap_or_default();
        let document: serde_json::Value = serde_json::from_slice(&body.bytes).unwrap_or_default();
        let first = &document["errors"][0];
        // Registries write the first of these, token servers the others.
        let messages = [
            &first["message"],
            &document["error_description"],
            &document["details"],
            &document["message"],
        ];
        let mut messages = messages.into_iter().filter_map(|message| message.as_str());
        let message = match messages.find(|message| !message.is_empty()) {
            Some(message) => {
                let message = self.redact(message, authorization.as_ref());
                let short: String = message.chars().take(LONGEST_MESSAGE).collect();
                short.escape_debug().to_string()
            }
            None => status.to_string(),
        };
        ErrorMessage {
            code: first["code"].as_str().unwrap_or_default().to_owned(),
            message,
        }
    }

    /// Removes the login and the credentials that were sent from a server's message, which may
    /// repeat them.
    fn redact(&self, text: &str, authorization: Option<&HeaderValue>) -> String {
        let text = match self.authenticator().login() {
            Some(login) => login.redact(text),
            None => text.to_owned(),
        };
        let secret = authorization.and_then(|header| header.to_str().ok()?.split_once(' '));
        match secret {
            Some((_, secret)) if !secret.is_empty() => text.replace(secret, "***"),
            _ => text,
        }
    }

    /// A response's body, up to a limit of bytes.
    pub(super) async fn body(
        &self,
        response: RegistryResponse,
        limit: u64,
    ) -> Result<LimitedBody, AttemptError<Error>> {
        let body = read_at_most(response.response, limit, self.limits().silence).await;
        body.map_err(|error| self.disconnected(&error))
    }

    /// The next bytes of a response's body; `None` at its end.
    pub(super) async fn next_chunk(
        &self,
        response: &mut RegistryResponse,
    ) -> Result<Option<impl AsRef<[u8]> + Send + use<>>, AttemptError<Error>> {
        let chunk = next_chunk(&mut response.response, self.limits().silence).await;
        chunk.map_err(|error| self.disconnected(&error))
    }
}

/// Whether another attempt may get another response.
fn is_transient(status: StatusCode) -> bool {
    [StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_MANY_REQUESTS].contains(&status)
        || status.is_server_error() && status != StatusCode::NOT_IMPLEMENTED
}
