//! `callboard bench`: load on either door, with a live table, percentiles and a plot.

mod kafka;
mod meter;
mod steady;

use std::collections::VecDeque;
use std::time::Duration;

use callboard_client::{
    Client, Compression, Consumer, ConsumerConfig, PendingDelivery, Producer, ProducerConfig,
    Record, StartAt, TopicName, TopicPartition,
};
use callboard_common::Monotonic;
use callboard_common::config::ByteSize;
use callboard_common::record::{Batch, BatchBuilder};
use clap::{Args, Subcommand};

use self::kafka::Door;
use self::meter::Meter;
use super::connect::Connect;
use super::output::Failure;

/// One record in so many is timed, where each is a message of its own.
const TIMED_ONE_IN: u64 = 16;
/// Deliveries that are waited for together.
const DELIVERIES_AHEAD: usize = 200_000;

/// Put load on a node and measure it.
#[derive(Debug, Subcommand)]
pub(crate) enum Bench {
    /// Append records as fast as they are acknowledged.
    Produce {
        #[command(flatten)]
        load: Load,
        /// Bytes of each record's value.
        #[arg(long, default_value = "100")]
        size: ByteSize,
        /// Size of a batch.
        #[arg(long, default_value = "64KiB")]
        batch_size: ByteSize,
        /// Batches on their way at once.
        #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u8).range(1..=100))]
        in_flight: u8,
    },
    /// Read records from the beginning as fast as they come.
    Consume {
        #[command(flatten)]
        load: Load,
    },
    /// Append one record and read it, again and again: the time from end to end.
    Latency {
        #[command(flatten)]
        load: Load,
        /// Bytes of each record's value.
        #[arg(long, default_value = "100")]
        size: ByteSize,
    },
    /// Append at a steady rate and tell every gap between acknowledgements: run it while nodes fail or restart.
    Steady(steady::Steady),
}

/// What all of them need.
#[derive(Clone, Debug, Args)]
pub(crate) struct Load {
    /// The topic; it is created if the node does that.
    #[arg(long, default_value = "bench")]
    topic: String,
    /// How many records.
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..))]
    records: u64,
    /// Address of a Kafka door, of any broker, instead of Callboard's own.
    #[arg(long, value_name = "HOST:PORT")]
    kafka: Option<String>,
    /// One JSON object instead of tables.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connect: Connect,
}

pub(crate) async fn run(bench: Bench) -> Result<(), Failure> {
    match bench {
        Bench::Produce {
            load,
            size,
            batch_size,
            in_flight,
        } => {
            let (size, batch, window) = (
                size.0 as usize,
                batch_size.0 as usize,
                usize::from(in_flight),
            );
            match &load.kafka {
                Some(door) => produce_kafka(&load, door, (size, batch, window)).await,
                None => produce_quic(&load, (size, batch, window)).await,
            }
        }
        Bench::Consume { load } => match &load.kafka {
            Some(door) => consume_kafka(&load, door).await,
            None => consume_quic(&load).await,
        },
        Bench::Steady(steady) => steady::run(steady).await,
        Bench::Latency { load, size } => match &load.kafka {
            Some(door) => latency_kafka(&load, door, size.0 as usize).await,
            None => latency_quic(&load, size.0 as usize).await,
        },
    }
}

fn now_ms() -> i64 {
    callboard_common::Clock::machine().now().wall.0
}

/// A batch of as many records as fit; the number of records.
fn batch_of(size: usize, batch_bytes: usize, most: u64) -> (Batch, u64) {
    let value = vec![b'x'; size];
    let count = (batch_bytes / (size + 10)).max(1) as u64;
    let count = count.min(most);
    let mut builder = BatchBuilder::new(Compression::None);
    (0..count).for_each(|_| builder.push(now_ms(), None, Some(&value), &[]));
    (builder.build(), count)
}

