//! Floods against the real process: rows 3, 22, 23, 29, 30, 39 and 41. What it takes at most is looked up afterwards.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use callboard_common::Clock;

use callboard_cluster_tests::process::NodeProcess;
use callboard_cluster_tests::wire::Raw;
use callboard_common::ErrorCode;
use callboard_common::kafka::messages::join_group_request::JoinGroupRequestProtocol;
use callboard_common::kafka::{Message, messages as m};
use callboard_common::record::{BatchBuilder, Compression};

/// The process may take so much.
const MEMORY_MAX_KIB: u64 = 512 << 10;

fn produce(connection: &mut Raw, topic: &str, records: bytes::Bytes) -> ErrorCode {
    let answer: m::ProduceResponse = connection.ask(&super::produce(topic, records), 9);
    ErrorCode::from_number(answer.responses[0].partition_responses[0].error_code)
}

/// The most that a process has had in memory.
fn peak_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find(|l| l.starts_with("VmHWM:"));
    let number = line.and_then(|l| l.split_whitespace().nth(1));
    number.and_then(|n| n.parse().ok()).expect("a number")
}

/// A healthy client's round trips until `stop`; their times, sorted.
fn healthy(node: &NodeProcess, stop: &AtomicBool) -> Vec<Duration> {
    let mut connection = Raw::connect(node.kafka);
    let (mut times, clock) = (Vec::new(), Clock::machine());
    while !stop.load(Ordering::Relaxed) {
        let began = clock.now().monotonic;
        let error = produce(&mut connection, "healthy", super::batch(1));
        assert_eq!(error, ErrorCode::None);
        times.push(clock.now().monotonic.since(began));
    }
    times.sort();
    times
}

/// So much slower a healthy client may be meanwhile, at its median: floods take turns with it, they do not stop it.
const SLOWER_MAX: u32 = 50;

/// Runs `flood` while a healthy client goes on; says how that one fared.
#[expect(clippy::print_stdout, reason = "the table in TESTING.md is made of it")]
fn during(node: &NodeProcess, name: &str, usual: Duration, flood: impl FnOnce()) -> Duration {
    let stop = AtomicBool::new(false);
    let times = std::thread::scope(|scope| {
        let client = scope.spawn(|| healthy(node, &stop));
        flood();
        // Some round trips belong to every flood.
        std::thread::sleep(Duration::from_millis(200));
        stop.store(true, Ordering::Relaxed);
        client.join().expect("the healthy client is served")
    });
    let p99 = times[times.len() * 99 / 100];
    println!(
        "{name}: {} round trips, p50 {:?}, p99 {p99:?}",
        times.len(),
        times[times.len() / 2]
    );
    let peak = peak_kib(node.pid());
    assert!(peak < MEMORY_MAX_KIB, "{name}: the process took {peak} KiB");
    let median = times[times.len() / 2];
    assert!(
        median < usual.saturating_mul(SLOWER_MAX),
        "{name}: {median:?} instead of {usual:?}"
    );
    median
}

