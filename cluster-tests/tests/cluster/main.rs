//! Clusters of three processes under load: whatever happens to one node, nothing that was acknowledged is lost,
//! doubled or out of order. One test at a time: each has three nodes.

mod administration;
mod dying;
mod linked;
mod mad;
mod misdirected;
mod network;
mod operating;
mod outdated;
mod racks;
mod strangers;
mod upgrading;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use callboard_client::Client;
use callboard_cluster_tests::cluster::Cluster;
use callboard_cluster_tests::load::{Load, block_on};
use callboard_common::Clock;
use rdkafka::producer::{BaseRecord, DeliveryResult, Producer, ProducerContext, ThreadedProducer};

static TURN: Mutex<()> = Mutex::new(());

/// A test that failed does not spoil the next one's turn.
fn turn() -> MutexGuard<'static, ()> {
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A debug build on two cores that run three nodes.
const PATIENCE: Duration = Duration::from_secs(60);

fn pass(ms: u64) {
    std::thread::sleep(Duration::from_millis(ms));
}

/// A cluster with a topic that is in sync and a load on it.
fn scene() -> (Cluster, Load) {
    let cluster = Cluster::start(3);
    create(&cluster, 0, "t");
    cluster.wait_in_sync(0, "t", 3, PATIENCE);
    let load = Load::start(cluster.client(), "t");
    pass(500);
    (cluster, load)
}

/// A command that a node must obey.
fn run(cluster: &Cluster, at: usize, arguments: &[&str]) {
    drop(cluster.nodes[at].expect(arguments, b""));
}

/// What a node says that refuses.
fn refused(cluster: &Cluster, at: usize, arguments: &[&str]) -> String {
    let ran = cluster.nodes[at].run(arguments, b"");
    assert!(!ran.status.success(), "{arguments:?}");
    String::from_utf8(ran.stderr).expect("text")
}

fn create(cluster: &Cluster, at: usize, topic: &str) {
    run(
        cluster,
        at,
        &["topic", "create", topic, "--partitions", "3"],
    );
}

#[expect(clippy::print_stdout, reason = "how long it took is worth a look")]
fn check(load: Load) {
    let history = load.check();
    let (records, gap) = (history.len(), history.longest_gap);
    println!("{records} records acknowledged, the longest gap is {gap:?}");
}

#[test]
fn kill_9_of_leaders_loses_nothing() {
    let _turn = turn();
    let (mut cluster, load) = scene();
    for round in 0..2 {
        // Who leads partition 0 goes, as the next node of the list knows it.
        let leader = cluster.leader(round, "t");
        cluster.nodes[leader - 1].kill();
        pass(2000);
        cluster.nodes[leader - 1].restart();
        cluster.wait_in_sync(round, "t", 3, PATIENCE);
    }
    check(load);
}

#[test]
fn a_leader_that_hangs_is_replaced_and_comes_back_in_order() {
    let _turn = turn();
    let (cluster, load) = scene();
    let leader = cluster.leader(0, "t");
    cluster.nodes[leader - 1].signal("STOP");
    pass(6000);
    cluster.nodes[leader - 1].signal("CONT");
    let other = leader % 3;
    cluster.wait_in_sync(other, "t", 3, PATIENCE);
    assert_ne!(cluster.leader(other, "t"), 0);
    check(load);
}

/// Seed 3009 of whole nodes: who leads was asked of a node that had just died, and nobody else was asked for as long as an answer
/// may take.
#[test]
fn what_anybody_knows_is_not_waited_for_at_a_silent_node() {
    let _turn = turn();
    let cluster = Cluster::start(3);
    create(&cluster, 0, "t");
    cluster.wait_in_sync(0, "t", 3, PATIENCE);
    let config = cluster.client();
    block_on(async {
        let client = Client::connect(config.clone()).await.expect("connects");
        let admin = client.admin();
        for silent in 0..3 {
            // Each has been asked before, so that there is a connection to it.
            let _known = admin.describe_topics(&["t"]).await.expect("described");
            cluster.nodes[silent].signal("STOP");
            let clock = Clock::machine();
            let began = clock.now().monotonic;
            for _ in 0..2 {
                let _known = admin.describe_topics(&["t"]).await.expect("described");
            }
            let took = clock.now().monotonic.since(began);
            cluster.nodes[silent].signal("CONT");
            assert!(took < config.request_timeout / 2, "{took:?}");
        }
    });
}

/// Counts what librdkafka gives up after all its retries.
#[derive(Default)]
struct GivenUp(AtomicU64);

impl rdkafka::ClientContext for GivenUp {}

impl ProducerContext for GivenUp {
    type DeliveryOpaque = ();

    fn delivery(&self, delivered: &DeliveryResult<'_>, (): ()) {
        let failed = u64::from(delivered.is_err());
        let _before = self.0.fetch_add(failed, Ordering::Relaxed);
    }
}

