//! Appending records, and the ids of those who do.

use bincode::{Decode, Encode};

use super::{Attachment, TopicRef};
use crate::kafka::Text;
use crate::{ErrorCode, Offset};

/// When a producer wants its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Acks {
    /// Never.
    None,
    /// When the leader has the records, as their topic asks for: by default synced.
    Leader,
    /// When all in-sync replicas have them.
    All,
}

/// Appends one batch to each of some partitions.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Produce {
    /// When to answer.
    pub acks: Acks,
    /// How long the answer may take, in milliseconds.
    pub timeout_ms: i32,
    /// The transaction the batches belong to.
    pub transactional_id: Option<Text>,
    /// The batches.
    pub topics: Vec<ProduceTopic>,
}

/// The batches for one topic.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ProduceTopic {
    /// The topic.
    pub topic: TopicRef,
    /// One batch per partition.
    pub partitions: Vec<ProducePartition>,
}

/// The batch for one partition.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ProducePartition {
    /// The partition.
    pub partition: i32,
    /// One batch in Kafka's format 2.
    pub records: Attachment,
}

/// Answer to [`Produce`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Produced {
    /// By topic.
    pub topics: Vec<ProducedTopic>,
}

/// What came of the batches for one topic.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ProducedTopic {
    /// The topic.
    pub topic: TopicRef,
    /// By partition.
    pub partitions: Vec<ProducedPartition>,
}

/// What came of one batch.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ProducedPartition {
    /// The partition.
    pub partition: i32,
    /// Whether it was appended.
    pub error: ErrorCode,
    /// More about the error.
    pub message: Option<Text>,
    /// Offset of the batch's first record, if it was appended.
    pub base_offset: Option<Offset>,
    /// The time that the broker stamped, if the topic asks for it.
    pub append_time: Option<i64>,
    /// The partition's first offset.
    pub log_start: Option<Offset>,
}

/// Asks for an idempotent producer's id and epoch.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct InitProducer {
    /// The transaction it will use.
    pub transactional_id: Option<Text>,
    /// The id it has, to get its next epoch.
    pub producer_id: Option<i64>,
    /// The epoch it has.
    pub producer_epoch: i16,
}

/// Answer to [`InitProducer`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct InitedProducer {
    /// Whether there is one.
    pub error: ErrorCode,
    /// The id.
    pub producer_id: i64,
    /// The epoch.
    pub producer_epoch: i16,
}
