//! A client of one registry, as the OCI distribution specification (v1.1) has it. Others send and
//! judge its requests; here is what they share.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use reqwest::{Method, Url};

use super::address::{base, builder, reason};
use super::auth::{Authenticator, TokenScope};
use super::capabilities::LearnedCapabilities;
use super::locations::BlobLocations;
use super::request::{RegistryRequest, RequestPurpose};
use super::retry::{AttemptError, Backoff};
use super::{Error, Login, TransferLimits, Trust};
use oci::Digest;

/// Tries after the first one of a registry that has never answered, or whose login is tried: it
/// is more likely to be the wrong one than to come back, and a person waits.
const FIRST: u32 = 2;

/// Time that all of them may take.
const CHECKING: Duration = Duration::from_secs(15);

/// A client of one registry. Copies share connections, tokens, and what is known to be there.
#[derive(Clone)]
pub struct Client(Arc<ClientState>);

struct ClientState {
    /// As people know it.
    host: String,
    root: Url,
    http: reqwest::Client,
    /// One that keeps no connection for a second request.
    fresh: reqwest::Client,
    auth: Authenticator,
    limits: TransferLimits,
    known: BlobLocations,
    learnt: LearnedCapabilities,
    /// Whether anything was heard of it.
    has_answered: AtomicBool,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("registry", &self.0.root.as_str())
            .field("login", &self.auth().login())
            .finish_non_exhaustive()
    }
}

impl Client {
    /// Of a registry such as `registry.example.com`, `127.0.0.1:5000` or `http://registry.local`.
    /// Nothing is asked yet.
    pub fn trusting(registry: &str, login: Option<Login>, trust: &Trust) -> Result<Self, Error> {
        Self::new(registry, login, TransferLimits::default(), trust)
    }

    /// With other limits. Only the system's certificate authorities are trusted.
    pub fn with(
        registry: &str,
        login: Option<Login>,
        limits: TransferLimits,
    ) -> Result<Self, Error> {
        Self::new(registry, login, limits, &Trust::default())
    }

    /// With another patience.
    pub fn new(
        registry: &str,
        login: Option<Login>,
        limits: TransferLimits,
        trust: &Trust,
    ) -> Result<Self, Error> {
        let (root, host) = base(registry);
        let wrong = |message: String| Error::Unreachable {
            what: host.clone(),
            message,
        };
        let root = Url::parse(&root).map_err(|error| wrong(error.to_string()))?;
        let certificates = trust.certificates(&host)?;
        let http = || builder(registry).tls_certs_merge(certificates.iter().cloned());
        let build =
            |builder: reqwest::ClientBuilder| builder.build().map_err(|error| wrong(reason(error)));
        Ok(Self(Arc::new(ClientState {
            http: build(http())?,
            fresh: build(http().pool_max_idle_per_host(0))?,
            host,
            root,
            auth: Authenticator::new(login, trust.allow_insecure),
            limits,
            known: BlobLocations::default(),
            learnt: LearnedCapabilities::default(),
            has_answered: AtomicBool::new(false),
        })))
    }

    /// The registry's host, as people know it.
    pub fn host(&self) -> &str {
        &self.0.host
    }

    /// Sees whether the registry is there and takes the login, without reading or writing
    /// anything: asks `/v2/`, and follows the challenge that comes back.
    pub async fn check(&self) -> Result<(), Error> {
        let checked = tokio::time::timeout(CHECKING, self.checked());
        checked.await.unwrap_or_else(|_| {
            Err(Error::Unreachable {
                what: self.host().to_owned(),
                message: format!("no answer within {} s", CHECKING.as_secs()),
            })
        })
    }

    async fn checked(&self) -> Result<(), Error> {
        let scope = TokenScope::default();
        let mut url = self.0.root.clone();
        url.set_path("/v2/");
        let ask = RegistryRequest {
            purpose: RequestPurpose::Check,
            ..RegistryRequest::read(Method::GET, url, &scope, self.host().into())
        };
        let mut patience = Backoff::new(self.0.limits.at_most(FIRST));
        loop {
            match self.once(&ask).await {
                Ok(answer) if answer.status().is_success() => return Ok(()),
                Ok(answer) => return Err(self.refusal(&ask, answer).await),
                Err(trouble) => patience.wait(trouble).await?,
            }
        }
    }

    pub(super) fn auth(&self) -> &Authenticator {
        &self.0.auth
    }

    pub(super) fn known(&self) -> &BlobLocations {
        &self.0.known
    }

    pub(super) fn learnt(&self) -> &LearnedCapabilities {
        &self.0.learnt
    }

    pub(super) fn limits(&self) -> TransferLimits {
        if self.0.has_answered.load(Ordering::Relaxed) {
            self.0.limits
        } else {
            self.0.limits.at_most(FIRST)
        }
    }

