//! Creating, deleting and describing topics, and deleting their oldest records.

use std::collections::BTreeMap;

use callboard_common::kafka::Text;
use callboard_common::protocol::topics::{
    CreatePartitions, CreateTopics, CreatedPartitions, CreatedTopic, CreatedTopics, DeleteRecords,
    DeleteTopics, DeletedRecords, DeletedTopic, DeletedTopics, DescribeTopics, DescribedTopics,
    NewTopic, PartitionDescription, PartitionEnds, TopicDescription,
};
use callboard_common::protocol::{Response, TopicRef};
use callboard_common::{BrokerId, ErrorCode, Offset, TopicName, TopicPartition, Uuid};
use tokio::sync::oneshot;

use super::{Api, Caller, DEFAULT_FACTOR, Operation, Resource, or_timeout, timeout};
use crate::controller::image::MIN_ISR;
use crate::controller::{Command, MetadataImage, PartitionImage, Refusal, placement};
use crate::leader::actor;
use crate::supervision;
use crate::topic_config::TopicConfig;

/// Why something is not done.
#[derive(Clone, Debug)]
pub(super) struct Refused {
    pub(super) error: ErrorCode,
    pub(super) message: String,
}

impl From<ErrorCode> for Refused {
    fn from(error: ErrorCode) -> Self {
        refused(error, error.message())
    }
}

pub(super) fn refused(error: ErrorCode, message: impl std::fmt::Display) -> Refused {
    Refused {
        error,
        message: message.to_string(),
    }
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        refused(refusal_code(&refusal), refusal)
    }
}

pub(super) fn refusal_code(refusal: &Refusal) -> ErrorCode {
    match refusal {
        Refusal::TopicExists(_) => ErrorCode::TopicAlreadyExists,
        Refusal::TopicCollides { .. } => ErrorCode::InvalidTopicException,
        Refusal::UnknownTopic => ErrorCode::UnknownTopicOrPartition,
        Refusal::NotLeader(_) => ErrorCode::NotLeaderOrFollower,
        Refusal::NotMorePartitions { .. } => ErrorCode::InvalidPartitions,
        Refusal::TooLarge { .. } => ErrorCode::PolicyViolation,
        Refusal::NoProducerIds => ErrorCode::PolicyViolation,
        Refusal::Stopped | Refusal::NoQuorum => ErrorCode::NotController,
        Refusal::Outdated { .. } => ErrorCode::InvalidUpdateVersion,
        Refusal::Ineligible => ErrorCode::IneligibleReplica,
        Refusal::UnknownBroker => ErrorCode::BrokerIdNotRegistered,
        Refusal::NotElected => ErrorCode::ElectionNotNeeded,
        Refusal::QuorumBusy(_) => ErrorCode::RequestTimedOut,
        Refusal::Features(_) => ErrorCode::FeatureUpdateFailed,
        Refusal::Quorum(_) | Refusal::Replaces(_) | Refusal::InUse(_) => ErrorCode::InvalidRequest,
    }
}

pub(super) async fn create(api: &Api, caller: &Caller, create: CreateTopics) -> Response {
    let mut names = BTreeMap::new();
    create
        .topics
        .iter()
        .for_each(|t| *names.entry(t.name.clone()).or_insert(0) += 1);
    let mut topics = Vec::with_capacity(create.topics.len());
    for topic in &create.topics {
        let result = if names[&topic.name] > 1 {
            Err(refused(
                ErrorCode::InvalidRequest,
                "the topic is named twice",
            ))
        } else {
            create_one(api, caller, topic, &create).await
        };
        topics.push(result.unwrap_or_else(|refused| CreatedTopic {
            name: topic.name.clone(),
            id: Uuid::ZERO,
            error: refused.error,
            message: Some(refused.message.into()),
            partitions: -1,
            replication_factor: -1,
            configs: Vec::new(),
        }));
    }
    Response::CreateTopics(CreatedTopics { topics })
}

