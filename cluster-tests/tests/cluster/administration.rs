//! What an operator does to a cluster under load.

use std::time::Duration;

use callboard_client::{Client, ClientConfig, Error, Producer, ProducerConfig, Record};
use callboard_cluster_tests::cluster::{Cluster, wait_until};
use callboard_cluster_tests::load::{Load, block_on};
use callboard_common::Clock;
use serde_json::Value;

use crate::{PATIENCE, check, create, pass, run, scene, turn};

/// Node 4 comes, gets a vote and all that node 3 had; node 3 goes, and nobody is missed.
#[test]
fn a_voter_is_replaced_under_load() {
    let _turn = turn();
    let (mut cluster, load) = scene();
    let fourth = cluster.launch(4, &[1, 2, 3]);
    cluster.nodes.push(fourth);
    run(&cluster, 0, &["cluster", "promote", "4"]);
    run(&cluster, 0, &["cluster", "remove", "3", "--drain"]);
    assert_eq!(cluster.nodes[2].terminate(), Some(0), "it stops in order");
    cluster.wait_in_sync(0, "t", 3, PATIENCE);
    let told = cluster.status(3);
    let nodes = told["nodes"].as_array().expect("a list");
    let numbers: Vec<_> = nodes.iter().map(|n| n["node"].clone()).collect();
    assert_eq!(numbers, [1, 2, 4], "{told}");
    assert!(nodes.iter().all(|n| n["votes"] == true), "{told}");
    assert_eq!(nodes[2]["in_sync"], nodes[2]["keeps"], "{told}");
    assert!(nodes[2]["keeps"].as_u64() >= Some(3), "{told}");
    // What it has is as good as what was there: it and one more are enough.
    cluster.nodes[0].kill();
    pass(2000);
    check(load);
}

/// Partitions go where they are told to, get more replicas, and their preferred replicas lead.
#[test]
fn partitions_move_under_load() {
    let _turn = turn();
    // What an operator places by hand stays where it is only if nothing is moved by itself.
    let cluster = Cluster::start_with(3, &["cluster.balance=false"]);
    create(&cluster, 0, "t");
    cluster.wait_in_sync(0, "t", 3, PATIENCE);
    let load = Load::start(cluster.client(), "t");
    pass(500);
    for to in ["1", "2,3", "3,1,2"] {
        run(&cluster, 0, &["cluster", "reassign", "t", "--to", to]);
        let wanted: Vec<i32> = to
            .split(',')
            .map(|n| n.parse().expect("a number"))
            .collect();
        for partition in cluster.topic(1, "t")["partitions"]
            .as_array()
            .expect("a list")
        {
            assert_eq!(partition["replicas"], serde_json::json!(wanted));
        }
    }
    run(&cluster, 1, &["cluster", "elect", "t"]);
    assert_eq!(cluster.leader(2, "t"), 3);
    let refused = cluster.nodes[0].run(&["cluster", "reassign", "t", "--to", "1,9"], b"");
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(
        !refused.status.success() && said.contains("no node 9"),
        "{said}"
    );
    let refused = cluster.nodes[0].run(&["cluster", "remove", "2"], b"");
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(said.contains("still keeps partitions"), "{said}");
    check(load);
}

/// Two of three voters are lost for good: what is left goes on, says what it lacks, and takes a new node in.
#[test]
fn a_lost_quorum_is_recovered() {
    let _turn = turn();
    let (mut cluster, load) = scene();
    let history = load.stop();
    cluster.wait_in_sync(0, "t", 3, PATIENCE);
    cluster.nodes.iter_mut().for_each(|n| n.kill());
    cluster.wipe(1);
    cluster.wipe(2);
    let data = cluster.data(1);
    let data = data.to_str().expect("text");
    let recover = ["cluster", "recover", "--data", data];
    let shown = cluster.nodes[0].run(&recover, b"");
    let (out, error) = (
        String::from_utf8_lossy(&shown.stdout),
        String::from_utf8_lossy(&shown.stderr),
    );
    assert!(out.contains("1, 2, 3"), "{out}{error}");
    run(&cluster, 0, &[&recover[..], &["--accept-loss"]].concat());
    cluster.nodes[0].restart();
    // What is there is led here. It is read as far as it is known to be committed, and one replica alone does not commit
    // unless it is told that one is enough (KIP-966).
    let gone = |told: &Value| (1..3).all(|n| told["nodes"][n]["state"] == "silent");
    let led = |told: &Value| told["partitions"]["without_leader"] == 0;
    let settled = |told: &Value| gone(told) && led(told);
    wait_until(PATIENCE, || cluster.status(0), settled);
    let one = ["config", "set", "--topic", "t", "min.insync.replicas=1"];
    run(&cluster, 0, &one);
    history.check(cluster.client());
    // Empty nodes come back under the old numbers, and all is as it was.
    for at in [1, 2] {
        cluster.nodes[at].restart();
    }
    cluster.wait_in_sync(0, "t", 3, PATIENCE);
    history.check(cluster.client());
    create(&cluster, 1, "t2");
    let load = Load::start(cluster.client(), "t2");
    pass(500);
    check(load);
}

