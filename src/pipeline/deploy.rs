//! The deploy stage: one request to the console for each store, after all of its images are pushed.

use std::sync::Arc;
use std::time::Duration;

use http_client::{
    AttemptError, HttpOptions, RetryPolicy, TransferError, build, clock_difference,
    display_address, read_at_most, redirect_target, retry,
};
use miette::Diagnostic;
use reqwest::{Client, Response, StatusCode, Url};
use secrecy::ExposeSecret;

use super::failure::StageResult;
use super::halt::Halt;
use super::push::Pushed;
use super::services::{PipelineOptions, Services};
use crate::event::{EventSubject, Stage};
use crate::plan::{ImagePlan, Plan, Release};
use crate::registry::USER_AGENT;
use crate::store::StoreId;

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

/// A store that is live, or would be.
#[derive(Debug, Clone)]
pub struct LiveStore {
    /// The store.
    pub store: StoreId,
    /// The public address.
    pub address: String,
    /// With `--local`: the commands that start its apps on this machine.
    pub commands: Vec<String>,
    /// With `--local`: the variables of each app in one line, in the order of `commands`.
    pub settings: Vec<String>,
}

/// Whether all images of the store are pushed. A store with a missing image is not deployed.
pub fn is_due(plan: &Plan, release: &Release, pushed: &[Pushed]) -> bool {
    let is_there = |image: &ImagePlan| pushed.iter().any(|pushed| pushed.unit == image.unit);
    let of_store = plan.images.iter();
    let mut of_store = of_store.filter(|image| image.unit.store == release.store);
    of_store.all(is_there)
}

/// Deploys every store whose images are all pushed, one by one, in the order of the plan.
pub async fn run(
    plan: &Plan,
    pushed: &[Pushed],
    services: &Arc<Services>,
    options: &PipelineOptions,
) -> StageResult<LiveStore> {
    let halt = Halt::new(services, options.keep_going);
    let mut results = Vec::new();
    for release in plan
        .releases
        .iter()
        .filter(|release| is_due(plan, release, pushed))
    {
        let unit = EventSubject::store(Stage::Deploy, &release.store);
        let note = |live: &LiveStore| live.address.clone();
        let work = async {
            let _outside = services.events.waiting();
            // The console may carry out a request that was sent. So its response is awaited, unless
            // the user interrupts a second time.
            let work = call(release, services);
            services
                .interrupt
                .unless_killed(Error::Interrupted, work)
                .await?;
            Ok::<_, Error>(LiveStore {
                store: release.store.clone(),
                address: release.address.clone(),
                commands: Vec::new(),
                settings: Vec::new(),
            })
        };
        results.extend(halt.unless_halted(unit, note, work).await);
    }
    results.into_iter().collect()
}

async fn call(release: &Release, services: &Services) -> Result<(), Error> {
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
        let error = refused(release, services, response).await;
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
async fn refused(release: &Release, services: &Services, response: Response) -> Error {
    let (store, url) = (release.store.to_string(), release.url.clone());
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