async fn create_one(
    api: &Api,
    caller: &Caller,
    topic: &NewTopic,
    create: &CreateTopics,
) -> Result<CreatedTopic, Refused> {
    let name =
        TopicName::new(&topic.name).map_err(|e| refused(ErrorCode::InvalidTopicException, e))?;
    if !may_create(api, caller, &name) {
        return Err(refused(
            ErrorCode::TopicAuthorizationFailed,
            "clients do not create this topic",
        ));
    }
    let replicas = replicas_of(api, topic)?;
    let partitions = i32::try_from(replicas.len()).unwrap_or(i32::MAX);
    let factor = replicas.iter().map(Vec::len).min().unwrap_or(0);
    let overrides = topic
        .configs
        .iter()
        .filter_map(|(n, v)| Some((n.to_string(), v.as_ref()?.to_string())));
    let overrides: BTreeMap<String, String> = overrides.collect();
    let invalid = |e| refused(ErrorCode::InvalidConfig, e);
    let config = api
        .config()
        .topic_defaults
        .clone()
        .with(&overrides)
        .map_err(invalid)?;
    let configs = described(&config, &api.config().topic_defaults);
    let id = if create.validate_only {
        let image = api.image();
        let mut trial = MetadataImage::clone(&image);
        let _outcome = trial.apply(0, command(name, Uuid::random(), replicas, overrides))?;
        Uuid::ZERO
    } else {
        let id = Uuid::random();
        propose_placed(api, name.clone(), id, replicas, overrides).await?;
        let _led: bool = api.wait_until_led(&name, timeout(create.timeout_ms)).await;
        id
    };
    let (error, message) = (ErrorCode::None, None);
    Ok(CreatedTopic {
        name: topic.name.clone(),
        id,
        error,
        message,
        partitions,
        replication_factor: i16::try_from(factor).unwrap_or(i16::MAX),
        configs,
    })
}

/// Whether a caller may create a topic: this one, or any.
pub(super) fn may_create(api: &Api, caller: &Caller, name: &TopicName) -> bool {
    api.allows(caller, Operation::Create, Resource::Topic(name))
        || (!name.is_internal() && api.allows(caller, Operation::Create, Resource::Cluster))
}

/// Who keeps the partitions of a new topic, if what is asked for is possible.
fn replicas_of(api: &Api, topic: &NewTopic) -> Result<Vec<Vec<BrokerId>>, Refused> {
    let image = api.image();
    if !topic.assignments.is_empty() {
        let mut assignments = topic.assignments.clone();
        assignments.sort_unstable();
        let consecutive = (0..).zip(&assignments).all(|(i, (n, _))| i == *n);
        if !consecutive {
            let message = "partitions count up from 0";
            return Err(refused(ErrorCode::InvalidReplicaAssignment, message));
        }
        let replicas: Vec<Vec<i32>> = assignments.into_iter().map(|(_, r)| r).collect();
        limit_partitions(api, replicas.len())?;
        return assigned(&image, replicas);
    }
    let count = topic.partitions.unwrap_or(api.config().num_partitions);
    if count < 1 {
        return Err(refused(
            ErrorCode::InvalidPartitions,
            "a topic has at least one partition",
        ));
    }
    limit_partitions(api, count.unsigned_abs() as usize)?;
    let factor = match topic.replication_factor {
        Some(factor) => usize::try_from(factor).unwrap_or(0),
        None => default_factor(api, &image),
    };
    placed(&image, count.unsigned_abs() as usize, factor)
}

fn limit_partitions(api: &Api, count: usize) -> Result<(), Refused> {
    let (limit, there) = (api.config().max_partitions, api.image().partition_count());
    if there + count > limit {
        let message =
            format!("{there} of at most {limit} partitions are there, {count} more are too many");
        return Err(refused(ErrorCode::PolicyViolation, message));
    }
    Ok(())
}

