//! Why a leader refuses what it is asked.

use callboard_common::record::producers::SequenceError;
use callboard_common::{LeaderEpoch, Offset};

/// Why a produce request was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProduceError {
    /// The batch exceeds `max.message.bytes`; nothing was appended. The caller must split it.
    #[error("batch of {size_bytes} bytes exceeds the limit of {limit_bytes}")]
    BatchTooLarge {
        /// The batch's size.
        size_bytes: usize,
        /// The topic's limit.
        limit_bytes: u32,
    },
    /// A timestamp lies too far from the broker's clock; nothing was appended.
    #[error("timestamp {timestamp} is out of the range that the topic allows")]
    TimestampOutOfRange {
        /// The batch's timestamp.
        timestamp: i64,
    },
    /// The idempotent producer's numbers do not fit; nothing was appended.
    #[error(transparent)]
    Sequence(#[from] SequenceError),
    /// `acks=all` asks for more replicas than there are; nothing was appended. The client retries.
    #[error("{in_sync} replicas in sync, {required} required")]
    NotEnoughReplicas {
        /// Replicas in sync.
        in_sync: u32,
        /// `min.insync.replicas`.
        required: u32,
    },
    /// The disk is full; nothing was appended. The client retries, the operator makes space.
    #[error("the disk is full")]
    DiskFull,
    /// The request was sent to an earlier reign of this leader; nothing was appended. The client retries.
    #[error("the request was for leader epoch {asked}, the leader is in epoch {current}")]
    Fenced {
        /// The epoch that the request was for.
        asked: LeaderEpoch,
        /// The epoch now.
        current: LeaderEpoch,
    },
    /// The leader stopped before answering; the batch may be in the log. The client retries.
    #[error("leader stopped before acknowledging")]
    LeaderStopped,
}

/// Why a fetch, a look-up or a deletion was refused; nothing changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FetchError {
    /// The offset is not in the log.
    #[error("offset {offset} is outside of {log_start}..{high_watermark}")]
    OutOfRange {
        /// What was asked for; it may be negative.
        offset: i64,
        /// First offset that can be read.
        log_start: Offset,
        /// Offset after the last that can be read.
        high_watermark: Offset,
    },
    /// The client knows an older leader epoch: it refreshes its metadata.
    #[error("leader epoch {asked} is older than {current}")]
    Fenced {
        /// The client's epoch.
        asked: LeaderEpoch,
        /// The leader's epoch.
        current: LeaderEpoch,
    },
    /// The client knows a newer leader epoch than this leader: it asks again later.
    #[error("leader epoch {asked} is newer than {current}")]
    UnknownEpoch {
        /// The client's epoch.
        asked: LeaderEpoch,
        /// The leader's epoch.
        current: LeaderEpoch,
    },
    /// The records there cannot be read, though the disk is well: their producer made them so.
    #[error("{0}")]
    Content(String),
    /// The log is damaged there, or the disk failed.
    #[error("the log cannot be read there: {0}")]
    Storage(String),
    /// The leader stopped before answering. The client retries.
    #[error("leader stopped before answering")]
    LeaderStopped,
}
