//! The real binary with librdkafka: what any client of it relies on.

#![expect(
    clippy::disallowed_methods,
    reason = "the clients' tasks belong to nobody's supervision"
)]

use std::collections::BTreeMap;
use std::time::Duration;

use callboard_cluster_tests::process::NodeProcess;
use futures::StreamExt;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, StreamConsumer};
use rdkafka::message::{BorrowedMessage, Header, Headers, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::{Message, Offset, TopicPartitionList};

const PATIENCE: Duration = Duration::from_secs(60);

fn config(node: &NodeProcess) -> ClientConfig {
    let mut config = ClientConfig::new();
    let _same = config.set("bootstrap.servers", node.kafka.to_string());
    config
}

fn producer(node: &NodeProcess, settings: &[(&str, &str)]) -> FutureProducer {
    let mut config = config(node);
    let _same = config
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("linger.ms", "2");
    for (name, value) in settings {
        let _same = config.set(*name, *value);
    }
    config.create().expect("a producer")
}

fn consumer(node: &NodeProcess, group: &str) -> StreamConsumer {
    let mut config = config(node);
    let _same = config
        .set("group.id", group)
        .set("auto.offset.reset", "earliest")
        .set("enable.auto.commit", "false")
        .set("session.timeout.ms", "6000")
        .set("heartbeat.interval.ms", "500");
    config.create().expect("a consumer")
}

async fn create(node: &NodeProcess, topic: &str, partitions: i32) {
    let admin: AdminClient<DefaultClientContext> = config(node).create().expect("an admin");
    let topic = NewTopic::new(topic, partitions, TopicReplication::Fixed(1));
    let created = admin
        .create_topics([&topic], &AdminOptions::new())
        .await
        .expect("answered");
    assert!(created.iter().all(Result::is_ok), "{created:?}");
}

async fn send(producer: &FutureProducer, topic: &str, key: &str, value: &str) -> (i32, i64) {
    let record = FutureRecord::to(topic).key(key).payload(value);
    let delivery = producer.send(record, PATIENCE).await.expect("delivered");
    (delivery.partition, delivery.offset)
}

async fn next(consumer: &StreamConsumer) -> BorrowedMessage<'_> {
    tokio::time::timeout(PATIENCE, consumer.recv())
        .await
        .expect("in time")
        .expect("a record")
}

fn text(bytes: Option<&[u8]>) -> String {
    String::from_utf8_lossy(bytes.unwrap_or_default()).into_owned()
}

#[tokio::test]
async fn every_codec_goes_through_with_headers_and_timestamps() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut node = NodeProcess::start(dir.path());
    for codec in ["none", "gzip", "snappy", "lz4", "zstd"] {
        let topic = format!("codec-{codec}");
        create(&node, &topic, 1).await;
        let producer = producer(&node, &[("compression.type", codec), ("linger.ms", "50")]);
        let sends = (0..200i64).map(|i| {
            let (producer, topic) = (producer.clone(), topic.clone());
            async move {
                let headers = OwnedHeaders::new()
                    .insert(Header {
                        key: "n",
                        value: Some(&i.to_string()),
                    })
                    .insert(Header {
                        key: "n",
                        value: Some("again"),
                    })
                    .insert(Header {
                        key: "null",
                        value: None::<&str>,
                    });
                let value = format!("value {i} {}", "x".repeat(300));
                let key = i.to_string();
                let record = FutureRecord::to(&topic)
                    .key(&key)
                    .payload(&value)
                    .timestamp(1_700_000_000_000 + i)
                    .headers(headers);
                producer
                    .send(record, PATIENCE)
                    .await
                    .expect("delivered")
                    .offset
            }
        });
        let offsets = futures::future::join_all(sends).await;
        assert_eq!(offsets, (0..200).collect::<Vec<_>>(), "{codec}");
        let consumer = consumer(&node, &format!("group-{codec}"));
        consumer.subscribe(&[&topic]).expect("subscribed");
        for i in 0..200i64 {
            let record = next(&consumer).await;
            assert_eq!(
                (record.offset(), text(record.key())),
                (i, i.to_string()),
                "{codec}"
            );
            assert_eq!(record.timestamp().to_millis(), Some(1_700_000_000_000 + i));
            let headers = record.headers().expect("there are some");
            let pairs: Vec<_> = headers
                .iter()
                .map(|h| (h.key.to_owned(), h.value.map(|v| text(Some(v)))))
                .collect();
            let expected = [
                ("n", Some(i.to_string())),
                ("n", Some("again".into())),
                ("null", None),
            ];
            assert_eq!(pairs, expected.map(|(k, v)| (k.to_owned(), v)));
        }
    }
    assert_eq!(node.terminate(), Some(0));
}

