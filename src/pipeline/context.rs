//! What every stage is given: where to send events, how to be interrupted, whom to ask.

use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use tokio_util::sync::CancellationToken;

use crate::event::{Events, Unit};

/// A run's surroundings. Stages read no environment; the edge has put everything here.
pub struct Context {
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
}

impl Context {
    /// Runs a future to its end from plain code.
    pub fn wait<F: Future>(&self, future: F) -> F::Output {
        self.runtime.block_on(future)
    }

    /// Carries out one unit whose work is done elsewhere, by the engine or over the network:
    /// sends its beginning and its end, counts its time as spent outside, and gives it up with
    /// `interrupted` when a person ends the run.
    pub async fn attempt<T, E: std::fmt::Display>(
        &self,
        unit: &Unit,
        interrupted: E,
        note: impl FnOnce(&T) -> String,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        let span = self.events.begin(unit);
        let outside = self.events.outside();
        let result = tokio::select! {
            result = work => result,
            () = self.interrupt.stopping() => Err(interrupted),
        };
        drop(outside);
        let note = |product| Some(note(product));
        span.end(result.as_ref().map(note).map_err(ToString::to_string));
        result
    }

    /// Takes the password out of a text that came from outside.
    pub fn redact(&self, text: &str) -> String {
        match &self.access.credentials {
            Some(credentials) => credentials.redact(text),
            None => text.to_owned(),
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
    /// What is not set, where there are no credentials.
    pub missing: Vec<&'static str>,
}

/// User and password of the cloud: one pair for registry and console.
pub struct Credentials {
    /// `CLI_CLOUD_USERNAME`.
    pub user: String,
    /// `CLI_CLOUD_PASSWORD`; has no `Debug` that shows it.
    pub password: SecretString,
}

impl Credentials {
    /// Puts `***` where the password stands.
    pub fn redact(&self, text: &str) -> String {
        let secret = self.password.expose_secret();
        if secret.is_empty() {
            text.to_owned()
        } else {
            text.replace(secret, "***")
        }
    }
}

/// The environment of scripts, relative to this program's own.
#[derive(Debug, Default, Clone)]
pub struct ScriptEnvironment {
    /// Variables that are set: the project's `.env`, where the environment does not have them.
    pub set: Vec<(String, String)>,
    /// Variables that are taken away: credentials are no script's business.
    pub unset: Vec<String>,
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

    /// Ends when the run shall end at once.
    pub async fn killing(&self) {
        self.kill.cancelled().await;
    }
}
