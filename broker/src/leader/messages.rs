//! What a leader can be asked: one message per thing, each with the oneshot of its answer.

use actix::Message;
use bytes::Bytes;
use callboard_common::record::Batch;
use callboard_common::{LeaderEpoch, Offset};
use tokio::sync::oneshot;

use super::error::{FetchError, ProduceError};
use super::state::{Acks, Appended, Ends};
use crate::supervision::Permit;
use crate::topic_config::TopicConfig;

/// Where an answer goes; a leader that stops drops it.
pub(super) type Reply<T, E> = oneshot::Sender<Result<T, E>>;

/// Appends a batch and answers as `acks` asks for.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Produce {
    /// The batch, parsed and checked.
    pub batch: Batch,
    /// When to answer.
    pub acks: Acks,
    /// The reign that the directory showed when this was sent.
    pub epoch: LeaderEpoch,
    /// The request's credits.
    pub permit: Permit,
    /// The answer; dropped if the leader stops.
    pub reply: Reply<Appended, ProduceError>,
}

/// Reads batches, without waiting for more to come.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Fetch {
    /// First offset wanted.
    pub from: i64,
    /// About how much.
    pub max_bytes: u32,
    /// Whether a larger first batch is returned all the same.
    pub at_least_one: bool,
    /// The leader epoch that the caller knows.
    pub current_epoch: Option<LeaderEpoch>,
    /// The request's credits.
    pub permit: Permit,
    /// The answer; dropped if the leader stops.
    pub reply: Reply<Fetched, FetchError>,
}

/// What a fetch found.
#[derive(Clone, Debug)]
pub struct Fetched {
    /// Whole batches, perhaps none.
    pub batches: Bytes,
    /// The log's ends.
    pub ends: Ends,
}

/// Finds the first record that is not older than a timestamp.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct FindTimestamp {
    /// Milliseconds since the Unix epoch; `None` finds the record with the largest timestamp.
    pub timestamp: Option<i64>,
    /// Offset, timestamp and leader epoch of the record, if there is one.
    pub reply: Reply<Option<Found>, FetchError>,
}

/// A record that was found by its timestamp.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its offset.
    pub offset: Offset,
    /// Its timestamp.
    pub timestamp: i64,
    /// The reign in which it was written.
    pub epoch: Option<LeaderEpoch>,
}

/// Finds where a reign ended (KIP-101).
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct FindEpochEnd {
    /// The leader epoch that the caller knows.
    pub current_epoch: Option<LeaderEpoch>,
    /// The reign.
    pub epoch: LeaderEpoch,
    /// The newest reign that is not above it, and the offset after its last record.
    pub reply: Reply<Option<(LeaderEpoch, Offset)>, FetchError>,
}

/// Deletes the records below an offset.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct DeleteRecords {
    /// The offset; `None` is all that can be read.
    pub before: Option<i64>,
    /// The log's start afterwards, once it is durable.
    pub reply: Reply<Offset, FetchError>,
}

/// The topic's settings changed.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Configure(pub TopicConfig);

/// Syncs, closes the log in order and ends the actor.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Close {
    /// Answered when all is durable; an error says that the next start will have to recover.
    pub reply: Option<Reply<(), String>>,
}

/// Panics on purpose: for tests of supervision.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Crash;
