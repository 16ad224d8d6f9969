//! Consumer groups: questions to the coordinator of the group's offsets partition.

use std::collections::BTreeMap;
use std::time::Duration;

use callboard_common::kafka::Text;
use callboard_common::protocol::Response;
use callboard_common::protocol::groups::{
    CoordinatorKind, DeleteGroups, DeletedGroups, DescribeGroups, DescribedGroups,
    FindCoordinators, FoundCoordinator, FoundCoordinators, GroupDescription, Heartbeat,
    HeartbeatAnswer, JoinGroup, LeaveGroup, LeftGroup, ListedGroups, SyncGroup,
};
use callboard_common::{BrokerId, ErrorCode, TopicName, Uuid};
use tokio::sync::oneshot;

use super::{Api, Caller, Operation, Resource, topics};
use crate::controller::MetadataImage;
use crate::coordinator::{Answer, Ask, Question};
use crate::supervision;

/// How long the first request about groups waits for the offsets topic.
const OFFSETS_TOPIC_WAIT: Duration = Duration::from_secs(10);

/// Java's `String.hashCode`, by which Kafka places groups.
fn java_hash(text: &str) -> i32 {
    text.encode_utf16().fold(0i32, |hash, unit| {
        hash.wrapping_mul(31).wrapping_add(i32::from(unit))
    })
}

/// The offsets partition of a group.
fn partition_of(group: &str, partitions: usize) -> i32 {
    let hash = java_hash(group);
    let hash = if hash == i32::MIN { 0 } else { hash.abs() };
    i32::try_from(hash as usize % partitions.max(1)).unwrap_or(0)
}

/// The partition of the offsets topic that a group belongs to, and who leads it; `None` while there is no such topic.
fn shard_of(image: &MetadataImage, group: &str) -> Option<(i32, Option<BrokerId>)> {
    let topic = image.topics.get(&TopicName::consumer_offsets())?;
    let number = partition_of(group, topic.partitions.len());
    let partition = topic.partitions.get(number.unsigned_abs() as usize);
    Some((number, partition.and_then(|p| p.leader)))
}

impl Api {
    /// Asks the coordinator of a group.
    pub(super) async fn ask(
        &self,
        caller: &Caller,
        group: &str,
        question: Question,
    ) -> Result<Answer, ErrorCode> {
        let shard = shard_of(&self.image(), group);
        let (partition, leader) = shard.ok_or(ErrorCode::NotCoordinator)?;
        if leader.is_some_and(|leader| leader != self.shared().broker) || self.is_cut_off() {
            return Err(ErrorCode::NotCoordinator);
        }
        let now = self.shared().clock.now().monotonic;
        if question.reads_offsets() && self.0.published.may_be_replaced(now) {
            return Err(ErrorCode::CoordinatorNotAvailable);
        }
        let coordinator = self
            .shared()
            .directory
            .coordinator(partition)
            .ok_or(ErrorCode::CoordinatorNotAvailable)?;
        let (reply, answer) = oneshot::channel();
        supervision::tell(
            &coordinator,
            Ask {
                question,
                permit: caller.permit.clone(),
                reply,
            },
        );
        answer.await.unwrap_or(Err(ErrorCode::NotCoordinator))
    }

    /// Whether a caller may work with a group of this name.
    pub(super) fn group_allowed(
        &self,
        caller: &Caller,
        operation: Operation,
        group: &str,
    ) -> Result<(), ErrorCode> {
        if group.is_empty() {
            return Err(ErrorCode::InvalidGroupId);
        }
        if self.allows(caller, operation, Resource::Group(group)) {
            Ok(())
        } else {
            Err(ErrorCode::GroupAuthorizationFailed)
        }
    }
}

