//! Reading records.

use bincode::{Decode, Encode};

use super::{Attachment, TopicRef};
use crate::kafka::Text;
use crate::{BrokerId, ErrorCode, LeaderEpoch, Offset};

/// Reads batches of some partitions and waits for some if there are none.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Fetch {
    /// How long to wait for `min_bytes`, in milliseconds.
    pub max_wait_ms: i32,
    /// How much is worth an answer before that.
    pub min_bytes: i32,
    /// About how much the answer may hold; a first batch that is larger is returned all the same.
    pub max_bytes: i32,
    /// Where the reader stands; who says it may be sent to a replica in that rack, and may read from one that does not
    /// lead (KIP-392).
    pub rack: Option<Text>,
    /// What to read; partitions are served in this order.
    pub topics: Vec<FetchTopic>,
}

/// What to read of one topic.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct FetchTopic {
    /// The topic.
    pub topic: TopicRef,
    /// Its partitions.
    pub partitions: Vec<FetchPartition>,
}

/// What to read of one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct FetchPartition {
    /// The partition.
    pub partition: i32,
    /// The leader epoch that the client knows.
    pub current_epoch: Option<LeaderEpoch>,
    /// First offset wanted.
    pub offset: i64,
    /// About how much.
    pub max_bytes: i32,
}

/// Answer to [`Fetch`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Fetched {
    /// By topic.
    pub topics: Vec<FetchedTopic>,
}

/// What was read of one topic.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct FetchedTopic {
    /// The topic.
    pub topic: TopicRef,
    /// By partition.
    pub partitions: Vec<FetchedPartition>,
}

/// What was read of one partition.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct FetchedPartition {
    /// The partition.
    pub partition: i32,
    /// Whether it could be read.
    pub error: ErrorCode,
    /// Offset after the last that can be read, if known.
    pub high_watermark: Option<Offset>,
    /// The first offset, if known.
    pub log_start: Option<Offset>,
    /// Who is to be asked instead, in the reader's rack (KIP-392); nothing was read then.
    pub preferred_replica: Option<BrokerId>,
    /// Whole batches from the one that holds the wanted offset on; perhaps none.
    pub records: Attachment,
}