/// While too few replicas are in sync nothing is committed, however often somebody asks; the coordinator goes on when there are
/// enough.
#[test]
fn a_coordinator_outlives_a_lack_of_replicas() {
    let _turn = turn();
    let settings = ["cluster.balance=false", "topics.offsets_partitions=1"];
    let mut cluster = Cluster::start_with(5, &settings);
    let (topic, offsets) = ("t", "__consumer_offsets");
    let create = ["topic", "create", topic, "--replication-factor", "5"];
    run(
        &cluster,
        0,
        &[&create[..], &["--config", "min.insync.replicas=1"]].concat(),
    );
    drop(cluster.nodes[0].expect(&["produce", topic], b"one\ntwo\n"));
    let read = ["consume", topic, "--group", "g", "--max", "1"];
    assert_eq!(cluster.nodes[0].expect(&read, b""), b"one\n");
    cluster.wait_in_sync(0, offsets, 3, PATIENCE);
    let leader = cluster.leader(0, offsets);
    let told = cluster.topic(0, offsets);
    let replicas = told["partitions"][0]["replicas"]
        .as_array()
        .expect("a list");
    let replicas = replicas
        .iter()
        .map(|b| b.as_u64().expect("a number") as usize);
    let others: Vec<usize> = replicas.filter(|b| *b != leader).collect();
    others.iter().for_each(|b| cluster.nodes[b - 1].kill());
    cluster.wait_in_sync(leader - 1, offsets, 1, PATIENCE);
    std::thread::scope(|scope| {
        let (node, other) = match cluster.nodes.get_disjoint_mut([leader - 1, others[0] - 1]) {
            Ok([node, other]) => (&*node, other),
            Err(error) => panic!("{error}"),
        };
        let reading = scope.spawn(|| node.expect(&read, b""));
        pass(5000);
        assert!(!reading.is_finished(), "one is too few");
        other.restart();
        assert_eq!(reading.join().expect("it ends"), b"two\n");
    });
    let said = cluster.nodes[leader - 1].said();
    assert!(!said.contains("actor restarts"), "{said}");
}

/// Partitions are of very different sizes and one node has the large ones: one of them changes places with a small one.
#[test]
fn nodes_even_out_what_they_keep() {
    let _turn = turn();
    let settings = ["cluster.balance_bytes=1MiB", "cluster.balance_patience=1s"];
    let cluster = Cluster::start_with(3, &settings);
    let create = ["topic", "create", "t", "--partitions", "6"];
    let one = ["--replication-factor", "1"];
    run(&cluster, 0, &[&create[..], &one].concat());
    let leaders = || {
        let told = cluster.topic(0, "t");
        let partitions = told["partitions"].as_array().expect("a list").iter();
        let leader = |p: &Value| p["leader"].as_u64().unwrap_or(0);
        partitions.map(leader).collect::<Vec<u64>>()
    };
    let before = leaders();
    let full = before[0];
    let large: Vec<usize> = (0..6).filter(|n| before[*n] == full).collect();
    assert_eq!(large.len(), 2, "{before:?}");
    let line = [b"x".repeat(1000), b"\n".to_vec()].concat();
    for n in 0..6 {
        let lines = if large.contains(&n) { 6000 } else { 10 };
        let partition = n.to_string();
        let produce = ["produce", "t", "--partition", &partition];
        drop(cluster.nodes[0].expect(&produce, &line.repeat(lines)));
    }
    let is_even = |leaders: &Value| {
        let all = leaders.as_array().expect("a list").iter();
        let of = |node: i32| all.clone().filter(|l| **l == node).count();
        leaders[large[0]] != leaders[large[1]] && [1, 2, 3].map(of) == [2, 2, 2]
    };
    // A log that is written to is measured twice a minute.
    wait_until(2 * PATIENCE, || Value::from(leaders()), is_even);
    for n in large {
        let partition = n.to_string();
        let read = ["consume", "t", "--partition", &partition, "--max", "6000"];
        assert_eq!(cluster.nodes[1].expect(&read, b""), line.repeat(6000));
    }
}

