//! The pure core of the controller: raft-rs' `RawNode`, the image of what it committed, and who waits for what.
//!
//! Entries are appended to memory at once and handed out to be persisted; what was persisted comes back as an
//! input, and only then does Raft count it (`advance_append_async`, `on_persist_ready`). Election timeouts come from
//! the member's own seed, not from raft-rs' random numbers.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use callboard_common::{BrokerId, Monotonic, Now, Uuid};
use protobuf::Message as _;
use raft::eraftpb::{Entry, HardState};
use raft::{Config, RawNode, StateRole, Storage};

use super::balancer::{Balancer, Policy};
use super::contact::Contact;
use super::image::MetadataImage;
use super::liveness::Liveness;
use super::quorum_storage::QuorumStorage;
use super::raft_wire::{Quorum, RaftMessage};
use super::records::{Command, Member, Outcome, Refusal, encode};
use crate::peer::protocol::LogSizes;
use crate::planted::{self, Bug};

/// So many bytes of commands beyond the snapshot call for a new one: the log stays far below what is read.
pub(super) const SNAPSHOT_EVERY_BYTES: usize = 64 << 20;
/// So many entries beyond the snapshot call for a new one.
pub(super) const SNAPSHOT_EVERY_ENTRIES: u64 = 10_000;
/// Between two ticks of Raft's clock.
pub const TICK: std::time::Duration = std::time::Duration::from_millis(50);
/// An election begins after 10 to 20 ticks of silence; heartbeats come with every second tick.
pub(super) const ELECTION_TICKS: usize = 10;
const HEARTBEAT_TICKS: usize = 2;
/// A member that was sent an image and says nothing of it for so long is sent another one.
pub(super) const IMAGE_PATIENCE: std::time::Duration = std::time::Duration::from_secs(5);
/// A proposal waits so long for somebody who leads.
const LEADER_PATIENCE: std::time::Duration = std::time::Duration::from_secs(10);

/// Names a caller who waits for an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(pub u64);

/// A change of the quorum.
#[derive(Clone, Debug, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub enum QuorumChange {
    /// Somebody follows the metadata log, without a vote.
    Learn(u64, Member),
    /// A learner votes from now on.
    Promote(u64),
    /// A voter votes no more, and follows on.
    Demote(u64),
    /// Somebody follows no more.
    Remove(u64),
}

/// What somebody wants to be changed.
#[derive(Clone, Debug, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub enum Proposal {
    /// The metadata.
    Command(Command),
    /// Who votes on it.
    Quorum(QuorumChange),
}

/// What happens to the controller.
#[derive(Clone, Debug)]
pub enum Input {
    /// Somebody wants a change; if somebody else leads the quorum, that one is asked.
    Propose(Ticket, Proposal),
    /// Somebody wants a change of this member, if it leads.
    ProposeHere(Ticket, Proposal),
    /// What a forwarded proposal came to, and the entry that must be applied here before its caller hears of it.
    Forwarded(Ticket, u64, Result<Outcome, Refusal>),
    /// The write with this number is synced.
    Persisted(u64),
    /// Another member says something.
    Message(Member, Box<RaftMessage>),
    /// This incarnation of a node is known to have ended.
    Died(BrokerId, i64),
    /// A member cannot be reached at the moment.
    Unreachable(u64),
    /// Another member shall lead the quorum.
    HandOver,
    /// How large the logs are that somebody leads.
    LogSizes(LogSizes),
    /// Time has passed.
    Tick,
}

/// Entries and votes to be made durable, as bytes of one write.
#[derive(Clone, Debug, Default, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub struct Persisted {
    /// Term and vote, if they changed; Raft's own encoding.
    pub hard_state: Option<Vec<u8>>,
    /// Entries in order; Raft's own encoding.
    pub entries: Vec<Vec<u8>>,
}

/// What must happen next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Append to the metadata log and sync, then say so with this number.
    Persist(u64, Persisted),
    /// Answer a caller: what it came to, and the entry that says so.
    Answer(Ticket, u64, Result<Outcome, Refusal>),
    /// Ask the leader instead; what it answers is an input.
    Forward(Ticket, Member, Proposal),
    /// Show the image to everybody.
    Publish(Arc<MetadataImage>),
    /// Somebody else leads the quorum, or nobody.
    Led(Led),
    /// Send to another member, in order.
    Send(Member, Box<RaftMessage>),
    /// Replace the metadata log by this image and what follows it.
    Snapshot(Box<SavedImage>, Persisted),
    /// What was committed is of a newer release, from this entry on: this node must not go on without it.
    TooNew(u64),
    /// This member has acknowledged what its disk does not have: it must go on as another one.
    Outdated,
}

