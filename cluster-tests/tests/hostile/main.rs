//! Hostile bytes on the Kafka door. The numbers are the rows of the project's list of hostile inputs; each test
//! says what the answer must be, and that others are served meanwhile.

#![expect(clippy::too_many_lines, reason = "a test walks through its rows")]

mod certificates;
mod edited;
mod features;
mod floods;
mod security;

use std::time::Duration;

use bytes::Bytes;
use callboard_broker::Node;
use callboard_cluster_tests::wire::Raw;
use callboard_common::ErrorCode;
use callboard_common::config::Span;
use callboard_common::kafka::messages as m;
use callboard_common::kafka::messages::create_topics_request::{
    CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig,
};
use callboard_common::kafka::messages::fetch_request::{FetchPartition, FetchTopic};
use callboard_common::kafka::messages::list_offsets_request::{
    ListOffsetsPartition, ListOffsetsTopic,
};
use callboard_common::kafka::messages::metadata_request::MetadataRequestTopic;
use callboard_common::kafka::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use callboard_common::kafka::messages::produce_request::{PartitionProduceData, TopicProduceData};
use callboard_common::kafka::{Message, Text};
use callboard_common::record::batch::{CHECKSUM_FROM, checksum};
use callboard_common::record::{BatchBuilder, Compression};

/// A node in this process, with limits short enough to be met.
struct Scene {
    node: Option<Node>,
    runtime: tokio::runtime::Runtime,
}

impl Scene {
    fn new() -> Self {
        Self::with(|_| {})
    }

    fn with(change: impl FnOnce(&mut callboard_broker::BrokerConfig)) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        let builder = Node::builder().in_memory().configure(|config| {
            config.limits.frame_timeout = Span(Duration::from_millis(700));
            config.limits.write_timeout = Span(Duration::from_millis(700));
            config.limits.idle_timeout = Span(Duration::from_secs(4));
            config.limits.connections_per_ip = 40;
            config.groups.session_timeout_min = Span(Duration::from_millis(100));
        });
        let node = runtime
            .block_on(builder.configure(change).start())
            .expect("starts");
        let asks = node.first_user().is_some();
        let scene = Self {
            node: Some(node),
            runtime,
        };
        if !asks {
            let created = scene.create("t", 1, |_| {});
            assert_eq!(created, ErrorCode::None);
        }
        scene
    }

    fn node(&self) -> &Node {
        self.node.as_ref().expect("runs")
    }

    fn connect(&self) -> Raw {
        Raw::connect(self.node().kafka())
    }

    /// Waits until the node has noticed that connections were closed, and admits a new one.
    fn makes_room(&self) {
        let admitted = || {
            let body = m::ApiVersionsRequest::default().to_bytes(0).expect("fits");
            let mut connection = self.connect();
            let sent = connection.send_body(m::ApiVersionsRequest::KEY, 0, &body);
            sent.is_ok() && connection.read().is_ok()
        };
        let served = (0..100).any(|_| {
            let admitted = admitted();
            std::thread::sleep(Duration::from_millis(20));
            admitted
        });
        assert!(served, "connections that were closed make room");
    }

    /// The node still serves who behaves.
    fn is_healthy(&self) {
        let answer: m::ApiVersionsResponse =
            self.connect().ask(&m::ApiVersionsRequest::default(), 3);
        assert_eq!(answer.error_code, 0);
        let (error, _) = self.produce(batch(1));
        assert_eq!(error, ErrorCode::None);
    }

    fn closes(&self, what: &str, bytes: &[u8]) {
        let mut connection = self.connect();
        // The node may close before all is sent.
        let _sent = connection.send(bytes);
        assert!(connection.is_closed(), "{what}");
    }

    fn closes_body(&self, what: &str, key: i16, version: i16, body: &[u8]) {
        let mut connection = self.connect();
        let _sent = connection.send_body(key, version, body);
        assert!(connection.is_closed(), "{what}");
    }

    fn create(
        &self,
        name: &str,
        partitions: i32,
        change: impl FnOnce(&mut CreatableTopic),
    ) -> ErrorCode {
        let mut topic = CreatableTopic {
            name: name.into(),
            num_partitions: partitions,
            replication_factor: 1,
            ..Default::default()
        };
        change(&mut topic);
        let request = m::CreateTopicsRequest {
            topics: vec![topic],
            ..Default::default()
        };
        let answer: m::CreateTopicsResponse = self.connect().ask(&request, 7);
        ErrorCode::from_number(answer.topics[0].error_code)
    }

    fn produce(&self, records: impl Into<Bytes>) -> (ErrorCode, i64) {
        self.produce_to("t", records)
    }

    fn produce_to(&self, topic: &str, records: impl Into<Bytes>) -> (ErrorCode, i64) {
        let answer: m::ProduceResponse = self.connect().ask(&produce(topic, records.into()), 9);
        let partition = &answer.responses[0].partition_responses[0];
        (
            ErrorCode::from_number(partition.error_code),
            partition.base_offset,
        )
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        if let Some(node) = self.node.take() {
            let unclean = self.runtime.block_on(node.stop());
            assert!(
                unclean.is_empty() || std::thread::panicking(),
                "{unclean:?}"
            );
        }
    }
}

