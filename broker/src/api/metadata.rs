//! Metadata: brokers and topics from the image, missing topics created if that is allowed.

use std::collections::BTreeSet;
use std::time::Duration;

use callboard_common::kafka::Text;
use callboard_common::protocol::metadata::{
    BrokerAddress, Metadata, MetadataAnswer, PartitionMetadata, TopicMetadata,
};
use callboard_common::protocol::{Response, TopicRef};
use callboard_common::{BrokerId, ErrorCode, TopicName, TopicPartition, Uuid};

use super::{Api, Caller, Door, Operation, Resource, advertised_on, or_timeout, topics};
use crate::controller::{MetadataImage, TopicImage};

/// So long an answer in a cluster waits at least: a process that is killed closes its sockets one after the other, wires
/// before those of clients (see `peer::tripwire`), but for some that have higher numbers.
const SETTLE_TIME: Duration = Duration::from_millis(3);
/// So long it waits for the verdict on a node whose tripwire broke.
const SUSPECT_WAIT: Duration = Duration::from_millis(500);
/// How long an answer waits for the leaders of a topic that it created.
const LEADER_WAIT: Duration = Duration::from_secs(5);

pub(super) async fn answer(api: &Api, caller: &Caller, metadata: Metadata) -> Response {
    if metadata
        .topics
        .as_ref()
        .is_some_and(|t| t.len() > api.config().max_topics_per_request)
    {
        return Response::Refused(ErrorCode::InvalidRequest);
    }
    if metadata.auto_create && api.config().auto_create_topics {
        create_missing(api, caller, &metadata).await;
    }
    if metadata.topics.as_ref().is_none_or(|t| !t.is_empty()) {
        settle(api).await;
    }
    let (image, suspected) = (api.image(), api.0.published.suspected());
    let topics = match &metadata.topics {
        Some(topics) => topics
            .iter()
            .map(|topic| one(api, caller, (&image, &suspected), topic))
            .collect(),
        None => {
            let visible = |(name, _): &(&TopicName, _)| {
                api.allows(caller, Operation::Describe, Resource::Topic(name))
            };
            image
                .topics
                .iter()
                .filter(visible)
                .map(|(name, topic)| found(api, &suspected, name, topic))
                .collect()
        }
    };
    Response::Metadata(MetadataAnswer {
        cluster_id: api.shared().cluster_id.as_str().into(),
        controller: api.controller(),
        brokers: brokers(api, caller.door, &image),
        topics,
    })
}

/// The nodes that are alive; with those of Kafka's clients also the nodes that were until a moment ago.
fn brokers(api: &Api, door: Door, image: &MetadataImage) -> Vec<BrokerAddress> {
    let mut nodes = api.nodes(door, image);
    if door != Door::Quic {
        let now = api.shared().clock.now().monotonic;
        for id in api.0.published.departed(now) {
            let endpoints = image.brokers.get(&id).and_then(|b| b.endpoints.as_ref());
            if let Some(endpoints) = endpoints {
                let _alive = nodes
                    .entry(id)
                    .or_insert_with(|| advertised_on(door, endpoints).into());
            }
        }
    }
    let broker = |(id, at): (BrokerId, super::Advertised)| BrokerAddress {
        id,
        host: at.host,
        port: at.port,
    };
    nodes.into_iter().map(broker).collect()
}

/// Waits while the metadata is about to change. A client whose leader has just died asks within a millisecond, before
/// anybody can know; told the same leader again, it would not ask soon once more (librdkafka: for a second).
async fn settle(api: &Api) {
    if api.image().brokers.len() < 2 {
        return;
    }
    let (published, clock) = (api.0.published.clone(), &api.shared().clock);
    clock.sleep(SETTLE_TIME).await;
    let mut versions = published.version.subscribe();
    let settled = async {
        while !published.suspected().is_empty() {
            if versions.changed().await.is_err() {
                break;
            }
        }
    };
    let _in_time = or_timeout(settled, clock.sleep(SUSPECT_WAIT)).await;
}

/// Creates topics that are asked for and missing, as many as one request may.
async fn create_missing(api: &Api, caller: &Caller, metadata: &Metadata) {
    let image = api.image();
    let missing = metadata
        .topics
        .iter()
        .flatten()
        .filter_map(|topic| match topic {
            TopicRef::Name(name) => TopicName::new(name)
                .ok()
                .filter(|name| !image.topics.contains_key(name)),
            TopicRef::Id(_) => None,
        });
    let missing: Vec<TopicName> = missing.take(api.config().auto_create_max).collect();
    for name in missing {
        if topics::may_create(api, caller, &name) {
            let partitions = api.config().num_partitions;
            // What could not be created is answered as missing.
            if topics::propose(api, name.clone(), partitions, Default::default())
                .await
                .is_ok()
            {
                let _led: bool = api.wait_until_led(&name, LEADER_WAIT).await;
            }
        }
    }
}

fn one(
    api: &Api,
    caller: &Caller,
    (image, suspected): (&MetadataImage, &BTreeSet<BrokerId>),
    topic: &TopicRef,
) -> TopicMetadata {
    let refuse = |error| {
        let (name, id) = match topic {
            TopicRef::Name(name) => (Some(name.clone()), Uuid::ZERO),
            TopicRef::Id(id) => (None, *id),
        };
        TopicMetadata {
            error,
            name,
            id,
            is_internal: false,
            partitions: Vec::new(),
        }
    };
    match api.topic(caller, Operation::Describe, image, topic) {
        Ok((name, _)) => image.topics.get(&name).map_or_else(
            || refuse(ErrorCode::UnknownTopicOrPartition),
            |t| found(api, suspected, &name, t),
        ),
        Err(error) => refuse(error),
    }
}

fn found(
    api: &Api,
    suspected: &BTreeSet<BrokerId>,
    name: &TopicName,
    topic: &TopicImage,
) -> TopicMetadata {
    let partition = |(number, partition): (i32, &crate::controller::PartitionImage)| {
        let of = TopicPartition::new(name.clone(), number);
        // A leader that is here knows its own epoch: after a restart it may be ahead of the image that was loaded.
        let (led, epoch) = if partition.leader == Some(api.shared().broker) {
            let here = api.shared().directory.leader(&of).and_then(|l| l.epoch());
            (here.and(partition.leader), here.unwrap_or(partition.epoch))
        } else {
            // Nobody is sent to a node that has probably died.
            let alive = |leader: &BrokerId| !suspected.contains(leader);
            (partition.leader.filter(alive), partition.epoch)
        };
        PartitionMetadata {
            partition: number,
            error: match led {
                Some(_) => ErrorCode::None,
                None => ErrorCode::LeaderNotAvailable,
            },
            leader: led,
            epoch,
            replicas: partition.replicas.clone(),
            isr: partition.isr.clone(),
            eligible: partition.elr.clone(),
        }
    };
    TopicMetadata {
        error: ErrorCode::None,
        name: Some(Text::from(name.as_str())),
        id: topic.id,
        is_internal: name.is_internal(),
        partitions: topic.numbered().map(partition).collect(),
    }
}
