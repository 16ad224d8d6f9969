//! The pure core of a coordinator: all groups of one offsets partition.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use callboard_common::kafka::Text;
use callboard_common::protocol::groups::{
    Blob, DescribeGroups, DescribedGroups, GroupDescription, GroupListing, Heartbeat,
    HeartbeatAnswer, JoinedGroup, LeaveGroup, LeftGroup, SyncGroup, SyncedGroup,
};
use callboard_common::{ErrorCode, Monotonic, Now, Timestamp};

use super::group::{Group, GroupState};
pub use super::io::{
    Answer, Commit, Effect, Effects, GroupConfig, Input, Question, Ticket, WriteId,
};
use super::member::Member;
pub use super::offsets::CommittedOffset;
use super::records::GroupRecord;

/// How often offsets of groups without members are looked at (`offsets.retention.check.interval.ms`).
pub(super) const EXPIRY_INTERVAL: Duration = Duration::from_mins(10);

/// What happens when a write is durable.
#[derive(Clone, Debug)]
pub(super) enum Pending {
    Commit {
        ticket: Ticket,
        answers: Vec<ErrorCode>,
    },
    Assignment {
        group: Text,
        generation: i32,
        assignments: BTreeMap<Text, Blob>,
    },
    GroupDeletion(Ticket),
    OffsetDeletion {
        ticket: Ticket,
        answers: Vec<ErrorCode>,
    },
    Quiet,
    Rewrite,
}

/// The groups of one offsets partition.
#[derive(Debug)]
pub struct Coordinator {
    pub(super) config: GroupConfig,
    pub(super) groups: BTreeMap<Text, Group>,
    pub(super) deadlines: BTreeSet<(Monotonic, Text)>,
    pub(super) deadline_of: BTreeMap<Text, Monotonic>,
    pub(super) writes: BTreeMap<WriteId, (Pending, Vec<GroupRecord>)>,
    pub(super) next_write: u64,
    pub(super) expire_at: Monotonic,
    pub(super) rewrite_wanted: bool,
}

impl Coordinator {
    /// A coordinator without groups.
    #[must_use]
    pub fn new(config: GroupConfig, now: Now) -> Self {
        Self {
            config,
            groups: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            deadline_of: BTreeMap::new(),
            writes: BTreeMap::new(),
            next_write: 0,
            expire_at: now.monotonic.after(EXPIRY_INTERVAL),
            rewrite_wanted: false,
        }
    }

    /// Takes over a record of the log; the log in order gives the state that was durable.
    pub fn replay(&mut self, now: Now, record: GroupRecord) {
        let name = match &record {
            GroupRecord::Offset { group, .. } | GroupRecord::Group { group, .. } => group.clone(),
        };
        if let GroupRecord::Group { value, .. } = &record {
            let offsets = self
                .groups
                .remove(&name)
                .map(|g| g.offsets)
                .unwrap_or_default();
            if let Some(value) = value {
                let mut group = Group::restore(value.clone(), now.monotonic);
                group.offsets = offsets;
                drop(self.groups.insert(name.clone(), group));
            } else if !offsets.is_empty() {
                self.group(&name, now.wall).offsets = offsets;
            }
        } else {
            self.apply_offset(now.wall, record);
        }
        self.schedule(&name);
    }

    /// The only place that changes committed offsets.
    pub(super) fn apply_offset(&mut self, now: Timestamp, record: GroupRecord) {
        let GroupRecord::Offset {
            group: name,
            partition,
            value,
        } = record
        else {
            return;
        };
        let group = self.group(&name, now);
        match value {
            Some(value) => drop(group.offsets.insert(partition, value)),
            None => drop(group.offsets.remove(&partition)),
        }
        self.forget_if_unused(&name);
    }

    pub(super) fn group(&mut self, name: &Text, now: Timestamp) -> &mut Group {
        // The name outlives the request's buffer.
        self.groups
            .entry(name.detached())
            .or_insert_with(|| Group::new(now))
    }