fn produce(topic: &str, records: Bytes) -> m::ProduceRequest {
    let partition = PartitionProduceData {
        index: 0,
        records: Some(records),
    };
    let topic = TopicProduceData {
        name: topic.into(),
        partition_data: vec![partition],
        ..Default::default()
    };
    m::ProduceRequest {
        acks: -1,
        timeout_ms: 30_000,
        topic_data: vec![topic],
        ..Default::default()
    }
}

fn now() -> i64 {
    callboard_common::Clock::machine().now().wall.0
}

fn builder(count: i32) -> BatchBuilder {
    let mut builder = BatchBuilder::new(Compression::None);
    (0..count).for_each(|_| builder.push(now(), Some(b"key"), Some(b"value"), &[]));
    builder
}

fn batch(count: i32) -> Bytes {
    builder(count).build().bytes().clone()
}

/// The batch with some bytes changed and the checksum right again.
fn forged(change: impl FnOnce(&mut Vec<u8>)) -> Bytes {
    let mut bytes = batch(2).to_vec();
    change(&mut bytes);
    let sum = checksum(&bytes[CHECKSUM_FROM..]);
    bytes[17..21].copy_from_slice(&sum.to_be_bytes());
    bytes.into()
}

#[test]
fn rows_1_to_5_what_is_not_a_frame_is_closed() {
    let scene = Scene::new();
    scene.closes("1: a length beyond the limit", &i32::MAX.to_be_bytes());
    scene.closes("2: a length of 0", &[0; 4]);
    scene.closes("2: a negative length", &(-1i32).to_be_bytes());
    let mut slow = scene.connect();
    slow.send(&(100i32 << 20).to_be_bytes()).expect("sent");
    slow.send(b"x").expect("sent");
    assert!(slow.is_closed(), "3: a request that does not arrive");
    scene.closes("4: HTTP", b"GET / HTTP/1.1\r\n\r\n");
    scene.closes("4: SSH", b"SSH-2.0-OpenSSH_9.2\r\n");
    scene.closes(
        "5: TLS where there is none",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    );
    scene.is_healthy();
}

#[test]
fn rows_6_and_7_unknown_requests_and_versions() {
    let scene = Scene::new();
    for key in [-1, 4, 27, 999, i16::MAX] {
        scene.closes_body("6: an unknown request", key, 0, b"");
    }
    for version in [-1, 2, 14, i16::MAX] {
        scene.closes_body(
            "7: a version of Produce that is not served",
            m::ProduceRequest::KEY,
            version,
            b"",
        );
    }
    let mut connection = scene.connect();
    connection
        .send_body(m::ApiVersionsRequest::KEY, 99, b"")
        .expect("sent");
    let answer = connection.read().expect("7: answered in version 0");
    let answer =
        m::ApiVersionsResponse::from_bytes(Bytes::from(answer).slice(4..), 0).expect("version 0");
    assert_eq!(
        ErrorCode::from_number(answer.error_code),
        ErrorCode::UnsupportedVersion
    );
    assert!(
        answer
            .api_keys
            .iter()
            .any(|k| k.api_key == 0 && k.min_version == 0 && k.max_version == 13)
    );
    let answer: m::ApiVersionsResponse = connection.ask(&m::ApiVersionsRequest::default(), 0);
    assert_eq!(answer.error_code, 0, "and the connection goes on");
    scene.closes_body("7: a negative version", m::ApiVersionsRequest::KEY, -1, b"");
}

