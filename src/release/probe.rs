//! The health of the apps of a release, which this program probes itself.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use futures_util::future::try_join_all;
use http_client::{HttpOptions, build};
use reqwest::{Client, Url};
use secrecy::ExposeSecret;

use super::Error;
use crate::event::{EventSubject, Events};
use crate::redaction::redactor;
use crate::registry::USER_AGENT;
use crate::store::AppName;
use crate::target::{AppState, HealthProbe, ReleaseSpec, ReleasedApp, Replica, Target};

/// The pause between two messages about what is waited for.
const PROGRESS: Duration = Duration::from_secs(5);

/// The shortest pause between two requests.
const SHORTEST_PAUSE: Duration = Duration::from_millis(100);

/// The pause between two questions about apps without an address.
const STATE_PAUSE: Duration = Duration::from_secs(1);

/// The most last lines of an app in an error.
const TAIL: usize = 40;

/// The apps of one release, where they can be probed.
pub struct ProbedRelease<'a> {
    /// Where they run.
    pub target: &'a dyn Target,
    /// What was staged.
    pub spec: &'a ReleaseSpec,
    /// One for each replica of each app.
    pub replicas: &'a [Replica],
    /// Receives what is waited for.
    pub events: &'a Events,
    /// The store, for events.
    pub unit: &'a EventSubject,
}

/// What is known about an app that does not answer as it should.
#[derive(Debug, Default)]
pub struct Symptoms {
    /// The last request: its address, and its answer or why there is none.
    request: Option<(String, String)>,
    /// How the app ended, and its last lines.
    state: Option<AppState>,
}

impl std::fmt::Display for Symptoms {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut lines = Vec::new();
        if let Some((address, answer)) = &self.request {
            lines.push(format!("{address}: {answer}"));
        }
        if let Some(state) = &self.state {
            if let Some(ended) = &state.ended {
                lines.push(format!("{} {ended}", state.app));
            } else if !state.running {
                lines.push(format!("{} is not running", state.app));
            }
            if state.restarts > 0 {
                let times = match state.restarts {
                    1 => "once".to_owned(),
                    count => format!("{count} times"),
                };
                lines.push(format!("{} was started again {times}", state.app));
            }
            let first = state.tail.len().saturating_sub(TAIL);
            lines.extend(state.tail[first..].iter().map(|line| format!("│ {line}")));
        }
        let lines: Vec<_> = lines.iter().map(|line| format!("  {line}")).collect();
        f.write_str(&lines.join("\n"))
    }
}

/// One answer of an app.
struct ProbeAnswer {
    is_healthy: bool,
    text: String,
}

