//! What the start, the end and the silence of nodes change in the metadata; pure.

use std::collections::BTreeSet;

use callboard_common::{BrokerId, Uuid};

use super::image::{BrokerImage, MetadataImage, Standing};
use super::partition::{Electorate, PartitionImage};
use super::records::{Endpoints, Outcome, Refusal};
use crate::planted::{self, Bug};

impl MetadataImage {
    /// Nodes that are alive, by number.
    pub fn alive(&self) -> impl Iterator<Item = (BrokerId, &BrokerImage)> {
        let nodes = self.brokers.iter();
        let alive = nodes.filter(|(_, b)| b.standing == Standing::Alive);
        alive.map(|(id, b)| (*id, b))
    }

    /// Numbers of the nodes that are alive.
    #[must_use]
    pub fn unfenced(&self) -> BTreeSet<BrokerId> {
        self.alive().map(|(id, _)| id).collect()
    }

    pub(super) fn register(
        &mut self,
        broker: BrokerId,
        directory: Uuid,
        incarnation: Uuid,
        endpoints: Option<Endpoints>,
        rack: Option<String>,
    ) -> Outcome {
        // Who asks again, because the answer was lost, is the same incarnation: what it has begun stays valid.
        let again = self.brokers.get(&broker).filter(|b| {
            let same = (b.incarnation, b.directory) == (incarnation, directory);
            endpoints.is_some() && same && b.standing != Standing::Stopped
        });
        if let Some(again) = again {
            return Outcome::Registered {
                broker_epoch: again.epoch,
            };
        }
        let epoch = i64::try_from(self.applied).unwrap_or(i64::MAX);
        let before = self.brokers.remove(&broker);
        // Whatever the earlier incarnation led, it leads no more: followers may hold what it never synced.
        let _changed: bool =
            self.change_all(|p| p.isr.contains(&broker), |p, of| p.fence(broker, of));
        let is_new_disk = before.is_some_and(|b| b.directory != directory);
        if is_new_disk && !planted::is(Bug::WipedStaysInSync) {
            let _changed: bool =
                self.change_all(|p| p.is_whole(broker), |p, of| p.forget(broker, of));
        }
        let registered = BrokerImage {
            directory,
            incarnation,
            epoch,
            endpoints,
            rack,
            standing: Standing::Alive,
        };
        let _none = self.brokers.insert(broker, registered);
        let _changed: bool = self.change_all(|p| p.leader.is_none(), PartitionImage::elect);
        Outcome::Registered {
            broker_epoch: epoch,
        }
    }

    /// What a node may have lost by ending as it did counts no more. Nobody takes it in again before it registers, and then with
    /// what it has by then.
    pub(super) fn start_uncleanly(
        &mut self,
        broker: BrokerId,
        epoch: i64,
        by_default: bool,
    ) -> Result<Outcome, Refusal> {
        let stopped = self.stand(broker, epoch, Standing::Stopped)?;
        let late = |topic: &super::TopicImage| topic.syncs_late(by_default);
        let whole = |p: &PartitionImage| p.is_whole(broker);
        let _changed: bool = self.change_all_of(late, whole, |p, of| p.doubt(broker, of));
        Ok(stopped)
    }

    pub(super) fn stand(
        &mut self,
        broker: BrokerId,
        epoch: i64,
        standing: Standing,
    ) -> Result<Outcome, Refusal> {
        let found = self.brokers.get_mut(&broker).filter(|b| b.epoch == epoch);
        let found = found.ok_or(Refusal::UnknownBroker)?;
        // Who said that it stops comes back as a new incarnation.
        if found.standing == Standing::Stopped && standing != Standing::Stopped {
            return Err(Refusal::UnknownBroker);
        }
        found.standing = standing;
        let _changed: bool = match standing {
            Standing::Alive => self.change_all(|p| p.leader.is_none(), PartitionImage::elect),
            Standing::Silent | Standing::Stopped => {
                self.change_all(|p| p.isr.contains(&broker), |p, of| p.fence(broker, of))
            }
        };
        Ok(Outcome::Done)
    }

    pub(super) fn unregister(&mut self, broker: BrokerId) -> Result<Outcome, Refusal> {
        if self.partitions().any(|p| p.replicas.contains(&broker)) {
            return Err(Refusal::InUse(broker));
        }
        match self.brokers.remove(&broker) {
            Some(_) => {
                let _was: bool = self.draining.0.remove(&broker);
                Ok(Outcome::Done)
            }
            None => Err(Refusal::UnknownBroker),
        }
    }

    pub(super) fn drain(&mut self, broker: BrokerId, drains: bool) -> Result<Outcome, Refusal> {
        if !self.brokers.contains_key(&broker) {
            return Err(Refusal::UnknownBroker);
        }
        let _changed: bool = match drains {
            true => self.draining.0.insert(broker),
            false => self.draining.0.remove(&broker),
        };
        Ok(Outcome::Done)
    }

    /// Whether a node is alive and not to be emptied.
    #[must_use]
    pub fn takes_partitions(&self, broker: BrokerId) -> bool {
        let alive = |b: &BrokerImage| b.standing == Standing::Alive;
        self.brokers.get(&broker).is_some_and(alive) && !self.draining.contains(&broker)
    }

