//! The target `console`: one request for each store. The console stages nothing and does not tell what
//! is live, so a release is what the console has accepted last.

use std::time::Duration;

use async_trait::async_trait;
use http_client::{
    AttemptError, HttpOptions, RetryPolicy, TransferError, build, clock_difference,
    display_address, read_at_most, redirect_target, retry,
};
use miette::Diagnostic;
use reqwest::{Client, Response, StatusCode, Url};
use secrecy::ExposeSecret;

use super::public_page::PublicPage;
use super::{
    AppState, Capabilities, Drained, Error as TargetError, LockAnswer, LockClaim, LogQuery,
    Observed, ReleaseSpec, ReleasedApp, Settings, Staged, SwitchToken, Target, TargetContext,
};
use crate::event::{EventSubject, Stage};
use crate::ledger::RecordId;
use crate::pipeline::{Services, StageError};
use crate::plan::ConsoleRequest;
use crate::registry::{self, USER_AGENT};
use crate::store::{StoreId, TargetKind};

/// How long a deploy request may take.
const TIMEOUT: Duration = Duration::from_mins(1);

/// How long the check that the console responds may take.
const REACH_TIMEOUT: Duration = Duration::from_secs(15);

/// Retries after 1 s and 4 s, where the request was certainly not carried out.
const RETRY: RetryPolicy = RetryPolicy {
    retries: 2,
    pause: Duration::from_secs(1),
    factor: 4,
};

/// The time limit for a store to answer with a release, if `deploy.health` does not set one.
const DEADLINE: Duration = Duration::from_mins(10);

/// Bytes of the console's response that are read for an error.
const LONGEST_RESPONSE: u64 = 64 << 10;

/// Bytes of the console's response that an error shows.
const SHOWN: usize = 2000;

/// What can go wrong with the console.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum Error {
    /// The console refuses the request (4xx).
    #[error("the console refused to deploy `{store}` ({status}): {body}\n  PATCH {url}")]
    #[diagnostic(code(alokai::console::refused), help("{}", refusal(*status)))]
    Refused {
        /// The store.
        store: String,
        /// 4xx.
        status: u16,
        /// The body of the response.
        body: String,
        /// The address of the request.
        url: String,
    },
    /// The console failed.
    #[error("the console failed to deploy `{store}` ({status}): {body}\n  PATCH {url}")]
    #[diagnostic(
        code(alokai::console::server),
        help(
            "it is not known whether the store was deployed; check the store in the console, then run again (images that are already pushed are skipped)"
        )
    )]
    Server {
        /// The store.
        store: String,
        /// 5xx, or another unsuccessful status.
        status: u16,
        /// The body of the response.
        body: String,
        /// The address of the request.
        url: String,
    },
    /// The console redirects. The request has the password, so it is sent nowhere else.
    #[error(
        "the console did not deploy `{store}`: it redirected ({status}) to `{to}`, and redirects are not followed\n  PATCH {url}"
    )]
    #[diagnostic(
        code(alokai::console::redirected),
        help(
            "if this is the new address of the console, set `CLI_CONSOLE_API_URL` (or `console.url` in `alokai.config.json`) to it; no request was sent to the new address"
        )
    )]
    Redirected {
        /// The store.
        store: String,
        /// 3xx.
        status: u16,
        /// Host and path.
        to: String,
        /// The address of the request.
        url: String,
    },
    /// The console does not respond.
    #[error("the console at `{url}` cannot be reached: {message}")]
    #[diagnostic(
        code(alokai::console::unreachable),
        help(
            "check the address (`CLI_CONSOLE_API_URL`, or `console.url` in `alokai.config.json`) and the network"
        )
    )]
    Unreachable {
        /// The address of the request.
        url: String,
        /// The operating system's message.
        message: String,
    },
    /// The store does not answer with the release in time.
    #[error(
        "the console accepted the deploy of `{store}`, but {address} did not serve the new release within {seconds} s: {answer}"
    )]
    #[diagnostic(
        code(alokai::console::not_live),
        help(
            "check the instance in the console; `deploy.health` sets the path and the deadline, `deployment.address` sets the address, and `--no-wait` skips the wait"
        )
    )]
    NotLive {
        /// The store.
        store: String,
        /// The public address.
        address: String,
        /// The time limit.
        seconds: u64,
        /// The last answer.
        answer: String,
    },
    /// A person ended the run.
    #[error("interrupted; it is not known whether the store was deployed")]
    #[diagnostic(
        code(alokai::console::interrupted),
        help("check the store in the console")
    )]
    Interrupted,
}

fn refusal(status: u16) -> &'static str {
    match status {
        401 | 403 => {
            "check `CLI_CLOUD_USERNAME` and `CLI_CLOUD_PASSWORD`, and that this user has permission to deploy the project"
        }
        404 => {
            "check `projectName` and `cloudRegion` in `alokai.config.json`: together they name the instance"
        }
        _ => "see the response of the console for the reason",
    }
}

