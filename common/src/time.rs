//! The one door to time: a [`Clock`] that is the machine's, or one that a test moves by hand.
//!
//! Decisions about leases, sessions and timeouts use monotonic time only; the wall clock stamps
//! records and serves retention, because it may jump (RELIABILITY, I25).

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use tokio::time::Instant;

/// Time since the clock was made; never goes back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Monotonic(pub Duration);

impl Monotonic {
    /// The moment `duration` later, as far as time goes.
    #[must_use]
    pub fn after(self, duration: Duration) -> Self {
        Self(self.0.checked_add(duration).unwrap_or(Duration::MAX))
    }

    /// How long ago `earlier` was; zero if it lies ahead.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

/// Wall-clock time in milliseconds since the Unix epoch, as in Kafka's records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub i64);

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What a core is told of time with each input.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// For timeouts.
    pub monotonic: Monotonic,
    /// For timestamps.
    pub wall: Timestamp,
}

#[derive(Debug)]
struct Manual {
    now: Now,
    /// Who waits for which moment; the number tells sleepers of one moment apart.
    sleepers: BTreeMap<(Monotonic, u64), Waker>,
    next: u64,
}

#[derive(Clone, Debug)]
enum Kind {
    Machine { start: Instant },
    Manual(Arc<Mutex<Manual>>),
}

/// Tells the time and waits for it; clones share it.
#[derive(Clone, Debug)]
pub struct Clock(Kind);

impl Clock {
    /// The machine's clock. Within a tokio runtime whose time stands still or jumps, as in a simulation, monotonic time does so
    /// too.
    #[must_use]
    pub fn machine() -> Self {
        Self(Kind::Machine {
            start: Instant::now(),
        })
    }

    /// A clock that stands still until [`Clock::advance`] moves it, beginning at wall time `start`.
    #[must_use]
    pub fn manual(start: Timestamp) -> Self {
        let now = Now {
            monotonic: Monotonic::default(),
            wall: start,
        };
        Self(Kind::Manual(Arc::new(Mutex::new(Manual {
            now,
            sleepers: BTreeMap::new(),
            next: 0,
        }))))
    }

    /// The time now.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this is the one door to time")]
    pub fn now(&self) -> Now {
        match &self.0 {
            Kind::Machine { start } => {
                let wall = SystemTime::now()
                    .duration_since(UNIX_EPOCH)
                    .unwrap_or_default();
                let wall = Timestamp(i64::try_from(wall.as_millis()).unwrap_or(i64::MAX));
                Now {
                    monotonic: Monotonic(start.elapsed()),
                    wall,
                }
            }
            Kind::Manual(manual) => manual.lock().now,
        }
    }

    /// Moves a manual clock on and wakes whose time has come.
    ///
    /// # Panics
    ///
    /// Panics on the machine's clock, which nobody moves.
    pub fn advance(&self, by: Duration) {
        let Kind::Manual(manual) = &self.0 else {
            panic!("the machine's clock cannot be moved")
        };
        let due = {
            let mut manual = manual.lock();
            manual.now.monotonic = manual.now.monotonic.after(by);
            manual.now.wall.0 += i64::try_from(by.as_millis()).unwrap_or(i64::MAX);
            let now = manual.now.monotonic;
            let later = manual.sleepers.split_off(&(now, u64::MAX));
            std::mem::replace(&mut manual.sleepers, later)
        };
        due.into_values().for_each(Waker::wake);
    }

    /// Waits for `duration`.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: dropping the future forgets the wait.
    pub fn sleep(&self, duration: Duration) -> Sleep {
        self.sleep_until(self.now().monotonic.after(duration))
    }

    /// Waits for a moment; a moment that has passed is ready at once.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: dropping the future forgets the wait.
    pub fn sleep_until(&self, moment: Monotonic) -> Sleep {
        Sleep(match &self.0 {
            // tokio's timers round up to a millisecond, also what has passed.
            Kind::Machine { start } if start.elapsed() >= moment.0 => SleepKind::Passed,
            Kind::Machine { start } => {
                // tokio counts its timers in far less than a `Duration` holds.
                let moment = moment.0.min(Duration::from_secs(30 * 365 * 24 * 3600));
                SleepKind::Machine(Box::pin(tokio::time::sleep_until(*start + moment)))
            }
            Kind::Manual(manual) => SleepKind::Manual {
                manual: manual.clone(),
                moment,
                key: None,
            },
        })
    }
}

/// A wait for a moment; see [`Clock::sleep_until`].
#[derive(Debug)]
pub struct Sleep(SleepKind);

#[derive(Debug)]
enum SleepKind {
    Passed,
    Machine(Pin<Box<tokio::time::Sleep>>),
    Manual {
        manual: Arc<Mutex<Manual>>,
        moment: Monotonic,
        key: Option<u64>,
    },
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.0 {
            SleepKind::Passed => Poll::Ready(()),
            SleepKind::Machine(sleep) => sleep.as_mut().poll(cx),
            SleepKind::Manual {
                manual,
                moment,
                key,
            } => {
                let mut manual = manual.lock();
                if let Some(key) = key.take() {
                    drop(manual.sleepers.remove(&(*moment, key)));
                }
                if manual.now.monotonic >= *moment {
                    return Poll::Ready(());
                }
                let next = manual.next;
                manual.next += 1;
                drop(manual.sleepers.insert((*moment, next), cx.waker().clone()));
                *key = Some(next);
                Poll::Pending
            }
        }
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let SleepKind::Manual {
            manual,
            moment,
            key: Some(key),
        } = &self.0
        {
            drop(manual.lock().sleepers.remove(&(*moment, *key)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    /// Also in less time than a timer's tick: a producer that does not linger sends at once.
    #[tokio::test]
    async fn a_moment_that_has_passed_is_ready_at_once() {
        let clock = Clock::machine();
        assert_eq!(
            clock.sleep_until(clock.now().monotonic).now_or_never(),
            Some(())
        );
        assert_eq!(clock.sleep(Duration::ZERO).now_or_never(), Some(()));
        assert_eq!(clock.sleep(Duration::from_millis(50)).now_or_never(), None);
    }

    #[test]
    fn a_manual_clock_wakes_whose_time_has_come() {
        let clock = Clock::manual(Timestamp(1000));
        let (mut short, mut long) = (
            clock.sleep(Duration::from_secs(1)),
            clock.sleep(Duration::from_secs(5)),
        );
        assert_eq!((&mut short).now_or_never(), None);
        assert_eq!((&mut long).now_or_never(), None);
        clock.advance(Duration::from_secs(2));
        assert_eq!(short.now_or_never(), Some(()));
        assert_eq!((&mut long).now_or_never(), None);
        assert_eq!(clock.now().wall, Timestamp(3000));
        drop(long);
        let Kind::Manual(manual) = &clock.0 else {
            unreachable!()
        };
        assert!(
            manual.lock().sleepers.is_empty(),
            "a dropped sleeper is forgotten"
        );
    }
}
