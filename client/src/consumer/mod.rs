//! The consumer: partitions of its own or of its group, read in order.

mod assignor;
mod committing;
mod fetcher;
mod membership;
mod pausing;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use callboard_common::kafka::Text;
use callboard_common::record::{Header, Record};
use callboard_common::{Offset, TopicName, TopicPartition};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use crate::config::ConsumerConfig;
use crate::error::Error;
use crate::interceptor::ConsumerInterceptor;
use crate::{Client, spawn};
use fetcher::{Fetcher, Piece, Source};
use membership::Membership;

/// A record that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsumedRecord {
    /// Where it stands.
    pub partition: TopicPartition,
    /// Its offset.
    pub offset: Offset,
    /// Milliseconds since the Unix epoch.
    pub timestamp: i64,
    /// Its key.
    pub key: Option<Bytes>,
    /// Its value.
    pub value: Option<Bytes>,
    /// Its headers, in order.
    pub headers: Vec<Header>,
    /// The partition's end when it was fetched, if known: tells how far behind the consumer is.
    pub high_watermark: Option<Offset>,
}

/// Where to read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartAt {
    /// The first record.
    Beginning,
    /// After the last record.
    End,
    /// This offset.
    Offset(Offset),
    /// The first record that is not older than this, in milliseconds since the Unix epoch.
    Timestamp(i64),
    /// Where [`offset_reset`](ConsumerConfig::offset_reset) says.
    Reset,
}

/// Hears of rebalances. Called in the consumer's task: return soon.
pub trait RebalanceListener: Send + Sync + 'static {
    /// These partitions will not be read any more by this consumer; offsets of what was received were committed if
    /// they are committed by time.
    fn revoked(&self, partitions: &[TopicPartition]);

    /// These partitions are read from now on.
    fn assigned(&self, partitions: &[TopicPartition]);
}

struct Silent;

impl RebalanceListener for Silent {
    fn revoked(&self, _partitions: &[TopicPartition]) {}
    fn assigned(&self, _partitions: &[TopicPartition]) {}
}

/// What the group's task tells the consumer.
enum GroupEvent {
    /// The group rebalances: nothing may be read until the answer was given and a new assignment comes.
    Revoke(oneshot::Sender<()>),
    /// These partitions are the consumer's.
    Assign {
        partitions: Vec<TopicPartition>,
        membership: Box<Membership>,
    },
    /// Membership is lost for good.
    Failed(Error),
}

/// Reads records of its partitions. Made by [`Consumer::subscribe`] or [`Consumer::assign`].
pub struct Consumer {
    client: Client,
    config: ConsumerConfig,
    listener: Arc<dyn RebalanceListener>,
    interceptor: Option<Arc<dyn ConsumerInterceptor>>,
    /// Counts assignments and seeks.
    version: u64,
    /// What is read, under which version.
    reading: BTreeMap<TopicPartition, (u64, JoinHandle<()>)>,
    /// Where each partition was begun.
    starts: BTreeMap<TopicPartition, StartAt>,
    /// What is assigned and not read for a while, and where it goes on.
    paused: BTreeMap<TopicPartition, StartAt>,
    /// Each partition's end when it was fetched last.
    ends: BTreeMap<TopicPartition, Offset>,
    /// Who wants to know how far behind the consumer is.
    lags: watch::Sender<BTreeMap<TopicPartition, i64>>,
    pieces: mpsc::Receiver<Piece>,
    piece_sender: mpsc::Sender<Piece>,
    buffered: VecDeque<ConsumedRecord>,
    /// The next record to be received, by partition.
    positions: BTreeMap<TopicPartition, Offset>,
    /// Positions that were committed.
    committed: BTreeMap<TopicPartition, Offset>,
    /// The record handed out last: it counts as done when the next one is asked for.
    last: Option<(TopicPartition, Offset)>,
    group: Option<GroupTask>,
    /// What the group told last, until all that it asks for is done: the future that did it may be dropped.
    event: Option<GroupEvent>,
    commit_at: Option<tokio::time::Instant>,
}

struct GroupTask {
    events: mpsc::Receiver<GroupEvent>,
    membership: Membership,
    stop: mpsc::Sender<()>,
    task: JoinHandle<()>,
}

impl std::fmt::Debug for Consumer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Consumer")
            .field("config", &self.config)
            .field("positions", &self.positions)
            .finish_non_exhaustive()
    }
}

impl Consumer {
    /// Joins a group that reads these topics; the group shares their partitions.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] if no group is set or a topic's name is invalid.
    pub async fn subscribe<T: AsRef<str>>(
        client: &Client,
        config: ConsumerConfig,
        topics: impl IntoIterator<Item = T>,
    ) -> Result<Self, Error> {
        Self::subscribe_with(client, config, topics, Arc::new(Silent)).await
    }

