//! The services and options that every stage uses: events, interruption, caches, credentials.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bollard::auth::DockerCredentials;
use secrecy::ExposeSecret;
use tokio_util::sync::CancellationToken;

use http_client::Redactor;

use super::docker::{DEFAULT_SOCKET, EngineAddress};
use crate::cache::{Cache, RemoteCache};
use crate::event::{Event, EventSubject, Events, Outcome};
use crate::plan::{DestinationPlan, is_system};
use crate::registry;
use crate::store::StoreId;
use oci::ImageReference;
use oci_distribution::{Client, Credentials, Logins, Trust};

/// The services of a run. Stages read no environment; `cli` has put everything here.
pub struct Services {
    /// When the program started.
    pub started: Instant,
    /// Sends events to the reporter.
    pub events: Events,
    /// Tells whether the user has interrupted the run.
    pub interrupt: Interrupt,
    /// The runtime of asynchronous stages.
    pub runtime: tokio::runtime::Handle,
    /// Addresses and credentials of the Docker engine, the registry and the console.
    pub access: Access,
    /// Results of tasks on this machine.
    pub cache: Cache,
    /// Results of tasks in the remote cache.
    pub remote: Option<RemoteCache>,
    /// Clients of registries, by host.
    pub clients: RegistryClients,
    /// Whether an error of the cache has been reported.
    pub warned: AtomicBool,
}

/// The options of a run that change no decision of its plan.
#[derive(Debug, Default)]
pub struct PipelineOptions {
    /// Whether a run continues without the stores that have failed.
    pub keep_going: bool,
    /// Whether scripts run although their results are cached.
    pub force: bool,
    /// Whether the output of a cached script is printed again.
    pub replays: bool,
    /// This program, which restricts itself and then becomes the script; none if scripts are not
    /// sandboxed.
    pub sandbox: Option<PathBuf>,
    /// The environment of scripts.
    pub scripts: ScriptEnvironment,
    /// The ids of the builds that are recorded after the run, which hooks get.
    pub builds: BTreeMap<StoreId, String>,
}

/// Clients of registries, one for each host: a client remembers which repositories have a blob.
pub type RegistryClients = tokio::sync::Mutex<BTreeMap<String, Client>>;

impl Services {
    /// The client of a registry. The run's own registry is reached by the scheme of its address, also
    /// for base images there, whose references have no scheme.
    pub async fn client(&self, registry: &str) -> Result<Client, registry::Error> {
        let host = oci_distribution::host(registry);
        let mut clients = self.clients.lock().await;
        if let Some(client) = clients.get(&host) {
            return Ok(client.clone());
        }
        let own = self.access.registry.as_deref();
        let own = own.filter(|own| oci_distribution::host(own) == host);
        let login = match self.access.logins().for_host(registry).await {
            // Public images can be read without a login.
            Err(error @ oci_distribution::Error::MissingCredentialHelper { .. }) => {
                self.events
                    .notice(format!("{error}; the registry is used without credentials"));
                None
            }
            other => other?,
        };
        let mut trust = self.access.trust.clone();
        trust.ca = trust.ca.filter(|_| own.is_some());
        let client = registry::client(own.unwrap_or(registry), login, trust)?;
        clients.insert(host, client.clone());
        Ok(client)
    }

    /// Refuses a registry to which the password would be sent without encryption.
    pub fn refuse_exposed(&self, destination: &DestinationPlan) -> Result<(), registry::Error> {
        match destination {
            DestinationPlan::Registry {
                address,
                is_insecure: false,
                ..
            } if !self.access.trust.allow_insecure && http_client::is_exposed(address) => {
                Err(registry::Error::PlainHttp {
                    server: "registry",
                    address: address.clone(),
                    help: "use `https://`; for a registry without TLS in a private network, set `registry.insecure` in `alokai.config.json` or pass `--allow-insecure`",
                })
            }
            _ => Ok(()),
        }
    }

    /// The login of the engine for an image; none without credentials for its registry.
    pub async fn engine_login(&self, image: &str) -> Option<DockerCredentials> {
        let host = ImageReference::parse(image).ok()?.registry;
        let login = self.access.logins().for_host(&host).await.ok()??;
        let (user, secret) = login.parts();
        let secret = Some(secret.expose_secret().to_owned());
        Some(match user {
            Some(user) => DockerCredentials {
                username: Some(user.to_owned()),
                password: secret,
                serveraddress: Some(host),
                ..DockerCredentials::default()
            },
            None => DockerCredentials {
                identitytoken: secret,
                serveraddress: Some(host),
                ..DockerCredentials::default()
            },
        })
    }

    /// Runs a future to its end from synchronous code.
    pub fn wait<F: Future>(&self, future: F) -> F::Output {
        self.runtime.block_on(future)
    }

    /// When the program started, as a file time.
    pub fn began(&self) -> std::time::SystemTime {
        let now = std::time::SystemTime::now();
        now.checked_sub(self.started.elapsed()).unwrap_or(now)
    }

    /// Tells the user why the result of a unit is not cached.
    pub fn not_cached(&self, unit: &EventSubject, reason: impl std::fmt::Display) {
        self.events.notice(format!("{unit}: not cached: {reason}"));
    }

    /// The same for an error of the cache itself, which is reported only once: the next result mostly
    /// fails for the same reason.
    pub fn not_cached_once(&self, unit: &EventSubject, error: impl std::fmt::Display) {
        if !self.warned.swap(true, Ordering::Relaxed) {
            self.not_cached(unit, error);
        }
    }

    /// Sends that a unit is skipped, and because of which unit.
    pub fn skip(&self, unit: EventSubject, because: &str) {
        self.events.send(Event::Finished {
            unit,
            outcome: Outcome::Skipped {
                because: because.to_owned(),
            },
            seconds: 0.0,
        });
    }

