//! One consumer group's state machine; pure.
//!
//! ```text
//! Empty -> PreparingRebalance -> CompletingRebalance -> Stable
//!            ^   all joined, or time      leader's assignment is durable
//!            +---- a member joins, leaves, or falls silent ----+
//! ```

use std::collections::BTreeMap;
use std::time::Duration;

use callboard_common::kafka::Text;
use callboard_common::protocol::groups::{Blob, GroupDescription, JoinedGroup, MemberDescription};
use callboard_common::{ErrorCode, Monotonic, Timestamp};

use super::member::Member;
use super::offsets::Offsets;
use super::records::{GroupValue, MemberValue};
use super::state::Ticket;

/// Where a group is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum GroupState {
    Empty,
    PreparingRebalance,
    CompletingRebalance,
    Stable,
}

impl GroupState {
    /// Kafka's name.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Empty => "Empty",
            Self::PreparingRebalance => "PreparingRebalance",
            Self::CompletingRebalance => "CompletingRebalance",
            Self::Stable => "Stable",
        }
    }
}

/// A group: its members, its generation, its offsets.
#[derive(Clone, Debug)]
pub(super) struct Group {
    pub(super) state: GroupState,
    pub(super) generation: i32,
    pub(super) protocol_type: Text,
    pub(super) protocol: Option<Text>,
    pub(super) leader: Option<Text>,
    pub(super) members: BTreeMap<Text, Member>,
    /// Static members by instance.
    pub(super) instances: BTreeMap<Text, Text>,
    /// Ids that were given out, until when they may be used to join.
    pub(super) promised: BTreeMap<Text, Monotonic>,
    pub(super) offsets: Offsets,
    /// The rebalance goes on without those who have not joined or synced by then.
    pub(super) rebalance_ends: Option<Monotonic>,
    /// A first rebalance waits at least until then, so that members that start together join together.
    pub(super) initial_wait_ends: Option<Monotonic>,
    /// When the state changed last.
    pub(super) changed_at: Timestamp,
    /// The leader's assignment is on its way to the log.
    pub(super) assigning: bool,
    /// What the log says of the group, whatever has begun since.
    pub(super) durable: Option<GroupValue>,
}

impl Group {
    pub(super) fn new(now: Timestamp) -> Self {
        Self {
            state: GroupState::Empty,
            generation: 0,
            protocol_type: Text::default(),
            protocol: None,
            leader: None,
            members: BTreeMap::new(),
            instances: BTreeMap::new(),
            promised: BTreeMap::new(),
            offsets: Offsets::new(),
            rebalance_ends: None,
            initial_wait_ends: None,
            changed_at: now,
            assigning: false,
            durable: None,
        }
    }

    /// A group as its last record says; sessions begin at `now`.
    pub(super) fn restore(value: GroupValue, now: Monotonic) -> Self {
        let mut group = Self::new(Timestamp(value.changed_at));
        group.durable = Some(value.clone());
        let ms = |ms: i32| Duration::from_millis(u64::try_from(ms).unwrap_or(0));
        for m in value.members {
            let protocol = value.protocol.clone().unwrap_or_default();
            let mut member = Member {
                id: m.id.clone(),
                instance: m.instance.clone(),
                client_id: m.client_id,
                client_host: m.client_host,
                session_timeout: ms(m.session_timeout),
                rebalance_timeout: ms(m.rebalance_timeout),
                protocols: vec![(protocol, m.subscription)],
                assignment: m.assignment,
                session_ends: now,
                joining: None,
                syncing: None,
            };
            member.heard_of(now);
            group.add(member);
        }
        group.state = if group.members.is_empty() {
            GroupState::Empty
        } else {
            GroupState::Stable
        };
        group.generation = value.generation;
        group.protocol_type = value.protocol_type;
        group.protocol = value.protocol;
        group.leader = value.leader;
        group
    }