    /// As [`Consumer::subscribe`], and tells a listener of rebalances.
    ///
    /// # Errors
    ///
    /// As [`Consumer::subscribe`].
    pub async fn subscribe_with<T: AsRef<str>>(
        client: &Client,
        config: ConsumerConfig,
        topics: impl IntoIterator<Item = T>,
        listener: Arc<dyn RebalanceListener>,
    ) -> Result<Self, Error> {
        let group = config
            .group
            .clone()
            .ok_or_else(|| Error::Config("a subscription needs a group".into()))?;
        let names: Result<BTreeSet<TopicName>, _> = topics
            .into_iter()
            .map(|t| TopicName::new(t.as_ref()))
            .collect();
        let topics = names.map_err(|e| Error::Config(e.to_string()))?;
        let mut consumer = Self::new(client, config, listener);
        let membership = Membership::new(client, &group, &consumer.config);
        let (told, events) = mpsc::channel(1);
        let (stop, stopped) = mpsc::channel(1);
        let task = spawn::spawn(run_group(
            membership.clone(),
            topics,
            consumer.config.heartbeat,
            told,
            stopped,
        ));
        consumer.group = Some(GroupTask {
            events,
            membership,
            stop,
            task,
        });
        consumer.commit_at = consumer
            .config
            .auto_commit
            .map(|every| tokio::time::Instant::now() + every);
        Ok(consumer)
    }

    /// Reads these partitions, from where each says, without sharing them.
    #[must_use]
    pub fn assign(
        client: &Client,
        config: ConsumerConfig,
        partitions: impl IntoIterator<Item = (TopicPartition, StartAt)>,
    ) -> Self {
        let mut consumer = Self::new(client, config, Arc::new(Silent));
        for (partition, start) in partitions {
            consumer.read(partition, start);
        }
        consumer
    }

    fn new(client: &Client, config: ConsumerConfig, listener: Arc<dyn RebalanceListener>) -> Self {
        let (piece_sender, pieces) = mpsc::channel(config.buffered_fetches.max(1));
        Self {
            client: client.clone(),
            config,
            listener,
            interceptor: None,
            version: 0,
            reading: BTreeMap::new(),
            starts: BTreeMap::new(),
            paused: BTreeMap::new(),
            ends: BTreeMap::new(),
            lags: watch::Sender::default(),
            pieces,
            piece_sender,
            buffered: VecDeque::new(),
            positions: BTreeMap::new(),
            committed: BTreeMap::new(),
            last: None,
            group: None,
            event: None,
            commit_at: None,
        }
    }

    /// Begins to read a partition, anew if it was read already.
    fn read(&mut self, partition: TopicPartition, start: StartAt) {
        self.version += 1;
        self.buffered.retain(|r| r.partition != partition);
        let _before = self.paused.remove(&partition);
        let _before = self.starts.insert(partition.clone(), start);
        let fetcher = Fetcher {
            client: self.client.clone(),
            config: self.config.clone(),
            partition: partition.clone(),
            version: self.version,
            start,
            pieces: self.piece_sender.clone(),
            source: Source::Any,
        };
        match start {
            StartAt::Offset(offset) => drop(self.positions.insert(partition.clone(), offset)),
            StartAt::Beginning | StartAt::End | StartAt::Timestamp(_) | StartAt::Reset => {
                let _unknown = self.positions.remove(&partition);
            }
        }
        let task = spawn::spawn(fetcher.run());
        if let Some((_, old)) = self.reading.insert(partition, (self.version, task)) {
            old.abort();
        }
    }

    fn stop_reading(&mut self) -> Vec<TopicPartition> {
        let reading = std::mem::take(&mut self.reading);
        let paused = std::mem::take(&mut self.paused);
        self.buffered.clear();
        self.positions.clear();
        self.committed.clear();
        self.starts.clear();
        self.ends.clear();
        self.last = None;
        let stop = |(partition, (_, task)): (TopicPartition, (u64, JoinHandle<()>))| {
            task.abort();
            partition
        };
        let mut stopped: Vec<TopicPartition> = reading.into_iter().map(stop).collect();
        stopped.extend(paused.into_keys());
        stopped
    }

