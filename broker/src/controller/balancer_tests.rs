//! Plans against images, carried out until nothing is left to do.

use super::*;
use crate::controller::{Endpoint, Endpoints};
use callboard_common::TopicName;
use std::collections::BTreeMap;

struct Scene {
    image: MetadataImage,
    balancer: Balancer,
    now: Monotonic,
}

fn b(ids: &[i32]) -> Vec<BrokerId> {
    ids.iter().copied().map(BrokerId).collect()
}

impl Scene {
    fn new(nodes: i32) -> Self {
        let mut scene = Self {
            image: MetadataImage::default(),
            balancer: Balancer::default(),
            now: Monotonic::default(),
        };
        (1..=nodes).for_each(|n| scene.join(n, None));
        scene
    }

    fn apply(&mut self, command: Command) {
        let index = self.image.applied + 1;
        let _outcome = self.image.apply(index, command).expect("it is applied");
    }

    fn join(&mut self, node: i32, rack: Option<&str>) {
        let endpoint = || Endpoint {
            host: "localhost".into(),
            port: 1,
        };
        let endpoints = Endpoints {
            kafka: endpoint(),
            kafka_tls: endpoint(),
            quic: endpoint(),
            peer: None,
        };
        self.apply(Command::RegisterNode {
            broker: BrokerId(node),
            directory: Uuid([node as u8; 16]),
            incarnation: Uuid::ZERO,
            endpoints,
            rack: rack.map(Into::into),
        });
    }

    fn drain(&mut self, node: i32) {
        let (broker, drains) = (BrokerId(node), true);
        self.apply(Command::DrainBroker { broker, drains });
    }

    /// A node goes silent; its incarnation.
    fn fence(&mut self, node: i32) -> i64 {
        let (broker, stops) = (BrokerId(node), false);
        let epoch = self.image.brokers[&broker].epoch;
        self.apply(Command::FenceBroker {
            broker,
            epoch,
            stops,
        });
        epoch
    }

    fn topic(&mut self, name: &str, replicas: &[&[i32]]) {
        let id = Uuid([self.image.topics.len() as u8 + 1; 16]);
        self.apply(Command::PlaceTopic {
            name: TopicName::new(name).expect("valid"),
            id,
            replicas: replicas.iter().map(|r| b(r)).collect(),
            configs: BTreeMap::new(),
        });
    }

    fn replicas(&self, name: &str) -> Vec<Vec<BrokerId>> {
        let topic = &self.image.topics[&TopicName::new(name).expect("valid")];
        topic
            .partitions
            .iter()
            .map(|p| p.replicas.clone())
            .collect()
    }

    fn plan(&mut self) -> Vec<Command> {
        self.now = self.now.after(EVERY);
        self.balancer.plan(self.now, &self.image)
    }

    /// Whoever is alive catches up at once.
    fn catch_up(&mut self) {
        let lacking: Vec<Command> = partitions(&self.image)
            .filter_map(|(t, partition, p)| {
                let leader = p.leader?;
                let alive = p.replicas.iter().filter_map(|b| {
                    let node = &self.image.brokers[b];
                    (node.standing == Standing::Alive).then_some((*b, node.epoch))
                });
                let isr: Vec<(BrokerId, i64)> = alive.collect();
                (isr.len() > p.isr.len()).then_some(Command::AlterIsr {
                    topic_id: t.id,
                    partition,
                    leader,
                    epoch: p.epoch,
                    version: p.version,
                    isr,
                })
            })
            .collect();
        lacking.into_iter().for_each(|c| self.apply(c));
    }

    /// Carries plans out until there are none for longer than any patience; how many partitions moved at once at most.
    fn settle(&mut self) -> usize {
        let (mut quiet, mut most, mut rounds) = (0, 0, 0);
        while quiet < 40 {
            let plan = self.plan();
            quiet = if plan.is_empty() { quiet + 1 } else { 0 };
            plan.into_iter().for_each(|c| self.apply(c));
            let moving = partitions(&self.image).filter(|(.., p)| p.target.is_some());
            most = most.max(moving.count());
            self.catch_up();
            rounds += 1;
            assert!(rounds < 2000, "it never comes to rest");
        }
        most
    }

