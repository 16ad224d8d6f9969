//! Deleting groups and offsets of groups (KIP-229, KIP-496).

use std::collections::BTreeSet;

use callboard_common::kafka::{Decoder, Text};
use callboard_common::protocol::groups::Blob;
use callboard_common::{ErrorCode, Now, TopicPartition};

use super::group::{Group, GroupState};
use super::io::{Effects, Ticket};
use super::records::GroupRecord;
use super::state::{Coordinator, Pending};

impl Coordinator {
    /// Forgets a group without members; answered when that is durable.
    pub(super) fn delete_group(
        &mut self,
        ticket: Ticket,
        name: &Text,
        out: &mut Effects,
    ) -> Result<(), ErrorCode> {
        let group = self.groups.get(name).ok_or(ErrorCode::GroupIdNotFound)?;
        if group.state != GroupState::Empty || !group.members.is_empty() {
            return Err(ErrorCode::NonEmptyGroup);
        }
        let name = name.detached();
        let mut records = forget(&name, group.offsets.keys());
        records.push(GroupRecord::Group {
            group: name,
            value: None,
        });
        self.write(Pending::GroupDeletion(ticket), records, out);
        Ok(())
    }

    /// Forgets offsets, except of topics that members read; answered when that is durable.
    pub(super) fn delete_offsets(
        &mut self,
        ticket: Ticket,
        name: &Text,
        partitions: Vec<TopicPartition>,
        out: &mut Effects,
    ) -> Option<Result<Vec<ErrorCode>, ErrorCode>> {
        let Some(group) = self.groups.get(name) else {
            return Some(Err(ErrorCode::GroupIdNotFound));
        };
        let Some(read) = topics_read(group) else {
            return Some(Err(ErrorCode::NonEmptyGroup));
        };
        let answer = |p: &TopicPartition| match read.contains(p.topic.as_str()) {
            true => ErrorCode::GroupSubscribedToTopic,
            false => ErrorCode::None,
        };
        let answers: Vec<ErrorCode> = partitions.iter().map(answer).collect();
        let gone = partitions
            .iter()
            .zip(&answers)
            .filter(|(p, e)| **e == ErrorCode::None && group.offsets.contains_key(*p));
        let records = forget(&name.detached(), gone.map(|(p, _)| p));
        if records.is_empty() {
            return Some(Ok(answers));
        }
        self.write(Pending::OffsetDeletion { ticket, answers }, records, out);
        None
    }

    pub(super) fn apply_deletion(&mut self, now: Now, records: Vec<GroupRecord>) {
        for record in records {
            match record {
                GroupRecord::Offset { .. } => self.apply_offset(now.wall, record),
                // Who has joined meanwhile stays; the next assignment writes the group anew.
                GroupRecord::Group { group, .. } if self.is_unused(&group) => {
                    drop(self.groups.remove(&group));
                }
                GroupRecord::Group { .. } => {}
            }
        }
    }
}

fn forget<'a>(
    group: &Text,
    partitions: impl Iterator<Item = &'a TopicPartition>,
) -> Vec<GroupRecord> {
    let record = |partition: &TopicPartition| GroupRecord::Offset {
        group: group.clone(),
        partition: partition.clone(),
        value: None,
    };
    partitions.map(record).collect()
}

/// The topics that members read; `None` if they do something that only they understand.
fn topics_read(group: &Group) -> Option<BTreeSet<String>> {
    if group.members.is_empty() {
        return Some(BTreeSet::new());
    }
    if &*group.protocol_type != "consumer" {
        return None;
    }
    let mut topics = BTreeSet::new();
    for (_, subscription) in group.members.values().flat_map(|m| &m.protocols) {
        topics.extend(subscribed(subscription)?);
    }
    Some(topics)
}

/// The topics of a consumer's subscription: a version, then their names.
fn subscribed(subscription: &Blob) -> Option<Vec<String>> {
    let mut decoder = Decoder::new(subscription.0.clone());
    let _version = decoder.i16().ok()?;
    let topic = |d: &mut Decoder| {
        d.text(false)?
            .ok_or(callboard_common::kafka::DecodeError::UnexpectedNull)
    };
    let topics = decoder.array(false, 2, topic).ok()??;
    Some(topics.iter().map(ToString::to_string).collect())
}