    /// Receives the next record; waits for one if there is none. Records of a partition come in order.
    ///
    /// The record before counts as done now: it is what a commit covers.
    ///
    /// # Errors
    ///
    /// - [`Error::NoOffset`]: a partition has no position and the settings choose none.
    /// - [`Error::Corrupt`]: a batch is damaged; the partition is not read further.
    /// - [`Error::Refused`], [`Error::Connection`]: an error that does not pass.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: no record is lost if the future is dropped before it is ready.
    pub async fn recv(&mut self) -> Result<ConsumedRecord, Error> {
        self.finish_last();
        loop {
            if let Some(record) = self.buffered.pop_front() {
                self.last = Some((record.partition.clone(), record.offset + 1));
                if self.buffered.is_empty() {
                    self.show_lag();
                }
                return Ok(self.handed_out(record));
            }
            self.finish_event().await?;
            let commit_at = self.commit_at;
            let commit_due = async {
                match commit_at {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            let event = async {
                match &mut self.group {
                    Some(group) => group.events.recv().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                event = event => self.event = Some(event.ok_or(Error::Closed)?),
                () = commit_due => self.commit_by_time().await?,
                piece = self.pieces.recv() => self.take(piece.ok_or(Error::Closed)?)?,
            }
        }
    }

    /// Shows every record to a hook before it is handed out, and what is committed.
    pub fn intercept(&mut self, interceptor: impl ConsumerInterceptor) {
        self.interceptor = Some(Arc::new(interceptor));
    }

    fn handed_out(&self, record: ConsumedRecord) -> ConsumedRecord {
        let size = |bytes: &Option<Bytes>| bytes.as_ref().map_or(0, Bytes::len);
        self.client
            .counters()
            .received(size(&record.key) + size(&record.value));
        match &self.interceptor {
            Some(interceptor) => interceptor.on_receive(record),
            None => record,
        }
    }

    /// The records as a stream that ends with the first error.
    pub fn stream(&mut self) -> impl futures::Stream<Item = Result<ConsumedRecord, Error>> + '_ {
        futures::stream::unfold((self, false), |(consumer, ended)| async move {
            if ended {
                return None;
            }
            let received = consumer.recv().await;
            let failed = received.is_err();
            Some((received, (consumer, failed)))
        })
    }

    /// The record handed out last is done.
    fn finish_last(&mut self) {
        if let Some((partition, next)) = self.last.take() {
            let _before = self.positions.insert(partition, next);
        }
    }

    fn take(&mut self, piece: Piece) -> Result<(), Error> {
        let is_current = self
            .reading
            .get(&piece.partition)
            .is_some_and(|(version, _)| *version == piece.version);
        if !is_current {
            return Ok(());
        }
        if let Some(begun_at) = piece.begun_at {
            let start = StartAt::Offset(begun_at);
            let _before = self.starts.insert(piece.partition.clone(), start);
        }
        if let Some(end) = piece.high_watermark {
            let _before = self.ends.insert(piece.partition.clone(), end);
        }
        let consumed = |r: Record| ConsumedRecord {
            partition: piece.partition.clone(),
            offset: r.offset,
            timestamp: r.timestamp,
            key: r.key,
            value: r.value,
            headers: r.headers,
            high_watermark: piece.high_watermark,
        };
        self.buffered
            .extend(piece.records?.into_iter().map(consumed));
        self.show_lag();
        Ok(())
    }

    /// Does what the group's last event asks for. An event is taken only when nothing of it has to be waited for any
    /// more: after an error, or if this future is dropped, the next call does it.
    async fn finish_event(&mut self) -> Result<(), Error> {
        self.overtake_event();
        let mut committed = BTreeMap::new();
        match &self.event {
            Some(GroupEvent::Revoke(_)) if self.config.auto_commit.is_some() => {
                // Whoever reads on begins where this one ended; without a commit it reads some again.
                drop(self.commit_positions().await);
            }
            Some(GroupEvent::Assign { partitions, .. }) => {
                committed = self.fetch_committed(partitions).await?;
            }
            Some(GroupEvent::Revoke(_) | GroupEvent::Failed(_)) | None => {}
        }
        match self.event.take() {
            Some(GroupEvent::Revoke(done)) => {
                let revoked = self.stop_reading();
                if !revoked.is_empty() {
                    self.listener.revoked(&revoked);
                }
                let _told = done.send(());
            }
            Some(GroupEvent::Assign {
                partitions,
                membership,
            }) => self.begin_reading(partitions, *membership, committed),
            Some(GroupEvent::Failed(error)) => return Err(error),
            None => {}
        }
        Ok(())
    }

    /// An assignment that was not begun is nothing any more when the group says something else.
    fn overtake_event(&mut self) {
        let Some(group) = &mut self.group else { return };
        if matches!(self.event, Some(GroupEvent::Assign { .. }))
            && let Ok(newer) = group.events.try_recv()
        {
            self.event = Some(newer);
        }
    }

    fn begin_reading(
        &mut self,
        partitions: Vec<TopicPartition>,
        membership: Membership,
        committed: BTreeMap<TopicPartition, Offset>,
    ) {
        if let Some(group) = &mut self.group {
            group.membership = membership;
        }
        self.listener.assigned(&partitions);
        for partition in partitions {
            let start = committed
                .get(&partition)
                .map_or(StartAt::Reset, |o| StartAt::Offset(*o));
            self.read(partition, start);
        }
        self.committed = committed;
    }

    /// Reads a partition from another place from now on.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] if the partition is not this consumer's.
    pub fn seek(&mut self, partition: &TopicPartition, to: StartAt) -> Result<(), Error> {
        if let Some(start) = self.paused.get_mut(partition) {
            *start = to;
            self.last.take_if(|(p, _)| p == partition);
            let _position = match to {
                StartAt::Offset(offset) => self.positions.insert(partition.clone(), offset),
                StartAt::Beginning | StartAt::End | StartAt::Timestamp(_) | StartAt::Reset => {
                    self.positions.remove(partition)
                }
            };
            return Ok(());
        }
        if !self.reading.contains_key(partition) {
            return Err(Error::Config(format!(
                "{partition} is not assigned to this consumer"
            )));
        }
        if self.last.as_ref().is_some_and(|(p, _)| p == partition) {
            self.last = None;
        }
        self.read(partition.clone(), to);
        Ok(())
    }

    /// Reads all partitions from another place from now on: [`StartAt::Beginning`] replays everything.
    pub fn seek_all(&mut self, to: StartAt) {
        self.last = None;
        self.paused.values_mut().for_each(|start| *start = to);
        let partitions: Vec<TopicPartition> = self.reading.keys().cloned().collect();
        partitions
            .into_iter()
            .for_each(|partition| self.read(partition, to));
    }

    /// The partitions that are read or paused, sorted.
    #[must_use]
    pub fn assignment(&self) -> Vec<TopicPartition> {
        let all = self.reading.keys().chain(self.paused.keys());
        let sorted: BTreeSet<TopicPartition> = all.cloned().collect();
        sorted.into_iter().collect()
    }

    /// The next record to be received of a partition, once one was received or committed.
    #[must_use]
    pub fn position(&self, partition: &TopicPartition) -> Option<Offset> {
        let last = self
            .last
            .as_ref()
            .filter(|(p, _)| p == partition)
            .map(|(_, next)| *next);
        last.or_else(|| self.positions.get(partition).copied())
    }

    /// The member's id in its group; empty without one.
    #[must_use]
    pub fn member(&self) -> Text {
        self.group
            .as_ref()
            .map(|g| g.membership.member.clone())
            .unwrap_or_default()
    }

    /// Commits what was received, if offsets are committed by time, leaves the group and ends.
    ///
    /// # Errors
    ///
    /// What the commit says; the consumer has left all the same.
    pub async fn close(mut self) -> Result<(), Error> {
        self.finish_last();
        let committed = match (&self.group, self.config.auto_commit) {
            (Some(_), Some(_)) => self.commit_positions().await,
            _ => Ok(()),
        };
        let _revoked = self.stop_reading();
        if let Some(group) = self.group.take() {
            let _told = group.stop.send(()).await;
            drop(tokio::time::timeout(Duration::from_secs(5), group.task).await);
        }
        committed
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        let _revoked = self.stop_reading();
        if let Some(group) = self.group.take() {
            // Without a farewell the session ends by silence.
            group.task.abort();
        }
    }
}

/// Keeps the membership: joins, tells the consumer, sends heartbeats, joins again.
async fn run_group(
    mut membership: Membership,
    topics: BTreeSet<TopicName>,
    heartbeat: Duration,
    told: mpsc::Sender<GroupEvent>,
    mut stopped: mpsc::Receiver<()>,
) {
    let keeping = async {
        loop {
            let joined = membership.join(&topics).await;
            let event = match joined {
                Ok(partitions) => GroupEvent::Assign {
                    partitions,
                    membership: Box::new(membership.clone()),
                },
                Err(error) => GroupEvent::Failed(error),
            };
            let failed = matches!(event, GroupEvent::Failed(_));
            if told.send(event).await.is_err() || failed {
                return;
            }
            let mut silent_since = None;
            loop {
                tokio::time::sleep(heartbeat).await;
                match membership.heartbeat().await {
                    Ok(true) => silent_since = None,
                    Ok(false) => break,
                    Err(error) if error.is_retriable() => {
                        // While the broker is away the member keeps what it has; it joins again if it is forgotten.
                        let _since = silent_since.get_or_insert_with(tokio::time::Instant::now);
                    }
                    Err(error) => {
                        drop(told.send(GroupEvent::Failed(error)).await);
                        return;
                    }
                }
            }
            let (done, revoked) = oneshot::channel();
            if told.send(GroupEvent::Revoke(done)).await.is_err() {
                return;
            }
            // Until the consumer has let go, nobody else may be given its partitions.
            drop(revoked.await);
        }
    };
    tokio::select! {
        () = keeping => {}
        _ = stopped.recv() => {}
    }
    // The group need not wait for the session to end; if it cannot be told, it does.
    drop(membership.leave().await);
}
