//! Which partitions of one worker must be led, and which no longer; pure.

use std::collections::{BTreeMap, VecDeque};

use callboard_common::{BrokerId, LeaderEpoch, TopicPartition, Uuid};

/// What a worker's partition is led with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Role {
    /// The topic's identifier.
    pub topic_id: Uuid,
    /// The reign that metadata gives.
    pub epoch: LeaderEpoch,
    /// The topic's settings that differ from the defaults.
    pub configs: BTreeMap<String, String>,
}

/// What must happen next.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is a sentence")]
pub enum Effect {
    /// Start leading.
    Start {
        partition: TopicPartition,
        role: Role,
    },
    /// Stop leading; the topic is deleted and its log goes.
    Delete {
        partition: TopicPartition,
        topic_id: Uuid,
    },
    /// The topic's settings changed.
    Configure {
        partition: TopicPartition,
        configs: BTreeMap<String, String>,
    },
}

/// Effects in order; the shell reuses the buffer.
pub type Effects = VecDeque<Effect>;

/// What one worker of this node leads.
#[derive(Debug)]
pub struct Replicas {
    broker: BrokerId,
    worker: u64,
    workers: u64,
    led: BTreeMap<TopicPartition, Role>,
}

/// The number that decides which worker a partition lives on.
#[must_use]
fn hash(topic_id: &Uuid, partition: i32) -> u64 {
    // FNV-1a: the same on every machine and in every release.
    let bytes = topic_id.0.into_iter().chain(partition.to_be_bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

impl Replicas {
    /// Nothing is led yet by worker `worker` of `workers`.
    #[must_use]
    pub fn new(broker: BrokerId, worker: u64, workers: u64) -> Self {
        Self {
            broker,
            worker,
            workers,
            led: BTreeMap::new(),
        }
    }

    /// Compares with newer metadata and puts what must happen next into `out`: what stops comes first.
    pub fn follow<'a>(
        &mut self,
        topics: impl Iterator<
            Item = (
                &'a callboard_common::TopicName,
                &'a crate::controller::TopicImage,
            ),
        >,
        out: &mut Effects,
    ) {
        let mut wanted = BTreeMap::new();
        for (name, topic) in topics {
            for (number, partition) in (0..).zip(&topic.partitions) {
                let mine = hash(&topic.id, number) % self.workers == self.worker;
                if mine && partition.leader == Some(self.broker) {
                    let (topic_id, epoch, configs) =
                        (topic.id, partition.epoch, topic.configs.clone());
                    let partition = TopicPartition::new(name.clone(), number);
                    drop(wanted.insert(
                        partition,
                        Role {
                            topic_id,
                            epoch,
                            configs,
                        },
                    ));
                }
            }
        }
        let gone = |(p, role): (&TopicPartition, &Role)| {
            let stays = wanted
                .get(p)
                .is_some_and(|w: &Role| w.topic_id == role.topic_id);
            (!stays).then(|| Effect::Delete {
                partition: p.clone(),
                topic_id: role.topic_id,
            })
        };
        out.extend(self.led.iter().filter_map(gone));
        for (partition, role) in &wanted {
            match self.led.get(partition) {
                Some(led) if led.topic_id == role.topic_id => {
                    // A newer epoch was taken by the leader itself when it restarted.
                    if led.configs != role.configs {
                        let (partition, configs) = (partition.clone(), role.configs.clone());
                        out.push_back(Effect::Configure { partition, configs });
                    }
                }
                Some(_) | None => {
                    out.push_back(Effect::Start {
                        partition: partition.clone(),
                        role: role.clone(),
                    });
                }
            }
        }
        self.led = wanted;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::{Command, MetadataImage};
    use callboard_common::TopicName;

    const B1: BrokerId = BrokerId(1);

    fn follow(replicas: &mut Replicas, image: &MetadataImage) -> Vec<Effect> {
        let mut out = Effects::new();
        replicas.follow(image.topics.iter().map(|(n, t)| (n, &**t)), &mut out);
        out.into()
    }

    fn create(image: &mut MetadataImage, id: u8) {
        let register = Command::RegisterBroker {
            broker: B1,
            directory: Uuid::ZERO,
            incarnation: Uuid::ZERO,
        };
        image.apply(1, register).expect("registered");
        let name = TopicName::new("t").expect("valid");
        let command = Command::CreateTopic {
            name,
            id: Uuid([id; 16]),
            partitions: 4,
            leader: B1,
            configs: BTreeMap::new(),
        };
        image.apply(1, command).expect("created");
    }

    #[test]
    fn every_partition_is_started_by_one_worker_once() {
        let mut image = MetadataImage::default();
        create(&mut image, 1);
        let mut workers = [Replicas::new(B1, 0, 2), Replicas::new(B1, 1, 2)];
        let started: Vec<usize> = workers
            .iter_mut()
            .map(|w| follow(w, &image).len())
            .collect();
        assert_eq!(started.iter().sum::<usize>(), 4);
        assert!(workers.iter_mut().all(|w| follow(w, &image).is_empty()));
        assert_eq!(
            follow(&mut Replicas::new(BrokerId(2), 0, 1), &image),
            [],
            "another broker leads them"
        );
    }

    /// A topic that is deleted and created again under the same name is another one.
    #[test]
    fn a_recreated_topic_is_another_one() {
        let mut image = MetadataImage::default();
        create(&mut image, 1);
        let mut worker = Replicas::new(B1, 0, 1);
        assert_eq!(follow(&mut worker, &image).len(), 4);
        image
            .apply(2, Command::DeleteTopic { id: Uuid([1; 16]) })
            .expect("deleted");
        create(&mut image, 2);
        let effects = follow(&mut worker, &image);
        assert!(
            effects[..4]
                .iter()
                .all(|e| matches!(e, Effect::Delete { .. })),
            "{effects:?}"
        );
        assert!(
            effects[4..]
                .iter()
                .all(|e| matches!(e, Effect::Start { .. })),
            "{effects:?}"
        );
    }
}
