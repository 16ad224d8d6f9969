//! Looking up offsets by time and by special positions.

use bincode::{Decode, Encode};

use super::TopicRef;
use crate::{ErrorCode, LeaderEpoch, Offset};

/// What to look up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum OffsetTarget {
    /// The first offset.
    Earliest,
    /// The offset after the last that can be read.
    Latest,
    /// The record with the largest timestamp.
    MaxTimestamp,
    /// The first record that is not older than this, in milliseconds since the Unix epoch.
    Timestamp(i64),
    /// Something that only tiered storage has: there is none here.
    Tiered,
}

/// Looks up offsets.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ListOffsets {
    /// Where.
    pub topics: Vec<ListOffsetsTopic>,
}

/// Look-ups in one topic.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ListOffsetsTopic {
    /// The topic.
    pub topic: TopicRef,
    /// Its partitions.
    pub partitions: Vec<ListOffsetsPartition>,
}

/// A look-up in one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ListOffsetsPartition {
    /// The partition.
    pub partition: i32,
    /// The leader epoch that the client knows.
    pub current_epoch: Option<LeaderEpoch>,
    /// What to look up.
    pub target: OffsetTarget,
}

/// Answer to [`ListOffsets`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ListedOffsets {
    /// By topic.
    pub topics: Vec<ListedOffsetsTopic>,
}

/// What was found in one topic.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ListedOffsetsTopic {
    /// The topic.
    pub topic: TopicRef,
    /// By partition.
    pub partitions: Vec<ListedOffset>,
}

/// What was found in one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ListedOffset {
    /// The partition.
    pub partition: i32,
    /// Whether the look-up was possible.
    pub error: ErrorCode,
    /// The offset, if there is one.
    pub offset: Option<Offset>,
    /// The timestamp of the record found, if one was looked for.
    pub timestamp: Option<i64>,
    /// The leader epoch of the record or of the leader.
    pub epoch: Option<LeaderEpoch>,
}

/// Asks where the reigns of earlier leaders ended, so that a reader notices records that were lost (KIP-320).
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct EpochEnds {
    /// By topic.
    pub topics: Vec<(TopicRef, Vec<EpochQuestion>)>,
}

/// Partition, the leader epoch that the client knows, and the epoch it asks for.
pub type EpochQuestion = (i32, Option<LeaderEpoch>, LeaderEpoch);

/// Answer to [`EpochEnds`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct EpochEndsAnswer {
    /// By topic.
    pub topics: Vec<(TopicRef, Vec<EpochEnd>)>,
}

/// Where a reign ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct EpochEnd {
    /// The partition.
    pub partition: i32,
    /// Whether it is known.
    pub error: ErrorCode,
    /// The newest epoch that is not above the one asked for and the offset after its last record; `None` if the
    /// log knows none.
    pub end: Option<(LeaderEpoch, Offset)>,
}
