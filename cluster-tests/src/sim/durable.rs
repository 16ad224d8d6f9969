//! What must hold of a log on its disk when it is checkpointed and when it is opened.

use callboard_broker::storage::Log;
use callboard_broker::storage::log::Opened;
use callboard_common::Offset;

use super::context::{Cx, Files};

impl Files {
    /// I23: a log is checkpointed: what is noted as durable is.
    pub fn judge_checkpoint(&self, cx: &mut Cx<'_>, log: &Log) {
        let (noted, synced) = (log.recovery_point(), log.synced_end());
        if noted > synced {
            let (node, key) = (cx.node + 1, &self.key);
            cx.hub.truth.violate(|| {
                format!("I23: node {node} notes {key} as durable up to {noted}, synced is {synced}")
            });
        }
    }

    /// What of the log is durable for sure, as its next opening knows it.
    pub(super) fn known_durable(&self) -> Offset {
        let marks = self.files.checkpoints.marks(&self.key);
        let noted = marks.recovery_point.max(marks.log_start);
        let cut = self.files.outstanding.settled();
        cut.map_or(noted, |cut| noted.min(cut.max(marks.log_start)))
    }

    /// I23: a log was opened: what was durable is there, and is damaged only where the disk has rotted.
    pub(super) fn judge_opened(&self, cx: &mut Cx<'_>, durable: Offset, opened: &Opened) {
        let (node, key) = (cx.node + 1, &self.key);
        if let Some(part) = opened.quarantined.iter().find(|q| q.log_end < durable) {
            cx.hub.truth.violate(|| {
                format!("I23: node {node} takes {key} into quarantine from {} on, up to {durable} it was synced", part.log_end)
            });
        }
        if !opened.damaged.is_empty() && !cx.hub.rotten.contains(&cx.node) {
            cx.hub.truth.violate(|| {
                format!(
                    "I23: node {node} finds {key} damaged on a disk that has not rotted: {:?}",
                    opened.damaged
                )
            });
        }
    }
}
