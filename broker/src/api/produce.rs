//! Produce: batches parsed, split by partition, handed to their leaders in the order in which they came.

use std::future::Future;

use bytes::Bytes;
use callboard_common::protocol::Response;
use callboard_common::protocol::produce::{
    Acks, InitProducer, InitedProducer, Produce, Produced, ProducedPartition, ProducedTopic,
};
use callboard_common::protocol::security::ResourceKind;
use callboard_common::record::producers::SequenceError;
use callboard_common::record::{Batch, BatchError};
use callboard_common::{ErrorCode, TopicPartition};
use tokio::sync::oneshot;

use super::{Api, Caller, Operation, Resource, or_timeout, timeout};
use crate::controller::{Command, Outcome};
use crate::leader::actor;
use crate::leader::{Acks as LeaderAcks, Appended, ProduceError};
use crate::supervision;

/// Producer ids that a node takes from the controller at once.
const PRODUCER_ID_BLOCK: i64 = 1000;

type Waiting = oneshot::Receiver<Result<Appended, ProduceError>>;

/// Sends every batch to its leader before it returns.
pub(super) fn start(
    api: &Api,
    caller: &Caller,
    produce: Produce,
) -> impl Future<Output = Produced> + Send + 'static {
    let image = api.image();
    let acks = match produce.acks {
        Acks::None => LeaderAcks::None,
        Acks::Leader => LeaderAcks::Leader,
        Acks::All => LeaderAcks::All,
    };
    let mut waiting = Vec::with_capacity(produce.topics.len());
    for topic in produce.topics {
        let name = api
            .topic(caller, Operation::Write, &image, &topic.topic)
            .map(|(name, _)| name);
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for partition in topic.partitions {
            let number = partition.partition;
            let sent = name.clone().map_err(Refused::from).and_then(|name| {
                let partition_of = TopicPartition::new(name, number);
                send(
                    api,
                    caller,
                    partition_of,
                    partition.records.into_bytes(),
                    acks,
                )
            });
            partitions.push((number, sent));
        }
        waiting.push((topic.topic, partitions));
    }
    let patience = timeout(produce.timeout_ms);
    let clock = api.shared().clock.clone();
    async move {
        let mut topics = Vec::with_capacity(waiting.len());
        let deadline = clock.now().monotonic.after(patience);
        for (topic, sent) in waiting {
            let mut partitions = Vec::with_capacity(sent.len());
            for (number, sent) in sent {
                let result = match sent {
                    Ok(waiting) => match or_timeout(waiting, clock.sleep_until(deadline)).await {
                        Some(result) => result
                            .unwrap_or(Err(ProduceError::LeaderStopped))
                            .map_err(Refused::from),
                        None => Err(Refused::from(ErrorCode::RequestTimedOut)),
                    },
                    Err(refused) => Err(refused),
                };
                partitions.push(answer(number, result));
            }
            topics.push(ProducedTopic { topic, partitions });
        }
        Produced { topics }
    }
}

/// Why a batch was not appended.
struct Refused {
    error: ErrorCode,
    message: Option<String>,
}

impl From<ErrorCode> for Refused {
    fn from(error: ErrorCode) -> Self {
        Self {
            error,
            message: None,
        }
    }
}

impl From<BatchError> for Refused {
    fn from(error: BatchError) -> Self {
        Self {
            error: batch_error_code(&error),
            message: Some(error.to_string()),
        }
    }
}

impl From<ProduceError> for Refused {
    fn from(error: ProduceError) -> Self {
        Self {
            error: error_code(&error),
            message: Some(error.to_string()),
        }
    }
}

fn batch_error_code(error: &BatchError) -> ErrorCode {
    match error {
        BatchError::Truncated { .. } | BatchError::Length(_) | BatchError::Checksum { .. } => {
            ErrorCode::CorruptMessage
        }
        BatchError::TrailingBytes(_) | BatchError::Records(_) => ErrorCode::InvalidRecord,
        BatchError::Magic(_) => ErrorCode::UnsupportedForMessageFormat,
        BatchError::Codec(_) => ErrorCode::UnsupportedCompressionType,
        BatchError::Decompress(_) => ErrorCode::CorruptMessage,
    }
}