async fn produce_kafka(
    load: &Load,
    address: &str,
    (size, batch_bytes, window): (usize, usize, usize),
) -> Result<(), Failure> {
    let mut door = Door::connect(address).await?;
    let partitions = door.partitions(&load.topic).await?;
    let mut meter = Meter::start(load.json);
    let mut sent: VecDeque<(u64, Monotonic)> = VecDeque::new();
    let (mut left, mut partition) = (load.records, 0);
    let (full, full_count) = batch_of(size, batch_bytes, u64::MAX);
    while left > 0 || door.in_flight() > 0 {
        if left > 0 && door.in_flight() < window {
            let (batch, count) = match left >= full_count {
                true => (full.clone(), full_count),
                false => batch_of(size, batch_bytes, left),
            };
            sent.push_back((count, meter.now()));
            door.produce(&load.topic, partition, batch.bytes().clone())
                .await?;
            partition = (partition + 1) % partitions;
            left -= count;
            continue;
        }
        door.acknowledged().await?;
        if let Some((count, began)) = sent.pop_front() {
            let took = meter.now().since(began);
            meter.note(count, count * size as u64, Some(took));
        }
    }
    meter.finish("produce", load.json)
}

async fn produce_quic(
    load: &Load,
    (size, batch_bytes, window): (usize, usize, usize),
) -> Result<(), Failure> {
    let client = load.connect.client().await?;
    let config = ProducerConfig {
        batch_size_bytes: batch_bytes,
        max_in_flight: window.min(5),
        ..ProducerConfig::default()
    };
    let producer = Producer::new(&client, config);
    let value = bytes::Bytes::from(vec![b'x'; size]);
    let mut meter = Meter::start(load.json);
    let mut waiting: VecDeque<(PendingDelivery, Option<Monotonic>)> = VecDeque::new();
    for n in 0..load.records {
        let began = (n % TIMED_ONE_IN == 0).then(|| meter.now());
        let record = Record::to(&load.topic).value(value.clone());
        waiting.push_back((producer.enqueue(record).await?, began));
        if waiting.len() >= DELIVERIES_AHEAD {
            delivered(&mut waiting, &mut meter, size).await?;
        }
        while let Some(done) = waiting
            .front_mut()
            .and_then(|(d, _)| futures::FutureExt::now_or_never(d))
        {
            note_delivery(&mut waiting, &mut meter, size, done.map(drop))?;
        }
    }
    while !waiting.is_empty() {
        delivered(&mut waiting, &mut meter, size).await?;
    }
    producer.close().await?;
    client.close().await;
    meter.finish("produce", load.json)
}

type Waiting = VecDeque<(PendingDelivery, Option<Monotonic>)>;

/// Waits for the oldest delivery.
async fn delivered(waiting: &mut Waiting, meter: &mut Meter, size: usize) -> Result<(), Failure> {
    let Some((delivery, _)) = waiting.front_mut() else {
        return Ok(());
    };
    let done = delivery.await.map(drop);
    note_delivery(waiting, meter, size, done)
}

fn note_delivery(
    waiting: &mut Waiting,
    meter: &mut Meter,
    size: usize,
    done: Result<(), callboard_client::Error>,
) -> Result<(), Failure> {
    let began = waiting.pop_front().and_then(|(_, began)| began);
    done?;
    let took = began.map(|began| meter.now().since(began));
    meter.note(1, size as u64, took);
    Ok(())
}

async fn consume_kafka(load: &Load, address: &str) -> Result<(), Failure> {
    let mut door = Door::connect(address).await?;
    let partitions = door.partitions(&load.topic).await?;
    let mut offsets = vec![0i64; usize::try_from(partitions).unwrap_or(0)];
    let mut meter = Meter::start(load.json);
    let mut seen = 0;
    while seen < load.records {
        let began = meter.now();
        door.fetch(&load.topic, &offsets).await?;
        let (mut count, mut bytes) = (0, 0);
        for (partition, mut records) in door.fetched().await? {
            bytes += records.len() as u64;
            while !records.is_empty() {
                let (batch, rest) = Batch::split(records).map_err(Failure::new)?;
                records = rest;
                let next = batch.header().next_offset();
                count += (next - offsets[partition]).unsigned_abs();
                offsets[partition] = next;
            }
        }
        seen += count;
        let took = meter.now().since(began);
        meter.note(count, bytes, Some(took));
    }
    meter.finish("consume", load.json)
}

