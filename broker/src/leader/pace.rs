//! When a sync begins: at once, or a moment later because more batches are about to share it; pure.
//!
//! A sync costs as much as several small batches. A producer that keeps five requests in flight sends the next
//! one as soon as the first is acknowledged, so with a sync for each of them none is ever shared. The pace finds out
//! how many batches come together if the sync waits a little, by trying: as long as waiting brings no more batches
//! (one request in flight), nothing waits, and trying becomes rare.
//!
//! Invariants: a sync waits for [`PATIENCE`] at most; batches that come slowly never wait.
//!
//! Source: DeWitt et al., "Implementation techniques for main memory database systems" (1984): group commit.

use std::time::Duration;

use callboard_common::Monotonic;

/// Longest wait for more batches.
pub(super) const PATIENCE: Duration = Duration::from_millis(1);
/// Batches that come less often than this do not wait for each other.
const FREQUENT: Duration = Duration::from_micros(650);
/// So many shared syncs, and one more batch is waited for.
const TRY_AFTER: u32 = 16;
/// Longest pause between tries that brought nothing.
const TRY_AFTER_MAX: u32 = 4096;
/// More batches are never waited for.
const TARGET_MAX: u32 = 64;

/// See the module.
#[derive(Debug)]
pub(super) struct Pace {
    /// Batches since the last sync began.
    waiting: u32,
    /// So many batches are waited for.
    target: u32,
    /// Syncs that began because there were so many, since the target changed.
    reached: u32,
    try_after: u32,
    last_arrival: Monotonic,
    /// Mean time between batches.
    interval: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            waiting: 0,
            target: 1,
            reached: 0,
            try_after: TRY_AFTER,
            last_arrival: Monotonic::default(),
            interval: Duration::MAX,
        }
    }
}

impl Pace {
    /// A batch wants to be synced.
    pub(super) fn arrived(&mut self, now: Monotonic) {
        self.waiting = self.waiting.saturating_add(1);
        let passed = now.since(self.last_arrival).min(Duration::from_secs(1));
        self.last_arrival = now;
        self.interval = (self.interval.min(Duration::from_secs(1)) * 7 + passed) / 8;
    }

    /// Whether a sync begins now, while none is in flight. If not, ask again after [`PATIENCE`] at the latest.
    pub(super) fn is_due(&self) -> bool {
        self.waiting >= self.target || self.interval > FREQUENT
    }

    /// A sync begins; `patience_ended` if it was waited for long enough.
    pub(super) fn begun(&mut self, patience_ended: bool) {
        let waiting = std::mem::take(&mut self.waiting);
        if self.interval > FREQUENT {
            return;
        }
        if patience_ended && waiting < self.target {
            // No more of them come together.
            let was_a_try = self.target > waiting.max(1);
            self.target = waiting.max(1);
            self.reached = 0;
            if was_a_try {
                self.try_after = self.try_after.saturating_mul(2).min(TRY_AFTER_MAX);
            }
            return;
        }
        if waiting > self.target {
            // More came by themselves while the last sync was in flight.
            self.target = waiting.min(TARGET_MAX);
            self.try_after = TRY_AFTER;
            self.reached = 0;
            return;
        }
        self.reached += 1;
        if self.reached >= self.try_after {
            self.reached = 0;
            self.target = (self.target + 1).min(TARGET_MAX);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A producer with so many requests in flight that answers at once; how many batches share the last syncs.
    fn shared(in_flight: u32, gap: Duration, syncs: u32) -> (f64, u32) {
        let (mut pace, mut now) = (Pace::default(), Monotonic::default());
        let (mut batches, mut waited) = (0, 0);
        for round in 0..syncs {
            let mut sent = 0;
            let mut patience_ended = false;
            // Nothing is in flight: batches come until the window is full or the sync begins.
            loop {
                if sent < in_flight {
                    now = now.after(gap);
                    pace.arrived(now);
                    sent += 1;
                } else {
                    now = now.after(PATIENCE);
                    patience_ended = true;
                }
                if patience_ended || pace.is_due() {
                    break;
                }
            }
            pace.begun(patience_ended);
            if round >= syncs / 2 {
                batches += sent;
                waited += u32::from(patience_ended);
            }
        }
        (f64::from(batches) / f64::from(syncs / 2), waited)
    }

    #[test]
    fn one_request_in_flight_does_not_wait() {
        let (mean, waited) = shared(1, Duration::from_micros(200), 10_000);
        assert_eq!(mean, 1.0);
        assert!(waited <= 5, "tries become rare: {waited} of 5000");
    }

    #[test]
    fn a_window_of_five_shares_one_sync() {
        let (mean, waited) = shared(5, Duration::from_micros(200), 10_000);
        assert!(mean > 4.5, "{mean} batches per sync");
        assert!(waited <= 50, "{waited} of 5000");
    }

    #[test]
    fn what_comes_slowly_never_waits() {
        let (mean, waited) = shared(5, Duration::from_millis(1), 1000);
        assert_eq!((mean, waited), (1.0, 0));
    }
}
