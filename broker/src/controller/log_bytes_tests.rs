//! Replicas change places until nodes keep about as much, and then nothing moves any more.

use super::*;
use crate::controller::records::{Command, Endpoint, Endpoints};
use callboard_common::TopicName;

const GIB: u64 = 1 << 30;

struct Scene {
    image: MetadataImage,
    bytes: LogBytes,
}

impl Scene {
    fn new(racks: &[Option<&str>]) -> Self {
        let mut scene = Self {
            image: MetadataImage::default(),
            bytes: LogBytes::default(),
        };
        let endpoint = || Endpoint {
            host: "localhost".into(),
            port: 1,
        };
        for (broker, rack) in (1..).map(BrokerId).zip(racks) {
            scene.apply(Command::RegisterNode {
                broker,
                directory: Uuid([broker.0 as u8; 16]),
                incarnation: Uuid::ZERO,
                endpoints: Endpoints {
                    kafka: endpoint(),
                    kafka_tls: endpoint(),
                    quic: endpoint(),
                    peer: None,
                },
                rack: rack.map(Into::into),
            });
        }
        scene
    }

    fn apply(&mut self, command: Command) {
        let index = self.image.applied + 1;
        let _outcome = self.image.apply(index, command).expect("it is applied");
    }

    /// A topic whose partitions are here and so large.
    fn topic(&mut self, id: u8, partitions: &[(&[i32], u64)]) {
        let replicas = partitions
            .iter()
            .map(|(on, _)| on.iter().copied().map(BrokerId).collect());
        let name = TopicName::new(&format!("t{id}")).expect("valid");
        self.apply(Command::PlaceTopic {
            name,
            id: Uuid([id; 16]),
            replicas: replicas.collect(),
            configs: BTreeMap::new(),
        });
        let sizes = (0..)
            .zip(partitions)
            .map(|(n, (_, bytes))| (Uuid([id; 16]), n, *bytes));
        self.bytes.note(LogSizes {
            logs: sizes.collect(),
        });
    }

    fn shifts(&self) -> Vec<Shift> {
        let loads = Loads::of(&self.image);
        self.bytes.shifts(&self.image, &loads, GIB)
    }

    fn kept(&self) -> Vec<u64> {
        let kept = |broker: &BrokerId| {
            let sized = self.bytes.sized(&self.image).expect("all are known");
            let of = sized.iter().filter(|(_, p, _)| p.replicas.contains(broker));
            of.map(|(.., bytes)| bytes).sum()
        };
        self.image.brokers.keys().map(kept).collect()
    }

    /// Carries out what is proposed until nothing is; how many replicas moved.
    fn settle(&mut self) -> usize {
        let mut moved = 0;
        loop {
            let shifts = self.shifts();
            if shifts.is_empty() {
                return moved;
            }
            moved += shifts.len();
            assert!(moved <= 100, "it goes on and on: {shifts:?}");
            for shift in shifts {
                self.carry_out(shift);
            }
        }
    }

    fn carry_out(&mut self, shift: Shift) {
        let (_, topic) = self.image.topic_by_id(&shift.key.0).expect("there");
        let swap = |b: &BrokerId| if *b == shift.from { shift.to } else { *b };
        let partition = topic.partition(shift.key.1).expect("there");
        let replicas = partition.replicas.iter().map(swap).collect();
        self.apply(Command::Reassign {
            topic_id: shift.key.0,
            partition: shift.key.1,
            replicas: Some(replicas),
        });
        // Everybody catches up, so the move ends.
        let (_, topic) = self.image.topic_by_id(&shift.key.0).expect("there");
        let partition = topic.partition(shift.key.1).expect("there").clone();
        let isr = partition
            .replicas
            .iter()
            .map(|b| (*b, self.image.brokers[b].epoch));
        self.apply(Command::AlterIsr {
            topic_id: shift.key.0,
            partition: shift.key.1,
            leader: partition.leader.expect("led"),
            epoch: partition.epoch,
            version: partition.version,
            isr: isr.collect(),
        });
    }
}

#[test]
fn a_large_partition_and_a_small_one_change_places() {
    let mut scene = Scene::new(&[None, None]);
    scene.topic(
        1,
        &[(&[1], 10 * GIB), (&[1], 10 * GIB), (&[2], GIB), (&[2], GIB)],
    );
    assert_eq!(scene.settle(), 2);
    assert_eq!(scene.kept(), [11 * GIB, 11 * GIB]);
    let loads = Loads::of(&scene.image);
    assert_eq!((loads.keeps(BrokerId(1)), loads.keeps(BrokerId(2))), (2, 2));
}

