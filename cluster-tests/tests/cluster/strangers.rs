//! Who is no node of the cluster, or is one already: rows 36 and 37 of the list of hostile inputs.

use std::fs;
use std::time::Duration;

use callboard_broker::peer::protocol::{self, ASK, PeerRequest};
use callboard_client::BrokerId;
use callboard_cluster_tests::cluster::Cluster;
use callboard_cluster_tests::load::block_on;
use callboard_common::FeatureLevel;
use callboard_common::transport::authority::Authority;
use callboard_common::transport::network::Network;
use callboard_common::transport::peer::{PeerIdentity, peer_name};
use callboard_common::transport::stream::{FrameReader, write};
use callboard_common::transport::tls::Identity;

use crate::{PATIENCE, check, scene, turn};

/// An answer on loopback takes no longer; who waits longer is not answered.
const ANSWER: Duration = Duration::from_secs(2);
const FRAME_MAX_BYTES: u32 = 1 << 20;

/// Calls the first node with a certificate and asks who it is: whether it answers.
async fn is_answered(
    cluster: &Cluster,
    cluster_id: &str,
    identity: Identity,
    within: Duration,
) -> bool {
    let caller = PeerIdentity {
        identity,
        broker: BrokerId(2),
        cluster_id: cluster_id.to_owned(),
        newest: FeatureLevel::NEWEST,
    };
    let any = cluster.address(9, 0);
    let socket = Network::default().bind(any, false).expect("an address");
    let endpoint = caller.open(socket).expect("opened");
    let to = (cluster.address(1, 9392), peer_name(BrokerId(1), cluster_id));
    let asking = async {
        let connection = endpoint.connect(to.0, &to.1).ok()?.await.ok()?;
        let (mut send, receive) = connection.open_bi().await.ok()?;
        let frame = protocol::frame(FeatureLevel::NEWEST, 1, ASK, &PeerRequest::Probe).ok()?;
        write(&mut send, frame).await.ok()?;
        let mut reader = FrameReader::new(receive);
        let size = FRAME_MAX_BYTES as usize;
        reader.frame(FRAME_MAX_BYTES, size).await.ok()
    };
    let answered = tokio::time::timeout(within, asking).await;
    matches!(answered, Ok(Some(_)))
}

#[test]
fn row_36_only_nodes_of_the_cluster_come_in() {
    let _turn = turn();
    let cluster = Cluster::start(1);
    let read = |name: &str| fs::read_to_string(cluster.authority().join(name)).expect("there");
    let (ca, key) = (read("ca.pem"), read("ca-key.pem"));
    let own = Identity {
        ca_pem: ca.clone(),
        certificate_pem: read("node-1/node.pem"),
        key_pem: read("node-1/node-key.pem"),
        clients_pem: None,
    };
    let id = PeerIdentity::new(own.clone()).expect("a node's").cluster_id;
    let authority = Authority::load(&id, &ca, &key).expect("kept");
    let host = ["127.0.0.1".to_owned()];
    let node = |of: &Authority| of.node(BrokerId(2), &host).expect("made");
    // Whoever calls trusts the cluster: it is for the node to refuse.
    let trusting = |identity: Identity| Identity {
        ca_pem: ca.clone(),
        ..identity
    };
    let stranger = Authority::create(&id).expect("made");
    let other_cluster = Authority::load("AnotherCluster", &ca, &key).expect("kept");
    let user = authority.client("ann").expect("made");
    let user = Identity {
        ca_pem: ca.clone(),
        certificate_pem: user.clone(),
        key_pem: user,
        clients_pem: None,
    };
    block_on(async {
        assert!(is_answered(&cluster, &id, node(&authority), PATIENCE).await);
        let wrong = [
            ("a user's certificate", user),
            (
                "a certificate of another authority",
                trusting(node(&stranger)),
            ),
            ("a node of another cluster", trusting(node(&other_cluster))),
            ("the node's own certificate", own),
        ];
        for (what, identity) in wrong {
            let answered = is_answered(&cluster, &id, identity, ANSWER).await;
            assert!(!answered, "{what}");
        }
        assert!(
            is_answered(&cluster, &id, node(&authority), PATIENCE).await,
            "all is well"
        );
    });
}

/// The same node is started a second time, on an empty directory: the first one is not harmed, and when it is gone the second
/// one takes its place.
#[test]
fn row_37_a_node_that_runs_already_is_not_thrown_out_by_its_double() {
    let _turn = turn();
    let (mut cluster, load) = scene();
    let before = cluster.status(0);
    let why = "node 3 runs already, on another data directory: stop it there first";
    let balance = "cluster.balance=true";
    let _said = cluster.turned_away((3, &[1, 2, 3]), balance, why, PATIENCE);
    let after = cluster.status(0);
    let of = |status: &serde_json::Value| {
        let node = &status["nodes"][2];
        ["epoch", "peer", "votes", "state"].map(|name| node[name].clone())
    };
    assert_eq!(of(&after), of(&before));
    cluster.wipe(2);
    cluster.nodes[2].restart();
    cluster.wait_in_sync(0, "t", 3, PATIENCE);
    check(load);
}
