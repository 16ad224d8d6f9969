//! Which nodes keep a new partition: few replicas first, each in a rack of its own while there are racks; pure.
//!
//! Source: KIP-36 (rack-aware assignment); the choice by load is our own.

use std::collections::{BTreeMap, BTreeSet};

use callboard_common::BrokerId;

use super::image::MetadataImage;

/// How much a node has to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Load {
    pub(super) leads: usize,
    pub(super) keeps: usize,
}

/// How much the nodes that take partitions have to do, once all moves have ended.
#[derive(Debug)]
pub(super) struct Loads<'a>(BTreeMap<BrokerId, (Load, Option<&'a str>)>);

impl<'a> Loads<'a> {
    pub(super) fn of(image: &'a MetadataImage) -> Self {
        let nodes = image.alive().filter(|(id, _)| image.takes_partitions(*id));
        let nodes = nodes.map(|(id, b)| (id, (Load::default(), b.rack.as_deref())));
        let mut loads = Self(nodes.collect());
        for partition in image.partitions() {
            loads.count(&[], partition.goal());
        }
        loads
    }

    /// How many nodes there are.
    pub(super) fn nodes(&self) -> usize {
        self.0.len()
    }

    /// Who they are.
    pub(super) fn brokers(&self) -> impl Iterator<Item = BrokerId> {
        self.0.keys().copied()
    }

    pub(super) fn leads(&self, broker: BrokerId) -> usize {
        self.0.get(&broker).map_or(0, |(load, _)| load.leads)
    }

    pub(super) fn keeps(&self, broker: BrokerId) -> usize {
        self.0.get(&broker).map_or(0, |(load, _)| load.keeps)
    }

    /// A partition goes from some replicas to others.
    pub(super) fn count(&mut self, before: &[BrokerId], after: &[BrokerId]) {
        let all = |brokers: &[BrokerId]| brokers.iter().copied().enumerate().collect::<Vec<_>>();
        for (i, broker) in all(before) {
            if let Some((load, _)) = self.0.get_mut(&broker) {
                load.keeps = load.keeps.saturating_sub(1);
                load.leads = load.leads.saturating_sub(usize::from(i == 0));
            }
        }
        for (i, broker) in all(after) {
            if let Some((load, _)) = self.0.get_mut(&broker) {
                load.keeps += 1;
                load.leads += usize::from(i == 0);
            }
        }
    }

    fn rack(&self, broker: BrokerId) -> Option<&'a str> {
        self.0.get(&broker).and_then(|(_, rack)| *rack)
    }

    /// The best node for place `i` beside `others`: in another rack, with little to do.
    fn best(&self, others: &[BrokerId], i: usize) -> Option<BrokerId> {
        let racks: BTreeSet<&str> = others.iter().filter_map(|b| self.rack(*b)).collect();
        let free = self.0.iter().filter(|(id, _)| !others.contains(id));
        let cost = |(id, (load, rack)): (&BrokerId, &(Load, Option<&str>))| {
            let same_rack = rack.is_some_and(|r| racks.contains(r));
            let order = if i == 0 {
                (load.leads, load.keeps)
            } else {
                (load.keeps, load.leads)
            };
            (same_rack, order, *id)
        };
        free.map(cost).min().map(|(.., id)| id)
    }

    /// One more replica beside these, which is counted.
    pub(super) fn one_more(&mut self, replicas: &[BrokerId]) -> Option<BrokerId> {
        let chosen = self.best(replicas, replicas.len())?;
        let (load, _) = self.0.get_mut(&chosen)?;
        load.keeps += 1;
        load.leads += usize::from(replicas.is_empty());
        Some(chosen)
    }

    /// Another node for place `i` of these replicas, which is counted.
    pub(super) fn instead(&mut self, replicas: &[BrokerId], i: usize) -> Option<BrokerId> {
        let gone = replicas[i];
        let others: Vec<BrokerId> = replicas.iter().copied().filter(|b| *b != gone).collect();
        let chosen = self.best(&others, i)?;
        if chosen == gone {
            return None;
        }
        let mut after = replicas.to_vec();
        after[i] = chosen;
        self.count(replicas, &after);
        Some(chosen)
    }

    /// Whether a partition stands in as many racks if one node takes the place of another.
    pub(super) fn keeps_racks(&self, replicas: &[BrokerId], from: BrokerId, to: BrokerId) -> bool {
        let racks = |swap: bool| {
            let instead = |b: &BrokerId| if swap && *b == from { to } else { *b };
            let of = replicas.iter().map(instead);
            of.filter_map(|b| self.rack(b))
                .collect::<BTreeSet<_>>()
                .len()
        };
        racks(true) >= racks(false)
    }

    /// Who has most and who has least, if they differ by more than one.
    pub(super) fn extremes(&self, of: impl Fn(&Load) -> usize) -> Option<(BrokerId, BrokerId)> {
        let sizes = || self.0.iter().map(|(id, (load, _))| (of(load), *id));
        let ((most, from), (least, to)) = (sizes().max()?, sizes().min()?);
        (most > least + 1).then_some((from, to))
    }
}

