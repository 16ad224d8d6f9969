//! Joining a group: new members, members that come back, and the generation that begins when all are there.

use std::collections::BTreeMap;
use std::time::Duration;

use callboard_common::kafka::Text;
use callboard_common::protocol::groups::{Blob, JoinGroup, JoinedGroup};
use callboard_common::{ErrorCode, Now};

use super::group::GroupState;
use super::member::Member;
use super::records::GroupRecord;
use super::state::{
    Answer, Coordinator, Effect, Effects, Pending, Ticket, detached, refused_join, refused_sync,
};

impl Coordinator {
    #[expect(clippy::too_many_arguments, reason = "what a join consists of")]
    pub(super) fn join(
        &mut self,
        now: Now,
        ticket: Ticket,
        join: JoinGroup,
        client_id: Text,
        client_host: Text,
        new_member: Text,
        out: &mut Effects,
    ) -> Option<JoinedGroup> {
        let refuse = |error| Some(refused_join(&join.member, error));
        let session_timeout = millis(join.session_timeout_ms);
        if session_timeout < self.config.session_timeout_min
            || session_timeout > self.config.session_timeout_max
        {
            return refuse(ErrorCode::InvalidSessionTimeout);
        }
        let subscription_bytes: usize = join
            .protocols
            .iter()
            .map(|(name, s)| name.len() + s.0.len())
            .sum();
        if subscription_bytes > self.config.max_member_bytes {
            return refuse(ErrorCode::GroupMaxSizeReached);
        }
        let is_new = join.member.is_empty();
        if !is_new && !self.groups.contains_key(&join.group) {
            return refuse(ErrorCode::UnknownMemberId);
        }
        let (max_size, initial_delay) = (self.config.max_size, self.config.initial_rebalance_delay);
        let group = self.group(&join.group, now.wall);
        if !group.supports(&join.protocol_type, &join.protocols) {
            self.forget_if_unused(&join.group);
            return refuse(ErrorCode::InconsistentGroupProtocol);
        }
        let known_instance = join
            .instance
            .as_ref()
            .and_then(|i| group.instances.get(i).cloned());
        let is_member = group.members.contains_key(&join.member) || known_instance.is_some();
        let places = group.members.len() + group.promised.len();
        if !is_member && !group.promised.contains_key(&join.member) && places >= max_size {
            return refuse(ErrorCode::GroupMaxSizeReached);
        }
        let member = candidate(now, ticket, &join, &client_id, &client_host, new_member);
        if group.members.is_empty() {
            group.protocol_type = join.protocol_type.detached();
        }
        if is_new {
            return match known_instance {
                Some(old) => self.replace_static(now, &join.group, &old, member, out),
                None if join.instance.is_none() && join.member_id_required => {
                    let _none = group
                        .promised
                        .insert(member.id.clone(), now.monotonic.after(session_timeout));
                    Some(refused_join(&member.id, ErrorCode::MemberIdRequired))
                }
                None => self.add_member(now, &join.group, member, initial_delay, out),
            };
        }
        if group.promised.remove(&join.member).is_some() {
            return self.add_member(now, &join.group, member, initial_delay, out);
        }
        if let Err(error) = group.member(&join.member, join.instance.as_ref()) {
            return refuse(error);
        }
        self.rejoin(now, &join.group, member, out)
    }

    /// A new member: everybody joins again.
    pub(super) fn add_member(
        &mut self,
        now: Now,
        name: &Text,
        member: Member,
        initial_delay: Duration,
        out: &mut Effects,
    ) -> Option<JoinedGroup> {
        let group = self.groups.get_mut(name)?;
        if group.state == GroupState::Empty && !initial_delay.is_zero() {
            group.initial_wait_ends = Some(now.monotonic.after(initial_delay));
        }
        group.add(member);
        self.rebalance(now, name, out);
        self.maybe_begin(now, name, out);
        None
    }

    /// A member that the group knows joins again.
    pub(super) fn rejoin(
        &mut self,
        now: Now,
        name: &Text,
        member: Member,
        out: &mut Effects,
    ) -> Option<JoinedGroup> {
        let group = self.groups.get_mut(name)?;
        let leads = group.leader.as_ref() == Some(&member.id);
        let known = group.members.get_mut(&member.id)?;
        let changed = known.protocols != member.protocols;
        let ticket = member.joining?;
        known.heard_of(now.monotonic);
        let answer_now = match group.state {
            GroupState::CompletingRebalance => !changed,
            GroupState::Stable => !changed && !leads,
            GroupState::PreparingRebalance | GroupState::Empty => false,
        };
        if answer_now {
            // A retry, or a member that missed its answer.
            return Some(group.joined(&member.id));
        }
        let mut member = member;
        member.assignment = known.assignment.clone();
        let (waiting, syncing) = (known.joining.replace(ticket), known.syncing.take());
        // Of two answers owed to one member the older is given up.
        for old in [waiting, syncing].into_iter().flatten() {
            let answer = refused_join(&member.id, ErrorCode::RebalanceInProgress);
            if Some(old) == waiting {
                out.push_back(Effect::Answer(old, Answer::Joined(answer)));
            } else {
                out.push_back(Effect::Answer(
                    old,
                    Answer::Synced(refused_sync(ErrorCode::RebalanceInProgress)),
                ));
            }
        }
        group.add(member);
        self.rebalance(now, name, out);
        self.maybe_begin(now, name, out);
        None
    }

