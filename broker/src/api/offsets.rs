//! Offsets that groups commit: topics resolved here, the rest decided by the coordinator.

use callboard_common::kafka::Text;
use callboard_common::protocol::offsets::{
    CommitOffsets, CommitPartition, CommittedOffsets, DeleteOffsets, DeletedOffsets,
    FetchGroupOffsets, FetchOffsets, FetchedGroupOffsets, FetchedOffset, FetchedOffsets,
};
use callboard_common::protocol::{Response, TopicRef};
use callboard_common::{ErrorCode, Offset, TopicName, TopicPartition};

use super::{Api, Caller, Operation, Resource};
use crate::controller::MetadataImage;
use crate::coordinator::state::{Commit, CommittedOffset};
use crate::coordinator::{Answer, Question};

pub(super) async fn commit(api: &Api, caller: &Caller, commit: CommitOffsets) -> Response {
    let image = api.image();
    let allowed = api.group_allowed(caller, Operation::Read, &commit.group);
    // Where each offset of the commit is in the answer.
    let mut offsets = Vec::new();
    let mut places = Vec::new();
    let mut topics = Vec::with_capacity(commit.topics.len());
    for (t, topic) in commit.topics.into_iter().enumerate() {
        let name = allowed
            .and_then(|()| api.topic(caller, Operation::Read, &image, &topic.topic))
            .map(|(name, _)| name);
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for (p, partition) in topic.partitions.into_iter().enumerate() {
            let number = partition.partition;
            match name
                .clone()
                .and_then(|name| checked(&image, name, partition))
            {
                Ok(offset) => {
                    offsets.push(offset);
                    places.push((t, p));
                    partitions.push((number, ErrorCode::None));
                }
                Err(error) => partitions.push((number, error)),
            }
        }
        topics.push((topic.topic, partitions));
    }
    if !offsets.is_empty() {
        let (group, generation, member) = (commit.group.clone(), commit.generation, commit.member);
        let question = Question::Commit(Commit {
            group,
            generation,
            member,
            instance: commit.instance,
            offsets,
        });
        let errors = match api.ask(caller, &commit.group, question).await {
            Ok(Answer::Committed(errors)) => errors,
            Ok(_) => vec![ErrorCode::UnknownServerError; places.len()],
            Err(error) => vec![error; places.len()],
        };
        for ((t, p), error) in places.into_iter().zip(errors) {
            topics[t].1[p].1 = error;
        }
    }
    Response::CommitOffsets(CommittedOffsets { topics })
}

type Checked = (
    TopicPartition,
    Offset,
    Option<callboard_common::LeaderEpoch>,
    Text,
);

fn checked(
    image: &MetadataImage,
    name: TopicName,
    partition: CommitPartition,
) -> Result<Checked, ErrorCode> {
    let count = image.topics.get(&name).map_or(0, |t| t.partitions.len());
    let exists = usize::try_from(partition.partition).is_ok_and(|n| n < count);
    if !exists {
        return Err(ErrorCode::UnknownTopicOrPartition);
    }
    // Kafka takes negative offsets; nobody could resume from one.
    let offset = Offset::checked(partition.offset).ok_or(ErrorCode::OffsetOutOfRange)?;
    Ok((
        TopicPartition::new(name, partition.partition),
        offset,
        partition.epoch,
        partition.metadata,
    ))
}

pub(super) async fn delete(api: &Api, caller: &Caller, delete: DeleteOffsets) -> Response {
    let refuse = |error| {
        Response::DeleteOffsets(DeletedOffsets {
            error,
            topics: Vec::new(),
        })
    };
    if let Err(error) = api.group_allowed(caller, Operation::Delete, &delete.group) {
        return refuse(error);
    }
    let image = api.image();
    // Where each partition is in the answer.
    let (mut partitions, mut places) = (Vec::new(), Vec::new());
    let mut topics = Vec::with_capacity(delete.topics.len());
    for (t, (topic, numbers)) in delete.topics.into_iter().enumerate() {
        let name = api
            .topic(caller, Operation::Read, &image, &topic)
            .map(|(name, _)| name);
        let mut results = Vec::with_capacity(numbers.len());
        for (p, number) in numbers.into_iter().enumerate() {
            let error = match &name {
                Ok(name) => {
                    partitions.push(TopicPartition::new(name.clone(), number));
                    places.push((t, p));
                    ErrorCode::None
                }
                Err(error) => *error,
            };
            results.push((number, error));
        }
        topics.push((topic, results));
    }
    let question = Question::DeleteOffsets {
        group: delete.group.clone(),
        partitions,
    };
    match api.ask(caller, &delete.group, question).await {
        Ok(Answer::OffsetsDeleted(Ok(errors))) => {
            for ((t, p), error) in places.into_iter().zip(errors) {
                topics[t].1[p].1 = error;
            }
            Response::DeleteOffsets(DeletedOffsets {
                error: ErrorCode::None,
                topics,
            })
        }
        Ok(Answer::OffsetsDeleted(Err(error))) | Err(error) => refuse(error),
        Ok(_) => refuse(ErrorCode::UnknownServerError),
    }
}

