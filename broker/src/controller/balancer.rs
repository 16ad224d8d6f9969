//! What the active controller moves by itself: nodes that are drained are emptied, the broker's own topics grow with the
//! cluster, leaderships go back to who shall have them, replicas spread over the nodes; pure.
//!
//! A plan is small and made anew when what it proposed is applied: nothing depends on a long plan being carried out.
//! Nodes are compared by how many partitions they keep and lead, then by how many bytes they keep ([`super::log_bytes`]).
//!
//! Sources: KIP-455 (moves), Kafka's `auto.leader.rebalance.enable`; Cruise Control's goals in their simplest form.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use callboard_common::{BrokerId, Monotonic, Uuid};

use super::image::{MIN_ISR, MetadataImage, Standing, TopicImage};
use super::log_bytes::LogBytes;
use super::partition::PartitionImage;
use super::placement::Loads;
use super::records::Command;
use crate::peer::protocol::LogSizes;

/// Between two plans.
const EVERY: Duration = Duration::from_secs(1);
/// Between two looks at what nodes keep in bytes.
const BYTES_EVERY: Duration = Duration::from_secs(5);
/// So many replicas the broker's own topics have, if there are as many nodes.
const INTERNAL_FACTOR: usize = 3;

/// What is moved without being asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Whether replicas and leaderships are spread over the nodes (`auto.leader.rebalance.enable`). Drained nodes are
    /// emptied and the broker's own topics grow in any case.
    pub balances: bool,
    /// Most partitions that move at the same time.
    pub moves_at_once: usize,
    /// So long a partition is led by somebody else before its preferred replica leads it again.
    pub leader_patience: Duration,
    /// Nodes whose logs differ by less are left as they are.
    pub tolerated_bytes: u64,
    /// So long they differ by more before something is moved.
    pub bytes_patience: Duration,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            balances: true,
            moves_at_once: 10,
            leader_patience: Duration::from_secs(30),
            tolerated_bytes: 1 << 30,
            bytes_patience: Duration::from_secs(300),
        }
    }
}

/// What was seen so far.
#[derive(Debug, Default)]
pub(super) struct Balancer {
    pub(super) policy: Policy,
    /// Since when partitions are led by somebody else than their preferred replica.
    displaced: BTreeMap<(Uuid, i32), Monotonic>,
    next: Monotonic,
    log_bytes: LogBytes,
    next_bytes: Monotonic,
    /// Since when nodes keep so different amounts that replicas would change places.
    uneven_since: Option<Monotonic>,
    /// Nothing is planned before this entry is applied.
    pub(super) planned_until: u64,
}

/// A partition and where it is found.
type Placed<'a> = (&'a TopicImage, i32, &'a PartitionImage);

fn partitions(image: &MetadataImage) -> impl Iterator<Item = Placed<'_>> {
    let topics = image.topics.values();
    topics.flat_map(|t| t.numbered().map(move |(n, p)| (&**t, n, p)))
}

fn reassign((topic, partition, _): Placed<'_>, replicas: Vec<BrokerId>) -> Command {
    let (topic_id, replicas) = (topic.id, Some(replicas));
    Command::Reassign {
        topic_id,
        partition,
        replicas,
    }
}

/// These replicas, with one node in the place of another.
fn instead(replicas: &[BrokerId], from: BrokerId, to: BrokerId) -> Vec<BrokerId> {
    let one = |b: &BrokerId| if *b == from { to } else { *b };
    replicas.iter().map(one).collect()
}

impl Balancer {
    /// What is to be proposed now.
    pub(super) fn plan(&mut self, now: Monotonic, image: &MetadataImage) -> Vec<Command> {
        if now < self.next || image.applied < self.planned_until {
            return Vec::new();
        }
        self.next = now.after(EVERY);
        if image.brokers.len() < 2 {
            return Vec::new();
        }
        let moving = partitions(image).filter(|(.., p)| p.target.is_some());
        let mut left = self.policy.moves_at_once.saturating_sub(moving.count());
        let looks_at_bytes = now >= self.next_bytes;
        if looks_at_bytes {
            self.next_bytes = now.after(BYTES_EVERY);
            self.log_bytes.prune(image);
        }
        let mut loads = Loads::of(image);
        let mut plan = drained(image, &mut loads, &mut left);
        plan.extend(grown(image, &mut loads, &mut left));
        if self.policy.balances {
            plan.extend(self.leaders(now, image));
            let is_quiet = plan.is_empty() && left == self.policy.moves_at_once;
            if is_quiet && is_whole(image) {
                plan.extend(spread(image, &mut loads, left));
                if plan.is_empty() && looks_at_bytes {
                    plan.extend(self.even_out(now, image, &loads, left));
                }
            }
        }
        plan
    }