impl ProbedRelease<'_> {
    /// Waits until every replica is healthy. The deadline of each app counts from now.
    pub async fn healthy(&self) -> Result<(), Error> {
        let started = Instant::now();
        let each = self.replicas.iter().map(|replica| async move {
            let probe = self.probe_of(&replica.app);
            self.wait_for(replica, &probe, started).await
        });
        try_join_all(each).await?;
        self.without_address_run(&self.states().await?).await
    }

    /// The apps that the target runs at no address, so that no request can be sent to them.
    fn without_address(&self) -> impl Iterator<Item = &AppName> {
        let apps = self.spec.apps.iter().map(|released| &released.app);
        apps.filter(|app| !self.replicas.iter().any(|it| it.app == **app))
    }

    /// Returns an error if an app without an address does not run.
    async fn without_address_run(&self, states: &[AppState]) -> Result<(), Error> {
        for app in self.without_address() {
            let state = states.iter().find(|state| state.app == *app);
            if let Some(state) = state.filter(|state| !state.running) {
                return Err(self.stopped(state.clone()).await);
            }
        }
        Ok(())
    }

    /// Watches the apps without an address.
    async fn watch_without_address(
        &self,
        before: &[AppState],
        time: Duration,
    ) -> Result<(), Error> {
        let started = Instant::now();
        while self.without_address().next().is_some() {
            let states = self.states().await.unwrap_or_default();
            self.without_address_run(&states).await?;
            for app in self.without_address() {
                let of_app = |states: &[AppState]| states.iter().find(|it| it.app == *app).cloned();
                if let (Some(before), Some(now)) = (of_app(before), of_app(&states))
                    && now.restarts > before.restarts
                {
                    return Err(self.stopped(now).await);
                }
            }
            let left = time.saturating_sub(started.elapsed());
            if left.is_zero() {
                break;
            }
            tokio::time::sleep(STATE_PAUSE.min(left)).await;
        }
        Ok(())
    }

    async fn stopped(&self, state: AppState) -> Error {
        Error::Unhealthy {
            store: self.spec.store.clone(),
            release: self.spec.id.clone(),
            app: state.app.clone(),
            why: String::new(),
            symptoms: Box::new(Symptoms {
                request: None,
                state: Some(self.masked(state).await),
            }),
        }
    }

    fn probe_of(&self, app: &AppName) -> HealthProbe {
        let mut apps = self.spec.apps.iter();
        let app = apps.find(|released| released.app == *app);
        app.map(|app| app.health.clone()).unwrap_or_default()
    }

    async fn wait_for(
        &self,
        replica: &Replica,
        probe: &HealthProbe,
        started: Instant,
    ) -> Result<(), Error> {
        let (client, url) = client(replica, probe)?;
        let mut in_a_row = 0;
        let mut told = Instant::now();
        loop {
            let answer = ask(&client, &url, probe).await;
            in_a_row = if answer.is_healthy { in_a_row + 1 } else { 0 };
            if in_a_row >= probe.consecutive {
                return Ok(());
            }
            let mut ended = None;
            if !answer.is_healthy {
                ended = self.ended(&replica.app).await?;
            }
            if ended.is_some() || started.elapsed() >= probe.deadline {
                let waited = ended.is_none().then_some(probe.deadline);
                return Err(self.unhealthy((replica, &url), answer, waited, ended).await);
            }
            if told.elapsed() >= PROGRESS {
                told = Instant::now();
                let app = &replica.app;
                let line = format!("waiting for {app} at {url}: {}", answer.text);
                self.events.output(self.unit, line).await;
            }
            let left = probe.deadline.saturating_sub(started.elapsed());
            let pause = probe.interval.max(SHORTEST_PAUSE);
            tokio::time::sleep(pause.min(left)).await;
        }
    }

    /// Watches a release that gets the traffic. Returns an error if an app stops answering, ends or is
    /// started again.
    pub async fn watch(&self, time: Duration) -> Result<(), Error> {
        // A target that does not respond says nothing about the apps, which are probed themselves.
        let before = self.states().await.unwrap_or_default();
        let each = self.replicas.iter().map(|replica| {
            let restarts = before.iter().find(|state| state.app == replica.app);
            self.watch_one(replica, restarts.map(|state| state.restarts), time)
        });
        let others = self.watch_without_address(&before, time);
        futures_util::future::try_join(try_join_all(each), others).await?;
        Ok(())
    }

    async fn watch_one(
        &self,
        replica: &Replica,
        mut restarts: Option<u32>,
        time: Duration,
    ) -> Result<(), Error> {
        let probe = self.probe_of(&replica.app);
        let (client, url) = client(replica, &probe)?;
        let started = Instant::now();
        let mut failed = 0;
        loop {
            let left = time.saturating_sub(started.elapsed());
            let pause = probe.interval.max(SHORTEST_PAUSE);
            if left.is_zero() && failed == 0 {
                return Ok(());
            }
            // After a failed probe it goes on, until the app is healthy or has failed often enough.
            let pause = if failed == 0 { pause.min(left) } else { pause };
            tokio::time::sleep(pause).await;
            let answer = ask(&client, &url, &probe).await;
            failed = if answer.is_healthy { 0 } else { failed + 1 };
            let states = self.states().await.unwrap_or_default();
            let state = states.iter().find(|state| state.app == replica.app);
            let is_broken = state.is_some_and(|it| {
                !it.running || it.restarts > *restarts.get_or_insert(it.restarts)
            });
            if is_broken || failed >= probe.consecutive {
                let seen = state.filter(|_| is_broken).cloned();
                return Err(self.unhealthy((replica, &url), answer, None, seen).await);
            }
        }
    }

    async fn states(&self) -> Result<Vec<AppState>, Error> {
        let states = self.target.health(&self.spec.store, &self.spec.id).await;
        Ok(states?)
    }

    async fn ended(&self, app: &AppName) -> Result<Option<AppState>, Error> {
        let mut states = self.states().await?;
        states.retain(|state| state.app == *app && !state.running);
        Ok(states.pop())
    }

    /// The last lines of an app without the values of its secrets and settings.
    async fn masked(&self, state: AppState) -> AppState {
        let settings = match &self.spec.settings {
            Some(version) => self.target.settings(&self.spec.store, version).await,
            None => Ok(None),
        };
        let Ok(settings) = settings else {
            // Lines that cannot be masked are not shown.
            return AppState {
                tail: Vec::new(),
                ..state
            };
        };
        let settings = settings.unwrap_or_default();
        let apps = self.spec.apps.iter().filter(|it| it.app == state.app);
        let own = apps.flat_map(ReleasedApp::hidden).map(|(_, secret)| secret);
        let secrets = own.chain(settings.values());
        let redactor = redactor(secrets.map(ExposeSecret::expose_secret));
        let text = redactor.redact(&state.tail.join("\n"));
        AppState {
            tail: text.lines().map(str::to_owned).collect(),
            ..state
        }
    }

    /// `seen` is the state that shows that the app is broken: a target may have started the app again since,
    /// and then it has no exit code any more.
    async fn unhealthy(
        &self,
        (replica, url): (&Replica, &Url),
        answer: ProbeAnswer,
        waited: Option<Duration>,
        seen: Option<AppState>,
    ) -> Error {
        let state = if seen.is_some() {
            seen
        } else {
            let states = self.states().await.unwrap_or_default();
            states.into_iter().find(|state| state.app == replica.app)
        };
        let state = match state {
            Some(state) => Some(self.masked(state).await),
            None => None,
        };
        let mut why = String::new();
        if let Some(waited) = waited {
            let _ = write!(why, " within {} s", waited.as_secs());
        }
        Error::Unhealthy {
            store: self.spec.store.clone(),
            release: self.spec.id.clone(),
            app: replica.app.clone(),
            why,
            symptoms: Box::new(Symptoms {
                request: Some((url.to_string(), answer.text)),
                state,
            }),
        }
    }
}