/// An image with what Raft must know of it.
#[derive(Clone, Debug, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub struct SavedImage {
    /// Term of the last entry in the image.
    pub term: u64,
    /// The quorum at that entry.
    pub quorum: Quorum,
    /// The image.
    pub image: Arc<MetadataImage>,
}

/// Who leads the quorum.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Led {
    /// The term.
    pub term: u64,
    /// The node that leads in it, if it is known.
    pub leader: Option<BrokerId>,
    /// Whether it is this one.
    pub here: bool,
}

/// Effects in order; the shell reuses the buffer.
pub type Effects = VecDeque<Effect>;

/// Why the metadata on disk cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the metadata log cannot be used: {0}")]
pub struct RestoreError(pub String);

/// A caller and what it is told.
type Answer = (Ticket, Result<Outcome, Refusal>);

/// Who a controller is.
#[derive(Clone, Copy, Debug)]
pub struct Identity {
    /// The node.
    pub broker: BrokerId,
    /// Its data directory, which is what votes.
    pub directory: Uuid,
    /// Whether it waits to be taken into a quorum that others formed.
    pub joins: bool,
}

impl Identity {
    /// The directory's number in Raft: a directory that was lost never votes again.
    #[must_use]
    pub fn raft_id(&self) -> u64 {
        raft_id(&self.directory)
    }
}

/// The number in Raft of a data directory.
#[must_use]
pub fn raft_id(directory: &Uuid) -> u64 {
    let (head, _) = directory.0.split_at(8);
    // 0 is nobody.
    head.iter().fold(0, |id, b| id << 8 | u64::from(*b)).max(1)
}

/// Raft and its image.
pub struct Controller {
    pub(super) me: Identity,
    pub(super) node: RawNode<QuorumStorage>,
    pub(super) image: Arc<MetadataImage>,
    /// Callers by the entry that answers them, with its term.
    pub(super) waiting: BTreeMap<u64, (u64, Ticket)>,
    /// Callers whose answer is known and shown when the entry is applied here.
    pub(super) answered: BTreeMap<u64, Vec<Answer>>,
    /// Proposals that wait for a leader.
    pub(super) homeless: VecDeque<(Monotonic, Ticket, Proposal)>,
    /// Proposals that another member was asked for.
    pub(super) forwarded: BTreeMap<Ticket, (Monotonic, Proposal)>,
    /// Messages that may leave when the write with this number is synced.
    pub(super) held: VecDeque<(u64, Vec<RaftMessage>)>,
    /// The last write that was asked for, and the last that is synced.
    pub(super) issued: u64,
    pub(super) synced: u64,
    /// Who spoke to this member.
    pub(super) contacts: BTreeMap<u64, Member>,
    /// Whether this member asks for votes without waiting, because the leader is dead.
    pub(super) succeeds: bool,
    pub(super) liveness: Liveness,
    /// Until when all that the quorum decided is known here.
    pub(super) contact: Contact,
    /// With what other members stamped their answers last.
    pub(super) stamps: BTreeMap<u64, u64>,
    pub(super) balancer: Balancer,
    pub(super) led: Led,
    /// State of the numbers that election timeouts are drawn from.
    pub(super) random: u64,
    pub(super) timeout_of_term: (u64, usize),
    /// Members that an image was sent to, and when.
    pub(super) images_sent: BTreeMap<u64, Monotonic>,
    pub(super) snapshot_index: u64,
    /// So many entries beyond it call for a new image.
    pub(super) snapshot_every: u64,
    pub(super) snapshot_is_due: bool,
    /// Bytes of commands since then.
    pub(super) unsnapshot_bytes: usize,
    /// The last term and vote, and the write that makes them durable.
    pub(super) ballot: Option<(u64, u64)>,
    pub(super) balloted_in: u64,
    /// Messages that contradicted what is committed here.
    pub(super) contradicted: u64,
    /// Whether something was committed that this release does not know.
    pub(super) is_too_old: bool,
    /// Whether its disk has less than it has acknowledged.
    pub(super) is_outdated: bool,
    pub(super) logger: slog::Logger,
}

impl std::fmt::Debug for Controller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Controller")
            .field("applied", &self.image.applied)
            .finish_non_exhaustive()
    }
}

pub(super) fn unusable(error: impl std::fmt::Display) -> RestoreError {
    RestoreError(error.to_string())
}

pub(super) fn to_bytes(message: &dyn protobuf::Message) -> Vec<u8> {
    message.write_to_bytes().expect("it encodes into memory")
}

