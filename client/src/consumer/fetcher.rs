//! Reads one partition ahead of the consumer, on a lane of its own.
//!
//! Who says in which rack it stands may be sent by the leader to a replica there (KIP-392). Whatever does not work with that
//! one leads back to the leader, and so does time: the leader knows by then whether there is a better one.

use std::time::Duration;

use bytes::Bytes;
use callboard_common::protocol::TopicRef;
use callboard_common::protocol::fetch::{
    Fetch, FetchPartition, FetchTopic, Fetched, FetchedPartition,
};
use callboard_common::protocol::list_offsets::OffsetTarget;
use callboard_common::record::{Batch, Record};
use callboard_common::{BrokerId, ErrorCode, Offset, TopicPartition};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::StartAt;
use crate::Client;
use crate::config::{ConsumerConfig, OffsetReset};
use crate::connection::Lane;
use crate::error::Error;
use crate::routing::Route;

/// So long a replica is read from before the leader is asked again, as in Kafka (`metadata.max.age.ms`).
const NEARBY_FOR: Duration = Duration::from_mins(5);

/// So long the leader is read from after a replica did not serve: it would name the same one again.
const LEADER_FOR: Duration = Duration::from_secs(30);

/// What was fetched of a partition under one assignment.
#[derive(Debug)]
pub(crate) struct Piece {
    pub(crate) partition: TopicPartition,
    /// Which assignment or seek it belongs to; what is older is dropped.
    pub(crate) version: u64,
    pub(crate) records: Result<Vec<Record>, Error>,
    /// The partition's end when it was fetched.
    pub(crate) high_watermark: Option<Offset>,
    /// Where reading began, told once before anything is read.
    pub(crate) begun_at: Option<Offset>,
}

/// The task of one partition.
pub(crate) struct Fetcher {
    pub(crate) client: Client,
    pub(crate) config: ConsumerConfig,
    pub(crate) partition: TopicPartition,
    pub(crate) version: u64,
    pub(crate) start: StartAt,
    pub(crate) pieces: mpsc::Sender<Piece>,
    /// Who is read from.
    pub(crate) source: Source,
}

/// Who is read from, and until when that is so whatever the leader says.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Source {
    /// The leader, or whom it names.
    Any,
    /// The leader, because the replica that it had named did not serve.
    Leader(Instant),
    /// The replica that the leader has named.
    Replica(BrokerId, Instant),
}

impl Source {
    fn at(self, now: Instant) -> Self {
        match self {
            Self::Leader(until) | Self::Replica(_, until) if until <= now => Self::Any,
            Self::Any | Self::Leader(_) | Self::Replica(..) => self,
        }
    }
}

impl Fetcher {
    /// Fetches until nobody wants more, or an error that does not pass.
    pub(crate) async fn run(mut self) {
        let mut position = match self.position(self.start).await {
            Ok(position) => position,
            Err(error) => return self.give(Err(error), None).await,
        };
        self.tell_begin(position).await;
        loop {
            let fetched = self.fetch(position).await;
            let fetched = self.follow(fetched);
            match fetched {
                Ok(fetched) => match self.take(fetched, &mut position).await {
                    Ok(Some((records, end))) => {
                        if self.pieces.is_closed() {
                            return;
                        }
                        self.give(Ok(records), end).await;
                    }
                    Ok(None) => {}
                    Err(error) if error.is_retriable() => self.pause().await,
                    Err(error) => return self.give(Err(error), None).await,
                },
                Err(error) if error.is_retriable() => self.pause().await,
                Err(error) => return self.give(Err(error), None).await,
            }
            if self.pieces.is_closed() {
                return;
            }
        }
    }

    async fn pause(&self) {
        self.client.forget(self.partition.topic.as_str());
        tokio::time::sleep(self.client.config().retry_backoff).await;
    }

    async fn give(&self, records: Result<Vec<Record>, Error>, high_watermark: Option<Offset>) {
        let (partition, version) = (self.partition.clone(), self.version);
        // A consumer that is gone wants nothing.
        drop(
            self.pieces
                .send(Piece {
                    partition,
                    version,
                    records,
                    high_watermark,
                    begun_at: None,
                })
                .await,
        );
    }

    async fn tell_begin(&self, position: Offset) {
        let piece = Piece {
            partition: self.partition.clone(),
            version: self.version,
            records: Ok(Vec::new()),
            high_watermark: None,
            begun_at: Some(position),
        };
        // A consumer that is gone wants nothing.
        drop(self.pieces.send(piece).await);
    }

