//! The producer: records in, deliveries out.

mod accumulator;
pub(crate) mod partitioner;
mod sender;

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use callboard_common::kafka::Text;
use callboard_common::record::{BatchBuilder, Header};
use callboard_common::{Clock, Offset, TopicName, TopicPartition};
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use crate::config::ProducerConfig;
use crate::error::Error;
use crate::interceptor::ProducerInterceptor;
use crate::metrics::Counters;
use crate::{Client, spawn};
use accumulator::Queued;
use partitioner::Partitioner;

/// A record to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    topic: String,
    partition: Option<i32>,
    key: Option<Bytes>,
    value: Option<Bytes>,
    headers: Vec<Header>,
    timestamp: Option<i64>,
}

impl Record {
    /// An empty record for a topic: without key it goes to any partition, without value it is a tombstone.
    #[must_use]
    pub fn to(topic: impl Into<String>) -> Self {
        let topic = topic.into();
        Self {
            topic,
            partition: None,
            key: None,
            value: None,
            headers: Vec::new(),
            timestamp: None,
        }
    }

    /// With a key: records of one key go to one partition, in order.
    #[must_use]
    pub fn key(mut self, key: impl Into<Bytes>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// With a value.
    #[must_use]
    pub fn value(mut self, value: impl Into<Bytes>) -> Self {
        self.value = Some(value.into());
        self
    }

    /// With one more header; names may repeat.
    #[must_use]
    pub fn header(mut self, name: &str, value: impl Into<Bytes>) -> Self {
        self.headers.push(Header {
            key: Text::from(name),
            value: Some(value.into()),
        });
        self
    }

    /// To this partition, whatever the key.
    #[must_use]
    pub fn partition(mut self, partition: i32) -> Self {
        self.partition = Some(partition);
        self
    }

    /// Created at this time, in milliseconds since the Unix epoch, instead of now.
    #[must_use]
    pub fn timestamp(mut self, timestamp: i64) -> Self {
        self.timestamp = Some(timestamp);
        self
    }
}

/// Where a record was delivered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// The partition.
    pub partition: TopicPartition,
    /// The record's offset.
    pub offset: Offset,
    /// The time that the broker stamped, if the topic asks for it.
    pub append_time: Option<i64>,
}

/// What a record's sender is told, and the buffer space that the record holds until then.
pub(crate) struct Tell {
    delivered: oneshot::Sender<Result<Delivery, Error>>,
    interceptor: Option<Arc<dyn ProducerInterceptor>>,
    counters: Arc<Counters>,
    _space: OwnedSemaphorePermit,
}

impl Tell {
    /// Tells what came of the record.
    pub(crate) fn done(self, delivered: Result<Delivery, Error>) {
        self.counters.delivered(delivered.is_ok());
        if let Some(interceptor) = &self.interceptor {
            interceptor.on_delivery(&delivered);
        }
        // Who sent it may not be waiting.
        drop(self.delivered.send(delivered));
    }
}

impl std::fmt::Debug for Tell {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tell")
    }
}

/// A delivery that is under way; dropping it does not stop the record.
#[derive(Debug)]
pub struct PendingDelivery(oneshot::Receiver<Result<Delivery, Error>>);

impl Future for PendingDelivery {
    type Output = Result<Delivery, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0)
            .poll(cx)
            .map(|told| told.unwrap_or(Err(Error::Closed)))
    }
}

/// What a partition's task is told.
pub(crate) enum Order {
    Record(Box<Queued<Tell>>),
    /// Everything that came before leaves now; answered when it is delivered or has failed.
    Flush(oneshot::Sender<()>),
}

struct Inner {
    client: Client,
    config: ProducerConfig,
    partitioner: Partitioner,
    space: Arc<Semaphore>,
    clock: Clock,
    interceptor: Option<Arc<dyn ProducerInterceptor>>,
    partitions: Mutex<Option<BTreeMap<TopicPartition, mpsc::UnboundedSender<Order>>>>,
}

/// Sends records, batched by partition; clones share it.
///
/// Records of one partition are delivered in the order of [`Producer::enqueue`], and with
/// [`idempotent`](ProducerConfig::idempotent), the default, each of them once although requests are retried.
#[derive(Clone)]
pub struct Producer(Arc<Inner>);

impl std::fmt::Debug for Producer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Producer")
            .field("config", &self.0.config)
            .finish_non_exhaustive()
    }
}

impl Producer {
    /// A producer over a client's connections.
    #[must_use]
    pub fn new(client: &Client, config: ProducerConfig) -> Self {
        Self::with(client.clone(), config, None)
    }

    /// The same producer before anything was sent, with a hook around its records.
    #[must_use]
    pub fn intercepted_by(&self, interceptor: impl ProducerInterceptor) -> Self {
        let (client, config) = (self.0.client.clone(), self.0.config.clone());
        Self::with(client, config, Some(Arc::new(interceptor)))
    }