/// The console.
pub struct ConsoleTarget {
    context: TargetContext,
}

impl ConsoleTarget {
    /// The console at the address of the context.
    pub fn new(context: TargetContext) -> Self {
        Self { context }
    }

    /// The request that makes these apps of a store live.
    fn request(
        &self,
        store: &StoreId,
        released: &[ReleasedApp],
    ) -> Result<ConsoleRequest, TargetError> {
        let project = &self.context.project;
        let known = project.stores.get(store.as_str());
        let deployment = known.and_then(|store| store.deployment.as_ref());
        let deployment = deployment.ok_or_else(|| TargetError::NoDeployment {
            store: store.clone(),
        })?;
        let mut tag = "";
        let mut apps = Vec::new();
        for released in released {
            let (name, own) = released
                .reference
                .rsplit_once(':')
                .unwrap_or((&released.reference, ""));
            tag = own;
            if let Some(app) = project.app(&released.app) {
                apps.push((app, name.to_owned()));
            }
        }
        let request = ConsoleRequest::new(project, deployment, &apps, &self.context.console, tag);
        Ok(request.map_err(Box::new)?)
    }

    async fn check(&self) -> Result<(), TargetError> {
        let access = &self.context.services.access;
        if access.credentials.is_none() {
            let error = registry::Error::NoCredentials {
                server: format!("the console `{}`", self.context.console),
                missing: access.missing.clone(),
            };
            return Err(StageError::from(error).into());
        }
        reach(&self.context.console).await?;
        Ok(())
    }

    async fn release(&self, spec: &ReleaseSpec) -> Result<(), TargetError> {
        let request = self.request(&spec.store, &spec.apps)?;
        let services = &self.context.services;
        let _outside = services.events.waiting();
        // The console may carry out a request that was sent. So its response is awaited, unless
        // the user interrupts a second time.
        let work = call(&spec.store, &request, services);
        services
            .interrupt
            .unless_killed(Error::Interrupted, work)
            .await?;
        if services.access.no_wait {
            return Ok(());
        }
        let waiting = self.wait(spec, &request);
        services
            .interrupt
            .unless_stopped(Error::Interrupted, waiting)
            .await?;
        Ok(())
    }

    /// Waits until the public address answers with the release.
    async fn wait(&self, spec: &ReleaseSpec, request: &ConsoleRequest) -> Result<(), Error> {
        let health = &self.context.project.settings.deploy.health;
        let frontend = spec.apps.iter().rfind(|app| app.kind.framework().is_some());
        let own = frontend.map(|app| app.app.as_str());
        let is_set = health.contains_key("*") || own.is_some_and(|app| health.contains_key(app));
        let mut probe = frontend.map(|app| app.health.clone()).unwrap_or_default();
        if !is_set {
            probe.deadline = DEADLINE;
        }
        let events = &self.context.services.events;
        let unit = EventSubject::store(Stage::Deploy, &spec.store);
        let page = PublicPage {
            address: &request.address,
            tag: request.tag(),
            probe: &probe,
            events,
            unit: &unit,
        };
        match page.wait().await {
            Ok(true) => Ok(()),
            Ok(false) => {
                events.notice(format!(
                    "{}: {} answers, but its page does not say which release it is from",
                    spec.store, request.address
                ));
                Ok(())
            }
            Err(answer) => Err(Error::NotLive {
                store: spec.store.to_string(),
                address: request.address.clone(),
                seconds: probe.deadline.as_secs(),
                answer,
            }),
        }
    }
}

/// The target does not have this ability.
fn unsupported<T>(what: &'static str) -> Result<T, TargetError> {
    Err(TargetError::Unsupported {
        target: TargetKind::Console.name(),
        what,
        help: "use the pages of the console, or another `deployment.target`",
    })
}

