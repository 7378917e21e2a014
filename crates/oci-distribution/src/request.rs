//! One attempt of a request: authenticated, redirected, and classified.
//!
//! Redirects are followed here and not by the HTTP client: credentials are sent to the registry
//! alone, and a 401 of another host is not a challenge to answer.

use http_client::{
    AttemptError, IdleLimits, TransferError, TransferProgress, is_plain_http, while_active,
};
use reqwest::header::{AUTHORIZATION, CONTENT_LENGTH, HeaderName, HeaderValue, LOCATION};
use reqwest::{Method, StatusCode, Url};

use super::Error;
use super::auth::TokenScope;
use super::client::Client;
use super::response::RegistryResponse;
use super::source::BlobChunk;

/// Redirects that are followed in a row.
const MAX_REDIRECTS: usize = 5;

/// What a request is for. It decides what a refusal means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestPurpose {
    /// To check the login.
    Check,
    /// To read.
    Read,
    /// To write.
    Push,
}

/// The body of a request.
pub enum RequestBody<'a> {
    None,
    Bytes(&'a [u8]),
    Chunk(&'a BlobChunk),
}

/// A request that can be attempted again.
pub struct RegistryRequest<'a> {
    pub method: Method,
    pub url: Url,
    pub scope: &'a TokenScope,
    pub purpose: RequestPurpose,
    /// What the request is about, for messages.
    pub what: String,
    pub headers: Vec<(HeaderName, String)>,
    pub body: RequestBody<'a>,
    /// Whether it gets a connection of its own.
    pub is_unpooled: bool,
    /// Whether the registry may take long to respond once it has received everything.
    pub is_commit: bool,
    pub progress: TransferProgress,
}

impl<'a> RegistryRequest<'a> {
    /// A request that reads.
    pub fn read(method: Method, url: Url, scope: &'a TokenScope, what: String) -> Self {
        Self {
            method,
            url,
            scope,
            purpose: RequestPurpose::Read,
            what,
            headers: Vec::new(),
            body: RequestBody::None,
            is_unpooled: false,
            is_commit: false,
            progress: TransferProgress::default(),
        }
    }

    /// A request that writes.
    pub fn push(method: Method, url: Url, scope: &'a TokenScope, what: String) -> Self {
        Self {
            purpose: RequestPurpose::Push,
            ..Self::read(method, url, scope, what)
        }
    }

    /// The same request with another header.
    pub fn with(mut self, name: HeaderName, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    fn is_read(&self) -> bool {
        [Method::GET, Method::HEAD].contains(&self.method)
    }

    /// Whether a redirect from one address to another is followed. Data is sent nowhere but to the
    /// host that the caller named, and TLS is never left.
    fn may_redirect(&self, from: &Url, to: &Url) -> bool {
        let keeps_tls = to.scheme() == "https" || is_plain_http(from);
        keeps_tls && (self.is_read() || to.origin() == from.origin())
    }
}

impl Client {
    /// Makes one attempt. A failure that another attempt may not have is transient; every other
    /// response is the caller's to judge.
    pub(super) async fn attempt(
        &self,
        request: &RegistryRequest<'_>,
    ) -> Result<RegistryResponse, AttemptError<Error>> {
        let mut url = request.url.clone();
        for _ in 0..=MAX_REDIRECTS {
            let response = self.send_authenticated(request, &url).await?;
            let followed: &[u16] = if request.is_read() {
                &[301, 302, 303, 307, 308]
            } else {
                &[307, 308]
            };
            if !followed.contains(&response.status().as_u16()) {
                return self.classify(request, response).await;
            }
            let next = response.header(LOCATION.as_str());
            let next = next.and_then(|next| self.resolve(&url, next));
            match next.filter(|next| request.may_redirect(&url, next)) {
                Some(next) => url = next,
                None => return Err(self.refusal(request, response).await.into()),
            }
        }
        Err(AttemptError::Final(self.status_error(
            request,
            StatusCode::LOOP_DETECTED,
            format!("more than {MAX_REDIRECTS} redirects in a row"),
        )))
    }

    /// Sends a request to one address, and once more after a challenge.
    async fn send_authenticated(
        &self,
        request: &RegistryRequest<'_>,
        url: &Url,
    ) -> Result<RegistryResponse, AttemptError<Error>> {
        if !self.is_same_origin(url) {
            return self.send(request, url, None).await;
        }
        let authenticator = self.authenticator();
        let header = authenticator.header(self, request, None).await?;
        let response = self.send(request, url, header).await?;
        if response.status() != StatusCode::UNAUTHORIZED {
            return Ok(response);
        }
        authenticator.learn(request.scope, response.headers()).await;
        let rejected = response.authorization();
        let header = authenticator.header(self, request, rejected).await?;
        if header.as_ref() == rejected {
            return Ok(response);
        }
        // The body is read to its end, so that the connection can be reused.
        let _ = self.error_message(response).await;
        self.send(request, url, header).await
    }

    async fn send(
        &self,
        request: &RegistryRequest<'_>,
        url: &Url,
        authorization: Option<HeaderValue>,
    ) -> Result<RegistryResponse, AttemptError<Error>> {
        let mut builder = self
            .http(request.is_unpooled)
            .request(request.method.clone(), url.clone());
        for (name, value) in &request.headers {
            builder = builder.header(name, value);
        }
        if let Some(authorization) = &authorization {
            builder = builder.header(AUTHORIZATION, authorization);
        }
        let is_streamed = matches!(request.body, RequestBody::Chunk(_));
        request.progress.record(!is_streamed);
        builder = match request.body {
            RequestBody::None if request.is_read() => builder,
            RequestBody::None => builder.header(CONTENT_LENGTH, 0),
            RequestBody::Bytes(bytes) => builder.body(bytes.to_vec()),
            RequestBody::Chunk(chunk) => builder
                .header(CONTENT_LENGTH, chunk.length())
                .body(chunk.body(&request.progress).await?),
        };
        let limits = self.limits();
        let idle_limits = IdleLimits {
            silence: limits.silence,
            response: if request.is_commit {
                limits.commit
            } else {
                limits.silence
            },
        };
        let sent = while_active(builder.send(), &request.progress, idle_limits).await;
        let response = sent.map_err(|error| self.disconnected(&error))?;
        self.record_response(response.headers());
        Ok(RegistryResponse::new(response, authorization))
    }

    /// The failure of a transfer.
    pub(super) fn disconnected(&self, error: &TransferError) -> AttemptError<Error> {
        AttemptError::disconnected(Error::Unreachable {
            what: self.host().to_owned(),
            message: error.to_string(),
        })
    }
}
