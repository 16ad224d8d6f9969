//! What a client of Kafka's is told by others while its leader dies.

use std::time::Duration;

use callboard_cluster_tests::cluster::{Cluster, wait_until};
use rdkafka::consumer::{BaseConsumer, Consumer};

use crate::{PATIENCE, check, scene, turn};

/// Descriptors of nodes with so few files and clients are below this, but for those that are to break first.
const ORDINARY: u32 = 700;

/// The numbers of a process's descriptors.
fn descriptors(pid: u32) -> Vec<u32> {
    let entries = std::fs::read_dir(format!("/proc/{pid}/fd")).expect("it runs");
    let number = |entry: std::io::Result<std::fs::DirEntry>| {
        let name = entry.ok()?.file_name().into_string().ok()?;
        name.parse().ok()
    };
    entries.filter_map(number).collect()
}

/// A process that is killed closes the highest of its descriptors first: those are the socket that tripwires are made to and
/// the two wires that others hold.
fn wires_break_first(cluster: &Cluster, node: usize) {
    let high = || {
        let all = descriptors(cluster.nodes[node - 1].pid());
        let high = all.into_iter().filter(|n| *n > ORDINARY);
        high.collect::<Vec<u32>>().into()
    };
    let three = |high: &serde_json::Value| high.as_array().is_some_and(|h| h.len() == 3);
    wait_until(PATIENCE, high, three);
}

/// Who has just lost its leader asks at once: it is told of another leader or of none, never of the dead one; and the dead one
/// is still told of as a node, because librdkafka drops what it has for a node that it is not told of.
#[test]
fn who_asks_while_a_leader_dies_is_told_of_the_next_one() {
    let _turn = turn();
    let (mut cluster, load) = scene();
    let dies = cluster.leader(0, "t");
    let asked = dies % 3 + 1;
    wires_break_first(&cluster, dies);
    let kafka = cluster.nodes[asked - 1].kafka.to_string();
    let mut config = rdkafka::ClientConfig::new();
    let config = config.set("bootstrap.servers", kafka);
    let consumer: BaseConsumer = config.create().expect("a client");
    let told = |of: &str| {
        // The connection to whom it asks may be the one that breaks.
        let ask = || consumer.fetch_metadata(Some("t"), Duration::from_secs(5));
        let metadata = (0..5).find_map(|_| ask().ok()).expect(of);
        let mut nodes: Vec<i32> = metadata.brokers().iter().map(|b| b.id()).collect();
        nodes.sort_unstable();
        let leader = metadata.topics()[0]
            .partitions()
            .iter()
            .find(|p| p.id() == 0);
        (nodes, leader.expect("partition 0").leader())
    };
    assert_eq!(told("before"), (vec![1, 2, 3], dies as i32));
    cluster.nodes[dies - 1].kill();
    let (nodes, leader) = told("after");
    assert_ne!(leader, dies as i32);
    assert_eq!(nodes, [1, 2, 3]);
    cluster.nodes[dies - 1].restart();
    cluster.wait_in_sync(asked - 1, "t", 3, PATIENCE);
    check(load);
}
