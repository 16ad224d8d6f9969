//! Nodes of two releases in one cluster, and the step to what only the newer one knows. The older release is this one, held
//! back to what that spoke; what a binary of it did stands in docs/TESTING.md.

use std::panic::{AssertUnwindSafe, catch_unwind};

use callboard_cluster_tests::cluster::{Cluster, wait_until};
use callboard_cluster_tests::load::Load;
use callboard_common::FeatureLevel;
use serde_json::{Value, json};

use crate::{PATIENCE, check, create, pass, refused, turn};

const OLD: &str = "cluster.max_feature_level=3";
const NEW: &str = "cluster.max_feature_level=0";
const NEWEST: u16 = FeatureLevel::NEWEST.0;

fn features(cluster: &Cluster, at: usize) -> Value {
    let out = cluster.nodes[at].expect(&["cluster", "features", "--json"], b"");
    serde_json::from_slice(&out).expect("JSON")
}

fn spoken(told: &Value) -> Vec<Value> {
    let nodes = told["nodes"].as_array().expect("a list").iter();
    nodes.map(|n| n["speaks"].clone()).collect()
}

#[test]
fn kip_584_nodes_are_upgraded_one_by_one_and_then_the_cluster() {
    let _turn = turn();
    let mut cluster = Cluster::start_with(3, &[OLD]);
    create(&cluster, 0, "t");
    cluster.wait_in_sync(0, "t", 3, PATIENCE);
    let load = Load::start(cluster.client(), "t");
    pass(500);
    assert_eq!(features(&cluster, 0)["feature_level"], 3);
    for at in 0..3 {
        assert_eq!(cluster.nodes[at].terminate(), Some(0), "it stops in order");
        cluster.nodes[at].restart_with(&[NEW]);
        cluster.wait_in_sync(at, "t", 3, PATIENCE);
        let told = features(&cluster, at);
        assert_eq!(
            told["feature_level"], 3,
            "nobody has asked for more: {told}"
        );
        let newer = (0..3).map(|n| if n <= at { json!(NEWEST) } else { json!(3) });
        assert_eq!(spoken(&told), newer.collect::<Vec<_>>(), "{told}");
        if at == 0 {
            let said = refused(&cluster, 0, &["cluster", "upgrade", "--level", "4"]);
            let whoever_answers = ["do not speak feature level 4: 2, 3", "speaks 3 at most"];
            assert!(whoever_answers.iter().any(|s| said.contains(s)), "{said}");
        }
    }
    // A node that is away could be of any release when it comes back.
    cluster.nodes[2].kill();
    pass(2000);
    let said = refused(&cluster, 0, &["cluster", "upgrade"]);
    assert!(said.contains("node 3 does not answer"), "{said}");
    cluster.nodes[2].restart();
    cluster.wait_in_sync(0, "t", 3, PATIENCE);
    drop(cluster.nodes[1].expect(&["cluster", "upgrade", "--dry-run"], b""));
    assert_eq!(features(&cluster, 0)["feature_level"], 3);
    drop(cluster.nodes[1].expect(&["cluster", "upgrade"], b""));
    // The last node hears of it with the next heartbeat.
    let told = || features(&cluster, 2);
    wait_until(PATIENCE, told, |told| told["feature_level"] == NEWEST);
    let said = refused(&cluster, 0, &["cluster", "upgrade", "--level", "3"]);
    assert!(said.contains("does not go back"), "{said}");
    let newer = (NEWEST + 1).to_string();
    let said = refused(&cluster, 0, &["cluster", "upgrade", "--level", &newer]);
    let why = format!("speaks {NEWEST} at most");
    assert!(said.contains(&why), "{said}");
    // Who is held back from it says so and does not start, and nobody misses it.
    assert_eq!(cluster.nodes[2].terminate(), Some(0), "it stops in order");
    let started = catch_unwind(AssertUnwindSafe(|| cluster.nodes[2].restart_with(&[OLD])));
    let said = started.expect_err("it does not start");
    let said = said.downcast_ref::<String>().expect("what it said");
    let why = format!("the cluster is at feature level {NEWEST}");
    assert!(said.contains(&why), "{said}");
    cluster.nodes[2].restart_with(&[NEW]);
    cluster.wait_in_sync(2, "t", 3, PATIENCE);
    check(load);
}

/// New clusters begin with all that their nodes know; a node that does not know it is told why it does not come in.
#[test]
fn a_node_of_an_older_release_is_not_let_in() {
    let _turn = turn();
    let mut cluster = Cluster::start(1);
    assert_eq!(features(&cluster, 0)["feature_level"], NEWEST);
    let (who, reason) = ((2, &[1][..]), "another node refuses this one");
    let said = cluster.turned_away(who, OLD, reason, PATIENCE);
    let why = format!("the cluster is at feature level {NEWEST}: start a newer release");
    assert!(said.contains(&why), "{said}");
    let newer = cluster.launch(2, &[1]);
    cluster.nodes.push(newer);
    assert_eq!(spoken(&features(&cluster, 1)), [NEWEST, NEWEST]);
}