    /// Somebody tells how large its logs are.
    pub(super) fn note(&mut self, told: LogSizes) {
        self.log_bytes.note(told);
    }

    /// This member leads from now on: what it was told when it led before does not count.
    pub(super) fn begin(&mut self) {
        self.log_bytes.forget();
        self.uneven_since = None;
    }

    /// Lets replicas change places so that nodes keep about as many bytes, if they have not for a while: what fills up and is
    /// deleted again soon is not worth a copy.
    fn even_out(
        &mut self,
        now: Monotonic,
        image: &MetadataImage,
        loads: &Loads<'_>,
        left: usize,
    ) -> Vec<Command> {
        let tolerated = self.policy.tolerated_bytes;
        let shifts = self.log_bytes.shifts(image, loads, tolerated);
        if shifts.is_empty() {
            self.uneven_since = None;
            return Vec::new();
        }
        let since = *self.uneven_since.get_or_insert(now);
        // Half a swap would make the numbers uneven.
        if now.since(since) < self.policy.bytes_patience || shifts.len() > left {
            return Vec::new();
        }
        let moved = shifts.into_iter().filter_map(|shift| {
            let (topic_id, partition) = shift.key;
            let (_, topic) = image.topic_by_id(&topic_id)?;
            let placed = (&**topic, partition, topic.partition(partition)?);
            let replicas = instead(&placed.2.replicas, shift.from, shift.to);
            Some(reassign(placed, replicas))
        });
        moved.collect()
    }

    /// Gives leaderships back that a failure moved elsewhere.
    fn leaders(&mut self, now: Monotonic, image: &MetadataImage) -> Option<Command> {
        let may = |b: &BrokerId| image.takes_partitions(*b);
        let displaced = |p: &PartitionImage| {
            let preferred = p.preferred().filter(may);
            preferred.is_some_and(|b| p.leader != Some(b) && p.isr.contains(&b))
        };
        let found = partitions(image).filter(|(.., p)| displaced(p));
        let found: BTreeSet<(Uuid, i32)> = found.map(|(t, n, _)| (t.id, n)).collect();
        self.displaced.retain(|key, _| found.contains(key));
        let mut due = Vec::new();
        for key in found {
            let since = *self.displaced.entry(key).or_insert(now);
            if now.since(since) >= self.policy.leader_patience {
                due.push(key);
            }
        }
        (!due.is_empty()).then_some(Command::Elect {
            partitions: Some(due),
            unclean: false,
        })
    }
}

/// All nodes are alive and all replicas in sync: it is no time to move things otherwise.
fn is_whole(image: &MetadataImage) -> bool {
    let all_alive = image
        .brokers
        .values()
        .all(|b| b.standing == Standing::Alive);
    all_alive && partitions(image).all(|(.., p)| p.isr.len() == p.replicas.len())
}

/// Whether a node that keeps a partition is drained.
fn is_draining(image: &MetadataImage, partition: &PartitionImage) -> bool {
    let mut replicas = partition.replicas.iter();
    replicas.any(|b| image.draining.contains(b))
}

