//! The deploy stage: one console request for each store, after all of its images are pushed.

use std::sync::Arc;
use std::time::Duration;

use miette::Diagnostic;
use reqwest::{Response, StatusCode};
use secrecy::ExposeSecret;

use super::context::{PipelineOptions, Services};
use super::failure::StageResult;
use super::halt::Halt;
use super::push::Pushed;
use crate::event::{Stage, Unit};
use crate::plan::{ImagePlan, Plan, Release};
use crate::store::StoreId;
use oci_distribution::{client, reason, redirected};

/// The time-out of a request.
const TIMEOUT: Duration = Duration::from_mins(1);

/// The pause before each repeated request.
const BACKOFF: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(4)];

/// How many bytes of the console's answer an error shows.
const SHOWN: usize = 2000;

/// Why a store could not be deployed.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum Error {
    /// The console refuses the request.
    #[error("the console refused to deploy `{store}` ({status}): {body}\n  PATCH {url}")]
    #[diagnostic(code(alokai::console::refused), help("{}", refusal(*status)))]
    Refused {
        /// The store.
        store: String,
        /// 4xx.
        status: u16,
        /// The answer.
        body: String,
        /// The URL.
        url: String,
    },
    /// The console fails.
    #[error("the console failed to deploy `{store}` ({status}): {body}\n  PATCH {url}")]
    #[diagnostic(
        code(alokai::console::server),
        help(
            "it is not known whether the store was deployed: check it in the console, then run again; images that are pushed are not pushed again"
        )
    )]
    Server {
        /// The store.
        store: String,
        /// 5xx, or another status that is not a success.
        status: u16,
        /// The answer.
        body: String,
        /// The URL.
        url: String,
    },
    /// The console redirects. The request contains the password, so the redirect is not followed.
    #[error(
        "the console did not deploy `{store}`: it redirects ({status}) to `{to}`, and redirects are not followed\n  PATCH {url}"
    )]
    #[diagnostic(
        code(alokai::console::redirected),
        help(
            "if the console has moved there, set `CLI_CONSOLE_API_URL` (or `console.url` in `alokai.config.json`) to the new address; no password was sent there"
        )
    )]
    Redirected {
        /// The store.
        store: String,
        /// 3xx.
        status: u16,
        /// Host and path of the redirect.
        to: String,
        /// The URL of the request.
        url: String,
    },
    /// The console does not answer.
    #[error("the console at `{url}` cannot be reached: {message}")]
    #[diagnostic(
        code(alokai::console::unreachable),
        help(
            "check the address (`CLI_CONSOLE_API_URL`, or `console.url` in `alokai.config.json`) and the network"
        )
    )]
    Unreachable {
        /// The URL.
        url: String,
        /// The cause.
        message: String,
    },
    /// The user interrupted the run.
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
            "check `CLI_CLOUD_USERNAME` and `CLI_CLOUD_PASSWORD`, and that this user is allowed to deploy the project"
        }
        404 => {
            "check `projectName` and `cloudRegion` in `alokai.config.json`: together they name the instance"
        }
        _ => "the console's answer says why it refuses the request",
    }
}

/// A store that is live, or that runs on this machine.
#[derive(Debug, Clone)]
pub struct LiveStore {
    /// The store.
    pub store: StoreId,
    /// Its address.
    pub address: String,
    /// The commands that run it on this machine, with `--local`.
    pub commands: Vec<String>,
}

/// Whether all images of the release's store are pushed.
pub fn is_due(plan: &Plan, release: &Release, pushed: &[Pushed]) -> bool {
    let is_there = |image: &ImagePlan| pushed.iter().any(|pushed| pushed.unit == image.unit);
    let of_store = plan.images.iter();
    let mut of_store = of_store.filter(|image| image.unit.store == release.store);
    of_store.all(is_there)
}

/// Deploys every store whose images are all pushed, one after the other in the plan's order.
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
        let unit = Unit::store(Stage::Deploy, &release.store);
        let note = |live: &LiveStore| live.address.clone();
        let work = async {
            let _outside = services.events.outside();
            // The console may carry out a request that was sent, so only the second interruption
            // abandons it.
            let work = call(release, services);
            services
                .interrupt
                .unless_killed(Error::Interrupted, work)
                .await?;
            Ok::<_, Error>(LiveStore {
                store: release.store.clone(),
                address: release.address.clone(),
                commands: Vec::new(),
            })
        };
        results.extend(halt.unless_halted(unit, note, work).await);
    }
    results.into_iter().collect()
}

/// Sends the console request of a store. It is repeated only if the console surely has not carried it
/// out: without a connection, and after a 429 or 503.
async fn call(release: &Release, services: &Services) -> Result<(), Error> {
    let unreachable = |error: reqwest::Error| Error::Unreachable {
        url: release.url.clone(),
        message: reason(error),
    };
    let client = client(&release.url, TIMEOUT).map_err(unreachable)?;
    let (user, password) = match &services.access.credentials {
        Some(credentials) => (
            credentials.user.as_str(),
            credentials.password.expose_secret(),
        ),
        // Preflight has refused a deploy without credentials.
        None => ("", ""),
    };
    let body = release.body(user, password);
    let mut waits = BACKOFF.into_iter();
    loop {
        let answer = client.patch(&release.url).json(&body).send().await;
        let may_repeat = match &answer {
            Err(error) => error.is_connect(),
            Ok(answer) => matches!(
                answer.status(),
                StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE
            ),
        };
        if may_repeat && let Some(wait) = waits.next() {
            tokio::time::sleep(wait).await;
            continue;
        }
        let answer = answer.map_err(unreachable)?;
        return if answer.status().is_success() {
            Ok(())
        } else {
            Err(refused(release, answer, services).await)
        };
    }
}

/// The error for an answer that is not a success.
async fn refused(release: &Release, answer: Response, services: &Services) -> Error {
    let (store, url) = (release.store.to_string(), release.url.clone());
    let status = answer.status();
    if status.is_redirection() {
        let to = redirected(&answer).map(|to| services.redact(&to));
        return Error::Redirected {
            store,
            status: status.as_u16(),
            to: to.unwrap_or_else(|| "an unknown address".into()),
            url,
        };
    }
    let text = answer.text().await.unwrap_or_default();
    let mut body = services.redact(text.trim());
    if body.is_empty() {
        status
            .canonical_reason()
            .unwrap_or("the answer is empty")
            .clone_into(&mut body);
    }
    body.truncate(body.floor_char_boundary(SHOWN));
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

/// Checks that the console answers, with any status.
pub async fn reach(console: &str) -> Result<(), Error> {
    let unreachable = |error: reqwest::Error| Error::Unreachable {
        url: console.to_owned(),
        message: reason(error),
    };
    let client = client(console, Duration::from_secs(15)).map_err(unreachable)?;
    client.get(console).send().await.map_err(unreachable)?;
    Ok(())
}
