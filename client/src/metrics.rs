//! What a client has done, counted.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counts of a client with all its producers and consumers, since it was connected. Later counts are never smaller.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClientMetrics {
    /// Records that producers have queued.
    pub records_queued: u64,
    /// Records that were acknowledged.
    pub records_delivered: u64,
    /// Records that were not delivered, or of which that is not known.
    pub records_failed: u64,
    /// Records that consumers have handed out.
    pub records_received: u64,
    /// Bytes of their keys and values.
    pub bytes_received: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    queued: AtomicU64,
    delivered: AtomicU64,
    failed: AtomicU64,
    received: AtomicU64,
    received_bytes: AtomicU64,
}

impl Counters {
    pub(crate) fn queued(&self) {
        let _before = self.queued.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn delivered(&self, well: bool) {
        let counter = if well { &self.delivered } else { &self.failed };
        let _before = counter.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn received(&self, bytes: usize) {
        let _before = self.received.fetch_add(1, Ordering::Relaxed);
        let _before = self
            .received_bytes
            .fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(crate) fn read(&self) -> ClientMetrics {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        ClientMetrics {
            records_queued: read(&self.queued),
            records_delivered: read(&self.delivered),
            records_failed: read(&self.failed),
            records_received: read(&self.received),
            bytes_received: read(&self.received_bytes),
        }
    }
}
