//! The remote cache: results that other machines share, by the Turborepo Remote Cache protocol
//! (v8). Many teams already run a server of it.
//!
//! A failure never ends a build: the task runs as on a cache miss, and the first failure is
//! reported. `requests` makes the requests, `outages` decides when the server is not asked.

mod outages;
mod requests;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use http_client::{AttemptError, HttpOptions, Redactor, RetryPolicy, TransferError, build, retry};
use reqwest::{Client, Url};
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::{OnceCell, Semaphore};

use super::{Cache, CacheLimits, CachedResult, DownloadedToolCache, Error, Key, ScriptTimes};
use outages::OutageCounter;

/// One retry of a read, soon after a failure.
const RETRY: RetryPolicy = RetryPolicy {
    retries: 1,
    pause: Duration::from_millis(200),
    factor: 1,
};

/// How long a connection may take to be established.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Uploads at once. A waiting upload is dropped if the server is paused meanwhile.
const CONCURRENT_UPLOADS: usize = 8;

/// Bytes of a signature key that turbo requires.
const SHORTEST_KEY: usize = 32;

/// Where the remote cache is, and its credentials.
pub struct RemoteCacheSettings {
    /// Value of the `User-Agent` header.
    pub user_agent: String,
    /// The server's address, without `/v8`.
    pub api: String,
    /// Bearer token.
    pub token: SecretString,
    /// The team's name.
    pub team: Option<String>,
    /// The team's id, which starts with `team_`.
    pub team_id: Option<String>,
    /// Key that signs artifacts. With it, unsigned artifacts are refused.
    pub signature_key: Option<SecretString>,
    /// Whether nothing is uploaded.
    pub read_only: bool,
    /// How long no data may move before a request is given up.
    pub timeout: Duration,
}

/// The remote cache of one run.
pub struct RemoteCache {
    settings: RemoteCacheSettings,
    /// The server for messages: the configured address may contain a password.
    host: String,
    client: Client,
    /// Whether the server allows its use; asked once.
    is_enabled: OnceCell<bool>,
    /// Whether the server has refused a request.
    has_refused: AtomicBool,
    outages: OutageCounter,
    uploads: Semaphore,
    warning: Mutex<PendingWarning>,
    redactor: Redactor,
}

#[derive(Default)]
struct PendingWarning {
    message: Option<String>,
    is_final: bool,
}

/// Why a request to the remote cache failed.
enum RemoteFailure {
    /// The server does not have the artifact.
    Missing,
    /// The server cannot be reached, or failed.
    Outage(String),
    /// No data moved for the configured time. It is not retried, since that would take as long.
    Idle,
    /// The server refuses this client.
    Refused(String),
    /// The server does not accept this artifact.
    NotAccepted(String),
    /// The artifact is not valid.
    Invalid(String),
    /// A local file cannot be read or written.
    Local(String),
    /// The tool cache is too old, too large, or takes longer than it saves.
    Declined,
}

/// The end of a download.
enum Fetched<T> {
    /// The artifact.
    Found(T),
    /// The server does not have it, or it is not usable.
    Nothing,
    /// No request was sent, or the response was not valid.
    Failed,
}

impl<T> Fetched<T> {
    fn found(self) -> Option<T> {
        match self {
            Self::Found(found) => Some(found),
            Self::Nothing | Self::Failed => None,
        }
    }
}

impl From<Error> for RemoteFailure {
    fn from(error: Error) -> Self {
        match error {
            Error::Invalid { reason } => Self::Invalid(reason),
            error => local(error),
        }
    }
}

fn local(error: impl std::fmt::Display) -> RemoteFailure {
    RemoteFailure::Local(error.to_string())
}

impl RemoteCache {
    /// A client of the remote cache. Nothing is sent yet.
    pub fn new(settings: RemoteCacheSettings) -> Result<Self, String> {
        let url = Url::parse(&settings.api)
            .map_err(|error| format!("`TURBO_API` is not a valid address: {error}"))?;
        let options = HttpOptions {
            connect_timeout: CONNECT_TIMEOUT.min(settings.timeout),
            ..HttpOptions::new(&settings.user_agent)
        };
        let client =
            build(&url, options).map_err(|error| TransferError::from(error).to_string())?;
        let key = settings.signature_key.as_ref();
        let is_short = key.is_some_and(|key| key.expose_secret().len() < SHORTEST_KEY);
        // Only advice: the first failure replaces it.
        let advice = is_short.then(|| {
            format!(
                "the signature key of the remote cache has fewer than {SHORTEST_KEY} bytes, which turbo does not accept"
            )
        });
        Ok(Self {
            host: url.origin().ascii_serialization(),
            client,
            is_enabled: OnceCell::new(),
            has_refused: AtomicBool::new(false),
            outages: OutageCounter::default(),
            uploads: Semaphore::new(CONCURRENT_UPLOADS),
            warning: Mutex::new(PendingWarning {
                message: advice,
                is_final: false,
            }),
            redactor: Redactor::new(
                [Some(&settings.token), settings.signature_key.as_ref()]
                    .into_iter()
                    .flatten()
                    .map(ExposeSecret::expose_secret),
            ),
            settings,
        })
    }

    /// Checks that the server responds and accepts the token.
    pub async fn check(&self) -> Result<(), String> {
        if self.is_available().await {
            return Ok(());
        }
        let warning = self.take_warning();
        Err(warning.unwrap_or_else(|| format!("the remote cache `{}` is not available", self.host)))
    }

