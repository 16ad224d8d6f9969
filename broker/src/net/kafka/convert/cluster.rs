//! DescribeCluster and DescribeTopicPartitions: metadata in another shape.

use callboard_common::kafka::Text;
use callboard_common::kafka::messages::describe_cluster_response::DescribeClusterBroker;
use callboard_common::kafka::messages::describe_topic_partitions_response::{
    Cursor, DescribeTopicPartitionsResponsePartition, DescribeTopicPartitionsResponseTopic,
};
use callboard_common::kafka::messages::{
    DescribeClusterRequest, DescribeClusterResponse, DescribeTopicPartitionsRequest,
    DescribeTopicPartitionsResponse,
};
use callboard_common::protocol::metadata::{
    Metadata, MetadataAnswer, PartitionMetadata, TopicMetadata,
};
use callboard_common::protocol::{Response, TopicRef};
use callboard_common::{BrokerId, ErrorCode};

use super::known::Known;
use super::topics::topic_rights;
use super::{Answering, Converted, Message, expect};
use crate::api::Resource;

/// Kafka's numbers of what is asked for: brokers, not controllers.
const BROKERS: i8 = 1;
/// Most partitions of one page, as in Kafka (`max.request.partition.size.limit`).
const PAGE_MAX: usize = 2000;

pub(super) fn describe(request: DescribeClusterRequest) -> Converted {
    let (topics, auto_create) = (Some(Vec::new()), false);
    let answering = Answering::DescribeCluster {
        endpoint_type: request.endpoint_type,
        rights: request.include_cluster_authorized_operations,
    };
    Converted::Request(
        Metadata {
            topics,
            auto_create,
        }
        .into(),
        answering,
    )
}

pub(super) fn described(
    response: Response,
    endpoint_type: i8,
    rights: bool,
    known: &dyn Known,
) -> Message {
    let refuse = |error: ErrorCode| {
        Box::new(DescribeClusterResponse {
            error_code: error.number(),
            error_message: Some(error.message().into()),
            endpoint_type,
            ..Default::default()
        })
    };
    if endpoint_type != BROKERS {
        return refuse(ErrorCode::UnsupportedVersion);
    }
    let answer = match expect::<MetadataAnswer>(response) {
        Ok(answer) => answer,
        Err(error) => return refuse(error),
    };
    let broker = |b: callboard_common::protocol::metadata::BrokerAddress| DescribeClusterBroker {
        broker_id: b.id.0,
        host: b.host,
        port: b.port.into(),
        rack: known.rack(b.id),
        ..Default::default()
    };
    Box::new(DescribeClusterResponse {
        cluster_id: answer.cluster_id,
        controller_id: answer.controller.0,
        brokers: answer.brokers.into_iter().map(broker).collect(),
        endpoint_type,
        cluster_authorized_operations: known.rights_if_asked(rights, Some(Resource::Cluster)),
        ..Default::default()
    })
}

/// What one page of partitions shows.
pub(in crate::net::kafka) struct Page {
    limit: usize,
    /// Topic and partition that it begins with.
    from: Option<(Text, i32)>,
    /// Whether topics were named: then those that are not there are told.
    named: bool,
}

pub(super) fn topic_partitions(request: DescribeTopicPartitionsRequest) -> Converted {
    let named = !request.topics.is_empty();
    let names = request.topics.into_iter().map(|t| t.name);
    let from = request.cursor.map(|c| (c.topic_name, c.partition_index));
    // What lies before the cursor was told by earlier pages.
    let mut names: Vec<Text> = names
        .filter(|name| from.as_ref().is_none_or(|(first, _)| name >= first))
        .collect();
    names.sort();
    names.dedup();
    let limit = usize::try_from(request.response_partition_limit).unwrap_or(0);
    let page = Page {
        limit: limit.clamp(1, PAGE_MAX),
        from,
        named,
    };
    let topics = named.then(|| names.into_iter().map(TopicRef::Name).collect());
    let metadata = Metadata {
        topics,
        auto_create: false,
    };
    Converted::Request(metadata.into(), Answering::DescribeTopicPartitions(page))
}

pub(super) fn topic_partitions_page(response: Response, page: Page, known: &dyn Known) -> Message {
    let topics = expect::<MetadataAnswer>(response).map_or_else(|_| Vec::new(), |a| a.topics);
    Box::new(page_of(topics, &page, known))
}

