//! Three nodes linked into one program, on disks that forget what was not synced: power cuts and syncs that fail.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use callboard_broker::Node;
use callboard_broker::storage::disk::SimulatedDisk;
use callboard_client::protocol::topics::NewTopic;
use callboard_client::{BrokerId, Client, ClientConfig, Trust};
use callboard_cluster_tests::cluster::Cluster;
use callboard_cluster_tests::load::Load;
use callboard_common::Clock;
use callboard_common::transport::authority::Authority;
use futures::future::join_all;
use tempfile::TempDir;

use crate::{PATIENCE, check, turn};

/// Nodes 1 to 3, each with a disk of its own that outlives it.
struct Linked {
    certificates: TempDir,
    ca: String,
    /// Only its addresses, which no other test has.
    place: Cluster,
    disks: Vec<SimulatedDisk>,
}

impl Linked {
    fn prepare() -> Self {
        let certificates = tempfile::tempdir().expect("a directory");
        let authority = Authority::create("linked-cluster-of-a-test").expect("made");
        let place = Cluster::prepare();
        for node in 1..=3 {
            let host = place.address(node, 0).ip().to_string();
            let made = authority
                .node(BrokerId(node.into()), &[host])
                .expect("made");
            let dir = certificates.path().join(node.to_string());
            std::fs::create_dir(&dir).expect("made");
            let write =
                |name: &str, text: &str| std::fs::write(dir.join(name), text).expect("written");
            write("ca.pem", &made.ca_pem);
            write("node.pem", &made.certificate_pem);
            write("node-key.pem", &made.key_pem);
        }
        Self {
            ca: authority.ca_pem().to_owned(),
            certificates,
            place,
            disks: (1..=3).map(SimulatedDisk::new).collect(),
        }
    }

    async fn start(&self, node: u8) -> Node {
        let disk = self.disks[usize::from(node) - 1].clone();
        let at = |port| self.place.address(node, port);
        let voter = |v: u8| format!("{v}@{}", self.place.address(v, 9392));
        let dir = self.certificates.path().join(node.to_string());
        let builder = Node::builder().disk(Arc::new(disk), Path::new("/data"));
        let builder = builder.configure(|c| {
            c.node.id = node.into();
            let doors = &mut c.listeners;
            (doors.kafka, doors.quic, doors.http, doors.peer) =
                (at(9092), at(9192), at(9292), at(9392));
            c.cluster.certificates = dir.display().to_string();
            c.cluster.voters = (1..=3).map(voter).collect();
        });
        builder.start().await.expect("it starts")
    }

    async fn start_all(&self) -> Vec<Node> {
        join_all((1..=3).map(|n| self.start(n))).await
    }

    fn client(&self) -> ClientConfig {
        let servers: Vec<String> = (1..=3)
            .map(|n| self.place.address(n, 9192).to_string())
            .collect();
        ClientConfig::new(servers.join(","), Trust::Ca(self.ca.clone()))
    }

    async fn create(&self, configs: &[(&str, &str)]) {
        let client = Client::connect(self.client()).await.expect("connects");
        let chosen = |(name, value): &(&str, &str)| ((*name).into(), Some((*value).into()));
        let topic = NewTopic {
            partitions: Some(3),
            configs: configs.iter().map(chosen).collect(),
            ..NewTopic::named("t")
        };
        let created = client.admin().create_topic_with(topic, false).await;
        assert_eq!(created.expect("created").partitions, 3);
        client.close().await;
    }
}

async fn pass(ms: u64) {
    tokio::time::sleep(Duration::from_millis(ms)).await;
}

/// Runs a test in its turn.
fn run(test: impl Future<Output = ()>) {
    let _turn = turn();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.expect("a runtime").block_on(test);
}

/// Checking waits; the nodes have threads of their own.
async fn checked(load: Load) {
    let checking = tokio::task::spawn_blocking(|| check(load));
    checking.await.expect("all is there");
}

/// What was acknowledged was on three media before: the power of all goes at once, twice, and nothing of it is gone.
#[test]
fn all_lose_power_at_once() {
    run(lose_power());
}

