//! Which partitions one worker must lead or follow, and which no longer; pure.

use std::collections::{BTreeMap, VecDeque};

use callboard_common::{BrokerId, LeaderEpoch, TopicPartition, Uuid};

use crate::controller::{MetadataImage, PartitionImage};

/// What a worker does with a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Role {
    /// The topic's identifier.
    pub topic_id: Uuid,
    /// The topic's settings that differ from the defaults.
    pub configs: BTreeMap<String, String>,
    /// What it is to do.
    pub duty: Duty,
}

/// See [`Role`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Duty {
    /// Lead it.
    Lead(PartitionImage),
    /// Follow this leader in this reign.
    Follow(BrokerId, LeaderEpoch),
    /// Keep the log: nobody leads.
    Rest,
}

/// What must happen next.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is a sentence")]
pub enum Effect {
    /// Begin a duty, after the one before has ended.
    Start {
        partition: TopicPartition,
        role: Role,
    },
    /// End the duty; the log stays.
    Stop { partition: TopicPartition },
    /// End the duty; the partition is not kept here any more and its log goes.
    Delete {
        partition: TopicPartition,
        topic_id: Uuid,
    },
    /// The topic's settings changed.
    Configure {
        partition: TopicPartition,
        configs: BTreeMap<String, String>,
    },
    /// The replicas of a partition that is led changed, or who of them is alive.
    Update {
        partition: TopicPartition,
        image: PartitionImage,
    },
}

/// Effects in order; the shell reuses the buffer.
pub type Effects = VecDeque<Effect>;

/// What one worker of this node keeps.
#[derive(Debug)]
pub struct Replicas {
    broker: BrokerId,
    worker: u64,
    workers: u64,
    kept: BTreeMap<TopicPartition, Role>,
    /// Incarnations of the nodes that are alive.
    alive: BTreeMap<BrokerId, i64>,
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
    /// Nothing is kept yet by worker `worker` of `workers`.
    #[must_use]
    pub fn new(broker: BrokerId, worker: u64, workers: u64) -> Self {
        Self {
            broker,
            worker,
            workers,
            kept: BTreeMap::new(),
            alive: BTreeMap::new(),
        }
    }

    /// Incarnations of the nodes that are alive, as of the metadata that was followed last.
    #[must_use]
    pub fn alive(&self) -> &BTreeMap<BrokerId, i64> {
        &self.alive
    }

    /// The role of a partition, as of the metadata that was followed last.
    #[must_use]
    pub fn role(&self, partition: &TopicPartition) -> Option<&Role> {
        self.kept.get(partition)
    }

    fn duty(&self, partition: &PartitionImage) -> Option<Duty> {
        if !partition.replicas.contains(&self.broker) {
            return None;
        }
        Some(match partition.leader {
            Some(leader) if leader == self.broker => Duty::Lead(partition.clone()),
            Some(leader) => Duty::Follow(leader, partition.epoch),
            None => Duty::Rest,
        })
    }

    /// Compares with newer metadata and puts what must happen next into `out`: what ends comes first.
    pub fn follow(&mut self, image: &MetadataImage, out: &mut Effects) {
        let alive: BTreeMap<BrokerId, i64> = image.alive().map(|(id, b)| (id, b.epoch)).collect();
        let alive_changed = alive != self.alive;
        let mut wanted = BTreeMap::new();
        for (name, topic) in &image.topics {
            for (number, partition) in (0..).zip(&topic.partitions) {
                if hash(&topic.id, number) % self.workers != self.worker {
                    continue;
                }
                let Some(duty) = self.duty(partition) else {
                    continue;
                };
                let role = Role {
                    topic_id: topic.id,
                    configs: topic.configs.clone(),
                    duty,
                };
                drop(wanted.insert(TopicPartition::new(name.clone(), number), role));
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
        out.extend(self.kept.iter().filter_map(gone));
        for (partition, role) in &wanted {
            match self.kept.get(partition) {
                Some(kept) if kept.topic_id == role.topic_id => {
                    change(partition, kept, role, alive_changed, out);
                }
                Some(_) | None => out.push_back(Effect::Start {
                    partition: partition.clone(),
                    role: role.clone(),
                }),
            }
        }
        (self.kept, self.alive) = (wanted, alive);
    }
}

/// The same partition, perhaps with another duty.
fn change(
    partition: &TopicPartition,
    kept: &Role,
    role: &Role,
    alive_changed: bool,
    out: &mut Effects,
) {
    let partition = || partition.clone();
    match (&kept.duty, &role.duty) {
        (Duty::Lead(before), Duty::Lead(image)) => {
            if before != image || (alive_changed && image.replicas.len() > 1) {
                out.push_back(Effect::Update {
                    partition: partition(),
                    image: image.clone(),
                });
            }
        }
        (before, after) if before == after => {}
        _ => {
            out.push_back(Effect::Stop {
                partition: partition(),
            });
            out.push_back(Effect::Start {
                partition: partition(),
                role: role.clone(),
            });
            return;
        }
    }
    if kept.configs != role.configs {
        out.push_back(Effect::Configure {
            partition: partition(),
            configs: role.configs.clone(),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::Command;
    use callboard_common::TopicName;

    const B1: BrokerId = BrokerId(1);

    fn follow(replicas: &mut Replicas, image: &MetadataImage) -> Vec<Effect> {
        let mut out = Effects::new();
        replicas.follow(image, &mut out);
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

    /// A node that leads no more follows, after it has stopped leading.
    #[test]
    fn duties_change_with_the_leader() {
        let mut image = MetadataImage::default();
        for broker in [1, 2] {
            let register = Command::RegisterBroker {
                broker: BrokerId(broker),
                directory: Uuid::ZERO,
                incarnation: Uuid::ZERO,
            };
            image
                .apply(broker.unsigned_abs().into(), register)
                .expect("registered");
        }
        let place = Command::PlaceTopic {
            name: TopicName::new("t").expect("valid"),
            id: Uuid([1; 16]),
            replicas: vec![vec![B1, BrokerId(2)]],
            configs: BTreeMap::new(),
        };
        image.apply(3, place).expect("created");
        let mut worker = Replicas::new(B1, 0, 1);
        let started = follow(&mut worker, &image);
        assert!(
            matches!(&started[..], [Effect::Start { role, .. }] if matches!(role.duty, Duty::Lead(_)))
        );
        let fence = Command::FenceBroker {
            broker: B1,
            epoch: 1,
            stops: false,
        };
        image.apply(4, fence).expect("fenced");
        let changed = follow(&mut worker, &image);
        let [Effect::Stop { .. }, Effect::Start { role, .. }] = &changed[..] else {
            panic!("{changed:?}");
        };
        assert_eq!(role.duty, Duty::Follow(BrokerId(2), LeaderEpoch(1)));
    }
}
