//! One member of a group; pure.

use std::time::Duration;

use callboard_common::Monotonic;
use callboard_common::kafka::Text;
use callboard_common::protocol::groups::Blob;

use super::state::Ticket;

/// What a coordinator knows of a member.
#[derive(Clone, Debug)]
pub(super) struct Member {
    pub(super) id: Text,
    pub(super) instance: Option<Text>,
    pub(super) client_id: Text,
    pub(super) client_host: Text,
    pub(super) session_timeout: Duration,
    pub(super) rebalance_timeout: Duration,
    pub(super) protocols: Vec<(Text, Blob)>,
    pub(super) assignment: Blob,
    /// Without a sign of life it is removed then.
    pub(super) session_ends: Monotonic,
    /// Waits for the generation to begin.
    pub(super) joining: Option<Ticket>,
    /// Waits for its assignment.
    pub(super) syncing: Option<Ticket>,
}

impl Member {
    /// The member's subscription for an assignor.
    pub(super) fn subscription(&self, protocol: &str) -> Blob {
        self.protocols
            .iter()
            .find(|(name, _)| *name == protocol)
            .map(|(_, s)| s.clone())
            .unwrap_or_default()
    }

    /// A sign of life at `now`.
    pub(super) fn heard_of(&mut self, now: Monotonic) {
        self.session_ends = now.after(self.session_timeout);
    }

    /// Whether its session ends by silence: while it waits for the others it is not silent.
    pub(super) fn is_expired(&self, now: Monotonic) -> bool {
        self.joining.is_none() && self.syncing.is_none() && self.session_ends <= now
    }
}
