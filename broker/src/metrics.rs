//! Names and units of every counter; `/metrics` shows them in Prometheus' format.
//!
//! One handle per node, cheap to clone; docs/ARCHITECTURE.md has the table.

use std::sync::Arc;
use std::sync::atomic::AtomicI64;

use parking_lot::Mutex;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

/// Labels of a request.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RequestLabels {
    /// `kafka` or `quic`.
    pub door: &'static str,
    /// Kafka's name of the request.
    pub request: &'static str,
}

/// Labels of something refused.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ReasonLabels {
    /// Why, from a fixed list.
    pub reason: &'static str,
}

/// Labels of a partition.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct PartitionLabels {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
}

/// Labels of a group's partition.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct LagLabels {
    /// The group.
    pub group: String,
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
}

type RequestTimes = Family<RequestLabels, Histogram, fn() -> Histogram>;

/// The counters of one node.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "each is described where it is registered")]
pub struct Metrics {
    registry: Arc<Mutex<Registry>>,
    pub requests: RequestTimes,
    pub received_bytes: Family<RequestLabels, Counter>,
    pub sent_bytes: Family<RequestLabels, Counter>,
    pub connections: Gauge,
    pub refused: Family<ReasonLabels, Counter>,
    pub credits_used_bytes: Gauge,
    pub appended_bytes: Counter,
    pub appended_records: Counter,
    pub sync_seconds: Histogram,
    pub failed_syncs: Counter,
    pub quarantined_bytes: Counter,
    pub damaged_reads: Counter,
    pub restarts: Counter,
    pub unclean_elections: Counter,
    pub offline_partitions: Gauge,
    pub log_start: Family<PartitionLabels, Gauge>,
    pub log_end: Family<PartitionLabels, Gauge>,
    pub lag_records: Family<LagLabels, Gauge>,
    pub lag_seconds: Family<LagLabels, Gauge<f64, std::sync::atomic::AtomicU64>>,
}

fn times() -> Histogram {
    // 50 us to 26 s.
    Histogram::new(exponential_buckets(0.000_05, 2.0, 20))
}

impl Default for Metrics {
    #[expect(clippy::too_many_lines, reason = "one line per counter")]
    fn default() -> Self {
        let mut r = Registry::with_prefix("callboard");
        let m = Self {
            registry: Arc::default(),
            requests: RequestTimes::new_with_constructor(times),
            received_bytes: Family::default(),
            sent_bytes: Family::default(),
            connections: Gauge::<i64, AtomicI64>::default(),
            refused: Family::default(),
            credits_used_bytes: Gauge::default(),
            appended_bytes: Counter::default(),
            appended_records: Counter::default(),
            sync_seconds: times(),
            failed_syncs: Counter::default(),
            quarantined_bytes: Counter::default(),
            damaged_reads: Counter::default(),
            restarts: Counter::default(),
            unclean_elections: Counter::default(),
            offline_partitions: Gauge::default(),
            log_start: Family::default(),
            log_end: Family::default(),
            lag_records: Family::default(),
            lag_seconds: Family::default(),
        };
        let s = Unit::Seconds;
        let b = Unit::Bytes;
        r.register_with_unit(
            "request_duration",
            "From the whole request to the whole answer",
            s.clone(),
            m.requests.clone(),
        );
        r.register_with_unit(
            "received",
            "Bytes of requests",
            b.clone(),
            m.received_bytes.clone(),
        );
        r.register_with_unit("sent", "Bytes of answers", b.clone(), m.sent_bytes.clone());
        r.register("connections", "Open connections", m.connections.clone());
        r.register(
            "refused",
            "Requests and connections that were refused, by reason",
            m.refused.clone(),
        );
        r.register_with_unit(
            "credits_used",
            "Bytes of requests being served",
            b.clone(),
            m.credits_used_bytes.clone(),
        );
        r.register_with_unit(
            "appended",
            "Bytes appended to logs",
            b.clone(),
            m.appended_bytes.clone(),
        );
        r.register(
            "appended_records",
            "Records appended to logs",
            m.appended_records.clone(),
        );
        r.register_with_unit(
            "sync_duration",
            "Time of syncs, waiting included",
            s,
            m.sync_seconds.clone(),
        );
        r.register("failed_syncs", "Syncs that failed", m.failed_syncs.clone());
        r.register_with_unit(
            "quarantined",
            "Bytes moved to quarantine",
            b,
            m.quarantined_bytes.clone(),
        );
        r.register(
            "damage",
            "Damaged places found in logs, and reads that failed",
            m.damaged_reads.clone(),
        );
        r.register("actor_restarts", "Restarts of actors", m.restarts.clone());
        r.register(
            "unclean_elections",
            "Orders to have replicas lead that may lack acknowledged records",
            m.unclean_elections.clone(),
        );
        r.register(
            "offline_partitions",
            "Partitions that gave up",
            m.offline_partitions.clone(),
        );
        r.register(
            "log_start_offset",
            "First offset of a partition",
            m.log_start.clone(),
        );
        r.register(
            "log_end_offset",
            "Offset after the last record of a partition",
            m.log_end.clone(),
        );
        r.register(
            "group_lag_records",
            "Records that a group has not committed",
            m.lag_records.clone(),
        );
        r.register(
            "group_lag_seconds",
            "Age of the first record that a group has not committed",
            m.lag_seconds.clone(),
        );
        *m.registry.lock() = r;
        m
    }
}

impl Metrics {
    /// Counts a refusal.
    pub fn refuse(&self, reason: &'static str) {
        let _count = self.refused.get_or_create(&ReasonLabels { reason }).inc();
    }

    /// All counters in Prometheus' text format.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a string does not fail.
        let _written = encode(&mut text, &self.registry.lock());
        text
    }
}