#[test]
fn rows_8_to_13_malformed_bodies_are_closed() {
    let scene = Scene::new();
    let metadata = m::MetadataRequest::KEY;
    let body = m::FetchRequest::default().to_bytes(12).expect("fits");
    scene.closes_body(
        "8: a truncated body",
        m::FetchRequest::KEY,
        12,
        &body[..body.len() - 1],
    );
    scene.closes_body(
        "8: trailing bytes",
        m::FetchRequest::KEY,
        12,
        &[&body[..], b"x"].concat(),
    );
    scene.closes_body("9: an array of 2^31-1", metadata, 0, b"\x7f\xff\xff\xff\0");
    scene.closes_body(
        "9: a compact array of 2^32",
        metadata,
        9,
        b"\xff\xff\xff\xff\x0f\0\0\0\0",
    );
    scene.closes_body(
        "10: an overlong varint",
        metadata,
        9,
        b"\xff\xff\xff\xff\xff\xff\x01",
    );
    scene.closes_body("10: a padded varint", metadata, 9, b"\x80\0\0\0\0\0");
    scene.closes_body(
        "11: a string beyond the frame",
        metadata,
        0,
        b"\0\0\0\x01\x7f\xffa",
    );
    scene.closes_body(
        "11: a string that is not UTF-8",
        metadata,
        0,
        b"\0\0\0\x01\0\x02\xff\xfe",
    );
    let tagged = |count: u32| {
        let mut body = m::ApiVersionsRequest::default()
            .to_bytes(3)
            .expect("fits")
            .to_vec();
        let _none = body.pop();
        let put = |body: &mut Vec<u8>, mut v: u32| {
            while v >= 0x80 {
                body.push(v as u8 | 0x80);
                v >>= 7;
            }
            body.push(v as u8);
        };
        put(&mut body, count);
        for tag in 0..count {
            put(&mut body, 100 + tag);
            put(&mut body, 0);
        }
        body
    };
    scene.closes_body(
        "12: a million tagged fields",
        m::ApiVersionsRequest::KEY,
        3,
        &tagged(1_000_000),
    );
    let mut connection = scene.connect();
    connection
        .send_body(m::ApiVersionsRequest::KEY, 3, &tagged(9000))
        .expect("sent");
    let answer: m::ApiVersionsResponse = connection.answer(m::ApiVersionsRequest::KEY, 3);
    assert_eq!(
        answer.error_code, 0,
        "12: as many as a client may send are skipped"
    );
    let nested = [&(1_000_000i32).to_be_bytes()[..], &[0u8; 6_000_000]].concat();
    let frame = [&[0xff; 4][..], &[0; 4], &[0; 4], &[0; 4], &[0], &nested].concat();
    scene.closes_body(
        "13: a million empty arrays",
        m::FetchRequest::KEY,
        4,
        &frame,
    );
    scene.is_healthy();
}

#[test]
fn row_14_metadata_for_very_many_topics() {
    let scene = Scene::new();
    let named = |count: usize| {
        let topic = |i| MetadataRequestTopic {
            name: Some(Text::from(format!("auto-{i}"))),
            ..Default::default()
        };
        m::MetadataRequest {
            topics: Some((0..count).map(topic).collect()),
            ..Default::default()
        }
    };
    let body = named(300_000).to_bytes(9).expect("fits");
    scene.closes_body(
        "14: more than a request may name",
        m::MetadataRequest::KEY,
        9,
        &body,
    );
    let answer: m::MetadataResponse = scene.connect().ask(&named(20_000), 13);
    assert_eq!(
        ErrorCode::from_number(answer.error_code),
        ErrorCode::InvalidRequest
    );
    let answer: m::MetadataResponse = scene.connect().ask(&named(50), 9);
    let created = answer.topics.iter().filter(|t| t.error_code == 0).count();
    assert_eq!(created, 10, "auto-creation is capped");
    scene.is_healthy();
}

