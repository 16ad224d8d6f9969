//! OffsetCommit, OffsetFetch, OffsetDelete and OffsetForLeaderEpoch.

use callboard_common::kafka::Text;
use callboard_common::kafka::messages::offset_commit_response::{
    OffsetCommitResponsePartition, OffsetCommitResponseTopic,
};
use callboard_common::kafka::messages::offset_delete_response::{
    OffsetDeleteResponsePartition, OffsetDeleteResponseTopic,
};
use callboard_common::kafka::messages::offset_fetch_response::{
    OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponsePartitions,
    OffsetFetchResponseTopic, OffsetFetchResponseTopics,
};
use callboard_common::kafka::messages::offset_for_leader_epoch_response::{
    EpochEndOffset, OffsetForLeaderTopicResult,
};
use callboard_common::kafka::messages::{
    OffsetCommitRequest, OffsetCommitResponse, OffsetDeleteRequest, OffsetDeleteResponse,
    OffsetFetchRequest, OffsetFetchResponse, OffsetForLeaderEpochRequest,
    OffsetForLeaderEpochResponse, offset_delete_request, offset_for_leader_epoch_request,
};
use callboard_common::protocol::list_offsets::{EpochEnd, EpochEnds, EpochEndsAnswer};
use callboard_common::protocol::offsets::{
    CommitOffsets, CommitPartition, CommitTopic, CommittedOffsets, DeleteOffsets, DeletedOffsets,
    FetchGroupOffsets, FetchOffsets, FetchedGroupOffsets, FetchedOffset, FetchedOffsets,
};
use callboard_common::protocol::{Response, TopicRef};
use callboard_common::{ErrorCode, LeaderEpoch, Offset};

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

pub(super) fn delete(request: OffsetDeleteRequest) -> Converted {
    let topic = |t: offset_delete_request::OffsetDeleteRequestTopic| {
        let numbers = t
            .partitions
            .into_iter()
            .map(|p| p.partition_index)
            .collect();
        (TopicRef::Name(t.name), numbers)
    };
    let topics = request.topics.into_iter().map(topic).collect();
    let delete = DeleteOffsets {
        group: request.group_id,
        topics,
    };
    Converted::Request(delete.into(), Answering::DeleteOffsets)
}

pub(super) fn deleted(response: Response) -> Message {
    let deleted = expect::<DeletedOffsets>(response).unwrap_or_else(|error| DeletedOffsets {
        error,
        topics: Vec::new(),
    });
    let partition = |(number, error): (i32, ErrorCode)| OffsetDeleteResponsePartition {
        partition_index: number,
        error_code: error.number(),
    };
    let topic =
        |(topic, partitions): (TopicRef, Vec<(i32, ErrorCode)>)| OffsetDeleteResponseTopic {
            name: topic_fields(topic).0,
            partitions: partitions.into_iter().map(partition).collect(),
        };
    Box::new(OffsetDeleteResponse {
        error_code: deleted.error.number(),
        topics: deleted.topics.into_iter().map(topic).collect(),
        ..Default::default()
    })
}

pub(super) fn epoch_ends(request: OffsetForLeaderEpochRequest) -> Converted {
    let partition = |p: offset_for_leader_epoch_request::OffsetForLeaderPartition| {
        (
            p.partition,
            epoch(p.current_leader_epoch),
            LeaderEpoch(p.leader_epoch),
        )
    };
    let topic = |t: offset_for_leader_epoch_request::OffsetForLeaderTopic| {
        let partitions = t.partitions.into_iter().map(partition).collect();
        (TopicRef::Name(t.topic), partitions)
    };
    let topics = request.topics.into_iter().map(topic).collect();
    Converted::Request(EpochEnds { topics }.into(), Answering::EpochEnds)
}

pub(super) fn epoch_ends_answer(response: Response) -> Message {
    let topics = expect::<EpochEndsAnswer>(response).map_or_else(|_| Vec::new(), |a| a.topics);
    let partition = |e: EpochEnd| EpochEndOffset {
        partition: e.partition,
        error_code: e.error.number(),
        leader_epoch: epoch_number(e.end.map(|(epoch, _)| epoch)),
        end_offset: e.end.map_or(-1, |(_, offset)| offset.get()),
    };
    let topic = |(topic, ends): (TopicRef, Vec<EpochEnd>)| OffsetForLeaderTopicResult {
        topic: topic_fields(topic).0,
        partitions: ends.into_iter().map(partition).collect(),
    };
    Box::new(OffsetForLeaderEpochResponse {
        topics: topics.into_iter().map(topic).collect(),
        ..Default::default()
    })
}
