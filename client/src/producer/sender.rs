//! Batches of one partition on their way: in flight, retried, in sequence.
//!
//! Each partition has a producer id of its own, so a gap in one partition's sequence disturbs no other. When a
//! batch fails, nothing new is sent until what is in flight has come back; then all that failed goes out again in
//! order, under the same sequence numbers, and the broker drops what it has already.

use std::collections::VecDeque;
use std::time::Duration;

use callboard_common::protocol::TopicRef;
use callboard_common::protocol::produce::{
    Acks as WireAcks, InitProducer, InitedProducer, Produce, ProducePartition, ProduceTopic,
    Produced, ProducedPartition,
};
use callboard_common::record::batch::advance_sequence;
use callboard_common::{Clock, ErrorCode, TopicPartition};
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesOrdered;
use tokio::sync::{mpsc, oneshot};

use super::accumulator::{Accumulator, Ready};
use super::{Delivery, Order, Tell};
use crate::Client;
use crate::config::{Acks, ProducerConfig};
use crate::connection::Lane;
use crate::error::Error;
use crate::routing::Route;

/// A batch with its place in the sequence.
struct Numbered {
    ready: Ready<Tell>,
    sequence: i32,
}

type Sent = (Numbered, Result<ProducedPartition, Error>);

/// The task of one partition.
pub(super) struct Sender {
    client: Client,
    config: ProducerConfig,
    partition: TopicPartition,
    clock: Clock,
    accumulator: Accumulator<Tell>,
    queue: VecDeque<Numbered>,
    in_flight: FuturesOrdered<BoxFuture<'static, Sent>>,
    /// Id and epoch, once they are known.
    producer: Option<(i64, i16)>,
    /// Whether a batch under this id was acknowledged: with acks of all, whoever leads next knows it then.
    is_known: bool,
    next_sequence: i32,
    /// What failed and goes out again when the rest is back.
    failed: Vec<Numbered>,
    /// A batch of those in flight has failed.
    gap: bool,
    flushing: Vec<oneshot::Sender<()>>,
}

impl Sender {
    pub(super) fn new(
        client: Client,
        config: ProducerConfig,
        partition: TopicPartition,
        clock: Clock,
    ) -> Self {
        let accumulator =
            Accumulator::new(config.compression, config.batch_size_bytes, config.linger);
        Self {
            client,
            config,
            partition,
            clock,
            accumulator,
            queue: VecDeque::new(),
            in_flight: FuturesOrdered::new(),
            producer: None,
            is_known: false,
            next_sequence: 0,
            failed: Vec::new(),
            gap: false,
            flushing: Vec::new(),
        }
    }

    fn now(&self) -> Duration {
        self.clock.now().monotonic.0
    }

