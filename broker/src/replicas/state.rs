//! Which partitions one worker must lead or follow, and which no longer; pure.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use callboard_common::{BrokerId, LeaderEpoch, TopicName, TopicPartition, Uuid};

use crate::controller::image::{BrokerImage, Standing};
use crate::controller::{MetadataImage, PartitionImage, TopicImage};

/// What a worker does with a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Role {
    /// The topic's identifier.
    pub topic_id: Uuid,
    /// The topic's settings that differ from the defaults.
    pub configs: BTreeMap<String, String>,
    /// What it is to do.
    pub duty: Duty,
    /// Whether somebody else led it before who may not know yet that it leads no more, and is not asked for what is committed
    /// now: what it knows is old then, and it may still say so for a moment.
    pub is_contested: bool,
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
    /// The metadata that was followed last.
    image: Arc<MetadataImage>,
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
            image: Arc::default(),
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

    /// Compares with newer metadata and puts what must happen next into `out`: what ends comes first. What has not changed
    /// is the same in memory and costs a comparison of addresses.
    pub fn follow(&mut self, image: &Arc<MetadataImage>, out: &mut Effects) {
        let alive: BTreeMap<BrokerId, i64> = image.alive().map(|(id, b)| (id, b.epoch)).collect();
        let alive_changed = alive != self.alive;
        self.alive = alive;
        let before = std::mem::replace(&mut self.image, image.clone());
        let mut changes = Effects::new();
        // Both are in the order of names.
        let mut old = before.topics.iter().peekable();
        for (name, topic) in &image.topics {
            while let Some((gone, _)) = old.next_if(|(n, _)| *n < name) {
                self.end_topic(gone, out);
            }
            let was = old.next_if(|(n, _)| *n == name).map(|(_, t)| t);
            let same = was.is_some_and(|was| Arc::ptr_eq(was, topic));
            if same && !alive_changed {
                continue;
            }
            // One that was created again under the same name is another one.
            let was = was.filter(|was| was.id == topic.id);
            if was.is_none() {
                self.end_topic(name, out);
            }
            self.follow_topic(name, (was, topic), alive_changed, out, &mut changes);
        }
        for (gone, _) in old {
            self.end_topic(gone, out);
        }
        out.append(&mut changes);
    }

    /// All that is kept of a topic goes.
    fn end_topic(&mut self, name: &TopicName, out: &mut Effects) {
        let of = |number| TopicPartition::new(name.clone(), number);
        let kept = self.kept.range(of(i32::MIN)..=of(i32::MAX));
        let kept: Vec<TopicPartition> = kept.map(|(p, _)| p.clone()).collect();
        kept.into_iter().for_each(|p| self.end(p, out));
    }

    fn end(&mut self, partition: TopicPartition, out: &mut Effects) {
        if let Some(Role { topic_id, .. }) = self.kept.remove(&partition) {
            out.push_back(Effect::Delete {
                partition,
                topic_id,
            });
        }
    }

    fn follow_topic(
        &mut self,
        name: &TopicName,
        (was, topic): (Option<&Arc<TopicImage>>, &TopicImage),
        alive_changed: bool,
        out: &mut Effects,
        changes: &mut Effects,
    ) {
        let same_configs = was.is_some_and(|was| was.configs == topic.configs);
        for (number, partition) in (0..).zip(&topic.partitions) {
            let was = was.and_then(|was| was.partitions.get(number as usize));
            let same = same_configs && was.is_some_and(|was| Arc::ptr_eq(was, partition));
            let is_mine = hash(&topic.id, number) % self.workers == self.worker;
            if !is_mine || (same && !alive_changed) {
                continue;
            }
            let key = TopicPartition::new(name.clone(), number);
            let Some(duty) = self.duty(partition) else {
                self.end(key, out);
                continue;
            };
            let kept = self.kept.get(&key);
            let role = Role {
                topic_id: topic.id,
                configs: topic.configs.clone(),
                is_contested: is_contested(kept.map(|k| &k.duty), partition, &self.image.brokers),
                duty,
            };
            match kept {
                Some(kept) => change(&key, kept, &role, alive_changed, changes),
                None => changes.push_back(Effect::Start {
                    partition: key.clone(),
                    role: role.clone(),
                }),
            }
            drop(self.kept.insert(key, role));
        }
    }
}

/// See [`Role`]. Who is in sync is asked for all that is committed, and knows its new duty when it answers; who is dead says
/// nothing.
fn is_contested(
    before: Option<&Duty>,
    partition: &PartitionImage,
    brokers: &BTreeMap<BrokerId, BrokerImage>,
) -> bool {
    // Who said that it stops serves until it has applied that.
    let serves = |b: &BrokerId| {
        let standing = brokers.get(b).map(|b| b.standing);
        standing.is_some_and(|s| s != Standing::Silent)
    };
    let may_be_behind = |b: &BrokerId| serves(b) && !partition.isr.contains(b);
    match before {
        Some(Duty::Follow(leader, epoch)) if epoch.0 + 1 == partition.epoch.0 => {
            may_be_behind(leader)
        }
        Some(Duty::Follow(..) | Duty::Lead(_) | Duty::Rest) | None => {
            partition.epoch.0 > 0 && brokers.keys().any(may_be_behind)
        }
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

    const B1: BrokerId = BrokerId(1);

    fn follow(replicas: &mut Replicas, image: &MetadataImage) -> Vec<Effect> {
        let mut out = Effects::new();
        replicas.follow(&Arc::new(image.clone()), &mut out);
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

    #[test]
    fn who_led_before_counts_if_it_is_alive_and_not_in_sync() {
        let [b1, b2, b3] = [1, 2, 3].map(BrokerId);
        let silent = BrokerId(9);
        let broker = |standing| BrokerImage {
            directory: Uuid::ZERO,
            incarnation: Uuid::ZERO,
            epoch: 1,
            endpoints: None,
            rack: None,
            standing,
        };
        let brokers = [
            (b1, broker(Standing::Alive)),
            (b2, broker(Standing::Alive)),
            (b3, broker(Standing::Stopped)),
            (silent, broker(Standing::Silent)),
        ];
        let brokers = brokers.into();
        let contested = |before: Option<Duty>, epoch, isr: &[BrokerId]| {
            let everybody = [b1, b2, b3].into();
            let mut partition =
                PartitionImage::new(vec![b1, b2, b3], LeaderEpoch(epoch), &everybody);
            partition.isr = isr.to_vec();
            is_contested(before.as_ref(), &partition, &brokers)
        };
        let followed = |leader, epoch| Some(Duty::Follow(leader, LeaderEpoch(epoch)));
        assert!(!contested(followed(b2, 4), 5, &[b1, b2]), "it is in sync");
        assert!(
            contested(followed(b3, 4), 5, &[b1, b2]),
            "it may not have stopped yet"
        );
        assert!(!contested(followed(silent, 4), 5, &[b1, b2]), "it is dead");
        assert!(
            contested(followed(b2, 3), 5, &[b1, b2]),
            "who led in reign 4?"
        );
        assert!(contested(None, 5, &[b1, b2]));
        assert!(!contested(None, 5, &[b1, b2, b3]), "all are in sync");
        assert!(!contested(None, 0, &[b1]), "nobody led it before");
    }
}
