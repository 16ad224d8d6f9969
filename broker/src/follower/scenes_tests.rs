//! Scenes of three replicas of one partition in one thread, by the KIP that tells them: the cores of leaders and followers over
//! logs in memory, and the metadata as controllers keep it. Nothing moves but what a scene moves.

use std::collections::BTreeMap;

use bytes::Bytes;
use callboard_common::record::producers::ProducerTable;
use callboard_common::record::{Batch, BatchBuilder, Compression};
use callboard_common::{BrokerId, LeaderEpoch, Now, Offset, TopicName, TopicPartition, Uuid};

use super::{Effect, Effects, Follower, Input, Position};
use crate::controller::{
    Command, Endpoint, Endpoints, MetadataImage, Outcome, PartitionImage, Refusal,
};
use crate::leader::{self, Acks, FetchError, IsrChange, Leader, ProduceError, Replication, Ticket};
use crate::peer::protocol::{Part, What};
use crate::topic_config::TopicConfig;

const B1: BrokerId = BrokerId(1);
const B2: BrokerId = BrokerId(2);
const B3: BrokerId = BrokerId(3);
const ALL: [BrokerId; 3] = [B1, B2, B3];
const TOPIC: Uuid = Uuid([7; 16]);

enum Role {
    Leads(Box<Leader>),
    Follows(Follower),
}

/// One replica. Each batch of its log has one record, the number of which is the batch's first timestamp.
struct Replica {
    log: Vec<Batch>,
    role: Role,
}

impl Replica {
    fn end(&self) -> Offset {
        Offset::new(self.log.len() as i64)
    }

    fn high_watermark(&self) -> Offset {
        match &self.role {
            Role::Leads(leader) => leader.ends().high_watermark,
            Role::Follows(follower) => follower.high_watermark(),
        }
    }

    fn numbers(&self) -> Vec<i64> {
        let numbers = self.log.iter().map(|b| b.header().base_timestamp);
        numbers.collect()
    }

    /// The largest reign that is not above this one, and where it ended.
    fn reign_end(&self, epoch: LeaderEpoch) -> (LeaderEpoch, Offset) {
        let of = |b: &&Batch| b.header().leader_epoch <= epoch.0;
        let count = self.log.iter().take_while(of).count();
        let last = self.log[..count].last();
        let last = last.map_or(-1, |b| b.header().leader_epoch);
        (LeaderEpoch(last), Offset::new(count as i64))
    }
}

struct Scene {
    image: MetadataImage,
    config: TopicConfig,
    replicas: BTreeMap<BrokerId, Replica>,
    /// What producers were told to be safe.
    acknowledged: Vec<u64>,
    /// What leaders asked the controller for, in which reign.
    asked: Vec<(BrokerId, LeaderEpoch, IsrChange)>,
}

impl Scene {
    /// All three are in sync and know it; node 1 leads.
    fn new(flush_messages: u64) -> Self {
        let mut scene = Self {
            image: MetadataImage::default(),
            config: TopicConfig {
                min_insync_replicas: 2,
                flush_messages,
                ..TopicConfig::default()
            },
            replicas: BTreeMap::new(),
            acknowledged: Vec::new(),
            asked: Vec::new(),
        };
        for broker in ALL {
            scene.register(broker, 1, 1);
        }
        let settings = [
            ("min.insync.replicas", "2".to_owned()),
            ("flush.messages", flush_messages.to_string()),
        ];
        let placed = scene.apply(Command::PlaceTopic {
            name: TopicName::new("t").expect("valid"),
            id: TOPIC,
            replicas: vec![ALL.to_vec()],
            configs: settings.map(|(name, v)| (name.to_owned(), v)).into(),
        });
        assert_eq!(placed, Ok(Outcome::Done));
        scene.show(&ALL);
        scene
    }

    fn apply(&mut self, command: Command) -> Result<Outcome, Refusal> {
        self.image.apply(self.image.applied + 1, command)
    }

    /// A node starts, with this disk.
    fn register(&mut self, broker: BrokerId, disk: u8, start: u8) {
        let at = || Endpoint {
            host: "localhost".into(),
            port: 1,
        };
        let registered = self.apply(Command::RegisterNode {
            broker,
            directory: Uuid([disk; 16]),
            incarnation: Uuid([start; 16]),
            endpoints: Endpoints {
                kafka: at(),
                kafka_tls: at(),
                quic: at(),
                peer: None,
            },
            rack: None,
        });
        assert!(registered.is_ok(), "{registered:?}");
    }