/// As many replicas as the settings say, or three if there are as many nodes.
fn default_factor(api: &Api, image: &MetadataImage) -> usize {
    let takes = image.alive().filter(|(id, _)| image.takes_partitions(*id));
    let nodes = takes.count().max(1);
    api.config()
        .replication_factor
        .unwrap_or(nodes.min(DEFAULT_FACTOR))
}

fn placed(
    image: &MetadataImage,
    count: usize,
    factor: usize,
) -> Result<Vec<Vec<BrokerId>>, Refused> {
    placement::place(image, count, factor).ok_or_else(|| {
        let nodes = image.unfenced().len();
        let message = format!("a replication factor of {factor} is impossible with {nodes} nodes");
        refused(ErrorCode::InvalidReplicationFactor, message)
    })
}

/// Replicas that a client chose.
fn assigned(image: &MetadataImage, replicas: Vec<Vec<i32>>) -> Result<Vec<Vec<BrokerId>>, Refused> {
    for brokers in &replicas {
        let distinct: std::collections::BTreeSet<&i32> = brokers.iter().collect();
        let unknown = brokers
            .iter()
            .find(|b| !image.brokers.contains_key(&BrokerId(**b)));
        if let Some(unknown) = unknown {
            let message = format!("there is no node {unknown}");
            return Err(refused(ErrorCode::InvalidReplicaAssignment, message));
        }
        if brokers.is_empty() || distinct.len() != brokers.len() {
            let message = "each partition is assigned to at least one node, and to none twice";
            return Err(refused(ErrorCode::InvalidReplicaAssignment, message));
        }
    }
    let broker = |brokers: Vec<i32>| brokers.into_iter().map(BrokerId).collect();
    Ok(replicas.into_iter().map(broker).collect())
}

fn command(
    name: TopicName,
    id: Uuid,
    replicas: Vec<Vec<BrokerId>>,
    mut configs: BTreeMap<String, String>,
) -> Command {
    // With three replicas one may be lost and nothing is: the second has it then.
    if replicas.iter().all(|r| r.len() >= DEFAULT_FACTOR) && !configs.contains_key(MIN_ISR) {
        let _none = configs.insert(MIN_ISR.into(), "2".into());
    }
    Command::PlaceTopic {
        name,
        id,
        replicas,
        configs,
    }
}

/// Creates a topic that was checked; returns its identifier.
pub(super) async fn propose(
    api: &Api,
    name: TopicName,
    partitions: i32,
    configs: BTreeMap<String, String>,
) -> Result<Uuid, Refused> {
    let id = Uuid::random();
    let image = api.image();
    let count = partitions.unsigned_abs() as usize;
    let replicas = placed(&image, count, default_factor(api, &image))?;
    propose_placed(api, name, id, replicas, configs).await?;
    Ok(id)
}

async fn propose_placed(
    api: &Api,
    name: TopicName,
    id: Uuid,
    replicas: Vec<Vec<BrokerId>>,
    configs: BTreeMap<String, String>,
) -> Result<(), Refused> {
    let _outcome = api.propose(command(name, id, replicas, configs)).await?;
    Ok(())
}

fn described(config: &TopicConfig, defaults: &TopicConfig) -> Vec<(Text, Text, bool)> {
    let defaults = defaults.describe();
    let is_default =
        |name: &str, value: &str| defaults.iter().any(|(n, v)| *n == name && v == value);
    let line = |(name, value): (&'static str, String)| {
        let default = is_default(name, &value);
        (Text::from_static(name), Text::from(value), default)
    };
    config.describe().into_iter().map(line).collect()
}

