//! Images that were written before partitions had replicas, read once and never written again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bincode::Decode;
use callboard_common::{BrokerId, LeaderEpoch, TopicName, Uuid};

use super::appended::Appended;
use super::image::{BrokerImage, MetadataImage, Standing, TopicImage};
use super::partition::PartitionImage;
use crate::security::image::SecurityImage;

#[derive(Decode)]
struct OldBroker {
    directory: Uuid,
    incarnation: Uuid,
    epoch: i64,
}

#[derive(Decode)]
struct OldPartition {
    leader: BrokerId,
    epoch: LeaderEpoch,
}

#[derive(Decode)]
struct OldTopic {
    id: Uuid,
    partitions: Vec<OldPartition>,
    configs: BTreeMap<String, String>,
}

/// An image of one node that was alone.
#[derive(Decode)]
pub(super) struct OldImage {
    applied: u64,
    brokers: BTreeMap<BrokerId, OldBroker>,
    topics: BTreeMap<TopicName, OldTopic>,
    names: BTreeMap<Uuid, TopicName>,
    next_producer_id: i64,
    security: SecurityImage,
}

impl From<OldImage> for MetadataImage {
    fn from(old: OldImage) -> Self {
        let broker = |b: OldBroker| BrokerImage {
            directory: b.directory,
            incarnation: b.incarnation,
            epoch: b.epoch,
            endpoints: None,
            rack: None,
            standing: Standing::Alive,
        };
        let partition = |p: OldPartition| PartitionImage {
            replicas: vec![p.leader],
            isr: vec![p.leader],
            elr: Vec::new(),
            leader: Some(p.leader),
            epoch: p.epoch,
            version: 0,
            target: None,
        };
        let topic = |t: OldTopic| TopicImage {
            id: t.id,
            partitions: t
                .partitions
                .into_iter()
                .map(partition)
                .map(Arc::new)
                .collect(),
            configs: t.configs,
        };
        let topics = old.topics.into_iter();
        Self {
            applied: old.applied,
            brokers: old
                .brokers
                .into_iter()
                .map(|(id, b)| (id, broker(b)))
                .collect(),
            topics: topics.map(|(name, t)| (name, Arc::new(topic(t)))).collect(),
            names: old.names,
            next_producer_id: old.next_producer_id,
            members: BTreeMap::new(),
            voters: BTreeSet::new(),
            security: Arc::new(old.security),
            draining: Appended::default(),
            level: Appended::default(),
        }
    }
}