    /// When [`Input::Tick`] is due.
    #[must_use]
    pub fn next_deadline(&self) -> Monotonic {
        self.deadlines
            .first()
            .map_or(self.expire_at, |(at, _)| (*at).min(self.expire_at))
    }

    pub(super) fn schedule(&mut self, name: &Text) {
        let deadline = self.groups.get(name).and_then(Group::next_deadline);
        if let Some(old) = self.deadline_of.remove(name) {
            let _was_there: bool = self.deadlines.remove(&(old, name.clone()));
        }
        if let Some(deadline) = deadline {
            let _is_new: bool = self.deadlines.insert((deadline, name.clone()));
            let _none = self.deadline_of.insert(name.clone(), deadline);
        }
    }

    /// Advances by one input and puts what must happen next into `out`, in order.
    ///
    /// # Panics
    ///
    /// Panics if an invariant of this module is broken; the supervisor then replays the partition.
    pub fn step(&mut self, now: Now, input: Input, out: &mut Effects) {
        match input {
            Input::Ask(ticket, question) => self.ask(now, ticket, *question, out),
            Input::Written { write, base } => self.written(now, write, base, out),
            Input::WriteFailed { write, error } => self.write_failed(now, write, error, out),
            Input::Rewrite => {
                let is_under_way = |(p, _): &(Pending, _)| matches!(p, Pending::Rewrite);
                self.rewrite_wanted |= !self.writes.values().any(is_under_way);
            }
            Input::Tick => self.tick(now, out),
        }
        self.maybe_rewrite(out);
    }

    fn ask(&mut self, now: Now, ticket: Ticket, question: Question, out: &mut Effects) {
        let answer = match question {
            Question::Join {
                join,
                client_id,
                client_host,
                new_member,
            } => {
                let name = join.group.clone();
                let joined = self.join(now, ticket, join, client_id, client_host, new_member, out);
                self.schedule(&name);
                joined.map(Answer::Joined)
            }
            Question::Sync(sync) => {
                let name = sync.group.clone();
                let synced = self.sync(now, ticket, sync, out);
                self.schedule(&name);
                synced.map(Answer::Synced)
            }
            Question::Heartbeat(heartbeat) => {
                let error = self
                    .heartbeat(now, &heartbeat)
                    .err()
                    .unwrap_or(ErrorCode::None);
                self.schedule(&heartbeat.group);
                Some(Answer::Heartbeat(HeartbeatAnswer { error }))
            }
            Question::Leave(leave) => {
                let left = self.leave(now, &leave, out);
                self.schedule(&leave.group);
                Some(Answer::Left(left))
            }
            Question::Commit(commit) => {
                self.commit(now, ticket, commit, out).map(Answer::Committed)
            }
            Question::Offsets { group, partitions } => {
                Some(Answer::Offsets(self.offsets(&group, partitions)))
            }
            Question::List => Some(Answer::Listed(self.list())),
            Question::Describe(describe) => Some(Answer::Described(self.describe(&describe))),
            Question::DeleteGroup(group) => {
                let refused = self.delete_group(ticket, &group, out).err();
                refused.map(Answer::Deleted)
            }
            Question::DeleteOffsets { group, partitions } => self
                .delete_offsets(ticket, &group, partitions, out)
                .map(Answer::OffsetsDeleted),
        };
        if let Some(answer) = answer {
            out.push_back(Effect::Answer(ticket, answer));
        }
    }

    pub(super) fn write(&mut self, pending: Pending, records: Vec<GroupRecord>, out: &mut Effects) {
        self.next_write += 1;
        let write = WriteId(self.next_write);
        drop(self.writes.insert(write, (pending, records.clone())));
        out.push_back(Effect::Write { write, records });
    }

