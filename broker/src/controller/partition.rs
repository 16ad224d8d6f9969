//! One partition's replicas: who is in sync, who leads, who may; pure.
//!
//! Invariants:
//! - the leader is in sync;
//! - leader epochs and partition epochs only grow;
//! - in-sync and eligible replicas are replicas, and nobody is both;
//! - while anybody is eligible nothing is committed; only the leader has them forgotten, before it commits without them;
//! - nobody leads who may lack an acknowledged record, unless an operator's command says so.
//!
//! Sources: KIP-497 (changes with compare-and-set), KIP-966 (eligible leader replicas), KIP-903 (broker epochs),
//! KIP-455 (reassignment).

use std::collections::BTreeSet;

use bincode::{Decode, Encode};
use callboard_common::{BrokerId, LeaderEpoch};

use super::records::Refusal;
use crate::planted::{self, Bug};

/// One partition.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct PartitionImage {
    /// Who keeps it; the first one leads by preference.
    pub replicas: Vec<BrokerId>,
    /// Who has all that was acknowledged and counts for what will be.
    pub isr: Vec<BrokerId>,
    /// Who left the in-sync replicas when they were too few to acknowledge anything more: it lacks nothing either.
    pub elr: Vec<BrokerId>,
    /// Who leads it; `None` while nobody may.
    pub leader: Option<BrokerId>,
    /// The leader's reign.
    pub epoch: LeaderEpoch,
    /// Counts all changes of the partition.
    pub version: i32,
    /// Where it moves to, if it moves; `replicas` holds these and those that it moves away from.
    pub target: Option<Move>,
}

/// A partition's way from some replicas to others (KIP-455).
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Move {
    /// Who shall keep it in the end, in the order of preference.
    pub to: Vec<BrokerId>,
    /// Who kept it when the move began.
    pub from: Vec<BrokerId>,
}

impl Move {
    /// Who is new.
    pub fn adding(&self) -> impl Iterator<Item = BrokerId> {
        let new = |b: &BrokerId| !self.from.contains(b);
        self.to.iter().copied().filter(new)
    }

    /// Who goes in the end.
    pub fn removing(&self) -> impl Iterator<Item = BrokerId> {
        let goes = |b: &BrokerId| !self.to.contains(b);
        self.from.iter().copied().filter(goes)
    }
}

/// What elections need to know beside the partition.
#[derive(Clone, Copy, Debug)]
pub struct Electorate<'a> {
    /// Nodes that are alive and may lead.
    pub unfenced: &'a BTreeSet<BrokerId>,
    /// `min.insync.replicas`, already bounded by the number of replicas.
    pub min_isr: usize,
}

impl<'a> Electorate<'a> {
    /// What concerns this partition of a topic with this `min.insync.replicas`.
    #[must_use]
    pub fn of(
        partition: &PartitionImage,
        unfenced: &'a BTreeSet<BrokerId>,
        min_isr: usize,
    ) -> Self {
        Self {
            unfenced,
            min_isr: min_isr.min(partition.replicas.len()),
        }
    }
}

impl PartitionImage {
    /// A new partition: all replicas are in sync, because there is nothing yet.
    #[must_use]
    pub fn new(replicas: Vec<BrokerId>, epoch: LeaderEpoch, unfenced: &BTreeSet<BrokerId>) -> Self {
        let alive = |b: &BrokerId| unfenced.contains(b);
        let mut isr: Vec<BrokerId> = replicas.iter().copied().filter(alive).collect();
        let leader = isr.first().copied();
        if isr.is_empty() {
            isr.clone_from(&replicas);
        }
        let (elr, target, version) = (Vec::new(), None, 0);
        Self {
            replicas,
            isr,
            elr,
            leader,
            epoch,
            version,
            target,
        }
    }

    fn changed(&mut self) {
        self.version = self.version.saturating_add(1);
    }

    /// Who has all that was acknowledged: in sync, or eligible.
    pub fn whole(&self) -> impl Iterator<Item = BrokerId> {
        self.isr.iter().chain(&self.elr).copied()
    }

    /// Whether a replica has all that was acknowledged.
    #[must_use]
    pub fn is_whole(&self, broker: BrokerId) -> bool {
        self.whole().any(|b| b == broker)
    }

    /// Who may lead, best first: in-sync replicas in the order of preference, then eligible ones.
    fn candidate(&self, of: Electorate<'_>) -> Option<BrokerId> {
        let among = |members: &[BrokerId]| {
            let mut order = self.replicas.iter();
            order
                .find(|b| members.contains(b) && of.unfenced.contains(b))
                .copied()
        };
        if planted::is(Bug::UncleanElection) {
            return among(&self.replicas);
        }
        among(&self.isr).or_else(|| among(&self.elr))
    }