    /// The process of a node has ended, and a new one has come.
    fn start_uncleanly(&mut self, broker: BrokerId) {
        let unclean = Command::StartUncleanly {
            broker,
            epoch: self.epoch_of(broker),
            by_default: false,
        };
        assert_eq!(self.apply(unclean), Ok(Outcome::Done));
        self.register(broker, 1, 2);
    }

    fn epoch_of(&self, broker: BrokerId) -> i64 {
        self.image.brokers[&broker].epoch
    }

    fn fence(&mut self, broker: BrokerId) {
        let (epoch, stops) = (self.epoch_of(broker), false);
        let fenced = self.apply(Command::FenceBroker {
            broker,
            epoch,
            stops,
        });
        assert_eq!(fenced, Ok(Outcome::Done));
    }

    fn unfence(&mut self, broker: BrokerId) {
        let epoch = self.epoch_of(broker);
        let unfenced = self.apply(Command::UnfenceBroker { broker, epoch });
        assert_eq!(unfenced, Ok(Outcome::Done));
    }

    fn partition(&self) -> PartitionImage {
        let partition = TopicPartition::new(TopicName::new("t").expect("valid"), 0);
        self.image.partition(&partition).expect("there").clone()
    }

    /// These nodes hear of the metadata as it is.
    fn show(&mut self, to: &[BrokerId]) {
        let (partition, config) = (self.partition(), self.config.clone());
        let alive: BTreeMap<_, _> = self
            .image
            .alive()
            .map(|(b, node)| (b, node.epoch))
            .collect();
        for broker in to {
            let leads = partition.leader == Some(*broker);
            let before = self.replicas.remove(broker);
            let high_watermark = before
                .as_ref()
                .map_or(Offset::ZERO, Replica::high_watermark);
            let log = before.as_ref().map_or_else(Vec::new, |r| r.log.clone());
            let end = Offset::new(log.len() as i64);
            let (ends, producers) = (
                (Offset::ZERO, high_watermark, end),
                ProducerTable::default(),
            );
            let goes_on = before.filter(|r| match &r.role {
                Role::Leads(leader) => leads && leader.epoch() == partition.epoch,
                Role::Follows(follower) => !leads && follower.ends().epoch == Some(partition.epoch),
            });
            let replica = goes_on.unwrap_or_else(|| {
                let role = match leads {
                    true => {
                        let (known, alive) = (partition.clone(), alive.clone());
                        let now = Now::default();
                        let others = Replication::new(now.monotonic, *broker, known, alive, end);
                        let (epoch, config) = (partition.epoch, config.clone());
                        let leader = Leader::new(now, epoch, config, ends, producers, others);
                        Role::Leads(Box::new(leader))
                    }
                    false => Role::Follows(Follower::new(partition.epoch, ends, producers)),
                };
                Replica { log, role }
            });
            drop(self.replicas.insert(*broker, replica));
            if leads {
                let (partition, alive) = (Box::new(partition.clone()), alive.clone());
                let refused = self.lead(*broker, leader::Input::Replicated { partition, alive });
                assert_eq!(refused, []);
            }
        }
    }

    fn leader(&mut self, broker: BrokerId) -> &mut Leader {
        match &mut self.replicas.get_mut(&broker).expect("there").role {
            Role::Leads(leader) => leader,
            Role::Follows(_) => panic!("{broker} follows"),
        }
    }

    fn follower(&mut self, broker: BrokerId) -> &mut Follower {
        match &mut self.replicas.get_mut(&broker).expect("there").role {
            Role::Follows(follower) => follower,
            Role::Leads(_) => panic!("{broker} leads"),
        }
    }

