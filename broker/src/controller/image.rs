//! What the committed metadata commands add up to; pure.
//!
//! An image is immutable once published: requests read it without locks. Equal commands in equal order give
//! equal images on every node.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bincode::{Decode, Encode};
use callboard_common::{BrokerId, FeatureLevel, LeaderEpoch, TopicName, TopicPartition, Uuid};

use super::appended::Appended;
use super::partition::{Electorate, PartitionImage};
use super::records::{Command, Endpoints, Member, Outcome, Refusal};
use crate::planted::{self, Bug};
use crate::security::image::SecurityImage;

/// Kafka's name of the setting that elections must know.
pub const MIN_ISR: &str = "min.insync.replicas";
/// And of the one that says whether what is acknowledged is synced; 1 if it is.
const FLUSH_MESSAGES: &str = "flush.messages";

/// A registered node.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct BrokerImage {
    /// Its data directory.
    pub directory: Uuid,
    /// Its current start.
    pub incarnation: Uuid,
    /// Increases with every start.
    pub epoch: i64,
    /// Where it is found; `None` if it was registered before nodes said so.
    pub endpoints: Option<Endpoints>,
    /// Where it stands.
    pub rack: Option<String>,
    /// Whether it is alive.
    pub standing: Standing,
}

/// Whether a node is alive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Standing {
    /// It is heard of.
    Alive,
    /// It was not heard of for too long.
    Silent,
    /// It said that it stops.
    Stopped,
}

/// One topic.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct TopicImage {
    /// Its identifier: a topic that is created again under the same name is another one.
    pub id: Uuid,
    /// Its partitions by number; those that do not change stay the same in memory.
    pub partitions: Vec<Arc<PartitionImage>>,
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
    /// Who follows the metadata log, by number in Raft.
    pub members: BTreeMap<u64, Member>,
    /// Those of them that vote.
    pub voters: BTreeSet<u64>,
    /// Users, rules and quotas.
    pub security: Arc<SecurityImage>,
    /// Nodes that shall keep nothing any more.
    pub draining: Appended<BTreeSet<BrokerId>>,
    /// What its log may hold, and what all nodes speak.
    pub level: Appended<FeatureLevel>,
}

impl MetadataImage {
    /// The topic with this identifier.
    #[must_use]
    pub fn topic_by_id(&self, id: &Uuid) -> Option<(&TopicName, &Arc<TopicImage>)> {
        let name = self.names.get(id)?;
        Some((name, self.topics.get(name)?))
    }

    /// A partition, if it is known.
    #[must_use]
    pub fn partition(&self, of: &TopicPartition) -> Option<&PartitionImage> {
        self.topics.get(&of.topic)?.partition(of.partition)
    }

