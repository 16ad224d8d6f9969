//! What clients asked of a cluster and what they were told, in columns: the checkers sort and sweep them.
//!
//! The file has a line per operation (see [`mod@line`]); any client may write one. A send whose outcome is not known is
//! [`Outcome::Info`]: `Fail` is only for an answer that proves that nothing was done.

pub mod generate;
pub mod line;
pub mod recorder;

use std::collections::BTreeMap;
use std::ops::Range;

use serde::{Deserialize, Serialize};

/// Nanoseconds since the run began, by one monotonic clock for all clients.
pub type Nanos = u64;

/// What is known of an operation's effect.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It was done.
    #[default]
    Ok,
    /// It may have been done, or be done later.
    Info,
    /// It was not done and will not be.
    Fail,
}

/// Texts that stand in columns as numbers.
#[derive(Clone, Debug, Default)]
pub struct Names {
    numbers: BTreeMap<String, u32>,
    texts: Vec<String>,
}

impl Names {
    /// The number of a text.
    pub fn number(&mut self, text: &str) -> u32 {
        if let Some(number) = self.numbers.get(text) {
            return *number;
        }
        let number = self.texts.len() as u32;
        let _none = self.numbers.insert(text.to_owned(), number);
        self.texts.push(text.to_owned());
        number
    }

    /// The text of a number.
    ///
    /// # Panics
    ///
    /// Panics if no text has it.
    #[must_use]
    pub fn text(&self, number: u32) -> &str {
        &self.texts[number as usize]
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.texts.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.texts.is_empty()
    }
}

/// When an operation was asked for and when it was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span {
    /// When it was asked for.
    pub invoke: Nanos,
    /// When the answer was there.
    pub complete: Nanos,
}

impl Span {
    /// Whether this was over before the other began.
    #[must_use]
    pub fn is_before(self, other: Self) -> bool {
        self.complete < other.invoke
    }
}

/// A record that was produced.
#[derive(Clone, Copy, Debug)]
pub struct Send {
    /// Its partition.
    pub key: u32,
    /// Who sent it.
    pub process: u32,
    /// What it says: no other record of the history says the same.
    pub value: u64,
    /// The offset that was answered, -1 if none was.
    pub offset: i64,
    /// When.
    pub span: Span,
    /// What is known of it.
    pub outcome: Outcome,
}

/// A record that was received: its offset, and its value unless its bytes were wrong.
#[derive(Clone, Copy, Debug)]
pub struct Received {
    /// Its offset.
    pub offset: i64,
    /// Its value; [`WRONG_BYTES`] if they are not what any client writes.
    pub value: u64,
}

/// The value of a record whose checksum or length is wrong.
pub const WRONG_BYTES: u64 = u64::MAX;

/// Records of one partition that one call returned.
#[derive(Clone, Debug)]
pub struct Poll {
    /// Their partition.
    pub key: u32,
    /// Who received them.
    pub process: u32,
    /// The group that they were received for.
    pub group: Option<u32>,
    /// When.
    pub span: Span,
    /// Where they are in [`History::received`].
    pub records: Range<usize>,
    /// Its place in the file.
    pub line: usize,
}

/// All of a partition, read when everything was over.
#[derive(Clone, Debug)]
pub struct Drain {
    /// The partition.
    pub key: u32,
    /// The log start offset.
    pub start: i64,
    /// The high watermark.
    pub end: i64,
    /// What was read, in [`History::received`].
    pub records: Range<usize>,
}

/// A member of a group began to own a partition.
#[derive(Clone, Copy, Debug)]
pub struct Assign {
    /// The partition.
    pub key: u32,
    /// The member.
    pub process: u32,
    /// Its group; none if it chose the partition itself.
    pub group: Option<u32>,
    /// The group's generation, or the member's epoch.
    pub epoch: i32,
    /// Where it begins to read; -1 if it does not know.
    pub offset: i64,
    /// When.
    pub span: Span,
    /// Its place in the file.
    pub line: usize,
}

/// A member ceased to own a partition.
#[derive(Clone, Copy, Debug)]
pub struct Revoke {
    /// The partition.
    pub key: u32,
    /// The member.
    pub process: u32,
    /// Its group.
    pub group: u32,
    /// When.
    pub span: Span,
}

/// A group's offset was written.
#[derive(Clone, Copy, Debug)]
pub struct Commit {
    /// The partition.
    pub key: u32,
    /// Who wrote it.
    pub process: u32,
    /// The group.
    pub group: u32,
    /// The generation, or the member's epoch, that it was written under.
    pub epoch: i32,
    /// The next offset to read.
    pub offset: i64,
    /// When.
    pub span: Span,
    /// What is known of it.
    pub outcome: Outcome,
    /// Whether somebody moved the group on purpose.
    pub reset: bool,
}