fn error_code(error: &ProduceError) -> ErrorCode {
    match error {
        ProduceError::BatchTooLarge { .. } => ErrorCode::MessageTooLarge,
        ProduceError::TimestampOutOfRange { .. } => ErrorCode::InvalidTimestamp,
        ProduceError::Sequence(SequenceError::OutOfOrder { .. }) => {
            ErrorCode::OutOfOrderSequenceNumber
        }
        ProduceError::Sequence(SequenceError::OldEpoch { .. }) => ErrorCode::InvalidProducerEpoch,
        ProduceError::NotEnoughReplicas { .. } => ErrorCode::NotEnoughReplicas,
        ProduceError::DiskFull => ErrorCode::KafkaStorageError,
        ProduceError::Fenced { .. } => ErrorCode::FencedLeaderEpoch,
        ProduceError::LeaderStopped => ErrorCode::NotLeaderOrFollower,
    }
}

fn send(
    api: &Api,
    caller: &Caller,
    partition: TopicPartition,
    records: Bytes,
    acks: LeaderAcks,
) -> Result<Waiting, Refused> {
    let leader = api.leader(&partition)?;
    let batch = Batch::parse(records)?;
    if batch.header().is_control() || batch.header().is_transactional() {
        let message = Some(
            "control and transactional batches are not accepted: there are no transactions".into(),
        );
        return Err(Refused {
            error: ErrorCode::InvalidRecord,
            message,
        });
    }
    if batch.header().producer_id >= 0
        && (batch.header().producer_epoch < 0 || batch.header().base_sequence < 0)
    {
        let message = Some("a producer id without epoch and sequence number".into());
        return Err(Refused {
            error: ErrorCode::InvalidRecord,
            message,
        });
    }
    let epoch = leader.epoch().ok_or(ErrorCode::NotLeaderOrFollower)?;
    let (reply, waiting) = oneshot::channel();
    let permit = caller.permit.clone();
    supervision::tell(
        &leader.actor,
        actor::Produce {
            batch,
            acks,
            epoch,
            permit,
            reply,
        },
    );
    Ok(waiting)
}

fn answer(partition: i32, result: Result<Appended, Refused>) -> ProducedPartition {
    match result {
        Ok(appended) => ProducedPartition {
            partition,
            error: ErrorCode::None,
            message: None,
            base_offset: Some(appended.base),
            append_time: appended.append_time,
            log_start: Some(appended.log_start),
        },
        Err(refused) => ProducedPartition {
            partition,
            error: refused.error,
            message: refused.message.map(Into::into),
            base_offset: None,
            append_time: None,
            log_start: None,
        },
    }
}

/// Gives out a producer id, or the next epoch of one.
pub(super) async fn init(api: &Api, caller: &Caller, init: InitProducer) -> Response {
    let refuse = |error| InitedProducer {
        error,
        producer_id: -1,
        producer_epoch: -1,
    };
    let answer = if init.transactional_id.is_some() {
        // There are no transactions, and no client may believe that there are.
        refuse(ErrorCode::TransactionalIdAuthorizationFailed)
    } else if !api.allows(caller, Operation::IdempotentWrite, Resource::Cluster)
        && !api.allows_any(caller, Operation::Write, ResourceKind::Topic)
    {
        refuse(ErrorCode::ClusterAuthorizationFailed)
    } else {
        match (init.producer_id, init.producer_epoch) {
            (Some(producer_id), epoch) if (0..i16::MAX).contains(&epoch) => InitedProducer {
                error: ErrorCode::None,
                producer_id,
                producer_epoch: epoch + 1,
            },
            _ => match next_producer_id(api).await {
                Some(producer_id) => InitedProducer {
                    error: ErrorCode::None,
                    producer_id,
                    producer_epoch: 0,
                },
                None => refuse(ErrorCode::CoordinatorNotAvailable),
            },
        }
    };
    Response::InitProducer(answer)
}

async fn next_producer_id(api: &Api) -> Option<i64> {
    loop {
        {
            let mut ids = api.0.producer_ids.lock();
            if ids.0 < ids.1 {
                ids.0 += 1;
                return Some(ids.0 - 1);
            }
        }
        let broker = api.shared().broker;
        let command = Command::AllocateProducerIds {
            broker,
            count: PRODUCER_ID_BLOCK,
        };
        let Ok(Outcome::ProducerIds { first }) = api.propose(command).await else {
            return None;
        };
        // Of two blocks that were asked for at once the rest of one is given up.
        *api.0.producer_ids.lock() = (first, first + PRODUCER_ID_BLOCK);
    }
}
