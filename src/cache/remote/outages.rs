//! Outages of the remote cache: after several failures in a row, the server is not asked for a
//! while, so that a build does not wait for it again and again.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Failures in a row after which the server is paused.
const MAX_FAILURES: u32 = 3;

/// How long it is paused.
const PAUSE: Duration = Duration::from_secs(30);

/// Counts failures in a row.
#[derive(Default)]
pub struct OutageCounter(Mutex<OutageState>);

#[derive(Default)]
struct OutageState {
    failures: u32,
    paused_until: Option<Instant>,
}

impl OutageCounter {
    /// Records a response, which ends every outage.
    pub fn record_response(&self) {
        *self.lock() = OutageState::default();
    }

    /// Records a failure. True if the server may be asked again at once.
    pub fn record_failure(&self) -> bool {
        let mut state = self.lock();
        state.failures += 1;
        let is_paused = state.failures >= MAX_FAILURES;
        if is_paused {
            state.paused_until = Some(Instant::now() + PAUSE);
        }
        !is_paused
    }

    /// Whether the server is not to be asked now. At the end of a pause, the caller may ask it, and
    /// the pause is prolonged for all others until its response is recorded.
    pub fn is_paused(&self) -> bool {
        let mut state = self.lock();
        match state.paused_until {
            Some(until) if Instant::now() < until => true,
            Some(_) => {
                state.failures = MAX_FAILURES;
                state.paused_until = Some(Instant::now() + PAUSE);
                false
            }
            None => false,
        }
    }

    /// Whether requests were paused, and the server has not responded since then.
    pub fn has_paused(&self) -> bool {
        self.lock().paused_until.is_some()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, OutageState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::OutageCounter;

    #[test]
    fn three_failures_in_a_row_pause_the_server() {
        let outages = OutageCounter::default();
        assert!(outages.record_failure());
        outages.record_response();
        assert!(outages.record_failure() && outages.record_failure());
        assert!(!outages.is_paused());
        assert!(!outages.record_failure());
        assert!(outages.is_paused());
    }
}
