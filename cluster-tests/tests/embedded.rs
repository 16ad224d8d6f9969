//! Nodes inside of the test's process: time that the test moves, disks that fail, actors that panic.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use callboard_broker::storage::disk::SimulatedDisk;
use callboard_broker::{Node, NodeBuilder};
use callboard_client::protocol::list_offsets::OffsetTarget;
use callboard_client::{
    Client, ClientConfig, Consumer, ConsumerConfig, ErrorCode, Offset, Producer, ProducerConfig,
    Record, StartAt, TopicName, TopicPartition, Trust,
};

const DAY: Duration = Duration::from_hours(24);

async fn connect(node: &Node) -> Client {
    let trust = Trust::Ca(node.ca_pem().to_owned());
    Client::connect(ClientConfig::new(node.quic(), trust))
        .await
        .expect("connects")
}

fn partition(topic: &str) -> TopicPartition {
    TopicPartition::new(TopicName::new(topic).expect("valid"), 0)
}

/// A producer that gives up soon, so that a refusal is seen and not retried for ever.
fn impatient(client: &Client) -> Producer {
    let config = ProducerConfig {
        delivery_timeout: Duration::from_secs(2),
        linger: Duration::ZERO,
        ..ProducerConfig::default()
    };
    Producer::new(client, config)
}

async fn values(client: &Client, topic: &str) -> Vec<String> {
    let end = client
        .admin()
        .offset(&partition(topic), OffsetTarget::Latest)
        .await
        .expect("answered")
        .expect("there");
    let start = client
        .admin()
        .offset(&partition(topic), OffsetTarget::Earliest)
        .await
        .expect("answered")
        .expect("there");
    let mut consumer = Consumer::assign(
        client,
        ConsumerConfig::default(),
        [(partition(topic), StartAt::Beginning)],
    );
    let mut values = Vec::new();
    for _ in start.get()..end.get() {
        let record = consumer.recv().await.expect("a record");
        values.push(String::from_utf8(record.value.unwrap_or_default().to_vec()).expect("text"));
    }
    values
}

