//! Latencies and rates: counted in buckets, shown as a table, percentiles and a plot.

use std::time::Duration;

use callboard_common::{Clock, Monotonic};
use serde_json::json;

use crate::cli::output::{Failure, for_a_person, line, note, table};

/// Buckets per doubling: a figure is at most 1/32 off.
const FINE: u64 = 32;

/// How often each latency came; a bucket for every thirty-second part of a doubling of microseconds.
#[derive(Clone, Debug, Default)]
pub(super) struct Histogram {
    buckets: Vec<u64>,
    count: u64,
    max: Duration,
}

/// Which bucket a latency belongs to.
fn bucket(micros: u64) -> usize {
    let doublings = u64::from(micros.max(1).ilog2());
    if doublings < 5 {
        return micros as usize;
    }
    let part = (micros >> (doublings - 5)) - FINE;
    ((doublings - 4) * FINE + part) as usize
}

/// The smallest latency of a bucket.
fn lowest(bucket: usize) -> u64 {
    let (row, part) = (bucket as u64 / FINE, bucket as u64 % FINE);
    match row {
        0 => part,
        row => (FINE + part) << (row - 1),
    }
}

impl Histogram {
    pub(super) fn note(&mut self, latency: Duration) {
        let at = bucket(u64::try_from(latency.as_micros()).unwrap_or(u64::MAX));
        if self.buckets.len() <= at {
            self.buckets.resize(at + 1, 0);
        }
        self.buckets[at] += 1;
        self.count += 1;
        self.max = self.max.max(latency);
    }

    /// The latency that this share of all did not exceed.
    pub(super) fn percentile(&self, share: f64) -> Duration {
        let wanted = (self.count as f64 * share).ceil() as u64;
        let mut seen = 0;
        for (at, count) in self.buckets.iter().enumerate() {
            seen += count;
            if seen >= wanted.max(1) {
                return Duration::from_micros(lowest(at)).min(self.max);
            }
        }
        self.max
    }

    /// A bar per doubling, with the share of all latencies.
    fn plot(&self) -> Vec<String> {
        let per_doubling: Vec<u64> = self
            .buckets
            .chunks(FINE as usize)
            .map(|c| c.iter().sum())
            .collect();
        let most = per_doubling.iter().copied().max().unwrap_or(0).max(1);
        let first = per_doubling.iter().position(|c| *c > 0).unwrap_or(0);
        let bar = |(row, count): (usize, &u64)| {
            let from = milliseconds(Duration::from_micros(lowest(row * FINE as usize)));
            let eighths = (count * 320 / most) as usize;
            let parts = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
            let bar = format!("{}{}", "█".repeat(eighths / 8), parts[eighths % 8]);
            format!(
                "{from:>10} ms {bar} {:.2} %",
                *count as f64 * 100.0 / self.count.max(1) as f64
            )
        };
        per_doubling
            .iter()
            .enumerate()
            .skip(first)
            .map(bar)
            .collect()
    }
}

fn milliseconds(latency: Duration) -> String {
    format!("{:.3}", latency.as_secs_f64() * 1e3)
}

/// Counts a run and shows a row each second.
pub(super) struct Meter {
    clock: Clock,
    began: Monotonic,
    shown: Monotonic,
    records: u64,
    bytes: u64,
    second: (u64, u64, Histogram),
    all: Histogram,
    quiet: bool,
}

impl Meter {
    pub(super) fn start(quiet: bool) -> Self {
        let clock = Clock::machine();
        let began = clock.now().monotonic;
        if !quiet {
            note(format!(
                "{:>8} {:>12} {:>10} {:>10} {:>10} {:>10}",
                "second", "records/s", "MiB/s", "p50 ms", "p99 ms", "max ms"
            ));
        }
        Self {
            clock,
            began,
            shown: began,
            records: 0,
            bytes: 0,
            second: Default::default(),
            all: Histogram::default(),
            quiet,
        }
    }