    /// A leader's step and all that follows from it; what producers were refused.
    fn lead(&mut self, broker: BrokerId, input: leader::Input) -> Vec<ProduceError> {
        let (mut out, mut refused) = (leader::Effects::new(), Vec::new());
        self.leader(broker).step(Now::default(), input, &mut out);
        while let Some(effect) = out.pop_front() {
            let epoch = self.leader(broker).epoch();
            let replica = self.replicas.get_mut(&broker).expect("there");
            let end = replica.end();
            let next = match effect {
                leader::Effect::Append { batch } => {
                    replica.log.push(placed(&batch, end, epoch));
                    leader::Input::Appended { base: end }
                }
                leader::Effect::Sync => leader::Input::Synced { end },
                leader::Effect::Acknowledge(ticket, Ok(_)) => {
                    self.acknowledged.push(ticket.0);
                    continue;
                }
                leader::Effect::Acknowledge(_, Err(error)) => {
                    refused.push(error);
                    continue;
                }
                leader::Effect::ChangeIsr(change) => {
                    self.asked.push((broker, epoch, change));
                    continue;
                }
                other @ (leader::Effect::Read { .. }
                | leader::Effect::NothingToRead(_)
                | leader::Effect::Refuse(..)
                | leader::Effect::AdvanceStart { .. }
                | leader::Effect::Retain { .. }
                | leader::Effect::GiveUp
                | leader::Effect::Settled) => panic!("not in these scenes: {other:?}"),
            };
            self.leader(broker).step(Now::default(), next, &mut out);
        }
        refused
    }

    /// A producer that knows this reign sends a record to a node.
    fn produce_in(
        &mut self,
        epoch: LeaderEpoch,
        to: BrokerId,
        number: u64,
        acks: Acks,
    ) -> Vec<ProduceError> {
        let mut builder = BatchBuilder::new(Compression::None);
        builder.push(number as i64, None, Some(b"v"), &[]);
        let produce = leader::Input::Produce {
            ticket: Ticket(number),
            batch: builder.build(),
            acks,
            epoch,
        };
        self.lead(to, produce)
    }

    /// The same of one that knows the node's reign and wants all to have it.
    fn produce(&mut self, to: BrokerId, number: u64) {
        let epoch = self.leader(to).epoch();
        assert_eq!(self.produce_in(epoch, to, number, Acks::All), []);
    }

    /// What a leader sends to a follower.
    fn part(&mut self, from: BrokerId, to: BrokerId) -> Part {
        let follows = &self.replicas[&to];
        let (end, last) = (follows.end(), follows.log.last());
        let last = last.map(|b| LeaderEpoch(b.header().leader_epoch));
        let leads = &self.replicas[&from];
        let differs = last.map(|last| (last, leads.reign_end(last)));
        let differs = differs.filter(|(last, (epoch, at))| epoch != last || *at < end);
        let rest = leads.log.iter().skip(end.get() as usize);
        let records: Vec<u8> = rest.flat_map(|b| b.bytes().to_vec()).collect();
        let what = match differs {
            Some((_, (epoch, at))) => What::Diverged(epoch, at),
            None if records.is_empty() => What::HighWatermark,
            None => What::Records(Bytes::from(records).into()),
        };
        let ends = self.leader(from).ends();
        Part {
            topic_id: TOPIC,
            partition: 0,
            epoch: self.leader(from).epoch(),
            high_watermark: ends.high_watermark,
            log_start: ends.log_start,
            reign_start: ends.reign_start,
            what,
        }
    }

    /// A part arrives; whether anything came of it.
    fn deliver(&mut self, to: BrokerId, part: Part) -> bool {
        let mut out = Effects::new();
        self.follower(to).step(Input::Sent(part), &mut out);
        let mut did = false;
        while let Some(effect) = out.pop_front() {
            let replica = self.replicas.get_mut(&to).expect("there");
            did |= match effect {
                Effect::Append(batch) => {
                    replica.log.push(batch);
                    true
                }
                Effect::Sync => {
                    let end = replica.end();
                    self.follower(to).step(Input::Synced(end), &mut out);
                    true
                }
                Effect::CutAt(epoch, end) => {
                    let (_, own_end) = replica.reign_end(epoch);
                    replica.log.truncate(own_end.min(end).get() as usize);
                    let ends = (Offset::ZERO, replica.high_watermark(), replica.end());
                    let epoch = self.partition().epoch;
                    *self.follower(to) = Follower::new(epoch, ends, ProducerTable::default());
                    true
                }
                Effect::Report(_) | Effect::Wait => false,
                other @ (Effect::RestartAt(..) | Effect::AdvanceStart(_)) => {
                    panic!("not in these scenes: {other:?}")
                }
            };
        }
        did
    }

