//! A client of one registry, by the OCI distribution specification (v1.1): what its requests share.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http_client::{
    AttemptError, HttpOptions, RetryPolicy, TransferError, build, clock_difference, retry,
};
use reqwest::header::HeaderMap;
use reqwest::{Method, Url};

use super::address::registry_address;
use super::auth::{Authenticator, TokenScope};
use super::capabilities::LearnedCapabilities;
use super::locations::BlobLocations;
use super::request::{RegistryRequest, RequestPurpose};
use super::{Account, Error, Login, TransferLimits, Trust};
use oci::Digest;

/// Retries while the registry has never responded, and of [`Client::check`]: a wrong address is
/// more likely than an outage, and a person waits.
const FIRST_RETRIES: u32 = 2;

/// How long [`Client::check`] may take with all its retries.
const CHECK_TIMEOUT: Duration = Duration::from_secs(15);

/// What a client is built with.
#[derive(Debug, Clone)]
pub struct ClientOptions {
    /// Value of the `User-Agent` header.
    pub user_agent: String,
    /// The `client_id` that a token server gets with an identity token (OAuth 2).
    pub client_id: String,
    /// Retries, timeouts and sizes of chunks.
    pub limits: TransferLimits,
    /// Trusted certificates, and where credentials may be sent.
    pub trust: Trust,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            user_agent: concat!(env!("CARGO_PKG_NAME"), "/", env!("CARGO_PKG_VERSION")).into(),
            client_id: env!("CARGO_PKG_NAME").into(),
            limits: TransferLimits::default(),
            trust: Trust::default(),
        }
    }
}

/// A client of one registry. Clones share connections, tokens, and which repositories have which
/// blobs.
#[derive(Clone)]
pub struct Client(Arc<ClientState>);

struct ClientState {
    host: String,
    root: Url,
    client_id: String,
    http: reqwest::Client,
    /// Opens a new connection for each request.
    http_unpooled: reqwest::Client,
    authenticator: Authenticator,
    limits: TransferLimits,
    locations: BlobLocations,
    capabilities: LearnedCapabilities,
    /// Whether the registry has ever responded.
    has_responded: AtomicBool,
    /// The clock difference, from the last response with a date.
    clock_difference: Mutex<Option<i64>>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("registry", &self.0.root.as_str())
            .field("login", &self.authenticator().login())
            .finish_non_exhaustive()
    }
}

impl Client {
    /// A client of a registry such as `registry.example.com`, `127.0.0.1:5000` or
    /// `http://registry.local`. Without a scheme, the loopback is asked over plain HTTP and every
    /// other host over TLS. Nothing is sent yet.
    pub fn new(
        registry: &str,
        login: Option<Login>,
        options: &ClientOptions,
    ) -> Result<Self, Error> {
        let (root, host) = registry_address(registry);
        let unreachable = |message: String| Error::Unreachable {
            what: host.clone(),
            message,
        };
        let root = Url::parse(&root).map_err(|error| unreachable(error.to_string()))?;
        let http_options = HttpOptions {
            certificates: options.trust.certificates(&host)?,
            ..HttpOptions::new(&options.user_agent)
        };
        let build = |options: HttpOptions| {
            build(&root, options)
                .map_err(|error| unreachable(TransferError::from(error).to_string()))
        };
        let http = build(http_options.clone())?;
        let http_unpooled = build(HttpOptions {
            keeps_connections: false,
            ..http_options
        })?;
        Ok(Self(Arc::new(ClientState {
            http,
            http_unpooled,
            host,
            root,
            client_id: options.client_id.clone(),
            authenticator: Authenticator::new(login, options.trust.allow_insecure),
            limits: options.limits,
            locations: BlobLocations::default(),
            capabilities: LearnedCapabilities::default(),
            has_responded: AtomicBool::new(false),
            clock_difference: Mutex::new(None),
        })))
    }

    /// The registry's host, with its port.
    pub fn host(&self) -> &str {
        &self.0.host
    }

    /// As whom the registry is asked.
    pub fn account(&self) -> Account {
        let login = self.authenticator().login();
        login.map_or(Account::Anonymous, Login::account)
    }

    /// Checks that the registry responds and accepts the login, without reading or writing
    /// anything: requests `/v2/` and answers the challenge.
    pub async fn check(&self) -> Result<(), Error> {
        let check = tokio::time::timeout(CHECK_TIMEOUT, self.check_with_retries());
        check.await.unwrap_or_else(|_| {
            Err(Error::Unreachable {
                what: self.host().to_owned(),
                message: format!("no response within {} s", CHECK_TIMEOUT.as_secs()),
            })
        })
    }