    fn keeps(&self, node: i32) -> (usize, usize) {
        let of = |p: &&PartitionImage| p.replicas.contains(&BrokerId(node));
        let all = || partitions(&self.image).map(|(.., p)| p);
        let leads = all().filter(|p| p.leader == Some(BrokerId(node)));
        (all().filter(of).count(), leads.count())
    }
}

#[test]
fn a_drained_node_is_emptied_and_gets_nothing_new() {
    let mut scene = Scene::new(4);
    let replicas: Vec<&[i32]> = vec![&[1, 2, 3]; 30];
    scene.topic("t", &replicas);
    scene.drain(1);
    let most = scene.settle();
    assert_eq!(scene.keeps(1), (0, 0));
    assert!((1..=Policy::default().moves_at_once).contains(&most));
    let factor = |r: &Vec<BrokerId>| r.len() == 3;
    assert!(scene.replicas("t").iter().all(factor));
    let placed = super::super::placement::place(&scene.image, 6, 3).expect("three are left");
    assert!(placed.iter().flatten().all(|node| *node != BrokerId(1)));
    assert!(super::super::placement::place(&scene.image, 1, 4).is_none());
}

#[test]
fn a_node_is_not_drained_if_nobody_can_take_its_place() {
    let mut scene = Scene::new(3);
    scene.topic("t", &[&[1, 2, 3]]);
    scene.drain(3);
    scene.settle();
    assert_eq!(scene.replicas("t"), [b(&[1, 2, 3])]);
}

#[test]
fn drained_partitions_stay_in_as_many_racks() {
    let mut scene = Scene::new(0);
    let racks = [(1, "a"), (2, "b"), (3, "c"), (4, "a"), (5, "c")];
    racks
        .iter()
        .for_each(|(node, rack)| scene.join(*node, Some(rack)));
    scene.topic("t", &[&[1, 2, 3]]);
    scene.drain(3);
    scene.settle();
    assert_eq!(scene.replicas("t"), [b(&[1, 2, 5])]);
}

#[test]
fn the_brokers_own_topics_grow_with_the_cluster() {
    let mut scene = Scene::new(1);
    scene.topic("__consumer_offsets", &[&[1], &[1]]);
    scene.topic("t", &[&[1]]);
    scene.join(2, None);
    scene.join(3, None);
    scene.balancer.policy.balances = false;
    scene.settle();
    assert!(
        scene
            .replicas("__consumer_offsets")
            .iter()
            .all(|r| r.len() == 3)
    );
    let offsets = &scene.image.topics[&TopicName::consumer_offsets()];
    assert_eq!(offsets.configs[MIN_ISR], "2");
    assert_eq!(
        scene.replicas("t"),
        [b(&[1])],
        "users' topics have the factor that users chose"
    );
}

#[test]
fn leaders_come_back_after_a_while_and_only_once_in_sync() {
    let mut scene = Scene::new(3);
    scene.topic("t", &[&[1, 2, 3], &[2, 3, 1], &[3, 1, 2]]);
    let (broker, epoch) = (BrokerId(1), scene.fence(1));
    scene.apply(Command::UnfenceBroker { broker, epoch });
    assert_eq!(scene.keeps(1), (3, 0));
    for _ in 0..60 {
        assert_eq!(scene.plan(), [], "it is not in sync yet");
    }
    scene.catch_up();
    let patience = Policy::default().leader_patience.as_secs();
    let planned = (0..=patience)
        .map(|_| scene.plan())
        .position(|p| !p.is_empty());
    assert_eq!(planned, Some(patience as usize));
    scene.settle();
    assert_eq!(scene.keeps(1), (3, 1));
}

#[test]
fn a_node_that_joins_gets_its_share_and_then_it_is_quiet() {
    let mut scene = Scene::new(3);
    let replicas: Vec<&[i32]> = vec![&[1, 2, 3], &[2, 3, 1], &[3, 1, 2], &[1, 3, 2]];
    scene.topic("t", &replicas.repeat(4));
    scene.join(4, None);
    scene.settle();
    for node in 1..=4 {
        let (keeps, leads) = scene.keeps(node);
        assert_eq!((keeps, leads), (12, 4), "node {node}");
    }
    scene.balancer.policy.balances = false;
    scene.join(5, None);
    scene.settle();
    assert_eq!(
        scene.keeps(5),
        (0, 0),
        "switched off, it leaves things where they are"
    );
}

