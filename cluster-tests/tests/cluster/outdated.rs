//! A copy of a node's data directory is put back (D10): it has forgotten what it acknowledged since, records and votes.

use callboard_cluster_tests::cluster::{Cluster, wait_until};

use crate::{PATIENCE, check, create, pass, scene, turn};

/// The members of the quorum with a vote, as a node tells.
fn voters(cluster: &Cluster, at: usize) -> serde_json::Value {
    let told = cluster.nodes[at].expect(&["cluster", "members", "--json"], b"");
    let status: serde_json::Value = serde_json::from_slice(&told).expect("JSON");
    let members = status["members"].as_array().cloned().unwrap_or_default();
    let votes = members.iter().filter(|m| m["votes"] == true);
    votes.map(|m| m["node"].clone()).collect()
}

#[test]
fn a_copy_that_is_put_back_goes_on_as_a_new_member() {
    let _turn = turn();
    let (mut cluster, load) = scene();
    let leads = cluster.status(0)["controller"].as_u64();
    let leads = leads.expect("somebody leads") as usize;
    let (at, asked) = (leads % 3, leads - 1);
    let copy = cluster.back_up(at);
    // The quorum decides this with its voice, and it keeps records of what follows.
    create(&cluster, asked, "later");
    cluster.wait_in_sync(asked, "later", 3, PATIENCE);
    pass(1_000);
    cluster.put_back(at, &copy);
    cluster.nodes[at].restart();
    for topic in ["t", "later"] {
        cluster.wait_in_sync(asked, topic, 3, PATIENCE);
    }
    let said = cluster.nodes[at].said();
    assert!(
        said.contains("acknowledged: it goes on as a new member"),
        "{said}"
    );
    let all = || voters(&cluster, asked);
    wait_until(PATIENCE, all, |voters| {
        voters.as_array().is_some_and(|v| v.len() == 3)
    });
    // Its voice counts again: without it the two that are left decide nothing.
    let other = (0..3).find(|n| *n != at && *n != asked).expect("a third");
    cluster.nodes[other].kill();
    let state = || cluster.status(asked)["nodes"][other]["state"].clone();
    wait_until(PATIENCE, state, |state| *state == "silent");
    create(&cluster, asked, "last");
    cluster.wait_in_sync(asked, "last", 2, PATIENCE);
    cluster.nodes[other].restart();
    cluster.wait_in_sync(asked, "t", 3, PATIENCE);
    // Once more the same copy: by now it is of a member that nobody speaks to.
    cluster.put_back(at, &copy);
    cluster.nodes[at].restart();
    for topic in ["t", "later", "last"] {
        let replicas = if topic == "last" { 2 } else { 3 };
        cluster.wait_in_sync(asked, topic, replicas, PATIENCE);
    }
    let all = || voters(&cluster, asked);
    wait_until(PATIENCE, all, |voters| {
        voters.as_array().is_some_and(|v| v.len() == 3)
    });
    check(load);
}
