//! What a client of Kafka's is told by a node that does not lead what it asks for.

use callboard_cluster_tests::cluster::Cluster;
use callboard_cluster_tests::wire::Raw;
use callboard_common::kafka::messages as m;
use callboard_common::kafka::messages::produce_request::{PartitionProduceData, TopicProduceData};
use callboard_common::record::{BatchBuilder, Compression};
use callboard_common::{Clock, ErrorCode};

use crate::{PATIENCE, create, turn};

/// What node `at` of the list answers to a record for partition 0 of `t`, and the error in it.
pub(crate) fn produced(cluster: &Cluster, at: usize, acks: i16) -> (m::ProduceResponse, ErrorCode) {
    let mut builder = BatchBuilder::new(Compression::None);
    let now = Clock::machine().now().wall.0;
    builder.push(now, Some(b"stray"), Some(b"0"), &[]);
    let partition = PartitionProduceData {
        index: 0,
        records: Some(builder.build().bytes().clone()),
    };
    let topic = TopicProduceData {
        name: "t".into(),
        partition_data: vec![partition],
        ..Default::default()
    };
    let request = m::ProduceRequest {
        acks,
        timeout_ms: 5_000,
        topic_data: vec![topic],
        ..Default::default()
    };
    let mut connection = Raw::connect(cluster.nodes[at].kafka);
    let answer: m::ProduceResponse = connection.ask(&request, 10);
    let error = answer.responses[0].partition_responses[0].error_code;
    (answer, ErrorCode::from_number(error))
}

/// KIP-951: who asks a follower is told who leads, and where that is, without asking for metadata.
#[test]
fn kip_951_a_follower_names_the_leader() {
    let _turn = turn();
    let cluster = Cluster::start(3);
    create(&cluster, 0, "t");
    cluster.wait_in_sync(0, "t", 3, PATIENCE);
    let leader = cluster.leader(0, "t");
    let place = cluster.nodes[leader - 1].kafka;
    let follower = leader % 3;
    let is_place = |id: i32, host: &str, port: i32| {
        (id as usize, host, port) == (leader, &*place.ip().to_string(), place.port().into())
    };
    let (answer, error) = produced(&cluster, follower, -1);
    assert_eq!(error, ErrorCode::NotLeaderOrFollower);
    let hint = &answer.responses[0].partition_responses[0].current_leader;
    assert_eq!(hint.leader_id as usize, leader);
    let [node] = &answer.node_endpoints[..] else {
        panic!("one: {answer:?}")
    };
    assert!(is_place(node.node_id, &node.host, node.port), "{node:?}");
}
