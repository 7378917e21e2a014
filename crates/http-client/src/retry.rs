//! Retries: how often, and with what pauses. The caller decides which failures are transient.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

use reqwest::StatusCode;
use reqwest::header::{HeaderMap, RETRY_AFTER};

/// The longest pause before an attempt, whatever the server asks for.
const LONGEST_PAUSE: Duration = Duration::from_mins(1);

/// How often to retry, and with what pauses.
#[derive(Debug, Clone, Copy)]
pub struct RetryPolicy {
    /// Attempts after the first one.
    pub retries: u32,
    /// The pause before the second attempt.
    pub pause: Duration,
    /// How many times longer each further pause is.
    pub factor: u32,
}

impl RetryPolicy {
    /// The same policy with at most this many retries.
    #[must_use]
    pub fn at_most(self, retries: u32) -> Self {
        Self {
            retries: retries.min(self.retries),
            ..self
        }
    }
}

/// Why one attempt failed.
#[derive(Debug)]
pub enum AttemptError<E> {
    /// Another attempt fails the same way.
    Final(E),
    /// Another attempt may succeed.
    Transient {
        /// The error, if there is no further attempt.
        error: E,
        /// The server's status, if it responded.
        status: Option<StatusCode>,
        /// When the server wants to be asked again.
        retry_after: Option<Duration>,
        /// Whether the connection broke or timed out on its way.
        is_disconnect: bool,
    },
}

impl<E> AttemptError<E> {
    /// A failure that may not occur again.
    pub fn transient(error: E) -> Self {
        Self::Transient {
            error,
            status: None,
            retry_after: None,
            is_disconnect: false,
        }
    }

    /// A connection that broke.
    pub fn disconnected(error: E) -> Self {
        Self::Transient {
            error,
            status: None,
            retry_after: None,
            is_disconnect: true,
        }
    }

    /// Whether the connection broke or timed out on its way.
    pub fn is_disconnect(&self) -> bool {
        matches!(
            self,
            Self::Transient {
                is_disconnect: true,
                ..
            }
        )
    }

    /// The server's status, if the failure is transient and the server responded.
    pub fn status(&self) -> Option<StatusCode> {
        match self {
            Self::Transient { status, .. } => *status,
            Self::Final(_) => None,
        }
    }
}

impl<E> From<E> for AttemptError<E> {
    fn from(error: E) -> Self {
        Self::Final(error)
    }
}

/// Counts the failed attempts of one piece of work, and waits between them.
#[derive(Debug)]
pub struct Backoff {
    policy: RetryPolicy,
    failures: u32,
}

impl Backoff {
    /// No attempt has failed yet.
    pub fn new(policy: RetryPolicy) -> Self {
        Self {
            policy,
            failures: 0,
        }
    }

    /// Forgets the failures so far, because the work made progress.
    pub fn reset(&mut self) {
        self.failures = 0;
    }

    /// Waits until the next attempt. Returns the error if it is final, or if there is no attempt
    /// left.
    pub async fn wait<E>(&mut self, failure: AttemptError<E>) -> Result<(), E> {
        let (error, retry_after) = match failure {
            AttemptError::Final(error) => return Err(error),
            AttemptError::Transient {
                error, retry_after, ..
            } => (error, retry_after),
        };
        if self.failures >= self.policy.retries {
            return Err(error);
        }
        let factor = self.policy.factor.saturating_pow(self.failures);
        let pause = self.policy.pause.saturating_mul(factor);
        self.failures += 1;
        let pause = retry_after.unwrap_or_else(|| jittered(pause));
        tokio::time::sleep(pause.min(LONGEST_PAUSE)).await;
        Ok(())
    }
}

/// Attempts the work until it succeeds, fails for good, or there is no attempt left.
pub async fn retry<T, E, F>(policy: RetryPolicy, attempt: impl Fn() -> F) -> Result<T, E>
where
    F: Future<Output = Result<T, AttemptError<E>>>,
{
    let mut backoff = Backoff::new(policy);
    loop {
        match attempt().await {
            Ok(result) => return Ok(result),
            Err(failure) => backoff.wait(failure).await?,
        }
    }
}

/// Adds up to a quarter, so that clients which failed together do not retry together.
fn jittered(pause: Duration) -> Duration {
    // Its keys are the only source of randomness in the standard library.
    let random = RandomState::new().build_hasher().finish();
    let quarter = u64::try_from(pause.as_micros() / 4).unwrap_or(u64::MAX);
    pause.saturating_add(Duration::from_micros(random % quarter.max(1)))
}

/// When the server wants to be asked again, by `Retry-After`: in seconds, or as a date.
pub fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text);
    let left = date.ok()?.duration_since(jiff::Timestamp::now());
    // A date in the past means now.
    Some(Duration::try_from(left).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::time::Duration;

    use reqwest::header::{HeaderMap, HeaderValue, RETRY_AFTER};

    use super::{AttemptError, RetryPolicy, jittered, retry, retry_after};

    const QUICK: RetryPolicy = RetryPolicy {
        retries: 2,
        pause: Duration::from_micros(1),
        factor: 2,
    };

    fn parsed(text: &str) -> Option<Duration> {
        let value = HeaderValue::from_str(text).unwrap();
        retry_after(&HeaderMap::from_iter([(RETRY_AFTER, value)]))
    }

    #[test]
    fn retry_after_is_in_seconds_or_a_date() {
        assert_eq!(parsed("7"), Some(Duration::from_secs(7)));
        assert_eq!(
            parsed("Wed, 21 Oct 2015 07:28:00 GMT"),
            Some(Duration::ZERO)
        );
        assert!(parsed("Fri, 31 Dec 2100 23:59:59 GMT") > Some(Duration::from_hours(1)));
        assert_eq!(parsed("soon"), None);
    }

    #[test]
    fn a_jittered_pause_is_at_most_a_quarter_longer() {
        let pause = Duration::from_secs(1);
        for _ in 0..100 {
            let longer = jittered(pause);
            assert!(pause <= longer && longer < pause * 5 / 4);
        }
    }

    #[tokio::test]
    async fn only_transient_failures_are_retried_and_not_forever() {
        for (is_final, attempts) in [(true, 1), (false, 3)] {
            let count = Cell::new(0);
            let result: Result<(), _> = retry(QUICK, || async {
                count.set(count.get() + 1);
                Err(if is_final {
                    AttemptError::Final("no")
                } else {
                    AttemptError::transient("no")
                })
            })
            .await;
            assert_eq!((result, count.get()), (Err("no"), attempts));
        }
    }
}