    /// What replaces the token and the signature key in texts.
    pub fn redactor(&self) -> &Redactor {
        &self.redactor
    }

    /// The pending warning, once.
    pub fn take_warning(&self) -> Option<String> {
        self.warning
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .message
            .take()
    }

    /// Sets the warning. Only the first failure is reported: the following mostly have the same
    /// cause.
    fn warn(&self, message: String) {
        let mut warning = self.warning.lock().unwrap_or_else(PoisonError::into_inner);
        if !warning.is_final {
            warning.is_final = true;
            warning.message = Some(message);
        }
    }

    /// Fetches the result of a key into the local cache; `None` on a cache miss or a failure.
    pub async fn fetch(&self, cache: &Cache, key: Key) -> Option<CachedResult> {
        let fetched = self.fetch_with(|| self.download(cache, key)).await;
        if !matches!(fetched, Fetched::Failed) {
            self.outages.record_response();
        }
        fetched.found()
    }

    /// Fetches the tool cache of a key; `None` if there is none, if it is not used (see
    /// [`CachedResult::tool_cache`]), if its download takes longer than it saves, or on a failure. It is
    /// asked between uploads, so a response does not end an outage in which all uploads fail.
    pub async fn fetch_tool_cache(
        &self,
        cache: &Cache,
        key: Key,
        known: ScriptTimes,
        limits: CacheLimits,
    ) -> Option<DownloadedToolCache> {
        if self.outages.has_paused() {
            return None;
        }
        let fetched = self.fetch_with(|| self.download_tool_cache(cache, key, known, limits));
        fetched.await.found()
    }

    /// Downloads with one retry, and reports a failure.
    async fn fetch_with<T, F>(&self, download: impl Fn() -> F) -> Fetched<T>
    where
        F: Future<Output = Result<T, RemoteFailure>>,
    {
        if !self.is_available().await {
            return Fetched::Failed;
        }
        let downloaded = retry(RETRY, || async {
            let downloaded = download().await;
            downloaded.map_err(|failure| self.count(failure))
        });
        match downloaded.await {
            Ok(found) => Fetched::Found(found),
            Err(RemoteFailure::Missing | RemoteFailure::Declined) => Fetched::Nothing,
            Err(failure) => {
                self.report(failure);
                Fetched::Failed
            }
        }
    }

    /// Uploads a result that the local cache has.
    pub async fn send(&self, cache: &Cache, result: &CachedResult) {
        if self.settings.read_only {
            return;
        }
        let _permit = self.uploads.acquire().await;
        if !self.is_available().await {
            return;
        }
        // An upload is not retried: a lost one only costs another machine a cache miss.
        let uploaded = self.upload(cache, result).await;
        match uploaded.map_err(|failure| self.count(failure)) {
            Ok(()) => self.outages.record_response(),
            Err(AttemptError::Final(failure) | AttemptError::Transient { error: failure, .. }) => {
                self.report(failure);
            }
        }
    }

    /// Counts an outage, and decides whether another attempt may succeed.
    fn count(&self, failure: RemoteFailure) -> AttemptError<RemoteFailure> {
        match failure {
            RemoteFailure::Outage(_) => {
                if self.outages.record_failure() {
                    AttemptError::transient(failure)
                } else {
                    AttemptError::Final(failure)
                }
            }
            RemoteFailure::Idle => {
                self.outages.record_failure();
                AttemptError::Final(failure)
            }
            failure => AttemptError::Final(failure),
        }
    }

    /// Makes a warning of a failure.
    fn report(&self, failure: RemoteFailure) {
        let host = &self.host;
        let without = "building continues without it";
        let message = match failure {
            RemoteFailure::Missing | RemoteFailure::Declined => return,
            RemoteFailure::Outage(reason) => {
                format!("the remote cache `{host}` cannot be used: {reason}; {without}")
            }
            RemoteFailure::Idle => {
                let seconds = self.settings.timeout.as_secs();
                format!(
                    "the remote cache `{host}` cannot be used: no data was sent or received for {seconds} s; {without}"
                )
            }
            RemoteFailure::Refused(reason) => {
                self.has_refused.store(true, Ordering::Relaxed);
                format!("the remote cache `{host}` refuses requests: {reason}; {without}")
            }
            RemoteFailure::NotAccepted(reason) => {
                format!("the remote cache `{host}` rejected an upload: {reason}")
            }
            RemoteFailure::Invalid(reason) => {
                format!("an artifact of the remote cache `{host}` is not used: {reason}")
            }
            RemoteFailure::Local(reason) => {
                format!("the remote cache `{host}` cannot be used: {reason}")
            }
        };
        self.warn(message);
    }

    /// Whether the server is to be asked: it is not paused, has not refused, and is enabled.
    async fn is_available(&self) -> bool {
        if self.outages.is_paused() || self.has_refused.load(Ordering::Relaxed) {
            return false;
        }
        let is_enabled = self.is_enabled.get_or_init(|| async {
            let status = retry(RETRY, || async {
                let status = self.status().await;
                status.map_err(|failure| self.count(failure))
            });
            match status.await {
                Ok(()) => true,
                Err(failure) => {
                    self.report(failure);
                    false
                }
            }
        });
        *is_enabled.await
    }
}