    fn sync(
        &mut self,
        now: Now,
        ticket: Ticket,
        sync: SyncGroup,
        out: &mut Effects,
    ) -> Option<SyncedGroup> {
        let refuse = |error| Some(refused_sync(error));
        let Some(group) = self.groups.get_mut(&sync.group) else {
            return refuse(ErrorCode::UnknownMemberId);
        };
        if let Err(error) = group.member(&sync.member, sync.instance.as_ref()) {
            return refuse(error);
        }
        if sync.generation != group.generation {
            return refuse(ErrorCode::IllegalGeneration);
        }
        let other_type = sync
            .protocol_type
            .as_ref()
            .is_some_and(|t| *t != group.protocol_type);
        let other_protocol = sync.protocol.is_some() && sync.protocol != group.protocol;
        if other_type || other_protocol {
            return refuse(ErrorCode::InconsistentGroupProtocol);
        }
        let leads = group.leader.as_ref() == Some(&sync.member);
        let (protocol_type, protocol) = (Some(group.protocol_type.clone()), group.protocol.clone());
        let state = group.state;
        let member = group.members.get_mut(&sync.member)?;
        member.heard_of(now.monotonic);
        match state {
            GroupState::Empty => refuse(ErrorCode::UnknownMemberId),
            GroupState::PreparingRebalance => refuse(ErrorCode::RebalanceInProgress),
            GroupState::Stable => {
                let assignment = member.assignment.clone();
                Some(SyncedGroup {
                    error: ErrorCode::None,
                    protocol_type,
                    protocol,
                    assignment,
                })
            }
            GroupState::CompletingRebalance => {
                if let Some(old) = member.syncing.replace(ticket) {
                    let answer = Answer::Synced(refused_sync(ErrorCode::RebalanceInProgress));
                    out.push_back(Effect::Answer(old, answer));
                }
                if leads && !group.assigning {
                    group.assigning = true;
                    let given = sync
                        .assignments
                        .iter()
                        .map(|(m, a)| (m.detached(), detached(a)));
                    let assignments: BTreeMap<Text, Blob> = given.collect();
                    let value = Some(group.value(&assignments));
                    let (name, generation) = (sync.group.detached(), group.generation);
                    let record = GroupRecord::Group {
                        group: name.clone(),
                        value,
                    };
                    self.write(
                        Pending::Assignment {
                            group: name,
                            generation,
                            assignments,
                        },
                        vec![record],
                        out,
                    );
                }
                None
            }
        }
    }

    /// The leader's assignment is durable: the generation is stable.
    pub(super) fn assigned(
        &mut self,
        now: Now,
        name: &Text,
        generation: i32,
        assignments: &BTreeMap<Text, Blob>,
        out: &mut Effects,
    ) {
        let Some(group) = self.groups.get_mut(name) else {
            return;
        };
        // A rebalance may have begun meanwhile; its members were told.
        if group.generation != generation || group.state != GroupState::CompletingRebalance {
            return;
        }
        group.state = GroupState::Stable;
        group.assigning = false;
        group.rebalance_ends = None;
        for member in group.members.values_mut() {
            member.assignment = assignments.get(&member.id).cloned().unwrap_or_default();
            if let Some(ticket) = member.syncing.take() {
                member.heard_of(now.monotonic);
                let answer = SyncedGroup {
                    error: ErrorCode::None,
                    protocol_type: Some(group.protocol_type.clone()),
                    protocol: group.protocol.clone(),
                    assignment: member.assignment.clone(),
                };
                out.push_back(Effect::Answer(ticket, Answer::Synced(answer)));
            }
        }
    }

    fn heartbeat(&mut self, now: Now, heartbeat: &Heartbeat) -> Result<(), ErrorCode> {
        let group = self
            .groups
            .get_mut(&heartbeat.group)
            .ok_or(ErrorCode::UnknownMemberId)?;
        let _known = group.member(&heartbeat.member, heartbeat.instance.as_ref())?;
        if heartbeat.generation != group.generation {
            return Err(ErrorCode::IllegalGeneration);
        }
        if let Some(member) = group.members.get_mut(&heartbeat.member) {
            member.heard_of(now.monotonic);
        }
        match group.state {
            GroupState::Empty => Err(ErrorCode::UnknownMemberId),
            GroupState::PreparingRebalance => Err(ErrorCode::RebalanceInProgress),
            GroupState::CompletingRebalance | GroupState::Stable => Ok(()),
        }
    }