    /// Replaces the password and the remote cache's secrets in a text that came from outside.
    pub fn redact(&self, text: &str) -> String {
        self.redactors()
            .fold(text.to_owned(), |text, redactor| redactor.redact(&text))
    }

    /// What replaces these secrets.
    pub(super) fn redactors(&self) -> impl Iterator<Item = &Redactor> {
        let credentials = self.access.credentials.iter().map(|it| it.redactor());
        credentials.chain(self.remote.iter().map(RemoteCache::redactor))
    }
}

/// Addresses and credentials of the Docker engine, the registry and the console.
#[derive(Default, Clone)]
pub struct Access {
    /// Where the Docker engine is.
    pub docker: EngineAccess,
    /// User and password of registry and console.
    pub credentials: Option<Arc<Credentials>>,
    /// Docker's config file, which has logins of other registries.
    pub docker_config: Option<PathBuf>,
    /// The address of the registry to which the credentials belong, with its scheme if it has one.
    pub registry: Option<String>,
    /// Which servers are trusted.
    pub trust: Trust,
    /// Where the clusters of Kubernetes are described.
    pub kubernetes: KubernetesAccess,
    /// The variables that are not set, if there are no credentials.
    pub missing: Vec<&'static str>,
    /// Whether a deploy ends with the request to the console, without waiting for the store.
    pub no_wait: bool,
}

/// Where the Docker engine is.
#[derive(Debug, Default, Clone)]
pub struct EngineAccess {
    /// `DOCKER_HOST`; none means the local socket.
    pub host: Option<String>,
    /// The folder with the certificates, if `DOCKER_TLS_VERIFY` asks for TLS.
    pub certificates: Option<PathBuf>,
}

/// Where the clusters of Kubernetes are described.
#[derive(Debug, Default, Clone)]
pub struct KubernetesAccess {
    /// The kubeconfig files, the strongest first. Files that do not exist are left out.
    pub files: Vec<PathBuf>,
    /// The address of the API server, if this program runs in a pod.
    pub in_cluster: Option<String>,
}

impl Access {
    /// The engine to use, if `configured` is its address in the config.
    pub fn engine<'a>(&'a self, configured: Option<&'a str>) -> EngineAddress<'a> {
        let host = configured.or(self.docker.host.as_deref());
        EngineAddress {
            host: host.unwrap_or(DEFAULT_SOCKET),
            certificates: self.docker.certificates.as_deref(),
        }
    }

    /// The logins of registries.
    pub fn logins(&self) -> Logins {
        let own = self.registry.as_deref().zip(self.credentials.clone());
        Logins::new(own, self.docker_config.clone())
    }
}

/// The environment of which scripts see a part: this program's variables and the project's `.env`.
#[derive(Debug, Default, Clone)]
pub struct ScriptEnvironment {
    /// All variables but credentials.
    pub all: BTreeMap<String, OsString>,
    /// The names of the variables with values from the project's `.env`.
    pub from_file: BTreeSet<String>,
    /// Whether scripts see all variables, and not only the declared ones.
    pub loose: bool,
}

impl ScriptEnvironment {
    /// The variables that a script with these declared variables sees.
    pub fn seen<'a>(
        &'a self,
        declared: &'a [String],
    ) -> impl Iterator<Item = (&'a String, &'a OsString)> {
        let is_seen = |name: &String| self.loose || is_system(name) || declared.contains(name);
        self.all.iter().filter(move |(name, _)| is_seen(name))
    }

    /// The variables of the user's shell, without the project's `.env`.
    pub fn shell(&self) -> impl Iterator<Item = (&String, &OsString)> {
        let all = self.all.iter();
        all.filter(|(name, _)| !self.from_file.contains(*name))
    }
}

/// The user's interruption of a run: the first one asks to stop, the second one kills.
#[derive(Debug, Clone, Default)]
pub struct Interrupt {
    stop: CancellationToken,
    kill: CancellationToken,
}

impl Interrupt {
    /// The time that children have between SIGTERM and SIGKILL.
    pub const GRACE: Duration = Duration::from_secs(10);

    /// Interrupts the run. The second call kills running scripts.
    pub fn raise(&self) {
        if self.stop.is_cancelled() {
            self.kill.cancel();
        }
        self.stop.cancel();
    }

    /// An interruption of a part of the run, which is stopped alone. The second interruption of the run
    /// also kills the part.
    #[must_use]
    pub fn part(&self) -> Self {
        Self {
            stop: CancellationToken::new(),
            kill: self.kill.child_token(),
        }
    }

    /// Whether the run is interrupted.
    pub fn stopped(&self) -> bool {
        self.stop.is_cancelled()
    }

    /// Waits until the run is interrupted.
    pub async fn stopping(&self) {
        self.stop.cancelled().await;
    }

    /// Abandons the work if the run is interrupted.
    pub async fn unless_stopped<T, E>(
        &self,
        interrupted: E,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        unless(self.stopping(), interrupted, work).await
    }

    /// Abandons the work only at the second interruption.
    pub async fn unless_killed<T, E>(
        &self,
        interrupted: E,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        unless(self.killing(), interrupted, work).await
    }

    /// Waits until the second interruption.
    pub async fn killing(&self) {
        self.kill.cancelled().await;
    }
}

async fn unless<T, E>(
    ending: impl Future<Output = ()>,
    interrupted: E,
    work: impl Future<Output = Result<T, E>>,
) -> Result<T, E> {
    tokio::select! {
        biased;
        () = ending => Err(interrupted),
        result = work => result,
    }
}
