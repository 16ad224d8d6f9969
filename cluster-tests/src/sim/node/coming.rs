//! A node's way into its cluster, and out of it in order.

use callboard_broker::controller::{Command, Endpoints, Input, Proposal, QuorumChange};
use callboard_common::BrokerId;

use super::{COME_PAUSE, Purpose, Running, endpoint};
use crate::sim::event::OfNode;
use crate::sim::hub::Hub;

impl Running {
    /// A step of the way into the cluster.
    pub(super) fn come(&mut self, hub: &mut Hub) {
        if self.registered {
            return;
        }
        self.later(hub, COME_PAUSE, OfNode::Come);
        if self.comes {
            return;
        }
        let (id, member) = (self.identity.raft_id(), self.member());
        let known = self.image.members.get(&id);
        let joins = self.identity.joins;
        self.comes = true;
        if known == Some(&member) {
            let votes = self.image.voters.contains(&id);
            let proposal = if joins && !votes {
                Proposal::Quorum(QuorumChange::Promote(id))
            } else {
                Proposal::Command(self.registration())
            };
            self.propose(hub, Purpose::Come, proposal);
        } else if joins && known.is_none() {
            let proposal = Proposal::Quorum(QuorumChange::Learn(id, member));
            let to = self.another(hub);
            self.ask(hub, to, None, proposal, true);
        } else {
            let command = Command::SetMember {
                raft_id: id,
                member,
            };
            self.propose(hub, Purpose::Come, Proposal::Command(command));
        }
    }

    pub(super) fn registration(&self) -> Command {
        let at = endpoint(self.node);
        Command::RegisterNode {
            broker: self.me,
            directory: self.identity.directory,
            incarnation: self.incarnation,
            endpoints: Endpoints {
                kafka: at.clone(),
                kafka_tls: at.clone(),
                quic: at.clone(),
                peer: Some(at),
            },
            rack: None,
        }
    }

    pub(super) fn another(&self, hub: &mut Hub) -> BrokerId {
        let other = hub.random.below(self.voters as u64 - 1) as usize;
        let other = if other >= self.node { other + 1 } else { other };
        BrokerId(other as i32 + 1)
    }

    /// The node stops in order: others lead what it led, then its logs are closed.
    pub fn leave(&mut self, hub: &mut Hub) {
        if let Some(epoch) = self.image.brokers.get(&self.me).map(|b| b.epoch) {
            let command = Command::FenceBroker {
                broker: self.me,
                epoch,
                stops: true,
            };
            self.command(hub, command);
            self.step(hub, Input::HandOver);
        }
    }
}
