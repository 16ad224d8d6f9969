//! What nodes say to each other: bincode bodies with record bytes after them, in the frames of the QUIC door.

use bincode::{Decode, Encode};
use bytes::Bytes;
use callboard_common::protocol::Attachment;
use callboard_common::wire::frame::{Frame, Header};
use callboard_common::{BrokerId, FeatureLevel, LeaderEpoch, Offset, Uuid};

use crate::controller::raft_wire::RaftMessage;
use crate::controller::{Member, Outcome, Proposal, QuorumView, Refusal};

/// A connection is closed with this code if its node, or what it says, is not taken; the reason says why.
pub const CODE_REFUSED: u32 = 1;
/// Numbers of requests.
pub const ASK: u16 = 0;
/// Opens a lane of replication; what follows are [`Positions`] and [`Parts`].
pub const REPLICATE: u16 = 1;
/// An image of a hundred thousand partitions is a fifth of it.
pub const BODY_LIMIT_BYTES: usize = 64 << 20;
/// Largest frame.
pub const FRAME_LIMIT_BYTES: u32 = 128 << 20;

/// What one node asks another.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub enum PeerRequest {
    /// Who are you?
    Probe,
    /// Messages of the quorum.
    Raft {
        /// The sender.
        from: Member,
        /// In order.
        messages: Vec<RaftMessage>,
    },
    /// Do this, if you lead the quorum.
    Propose {
        /// What.
        proposal: Proposal,
        /// Whether to ask the leader if it is somebody else.
        relay: bool,
    },
    /// How is the quorum, as you see it?
    Quorum,
    /// How large the logs are that the sender leads ([`FeatureLevel::LOG_SIZES`]).
    LogSizes(LogSizes),
}

impl PeerRequest {
    /// From which level on it is understood.
    #[must_use]
    pub fn level(&self) -> FeatureLevel {
        match self {
            Self::Probe | Self::Raft { .. } | Self::Propose { .. } | Self::Quorum => {
                FeatureLevel::LOWEST
            }
            Self::LogSizes(_) => FeatureLevel::LOG_SIZES,
        }
    }
}

/// How large logs are, as one node tells the active controller.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct LogSizes {
    /// Topic, partition, bytes of its log files.
    pub logs: Vec<(Uuid, i32, u64)>,
}

/// What it answers.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub enum PeerResponse {
    /// Who it is.
    Probed {
        /// The node.
        broker: BrokerId,
        /// Its data directory.
        directory: Uuid,
        /// Whether it belongs to a quorum already.
        formed: bool,
    },
    /// The messages were taken; what comes of them is said by other messages.
    Taken,
    /// What the proposal came to.
    Proposed {
        /// The entry of the metadata log that says so.
        index: u64,
        /// What it says.
        result: Result<Outcome, Refusal>,
    },
    /// How the quorum is.
    Quorum(QuorumView),
}

/// How far a follower is with one partition, and that it wants what follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct PartitionPosition {
    /// The topic.
    pub topic_id: Uuid,
    /// The partition.
    pub partition: i32,
    /// The follower's incarnation.
    pub broker_epoch: i64,
    /// The reign that it follows.
    pub epoch: LeaderEpoch,
    /// The end of its log.
    pub end: Offset,
    /// How much of it is durable.
    pub synced: Offset,
    /// The reign of its last record.
    pub last_epoch: Option<LeaderEpoch>,
}

/// From a follower to a leader: partitions whose position changed, and those that are not followed any more. The latter come
/// first: what was forgotten may be followed anew.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Positions {
    /// What changed.
    pub positions: Vec<PartitionPosition>,
    /// What is not followed here any more.
    pub forgotten: Vec<(Uuid, i32)>,
}

impl Positions {
    /// Adds how far a partition is now.
    pub fn put(&mut self, position: PartitionPosition) {
        let key = (position.topic_id, position.partition);
        let same = |p: &PartitionPosition| (p.topic_id, p.partition) == key;
        // Only the newest counts; the one before is most likely among the last.
        match self.positions.iter_mut().rev().take(4).find(|p| same(p)) {
            Some(older) => *older = position,
            None => self.positions.push(position),
        }
    }

    /// Adds that a partition is not followed any more; what was said of it before counts no more.
    pub fn forget(&mut self, key: (Uuid, i32)) {
        self.positions.retain(|p| (p.topic_id, p.partition) != key);
        self.forgotten.push(key);
    }
}

