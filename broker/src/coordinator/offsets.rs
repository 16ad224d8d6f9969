//! Committed offsets of one group; pure.

use std::collections::BTreeMap;

use callboard_common::kafka::Text;
use callboard_common::{LeaderEpoch, Offset, TopicPartition};

/// A committed offset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommittedOffset {
    /// The next record to be read.
    pub offset: Offset,
    /// Leader epoch of the last record that was read.
    pub epoch: Option<LeaderEpoch>,
    /// A note of the client's.
    pub metadata: Text,
    /// When it was committed, in milliseconds since the Unix epoch.
    pub committed_at: i64,
}

/// Offsets by partition.
pub(super) type Offsets = BTreeMap<TopicPartition, CommittedOffset>;