async fn lose_power() {
    let linked = Linked::prepare();
    let mut nodes = linked.start_all().await;
    linked.create(&[]).await;
    let load = Load::start(linked.client(), "t");
    for _ in 0..2 {
        pass(1500).await;
        for disk in &linked.disks {
            disk.power_off_after(disk.operations());
        }
        nodes.clear();
        linked.disks.iter().for_each(SimulatedDisk::crash);
        nodes = linked.start_all().await;
    }
    pass(1500).await;
    checked(load).await;
}

/// A topic acknowledges before it syncs, and node 3 has stopped: what was acknowledged since then nodes 1 and 2 have, which run.
async fn two_have_all() -> (Linked, Vec<Node>, Load) {
    let linked = Linked::prepare();
    let mut nodes = linked.start_all().await;
    linked.create(&[("flush.messages", "1000000")]).await;
    let load = Load::start(linked.client(), "t");
    pass(1000).await;
    assert_eq!(nodes.remove(2).stop().await, []);
    pass(2000).await;
    (linked, nodes, load)
}

/// A topic acknowledges before it syncs. Of the two that have everything one loses its power, and nobody has more while the other
/// one is away: nobody leads until that is back, whose process was only killed (KIP-966).
#[test]
fn who_may_have_lost_something_waits_for_who_has_not() {
    run(lose_power_where_syncs_come_late());
}

async fn lose_power_where_syncs_come_late() {
    let (linked, nodes, load) = two_have_all().await;
    let cut = &linked.disks[1];
    cut.power_off_after(cut.operations());
    drop(nodes);
    cut.crash();
    let here = join_all([2, 3].map(|n| linked.start(n))).await;
    let client = Client::connect(linked.client()).await.expect("connects");
    // Until everybody knows that node 1 is silent, and for longer.
    let mut without_leader = 0;
    for _ in 0..60 {
        pass(1000).await;
        let leaders = leaders(&client).await;
        assert!(!leaders.contains(&BrokerId(2)), "it may lack something");
        without_leader += usize::from(leaders.is_empty());
        if without_leader == 5 {
            break;
        }
    }
    assert_eq!(without_leader, 5);
    client.close().await;
    let first = linked.start(1).await;
    checked(load).await;
    drop((here, first));
}

/// Who leads a partition of the topic, if anybody does.
async fn leaders(client: &Client) -> Vec<BrokerId> {
    let described = client.admin().describe_topics(&["t"]).await;
    let partitions = described.expect("described").remove(0).partitions;
    partitions.iter().filter_map(|p| p.leader).collect()
}

/// The same, but both stop in order and lose their power then: whoever is back first has everything, leads, and needs nobody.
#[test]
fn who_has_stopped_in_order_has_lost_nothing() {
    run(stop_where_syncs_come_late());
}

async fn stop_where_syncs_come_late() {
    let (linked, nodes, load) = two_have_all().await;
    for node in nodes {
        assert_eq!(node.stop().await, []);
    }
    linked.disks.iter().for_each(SimulatedDisk::crash);
    // Node 1 was the first of the two to stop, and stays away.
    let _here = join_all([2, 3].map(|n| linked.start(n))).await;
    let client = Client::connect(linked.client()).await.expect("connects");
    let clock = Clock::machine();
    let began = clock.now().monotonic;
    while leaders(&client).await != [BrokerId(2); 3] {
        let waited = clock.now().monotonic.since(began);
        assert!(waited < PATIENCE, "node 2 leads all");
        pass(200).await;
    }
    client.close().await;
    checked(load).await;
}

/// Syncs fail on one node after the other, of what it leads and of what it follows.
#[test]
fn failed_syncs_lose_nothing() {
    run(fail_syncs());
}

async fn fail_syncs() {
    let linked = Linked::prepare();
    let nodes = linked.start_all().await;
    linked.create(&[]).await;
    let load = Load::start(linked.client(), "t");
    for round in 0..6 {
        pass(700).await;
        linked.disks[round % 3].fail_syncs(2);
    }
    pass(3000).await;
    checked(load).await;
    assert_eq!(nodes.len(), 3);
}
