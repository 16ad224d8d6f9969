//! Clients of our own: what they are told goes into the history.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use callboard_client::protocol::list_offsets::OffsetTarget;
use callboard_client::{
    Client, ConsumedRecord, Consumer, ConsumerConfig, Error, ErrorCode, Offset, PendingDelivery,
    Producer, ProducerConfig, RebalanceListener, Record, StartAt, TopicPartition,
};
use tokio::sync::mpsc;

use super::notes::{self, Notes};
use super::value;
use super::{Shared, TOPIC};
use crate::history::line::{Kind, Line};
use crate::history::{Nanos, Outcome};

/// A record is tried to be delivered for so long.
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(30);
/// Records that are noted together, and how long they are waited for.
const POLLED_MAX: usize = 200;
const POLL_TIME: Duration = Duration::from_millis(100);
/// Between two commits of a group's member.
const COMMIT_PAUSE: Duration = Duration::from_millis(500);
/// How long the final reading of a partition may take.
const DRAIN_PATIENCE: Duration = Duration::from_secs(60);

/// Connects, however long that takes.
///
/// # Panics
///
/// Panics if it takes a minute.
async fn connect(shared: &Shared) -> Client {
    for _ in 0..120 {
        if let Ok(client) = Client::connect(shared.client.clone()).await {
            return client;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    panic!("no node can be reached for a minute");
}

/// Sends until it is told to stop, then waits for what is on its way.
pub(crate) async fn produce(shared: Arc<Shared>, process: u32) {
    let client = connect(&shared).await;
    let config = ProducerConfig {
        linger: Duration::from_millis(2),
        delivery_timeout: DELIVERY_TIMEOUT,
        idempotent: shared.workload.is_idempotent(),
        max_in_flight: shared.workload.in_flight(),
        ..ProducerConfig::default()
    };
    let producer = Producer::new(&client, config);
    let (told, mut telling) = mpsc::unbounded_channel::<((u64, i32), Nanos, PendingDelivery)>();
    let from = shared.clone();
    let notes = Notes::new(shared, process, None);
    let sending = async move {
        for number in 0.. {
            if from.is_over() {
                break;
            }
            let of = notes::record(process, number);
            let record = Record::to(TOPIC).partition(of.1).value(value::encode(of.0));
            let invoke = from.recorder.now();
            let Ok(delivery) = producer.enqueue(record).await else {
                break;
            };
            if told.send((of, invoke, delivery)).is_err() {
                break;
            }
            tokio::time::sleep(from.pace).await;
        }
    };
    let noting = async move {
        while let Some((of, invoke, delivery)) = telling.recv().await {
            let delivered = delivery.await;
            let told = delivered.map(|d| d.offset.get()).map_err(|e| e.to_string());
            notes.sent(of, invoke, told);
        }
    };
    let ((), ()) = tokio::join!(sending, noting);
}

/// One who receives records, and what it received.
struct Receiver {
    notes: Notes,
    /// It is noted in pieces, and before a rebalance: what is received after it may be what was received before.
    batch: Mutex<Batch>,
}

impl Receiver {
    fn new(shared: Arc<Shared>, process: u32, group: Option<&str>) -> Self {
        Self {
            notes: Notes::new(shared, process, group),
            batch: Mutex::default(),
        }
    }

    /// Takes one more record; returns how many are not noted.
    fn take(&self, record: &ConsumedRecord) -> usize {
        let mut batch = self.batch.lock().unwrap_or_else(PoisonError::into_inner);
        batch.take(record);
        batch.count
    }

    /// Notes what was received; what comes next is asked for now.
    fn note(&self) {
        let next = Batch {
            began: self.notes.shared.recorder.now(),
            ..Batch::default()
        };
        let mut batch = self.batch.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut *batch, next).note(&self.notes);
    }
}

impl RebalanceListener for Receiver {
    fn revoked(&self, partitions: &[TopicPartition]) {
        self.note();
        let numbers = partitions.iter().map(|p| p.partition);
        self.notes.owns(Kind::Revoke, numbers);
    }

    fn assigned(&self, partitions: &[TopicPartition]) {
        let numbers = partitions.iter().map(|p| p.partition);
        self.notes.owns(Kind::Assign, numbers);
    }
}

/// Records that were received and are not noted yet, by partition.
#[derive(Default)]
struct Batch {
    began: Nanos,
    records: BTreeMap<i32, Vec<(i64, Option<u64>)>>,
    high: BTreeMap<i32, i64>,
    count: usize,
}

impl Batch {
    fn take(&mut self, record: &ConsumedRecord) {
        let partition = record.partition.partition;
        let value = record.value.as_deref().and_then(value::decode);
        let records = self.records.entry(partition).or_default();
        records.push((record.offset.get(), value));
        if let Some(high) = record.high_watermark {
            let _before = self.high.insert(partition, high.get());
        }
        self.count += 1;
    }

    fn note(self, notes: &Notes) {
        let span = notes.since(self.began);
        for (partition, records) in self.records {
            notes.polled(partition, span, records);
        }
        for (partition, high) in self.high {
            let told = Line {
                high: Some(high),
                ..Line::default()
            };
            notes.note(Kind::Watermarks, partition, span, told);
        }
    }
}

/// Receives for a while and notes what came; an error is shown to nobody, the consumer goes on.
async fn poll(receiver: &Receiver, consumer: &mut Consumer) {
    receiver.note();
    let until = tokio::time::Instant::now() + POLL_TIME;
    loop {
        match tokio::time::timeout_at(until, consumer.recv()).await {
            Ok(Ok(record)) if receiver.take(&record) < POLLED_MAX => {}
            Ok(Ok(_)) => break,
            Ok(Err(_)) => {
                tokio::time::sleep(Duration::from_millis(50)).await;
                break;
            }
            Err(_) => break,
        }
    }
    receiver.note();
}

fn partitions() -> impl Iterator<Item = TopicPartition> {
    (0..super::PARTITIONS as i32).map(|n| TopicPartition::new(super::topic(), n))
}

/// Reads all partitions from their beginnings.
pub(crate) async fn read(shared: Arc<Shared>, process: u32) {
    let client = connect(&shared).await;
    let all = partitions().map(|p| (p, StartAt::Beginning));
    let mut consumer = Consumer::assign(&client, ConsumerConfig::default(), all);
    let receiver = Receiver::new(shared.clone(), process, None);
    while !shared.is_over() {
        poll(&receiver, &mut consumer).await;
    }
}

/// Whether an error proves that a commit was not and will not be done.
fn is_refused(error: &Error) -> bool {
    let fenced = [
        ErrorCode::IllegalGeneration,
        ErrorCode::UnknownMemberId,
        ErrorCode::RebalanceInProgress,
        ErrorCode::FencedInstanceId,
    ];
    error.code().is_some_and(|code| fenced.contains(&code))
}

/// A member of a group, from when it joins until its time is over.
pub(crate) async fn consume(shared: Arc<Shared>, process: u32, group: String, life: Duration) {
    let client = connect(&shared).await;
    let config = ConsumerConfig {
        auto_commit: None,
        session_timeout: Duration::from_secs(6),
        heartbeat: Duration::from_millis(500),
        rebalance_timeout: Duration::from_secs(10),
        ..ConsumerConfig::group(&group)
    };
    let receiver = Arc::new(Receiver::new(shared.clone(), process, Some(&group)));
    let subscribed = Consumer::subscribe_with(&client, config, &[TOPIC], receiver.clone());
    let Ok(mut consumer) = subscribed.await else {
        return;
    };
    let until = tokio::time::Instant::now() + life;
    let mut commit_at = tokio::time::Instant::now() + COMMIT_PAUSE;
    while !shared.is_over() && tokio::time::Instant::now() < until {
        poll(&receiver, &mut consumer).await;
        if tokio::time::Instant::now() >= commit_at {
            commit(&receiver.notes, &mut consumer).await;
            commit_at = tokio::time::Instant::now() + COMMIT_PAUSE;
        }
    }
    let _left = consumer.close().await;
}

async fn commit(notes: &Notes, consumer: &mut Consumer) {
    let position = |p: TopicPartition| Some((p.clone(), consumer.position(&p)?));
    let positions: BTreeMap<TopicPartition, Offset> = consumer
        .assignment()
        .into_iter()
        .filter_map(position)
        .collect();
    if positions.is_empty() {
        return;
    }
    let invoke = notes.shared.recorder.now();
    let result = consumer.commit_offsets(positions.clone()).await;
    let span = notes.since(invoke);
    let outcome = match &result {
        Ok(()) => Outcome::Ok,
        Err(error) if is_refused(error) => Outcome::Fail,
        Err(_) => Outcome::Info,
    };
    let positions = positions.into_iter().map(|(p, o)| (p.partition, o.get()));
    notes.committed(span, outcome, positions);
}

/// Asks again and again what groups have committed.
pub(crate) async fn watch(shared: Arc<Shared>, process: u32, groups: Vec<String>) {
    let client = connect(&shared).await;
    let notes = Notes::new(shared, process, None);
    while !notes.shared.is_over() {
        for group in &groups {
            let invoke = notes.shared.recorder.now();
            let Ok(offsets) = client.admin().group_offsets(group).await else {
                continue;
            };
            let span = notes.since(invoke);
            for partition in partitions() {
                let answer = Line {
                    group: Some(group),
                    offset: Some(offsets.get(&partition).map_or(-1, |o| o.get())),
                    ..Line::default()
                };
                notes.note(Kind::Committed, partition.partition, span, answer);
            }
        }
        tokio::time::sleep(COMMIT_PAUSE).await;
    }
}

/// Creates topics and deletes some of them until it is told to stop, and looks in the end which there are.
pub(crate) async fn administer(shared: Arc<Shared>, process: u32) {
    let client = connect(&shared).await;
    let mut deleted = Vec::new();
    while !shared.is_over() {
        let name = format!("made-{}", deleted.len());
        let invoke = shared.recorder.now();
        let created = client.admin().create_topic(&name, 1).await;
        note_write(&shared, process, (&name, 1), invoke, created.as_ref().err());
        let goes = created.is_ok() && deleted.len() % 3 == 1;
        deleted.push(goes);
        if goes {
            let invoke = shared.recorder.now();
            let gone = client.admin().delete_topic(&name).await;
            note_write(&shared, process, (&name, 2), invoke, gone.as_ref().err());
        }
        tokio::time::sleep(Duration::from_millis(400)).await;
    }
    // An image may be behind by as long as a message takes.
    tokio::time::sleep(Duration::from_secs(2)).await;
    for (number, goes) in deleted.into_iter().enumerate() {
        let name = format!("made-{number}");
        let invoke = shared.recorder.now();
        let is_there = match client.admin().describe_topics(&[name.as_str()]).await {
            Ok(_) => true,
            Err(error) if error.code() == Some(ErrorCode::UnknownTopicOrPartition) => false,
            Err(_) => continue,
        };
        let name = format!("topic {name}");
        shared.recorder.record(&Line {
            f: Kind::Read,
            process,
            invoke,
            complete: shared.recorder.now(),
            key: Some(&name),
            value: match (is_there, goes) {
                (true, _) => Some(1),
                (false, true) => Some(2),
                (false, false) => None,
            },
            last: true,
            ..Line::default()
        });
    }
}

fn note_write(
    shared: &Shared,
    process: u32,
    (name, value): (&str, u64),
    invoke: Nanos,
    error: Option<&Error>,
) {
    let name = format!("topic {name}");
    shared.recorder.record(&Line {
        f: Kind::Write,
        process,
        invoke,
        complete: shared.recorder.now(),
        outcome: match error {
            None => Outcome::Ok,
            Some(_) => Outcome::Info,
        },
        key: Some(&name),
        value: Some(value),
        ..Line::default()
    });
}

/// Reads everything when everything is over.
///
/// # Panics
///
/// Panics if a partition cannot be read to its end.
pub(crate) async fn drain(shared: Arc<Shared>, process: u32) {
    let client = connect(&shared).await;
    let notes = Notes::new(shared, process, None);
    for partition in partitions() {
        let admin = client.admin();
        let offset = async |target| {
            for _ in 0..60 {
                if let Ok(Some(offset)) = admin.offset(&partition, target).await {
                    return offset;
                }
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
            panic!("the ends of {partition} are not told");
        };
        let (start, end) = (
            offset(OffsetTarget::Earliest).await,
            offset(OffsetTarget::Latest).await,
        );
        let from = [(partition.clone(), StartAt::Offset(start))];
        let mut consumer = Consumer::assign(&client, ConsumerConfig::default(), from);
        let (mut at, mut records) = (start, Vec::new());
        while at < end {
            let received = tokio::time::timeout(DRAIN_PATIENCE, consumer.recv()).await;
            let record = received
                .unwrap_or_else(|_| panic!("{partition} cannot be read from {at} to {end}"));
            let Ok(record) = record else { continue };
            at = Offset::new(record.offset.get() + 1);
            records.push((
                record.offset.get(),
                record.value.as_deref().and_then(value::decode),
            ));
        }
        let drained = Line {
            start: Some(start.get()),
            high: Some(end.get()),
            records,
            ..Line::default()
        };
        let now = notes.since(notes.shared.recorder.now());
        notes.note(Kind::Drain, partition.partition, now, drained);
    }
}