impl Controller {
    /// How many messages of other members contradicted what is committed here. Between members that are well there is none.
    #[must_use]
    pub fn contradictions(&self) -> u64 {
        self.contradicted
    }

    /// Restores the controller from its snapshot and the writes after it. One that votes alone leads at once.
    ///
    /// # Errors
    ///
    /// [`RestoreError`] if snapshot and writes do not fit.
    pub fn restore(
        logger: &slog::Logger,
        me: Identity,
        now: Now,
        saved: Option<SavedImage>,
        writes: &[Persisted],
        out: &mut Effects,
    ) -> Result<Self, RestoreError> {
        let voters = (!me.joins).then(|| me.raft_id()).into_iter().collect();
        let own = Quorum {
            voters,
            ..Quorum::default()
        };
        let known = |q: &Quorum| !q.voters.is_empty();
        let saved = saved.map(|saved| SavedImage {
            quorum: Some(saved.quorum).filter(known).unwrap_or(own.clone()),
            ..saved
        });
        let image = saved.as_ref().map(|s| s.image.clone()).unwrap_or_default();
        image.check_level().map_err(unusable)?;
        let snapshot_index = image.applied;
        let storage = QuorumStorage::new(saved, &own).map_err(unusable)?;
        replay(&storage, snapshot_index, writes)?;
        let config = Config {
            id: me.raft_id(),
            applied: snapshot_index,
            election_tick: ELECTION_TICKS,
            heartbeat_tick: HEARTBEAT_TICKS,
            pre_vote: true,
            check_quorum: true,
            max_size_per_msg: 1 << 20,
            max_inflight_msgs: 256,
            ..Config::default()
        };
        let node = RawNode::new(&config, storage, logger).map_err(unusable)?;
        let mut controller = Self {
            me,
            node,
            image,
            waiting: BTreeMap::new(),
            answered: BTreeMap::new(),
            homeless: VecDeque::new(),
            forwarded: BTreeMap::new(),
            held: VecDeque::new(),
            issued: 0,
            synced: 0,
            contacts: BTreeMap::new(),
            succeeds: false,
            liveness: Liveness::default(),
            contact: Contact::new(now.monotonic),
            stamps: BTreeMap::new(),
            balancer: Balancer::default(),
            led: Led::default(),
            random: me.raft_id(),
            timeout_of_term: (u64::MAX, 0),
            images_sent: BTreeMap::new(),
            snapshot_index,
            snapshot_every: SNAPSHOT_EVERY_ENTRIES,
            snapshot_is_due: false,
            unsnapshot_bytes: 0,
            ballot: None,
            balloted_in: 0,
            contradicted: 0,
            is_too_old: false,
            is_outdated: false,
            logger: logger.clone(),
        };
        let voters = controller.node.raft.prs().conf().voters().ids();
        let alone = voters.len() == 1 && voters.contains(me.raft_id());
        if alone {
            // Nobody else's heartbeat is to be waited for.
            controller.node.campaign().map_err(unusable)?;
        }
        controller.draw_timeout();
        // Nothing more may be committed for long: what was restored is shown at once.
        if controller.image.applied > 0 {
            out.push_back(Effect::Publish(controller.image.clone()));
        }
        controller.drain(now, out);
        Ok(controller)
    }

    /// What it moves by itself while it leads.
    pub fn balance_by(&mut self, policy: Policy) {
        self.balancer.policy = policy;
    }

    /// The committed metadata.
    #[must_use]
    pub fn image(&self) -> &Arc<MetadataImage> {
        &self.image
    }

    /// Who leads.
    #[must_use]
    pub fn led(&self) -> Led {
        self.led
    }

    /// Advances by one input and puts what must happen next into `out`, in order. After [`Effect::TooNew`] or
    /// [`Effect::Outdated`] nothing happens any more.
    pub fn step(&mut self, now: Now, input: Input, out: &mut Effects) {
        if self.is_too_old || self.is_outdated {
            return;
        }
        self.contact.pass(now.monotonic);
        match input {
            Input::Propose(ticket, proposal) => {
                let until = now.monotonic.after(LEADER_PATIENCE);
                self.propose(now, (until, ticket, proposal), out);
            }
            Input::ProposeHere(ticket, proposal) => self.begin(now, ticket, &proposal, out),
            Input::Forwarded(ticket, index, result) => self.forwarded(ticket, index, result, out),
            Input::Persisted(number) => self.persisted(number, out),
            Input::Message(sender, message) => self.message(now, sender, *message, out),
            Input::Died(broker, epoch) => self.died(broker, epoch),
            Input::Unreachable(raft_id) => self.is_unreachable(raft_id),
            Input::HandOver => self.hand_over(),
            Input::LogSizes(sizes) => self.balancer.note(sizes),
            Input::Tick => self.tick(now, out),
        }
        self.draw_timeout();
        self.drain(now, out);
        // Before an entry of its own term is committed, more may be than it knows.
        if self.leads() && self.node.raft.commit_to_current_term() {
            self.contact.lead(self.node.raft.raft_log.committed);
        }
        self.contact.renew(self.image.applied);
    }

