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

use super::notes::{self, Notes};
use super::value;
use super::{Shared, TOPIC};
use crate::history::Outcome;
use crate::history::line::Kind;

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
    let notes = Notes::new(shared, process, None);
    let sending = async move {
        for number in 0.. {
            if from.is_over() {
                break;
            }
            let of = notes::record(process, number);
            let bytes = value::encode(of.0);
            let record = FutureRecord::<(), _>::to(TOPIC)
                .partition(of.1)
                .payload(&bytes);
            let invoke = from.recorder.now();
            if let Ok(delivery) = producer.send_result(record) {
                let _sent = told.send((of, invoke, delivery));
            }
            tokio::time::sleep(PACE).await;
        }
        // Its thread delivers what is left while it lives.
        producer
    };
    let noting = async move {
        while let Some((of, invoke, delivery)) = telling.recv().await {
            let told = match delivery.await {
                Ok(Ok(delivered)) => Ok(delivered.offset),
                Ok(Err((error, _))) => Err(error.to_string()),
                Err(_) => Err("it was not told".to_owned()),
            };
            notes.sent(of, invoke, told);
        }
    };
    let (_producer, ()) = tokio::join!(sending, noting);
}

impl ClientContext for Notes {}

fn numbers(of: &TopicPartitionList) -> Vec<i32> {
    of.elements().iter().map(|e| e.partition()).collect()
}

impl ConsumerContext for Notes {
    fn pre_rebalance(&self, _: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        if let Rebalance::Revoke(partitions) = rebalance {
            self.owns(Kind::Revoke, numbers(partitions).into_iter());
        }
    }

    fn post_rebalance(&self, _: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        if let Rebalance::Assign(partitions) = rebalance {
            self.owns(Kind::Assign, numbers(partitions).into_iter());
        }
    }
}

/// A member of a group, until its time is over. Blocks.
///
/// # Panics
///
/// Panics if librdkafka takes no such settings.
pub(super) fn consume(shared: &Arc<Shared>, process: u32, group: &str, life: Duration) {
    let notes = Notes::new(shared.clone(), process, Some(group));
    let consumer: BaseConsumer<Notes> = config(shared)
        .set("group.id", group)
        .set("auto.offset.reset", "earliest")
        .set("enable.auto.commit", "false")
        .set("session.timeout.ms", "6000")
        .set("heartbeat.interval.ms", "500")
        .create_with_context(notes)
        .expect("a consumer");
    consumer.subscribe(&[TOPIC]).expect("subscribed");
    let notes = consumer.context();
    let began = shared.recorder.now();
    let (mut commit_at, mut positions) = (began + COMMIT_PAUSE_NANOS, BTreeMap::new());
    while !shared.is_over() && shared.recorder.now() - began < life.as_nanos() as u64 {
        let invoke = shared.recorder.now();
        if let Some(Ok(message)) = consumer.poll(Duration::from_millis(100)) {
            let (partition, offset) = (message.partition(), message.offset());
            let records = vec![(offset, message.payload().and_then(value::decode))];
            notes.polled(partition, notes.since(invoke), records);
            let _before = positions.insert(partition, offset + 1);
        }
        if shared.recorder.now() >= commit_at {
            commit(&consumer, &mut positions);
            commit_at = shared.recorder.now() + COMMIT_PAUSE_NANOS;
        }
    }
}

/// Commits the positions of what it still owns.
fn commit(consumer: &BaseConsumer<Notes>, positions: &mut BTreeMap<i32, i64>) {
    let notes = consumer.context();
    let owned = numbers(&consumer.assignment().unwrap_or_default());
    positions.retain(|p, _| owned.contains(p));
    if positions.is_empty() {
        return;
    }
    let mut list = TopicPartitionList::new();
    for (partition, offset) in &*positions {
        let _added = list.add_partition_offset(TOPIC, *partition, Offset::Offset(*offset));
    }
    let invoke = notes.shared.recorder.now();
    let result = consumer.commit(&list, CommitMode::Sync);
    let span = notes.since(invoke);
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
    notes.committed(span, outcome, std::mem::take(positions).into_iter());
}