    /// Gives the partition to `leader`, who begins a new reign.
    fn crown(&mut self, leader: BrokerId) {
        if self.elr.contains(&leader) {
            self.elr.retain(|b| *b != leader);
            self.isr.push(leader);
        }
        self.leader = Some(leader);
        self.epoch = self.epoch.next();
        self.changed();
    }

    /// Finds a leader if there is none; whether that changed anything.
    pub fn elect(&mut self, of: Electorate<'_>) -> bool {
        if self.leader.is_some() {
            return false;
        }
        let Some(leader) = self.candidate(of) else {
            return false;
        };
        self.crown(leader);
        true
    }

    /// A node is not alive any more: it neither leads nor counts as in sync. `of` no longer holds it.
    pub fn fence(&mut self, broker: BrokerId, of: Electorate<'_>) -> bool {
        let was_in_sync = self.isr.contains(&broker);
        let led = self.leader == Some(broker);
        if !was_in_sync && !led {
            return false;
        }
        let isr = self.isr.iter().copied().filter(|b| *b != broker).collect();
        self.shrink(isr, of.min_isr);
        if led {
            self.leader = None;
        }
        self.changed();
        let _elected = self.elect(of);
        true
    }

    /// Takes the in-sync replicas down to `isr`. Those that leave stay eligible while nothing can be acknowledged
    /// without them: too few are left, or others are eligible.
    fn shrink(&mut self, isr: Vec<BrokerId>, min_isr: usize) {
        if isr.len() < min_isr || !self.elr.is_empty() {
            let left = self.isr.iter().filter(|b| !isr.contains(b));
            let left: Vec<BrokerId> = left.copied().collect();
            // Of those who leave at the same time, the last ones that still made the quorum are whole too.
            for broker in left {
                if !self.elr.contains(&broker) {
                    self.elr.push(broker);
                }
            }
        }
        self.isr = isr;
    }

    /// A node has lost its disk: whatever it had, it has no more.
    pub fn forget(&mut self, broker: BrokerId, of: Electorate<'_>) -> bool {
        if !self.is_whole(broker) {
            return false;
        }
        self.isr.retain(|b| *b != broker);
        self.elr.retain(|b| *b != broker);
        if self.leader == Some(broker) {
            self.leader = None;
        }
        self.changed();
        let _elected = self.elect(of);
        true
    }

    /// A node did not stop in order and its log may lack what was acknowledged. It is whole no more, unless nobody else is: one
    /// that is gone for now may come back with more, but the last one has the most that there is.
    pub fn doubt(&mut self, broker: BrokerId, of: Electorate<'_>) -> bool {
        self.whole().any(|b| b != broker) && self.forget(broker, of)
    }

    /// Whether a replica other than this one is whole and alive.
    fn has_another(&self, broker: BrokerId, of: Electorate<'_>) -> bool {
        self.whole()
            .any(|b| b != broker && of.unfenced.contains(&b))
    }

    /// A replica's log is damaged: it neither leads nor counts until it has caught up again.
    ///
    /// # Errors
    ///
    /// [`Refusal::Ineligible`] if nobody else that is alive is whole: what it still has is all there is.
    pub fn lose(&mut self, broker: BrokerId, of: Electorate<'_>) -> Result<(), Refusal> {
        if self.is_whole(broker) && !self.has_another(broker, of) {
            return Err(Refusal::Ineligible);
        }
        let _changed: bool = self.forget(broker, of);
        Ok(())
    }

    /// A replica has no space for more, but lacks nothing: another one that is whole leads and counts. It stays eligible
    /// as one that is fenced does.
    ///
    /// # Errors
    ///
    /// [`Refusal::Ineligible`] if nobody else that is alive is whole.
    pub fn step_aside(&mut self, broker: BrokerId, of: Electorate<'_>) -> Result<(), Refusal> {
        if self.isr.contains(&broker) && !self.has_another(broker, of) {
            return Err(Refusal::Ineligible);
        }
        let mut unfenced = of.unfenced.clone();
        let _was_alive: bool = unfenced.remove(&broker);
        let unfenced = &unfenced;
        let _changed: bool = self.fence(broker, Electorate { unfenced, ..of });
        Ok(())
    }

