//! Each command of `callboard cluster` that other tests do not use, as an operator would.

use std::process::Command;

use callboard_cluster_tests::cluster::{Cluster, wait_until};
use callboard_cluster_tests::load::Load;
use callboard_cluster_tests::process::{NodeProcess, binary};
use serde_json::{Value, json};

use crate::{PATIENCE, check, create, pass, refused, run, turn};

/// What a command says that needs no node.
fn offline(arguments: &[&str]) -> String {
    let ran = Command::new(binary()).args(arguments).output();
    let ran = ran.expect("the binary runs");
    let said = [ran.stdout, ran.stderr].concat();
    let said = String::from_utf8(said).expect("text");
    assert!(ran.status.success(), "{arguments:?}: {said}");
    said
}

fn node(cluster: &Cluster, number: usize) -> Value {
    cluster.status(0)["nodes"][number - 1].clone()
}

/// The first node is told to form a cluster without waiting for the others; they join it when they come. Later the quorum is
/// lost: one of the two that are left is recovered, the other one rejoins with its records.
#[test]
fn a_cluster_is_formed_by_hand_and_a_survivor_rejoins_a_recovered_one() {
    let _turn = turn();
    let mut cluster = Cluster::prepare();
    let data = |cluster: &Cluster, node| cluster.data(node).display().to_string();
    // It had waited for others before.
    std::fs::create_dir(cluster.data(1)).expect("created");
    std::fs::write(cluster.data(1).join("metadata.joins"), "").expect("written");
    let said = offline(&["cluster", "init", "--data", &data(&cluster, 1)]);
    assert!(said.contains("forms a cluster of its own"), "{said}");
    for number in 1..=3 {
        let launched = cluster.launch(number, &[1, 2, 3]);
        cluster.nodes.push(launched);
    }
    create(&cluster, 0, "t");
    cluster.wait_in_sync(0, "t", 3, PATIENCE);
    let load = Load::start(cluster.client(), "t");
    pass(1000);
    let history = load.stop();
    cluster.nodes.iter_mut().for_each(|n| n.kill());
    cluster.wipe(2);
    let (first, second) = (data(&cluster, 1), data(&cluster, 2));
    let recover = ["cluster", "recover", "--accept-loss", "--data", &first];
    let said = offline(&recover);
    assert!(said.contains("votes alone now"), "{said}");
    let rejoin = ["cluster", "recover", "--rejoin", "--data", &second];
    let said = offline(&rejoin);
    assert!(said.contains("add --accept-loss"), "{said}");
    let said = offline(&[&rejoin[..], &["--accept-loss"]].concat());
    assert!(said.contains("waits to be taken in"), "{said}");
    for at in 0..3 {
        cluster.nodes[at].restart();
    }
    cluster.wait_in_sync(0, "t", 3, PATIENCE);
    history.check(cluster.client());
    let votes = |told: &Value| (0..3).all(|n| told["nodes"][n]["votes"] == true);
    wait_until(PATIENCE, || cluster.status(0), votes);
}

/// A node is emptied and takes partitions again; a move is looked at while it goes on, and given up.
#[test]
fn a_node_is_emptied_and_filled_and_a_move_is_given_up() {
    let _turn = turn();
    // So slow that the move is still there when it is looked at.
    let settings = ["cluster.catch_up_rate=16KiB", "cluster.balance=false"];
    let cluster = Cluster::start_with(3, &settings);
    let pair = ["--replication-factor", "2", "--partitions", "3"];
    run(
        &cluster,
        0,
        &[&["topic", "create", "t"][..], &pair].concat(),
    );
    cluster.wait_in_sync(0, "t", 2, PATIENCE);
    run(&cluster, 0, &["cluster", "drain", "3"]);
    let drained = node(&cluster, 3);
    assert_eq!(drained["state"], "drained", "{drained}");
    assert_eq!(drained["keeps"], 0, "{drained}");
    run(
        &cluster,
        0,
        &[
            "topic",
            "create",
            "without",
            "--replication-factor",
            "1",
            "--partitions",
            "6",
        ],
    );
    assert_eq!(node(&cluster, 3)["keeps"], 0, "nothing new comes to it");
    run(&cluster, 1, &["cluster", "undrain", "3"]);
    let filled = node(&cluster, 3);
    assert_eq!(filled["state"], "alive", "{filled}");
    run(
        &cluster,
        0,
        &[
            "topic",
            "create",
            "with",
            "--replication-factor",
            "1",
            "--partitions",
            "6",
        ],
    );
    assert!(
        node(&cluster, 3)["keeps"].as_u64() > Some(0),
        "it takes new ones"
    );
    give_a_move_up(&cluster);
}

/// Node 3 has nothing of t yet.
fn give_a_move_up(cluster: &Cluster) {
    let line = [b"x".repeat(1000), b"\n".to_vec()].concat();
    let produce = ["produce", "t", "--partition", "0"];
    drop(cluster.nodes[0].expect(&produce, &line.repeat(8000)));
    let before = cluster.topic(0, "t")["partitions"][0]["replicas"].clone();
    let other = before[0].as_u64().expect("a number").to_string();
    let to = format!("3,{other}");
    let reassign = ["cluster", "reassign", "t", "--partition", "0"];
    run(
        cluster,
        0,
        &[&reassign[..], &["--to", &to, "--no-wait"]].concat(),
    );
    let moves = cluster.nodes[1].expect(&["cluster", "moves", "--json"], b"");
    let moves: Value = serde_json::from_slice(&moves).expect("JSON");
    assert_eq!(moves.as_array().map(Vec::len), Some(1), "{moves}");
    assert_eq!(moves[0]["topic"], "t");
    assert_eq!(moves[0]["adding"], json!([3]), "{moves}");
    run(cluster, 0, &[&reassign[..], &["--cancel"]].concat());
    let moves = cluster.nodes[1].expect(&["cluster", "moves", "--json"], b"");
    assert_eq!(String::from_utf8_lossy(&moves).trim(), "[]");
    assert_eq!(cluster.topic(0, "t")["partitions"][0]["replicas"], before);
    let said = refused(cluster, 0, &[&reassign[..], &["--cancel"]].concat());
    assert!(said.contains("t-0"), "nothing is to be given up: {said}");
}