    pub(super) fn leads(&self) -> bool {
        self.node.raft.state == StateRole::Leader
    }

    /// Whatever comes of it is answered, at the time that it names if nobody leads until then.
    fn propose(
        &mut self,
        now: Now,
        (until, ticket, proposal): (Monotonic, Ticket, Proposal),
        out: &mut Effects,
    ) {
        if self.leads() {
            return self.begin(now, ticket, &proposal, out);
        }
        match self.image.members.get(&self.node.raft.leader_id) {
            Some(leader) => {
                out.push_back(Effect::Forward(ticket, leader.clone(), proposal.clone()));
                let _none = self.forwarded.insert(ticket, (until, proposal));
            }
            None => self.homeless.push_back((until, ticket, proposal)),
        }
    }

    /// Begins what is proposed, as the leader.
    fn begin(&mut self, now: Now, ticket: Ticket, proposal: &Proposal, out: &mut Effects) {
        match proposal {
            Proposal::Command(command) => self.propose_here(Some(ticket), command, out),
            Proposal::Quorum(change) => self.change_quorum(now.monotonic, ticket, change, out),
        }
    }

    fn propose_here(&mut self, ticket: Option<Ticket>, command: &Command, out: &mut Effects) {
        let index = self.node.raft.raft_log.last_index() + 1;
        let proposed = match self.leads() {
            true => self.node.propose(Vec::new(), encode(command)),
            // raft-rs would forward it, and nobody would hear what came of it.
            false => Err(raft::Error::ProposalDropped),
        };
        self.wait_for(ticket, index, proposed, out);
    }

    pub(super) fn wait_for(
        &mut self,
        ticket: Option<Ticket>,
        index: u64,
        proposed: raft::Result<()>,
        out: &mut Effects,
    ) {
        let Some(ticket) = ticket else { return };
        match proposed {
            Ok(()) => {
                let term = self.node.raft.term;
                let _none = self.waiting.insert(index, (term, ticket));
            }
            Err(error) => {
                slog::warn!(self.logger, "command is not proposed"; "error" => %error);
                out.push_back(Effect::Answer(ticket, 0, Err(Refusal::NoQuorum)));
            }
        }
    }

    fn forwarded(
        &mut self,
        ticket: Ticket,
        index: u64,
        result: Result<Outcome, Refusal>,
        out: &mut Effects,
    ) {
        let asked = self.forwarded.remove(&ticket);
        if result == Err(Refusal::NoQuorum) {
            // Somebody else leads by now, or will.
            let (until, proposal) = asked.expect("it was forwarded");
            return self.homeless.push_back((until, ticket, proposal));
        }
        if index <= self.image.applied {
            return out.push_back(Effect::Answer(ticket, index, result));
        }
        self.answered
            .entry(index)
            .or_default()
            .push((ticket, result));
    }

    fn persisted(&mut self, number: u64, out: &mut Effects) {
        self.node.on_persist_ready(number);
        self.note_applied();
        self.synced = self.synced.max(number).min(self.issued);
        while let Some((_, messages)) = self.held.pop_front_if(|(held, _)| *held <= number) {
            self.send(messages, out);
        }
    }

    fn tick(&mut self, now: Now, out: &mut Effects) {
        // While an image that was taken is not counted yet, Raft cannot look at what is behind it, as it does before it
        // asks for votes.
        if !self.image_is_pending() {
            let _has_ready: bool = self.node.tick();
        }
        self.campaign();
        self.send_images_again(now);
        if self.leads() {
            for command in self
                .liveness
                .judge(now.monotonic, self.me.broker, &self.image)
            {
                self.propose_here(None, &command, out);
            }
            self.balance(now, out);
        }
        for (until, ticket, proposal) in std::mem::take(&mut self.homeless) {
            if until <= now.monotonic {
                out.push_back(Effect::Answer(ticket, 0, Err(Refusal::NoQuorum)));
            } else {
                self.propose(now, (until, ticket, proposal), out);
            }
        }
    }

    fn balance(&mut self, now: Now, out: &mut Effects) {
        for command in self.balancer.plan(now.monotonic, &self.image) {
            self.propose_here(None, &command, out);
            self.balancer.planned_until = self.node.raft.raft_log.last_index();
        }
    }

