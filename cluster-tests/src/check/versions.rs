//! What stood at which offset, as far as anybody was told, and what is there in the end.

use crate::history::{History, Outcome, WRONG_BYTES};

/// A record somebody knows of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Version {
    pub key: u32,
    pub offset: i64,
    pub value: u64,
}

/// The end of a partition's story.
#[derive(Clone, Copy, Debug)]
pub(crate) struct End {
    /// What stood before was removed on purpose.
    pub start: i64,
    pub high: i64,
}

#[derive(Debug)]
pub(crate) struct Versions {
    /// Distinct, by partition, offset and value.
    pub known: Vec<Version>,
    /// Partition and offset of each, distinct.
    offsets: Vec<(u32, i64)>,
    /// What the final reading found, sorted.
    pub drained: Vec<Version>,
    /// By partition; nothing where there was no final reading.
    pub ends: Vec<Option<End>>,
}

impl Versions {
    pub(crate) fn of(history: &History) -> Self {
        let told = history
            .sends
            .iter()
            .filter(|s| s.outcome != Outcome::Fail && s.offset >= 0);
        let told = told.map(|s| Version {
            key: s.key,
            offset: s.offset,
            value: s.value,
        });
        let read = history.records().filter(|(_, r)| r.value != WRONG_BYTES);
        let read = read.map(|(key, r)| Version {
            key,
            offset: r.offset,
            value: r.value,
        });
        let mut known: Vec<Version> = told.chain(read).collect();
        known.sort_unstable();
        known.dedup();
        let mut offsets: Vec<(u32, i64)> = known.iter().map(|v| (v.key, v.offset)).collect();
        offsets.dedup();
        let mut ends = vec![None; history.keys.len()];
        let mut drained = Vec::new();
        for drain in &history.drains {
            let end: &mut Option<End> = &mut ends[drain.key as usize];
            let (start, high) = end.map_or((drain.start, drain.end), |e| {
                (e.start.min(drain.start), e.high.max(drain.end))
            });
            *end = Some(End { start, high });
            let version = |r: &crate::history::Received| Version {
                key: drain.key,
                offset: r.offset,
                value: r.value,
            };
            drained.extend(history.received[drain.records.clone()].iter().map(version));
        }
        drained.sort_unstable();
        Self {
            known,
            offsets,
            drained,
            ends,
        }
    }

    /// The place of an offset among those of its partition that hold a record.
    pub(crate) fn rank(&self, key: u32, offset: i64) -> usize {
        self.offsets.partition_point(|o| *o < (key, offset))
    }

    /// The offset with this place, if it is one of that partition.
    pub(crate) fn at(&self, key: u32, rank: usize) -> Option<i64> {
        let found = self.offsets.get(rank);
        found.filter(|(k, _)| *k == key).map(|(_, offset)| *offset)
    }

    /// Where the log begins in the end; what was below may have been removed on purpose.
    pub(crate) fn start(&self, key: u32) -> i64 {
        self.ends[key as usize].map_or(0, |end| end.start)
    }

    /// The drained records of a partition.
    pub(crate) fn drained_of(&self, key: u32) -> &[Version] {
        let from = self.drained.partition_point(|v| v.key < key);
        let to = self.drained.partition_point(|v| v.key <= key);
        &self.drained[from..to]
    }
}
