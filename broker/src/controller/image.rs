//! What the committed metadata commands add up to; pure.
//!
//! An image is immutable once published: requests read it without locks. Equal commands in equal order give
//! equal images on every node.

use std::collections::BTreeMap;
use std::sync::Arc;

use bincode::{Decode, Encode};
use callboard_common::{BrokerId, LeaderEpoch, TopicName, TopicPartition, Uuid};

use super::records::{Command, Outcome, Refusal};
use crate::security::image::SecurityImage;

/// A registered node.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct BrokerImage {
    /// Its data directory.
    pub directory: Uuid,
    /// Its current start.
    pub incarnation: Uuid,
    /// Increases with every start.
    pub epoch: i64,
}

/// One partition.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct PartitionImage {
    /// Who leads it.
    pub leader: BrokerId,
    /// The leader's reign.
    pub epoch: LeaderEpoch,
}

/// One topic.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct TopicImage {
    /// Its identifier: a topic that is created again under the same name is another one.
    pub id: Uuid,
    /// Its partitions by number.
    pub partitions: Vec<PartitionImage>,
    /// Settings that differ from the defaults.
    pub configs: BTreeMap<String, String>,
}

/// The cluster's metadata at one point of its log.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct MetadataImage {
    /// Index of the last command that is in here.
    pub applied: u64,
    /// Nodes by number.
    pub brokers: BTreeMap<BrokerId, BrokerImage>,
    /// Topics by name.
    pub topics: BTreeMap<TopicName, Arc<TopicImage>>,
    /// Names of topics by identifier.
    pub names: BTreeMap<Uuid, TopicName>,
    /// The next producer id that was not given out.
    pub next_producer_id: i64,
    /// Users, rules and quotas. Last, because images that were written before there was such a thing end here.
    pub security: Arc<SecurityImage>,
}

impl MetadataImage {
    /// The topic with this identifier.
    #[must_use]
    pub fn topic_by_id(&self, id: &Uuid) -> Option<(&TopicName, &Arc<TopicImage>)> {
        let name = self.names.get(id)?;
        Some((name, self.topics.get(name)?))
    }

    /// How many partitions there are.
    #[must_use]
    pub fn partition_count(&self) -> usize {
        self.topics.values().map(|t| t.partitions.len()).sum()
    }

    /// Applies a committed command.
    ///
    /// # Errors
    ///
    /// [`Refusal`] says which precondition does not hold; only `applied` has changed then.
    pub fn apply(&mut self, index: u64, command: Command) -> Result<Outcome, Refusal> {
        self.applied = index;
        match command {
            Command::RegisterBroker {
                broker,
                directory,
                incarnation,
            } => Ok(self.register(broker, directory, incarnation)),
            Command::CreateTopic {
                name,
                id,
                partitions,
                leader,
                configs,
            } => {
                let epochs = vec![LeaderEpoch(0); usize::try_from(partitions).unwrap_or(0)];
                self.create_topic(name, id, epochs, leader, configs)
            }
            Command::AdoptTopic {
                name,
                id,
                epochs,
                leader,
                configs,
            } => self.create_topic(name, id, epochs, leader, configs),
            Command::DeleteTopic { id } => {
                let name = self.names.remove(&id).ok_or(Refusal::UnknownTopic)?;
                drop(self.topics.remove(&name));
                Ok(Outcome::Done)
            }
            Command::NextLeaderEpoch {
                partition,
                topic_id,
                broker,
            } => self.next_leader_epoch(&partition, topic_id, broker),
            Command::AllocateProducerIds { count, .. } => {
                let first = self.next_producer_id;
                self.next_producer_id = first
                    .checked_add(count.max(0))
                    .ok_or(Refusal::NoProducerIds)?;
                Ok(Outcome::ProducerIds { first })
            }
            Command::AlterTopicConfigs { id, changes } => {
                let topic = self.topic_mut(&id)?;
                for (name, value) in changes {
                    match value {
                        Some(value) => drop(topic.configs.insert(name, value)),
                        None => drop(topic.configs.remove(&name)),
                    }
                }
                Ok(Outcome::Done)
            }
            Command::CreatePartitions { id, count, leader } => {
                let topic = self.topic_mut(&id)?;
                let (there, count) = (topic.partitions.len(), usize::try_from(count).unwrap_or(0));
                if count <= there {
                    return Err(Refusal::NotMorePartitions { there });
                }
                let epoch = LeaderEpoch(0);
                topic
                    .partitions
                    .resize(count, PartitionImage { leader, epoch });
                Ok(Outcome::Done)
            }
            Command::Security(change) => {
                Arc::make_mut(&mut self.security).apply(change);
                Ok(Outcome::Done)
            }
        }
    }