#[test]
fn nothing_is_spread_while_something_is_broken() {
    let mut scene = Scene::new(3);
    scene.topic("t", &[&[1, 2], &[1, 2], &[1, 2]]);
    let _epoch = scene.fence(2);
    for _ in 0..60 {
        assert_eq!(scene.plan(), []);
    }
}

/// Two large partitions on one node and two small ones on the other.
fn uneven() -> Scene {
    const GIB: u64 = 1 << 30;
    let mut scene = Scene::new(2);
    scene.topic("t", &[&[1], &[1], &[2], &[2]]);
    let id = scene.image.topics.values().next().expect("one").id;
    let sizes = (0..).zip([10 * GIB, 10 * GIB, GIB, GIB]);
    scene.balancer.note(LogSizes {
        logs: sizes.map(|(n, bytes)| (id, n, bytes)).collect(),
    });
    scene
}

#[test]
fn bytes_are_evened_out_when_they_stay_uneven() {
    let mut scene = uneven();
    let patience = scene.balancer.policy.bytes_patience.as_secs();
    for _ in 0..patience {
        assert_eq!(scene.plan(), []);
    }
    let plans = (0..10).map(|_| scene.plan());
    let plan = plans.into_iter().find(|p| !p.is_empty());
    assert_eq!(plan.map(|p| p.len()), Some(2), "two change places");
    // Who has just begun to lead knows nothing of sizes, and waits anew.
    let mut scene = uneven();
    (0..patience).for_each(|_| assert_eq!(scene.plan(), []));
    scene.balancer.begin();
    for _ in 0..patience {
        assert_eq!(scene.plan(), []);
    }
}

#[test]
fn no_more_moves_for_bytes_than_may_be_at_once() {
    for most in [0, 1] {
        let mut scene = uneven();
        scene.balancer.policy.moves_at_once = most;
        for _ in 0..400 {
            assert_eq!(scene.plan(), [], "a swap is two moves");
        }
    }
}

/// Three nodes become one again; nothing of users hinders that here.
#[test]
fn the_brokers_own_topics_shrink_with_the_cluster() {
    let mut scene = Scene::new(3);
    scene.topic("__consumer_offsets", &[&[1, 2, 3], &[2, 3, 1]]);
    scene.settle();
    let needs = |scene: &Scene| {
        let offsets = &scene.image.topics[&TopicName::consumer_offsets()];
        offsets.configs.get(MIN_ISR).cloned()
    };
    assert_eq!(needs(&scene).as_deref(), Some("2"));
    for (leaves, left) in [(3, 2), (2, 1)] {
        scene.drain(leaves);
        scene.settle();
        assert_eq!(scene.keeps(leaves), (0, 0));
        let replicas = scene.replicas("__consumer_offsets");
        assert!(replicas.iter().all(|r| r.len() == left), "{replicas:?}");
        assert_eq!(needs(&scene), None, "one that is left must be enough");
    }
    let (broker, drains) = (BrokerId(2), false);
    scene.apply(Command::DrainBroker { broker, drains });
    scene.join(4, None);
    scene.settle();
    let replicas = scene.replicas("__consumer_offsets");
    assert!(replicas.iter().all(|r| r.len() == 3), "{replicas:?}");
    assert_eq!(needs(&scene).as_deref(), Some("2"));
}

/// More replicas than three are nobody's plan, but may be: then two are enough as before while one of five nodes goes.
#[test]
fn a_setting_that_is_still_right_stays_while_own_topics_shrink() {
    let mut scene = Scene::new(5);
    scene.topic("__consumer_offsets", &[&[1, 2, 3, 4, 5], &[2, 3, 4, 5, 1]]);
    scene.settle();
    scene.drain(5);
    for _ in 0..40 {
        for command in scene.plan() {
            let changes = matches!(command, Command::AlterTopicConfigs { .. });
            assert!(!changes, "{command:?}");
            scene.apply(command);
        }
        scene.catch_up();
    }
    assert_eq!(scene.keeps(5), (0, 0));
    // Nobody who could take it stays: it is kept.
    for node in 1..=4 {
        scene.drain(node);
    }
    scene.settle();
    let kept = scene.replicas("__consumer_offsets");
    assert!(kept.iter().all(|r| !r.is_empty()), "{kept:?}");
}
