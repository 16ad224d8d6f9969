//! What members of the quorum say to each other.

use callboard_common::Now;
use raft::Ready;
use raft::eraftpb::{Message, MessageType};

use super::raft_wire::{BadMessage, Known, RaftMessage};
use super::records::Member;
use super::state::{Controller, Effect, Effects, raft_id};

impl Controller {
    /// Another member says something.
    pub(super) fn message(
        &mut self,
        now: Now,
        sender: Member,
        message: RaftMessage,
        out: &mut Effects,
    ) {
        let raft = &self.node.raft;
        let known = Known {
            id: self.me.raft_id(),
            term: raft.term,
            last_index: raft.raft_log.last_index(),
            committed: raft.raft_log.committed,
        };
        let from = message.from;
        if from != raft_id(&sender.directory) {
            return slog::warn!(self.logger, "message of the quorum is not its sender's"; "from" => from, "broker" => %sender.broker);
        }
        let (told, stamp, term) = (message.told(), message.stamp(), message.term);
        // raft-rs says 0 of an entry that only an image has: nothing is known of it.
        let term_of = |index| raft.raft_log.term(index).ok().filter(|term| *term != 0);
        let checked = message.into_raft(known, term_of);
        match checked {
            Ok(message) => {
                self.liveness.heard(from, now.monotonic);
                let _before = self.contacts.insert(from, sender);
                let asks_to_lead = message.get_msg_type() == MessageType::MsgTimeoutNow;
                if asks_to_lead && self.image_is_pending() {
                    return;
                }
                if let Err(error) = self.node.step(message) {
                    slog::debug!(self.logger, "message of the quorum is not taken"; "error" => %error);
                }
                if let Some(stamp) = stamp {
                    let _before = self.stamps.insert(from, stamp);
                }
                if from == self.node.raft.leader_id
                    && let Some((committed, stamp)) = told
                {
                    self.contact.tell(stamp, committed);
                }
            }
            Err(BadMessage::Acknowledged) if self.may_lead(from, term) => {
                self.is_outdated = true;
                out.push_back(Effect::Outdated);
            }
            Err(error) => {
                self.contradicted += u64::from(error == BadMessage::Contradiction);
                slog::warn!(self.logger, "message of the quorum is refused"; "from" => from, "error" => %error);
            }
        }
    }

    /// Whether a member may lead the quorum in a term that is not over, as far as is known here.
    fn may_lead(&self, member: u64, term: u64) -> bool {
        let raft = &self.node.raft;
        let another_leads = term == raft.term && ![0, member].contains(&raft.leader_id);
        self.image.voters.contains(&member) && !another_leads && !self.leads()
    }

    /// What may be sent at once, and what only when the write of this step is durable. A leader need not wait, as its vote is
    /// durable since it asked for others'; but one that votes alone leads at once, and could lead again in the same term.
    pub(super) fn messages_of(&mut self, ready: &mut Ready) -> (Vec<Message>, Vec<Message>) {
        let ballot = ready.hs().map(|hs| (hs.term, hs.vote));
        if ballot.is_some() && ballot != self.ballot {
            (self.ballot, self.balloted_in) = (ballot, ready.number());
        }
        let (mut sent, mut held) = (ready.take_messages(), ready.take_persisted_messages());
        if self.synced < self.balloted_in {
            sent.append(&mut held);
            return (Vec::new(), sent);
        }
        (sent, held)
    }

    /// Says something to other members.
    pub(super) fn send(&self, messages: Vec<RaftMessage>, out: &mut Effects) {
        let committed = self.node.raft.raft_log.committed;
        // A new leader may not know yet what the one before has committed.
        let knows = self.node.raft.commit_to_current_term();
        for mut message in messages {
            let stamp = self.stamps.get(&message.to).copied();
            message.tell(committed, stamp.filter(|_| knows));
            message.put_stamp(self.contact.stamp());
            // Who joins knows nobody but those who speak to it.
            let member = self
                .image
                .members
                .get(&message.to)
                .or(self.contacts.get(&message.to));
            if let Some(member) = member {
                out.push_back(Effect::Send(member.clone(), Box::new(message)));
            }
        }
    }
}