#[test]
fn one_moves_alone_where_the_number_stays_even() {
    let mut scene = Scene::new(&[None, None]);
    scene.topic(1, &[(&[1], 4 * GIB), (&[1], 4 * GIB), (&[2], 4 * GIB)]);
    assert_eq!(scene.settle(), 0, "moving one would only turn it around");
    scene.topic(2, &[(&[1], 4 * GIB), (&[2], GIB)]);
    // 12 and 5: the one of 4 goes alone, as node 1 keeps one more.
    assert_eq!(scene.settle(), 1);
    assert_eq!(scene.kept(), [8 * GIB, 9 * GIB]);
}

#[test]
fn as_long_as_one_size_is_not_known_nothing_moves() {
    let mut scene = Scene::new(&[None, None]);
    scene.topic(
        1,
        &[(&[1], 10 * GIB), (&[1], 10 * GIB), (&[2], GIB), (&[2], GIB)],
    );
    assert!(!scene.shifts().is_empty());
    let _gone = scene.bytes.0.remove(&(Uuid([1; 16]), 3));
    assert_eq!(scene.shifts(), []);
}

#[test]
fn small_differences_are_left() {
    let mut scene = Scene::new(&[None, None]);
    scene.topic(1, &[(&[1], GIB / 2), (&[1], GIB / 2), (&[2], 1), (&[2], 1)]);
    assert_eq!(scene.shifts(), [], "less than a GiB");
    let mut scene = Scene::new(&[None, None]);
    scene.topic(
        1,
        &[
            (&[1], 55 * GIB),
            (&[1], 55 * GIB),
            (&[2], 50 * GIB),
            (&[2], 50 * GIB),
        ],
    );
    assert_eq!(scene.shifts(), [], "less than a fifth");
}

#[test]
fn no_rack_is_given_up_for_bytes() {
    let racks = [Some("a"), Some("a"), Some("b")];
    let mut scene = Scene::new(&racks);
    // Node 3 keeps everything, and is the only one in its rack.
    let all: Vec<(&[i32], u64)> = vec![(&[1, 3], 5 * GIB), (&[2, 3], 5 * GIB)];
    scene.topic(1, &all);
    assert_eq!(scene.shifts(), []);
}

#[test]
fn several_nodes_come_close_to_each_other() {
    let mut scene = Scene::new(&[None; 4]);
    let sizes: Vec<u64> = (1..=24).map(|n: u64| n * n * GIB / 8).collect();
    let nodes: [&[i32]; 4] = [&[1, 2], &[2, 3], &[3, 4], &[4, 1]];
    let mut placed: Vec<(&[i32], u64)> = Vec::new();
    for (n, size) in sizes.iter().enumerate() {
        placed.push((nodes[n / 6], *size));
    }
    scene.topic(1, &placed);
    let before = scene.kept();
    let _moved = scene.settle();
    let after = scene.kept();
    let gap = |kept: &[u64]| kept.iter().max().unwrap_or(&0) - kept.iter().min().unwrap_or(&0);
    let average = after.iter().sum::<u64>() / 4;
    assert!(gap(&before) > average, "{before:?}");
    assert!(gap(&after) <= average / 5, "{after:?}");
}

#[test]
fn what_is_said_of_a_deleted_topic_is_forgotten() {
    let mut scene = Scene::new(&[None]);
    scene.topic(1, &[(&[1], GIB)]);
    scene.apply(Command::DeleteTopic { id: Uuid([1; 16]) });
    scene.bytes.prune(&scene.image);
    assert!(scene.bytes.0.is_empty());
}

#[test]
fn of_what_comes_about_as_close_the_cheapest_is_copied() {
    let mut scene = Scene::new(&[None, None]);
    let large: &[i32] = &[1];
    let small: &[i32] = &[2];
    // 100 GiB apart: a swap of the giants would fit exactly, one of 45 GiB alone nearly.
    let partitions = [
        (large, 300 * GIB),
        (large, 45 * GIB),
        (large, 5 * GIB),
        (small, 250 * GIB),
        (small, 0),
    ];
    scene.topic(1, &partitions);
    let shifts = scene.shifts();
    let copied: u64 = shifts.iter().map(|s| scene.bytes.0[&s.key]).sum();
    assert_eq!(copied, 45 * GIB, "{shifts:?}");
}