    /// Something was heard of the registry.
    pub(super) fn has_answered(&self) {
        self.0.has_answered.store(true, Ordering::Relaxed);
    }

    /// A client that speaks HTTP. A fresh one takes a new connection for every request: where
    /// something cuts connections after some time or bytes, the rest of a used one is short.
    pub(super) fn http(&self, is_fresh: bool) -> &reqwest::Client {
        if is_fresh {
            &self.0.fresh
        } else {
            &self.0.http
        }
    }

    /// The registry's own address.
    pub(super) fn root(&self) -> &Url {
        &self.0.root
    }

    /// Whether it is an address of the registry, which may see credentials.
    pub(super) fn is_own(&self, url: &Url) -> bool {
        url.origin() == self.0.root.origin()
    }

    /// An address that the registry has named. A proxy that ends TLS before a registry often
    /// does not tell it, so its own host is reached as it was reached before.
    pub(super) fn led(&self, from: &Url, to: &str) -> Option<Url> {
        let mut url = from.join(to).ok()?;
        let root = &self.0.root;
        let is_downgraded = url.scheme() == "http"
            && root.scheme() == "https"
            && url.host() == root.host()
            && (url.port().is_none() || url.port() == root.port());
        if is_downgraded {
            let _ = url.set_scheme("https");
            let _ = url.set_port(root.port());
        }
        ["http", "https"].contains(&url.scheme()).then_some(url)
    }

    /// An address in a repository; what is not called as the specification wants it has none.
    pub(super) fn url(&self, repository: &str, rest: &str) -> Result<Url, Error> {
        let is_part = |part: &str| {
            let inside = |byte: u8| {
                byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-".contains(&byte)
            };
            let ends = part.bytes().next().into_iter().chain(part.bytes().last());
            !part.is_empty()
                && part.bytes().all(inside)
                && ends.into_iter().all(|byte| byte.is_ascii_alphanumeric())
        };
        if !repository.split('/').all(is_part) {
            return Err(misnamed(repository, "repository"));
        }
        let mut url = self.0.root.clone();
        url.set_path(&format!("/v2/{repository}/{rest}"));
        Ok(url)
    }

    /// The address of a manifest, by tag or digest.
    pub(super) fn manifest_url(&self, repository: &str, reference: &str) -> Result<Url, Error> {
        let is_inside = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        let is_tag = !reference.is_empty()
            && reference.len() <= 128
            && reference.bytes().all(is_inside)
            && !reference.starts_with(['.', '-']);
        if !is_tag && reference.parse::<Digest>().is_err() {
            return Err(misnamed(reference, "tag or digest"));
        }
        self.url(repository, &format!("manifests/{reference}"))
    }

    /// As people are told of something in a repository.
    pub(super) fn named(&self, repository: &str, reference: &str) -> String {
        let sign = if reference.contains(':') { '@' } else { ':' };
        format!("{}/{repository}{sign}{reference}", self.host())
    }

    /// Tries until it works, cannot work, or has failed often enough.
    pub(super) async fn patiently<T, F: Future<Output = Result<T, AttemptError>>>(
        &self,
        work: impl Fn() -> F,
    ) -> Result<T, Error> {
        let mut patience = Backoff::new(self.limits());
        loop {
            match work().await {
                Ok(done) => return Ok(done),
                Err(trouble) => patience.wait(trouble).await?,
            }
        }
    }
}

fn misnamed(name: &str, kind: &'static str) -> Error {
    Error::Name {
        name: name.escape_debug().to_string(),
        kind,
    }
}

#[cfg(test)]
mod tests {
    use super::{Client, TransferLimits};

    #[test]
    fn a_registry_is_reached_as_it_was_reached_before() {
        let limits = TransferLimits::default();
        let client = Client::with("registry.example.com:8443", None, limits).unwrap();
        let from = client.url("a/b", "blobs/uploads/").unwrap();
        for (to, expected) in [
            ("/v2/1?x=y", "https://registry.example.com:8443/v2/1?x=y"),
            (
                "1",
                "https://registry.example.com:8443/v2/a/b/blobs/uploads/1",
            ),
            (
                "http://registry.example.com/1",
                "https://registry.example.com:8443/1",
            ),
            (
                "http://registry.example.com:8443/1",
                "https://registry.example.com:8443/1",
            ),
            (
                "http://registry.example.com:80/1",
                "https://registry.example.com:8443/1",
            ),
            ("http://other.example.com/1", "http://other.example.com/1"),
        ] {
            let led = client.led(&from, to).unwrap();
            assert_eq!(led.as_str(), expected, "{to}");
            assert_eq!(client.is_own(&led), !to.contains("other"), "{to}");
        }
        assert_eq!(client.led(&from, "file:///etc/passwd"), None);
    }
}
