//! What a node's controller writes, and what becomes of the controller when that fails.

use callboard_broker::controller::{Input, Refusal, Ticket};
use callboard_common::Monotonic;

use super::Running;
use crate::sim::event::OfNode;
use crate::sim::hub::Hub;
use crate::sim::plan::MS;

impl Running {
    /// Begins the next write of the metadata log.
    pub(super) fn write(&mut self, hub: &mut Hub) {
        if self.writing.is_none() && self.metadata_log.is_some() {
            self.writing = self.writes.pop_front();
            if self.writing.is_some() {
                let time = hub.sync_time(self.node);
                self.later(hub, time, OfNode::Written);
            }
        }
    }

    pub(super) fn written(&mut self, hub: &mut Hub) {
        let (Some(log), Some(effect)) = (&mut self.metadata_log, self.writing.take()) else {
            return;
        };
        let (number, result) = log.write(effect);
        if let Err(error) = result {
            hub.remember(&format!(
                "node {}: metadata cannot be written: {error}",
                self.node + 1
            ));
            return self.controller_failed(hub);
        }
        match number {
            Some(number) => self.step(hub, Input::Persisted(number)),
            None => self.write(hub),
        }
    }

    /// The controller starts again over what the disk has; nobody who waits is answered.
    pub(super) fn controller_failed(&mut self, hub: &mut Hub) {
        (self.controller, self.metadata_log) = (None, None);
        self.published.note_contact(Monotonic::default());
        self.writes.clear();
        self.effects.clear();
        // Answers to an earlier life are not heard.
        self.asked.retain(|_, ticket| ticket.is_none());
        for purpose in std::mem::take(&mut self.waiting).into_values() {
            self.next_ticket += 1;
            let ticket = Ticket(self.next_ticket);
            drop(self.waiting.insert(ticket, purpose));
            self.answered(hub, ticket, 0, Err(Refusal::Stopped));
        }
        self.later(hub, 20 * MS, OfNode::RestartController);
    }
}