    /// All partitions, by topic and number.
    pub fn partitions(&self) -> impl Iterator<Item = &PartitionImage> {
        let topics = self.topics.values();
        topics.flat_map(|t| t.numbered().map(|(_, p)| p))
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
    #[expect(clippy::too_many_lines, reason = "a row of commands, each a few lines")]
    pub fn apply(&mut self, index: u64, command: Command) -> Result<Outcome, Refusal> {
        self.applied = index;
        match command {
            Command::RegisterBroker {
                broker,
                directory,
                incarnation,
            } => Ok(self.register(broker, directory, incarnation, None, None)),
            Command::RegisterNode {
                broker,
                directory,
                incarnation,
                endpoints,
                rack,
            } => Ok(self.register(broker, directory, incarnation, Some(endpoints), rack)),
            Command::FenceBroker {
                broker,
                epoch,
                stops,
            } => {
                let standing = if stops {
                    Standing::Stopped
                } else {
                    Standing::Silent
                };
                self.stand(broker, epoch, standing)
            }
            Command::UnfenceBroker { broker, epoch } => self.stand(broker, epoch, Standing::Alive),
            Command::SetMember { raft_id, member } => {
                let _before = self.members.insert(raft_id, member);
                Ok(Outcome::Done)
            }
            Command::UnregisterBroker { broker } => self.unregister(broker),
            Command::DrainBroker { broker, drains } => self.drain(broker, drains),
            Command::PlaceTopic {
                name,
                id,
                replicas,
                configs,
            } => {
                let placed = replicas.into_iter().map(|r| (r, LeaderEpoch(0))).collect();
                self.create_topic(name, id, placed, configs)
            }
            Command::PlacePartitions {
                id,
                there,
                replicas,
            } => self.add_partitions(&id, Some(there), replicas),
            Command::AlterIsr {
                topic_id,
                partition,
                leader,
                epoch,
                version,
                isr,
            } => {
                let is_current = |(b, epoch): &(BrokerId, i64)| {
                    self.brokers.get(b).is_some_and(|b| b.epoch == *epoch)
                };
                if !isr.iter().all(is_current) && !planted::is(Bug::StaleIncarnationCounts) {
                    return Err(Refusal::Ineligible);
                }
                let isr = isr.into_iter().map(|(b, _)| b).collect();
                self.change(&topic_id, partition, |p, of| {
                    p.alter_isr(leader, epoch, version, isr, of)
                })
            }
            Command::Reassign {
                topic_id,
                partition,
                replicas,
            } => {
                let known = |b: &BrokerId| self.brokers.contains_key(b);
                let named = replicas.iter().flatten();
                let distinct: BTreeSet<_> = replicas.iter().flatten().collect();
                let count = named.clone().count();
                if !named.clone().all(known) || distinct.len() != count {
                    return Err(Refusal::Ineligible);
                }
                if replicas.is_some() && count == 0 {
                    return Err(Refusal::Ineligible);
                }
                self.change(&topic_id, partition, |p, of| {
                    p.reassign(replicas, of);
                    Ok(())
                })
            }
            Command::LoseReplica {
                topic_id,
                partition,
                broker,
            } => self.change(&topic_id, partition, |p, of| p.lose(broker, of)),
            Command::StepAside {
                topic_id,
                partition,
                broker,
            } => self.change(&topic_id, partition, |p, of| p.step_aside(broker, of)),
            Command::Elect {
                partitions,
                unclean,
            } => self.elect(partitions, unclean),
            Command::CreateTopic {
                name,
                id,
                partitions,
                leader,
                configs,
            } => {
                let count = usize::try_from(partitions).unwrap_or(0);
                let placed = vec![(vec![leader], LeaderEpoch(0)); count];
                self.create_topic(name, id, placed, configs)
            }
            Command::AdoptTopic {
                name,
                id,
                epochs,
                leader,
                configs,
            } => {
                let placed = epochs.into_iter().map(|e| (vec![leader], e)).collect();
                self.create_topic(name, id, placed, configs)
            }
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
                // If fewer are enough now it is for the leader to say that nobody else need be eligible.
                Ok(Outcome::Done)
            }
            Command::CreatePartitions { id, count, leader } => {
                let there = self.topic_mut(&id)?.partitions.len();
                let more = usize::try_from(count).unwrap_or(0).saturating_sub(there);
                self.add_partitions(&id, None, vec![vec![leader]; more])
            }
            Command::Security(change) => {
                Arc::make_mut(&mut self.security).apply(change);
                Ok(Outcome::Done)
            }
            Command::SetFeatureLevel {
                level,
                brokers,
                members,
            } => self.set_level(level, &brokers, &members),
            Command::StartUncleanly {
                broker,
                epoch,
                by_default,
            } => self.start_uncleanly(broker, epoch, by_default),
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
        let led = topic.partitions.get_mut(number);
        let led = Arc::make_mut(led.ok_or(Refusal::UnknownTopic)?);
        if led.leader != Some(broker) {
            return Err(Refusal::NotLeader(broker));
        }
        if !planted::is(Bug::SameReignAfterRestart) {
            led.epoch = led.epoch.next();
        }
        led.version = led.version.saturating_add(1);
        Ok(Outcome::LeaderEpoch(led.epoch))
    }

    fn topic_mut(&mut self, id: &Uuid) -> Result<&mut TopicImage, Refusal> {
        let name = self.names.get(id).ok_or(Refusal::UnknownTopic)?;
        let topic = self.topics.get_mut(name).ok_or(Refusal::UnknownTopic)?;
        Ok(Arc::make_mut(topic))
    }

    fn add_partitions(
        &mut self,
        id: &Uuid,
        expected: Option<i32>,
        replicas: Vec<Vec<BrokerId>>,
    ) -> Result<Outcome, Refusal> {
        let unfenced = self.unfenced();
        let topic = self.topic_mut(id)?;
        let there = topic.partitions.len();
        let is_expected = expected.is_none_or(|e| usize::try_from(e) == Ok(there));
        if replicas.is_empty() || !is_expected {
            return Err(Refusal::NotMorePartitions { there });
        }
        let new = |replicas| Arc::new(PartitionImage::new(replicas, LeaderEpoch(0), &unfenced));
        topic.partitions.extend(replicas.into_iter().map(new));
        Ok(Outcome::Done)
    }

    fn create_topic(
        &mut self,
        name: TopicName,
        id: Uuid,
        placed: Vec<(Vec<BrokerId>, LeaderEpoch)>,
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
        let unfenced = self.unfenced();
        let partition =
            |(replicas, epoch)| Arc::new(PartitionImage::new(replicas, epoch, &unfenced));
        let partitions = placed.into_iter().map(partition).collect();
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

    /// Changes one partition.
    fn change(
        &mut self,
        topic_id: &Uuid,
        partition: i32,
        change: impl FnOnce(&mut PartitionImage, Electorate<'_>) -> Result<(), Refusal>,
    ) -> Result<Outcome, Refusal> {
        let unfenced = self.unfenced();
        let topic = self.topic_mut(topic_id)?;
        let min_isr = topic.min_isr();
        let number = usize::try_from(partition).map_err(|_| Refusal::UnknownTopic)?;
        let partition = topic.partitions.get_mut(number);
        let partition = Arc::make_mut(partition.ok_or(Refusal::UnknownTopic)?);
        let of = Electorate::of(partition, &unfenced, min_isr);
        change(partition, of)?;
        Ok(Outcome::Done)
    }

    /// Changes all partitions that a change concerns; the others are not copied.
    pub(super) fn change_all(
        &mut self,
        concerns: impl Fn(&PartitionImage) -> bool,
        change: impl FnMut(&mut PartitionImage, Electorate<'_>) -> bool,
    ) -> bool {
        self.change_all_of(|_| true, concerns, change)
    }

    /// The same of some topics.
    pub(super) fn change_all_of(
        &mut self,
        topics: impl Fn(&TopicImage) -> bool,
        concerns: impl Fn(&PartitionImage) -> bool,
        mut change: impl FnMut(&mut PartitionImage, Electorate<'_>) -> bool,
    ) -> bool {
        let unfenced = self.unfenced();
        let mut changed = false;
        for topic in self.topics.values_mut().filter(|t| topics(t)) {
            if !topic.partitions.iter().any(|p| concerns(p)) {
                continue;
            }
            let topic = Arc::make_mut(topic);
            let min_isr = topic.min_isr();
            for partition in topic.partitions.iter_mut().filter(|p| concerns(p)) {
                let of = Electorate::of(partition, &unfenced, min_isr);
                changed |= change(Arc::make_mut(partition), of);
            }
        }
        changed
    }
}

impl TopicImage {
    /// The partition with this number.
    #[must_use]
    pub fn partition(&self, number: i32) -> Option<&PartitionImage> {
        let partition = self.partitions.get(usize::try_from(number).ok()?);
        partition.map(|p| &**p)
    }

    /// Its partitions with their numbers.
    pub fn numbered(&self) -> impl Iterator<Item = (i32, &PartitionImage)> {
        (0..).zip(self.partitions.iter().map(|p| &**p))
    }

    /// `min.insync.replicas` as the topic has it; 1 if it does not choose.
    #[must_use]
    pub fn min_isr(&self) -> usize {
        let chosen = self.configs.get(MIN_ISR).and_then(|v| v.parse().ok());
        chosen.unwrap_or(1).max(1)
    }

    /// Whether it acknowledges what is not synced yet; `by_default` if it does not choose.
    #[must_use]
    pub fn syncs_late(&self, by_default: bool) -> bool {
        let chosen = self.configs.get(FLUSH_MESSAGES);
        chosen.map_or(by_default, |v| v.parse() != Ok(1_u64))
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
        let register = |start| Command::RegisterBroker {
            broker: B1,
            directory: Uuid::ZERO,
            incarnation: Uuid([start; 16]),
        };
        assert_eq!(
            image.apply(7, register(5)),
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
        let epochs = |image: &MetadataImage| -> Vec<_> {
            let partitions = image.topics[&name("t")].partitions.iter();
            partitions.map(|p| p.epoch.0).collect()
        };
        assert_eq!(epochs(&image), [1, 2]);
        image.apply(10, register(6)).expect("registered");
        assert_eq!(epochs(&image), [2, 3]);
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