#[test]
fn rows_15_to_17_and_19_malformed_batches_are_refused() {
    let scene = Scene::new();
    let mut flipped = batch(2).to_vec();
    *flipped.last_mut().expect("bytes") ^= 1;
    assert_eq!(
        scene.produce(flipped).0,
        ErrorCode::CorruptMessage,
        "15: the checksum is wrong"
    );
    let long = forged(|b| b[8..12].copy_from_slice(&9999i32.to_be_bytes()));
    assert_eq!(
        scene.produce(long).0,
        ErrorCode::CorruptMessage,
        "16: longer than it is"
    );
    let short = forged(|b| b[8..12].copy_from_slice(&60i32.to_be_bytes()));
    assert_eq!(
        scene.produce(short).0,
        ErrorCode::CorruptMessage,
        "16: shorter than it is"
    );
    let count = forged(|b| b[57..61].copy_from_slice(&5i32.to_be_bytes()));
    assert_eq!(
        scene.produce(count).0,
        ErrorCode::InvalidRecord,
        "16: a wrong record count"
    );
    let delta = forged(|b| b[23..27].copy_from_slice(&7i32.to_be_bytes()));
    assert_eq!(
        scene.produce(delta).0,
        ErrorCode::InvalidRecord,
        "16: a wrong last offset"
    );
    let two = [batch(1), batch(1)].concat();
    assert_eq!(
        scene.produce(two).0,
        ErrorCode::InvalidRecord,
        "16: two batches"
    );
    assert_eq!(
        scene.produce(Bytes::new()).0,
        ErrorCode::CorruptMessage,
        "16: no batch"
    );
    for magic in [0, 1, 3] {
        let old = forged(|b| b[16] = magic);
        assert_eq!(
            scene.produce(old).0,
            ErrorCode::UnsupportedForMessageFormat,
            "17: format {magic}"
        );
    }
    // The first record's key length stands three bytes behind its own length.
    for (at, value, what) in [
        (65, 0x03, "a negative key length"),
        (61, 0x01, "a negative record length"),
    ] {
        let record = forged(|b| b[at] = value);
        assert_eq!(
            scene.produce(record).0,
            ErrorCode::InvalidRecord,
            "19: {what}"
        );
    }
    let headers = forged(|b| *b.last_mut().expect("bytes") = 0x7e);
    assert_eq!(
        scene.produce(headers).0,
        ErrorCode::InvalidRecord,
        "19: more headers than bytes"
    );
    for timestamp in [i64::MIN, i64::MAX, now() + 7_200_000] {
        let stamped = forged(|b| b[35..43].copy_from_slice(&timestamp.to_be_bytes()));
        assert_eq!(
            scene.produce(stamped).0,
            ErrorCode::InvalidTimestamp,
            "19: {timestamp}"
        );
    }
    let large = {
        let mut builder = BatchBuilder::new(Compression::None);
        builder.push(now(), None, Some(&vec![0; 1_100_000]), &[]);
        builder.build().bytes().clone()
    };
    assert_eq!(
        scene.produce(large).0,
        ErrorCode::MessageTooLarge,
        "max.message.bytes"
    );
    assert_eq!(
        scene.produce(batch(1)),
        (ErrorCode::None, 0),
        "and nothing of all that was appended"
    );
}

#[test]
fn row_18_a_decompression_bomb_ends_at_the_limit() {
    let scene = Scene::new();
    let bomb = {
        use std::io::Write;
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        let zeros = vec![0; 1 << 20];
        (0..900).for_each(|_| gzip.write_all(&zeros).expect("memory"));
        gzip.finish().expect("memory")
    };
    let mut bytes = batch(1)[..61].to_vec();
    bytes.extend_from_slice(&bomb);
    bytes[21..23].copy_from_slice(&Compression::Gzip.number().to_be_bytes());
    let length = (bytes.len() - 12) as i32;
    bytes[8..12].copy_from_slice(&length.to_be_bytes());
    let sum = checksum(&bytes[CHECKSUM_FROM..]);
    bytes[17..21].copy_from_slice(&sum.to_be_bytes());
    assert_eq!(
        scene.produce(bytes).0,
        ErrorCode::None,
        "what is compressed is not looked into"
    );
    let partition = ListOffsetsPartition {
        partition_index: 0,
        timestamp: 1,
        ..Default::default()
    };
    let topic = ListOffsetsTopic {
        name: "t".into(),
        partitions: vec![partition],
    };
    let request = m::ListOffsetsRequest {
        replica_id: -1,
        topics: vec![topic],
        ..Default::default()
    };
    let answer: m::ListOffsetsResponse = scene.connect().ask(&request, 7);
    let error = ErrorCode::from_number(answer.topics[0].partitions[0].error_code);
    assert_eq!(
        error,
        ErrorCode::CorruptMessage,
        "looking for a timestamp must look into it, as far as the limit"
    );
    scene.is_healthy();
}

