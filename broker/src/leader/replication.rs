//! What a leader knows of its followers, and what follows from it: the high watermark and who is in sync; pure.
//!
//! Invariants:
//! - what is committed is durable on every in-sync replica, also on those that are about to join (the largest set
//!   that the controller may agree to);
//! - nothing is committed while fewer than `min.insync.replicas` are in sync, or while another one is eligible, which could
//!   lead without it;
//! - only the controller changes who is in sync; this asks for it.
//!
//! Sources: Kafka's replication protocol; KIP-497 (AlterPartition), KIP-903 (broker epochs), KIP-966 (nothing is
//! committed below the minimum).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use callboard_common::{BrokerId, LeaderEpoch, Monotonic, Offset};

use crate::controller::PartitionImage;
use crate::planted::{self, Bug};

/// A replica that was behind for so long is not in sync (`replica.lag.time.max.ms`).
const LAG_MAX: Duration = Duration::from_secs(10);
/// A proposal that was not answered for so long is made again.
const PROPOSAL_PATIENCE: Duration = Duration::from_secs(2);

/// How far a follower is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Follower {
    /// Its incarnation.
    broker_epoch: i64,
    /// The end of its log.
    end: Offset,
    /// Everything below is durable there.
    synced: Offset,
    /// When it had all that there was.
    caught_up: Monotonic,
    /// When it was heard of, and the leader's end then.
    heard: (Monotonic, Offset),
}

/// A proposal to the controller: who shall be in sync, as of which version of the partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IsrChange {
    /// Who is in sync, with incarnations.
    pub isr: Vec<(BrokerId, i64)>,
    /// The version that the leader knows.
    pub version: i32,
}

/// A partition's replicas as its leader sees them.
#[derive(Clone, Debug)]
pub struct Replication {
    me: BrokerId,
    partition: PartitionImage,
    /// Incarnations of the nodes that are alive.
    alive: BTreeMap<BrokerId, i64>,
    followers: BTreeMap<BrokerId, Follower>,
    /// When the controller was asked last, while nothing came of it.
    asked: Option<Monotonic>,
    /// When it was asked last to forget who is only eligible, whatever came of it: it may want more in sync than is known here.
    asked_to_forget: Option<Monotonic>,
    /// Who is not in sync but was named to the controller, which may agree as long as the partition has this version:
    /// nothing is committed without them.
    named: BTreeSet<BrokerId>,
    since: Monotonic,
    /// The end of the log when this reign began: who has less may lack what earlier reigns committed.
    reign_start: Offset,
}

impl Replication {
    /// Nothing was heard of anybody yet.
    #[must_use]
    pub fn new(
        now: Monotonic,
        me: BrokerId,
        partition: PartitionImage,
        alive: BTreeMap<BrokerId, i64>,
        reign_start: Offset,
    ) -> Self {
        Self {
            me,
            partition,
            alive,
            followers: BTreeMap::new(),
            asked: None,
            asked_to_forget: None,
            named: BTreeSet::new(),
            since: now,
            reign_start,
        }
    }

    /// Whether there is anybody else.
    #[must_use]
    pub fn is_alone(&self) -> bool {
        self.partition.replicas.len() <= 1
    }

    /// Whether the metadata of this reign is known: an earlier life of the leader may have had others taken in, of whom nothing is
    /// known before.
    #[must_use]
    pub fn knows_reign(&self, epoch: LeaderEpoch) -> bool {
        self.is_alone() || self.partition.epoch >= epoch
    }

    /// Whether another replica may have all that was committed.
    #[must_use]
    pub fn has_others(&self) -> bool {
        self.partition.whole().any(|b| b != self.me)
    }

    /// Whether a replica, in the incarnation that is alive, may have all that was committed.
    #[must_use]
    pub fn may_lead(&self, replica: BrokerId, broker_epoch: i64) -> bool {
        self.partition.is_whole(replica) && self.alive.get(&replica) == Some(&broker_epoch)
    }

