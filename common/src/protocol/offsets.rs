//! Offsets that groups commit.

use bincode::{Decode, Encode};

use super::TopicRef;
use crate::kafka::Text;
use crate::{ErrorCode, LeaderEpoch, Offset};

/// Commits offsets of a group.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct CommitOffsets {
    /// The group.
    pub group: Text,
    /// The generation, or -1 without membership.
    pub generation: i32,
    /// The member, or empty without membership.
    pub member: Text,
    /// The id of a static member.
    pub instance: Option<Text>,
    /// The offsets.
    pub topics: Vec<CommitTopic>,
}

/// Offsets of one topic.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct CommitTopic {
    /// The topic.
    pub topic: TopicRef,
    /// Its partitions.
    pub partitions: Vec<CommitPartition>,
}

/// The offset of one partition.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct CommitPartition {
    /// The partition.
    pub partition: i32,
    /// The next record to be read.
    pub offset: i64,
    /// Leader epoch of the last record that was read.
    pub epoch: Option<LeaderEpoch>,
    /// A note of the client's.
    pub metadata: Text,
}

/// Answer to [`CommitOffsets`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct CommittedOffsets {
    /// By topic: its partitions with their errors.
    pub topics: Vec<(TopicRef, Vec<(i32, ErrorCode)>)>,
}

/// Asks for the offsets that groups have committed.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct FetchOffsets {
    /// The groups.
    pub groups: Vec<FetchGroupOffsets>,
    /// Whether topics that were not named are answered by id.
    pub by_id: bool,
}

/// Asks for the offsets of one group.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct FetchGroupOffsets {
    /// The group.
    pub group: Text,
    /// The partitions wanted; `None` is all that have an offset.
    pub topics: Option<Vec<(TopicRef, Vec<i32>)>>,
}

/// Answer to [`FetchOffsets`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct FetchedOffsets {
    /// By group.
    pub groups: Vec<FetchedGroupOffsets>,
}

/// The offsets of one group.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct FetchedGroupOffsets {
    /// The group.
    pub group: Text,
    /// Whether its coordinator answered.
    pub error: ErrorCode,
    /// By topic.
    pub topics: Vec<(TopicRef, Vec<FetchedOffset>)>,
}

/// The offset of one partition.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct FetchedOffset {
    /// The partition.
    pub partition: i32,
    /// Whether it is known.
    pub error: ErrorCode,
    /// The offset; `None` if none was committed. Unknown is never answered as zero.
    pub offset: Option<Offset>,
    /// Leader epoch of the last record that was read.
    pub epoch: Option<LeaderEpoch>,
    /// The client's note.
    pub metadata: Text,
}

/// Forgets offsets of a group.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct DeleteOffsets {
    /// The group.
    pub group: Text,
    /// The partitions by topic.
    pub topics: Vec<(TopicRef, Vec<i32>)>,
}

/// Answer to [`DeleteOffsets`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct DeletedOffsets {
    /// Whether the group could be asked.
    pub error: ErrorCode,
    /// By topic: its partitions with their errors.
    pub topics: Vec<(TopicRef, Vec<(i32, ErrorCode)>)>,
}