    pub(super) fn now(&self) -> Monotonic {
        self.clock.now().monotonic
    }

    /// So many records of so many bytes, after this time.
    pub(super) fn note(&mut self, records: u64, bytes: u64, latency: Option<Duration>) {
        self.records += records;
        self.bytes += bytes;
        self.second.0 += records;
        self.second.1 += bytes;
        if let Some(latency) = latency {
            self.second.2.note(latency);
            self.all.note(latency);
        }
        let now = self.now();
        let passed = now.since(self.shown);
        if passed >= Duration::from_secs(1) {
            let (records, bytes, latencies) = std::mem::take(&mut self.second);
            self.shown = now;
            if !self.quiet {
                let rate = |n: u64| n as f64 / passed.as_secs_f64();
                note(format!(
                    "{:>8} {:>12.0} {:>10.1} {:>10} {:>10} {:>10}",
                    now.since(self.began).as_secs(),
                    rate(records),
                    rate(bytes) / f64::from(1 << 20),
                    milliseconds(latencies.percentile(0.5)),
                    milliseconds(latencies.percentile(0.99)),
                    milliseconds(latencies.max),
                ));
            }
        }
    }

    /// The whole run: a table and a plot for people, one JSON object for programs.
    pub(super) fn finish(self, what: &str, json: bool) -> Result<(), Failure> {
        let took = self.now().since(self.began).as_secs_f64();
        let (rate, mib) = (
            self.records as f64 / took,
            self.bytes as f64 / took / f64::from(1 << 20),
        );
        let shares = [("p50", 0.5), ("p95", 0.95), ("p99", 0.99), ("p999", 0.999)];
        if json {
            let latency: serde_json::Map<_, _> = shares
                .iter()
                .map(|(name, share)| {
                    (
                        (*name).to_owned(),
                        json!(self.all.percentile(*share).as_secs_f64() * 1e3),
                    )
                })
                .collect();
            return line(
                json!({"bench": what, "records": self.records, "seconds": took, "records_per_s": rate,
                "mib_per_s": mib, "latency_ms": latency, "max_ms": self.all.max.as_secs_f64() * 1e3}),
            );
        }
        let mut row = vec![
            what.to_owned(),
            self.records.to_string(),
            format!("{rate:.0}"),
            format!("{mib:.1}"),
        ];
        row.extend(
            shares
                .iter()
                .map(|(_, share)| milliseconds(self.all.percentile(*share))),
        );
        row.push(milliseconds(self.all.max));
        table(
            &[
                "bench",
                "records",
                "records/s",
                "MiB/s",
                "p50 ms",
                "p95 ms",
                "p99 ms",
                "p99.9 ms",
                "max ms",
            ],
            &[row],
        )?;
        if for_a_person() {
            for bar in self.all.plot() {
                line(bar)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_at_most_a_thirty_second_part_off() {
        let mut histogram = Histogram::default();
        (1..=10_000u64).for_each(|micros| histogram.note(Duration::from_micros(micros)));
        for (share, exact) in [(0.5, 5000.0), (0.99, 9900.0), (0.999, 9990.0)] {
            let found = histogram.percentile(share).as_micros() as f64;
            assert!((found / exact - 1.0).abs() < 1.0 / 31.0, "{share}: {found}");
        }
        assert_eq!(
            histogram.percentile(1.0),
            Duration::from_micros(lowest(bucket(10_000)))
        );
        let bars = histogram.plot();
        assert!(
            bars.len() > 8 && bars.last().is_some_and(|b| b.contains('█')),
            "{bars:?}"
        );
    }

    #[test]
    fn buckets_and_their_lowest_agree() {
        for micros in (0..100_000).chain([1 << 30, (1 << 40) + 12345]) {
            let at = bucket(micros);
            assert!(
                lowest(at) <= micros && micros < lowest(at + 1),
                "{micros} {at}"
            );
        }
    }
}
