//! What goes into a coordinator and what comes out of it; pure.

use std::collections::VecDeque;
use std::time::Duration;

use callboard_common::kafka::Text;
use callboard_common::protocol::groups::{
    DescribeGroups, DescribedGroups, GroupListing, Heartbeat, HeartbeatAnswer, JoinGroup,
    JoinedGroup, LeaveGroup, LeftGroup, SyncGroup, SyncedGroup,
};
use callboard_common::{ErrorCode, LeaderEpoch, Offset, TopicPartition};

use super::offsets::CommittedOffset;
use super::records::GroupRecord;

/// Names a caller who waits for an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(pub u64);

/// Names records on their way to the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct WriteId(pub u64);

/// Settings of all groups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupConfig {
    /// `group.min.session.timeout.ms`.
    pub session_timeout_min: Duration,
    /// `group.max.session.timeout.ms`.
    pub session_timeout_max: Duration,
    /// `group.max.size`: members of one group.
    pub max_size: usize,
    /// Largest sum of a member's subscriptions, in bytes; Kafka bounds it by the request.
    pub max_member_bytes: usize,
    /// `group.initial.rebalance.delay.ms`.
    pub initial_rebalance_delay: Duration,
    /// `offset.metadata.max.bytes`.
    pub offset_metadata_max_bytes: usize,
    /// `offsets.retention.minutes`: how long offsets of a group without members are kept.
    pub offsets_retention: Duration,
}

impl Default for GroupConfig {
    fn default() -> Self {
        Self {
            session_timeout_min: Duration::from_secs(6),
            session_timeout_max: Duration::from_mins(30),
            max_size: 1000,
            max_member_bytes: 1 << 20,
            initial_rebalance_delay: Duration::ZERO,
            offset_metadata_max_bytes: 4096,
            offsets_retention: Duration::from_hours(7 * 24),
        }
    }
}

/// A commit whose topics are resolved: what could not be is refused by the caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commit {
    /// The group.
    pub group: Text,
    /// The generation, or -1 without membership.
    pub generation: i32,
    /// The member, or empty without membership.
    pub member: Text,
    /// The id of a static member.
    pub instance: Option<Text>,
    /// The offsets: next record, leader epoch, note.
    pub offsets: Vec<(TopicPartition, Offset, Option<LeaderEpoch>, Text)>,
}

/// What a coordinator can be asked.
#[derive(Clone, Debug)]
#[expect(
    missing_docs,
    reason = "the requests are documented where they are defined"
)]
pub enum Question {
    /// `new_member` is the id of a member that has none yet.
    Join {
        join: JoinGroup,
        client_id: Text,
        client_host: Text,
        new_member: Text,
    },
    Sync(SyncGroup),
    Heartbeat(Heartbeat),
    Leave(LeaveGroup),
    Commit(Commit),
    /// The offsets of a group; `None` for all its partitions.
    Offsets {
        group: Text,
        partitions: Option<Vec<TopicPartition>>,
    },
    List,
    Describe(DescribeGroups),
    /// Forget a group that has no members, with its offsets.
    DeleteGroup(Text),
    /// Forget offsets of a group.
    DeleteOffsets {
        group: Text,
        partitions: Vec<TopicPartition>,
    },
}

impl Question {
    /// Whether the answer says what is committed: one that is old would be wrong.
    #[must_use]
    pub fn reads_offsets(&self) -> bool {
        matches!(self, Self::Offsets { .. })
    }
}

/// What a coordinator answers.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(
    missing_docs,
    reason = "the answers are documented where they are defined"
)]
pub enum Answer {
    Joined(JoinedGroup),
    Synced(SyncedGroup),
    Heartbeat(HeartbeatAnswer),
    Left(LeftGroup),
    /// By offset of the commit.
    Committed(Vec<ErrorCode>),
    /// By partition asked for, or all that have an offset.
    Offsets(Vec<(TopicPartition, Option<CommittedOffset>)>),
    Listed(Vec<GroupListing>),
    Described(DescribedGroups),
    /// Whether the group is gone.
    Deleted(ErrorCode),
    /// By partition, or why none of them is.
    OffsetsDeleted(Result<Vec<ErrorCode>, ErrorCode>),
}

/// What happens to a coordinator.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "each is a sentence")]
pub enum Input {
    /// Somebody asks something.
    Ask(Ticket, Box<Question>),
    /// The records of a write are durable; the first one has this offset.
    Written { write: WriteId, base: Offset },
    /// The records of a write are not in the log, as far as is known.
    WriteFailed { write: WriteId, error: ErrorCode },
    /// The log has grown past its limit: write the live state anew.
    Rewrite,
    /// The deadline has come.
    Tick,
}

/// What must happen next.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is a sentence")]
pub enum Effect {
    /// Append records and say when they are durable.
    Write {
        write: WriteId,
        records: Vec<GroupRecord>,
    },
    /// Answer a caller.
    Answer(Ticket, Answer),
    /// Everything below the offset is written anew above it.
    DeleteBefore(Offset),
}

/// Effects in order; the shell reuses the buffer.
pub type Effects = VecDeque<Effect>;
