//! Acknowledgements that wait until their records are durable; pure.

use std::collections::VecDeque;

use callboard_common::Offset;

use super::state::{Appended, Ticket};

/// Waiting acknowledgements, by the offset that must be passed: a log's order is theirs.
#[derive(Debug, Default)]
pub(super) struct DelayedAcks(VecDeque<(Offset, Ticket, Appended)>);

impl DelayedAcks {
    /// Waits until the high watermark reaches `end`.
    pub(super) fn wait(&mut self, end: Offset, ticket: Ticket, appended: Appended) {
        // A duplicate waits for an earlier end than what was appended since: it takes its place by offset.
        let at = self.0.partition_point(|(e, ..)| *e <= end);
        self.0.insert(at, (end, ticket, appended));
    }

    /// Takes the next one that `high_watermark` has reached.
    pub(super) fn pop(&mut self, high_watermark: Offset) -> Option<(Ticket, Appended)> {
        let (_, ticket, appended) = self.0.pop_front_if(|(end, ..)| *end <= high_watermark)?;
        Some((ticket, appended))
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}
