//! What can happen in a simulation.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use callboard_broker::controller::raft_wire::RaftMessage;
use callboard_broker::controller::{Member, MetadataImage, Outcome, Proposal, Refusal};
use callboard_broker::coordinator::{Answer, Question};
use callboard_broker::leader::ProduceError;
use callboard_broker::peer::protocol::{Part, PartitionPosition};
use callboard_common::record::Batch;
use callboard_common::{BrokerId, ErrorCode, LeaderEpoch, Offset, TopicPartition, Uuid};

use super::plan::Fault;

/// Where a message comes from or goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// A node, by its index.
    Node(usize),
    /// A client.
    Client(usize),
}

/// A lane of replication.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lane {
    /// Whose partitions follow.
    pub follower: usize,
    /// Whose lead.
    pub leader: usize,
    /// Counts the lanes between the two.
    pub number: u64,
}

/// What places say to each other.
#[derive(Clone, Debug)]
pub enum Message {
    /// Of the quorum.
    Raft(Member, Box<RaftMessage>),
    /// Do this if you lead the quorum, or ask who does.
    Propose {
        /// Names the question.
        id: u64,
        /// What.
        proposal: Proposal,
        /// Whether to ask who leads.
        relay: bool,
    },
    /// What a proposal came to.
    Proposed {
        /// The question.
        id: u64,
        /// The entry that says so.
        index: u64,
        /// What it says.
        result: Result<Outcome, Refusal>,
    },
    /// How far a follower is.
    Position(TopicPartition, PartitionPosition),
    /// What a leader has for it.
    Part(TopicPartition, Box<Part>),
    /// A client wants a batch appended.
    Produce {
        /// Names the question.
        id: u64,
        /// Where.
        partition: TopicPartition,
        /// The topic, as the client knows it.
        topic_id: Uuid,
        /// What.
        batch: Batch,
    },
    /// What became of it.
    Produced {
        /// The question.
        id: u64,
        /// The reign of who answers, if it leads: it need not be the one that the client knows.
        reign: Option<LeaderEpoch>,
        /// The first record's offset.
        result: Result<Offset, NotProduced>,
    },
    /// A client wants what follows an offset.
    Fetch {
        /// Names the question.
        id: u64,
        /// Of which partition.
        partition: TopicPartition,
        /// The topic, as the client knows it.
        topic_id: Uuid,
        /// From where.
        from: i64,
        /// The reign that the client knows.
        epoch: LeaderEpoch,
    },
    /// What was read.
    Fetched {
        /// The question.
        id: u64,
        /// Batches, the reign, the log's start and its high watermark.
        result: Result<(Bytes, i64, i64), NotFetched>,
    },
    /// A client wants to know where a reign ended.
    ReignEnd {
        /// Names the question.
        id: u64,
        /// Of which partition.
        partition: TopicPartition,
        /// The topic, as the client knows it.
        topic_id: Uuid,
        /// The reign that it takes for the newest.
        current: LeaderEpoch,
        /// The reign of what it has read last.
        asked: LeaderEpoch,
    },
    /// Where it did.
    ReignEnded {
        /// The question.
        id: u64,
        /// The reign, and the offset after its last record.
        result: Result<Option<(LeaderEpoch, Offset)>, NotFetched>,
    },
    /// A client asks the coordinator of its group.
    Ask {
        /// Names the question.
        id: u64,
        /// The topic of the offsets, as the client knows it.
        topic_id: Uuid,
        /// What.
        question: Box<Question>,
    },
    /// What it answers.
    Answered {
        /// The question.
        id: u64,
        /// The answer, or why there is none.
        answer: Result<Answer, ErrorCode>,
    },
    /// A client wants to know who leads.
    Metadata,
    /// Who leads.
    Described(Arc<MetadataImage>),
}

/// Why nothing was appended, or nothing is known of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotProduced {
    /// Somebody else leads.
    NotLeader,
    /// The leader refuses.
    Refused(ProduceError),
}

/// Why nothing was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotFetched {
    /// Somebody else leads, or the leader is in another reign.
    NotLeader,
    /// The offset is not in the log, which begins and is committed here.
    OutOfRange(i64, i64),
    /// The log cannot be read there.
    Damaged,
}

/// What happens to one partition's actor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OfPartition {
    /// A sync has ended.
    Synced,
    /// Something that ran beside it has ended.
    Background,
    /// Its core's deadline has come.
    Deadline,
    /// It is time to try again.
    Retry,
    /// What a full disk kept is removed again.
    RemoveAgain,
    /// It starts again.
    Restart,
    /// It tells others again that its log is damaged.
    Lose,
    /// Its coordinator's deadline has come.
    Groups,
    /// The follower of this node may be fed again, or told the high watermark.
    Feed(usize),
}

