//! Produce, Fetch, ListOffsets and InitProducerId.

use std::sync::Arc;

use bytes::Bytes;
use callboard_common::kafka::messages::fetch_response::{FetchableTopicResponse, PartitionData};
use callboard_common::kafka::messages::list_offsets_response::{
    ListOffsetsPartitionResponse, ListOffsetsTopicResponse,
};
use callboard_common::kafka::messages::produce_response::{
    PartitionProduceResponse, TopicProduceResponse,
};
use callboard_common::kafka::messages::{
    FetchRequest, FetchResponse, InitProducerIdRequest, InitProducerIdResponse, ListOffsetsRequest,
    ListOffsetsResponse, ProduceRequest, ProduceResponse,
};
use callboard_common::protocol::fetch::{
    Fetch, FetchPartition, FetchTopic, Fetched, FetchedPartition,
};
use callboard_common::protocol::list_offsets::{
    ListOffsets, ListOffsetsPartition, ListOffsetsTopic, ListedOffset, ListedOffsets, OffsetTarget,
};
use callboard_common::protocol::produce::{
    Acks, InitProducer, InitedProducer, Produce, ProducePartition, ProduceTopic, Produced,
    ProducedPartition,
};
use callboard_common::protocol::{Response, TopicRef};
use callboard_common::record::{BatchHeader, Compression, HEADER_BYTES};
use callboard_common::{ErrorCode, Offset};
use parking_lot::Mutex;

use super::hints::{FindLeader, Hints};
use super::{Answering, Converted, Message, epoch, epoch_number, expect, topic_fields, topic_ref};
use crate::net::kafka::fetch_session::FetchSessions;

/// Produce versions before this may not carry zstd (KIP-110).
const ZSTD_FROM_VERSION: i16 = 7;
/// Fetch and Produce name topics by id from here on (KIP-516).
const TOPIC_IDS_FROM_VERSION: i16 = 13;

pub(super) fn produce(request: ProduceRequest, version: i16) -> Converted {
    let acks = match request.acks {
        0 => Acks::None,
        1 => Acks::Leader,
        -1 => Acks::All,
        _ => return Converted::Answer(refused_produce(request, ErrorCode::InvalidRequiredAcks)),
    };
    if version < ZSTD_FROM_VERSION
        && request
            .topic_data
            .iter()
            .any(|t| t.partition_data.iter().any(|p| is_zstd(&p.records)))
    {
        return Converted::Answer(refused_produce(
            request,
            ErrorCode::UnsupportedCompressionType,
        ));
    }
    let topics = request.topic_data.into_iter().map(|topic| {
        let partition =
            |p: callboard_common::kafka::messages::produce_request::PartitionProduceData| {
                ProducePartition {
                    partition: p.index,
                    records: p.records.unwrap_or_default().into(),
                }
            };
        ProduceTopic {
            topic: topic_ref(
                version >= TOPIC_IDS_FROM_VERSION,
                topic.name,
                topic.topic_id,
            ),
            partitions: topic.partition_data.into_iter().map(partition).collect(),
        }
    });
    let produce = Produce {
        acks,
        timeout_ms: request.timeout_ms,
        transactional_id: request.transactional_id,
        topics: topics.collect(),
    };
    Converted::Request(
        produce.into(),
        Answering::Produce {
            acks_none: acks == Acks::None,
        },
    )
}

fn is_zstd(records: &Option<Bytes>) -> bool {
    let header = records
        .as_ref()
        .and_then(|r| r.first_chunk::<HEADER_BYTES>());
    header.is_some_and(|h| BatchHeader::read(h).compression() == Some(Compression::Zstd))
}

fn refused_produce(request: ProduceRequest, error: ErrorCode) -> Message {
    let topic = |t: callboard_common::kafka::messages::produce_request::TopicProduceData| {
        TopicProduceResponse {
            name: t.name,
            topic_id: t.topic_id,
            partition_responses: t
                .partition_data
                .iter()
                .map(|p| produced_partition(refused(p.index, error)))
                .collect(),
        }
    };
    let responses = request.topic_data.into_iter().map(topic).collect();
    Box::new(ProduceResponse {
        responses,
        ..Default::default()
    })
}

fn refused(partition: i32, error: ErrorCode) -> ProducedPartition {
    ProducedPartition {
        partition,
        error,
        message: None,
        base_offset: None,
        append_time: None,
        log_start: None,
    }
}

