//! Creating, deleting and describing topics and groups; nodes and moves in `cluster`, settings in `configs`, users,
//! rules and quotas in `security`.

mod cluster;
mod configs;
mod security;

use std::collections::BTreeMap;
use std::time::Duration;

use callboard_common::kafka::Text;
use callboard_common::protocol::groups::{
    DeleteGroups, DeletedGroups, DescribeGroups, DescribedGroups, GroupDescription, GroupListing,
    ListGroups, ListedGroups,
};
use callboard_common::protocol::list_offsets::{
    ListOffsets, ListOffsetsPartition, ListOffsetsTopic, ListedOffsets, OffsetTarget,
};
use callboard_common::protocol::metadata::{Metadata, MetadataAnswer};
use callboard_common::protocol::offsets::{
    CommitOffsets, CommitPartition, CommitTopic, CommittedOffsets, DeleteOffsets, DeletedOffsets,
    FetchGroupOffsets, FetchOffsets, FetchedOffsets,
};
use callboard_common::protocol::topics::{
    CreatePartitions, CreateTopics, CreatedPartitions, CreatedTopic, CreatedTopics, DeleteRecords,
    DeleteTopics, DeletedRecords, DeletedTopics, DescribeTopics, DescribedTopics, NewTopic,
    TopicDescription,
};
use callboard_common::protocol::{Ask, TopicRef};
use callboard_common::{BrokerId, ErrorCode, Offset, TopicName, TopicPartition};

use crate::Client;
use crate::connection::Lane;
use crate::error::{Error, check};
use crate::routing::Route;

const TOPIC_TIMEOUT_MS: i32 = 30_000;

/// Administrative calls of a [`Client`]. Each is tried again while an error may pass, for
/// [`api_timeout`](crate::ClientConfig::api_timeout) at most.
#[derive(Clone, Debug)]
pub struct Admin {
    client: Client,
}

fn refused(code: ErrorCode, detail: Option<Text>) -> Result<(), Error> {
    if code == ErrorCode::None {
        return Ok(());
    }
    Err(Error::Refused {
        code,
        detail: detail.map(|d| d.to_string()),
    })
}

impl Admin {
    pub(crate) fn new(client: Client) -> Self {
        Self { client }
    }

    /// Asks all nodes that are alive, one after the other; again if one of them has just died.
    async fn ask_all<A: Ask + Clone>(
        &self,
        request: A,
    ) -> Result<Vec<(BrokerId, A::Answer)>, Error> {
        let config = self.client.config();
        let trying = async {
            loop {
                match self.ask_all_once(request.clone()).await {
                    Err(error) if error.is_retriable() => {
                        tokio::time::sleep(config.retry_backoff).await;
                    }
                    other => return other,
                }
            }
        };
        tokio::time::timeout(config.api_timeout, trying)
            .await
            .unwrap_or(Err(Error::Timeout))
    }

    async fn ask_all_once<A: Ask + Clone>(
        &self,
        request: A,
    ) -> Result<Vec<(BrokerId, A::Answer)>, Error> {
        let everybody = Metadata {
            topics: Some(Vec::new()),
            auto_create: false,
        };
        let learn = |answer: MetadataAnswer| {
            self.client.known().learn(&answer);
            Ok(answer.brokers)
        };
        let asking = self.client.ask_patiently(Lane::Control, everybody, learn);
        let mut answers = Vec::new();
        for broker in asking.await? {
            let node = self
                .client
                .node(&format!("{}:{}", broker.host, broker.port))
                .await;
            let asking = node.ask(Lane::Control, request.clone(), Duration::ZERO);
            answers.push((broker.id, asking.await?));
        }
        Ok(answers)
    }

