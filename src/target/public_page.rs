//! The page at the public address of a store: whether it answers, and from which release it is.
//!
//! The console has no documented request for the state of a deploy. It sets the tag of the images as
//! `…_ALOKAI_MIDDLEWARE_CDN_CACHE_BUSTING_ID`, a variable for browsers, which is therefore in the page.

use std::time::{Duration, Instant};

use http_client::{HttpOptions, TransferError, build, read_at_most};
use reqwest::{Client, Url};

use super::HealthProbe;
use crate::event::{EventSubject, Events};
use crate::registry::USER_AGENT;

/// The names of the variable with the tag, as pages of Next.js and of Nuxt have it.
const VARIABLES: [&str; 2] = ["CDN_CACHE_BUSTING_ID", "cdnCacheBustingId"];

/// Bytes of a page that are read.
const LONGEST_PAGE: u64 = 8 << 20;

/// The shortest pause between two requests.
const SHORTEST_PAUSE: Duration = Duration::from_millis(100);

/// The pause between two progress messages.
const PROGRESS: Duration = Duration::from_secs(10);

/// The public page of a store.
pub struct PublicPage<'a> {
    /// The address.
    pub address: &'a str,
    /// The tag of the images of the release.
    pub tag: &'a str,
    /// How it is probed.
    pub probe: &'a HealthProbe,
    /// Receives progress messages.
    pub events: &'a Events,
    /// The store, for events.
    pub unit: &'a EventSubject,
}

/// Which release a page is from.
enum Naming {
    /// The release that is waited for.
    This,
    /// Another release.
    Other,
    /// The page does not have the variable.
    Nothing,
}

impl PublicPage<'_> {
    /// Waits until the address answers with a page that is not from another release. Returns true if the page
    /// is from this release, and false if it does not say so. The error is the last answer.
    pub async fn wait(&self) -> Result<bool, String> {
        let (client, url) = self.client()?;
        let started = Instant::now();
        let (mut told, mut in_a_row) = (started, 0);
        loop {
            let asked = self.ask(&client, &url).await;
            in_a_row = match asked {
                Ok(Naming::This | Naming::Nothing) => in_a_row + 1,
                Ok(Naming::Other) | Err(_) => 0,
            };
            let answer = match asked {
                Ok(Naming::This) if in_a_row >= self.probe.consecutive => return Ok(true),
                Ok(Naming::Nothing) if in_a_row >= self.probe.consecutive => return Ok(false),
                Ok(Naming::Other) => "the page is from another release".to_owned(),
                Ok(Naming::This | Naming::Nothing) => format!("{in_a_row} successes in a row"),
                Err(answer) => answer,
            };
            let left = self.probe.deadline.saturating_sub(started.elapsed());
            if left.is_zero() {
                return Err(answer);
            }
            if told.elapsed() >= PROGRESS {
                told = Instant::now();
                let line = format!("waiting for {url}: {answer}");
                self.events.output(self.unit, line).await;
            }
            tokio::time::sleep(self.probe.interval.max(SHORTEST_PAUSE).min(left)).await;
        }
    }

    fn client(&self) -> Result<(Client, Url), String> {
        let url = Url::parse(self.address).and_then(|url| url.join(&self.probe.path));
        let url = url.map_err(|error| error.to_string())?;
        // Each request has a new connection: an open one could lead to the release that is ending.
        let options = HttpOptions {
            keeps_connections: false,
            connect_timeout: self.probe.timeout,
            ..HttpOptions::new(USER_AGENT)
        };
        let client = build(&url, options).map_err(|error| error.to_string())?;
        Ok((client, url))
    }

    async fn ask(&self, client: &Client, url: &Url) -> Result<Naming, String> {
        let request = client.get(url.clone()).timeout(self.probe.timeout);
        let response = request.send().await;
        let response = response.map_err(|error| TransferError::from(error).to_string())?;
        let status = response.status().as_u16();
        let is_expected = self.probe.status.map_or(status < 400, |it| it == status);
        if !is_expected {
            return Err(format!("status {status}"));
        }
        let page = read_at_most(response, LONGEST_PAGE, self.probe.timeout).await;
        let page = page.map_err(|error| error.to_string())?;
        Ok(naming(&String::from_utf8_lossy(&page.bytes), self.tag))
    }
}

fn naming(page: &str, tag: &str) -> Naming {
    if page.contains(tag) {
        Naming::This
    } else if VARIABLES.iter().any(|name| page.contains(name)) {
        Naming::Other
    } else {
        Naming::Nothing
    }
}
