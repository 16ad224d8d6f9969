//! Nodes on hosts of their own, whose network is cut: both ways, one way, around the leader, around everybody.

use std::time::Duration;

use callboard_cluster_tests::cluster::{Cluster, wait_until};
use callboard_cluster_tests::hosts::Hosts;
use callboard_cluster_tests::load::Load;
use callboard_common::ErrorCode;
use serde_json::Value;

use crate::misdirected::produced;
use crate::{PATIENCE, check, create, pass, turn};

/// The others' idle timeout, a lease, and what a busy machine adds.
const SILENCE_PATIENCE: Duration = Duration::from_secs(10);

fn scene(hosts: &Hosts) -> (Cluster, Load) {
    let cluster = Cluster::start_on(hosts, 3, &[]);
    create(&cluster, 0, "t");
    cluster.wait_in_sync(0, "t", 3, PATIENCE);
    let load = Load::start(cluster.client(), "t");
    pass(500);
    (cluster, load)
}

/// Whether a node says that it is ready.
fn is_ready(cluster: &Cluster, at: usize) -> bool {
    cluster.nodes[at].get("/health").starts_with("HTTP/1.1 200")
}

/// Cuts the leader of partition 0 off, as `how` says, for longer than a lease; then all is well again.
fn cut_the_leader(name: &str, how: &str) {
    let _turn = turn();
    let Some(hosts) = Hosts::of_test(name, 3) else {
        return;
    };
    let (cluster, load) = scene(&hosts);
    let leader = cluster.leader(0, "t");
    let other = leader % 3;
    hosts.run(&[how, &leader.to_string()]);
    pass(6000);
    assert_ne!(cluster.leader(other, "t"), leader, "another one leads");
    // Whoever hears nothing of the quorum says so; it serves nothing that may be old. One that is muted hears until the
    // others give its connections up.
    let ready = || Value::from(is_ready(&cluster, leader - 1));
    wait_until(SILENCE_PATIENCE, ready, |r| *r == false);
    // Not even what it could promise alone: others lead, and nobody would ever read it.
    let (_, error) = produced(&cluster, leader - 1, 1);
    assert_eq!(error, ErrorCode::NotLeaderOrFollower);
    hosts.run(&["heal"]);
    cluster.wait_in_sync(other, "t", 3, PATIENCE);
    assert!(is_ready(&cluster, leader - 1));
    check(load);
}

#[test]
fn a_leader_that_is_cut_off_is_replaced() {
    let name = "network::a_leader_that_is_cut_off_is_replaced";
    cut_the_leader(name, "cut");
}

#[test]
fn a_leader_that_nobody_hears_is_replaced() {
    let name = "network::a_leader_that_nobody_hears_is_replaced";
    cut_the_leader(name, "mute");
}

#[test]
fn a_leader_that_hears_nobody_is_replaced() {
    let name = "network::a_leader_that_hears_nobody_is_replaced";
    cut_the_leader(name, "deafen");
}

/// Nobody reaches anybody: nothing is acknowledged, and when the network is back it goes on.
#[test]
fn without_any_network_nothing_is_acknowledged_and_nothing_lost() {
    let name = "network::without_any_network_nothing_is_acknowledged_and_nothing_lost";
    let _turn = turn();
    let Some(hosts) = Hosts::of_test(name, 3) else {
        return;
    };
    let (cluster, load) = scene(&hosts);
    for node in ["1", "2", "3"] {
        hosts.run(&["cut", node]);
    }
    pass(6000);
    assert!((0..3).all(|at| !is_ready(&cluster, at)));
    hosts.run(&["heal"]);
    cluster.wait_in_sync(0, "t", 3, PATIENCE);
    check(load);
}

/// A follower whose disk is full leaves the in-sync replicas; the others acknowledge on.
#[test]
fn a_follower_with_a_full_disk_stops_nobody() {
    let name = "network::a_follower_with_a_full_disk_stops_nobody";
    let _turn = turn();
    let Some(hosts) = Hosts::of_test(name, 3) else {
        return;
    };
    hosts.run(&["disk", "3", "64"]);
    let (cluster, load) = scene(&hosts);
    let fill = [
        "bench",
        "produce",
        "--topic",
        "full",
        "--records",
        "90000",
        "--size",
        "1KiB",
    ];
    drop(cluster.nodes[0].expect(&fill, b""));
    let out = |told: &Value| {
        let isr = told["partitions"][0]["isr"]
            .as_array()
            .expect("a list")
            .clone();
        !isr.contains(&Value::from(3)) && isr.len() == 2
    };
    wait_until(PATIENCE, || cluster.topic(0, "full"), out);
    check(load);
}