fn client(replica: &Replica, probe: &HealthProbe) -> Result<(Client, Url), Error> {
    let invalid = |reason: String| Error::ProbeAddress {
        app: replica.app.clone(),
        address: replica.address.clone(),
        reason,
    };
    let url = Url::parse(&replica.address).map_err(|error| invalid(error.to_string()))?;
    let url = url
        .join(&probe.path)
        .map_err(|error| invalid(error.to_string()))?;
    // Each request is a new connection, so that a dead app cannot hide behind an open one.
    let options = HttpOptions {
        keeps_connections: false,
        connect_timeout: probe.timeout,
        ..HttpOptions::new(USER_AGENT)
    };
    let client = build(&url, options).map_err(|error| invalid(error.to_string()))?;
    Ok((client, url))
}

async fn ask(client: &Client, url: &Url, probe: &HealthProbe) -> ProbeAnswer {
    let sent = client.get(url.clone()).timeout(probe.timeout).send().await;
    match sent {
        Ok(response) => {
            let status = response.status().as_u16();
            let wanted = probe.status;
            let is_healthy = wanted.map_or(status < 500, |wanted| wanted == status);
            let text = match wanted.filter(|_| !is_healthy) {
                Some(wanted) => format!("status {status}, expected {wanted}"),
                None => format!("status {status}"),
            };
            ProbeAnswer { is_healthy, text }
        }
        Err(error) => ProbeAnswer {
            is_healthy: false,
            text: if error.is_timeout() {
                format!("no response within {} s", probe.timeout.as_secs())
            } else {
                http_client::TransferError::from(error).to_string()
            },
        },
    }
}

#[cfg(test)]
mod tests {
    use super::Symptoms;
    use crate::store::AppName;
    use crate::target::AppState;

    #[test]
    fn restarts_are_counted_in_words() {
        for (restarts, expected) in [(1, "once"), (2, "2 times")] {
            let state = AppState {
                app: AppName::new("web").unwrap(),
                running: true,
                ended: None,
                restarts,
                tail: Vec::new(),
            };
            let symptoms = Symptoms {
                state: Some(state),
                ..Symptoms::default()
            };
            let text = format!("  web was started again {expected}");
            assert_eq!(symptoms.to_string(), text);
        }
    }
}
