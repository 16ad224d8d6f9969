//! Fixed bytes: the formats change only on purpose.
//!
//! The Kafka messages and batches were written by Apache Kafka 4.4.0's own classes (`MessageUtil`, `MemoryRecords`).

use bytes::Bytes;
use callboard_common::kafka::messages as m;
use callboard_common::kafka::messages::api_versions_response::ApiVersion;
use callboard_common::kafka::messages::fetch_request::{FetchPartition, FetchTopic};
use callboard_common::kafka::messages::join_group_request::JoinGroupRequestProtocol;
use callboard_common::kafka::messages::metadata_request::MetadataRequestTopic;
use callboard_common::kafka::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use callboard_common::kafka::{Message, Text};
use callboard_common::protocol::fetch::{Fetched, FetchedPartition, FetchedTopic};
use callboard_common::protocol::produce::{Acks, Produce, ProducePartition, ProduceTopic};
use callboard_common::protocol::{Request, Response, TopicRef};
use callboard_common::record::{Batch, BatchBuilder, Compression, Header};
use callboard_common::wire::codec::{self, BODY_LIMIT_BYTES};
use callboard_common::wire::frame::{self, LENGTH_BYTES};
use callboard_common::{ErrorCode, Offset};

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn unhex(text: &str) -> Bytes {
    let pairs = text
        .as_bytes()
        .chunks(2)
        .map(|p| std::str::from_utf8(p).expect("digits"));
    pairs
        .map(|p| u8::from_str_radix(p, 16).expect("digits"))
        .collect()
}

fn golden<M: Message + PartialEq + std::fmt::Debug>(message: &M, version: i16, bytes: &str) {
    assert_eq!(
        hex(&message.to_bytes(version).expect("fits")),
        bytes,
        "{} version {version}",
        M::NAME
    );
    assert_eq!(
        M::from_bytes(unhex(bytes), version).as_ref(),
        Ok(message),
        "{} version {version}",
        M::NAME
    );
}

#[test]
fn kafkas_metadata_and_fetch() {
    let topic = MetadataRequestTopic {
        name: Some("orders".into()),
        ..Default::default()
    };
    let metadata = m::MetadataRequest {
        topics: Some(vec![topic]),
        ..Default::default()
    };
    golden(&metadata, 0, "0000000100066f7264657273");
    golden(&metadata, 9, "02076f72646572730001000000");
    golden(
        &metadata,
        13,
        "0200000000000000000000000000000000076f726465727300010000",
    );

    let partition = FetchPartition {
        partition: 3,
        current_leader_epoch: 5,
        fetch_offset: 42,
        partition_max_bytes: 1_048_576,
        ..Default::default()
    };
    let topic = FetchTopic {
        topic: "orders".into(),
        partitions: vec![partition],
        ..Default::default()
    };
    let fetch = m::FetchRequest {
        max_wait_ms: 500,
        min_bytes: 1,
        max_bytes: 52_428_800,
        session_id: 7,
        session_epoch: 2,
        topics: vec![topic],
        rack_id: "r1".into(),
        ..Default::default()
    };
    golden(
        &fetch,
        11,
        concat!(
            "ffffffff000001f400000001032000000000000007000000020000000100066f726465727300000001000000030000000500",
            "0000000000002affffffffffffffff001000000000000000027231"
        ),
    );
    golden(
        &fetch,
        12,
        concat!(
            "ffffffff000001f4000000010320000000000000070000000202076f7264657273020000000300000005000000000000002a",
            "ffffffffffffffffffffffff0010000000000103723100"
        ),
    );
}

#[test]
fn kafkas_groups_and_versions() {
    let protocol = JoinGroupRequestProtocol {
        name: "range".into(),
        metadata: Bytes::from_static(&[1, 2, 3]),
    };
    let join = m::JoinGroupRequest {
        group_id: "g".into(),
        session_timeout_ms: 45_000,
        rebalance_timeout_ms: 300_000,
        member_id: "m-1".into(),
        group_instance_id: Some("i".into()),
        protocol_type: "consumer".into(),
        protocols: vec![protocol],
        reason: None,
    };
    golden(
        &join,
        5,
        "0001670000afc8000493e000036d2d310001690008636f6e73756d657200000001000572616e676500000003010203",
    );
    golden(
        &join,
        9,
        "02670000afc8000493e0046d2d31026909636f6e73756d6572020672616e676504010203000000",
    );

    let partition = OffsetCommitRequestPartition {
        partition_index: 2,
        committed_offset: 42,
        committed_leader_epoch: 5,
        committed_metadata: Some("note".into()),
    };
    let topic = OffsetCommitRequestTopic {
        name: "orders".into(),
        partitions: vec![partition],
        ..Default::default()
    };
    let commit = m::OffsetCommitRequest {
        group_id: "g".into(),
        generation_id_or_member_epoch: 3,
        member_id: "m-1".into(),
        topics: vec![topic],
        ..Default::default()
    };
    golden(
        &commit,
        9,
        "026700000003046d2d310002076f72646572730200000002000000000000002a00000005056e6f7465000000",
    );

    let key = ApiVersion {
        api_key: 0,
        min_version: 0,
        max_version: 13,
    };
    let versions = m::ApiVersionsResponse {
        api_keys: vec![key],
        finalized_features_epoch: 9,
        ..Default::default()
    };
    golden(
        &versions,
        3,
        "00000200000000000d00000000000101080000000000000009",
    );
}

