//! What a leader can be asked: one message per thing, each with the oneshot of its answer.

use std::collections::BTreeMap;

use actix::Message;
use bytes::Bytes;
use callboard_common::record::Batch;
use callboard_common::{BrokerId, LeaderEpoch, Offset};
use tokio::sync::oneshot;

use super::ends::Ends;
use super::error::{FetchError, ProduceError};
use super::state::{Acks, Appended};
use crate::controller::PartitionImage;
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

/// A follower says how far it is and asks for what follows.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Replicate {
    /// Who follows.
    pub replica: BrokerId,
    /// Its incarnation.
    pub broker_epoch: i64,
    /// The reign that it follows.
    pub epoch: LeaderEpoch,
    /// The end of its log.
    pub end: Offset,
    /// How much of it is durable.
    pub synced: Offset,
    /// The reign of its last record; `None` if it has none.
    pub last_epoch: Option<LeaderEpoch>,
    /// About how much to send.
    pub max_bytes: u32,
    /// The answer; dropped if the leader stops.
    pub reply: oneshot::Sender<Replicated>,
}

/// What a leader has for a follower.
#[derive(Debug)]
pub enum Replicated {
    /// These records follow, once they are read.
    Records(oneshot::Receiver<Result<Fetched, FetchError>>),
    /// There is nothing more yet.
    Nothing(Ends),
    /// The logs differ: the largest epoch of the leader that is not above the follower's, and where it ended.
    Diverged(LeaderEpoch, Offset),
    /// The follower's end lies below the leader's first record; with the producers as of there, as a snapshot has them.
    TooOld(Offset, Bytes),
    /// The reign is another one.
    Fenced(LeaderEpoch),
}

/// The partition's replicas changed, or who of them is alive.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct UpdateReplicas {
    /// The partition by now.
    pub partition: PartitionImage,
    /// Incarnations of the nodes that are alive.
    pub alive: BTreeMap<BrokerId, i64>,
}

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
