//! librdkafka as a client: the library that most other clients are made of.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext, Rebalance};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::{ClientContext, Message, Offset, TopicPartitionList};
use tokio::sync::mpsc;

use super::value;
use super::{Shared, TOPIC, key};
use crate::history::Outcome;
use crate::history::line::{Kind, Line};

const PACE: Duration = Duration::from_millis(4);
const COMMIT_PAUSE_NANOS: u64 = 500_000_000;

fn config(shared: &Shared) -> ClientConfig {
    let mut config = ClientConfig::new();
    let _same = config
        .set("bootstrap.servers", &shared.kafka)
        .set("reconnect.backoff.max.ms", "500")
        .set("log_level", "0");
    config
}

/// Sends until it is told to stop, then waits for what is on its way.
///
/// # Panics
///
/// Panics if librdkafka takes no such settings.
pub(super) async fn produce(shared: Arc<Shared>, process: u32) {
    let mut config = config(&shared);
    let is_idempotent = shared.workload.is_idempotent();
    let producer: FutureProducer = config
        .set("acks", "all")
        .set(
            "enable.idempotence",
            if is_idempotent { "true" } else { "false" },
        )
        // With more of them a gap, as behind a batch that was refused for the time being, makes it begin a new epoch and
        // send what may be in the log once more (rd_kafka_idemp_drain_epoch_bump): against any broker.
        .set("max.in.flight", "1")
        .set("linger.ms", "2")
        .set("message.timeout.ms", "30000")
        .create()
        .expect("a producer");
    let (told, mut telling) = mpsc::unbounded_channel();
    let from = shared.clone();
    let sending = async move {
        for number in 0.. {
            if from.is_over() {
                break;
            }
            let id = u64::from(process) << 40 | number;
            let partition = (number % u64::from(super::PARTITIONS)) as i32;
            let bytes = value::encode(id);
            let record = FutureRecord::<(), _>::to(TOPIC)
                .partition(partition)
                .payload(&bytes);
            let invoke = from.recorder.now();
            if let Ok(delivery) = producer.send_result(record) {
                let _sent = told.send((id, invoke, partition, delivery));
            }
            tokio::time::sleep(PACE).await;
        }
        // Its thread delivers what is left while it lives.
        producer
    };
    let noting = async move {
        while let Some((id, invoke, partition, delivery)) = telling.recv().await {
            let delivered = delivery.await.ok().and_then(Result::ok);
            let (name, complete) = (key(partition), shared.recorder.now());
            shared.recorder.record(&Line {
                f: Kind::Send,
                process,
                invoke,
                complete,
                outcome: match delivered {
                    Some(_) => Outcome::Ok,
                    None => Outcome::Info,
                },
                key: Some(&name),
                value: Some(id),
                offset: delivered.map(|d| d.offset),
                ..Line::default()
            });
        }
    };
    let (_producer, ()) = tokio::join!(sending, noting);
}

/// Notes what a member owns.
struct Owns {
    shared: Arc<Shared>,
    process: u32,
    group: String,
}

impl ClientContext for Owns {}

impl Owns {
    fn note(&self, f: Kind, partitions: &TopicPartitionList) {
        let now = self.shared.recorder.now();
        for element in partitions.elements() {
            let name = key(element.partition());
            self.shared.recorder.record(&Line {
                f,
                process: self.process,
                invoke: now,
                complete: now,
                key: Some(&name),
                group: Some(&self.group),
                ..Line::default()
            });
        }
    }
}

impl ConsumerContext for Owns {
    fn pre_rebalance(&self, _: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        if let Rebalance::Revoke(partitions) = rebalance {
            self.note(Kind::Revoke, partitions);
        }
    }

    fn post_rebalance(&self, _: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        if let Rebalance::Assign(partitions) = rebalance {
            self.note(Kind::Assign, partitions);
        }
    }
}

/// A member of a group, until its time is over. Blocks.
///
/// # Panics
///
/// Panics if librdkafka takes no such settings.
pub(super) fn consume(shared: &Arc<Shared>, process: u32, group: &str, life: Duration) {
    let owns = Owns {
        shared: shared.clone(),
        process,
        group: group.to_owned(),
    };
    let consumer: BaseConsumer<Owns> = config(shared)
        .set("group.id", group)
        .set("auto.offset.reset", "earliest")
        .set("enable.auto.commit", "false")
        .set("session.timeout.ms", "6000")
        .set("heartbeat.interval.ms", "500")
        .create_with_context(owns)
        .expect("a consumer");
    consumer.subscribe(&[TOPIC]).expect("subscribed");
    let began = shared.recorder.now();
    let (mut commit_at, mut positions) = (began + COMMIT_PAUSE_NANOS, BTreeMap::new());
    while !shared.is_over() && shared.recorder.now() - began < life.as_nanos() as u64 {
        let invoke = shared.recorder.now();
        if let Some(Ok(message)) = consumer.poll(Duration::from_millis(100)) {
            let (partition, offset) = (message.partition(), message.offset());
            let name = key(partition);
            shared.recorder.record(&Line {
                f: Kind::Poll,
                process,
                invoke,
                complete: shared.recorder.now(),
                key: Some(&name),
                group: Some(group),
                records: vec![(offset, message.payload().and_then(value::decode))],
                ..Line::default()
            });
            let _before = positions.insert(partition, offset + 1);
        }
        if shared.recorder.now() >= commit_at {
            commit(shared, &consumer, process, group, &mut positions);
            commit_at = shared.recorder.now() + COMMIT_PAUSE_NANOS;
        }
    }
}

/// Commits the positions of what it still owns.
fn commit(
    shared: &Shared,
    consumer: &BaseConsumer<Owns>,
    process: u32,
    group: &str,
    positions: &mut BTreeMap<i32, i64>,
) {
    let assigned = consumer.assignment().unwrap_or_default();
    let owned: Vec<i32> = assigned.elements().iter().map(|e| e.partition()).collect();
    positions.retain(|p, _| owned.contains(p));
    if positions.is_empty() {
        return;
    }
    let mut list = TopicPartitionList::new();
    for (partition, offset) in &*positions {
        let _added = list.add_partition_offset(TOPIC, *partition, Offset::Offset(*offset));
    }
    let invoke = shared.recorder.now();
    let result = consumer.commit(&list, CommitMode::Sync);
    let complete = shared.recorder.now();
    let refused = [
        RDKafkaErrorCode::IllegalGeneration,
        RDKafkaErrorCode::UnknownMemberId,
        RDKafkaErrorCode::RebalanceInProgress,
    ];
    let outcome = match result {
        Ok(()) => Outcome::Ok,
        Err(KafkaError::ConsumerCommit(code)) if refused.contains(&code) => Outcome::Fail,
        Err(_) => Outcome::Info,
    };
    for (partition, offset) in std::mem::take(positions) {
        let name = key(partition);
        shared.recorder.record(&Line {
            f: Kind::Commit,
            process,
            invoke,
            complete,
            outcome,
            key: Some(&name),
            group: Some(group),
            offset: Some(offset),
            ..Line::default()
        });
    }
}