pub(super) async fn fetch(api: &Api, caller: &Caller, fetch: FetchOffsets) -> Response {
    if fetch.groups.len() > api.config().max_topics_per_request {
        return Response::Refused(ErrorCode::InvalidRequest);
    }
    let mut groups = Vec::with_capacity(fetch.groups.len());
    let by_id = fetch.by_id;
    for group in fetch.groups {
        groups.push(fetch_group(api, caller, group, by_id).await);
    }
    Response::FetchOffsets(FetchedOffsets { groups })
}

async fn fetch_group(
    api: &Api,
    caller: &Caller,
    wanted: FetchGroupOffsets,
    by_id: bool,
) -> FetchedGroupOffsets {
    let group = wanted.group.clone();
    let result = match wanted.topics {
        Some(topics) => fetch_some(api, caller, &group, topics).await,
        None => fetch_all(api, caller, &group, by_id).await,
    };
    match result {
        Ok(topics) => FetchedGroupOffsets {
            group,
            error: ErrorCode::None,
            topics,
        },
        Err(error) => FetchedGroupOffsets {
            group,
            error,
            topics: Vec::new(),
        },
    }
}

type Topics = Vec<(TopicRef, Vec<FetchedOffset>)>;

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "an answer to something else"
)]
async fn ask(
    api: &Api,
    caller: &Caller,
    group: &Text,
    partitions: Option<Vec<TopicPartition>>,
) -> Result<Vec<(TopicPartition, Option<CommittedOffset>)>, ErrorCode> {
    api.group_allowed(caller, Operation::Describe, group)?;
    match api
        .ask(
            caller,
            group,
            Question::Offsets {
                group: group.clone(),
                partitions,
            },
        )
        .await?
    {
        Answer::Offsets(offsets) => Ok(offsets),
        _ => Err(ErrorCode::UnknownServerError),
    }
}

async fn fetch_some(
    api: &Api,
    caller: &Caller,
    group: &Text,
    wanted: Vec<(TopicRef, Vec<i32>)>,
) -> Result<Topics, ErrorCode> {
    let image = api.image();
    let mut topics = Vec::with_capacity(wanted.len());
    for (topic, numbers) in wanted {
        // Offsets of a topic that was deleted are still known by its name.
        let name = match &topic {
            TopicRef::Name(name) => {
                TopicName::new(name).map_err(|_| ErrorCode::InvalidTopicException)
            }
            TopicRef::Id(_) => api
                .topic(caller, Operation::Describe, &image, &topic)
                .map(|(name, _)| name),
        };
        let name = name.and_then(|name| {
            let allowed = api.allows(caller, Operation::Describe, Resource::Topic(&name));
            if allowed {
                Ok(name)
            } else {
                Err(ErrorCode::TopicAuthorizationFailed)
            }
        });
        let offsets = match name {
            Ok(name) => {
                let partitions = numbers
                    .iter()
                    .map(|n| TopicPartition::new(name.clone(), *n))
                    .collect();
                let found = ask(api, caller, group, Some(partitions)).await?;
                found
                    .into_iter()
                    .map(|(p, offset)| answer(p.partition, offset))
                    .collect()
            }
            Err(error) => numbers
                .into_iter()
                .map(|n| FetchedOffset {
                    error,
                    ..answer(n, None)
                })
                .collect(),
        };
        topics.push((topic, offsets));
    }
    Ok(topics)
}

async fn fetch_all(
    api: &Api,
    caller: &Caller,
    group: &Text,
    by_id: bool,
) -> Result<Topics, ErrorCode> {
    let mut topics: Topics = Vec::new();
    let image = api.image();
    for (partition, offset) in ask(api, caller, group, None).await? {
        if !api.allows(
            caller,
            Operation::Describe,
            Resource::Topic(&partition.topic),
        ) {
            continue;
        }
        let topic = match image.topics.get(&partition.topic) {
            Some(topic) if by_id => TopicRef::Id(topic.id),
            // Offsets of a topic that was deleted have no id any more.
            None if by_id => continue,
            Some(_) | None => TopicRef::Name(partition.topic.as_str().into()),
        };
        let answer = answer(partition.partition, offset);
        // Offsets come sorted by topic.
        match topics.last_mut() {
            Some((last, offsets)) if *last == topic => offsets.push(answer),
            Some(_) | None => topics.push((topic, vec![answer])),
        }
    }
    Ok(topics)
}

fn answer(partition: i32, offset: Option<CommittedOffset>) -> FetchedOffset {
    let error = ErrorCode::None;
    match offset {
        Some(o) => FetchedOffset {
            partition,
            error,
            offset: Some(o.offset),
            epoch: o.epoch,
            metadata: o.metadata,
        },
        None => FetchedOffset {
            partition,
            error,
            offset: None,
            epoch: None,
            metadata: Text::default(),
        },
    }
}
