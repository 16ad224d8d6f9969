//! What a node's controller decides, asks others and wants done.

use callboard_broker::controller::{
    Command, Effect, Input, Outcome, Proposal, QuorumChange, Refusal, Ticket,
};
use callboard_common::BrokerId;

use super::{ANSWER_PATIENCE, Purpose, Running, keeping};
use crate::sim::event::{Message, OfNode, Place};
use crate::sim::hub::Hub;

impl Running {
    /// Advances the controller.
    pub fn step(&mut self, hub: &mut Hub, input: Input) {
        let now = hub.clock(self.skew_ms);
        let Some(controller) = &mut self.controller else {
            // It waits in the mailbox of the actor that starts again; what belongs to the life that ended does not.
            let of_that_life = matches!(
                input,
                Input::Tick | Input::Persisted(_) | Input::Forwarded(..)
            );
            if !of_that_life {
                self.mailbox.push_back(input);
            }
            return;
        };
        let before = controller.contradictions();
        controller.step(now, input, &mut self.effects);
        if controller.contradictions() > before {
            let node = self.node + 1;
            hub.truth.violate(|| {
                format!(
                    "A25: another member of the quorum contradicts what node {node} has committed"
                )
            });
        }
        self.published.note_contact(controller.contact());
        self.settle(hub);
    }

    /// Does what the controller wants done, and what follows from its metadata.
    pub(super) fn settle(&mut self, hub: &mut Hub) {
        loop {
            while let Some(effect) = self.effects.pop_front() {
                self.perform(hub, effect);
            }
            if !std::mem::take(&mut self.image_changed) {
                break;
            }
            self.follow(hub);
        }
        self.write(hub);
    }

    pub(super) fn perform(&mut self, hub: &mut Hub, effect: Effect) {
        match effect {
            Effect::Persist(..) | Effect::Snapshot(..) => {
                hub.coverage.images += u64::from(matches!(effect, Effect::Snapshot(..)));
                self.writes.push_back(effect);
            }
            Effect::Answer(ticket, index, result) => self.answered(hub, ticket, index, result),
            Effect::Publish(image) => {
                hub.truth.image(self.node, &image);
                if self
                    .published
                    .show(image.clone(), hub.clock(self.skew_ms).monotonic)
                {
                    hub.coverage.isr_shrinks += keeping::shrinks(&self.image, &image);
                    self.image = image;
                    self.image_changed = true;
                }
            }
            Effect::Led(led) => {
                self.leads_quorum = led.here;
                if led.here {
                    let is_new = hub.truth.leads_quorum(led.term, self.me);
                    hub.coverage.quorum_leaders += u64::from(is_new);
                }
            }
            Effect::Send(to, message) => {
                let from = self.member();
                let to = Place::Node(to.broker.0 as usize - 1);
                hub.send(Place::Node(self.node), to, Message::Raft(from, message));
            }
            Effect::Forward(ticket, to, proposal) => {
                self.ask(hub, to.broker, Some(ticket), proposal, false);
            }
            Effect::TooNew(index) => panic!("entry {index} is of another release"),
            Effect::Outdated => panic!("a disk has less than was acknowledged"),
        }
    }

    /// Asks another node's controller.
    pub(super) fn ask(
        &mut self,
        hub: &mut Hub,
        to: BrokerId,
        ticket: Option<Ticket>,
        proposal: Proposal,
        relay: bool,
    ) {
        self.next_question += 1;
        let id = self.next_question;
        let _none = self.asked.insert(id, ticket);
        let message = Message::Propose {
            id,
            proposal,
            relay,
        };
        let to = Place::Node(to.0 as usize - 1);
        hub.send(Place::Node(self.node), to, message);
        self.later(hub, ANSWER_PATIENCE, OfNode::Unanswered(id));
    }

    /// What a question to another node came to.
    pub(super) fn heard(
        &mut self,
        hub: &mut Hub,
        id: u64,
        index: u64,
        result: Result<Outcome, Refusal>,
    ) {
        match self.asked.remove(&id) {
            Some(Some(ticket)) => self.step(hub, Input::Forwarded(ticket, index, result)),
            Some(None) => {
                self.comes = false;
                if let Err(Refusal::Replaces(old)) = result {
                    let proposal = Proposal::Quorum(QuorumChange::Remove(old));
                    let to = self.another(hub);
                    self.comes = true;
                    self.ask(hub, to, None, proposal, true);
                }
            }
            None => {}
        }
    }

    pub(super) fn propose(&mut self, hub: &mut Hub, purpose: Purpose, proposal: Proposal) {
        self.next_ticket += 1;
        let ticket = Ticket(self.next_ticket);
        drop(self.waiting.insert(ticket, purpose));
        self.step(hub, Input::Propose(ticket, proposal));
    }

    /// Asks for a change of the metadata; nobody waits for the answer.
    pub fn command(&mut self, hub: &mut Hub, command: Command) {
        self.propose(hub, Purpose::Nobody, Proposal::Command(command));
    }
}