    /// Whether this is one of the replicas, as far as is known here.
    #[must_use]
    pub fn is_replica(&self, broker: BrokerId) -> bool {
        self.partition.replicas.contains(&broker)
    }

    /// Whether a replica is in sync, as far as is known here.
    #[must_use]
    pub fn is_in_sync(&self, replica: BrokerId) -> bool {
        self.partition.isr.contains(&replica)
    }

    /// How many are in sync.
    #[must_use]
    pub fn in_sync(&self) -> usize {
        self.partition.isr.len()
    }

    /// The metadata changed.
    pub fn update(&mut self, partition: PartitionImage, alive: BTreeMap<BrokerId, i64>) {
        if partition.version != self.partition.version {
            self.asked = None;
            self.named.clear();
        }
        self.followers.retain(|b, _| partition.replicas.contains(b));
        (self.partition, self.alive) = (partition, alive);
    }

    /// The controller did not do what it was asked as of this version, or it is not known whether it did: it is asked
    /// again.
    pub fn refused(&mut self, version: i32) {
        if version == self.partition.version {
            self.asked = None;
        }
    }

    /// A follower says how far it is. Whether it is one of the replicas, and not of an incarnation that is gone. One that
    /// is fenced, or has registered just now, is remembered: if it is idle, it does not say it again when it may be in sync.
    pub fn heard(
        &mut self,
        now: Monotonic,
        replica: BrokerId,
        broker_epoch: i64,
        (end, synced): (Offset, Offset),
        log_end: Offset,
    ) -> bool {
        let known = self.is_replica(replica);
        let alive = self.alive.get(&replica);
        // A newer one than is known here is only not known yet.
        let is_gone = alive.is_some_and(|alive| broker_epoch < *alive);
        let is_gone = is_gone && !planted::is(Bug::StaleIncarnationCounts);
        if !known || replica == self.me || is_gone {
            return false;
        }
        let before = self.followers.get(&replica).copied();
        let before = before.filter(|f| f.broker_epoch == broker_epoch);
        let last = before.map_or(self.since, |f| f.caught_up);
        let caught_up = match before {
            _ if end >= log_end => now,
            // It has all that there was when it was last heard of.
            Some(f) if end >= f.heard.1 => f.heard.0.max(last),
            Some(_) | None => last,
        };
        let follower = Follower {
            broker_epoch,
            end,
            synced,
            caught_up,
            heard: (now, log_end),
        };
        let _before = self.followers.insert(replica, follower);
        true
    }

    /// Something is appended at `end`: who had all up to there was caught up until now, however long it was silent.
    pub fn appending(&mut self, now: Monotonic, end: Offset) {
        for follower in self.followers.values_mut().filter(|f| f.end >= end) {
            follower.caught_up = now;
        }
    }

    fn are_enough(&self, min_isr: u32) -> bool {
        let partition = &self.partition;
        partition.isr.len() >= (min_isr as usize).min(partition.replicas.len())
    }

    /// How far all have it that count, or nothing while they are too few or others are eligible. `own` is how far this node
    /// has it: synced, or written where the topic does not sync first.
    #[must_use]
    pub fn committed(&self, own: Offset, durable: bool, min_isr: u32) -> Option<Offset> {
        let may_commit = self.are_enough(min_isr) && self.partition.elr.is_empty();
        if !may_commit && !planted::is(Bug::MinIsrIgnored) {
            return None;
        }
        let all = self.partition.isr.iter().chain(&self.named);
        let mut reached = all.filter(|b| **b != self.me).map(|b| {
            let follower = self.followers.get(b)?;
            let is_alive = self.alive.get(b) == Some(&follower.broker_epoch)
                || planted::is(Bug::StaleIncarnationCounts);
            is_alive.then_some(if durable && !planted::is(Bug::AckBeforeFollowerSync) {
                follower.synced
            } else {
                follower.end
            })
        });
        // Who was not heard of in this reign holds everything up.
        reached.try_fold(own, |least, reached| Some(least.min(reached?)))
    }