#[test]
fn floods_neither_fill_the_memory_nor_stop_a_healthy_client() {
    let dir = tempfile::tempdir().expect("a directory");
    let node = NodeProcess::start(dir.path());
    for topic in ["healthy", "t"] {
        let topics = vec![m::create_topics_request::CreatableTopic {
            name: topic.into(),
            num_partitions: 1,
            replication_factor: 1,
            ..Default::default()
        }];
        let request = m::CreateTopicsRequest {
            topics,
            ..Default::default()
        };
        let created: m::CreateTopicsResponse = Raw::connect(node.kafka).ask(&request, 7);
        assert_eq!(created.topics[0].error_code, 0);
    }
    let calm = || std::thread::sleep(Duration::from_millis(500));
    let usual = during(&node, "nothing", Duration::MAX, calm);

    let _median = during(
        &node,
        "row 3, a hundred announcements of 100 MiB with 1 MiB of it",
        usual,
        || {
            let part = vec![0; 1 << 20];
            let mut slow: Vec<Raw> = (0..100).map(|_| Raw::connect(node.kafka)).collect();
            for connection in &mut slow {
                connection
                    .send(&(100i32 << 20).to_be_bytes())
                    .expect("sent");
                // As far as the node reads.
                connection.send_some(&part, Duration::from_millis(30));
            }
        },
    );

    let _median = during(&node, "row 22, 40,000 made-up producer ids", usual, || {
        let mut connection = Raw::connect(node.kafka);
        for id in 0..400 {
            let batches: Vec<_> = (0..100)
                .map(|n| {
                    let mut builder =
                        BatchBuilder::new(Compression::None).producer(id * 100 + n, 0, 0);
                    builder.push(super::now(), None, Some(b"x"), &[]);
                    builder.build().bytes().clone()
                })
                .collect();
            for records in batches {
                let body = super::produce("t", records).to_bytes(9).expect("fits");
                connection
                    .send_body(m::ProduceRequest::KEY, 9, &body)
                    .expect("sent");
            }
            for _ in 0..100 {
                let answer: m::ProduceResponse = connection.answer(m::ProduceRequest::KEY, 9);
                assert_eq!(answer.responses[0].partition_responses[0].error_code, 0);
            }
        }
    });

    // Something to read: 64 MiB.
    let mut connection = Raw::connect(node.kafka);
    for _ in 0..64 {
        let mut builder = BatchBuilder::new(Compression::None);
        builder.push(super::now(), None, Some(&vec![7; 1_000_000]), &[]);
        assert_eq!(
            produce(&mut connection, "t", builder.build().bytes().clone()),
            ErrorCode::None
        );
    }
    let _median = during(
        &node,
        "row 23, 300 fetches of everything that nobody reads",
        usual,
        || {
            let mut greedy: Vec<Raw> = (0..300).map(|_| Raw::connect(node.kafka)).collect();
            for connection in &mut greedy {
                let mut fetch = super::fetch(vec![super::from(0)], (0, -1));
                fetch.max_bytes = i32::MAX;
                fetch.topics[0].partitions[0].partition_max_bytes = i32::MAX;
                let body = fetch.to_bytes(11).expect("fits");
                connection
                    .send_body(m::FetchRequest::KEY, 11, &body)
                    .expect("sent");
            }
            std::thread::sleep(Duration::from_secs(1));
        },
    );

    let _median = during(&node, "row 30, a rebalance storm", usual, || {
        let mut storm: Vec<Raw> = (0..20).map(|_| Raw::connect(node.kafka)).collect();
        for round in 0..20 {
            for connection in &mut storm {
                let join = m::JoinGroupRequest {
                    group_id: "storm".into(),
                    session_timeout_ms: 6000,
                    rebalance_timeout_ms: 6000,
                    protocol_type: "consumer".into(),
                    protocols: vec![JoinGroupRequestProtocol {
                        name: "range".into(),
                        metadata: vec![round; 1000].into(),
                    }],
                    ..Default::default()
                };
                let body = join.to_bytes(3).expect("fits");
                connection
                    .send_body(m::JoinGroupRequest::KEY, 3, &body)
                    .expect("sent");
            }
        }
    });

    let _median = during(
        &node,
        "row 39, 2,000 connections that say nothing",
        usual,
        || {
            let idle: Vec<Raw> = (0..2000).map(|_| Raw::connect(node.kafka)).collect();
            assert_eq!(idle.len(), 2000);
        },
    );

    let _median = during(
        &node,
        "row 41, 100,000 requests in a pipeline",
        usual,
        || {
            let body = m::ApiVersionsRequest::default().to_bytes(0).expect("fits");
            let mut connection = Raw::connect(node.kafka);
            let mut reader = connection.split();
            std::thread::scope(|scope| {
                let _writer = scope.spawn(|| {
                    for _ in 0..100_000 {
                        connection
                            .send_body(m::ApiVersionsRequest::KEY, 0, &body)
                            .expect("sent");
                    }
                });
                for _ in 0..100_000 {
                    let _answer = reader.read().expect("answered");
                }
            });
        },
    );
}

/// Row 29: subscriptions that are too large, sessions that are too short or long.
#[test]
fn row_29_hostile_members() {
    let scene = super::Scene::new();
    let find = m::FindCoordinatorRequest {
        key: "g".into(),
        ..Default::default()
    };
    let _found: m::FindCoordinatorResponse = scene.connect().ask(&find, 2);
    let join = |metadata: usize, session_timeout_ms: i32| {
        let request = m::JoinGroupRequest {
            group_id: "g".into(),
            session_timeout_ms,
            rebalance_timeout_ms: 1000,
            protocol_type: "consumer".into(),
            protocols: vec![JoinGroupRequestProtocol {
                name: "range".into(),
                metadata: vec![0; metadata].into(),
            }],
            ..Default::default()
        };
        let answer: m::JoinGroupResponse = scene.connect().ask(&request, 3);
        ErrorCode::from_number(answer.error_code)
    };
    assert_eq!(join(10, 0), ErrorCode::InvalidSessionTimeout);
    assert_eq!(join(10, i32::MAX), ErrorCode::InvalidSessionTimeout);
    assert_eq!(join(10, -5), ErrorCode::InvalidSessionTimeout);
    assert_eq!(join(8 << 20, 6000), ErrorCode::GroupMaxSizeReached);
    scene.is_healthy();
}

/// Row 55: a record from the future would be kept for ever by retention.
#[test]
fn row_55_records_from_the_future_are_refused() {
    let scene = super::Scene::new();
    let mut builder = BatchBuilder::new(Compression::None);
    builder.push(super::now() + 7200 * 1000, None, Some(b"x"), &[]);
    let (error, _) = scene.produce(builder.build().bytes().clone());
    assert_eq!(error, ErrorCode::InvalidTimestamp);
    scene.is_healthy();
}

/// A fetch of nothing is answered at once, and does not keep a worker busy until its time is up.
#[test]
fn a_fetch_of_nothing_does_not_wait() {
    let scene = super::Scene::new();
    let request = m::FetchRequest {
        max_wait_ms: 20_000,
        min_bytes: 1,
        ..Default::default()
    };
    let clock = Clock::machine();
    let began = clock.now().monotonic;
    let answer: m::FetchResponse = scene.connect().ask(&request, 11);
    assert!(answer.responses.is_empty());
    assert!(clock.now().monotonic.since(began) < Duration::from_secs(10));
}