    /// Takes everything that Raft has ready.
    fn drain(&mut self, now: Now, out: &mut Effects) {
        let before = self.image.applied;
        // Who is answered looks at the image: it is there first.
        let mut answers = Effects::new();
        while self.node.has_ready() {
            let mut ready = self.node.ready();
            if !ready.snapshot().is_empty() {
                self.install(ready.snapshot(), out);
                if self.is_too_old {
                    return;
                }
                self.answer_applied(&mut answers);
                let metadata = ready.snapshot().get_metadata();
                self.answer_overtaken(metadata.index, metadata.term, &mut answers);
            }
            let number = ready.number();
            let (sent, held) = self.messages_of(&mut ready);
            self.note_images(now, sent.iter().chain(&held));
            self.send(sent.iter().map(RaftMessage::from).collect(), out);
            self.apply(ready.take_committed_entries(), &mut answers);
            // What is committed is found out again from the others: only terms and votes must survive.
            let is_due = ready.must_sync() && !planted::is(Bug::VoteNotPersisted);
            let vote = ready.hs().filter(|_| is_due);
            let write = Persisted {
                hard_state: vote.map(|hs| to_bytes(hs)),
                entries: ready.entries().iter().map(|e| to_bytes(e)).collect(),
            };
            let storage = self.node.store();
            storage
                .append(ready.entries())
                .expect("entries that Raft appends continue its log");
            if let Some(hard_state) = ready.hs() {
                storage.set_hard_state(hard_state.clone());
            }
            let needs_write = write != Persisted::default() || !ready.snapshot().is_empty();
            if !held.is_empty() {
                let held = held.iter().map(RaftMessage::from).collect();
                self.held.push_back((number, held));
            }
            self.node.advance_append_async(ready);
            // Writes end in order, so one that is empty still waits for those before it.
            if needs_write || self.issued != self.synced {
                self.issued = number;
                out.push_back(Effect::Persist(number, write));
            } else {
                self.persisted(number, out);
            }
        }
        self.notice_leader(now, out);
        if self.image.applied != before {
            out.push_back(Effect::Publish(self.image.clone()));
            out.append(&mut answers);
            self.maybe_snapshot(out);
        }
    }

    fn notice_leader(&mut self, now: Now, out: &mut Effects) {
        let raft = &self.node.raft;
        let (id, here) = (raft.leader_id, self.leads());
        let leader = match here {
            true => Some(self.me.broker),
            false => self.image.members.get(&id).map(|m| m.broker),
        };
        let led = Led {
            term: raft.term,
            leader,
            here,
        };
        if led == self.led {
            return;
        }
        if here && !self.led.here {
            // Everybody gets a fresh lease before anybody is judged.
            self.liveness.begin(now.monotonic);
            self.balancer.begin();
        }
        self.led = led;
        out.push_back(Effect::Led(led));
        if leader.is_some() {
            for (until, ticket, proposal) in std::mem::take(&mut self.homeless) {
                self.propose(now, (until, ticket, proposal), out);
            }
            if here {
                // What was proposed just now is ready too.
                self.drain(now, out);
            }
        }
    }
}

/// Brings writes back into memory.
pub(super) fn replay(
    storage: &QuorumStorage,
    snapshot_index: u64,
    writes: &[Persisted],
) -> Result<(), RestoreError> {
    for write in writes {
        if let Some(bytes) = &write.hard_state {
            let mut state = HardState::parse_from_bytes(bytes).map_err(unusable)?;
            // Entries may follow that the write did not know to be committed; nothing above the log is.
            let last = storage.last_index().map_err(unusable)?;
            state.commit = state.commit.clamp(snapshot_index, last.max(snapshot_index));
            storage.set_hard_state(state);
        }
        let entries: Result<Vec<Entry>, _> = write
            .entries
            .iter()
            .map(|e| Entry::parse_from_bytes(e))
            .collect();
        let entries = entries.map_err(unusable)?;
        let expected = storage.last_index().map_err(unusable)? + 1;
        // Writes that a snapshot has overtaken are part of it; a gap is not to be bridged.
        let fresh = entries.into_iter().filter(|e| e.index > snapshot_index);
        let fresh: Vec<Entry> = fresh.collect();
        match fresh.first() {
            Some(first) if first.index > expected => {
                let (missing, there) = (expected, first.index);
                return Err(RestoreError(format!(
                    "entry {missing} is missing, {there} follows"
                )));
            }
            Some(_) => storage.append(&fresh).map_err(unusable)?,
            None => {}
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;