#[test]
fn row_21_sequences() {
    let scene = Scene::new();
    let from = |epoch, sequence, count: i32| {
        let mut builder = builder(0).producer(77, epoch, sequence);
        (0..count).for_each(|_| builder.push(now(), None, Some(b"v"), &[]));
        builder.build().bytes().clone()
    };
    assert_eq!(scene.produce(from(1, 0, 2)), (ErrorCode::None, 0));
    let again = from(1, 2, 3);
    assert_eq!(scene.produce(again.clone()), (ErrorCode::None, 2));
    assert_eq!(
        scene.produce(again),
        (ErrorCode::None, 2),
        "a retry is answered with its first place"
    );
    assert_eq!(
        scene.produce(from(1, 9, 1)).0,
        ErrorCode::OutOfOrderSequenceNumber,
        "a gap"
    );
    assert_eq!(
        scene.produce(from(0, 5, 1)).0,
        ErrorCode::InvalidProducerEpoch,
        "an old epoch"
    );
    assert_eq!(
        scene.produce(from(2, 5, 1)).0,
        ErrorCode::OutOfOrderSequenceNumber,
        "a new epoch begins at 0"
    );
    let wrap = |sequence, count: i32| {
        let mut builder = builder(0).producer(78, 0, sequence);
        (0..count).for_each(|_| builder.push(now(), None, None, &[]));
        builder.build().bytes().clone()
    };
    assert_eq!(scene.produce(wrap(i32::MAX - 1, 3)).0, ErrorCode::None);
    assert_eq!(
        scene.produce(wrap(1, 1)).0,
        ErrorCode::None,
        "numbers go on from 0"
    );
}

fn fetch(partitions: Vec<FetchPartition>, session: (i32, i32)) -> m::FetchRequest {
    let topic = FetchTopic {
        topic: "t".into(),
        partitions,
        ..Default::default()
    };
    let (session_id, session_epoch) = session;
    m::FetchRequest {
        max_bytes: i32::MAX,
        session_id,
        session_epoch,
        topics: vec![topic],
        ..Default::default()
    }
}

fn from(fetch_offset: i64) -> FetchPartition {
    FetchPartition {
        fetch_offset,
        partition_max_bytes: i32::MAX,
        ..Default::default()
    }
}

#[test]
fn rows_23_to_25_fetches() {
    let scene = Scene::new();
    for _ in 0..20 {
        let mut builder = builder(0);
        builder.push(now(), None, Some(&vec![7; 900_000]), &[]);
        assert_eq!(
            scene.produce(builder.build().bytes().clone()).0,
            ErrorCode::None
        );
    }
    std::thread::scope(|scope| {
        let greedy = |_| {
            scope.spawn(|| {
                let answer: m::FetchResponse =
                    scene.connect().ask(&fetch(vec![from(0)], (0, -1)), 11);
                let records = answer.responses[0].partitions[0]
                    .records
                    .clone()
                    .unwrap_or_default();
                assert!(
                    records.len() > 900_000 && records.len() < 60 << 20,
                    "23: {}",
                    records.len()
                );
            })
        };
        let all: Vec<_> = (0..30).map(greedy).collect();
        all.into_iter()
            .for_each(|t| t.join().expect("23: everybody is answered"));
    });
    let mut connection = scene.connect();
    let mut error = |partition: FetchPartition| {
        let answer: m::FetchResponse = connection.ask(&fetch(vec![partition], (0, -1)), 11);
        ErrorCode::from_number(answer.responses[0].partitions[0].error_code)
    };
    for offset in [-1, 21, i64::MAX, i64::MIN] {
        assert_eq!(
            error(from(offset)),
            ErrorCode::OffsetOutOfRange,
            "24: {offset}"
        );
    }
    let epoch = |current_leader_epoch| FetchPartition {
        current_leader_epoch,
        ..from(0)
    };
    assert_eq!(
        error(epoch(7)),
        ErrorCode::UnknownLeaderEpoch,
        "24: an epoch that is not there yet"
    );
    assert_eq!(error(from(20)), ErrorCode::None, "the end is in range");
    let twice: m::FetchResponse = connection.ask(&fetch(vec![from(0), from(0)], (0, -1)), 11);
    assert_eq!(
        twice.responses[0].partitions.len(),
        2,
        "24: a partition named twice"
    );
    let unknown: m::FetchResponse = connection.ask(&fetch(vec![], (4711, 3)), 11);
    assert_eq!(
        ErrorCode::from_number(unknown.error_code),
        ErrorCode::FetchSessionIdNotFound,
        "24"
    );
    for _ in 0..2000 {
        let fresh: m::FetchResponse = connection.ask(&fetch(vec![from(20)], (0, 0)), 11);
        assert!(
            fresh.session_id > 0,
            "24: a flood of sessions replaces one by the next"
        );
    }
    let mut follower = fetch(vec![from(0)], (0, -1));
    follower.replica_id = 2;
    let refused: m::FetchResponse = connection.ask(&follower, 11);
    assert_eq!(
        ErrorCode::from_number(refused.error_code),
        ErrorCode::ClusterAuthorizationFailed,
        "25"
    );
    scene.is_healthy();
}