#[async_trait]
impl Target for ConsoleTarget {
    fn kind(&self) -> TargetKind {
        TargetKind::Console
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            staging: false,
            seamless: false,
            drain: false,
            observes: false,
            locks: false,
            settings: false,
            logs: false,
            maintenance: false,
        }
    }

    async fn preflight(&self) -> Result<(), TargetError> {
        self.check().await
    }

    async fn observe(&self, store: &StoreId) -> Result<Observed, TargetError> {
        let request = self.request(store, &[])?;
        Ok(Observed {
            addresses: vec![request.address],
            ..Observed::default()
        })
    }

    async fn lock(&self, _: &StoreId, _: &LockClaim) -> Result<LockAnswer, TargetError> {
        Ok(LockAnswer::Taken { from: None })
    }

    async fn unlock(&self, _: &StoreId, _: &str) -> Result<(), TargetError> {
        Ok(())
    }

    async fn lock_holder(&self, _: &StoreId) -> Result<Option<LockClaim>, TargetError> {
        Ok(None)
    }

    async fn stage(&self, _: &ReleaseSpec) -> Result<Staged, TargetError> {
        Ok(Staged::default())
    }

    async fn switch(&self, spec: &ReleaseSpec, _: &SwitchToken) -> Result<(), TargetError> {
        self.release(spec).await
    }

    async fn drained(&self, _: &StoreId, _: &RecordId) -> Result<Drained, TargetError> {
        Ok(Drained::Unknown)
    }

    async fn retire(&self, _: &StoreId, _: &RecordId, _: bool) -> Result<(), TargetError> {
        Ok(())
    }

    async fn health(&self, _: &StoreId, _: &RecordId) -> Result<Vec<AppState>, TargetError> {
        Ok(Vec::new())
    }

    async fn store_settings(&self, _: &StoreId, _: &str, _: &Settings) -> Result<(), TargetError> {
        unsupported("store settings")
    }

    async fn settings(&self, _: &StoreId, _: &str) -> Result<Option<Settings>, TargetError> {
        Ok(None)
    }

    async fn logs(&self, _: &LogQuery) -> Result<(), TargetError> {
        unsupported("show the output of apps")
    }

    async fn maintenance(&self, _: &StoreId, _: Option<&str>) -> Result<(), TargetError> {
        unsupported("show a maintenance page")
    }
}

async fn call(store: &StoreId, release: &ConsoleRequest, services: &Services) -> Result<(), Error> {
    let client = client(&release.url)?;
    let (user, password) = match &services.access.credentials {
        Some(credentials) => (
            credentials.user.as_str(),
            credentials.password.expose_secret(),
        ),
        // The preflight refuses a deploy without credentials.
        None => ("", ""),
    };
    let body = release.body(user, password);
    retry(RETRY, || async {
        let request = client.patch(&release.url).timeout(TIMEOUT).json(&body);
        let response = match request.send().await {
            Ok(response) => response,
            // Without a connection nothing was sent, so a retry is safe. A request that was sent
            // may have been carried out.
            Err(error) if error.is_connect() => {
                return Err(AttemptError::disconnected(unreachable(&release.url, error)));
            }
            Err(error) => return Err(AttemptError::Final(unreachable(&release.url, error))),
        };
        let status = response.status();
        if status.is_success() {
            return Ok(());
        }
        let error = refused(store, release, services, response).await;
        Err(match status {
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
                AttemptError::transient(error)
            }
            _ => AttemptError::Final(error),
        })
    })
    .await
}

/// The error of a response that is not successful.
async fn refused(
    store: &StoreId,
    release: &ConsoleRequest,
    services: &Services,
    response: Response,
) -> Error {
    let (store, url) = (store.to_string(), release.url.clone());
    let status = response.status();
    if status.is_redirection() {
        let target = redirect_target(&response);
        let target = target.map(|target| services.redact(&display_address(&target)));
        return Error::Redirected {
            store,
            status: status.as_u16(),
            to: target.unwrap_or_else(|| "an invalid address".into()),
            url,
        };
    }
    let body = read_at_most(response, LONGEST_RESPONSE, TIMEOUT).await;
    let body = body.unwrap_or_default().bytes;
    let mut body = services.redact(String::from_utf8_lossy(&body).trim());
    // Cut after redaction, so that no part of a secret is left.
    body.truncate(body.floor_char_boundary(SHOWN));
    if body.is_empty() {
        let reason = status.canonical_reason();
        reason
            .unwrap_or("no reason was given")
            .clone_into(&mut body);
    }
    let is_refusal = status.is_client_error();
    let status = status.as_u16();
    if is_refusal {
        Error::Refused {
            store,
            status,
            body,
            url,
        }
    } else {
        Error::Server {
            store,
            status,
            body,
            url,
        }
    }
}

/// A client of the console.
fn client(url: &str) -> Result<Client, Error> {
    let parsed = Url::parse(url).map_err(|error| Error::Unreachable {
        url: url.to_owned(),
        message: error.to_string(),
    })?;
    build(&parsed, HttpOptions::new(USER_AGENT)).map_err(|error| unreachable(url, error))
}

fn unreachable(url: &str, error: reqwest::Error) -> Error {
    Error::Unreachable {
        url: url.to_owned(),
        message: TransferError::from(error).to_string(),
    }
}

/// Checks that the console responds. Every response is accepted. Returns the seconds
/// by which the clock of this machine is ahead of the console's, if the response has a date.
pub async fn reach(console: &str) -> Result<Option<i64>, Error> {
    let request = client(console)?.get(console).timeout(REACH_TIMEOUT);
    let sent = request.send().await;
    let response = sent.map_err(|error| unreachable(console, error))?;
    Ok(clock_difference(response.headers()))
}