    /// What to ask the controller for, if who is in sync is not who should be.
    pub fn isr_change(
        &mut self,
        now: Monotonic,
        (high_watermark, log_end): (Offset, Offset),
        durable: bool,
    ) -> Option<IsrChange> {
        let is_pending = |at: Monotonic| now.since(at) < PROPOSAL_PATIENCE;
        if self.is_alone() || self.asked.is_some_and(is_pending) {
            return None;
        }
        let belongs = |b: &BrokerId| {
            *b == self.me || self.should_be_in_sync(*b, now, (high_watermark, log_end), durable)
        };
        let replicas = &self.partition.replicas;
        let isr = &self.partition.isr;
        // Those who were named may still be taken in: to ask for what is so already gives the partition another version,
        // and an end to that.
        if replicas.iter().all(|b| belongs(b) == isr.contains(b)) && self.named.is_empty() {
            return None;
        }
        let wanted: Vec<BrokerId> = replicas.iter().copied().filter(belongs).collect();
        let change = self.ask(now, &wanted)?;
        let in_sync = &self.partition.isr;
        let new = wanted.into_iter().filter(|b| !in_sync.contains(b));
        self.named.extend(new);
        Some(change)
    }

    /// What to ask the controller for, if those in sync are enough and nothing is committed only because others are eligible:
    /// the same ones in sync, and nobody eligible. A leader in doubt must not.
    pub fn without_eligible(&mut self, now: Monotonic, min_isr: u32) -> Option<IsrChange> {
        let is_pending = |at: Monotonic| now.since(at) < PROPOSAL_PATIENCE;
        let is_superfluous = !self.partition.elr.is_empty() && self.are_enough(min_isr);
        if !is_superfluous || self.asked.max(self.asked_to_forget).is_some_and(is_pending) {
            return None;
        }
        let isr = self.partition.isr.clone();
        let change = self.ask(now, &isr)?;
        self.asked_to_forget = Some(now);
        Some(change)
    }

    fn ask(&mut self, now: Monotonic, wanted: &[BrokerId]) -> Option<IsrChange> {
        let with_epoch = |b: &BrokerId| Some((*b, *self.alive.get(b)?));
        let isr: Option<Vec<_>> = wanted.iter().map(with_epoch).collect();
        let change = IsrChange {
            isr: isr?,
            version: self.partition.version,
        };
        self.asked = Some(now);
        Some(change)
    }