    /// Creates a topic with the broker's default settings and waits until its partitions are led.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`], with `TopicAlreadyExists` if it is there.
    ///
    /// ```
    /// # use callboard_broker::Node;
    /// # use callboard_client::{Client, ClientConfig, ErrorCode, Trust};
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let node = Node::builder().in_memory().start().await?;
    /// # let client = Client::connect(ClientConfig::new(node.quic(), Trust::Ca(node.ca_pem().into()))).await?;
    /// let admin = client.admin();
    /// let topic = admin.create_topic("orders", 6).await?;
    /// assert_eq!(topic.partitions, 6);
    /// let again = admin.create_topic("orders", 6).await.expect_err("it is there");
    /// assert_eq!(again.code(), Some(ErrorCode::TopicAlreadyExists));
    /// # Ok(()) }
    /// ```
    pub async fn create_topic(&self, name: &str, partitions: i32) -> Result<CreatedTopic, Error> {
        let topic = NewTopic {
            partitions: Some(partitions),
            ..NewTopic::named(name)
        };
        self.create_topic_with(topic, false).await
    }

    /// Creates a topic with its number of replicas, its replicas one by one, or its settings, or with `validate_only` checks
    /// whether it could be.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`]; nothing was created.
    pub async fn create_topic_with(
        &self,
        topic: NewTopic,
        validate_only: bool,
    ) -> Result<CreatedTopic, Error> {
        let request = CreateTopics {
            topics: vec![topic],
            timeout_ms: TOPIC_TIMEOUT_MS,
            validate_only,
        };
        let accept = |mut created: CreatedTopics| {
            let topic = created
                .topics
                .pop()
                .ok_or(Error::refused(ErrorCode::UnknownServerError))?;
            refused(topic.error, topic.message.clone())?;
            Ok(topic)
        };
        self.client
            .ask_patiently(Lane::Control, request, accept)
            .await
    }

    /// Adds partitions to a topic, so that it has `count` of them, and waits until they are led. Keys go to other
    /// partitions from then on.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`], with `InvalidPartitions` if it has as many or more.
    pub async fn create_partitions(&self, name: &str, count: i32) -> Result<(), Error> {
        let request = CreatePartitions {
            topics: vec![(name.into(), count, None)],
            timeout_ms: TOPIC_TIMEOUT_MS,
            validate_only: false,
        };
        let created: CreatedPartitions = self
            .client
            .ask(Lane::Control, request, Duration::ZERO)
            .await?;
        self.client.forget(name);
        match created.topics.into_iter().next() {
            Some((_, error, detail)) => refused(error, detail),
            None => Err(Error::refused(ErrorCode::UnknownServerError)),
        }
    }

    /// Deletes a topic with all its records.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`], with `UnknownTopicOrPartition` if there is none.
    pub async fn delete_topic(&self, name: &str) -> Result<(), Error> {
        let topics = vec![TopicRef::Name(name.into())];
        let request = DeleteTopics {
            topics,
            timeout_ms: TOPIC_TIMEOUT_MS,
        };
        let deleted: DeletedTopics = self
            .client
            .ask(Lane::Control, request, Duration::ZERO)
            .await?;
        self.client.forget(name);
        check(
            deleted
                .topics
                .first()
                .map_or(ErrorCode::UnknownServerError, |t| t.error),
        )
    }

    /// Describes topics, sorted by name; all if none are named.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] for the first topic that is not there.
    pub async fn describe_topics(&self, names: &[&str]) -> Result<Vec<TopicDescription>, Error> {
        let named = names
            .iter()
            .map(|n| TopicRef::Name(Text::from(*n)))
            .collect();
        let request = DescribeTopics {
            topics: (!names.is_empty()).then_some(named),
        };
        let accept = |described: DescribedTopics| {
            for topic in &described.topics {
                if topic.error == ErrorCode::UnknownTopicOrPartition {
                    let name = topic.name.clone().unwrap_or_default();
                    return Err(Error::UnknownTopic(name.to_string()));
                }
                check(topic.error)?;
            }
            Ok(described.topics)
        };
        let asked = request.clone();
        let mut topics = self
            .client
            .ask_patiently(Lane::Control, request, accept)
            .await?;
        let led_here = |t: &TopicDescription| t.partitions.iter().all(|p| p.ends.is_some());
        if !topics.iter().all(led_here) {
            // Each leader knows the ends of what it leads.
            for (_, described) in self.ask_all(asked).await? {
                merge(&mut topics, described);
            }
        }
        Ok(topics)
    }