/// One batch per codec, as Kafka's producer writes them: two records, repeated and null headers, null key and value.
const BATCHES: [(Compression, &str); 5] = [
    (
        Compression::None,
        concat!(
            "00000000000000000000006700000000027698038f0000000000010000018bcfe568000000018bcfe569f400",
            "0000000000004d000100000028000000025a000000066b65793a76616c75652076616c75652076616c756520",
            "76616c75652076616c756504026802310268010e00e80702010100",
        ),
    ),
    (
        Compression::Gzip,
        concat!(
            "0000000000000000000000660000000002776d59580001000000010000018bcfe568000000018bcfe569f400",
            "0000000000004d000100000028000000021f8b08000000000000ff8b62606060cb4eadb42a4bcc294d55c041",
            "b230653019326530f231bc6067626464000033d5a39d36000000",
        ),
    ),
    (
        Compression::Snappy,
        concat!(
            "00000000000000000000006a0000000002f1d8ca180002000000010000018bcfe568000000018bcfe569f400",
            "0000000000004d0001000000280000000282534e415050590000000001000000010000002536385a00000006",
            "6b65793a76616c7565205a06003c04026802310268010e00e80702010100",
        ),
    ),
    (
        Compression::Lz4,
        concat!(
            "00000000000000000000006600000000028288bfdb0003000000010000018bcfe568000000018bcfe569f400",
            "0000000000004d0001000000280000000204224d1860408226000000ff005a000000066b65793a76616c7565",
            "20060004f00104026802310268010e00e8070201010000000000",
        ),
    ),
    (
        Compression::Zstd,
        concat!(
            "00000000000000000000006200000000028d1153f30004000000010000018bcfe568000000018bcfe569f400",
            "0000000000004d0001000000280000000228b52ffd00582c0100f85a000000066b65793a76616c7565200402",
            "6802310268010e00e807020101000100a94b1d010000",
        ),
    ),
];

#[test]
fn kafkas_batches() {
    for (codec, bytes) in BATCHES {
        let batch = Batch::parse(unhex(bytes)).expect("valid");
        let header = batch.header();
        assert_eq!(
            (
                header.producer_id,
                header.producer_epoch,
                header.base_sequence
            ),
            (77, 1, 40)
        );
        assert_eq!(header.compression(), Some(codec));
        let records = batch.records(1 << 20).expect("readable");
        let named = |value: Option<&'static [u8]>| Header {
            key: Text::from_static("h"),
            value: value.map(Bytes::from_static),
        };
        assert_eq!(records[0].key.as_deref(), Some(&b"key"[..]));
        assert_eq!(
            records[0].value.as_deref(),
            Some(&b"value value value value value"[..])
        );
        assert_eq!(records[0].headers, [named(Some(b"1")), named(None)]);
        assert_eq!(
            (records[1].timestamp, &records[1].key, &records[1].value),
            (1_700_000_000_500, &None, &None)
        );
        if codec == Compression::None {
            let mut builder = BatchBuilder::new(codec).producer(77, 1, 40);
            for record in &records {
                builder.push(
                    record.timestamp,
                    record.key.as_deref(),
                    record.value.as_deref(),
                    &record.headers,
                );
            }
            let built = builder
                .build()
                .placed(Offset::ZERO, callboard_common::LeaderEpoch(0))
                .write();
            assert_eq!(
                hex(&built),
                bytes[..122],
                "our producer writes what Kafka's does"
            );
        }
    }
}

#[test]
fn our_own_frames() {
    let partition = ProducePartition {
        partition: 3,
        records: Bytes::from_static(b"RECORDS").into(),
    };
    let topic = ProduceTopic {
        topic: TopicRef::Name("orders".into()),
        partitions: vec![partition],
    };
    let produce = Produce {
        acks: Acks::All,
        timeout_ms: 30_000,
        transactional_id: None,
        topics: vec![topic],
    };
    let request = Request::from(produce);
    let frame = codec::request_frame(9, request.clone()).expect("fits");
    let bytes: Bytes = frame.into_chunks().concat().into();
    assert_eq!(hex(&bytes), PRODUCE_FRAME);
    let (header, body, records) =
        frame::split(bytes.slice(LENGTH_BYTES..), BODY_LIMIT_BYTES).expect("a frame");
    assert_eq!(codec::request(header, &body, records), Ok(request));

    let partition = FetchedPartition {
        partition: 3,
        error: ErrorCode::None,
        high_watermark: Some(Offset::new(300)),
        log_start: Some(Offset::ZERO),
        preferred_replica: None,
        records: Bytes::from_static(b"RECORDS").into(),
    };
    let topics = vec![FetchedTopic {
        topic: TopicRef::Name("orders".into()),
        partitions: vec![partition],
    }];
    let response = Response::Fetch(Fetched { topics });
    let bytes: Bytes = codec::response_frame(header, response.clone())
        .expect("fits")
        .into_chunks()
        .concat()
        .into();
    assert_eq!(hex(&bytes), FETCHED_FRAME);
    let (_, body, records) =
        frame::split(bytes.slice(LENGTH_BYTES..), BODY_LIMIT_BYTES).expect("a frame");
    assert_eq!(codec::response(&body, records), Ok(response));
}

const PRODUCE_FRAME: &str =
    "00000029000000000000000900000002000000120002fb60ea000100066f72646572730106075245434f524453";
const FETCHED_FRAME: &str = "0000002c00000000000000090000000200000015010100066f726465727301060101fb5802010000075245434f524453";

#[test]
fn every_request_has_a_number_of_its_own() {
    let numbers = Request::ALL.iter().map(|(number, _)| number);
    let distinct: std::collections::BTreeSet<_> = numbers.collect();
    assert_eq!(distinct.len(), Request::ALL.len());
}