    /// Where to begin.
    async fn position(&self, start: StartAt) -> Result<Offset, Error> {
        let target = match start {
            StartAt::Offset(offset) => return Ok(offset),
            StartAt::Beginning => OffsetTarget::Earliest,
            StartAt::End => OffsetTarget::Latest,
            StartAt::Timestamp(timestamp) => OffsetTarget::Timestamp(timestamp),
            StartAt::Reset => match self.config.offset_reset {
                OffsetReset::Earliest => OffsetTarget::Earliest,
                OffsetReset::Latest => OffsetTarget::Latest,
                OffsetReset::None => {
                    return Err(Error::NoOffset {
                        partition: self.partition.to_string(),
                    });
                }
            },
        };
        let admin = self.client.admin();
        match admin.offset(&self.partition, target).await? {
            Some(offset) => Ok(offset),
            // No record is that new: what comes next is.
            None => Ok(admin
                .offset(&self.partition, OffsetTarget::Latest)
                .await?
                .unwrap_or_default()),
        }
    }

    /// Goes to the replica that the leader has named, or back to the leader if that one does not serve.
    fn follow(
        &mut self,
        fetched: Result<FetchedPartition, Error>,
    ) -> Result<FetchedPartition, Error> {
        let from_replica = matches!(self.source, Source::Replica(..));
        let is_served = fetched.as_ref().is_ok_and(|f| f.error == ErrorCode::None);
        if from_replica && !is_served {
            self.source = Source::Leader(Instant::now() + LEADER_FOR);
        }
        let fetched = fetched?;
        if let Some(replica) = fetched.preferred_replica {
            self.source = Source::Replica(replica, Instant::now() + NEARBY_FOR);
        }
        match from_replica && fetched.error == ErrorCode::OffsetOutOfRange {
            // Only the leader knows where the log begins and ends.
            true => Err(Error::refused(ErrorCode::OffsetNotAvailable)),
            false => Ok(fetched),
        }
    }

    async fn fetch(&mut self, position: Offset) -> Result<FetchedPartition, Error> {
        let bytes = i32::try_from(self.config.fetch_bytes).unwrap_or(i32::MAX);
        self.source = self.source.at(Instant::now());
        let rack = self.config.rack.as_deref().map(Into::into);
        let (route, rack) = match self.source {
            Source::Any => (Route::Leader(self.partition.clone()), rack),
            Source::Leader(_) => (Route::Leader(self.partition.clone()), None),
            Source::Replica(replica, _) => (Route::Replica(self.partition.clone(), replica), rack),
        };
        let partition = FetchPartition {
            partition: self.partition.partition,
            current_epoch: None,
            offset: position.get(),
            max_bytes: bytes,
        };
        let topic = TopicRef::Name(self.partition.topic.as_str().into());
        let request = Fetch {
            max_wait_ms: i32::try_from(self.config.fetch_wait.as_millis()).unwrap_or(i32::MAX),
            min_bytes: i32::try_from(self.config.fetch_min_bytes).unwrap_or(i32::MAX),
            max_bytes: bytes,
            rack,
            topics: vec![FetchTopic {
                topic,
                partitions: vec![partition],
            }],
        };
        let lane = Lane::Fetch(self.partition.clone());
        let asking = self
            .client
            .ask_at(&route, lane, request, self.config.fetch_wait);
        let fetched: Fetched = asking.await?;
        let topic = fetched.topics.into_iter().next();
        let partition = topic.and_then(|t| t.partitions.into_iter().next());
        partition.ok_or(Error::refused(ErrorCode::UnknownServerError))
    }

    /// The records of an answer from the position on.
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "every other error is handed on"
    )]
    async fn take(
        &self,
        fetched: FetchedPartition,
        position: &mut Offset,
    ) -> Result<Option<(Vec<Record>, Option<Offset>)>, Error> {
        match fetched.error {
            ErrorCode::None => {}
            ErrorCode::OffsetOutOfRange => {
                *position = self.position(StartAt::Reset).await?;
                return Ok(None);
            }
            error => return Err(Error::refused(error)),
        }
        let mut bytes: Bytes = fetched.records.into_bytes();
        let mut records = Vec::new();
        while !bytes.is_empty() {
            let corrupt = |e: callboard_common::record::BatchError| Error::Corrupt(e.to_string());
            let (batch, rest) = Batch::split(bytes).map_err(corrupt)?;
            bytes = rest;
            if !batch.header().is_control() {
                let all = batch
                    .records(self.config.decompress_limit_bytes)
                    .map_err(corrupt)?;
                records.extend(all.into_iter().filter(|r| r.offset >= *position));
            }
            *position = Offset::checked(batch.header().next_offset())
                .unwrap_or(*position)
                .max(*position);
        }
        Ok((!records.is_empty()).then_some((records, fetched.high_watermark)))
    }
}