/// Chooses replicas for `count` new partitions; the first of each leads. `None` if there are fewer nodes that take
/// partitions than `replication_factor`.
#[must_use]
pub fn place(
    image: &MetadataImage,
    count: usize,
    replication_factor: usize,
) -> Option<Vec<Vec<BrokerId>>> {
    let mut loads = Loads::of(image);
    if replication_factor == 0 || loads.nodes() < replication_factor {
        return None;
    }
    let mut one = || {
        let mut replicas: Vec<BrokerId> = Vec::with_capacity(replication_factor);
        while replicas.len() < replication_factor {
            replicas.push(loads.one_more(&replicas)?);
        }
        Some(replicas)
    };
    (0..count).map(|_| one()).collect()
}

/// These replicas with more or fewer of them; the first ones stay.
#[must_use]
pub fn with_factor(
    image: &MetadataImage,
    replicas: &[BrokerId],
    factor: usize,
) -> Option<Vec<BrokerId>> {
    let mut loads = Loads::of(image);
    let mut replicas = replicas.to_vec();
    replicas.truncate(factor);
    while replicas.len() < factor {
        replicas.push(loads.one_more(&replicas)?);
    }
    Some(replicas).filter(|r| !r.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::{Command, Endpoint, Endpoints};
    use callboard_common::Uuid;

    fn image(racks: &[Option<&str>]) -> MetadataImage {
        let mut image = MetadataImage::default();
        let endpoint = || Endpoint {
            host: "localhost".into(),
            port: 1,
        };
        for (broker, rack) in (1..).map(BrokerId).zip(racks) {
            let endpoints = Endpoints {
                kafka: endpoint(),
                kafka_tls: endpoint(),
                quic: endpoint(),
                peer: None,
            };
            let register = Command::RegisterNode {
                broker,
                directory: Uuid::ZERO,
                incarnation: Uuid::ZERO,
                endpoints,
                rack: rack.map(Into::into),
            };
            let _registered = image.apply(1, register).expect("registered");
        }
        image
    }

    #[test]
    fn leaders_and_replicas_are_spread_evenly() {
        let placed = place(&image(&[None; 4]), 12, 3).expect("enough nodes");
        for broker in (1..=4).map(BrokerId) {
            let leads = placed.iter().filter(|r| r[0] == broker).count();
            let keeps = placed.iter().filter(|r| r.contains(&broker)).count();
            assert_eq!((leads, keeps), (3, 9), "{broker}: {placed:?}");
        }
    }

    #[test]
    fn every_rack_keeps_a_replica() {
        let racks = [Some("a"), Some("a"), Some("b"), Some("b"), Some("c")];
        let image = image(&racks);
        for replicas in place(&image, 10, 3).expect("enough nodes") {
            let racks: BTreeSet<_> = replicas.iter().map(|b| &image.brokers[b].rack).collect();
            assert_eq!(racks.len(), 3, "{replicas:?}");
        }
    }

    #[test]
    fn fewer_nodes_than_replicas_is_refused() {
        assert_eq!(place(&image(&[None, None]), 1, 3), None);
        assert_eq!(
            place(&image(&[None]), 2, 1),
            Some(vec![vec![BrokerId(1)]; 2])
        );
    }
}
