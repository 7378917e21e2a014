//! The pause before a server that ended is started again.

use std::time::Duration;

const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(30);

/// A server that has been ready for this time counts as healthy, so its next pause is the shortest one.
const HEALTHY: Duration = Duration::from_secs(30);

/// A pause that doubles from 1 s to 30 s.
#[derive(Debug)]
pub struct GrowingPause(Duration);

impl Default for GrowingPause {
    fn default() -> Self {
        Self(SHORTEST)
    }
}

impl GrowingPause {
    /// The next pause of a server that was ready for this time, which is zero if it was never ready.
    pub fn after(&mut self, ready: Duration) -> Duration {
        if ready >= HEALTHY {
            self.0 = SHORTEST;
        }
        let pause = self.0;
        self.0 = (pause * 2).min(LONGEST);
        pause
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::GrowingPause;

    #[test]
    fn the_pause_doubles_to_30_s_and_is_short_again_after_a_healthy_time() {
        let mut pause = GrowingPause::default();
        let crash = |pause: &mut GrowingPause| pause.after(Duration::ZERO).as_secs();
        let pauses: Vec<u64> = (0..7).map(|_| crash(&mut pause)).collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 30, 30]);
        assert_eq!(pause.after(Duration::from_secs(29)).as_secs(), 30);
        assert_eq!(pause.after(Duration::from_secs(30)).as_secs(), 1);
        assert_eq!(crash(&mut pause), 2);
    }
}