/// Moves partitions away from nodes that are drained, as far as others can take them. The broker's own topics have no more
/// replicas than there are nodes that stay, and then need one.
fn drained(image: &MetadataImage, loads: &mut Loads<'_>, left: &mut usize) -> Vec<Command> {
    let mut plan = Vec::new();
    let own = image.topics.iter().filter(|(name, _)| name.is_internal());
    let mut needs: BTreeMap<Uuid, usize> = own.map(|(_, t)| (t.id, t.min_isr())).collect();
    let stays = |b: &BrokerId| !image.draining.contains(b);
    let staying = image.brokers.keys().filter(|b| stays(b)).count();
    let concerned = partitions(image)
        .filter(|(.., p)| p.target.is_none())
        .filter(|(.., p)| is_draining(image, p));
    for placed @ (.., partition) in concerned {
        if *left == 0 {
            break;
        }
        let mut replicas = partition.replicas.clone();
        for i in 0..replicas.len() {
            if image.draining.contains(&replicas[i])
                && let Some(other) = loads.instead(&replicas, i)
            {
                replicas[i] = other;
            }
        }
        if let Some(needs) = needs.get_mut(&placed.0.id)
            && replicas.len() > staying
            && replicas.iter().any(stays)
        {
            replicas.retain(stays);
            // What is left must be enough.
            if *needs > 1 && *needs >= replicas.len() {
                *needs = 1;
                plan.push(Command::AlterTopicConfigs {
                    id: placed.0.id,
                    changes: [(MIN_ISR.to_owned(), None)].into(),
                });
            }
        }
        if replicas != partition.replicas {
            plan.push(reassign(placed, replicas));
            *left -= 1;
        }
    }
    plan
}

/// The broker's own topics have as many replicas as there may be, and need two of three.
fn grown(image: &MetadataImage, loads: &mut Loads<'_>, left: &mut usize) -> Vec<Command> {
    let mut plan = Vec::new();
    let internal = image.topics.iter().filter(|(name, _)| name.is_internal());
    for (_, topic) in internal {
        let factor = INTERNAL_FACTOR.min(loads.nodes());
        let small = |p: &&PartitionImage| p.target.is_none() && p.replicas.len() < factor;
        for (number, partition) in topic.numbered().filter(|(_, p)| small(p)) {
            let mut replicas = partition.replicas.clone();
            while replicas.len() < factor
                && let Some(more) = loads.one_more(&replicas)
            {
                replicas.push(more);
            }
            if *left > 0 {
                plan.push(reassign((topic, number, partition), replicas));
                *left -= 1;
            }
        }
        let is_grown = |p: &PartitionImage| {
            p.isr.len() >= INTERNAL_FACTOR && p.target.is_none() && !is_draining(image, p)
        };
        if topic.partitions.iter().all(|p| is_grown(p)) && !topic.configs.contains_key(MIN_ISR) {
            plan.push(Command::AlterTopicConfigs {
                id: topic.id,
                changes: [(MIN_ISR.to_owned(), Some("2".to_owned()))].into(),
            });
        }
    }
    plan
}

/// Moves from the node that has most to the one that has least, until they differ by one.
fn spread(image: &MetadataImage, loads: &mut Loads<'_>, left: usize) -> Vec<Command> {
    let mut plan = Vec::new();
    let mut moved = BTreeSet::new();
    for _ in 0..left {
        let Some((most, least)) = loads.extremes(|l| l.keeps) else {
            break;
        };
        let leads_more = loads.leads(most) > loads.leads(least);
        let may = |(topic, number, p): &Placed<'_>| {
            let here = p.replicas.contains(&most) && !p.replicas.contains(&least);
            here && !moved.contains(&(topic.id, *number))
                && loads.keeps_racks(&p.replicas, most, least)
        };
        let fits = |(.., p): &Placed<'_>| (p.preferred() == Some(most)) != leads_more;
        // Of those that may, one that evens out the leaderships too.
        let Some(placed) = partitions(image).filter(may).min_by_key(fits) else {
            break;
        };
        let (topic, number, partition) = placed;
        let _new: bool = moved.insert((topic.id, number));
        let replicas = instead(&partition.replicas, most, least);
        loads.count(&partition.replicas, &replicas);
        plan.push(reassign(placed, replicas));
    }
    while plan.len() < left
        && let Some((most, least)) = loads.extremes(|l| l.leads)
    {
        let may = |(topic, number, p): &Placed<'_>| {
            let both = p.preferred() == Some(most) && p.replicas.contains(&least);
            both && !moved.contains(&(topic.id, *number))
        };
        let Some(placed) = partitions(image).find(may) else {
            break;
        };
        let (topic, number, partition) = placed;
        let _new: bool = moved.insert((topic.id, number));
        let mut replicas = partition.replicas.clone();
        replicas.sort_by_key(|b| *b != least);
        loads.count(&partition.replicas, &replicas);
        plan.push(reassign(placed, replicas));
    }
    plan
}

#[cfg(test)]
#[path = "balancer_tests.rs"]
mod tests;
