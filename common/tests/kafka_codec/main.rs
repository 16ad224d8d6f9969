//! The generated codec against the schemas it came from and against the `kafka-protocol` crate.
//!
//! Random bytes that are valid by the schema are decoded and encoded again: the same bytes must come out of
//! our codec, and of the other implementation wherever both know the version.

#[path = "../../src/kafka/generate/schema.rs"]
#[expect(
    dead_code,
    clippy::wildcard_enum_match_arm,
    reason = "it is the generator's"
)]
mod schema;
mod valid;

use bytes::{Bytes, BytesMut};
use callboard_common::every_kafka_message;
use callboard_common::kafka::{Message, messages as ours};
use kafka_protocol::messages as theirs;
use kafka_protocol::protocol::{Decodable, Encodable};
use proptest::prelude::*;

fn our_round_trip<M: Message + PartialEq + std::fmt::Debug>(bytes: &Bytes, version: i16) -> Bytes {
    let message = M::from_bytes(bytes.clone(), version)
        .unwrap_or_else(|e| panic!("{} {version}: {e}", M::NAME));
    let encoded = message.to_bytes(version).expect("it fits, it came in");
    assert_eq!(
        M::from_bytes(encoded.clone(), version).as_ref(),
        Ok(&message)
    );
    encoded
}

fn their_round_trip<M: Decodable + Encodable>(mut bytes: Bytes, version: i16) -> Option<Bytes> {
    let message = M::decode(&mut bytes, version).expect("valid by the schema");
    assert!(bytes.is_empty(), "all was read");
    let mut out = BytesMut::new();
    message.encode(&mut out, version).expect("it came in");
    Some(out.freeze())
}

type Ours = fn(&Bytes, i16) -> Bytes;
type Theirs = fn(Bytes, i16) -> Option<Bytes>;

macro_rules! table {
    ($($name:ident $their_max:expr;)*) => {
        [$((stringify!($name), our_round_trip::<ours::$name> as Ours, their_round_trip::<theirs::$name> as Theirs, $their_max)),*]
    };
}

/// Message, codecs, and the newest version that the other implementation reads as Kafka 4.4 defines it.
fn requests_and_responses() -> Vec<(&'static str, Ours, Theirs, i16)> {
    table! {
        ProduceRequest 12; ProduceResponse 12;
        FetchRequest 17; FetchResponse 17;
        ListOffsetsRequest 10; ListOffsetsResponse 10;
        MetadataRequest 13; MetadataResponse 13;
        OffsetCommitRequest 9; OffsetCommitResponse 9;
        OffsetFetchRequest 9; OffsetFetchResponse 9;
        FindCoordinatorRequest 6; FindCoordinatorResponse 6;
        JoinGroupRequest 9; JoinGroupResponse 9;
        HeartbeatRequest 4; HeartbeatResponse 4;
        LeaveGroupRequest 5; LeaveGroupResponse 5;
        SyncGroupRequest 5; SyncGroupResponse 5;
        ApiVersionsRequest 4; ApiVersionsResponse 4;
        CreateTopicsRequest 7; CreateTopicsResponse 7;
        DeleteTopicsRequest 6; DeleteTopicsResponse 6;
        InitProducerIdRequest 5; InitProducerIdResponse 5;
        DescribeGroupsRequest 6; DescribeGroupsResponse 6;
        ListGroupsRequest 5; ListGroupsResponse 5;
        SaslHandshakeRequest 1; SaslHandshakeResponse 1;
        SaslAuthenticateRequest 2; SaslAuthenticateResponse 2;
        DeleteRecordsRequest 2; DeleteRecordsResponse 2;
        OffsetForLeaderEpochRequest 4; OffsetForLeaderEpochResponse 4;
        DescribeAclsRequest 3; DescribeAclsResponse 3;
        CreateAclsRequest 3; CreateAclsResponse 3;
        DeleteAclsRequest 3; DeleteAclsResponse 3;
        DescribeConfigsRequest 4; DescribeConfigsResponse 4;
        AlterConfigsRequest 2; AlterConfigsResponse 2;
        CreatePartitionsRequest 3; CreatePartitionsResponse 3;
        DeleteGroupsRequest 2; DeleteGroupsResponse 2;
        IncrementalAlterConfigsRequest 1; IncrementalAlterConfigsResponse 1;
        OffsetDeleteRequest 0; OffsetDeleteResponse 0;
        DescribeClientQuotasRequest 1; DescribeClientQuotasResponse 1;
        AlterClientQuotasRequest 1; AlterClientQuotasResponse 1;
        DescribeUserScramCredentialsRequest 0; DescribeUserScramCredentialsResponse 0;
        AlterUserScramCredentialsRequest 0; AlterUserScramCredentialsResponse 0;
        DescribeClusterRequest 2; DescribeClusterResponse 2;
        ElectLeadersRequest 2; ElectLeadersResponse 2;
        AlterPartitionReassignmentsRequest 1; AlterPartitionReassignmentsResponse 1;
        ListPartitionReassignmentsRequest 0; ListPartitionReassignmentsResponse 0;
        DescribeQuorumRequest 2; DescribeQuorumResponse 2;
        UpdateFeaturesRequest 2; UpdateFeaturesResponse 2;
        DescribeLogDirsRequest 4; DescribeLogDirsResponse 4;
        UnregisterBrokerRequest 0; UnregisterBrokerResponse 0;
        DescribeTopicPartitionsRequest 0; DescribeTopicPartitionsResponse 0;
    }
    .into()
}

