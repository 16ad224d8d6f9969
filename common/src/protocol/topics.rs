//! Creating, deleting and describing topics.

use bincode::{Decode, Encode};

use super::TopicRef;
use crate::kafka::Text;
use crate::{BrokerId, ErrorCode, LeaderEpoch, Offset, Uuid};

/// Creates topics.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct CreateTopics {
    /// The topics.
    pub topics: Vec<NewTopic>,
    /// How long the answer may take, in milliseconds.
    pub timeout_ms: i32,
    /// Whether to check only.
    pub validate_only: bool,
}

/// A topic to create.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct NewTopic {
    /// Its name; not checked yet.
    pub name: Text,
    /// How many partitions; `None` leaves it to the broker.
    pub partitions: Option<i32>,
    /// How many replicas each; `None` leaves it to the broker.
    pub replication_factor: Option<i16>,
    /// Which brokers hold which partition, instead of the two above.
    pub assignments: Vec<(i32, Vec<i32>)>,
    /// Settings by Kafka's names; `None` is the default.
    pub configs: Vec<(Text, Option<Text>)>,
}

impl NewTopic {
    /// A topic of which the broker decides everything but the name.
    #[must_use]
    pub fn named(name: impl Into<Text>) -> Self {
        Self {
            name: name.into(),
            partitions: None,
            replication_factor: None,
            assignments: Vec::new(),
            configs: Vec::new(),
        }
    }
}

/// Answer to [`CreateTopics`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct CreatedTopics {
    /// By topic.
    pub topics: Vec<CreatedTopic>,
}

/// What came of one topic.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct CreatedTopic {
    /// Its name.
    pub name: Text,
    /// Its identifier, or zero.
    pub id: Uuid,
    /// Whether it was created, or could be.
    pub error: ErrorCode,
    /// More about the error.
    pub message: Option<Text>,
    /// How many partitions it has.
    pub partitions: i32,
    /// How many replicas they have.
    pub replication_factor: i16,
    /// All its settings: name, value, whether it is the default.
    pub configs: Vec<(Text, Text, bool)>,
}

/// Deletes topics with all their records.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct DeleteTopics {
    /// The topics.
    pub topics: Vec<TopicRef>,
    /// How long the answer may take, in milliseconds.
    pub timeout_ms: i32,
}

/// Answer to [`DeleteTopics`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct DeletedTopics {
    /// By topic.
    pub topics: Vec<DeletedTopic>,
}

/// What came of one topic.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct DeletedTopic {
    /// Its name, if known.
    pub name: Option<Text>,
    /// Its identifier, or zero.
    pub id: Uuid,
    /// Whether it was deleted.
    pub error: ErrorCode,
}

/// Deletes the oldest records of partitions.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct DeleteRecords {
    /// Topic, partition and the offset below which records go; `None` is all that can be read.
    pub partitions: Vec<(TopicRef, i32, Option<i64>)>,
}

/// Answer to [`DeleteRecords`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct DeletedRecords {
    /// By partition: whether it was done, and the first offset afterwards.
    pub partitions: Vec<(ErrorCode, Option<Offset>)>,
}

/// Asks for topics as an operator sees them.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct DescribeTopics {
    /// The topics wanted; `None` is all.
    pub topics: Option<Vec<TopicRef>>,
}

/// Answer to [`DescribeTopics`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct DescribedTopics {
    /// By topic; all by name if all were asked for.
    pub topics: Vec<TopicDescription>,
}

/// One topic.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct TopicDescription {
    /// Whether there is such a topic.
    pub error: ErrorCode,
    /// Its name, if known.
    pub name: Option<Text>,
    /// Its identifier, or zero.
    pub id: Uuid,
    /// Whether the broker owns it.
    pub is_internal: bool,
    /// All its settings: name, value, whether it is the default.
    pub configs: Vec<(Text, Text, bool)>,
    /// Its partitions by number.
    pub partitions: Vec<PartitionDescription>,
}

/// One partition.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct PartitionDescription {
    /// Who leads it.
    pub leader: Option<BrokerId>,
    /// Who keeps it, the preferred leader first.
    pub replicas: Vec<BrokerId>,
    /// Who of them has all that is committed.
    pub isr: Vec<BrokerId>,
    /// The leader's reign and the partition's ends; `None` if the node that was asked does not lead it.
    pub ends: Option<PartitionEnds>,
}

/// What a partition's leader knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct PartitionEnds {
    /// The leader's reign.
    pub epoch: LeaderEpoch,
    /// First offset.
    pub log_start: Offset,
    /// Offset after the last that can be read.
    pub high_watermark: Offset,
}

/// Adds partitions to topics.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct CreatePartitions {
    /// Topic, how many partitions it has then, and which brokers hold the new ones.
    pub topics: Vec<(Text, i32, Option<Assignments>)>,
    /// How long the answer may take, in milliseconds.
    pub timeout_ms: i32,
    /// Whether to check only.
    pub validate_only: bool,
}

/// The brokers of each new partition.
pub type Assignments = Vec<Vec<i32>>;

/// Answer to [`CreatePartitions`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct CreatedPartitions {
    /// By topic, with more about the error.
    pub topics: Vec<(Text, ErrorCode, Option<Text>)>,
}
