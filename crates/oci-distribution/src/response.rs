//! What a registry answers: read within bounds, and what a refusal means.

use reqwest::header::{HeaderMap, HeaderValue};
use reqwest::{Response, StatusCode, Url};

use super::client::Client;
use super::request::{RegistryRequest, RequestPurpose};
use super::retry::{AttemptError, retry_after};
use super::{Error, Login};

/// Bytes that are read of an answer for its message.
const LONGEST_ANSWER: u64 = 64 << 10;

/// Characters that are told of what a server says.
const LONGEST_WORD: usize = 300;

/// What came, and what was sent to get it.
pub struct RegistryResponse {
    response: Response,
    secret: Option<HeaderValue>,
}

impl RegistryResponse {
    pub fn new(response: Response, secret: Option<HeaderValue>) -> Self {
        Self { response, secret }
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

    /// The token or password that was sent.
    pub fn secret(&self) -> Option<&HeaderValue> {
        self.secret.as_ref()
    }
}

impl Client {
    /// Takes out what may pass.
    pub(super) async fn judge(
        &self,
        ask: &RegistryRequest<'_>,
        answer: RegistryResponse,
    ) -> Result<RegistryResponse, AttemptError> {
        if !may_pass(answer.status()) {
            return Ok(answer);
        }
        let after = retry_after(answer.headers());
        let status = answer.status();
        let is_break = [408, 502, 504].contains(&status.as_u16());
        let error = self.refusal(ask, answer).await;
        Err(AttemptError::Passing {
            error,
            status: Some(status),
            after,
            is_break,
        })
    }

    /// The error of an answer that is none of those that were hoped for.
    pub(super) async fn refusal(
        &self,
        ask: &RegistryRequest<'_>,
        answer: RegistryResponse,
    ) -> Error {
        let status = answer.status();
        let (_, message) = self.said(answer).await;
        self.refused(ask, status, message)
    }

    /// The error of a status, with a message for people.
    pub(super) fn refused(
        &self,
        ask: &RegistryRequest<'_>,
        status: StatusCode,
        message: String,
    ) -> Error {
        let login = self.auth().login();
        let (user, whom) = match login.map(Login::user) {
            Some(user) => (user.to_owned(), format!("as `{user}`")),
            None => ("nobody".into(), "without a login".into()),
        };
        let what = ask.what.clone();
        let registry = self.host().to_owned();
        let is_own = login.is_some_and(Login::is_own);
        match (status.as_u16(), ask.purpose) {
            _ if may_pass(status) => Error::Server { what, message },
            (401, purpose) if is_own || purpose != RequestPurpose::Read => Error::Unauthorized {
                registry,
                user,
                message,
            },
            (number, RequestPurpose::Read) => Error::Unreadable {
                what,
                login: (!is_own).then_some(registry),
                whom,
                message: format!("{message} ({number})"),
            },
            (403, _) => Error::Forbidden {
                what,
                user,
                message,
            },
            (404, _) => Error::NotFound { what, message },
            (413, _) => Error::TooLarge { what, message },
            _ => Error::Push { what, message },
        }
    }

    /// The registry's code for what is wrong, and its word, as people are told.
    pub(super) async fn said(&self, answer: RegistryResponse) -> (String, String) {
        let status = answer.status();
        let secret = answer.secret.clone();
        let body = self.body(answer, LONGEST_ANSWER).await;
        let body = body.ok().flatten().unwrap_or_default();
        let document: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
        let first = &document["errors"][0];
        let code = first["code"].as_str().unwrap_or_default().to_owned();
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
                let message = self.redact(message, secret.as_ref());
                let short: String = message.chars().take(LONGEST_WORD).collect();
                short.escape_debug().to_string()
            }
            None => status.to_string(),
        };
        (code, message)
    }

    /// Takes the login out of a text that came from outside, and what was sent: a careless server
    /// repeats it.
    fn redact(&self, text: &str, secret: Option<&HeaderValue>) -> String {
        let text = match self.auth().login() {
            Some(login) => login.redact(text),
            None => text.to_owned(),
        };
        let secret = secret.and_then(|secret| secret.to_str().ok()?.split_once(' '));
        match secret {
            Some((_, secret)) if !secret.is_empty() => text.replace(secret, "***"),
            _ => text,
        }
    }

    /// The whole of an answer; nothing if it is longer than it may be.
    pub(super) async fn body(
        &self,
        mut answer: RegistryResponse,
        longest: u64,
    ) -> Result<Option<Vec<u8>>, AttemptError> {
        let mut body = Vec::new();
        while let Some(piece) = self.piece(&mut answer).await? {
            body.extend_from_slice(piece.as_ref());
            if body.len() as u64 > longest {
                return Ok(None);
            }
        }
        Ok(Some(body))
    }

    /// The next bytes of an answer.
    pub(super) async fn piece(
        &self,
        answer: &mut RegistryResponse,
    ) -> Result<Option<impl AsRef<[u8]> + Send + use<>>, AttemptError> {
        self.in_time(answer.response.chunk()).await
    }
}

/// Whether another try may bring another answer.
fn may_pass(status: StatusCode) -> bool {
    let is_ours = [StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_MANY_REQUESTS].contains(&status);
    is_ours || status.is_server_error() && status != StatusCode::NOT_IMPLEMENTED
}