    /// Runs until the producer is gone and all is delivered.
    pub(super) async fn run(mut self, mut orders: mpsc::UnboundedReceiver<Order>) {
        let mut open = true;
        loop {
            self.send_queued().await;
            if self.is_idle() {
                // Whoever waited for a flush may have gone away.
                self.flushing.drain(..).for_each(|done| {
                    let _told = done.send(());
                });
                if !open {
                    return;
                }
            }
            let deadline = self.accumulator.deadline();
            let linger = async {
                match deadline {
                    Some(at) => {
                        self.clock
                            .sleep_until(callboard_common::Monotonic(at))
                            .await
                    }
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                order = orders.recv(), if open => match order {
                    Some(order) => self.take(order),
                    None => {
                        open = false;
                        self.close_batch();
                    }
                },
                () = linger => self.close_batch(),
                Some(sent) = self.in_flight.next() => self.came_back(sent).await,
            }
        }
    }

    fn is_idle(&self) -> bool {
        self.queue.is_empty()
            && self.in_flight.is_empty()
            && self.failed.is_empty()
            && self.accumulator.deadline().is_none()
    }

    fn take(&mut self, order: Order) {
        match order {
            Order::Record(record) => {
                let now = self.now();
                if let Some(ready) = self.accumulator.push(now, *record) {
                    self.number(ready);
                }
            }
            Order::Flush(done) => {
                self.close_batch();
                self.flushing.push(done);
            }
        }
    }

    fn close_batch(&mut self) {
        if let Some(ready) = self.accumulator.take() {
            self.number(ready);
        }
    }

    fn number(&mut self, ready: Ready<Tell>) {
        let sequence = self.next_sequence;
        self.next_sequence = advance_sequence(sequence, ready.batch.header().record_count);
        self.queue.push_back(Numbered { ready, sequence });
    }

    /// Sends what may be sent now.
    async fn send_queued(&mut self) {
        while self.failed.is_empty() && self.in_flight.len() < self.most_in_flight() {
            self.expire();
            if self.queue.is_empty() {
                return;
            }
            if self.config.idempotent && self.producer.is_none() {
                // Under a new id the numbers begin anew, once all that has old ones is back.
                if !self.in_flight.is_empty() {
                    return;
                }
                if !self.init().await {
                    continue;
                }
            }
            let Some(numbered) = self.queue.pop_front() else {
                return;
            };
            self.send(numbered).await;
        }
    }

    /// A leader that does not know a producer takes any number as its first (KIP-360): until one batch is acknowledged there is
    /// no second that could arrive before it.
    fn most_in_flight(&self) -> usize {
        match self.config.idempotent && !self.is_known {
            true => 1,
            false => self.config.max_in_flight.clamp(1, 5),
        }
    }

    /// Batches that are too old fail; the rest gets new numbers under a new id.
    fn expire(&mut self) {
        let (now, timeout) = (self.now(), self.config.delivery_timeout);
        let mut expired = false;
        while let Some(old) = self
            .queue
            .pop_front_if(|n| now.saturating_sub(n.ready.since) > timeout)
        {
            fail(old, &Error::Timeout);
            expired = true;
        }
        if expired {
            self.renumber();
        }
    }

    /// Begins a new sequence: the broker must not wait for numbers that will never come.
    fn renumber(&mut self) {
        self.producer = None;
        self.next_sequence = 0;
        for numbered in &mut self.queue {
            numbered.sequence = self.next_sequence;
            self.next_sequence = advance_sequence(
                self.next_sequence,
                numbered.ready.batch.header().record_count,
            );
        }
    }

    /// Gets a producer id; waits a little if that fails, and if it will not do better the queue fails.
    async fn init(&mut self) -> bool {
        let request = InitProducer {
            transactional_id: None,
            producer_id: None,
            producer_epoch: -1,
        };
        let inited = self
            .client
            .ask(Lane::Control, request, Duration::ZERO)
            .await;
        let error = match inited {
            Ok(InitedProducer {
                error: ErrorCode::None,
                producer_id,
                producer_epoch,
            }) => {
                self.producer = Some((producer_id, producer_epoch));
                self.is_known = false;
                return true;
            }
            Ok(inited) => Error::refused(inited.error),
            Err(error) => error,
        };
        if error.is_retriable() {
            tokio::time::sleep(self.client.config().retry_backoff).await;
        } else {
            self.queue
                .drain(..)
                .for_each(|numbered| fail(numbered, &error));
        }
        false
    }

    async fn send(&mut self, numbered: Numbered) {
        let batch = match self.producer {
            Some((id, epoch)) => numbered
                .ready
                .batch
                .by_producer(id, epoch, numbered.sequence),
            None => numbered.ready.batch.clone(),
        };
        let partition = ProducePartition {
            partition: self.partition.partition,
            records: batch.bytes().clone().into(),
        };
        let topic = TopicRef::Name(self.partition.topic.as_str().into());
        let timeout_ms =
            i32::try_from(self.client.config().request_timeout.as_millis()).unwrap_or(i32::MAX);
        let acks = match self.config.acks {
            Acks::Leader => WireAcks::Leader,
            Acks::All => WireAcks::All,
        };
        let topics = vec![ProduceTopic {
            topic,
            partitions: vec![partition],
        }];
        let request = Produce {
            acks,
            timeout_ms,
            transactional_id: None,
            topics,
        };
        // The request goes out before the next one is begun: the lane keeps their order.
        let route = Route::Leader(self.partition.clone());
        let lane = Lane::Produce(self.partition.clone());
        match self.client.start_at(&route, lane, request.into()).await {
            Ok((leader, answer)) => {
                let client = self.client.clone();
                self.in_flight.push_back(Box::pin(async move {
                    let result = tokio::select! {
                        answer = leader.wait::<Produced>(answer, Duration::ZERO) => answer.and_then(only),
                        error = client.overtaken(&route, leader.server(), Duration::ZERO) => Err(error),
                    };
                    (numbered, result)
                }));
            }
            Err(error) => self
                .in_flight
                .push_back(Box::pin(std::future::ready((numbered, Err(error))))),
        }
    }

    /// Handles what became of a batch.
    async fn came_back(&mut self, (numbered, result): Sent) {
        let refused = match result {
            Ok(produced) if produced.error == ErrorCode::None => {
                self.is_known = true;
                deliver(numbered, &self.partition, &produced);
                None
            }
            Ok(produced) => {
                let detail = produced.message.map(|m| m.to_string());
                Some((
                    numbered,
                    Error::Refused {
                        code: produced.error,
                        detail,
                    },
                ))
            }
            Err(error) => Some((numbered, error)),
        };
        if let Some((numbered, error)) = refused {
            let follows_a_failure = std::mem::replace(&mut self.gap, true);
            let is_out_of_order = error.code() == Some(ErrorCode::OutOfOrderSequenceNumber);
            // Behind a batch that failed the broker sees a gap, which closes when that batch comes again.
            let is_gap = is_out_of_order && follows_a_failure;
            let in_time =
                self.now().saturating_sub(numbered.ready.since) <= self.config.delivery_timeout;
            // What one replica acknowledged may be gone with it, and with it what this batch continues.
            let lost_before =
                is_out_of_order && !follows_a_failure && self.config.acks == Acks::Leader;
            if (error.is_retriable() || is_gap || lost_before) && in_time {
                self.failed.push(numbered);
                if lost_before {
                    self.producer = None;
                }
            } else {
                let error = if error.is_retriable() || is_gap {
                    Error::Timeout
                } else {
                    error
                };
                fail(numbered, &error);
                if self.config.idempotent {
                    // Its numbers will not come any more.
                    self.failed.iter_mut().for_each(|n| n.sequence = -1);
                    self.producer = None;
                }
            }
        }
        if self.in_flight.is_empty() {
            self.retry().await;
        }
    }

    /// Everything is back: what failed goes to the front of the queue, in order.
    async fn retry(&mut self) {
        self.gap = false;
        let lost_sequence = self.config.idempotent && self.producer.is_none();
        if !self.failed.is_empty() {
            self.client.forget(self.partition.topic.as_str());
            tokio::time::sleep(self.client.config().retry_backoff).await;
            for numbered in std::mem::take(&mut self.failed).into_iter().rev() {
                self.queue.push_front(numbered);
            }
        }
        if lost_sequence {
            self.renumber();
        }
    }
}

/// The one partition of an answer.
fn only(produced: Produced) -> Result<ProducedPartition, Error> {
    let topic = produced.topics.into_iter().next();
    let partition = topic.and_then(|t| t.partitions.into_iter().next());
    partition.ok_or(Error::refused(ErrorCode::UnknownServerError))
}

fn deliver(numbered: Numbered, partition: &TopicPartition, produced: &ProducedPartition) {
    let base = produced.base_offset.unwrap_or_default();
    for (i, tell) in (0..).zip(numbered.ready.tell) {
        let delivery = Delivery {
            partition: partition.clone(),
            offset: base + i,
            append_time: produced.append_time,
        };
        // Who sent it may not wait for it.
        tell.done(Ok(delivery));
    }
}

fn fail(numbered: Numbered, error: &Error) {
    for tell in numbered.ready.tell {
        tell.done(Err(error.clone()));
    }
}
