//! What every stage is given: where to send events, how to be interrupted, whom to ask.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bollard::auth::DockerCredentials;
use secrecy::{ExposeSecret, SecretString};
use tokio_util::sync::CancellationToken;

use crate::cache::{Cache, Remote};
use crate::event::{Event, Events, Outcome, Unit};
use crate::plan::is_system;

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
    pub remote: Option<Remote>,
    /// Whether scripts run although their results are there.
    pub force: bool,
    /// The script that the build stage runs, if it is another one than `build`.
    pub script: Option<String>,
    /// Whether what a kept script printed is printed again.
    pub replays: bool,
    /// Whether it was told that results cannot be kept; the first time says enough.
    pub warned: AtomicBool,
}

impl Context {
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
        let credentials = credentials.map_or(0, Credentials::longest);
        let remote = self.remote.as_ref().map_or(0, Remote::longest_secret);
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
    pub credentials: Option<Credentials>,
    /// Host of the registry that they are for.
    pub registry: Option<String>,
    /// What is not set, where there are no credentials.
    pub missing: Vec<&'static str>,
}

impl Access {
    /// The login that the engine needs for an image, if it is one of our registry.
    pub fn login(&self, image: &str) -> Option<DockerCredentials> {
        let credentials = self.credentials.as_ref()?;
        let host = self.registry.as_ref()?;
        image
            .starts_with(&format!("{host}/"))
            .then(|| DockerCredentials {
                username: Some(credentials.user.clone()),
                password: Some(credentials.password.expose_secret().to_owned()),
                serveraddress: Some(host.clone()),
                ..DockerCredentials::default()
            })
    }
}

/// User and password of the cloud: one pair for registry and console.
pub struct Credentials {
    /// `CLI_CLOUD_USERNAME`.
    pub user: String,
    /// `CLI_CLOUD_PASSWORD`; has no `Debug` that shows it.
    pub password: SecretString,
    /// The password as others write it, longest first.
    spellings: Vec<SecretString>,
}

impl Credentials {
    /// Takes them as they were given.
    pub fn new(user: String, password: String) -> Self {
        let mut spellings = Vec::new();
        if !password.is_empty() {
            let json = serde_json::Value::from(password.as_str()).to_string();
            let percent: String = password
                .bytes()
                .map(|byte| match byte {
                    b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                        char::from(byte).to_string()
                    }
                    other => format!("%{other:02X}"),
                })
                .collect();
            spellings = vec![
                password.clone(),
                json[1..json.len() - 1].to_owned(),
                percent.to_lowercase(),
                percent,
                BASE64.encode(&password),
                // Basic authentication.
                BASE64.encode(format!("{user}:{password}")),
            ];
            spellings.sort_by_key(|spelling| std::cmp::Reverse(spelling.len()));
            spellings.dedup();
        }
        Self {
            user,
            password: SecretString::from(password),
            spellings: spellings.into_iter().map(SecretString::from).collect(),
        }
    }

    /// Puts `***` where the password stands, also as JSON, an address or a header would have it.
    pub fn redact(&self, text: &str) -> String {
        self.spellings
            .iter()
            .fold(text.to_owned(), |text, spelling| {
                text.replace(spelling.expose_secret(), "***")
            })
    }

    /// Bytes of the longest text that [`Self::redact`] looks for.
    pub fn longest(&self) -> usize {
        self.spellings
            .first()
            .map_or(0, |spelling| spelling.expose_secret().len())
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

#[cfg(test)]
mod tests {
    use super::Credentials;

    #[test]
    fn the_password_is_found_in_every_spelling() {
        let credentials = Credentials::new("u".into(), "sec\"ret/x y".into());
        for text in [
            "sec\"ret/x y",
            r#"{"p":"sec\"ret/x y"}"#,
            "sec%22ret%2Fx%20y",
            "sec%22ret%2fx%20y",
            "Basic dTpzZWMicmV0L3ggeQ==",
        ] {
            let redacted = credentials.redact(text);
            assert!(
                redacted.contains("***") && !redacted.contains("ret"),
                "{redacted}"
            );
        }
        assert_eq!(
            Credentials::new("u".into(), String::new()).redact("text"),
            "text"
        );
    }
}