    fn next_leader_epoch(
        &mut self,
        partition: &TopicPartition,
        topic_id: Uuid,
        broker: BrokerId,
    ) -> Result<Outcome, Refusal> {
        let topic = self
            .topics
            .get_mut(&partition.topic)
            .filter(|t| t.id == topic_id);
        let topic = Arc::make_mut(topic.ok_or(Refusal::UnknownTopic)?);
        let number = usize::try_from(partition.partition).map_err(|_| Refusal::UnknownTopic)?;
        let led = topic
            .partitions
            .get_mut(number)
            .ok_or(Refusal::UnknownTopic)?;
        if led.leader != broker {
            return Err(Refusal::NotLeader(broker));
        }
        led.epoch = led.epoch.next();
        Ok(Outcome::LeaderEpoch(led.epoch))
    }

    fn topic_mut(&mut self, id: &Uuid) -> Result<&mut TopicImage, Refusal> {
        let name = self.names.get(id).ok_or(Refusal::UnknownTopic)?;
        let topic = self.topics.get_mut(name).ok_or(Refusal::UnknownTopic)?;
        Ok(Arc::make_mut(topic))
    }

    fn register(&mut self, broker: BrokerId, directory: Uuid, incarnation: Uuid) -> Outcome {
        let epoch = i64::try_from(self.applied).unwrap_or(i64::MAX);
        let _before = self.brokers.insert(
            broker,
            BrokerImage {
                directory,
                incarnation,
                epoch,
            },
        );
        // Followers may hold records that the earlier incarnation never synced: each reign begins anew.
        for topic in self.topics.values_mut() {
            if topic.partitions.iter().any(|p| p.leader == broker) {
                let led = Arc::make_mut(topic)
                    .partitions
                    .iter_mut()
                    .filter(|p| p.leader == broker);
                led.for_each(|p| p.epoch = p.epoch.next());
            }
        }
        Outcome::Registered {
            broker_epoch: epoch,
        }
    }

