//! OffsetCommit and OffsetFetch.

use callboard_common::kafka::Text;
use callboard_common::kafka::messages::offset_commit_response::{
    OffsetCommitResponsePartition, OffsetCommitResponseTopic,
};
use callboard_common::kafka::messages::offset_fetch_response::{
    OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponsePartitions,
    OffsetFetchResponseTopic, OffsetFetchResponseTopics,
};
use callboard_common::kafka::messages::{
    OffsetCommitRequest, OffsetCommitResponse, OffsetFetchRequest, OffsetFetchResponse,
};
use callboard_common::protocol::offsets::{
    CommitOffsets, CommitPartition, CommitTopic, CommittedOffsets, FetchGroupOffsets, FetchOffsets,
    FetchedGroupOffsets, FetchedOffset, FetchedOffsets,
};
use callboard_common::protocol::{Response, TopicRef};
use callboard_common::{ErrorCode, Offset};

use super::{Answering, Converted, Message, epoch, epoch_number, expect, topic_fields, topic_ref};

/// Topics are named by id from here on.
const TOPIC_IDS_FROM_VERSION: i16 = 10;
/// Several groups are asked for at once from here on (KIP-709).
const GROUPS_FROM_VERSION: i16 = 8;

pub(super) fn commit(request: OffsetCommitRequest, version: i16) -> Converted {
    let topic =
        |t: callboard_common::kafka::messages::offset_commit_request::OffsetCommitRequestTopic| {
            CommitTopic {
                topic: topic_ref(version >= TOPIC_IDS_FROM_VERSION, t.name, t.topic_id),
                partitions: t
                    .partitions
                    .into_iter()
                    .map(|p| CommitPartition {
                        partition: p.partition_index,
                        offset: p.committed_offset,
                        epoch: epoch(p.committed_leader_epoch),
                        metadata: p.committed_metadata.unwrap_or_default(),
                    })
                    .collect(),
            }
        };
    let commit = CommitOffsets {
        group: request.group_id,
        generation: request.generation_id_or_member_epoch,
        member: request.member_id,
        instance: request.group_instance_id,
        topics: request.topics.into_iter().map(topic).collect(),
    };
    Converted::Request(commit.into(), Answering::CommitOffsets)
}

pub(super) fn committed(response: Response) -> Message {
    let committed =
        expect::<CommittedOffsets>(response).unwrap_or(CommittedOffsets { topics: Vec::new() });
    let topic = |(topic, partitions): (TopicRef, Vec<(i32, ErrorCode)>)| {
        let (name, topic_id) = topic_fields(topic);
        let partition =
            |(partition_index, error): (i32, ErrorCode)| OffsetCommitResponsePartition {
                partition_index,
                error_code: error.number(),
            };
        OffsetCommitResponseTopic {
            name,
            topic_id,
            partitions: partitions.into_iter().map(partition).collect(),
        }
    };
    let topics = committed.topics.into_iter().map(topic).collect();
    Box::new(OffsetCommitResponse {
        topics,
        ..Default::default()
    })
}

pub(super) fn fetch(request: OffsetFetchRequest, version: i16) -> Converted {
    let groups = if version < GROUPS_FROM_VERSION {
        let topics = request.topics.map(|topics| {
            topics
                .into_iter()
                .map(|t| (TopicRef::Name(t.name), t.partition_indexes))
                .collect::<Vec<_>>()
        });
        vec![FetchGroupOffsets {
            group: request.group_id,
            topics,
        }]
    } else {
        let group = |g: callboard_common::kafka::messages::offset_fetch_request::OffsetFetchRequestGroup| {
            let by_id = version >= TOPIC_IDS_FROM_VERSION;
            let topics = g.topics.map(|topics| {
                let topic = |t: callboard_common::kafka::messages::offset_fetch_request::OffsetFetchRequestTopics| {
                    (topic_ref(by_id, t.name, t.topic_id), t.partition_indexes)
                };
                topics.into_iter().map(topic).collect()
            });
            FetchGroupOffsets { group: g.group_id, topics }
        };
        request.groups.into_iter().map(group).collect()
    };
    let by_id = version >= TOPIC_IDS_FROM_VERSION;
    Converted::Request(
        FetchOffsets { groups, by_id }.into(),
        Answering::FetchOffsets,
    )
}

pub(super) fn fetched(response: Response, version: i16) -> Message {
    let (mut groups, error) = match expect::<FetchedOffsets>(response) {
        Ok(fetched) => (fetched.groups, ErrorCode::None),
        Err(error) => (Vec::new(), error),
    };
    if version >= GROUPS_FROM_VERSION {
        let groups = groups.into_iter().map(group).collect();
        return Box::new(OffsetFetchResponse {
            groups,
            ..Default::default()
        });
    }
    let none = FetchedGroupOffsets {
        group: Text::default(),
        error,
        topics: Vec::new(),
    };
    let one = groups.pop().unwrap_or(none);
    let partition = |o: FetchedOffset| OffsetFetchResponsePartition {
        partition_index: o.partition,
        committed_offset: o.offset.map_or(-1, Offset::get),
        committed_leader_epoch: epoch_number(o.epoch),
        metadata: Some(o.metadata),
        error_code: o.error.number(),
    };
    let topic = |(topic, offsets): (TopicRef, Vec<FetchedOffset>)| OffsetFetchResponseTopic {
        name: topic_fields(topic).0,
        partitions: offsets.into_iter().map(partition).collect(),
    };
    Box::new(OffsetFetchResponse {
        topics: one.topics.into_iter().map(topic).collect(),
        error_code: one.error.number(),
        ..Default::default()
    })
}

fn group(fetched: FetchedGroupOffsets) -> OffsetFetchResponseGroup {
    let partition = |o: FetchedOffset| OffsetFetchResponsePartitions {
        partition_index: o.partition,
        committed_offset: o.offset.map_or(-1, Offset::get),
        committed_leader_epoch: epoch_number(o.epoch),
        metadata: Some(o.metadata),
        error_code: o.error.number(),
    };
    let topic = |(topic, offsets): (TopicRef, Vec<FetchedOffset>)| {
        let (name, topic_id) = topic_fields(topic);
        OffsetFetchResponseTopics {
            name,
            topic_id,
            partitions: offsets.into_iter().map(partition).collect(),
        }
    };
    OffsetFetchResponseGroup {
        group_id: fetched.group,
        topics: fetched.topics.into_iter().map(topic).collect(),
        error_code: fetched.error.number(),
    }
}