/// From a leader to a follower: what there is for one partition.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Part {
    /// The topic.
    pub topic_id: Uuid,
    /// The partition.
    pub partition: i32,
    /// The leader's reign.
    pub epoch: LeaderEpoch,
    /// What is committed.
    pub high_watermark: Offset,
    /// The leader's first record.
    pub log_start: Offset,
    /// The end of the leader's log when its reign began: what earlier reigns committed lies below, whether or not the leader
    /// knows that it is committed.
    pub reign_start: Offset,
    /// The rest.
    pub what: What,
}

/// See [`Part`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum What {
    /// Whole batches, from the follower's end on.
    Records(Attachment),
    /// Nothing but the high watermark.
    HighWatermark,
    /// The logs differ: the largest epoch of the leader that is not above the follower's, and where it ended.
    Diverged(LeaderEpoch, Offset),
    /// The leader's first record lies above the follower's end; with the producers as of there, as a snapshot has them.
    TooOld(Offset, Attachment),
    /// The partition is not led here in that reign.
    NotLeader,
}

/// Parts that were ready at the same time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Parts(pub Vec<Part>);

impl Parts {
    fn attachments(&mut self) -> impl Iterator<Item = &mut Attachment> {
        self.0.iter_mut().filter_map(|part| match &mut part.what {
            What::Records(attached) | What::TooOld(_, attached) => Some(attached),
            What::HighWatermark | What::Diverged(..) | What::NotLeader => None,
        })
    }
}

/// Why a frame of another node is not understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PeerCodecError {
    /// The body is malformed.
    #[error("the body is malformed: {0}")]
    Body(String),
    /// Body or records are longer or shorter than they say.
    #[error("body or records have another length than they say")]
    Length,
}

fn config() -> impl bincode::config::Config {
    bincode::config::standard().with_limit::<BODY_LIMIT_BYTES>()
}

/// Encodes a body.
///
/// # Errors
///
/// [`PeerCodecError::Body`] if it is too large.
pub fn encode(value: &impl Encode) -> Result<Bytes, PeerCodecError> {
    let body = bincode::encode_to_vec(value, config());
    body.map(Bytes::from)
        .map_err(|e| PeerCodecError::Body(e.to_string()))
}

/// Decodes a body that holds nothing else.
///
/// # Errors
///
/// [`PeerCodecError`].
pub fn decode<T: Decode<()>>(body: &[u8]) -> Result<T, PeerCodecError> {
    let decoded = bincode::decode_from_slice(body, config());
    let (value, read) = decoded.map_err(|e| PeerCodecError::Body(e.to_string()))?;
    if read == body.len() {
        Ok(value)
    } else {
        Err(PeerCodecError::Length)
    }
}

/// A frame without records, for a connection at this level.
///
/// # Errors
///
/// As [`encode`].
pub fn frame(
    level: FeatureLevel,
    id: u64,
    api: u16,
    value: &impl Encode,
) -> Result<Frame, PeerCodecError> {
    let header = Header {
        id,
        api,
        version: level.0,
    };
    Ok(Frame {
        header,
        body: encode(value)?,
        records: Vec::new(),
    })
}

/// A frame of parts, with their records, for a connection at this level.
///
/// # Errors
///
/// As [`encode`].
pub fn parts_frame(level: FeatureLevel, mut parts: Parts) -> Result<Frame, PeerCodecError> {
    let records = parts.attachments().map(|a| a.bytes().clone()).collect();
    let frame = frame(level, 0, REPLICATE, &parts)?;
    Ok(Frame { records, ..frame })
}