    /// A follower tells a leader how far it is.
    fn report(&mut self, to: BrokerId, replica: BrokerId, broker_epoch: i64) {
        let mut out = Effects::new();
        self.follower(replica).step(Input::Connected, &mut out);
        let Some(Effect::Report(Position { end, synced })) = out.pop_front() else {
            panic!("it says how far it is");
        };
        let followed = leader::Input::Followed {
            replica,
            broker_epoch,
            end,
            synced,
        };
        assert_eq!(self.lead(to, followed), []);
    }

    /// A follower gets all that its leader has, and says so.
    fn pull(&mut self, from: BrokerId, to: BrokerId) {
        while {
            let part = self.part(from, to);
            self.deliver(to, part)
        } {}
        self.report(from, to, self.epoch_of(to));
    }

    /// The controller hears what leaders asked for; what it refuses, and everybody what came of it.
    fn agree(&mut self) -> Vec<Refusal> {
        let mut refusals = Vec::new();
        for (leader, epoch, change) in std::mem::take(&mut self.asked) {
            let altered = self.apply(Command::AlterIsr {
                topic_id: TOPIC,
                partition: 0,
                leader,
                epoch,
                version: change.version,
                isr: change.isr,
            });
            if let Err(refusal) = altered {
                let refused = leader::Input::IsrRefused(change.version);
                assert_eq!(self.lead(leader, refused), []);
                refusals.push(refusal);
            }
        }
        self.show(&ALL);
        refusals
    }

    fn numbers(&self, broker: BrokerId) -> Vec<i64> {
        self.replicas[&broker].numbers()
    }

    /// What a consumer that knows this reign is refused.
    fn fetch(&mut self, from: BrokerId, epoch: i32) -> Option<FetchError> {
        let known = Some(LeaderEpoch(epoch));
        self.leader(from).knows_the_reign(known).err()
    }
}

/// A batch as its leader has it.
fn placed(batch: &Batch, base: Offset, epoch: LeaderEpoch) -> Batch {
    let header = batch.placed(base, epoch).write();
    let bytes = [&header[..], &batch.bytes()[header.len()..]].concat();
    Batch::parse(bytes.into()).expect("a batch")
}

/// KIP-320: a leader that was cut off does not know yet that it is none. Who knows more turns away from it, who knows as little
/// as it does is told nothing that is not true, and what it still sends is not taken.
#[test]
fn kip_320_a_leader_of_an_earlier_reign_is_not_believed() {
    let mut scene = Scene::new(1);
    scene.produce(B1, 1);
    scene.pull(B1, B2);
    scene.pull(B1, B3);
    assert_eq!(scene.acknowledged, [1]);
    scene.produce(B1, 2);
    let held_up = scene.part(B1, B3);
    scene.fence(B1);
    scene.show(&[B2, B3]);
    assert_eq!(scene.partition().leader, Some(B2));
    assert!(!scene.deliver(B3, held_up), "it follows another reign");
    assert_eq!(scene.numbers(B3), [1]);
    let (old, new) = (LeaderEpoch(0), LeaderEpoch(1));
    let behind = FetchError::UnknownEpoch {
        asked: new,
        current: old,
    };
    assert_eq!(scene.fetch(B1, 1), Some(behind));
    assert_eq!(scene.fetch(B1, 0), None, "neither knows it");
    let fenced = FetchError::Fenced {
        asked: old,
        current: new,
    };
    assert_eq!(scene.fetch(B2, 0), Some(fenced));
    let fenced = ProduceError::Fenced {
        asked: old,
        current: new,
    };
    assert_eq!(scene.produce_in(old, B2, 9, Acks::All), [fenced]);
    scene.produce(B2, 3);
    scene.pull(B2, B3);
    assert_eq!(scene.acknowledged, [1, 3], "nobody has taken 2 from B1");
    scene.unfence(B1);
    scene.show(&ALL);
    scene.pull(B2, B1);
    assert!(ALL.iter().all(|b| scene.numbers(*b) == [1, 3]));
}