#[test]
fn rows_26_to_28_names_and_settings() {
    let scene = Scene::new();
    let long = "x".repeat(250);
    for name in [
        "../../etc/passwd",
        ".",
        "..",
        "",
        &long,
        "a/b",
        "a\0b",
        "\u{430}bc",
        "a b",
    ] {
        assert_eq!(
            scene.create(name, 1, |_| {}),
            ErrorCode::InvalidTopicException,
            "26: {name:?}"
        );
    }
    for name in ["__consumer_offsets", "__cluster_metadata"] {
        assert_eq!(
            scene.create(name, 1, |_| {}),
            ErrorCode::TopicAuthorizationFailed,
            "26: {name:?}"
        );
    }
    assert_eq!(scene.create("a.b", 1, |_| {}), ErrorCode::None);
    assert_eq!(
        scene.create("a_b", 1, |_| {}),
        ErrorCode::InvalidTopicException,
        "26: metrics cannot tell them apart"
    );
    assert_eq!(
        scene.create("A.b", 1, |_| {}),
        ErrorCode::None,
        "26: case tells topics apart"
    );
    for group in [
        "a\nb",
        "\u{1b}[31mred",
        "${jndi:ldap://x}",
        &"g".repeat(32_000),
    ] {
        let request = m::FindCoordinatorRequest {
            key: Text::from(group),
            ..Default::default()
        };
        let answer: m::FindCoordinatorResponse = scene.connect().ask(&request, 2);
        assert_eq!(answer.error_code, 0, "27: {group:?}");
    }
    for (partitions, error) in [
        (1_000_000, ErrorCode::PolicyViolation),
        (0, ErrorCode::InvalidPartitions),
        (-7, ErrorCode::InvalidPartitions),
    ] {
        assert_eq!(
            scene.create("many", partitions, |_| {}),
            error,
            "28: {partitions} partitions"
        );
    }
    for factor in [0, -5, 3, 32_767] {
        let error = scene.create("copies", 1, |t| t.replication_factor = factor);
        assert_eq!(
            error,
            ErrorCode::InvalidReplicationFactor,
            "28: {factor} replicas"
        );
    }
    let twice = CreatableReplicaAssignment {
        partition_index: 0,
        broker_ids: vec![1, 1],
    };
    let error = scene.create("assigned", -1, |t| {
        (t.replication_factor, t.assignments) = (-1, vec![twice])
    });
    assert_eq!(
        error,
        ErrorCode::InvalidReplicaAssignment,
        "28: a broker twice"
    );
    for (name, value) in [
        ("nonsense", "1"),
        ("retention.ms", "-2"),
        ("segment.bytes", "1"),
        ("cleanup.policy", "compact"),
    ] {
        let config = CreatableTopicConfig {
            name: name.into(),
            value: Some(value.into()),
        };
        let error = scene.create("configured", 1, |t| t.configs = vec![config]);
        assert_eq!(error, ErrorCode::InvalidConfig, "28: {name}={value}");
    }
    let request = m::CreateTopicsRequest {
        topics: vec![CreatableTopic {
            name: "only-checked".into(),
            num_partitions: 1,
            replication_factor: 1,
            ..Default::default()
        }],
        validate_only: true,
        ..Default::default()
    };
    let answer: m::CreateTopicsResponse = scene.connect().ask(&request, 7);
    assert_eq!(answer.topics[0].error_code, 0);
    assert_eq!(
        scene.create("only-checked", 1, |_| {}),
        ErrorCode::None,
        "validate_only creates nothing"
    );
    assert_eq!(
        scene.produce_to("__consumer_offsets", batch(1)).0,
        ErrorCode::TopicAuthorizationFailed
    );
}

