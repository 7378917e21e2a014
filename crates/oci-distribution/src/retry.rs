//! Trying again: what may pass, how long to wait for it, and when it is enough.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

use reqwest::StatusCode;
use reqwest::header::{HeaderMap, RETRY_AFTER};

use super::Error;

/// The longest that a registry may make us wait before the next try.
const LONGEST: Duration = Duration::from_mins(1);

/// How patient a client is, and in what pieces it sends.
#[derive(Debug, Clone, Copy)]
pub struct TransferLimits {
    /// The pause before the second try; each one after is twice as long.
    pub pause: Duration,
    /// Tries after the first one. Progress makes them full again.
    pub retries: u32,
    /// How long neither side may send a byte before a try is given up.
    pub silence: Duration,
    /// How long a registry may take to put a blob in its place that it has all bytes of. Some
    /// copy it within their storage first.
    pub commit: Duration,
    /// Bytes of a blob that go into one request, where it does not go whole.
    pub piece: u64,
    /// What the pieces shrink to where connections break.
    pub smallest_piece: u64,
}

impl Default for TransferLimits {
    fn default() -> Self {
        Self {
            pause: Duration::from_millis(250),
            retries: 5,
            silence: Duration::from_mins(1),
            commit: Duration::from_mins(10),
            // GitHub's registry takes no larger ones.
            piece: 4 << 20,
            smallest_piece: 64 << 10,
        }
    }
}

impl TransferLimits {
    /// With no more retries than that.
    #[must_use]
    pub fn at_most(self, retries: u32) -> Self {
        Self {
            retries: retries.min(self.retries),
            ..self
        }
    }
}

/// Why one try did not bring what it should.
#[derive(Debug)]
pub enum AttemptError {
    /// Another try will bring the same.
    Final(Error),
    /// Another try may help.
    Passing {
        /// What is told if it does not.
        error: Error,
        /// What the registry answered, if it did.
        status: Option<StatusCode>,
        /// When the registry wants to be asked again.
        after: Option<Duration>,
        /// Whether the connection broke, or something on the way took too long: less at once
        /// may get through.
        is_break: bool,
    },
}

impl AttemptError {
    /// What may pass, at a time that nobody knows.
    pub fn passing(error: Error) -> Self {
        Self::Passing {
            error,
            status: None,
            after: None,
            is_break: false,
        }
    }

    /// A connection that broke.
    pub fn broken(error: Error) -> Self {
        Self::Passing {
            error,
            status: None,
            after: None,
            is_break: true,
        }
    }

    /// Whether a connection broke, or something on the way took too long.
    pub fn is_break(&self) -> bool {
        matches!(self, Self::Passing { is_break: true, .. })
    }

    /// Whether the registry did not look at the request: too many came.
    pub fn is_refused_for_now(&self) -> bool {
        self.status() == Some(StatusCode::TOO_MANY_REQUESTS)
    }

    /// What the registry answered, if it did.
    pub fn status(&self) -> Option<StatusCode> {
        match self {
            Self::Passing { status, .. } => *status,
            Self::Final(_) => None,
        }
    }
}

impl From<Error> for AttemptError {
    fn from(error: Error) -> Self {
        Self::Final(error)
    }
}

/// Counts the tries of one piece of work.
pub struct Backoff {
    limits: TransferLimits,
    failures: u32,
}

impl Backoff {
    /// Nothing has been tried.
    pub fn new(limits: TransferLimits) -> Self {
        Self {
            limits,
            failures: 0,
        }
    }

    /// Something got further, so what failed before does not count.
    pub fn renew(&mut self) {
        self.failures = 0;
    }

    /// Waits until the next try, or gives up with the trouble's error.
    pub async fn wait(&mut self, trouble: AttemptError) -> Result<(), Error> {
        let (error, after) = match trouble {
            AttemptError::Final(error) => return Err(error),
            AttemptError::Passing { error, after, .. } => (error, after),
        };
        if self.failures >= self.limits.retries {
            return Err(error);
        }
        let pause = self.limits.pause.saturating_mul(1 << self.failures.min(16));
        self.failures += 1;
        tokio::time::sleep(after.unwrap_or_else(|| jittered(pause)).min(LONGEST)).await;
        Ok(())
    }
}

/// Up to a quarter more, so that those who failed together do not come back together.
fn jittered(pause: Duration) -> Duration {
    // Its keys are the standard library's only randomness.
    let random = RandomState::new().build_hasher().finish();
    let quarter = u64::try_from(pause.as_micros() / 4).unwrap_or(u64::MAX);
    pause + Duration::from_micros(random % quarter.max(1))
}

/// When the registry wants to be asked again: in seconds, or as a date.
pub fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text);
    let left = date.ok()?.duration_since(jiff::Timestamp::now());
    // What is past is now.
    Some(Duration::try_from(left).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use reqwest::header::{HeaderMap, HeaderValue, RETRY_AFTER};

    use super::{jittered, retry_after};

    fn asked(text: &str) -> Option<Duration> {
        let value = HeaderValue::from_str(text).unwrap();
        retry_after(&HeaderMap::from_iter([(RETRY_AFTER, value)]))
    }

    #[test]
    fn a_registry_says_when_in_seconds_or_as_a_date() {
        assert_eq!(asked("7"), Some(Duration::from_secs(7)));
        assert_eq!(asked("Wed, 21 Oct 2015 07:28:00 GMT"), Some(Duration::ZERO));
        assert!(asked("Fri, 31 Dec 2100 23:59:59 GMT") > Some(Duration::from_hours(1)));
        assert_eq!(asked("soon"), None);
    }

    #[test]
    fn pauses_are_never_shorter_and_at_most_a_quarter_longer() {
        let pause = Duration::from_secs(1);
        for _ in 0..100 {
            let longer = jittered(pause);
            assert!(pause <= longer && longer < pause * 5 / 4);
        }
    }
}
