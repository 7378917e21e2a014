//! The deploy stage: one call of the console a store, after all of its images are pushed.

use std::sync::Arc;
use std::time::Duration;

use miette::Diagnostic;
use reqwest::StatusCode;
use secrecy::ExposeSecret;

use super::context::Services;
use super::failure::StageResult;
use super::halt::Halt;
use super::push::Pushed;
use crate::event::{Stage, Unit};
use crate::plan::{ImagePlan, Plan, Release};
use crate::store::StoreId;
use oci_distribution::{client, reason, redirected};

/// Time that a call may take.
const TIMEOUT: Duration = Duration::from_mins(1);

/// Waits before each further try, where the request has surely not been carried out.
const BACKOFF: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(4)];

/// Bytes of the console's answer that an error shows.
const SHOWN: usize = 2000;

/// What can go wrong with the console.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum Error {
    /// It refuses.
    #[error("the console refused to deploy `{store}` ({status}): {body}\n  PATCH {url}")]
    #[diagnostic(code(alokai::console::refused), help("{}", refusal(*status)))]
    Refused {
        /// The store.
        store: String,
        /// 4xx.
        status: u16,
        /// What it answered.
        body: String,
        /// Where.
        url: String,
    },
    /// It failed itself.
    #[error("the console failed to deploy `{store}` ({status}): {body}\n  PATCH {url}")]
    #[diagnostic(
        code(alokai::console::server),
        help(
            "whether the store was deployed is not known; look at it in the console, then run again: images that are pushed are not pushed twice"
        )
    )]
    Server {
        /// The store.
        store: String,
        /// 5xx, or another status that is no success.
        status: u16,
        /// What it answered.
        body: String,
        /// Where.
        url: String,
    },
    /// It points elsewhere. The request holds the password, so it goes nowhere else.
    #[error(
        "the console did not deploy `{store}`: it redirects ({status}) to `{to}`, which is not followed\n  PATCH {url}"
    )]
    #[diagnostic(
        code(alokai::console::redirected),
        help(
            "if that is where the console is now, set `CLI_CONSOLE_API_URL` (or `console.url` in `alokai.config.json`) to its address; the request was sent to nobody else"
        )
    )]
    Redirected {
        /// The store.
        store: String,
        /// 3xx.
        status: u16,
        /// Host and path.
        to: String,
        /// Where it was sent.
        url: String,
    },
    /// Nobody answers.
    #[error("the console at `{url}` cannot be reached: {message}")]
    #[diagnostic(
        code(alokai::console::unreachable),
        help(
            "check the address (`CLI_CONSOLE_API_URL`, or `console.url` in `alokai.config.json`) and the network"
        )
    )]
    Unreachable {
        /// Where.
        url: String,
        /// The system's word.
        message: String,
    },
    /// A person ended the run.
    #[error("interrupted; whether the store was deployed is not known")]
    #[diagnostic(
        code(alokai::console::interrupted),
        help("look at the store in the console")
    )]
    Interrupted,
}

fn refusal(status: u16) -> &'static str {
    match status {
        401 | 403 => {
            "check `CLI_CLOUD_USERNAME` and `CLI_CLOUD_PASSWORD`, and that this user may deploy the project"
        }
        404 => {
            "check `projectName` and `cloudRegion` in `alokai.config.json`: together they name the instance"
        }
        _ => "the console's answer says what it does not accept",
    }
}

/// A store that is live, or would be.
#[derive(Debug, Clone)]
pub struct LiveStore {
    /// The store.
    pub store: StoreId,
    /// Where visitors find it.
    pub address: String,
    /// What runs it on this machine, where nobody else does.
    pub commands: Vec<String>,
}

/// Whether the release's store has come this far; it comes whole or not at all.
pub fn is_due(plan: &Plan, release: &Release, pushed: &[Pushed]) -> bool {
    let is_there = |image: &ImagePlan| pushed.iter().any(|pushed| pushed.unit == image.unit);
    let of_store = plan.images.iter();
    let mut of_store = of_store.filter(|image| image.unit.store == release.store);
    of_store.all(is_there)
}

/// Deploys every store whose images are all there, in the plan's order: the console is one,
/// and a person follows its steps better one by one.
pub async fn run(
    plan: &Plan,
    pushed: &[Pushed],
    context: &Arc<Services>,
) -> StageResult<LiveStore> {
    let halt = Halt::new(context);
    let mut results = Vec::new();
    for release in plan
        .releases
        .iter()
        .filter(|release| is_due(plan, release, pushed))
    {
        let unit = Unit::store(Stage::Deploy, &release.store);
        let note = |live: &LiveStore| live.address.clone();
        let work = async {
            let _outside = context.events.outside();
            // A request that is on its way may be carried out; its answer is waited for, unless
            // a person insists.
            let work = call(release, context);
            context
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

async fn call(release: &Release, context: &Services) -> Result<(), Error> {
    let unreachable = |error: reqwest::Error| Error::Unreachable {
        url: release.url.clone(),
        message: reason(error),
    };
    let client = client(&release.url, TIMEOUT).map_err(unreachable)?;
    let (user, password) = match &context.access.credentials {
        Some(credentials) => (
            credentials.user.as_str(),
            credentials.password.expose_secret(),
        ),
        // The preflight has refused a deploy without them.
        None => ("", ""),
    };
    let body = release.body(user, password);
    let mut waits = BACKOFF.into_iter();
    loop {
        let answer = client.patch(&release.url).json(&body).send().await;
        let answer = match answer {
            // No connection, no request: repeating is safe. A request that was sent may have
            // been carried out, so nothing else is repeated.
            Err(error) if error.is_connect() => match waits.next() {
                Some(wait) => {
                    tokio::time::sleep(wait).await;
                    continue;
                }
                None => return Err(unreachable(error)),
            },
            Err(error) => return Err(unreachable(error)),
            Ok(answer) => answer,
        };
        let status = answer.status();
        if status.is_success() {
            return Ok(());
        }
        if matches!(
            status,
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE
        ) && let Some(wait) = waits.next()
        {
            tokio::time::sleep(wait).await;
            continue;
        }
        if status.is_redirection() {
            let to = redirected(&answer).map(|to| context.redact(&to));
            return Err(Error::Redirected {
                store: release.store.to_string(),
                status: status.as_u16(),
                to: to.unwrap_or_else(|| "nowhere".into()),
                url: release.url.clone(),
            });
        }
        let text = answer.text().await.unwrap_or_default();
        let mut body = context.redact(text.trim());
        if body.is_empty() {
            status
                .canonical_reason()
                .unwrap_or("no reason was given")
                .clone_into(&mut body);
        }
        let mut end = body.len().min(SHOWN);
        while !body.is_char_boundary(end) {
            end -= 1;
        }
        body.truncate(end);
        let (store, url, status) = (
            release.store.to_string(),
            release.url.clone(),
            status.as_u16(),
        );
        return Err(if (400..500).contains(&status) {
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
        });
    }
}

/// Whether the console answers at all; what it answers does not matter.
pub async fn reach(console: &str) -> Result<(), Error> {
    let unreachable = |error: reqwest::Error| Error::Unreachable {
        url: console.to_owned(),
        message: reason(error),
    };
    let client = client(console, Duration::from_secs(15)).map_err(unreachable)?;
    client.get(console).send().await.map_err(unreachable)?;
    Ok(())
}