    /// A static member comes back without its id: it takes its old place under a new one (KIP-345).
    pub(super) fn replace_static(
        &mut self,
        now: Now,
        name: &Text,
        old: &Text,
        member: Member,
        out: &mut Effects,
    ) -> Option<JoinedGroup> {
        let group = self.groups.get_mut(name)?;
        let led = group.leader.as_ref() == Some(old);
        let before = group.remove(old)?;
        if let Some(ticket) = before.joining {
            let fenced = refused_join(old, ErrorCode::FencedInstanceId);
            out.push_back(Effect::Answer(ticket, Answer::Joined(fenced)));
        }
        if let Some(ticket) = before.syncing {
            out.push_back(Effect::Answer(
                ticket,
                Answer::Synced(refused_sync(ErrorCode::FencedInstanceId)),
            ));
        }
        let protocol = group.protocol.clone().unwrap_or_default();
        let unchanged = before.subscription(&protocol) == member.subscription(&protocol);
        let mut member = member;
        member.assignment = before.assignment;
        let id = member.id.clone();
        if led {
            group.leader = Some(id.clone());
        }
        if group.state == GroupState::Stable && unchanged {
            // Nobody else needs to move; the new id is written down with the old assignment.
            let _ticket = member.joining.take();
            group.add(member);
            let value = group.value(&group.assignments());
            let mut joined = group.joined(&id);
            joined.skip_assignment = led;
            self.write(
                Pending::Quiet,
                vec![GroupRecord::Group {
                    group: name.clone(),
                    value: Some(value),
                }],
                out,
            );
            return Some(joined);
        }
        group.add(member);
        self.rebalance(now, name, out);
        self.maybe_begin(now, name, out);
        None
    }

    /// Calls all members to join again.
    pub(super) fn rebalance(&mut self, now: Now, name: &Text, out: &mut Effects) {
        let Some(group) = self.groups.get_mut(name) else {
            return;
        };
        if group.state == GroupState::PreparingRebalance {
            return;
        }
        group.state = GroupState::PreparingRebalance;
        group.changed_at = now.wall;
        group.assigning = false;
        group.rebalance_ends = Some(now.monotonic.after(group.rebalance_timeout()));
        for member in group.members.values_mut() {
            if let Some(ticket) = member.syncing.take() {
                member.heard_of(now.monotonic);
                let answer = Answer::Synced(refused_sync(ErrorCode::RebalanceInProgress));
                out.push_back(Effect::Answer(ticket, answer));
            }
        }
    }

    /// Begins the generation if all are there.
    pub(super) fn maybe_begin(&mut self, now: Now, name: &Text, out: &mut Effects) {
        let Some(group) = self.groups.get_mut(name) else {
            return;
        };
        let waits = group.initial_wait_ends.is_some_and(|at| at > now.monotonic);
        if group.state == GroupState::PreparingRebalance && group.all_joined() && !waits {
            self.begin(now, name, out);
        }
    }

    pub(super) fn begin(&mut self, now: Now, name: &Text, out: &mut Effects) {
        let Some(group) = self.groups.get_mut(name) else {
            return;
        };
        for (ticket, joined) in group.begin_generation(now.monotonic, now.wall) {
            out.push_back(Effect::Answer(ticket, Answer::Joined(joined)));
        }
        if group.state == GroupState::Empty {
            let record = GroupRecord::Group {
                group: name.clone(),
                value: Some(group.value(&BTreeMap::new())),
            };
            self.write(Pending::Quiet, vec![record], out);
        }
    }
}

/// The member that a join request describes.
fn candidate(
    now: Now,
    ticket: Ticket,
    join: &JoinGroup,
    client_id: &Text,
    client_host: &Text,
    new_member: Text,
) -> Member {
    let session_timeout = millis(join.session_timeout_ms);
    Member {
        id: if join.member.is_empty() {
            new_member
        } else {
            join.member.detached()
        },
        instance: join.instance.as_ref().map(Text::detached),
        client_id: client_id.detached(),
        client_host: client_host.detached(),
        session_timeout,
        rebalance_timeout: millis(join.rebalance_timeout_ms),
        protocols: join
            .protocols
            .iter()
            .map(|(n, s)| (n.detached(), detached(s)))
            .collect(),
        assignment: Blob::default(),
        session_ends: now.monotonic.after(session_timeout),
        joining: Some(ticket),
        syncing: None,
    }
}

fn millis(ms: i32) -> Duration {
    Duration::from_millis(u64::try_from(ms).unwrap_or(0))
}
