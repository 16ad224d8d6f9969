//! What a producer was told and what a consumer reads afterwards: nothing is lost, doubled or out of order.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use callboard_client::{
    Client, ClientConfig, Consumer, ConsumerConfig, PendingDelivery, Producer, ProducerConfig,
    Record, StartAt, TopicName, TopicPartition,
};
use callboard_common::Clock;
use tokio::sync::mpsc;

/// So many keys are written; each one's values count up.
const KEYS: u64 = 8;
/// Between two records.
const PACE: Duration = Duration::from_millis(2);
/// How long reading waits for the last acknowledged record.
const PATIENCE: Duration = Duration::from_secs(60);

/// A steady load on a topic, from a thread of its own, that goes on until it is told to stop.
#[derive(Debug)]
pub struct Load {
    stop: Arc<AtomicBool>,
    running: JoinHandle<Acknowledged>,
    config: ClientConfig,
}

/// What was acknowledged: the numbers of each key, and the longest time without an acknowledgement.
#[derive(Debug, Default)]
pub struct Acknowledged {
    topic: String,
    numbers: BTreeMap<String, BTreeSet<u64>>,
    /// The longest time between two acknowledgements.
    pub longest_gap: Duration,
}

impl Acknowledged {
    /// How many records were acknowledged.
    #[must_use]
    pub fn len(&self) -> usize {
        self.numbers.values().map(BTreeSet::len).sum()
    }

    /// Whether nothing was acknowledged.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.numbers.is_empty()
    }

    /// Reads everything: each acknowledged record is there, once, in its key's order.
    ///
    /// # Panics
    ///
    /// Panics with what is wrong.
    pub fn check(&self, config: ClientConfig) {
        assert!(!self.is_empty(), "something was written");
        block_on(read(config, &self.topic, self));
    }
}

/// Runs something to its end on this thread.
///
/// # Panics
///
/// Panics if there can be no runtime.
pub fn block_on<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.expect("a runtime").block_on(work)
}

impl Load {
    /// Begins to write to a topic that is there.
    #[must_use]
    pub fn start(config: ClientConfig, topic: &str) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (stopping, name, to) = (stop.clone(), topic.to_owned(), config.clone());
        let running = thread::spawn(move || block_on(write(to, &name, &stopping)));
        Self {
            stop,
            running,
            config,
        }
    }

    /// Stops writing; everything that was written is acknowledged then.
    ///
    /// # Panics
    ///
    /// Panics if something was not acknowledged in the end.
    #[must_use]
    pub fn stop(self) -> Acknowledged {
        self.stop.store(true, Ordering::Relaxed);
        self.running.join().expect("every record was delivered")
    }

    /// Stops writing and checks what was written, as [`Acknowledged::check`].
    ///
    /// # Panics
    ///
    /// Panics with what is wrong.
    #[must_use]
    pub fn check(self) -> Acknowledged {
        let config = self.config.clone();
        let acknowledged = self.stop();
        acknowledged.check(config);
        acknowledged
    }
}

/// Writes until it is told to stop and every record is acknowledged.
async fn write(config: ClientConfig, topic: &str, stop: &AtomicBool) -> Acknowledged {
    let client = Client::connect(config).await.expect("connects");
    let settings = ProducerConfig {
        linger: Duration::from_millis(1),
        ..ProducerConfig::default()
    };
    let producer = Producer::new(&client, settings);
    let (told, mut telling) = mpsc::unbounded_channel::<(String, u64, PendingDelivery)>();
    let writing = async move {
        let mut number = 0;
        while !stop.load(Ordering::Relaxed) {
            let key = format!("key-{}", number % KEYS);
            let record = Record::to(topic).key(key.clone()).value(number.to_string());
            let delivery = producer.enqueue(record).await.expect("queued");
            told.send((key, number, delivery)).expect("collected");
            number += 1;
            tokio::time::sleep(PACE).await;
        }
    };
    let collecting = async move {
        let clock = Clock::machine();
        let mut last = clock.now().monotonic;
        let mut acknowledged = Acknowledged {
            topic: topic.to_owned(),
            ..Acknowledged::default()
        };
        while let Some((key, number, delivery)) = telling.recv().await {
            let _delivery = delivery.await.expect("delivered in the end");
            let now = clock.now().monotonic;
            acknowledged.longest_gap = acknowledged.longest_gap.max(now.since(last));
            last = now;
            let numbers = acknowledged.numbers.entry(key).or_default();
            assert!(numbers.insert(number), "acknowledged twice");
        }
        acknowledged
    };
    let ((), acknowledged) = tokio::join!(writing, collecting);
    acknowledged
}

async fn read(config: ClientConfig, topic: &str, acknowledged: &Acknowledged) {
    let client = Client::connect(config).await.expect("connects");
    let described = client.admin().describe_topics(&[topic]).await;
    let partitions = described.expect("described")[0].partitions.len();
    let topic = TopicName::new(topic).expect("a name");
    let partition = |n: usize| {
        let partition = TopicPartition::new(topic.clone(), n as i32);
        (partition, StartAt::Beginning)
    };
    let all = (0..partitions).map(partition);
    let mut consumer = Consumer::assign(&client, ConsumerConfig::default(), all);
    let mut read: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    let mut missing = acknowledged.len();
    while missing > 0 {
        let received = tokio::time::timeout(PATIENCE, consumer.recv()).await;
        let record = match received {
            Ok(record) => record.expect("read"),
            Err(_) => panic!(
                "{missing} of {} acknowledged records are lost",
                acknowledged.len()
            ),
        };
        let key = String::from_utf8(record.key.expect("a key").to_vec()).expect("text");
        let value = record.value.expect("a value");
        let number = std::str::from_utf8(&value)
            .ok()
            .and_then(|v| v.parse().ok());
        let number: u64 = number.expect("a number");
        let of_key = acknowledged.numbers.get(&key);
        missing -= usize::from(of_key.is_some_and(|n| n.contains(&number)));
        read.entry(key).or_default().push(number);
    }
    for (key, numbers) in &read {
        let ordered = numbers.windows(2).all(|w| w[0] < w[1]);
        assert!(ordered, "{key} is doubled or out of order: {numbers:?}");
    }
}
