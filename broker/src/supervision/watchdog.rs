//! Notices workers that are stuck: a thread of its own pings each of them.
//!
//! An arbiter that hangs in a handler cannot be ended from outside, so what remains is to tell: the node fences
//! itself and leaves it to its process supervisor to start it again.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use callboard_common::runtime::Worker;
use parking_lot::{Condvar, Mutex};

struct Pulse {
    worker: Worker,
    answered: Arc<AtomicU64>,
}

/// Watches workers until it is dropped.
#[derive(Debug)]
pub struct Watchdog {
    stop: Arc<(Mutex<bool>, Condvar)>,
    thread: Option<JoinHandle<()>>,
}

impl Watchdog {
    /// Pings every `interval`; a worker that has not answered for `patience` is reported once per silence, by its
    /// index. This uses real time: also a node under a test's clock can hang.
    ///
    /// # Errors
    ///
    /// What the operating system says when it starts no more threads.
    pub fn start(
        workers: Vec<Worker>,
        interval: Duration,
        patience: Duration,
        on_stuck: impl Fn(usize) + Send + 'static,
    ) -> std::io::Result<Self> {
        let stop = Arc::new((Mutex::new(false), Condvar::new()));
        let stopped = stop.clone();
        let pulses: Vec<_> = workers
            .into_iter()
            .map(|worker| Pulse {
                worker,
                answered: Arc::default(),
            })
            .collect();
        let allowed = (patience.as_nanos() / interval.as_nanos().max(1)).max(1) as u64;
        let watch = move || {
            for round in 1.. {
                for pulse in &pulses {
                    let answered = pulse.answered.clone();
                    // Pings wait in the worker's queue; the newest that ran tells how long it was silent.
                    let _alive: bool = pulse
                        .worker
                        .run(move || answered.store(round, Ordering::Relaxed));
                }
                let (stop, woken) = &*stopped;
                let mut stop = stop.lock();
                if !*stop {
                    let _timed_out = woken.wait_for(&mut stop, interval);
                }
                if *stop {
                    return;
                }
                drop(stop);
                for pulse in &pulses {
                    if round - pulse.answered.load(Ordering::Relaxed) == allowed {
                        on_stuck(pulse.worker.index());
                    }
                }
            }
        };
        let thread = thread::Builder::new()
            .name("callboard-watchdog".into())
            .spawn(watch)?;
        Ok(Self {
            stop,
            thread: Some(thread),
        })
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        *self.stop.0.lock() = true;
        let _woken: usize = self.stop.1.notify_all();
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}