/// A consumer of all partitions of a topic, in no group.
async fn consumer(client: &Client, topic: &str, from: StartAt) -> Result<Consumer, Failure> {
    let described = client.admin().describe_topics(&[topic]).await?;
    let count = described.first().map_or(0, |t| t.partitions.len());
    let name = TopicName::new(topic).map_err(Failure::usage)?;
    let partition = |number| (TopicPartition::new(name.clone(), number), from);
    let partitions = (0..).take(count).map(partition);
    let config = ConsumerConfig {
        auto_commit: None,
        ..ConsumerConfig::default()
    };
    Ok(Consumer::assign(client, config, partitions))
}

async fn consume_quic(load: &Load) -> Result<(), Failure> {
    let client = load.connect.client().await?;
    let mut consumer = consumer(&client, &load.topic, StartAt::Beginning).await?;
    let mut meter = Meter::start(load.json);
    for n in 0..load.records {
        let began = (n % TIMED_ONE_IN == 0).then(|| meter.now());
        let record = consumer.recv().await?;
        let bytes = record.value.as_ref().map_or(0, |v| v.len()) as u64;
        let took = began.map(|began| meter.now().since(began));
        meter.note(1, bytes, took);
    }
    consumer.close().await?;
    client.close().await;
    meter.finish("consume", load.json)
}

async fn latency_kafka(load: &Load, address: &str, size: usize) -> Result<(), Failure> {
    let (mut out, mut back) = (Door::connect(address).await?, Door::connect(address).await?);
    let _partitions = out.partitions(&load.topic).await?;
    // The place where the first record will be.
    let (batch, _) = batch_of(size, 1, 1);
    let mut end = log_end(&mut out, &load.topic).await?;
    let mut meter = Meter::start(load.json);
    for _ in 0..load.records {
        back.fetch(&load.topic, &[end]).await?;
        let began = meter.now();
        out.produce(&load.topic, 0, batch.bytes().clone()).await?;
        loop {
            let fetched = back.fetched().await?;
            if fetched.iter().any(|(_, records)| !records.is_empty()) {
                break;
            }
            back.fetch(&load.topic, &[end]).await?;
        }
        let took = meter.now().since(began);
        out.acknowledged().await?;
        end += 1;
        meter.note(1, size as u64, Some(took));
    }
    meter.finish("latency", load.json)
}

/// The offset after the last record of the first partition: found by reading.
async fn log_end(door: &mut Door, topic: &str) -> Result<i64, Failure> {
    let mut end = 0;
    loop {
        door.fetch(topic, &[end]).await?;
        let fetched = door.fetched().await?;
        let before = end;
        for (_, mut records) in fetched {
            while !records.is_empty() {
                let (batch, rest) = Batch::split(records).map_err(Failure::new)?;
                (end, records) = (batch.header().next_offset(), rest);
            }
        }
        if end == before {
            return Ok(end);
        }
    }
}

async fn latency_quic(load: &Load, size: usize) -> Result<(), Failure> {
    let client: Client = load.connect.client().await?;
    let config = ProducerConfig {
        linger: Duration::ZERO,
        ..ProducerConfig::default()
    };
    let producer = Producer::new(&client, config);
    let value = bytes::Bytes::from(vec![b'x'; size]);
    // The topic is there, and the consumer waits at its end, before the first record counts.
    let _first = producer
        .send(Record::to(&load.topic).partition(0).value(value.clone()))
        .await?;
    let mut consumer = consumer(&client, &load.topic, StartAt::End).await?;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let mut meter = Meter::start(load.json);
    for _ in 0..load.records {
        let began = meter.now();
        let record = Record::to(&load.topic).partition(0).value(value.clone());
        let delivery = producer.enqueue(record).await?;
        let _received = consumer.recv().await?;
        let took = meter.now().since(began);
        let _delivered = delivery.await?;
        meter.note(1, size as u64, Some(took));
    }
    consumer.close().await?;
    producer.close().await?;
    client.close().await;
    meter.finish("latency", load.json)
}
