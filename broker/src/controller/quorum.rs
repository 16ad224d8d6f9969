//! Who votes: changes of the quorum, one at a time, and who asks for votes when its leader is dead.

use std::time::Duration;

use bincode::{Decode, Encode};
use callboard_common::{BrokerId, Monotonic};
use raft::StateRole;
use raft::eraftpb::{ConfChangeType, ConfChangeV2};

use super::image::Standing;
use super::records::{Member, Outcome, Refusal, encode};
use super::state::{Controller, ELECTION_TICKS, Effect, Effects, QuorumChange, Ticket, raft_id};

/// The quorum as one member sees it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct QuorumView {
    /// Who leads it, if that is known.
    pub leader: Option<BrokerId>,
    /// Whether that is who tells.
    pub leads: bool,
    /// The term.
    pub term: u64,
    /// Index of the last entry that is committed.
    pub committed: u64,
    /// Who follows the metadata log.
    pub members: Vec<MemberView>,
}

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct MemberView {
    /// Who it is.
    pub member: Member,
    /// Whether it votes.
    pub votes: bool,
    /// Index of the last entry that it is known to have; only who leads knows it of others.
    pub matched: Option<u64>,
    /// How long ago it was heard of.
    pub silent_ms: Option<u64>,
}

impl QuorumChange {
    /// Whom it concerns, by number in Raft.
    fn raft_id(&self) -> u64 {
        match self {
            Self::Learn(id, _) | Self::Promote(id) | Self::Demote(id) | Self::Remove(id) => *id,
        }
    }
}

impl Controller {
    /// Begins a change of who follows or votes, as the leader, or answers why not.
    pub(super) fn change_quorum(
        &mut self,
        now: Monotonic,
        ticket: Ticket,
        change: &QuorumChange,
        out: &mut Effects,
    ) {
        let change_type = match self.judge_change(now, change) {
            Ok(Some(change_type)) => change_type,
            Ok(None) => return out.push_back(Effect::Answer(ticket, 0, Ok(Outcome::Done))),
            Err(refusal) => return out.push_back(Effect::Answer(ticket, 0, Err(refusal))),
        };
        let single = raft::eraftpb::ConfChangeSingle {
            node_id: change.raft_id(),
            change_type,
            ..Default::default()
        };
        let mut conf_change = ConfChangeV2::default();
        conf_change.changes.push(single);
        let index = self.node.raft.raft_log.last_index() + 1;
        let proposed = self.node.propose_conf_change(encode(change), conf_change);
        self.wait_for(Some(ticket), index, proposed, out);
    }

    /// What a change is for Raft, if it may be made now; nothing if it is made already.
    fn judge_change(
        &mut self,
        now: Monotonic,
        change: &QuorumChange,
    ) -> Result<Option<ConfChangeType>, Refusal> {
        let refused = |why: &str| Err(Refusal::Quorum(why.to_owned()));
        let busy = |why: &str| Err(Refusal::QuorumBusy(why.to_owned()));
        if !self.leads() {
            return Err(Refusal::NoQuorum);
        }
        if self.node.raft.has_pending_conf() {
            return busy("another change of the quorum is under way");
        }
        let id = change.raft_id();
        let voters = self.node.raft.prs().conf().voters().ids();
        let (votes, is_last) = (voters.contains(id), voters.len() == 1);
        let is_known = self.image.members.contains_key(&id);
        match change {
            QuorumChange::Learn(_, member) => {
                self.check_place(id, member)?;
                Ok((!votes).then_some(ConfChangeType::AddLearnerNode))
            }
            QuorumChange::Promote(_) if !is_known => {
                refused("this node does not follow the metadata yet")
            }
            QuorumChange::Promote(_) if !self.has_caught_up(id) => {
                busy("this node has not caught up yet")
            }
            QuorumChange::Promote(_) => Ok(Some(ConfChangeType::AddNode)),
            // It would come in anew as a learner.
            QuorumChange::Demote(_) if !is_known => {
                refused("this node does not follow the metadata")
            }
            QuorumChange::Demote(_) | QuorumChange::Remove(_) if votes && is_last => {
                refused("it is the last voter")
            }
            QuorumChange::Demote(_) | QuorumChange::Remove(_) if id == self.me.raft_id() => {
                self.hand_over();
                busy("it leads the quorum and hands that over now; try again")
            }
            QuorumChange::Demote(_) | QuorumChange::Remove(_)
                if votes && !self.may_do_without(id, now) =>
            {
                busy(
                    "too few of the other voters are heard of: without it there would be no quorum",
                )
            }
            QuorumChange::Demote(_) => Ok(Some(ConfChangeType::AddLearnerNode)),
            QuorumChange::Remove(_) => Ok(Some(ConfChangeType::RemoveNode)),
        }
    }

    /// Whether a member may come in: no other data directory of its node is one.
    fn check_place(&self, id: u64, member: &Member) -> Result<(), Refusal> {
        match self.replaced_by(id, member) {
            None => Ok(()),
            // Somebody started it twice: what is there is not to be thrown out for that.
            Some(old) if self.is_alive(old, member.broker) => Err(Refusal::QuorumBusy(format!(
                "node {} runs already, on another data directory: stop it there first",
                member.broker
            ))),
            Some(old) => Err(Refusal::Replaces(old)),
        }
    }

