//! What happens by time alone: members fall silent, rebalances end without them, old offsets go.

use callboard_common::Now;
use callboard_common::kafka::Text;

use super::group::{Group, GroupState};
use super::member::Member;
use super::records::GroupRecord;
use super::state::{Coordinator, EXPIRY_INTERVAL, Effects, Pending};

impl Coordinator {
    pub(super) fn tick(&mut self, now: Now, out: &mut Effects) {
        while let Some((at, name)) = self.deadlines.first().cloned() {
            if at > now.monotonic {
                break;
            }
            self.expire_members(now, &name, out);
            self.schedule(&name);
            if self.deadline_of.get(&name) == Some(&at) {
                // Nothing was due after all: never spin on one moment.
                break;
            }
        }
        if self.expire_at <= now.monotonic {
            self.expire_at = now.monotonic.after(EXPIRY_INTERVAL);
            self.expire(now, out);
        }
    }

    pub(super) fn expire_members(&mut self, now: Now, name: &Text, out: &mut Effects) {
        let Some(group) = self.groups.get_mut(name) else {
            return;
        };
        group.promised.retain(|_, ends| *ends > now.monotonic);
        if group
            .initial_wait_ends
            .is_some_and(|at| at <= now.monotonic)
        {
            group.initial_wait_ends = None;
        }
        let silent = group
            .members
            .values()
            .filter(|m| m.is_expired(now.monotonic));
        let silent: Vec<Text> = silent.map(|m| m.id.clone()).collect();
        let gone: Vec<Member> = silent.iter().filter_map(|id| group.remove(id)).collect();
        let time_is_up = group.rebalance_ends.is_some_and(|at| at <= now.monotonic);
        match group.state {
            GroupState::PreparingRebalance if time_is_up => {
                group.promised.clear();
                self.dismiss(now, name, gone, out);
                if self
                    .groups
                    .get(name)
                    .is_some_and(|g| g.state == GroupState::PreparingRebalance)
                {
                    self.begin(now, name, out);
                }
            }
            GroupState::CompletingRebalance if time_is_up => {
                // Whoever has not synced is not there any more.
                group.rebalance_ends = None;
                let missing = group
                    .members
                    .values()
                    .filter(|m| m.syncing.is_none())
                    .map(|m| m.id.clone());
                let missing: Vec<Text> = missing.collect();
                let mut gone = gone;
                gone.extend(missing.iter().filter_map(|id| group.remove(id)));
                self.dismiss(now, name, gone, out);
            }
            GroupState::Empty
            | GroupState::PreparingRebalance
            | GroupState::CompletingRebalance
            | GroupState::Stable => {
                self.dismiss(now, name, gone, out);
                self.maybe_begin(now, name, out);
                self.forget_if_unused(name);
            }
        }
    }

    /// Whether nobody needs a group: it has no members, and no offsets, nor will it have any when what is on its way is durable.
    pub(super) fn is_unused(&self, name: &Text) -> bool {
        let of_it = |record: &GroupRecord| matches!(record, GroupRecord::Offset { group, value: Some(_), .. } if group == name);
        let commits = |(pending, records): &(Pending, Vec<GroupRecord>)| {
            matches!(pending, Pending::Commit { .. }) && records.iter().any(of_it)
        };
        // Somebody came and went while its end was on its way: what is written of that stands behind it.
        let again = |r: &GroupRecord| matches!(r, GroupRecord::Group { group, value: Some(_) } if group == name);
        let lives_on = |(_, records): &(Pending, Vec<GroupRecord>)| records.iter().any(again);
        let unused = |g: &Group| {
            g.state == GroupState::Empty
                && g.offsets.is_empty()
                && g.promised.is_empty()
                && g.members.is_empty()
        };
        self.groups.get(name).is_some_and(unused)
            && !self.writes.values().any(|w| commits(w) || lives_on(w))
    }

    /// Forgets a group that nobody needs and of which nothing was written. One that had members keeps its generation until
    /// [`Coordinator::expire`]: who comes before that does not get the same one again.
    pub(super) fn forget_if_unused(&mut self, name: &Text) {
        let is_new = |g: &Group| g.generation == 0;
        if self.groups.get(name).is_some_and(is_new) && self.is_unused(name) {
            drop(self.groups.remove(name));
        }
    }

    /// Offsets of groups without members go when they are old enough, and groups that nobody needs: from memory once that is
    /// durable. If it cannot be written, the group that comes back from the log is the one that was here all the time.
    pub(super) fn expire(&mut self, now: Now, out: &mut Effects) {
        let keep = i64::try_from(self.config.offsets_retention.as_millis()).unwrap_or(i64::MAX);
        let oldest = now.wall.0.saturating_sub(keep);
        let unused = self.groups.keys().filter(|name| self.is_unused(name));
        let tombstone = |group: &Text| GroupRecord::Group {
            group: group.clone(),
            value: None,
        };
        let mut records: Vec<GroupRecord> = unused.map(tombstone).collect();
        for (name, group) in self
            .groups
            .iter()
            .filter(|(_, g)| g.state == GroupState::Empty)
        {
            for (partition, offset) in &group.offsets {
                if offset.committed_at.max(group.changed_at.0) < oldest {
                    let (group, partition) = (name.clone(), partition.clone());
                    records.push(GroupRecord::Offset {
                        group,
                        partition,
                        value: None,
                    });
                }
            }
        }
        if !records.is_empty() {
            self.write(Pending::Quiet, records, out);
        }
    }
}