/// The parts in a frame.
///
/// # Errors
///
/// [`PeerCodecError`].
pub fn parts(body: &[u8], mut records: Bytes) -> Result<Parts, PeerCodecError> {
    let mut parts: Parts = decode(body)?;
    let whole = parts.attachments().all(|a| a.take_from(&mut records));
    if whole && records.is_empty() {
        Ok(parts)
    } else {
        Err(PeerCodecError::Length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::raft_wire::{Quorum, RaftEntry, RaftMessage, RaftSnapshot};
    use crate::controller::{Endpoint, QuorumChange};
    use callboard_common::BrokerId;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|b| format!("{b:02x}")).collect()
    }

    fn part(what: What) -> Part {
        Part {
            topic_id: Uuid([7; 16]),
            partition: 2,
            epoch: LeaderEpoch(5),
            high_watermark: Offset::new(300),
            log_start: Offset::new(1),
            reign_start: Offset::new(250),
            what,
        }
    }

    #[test]
    fn parts_go_there_and_back() {
        let records =
            |text: &'static str| What::Records(Bytes::from_static(text.as_bytes()).into());
        let sent = Parts(vec![
            part(records("one")),
            part(What::NotLeader),
            part(records("three")),
        ]);
        let frame = parts_frame(FeatureLevel::NEWEST, sent.clone()).expect("it is small");
        let bytes = Bytes::from(frame.records.concat());
        assert_eq!(parts(&frame.body, bytes.clone()), Ok(sent));
        assert_eq!(
            parts(&frame.body, bytes.slice(1..)),
            Err(PeerCodecError::Length)
        );
    }

    #[test]
    fn what_was_forgotten_may_be_followed_anew() {
        let position = |partition, end| PartitionPosition {
            topic_id: Uuid([1; 16]),
            partition,
            broker_epoch: 9,
            epoch: LeaderEpoch(2),
            end: Offset::new(end),
            synced: Offset::new(end),
            last_epoch: None,
        };
        let mut positions = Positions::default();
        positions.put(position(1, 5));
        positions.put(position(2, 5));
        positions.put(position(1, 6));
        assert_eq!(positions.positions, [position(1, 6), position(2, 5)]);
        positions.forget((Uuid([1; 16]), 1));
        assert_eq!(positions.positions, [position(2, 5)]);
        positions.put(position(1, 7));
        assert_eq!(positions.positions, [position(2, 5), position(1, 7)]);
        assert_eq!(positions.forgotten, [(Uuid([1; 16]), 1)]);
    }

    /// What these bytes are must not change: nodes of the next release read them.
    #[test]
    fn golden_bytes() {
        let position = PartitionPosition {
            topic_id: Uuid([1; 16]),
            partition: 3,
            broker_epoch: 9,
            epoch: LeaderEpoch(2),
            end: Offset::new(300),
            synced: Offset::new(20),
            last_epoch: Some(LeaderEpoch(1)),
        };
        let positions = Positions {
            positions: vec![position],
            forgotten: vec![(Uuid([2; 16]), 1)],
        };
        let body = hex(&encode(&positions).expect("it is small"));
        let expected = "01010101010101010101010101010101010612".to_owned()
            + "04fb580228010201"
            + "0202020202020202020202020202020202";
        assert_eq!(body, expected);
        let diverged = Parts(vec![part(What::Diverged(LeaderEpoch(4), Offset::new(8)))]);
        let body = hex(&encode(&diverged).expect("it is small"));
        assert_eq!(
            body,
            "0107070707070707070707070707070707040afb580202fbf401020810"
        );
    }

    /// As above, for what members of the quorum say.
    #[test]
    fn golden_bytes_of_the_quorum() {
        let member = Member {
            broker: BrokerId(2),
            directory: Uuid([2; 16]),
            peer: Endpoint {
                host: "two".into(),
                port: 9392,
            },
        };
        let entry = RaftEntry {
            term: 3,
            index: 11,
            kind: 0,
            data: vec![7, 8],
            context: vec![9],
        };
        let append = RaftMessage {
            kind: 3,
            to: 1,
            from: 2,
            term: 3,
            log_term: 2,
            index: 10,
            entries: vec![entry],
            commit: 300,
            commit_term: 3,
            snapshot: None,
            request_snapshot: 4,
            reject: true,
            reject_hint: 5,
            context: vec![6],
            priority: -1,
        };
        let raft = PeerRequest::Raft {
            from: member.clone(),
            messages: vec![append],
        };
        assert_eq!(
            hex(&encode(&raft).expect("it is small")),
            "0104020202020202020202020202020202020374776ffbb0240103010203020a01030b000207080109fb2c010300040105010601"
        );
        let learn = PeerRequest::Propose {
            proposal: Proposal::Quorum(QuorumChange::Learn(77, member)),
            relay: true,
        };
        assert_eq!(
            hex(&encode(&learn).expect("it is small")),
            "0201004d04020202020202020202020202020202020374776ffbb02401"
        );
        let image = RaftSnapshot {
            index: 12,
            term: 3,
            quorum: Quorum {
                voters: vec![1, 2],
                learners: vec![3],
                ..Quorum::default()
            },
            image: vec![5],
        };
        assert_eq!(
            hex(&encode(&image).expect("it is small")),
            "0c0302010201030000000105"
        );
    }
}
