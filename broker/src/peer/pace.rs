//! How fast replicas are fed that are not in sync: a move or a refill leaves the network to the clients.

use std::sync::Arc;
use std::time::Duration;

use callboard_common::{Clock, Monotonic};
use parking_lot::Mutex;

/// All that a node sends to replicas that are not in sync, together; clones share it.
#[derive(Clone, Debug)]
pub struct Pace {
    bytes_per_s: Option<u64>,
    /// When the next byte may leave.
    free: Arc<Mutex<Monotonic>>,
    clock: Clock,
}

impl Pace {
    /// So many bytes in a second; `None` is as fast as it goes.
    #[must_use]
    pub fn new(bytes_per_s: Option<u64>, clock: Clock) -> Self {
        Self {
            bytes_per_s: bytes_per_s.filter(|rate| *rate > 0),
            free: Arc::default(),
            clock,
        }
    }

    /// Waits until so many bytes may leave.
    pub async fn wait_for(&self, bytes: usize) {
        let Some(rate) = self.bytes_per_s else { return };
        let now = self.clock.now().monotonic;
        let wait = {
            let mut free = self.free.lock();
            let begins = (*free).max(now);
            *free = begins.after(Duration::from_secs_f64(bytes as f64 / rate as f64));
            begins.since(now)
        };
        if wait > Duration::ZERO {
            self.clock.sleep(wait).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    #[test]
    fn bytes_leave_at_their_pace_whoever_they_are_for() {
        let clock = Clock::manual(callboard_common::Timestamp(0));
        let (pace, other) = {
            let pace = Pace::new(Some(1000), clock.clone());
            (pace.clone(), pace)
        };
        assert_eq!(
            pace.wait_for(500).now_or_never(),
            Some(()),
            "nothing was sent yet"
        );
        let mut second = Box::pin(other.wait_for(500));
        assert_eq!(second.as_mut().now_or_never(), None);
        clock.advance(Duration::from_millis(499));
        assert_eq!(second.as_mut().now_or_never(), None);
        clock.advance(Duration::from_millis(1));
        assert_eq!(second.as_mut().now_or_never(), Some(()));
        let unlimited = Pace::new(None, clock);
        assert_eq!(unlimited.wait_for(usize::MAX).now_or_never(), Some(()));
    }
}
