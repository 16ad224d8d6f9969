//! What happens when records are durable, or are not.

use callboard_common::{ErrorCode, Now, Offset, TopicPartition};

use super::io::{Answer, Effect, Effects, WriteId};
use super::offsets::CommittedOffset;
use super::records::GroupRecord;
use super::state::{Coordinator, Pending};

impl Coordinator {
    pub(super) fn written(&mut self, now: Now, write: WriteId, base: Offset, out: &mut Effects) {
        let Some((pending, records)) = self.writes.remove(&write) else {
            return;
        };
        self.note_durable(&records);
        match pending {
            Pending::Commit { ticket, answers } => {
                for record in records {
                    self.apply_offset(now.wall, record);
                }
                out.push_back(Effect::Answer(ticket, Answer::Committed(answers)));
            }
            Pending::Assignment {
                group,
                generation,
                assignments,
            } => {
                self.assigned(now, &group, generation, &assignments, out);
                self.schedule(&group);
            }
            Pending::GroupDeletion(ticket) => {
                self.apply_deletion(now, records);
                let answer = Answer::Deleted(ErrorCode::None);
                out.push_back(Effect::Answer(ticket, answer));
            }
            Pending::OffsetDeletion { ticket, answers } => {
                self.apply_deletion(now, records);
                let answer = Answer::OffsetsDeleted(Ok(answers));
                out.push_back(Effect::Answer(ticket, answer));
            }
            Pending::Quiet => {
                // A group that still is was changed in memory when this was written.
                let goes =
                    |r: &GroupRecord| !matches!(r, GroupRecord::Group { value: Some(_), .. });
                self.apply_deletion(now, records.into_iter().filter(goes).collect());
            }
            Pending::Rewrite => out.push_back(Effect::DeleteBefore(base)),
        }
    }

    /// What the log says of groups now. A rewrite says the same again.
    fn note_durable(&mut self, records: &[GroupRecord]) {
        for record in records {
            if let GroupRecord::Group { group, value } = record
                && let Some(group) = self.groups.get_mut(group)
            {
                group.durable.clone_from(value);
            }
        }
    }

    pub(super) fn write_failed(
        &mut self,
        now: Now,
        write: WriteId,
        error: ErrorCode,
        out: &mut Effects,
    ) {
        let Some((pending, _)) = self.writes.remove(&write) else {
            return;
        };
        match pending {
            Pending::Commit { ticket, answers } => {
                let answers = vec![error; answers.len()];
                out.push_back(Effect::Answer(ticket, Answer::Committed(answers)));
            }
            Pending::Assignment {
                group, generation, ..
            } => {
                let is_current = self
                    .groups
                    .get(&group)
                    .is_some_and(|g| g.generation == generation);
                if is_current {
                    self.rebalance(now, &group, out);
                    self.schedule(&group);
                }
            }
            Pending::GroupDeletion(ticket) => {
                out.push_back(Effect::Answer(ticket, Answer::Deleted(error)));
            }
            Pending::OffsetDeletion { ticket, .. } => {
                let answer = Answer::OffsetsDeleted(Err(error));
                out.push_back(Effect::Answer(ticket, answer));
            }
            Pending::Quiet | Pending::Rewrite => {}
        }
    }

    /// Writes all live state anew, once nothing else is on its way: then all that is below is not needed.
    pub(super) fn maybe_rewrite(&mut self, out: &mut Effects) {
        if !self.rewrite_wanted || !self.writes.is_empty() {
            return;
        }
        self.rewrite_wanted = false;
        let mut records = Vec::new();
        for (name, group) in &self.groups {
            if let Some(durable) = &group.durable {
                records.push(GroupRecord::Group {
                    group: name.clone(),
                    value: Some(durable.clone()),
                });
            }
            let offset =
                |(partition, value): (&TopicPartition, &CommittedOffset)| GroupRecord::Offset {
                    group: name.clone(),
                    partition: partition.clone(),
                    value: Some(value.clone()),
                };
            records.extend(group.offsets.iter().map(offset));
        }
        if !records.is_empty() {
            self.write(Pending::Rewrite, records, out);
        }
    }
}
