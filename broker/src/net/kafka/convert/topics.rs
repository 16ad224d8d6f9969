//! Metadata, CreateTopics, DeleteTopics, CreatePartitions and DeleteRecords.

use callboard_common::kafka::Text;
use callboard_common::kafka::messages::create_partitions_response::CreatePartitionsTopicResult;
use callboard_common::kafka::messages::create_topics_response::{
    CreatableTopicConfigs, CreatableTopicResult,
};
use callboard_common::kafka::messages::delete_records_response::{
    DeleteRecordsPartitionResult, DeleteRecordsTopicResult,
};
use callboard_common::kafka::messages::delete_topics_response::DeletableTopicResult;
use callboard_common::kafka::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use callboard_common::kafka::messages::{
    CreatePartitionsRequest, CreatePartitionsResponse, CreateTopicsRequest, CreateTopicsResponse,
    DeleteRecordsRequest, DeleteRecordsResponse, DeleteTopicsRequest, DeleteTopicsResponse,
    MetadataRequest, MetadataResponse, create_partitions_request,
};
use callboard_common::protocol::metadata::{
    Metadata, MetadataAnswer, PartitionMetadata, TopicMetadata,
};
use callboard_common::protocol::topics::{
    CreatePartitions, CreateTopics, CreatedPartitions, CreatedTopic, CreatedTopics, DeleteRecords,
    DeleteTopics, DeletedRecords, DeletedTopic, DeletedTopics, NewTopic,
};
use callboard_common::protocol::{Response, TopicRef};
use callboard_common::{BrokerId, ErrorCode, TopicName};

use super::known::Known;
use super::{Answering, Converted, Message, expect};
use crate::api::Resource;

/// Kafka's numbers of where a config comes from.
const DYNAMIC_TOPIC_CONFIG: i8 = 1;
const DEFAULT_CONFIG: i8 = 5;

pub(super) fn metadata(request: MetadataRequest, version: i16) -> Converted {
    let topics = request.topics.map(|topics| {
        let topic =
            |t: callboard_common::kafka::messages::metadata_request::MetadataRequestTopic| match t
                .name
            {
                Some(name) => TopicRef::Name(name),
                None => TopicRef::Id(t.topic_id),
            };
        topics.into_iter().map(topic).collect::<Vec<_>>()
    });
    // Version 0 has no null: there an empty list asks for all.
    let topics = topics.filter(|topics| version > 0 || !topics.is_empty());
    let metadata = Metadata {
        topics,
        auto_create: request.allow_auto_topic_creation,
    };
    let rights = Rights {
        cluster: request.include_cluster_authorized_operations,
        topics: request.include_topic_authorized_operations,
    };
    Converted::Request(metadata.into(), Answering::Metadata(rights))
}

/// Of what the client wants to know what it may do (KIP-430).
#[derive(Clone, Copy, Debug)]
pub(in crate::net::kafka) struct Rights {
    cluster: bool,
    topics: bool,
}

/// What the client may do to a topic, if it wants to know and there is one.
pub(super) fn topic_rights(topic: &TopicMetadata, asked: bool, known: &dyn Known) -> i32 {
    let name = topic.name.as_deref();
    let name = name.filter(|_| asked && topic.error == ErrorCode::None);
    let name = name.and_then(|name| TopicName::new(name).ok());
    known.rights_if_asked(asked, name.as_ref().map(Resource::Topic))
}

pub(super) fn described(
    response: Response,
    version: i16,
    rights: Rights,
    known: &dyn Known,
) -> Message {
    let answer = match expect::<MetadataAnswer>(response) {
        Ok(answer) => answer,
        Err(error) => {
            return Box::new(MetadataResponse {
                error_code: error.number(),
                ..Default::default()
            });
        }
    };
    let ids = |brokers: &[BrokerId]| brokers.iter().map(|b| b.0).collect::<Vec<_>>();
    let partition = |p: &PartitionMetadata| MetadataResponsePartition {
        error_code: p.error.number(),
        partition_index: p.partition,
        leader_id: p.leader.map_or(-1, |l| l.0),
        leader_epoch: p.epoch.0,
        replica_nodes: ids(&p.replicas),
        isr_nodes: ids(&p.isr),
        offline_replicas: Vec::new(),
    };
    let topic = |t: TopicMetadata| MetadataResponseTopic {
        topic_authorized_operations: topic_rights(&t, rights.topics, known),
        error_code: t.error.number(),
        // A topic asked for by an id that is not known has no name; before version 12 there is no null.
        name: t.name.or_else(|| (version < 12).then(Default::default)),
        topic_id: t.id,
        is_internal: t.is_internal,
        partitions: t.partitions.iter().map(partition).collect(),
    };
    let broker = |b: callboard_common::protocol::metadata::BrokerAddress| MetadataResponseBroker {
        node_id: b.id.0,
        host: b.host,
        port: b.port.into(),
        rack: known.rack(b.id),
    };
    Box::new(MetadataResponse {
        cluster_authorized_operations: known
            .rights_if_asked(rights.cluster, Some(Resource::Cluster)),
        brokers: answer.brokers.into_iter().map(broker).collect(),
        cluster_id: Some(answer.cluster_id),
        controller_id: answer.controller.0,
        topics: answer.topics.into_iter().map(topic).collect(),
        ..Default::default()
    })
}

