//! Raft's messages as our own structs: protobuf never parses what comes from the network, and what could make raft-rs
//! panic is refused before it is stepped.

use bincode::{Decode, Encode};
use raft::eraftpb::{ConfState, Entry, EntryType, Message, MessageType, Snapshot};

/// Largest message: entries of one send, or an image.
pub const ENTRIES_MAX: usize = 100_000;

/// One entry of the metadata log.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct RaftEntry {
    /// The term in which it was proposed.
    pub term: u64,
    /// Its place in the log.
    pub index: u64,
    /// 0 a command, 1 and 2 a change of the quorum.
    pub kind: u8,
    /// The command or change.
    pub data: Vec<u8>,
    /// What a change is about.
    pub context: Vec<u8>,
}

/// Who votes and who follows, by number in Raft.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Quorum {
    /// Voters.
    pub voters: Vec<u64>,
    /// Followers that do not vote.
    pub learners: Vec<u64>,
    /// Voters of the quorum that is being left.
    pub voters_outgoing: Vec<u64>,
    /// Voters that become learners when it is left.
    pub learners_next: Vec<u64>,
    /// Whether it is left by itself.
    pub auto_leave: bool,
}

/// An image for a member that is too far behind.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct RaftSnapshot {
    /// The last entry that is in it.
    pub index: u64,
    /// That entry's term.
    pub term: u64,
    /// The quorum at that entry.
    pub quorum: Quorum,
    /// The image in bincode.
    pub image: Vec<u8>,
}

/// One message of Raft.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct RaftMessage {
    /// raft-rs' number of its kind.
    pub kind: u8,
    /// To whom.
    pub to: u64,
    /// From whom.
    pub from: u64,
    /// The sender's term.
    pub term: u64,
    /// Term of the entry before `entries`.
    pub log_term: u64,
    /// Index of that entry.
    pub index: u64,
    /// Entries, consecutive.
    pub entries: Vec<RaftEntry>,
    /// What the sender knows to be committed.
    pub commit: u64,
    /// Term of that entry.
    pub commit_term: u64,
    /// An image, if the message carries one.
    pub snapshot: Option<RaftSnapshot>,
    /// An image is wanted that is not older.
    pub request_snapshot: u64,
    /// Whether what was asked is refused.
    pub reject: bool,
    /// Where the logs may agree.
    pub reject_hint: u64,
    /// Whether an election is a transfer; of a heartbeat, see [`RaftMessage::tell`].
    pub context: Vec<u8>,
    /// Preference in elections.
    pub priority: i64,
}

/// Why a message is not stepped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadMessage {
    /// It is for somebody else.
    #[error("it is for another member")]
    NotForUs,
    /// Its kind never crosses the network.
    #[error("its kind does not cross the network")]
    Kind,
    /// Its entries are not consecutive, too many, or of an unknown kind.
    #[error("its entries do not follow each other")]
    Entries,
    /// Its term is far beyond the receiver's: whoever believed it could never elect anybody again.
    #[error("its term is out of reach")]
    Term,
    /// It contradicts what is committed.
    #[error("it contradicts what is committed")]
    Contradiction,
    /// It knows of entries that are not here: it was meant for this member before it started again, or it is made up.
    #[error("it knows of entries that are not here")]
    Ahead,
    /// A leader commits, in a heartbeat, no more than its receiver has acknowledged as durable, and this is not here: the disk has
    /// less than it had. No honest leader says so to a member whose writes are durable when they are acknowledged, however
    /// messages are delayed: what is committed is never cut off.
    #[error("this member has acknowledged what it does not have")]
    Acknowledged,
}

/// Terms count elections: a member that was away for months has missed fewer.
const TERM_JUMP_MAX: u64 = 1_000_000;
/// After it there would be room for all jumps that a liar may bring about.
const TERM_MAX: u64 = 1 << 62;
/// The kinds that members send to each other.
const KINDS: [MessageType; 10] = [
    MessageType::MsgAppend,
    MessageType::MsgAppendResponse,
    MessageType::MsgRequestVote,
    MessageType::MsgRequestVoteResponse,
    MessageType::MsgSnapshot,
    MessageType::MsgHeartbeat,
    MessageType::MsgHeartbeatResponse,
    MessageType::MsgTimeoutNow,
    MessageType::MsgRequestPreVote,
    MessageType::MsgRequestPreVoteResponse,
];

