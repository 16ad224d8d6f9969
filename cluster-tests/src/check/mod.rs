//! Reads a history and says what in it no correct broker can have answered.
//!
//! Every check sorts and sweeps: O(n log n) time and O(n) memory for n sends and received records. A check looks at one
//! kind of anomaly and names it; what two could see is given to one of them, so that a name means one thing.
//!
//! Sources: Jepsen's kafka workload (the names of its anomalies), Elle; the rows are those of `docs/TESTING.md`.

mod groups;
mod liveness;
mod loss;
mod order;
pub mod page;
mod registers;
pub mod replicas;
mod values;
mod versions;
mod watermarks;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::history::{History, Outcome};
use versions::Versions;

/// What can be wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Anomaly {
    /// One offset of a partition held two values.
    InconsistentOffset,
    /// One value is at two offsets, though the producer is idempotent.
    Duplicate,
    /// An acknowledged record is not there.
    LostWrite,
    /// A record was read that was refused for good, or that nobody sent.
    AbortedRead,
    /// A record's bytes are not what was sent.
    WrongBytes,
    /// Within one poll, records go back or leave one out.
    InternalPoll,
    /// From one poll to the next, records go back or leave one out.
    ExternalPoll,
    /// A producer's later record has an earlier offset.
    NonmonotonicSend,
    /// A record that was sent after another was acknowledged stands before it.
    RealTimeOrder,
    /// Something known was answered as 0 or as nothing.
    SpuriousZero,
    /// A group left records out, or began where nobody had committed.
    GroupGap,
    /// A group's offset went back, or a former owner wrote it.
    CommitRegress,
    /// Two members owned a partition and both committed.
    DoubleOwner,
    /// An end of a partition went back.
    WatermarkRegress,
    /// A record that was delivered is gone.
    TruncatedRead,
    /// Metadata was read that is older than it can be.
    StaleMetadata,
    /// Replicas differ below the high watermark.
    ReplicaBytes,
    /// Nothing was acknowledged for too long.
    Stalled,
    /// A node panicked.
    Panicked,
}

impl Anomaly {
    /// Its row in `docs/TESTING.md`.
    #[must_use]
    pub fn row(self) -> &'static str {
        match self {
            Self::InconsistentOffset => "A1",
            Self::Duplicate => "A2",
            Self::LostWrite => "A3",
            Self::AbortedRead => "A4",
            Self::WrongBytes => "A5",
            Self::InternalPoll => "A6",
            Self::ExternalPoll => "A7",
            Self::NonmonotonicSend => "A8",
            Self::RealTimeOrder => "A9",
            Self::SpuriousZero => "A13",
            Self::GroupGap => "A16",
            Self::CommitRegress => "A17",
            Self::DoubleOwner => "A18",
            Self::WatermarkRegress => "A19",
            Self::TruncatedRead => "A20",
            Self::StaleMetadata => "A23",
            Self::ReplicaBytes => "A24",
            Self::Stalled => "A25",
            Self::Panicked => "P0",
        }
    }
}

impl fmt::Display for Anomaly {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {self:?}", self.row())
    }
}

/// So many of one kind are told; the others are counted.
const EXAMPLES_MAX: usize = 10;

/// What was found of one kind.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// How often.
    pub count: usize,
    /// The first of them, in words.
    pub examples: Vec<String>,
}

/// What was found, by kind.
#[derive(Clone, Debug, Default)]
pub struct Findings(BTreeMap<Anomaly, Found>);

impl Findings {
    /// Notes an anomaly.
    pub fn note(&mut self, anomaly: Anomaly, text: impl FnOnce() -> String) {
        let found = self.0.entry(anomaly).or_default();
        found.count += 1;
        if found.examples.len() < EXAMPLES_MAX {
            found.examples.push(text());
        }
    }

    /// Each kind that was found, in the order of the rows.
    pub fn iter(&self) -> impl Iterator<Item = (Anomaly, &Found)> {
        self.0.iter().map(|(a, f)| (*a, f))
    }

    /// Whether nothing was found.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// What is to be said of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Judgement {
    /// Nothing is wrong, and enough happened.
    Passed,
    /// Something is wrong.
    Failed,
    /// Too little happened during the faults to say anything.
    Void,
}

impl Judgement {
    /// In a word.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Failed => "FAILED",
            Self::Void => "void",
        }
    }
}

/// The result of checking a history.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// What is wrong.
    pub findings: Findings,
    /// How many sends were acknowledged.
    pub acknowledged: usize,
    /// How many of them during faults that left a quorum.
    pub acknowledged_in_faults: usize,
    /// How many records were received.
    pub received: usize,
    /// The longest wait of a partition for an acknowledgement while a quorum was there, in ms.
    pub longest_gap_ms: u64,
    /// What follows.
    pub judgement: Judgement,
}

/// Checks a whole history.
///
/// # Panics
///
/// Never: no check does.
#[must_use]
pub fn check(history: &History) -> Verdict {
    check_with(history, Findings::default())
}

/// The same, where something was found already.
///
/// # Panics
///
/// Never: no check does.
#[must_use]
pub fn check_with(history: &History, findings: Findings) -> Verdict {
    let versions = Versions::of(history);
    let mut findings = findings;
    // Two halves that take about as long, side by side.
    let longest_gap_ms = std::thread::scope(|scope| {
        let values = scope.spawn(|| {
            let mut found = Findings::default();
            values::check(history, &versions, &mut found);
            loss::check(history, &versions, &mut found);
            found
        });
        order::check(history, &versions, &mut findings);
        groups::check(history, &versions, &mut findings);
        watermarks::check(history, &mut findings);
        registers::check(history, &mut findings);
        let longest_gap_ms = liveness::check(history, &mut findings);
        findings
            .0
            .extend(values.join().expect("a check panics on nothing").0);
        longest_gap_ms
    });
    verdict(history, findings, longest_gap_ms)
}

fn verdict(history: &History, findings: Findings, longest_gap_ms: u64) -> Verdict {
    let during = |at: u64| {
        let quorate = history.faults.iter().filter(|f| f.leaves_quorum);
        quorate
            .into_iter()
            .any(|f| f.span.invoke <= at && at <= f.span.complete)
    };
    let ok = history.sends.iter().filter(|s| s.outcome == Outcome::Ok);
    let acknowledged_in_faults = ok.filter(|s| during(s.span.complete)).count();
    let quorate = history.faults.iter().any(|f| f.leaves_quorum);
    let min = history.about.acknowledged_min;
    let enough =
        history.acknowledged() as u64 >= min && (!quorate || acknowledged_in_faults as u64 >= min);
    Verdict {
        acknowledged: history.acknowledged(),
        acknowledged_in_faults,
        received: history.received.len(),
        longest_gap_ms,
        judgement: match findings.is_empty() {
            false => Judgement::Failed,
            true if !enough => Judgement::Void,
            true => Judgement::Passed,
        },
        findings,
    }
}
