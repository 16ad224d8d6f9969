//! The bound of the system: connections, requests and bytes in flight.
//!
//! A request takes credits before it is read further and gives them back when it is answered, whoever has gone
//! away meanwhile ([`Permit`](crate::supervision::Permit)). Nothing queues without them.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::metrics::Metrics;

/// Limits of all doors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Largest request (`socket.request.max.bytes`).
    pub request_max_bytes: u32,
    /// Bytes of requests and answers in flight, all connections together.
    pub in_flight_max_bytes: u32,
    /// Requests in flight on one connection; beyond it the connection is not read.
    pub requests_per_connection: usize,
    /// Open connections (`max.connections`).
    pub connections: usize,
    /// Open connections from one address (`max.connections.per.ip`).
    pub connections_per_ip: usize,
    /// A connection without a request is closed after this (`connections.max.idle.ms`).
    pub idle_timeout: Duration,
    /// A request that has begun must be whole after this.
    pub frame_timeout: Duration,
    /// A client that does not take its answer is closed after this, and after as much again for each MiB of it.
    pub write_timeout: Duration,
}

impl Limits {
    /// How long a client may take for an answer of so many bytes: slow links get large answers too.
    pub fn write_timeout_of(&self, bytes: usize) -> Duration {
        let mebibytes = u32::try_from(bytes >> 20).unwrap_or(u32::MAX);
        self.write_timeout
            .saturating_mul(mebibytes.saturating_add(1))
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            request_max_bytes: 100 << 20,
            in_flight_max_bytes: 256 << 20,
            requests_per_connection: 64,
            connections: 10_000,
            connections_per_ip: 10_000,
            idle_timeout: Duration::from_mins(10),
            frame_timeout: Duration::from_secs(30),
            write_timeout: Duration::from_mins(1),
        }
    }
}

/// Counts what is admitted; clones share the counts.
#[derive(Clone, Debug)]
pub struct Admission {
    limits: Arc<Limits>,
    bytes: Arc<Semaphore>,
    connections: Arc<Mutex<BTreeMap<IpAddr, usize>>>,
    metrics: Metrics,
}

/// An admitted connection; counted until it is dropped.
#[derive(Debug)]
pub struct Admitted {
    admission: Admission,
    address: IpAddr,
}

impl Admission {
    /// Nothing is admitted yet.
    #[must_use]
    pub fn new(limits: Limits, metrics: Metrics) -> Self {
        let bytes = Arc::new(Semaphore::new(limits.in_flight_max_bytes as usize));
        Self {
            limits: Arc::new(limits),
            bytes,
            connections: Arc::default(),
            metrics,
        }
    }

    /// The limits in force.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// The counters.
    #[must_use]
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Admits a connection; `None` if there are too many.
    #[must_use]
    pub fn connect(&self, address: IpAddr) -> Option<Admitted> {
        let mut connections = self.connections.lock();
        let all: usize = connections.values().sum();
        let from_there = connections.get(&address).copied().unwrap_or(0);
        if all >= self.limits.connections || from_there >= self.limits.connections_per_ip {
            self.metrics.refuse("too_many_connections");
            return None;
        }
        let _before = connections.insert(address, from_there + 1);
        let _count = self.metrics.connections.inc();
        Some(Admitted {
            admission: self.clone(),
            address,
        })
    }

    /// Waits for credits for so many bytes.
    pub async fn bytes(&self, count: u32) -> Option<OwnedSemaphorePermit> {
        let permit = self
            .bytes
            .clone()
            .acquire_many_owned(count.min(self.limits.in_flight_max_bytes))
            .await
            .ok();
        let used =
            i64::from(self.limits.in_flight_max_bytes) - self.bytes.available_permits() as i64;
        let _before = self.metrics.credits_used_bytes.set(used);
        permit
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        let mut connections = self.admission.connections.lock();
        if let Some(count) = connections.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                let _gone = connections.remove(&self.address);
            }
        }
        let _count = self.admission.metrics.connections.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_counted_per_address_and_together() {
        let limits = Limits {
            connections: 3,
            connections_per_ip: 2,
            ..Limits::default()
        };
        let admission = Admission::new(limits, Metrics::default());
        let (a, b) = (IpAddr::from([127, 0, 0, 1]), IpAddr::from([127, 0, 0, 2]));
        let first = admission.connect(a).expect("admitted");
        let _second = admission.connect(a).expect("admitted");
        assert!(admission.connect(a).is_none(), "two per address");
        let _third = admission.connect(b).expect("admitted");
        assert!(admission.connect(b).is_none(), "three together");
        drop(first);
        assert!(admission.connect(b).is_some());
    }
}