pub(super) async fn create_partitions(
    api: &Api,
    caller: &Caller,
    create: CreatePartitions,
) -> Response {
    if create.topics.len() > api.config().max_topics_per_request {
        return Response::Refused(ErrorCode::InvalidRequest);
    }
    let mut names = BTreeMap::new();
    create
        .topics
        .iter()
        .for_each(|(name, ..)| *names.entry(name.clone()).or_insert(0) += 1);
    let (timeout_ms, validate_only) = (create.timeout_ms, create.validate_only);
    let mut topics = Vec::with_capacity(create.topics.len());
    for (name, count, assignments) in create.topics {
        let grown = if names[&name] > 1 {
            Err(refused(
                ErrorCode::InvalidRequest,
                "the topic is named twice",
            ))
        } else {
            grow(
                api,
                caller,
                (&name, count, assignments),
                (timeout_ms, validate_only),
            )
            .await
        };
        let (error, message) = match grown {
            Ok(()) => (ErrorCode::None, None),
            Err(refused) => (refused.error, Some(refused.message.into())),
        };
        topics.push((name, error, message));
    }
    Response::CreatePartitions(CreatedPartitions { topics })
}

async fn grow(
    api: &Api,
    caller: &Caller,
    (name, count, assignments): (&Text, i32, Option<Vec<Vec<i32>>>),
    (timeout_ms, validate_only): (i32, bool),
) -> Result<(), Refused> {
    let topic = TopicName::new(name).map_err(|e| refused(ErrorCode::InvalidTopicException, e))?;
    let image = api.image();
    let (_, id) = api.topic(
        caller,
        Operation::Alter,
        &image,
        &TopicRef::Name(name.clone()),
    )?;
    let there = image.topics.get(&topic).map_or(0, |t| t.partitions.len());
    let wanted = usize::try_from(count).unwrap_or(0);
    if wanted <= there {
        return Err(Refusal::NotMorePartitions { there }.into());
    }
    let more = wanted - there;
    limit_partitions(api, more)?;
    let replicas = match assignments {
        Some(assignments) if assignments.len() != more => {
            let message = format!(
                "{more} partitions are new, {} are assigned",
                assignments.len()
            );
            return Err(refused(ErrorCode::InvalidReplicaAssignment, message));
        }
        Some(assignments) => assigned(&image, assignments)?,
        None => {
            let of_topic = image.topics.get(&topic).map(|t| t.partitions.iter());
            let factor = of_topic
                .into_iter()
                .flatten()
                .map(|p| p.replicas.len())
                .min();
            placed(&image, more, factor.unwrap_or(1))?
        }
    };
    if validate_only {
        return Ok(());
    }
    let there = i32::try_from(there).unwrap_or(i32::MAX);
    let _done = api
        .propose(Command::PlacePartitions {
            id,
            there,
            replicas,
        })
        .await?;
    let _led: bool = api.wait_until_led(&topic, timeout(timeout_ms)).await;
    Ok(())
}

pub(super) async fn delete(api: &Api, caller: &Caller, delete: DeleteTopics) -> Response {
    let mut topics = Vec::with_capacity(delete.topics.len());
    for topic in delete.topics {
        let image = api.image();
        let found = api.topic(caller, Operation::Delete, &image, &topic);
        let (name, id) = match (&found, topic) {
            (Ok((name, id)), _) => (Some(Text::from(name.as_str())), *id),
            (Err(_), TopicRef::Name(name)) => (Some(name), Uuid::ZERO),
            (Err(_), TopicRef::Id(id)) => (None, id),
        };
        let error = match found {
            Ok((name, id)) => delete_one(api, &name, id, delete.timeout_ms).await,
            Err(error) => error,
        };
        topics.push(DeletedTopic { name, id, error });
    }
    Response::DeleteTopics(DeletedTopics { topics })
}

async fn delete_one(api: &Api, name: &TopicName, id: Uuid, timeout_ms: i32) -> ErrorCode {
    let mut changes = api.shared().directory.changes();
    if let Err(refusal) = api.propose(Command::DeleteTopic { id }).await {
        return refusal_code(&refusal);
    }
    // The topic is gone; its leaders follow at once.
    let directory = api.shared().directory.clone();
    let gone = async {
        while directory
            .topic(name)
            .is_some_and(|t| t.values().any(|leader| leader.topic_id == id))
        {
            if changes.changed().await.is_err() {
                break;
            }
        }
    };
    let _in_time = or_timeout(gone, api.shared().clock.sleep(timeout(timeout_ms))).await;
    ErrorCode::None
}