    /// The leader changes who is in sync, knowing the partition as it was at `version`.
    ///
    /// # Errors
    ///
    /// [`Refusal`] if it is not the leader any more, knows an older state, or names somebody who is none of the
    /// replicas or not alive.
    pub fn alter_isr(
        &mut self,
        by: BrokerId,
        epoch: LeaderEpoch,
        version: i32,
        isr: Vec<BrokerId>,
        of: Electorate<'_>,
    ) -> Result<(), Refusal> {
        if self.leader != Some(by) {
            return Err(Refusal::NotLeader(by));
        }
        let is_outdated = self.epoch != epoch || self.version != version;
        if is_outdated && !planted::is(Bug::IsrWithoutCompare) {
            return Err(Refusal::Outdated {
                epoch: self.epoch,
                version: self.version,
            });
        }
        let may = |b: &BrokerId| self.replicas.contains(b) && of.unfenced.contains(b);
        let distinct: BTreeSet<&BrokerId> = isr.iter().collect();
        if !isr.contains(&by) || !isr.iter().all(may) || distinct.len() != isr.len() {
            return Err(Refusal::Ineligible);
        }
        let grown: Vec<BrokerId> = isr
            .iter()
            .copied()
            .filter(|b| !self.isr.contains(b))
            .collect();
        if isr.len() >= of.min_isr {
            // Nobody else forgets them: only the leader knows whether its own log is beyond doubt.
            self.elr.clear();
        }
        self.shrink(isr, of.min_isr);
        self.elr
            .retain(|b| !grown.contains(b) && !self.isr.contains(b));
        self.changed();
        self.finish_move(of);
        Ok(())
    }

    /// Begins to move the partition to `to`, or gives a move up with `None`.
    pub fn reassign(&mut self, to: Option<Vec<BrokerId>>, of: Electorate<'_>) {
        let before = self.target.take();
        let Some(to) = to else {
            if let Some(given_up) = before {
                let replicas = self.after_giving_up(&given_up);
                self.become_replicas(replicas, of);
            }
            return;
        };
        // A move that takes another one's place starts where that one did.
        let from = before.map_or_else(|| self.replicas.clone(), |m| m.from);
        let planned = Move { to, from };
        let replicas = planned.to.iter().copied().chain(planned.removing());
        let replicas = replicas.collect();
        self.target = Some(planned);
        self.become_replicas(replicas, of);
        self.finish_move(of);
    }

    /// Those who were added go again, unless nobody else is in sync.
    fn after_giving_up(&self, given_up: &Move) -> Vec<BrokerId> {
        let in_sync = |b: &BrokerId| self.isr.contains(b);
        let mut replicas = given_up.from.clone();
        if !replicas.iter().any(in_sync) {
            replicas.extend(given_up.adding().filter(in_sync));
        }
        replicas
    }

    /// Who keeps it once its move, if there is one, has ended.
    #[must_use]
    pub fn goal(&self) -> &[BrokerId] {
        self.target.as_ref().map_or(&self.replicas, |m| &m.to)
    }

    /// Who leads by preference; while it moves that is the first of those it moves to.
    #[must_use]
    pub fn preferred(&self) -> Option<BrokerId> {
        self.replicas.first().copied()
    }

    fn become_replicas(&mut self, replicas: Vec<BrokerId>, of: Electorate<'_>) {
        let somebody_goes = self.replicas.iter().any(|b| !replicas.contains(b));
        self.isr.retain(|b| replicas.contains(b));
        self.elr.retain(|b| replicas.contains(b));
        self.replicas = replicas;
        self.changed();
        if self.leader.is_some_and(|l| !self.replicas.contains(&l)) {
            self.leader = None;
            let _elected = self.elect(of);
        } else if somebody_goes && self.leader.is_some() {
            // Who goes may be asked back before it hears that it went, and deletes its log then: what it says until then is of
            // an earlier reign (as Kafka's PartitionChangeBuilder does it).
            self.epoch = self.epoch.next();
        }
    }

    /// A move ends when all of its target are in sync.
    fn finish_move(&mut self, of: Electorate<'_>) {
        let all_there = |target: &Move| target.to.iter().all(|b| self.isr.contains(b));
        if self.target.as_ref().is_some_and(all_there)
            && let Some(target) = self.target.take()
        {
            self.become_replicas(target.to, of);
        }
    }

    /// Gives the leadership to the first replica, if it is in sync and alive and does not lead already.
    pub fn elect_preferred(&mut self, of: Electorate<'_>) -> bool {
        let may = |b: &BrokerId| self.isr.contains(b) && of.unfenced.contains(b);
        match self.preferred().filter(may) {
            Some(preferred) if self.leader != Some(preferred) => {
                self.crown(preferred);
                true
            }
            Some(_) | None => false,
        }
    }

    /// An operator's explicit command: any replica that is alive leads, whatever is lost by that.
    pub fn elect_uncleanly(&mut self, of: Electorate<'_>) -> bool {
        if self.elect(of) {
            return true;
        }
        if self.leader.is_some() {
            // A leader in doubt waits for these no longer.
            let before = self.elr.len();
            self.elr.retain(|b| of.unfenced.contains(b));
            if self.elr.len() < before {
                self.changed();
            }
            return self.elr.len() < before;
        }
        let alive = |b: &&BrokerId| of.unfenced.contains(b);
        let Some(leader) = self.replicas.iter().find(alive).copied() else {
            return false;
        };
        self.elr.clear();
        self.isr = vec![leader];
        self.crown(leader);
        true
    }
}

#[cfg(test)]
#[path = "partition_tests.rs"]
mod tests;