/// The topics, sorted by name, from the page's begin on, and where the next page begins.
fn page_of(
    topics: Vec<TopicMetadata>,
    page: &Page,
    known: &dyn Known,
) -> DescribeTopicPartitionsResponse {
    let mut left = page.limit;
    let mut out = DescribeTopicPartitionsResponse::default();
    for topic in topics {
        let name = topic.name.clone().unwrap_or_default();
        let first = match &page.from {
            Some((from, _)) if name < *from => continue,
            Some((from, partition)) if name == *from => *partition,
            Some(_) | None => 0,
        };
        if topic.error != ErrorCode::None && !page.named {
            continue;
        }
        let cursor = |partition_index| {
            Some(Cursor {
                topic_name: name.clone(),
                partition_index,
            })
        };
        if left == 0 {
            out.next_cursor = cursor(first);
            break;
        }
        let rights = topic_rights(&topic, true, known);
        let (mut shown, next) = shown(topic, first, left);
        shown.topic_authorized_operations = rights;
        left -= shown.partitions.len();
        out.topics.push(shown);
        if let Some(next) = next {
            out.next_cursor = cursor(next);
            break;
        }
    }
    out
}

/// A topic's partitions from `first` on, `left` at most, and the one that comes next.
fn shown(
    topic: TopicMetadata,
    first: i32,
    left: usize,
) -> (DescribeTopicPartitionsResponseTopic, Option<i32>) {
    let partition = |p: &PartitionMetadata| {
        let ids = |brokers: &[BrokerId]| brokers.iter().map(|b| b.0).collect::<Vec<i32>>();
        DescribeTopicPartitionsResponsePartition {
            error_code: p.error.number(),
            partition_index: p.partition,
            leader_id: p.leader.map_or(-1, |l| l.0),
            leader_epoch: p.epoch.0,
            replica_nodes: ids(&p.replicas),
            isr_nodes: ids(&p.isr),
            eligible_leader_replicas: Some(ids(&p.eligible)),
            last_known_elr: Some(Vec::new()),
            ..Default::default()
        }
    };
    let wanted = || topic.partitions.iter().filter(|p| p.partition >= first);
    let next = wanted().nth(left).map(|p| p.partition);
    let partitions = wanted().take(left).map(partition).collect();
    let shown = DescribeTopicPartitionsResponseTopic {
        error_code: topic.error.number(),
        name: topic.name.clone(),
        topic_id: topic.id,
        is_internal: topic.is_internal,
        partitions,
        ..Default::default()
    };
    (shown, next)
}

#[cfg(test)]
mod tests {
    use super::*;
    use callboard_common::{LeaderEpoch, Uuid};

    /// Who may do nothing, where nobody knows anything.
    struct Nobody;

    impl Known for Nobody {
        fn leader(&self, _: &TopicRef, _: i32) -> Option<crate::api::LeaderHint> {
            None
        }

        fn rack(&self, _: BrokerId) -> Option<Text> {
            None
        }

        fn rights(&self, _: Resource<'_>) -> i32 {
            0
        }
    }

    fn topic(name: &'static str, partitions: i32) -> TopicMetadata {
        let partition = |partition| PartitionMetadata {
            partition,
            error: ErrorCode::None,
            leader: Some(BrokerId(1)),
            epoch: LeaderEpoch(0),
            replicas: vec![BrokerId(1)],
            isr: vec![BrokerId(1)],
            eligible: Vec::new(),
        };
        TopicMetadata {
            error: ErrorCode::None,
            name: Some(name.into()),
            id: Uuid::ZERO,
            is_internal: false,
            partitions: (0..partitions).map(partition).collect(),
        }
    }

    /// Pages of every size show every partition once, in order.
    #[test]
    fn pages_show_every_partition_once() {
        for limit in 1..10 {
            let (mut seen, mut from) = (Vec::new(), None);
            for _ in 0..20 {
                let topics = vec![topic("a", 3), topic("b", 1), topic("c", 4)];
                let page = page_of(
                    topics,
                    &Page {
                        limit,
                        from,
                        named: false,
                    },
                    &Nobody,
                );
                let of_topic = |t: &DescribeTopicPartitionsResponseTopic| {
                    let name = t.name.clone().unwrap_or_default();
                    let number = move |p: &DescribeTopicPartitionsResponsePartition| {
                        (name.clone(), p.partition_index)
                    };
                    t.partitions.iter().map(number).collect::<Vec<_>>()
                };
                let shown: Vec<_> = page.topics.iter().flat_map(of_topic).collect();
                assert!(shown.len() <= limit);
                seen.extend(shown);
                from = page.next_cursor.map(|c| (c.topic_name, c.partition_index));
                if from.is_none() {
                    break;
                }
            }
            assert_eq!(seen.len(), 8, "limit {limit}");
            assert!(seen.is_sorted());
        }
    }
}