#[tokio::test]
#[expect(clippy::too_many_lines, reason = "one story")]
async fn a_group_of_three_shares_rebalances_commits_and_resumes() {
    let dir = tempfile::tempdir().expect("a directory");
    let node = NodeProcess::start(dir.path());
    create(&node, "shared", 6).await;
    let producer = producer(&node, &[]);
    let (read, mut records) = tokio::sync::mpsc::unbounded_channel();
    // Each member reads, commits, and says what it read; a member is told to leave.
    let start_member = |name: usize| {
        let consumer = consumer(&node, "three");
        consumer.subscribe(&["shared"]).expect("subscribed");
        let (leave, mut left) = tokio::sync::oneshot::channel::<()>();
        let read = read.clone();
        let task = tokio::spawn(async move {
            loop {
                tokio::select! {
                    record = consumer.recv() => {
                        let record = record.expect("a record");
                        read.send((name, record.partition(), record.offset(), text(record.payload()))).expect("heard");
                        consumer.commit_message(&record, CommitMode::Async).expect("committed");
                    }
                    _ = &mut left => {
                        // What was read is committed before somebody else goes on.
                        let _nothing_new = consumer.commit_consumer_state(CommitMode::Sync);
                        return;
                    }
                }
            }
        });
        (leave, task)
    };
    let members: Vec<_> = (0..3).map(start_member).collect();
    let mut owners: BTreeMap<i32, usize> = BTreeMap::new();
    let mut sent = 0;
    // Until all three have work.
    while owners
        .values()
        .collect::<std::collections::BTreeSet<_>>()
        .len()
        < 3
    {
        for i in 0..60 {
            let _place = send(
                &producer,
                "shared",
                &format!("key-{i}"),
                &format!("v{sent}"),
            )
            .await;
            sent += 1;
        }
        while let Ok(Some((member, partition, ..))) =
            tokio::time::timeout(Duration::from_millis(500), records.recv()).await
        {
            let _before = owners.insert(partition, member);
        }
        assert!(
            sent < 60 * 100,
            "three members share six partitions: {owners:?}"
        );
    }
    // Two leave; the third one takes over where they ended.
    let mut members = members.into_iter();
    let (last_leave, last) = members.next().expect("three");
    for (leave, task) in members {
        leave.send(()).expect("it listens");
        task.await.expect("it ended");
    }
    let mut expected = std::collections::BTreeSet::new();
    for i in 0..120 {
        let value = format!("after-{i}");
        let _place = send(&producer, "shared", &format!("key-{i}"), &value).await;
        let _new = expected.insert(value);
    }
    while !expected.is_empty() {
        let received = tokio::time::timeout(PATIENCE, records.recv())
            .await
            .expect("in time")
            .expect("a record");
        let (member, _, _, value) = received;
        if expected.remove(&value) {
            assert_eq!(member, 0, "the one that is left reads all");
        }
    }
    last_leave.send(()).expect("it listens");
    last.await.expect("it ended");
    // The group comes back and begins where it ended.
    let _place = send(&producer, "shared", "key", "resumed").await;
    let consumer = consumer(&node, "three");
    consumer.subscribe(&["shared"]).expect("subscribed");
    assert_eq!(text(next(&consumer).await.payload()), "resumed");
}