    fn create_topic(
        &mut self,
        name: TopicName,
        id: Uuid,
        epochs: Vec<LeaderEpoch>,
        leader: BrokerId,
        configs: BTreeMap<String, String>,
    ) -> Result<Outcome, Refusal> {
        if self.topics.contains_key(&name) {
            return Err(Refusal::TopicExists(name));
        }
        let metric_name = name.metric_name();
        if let Some(existing) = self.topics.keys().find(|t| t.metric_name() == metric_name) {
            return Err(Refusal::TopicCollides {
                new: name,
                existing: existing.clone(),
            });
        }
        let partition = |epoch| PartitionImage { leader, epoch };
        let partitions = epochs.into_iter().map(partition).collect();
        drop(self.names.insert(id, name.clone()));
        drop(self.topics.insert(
            name,
            Arc::new(TopicImage {
                id,
                partitions,
                configs,
            }),
        ));
        Ok(Outcome::Done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const B1: BrokerId = BrokerId(1);

    fn name(name: &str) -> TopicName {
        TopicName::new(name).expect("valid")
    }

    fn create(image: &mut MetadataImage, topic: &str, id: u8) -> Result<Outcome, Refusal> {
        let configs = BTreeMap::new();
        image.apply(
            1,
            Command::CreateTopic {
                name: name(topic),
                id: Uuid([id; 16]),
                partitions: 2,
                leader: B1,
                configs,
            },
        )
    }

    #[test]
    fn names_are_unique_also_for_metrics() {
        let mut image = MetadataImage::default();
        assert_eq!(create(&mut image, "a.b", 1), Ok(Outcome::Done));
        assert_eq!(
            create(&mut image, "a.b", 2),
            Err(Refusal::TopicExists(name("a.b")))
        );
        assert!(matches!(
            create(&mut image, "a_b", 2),
            Err(Refusal::TopicCollides { .. })
        ));
        assert_eq!(
            image.apply(2, Command::DeleteTopic { id: Uuid([1; 16]) }),
            Ok(Outcome::Done)
        );
        assert_eq!(create(&mut image, "a_b", 2), Ok(Outcome::Done));
        assert_eq!(image.partition_count(), 2);
    }

    /// I9: leader epochs increase strictly, with every start and every restart of a leader.
    #[test]
    fn every_reign_has_an_epoch_of_its_own() {
        let mut image = MetadataImage::default();
        create(&mut image, "t", 1).expect("created");
        let register = Command::RegisterBroker {
            broker: B1,
            directory: Uuid::ZERO,
            incarnation: Uuid([5; 16]),
        };
        assert_eq!(
            image.apply(7, register),
            Ok(Outcome::Registered { broker_epoch: 7 })
        );
        let partition = TopicPartition::new(name("t"), 1);
        let next = |broker| Command::NextLeaderEpoch {
            partition: partition.clone(),
            topic_id: Uuid([1; 16]),
            broker,
        };
        assert_eq!(
            image.apply(8, next(B1)),
            Ok(Outcome::LeaderEpoch(LeaderEpoch(2)))
        );
        assert_eq!(
            image.apply(9, next(BrokerId(2))),
            Err(Refusal::NotLeader(BrokerId(2)))
        );
        let epochs: Vec<_> = image.topics[&name("t")]
            .partitions
            .iter()
            .map(|p| p.epoch.0)
            .collect();
        assert_eq!(epochs, [1, 2]);
    }

    #[test]
    fn topics_change_without_becoming_others() {
        let mut image = MetadataImage::default();
        create(&mut image, "t", 1).expect("created");
        let id = Uuid([1; 16]);
        let set = |value: Option<&str>| Command::AlterTopicConfigs {
            id,
            changes: [("retention.ms".to_owned(), value.map(Into::into))].into(),
        };
        let grow = |count| Command::CreatePartitions {
            id,
            count,
            leader: B1,
        };
        assert_eq!(image.apply(2, set(Some("5"))), Ok(Outcome::Done));
        assert_eq!(image.topics[&name("t")].configs["retention.ms"], "5");
        assert_eq!(image.apply(3, set(None)), Ok(Outcome::Done));
        assert!(image.topics[&name("t")].configs.is_empty());
        assert_eq!(
            image.apply(4, grow(2)),
            Err(Refusal::NotMorePartitions { there: 2 })
        );
        assert_eq!(image.apply(5, grow(3)), Ok(Outcome::Done));
        assert_eq!(image.partition_count(), 3);
        let unknown = Command::AlterTopicConfigs {
            id: Uuid::ZERO,
            changes: BTreeMap::new(),
        };
        assert_eq!(image.apply(6, unknown), Err(Refusal::UnknownTopic));
    }

    #[test]
    fn producer_ids_are_given_out_once() {
        let mut image = MetadataImage::default();
        let mut allocate =
            |count| image.apply(1, Command::AllocateProducerIds { broker: B1, count });
        assert_eq!(allocate(1000), Ok(Outcome::ProducerIds { first: 0 }));
        assert_eq!(allocate(1000), Ok(Outcome::ProducerIds { first: 1000 }));
        assert_eq!(allocate(i64::MAX), Err(Refusal::NoProducerIds));
    }
}