    pub(super) fn elect(
        &mut self,
        partitions: Option<Vec<(Uuid, i32)>>,
        unclean: bool,
    ) -> Result<Outcome, Refusal> {
        let named: Option<BTreeSet<(Uuid, i32)>> = partitions.map(|p| p.into_iter().collect());
        let mut changed = false;
        let unfenced = self.unfenced();
        for topic in self.topics.values_mut() {
            let (id, min_isr) = (topic.id, topic.min_isr());
            let mut copy = topic.partitions.clone();
            let mut of_topic = false;
            for (number, partition) in (0..).zip(&mut copy) {
                if named.as_ref().is_some_and(|n| !n.contains(&(id, number))) {
                    continue;
                }
                let of = Electorate::of(partition, &unfenced, min_isr);
                // One that changes is copied, the others stay the same in memory.
                let mut elected = (**partition).clone();
                let has_changed = match unclean {
                    true => elected.elect_uncleanly(of),
                    false => elected.elect_preferred(of),
                };
                if has_changed {
                    *partition = std::sync::Arc::new(elected);
                    of_topic = true;
                }
            }
            if of_topic {
                std::sync::Arc::make_mut(topic).partitions = copy;
                changed = true;
            }
        }
        match changed {
            true => Ok(Outcome::Done),
            false => Err(Refusal::NotElected),
        }
    }
}

#[cfg(test)]
mod tests {
    use callboard_common::{LeaderEpoch, TopicName};

    use super::*;
    use crate::controller::Command;

    const B1: BrokerId = BrokerId(1);
    const B2: BrokerId = BrokerId(2);
    const TOPIC: Uuid = Uuid([7; 16]);

    /// Two nodes that keep a topic with these settings.
    fn image(settings: &[(&str, &str)]) -> MetadataImage {
        let mut image = MetadataImage::default();
        for broker in [B1, B2] {
            register(&mut image, broker, 1);
        }
        let setting = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let place = Command::PlaceTopic {
            name: TopicName::new("t").expect("valid"),
            id: TOPIC,
            replicas: vec![vec![B1, B2]],
            configs: settings.iter().map(setting).collect(),
        };
        let _outcome = apply(&mut image, place).expect("placed");
        image
    }

    fn apply(image: &mut MetadataImage, command: Command) -> Result<Outcome, Refusal> {
        image.apply(image.applied + 1, command)
    }

    fn register(image: &mut MetadataImage, broker: BrokerId, start: u8) {
        image.applied += 1;
        let incarnation = Uuid([start; 16]);
        let _outcome = image.register(broker, Uuid::ZERO, incarnation, None, None);
    }

    /// Who is in sync, and who is eligible.
    fn whole(image: &MetadataImage) -> (Vec<BrokerId>, Vec<BrokerId>) {
        let partition = image.partitions().next().expect("one");
        (partition.isr.clone(), partition.elr.clone())
    }

    fn start_uncleanly(image: &mut MetadataImage, by_default: bool) -> Result<Outcome, Refusal> {
        let (broker, epoch) = (B1, image.brokers[&B1].epoch);
        apply(
            image,
            Command::StartUncleanly {
                broker,
                epoch,
                by_default,
            },
        )
    }

    /// Who is eligible when node 1 has started uncleanly, and two must be in sync.
    fn eligible(flush_messages: Option<&str>, by_default: bool) -> Vec<BrokerId> {
        let mut settings = vec![("min.insync.replicas", "2")];
        settings.extend(flush_messages.map(|v| ("flush.messages", v)));
        let mut image = image(&settings);
        assert_eq!(start_uncleanly(&mut image, by_default), Ok(Outcome::Done));
        let (isr, elr) = whole(&image);
        assert_eq!(isr, [B2]);
        elr
    }

    /// KIP-966, where a sync comes after the acknowledgement.
    #[test]
    fn kip_966_an_unclean_start_matters_where_syncs_come_late() {
        assert_eq!(eligible(None, false), [B1]);
        assert_eq!(eligible(None, true), []);
        assert_eq!(eligible(Some("1"), true), [B1]);
        assert_eq!(eligible(Some("1000"), false), []);
    }

    /// The leader knows of the replica that it had all, and may not have heard yet that it was lost since.
    #[test]
    fn kip_966_who_started_uncleanly_is_not_taken_in_before_it_registers() {
        let late = [("min.insync.replicas", "2"), ("flush.messages", "1000")];
        let mut image = image(&late);
        let (before, leader) = (image.brokers[&B1].epoch, image.brokers[&B2].epoch);
        assert_eq!(start_uncleanly(&mut image, false), Ok(Outcome::Done));
        let partition = image.partitions().next().expect("one").clone();
        assert_eq!(partition.leader, Some(B2));
        let taken_in = Command::AlterIsr {
            topic_id: TOPIC,
            partition: 0,
            leader: B2,
            epoch: LeaderEpoch(1),
            version: partition.version,
            isr: vec![(B2, leader), (B1, before)],
        };
        assert_eq!(apply(&mut image, taken_in), Err(Refusal::Ineligible));
        let heard_of = Command::UnfenceBroker {
            broker: B1,
            epoch: before,
        };
        assert_eq!(apply(&mut image, heard_of), Err(Refusal::UnknownBroker));
        register(&mut image, B1, 2);
        assert_eq!(whole(&image), (vec![B2], vec![]));
    }

    #[test]
    fn what_is_said_of_an_incarnation_that_is_gone_means_nothing() {
        let mut image = image(&[("flush.messages", "1000")]);
        let (broker, epoch, by_default) = (B1, image.brokers[&B1].epoch, false);
        register(&mut image, B1, 2);
        let before = whole(&image);
        let late = Command::StartUncleanly {
            broker,
            epoch,
            by_default,
        };
        assert_eq!(apply(&mut image, late), Err(Refusal::UnknownBroker));
        assert_eq!(whole(&image), before);
        assert_eq!(image.brokers[&B1].standing, Standing::Alive);
    }
}