pub(super) async fn delete_records(api: &Api, caller: &Caller, delete: DeleteRecords) -> Response {
    let image = api.image();
    let mut partitions = Vec::with_capacity(delete.partitions.len());
    for (topic, partition, before) in delete.partitions {
        let start = delete_before(api, caller, &image, &topic, partition, before).await;
        partitions.push(match start {
            Ok(start) => (ErrorCode::None, Some(start)),
            Err(error) => (error, None),
        });
    }
    Response::DeleteRecords(DeletedRecords { partitions })
}

async fn delete_before(
    api: &Api,
    caller: &Caller,
    image: &MetadataImage,
    topic: &TopicRef,
    partition: i32,
    before: Option<i64>,
) -> Result<Offset, ErrorCode> {
    let (name, _) = api.topic(caller, Operation::Delete, image, topic)?;
    let leader = api.leader(&TopicPartition::new(name, partition))?;
    let (reply, deleted) = oneshot::channel();
    supervision::tell(&leader.actor, actor::DeleteRecords { before, reply });
    let deleted = deleted.await.map_err(|_| ErrorCode::NotLeaderOrFollower)?;
    deleted.map_err(|e| super::fetch::error_code(&e))
}

pub(super) fn describe(api: &Api, caller: &Caller, describe: DescribeTopics) -> Response {
    let image = api.image();
    let unknown = |topic: &TopicRef, error| {
        let (name, id) = match topic {
            TopicRef::Name(name) => (Some(name.clone()), Uuid::ZERO),
            TopicRef::Id(id) => (None, *id),
        };
        TopicDescription {
            error,
            name,
            id,
            is_internal: false,
            configs: Vec::new(),
            partitions: Vec::new(),
        }
    };
    let visible = |name: &TopicName| api.allows(caller, Operation::Describe, Resource::Topic(name));
    let topics = match &describe.topics {
        Some(topics) => topics
            .iter()
            .map(
                |topic| match api.topic(caller, Operation::Describe, &image, topic) {
                    Ok((name, _)) => described_topic(api, &image, &name),
                    Err(error) => unknown(topic, error),
                },
            )
            .collect(),
        None => image
            .topics
            .keys()
            .filter(|n| visible(n))
            .map(|name| described_topic(api, &image, name))
            .collect(),
    };
    Response::DescribeTopics(DescribedTopics { topics })
}

fn described_topic(api: &Api, image: &MetadataImage, name: &TopicName) -> TopicDescription {
    let defaults = &api.config().topic_defaults;
    let topic = image.topics.get(name);
    let config = topic.map_or_else(
        || defaults.clone(),
        |t| defaults.clone().with(&t.configs).unwrap_or_default(),
    );
    let leaders = api.shared().directory.topic(name).unwrap_or_default();
    let partition = |(number, partition): (i32, &PartitionImage)| {
        let ends = leaders.get(&number).map(|l| *l.ends.borrow());
        let ends = ends.and_then(|ends| {
            Some(PartitionEnds {
                epoch: ends.epoch?,
                log_start: ends.log_start,
                high_watermark: ends.high_watermark,
            })
        });
        PartitionDescription {
            leader: partition.leader,
            replicas: partition.replicas.clone(),
            isr: partition.isr.clone(),
            ends,
        }
    };
    let numbered = topic.iter().flat_map(|t| t.numbered());
    let partitions = numbered.map(partition).collect();
    TopicDescription {
        error: ErrorCode::None,
        name: Some(name.as_str().into()),
        id: topic.map_or(Uuid::ZERO, |t| t.id),
        is_internal: name.is_internal(),
        configs: described(&config, defaults),
        partitions,
    }
}
