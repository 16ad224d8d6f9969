//! What nodes keep in bytes, and which replicas change places to even it out; pure.
//!
//! Leaders tell how large their logs are; a replica is taken to be as large as its leader. As long as the size of one partition
//! is not known nothing is moved for its bytes. Two replicas change places, or one moves alone where the number of
//! partitions stays even, so this and the spread by number do not undo each other.
//!
//! Source: Cruise Control's `DiskUsageDistributionGoal`, between two nodes at a time.

use std::collections::BTreeMap;

use callboard_common::{BrokerId, Uuid};

use super::image::MetadataImage;
use super::partition::PartitionImage;
use super::placement::Loads;
use crate::peer::protocol::LogSizes;

/// A part of what nodes keep on average by which they may differ.
const TOLERATED_PART: u64 = 5;
/// What is left of a gap counts in steps of this part of it.
const CLOSE_ENOUGH: u64 = 8;
/// So many of the fullest nodes are compared with as many of the emptiest.
const ENDS: usize = 4;

type Key = (Uuid, i32);

/// One replica goes from one node to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shift {
    pub(super) key: Key,
    pub(super) from: BrokerId,
    pub(super) to: BrokerId,
}

/// How large logs are, as their leaders told.
#[derive(Debug, Default)]
pub(super) struct LogBytes(BTreeMap<Key, u64>);

/// A partition that may change its node, and its size.
struct Movable {
    key: Key,
    bytes: u64,
}

impl LogBytes {
    pub(super) fn note(&mut self, told: LogSizes) {
        let told = told.logs.into_iter();
        self.0.extend(told.map(|(id, n, bytes)| ((id, n), bytes)));
    }

    pub(super) fn forget(&mut self) {
        self.0.clear();
    }

    /// Drops what is said of partitions that are gone.
    pub(super) fn prune(&mut self, image: &MetadataImage) {
        let is_there = |(id, number): &Key| {
            let topic = image.topic_by_id(id);
            topic.is_some_and(|(_, t)| t.partition(*number).is_some())
        };
        self.0.retain(|key, _| is_there(key));
    }

    /// All partitions with their sizes; `None` if one is not known.
    fn sized<'a>(&self, image: &'a MetadataImage) -> Option<Vec<(Key, &'a PartitionImage, u64)>> {
        let topics = image.topics.values();
        let all = topics.flat_map(|t| t.numbered().map(|(n, p)| ((t.id, n), p)));
        let sized = all.map(|(key, p)| Some((key, p, *self.0.get(&key)?)));
        sized.collect()
    }

    /// What changes places next, if nodes differ by more than `tolerated` bytes and by more than a part of what they keep.
    pub(super) fn shifts(
        &self,
        image: &MetadataImage,
        loads: &Loads<'_>,
        tolerated: u64,
    ) -> Vec<Shift> {
        let Some(sized) = self.sized(image) else {
            return Vec::new();
        };
        let mut kept: BTreeMap<BrokerId, u64> = loads.brokers().map(|b| (b, 0)).collect();
        for (_, partition, bytes) in &sized {
            for broker in partition.goal() {
                if let Some(kept) = kept.get_mut(broker) {
                    *kept = kept.saturating_add(*bytes);
                }
            }
        }
        let total: u64 = kept.values().fold(0, |sum, k| sum.saturating_add(*k));
        let average = total / (kept.len() as u64).max(1);
        let tolerated = tolerated.max(average / TOLERATED_PART);
        let mut order: Vec<(u64, BrokerId)> = kept.iter().map(|(b, k)| (*k, *b)).collect();
        order.sort();
        // Those that differ most first.
        for (much, from) in order.iter().rev().take(ENDS) {
            for (little, to) in order.iter().take(ENDS) {
                let gap = much.saturating_sub(*little);
                if gap <= tolerated {
                    break;
                }
                let shifts = between(&sized, loads, (*from, *to), gap);
                if !shifts.is_empty() {
                    return shifts;
                }
            }
        }
        Vec::new()
    }
}

/// What brings two nodes closest together that differ by `gap`, if it takes away a quarter of that.
fn between(
    sized: &[(Key, &PartitionImage, u64)],
    loads: &Loads<'_>,
    (from, to): (BrokerId, BrokerId),
    gap: u64,
) -> Vec<Shift> {
    let movable = |from, to| {
        let may = move |p: &PartitionImage| {
            let goal = p.goal();
            let here = goal.contains(&from) && !goal.contains(&to);
            here && p.target.is_none() && loads.keeps_racks(goal, from, to)
        };
        let of = sized.iter().filter(move |(_, p, _)| may(p));
        of.map(|(key, _, bytes)| Movable {
            key: *key,
            bytes: *bytes,
        })
    };
    let mut back: Vec<Movable> = movable(to, from).collect();
    back.sort_by_key(|m| (m.bytes, m.key));
    let may_go_alone = loads.keeps(from) > loads.keeps(to);
    let mut best: Option<(u64, u64, u64, Key, Option<Key>)> = None;
    for forth in movable(from, to) {
        // What would come back so that half of the gap goes.
        let wanted = forth.bytes.saturating_sub(gap / 2);
        let at = back.partition_point(|m| m.bytes < wanted);
        let near = back[at.saturating_sub(1)..].iter().take(2);
        let swaps = near.map(|m| (Some(m.key), m.bytes));
        let alone = may_go_alone.then_some((None, 0));
        for (key, bytes) in swaps.chain(alone) {
            let Some(shifted) = forth.bytes.checked_sub(bytes) else {
                continue;
            };
            let left = gap.abs_diff(shifted.saturating_mul(2));
            // Of those that come about as close, the one that copies least.
            let close = left / (gap / CLOSE_ENOUGH).max(1);
            let copied = forth.bytes.saturating_add(bytes);
            let candidate = (close, copied, left, forth.key, key);
            if best.is_none_or(|best| candidate < best) {
                best = Some(candidate);
            }
        }
    }
    let Some((.., forth, back)) = best.filter(|(_, _, left, ..)| *left <= gap / 4 * 3) else {
        return Vec::new();
    };
    let forth = Shift {
        key: forth,
        from,
        to,
    };
    let back = back.map(|key| Shift {
        key,
        from: to,
        to: from,
    });
    [forth].into_iter().chain(back).collect()
}

#[cfg(test)]
#[path = "log_bytes_tests.rs"]
mod tests;
