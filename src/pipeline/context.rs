//! What every stage is given: where to send events, how to be interrupted, whom to ask.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bollard::auth::DockerCredentials;
use secrecy::ExposeSecret;
use tokio_util::sync::CancellationToken;

use crate::cache::{Cache, RemoteCache};
use crate::event::{Event, Events, Outcome, Unit};
use crate::plan::is_system;
use crate::registry;
use oci::ImageName;
use oci_distribution::{Client, Credentials, Logins, Trust};

/// A run's surroundings. Stages read no environment; the edge has put everything here.
pub struct Context {
    /// When the program began.
    pub started: Instant,
    /// Where events go.
    pub events: Events,
    /// How a person ends the run.
    pub interrupt: Interrupt,
    /// Where asynchronous stages run.
    pub runtime: tokio::runtime::Handle,
    /// Whether failed stores drop out instead of ending the run.
    pub keep_going: bool,
    /// Docker, registry and console.
    pub access: Access,
    /// What scripts see.
    pub scripts: ScriptEnvironment,
    /// Results of earlier runs.
    pub cache: Cache,
    /// Results of others.
    pub remote: Option<RemoteCache>,
    /// Whether scripts run although their results are there.
    pub force: bool,
    /// The script that the build stage runs, if it is another one than `build`.
    pub script: Option<String>,
    /// This program, which restricts itself and becomes a script; none where scripts are not
    /// restricted.
    pub sandbox: Option<PathBuf>,
    /// Whether what a kept script printed is printed again.
    pub replays: bool,
    /// Whether it was told that results cannot be kept; the first time says enough.
    pub warned: AtomicBool,
    /// Those who speak to registries, by host.
    pub clients: Clients,
}

/// Clients of registries: one for each host, since it knows which repositories have a blob.
pub type Clients = tokio::sync::Mutex<BTreeMap<String, Client>>;

impl Context {
    /// Who speaks to a registry. The run's own is reached as its address says, also where the name
    /// of a base image, which has no scheme, leads there.
    pub async fn client(&self, registry: &str) -> Result<Client, registry::Error> {
        let host = oci_distribution::host(registry);
        let mut clients = self.clients.lock().await;
        if let Some(client) = clients.get(&host) {
            return Ok(client.clone());
        }
        let own = self.access.registry.as_deref();
        let own = own.filter(|own| oci_distribution::host(own) == host);
        let login = match self.access.logins().for_host(registry).await {
            // Much can be read by everybody, so it is tried.
            Err(error @ oci_distribution::Error::MissingCredentialHelper { .. }) => {
                self.events.notice(format!(
                    "{error}: the registry is asked without credentials"
                ));
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

    /// The login that the engine needs for an image; none where nobody has said who we are.
    pub async fn engine_login(&self, image: &str) -> Option<DockerCredentials> {
        let host = ImageName::parse(image).ok()?.registry;
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

    /// Runs a future to its end from plain code.
    pub fn wait<F: Future>(&self, future: F) -> F::Output {
        self.runtime.block_on(future)
    }

    /// When the run began, as files have their times.
    pub fn began(&self) -> std::time::SystemTime {
        let now = std::time::SystemTime::now();
        now.checked_sub(self.started.elapsed()).unwrap_or(now)
    }

    /// Tells that a result cannot be kept; only the first time, since the next has mostly the
    /// same cause.
    pub fn warn_once(&self, reason: impl std::fmt::Display) {
        if !self.warned.swap(true, Ordering::Relaxed) {
            self.events.notice(format!("not cached: {reason}"));
        }
    }

    /// Sends that a unit is not begun, and because of whom.
    pub fn skip(&self, unit: Unit, because: &str) {
        self.events.send(Event::Finished {
            unit,
            outcome: Outcome::Skipped {
                because: because.to_owned(),
            },
            seconds: 0.0,
        });
    }

    /// Bytes of the longest text that [`Self::redact`] looks for, less one.
    pub fn longest_secret(&self) -> usize {
        let credentials = self.access.credentials.as_ref();
        let credentials = credentials.map_or(0, |it| it.longest());
        let remote = self.remote.as_ref().map_or(0, RemoteCache::longest_secret);
        credentials.max(remote).saturating_sub(1).min(4096)
    }

    /// Takes the password and the remote cache's secrets out of a text that came from outside.
    pub fn redact(&self, text: &str) -> String {
        let text = match &self.access.credentials {
            Some(credentials) => credentials.redact(text),
            None => text.to_owned(),
        };
        match &self.remote {
            Some(remote) => remote.redact(&text),
            None => text,
        }
    }
}

/// Whom to ask, and as whom.
#[derive(Default)]
pub struct Access {
    /// `DOCKER_HOST`; none means the local socket.
    pub docker: Option<String>,
    /// User and password of registry and console.
    pub credentials: Option<Arc<Credentials>>,
    /// Docker's own config, which knows other logins.
    pub docker_config: Option<PathBuf>,
    /// Address of the registry that they are for, with its scheme if it was given one.
    pub registry: Option<String>,
    /// Which servers may be spoken to, and how.
    pub trust: Trust,
    /// What is not set, where there are no credentials.
    pub missing: Vec<&'static str>,
}

impl Access {
    /// Who we are to registries.
    pub fn logins(&self) -> Logins {
        let own = self.registry.as_deref().zip(self.credentials.clone());
        Logins::new(own, self.docker_config.clone())
    }
}

/// The environment that scripts see a part of: this program's own over the project's `.env`.
#[derive(Debug, Default, Clone)]
pub struct ScriptEnvironment {
    /// All of it, but for credentials, which are no script's business.
    pub all: BTreeMap<String, OsString>,
    /// Whether scripts see all of it, and not only what is declared for them.
    pub loose: bool,
}

impl ScriptEnvironment {
    /// What a script sees for which these variables are declared.
    pub fn seen<'a>(
        &'a self,
        declared: &'a [String],
    ) -> impl Iterator<Item = (&'a String, &'a OsString)> {
        let is_seen = |name: &String| self.loose || is_system(name) || declared.contains(name);
        self.all.iter().filter(move |(name, _)| is_seen(name))
    }
}

/// How a person ends a run: first politely, then not.
#[derive(Debug, Clone, Default)]
pub struct Interrupt {
    stop: CancellationToken,
    kill: CancellationToken,
}

impl Interrupt {
    /// How long children get between SIGTERM and SIGKILL.
    pub const GRACE: Duration = Duration::from_secs(10);

    /// The first time asks to stop, the second time to stop at once.
    pub fn raise(&self) {
        if self.stop.is_cancelled() {
            self.kill.cancel();
        }
        self.stop.cancel();
    }

    /// Whether the run shall end.
    pub fn stopped(&self) -> bool {
        self.stop.is_cancelled()
    }

    /// Ends when the run shall end.
    pub async fn stopping(&self) {
        self.stop.cancelled().await;
    }

    /// Gives work up when the run shall end.
    pub async fn unless_stopped<T, E>(
        &self,
        interrupted: E,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        unless(self.stopping(), interrupted, work).await
    }

    /// Gives work up only when the run shall end at once.
    pub async fn unless_killed<T, E>(
        &self,
        interrupted: E,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        unless(self.killing(), interrupted, work).await
    }

    /// Ends when the run shall end at once.
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
