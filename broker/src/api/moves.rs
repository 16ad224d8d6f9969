//! Where partitions are and who leads them: moves (KIP-455), elections (KIP-460), sizes.

use std::collections::BTreeSet;

use callboard_common::kafka::Text;
use callboard_common::protocol::cluster::{
    DescribeLogs, DescribedLogs, Destination, ElectLeaders, ElectedLeaders, ListReassignments,
    ListedReassignments, PartitionMove, Reassign, Reassigned,
};
use callboard_common::protocol::{Response, TopicRef};
use callboard_common::{BrokerId, ErrorCode, TopicName, TopicPartition, Uuid};

use super::topics::{Refused, refusal_code, refused};
use super::{Api, Caller, Operation, Resource, topic_of};
use crate::controller::partition::Electorate;
use crate::controller::{Command, MetadataImage, PartitionImage, Refusal, TopicImage, placement};

/// Partitions that a request names; `None` is all.
type Named = Option<Vec<(Text, Vec<i32>)>>;

pub(super) async fn reassign(api: &Api, caller: &Caller, reassign: Reassign) -> Response {
    if !api.allows(caller, Operation::Alter, Resource::Cluster) {
        return Response::Refused(ErrorCode::ClusterAuthorizationFailed);
    }
    if reassign.partitions.len() > api.config().max_partitions {
        return Response::Refused(ErrorCode::InvalidRequest);
    }
    let may_change = reassign.allow_factor_change;
    let mut partitions = Vec::with_capacity(reassign.partitions.len());
    for (topic, partition, to) in reassign.partitions {
        let moved = reassign_one(api, &topic, partition, to, may_change).await;
        partitions.push(match moved {
            Ok(()) => (ErrorCode::None, None),
            Err(refused) => (refused.error, Some(refused.message.into())),
        });
    }
    Response::Reassign(Reassigned { partitions })
}

fn find<'a>(
    image: &'a MetadataImage,
    topic: &TopicRef,
    partition: i32,
) -> Result<(Uuid, &'a PartitionImage), ErrorCode> {
    let topic = topic_of(image, topic)?;
    let number = usize::try_from(partition).ok();
    let found = number.and_then(|n| topic.partitions.get(n));
    let found = found.ok_or(ErrorCode::UnknownTopicOrPartition)?;
    Ok((topic.id, found))
}

async fn reassign_one(
    api: &Api,
    topic: &TopicRef,
    partition: i32,
    to: Destination,
    may_change: bool,
) -> Result<(), Refused> {
    let image = api.image();
    let (topic_id, found) = find(&image, topic, partition)?;
    let replicas = match to {
        Destination::Back if found.target.is_none() => {
            return Err(ErrorCode::NoReassignmentInProgress.into());
        }
        Destination::Back => None,
        Destination::Nodes(nodes) => Some(checked(&image, found, nodes, may_change)?),
        Destination::Factor(factor) => {
            let chosen = placement::with_factor(&image, found.goal(), factor.into());
            Some(chosen.ok_or_else(|| {
                let message = format!("there are not {factor} nodes that take partitions");
                refused(ErrorCode::InvalidReplicationFactor, message)
            })?)
        }
    };
    let _done = api
        .propose(Command::Reassign {
            topic_id,
            partition,
            replicas,
        })
        .await?;
    Ok(())
}

/// Nodes that a client chose: each is there and named once.
fn checked(
    image: &MetadataImage,
    found: &PartitionImage,
    nodes: Vec<BrokerId>,
    may_change: bool,
) -> Result<Vec<BrokerId>, Refused> {
    let wrong = |message: String| Err(refused(ErrorCode::InvalidReplicaAssignment, message));
    let distinct: BTreeSet<&BrokerId> = nodes.iter().collect();
    if nodes.is_empty() || distinct.len() != nodes.len() {
        return wrong("a partition is on at least one node, and on none twice".into());
    }
    if let Some(unknown) = nodes.iter().find(|b| !image.brokers.contains_key(b)) {
        return wrong(format!("there is no node {unknown}"));
    }
    let now = found.target.as_ref().map_or(&found.replicas, |m| &m.from);
    if !may_change && nodes.len() != now.len() {
        let message = format!(
            "the partition has {} replicas, not {}",
            now.len(),
            nodes.len()
        );
        return Err(refused(ErrorCode::InvalidReplicationFactor, message));
    }
    Ok(nodes)
}

/// Goes over the partitions that are named and there, or all that are visible.
fn each<'a>(
    image: &'a MetadataImage,
    named: &Named,
) -> Vec<(&'a TopicName, i32, &'a TopicImage, &'a PartitionImage)> {
    let wanted = |name: &TopicName, number: i32| {
        named.as_ref().is_none_or(|named| {
            let mut of = named.iter().filter(|(n, _)| **n == *name.as_str());
            of.any(|(_, numbers)| numbers.contains(&number))
        })
    };
    let topics = image.topics.iter();
    let all = topics.flat_map(|(name, t)| t.numbered().map(move |(n, p)| (name, n, &**t, p)));
    all.filter(|(name, n, ..)| wanted(name, *n)).collect()
}