impl From<&ConfState> for Quorum {
    fn from(state: &ConfState) -> Self {
        Self {
            voters: state.voters.clone(),
            learners: state.learners.clone(),
            voters_outgoing: state.voters_outgoing.clone(),
            learners_next: state.learners_next.clone(),
            auto_leave: state.auto_leave,
        }
    }
}

impl From<&Quorum> for ConfState {
    fn from(quorum: &Quorum) -> Self {
        let mut state = Self::default();
        state.voters.clone_from(&quorum.voters);
        state.learners.clone_from(&quorum.learners);
        state.voters_outgoing.clone_from(&quorum.voters_outgoing);
        state.learners_next.clone_from(&quorum.learners_next);
        state.auto_leave = quorum.auto_leave;
        state
    }
}

impl From<&Entry> for RaftEntry {
    fn from(entry: &Entry) -> Self {
        Self {
            term: entry.term,
            index: entry.index,
            kind: entry.get_entry_type() as u8,
            data: entry.data.to_vec(),
            context: entry.context.to_vec(),
        }
    }
}

impl RaftEntry {
    fn into_raft(self) -> Result<Entry, BadMessage> {
        let mut entry = Entry::default();
        (entry.term, entry.index) = (self.term, self.index);
        entry.entry_type = match self.kind {
            0 => EntryType::EntryNormal,
            1 => EntryType::EntryConfChange,
            2 => EntryType::EntryConfChangeV2,
            _ => return Err(BadMessage::Entries),
        };
        (entry.data, entry.context) = (self.data.into(), self.context.into());
        Ok(entry)
    }
}

impl RaftSnapshot {
    /// raft-rs' form.
    #[must_use]
    pub fn into_raft(self) -> Snapshot {
        let mut snapshot = Snapshot::default();
        let metadata = snapshot.mut_metadata();
        (metadata.index, metadata.term) = (self.index, self.term);
        *metadata.mut_conf_state() = ConfState::from(&self.quorum);
        snapshot.data = self.image.into();
        snapshot
    }
}

impl From<&Snapshot> for RaftSnapshot {
    fn from(snapshot: &Snapshot) -> Self {
        let metadata = snapshot.get_metadata();
        Self {
            index: metadata.index,
            term: metadata.term,
            quorum: metadata.get_conf_state().into(),
            image: snapshot.data.to_vec(),
        }
    }
}

impl From<&Message> for RaftMessage {
    fn from(m: &Message) -> Self {
        let snapshot = m.get_snapshot();
        Self {
            kind: m.get_msg_type() as u8,
            to: m.to,
            from: m.from,
            term: m.term,
            log_term: m.log_term,
            index: m.index,
            entries: m.entries.iter().map(RaftEntry::from).collect(),
            commit: m.commit,
            commit_term: m.commit_term,
            snapshot: (!snapshot.is_empty()).then(|| snapshot.into()),
            request_snapshot: m.request_snapshot,
            reject: m.reject,
            reject_hint: m.reject_hint,
            context: m.context.to_vec(),
            priority: m.priority,
        }
    }
}

/// What a receiver knows of its own log.
#[derive(Clone, Copy, Debug)]
pub struct Known {
    /// Its number.
    pub id: u64,
    /// Its term.
    pub term: u64,
    /// The end of its log.
    pub last_index: u64,
    /// What it knows to be committed.
    pub committed: u64,
}

impl RaftMessage {
    fn is(&self, kind: MessageType) -> bool {
        self.kind == kind as u8
    }