    /// Seconds by which the clock of this machine is ahead of the registry's. `None` before the
    /// first response with a date.
    pub fn clock_difference(&self) -> Option<i64> {
        let difference = self.0.clock_difference.lock();
        *difference.unwrap_or_else(PoisonError::into_inner)
    }

    async fn check_with_retries(&self) -> Result<(), Error> {
        let scope = TokenScope::default();
        let mut url = self.0.root.clone();
        url.set_path("/v2/");
        let request = RegistryRequest {
            purpose: RequestPurpose::Check,
            ..RegistryRequest::read(Method::GET, url, &scope, self.host().into())
        };
        retry(self.0.limits.retry.at_most(FIRST_RETRIES), || async {
            let response = self.attempt(&request).await?;
            if response.status().is_success() {
                return Ok(());
            }
            Err(self.refusal(&request, response).await.into())
        })
        .await
    }

    pub(super) fn authenticator(&self) -> &Authenticator {
        &self.0.authenticator
    }

    pub(super) fn client_id(&self) -> &str {
        &self.0.client_id
    }

    pub(super) fn locations(&self) -> &BlobLocations {
        &self.0.locations
    }

    pub(super) fn capabilities(&self) -> &LearnedCapabilities {
        &self.0.capabilities
    }

    pub(super) fn limits(&self) -> TransferLimits {
        self.0.limits
    }

    pub(super) fn retry_policy(&self) -> RetryPolicy {
        let policy = self.0.limits.retry;
        if self.0.has_responded.load(Ordering::Relaxed) {
            policy
        } else {
            policy.at_most(FIRST_RETRIES)
        }
    }

    /// Records that the registry has responded, and its time.
    pub(super) fn record_response(&self, headers: &HeaderMap) {
        self.0.has_responded.store(true, Ordering::Relaxed);
        if let Some(seconds) = clock_difference(headers) {
            let difference = self.0.clock_difference.lock();
            *difference.unwrap_or_else(PoisonError::into_inner) = Some(seconds);
        }
    }

    /// The HTTP client. `is_unpooled` is for a network that cuts each connection after some time or
    /// some bytes: a used connection has less of it left.
    pub(super) fn http(&self, is_unpooled: bool) -> &reqwest::Client {
        if is_unpooled {
            &self.0.http_unpooled
        } else {
            &self.0.http
        }
    }

    /// The registry's address.
    pub(super) fn root(&self) -> &Url {
        &self.0.root
    }

    /// Whether an address belongs to the registry, so that credentials may be sent there.
    pub(super) fn is_same_origin(&self, url: &Url) -> bool {
        url.origin() == self.0.root.origin()
    }

    /// An address from a `Location` header. A registry behind a proxy that terminates TLS often
    /// names itself with `http://`: its own host keeps the scheme and port of the client.
    pub(super) fn resolve(&self, from: &Url, location: &str) -> Option<Url> {
        let mut url = from.join(location).ok()?;
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

    /// An address in a repository, if its name is valid.
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
            return Err(invalid_name(repository, "repository name"));
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
            return Err(invalid_name(reference, "tag or digest"));
        }
        self.url(repository, &format!("manifests/{reference}"))
    }

    /// The full reference of something in a repository, for messages.
    pub(super) fn full_reference(&self, repository: &str, reference: &str) -> String {
        let sign = if reference.contains(':') { '@' } else { ':' };
        format!("{}/{repository}{sign}{reference}", self.host())
    }

    /// Attempts the work until it succeeds, fails for good, or there is no attempt left.
    pub(super) async fn with_retries<T, F: Future<Output = Result<T, AttemptError<Error>>>>(
        &self,
        attempt: impl Fn() -> F,
    ) -> Result<T, Error> {
        retry(self.retry_policy(), attempt).await
    }
}

fn invalid_name(name: &str, kind: &'static str) -> Error {
    Error::InvalidName {
        name: name.escape_debug().to_string(),
        kind,
    }
}

#[cfg(test)]
mod tests {
    use super::{Client, ClientOptions};

    #[test]
    fn a_location_on_the_registrys_host_keeps_tls_and_port() {
        let options = ClientOptions::default();
        let client = Client::new("registry.example.com:8443", None, &options).unwrap();
        let from = client.url("a/b", "blobs/uploads/").unwrap();
        for (location, expected) in [
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
            let url = client.resolve(&from, location).unwrap();
            assert_eq!(url.as_str(), expected, "{location}");
            assert_eq!(client.is_same_origin(&url), !location.contains("other"));
        }
        assert_eq!(client.resolve(&from, "file:///etc/passwd"), None);
    }
}