pub(super) fn list_moves(api: &Api, caller: &Caller, list: ListReassignments) -> Response {
    if !api.allows(caller, Operation::Describe, Resource::Cluster) {
        return Response::Refused(ErrorCode::ClusterAuthorizationFailed);
    }
    let image = api.image();
    let moves = each(&image, &list.partitions).into_iter();
    let moves = moves.filter_map(|(name, partition, _, p)| {
        let target = p.target.as_ref()?;
        Some(PartitionMove {
            topic: name.as_str().into(),
            partition,
            replicas: p.replicas.clone(),
            adding: target.adding().collect(),
            removing: target.removing().collect(),
        })
    });
    Response::ListReassignments(ListedReassignments {
        error: ErrorCode::None,
        moves: moves.collect(),
    })
}

/// Why an election of this partition's leader is not begun.
fn obstacle(p: &PartitionImage, of: Electorate<'_>, unclean: bool) -> Option<ErrorCode> {
    let preferred = p.preferred();
    if unclean {
        let is_alive = |b: &BrokerId| of.unfenced.contains(b);
        return match p.leader {
            // A leader in doubt waits for these, who may be gone for good.
            Some(_) if !p.elr.iter().all(is_alive) => None,
            Some(_) => Some(ErrorCode::ElectionNotNeeded),
            None if p.replicas.iter().any(is_alive) => None,
            None => Some(ErrorCode::EligibleLeadersNotAvailable),
        };
    }
    let may = |b: &BrokerId| p.isr.contains(b) && of.unfenced.contains(b);
    match preferred.filter(may) {
        _ if p.leader == preferred => Some(ErrorCode::ElectionNotNeeded),
        Some(_) => None,
        None => Some(ErrorCode::PreferredLeaderNotAvailable),
    }
}

pub(super) async fn elect(api: &Api, caller: &Caller, elect: ElectLeaders) -> Response {
    if !api.allows(caller, Operation::Alter, Resource::Cluster) {
        return Response::Refused(ErrorCode::ClusterAuthorizationFailed);
    }
    let image = api.image();
    let unfenced = image.unfenced();
    let mut answers = Vec::new();
    let mut begun = Vec::new();
    for (name, number, topic, p) in each(&image, &elect.partitions) {
        let of = Electorate::of(p, &unfenced, topic.min_isr());
        let error = obstacle(p, of, elect.unclean);
        // Of all of them only those are told that needed it.
        let is_led = elect.unclean && p.leader.is_some();
        if elect.partitions.is_none() && (is_led || error == Some(ErrorCode::ElectionNotNeeded)) {
            continue;
        }
        if error.is_none() {
            begun.push((topic.id, number));
        }
        answers.push((
            Text::from(name.as_str()),
            number,
            error.unwrap_or(ErrorCode::None),
        ));
    }
    for (topic, numbers) in elect.partitions.iter().flatten() {
        for number in numbers {
            if !answers.iter().any(|(t, n, _)| (t, n) == (topic, number)) {
                answers.push((topic.clone(), *number, ErrorCode::UnknownTopicOrPartition));
            }
        }
    }
    if !begun.is_empty() {
        let command = Command::Elect {
            partitions: Some(begun),
            unclean: elect.unclean,
        };
        if elect.unclean {
            let shared = api.shared();
            let _count = shared.metrics.unclean_elections.inc();
            let elected = answers.iter().filter(|(.., e)| *e == ErrorCode::None);
            let named: Vec<String> = elected.map(|(t, n, _)| format!("{t}-{n}")).collect();
            slog::warn!(shared.logger, "an operator has replicas lead that may lack acknowledged records"; "partitions" => format!("{named:?}"));
        }
        match api.propose(command).await {
            // Somebody else elected them meanwhile.
            Ok(_) | Err(Refusal::NotElected) => {}
            Err(refusal) => {
                let failed = answers.iter_mut().filter(|(.., e)| *e == ErrorCode::None);
                failed.for_each(|(.., error)| *error = refusal_code(&refusal));
            }
        }
    }
    Response::ElectLeaders(ElectedLeaders {
        error: ErrorCode::None,
        partitions: answers,
    })
}

pub(super) async fn logs(api: &Api, caller: &Caller, describe: DescribeLogs) -> Response {
    if !api.allows(caller, Operation::Describe, Resource::Cluster) {
        return Response::Refused(ErrorCode::ClusterAuthorizationFailed);
    }
    let (image, shared) = (api.image(), api.shared().clone());
    let here = each(&image, &describe.partitions).into_iter();
    let here = here.filter(|(.., p)| p.replicas.contains(&shared.broker));
    let here: Vec<TopicPartition> = here
        .map(|(name, n, ..)| TopicPartition::new(name.clone(), n))
        .collect();
    let directory = Text::from(shared.dir.display().to_string());
    let log = |(p, bytes): (TopicPartition, u64)| (p.topic.as_str().into(), p.partition, bytes);
    match shared.log_bytes(here).await {
        Some(sizes) => Response::DescribeLogs(DescribedLogs {
            error: ErrorCode::None,
            directory,
            logs: sizes.into_iter().map(log).collect(),
        }),
        None => Response::Refused(ErrorCode::KafkaStorageError),
    }
}