    /// Makes a heartbeat say what its sender knows to be committed, which by itself it says only as far as its receiver has it,
    /// and what the receiver's last answer was stamped with.
    pub fn tell(&mut self, committed: u64, stamp: Option<u64>) {
        if self.is(MessageType::MsgHeartbeat)
            && let Some(stamp) = stamp
        {
            self.context = [committed.to_be_bytes(), stamp.to_be_bytes()].concat();
        }
    }

    /// What a heartbeat tells: what is committed, and the stamp of its receiver's last answer.
    #[must_use]
    pub fn told(&self) -> Option<(u64, u64)> {
        let (committed, stamp) = self.context.split_first_chunk::<8>()?;
        let stamp = u64::from_be_bytes(stamp.try_into().ok()?);
        let told = (u64::from_be_bytes(*committed), stamp);
        self.is(MessageType::MsgHeartbeat).then_some(told)
    }

    /// Stamps the answer to a heartbeat.
    pub fn put_stamp(&mut self, stamp: u64) {
        if self.is(MessageType::MsgHeartbeatResponse) {
            self.context = stamp.to_be_bytes().to_vec();
        }
    }

    /// The stamp of the answer to a heartbeat.
    #[must_use]
    pub fn stamp(&self) -> Option<u64> {
        let stamp = <[u8; 8]>::try_from(&*self.context).ok()?;
        let answers = self.is(MessageType::MsgHeartbeatResponse);
        answers.then_some(u64::from_be_bytes(stamp))
    }

    /// raft-rs' form, if nothing in it can make raft-rs panic. `term_of` tells the term of an entry of the receiver.
    ///
    /// # Errors
    ///
    /// [`BadMessage`] says what is wrong; the sender is broken or no member.
    pub fn into_raft(
        self,
        known: Known,
        term_of: impl Fn(u64) -> Option<u64>,
    ) -> Result<Message, BadMessage> {
        if self.to != known.id || self.from == known.id || self.from == 0 {
            return Err(BadMessage::NotForUs);
        }
        // Who has heard nothing yet believes what the others are at.
        let reach = match known.term {
            0 => TERM_MAX,
            term => term.saturating_add(TERM_JUMP_MAX),
        };
        if self.term > reach {
            return Err(BadMessage::Term);
        }
        let kind = KINDS.iter().find(|k| **k as u8 == self.kind);
        let kind = *kind.ok_or(BadMessage::Kind)?;
        if (kind == MessageType::MsgSnapshot) != self.snapshot.is_some() {
            return Err(BadMessage::Kind);
        }
        let carries_entries = kind == MessageType::MsgAppend;
        if (!carries_entries && !self.entries.is_empty()) || self.entries.len() > ENTRIES_MAX {
            return Err(BadMessage::Entries);
        }
        let mut expected = self.index;
        for entry in &self.entries {
            expected = expected.checked_add(1).ok_or(BadMessage::Entries)?;
            if entry.index != expected || entry.term > self.term || entry.term == 0 {
                return Err(BadMessage::Entries);
            }
        }
        self.check_against(kind, known, term_of)?;
        let mut m = Message {
            msg_type: kind,
            ..Message::default()
        };
        (m.to, m.from, m.term) = (self.to, self.from, self.term);
        (m.log_term, m.index) = (self.log_term, self.index);
        (m.commit, m.commit_term) = (self.commit, self.commit_term);
        let entries: Result<Vec<Entry>, _> =
            self.entries.into_iter().map(RaftEntry::into_raft).collect();
        m.entries = entries?.into();
        if let Some(snapshot) = self.snapshot {
            m.set_snapshot(snapshot.into_raft());
        }
        (m.request_snapshot, m.reject, m.reject_hint) =
            (self.request_snapshot, self.reject, self.reject_hint);
        m.priority = self.priority;
        // Those of heartbeats and their answers are ours.
        let ours = [MessageType::MsgHeartbeat, MessageType::MsgHeartbeatResponse];
        if !ours.contains(&kind) {
            m.context = self.context.into();
        }
        Ok(m)
    }