    /// The group as it is written; `assignments` are those of the generation that begins.
    pub(super) fn value(&self, assignments: &BTreeMap<Text, Blob>) -> GroupValue {
        let ms = |d: Duration| i32::try_from(d.as_millis()).unwrap_or(i32::MAX);
        let protocol = self.protocol.clone().unwrap_or_default();
        let member = |m: &Member| MemberValue {
            id: m.id.clone(),
            instance: m.instance.clone(),
            client_id: m.client_id.clone(),
            client_host: m.client_host.clone(),
            rebalance_timeout: ms(m.rebalance_timeout),
            session_timeout: ms(m.session_timeout),
            subscription: m.subscription(&protocol),
            assignment: assignments.get(&m.id).cloned().unwrap_or_default(),
        };
        GroupValue {
            protocol_type: self.protocol_type.clone(),
            generation: self.generation,
            protocol: self.protocol.clone(),
            leader: self.leader.clone(),
            changed_at: self.changed_at.0,
            members: self.members.values().map(member).collect(),
        }
    }

    /// The assignments that are in force.
    pub(super) fn assignments(&self) -> BTreeMap<Text, Blob> {
        self.members
            .values()
            .map(|m| (m.id.clone(), m.assignment.clone()))
            .collect()
    }

    pub(super) fn add(&mut self, member: Member) {
        if self.leader.is_none() {
            self.leader = Some(member.id.clone());
        }
        if let Some(instance) = &member.instance {
            let _before = self.instances.insert(instance.clone(), member.id.clone());
        }
        drop(self.members.insert(member.id.clone(), member));
    }

    pub(super) fn remove(&mut self, id: &str) -> Option<Member> {
        let member = self.members.remove(id)?;
        if let Some(instance) = &member.instance
            && self.instances.get(instance) == Some(&member.id)
        {
            let _gone = self.instances.remove(instance);
        }
        if self.leader.as_ref() == Some(&member.id) {
            self.leader = self.members.keys().next().cloned();
        }
        Some(member)
    }

    /// Finds the member that a request speaks for.
    pub(super) fn member(&self, id: &str, instance: Option<&Text>) -> Result<&Member, ErrorCode> {
        if let Some(instance) = instance {
            match self.instances.get(instance) {
                None => return Err(ErrorCode::UnknownMemberId),
                Some(current) if *current != id => return Err(ErrorCode::FencedInstanceId),
                Some(_) => {}
            }
        }
        self.members.get(id).ok_or(ErrorCode::UnknownMemberId)
    }

    /// Whether a member with these protocols can be in the group.
    pub(super) fn supports(&self, protocol_type: &Text, protocols: &[(Text, Blob)]) -> bool {
        if protocol_type.is_empty() || protocols.is_empty() {
            return false;
        }
        if self.members.is_empty() {
            return true;
        }
        let all_know = |name: &Text| {
            self.members
                .values()
                .all(|m| m.protocols.iter().any(|(n, _)| n == name))
        };
        self.protocol_type == *protocol_type && protocols.iter().any(|(name, _)| all_know(name))
    }

    /// The assignor that most members prefer among those that all support.
    fn elect_protocol(&self) -> Option<Text> {
        let known = |name: &Text| {
            self.members
                .values()
                .all(|m| m.protocols.iter().any(|(n, _)| n == name))
        };
        let mut votes: BTreeMap<&Text, usize> = BTreeMap::new();
        for member in self.members.values() {
            if let Some((name, _)) = member.protocols.iter().find(|(name, _)| known(name)) {
                *votes.entry(name).or_default() += 1;
            }
        }
        votes
            .into_iter()
            .max_by_key(|(_, count)| *count)
            .map(|(name, _)| name.clone())
    }

    /// The longest that a member may take to join again.
    pub(super) fn rebalance_timeout(&self) -> Duration {
        self.members
            .values()
            .map(|m| m.rebalance_timeout)
            .max()
            .unwrap_or_default()
    }