#[test]
fn row_31_commits() {
    let scene = Scene::new();
    let find = m::FindCoordinatorRequest {
        key: "g".into(),
        ..Default::default()
    };
    let _found: m::FindCoordinatorResponse = scene.connect().ask(&find, 2);
    let commit = |member: &str, generation, partition: OffsetCommitRequestPartition| {
        let topic = OffsetCommitRequestTopic {
            name: "t".into(),
            partitions: vec![partition],
            ..Default::default()
        };
        let request = m::OffsetCommitRequest {
            group_id: "g".into(),
            generation_id_or_member_epoch: generation,
            member_id: member.into(),
            topics: vec![topic],
            ..Default::default()
        };
        let answer: m::OffsetCommitResponse = scene.connect().ask(&request, 8);
        ErrorCode::from_number(answer.topics[0].partitions[0].error_code)
    };
    let at = |committed_offset| OffsetCommitRequestPartition {
        committed_offset,
        ..Default::default()
    };
    let note = OffsetCommitRequestPartition {
        committed_metadata: Some("x".repeat(1 << 20).into()),
        ..at(1)
    };
    assert_eq!(commit("", -1, note), ErrorCode::OffsetMetadataTooLarge);
    assert_eq!(commit("", -1, at(-5)), ErrorCode::OffsetOutOfRange);
    assert_eq!(
        commit("stranger", 3, at(1)),
        ErrorCode::IllegalGeneration,
        "a group that is not there has no generation"
    );
    assert_eq!(commit("", -1, at(1)), ErrorCode::None);
    assert_eq!(commit("stranger", 3, at(1)), ErrorCode::UnknownMemberId);
    let elsewhere = OffsetCommitRequestPartition {
        partition_index: 9,
        ..at(1)
    };
    assert_eq!(
        commit("", -1, elsewhere),
        ErrorCode::UnknownTopicOrPartition
    );
    let partitions = vec![at(1); 1_000_000];
    let topic = OffsetCommitRequestTopic {
        name: "t".into(),
        partitions,
        ..Default::default()
    };
    let request = m::OffsetCommitRequest {
        group_id: "g".into(),
        topics: vec![topic],
        ..Default::default()
    };
    let body = request.to_bytes(2).expect("fits");
    scene.closes_body(
        "31: a million partitions",
        m::OffsetCommitRequest::KEY,
        2,
        &body,
    );
    scene.is_healthy();
}

#[test]
fn rows_39_to_42_connections() {
    let scene = Scene::new();
    scene.makes_room();
    let idle: Vec<Raw> = (0..40).map(|_| scene.connect()).collect();
    let mut more = scene.connect();
    assert!(more.is_closed(), "39: beyond the limit of one address");
    let mut idle = idle.into_iter();
    let mut silent = idle.next().expect("there are some");
    drop(idle);
    scene.makes_room();
    scene.is_healthy();
    assert!(
        silent.is_closed(),
        "42: a connection without requests is closed in time"
    );

    let mut deaf = scene.connect();
    let request = m::MetadataRequest::default().to_bytes(9).expect("fits");
    // Nobody reads the answers: in the end the node reads no more requests and closes.
    let flood =
        (0..2_000_000).find_map(|_| deaf.send_body(m::MetadataRequest::KEY, 9, &request).err());
    assert!(flood.is_some(), "40: a client that reads nothing is closed");

    let mut eager = scene.connect();
    let request = m::ApiVersionsRequest::default().to_bytes(0).expect("fits");
    for _ in 0..2000 {
        eager
            .send_body(m::ApiVersionsRequest::KEY, 0, &request)
            .expect("sent");
    }
    for _ in 0..2000 {
        let answer: m::ApiVersionsResponse = eager.answer(m::ApiVersionsRequest::KEY, 0);
        assert_eq!(
            answer.error_code, 0,
            "41: pipelined requests are answered in order"
        );
    }
    scene.is_healthy();
}