    /// Deletes the records of a partition below `before`, or all; returns its first offset afterwards.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`], with `OffsetOutOfRange` beyond the partition's end.
    pub async fn delete_records(
        &self,
        partition: &TopicPartition,
        before: Option<Offset>,
    ) -> Result<Offset, Error> {
        let topic = TopicRef::Name(partition.topic.as_str().into());
        let request = DeleteRecords {
            partitions: vec![(topic, partition.partition, before.map(Offset::get))],
        };
        let accept = |deleted: DeletedRecords| match deleted.partitions.first() {
            Some((ErrorCode::None, Some(start))) => Ok(*start),
            Some((error, _)) => Err(Error::refused(*error)),
            None => Err(Error::refused(ErrorCode::UnknownServerError)),
        };
        let route = Route::Leader(partition.clone());
        self.client
            .ask_patiently_at(&route, Lane::Control, request, accept)
            .await
    }

    /// Looks up an offset of a partition; `None` if there is no such record.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`].
    pub async fn offset(
        &self,
        partition: &TopicPartition,
        target: OffsetTarget,
    ) -> Result<Option<Offset>, Error> {
        let part = ListOffsetsPartition {
            partition: partition.partition,
            current_epoch: None,
            target,
        };
        let topic = TopicRef::Name(partition.topic.as_str().into());
        let request = ListOffsets {
            topics: vec![ListOffsetsTopic {
                topic,
                partitions: vec![part],
            }],
        };
        let accept = |listed: ListedOffsets| {
            let found = listed.topics.first().and_then(|t| t.partitions.first());
            let found = found.ok_or(Error::refused(ErrorCode::UnknownServerError))?;
            check(found.error)?;
            Ok(found.offset)
        };
        let route = Route::Leader(partition.clone());
        self.client
            .ask_patiently_at(&route, Lane::Control, request, accept)
            .await
    }

    /// Lists all groups, sorted by name.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`].
    pub async fn list_groups(&self) -> Result<Vec<GroupListing>, Error> {
        let mut groups = Vec::new();
        for (_, listed) in self.ask_all(ListGroups).await? {
            let listed: ListedGroups = listed;
            check(listed.error)?;
            groups.extend(listed.groups);
        }
        // While a coordinator moves, two may name its groups.
        groups.sort_by(|a: &GroupListing, b| a.group.cmp(&b.group));
        groups.dedup_by(|a, b| a.group == b.group);
        Ok(groups)
    }

    /// Describes a group; one that is not there has the state `Dead`.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`].
    pub async fn describe_group(&self, group: &str) -> Result<GroupDescription, Error> {
        let route = Route::Coordinator(group.into());
        let request = DescribeGroups {
            groups: vec![group.into()],
        };
        let accept = |mut described: DescribedGroups| {
            let group = described
                .groups
                .pop()
                .ok_or(Error::refused(ErrorCode::UnknownServerError))?;
            check(group.error)?;
            Ok(group)
        };
        self.client
            .ask_patiently_at(&route, Lane::Control, request, accept)
            .await
    }

    /// The offsets that a group has committed.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`].
    pub async fn group_offsets(
        &self,
        group: &str,
    ) -> Result<BTreeMap<TopicPartition, Offset>, Error> {
        self.committed(group, None).await
    }

    /// What a group has committed of these topics' partitions, or of all.
    pub(crate) async fn committed(
        &self,
        group: &str,
        topics: Option<Vec<(TopicRef, Vec<i32>)>>,
    ) -> Result<BTreeMap<TopicPartition, Offset>, Error> {
        let route = Route::Coordinator(group.into());
        let group = group.into();
        let request = FetchOffsets {
            groups: vec![FetchGroupOffsets { group, topics }],
            by_id: false,
        };
        let accept = |mut fetched: FetchedOffsets| {
            let group = fetched.groups.pop();
            let group = group.ok_or(Error::refused(ErrorCode::UnknownServerError))?;
            check(group.error)?;
            Ok(offsets(group.topics))
        };
        self.client
            .ask_patiently_at(&route, Lane::Group, request, accept)
            .await
    }