/// Neither our client nor librdkafka sees an error after its retries.
#[test]
fn a_rolling_restart_is_not_noticed() {
    let _turn = turn();
    let (mut cluster, load) = scene();
    create(&cluster, 0, "u");
    let servers: Vec<String> = cluster.nodes.iter().map(|n| n.kafka.to_string()).collect();
    let mut settings = rdkafka::ClientConfig::new();
    let _same = settings.set("bootstrap.servers", servers.join(","));
    let _same = settings.set("enable.idempotence", "true");
    let producer = settings.create_with_context(GivenUp::default());
    let producer: ThreadedProducer<GivenUp> = producer.expect("a producer");
    let over = AtomicBool::new(false);
    let sent = std::thread::scope(|scope| {
        let sending = scope.spawn(|| {
            let mut sent: u64 = 0;
            while !over.load(Ordering::Relaxed) {
                let record = BaseRecord::<str, str>::to("u").key("k").payload("v");
                assert!(producer.send(record).is_ok(), "the queue has room");
                sent += 1;
                pass(5);
            }
            sent
        });
        for at in 0..3 {
            assert_eq!(cluster.nodes[at].terminate(), Some(0), "it stops in order");
            cluster.nodes[at].restart();
            cluster.wait_in_sync(at, "t", 3, PATIENCE);
        }
        over.store(true, Ordering::Relaxed);
        sending.join().expect("it ends")
    });
    producer
        .flush(PATIENCE)
        .expect("all is delivered or given up");
    assert!(sent > 100, "{sent}");
    assert_eq!(producer.context().0.load(Ordering::Relaxed), 0);
    let read = ["consume", "u", "--max", &sent.to_string()];
    let read = cluster.nodes[0].expect(&read, b"");
    assert_eq!(read.len() as u64, 2 * sent, "each is a line");
    check(load);
}

#[test]
fn a_wiped_node_refills() {
    let _turn = turn();
    let (mut cluster, load) = scene();
    cluster.wipe(2);
    pass(1000);
    cluster.nodes[2].restart();
    cluster.wait_in_sync(0, "t", 3, PATIENCE);
    // What it refilled is as good as what was there.
    cluster.nodes[0].kill();
    pass(2000);
    check(load);
}

#[test]
fn one_node_grows_to_three_and_all_may_be_killed_at_once() {
    let _turn = turn();
    let mut cluster = Cluster::prepare();
    let first = cluster.launch(1, &[]);
    cluster.nodes.push(first);
    create(&cluster, 0, "t");
    let load = Load::start(cluster.client(), "t");
    for node in [2, 3] {
        let joined = cluster.launch(node, &[1, 2, 3]);
        cluster.nodes.push(joined);
    }
    create(&cluster, 1, "wide");
    cluster.wait_in_sync(2, "wide", 3, PATIENCE);
    let wide = Load::start(cluster.client(), "wide");
    pass(1000);
    cluster.nodes.iter_mut().for_each(|n| n.kill());
    std::thread::scope(|scope| {
        for node in &mut cluster.nodes {
            let _starting = scope.spawn(|| node.restart());
        }
    });
    cluster.wait_in_sync(0, "wide", 3, PATIENCE);
    check(load);
    check(wide);
}

/// Flips bytes in the middle of a partition's log.
fn damage(cluster: &Cluster, node: u8, partition: &str) {
    let dir = cluster.data(node).join(partition);
    let files = std::fs::read_dir(dir).expect("its directory");
    let mut logs: Vec<_> = files.map(|f| f.expect("a file").path()).collect();
    logs.retain(|p| p.extension().is_some_and(|e| e == "log"));
    logs.sort();
    let mut bytes = std::fs::read(&logs[0]).expect("read");
    let middle = bytes.len() / 2;
    bytes[middle..middle + 64]
        .iter_mut()
        .for_each(|b| *b ^= 0x5a);
    std::fs::write(&logs[0], bytes).expect("written");
}

/// Bits rot on one node: while it is stopped, and while it leads. It fetches again what it lacks, and nothing of it is
/// served.
#[test]
fn a_damaged_replica_fetches_again_from_the_others() {
    let _turn = turn();
    let (mut cluster, load) = scene();
    pass(2000);
    let history = load.stop();
    for start_it_first in [false, true] {
        let leader = cluster.leader(0, "t");
        if start_it_first {
            // It leads, and whoever reads finds out.
            damage(&cluster, leader as u8, "t-0");
        } else {
            cluster.nodes[leader - 1].kill();
            damage(&cluster, leader as u8, "t-0");
            cluster.nodes[leader - 1].restart();
        }
        history.check(cluster.client());
        cluster.wait_in_sync(0, "t", 3, PATIENCE);
        // The others may go: what was fetched again is whole.
        for other in [leader % 3, (leader + 1) % 3] {
            cluster.nodes[other].kill();
            history.check(cluster.client());
            cluster.nodes[other].restart();
            cluster.wait_in_sync(other, "t", 3, PATIENCE);
        }
    }
}