fn produced_partition(p: ProducedPartition) -> PartitionProduceResponse {
    PartitionProduceResponse {
        index: p.partition,
        error_code: p.error.number(),
        base_offset: p.base_offset.map_or(-1, Offset::get),
        log_append_time_ms: p.append_time.unwrap_or(-1),
        log_start_offset: p.log_start.map_or(-1, Offset::get),
        error_message: p.message,
        ..Default::default()
    }
}

pub(super) fn produced(response: Response, leaders: FindLeader<'_>) -> Message {
    let produced = expect::<Produced>(response).unwrap_or(Produced { topics: Vec::new() });
    let mut hints = Hints::new(leaders);
    let topic = |t: callboard_common::protocol::produce::ProducedTopic| {
        let mut partition = |p: ProducedPartition| PartitionProduceResponse {
            current_leader: hints.of_produce(&t.topic, p.partition, p.error),
            ..produced_partition(p)
        };
        let partition_responses = t.partitions.into_iter().map(&mut partition).collect();
        let (name, topic_id) = topic_fields(t.topic);
        TopicProduceResponse {
            name,
            topic_id,
            partition_responses,
        }
    };
    let responses = produced.topics.into_iter().map(topic).collect();
    Box::new(ProduceResponse {
        responses,
        node_endpoints: hints.produce_nodes(),
        ..Default::default()
    })
}

/// Without acknowledgements the client learns of a failure only by losing its connection, as with Kafka.
pub(super) fn produced_silently(response: Response) -> Result<(), ErrorCode> {
    let produced = expect::<Produced>(response)?;
    let mut partitions = produced.topics.iter().flat_map(|t| &t.partitions);
    partitions
        .find(|p| p.error != ErrorCode::None)
        .map_or(Ok(()), |p| Err(p.error))
}

pub(super) fn fetch(
    request: FetchRequest,
    version: i16,
    sessions: &Arc<Mutex<FetchSessions>>,
) -> Converted {
    if request.replica_id >= 0 || request.replica_state.replica_id >= 0 {
        // Followers come through the nodes' own door: from here anybody could forge the high watermark.
        return Converted::Answer(refused_fetch(ErrorCode::ClusterAuthorizationFailed));
    }
    let by_id = version >= TOPIC_IDS_FROM_VERSION;
    let topics = request.topics.into_iter().map(|topic| FetchTopic {
        topic: topic_ref(by_id, topic.topic, topic.topic_id),
        partitions: topic
            .partitions
            .iter()
            .map(|p| FetchPartition {
                partition: p.partition,
                current_epoch: epoch(p.current_leader_epoch),
                offset: p.fetch_offset,
                max_bytes: p.partition_max_bytes,
            })
            .collect(),
    });
    let forgotten = request.forgotten_topics_data.into_iter().flat_map(|topic| {
        let name = topic_ref(by_id, topic.topic, topic.topic_id);
        topic.partitions.into_iter().map(move |p| (name.clone(), p))
    });
    let forgotten: Vec<(TopicRef, i32)> = forgotten.collect();
    let session = (request.session_id, request.session_epoch);
    let taken = sessions
        .lock()
        .request(session, by_id, topics.collect(), &forgotten);
    match taken {
        Ok((kind, topics)) => {
            let (max_wait_ms, min_bytes, max_bytes) =
                (request.max_wait_ms, request.min_bytes, request.max_bytes);
            let fetch = Fetch {
                max_wait_ms,
                min_bytes,
                max_bytes,
                rack: Some(request.rack_id).filter(|rack| !rack.is_empty()),
                topics,
            };
            Converted::Request(
                fetch.into(),
                Answering::Fetch {
                    kind,
                    sessions: sessions.clone(),
                },
            )
        }
        Err(error) => Converted::Answer(refused_fetch(error)),
    }
}

fn refused_fetch(error: ErrorCode) -> Message {
    Box::new(FetchResponse {
        error_code: error.number(),
        ..Default::default()
    })
}

