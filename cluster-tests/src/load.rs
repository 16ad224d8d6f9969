//! What a producer was told, what a consumer read meanwhile, and what one reads afterwards: nothing is lost, doubled or out of
//! order, and nothing that was read once is anything else later.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use callboard_client::{
    Client, ClientConfig, ConsumedRecord, Consumer, ConsumerConfig, PendingDelivery, Producer,
    ProducerConfig, Record, StartAt, TopicName, TopicPartition,
};
use callboard_common::Clock;
use tokio::sync::{mpsc, oneshot};

/// So many keys are written; each one's values count up.
const KEYS: u64 = 8;
/// Between two records.
const PACE: Duration = Duration::from_millis(2);
/// How long reading waits for the last acknowledged record.
const PATIENCE: Duration = Duration::from_secs(60);

/// What was acknowledged, by key.
type Numbers = BTreeMap<String, BTreeSet<u64>>;
/// Key and number of what stands where, by partition and offset.
type Records = BTreeMap<(i32, i64), (String, u64)>;

/// A steady load on a topic, from a thread of its own, that goes on until it is told to stop, and a consumer that keeps up, from
/// another.
#[derive(Debug)]
pub struct Load {
    stop: Arc<AtomicBool>,
    writing: JoinHandle<Acknowledged>,
    reading: JoinHandle<Records>,
    /// Tells who reads what there is to be read.
    told: oneshot::Sender<Numbers>,
    config: ClientConfig,
}

/// What was acknowledged: the numbers of each key, and the longest time without an acknowledgement.
#[derive(Debug, Default)]
pub struct Acknowledged {
    topic: String,
    numbers: Numbers,
    /// What was read meanwhile.
    seen: Records,
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

    /// Reads everything: each acknowledged record is there, once, in its key's order, and what was read before is where it was.
    ///
    /// # Panics
    ///
    /// Panics with what is wrong.
    pub fn check(&self, config: ClientConfig) {
        assert!(!self.is_empty(), "something was written");
        let read = block_on(async {
            let mut reading = Reading::begin(config, &self.topic).await;
            reading.until(&self.numbers).await;
            reading.records
        });
        for (place, record) in &self.seen {
            assert_eq!(read.get(place), Some(record), "it was read at {place:?}");
        }
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
        let writing = thread::spawn(move || block_on(write(to, &name, &stopping)));
        let (told, telling) = oneshot::channel();
        let (name, from) = (topic.to_owned(), config.clone());
        let reading = thread::spawn(move || block_on(follow(from, &name, telling)));
        Self {
            stop,
            writing,
            reading,
            told,
            config,
        }
    }

    /// Stops writing; everything that was written is acknowledged then, and read.
    ///
    /// # Panics
    ///
    /// Panics if something was not acknowledged in the end, or not read in order.
    #[must_use]
    pub fn stop(self) -> Acknowledged {
        self.stop.store(true, Ordering::Relaxed);
        let acknowledged = self.writing.join().expect("every record was delivered");
        let told = self.told.send(acknowledged.numbers.clone());
        assert!(told.is_ok(), "who reads has failed");
        let seen = self.reading.join().expect("every record was read");
        Acknowledged {
            seen,
            ..acknowledged
        }
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

/// Reads along until it is told what there is, and then all of that.
async fn follow(
    config: ClientConfig,
    topic: &str,
    mut told: oneshot::Receiver<Numbers>,
) -> Records {
    let mut reading = Reading::begin(config, topic).await;
    loop {
        tokio::select! {
            record = reading.consumer.recv() => {
                let _place = reading.take(record.expect("read"));
            }
            told = &mut told => {
                // Nobody wants to know any more if it is not told.
                reading.until(&told.unwrap_or_default()).await;
                return reading.records;
            }
        }
    }
}

/// A consumer of all partitions, from the beginning, and what it has read.
struct Reading {
    consumer: Consumer,
    records: Records,
    /// Where each partition goes on.
    next: BTreeMap<i32, i64>,
}

impl Reading {
    async fn begin(config: ClientConfig, topic: &str) -> Self {
        let client = Client::connect(config).await.expect("connects");
        let described = client.admin().describe_topics(&[topic]).await;
        let partitions = described.expect("described")[0].partitions.len();
        let topic = TopicName::new(topic).expect("a name");
        let partition = |n: usize| {
            let partition = TopicPartition::new(topic.clone(), n as i32);
            (partition, StartAt::Beginning)
        };
        let all = (0..partitions).map(partition);
        Self {
            consumer: Consumer::assign(&client, ConsumerConfig::default(), all),
            records: Records::new(),
            next: BTreeMap::new(),
        }
    }

    /// Where it stands.
    fn take(&mut self, record: ConsumedRecord) -> (i32, i64) {
        let (partition, offset) = (record.partition.partition, record.offset.get());
        let next = self.next.insert(partition, offset + 1).unwrap_or(0);
        assert!(
            offset >= next,
            "{partition} is read at {offset} after {next}"
        );
        let key = String::from_utf8(record.key.expect("a key").to_vec()).expect("text");
        let value = record.value.expect("a value");
        let number = std::str::from_utf8(&value)
            .ok()
            .and_then(|v| v.parse().ok());
        let read = (key, number.expect("a number"));
        let _none = self.records.insert((partition, offset), read);
        (partition, offset)
    }

    /// Reads until it has all of these, and looks at their order.
    async fn until(&mut self, wanted: &Numbers) {
        let is_wanted = |(key, number): &(String, u64)| {
            let of_key = wanted.get(key);
            of_key.is_some_and(|n| n.contains(number))
        };
        let all: usize = wanted.values().map(BTreeSet::len).sum();
        let mut there = self.records.values().filter(|r| is_wanted(r)).count();
        while there < all {
            let received = tokio::time::timeout(PATIENCE, self.consumer.recv()).await;
            let lost = all - there;
            let record = received
                .unwrap_or_else(|_| panic!("{lost} of {all} acknowledged records are lost"));
            let place = self.take(record.expect("read"));
            there += usize::from(is_wanted(&self.records[&place]));
        }
        let mut by_key: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
        for (key, number) in self.records.values() {
            by_key.entry(key).or_default().push(*number);
        }
        for (key, numbers) in by_key {
            let ordered = numbers.windows(2).all(|w| w[0] < w[1]);
            assert!(ordered, "{key} is doubled or out of order: {numbers:?}");
        }
    }
}