    fn with(
        client: Client,
        config: ProducerConfig,
        interceptor: Option<Arc<dyn ProducerInterceptor>>,
    ) -> Self {
        let space = Arc::new(Semaphore::new(config.buffer_bytes));
        Self(Arc::new(Inner {
            client,
            config,
            interceptor,
            partitioner: Partitioner::default(),
            space,
            clock: Clock::machine(),
            partitions: Mutex::new(Some(BTreeMap::new())),
        }))
    }

    /// Sends one record and waits for the acknowledgement its topic asks for.
    ///
    /// # Errors
    ///
    /// - [`Error::Timeout`]: not delivered within [`delivery_timeout`](ProducerConfig::delivery_timeout); it may be
    ///   in the log.
    /// - [`Error::RecordTooLarge`]: nothing was sent.
    /// - [`Error::Refused`]: the broker does not take it.
    ///
    /// # Cancel safety
    ///
    /// Not cancel safe: the record may be sent although the future was dropped.
    ///
    /// Sources: KIP-91 (timeouts), KIP-98 (idempotence).
    pub async fn send(&self, record: Record) -> Result<Delivery, Error> {
        self.enqueue(record).await?.await
    }

    /// Queues one record and returns its delivery. Waits while
    /// [`buffer_bytes`](ProducerConfig::buffer_bytes) are under way.
    ///
    /// # Errors
    ///
    /// As [`Producer::send`], as far as they are known before it is sent; nothing was sent.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: a record whose future was dropped is not sent.
    pub async fn enqueue(&self, record: Record) -> Result<PendingDelivery, Error> {
        let inner = &self.0;
        let record = match &inner.interceptor {
            Some(interceptor) => interceptor.on_send(record),
            None => record,
        };
        let (key, value) = (record.key.as_deref(), record.value.as_deref());
        let size_bytes = BatchBuilder::record_size_bound(key, value, &record.headers);
        let limit_bytes = inner.config.record_max_bytes.min(inner.config.buffer_bytes);
        if size_bytes > limit_bytes {
            return Err(Error::RecordTooLarge {
                size_bytes,
                limit_bytes,
            });
        }
        let count = inner.client.partitions(&record.topic).await?;
        let batch_bytes = inner.config.batch_size_bytes;
        let number = match record.partition {
            Some(number) => number,
            None => inner
                .partitioner
                .partition(key, size_bytes, batch_bytes, count),
        };
        let topic = TopicName::new(&record.topic).map_err(|e| Error::Config(e.to_string()))?;
        let space = inner
            .space
            .clone()
            .acquire_many_owned(size_bytes as u32)
            .await
            .map_err(|_| Error::Closed)?;
        let (delivered, delivery) = oneshot::channel();
        let queued = Queued {
            timestamp: record.timestamp.unwrap_or(inner.clock.now().wall.0),
            key: record.key,
            value: record.value,
            headers: record.headers,
            tell: Tell {
                delivered,
                interceptor: inner.interceptor.clone(),
                counters: inner.client.counters().clone(),
                _space: space,
            },
        };
        self.order(
            TopicPartition::new(topic, number),
            Order::Record(Box::new(queued)),
        )
        .await?;
        inner.client.counters().queued();
        Ok(PendingDelivery(delivery))
    }

    /// Hands something to a partition's task, which is started if there is none.
    async fn order(&self, partition: TopicPartition, order: Order) -> Result<(), Error> {
        let mut partitions = self.0.partitions.lock().await;
        let partitions = partitions.as_mut().ok_or(Error::Closed)?;
        let task = partitions.entry(partition).or_insert_with_key(|partition| {
            let (orders, incoming) = mpsc::unbounded_channel();
            let inner = &self.0;
            let sender = sender::Sender::new(
                inner.client.clone(),
                inner.config.clone(),
                partition.clone(),
                inner.clock.clone(),
            );
            drop(spawn::spawn(sender.run(incoming)));
            orders
        });
        task.send(order).map_err(|_| Error::Closed)
    }

    /// Sends everything that was queued before and waits until it is delivered or has failed.
    ///
    /// # Errors
    ///
    /// [`Error::Closed`] if the producer was closed.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: the records are sent all the same.
    pub async fn flush(&self) -> Result<(), Error> {
        let mut flushed = Vec::new();
        {
            let partitions = self.0.partitions.lock().await;
            for task in partitions.as_ref().ok_or(Error::Closed)?.values() {
                let (done, flushing) = oneshot::channel();
                if task.send(Order::Flush(done)).is_ok() {
                    flushed.push(flushing);
                }
            }
        }
        for flushing in flushed {
            // A task that has ended has nothing left.
            drop(flushing.await);
        }
        Ok(())
    }

    /// Delivers what was queued, then closes; calls afterwards fail with [`Error::Closed`].
    ///
    /// # Errors
    ///
    /// [`Error::Closed`] if it was closed before.
    pub async fn close(&self) -> Result<(), Error> {
        self.flush().await?;
        *self.0.partitions.lock().await = None;
        Ok(())
    }
}