#[tokio::test]
async fn seven_days_later_retention_has_run() {
    let start = 1_700_000_000_000;
    let node = Node::builder()
        .in_memory()
        .manual_clock(start)
        .start()
        .await
        .expect("starts");
    let client = connect(&node).await;
    client
        .admin()
        .create_topic("kept-a-week", 1)
        .await
        .expect("created");
    let producer = Producer::new(&client, ProducerConfig::default());
    for i in 0..10 {
        let record = Record::to("kept-a-week")
            .value(format!("{i}"))
            .timestamp(start);
        let _delivery = producer.send(record).await.expect("delivered");
    }
    let offset = async |target| {
        client
            .admin()
            .offset(&partition("kept-a-week"), target)
            .await
            .expect("answered")
    };
    node.advance(DAY * 6);
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(
        offset(OffsetTarget::Earliest).await,
        Some(Offset::new(0)),
        "six days are not seven"
    );
    node.advance(DAY * 2);
    let mut started = Offset::ZERO;
    for _ in 0..100 {
        started = offset(OffsetTarget::Earliest).await.expect("there");
        if started > Offset::ZERO {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(started, Offset::new(10), "all is too old");
    let after = Record::to("kept-a-week")
        .value("next")
        .timestamp(start + 8 * 86_400_000);
    assert_eq!(
        producer.send(after).await.expect("delivered").offset,
        Offset::new(10),
        "offsets go on"
    );
    assert_eq!(node.stop().await, []);
}

/// Promise 4: the rest of the node serves on, and the harmed actor is back from its log under a new epoch.
#[tokio::test]
async fn a_leader_that_panics_comes_back_and_nobody_else_notices() {
    let node = Node::builder().in_memory().start().await.expect("starts");
    let client = connect(&node).await;
    for topic in ["harmed", "neighbour"] {
        client
            .admin()
            .create_topic(topic, 1)
            .await
            .expect("created");
    }
    let producer = Producer::new(
        &client,
        ProducerConfig {
            linger: Duration::ZERO,
            ..ProducerConfig::default()
        },
    );
    for round in 0..3 {
        let _delivery = producer
            .send(Record::to("harmed").value(format!("before {round}")))
            .await
            .expect("delivered");
        assert!(node.crash_leader(&partition("harmed")));
        let _other = producer
            .send(Record::to("neighbour").value("as ever"))
            .await
            .expect("delivered");
        // The request that meets the crash is retried by the client.
        let _delivery = producer
            .send(Record::to("harmed").value(format!("after {round}")))
            .await
            .expect("delivered");
    }
    let expected: Vec<_> = (0..3)
        .flat_map(|r| [format!("before {r}"), format!("after {r}")])
        .collect();
    assert_eq!(
        values(&client, "harmed").await,
        expected,
        "each record once"
    );
    let described = client
        .admin()
        .describe_topics(&["harmed", "neighbour"])
        .await
        .expect("answered");
    let epochs: Vec<_> = described
        .iter()
        .map(|t| t.partitions[0].ends.map(|e| e.epoch.0))
        .collect();
    assert_eq!(
        epochs,
        [Some(3), Some(0)],
        "each life is a reign of its own"
    );
    assert_eq!(node.stop().await, []);
}

/// Beyond its restart limit a partition goes offline and is reported; the node goes on.
#[tokio::test]
async fn a_leader_that_keeps_panicking_goes_offline_alone() {
    let node = Node::builder().in_memory().start().await.expect("starts");
    let client = connect(&node).await;
    for topic in ["doomed", "neighbour"] {
        client
            .admin()
            .create_topic(topic, 1)
            .await
            .expect("created");
    }
    while node.crash_leader(&partition("doomed")) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let described = client
        .admin()
        .describe_topics(&["doomed"])
        .await
        .expect("answered");
    assert_eq!(described[0].partitions[0].ends, None);
    let refused = impatient(&client)
        .send(Record::to("doomed").value("x"))
        .await
        .expect_err("offline");
    assert!(refused.is_retriable(), "{refused:?}");
    let producer = Producer::new(&client, ProducerConfig::default());
    let _delivery = producer
        .send(Record::to("neighbour").value("as ever"))
        .await
        .expect("delivered");
}

fn on(disk: &SimulatedDisk) -> NodeBuilder {
    Node::builder().disk(Arc::new(disk.clone()), Path::new("/data"))
}

/// DESIGN section 5: what a failed sync covered is not acknowledged and not believed; the log goes on.
#[tokio::test]
async fn a_failed_sync_acknowledges_nothing_and_loses_nothing_acknowledged() {
    let disk = SimulatedDisk::new(11);
    let node = on(&disk).start().await.expect("starts");
    let client = connect(&node).await;
    client.admin().create_topic("t", 1).await.expect("created");
    let producer = Producer::new(
        &client,
        ProducerConfig {
            linger: Duration::ZERO,
            ..ProducerConfig::default()
        },
    );
    let mut expected = Vec::new();
    for i in 0..30 {
        if i % 10 == 5 {
            disk.fail_syncs(1);
        }
        let value = format!("{i}");
        // The producer tries again until it is acknowledged.
        let _delivery = producer
            .send(Record::to("t").value(value.clone()))
            .await
            .expect("delivered in the end");
        expected.push(value);
    }
    assert_eq!(values(&client, "t").await, expected);
    let described = client
        .admin()
        .describe_topics(&["t"])
        .await
        .expect("answered");
    assert_eq!(
        described[0].partitions[0].ends.map(|e| e.epoch.0),
        Some(3),
        "each failure began a new reign"
    );
    // The power goes: what was acknowledged is on the medium.
    drop(node);
    disk.crash();
    let node = on(&disk).start().await.expect("starts");
    let client = connect(&node).await;
    assert_eq!(values(&client, "t").await, expected);
    assert_eq!(node.stop().await, []);
}

/// DESIGN section 5: a full disk is an answer, not a crash; reads go on, and writes when there is space.
#[tokio::test]
async fn a_full_disk_refuses_serves_reads_and_recovers() {
    let disk = SimulatedDisk::new(12);
    let node = on(&disk).start().await.expect("starts");
    let client = connect(&node).await;
    client.admin().create_topic("t", 1).await.expect("created");
    let producer = impatient(&client);
    let _delivery = producer
        .send(Record::to("t").value("first"))
        .await
        .expect("delivered");
    disk.set_capacity(disk.used_bytes() + 50);
    let refused = producer
        .send(Record::to("t").value("x".repeat(1000)))
        .await
        .expect_err("full");
    assert!(
        matches!(refused, callboard_client::Error::Timeout),
        "tried until its time was up: {refused:?}"
    );
    assert_eq!(values(&client, "t").await, ["first"], "reads are served");
    disk.set_capacity(u64::MAX);
    let _delivery = producer
        .send(Record::to("t").value("second"))
        .await
        .expect("by itself, without a restart");
    assert_eq!(values(&client, "t").await, ["first", "second"]);
    let epoch = client
        .admin()
        .describe_topics(&["t"])
        .await
        .expect("answered")[0]
        .partitions[0]
        .ends
        .map(|e| e.epoch);
    assert_eq!(epoch.map(|e| e.0), Some(0), "it never stopped");
}

/// Damage below the recovery point: reads that reach it fail, the rest is served.
#[tokio::test]
async fn damage_is_served_around() {
    let disk = SimulatedDisk::new(13);
    let node = on(&disk).start().await.expect("starts");
    let client = connect(&node).await;
    client.admin().create_topic("t", 1).await.expect("created");
    let producer = Producer::new(
        &client,
        ProducerConfig {
            linger: Duration::ZERO,
            ..ProducerConfig::default()
        },
    );
    for i in 0..20 {
        let _delivery = producer
            .send(Record::to("t").value(format!("{i}")))
            .await
            .expect("delivered");
    }
    assert_eq!(node.stop().await, []);
    disk.rot(Path::new("/data/t-0/00000000000000000000.log"), 700, 0x40);
    let node = on(&disk).start().await.expect("starts all the same");
    let client = connect(&node).await;
    let read = async |from: i64| {
        let start = [(partition("t"), StartAt::Offset(Offset::new(from)))];
        let mut consumer = Consumer::assign(&client, ConsumerConfig::default(), start);
        tokio::time::timeout(Duration::from_millis(700), consumer.recv())
            .await
            .ok()?
            .ok()
            .map(|r| r.offset.get())
    };
    let mut damaged = Vec::new();
    for offset in 0..20 {
        match read(offset).await {
            Some(found) => assert_eq!(found, offset),
            None => damaged.push(offset),
        }
    }
    assert_eq!(damaged.len(), 1, "one batch of one record: {damaged:?}");
    let producer = Producer::new(&client, ProducerConfig::default());
    let next = producer
        .send(Record::to("t").value("next"))
        .await
        .expect("delivered");
    assert_eq!(next.offset, Offset::new(20));
}

#[tokio::test]
async fn groups_seek_by_time_and_replay_with_our_own_client() {
    let node = Node::builder().in_memory().start().await.expect("starts");
    let client = connect(&node).await;
    client.admin().create_topic("t", 3).await.expect("created");
    let producer = Producer::new(&client, ProducerConfig::default());
    for i in 0..300i64 {
        let record = Record::to("t")
            .key(format!("k{i}"))
            .value(format!("{i}"))
            .header("n", format!("{i}"));
        let _delivery = producer
            .send(record.timestamp(1_600_000_000_000 + i))
            .await
            .expect("delivered");
    }
    producer.close().await.expect("closed");
    let late = producer.send(Record::to("t").value("late")).await;
    assert!(matches!(late, Err(callboard_client::Error::Closed)));
    let mut consumer = Consumer::subscribe(&client, ConsumerConfig::group("g"), ["t"])
        .await
        .expect("subscribed");
    let mut seen = std::collections::BTreeSet::new();
    while seen.len() < 300 {
        let record = consumer.recv().await.expect("a record");
        assert_eq!(record.headers[0].value, record.value);
        let _new = seen.insert(record.value.expect("a value"));
    }
    consumer.commit().await.expect("committed");
    consumer.seek_all(StartAt::Timestamp(1_600_000_000_290));
    for _ in 0..10 {
        let record = consumer.recv().await.expect("a record");
        assert!(record.timestamp >= 1_600_000_000_290);
    }
    consumer.seek_all(StartAt::Beginning);
    let replayed = consumer.recv().await.expect("a record");
    assert_eq!(replayed.offset, Offset::ZERO);
    consumer.close().await.expect("closed");
    let group = client.admin().describe_group("g").await.expect("answered");
    assert_eq!(
        (&*group.state, group.members.len()),
        ("Empty", 0),
        "it has left"
    );
    let deleted = client
        .admin()
        .delete_records(&partition("t"), Some(Offset::new(5)))
        .await
        .expect("deleted");
    assert_eq!(deleted, Offset::new(5));
    let beyond = client
        .admin()
        .delete_records(&partition("t"), Some(Offset::new(5000)))
        .await
        .expect_err("beyond the end");
    assert_eq!(beyond.code(), Some(ErrorCode::OffsetOutOfRange));
}

/// Whoever waits for records beside other things drops the future of `recv` at any moment.
#[tokio::test]
async fn a_group_consumer_whose_waiting_is_given_up_again_and_again_still_gets_its_partitions() {
    let node = Node::builder().in_memory().start().await.expect("starts");
    let client = connect(&node).await;
    client.admin().create_topic("t", 1).await.expect("created");
    let producer = Producer::new(&client, ProducerConfig::default());
    let _delivery = producer
        .send(Record::to("t").value("1"))
        .await
        .expect("delivered");
    let mut consumer = Consumer::subscribe(&client, ConsumerConfig::group("g"), ["t"])
        .await
        .expect("subscribed");
    let mut rounds_after = 100;
    while rounds_after > 0 {
        tokio::select! {
            biased;
            _early = consumer.recv() => panic!("its start cannot be known yet"),
            () = tokio::task::yield_now() => {}
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
        let group = client.admin().describe_group("g").await;
        if group.is_ok_and(|g| &*g.state == "Stable") {
            rounds_after -= 1;
        }
    }
    let record = tokio::time::timeout(Duration::from_secs(20), consumer.recv())
        .await
        .expect("its partitions are read")
        .expect("a record");
    assert_eq!(record.offset, Offset::ZERO);
    consumer.close().await.expect("closed");
}

#[tokio::test]
async fn a_server_that_is_not_trusted_is_refused() {
    let node = Node::builder().in_memory().start().await.expect("starts");
    let other = Node::builder().in_memory().start().await.expect("starts");
    let wrong = ClientConfig::new(node.quic(), Trust::Ca(other.ca_pem().to_owned()));
    assert!(Client::connect(wrong).await.is_err(), "another CA");
    let wrong = ClientConfig::new(
        node.quic(),
        Trust::Fingerprint(other.fingerprint().expect("there is one")),
    );
    assert!(Client::connect(wrong).await.is_err(), "another certificate");
    let right = ClientConfig::new(
        node.quic(),
        Trust::Fingerprint(node.fingerprint().expect("there is one")),
    );
    let client = Client::connect(right).await.expect("connects");
    assert!(
        client
            .admin()
            .list_groups()
            .await
            .expect("answered")
            .is_empty()
    );
}