    /// Whether a member is the data directory of a node that counts as alive.
    fn is_alive(&self, member: u64, broker: BrokerId) -> bool {
        let node = self.image.brokers.get(&broker);
        node.is_some_and(|b| b.standing == Standing::Alive && raft_id(&b.directory) == member)
    }

    /// Whether those who vote once this one does not are a quorum now. Its own vote, and nobody's after that, could commit that it
    /// has none.
    fn may_do_without(&self, id: u64, now: Monotonic) -> bool {
        let voters = self.node.raft.prs().conf().voters().ids();
        let stay: Vec<u64> = voters.iter().filter(|v| *v != id).collect();
        let is_there = |v: &&u64| **v == self.me.raft_id() || self.liveness.is_heard(**v, now);
        stay.iter().filter(is_there).count() * 2 > stay.len()
    }

    fn replaced_by(&self, id: u64, member: &Member) -> Option<u64> {
        let mut others = self.image.members.iter().filter(|(i, _)| **i != id);
        others
            .find(|(_, m)| m.broker == member.broker)
            .map(|(i, _)| *i)
    }

    /// Who follows the metadata log, and how far each is as far as this member knows.
    #[must_use]
    pub fn quorum(&self, now: Monotonic) -> QuorumView {
        let raft = &self.node.raft;
        let me = self.me.raft_id();
        let of = |(id, member): (&u64, &Member)| {
            let matched = match *id == me {
                true => Some(raft.raft_log.last_index()),
                false => {
                    let progress = raft.prs().get(*id).filter(|_| self.leads());
                    progress.map(|p| p.matched)
                }
            };
            let silent = match *id == me {
                true => Some(Duration::ZERO),
                false => self.liveness.last(*id).map(|at| now.since(at)),
            };
            MemberView {
                member: member.clone(),
                votes: self.image.voters.contains(id),
                matched,
                silent_ms: silent.map(|s| s.as_millis() as u64),
            }
        };
        QuorumView {
            leader: self.led.leader,
            leads: self.led.here,
            term: raft.term,
            committed: raft.raft_log.committed,
            members: self.image.members.iter().map(of).collect(),
        }
    }

    /// When the quorum was last known to be there: since then nobody can have taken this node's place unless it was
    /// told so.
    #[must_use]
    pub fn contact(&self) -> Monotonic {
        // Who has led and does not lead any more was silent for a majority: what counts is whom it has heard since.
        match self.leads() {
            true => self.contact.led(),
            false => self.contact.last(),
        }
    }

    pub(super) fn has_caught_up(&self, id: u64) -> bool {
        let committed = self.node.raft.raft_log.committed;
        let progress = self.node.raft.prs().get(id);
        progress.is_some_and(|p| p.matched + 100 >= committed && p.recent_active)
    }

    /// Gives the leadership of the quorum, if it is here, to the voter that is furthest.
    pub(super) fn hand_over(&mut self) {
        if !self.leads() {
            return;
        }
        let me = self.me.raft_id();
        let conf = self.node.raft.prs().conf().voters().ids();
        let progress = self.node.raft.prs().iter();
        let others =
            progress.filter(|(id, p)| **id != me && conf.contains(**id) && p.recent_active);
        let furthest = others.map(|(id, p)| (p.matched, *id)).max();
        if let Some((_, id)) = furthest {
            self.node.transfer_leader(id);
        }
    }

    /// A node's process has ended: if it led the quorum, one of the others asks for votes without waiting for silence.
    pub(super) fn died(&mut self, broker: BrokerId, epoch: i64) {
        self.liveness.died(broker, epoch);
        let members = &self.image.members;
        let is_dead = |id: &u64| members.get(id).is_some_and(|m| m.broker == broker);
        if self.leads() || !is_dead(&self.node.raft.leader_id) {
            return;
        }
        let term = self.node.raft.term;
        self.node.raft.become_follower(term, raft::INVALID_ID);
        let voters = self.node.raft.prs().conf().voters().ids();
        let first = voters.iter().filter(|id| !is_dead(id)).min();
        // One of them at once; should it fail, the others follow after their timeouts.
        self.succeeds = first == Some(self.me.raft_id());
        self.campaign();
    }

    /// Asks for votes if the quorum's leader is known to be dead and this member is the one to do so. Others vote as
    /// soon as they know it too.
    pub(super) fn campaign(&mut self) {
        if self.image_is_pending() {
            return;
        }
        // An election that has begun is let run: to begin anew throws its votes away, and holds up the timeouts of those
        // who gave them. To ask again whether one may begin is harmless, and others agree once they know of the death too.
        let raft = &self.node.raft;
        self.succeeds &= raft.leader_id == raft::INVALID_ID && raft.state != StateRole::Candidate;
        if self.succeeds
            && let Err(error) = self.node.campaign()
        {
            slog::debug!(self.logger, "no election is begun"; "error" => %error);
        }
    }

    /// Keeps the election timeout that was drawn for this term: raft-rs draws one from random numbers of its own.
    pub(super) fn draw_timeout(&mut self) {
        let term = self.node.raft.term;
        if self.timeout_of_term.0 != term || self.timeout_of_term.1 == 0 {
            // SplitMix64.
            self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = self.random;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            let ticks = ELECTION_TICKS + ((z ^ (z >> 31)) % ELECTION_TICKS as u64) as usize;
            self.timeout_of_term = (term, ticks);
        }
        self.node
            .raft
            .set_randomized_election_timeout(self.timeout_of_term.1);
    }
}