/// A producer begins while its leader dies. A leader that does not know a producer takes any number as its first, so what
/// comes second must not arrive before what comes first.
#[test]
fn producers_that_have_just_begun_do_not_notice_that_a_leader_dies() {
    let _turn = turn();
    let mut cluster = Cluster::start(3);
    create(&cluster, 0, "t");
    for round in 0..5 {
        cluster.wait_in_sync(round % 3, "t", 3, PATIENCE);
        let leader = cluster.leader(round % 3, "t");
        let config = cluster.client();
        let failed = std::thread::scope(|scope| {
            let sending = scope.spawn(|| block_on(send(config)));
            pass(500);
            cluster.nodes[leader - 1].kill();
            sending.join().expect("it ends")
        });
        assert_eq!(failed, Vec::<String>::new(), "round {round}");
        cluster.nodes[leader - 1].restart();
    }
}

/// What did not work of what new producers, one after the other, send for a while.
async fn send(config: ClientConfig) -> Vec<String> {
    let client = Client::connect(config).await.expect("connects");
    let mut sent = Vec::new();
    for _ in 0..30 {
        let producer = Producer::new(&client, ProducerConfig::default());
        for n in 0..25 {
            let record = Record::to("t").partition(0).value(format!("{n}"));
            sent.push(producer.enqueue(record).await.expect("queued"));
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
    let mut failed = Vec::new();
    for delivery in sent {
        failed.extend(delivery.await.err().map(|e| e.to_string()));
    }
    failed
}

/// Nobody gives a producer its number while there is no quorum: its record fails when its time is up, although nothing more is
/// sent, and the next one is taken when there is one again.
#[test]
fn a_record_that_nobody_takes_fails_in_time() {
    let _turn = turn();
    let mut cluster = Cluster::start(3);
    create(&cluster, 0, "t");
    cluster.wait_in_sync(0, "t", 3, PATIENCE);
    let config = cluster.client();
    cluster.nodes[1].kill();
    cluster.nodes[2].kill();
    block_on(async {
        let client = Client::connect(config).await.expect("connects");
        let short = ProducerConfig {
            delivery_timeout: Duration::from_secs(2),
            ..ProducerConfig::default()
        };
        let producer = Producer::new(&client, short);
        let record = || Record::to("t").partition(0).value("x");
        let failed = tokio::time::timeout(PATIENCE, producer.send(record())).await;
        let failed = failed
            .expect("it does not hang")
            .expect_err("nobody takes it");
        assert!(matches!(failed, Error::Timeout), "{failed}");
        std::thread::scope(|scope| {
            let (_, rest) = cluster.nodes.split_at_mut(1);
            for node in rest {
                let _starting = scope.spawn(|| node.restart());
            }
        });
        let clock = Clock::machine();
        let began = clock.now().monotonic;
        while let Err(error) = producer.send(record()).await {
            let waited = clock.now().monotonic.since(began);
            assert!(waited < PATIENCE, "{error}");
        }
    });
}

/// A node that was down while a topic was deleted keeps its records aside, as Kafka does, and a topic of that name begins anew.
#[test]
fn what_was_deleted_while_a_node_was_down_is_set_aside() {
    let _turn = turn();
    let mut cluster = Cluster::start(3);
    create(&cluster, 0, "gone");
    cluster.wait_in_sync(0, "gone", 3, PATIENCE);
    cluster.nodes[2].kill();
    run(&cluster, 0, &["topic", "delete", "gone"]);
    cluster.nodes[2].restart();
    let directories = || {
        let entries = std::fs::read_dir(cluster.data(3)).expect("there");
        let names = entries.filter_map(|e| e.ok()?.file_name().into_string().ok());
        let mut ours: Vec<String> = names.filter(|n| n.starts_with("gone-")).collect();
        ours.sort();
        ours
    };
    let aside = directories();
    assert_eq!(aside.len(), 3, "{aside:?}");
    assert!(aside.iter().all(|n| n.ends_with("-stray")), "{aside:?}");
    create(&cluster, 0, "gone");
    cluster.wait_in_sync(0, "gone", 3, PATIENCE);
    assert_eq!(directories().len(), 6);
}