pub(super) fn fetched(
    response: Response,
    kind: crate::net::kafka::fetch_session::Kind,
    sessions: &Mutex<FetchSessions>,
    leaders: FindLeader<'_>,
) -> Message {
    let mut fetched = match expect::<Fetched>(response) {
        Ok(fetched) => fetched,
        Err(error) => return refused_fetch(error),
    };
    let session_id = sessions.lock().response(kind, &mut fetched);
    let partition = |p: FetchedPartition| PartitionData {
        partition_index: p.partition,
        error_code: p.error.number(),
        high_watermark: p.high_watermark.map_or(-1, Offset::get),
        // Without transactions everything up to the high watermark is stable.
        last_stable_offset: p.high_watermark.map_or(-1, Offset::get),
        log_start_offset: p.log_start.map_or(-1, Offset::get),
        aborted_transactions: None,
        // Never null: some clients cannot read that.
        records: Some(p.records.into_bytes()),
        preferred_read_replica: p.preferred_replica.map_or(-1, |b| b.0),
        ..Default::default()
    };
    let mut hints = Hints::new(leaders);
    let topic = |t: callboard_common::protocol::fetch::FetchedTopic| {
        let mut hinted = |p: FetchedPartition| PartitionData {
            current_leader: hints.of_fetch(&t.topic, p.partition, p.error),
            ..partition(p)
        };
        let partitions = t.partitions.into_iter().map(&mut hinted).collect();
        let (topic, topic_id) = topic_fields(t.topic);
        FetchableTopicResponse {
            topic,
            topic_id,
            partitions,
        }
    };
    let responses = fetched.topics.into_iter().map(topic).collect();
    Box::new(FetchResponse {
        session_id,
        responses,
        node_endpoints: hints.fetch_nodes(),
        ..Default::default()
    })
}

fn target(timestamp: i64) -> OffsetTarget {
    match timestamp {
        -1 => OffsetTarget::Latest,
        // Without tiers the earliest local offset is the earliest.
        -2 | -4 => OffsetTarget::Earliest,
        -3 => OffsetTarget::MaxTimestamp,
        -5 | -6 => OffsetTarget::Tiered,
        _ => OffsetTarget::Timestamp(timestamp),
    }
}

pub(super) fn list_offsets(request: ListOffsetsRequest) -> Converted {
    let topics = request.topics.into_iter().map(|topic| ListOffsetsTopic {
        topic: TopicRef::Name(topic.name),
        partitions: topic
            .partitions
            .iter()
            .map(|p| ListOffsetsPartition {
                partition: p.partition_index,
                current_epoch: epoch(p.current_leader_epoch),
                target: target(p.timestamp),
            })
            .collect(),
    });
    Converted::Request(
        ListOffsets {
            topics: topics.collect(),
        }
        .into(),
        Answering::ListOffsets,
    )
}

pub(super) fn listed_offsets(response: Response, version: i16) -> Message {
    let listed = expect::<ListedOffsets>(response).unwrap_or(ListedOffsets { topics: Vec::new() });
    // Older clients do not know the error (KIP-207).
    let error = |error: ErrorCode| match error == ErrorCode::OffsetNotAvailable && version < 5 {
        true => ErrorCode::LeaderNotAvailable,
        false => error,
    };
    let partition = |p: &ListedOffset| ListOffsetsPartitionResponse {
        partition_index: p.partition,
        error_code: error(p.error).number(),
        timestamp: p.timestamp.unwrap_or(-1),
        offset: p.offset.map_or(-1, Offset::get),
        leader_epoch: epoch_number(p.epoch),
    };
    let topics = listed.topics.into_iter().map(|t| ListOffsetsTopicResponse {
        partitions: t.partitions.iter().map(partition).collect(),
        name: topic_fields(t.topic).0,
    });
    Box::new(ListOffsetsResponse {
        topics: topics.collect(),
        ..Default::default()
    })
}

pub(super) fn init_producer(request: InitProducerIdRequest) -> Converted {
    let init = InitProducer {
        transactional_id: request.transactional_id,
        producer_id: (request.producer_id >= 0).then_some(request.producer_id),
        producer_epoch: request.producer_epoch,
    };
    Converted::Request(init.into(), Answering::InitProducer)
}

pub(super) fn inited_producer(response: Response) -> Message {
    let inited = expect::<InitedProducer>(response);
    let inited = inited.unwrap_or_else(|error| InitedProducer {
        error,
        producer_id: -1,
        producer_epoch: -1,
    });
    Box::new(InitProducerIdResponse {
        error_code: inited.error.number(),
        producer_id: inited.producer_id,
        producer_epoch: inited.producer_epoch,
        ..Default::default()
    })
}