pub(super) async fn find(api: &Api, caller: &Caller, find: FindCoordinators) -> Response {
    if find.keys.len() > api.config().max_topics_per_request {
        return Response::Refused(ErrorCode::InvalidRequest);
    }
    let available = match find.kind {
        CoordinatorKind::Group => offsets_topic(api).await,
        CoordinatorKind::Transaction | CoordinatorKind::Share => {
            Err(ErrorCode::CoordinatorNotAvailable)
        }
        CoordinatorKind::Unknown => Err(ErrorCode::InvalidRequest),
    };
    let image = api.image();
    let nodes = api.nodes(caller.door, &image);
    let found = |key: Text| {
        let allowed = || api.group_allowed(caller, Operation::Describe, &key);
        let place = available.and_then(|()| allowed()).and_then(|()| {
            let leader = shard_of(&image, &key).and_then(|(_, leader)| leader);
            let place = leader.and_then(|l| Some((l, nodes.get(&l)?)));
            place.ok_or(ErrorCode::CoordinatorNotAvailable)
        });
        let (error, broker, host, port) = match place {
            Ok((broker, at)) => (ErrorCode::None, broker, at.host.clone(), at.port),
            Err(error) => (error, BrokerId(-1), Text::default(), 0),
        };
        FoundCoordinator {
            key,
            error,
            broker,
            host,
            port,
        }
    };
    Response::FindCoordinators(FoundCoordinators {
        coordinators: find.keys.into_iter().map(found).collect(),
    })
}

/// Makes sure that the offsets topic is there and led.
async fn offsets_topic(api: &Api) -> Result<(), ErrorCode> {
    let name = TopicName::consumer_offsets();
    if !api.image().topics.contains_key(&name) {
        let partitions = api.config().offsets_partitions;
        // If somebody else was faster, theirs is used.
        let _created = topics::propose(api, name.clone(), partitions, BTreeMap::new()).await;
    }
    let is_there = api.image().topics.contains_key(&name);
    if is_there && api.wait_until_led(&name, OFFSETS_TOPIC_WAIT).await {
        Ok(())
    } else {
        Err(ErrorCode::CoordinatorNotAvailable)
    }
}

pub(super) async fn join(api: &Api, caller: &Caller, join: JoinGroup) -> Response {
    if let Err(error) = api.group_allowed(caller, Operation::Read, &join.group) {
        return Response::Refused(error);
    }
    // As Kafka names members: the client's id, then something nobody can guess.
    let new_member = Text::from(format!(
        "{}-{}",
        join.instance.as_ref().unwrap_or(&caller.client_id),
        Uuid::random()
    ));
    let group = join.group.clone();
    let (client_id, client_host) = (caller.client_id.clone(), caller.host.clone());
    let question = Question::Join {
        join,
        client_id,
        client_host,
        new_member,
    };
    match api.ask(caller, &group, question).await {
        Ok(Answer::Joined(joined)) => Response::JoinGroup(joined),
        other => unexpected(other),
    }
}

pub(super) async fn sync(api: &Api, caller: &Caller, sync: SyncGroup) -> Response {
    if let Err(error) = api.group_allowed(caller, Operation::Read, &sync.group) {
        return Response::Refused(error);
    }
    let group = sync.group.clone();
    match api.ask(caller, &group, Question::Sync(sync)).await {
        Ok(Answer::Synced(synced)) => Response::SyncGroup(synced),
        other => unexpected(other),
    }
}

pub(super) async fn heartbeat(api: &Api, caller: &Caller, heartbeat: Heartbeat) -> Response {
    let refuse = |error| Response::Heartbeat(HeartbeatAnswer { error });
    if let Err(error) = api.group_allowed(caller, Operation::Read, &heartbeat.group) {
        return refuse(error);
    }
    let group = heartbeat.group.clone();
    match api
        .ask(caller, &group, Question::Heartbeat(heartbeat))
        .await
    {
        Ok(Answer::Heartbeat(answer)) => Response::Heartbeat(answer),
        Err(error) => refuse(error),
        other => unexpected(other),
    }
}

pub(super) async fn leave(api: &Api, caller: &Caller, leave: LeaveGroup) -> Response {
    let refuse = |error| {
        Response::LeaveGroup(LeftGroup {
            error,
            members: Vec::new(),
        })
    };
    if let Err(error) = api.group_allowed(caller, Operation::Read, &leave.group) {
        return refuse(error);
    }
    let group = leave.group.clone();
    match api.ask(caller, &group, Question::Leave(leave)).await {
        Ok(Answer::Left(left)) => Response::LeaveGroup(left),
        Err(error) => refuse(error),
        other => unexpected(other),
    }
}