#[tokio::test]
async fn kill_9_under_load_loses_nothing_that_was_acknowledged_and_doubles_nothing() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut node = NodeProcess::start(dir.path());
    create(&node, "durable", 3).await;
    let producer = producer(
        &node,
        &[
            ("message.timeout.ms", "60000"),
            ("reconnect.backoff.max.ms", "500"),
        ],
    );
    let sending = {
        let producer = producer.clone();
        tokio::spawn(async move {
            let sends = futures::stream::iter(0..6000).map(|i: i32| {
                let producer = producer.clone();
                async move {
                    let (key, value) = (format!("k{}", i % 50), format!("value-{i}"));
                    let record = FutureRecord::to("durable").key(&key).payload(&value);
                    let delivery = producer
                        .send(record, PATIENCE)
                        .await
                        .expect("delivered in the end");
                    (delivery.partition, delivery.offset, value)
                }
            });
            sends.buffered(200).collect::<Vec<_>>().await
        })
    };
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_millis(700)).await;
        node.kill();
        node.restart();
    }
    let acknowledged = sending.await.expect("all were sent");
    let consumer = consumer(&node, "verify");
    let mut all = TopicPartitionList::new();
    for partition in 0..3 {
        all.add_partition_offset("durable", partition, Offset::Beginning)
            .expect("added");
    }
    consumer.assign(&all).expect("assigned");
    let mut found: BTreeMap<(i32, i64), String> = BTreeMap::new();
    while found.len() < acknowledged.len() {
        let record = next(&consumer).await;
        let _none = found.insert(
            (record.partition(), record.offset()),
            text(record.payload()),
        );
    }
    for (partition, offset, value) in &acknowledged {
        assert_eq!(
            found.get(&(*partition, *offset)),
            Some(value),
            "acknowledged at {partition}/{offset}"
        );
    }
    let distinct: std::collections::BTreeSet<_> = found.values().collect();
    assert_eq!(distinct.len(), acknowledged.len(), "each record once");
}

#[tokio::test]
async fn replay_and_seek_by_time() {
    let dir = tempfile::tempdir().expect("a directory");
    let node = NodeProcess::start(dir.path());
    create(&node, "timed", 1).await;
    let producer = producer(&node, &[]);
    for i in 0..50i64 {
        let value = i.to_string();
        let record = FutureRecord::<(), _>::to("timed")
            .payload(&value)
            .timestamp(1_600_000_000_000 + i * 1000);
        let _delivery = producer.send(record, PATIENCE).await.expect("delivered");
    }
    let consumer: BaseConsumer = {
        let mut config = config(&node);
        let _same = config.set("group.id", "seeker");
        config.create().expect("a consumer")
    };
    let mut wanted = TopicPartitionList::new();
    wanted
        .add_partition_offset("timed", 0, Offset::Offset(1_600_000_020_500))
        .expect("added");
    let found = consumer
        .offsets_for_times(wanted, PATIENCE)
        .expect("answered");
    assert_eq!(
        found.elements()[0].offset(),
        Offset::Offset(21),
        "the first record that is not older"
    );
    assert_eq!(
        consumer
            .fetch_watermarks("timed", 0, PATIENCE)
            .expect("answered"),
        (0, 50)
    );
    for start in [Offset::Offset(21), Offset::Beginning] {
        let mut at = TopicPartitionList::new();
        at.add_partition_offset("timed", 0, start).expect("added");
        consumer.assign(&at).expect("assigned");
        let first = loop {
            if let Some(record) = consumer.poll(PATIENCE) {
                break record.expect("a record");
            }
        };
        let expected = if start == Offset::Beginning { 0 } else { 21 };
        assert_eq!(first.offset(), expected);
    }
}