/// What happens to one node.
#[derive(Clone, Debug)]
pub enum OfNode {
    /// Raft's clock.
    Tick,
    /// A write of the metadata log has ended.
    Written,
    /// It comes into its cluster, or tries again.
    Come,
    /// A question to another node was not answered for long.
    Unanswered(u64),
    /// The process of another node has ended.
    Died(BrokerId),
    /// The directory of a partition could not be used: it is tried again.
    Prepare(TopicPartition),
    /// The controller starts again.
    RestartController,
    /// It writes its checkpoints.
    Checkpoint,
    /// To a partition, in the life of its actor that counts so.
    Partition(TopicPartition, u64, OfPartition),
}

/// What happens to a client.
#[derive(Clone, Copy, Debug)]
pub enum OfClient {
    /// It has something to do.
    Act,
    /// It sends again what was not answered.
    Retry,
    /// A question was not answered for long.
    Unanswered(u64),
    /// The process of a node has ended: its connections are reset.
    Died(usize),
}

/// What happens.
#[derive(Clone, Debug)]
pub enum Event {
    /// A message arrives.
    Deliver(Place, Place, Message),
    /// A message arrives on a lane.
    OnLane(Lane, Place, Message),
    /// A lane is noticed to be broken.
    LaneBroken(Lane),
    /// A follower's node tries to open a lane to a leader's.
    OpenLane(usize, usize),
    /// To a node, in the life that counts so.
    Node(usize, u64, OfNode),
    /// To a client.
    Client(usize, OfClient),
    /// Something goes wrong.
    Fault(Fault),
    /// It ends.
    FaultEnds(Fault),
    /// A node that is down starts.
    Start(usize),
    /// Everything is healed.
    Heal,
}

impl Event {
    /// A number for its kind.
    #[must_use]
    pub fn kind(&self) -> u64 {
        match self {
            Self::Deliver(..) => 1,
            Self::OnLane(..) => 2,
            Self::LaneBroken(_) => 3,
            Self::OpenLane(..) => 4,
            Self::Node(..) => 5,
            Self::Client(..) => 6,
            Self::Fault(_) => 7,
            Self::FaultEnds(_) => 8,
            Self::Start(_) => 9,
            Self::Heal => 10,
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node(node) => write!(f, "node {}", node + 1),
            Self::Client(client) => write!(f, "client {}", client + 1),
        }
    }
}

impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Raft(_, m) => write!(
                f,
                "raft kind {} term {} index {} entries {} commit {} reject {}",
                m.kind,
                m.term,
                m.index,
                m.entries.len(),
                m.commit,
                m.reject
            ),
            Self::Position(p, at) => write!(
                f,
                "{p} epoch {} end {} synced {} incarnation {}",
                at.epoch, at.end, at.synced, at.broker_epoch
            ),
            Self::Part(p, part) => {
                let what = format!("{:?}", part.what);
                write!(
                    f,
                    "{p} epoch {} hw {} {:.60}",
                    part.epoch, part.high_watermark, what
                )
            }
            Self::Produce { id, partition, .. } => write!(f, "produce {id} to {partition}"),
            Self::Produced { id, result, .. } => write!(f, "produced {id}: {result:?}"),
            Self::Fetch {
                id,
                partition,
                from,
                ..
            } => write!(f, "fetch {id} of {partition} from {from}"),
            Self::Fetched { id, .. } => write!(f, "fetched {id}"),
            Self::ReignEnd { id, asked, .. } => write!(f, "end {id} of reign {asked}"),
            Self::ReignEnded { id, result } => write!(f, "ended {id}: {result:?}"),
            Self::Ask { id, question, .. } => write!(f, "ask {id}: {question:?}"),
            Self::Answered { id, answer } => write!(f, "answered {id}: {answer:?}"),
            Self::Metadata => write!(f, "metadata?"),
            Self::Described(image) => write!(f, "metadata {}", image.applied),
            Self::Propose { id, proposal, .. } => write!(f, "propose {id}: {proposal:.200?}"),
            Self::Proposed { id, index, result } => {
                write!(f, "proposed {id} at {index}: {result:?}")
            }
        }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Deliver(from, to, message) => write!(f, "{from} -> {to}: {message}"),
            Self::OnLane(lane, to, message) => {
                let (a, b) = (lane.follower + 1, lane.leader + 1);
                write!(f, "lane {a}-{b} -> {to}: {message}")
            }
            Self::LaneBroken(lane) => write!(f, "lane broken: {lane:?}"),
            Self::OpenLane(follower, leader) => {
                write!(f, "node {} opens a lane to {}", follower + 1, leader + 1)
            }
            Self::Node(node, _, what) => write!(f, "node {}: {what:?}", node + 1),
            Self::Client(client, what) => write!(f, "client {}: {what:?}", client + 1),
            Self::Fault(fault) => write!(f, "FAULT {fault}"),
            Self::FaultEnds(fault) => write!(f, "ends: {fault}"),
            Self::Start(node) => write!(f, "node {} starts", node + 1),
            Self::Heal => write!(f, "everything heals"),
        }
    }
}
