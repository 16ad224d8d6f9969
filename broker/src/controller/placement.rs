//! Which nodes keep a new partition: few replicas first, each in a rack of its own while there are racks; pure.
//!
//! Source: KIP-36 (rack-aware assignment); the choice by load is our own.

use std::collections::{BTreeMap, BTreeSet};

use callboard_common::BrokerId;

use super::image::MetadataImage;

/// How much a node has to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Load {
    leads: usize,
    keeps: usize,
}

/// Chooses replicas for `count` new partitions; the first of each leads. `None` if there are fewer nodes alive than
/// `replication_factor`.
#[must_use]
pub fn place(
    image: &MetadataImage,
    count: usize,
    replication_factor: usize,
) -> Option<Vec<Vec<BrokerId>>> {
    let mut nodes: BTreeMap<BrokerId, (Load, Option<&str>)> = image
        .alive()
        .map(|(id, b)| (id, (Load::default(), b.rack.as_deref())))
        .collect();
    if replication_factor == 0 || nodes.len() < replication_factor {
        return None;
    }
    for partition in image.topics.values().flat_map(|t| &t.partitions) {
        let preferred = partition.target.as_ref().unwrap_or(&partition.replicas);
        for (i, broker) in preferred.iter().enumerate() {
            if let Some((load, _)) = nodes.get_mut(broker) {
                load.keeps += 1;
                load.leads += usize::from(i == 0);
            }
        }
    }
    let mut one = || {
        let mut replicas: Vec<BrokerId> = Vec::with_capacity(replication_factor);
        let mut racks: BTreeSet<&str> = BTreeSet::new();
        for i in 0..replication_factor {
            let free = nodes.iter().filter(|(id, _)| !replicas.contains(id));
            let cost = |(id, (load, rack)): (&BrokerId, &(Load, Option<&str>))| {
                let same_rack = rack.is_some_and(|r| racks.contains(r));
                let order = if i == 0 {
                    (load.leads, load.keeps)
                } else {
                    (load.keeps, load.leads)
                };
                (same_rack, order, *id)
            };
            let (_, _, chosen) = free.map(cost).min()?;
            let (load, rack) = nodes.get_mut(&chosen)?;
            load.keeps += 1;
            load.leads += usize::from(i == 0);
            racks.extend(*rack);
            replicas.push(chosen);
        }
        Some(replicas)
    };
    (0..count).map(|_| one()).collect()
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