/// A group's offset was read.
#[derive(Clone, Copy, Debug)]
pub struct Committed {
    /// The partition.
    pub key: u32,
    /// The group.
    pub group: u32,
    /// What was answered; -1 for none.
    pub offset: i64,
    /// When.
    pub span: Span,
}

/// What a client was told of a partition's ends; -1 where it was not told.
#[derive(Clone, Copy, Debug)]
pub struct Watermarks {
    /// The partition.
    pub key: u32,
    /// Who was told.
    pub process: u32,
    /// The log start offset.
    pub start: i64,
    /// The high watermark.
    pub high: i64,
    /// The last stable offset.
    pub stable: i64,
    /// When.
    pub span: Span,
}

/// Metadata with one writer at a time (a topic, a setting, a rule) was written.
#[derive(Clone, Copy, Debug)]
pub struct Write {
    /// Its name.
    pub key: u32,
    /// What it was set to; no other write of it has the same.
    pub value: u64,
    /// When.
    pub span: Span,
    /// What is known of it.
    pub outcome: Outcome,
}

/// Metadata was read.
#[derive(Clone, Copy, Debug)]
pub struct Read {
    /// Its name.
    pub key: u32,
    /// Who read it.
    pub process: u32,
    /// Who answered.
    pub broker: i32,
    /// What it was, nothing if it was not there and had never been written.
    pub value: Option<u64>,
    /// When.
    pub span: Span,
    /// Whether this is after everything, so that it must be the newest.
    pub last: bool,
}

/// Something that was done to the cluster.
#[derive(Clone, Debug)]
pub struct Fault {
    /// Its row, such as `K1`.
    pub row: String,
    /// What exactly.
    pub what: String,
    /// From when until it was healed.
    pub span: Span,
    /// Whether it leaves a quorum, so that acknowledgements go on.
    pub leaves_quorum: bool,
}

/// What a run promises: the first line of the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct About {
    /// `callboard-history`.
    pub format: String,
    /// The version of the format.
    pub version: u32,
    /// The workload's row.
    #[serde(default)]
    pub workload: String,
    /// The seed that chose the faults.
    #[serde(default)]
    pub seed: u64,
    /// The commit that was tested.
    #[serde(default)]
    pub commit: String,
    /// Producers are idempotent: a value is there once.
    #[serde(default = "yes")]
    pub idempotent: bool,
    /// Acknowledged means safe (`acks=all` with enough in sync): nothing may be lost.
    #[serde(default = "yes")]
    pub durable: bool,
    /// How long a partition may go without an acknowledgement while one is waited for and a quorum is there, ms; 0: not judged.
    #[serde(default)]
    pub gap_max_ms: u64,
    /// How many acknowledgements there must be during faults that leave a quorum, or the run says nothing.
    #[serde(default)]
    pub acknowledged_min: u64,
}

fn yes() -> bool {
    true
}

/// The name of the format.
pub const FORMAT: &str = "callboard-history";
/// Its version.
pub const VERSION: u32 = 1;

impl Default for About {
    fn default() -> Self {
        Self {
            format: FORMAT.to_owned(),
            version: VERSION,
            workload: String::new(),
            seed: 0,
            commit: String::new(),
            idempotent: true,
            durable: true,
            gap_max_ms: 0,
            acknowledged_min: 0,
        }
    }
}

/// A whole history.
#[derive(Clone, Debug, Default)]
#[expect(missing_docs, reason = "each column says what it holds by its type")]
pub struct History {
    pub about: About,
    /// Partitions, and names of metadata.
    pub keys: Names,
    pub groups: Names,
    pub sends: Vec<Send>,
    pub received: Vec<Received>,
    pub polls: Vec<Poll>,
    pub drains: Vec<Drain>,
    pub assigns: Vec<Assign>,
    pub revokes: Vec<Revoke>,
    pub commits: Vec<Commit>,
    pub committed: Vec<Committed>,
    pub watermarks: Vec<Watermarks>,
    pub writes: Vec<Write>,
    pub reads: Vec<Read>,
    pub faults: Vec<Fault>,
}

impl History {
    /// Every record that was received, by polls and drains, with its partition.
    pub fn records(&self) -> impl Iterator<Item = (u32, Received)> + '_ {
        let polled = self.polls.iter().map(|p| (p.key, p.records.clone()));
        let drained = self.drains.iter().map(|d| (d.key, d.records.clone()));
        polled
            .chain(drained)
            .flat_map(|(key, range)| self.received[range].iter().map(move |r| (key, *r)))
    }

    /// How many sends were acknowledged.
    #[must_use]
    pub fn acknowledged(&self) -> usize {
        let ok = |s: &&Send| s.outcome == Outcome::Ok;
        self.sends.iter().filter(ok).count()
    }
}