    /// Commits offsets for a group that has no members, as for a reset.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`], with `UnknownMemberId` while the group has members.
    pub async fn set_group_offsets(
        &self,
        group: &str,
        offsets: &BTreeMap<TopicPartition, Offset>,
    ) -> Result<(), Error> {
        let route = Route::Coordinator(group.into());
        let request = CommitOffsets {
            group: group.into(),
            generation: -1,
            member: Text::default(),
            instance: None,
            topics: commit_topics(offsets),
        };
        self.client
            .ask_patiently_at(&route, Lane::Group, request, accept_commit)
            .await
    }

    /// Deletes a group that has no members, with its offsets.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`], with `NonEmptyGroup` while it has members and `GroupIdNotFound` if there is none.
    pub async fn delete_group(&self, group: &str) -> Result<(), Error> {
        let route = Route::Coordinator(group.into());
        let request = DeleteGroups {
            groups: vec![group.into()],
        };
        let accept = |deleted: DeletedGroups| {
            let first = deleted.groups.first();
            check(first.map_or(ErrorCode::UnknownServerError, |(_, error)| *error))
        };
        self.client
            .ask_patiently_at(&route, Lane::Control, request, accept)
            .await
    }

    /// Forgets offsets that a group has committed; those of topics that its members read stay.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] of the first that is not forgotten, with `GroupSubscribedToTopic` if it is being read.
    pub async fn delete_group_offsets(
        &self,
        group: &str,
        partitions: &[TopicPartition],
    ) -> Result<(), Error> {
        let route = Route::Coordinator(group.into());
        let one = |p: &TopicPartition| (TopicRef::Name(p.topic.as_str().into()), vec![p.partition]);
        let request = DeleteOffsets {
            group: group.into(),
            topics: partitions.iter().map(one).collect(),
        };
        let accept = |deleted: DeletedOffsets| {
            check(deleted.error)?;
            let mut errors = deleted
                .topics
                .iter()
                .flat_map(|(_, p)| p.iter().map(|(_, e)| *e));
            errors.try_for_each(check)
        };
        self.client
            .ask_patiently_at(&route, Lane::Control, request, accept)
            .await
    }
}

/// Takes over what another node knows better.
fn merge(topics: &mut [TopicDescription], described: DescribedTopics) {
    for other in described.topics {
        let same = topics.iter_mut().find(|t| t.name == other.name);
        let Some(topic) = same else { continue };
        for (mine, theirs) in topic.partitions.iter_mut().zip(other.partitions) {
            if theirs.ends.map(|e| e.epoch) > mine.ends.map(|e| e.epoch) {
                mine.ends = theirs.ends;
            }
        }
    }
}

/// Offsets of a fetch as a map; what was not committed is not in it.
fn offsets(
    topics: Vec<(
        TopicRef,
        Vec<callboard_common::protocol::offsets::FetchedOffset>,
    )>,
) -> BTreeMap<TopicPartition, Offset> {
    let mut map = BTreeMap::new();
    for (topic, offsets) in topics {
        let TopicRef::Name(name) = topic else {
            continue;
        };
        let Ok(name) = TopicName::new(&name) else {
            continue;
        };
        for offset in offsets {
            if let Some(committed) = offset.offset {
                let _none = map.insert(
                    TopicPartition::new(name.clone(), offset.partition),
                    committed,
                );
            }
        }
    }
    map
}

/// Offsets as a commit names them.
pub(crate) fn commit_topics(offsets: &BTreeMap<TopicPartition, Offset>) -> Vec<CommitTopic> {
    let mut topics: Vec<CommitTopic> = Vec::new();
    for (partition, offset) in offsets {
        let topic = TopicRef::Name(partition.topic.as_str().into());
        let part = CommitPartition {
            partition: partition.partition,
            offset: offset.get(),
            epoch: None,
            metadata: Text::default(),
        };
        match topics.last_mut() {
            Some(last) if last.topic == topic => last.partitions.push(part),
            _ => topics.push(CommitTopic {
                topic,
                partitions: vec![part],
            }),
        }
    }
    topics
}

/// The first error of a commit's answer.
pub(crate) fn accept_commit(committed: CommittedOffsets) -> Result<(), Error> {
    let mut errors = committed
        .topics
        .iter()
        .flat_map(|(_, partitions)| partitions.iter().map(|(_, error)| *error));
    check(
        errors
            .find(|e| *e != ErrorCode::None)
            .unwrap_or(ErrorCode::None),
    )
}
