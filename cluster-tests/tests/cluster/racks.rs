//! Consumers that say where they stand read from a replica there (KIP-392), and go back to the leader when that one is gone.

use std::thread;
use std::time::Duration;

use callboard_client::{
    Client, Consumer as NativeConsumer, ConsumerConfig, StartAt, TopicName, TopicPartition,
};
use callboard_cluster_tests::cluster::{Cluster, wait_until};
use callboard_cluster_tests::load::block_on;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{Message, Offset, TopicPartitionList};
use serde_json::Value;

use crate::{check, pass, scene, turn};

/// How long a consumer waits for the next record; the load writes all the time.
const NEXT: Duration = Duration::from_secs(30);
/// So many records are read before the replica is killed, and as many afterwards.
const HALF: usize = 300;

/// Bytes that a node has sent as answers to fetches through a door.
fn fetched_bytes(cluster: &Cluster, node: usize, door: &str) -> u64 {
    let label = format!("callboard_sent_bytes_total{{door=\"{door}\",request=\"Fetch\"}} ");
    let metrics = cluster.nodes[node - 1].get("/metrics");
    let line = metrics.lines().find_map(|line| line.strip_prefix(&label));
    line.map_or(0, |n| n.trim().parse().expect("a number"))
}

/// Reads partition 0 from the beginning with what gives the next offset; in the middle `near`, from which was read until
/// then, is killed.
fn read_and_kill(
    cluster: &mut Cluster,
    (leader, near): (usize, usize),
    door: &str,
    mut next: impl FnMut() -> Option<i64>,
) {
    let before = [leader, near].map(|n| fetched_bytes(cluster, n, door));
    let mut offsets = (0..HALF as i64).zip(std::iter::from_fn(&mut next));
    assert!(offsets.all(|(wanted, offset)| wanted == offset));
    let after = [leader, near].map(|n| fetched_bytes(cluster, n, door));
    let of = |at: usize| after[at] - before[at];
    // The leader answered once or twice with the replica's number.
    assert!(of(1) > 20 * of(0).max(200), "{door}: {before:?} {after:?}");
    cluster.nodes[near - 1].kill();
    for wanted in HALF as i64..2 * HALF as i64 {
        assert_eq!(next(), Some(wanted), "{door}: {near} is killed");
    }
    cluster.nodes[near - 1].restart();
}

#[test]
fn kip_392_a_replica_in_the_consumers_rack_is_read_until_it_is_gone() {
    let _turn = turn();
    let (mut cluster, load) = scene();
    // Each node stands in a rack of its own.
    let leader = cluster.leader(0, "t");
    let near = leader % 3 + 1;
    pass(3000);

    let rack = format!("rack-{near}");
    let at = TopicName::new("t").map(|t| TopicPartition::new(t, 0));
    let (sender, offsets) = std::sync::mpsc::channel();
    let (config, of) = (cluster.client(), rack.clone());
    let reading = thread::spawn(move || {
        block_on(async move {
            let client = Client::connect(config).await.expect("connects");
            let config = ConsumerConfig {
                rack: Some(of),
                ..ConsumerConfig::default()
            };
            let start = [(at.expect("a name"), StartAt::Beginning)];
            let mut consumer = NativeConsumer::assign(&client, config, start);
            let mut open = true;
            while open {
                let record = consumer.recv().await.expect("read");
                open = sender.send(record.offset.get()).is_ok();
            }
        });
    });
    let next = || offsets.recv_timeout(NEXT).ok();
    read_and_kill(&mut cluster, (leader, near), "quic", next);
    drop(offsets);
    reading.join().expect("it ends");

    cluster.wait_in_sync(leader - 1, "t", 3, crate::PATIENCE);
    assert_eq!(cluster.leader(leader - 1, "t"), leader);
    let kafka = cluster.nodes[leader - 1].kafka.to_string();
    let mut config = rdkafka::ClientConfig::new();
    let _same = config
        .set("bootstrap.servers", kafka)
        .set("client.rack", rack)
        .set("group.id", "unused");
    let consumer: BaseConsumer = config.create().expect("a consumer");
    let mut assigned = TopicPartitionList::new();
    let added = assigned.add_partition_offset("t", 0, Offset::Beginning);
    added.expect("it is added");
    consumer.assign(&assigned).expect("assigned");
    let next = || {
        let message = std::iter::repeat_with(|| consumer.poll(NEXT));
        // It tells that a broker is gone, and goes on with the others.
        let mut message = message.take(10).filter_map(|m| m?.ok());
        message.next().map(|m| m.offset())
    };
    read_and_kill(&mut cluster, (leader, near), "kafka", next);
    check(load);
}

/// What `callboard consume` reads of partition 0 for somebody in a rack, as JSON.
fn consume(cluster: &Cluster, rack: &str) -> Vec<Value> {
    let read = ["consume", "t", "--partition", "0", "--json", "--rack", rack];
    let out = cluster.nodes[0].expect(&read, b"");
    let lines = String::from_utf8(out).expect("text");
    let value = |line| serde_json::from_str(line).expect("JSON");
    lines.lines().map(value).collect()
}

/// Bits rot at a follower: who reads there finds out and goes on at the leader, and the follower fetches its log again.
#[test]
fn kip_392_a_damaged_follower_serves_nothing_of_it_and_fetches_again() {
    let _turn = turn();
    let (cluster, load) = scene();
    pass(2000);
    let history = load.stop();
    let leader = cluster.leader(0, "t");
    let near = leader % 3 + 1;
    let whole = consume(&cluster, "elsewhere");
    crate::damage(&cluster, near as u8, "t-0");
    assert_eq!(consume(&cluster, &format!("rack-{near}")), whole);
    let again = || {
        Value::from(
            cluster.nodes[near - 1]
                .said()
                .contains("it is fetched again"),
        )
    };
    wait_until(crate::PATIENCE, again, |told| *told == true);
    cluster.wait_in_sync(0, "t", 3, crate::PATIENCE);
    let before = fetched_bytes(&cluster, near, "quic");
    assert_eq!(consume(&cluster, &format!("rack-{near}")), whole);
    assert!(fetched_bytes(&cluster, near, "quic") > before + 1000);
    history.check(cluster.client());
}

/// Whoever asks a follower without saying where it stands is sent to the leader, as every client before KIP-392.
#[test]
fn kip_392_may_be_switched_off() {
    let _turn = turn();
    let cluster = Cluster::start_with(3, &["cluster.follower_fetch=false"]);
    crate::create(&cluster, 0, "t");
    cluster.wait_in_sync(0, "t", 3, crate::PATIENCE);
    let leader = cluster.leader(0, "t");
    let near = leader % 3 + 1;
    let write = ["produce", "t", "--partition", "0"];
    drop(cluster.nodes[0].expect(&write, b"one\ntwo\nthree\n"));
    let values = consume(&cluster, &format!("rack-{near}"));
    assert_eq!(values.len(), 3);
    assert_eq!(fetched_bytes(&cluster, near, "quic"), 0);
    assert!(fetched_bytes(&cluster, leader, "quic") > 0);
}
