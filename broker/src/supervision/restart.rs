//! Whether and when a child is started again; pure.

use std::collections::VecDeque;
use std::time::Duration;

use callboard_common::Monotonic;

/// After which exits a child is started again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restart {
    /// After every exit.
    Permanent,
    /// After a failure.
    Transient,
    /// Never.
    Temporary,
}

/// How often a child may be started again before its failure escalates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RestartLimit {
    /// Restarts that are allowed within the period.
    pub intensity: usize,
    /// The period.
    pub period: Duration,
    /// Wait before the first restart of a period; it doubles with each further one.
    pub first_delay: Duration,
    /// The longest wait.
    pub longest_delay: Duration,
}

impl Default for RestartLimit {
    /// Five restarts in a minute, after 10 ms and growing to 5 s.
    fn default() -> Self {
        Self {
            intensity: 5,
            period: Duration::from_secs(60),
            first_delay: Duration::from_millis(10),
            longest_delay: Duration::from_secs(5),
        }
    }
}

impl RestartLimit {
    /// Never gives up.
    #[must_use]
    pub fn unlimited() -> Self {
        Self {
            intensity: usize::MAX,
            ..Self::default()
        }
    }
}

/// What to do about a child that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Start it again after this wait.
    RestartAfter(Duration),
    /// The limit is exceeded.
    GiveUp,
}

/// The restarts of one child.
#[derive(Clone, Debug)]
pub struct Restarts {
    limit: RestartLimit,
    recent: VecDeque<Monotonic>,
}

impl Restarts {
    /// No restart so far.
    #[must_use]
    pub fn new(limit: RestartLimit) -> Self {
        Self {
            limit,
            recent: VecDeque::new(),
        }
    }

    /// Judges a failure at `now` and counts the restart that follows.
    pub fn failed(&mut self, now: Monotonic) -> Verdict {
        while self
            .recent
            .front()
            .is_some_and(|at| now.since(*at) >= self.limit.period)
        {
            let _old = self.recent.pop_front();
        }
        if self.recent.len() >= self.limit.intensity {
            return Verdict::GiveUp;
        }
        let doublings = u32::try_from(self.recent.len()).unwrap_or(u32::MAX).min(16);
        self.recent.push_back(now);
        // An unlimited child must not remember without limit.
        if self.recent.len() > 64 {
            let _old = self.recent.pop_front();
        }
        let delay = self.limit.first_delay.saturating_mul(1 << doublings);
        Verdict::RestartAfter(delay.min(self.limit.longest_delay))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Monotonic {
        Monotonic(Duration::from_millis(ms))
    }

    #[test]
    fn waits_grow_and_the_limit_holds_within_the_period() {
        let mut restarts = Restarts::new(RestartLimit::default());
        let waits: Vec<_> = (0..5).map(|i| restarts.failed(at(i * 1000))).collect();
        let expected =
            [10, 20, 40, 80, 160].map(|ms| Verdict::RestartAfter(Duration::from_millis(ms)));
        assert_eq!(waits, expected);
        assert_eq!(restarts.failed(at(59_999)), Verdict::GiveUp);
        assert_eq!(
            restarts.failed(at(60_000)),
            Verdict::RestartAfter(Duration::from_millis(160))
        );
        assert_eq!(
            restarts.failed(at(500_000)),
            Verdict::RestartAfter(Duration::from_millis(10))
        );
    }

    #[test]
    fn an_unlimited_child_never_gives_up() {
        let mut restarts = Restarts::new(RestartLimit::unlimited());
        for i in 0..1000 {
            assert!(matches!(restarts.failed(at(i)), Verdict::RestartAfter(_)));
        }
        assert!(restarts.recent.len() <= 64);
    }
}