pub(super) fn create(request: CreateTopicsRequest) -> Converted {
    let topic =
        |t: callboard_common::kafka::messages::create_topics_request::CreatableTopic| NewTopic {
            name: t.name,
            // -1 leaves it to the broker (KIP-464).
            partitions: (t.num_partitions != -1).then_some(t.num_partitions),
            replication_factor: (t.replication_factor != -1).then_some(t.replication_factor),
            assignments: t
                .assignments
                .into_iter()
                .map(|a| (a.partition_index, a.broker_ids))
                .collect(),
            configs: t.configs.into_iter().map(|c| (c.name, c.value)).collect(),
        };
    let create = CreateTopics {
        topics: request.topics.into_iter().map(topic).collect(),
        timeout_ms: request.timeout_ms,
        validate_only: request.validate_only,
    };
    Converted::Request(create.into(), Answering::CreateTopics)
}

pub(super) fn created(response: Response) -> Message {
    let created = expect::<CreatedTopics>(response).unwrap_or(CreatedTopics { topics: Vec::new() });
    let config = |(name, value, is_default)| CreatableTopicConfigs {
        name,
        value: Some(value),
        read_only: false,
        config_source: if is_default {
            DEFAULT_CONFIG
        } else {
            DYNAMIC_TOPIC_CONFIG
        },
        is_sensitive: false,
    };
    let topic = |t: CreatedTopic| CreatableTopicResult {
        name: t.name,
        topic_id: t.id,
        error_code: t.error.number(),
        error_message: t.message,
        num_partitions: t.partitions,
        replication_factor: t.replication_factor,
        configs: Some(t.configs.into_iter().map(config).collect()),
        ..Default::default()
    };
    let topics = created.topics.into_iter().map(topic).collect();
    Box::new(CreateTopicsResponse {
        topics,
        ..Default::default()
    })
}

pub(super) fn delete(request: DeleteTopicsRequest, version: i16) -> Converted {
    let topics: Vec<TopicRef> = if version < 6 {
        request
            .topic_names
            .into_iter()
            .map(TopicRef::Name)
            .collect()
    } else {
        let topic =
            |t: callboard_common::kafka::messages::delete_topics_request::DeleteTopicState| match t
                .name
            {
                Some(name) => TopicRef::Name(name),
                None => TopicRef::Id(t.topic_id),
            };
        request.topics.into_iter().map(topic).collect()
    };
    Converted::Request(
        DeleteTopics {
            topics,
            timeout_ms: request.timeout_ms,
        }
        .into(),
        Answering::DeleteTopics,
    )
}

pub(super) fn deleted(response: Response) -> Message {
    let deleted = expect::<DeletedTopics>(response).unwrap_or(DeletedTopics { topics: Vec::new() });
    let topic = |t: DeletedTopic| DeletableTopicResult {
        name: t.name,
        topic_id: t.id,
        error_code: t.error.number(),
        error_message: (t.error != ErrorCode::None).then(|| t.error.message().into()),
    };
    let responses = deleted.topics.into_iter().map(topic).collect();
    Box::new(DeleteTopicsResponse {
        responses,
        ..Default::default()
    })
}

pub(super) fn create_partitions(request: CreatePartitionsRequest) -> Converted {
    let topic = |t: create_partitions_request::CreatePartitionsTopic| {
        let assignments = t
            .assignments
            .map(|a| a.into_iter().map(|a| a.broker_ids).collect());
        (t.name, t.count, assignments)
    };
    let create = CreatePartitions {
        topics: request.topics.into_iter().map(topic).collect(),
        timeout_ms: request.timeout_ms,
        validate_only: request.validate_only,
    };
    Converted::Request(create.into(), Answering::CreatePartitions)
}

pub(super) fn created_partitions(response: Response) -> Message {
    let created = expect::<CreatedPartitions>(response).map_or_else(|_| Vec::new(), |c| c.topics);
    let result = |(name, error, error_message): (_, ErrorCode, _)| CreatePartitionsTopicResult {
        name,
        error_code: error.number(),
        error_message,
    };
    Box::new(CreatePartitionsResponse {
        results: created.into_iter().map(result).collect(),
        ..Default::default()
    })
}

pub(super) fn delete_records(request: DeleteRecordsRequest) -> Converted {
    let (mut partitions, mut asked) = (Vec::new(), Vec::new());
    for topic in request.topics {
        let mut numbers = Vec::with_capacity(topic.partitions.len());
        for partition in topic.partitions {
            // -1 is all that can be read.
            let before = (partition.offset != -1).then_some(partition.offset);
            let topic = TopicRef::Name(topic.name.clone());
            partitions.push((topic, partition.partition_index, before));
            numbers.push(partition.partition_index);
        }
        asked.push((topic.name, numbers));
    }
    let answering = Answering::DeleteRecords(asked);
    Converted::Request(DeleteRecords { partitions }.into(), answering)
}

pub(super) fn deleted_records(response: Response, asked: Vec<(Text, Vec<i32>)>) -> Message {
    let (deleted, error) = match expect::<DeletedRecords>(response) {
        Ok(deleted) => (deleted.partitions, ErrorCode::None),
        Err(error) => (Vec::new(), error),
    };
    let mut results = deleted.into_iter();
    let mut partition = |number: i32| {
        let (error, start) = results.next().unwrap_or((error, None));
        DeleteRecordsPartitionResult {
            partition_index: number,
            low_watermark: start.map_or(-1, callboard_common::Offset::get),
            error_code: error.number(),
        }
    };
    let mut topic = |(name, numbers): (Text, Vec<i32>)| DeleteRecordsTopicResult {
        name,
        partitions: numbers.into_iter().map(&mut partition).collect(),
    };
    Box::new(DeleteRecordsResponse {
        topics: asked.into_iter().map(&mut topic).collect(),
        ..Default::default()
    })
}