    pub(super) fn all_joined(&self) -> bool {
        self.promised.is_empty() && self.members.values().all(|m| m.joining.is_some())
    }

    /// Begins a generation with the members that have joined; those who wait for it are returned with their
    /// answers.
    pub(super) fn begin_generation(
        &mut self,
        now: Monotonic,
        wall: Timestamp,
    ) -> Vec<(Ticket, JoinedGroup)> {
        let silent = |m: &&Member| m.joining.is_none() && m.instance.is_none();
        let gone: Vec<Text> = self
            .members
            .values()
            .filter(silent)
            .map(|m| m.id.clone())
            .collect();
        gone.iter().for_each(|id| drop(self.remove(id)));
        // A static member that is away keeps its place, but cannot lead.
        let is_there = |id: &Text| self.members.get(id).is_some_and(|m| m.joining.is_some());
        if !self.leader.as_ref().is_some_and(is_there) {
            let joined = self.members.values().find(|m| m.joining.is_some());
            self.leader = joined.map(|m| m.id.clone()).or_else(|| self.leader.clone());
        }
        self.generation = self.generation.checked_add(1).unwrap_or(1);
        self.changed_at = wall;
        self.initial_wait_ends = None;
        if self.members.is_empty() {
            self.state = GroupState::Empty;
            self.protocol = None;
            self.leader = None;
            self.rebalance_ends = None;
            return Vec::new();
        }
        self.state = GroupState::CompletingRebalance;
        self.protocol = self.elect_protocol();
        self.rebalance_ends = Some(now.after(self.rebalance_timeout()));
        let tickets: Vec<_> = self
            .members
            .values_mut()
            .filter_map(|m| Some((m.joining.take()?, m.id.clone())))
            .collect();
        for member in self.members.values_mut() {
            member.heard_of(now);
        }
        tickets
            .into_iter()
            .map(|(ticket, id)| (ticket, self.joined(&id)))
            .collect()
    }

    /// What a member is told about the generation.
    pub(super) fn joined(&self, id: &Text) -> JoinedGroup {
        let protocol = self.protocol.clone().unwrap_or_default();
        let leads = self.leader.as_ref() == Some(id);
        let listed = |m: &Member| (m.id.clone(), m.instance.clone(), m.subscription(&protocol));
        JoinedGroup {
            error: ErrorCode::None,
            generation: self.generation,
            protocol_type: Some(self.protocol_type.clone()),
            protocol: self.protocol.clone(),
            leader: self.leader.clone().unwrap_or_default(),
            member: id.clone(),
            skip_assignment: false,
            members: if leads {
                self.members.values().map(listed).collect()
            } else {
                Vec::new()
            },
        }
    }

    /// When something happens without anybody asking.
    pub(super) fn next_deadline(&self) -> Option<Monotonic> {
        let sessions = self
            .members
            .values()
            .filter(|m| m.joining.is_none() && m.syncing.is_none());
        let sessions = sessions.map(|m| m.session_ends).min();
        let promised = self.promised.values().min().copied();
        [
            sessions,
            promised,
            self.rebalance_ends,
            self.initial_wait_ends,
        ]
        .into_iter()
        .flatten()
        .min()
    }

    pub(super) fn describe(&self, name: &Text) -> GroupDescription {
        let member = |m: &Member| MemberDescription {
            member: m.id.clone(),
            instance: m.instance.clone(),
            client_id: m.client_id.clone(),
            client_host: m.client_host.clone(),
            metadata: m.subscription(self.protocol.as_deref().unwrap_or_default()),
            assignment: m.assignment.clone(),
        };
        GroupDescription {
            error: ErrorCode::None,
            group: name.clone(),
            state: Text::from_static(self.state.name()),
            protocol_type: self.protocol_type.clone(),
            protocol: self.protocol.clone().unwrap_or_default(),
            generation: self.generation,
            members: self.members.values().map(member).collect(),
        }
    }
}
