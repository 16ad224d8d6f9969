//! Partitions that are not read for a while, and how far behind a consumer is.

use std::collections::BTreeMap;

use callboard_common::TopicPartition;
use futures::Stream;

use super::{Consumer, StartAt};

impl Consumer {
    /// Does not read these partitions until [`Consumer::resume`]: no record of theirs is received, nothing of them is
    /// fetched, and they stay assigned. What was fetched and not received is fetched again later. A partition that is
    /// not assigned, or is paused already, is passed over. A rebalance forgets what was paused (as in Kafka).
    ///
    /// ```
    /// # use callboard_broker::Node;
    /// # use callboard_client::{Client, ClientConfig, Consumer, ConsumerConfig, Producer, ProducerConfig, Record, StartAt, TopicPartition, Trust};
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let node = Node::builder().in_memory().start().await?;
    /// # let client = Client::connect(ClientConfig::new(node.quic(), Trust::Ca(node.ca_pem().into()))).await?;
    /// client.admin().create_topic("jobs", 2).await?;
    /// let producer = Producer::new(&client, ProducerConfig::default());
    /// for partition in [0, 0, 0, 1] {
    ///     producer.send(Record::to("jobs").partition(partition).value("job")).await?;
    /// }
    /// let [slow, fast] = ["jobs-0", "jobs-1"].map(|p| TopicPartition::parse(p).expect("valid"));
    /// let from_the_beginning = [(slow.clone(), StartAt::Beginning)];
    /// let mut consumer = Consumer::assign(&client, ConsumerConfig::default(), from_the_beginning);
    /// assert_eq!(consumer.recv().await?.offset.get(), 0);
    /// assert_eq!(consumer.lag()[&slow], 2);
    ///
    /// consumer.pause([&slow]);
    /// assert_eq!(consumer.paused(), [slow.clone()]);
    /// let quarter = std::time::Duration::from_millis(250);
    /// assert!(tokio::time::timeout(quarter, consumer.recv()).await.is_err(), "nothing comes");
    ///
    /// consumer.resume([&slow]);
    /// assert_eq!(consumer.recv().await?.offset.get(), 1, "it goes on where it was");
    /// # let _ = fast; Ok(()) }
    /// ```
    pub fn pause<'a>(&mut self, partitions: impl IntoIterator<Item = &'a TopicPartition>) {
        for partition in partitions {
            let Some((_, task)) = self.reading.remove(partition) else {
                continue;
            };
            task.abort();
            self.buffered.retain(|r| r.partition != *partition);
            let start = match self.position(partition) {
                Some(next) => StartAt::Offset(next),
                None => self
                    .starts
                    .get(partition)
                    .copied()
                    .unwrap_or(StartAt::Reset),
            };
            let _none = self.paused.insert(partition.clone(), start);
        }
    }

    /// Reads paused partitions again, from the record after the last that was received.
    pub fn resume<'a>(&mut self, partitions: impl IntoIterator<Item = &'a TopicPartition>) {
        for partition in partitions {
            if let Some(start) = self.paused.remove(partition) {
                self.read(partition.clone(), start);
            }
        }
    }

    /// The partitions that are paused, sorted.
    #[must_use]
    pub fn paused(&self) -> Vec<TopicPartition> {
        self.paused.keys().cloned().collect()
    }

    /// How many offsets lie between the record that was received last and each partition's end, as far as both are
    /// known: the end is that of the last fetch.
    #[must_use]
    pub fn lag(&self) -> BTreeMap<TopicPartition, i64> {
        let behind = |(partition, end): (&TopicPartition, &callboard_common::Offset)| {
            let next = self.position(partition)?;
            Some((partition.clone(), (*end - next).max(0)))
        };
        self.ends.iter().filter_map(behind).collect()
    }

    /// [`Consumer::lag`] each time it changes by a fetch, for a task beside the one that receives: what is not taken
    /// in time is replaced by what is newer. Ends with the consumer.
    ///
    /// ```
    /// # use callboard_broker::Node;
    /// # use callboard_client::{Client, ClientConfig, Consumer, ConsumerConfig, Producer, ProducerConfig, Record, StartAt, TopicPartition, Trust};
    /// use futures::StreamExt;
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let node = Node::builder().in_memory().start().await?;
    /// # let client = Client::connect(ClientConfig::new(node.quic(), Trust::Ca(node.ca_pem().into()))).await?;
    /// # client.admin().create_topic("jobs", 1).await?;
    /// # let producer = Producer::new(&client, ProducerConfig::default());
    /// # for _ in 0..3 { producer.send(Record::to("jobs").value("job")).await?; }
    /// let jobs = TopicPartition::parse("jobs-0").expect("valid");
    /// let mut consumer = Consumer::assign(&client, ConsumerConfig::default(), [(jobs.clone(), StartAt::Beginning)]);
    /// let mut lags = Box::pin(consumer.lags());
    /// for _ in 0..3 {
    ///     let _job = consumer.recv().await?;
    /// }
    /// let newest = lags.next().await.expect("the consumer is there");
    /// assert_eq!(newest[&jobs], 0);
    /// # Ok(()) }
    /// ```
    pub fn lags(&self) -> impl Stream<Item = BTreeMap<TopicPartition, i64>> + Send + use<> {
        futures::stream::unfold(self.lags.subscribe(), |mut lags| async move {
            lags.changed().await.ok()?;
            let newest = lags.borrow_and_update().clone();
            Some((newest, lags))
        })
    }

    pub(super) fn show_lag(&self) {
        if self.lags.receiver_count() > 0 {
            let _before = self.lags.send_replace(self.lag());
        }
    }
}