/// KIP-903: a replica is about to be taken in when its node dies, loses its disk and starts again. What it said before that
/// must not have it taken in now, neither by a leader nor by the controller.
#[test]
fn kip_903_what_a_lost_disk_said_counts_no_more() {
    let mut scene = Scene::new(1);
    scene.fence(B3);
    scene.show(&ALL);
    scene.produce(B1, 1);
    scene.pull(B1, B2);
    assert_eq!(scene.acknowledged, [1]);
    scene.unfence(B3);
    scene.show(&ALL);
    scene.pull(B1, B3);
    assert_eq!(scene.asked.len(), 1, "it has all: it shall be in sync");
    let before = scene.epoch_of(B3);
    drop(scene.replicas.remove(&B3));
    scene.register(B3, 2, 2);
    assert_eq!(scene.agree(), [Refusal::Ineligible]);
    assert_eq!(scene.partition().isr, [B1, B2]);
    // What it said before is still on its way.
    let late = leader::Input::Followed {
        replica: B3,
        broker_epoch: before,
        end: Offset::new(1),
        synced: Offset::new(1),
    };
    assert_eq!(scene.lead(B1, late), []);
    assert_eq!(scene.agree(), []);
    assert_eq!(scene.partition().isr, [B1, B2]);
    scene.pull(B1, B3);
    assert_eq!(scene.agree(), []);
    assert_eq!(scene.partition().isr, ALL);
    assert!(ALL.iter().all(|b| scene.numbers(*b) == [1]));
}

/// KIP-966: the last replica standing writes on and crashes. Who left before it lacks nothing that was acknowledged, and leads.
#[test]
fn kip_966_the_last_replica_standing_is_not_needed() {
    let mut scene = Scene::new(1);
    scene.fence(B2);
    scene.show(&ALL);
    scene.produce(B1, 1);
    scene.pull(B1, B3);
    scene.fence(B3);
    scene.show(&ALL);
    let too_few = ProduceError::NotEnoughReplicas {
        in_sync: 1,
        required: 2,
    };
    let epoch = LeaderEpoch(0);
    assert_eq!(scene.produce_in(epoch, B1, 2, Acks::All), [too_few]);
    assert_eq!(scene.produce_in(epoch, B1, 3, Acks::Leader), []);
    assert_eq!(scene.leader(B1).ends().high_watermark, Offset::new(1));
    scene.fence(B1);
    scene.unfence(B2);
    assert_eq!(scene.partition().leader, None, "it lacks 1");
    scene.unfence(B3);
    scene.show(&ALL);
    assert_eq!(scene.partition().leader, Some(B3));
    scene.pull(B3, B2);
    assert_eq!(scene.agree(), []);
    scene.produce(B3, 4);
    scene.pull(B3, B2);
    scene.unfence(B1);
    scene.show(&ALL);
    scene.pull(B3, B1);
    assert!(ALL.iter().all(|b| scene.numbers(*b) == [1, 4]));
    // 3 was acknowledged by one that had it synced, and promised no more.
    assert_eq!(scene.acknowledged, [1, 3, 4]);
}

/// KIP-966 where syncs come late: of two that have everything one loses what it had not synced. It does not lead although it is
/// the first to be back, and is given again what it lacks.
#[test]
fn kip_966_who_lost_its_power_waits_for_who_did_not() {
    let mut scene = Scene::new(u64::MAX);
    scene.fence(B3);
    scene.show(&ALL);
    scene.produce(B1, 1);
    scene.pull(B1, B2);
    assert_eq!(scene.acknowledged, [1], "nobody has synced it");
    scene.fence(B1);
    scene.fence(B2);
    let lost = scene.replicas.get_mut(&B2).expect("there");
    lost.log.clear();
    scene.start_uncleanly(B2);
    scene.unfence(B3);
    assert_eq!(scene.partition().leader, None);
    scene.start_uncleanly(B1);
    assert_eq!(scene.partition().leader, Some(B1), "nobody can have more");
    scene.show(&ALL);
    for lacks in [B2, B3] {
        scene.pull(B1, lacks);
        assert_eq!(scene.agree(), []);
    }
    assert!(ALL.iter().all(|b| scene.numbers(*b) == [1]));
    assert_eq!(scene.partition().isr, ALL);
}