fn schemas() -> Vec<schema::Message> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/kafka/schema");
    let paths = std::fs::read_dir(folder).expect("the schemas are there");
    let text = |p: std::io::Result<std::fs::DirEntry>| {
        std::fs::read_to_string(p.expect("readable").path())
    };
    paths
        .flat_map(|p| schema::parse(&text(p).expect("text")).expect("a schema"))
        .collect()
}

fn message<'a>(schemas: &'a [schema::Message], name: &str) -> &'a schema::Message {
    schemas
        .iter()
        .find(|m| m.name == name)
        .expect("every message has a schema")
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn bytes_that_are_valid_by_the_schema_come_out_again(seed in any::<u64>()) {
        let schemas = schemas();
        for (name, ours, theirs, their_max) in requests_and_responses() {
            let message = message(&schemas, name);
            for version in message.valid.from..=message.valid.to {
                let bytes = valid::bytes(message, version, seed);
                let encoded = ours(&bytes, version);
                prop_assert_eq!(&encoded, &bytes, "{} version {}", name, version);
                if version <= their_max {
                    let expected = theirs(bytes.clone(), version).expect("the version is known");
                    prop_assert_eq!(&encoded, &expected, "{} version {}", name, version);
                }
            }
        }
    }

    #[test]
    fn cut_messages_are_refused_and_any_bytes_are_survived(seed in any::<u64>(), cut in any::<prop::sample::Index>()) {
        let schemas = schemas();
        let message = message(&schemas, "FetchRequest");
        for version in message.valid.from..=message.valid.to {
            let bytes = valid::bytes(message, version, seed);
            let cut = bytes.slice(..cut.index(bytes.len()));
            prop_assert!(ours::FetchRequest::from_bytes(cut, version).is_err());
            let noise = valid::noise(&bytes, seed);
            if let Ok(message) = ours::FetchRequest::from_bytes(noise, version) {
                let again = message.to_bytes(version).expect("it fits");
                prop_assert_eq!(ours::FetchRequest::from_bytes(again, version), Ok(message));
            }
        }
    }
}

/// Also those that the other implementation does not know: records of our own logs.
#[test]
fn every_message_round_trips() {
    macro_rules! all {
        (; $($message:ident)*) => { [$((stringify!($message), our_round_trip::<ours::$message> as Ours)),*] };
    }
    let schemas = schemas();
    for (name, round_trip) in every_kafka_message!(all) {
        let message = message(&schemas, name);
        for version in message.valid.from..=message.valid.to {
            for seed in 0..50 {
                let bytes = valid::bytes(message, version, seed);
                assert_eq!(
                    round_trip(&bytes, version),
                    bytes,
                    "{name} version {version}"
                );
            }
        }
    }
}
