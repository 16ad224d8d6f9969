//! Who is alive, as the active controller sees it: whoever said something lately; pure.

use std::collections::BTreeMap;
use std::time::Duration;

use callboard_common::{BrokerId, Monotonic};

use super::image::{MetadataImage, Standing};
use super::records::Command;
use super::state::raft_id;

/// A node that says nothing for so long is taken to be dead (`broker.session.timeout.ms`).
pub(super) const SESSION: Duration = Duration::from_secs(1);
/// One that was silent and was heard of so lately is alive again.
const FRESH: Duration = Duration::from_millis(300);

/// When members were heard of, kept by the leader of the quorum.
#[derive(Debug, Default)]
pub(super) struct Liveness {
    /// Since when this member leads: nobody is judged by what was before.
    since: Monotonic,
    heard: BTreeMap<u64, Monotonic>,
    /// Nodes whose process is known to have ended, and the incarnation that it was.
    dead: BTreeMap<BrokerId, i64>,
    /// Incarnations that were judged, and what they were judged to be.
    judged: BTreeMap<BrokerId, (i64, Standing)>,
}

impl Liveness {
    /// This member leads from now on.
    pub(super) fn begin(&mut self, now: Monotonic) {
        self.since = now;
        self.judged.clear();
    }

    pub(super) fn heard(&mut self, raft_id: u64, now: Monotonic) {
        let _before = self.heard.insert(raft_id, now);
    }

    pub(super) fn last(&self, raft_id: u64) -> Option<Monotonic> {
        self.heard.get(&raft_id).copied()
    }

    /// Whether a member was heard of lately.
    pub(super) fn is_heard(&self, raft_id: u64, now: Monotonic) -> bool {
        let last = self.last(raft_id);
        last.is_some_and(|at| now.since(at) < FRESH)
    }

    /// The node's process has ended; the next start is another incarnation.
    pub(super) fn died(&mut self, broker: BrokerId, epoch: i64) {
        let _before = self.dead.insert(broker, epoch);
    }

    /// What the metadata must say of nodes by now.
    pub(super) fn judge(
        &mut self,
        now: Monotonic,
        me: BrokerId,
        image: &MetadataImage,
    ) -> Vec<Command> {
        let mut commands = Vec::new();
        for (broker, node) in &image.brokers {
            let id = raft_id(&node.directory);
            // Who leads hears itself: it may have been silent for an earlier leader.
            let last = match *broker == me {
                true => Some(now),
                false => self.heard.get(&id).copied(),
            };
            let dead = *broker != me && self.dead.get(broker) == Some(&node.epoch);
            let silent_since = last.unwrap_or(self.since).max(self.since);
            let verdict = match node.standing {
                Standing::Alive if dead || now.since(silent_since) > SESSION => Standing::Silent,
                Standing::Silent if !dead && last.is_some_and(|l| now.since(l) < FRESH) => {
                    Standing::Alive
                }
                Standing::Alive | Standing::Silent | Standing::Stopped => {
                    let _old = self.judged.remove(broker);
                    continue;
                }
            };
            // Proposed already, and not yet applied.
            if self.judged.insert(*broker, (node.epoch, verdict)) == Some((node.epoch, verdict)) {
                continue;
            }
            let (broker, epoch) = (*broker, node.epoch);
            commands.push(match verdict {
                Standing::Alive => Command::UnfenceBroker { broker, epoch },
                Standing::Silent | Standing::Stopped => Command::FenceBroker {
                    broker,
                    epoch,
                    stops: false,
                },
            });
        }
        // What was known of an old incarnation does not concern a new one.
        self.dead
            .retain(|b, epoch| image.brokers.get(b).is_some_and(|n| n.epoch == *epoch));
        commands
    }
}
