//! `callboard bench steady`: how long a cluster takes nothing while something happens to it.

use std::time::Duration;

use callboard_client::{PendingDelivery, Producer, ProducerConfig, Record};
use callboard_common::{Clock, Monotonic};
use clap::Args;
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use crate::cli::connect::Connect;
use crate::cli::output::{Failure, line, note};

/// See [`super::Bench::Steady`].
#[derive(Debug, Args)]
pub(crate) struct Steady {
    /// The topic; it is created if the node does that.
    #[arg(long, default_value = "bench")]
    topic: String,
    /// Records per second.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    rate: u32,
    /// How long, in seconds.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Gaps from so many milliseconds on are told as they end.
    #[arg(long, default_value_t = 100)]
    gap: u64,
    /// JSON instead of text, one object per line.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connect: Connect,
}

/// Acknowledgements as they come.
struct Watch {
    clock: Clock,
    last: Monotonic,
    longest: Duration,
    told_from: Duration,
    records: u64,
    json: bool,
}

impl Watch {
    fn acknowledged(&mut self) -> Result<(), Failure> {
        let now = self.clock.now();
        let gap = now.monotonic.since(self.last);
        self.last = now.monotonic;
        self.records += 1;
        // The first one waits for the topic.
        if self.records == 1 {
            return Ok(());
        }
        self.longest = self.longest.max(gap);
        if gap < self.told_from {
            return Ok(());
        }
        let ms = gap.as_secs_f64() * 1e3;
        match self.json {
            true => line(json!({"gap_ms": ms, "ended_at_ms": now.wall.0})),
            false => line(format!("{ms:.0} ms without an acknowledgement")),
        }
    }
}

/// Writes at a steady rate and watches the acknowledgements; every record is waited for.
pub(super) async fn run(steady: Steady) -> Result<(), Failure> {
    let client = steady.connect.client().await?;
    let settings = ProducerConfig {
        linger: Duration::from_millis(1),
        ..ProducerConfig::default()
    };
    let producer = Producer::new(&client, settings);
    let clock = Clock::machine();
    let mut watch = Watch {
        last: clock.now().monotonic,
        clock,
        longest: Duration::ZERO,
        told_from: Duration::from_millis(steady.gap),
        records: 0,
        json: steady.json,
    };
    if !steady.json {
        note(format!(
            "{} records per second to {}",
            steady.rate, steady.topic
        ));
    }
    let (told, mut waiting) = mpsc::unbounded_channel::<PendingDelivery>();
    let topic = steady.topic.clone();
    let total = steady.seconds * u64::from(steady.rate);
    let pace = Duration::from_secs(1) / steady.rate;
    let writing = async move {
        let mut ticks = interval_at(Instant::now(), pace);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
        for number in 0..total {
            let _at = ticks.tick().await;
            let record = Record::to(&topic).partition(0).value(number.to_string());
            let delivery = producer.enqueue(record).await?;
            // Who collects them has failed, and says so.
            let _collected = told.send(delivery);
        }
        producer.close().await.map_err(Failure::from)
    };
    let collecting = async {
        while let Some(delivery) = waiting.recv().await {
            let _delivery = delivery.await?;
            watch.acknowledged()?;
        }
        Ok::<(), Failure>(())
    };
    let ((), ()) = tokio::try_join!(writing, collecting)?;
    client.close().await;
    let (records, ms) = (watch.records, watch.longest.as_secs_f64() * 1e3);
    match steady.json {
        true => line(json!({"bench": "steady", "records": records, "longest_gap_ms": ms})),
        false => line(format!(
            "{records} records acknowledged, the longest gap was {ms:.0} ms"
        )),
    }
}