    fn should_be_in_sync(
        &self,
        broker: BrokerId,
        now: Monotonic,
        (high_watermark, log_end): (Offset, Offset),
        durable: bool,
    ) -> bool {
        let in_sync = self.partition.isr.contains(&broker);
        let Some(epoch) = self.alive.get(&broker) else {
            // The controller has taken it out, or will.
            return in_sync;
        };
        let follower = self
            .followers
            .get(&broker)
            .filter(|f| f.broker_epoch == *epoch || planted::is(Bug::StaleIncarnationCounts));
        let has = |f: &Follower| if durable { f.synced } else { f.end };
        if in_sync {
            // Whoever lost what was committed, to corruption or a new disk, must not lead.
            if follower.is_some_and(|f| has(f) < high_watermark) {
                return false;
            }
            // Who has everything is asked for nothing and says nothing.
            if follower.is_some_and(|f| f.end >= log_end) {
                return true;
            }
            let caught_up = follower.map_or(self.since, |f| f.caught_up);
            return now.since(caught_up) <= LAG_MAX;
        }
        follower.is_some_and(|f| {
            planted::is(Bug::LaggardJoins) || has(f) >= high_watermark.max(self.reign_start)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use callboard_common::LeaderEpoch;

    const B1: BrokerId = BrokerId(1);
    const B2: BrokerId = BrokerId(2);
    const B3: BrokerId = BrokerId(3);

    fn alive() -> BTreeMap<BrokerId, i64> {
        [(B1, 11), (B2, 12), (B3, 13)].into()
    }

    fn partition(isr: &[BrokerId]) -> PartitionImage {
        let unfenced = alive().into_keys().collect();
        let mut partition = PartitionImage::new(vec![B1, B2, B3], LeaderEpoch(0), &unfenced);
        partition.isr = isr.to_vec();
        partition
    }

    fn at(ms: u64) -> Monotonic {
        Monotonic(Duration::from_millis(ms))
    }

    fn replication(isr: &[BrokerId]) -> Replication {
        Replication::new(at(0), B1, partition(isr), alive(), o(0))
    }

    fn o(offset: i64) -> Offset {
        Offset::new(offset)
    }

    #[test]
    fn what_is_committed_is_durable_on_all_in_sync() {
        let mut r = replication(&[B1, B2, B3]);
        assert_eq!(r.committed(o(10), true, 2), None, "nobody was heard of");
        assert!(r.heard(at(1), B2, 12, (o(10), o(7)), o(10)));
        assert_eq!(r.committed(o(10), true, 2), None);
        assert!(r.heard(at(1), B3, 13, (o(9), o(9)), o(10)));
        assert_eq!(r.committed(o(10), true, 2), Some(o(7)));
        assert_eq!(r.committed(o(10), false, 2), Some(o(9)));
        assert_eq!(
            r.committed(o(5), true, 2),
            Some(o(5)),
            "this node counts too"
        );
    }

    /// KIP-966: below the minimum nothing more is committed.
    #[test]
    fn kip_966_too_few_commit_nothing() {
        let r = replication(&[B1]);
        assert_eq!(r.committed(o(10), true, 2), None);
        assert_eq!(r.committed(o(10), true, 1), Some(o(10)));
    }

    /// KIP-966: who is eligible may lead, so nothing is committed without it.
    #[test]
    fn kip_966_who_is_eligible_holds_everything_up_until_it_is_forgotten() {
        let mut r = replication(&[B1]);
        let mut image = partition(&[B1]);
        image.elr = vec![B2];
        r.update(image.clone(), alive());
        assert_eq!(r.committed(o(10), true, 1), None);
        assert_eq!(r.without_eligible(at(1), 2), None, "one is too few");
        let change = r.without_eligible(at(1), 1).expect("one is enough");
        assert_eq!((&*change.isr, change.version), (&[(B1, 11)][..], 0));
        assert_eq!(r.without_eligible(at(2), 1), None, "asked already");
        // The controller wants more in sync than is known here: it is not asked again and again.
        image.version += 1;
        r.update(image.clone(), alive());
        assert_eq!(r.without_eligible(at(3), 1), None);
        assert!(r.without_eligible(at(2_001), 1).is_some());
        image.version += 1;
        image.elr.clear();
        r.update(image, alive());
        assert_eq!(r.committed(o(10), true, 1), Some(o(10)));
        assert_eq!(r.without_eligible(at(9_000), 1), None);
    }

    /// KIP-903: an incarnation that is gone counts for nothing.
    #[test]
    fn kip_903_stale_incarnations_are_not_heard() {
        let mut r = replication(&[B1, B2]);
        assert!(!r.heard(at(1), B2, 5, (o(10), o(10)), o(10)));
        assert!(!r.heard(at(1), BrokerId(9), 12, (o(10), o(10)), o(10)));
        assert_eq!(r.committed(o(10), true, 1), None);
    }

    /// A node that has just started speaks before this one has heard of its registration.
    #[test]
    fn who_has_just_registered_is_remembered() {
        let mut r = replication(&[B1, B3]);
        assert!(r.heard(at(1), B2, 20, (o(10), o(10)), o(10)));
        assert_eq!(r.isr_change(at(1), (o(10), o(10)), true), None);
        let registered = [(B1, 11), (B2, 20), (B3, 13)].into();
        r.update(partition(&[B1, B3]), registered);
        let change = r.isr_change(at(2), (o(10), o(10)), true);
        assert!(change.is_some_and(|c| c.isr.contains(&(B2, 20))));
    }

    /// A node that hung speaks before the controller lets it back, and then has nothing more to say.
    #[test]
    fn who_was_fenced_joins_when_it_is_alive() {
        let mut r = replication(&[B1, B3]);
        assert!(r.heard(at(1), B3, 13, (o(10), o(10)), o(10)));
        let mut fenced = alive();
        let _epoch = fenced.remove(&B2);
        r.update(partition(&[B1, B3]), fenced);
        assert!(r.heard(at(2), B2, 12, (o(10), o(10)), o(10)));
        assert_eq!(r.isr_change(at(3), (o(10), o(10)), true), None);
        r.update(partition(&[B1, B3]), alive());
        let change = r
            .isr_change(at(4), (o(10), o(10)), true)
            .expect("it is back");
        assert_eq!(change.isr, [(B1, 11), (B2, 12), (B3, 13)]);
    }

    #[test]
    fn who_has_caught_up_joins_and_holds_up_what_is_committed() {
        let mut r = replication(&[B1, B2]);
        assert!(r.heard(at(1), B2, 12, (o(10), o(10)), o(10)));
        assert!(r.heard(at(1), B3, 13, (o(6), o(6)), o(10)));
        assert_eq!(
            r.isr_change(at(2), (o(10), o(10)), true),
            None,
            "it is behind"
        );
        assert!(r.heard(at(3), B3, 13, (o(10), o(10)), o(10)));
        let change = r
            .isr_change(at(3), (o(10), o(10)), true)
            .expect("it has caught up");
        assert_eq!(change.isr, [(B1, 11), (B2, 12), (B3, 13)]);
        assert!(r.heard(at(4), B2, 12, (o(20), o(20)), o(20)));
        assert_eq!(
            r.committed(o(20), true, 2),
            Some(o(10)),
            "the controller may have agreed"
        );
        assert_eq!(
            r.isr_change(at(4), (o(10), o(20)), true),
            None,
            "asked already"
        );
        r.refused(change.version - 1);
        assert_eq!(
            r.isr_change(at(4), (o(10), o(20)), true),
            None,
            "that was an older question"
        );
        r.refused(change.version);
        let mut others = alive();
        let _gone = others.remove(&B3);
        r.update(partition(&[B1, B2]), others);
        assert_eq!(
            r.committed(o(20), true, 2),
            None,
            "an earlier question may still be agreed to"
        );
        let same = r.isr_change(at(5), (o(10), o(20)), true);
        let same = same.expect("a new version says that it was not");
        assert_eq!(same.isr, [(B1, 11), (B2, 12)]);
        let mut newer = partition(&[B1, B2]);
        newer.version += 1;
        r.update(newer, alive());
        assert_eq!(r.committed(o(20), true, 2), Some(o(20)));
    }

    #[test]
    fn who_is_behind_for_long_leaves() {
        let mut r = replication(&[B1, B2, B3]);
        for ms in (0..11_000).step_by(500) {
            let end = o(ms as i64);
            assert!(r.heard(at(ms), B2, 12, (end, end), end));
            // B3 lives and is always behind what there was when it was last heard of.
            assert!(r.heard(at(ms), B3, 13, (o(1), o(1)), end));
        }
        let change = r
            .isr_change(at(11_000), (o(1), o(10_500)), true)
            .expect("it is too slow");
        assert_eq!(change.isr, [(B1, 11), (B2, 12)]);
    }
    /// Idle partitions cost nothing: a follower that has everything stays in sync without a word.
    #[test]
    fn who_is_idle_stays() {
        let mut r = replication(&[B1, B2]);
        assert!(r.heard(at(1), B2, 12, (o(10), o(10)), o(10)));
        let much_later = at(60_000);
        assert_eq!(r.isr_change(much_later, (o(10), o(10)), true), None);
        r.appending(much_later, o(10));
        assert_eq!(r.isr_change(at(60_001), (o(10), o(11)), true), None);
        let change = r.isr_change(at(71_000), (o(10), o(11)), true);
        assert!(change.is_some(), "it never took the record");
    }
}