    fn leave(&mut self, now: Now, leave: &LeaveGroup, out: &mut Effects) -> LeftGroup {
        let Some(group) = self.groups.get_mut(&leave.group) else {
            let unknown =
                |(m, i): &(Text, Option<Text>)| (m.clone(), i.clone(), ErrorCode::UnknownMemberId);
            return LeftGroup {
                error: ErrorCode::None,
                members: leave.members.iter().map(unknown).collect(),
            };
        };
        let mut members = Vec::with_capacity(leave.members.len());
        let mut gone = Vec::new();
        for (id, instance) in &leave.members {
            // A static member may be named by its instance alone.
            let id_or_current = match instance {
                Some(instance) if id.is_empty() => {
                    group.instances.get(instance).cloned().unwrap_or_default()
                }
                Some(_) | None => id.clone(),
            };
            let error = if instance.is_none() && group.promised.remove(&id_or_current).is_some() {
                ErrorCode::None
            } else {
                match group.member(&id_or_current, instance.as_ref()) {
                    Ok(_) => {
                        gone.extend(group.remove(&id_or_current));
                        ErrorCode::None
                    }
                    Err(error) => error,
                }
            };
            members.push((id.clone(), instance.clone(), error));
        }
        let name = leave.group.detached();
        self.dismiss(now, &name, gone, out);
        self.maybe_begin(now, &name, out);
        LeftGroup {
            error: ErrorCode::None,
            members,
        }
    }

    /// Answers members that were removed and lets the rest join again.
    pub(super) fn dismiss(&mut self, now: Now, name: &Text, gone: Vec<Member>, out: &mut Effects) {
        if gone.is_empty() {
            return;
        }
        for member in gone {
            if let Some(ticket) = member.joining {
                let answer = refused_join(&member.id, ErrorCode::UnknownMemberId);
                out.push_back(Effect::Answer(ticket, Answer::Joined(answer)));
            }
            if let Some(ticket) = member.syncing {
                out.push_back(Effect::Answer(
                    ticket,
                    Answer::Synced(refused_sync(ErrorCode::UnknownMemberId)),
                ));
            }
        }
        self.rebalance(now, name, out);
        self.maybe_begin(now, name, out);
    }

    fn list(&self) -> Vec<GroupListing> {
        let listing = |(name, group): (&Text, &Group)| GroupListing {
            group: name.clone(),
            protocol_type: group.protocol_type.clone(),
            state: Text::from_static(group.state.name()),
        };
        self.groups.iter().map(listing).collect()
    }

    fn describe(&self, describe: &DescribeGroups) -> DescribedGroups {
        let dead = |name: &Text| GroupDescription {
            error: ErrorCode::None,
            group: name.clone(),
            state: Text::from_static("Dead"),
            protocol_type: Text::default(),
            protocol: Text::default(),
            generation: -1,
            members: Vec::new(),
        };
        let one = |name: &Text| {
            self.groups
                .get(name)
                .map_or_else(|| dead(name), |g| g.describe(name))
        };
        DescribedGroups {
            groups: describe.groups.iter().map(one).collect(),
        }
    }
}

pub(super) fn detached(blob: &Blob) -> Blob {
    Blob(bytes::Bytes::copy_from_slice(&blob.0))
}

pub(super) fn refused_join(member: &Text, error: ErrorCode) -> JoinedGroup {
    JoinedGroup {
        error,
        generation: -1,
        protocol_type: None,
        protocol: None,
        leader: Text::default(),
        member: member.clone(),
        skip_assignment: false,
        members: Vec::new(),
    }
}

pub(super) fn refused_sync(error: ErrorCode) -> SyncedGroup {
    SyncedGroup {
        error,
        protocol_type: None,
        protocol: None,
        assignment: Blob::default(),
    }
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;