pub(super) async fn list(api: &Api, caller: &Caller) -> Response {
    let mut groups = Vec::new();
    let mut error = ErrorCode::None;
    for coordinator in api.shared().directory.coordinators() {
        let (reply, answer) = oneshot::channel();
        supervision::tell(
            &coordinator,
            Ask {
                question: Question::List,
                permit: caller.permit.clone(),
                reply,
            },
        );
        match answer.await {
            Ok(Ok(Answer::Listed(listed))) => groups.extend(listed),
            Ok(Err(reason)) => error = reason,
            Ok(Ok(_)) | Err(_) => error = ErrorCode::CoordinatorNotAvailable,
        }
    }
    // Who may see the cluster sees all of its groups, as in Kafka.
    let all = api.allows(caller, Operation::Describe, Resource::Cluster);
    groups.retain(|g| all || api.allows(caller, Operation::Describe, Resource::Group(&g.group)));
    groups.sort_by(|a, b| a.group.cmp(&b.group));
    Response::ListGroups(ListedGroups { error, groups })
}

pub(super) async fn describe(api: &Api, caller: &Caller, describe: DescribeGroups) -> Response {
    if describe.groups.len() > api.config().max_topics_per_request {
        return Response::Refused(ErrorCode::InvalidRequest);
    }
    let mut groups = Vec::with_capacity(describe.groups.len());
    for group in describe.groups {
        groups.push(
            describe_one(api, caller, &group)
                .await
                .unwrap_or_else(|error| GroupDescription {
                    error,
                    group: group.clone(),
                    state: Text::default(),
                    protocol_type: Text::default(),
                    protocol: Text::default(),
                    generation: -1,
                    members: Vec::new(),
                }),
        );
    }
    Response::DescribeGroups(DescribedGroups { groups })
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "an answer to something else"
)]
async fn describe_one(
    api: &Api,
    caller: &Caller,
    group: &Text,
) -> Result<GroupDescription, ErrorCode> {
    api.group_allowed(caller, Operation::Describe, group)?;
    let question = Question::Describe(DescribeGroups {
        groups: vec![group.clone()],
    });
    match api.ask(caller, group, question).await? {
        Answer::Described(mut described) => {
            described.groups.pop().ok_or(ErrorCode::UnknownServerError)
        }
        _ => Err(ErrorCode::UnknownServerError),
    }
}

pub(super) async fn delete(api: &Api, caller: &Caller, delete: DeleteGroups) -> Response {
    if delete.groups.len() > api.config().max_topics_per_request {
        return Response::Refused(ErrorCode::InvalidRequest);
    }
    let mut groups = Vec::with_capacity(delete.groups.len());
    for group in delete.groups {
        let error = delete_one(api, caller, &group).await.err();
        groups.push((group, error.unwrap_or(ErrorCode::None)));
    }
    Response::DeleteGroups(DeletedGroups { groups })
}

async fn delete_one(api: &Api, caller: &Caller, group: &Text) -> Result<(), ErrorCode> {
    api.group_allowed(caller, Operation::Delete, group)?;
    match api
        .ask(caller, group, Question::DeleteGroup(group.clone()))
        .await
    {
        Ok(Answer::Deleted(ErrorCode::None)) => Ok(()),
        Ok(Answer::Deleted(error)) => Err(error),
        // As long as there is no offsets topic there are no groups.
        Err(ErrorCode::NotCoordinator)
            if !api
                .image()
                .topics
                .contains_key(&TopicName::consumer_offsets()) =>
        {
            Err(ErrorCode::GroupIdNotFound)
        }
        Err(error) => Err(error),
        Ok(_) => Err(ErrorCode::UnknownServerError),
    }
}

/// An error, or an answer to another question, which would be a bug.
fn unexpected(answer: Result<Answer, ErrorCode>) -> Response {
    Response::Refused(answer.err().unwrap_or(ErrorCode::UnknownServerError))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_placed_as_kafka_places_them() {
        assert_eq!(java_hash("hello"), 99_162_322);
        assert_eq!(java_hash("polygenelubricants"), i32::MIN);
        assert_eq!(partition_of("polygenelubricants", 50), 0);
        assert_eq!(partition_of("hello", 50), 22);
    }
}
