//! Committing offsets and looking them up.

use callboard_common::kafka::Text;
use callboard_common::{ErrorCode, Now, TopicPartition};

use super::group::GroupState;
use super::offsets::CommittedOffset;
use super::records::GroupRecord;
use super::state::{Commit, Coordinator, Effects, Pending, Ticket};
use crate::planted::{self, Bug};

impl Coordinator {
    pub(super) fn commit(
        &mut self,
        now: Now,
        ticket: Ticket,
        commit: Commit,
        out: &mut Effects,
    ) -> Option<Vec<ErrorCode>> {
        if let Err(error) = self.may_commit(now, &commit) {
            return Some(vec![error; commit.offsets.len()]);
        }
        self.schedule(&commit.group);
        let limit = self.config.offset_metadata_max_bytes;
        let mut answers = Vec::with_capacity(commit.offsets.len());
        let mut records = Vec::new();
        let group = commit.group.detached();
        for (partition, offset, epoch, metadata) in commit.offsets {
            if metadata.len() > limit {
                answers.push(ErrorCode::OffsetMetadataTooLarge);
                continue;
            }
            answers.push(ErrorCode::None);
            let committed_at = now.wall.0;
            let value = CommittedOffset {
                offset,
                epoch,
                metadata: metadata.detached(),
                committed_at,
            };
            records.push(GroupRecord::Offset {
                group: group.clone(),
                partition,
                value: Some(value),
            });
        }
        if records.is_empty() {
            return Some(answers);
        }
        self.write(Pending::Commit { ticket, answers }, records, out);
        None
    }

    pub(super) fn may_commit(&mut self, now: Now, commit: &Commit) -> Result<(), ErrorCode> {
        let Some(group) = self.groups.get_mut(&commit.group) else {
            // Without membership anybody may keep offsets under a name.
            return if commit.generation < 0 {
                Ok(())
            } else {
                Err(ErrorCode::IllegalGeneration)
            };
        };
        let without = commit.generation < 0 && commit.member.is_empty();
        if (without && group.members.is_empty()) || planted::is(Bug::GoneMemberCommits) {
            return Ok(());
        }
        let _known = group.member(&commit.member, commit.instance.as_ref())?;
        if commit.generation != group.generation {
            return Err(ErrorCode::IllegalGeneration);
        }
        if let Some(member) = group.members.get_mut(&commit.member) {
            member.heard_of(now.monotonic);
        }
        match group.state {
            // While others join, a member may still commit what it has done.
            GroupState::Stable | GroupState::PreparingRebalance => Ok(()),
            GroupState::CompletingRebalance => Err(ErrorCode::RebalanceInProgress),
            GroupState::Empty => Err(ErrorCode::UnknownMemberId),
        }
    }

    pub(super) fn offsets(
        &self,
        group: &Text,
        partitions: Option<Vec<TopicPartition>>,
    ) -> Vec<(TopicPartition, Option<CommittedOffset>)> {
        let offsets = self.groups.get(group).map(|g| &g.offsets);
        match partitions {
            Some(partitions) => {
                let find = |p: &TopicPartition| offsets.and_then(|o| o.get(p).cloned());
                partitions
                    .into_iter()
                    .map(|p| (p.clone(), find(&p)))
                    .collect()
            }
            None => offsets
                .into_iter()
                .flatten()
                .map(|(p, o)| (p.clone(), Some(o.clone())))
                .collect(),
        }
    }
}