    /// A member that says something that cannot be is not listened to: raft-rs would stop the whole node.
    fn check_against(
        &self,
        kind: MessageType,
        known: Known,
        term_of: impl Fn(u64) -> Option<u64>,
    ) -> Result<(), BadMessage> {
        let commits = kind == MessageType::MsgHeartbeat && self.commit > known.last_index;
        if commits && self.term >= known.term {
            return Err(BadMessage::Acknowledged);
        }
        // A refusal names where the refused append began, which this member sent.
        let answers = kind == MessageType::MsgAppendResponse && self.term == known.term;
        let furthest = self.index.max(self.reject_hint);
        let ends_past_us = commits || (answers && furthest > known.last_index);
        let committed_differs = |e: &RaftEntry| {
            e.index <= known.committed && term_of(e.index).is_some_and(|term| term != e.term)
        };
        // Only the term's own leader may rewrite, and never what is committed.
        let rewrites = self.term >= known.term && self.entries.iter().any(committed_differs);
        match (ends_past_us, rewrites) {
            (_, true) => Err(BadMessage::Contradiction),
            (true, false) => Err(BadMessage::Ahead),
            (false, false) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn append() -> RaftMessage {
        let entry = |index| RaftEntry {
            term: 3,
            index,
            kind: 0,
            data: vec![7],
            context: Vec::new(),
        };
        RaftMessage {
            kind: MessageType::MsgAppend as u8,
            to: 1,
            from: 2,
            term: 3,
            log_term: 2,
            index: 10,
            entries: vec![entry(11), entry(12)],
            commit: 11,
            commit_term: 3,
            ..RaftMessage::default()
        }
    }

    const KNOWN: Known = Known {
        id: 1,
        term: 3,
        last_index: 10,
        committed: 9,
    };

    fn refused(change: impl FnOnce(&mut RaftMessage)) -> Option<BadMessage> {
        let mut message = append();
        change(&mut message);
        message.into_raft(KNOWN, |_| Some(2)).err()
    }

    #[test]
    fn messages_go_there_and_back() {
        let message = append().into_raft(KNOWN, |_| None).expect("it is whole");
        assert_eq!(RaftMessage::from(&message), append());
    }

    #[test]
    fn what_could_make_raft_panic_is_refused() {
        assert_eq!(refused(|_| ()), None);
        assert_eq!(refused(|m| m.to = 5), Some(BadMessage::NotForUs));
        for local in [
            MessageType::MsgHup,
            MessageType::MsgPropose,
            MessageType::MsgSnapStatus,
        ] {
            let kind = refused(|m| {
                m.kind = local as u8;
                m.entries.clear();
            });
            assert_eq!(kind, Some(BadMessage::Kind));
        }
        assert_eq!(refused(|m| m.kind = 200), Some(BadMessage::Kind));
        assert_eq!(refused(|m| m.term += TERM_JUMP_MAX), None);
        assert_eq!(
            refused(|m| m.term = u64::MAX),
            Some(BadMessage::Term),
            "no term would follow"
        );
        assert_eq!(
            refused(|m| m.entries[1].index = 14),
            Some(BadMessage::Entries)
        );
        assert_eq!(
            refused(|m| m.entries[0].kind = 9),
            Some(BadMessage::Entries)
        );
        assert_eq!(refused(|m| m.index = u64::MAX), Some(BadMessage::Entries));
        let rewrites = |m: &mut RaftMessage| {
            (m.index, m.entries[0].index, m.entries[1].index) = (7, 8, 9);
        };
        assert_eq!(refused(rewrites), Some(BadMessage::Contradiction));
        let heartbeat = |m: &mut RaftMessage| {
            m.kind = MessageType::MsgHeartbeat as u8;
            m.entries.clear();
        };
        assert_eq!(
            refused(heartbeat),
            Some(BadMessage::Acknowledged),
            "it commits what is not there"
        );
        let of_an_earlier_term = |m: &mut RaftMessage| {
            heartbeat(m);
            m.term = 2;
        };
        assert_eq!(refused(of_an_earlier_term), Some(BadMessage::Ahead));
    }
}