/// Who is left lacks what was acknowledged: it leads only when an operator says so, and what it lacks is gone then.
#[test]
fn an_unclean_election_is_made_on_command_only() {
    let _turn = turn();
    let mut cluster = Cluster::start_with(3, &["cluster.balance=false"]);
    let of_two = [
        "--replication-factor",
        "2",
        "--config",
        "min.insync.replicas=1",
    ];
    run(
        &cluster,
        2,
        &[&["topic", "create", "t"][..], &of_two].concat(),
    );
    run(&cluster, 2, &["cluster", "reassign", "t", "--to", "1,2"]);
    run(&cluster, 2, &["cluster", "elect", "t"]);
    assert_eq!(cluster.leader(2, "t"), 1);
    let write =
        |cluster: &Cluster, line: &[u8]| drop(cluster.nodes[2].expect(&["produce", "t"], line));
    write(&cluster, b"both\n");
    cluster.nodes[1].kill();
    cluster.wait_in_sync(2, "t", 1, PATIENCE);
    write(&cluster, b"one\n");
    cluster.nodes[0].kill();
    cluster.nodes[1].restart();
    let leader = || cluster.topic(2, "t")["partitions"][0]["leader"].clone();
    wait_until(PATIENCE, leader, Value::is_null);
    let unclean = ["cluster", "elect", "t", "--unclean"];
    let said = refused(&cluster, 2, &unclean);
    assert!(said.contains("--accept-loss"), "{said}");
    let said = refused(&cluster, 2, &["cluster", "elect", "t"]);
    assert!(said.contains("t-0"), "{said}");
    assert!(leader().is_null());
    run(&cluster, 2, &[&unclean[..], &["--accept-loss"]].concat());
    assert_eq!(leader(), 2);
    write(&cluster, b"after\n");
    // The other one follows it, whatever it had.
    cluster.nodes[0].restart();
    cluster.wait_in_sync(2, "t", 2, PATIENCE);
    let read = ["consume", "t", "--max", "2"];
    assert_eq!(cluster.nodes[2].expect(&read, b""), b"both\nafter\n");
}

/// Who is a node, and whether it votes.
fn votes(cluster: &Cluster) -> Value {
    let told = cluster.status(0);
    let nodes = told["nodes"].as_array().expect("a list").iter();
    nodes.map(|n| json!([n["node"], n["votes"]])).collect()
}

/// A node that was alone, without any certificate, becomes a cluster of five and is alone again in the end, all under load. The
/// broker's own topics grow and shrink by themselves.
#[test]
fn a_plain_node_grows_to_five_and_is_alone_again_under_load() {
    let _turn = turn();
    let mut cluster = Cluster::prepare();
    let data = cluster.data(1);
    let settings = ["--set", "topics.offsets_partitions=2"];
    let mut plain = NodeProcess::start_with(&data, &settings);
    drop(plain.expect(&["topic", "create", "t", "--partitions", "3"], b""));
    drop(plain.expect(&["produce", "first"], b"one\ntwo\n"));
    let read = ["consume", "first", "--group", "g", "--max", "1"];
    assert_eq!(plain.expect(&read, b""), b"one\n");
    assert_eq!(plain.terminate(), Some(0));
    let authority = cluster.authority();
    std::fs::remove_dir_all(&authority).expect("another one takes its place");
    let (of, out) = (data.display().to_string(), authority.display().to_string());
    let _said = offline(&["cert", "init", "--data", &of, "--out", &out]);
    for number in 1..=5 {
        let voters: &[u8] = if number == 1 { &[] } else { &[1, 2, 3, 4, 5] };
        let launched = cluster.launch(number, voters);
        cluster.nodes.push(launched);
    }
    let load = Load::start(cluster.client(), "t");
    let all_vote = json!([[1, true], [2, true], [3, true], [4, true], [5, true]]);
    wait_until(PATIENCE, || votes(&cluster), |v| *v == all_vote);
    run(
        &cluster,
        0,
        &["cluster", "reassign", "t", "--replicas", "3"],
    );
    cluster.wait_in_sync(1, "t", 3, PATIENCE);
    cluster.wait_in_sync(1, "__consumer_offsets", 3, PATIENCE);
    for number in [5, 4] {
        let going = number.to_string();
        run(&cluster, 0, &["cluster", "remove", &going, "--drain"]);
        assert_eq!(cluster.nodes[number - 1].terminate(), Some(0));
    }
    run(&cluster, 0, &["cluster", "demote", "3"]);
    assert_eq!(votes(&cluster), json!([[1, true], [2, true], [3, false]]));
    for (number, replicas) in [(3, "2"), (2, "1")] {
        let going = number.to_string();
        run(
            &cluster,
            0,
            &["cluster", "reassign", "t", "--replicas", replicas],
        );
        run(
            &cluster,
            0,
            &["cluster", "reassign", "first", "--replicas", "1"],
        );
        run(&cluster, 0, &["cluster", "remove", &going, "--drain"]);
        assert_eq!(cluster.nodes[number - 1].terminate(), Some(0));
    }
    assert_eq!(votes(&cluster), json!([[1, true]]));
    check(load);
    // What the group had committed went with it.
    assert_eq!(cluster.nodes[0].expect(&read, b""), b"two\n");
}
