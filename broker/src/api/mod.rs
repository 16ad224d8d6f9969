//! Requests to messages to answers, the same for every door.
//!
//! [`Api::start`] is called in the order in which a connection's requests came. Whatever must keep that order (the
//! batches of produce requests) is handed to its actor before it returns; the future only waits for answers.
//!
//! Nothing here touches storage or a core: requests become messages to the actors that the directory names.

mod access;
mod fetch;
mod groups;
mod list_offsets;
mod metadata;
mod offsets;
mod produce;
mod topics;

pub use access::{Authorizer, Operation, Principal, Resource};

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use actix::Addr;
use callboard_common::kafka::Text;
use callboard_common::protocol::{Request, Response, TopicRef};
use callboard_common::{ErrorCode, TopicName, TopicPartition, Uuid};
use futures::FutureExt;
use futures::future::{BoxFuture, Either, select};
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::controller::actor::{Propose, Published};
use crate::controller::{Command, ControllerActor, MetadataImage, Outcome, Refusal};
use crate::node::Shared;
use crate::supervision::{self, Permit};
use crate::topic_config::TopicConfig;

/// Where clients find this node on one door.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advertised {
    /// Host name or address.
    pub host: Text,
    /// Port.
    pub port: u16,
}

/// Which door a request came through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// TCP with Kafka's protocol.
    Kafka,
    /// QUIC with Callboard's own.
    Quic,
}

/// Who asks, and with what credits.
#[derive(Clone, Debug)]
pub struct Caller {
    /// Who was authenticated.
    pub principal: Principal,
    /// What the client calls itself.
    pub client_id: Text,
    /// Where it is.
    pub host: Text,
    /// The door it came through.
    pub door: Door,
    /// The request's credits.
    pub permit: Permit,
}

/// Limits of what one request may ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiConfig {
    /// Whether asking for the metadata of a missing topic creates it (`auto.create.topics.enable`).
    pub auto_create_topics: bool,
    /// Most topics that one request creates that way.
    pub auto_create_max: usize,
    /// `num.partitions`.
    pub num_partitions: i32,
    /// `offsets.topic.num.partitions`.
    pub offsets_partitions: i32,
    /// Most topics that one request may name.
    pub max_topics_per_request: usize,
    /// Most partitions of the cluster.
    pub max_partitions: usize,
    /// Bytes of fetched records on their way to clients, all connections together.
    pub fetch_in_flight_max_bytes: u32,
    /// Most bytes that one fetch returns (`fetch.max.bytes`).
    pub fetch_max_bytes: i32,
    /// Longest wait of a fetch.
    pub fetch_max_wait: Duration,
    /// Settings of topics that choose nothing else.
    pub topic_defaults: TopicConfig,
}

#[derive(Debug)]
struct Inner {
    shared: Shared,
    controller: Addr<ControllerActor>,
    published: Published,
    config: ApiConfig,
    authorizer: Authorizer,
    kafka: Advertised,
    quic: Advertised,
    /// Bytes that fetches may still read.
    fetch_bytes: Arc<tokio::sync::Semaphore>,
    /// Producer ids that the controller gave to this node: next and end.
    producer_ids: Mutex<(i64, i64)>,
}

/// Answers requests; clones share it.
#[derive(Clone, Debug)]
pub struct Api(Arc<Inner>);

impl Api {
    /// An API over the node's actors.
    #[must_use]
    pub fn new(
        shared: Shared,
        controller: Addr<ControllerActor>,
        published: Published,
        config: ApiConfig,
        kafka: Advertised,
        quic: Advertised,
    ) -> Self {
        let authorizer = Authorizer::allow_all();
        let producer_ids = Mutex::new((0, 0));
        let fetch_bytes = Arc::new(tokio::sync::Semaphore::new(
            config.fetch_in_flight_max_bytes as usize,
        ));
        Self(Arc::new(Inner {
            shared,
            controller,
            published,
            config,
            authorizer,
            kafka,
            quic,
            fetch_bytes,
            producer_ids,
        }))
    }

    /// Begins to serve a request.
    pub fn start(&self, caller: Caller, request: Request) -> BoxFuture<'static, Response> {
        let api = self.clone();
        match request {
            Request::Produce(r) => produce::start(&api, &caller, r)
                .map(Response::Produce)
                .boxed(),
            Request::Fetch(r) => {
                async move { Response::Fetch(fetch::fetch(&api, &caller, r).await) }.boxed()
            }
            Request::ListOffsets(r) => {
                async move { Response::ListOffsets(list_offsets::list(&api, &caller, r).await) }
                    .boxed()
            }
            Request::Metadata(r) => async move { metadata::answer(&api, &caller, r).await }.boxed(),
            Request::CommitOffsets(r) => {
                async move { offsets::commit(&api, &caller, r).await }.boxed()
            }
            Request::FetchOffsets(r) => {
                async move { offsets::fetch(&api, &caller, r).await }.boxed()
            }
            Request::FindCoordinators(r) => {
                async move { groups::find(&api, &caller, r).await }.boxed()
            }
            Request::JoinGroup(r) => async move { groups::join(&api, &caller, r).await }.boxed(),
            Request::SyncGroup(r) => async move { groups::sync(&api, &caller, r).await }.boxed(),
            Request::Heartbeat(r) => {
                async move { groups::heartbeat(&api, &caller, r).await }.boxed()
            }
            Request::LeaveGroup(r) => async move { groups::leave(&api, &caller, r).await }.boxed(),
            Request::ListGroups(_) => async move { groups::list(&api, &caller).await }.boxed(),
            Request::DescribeGroups(r) => {
                async move { groups::describe(&api, &caller, r).await }.boxed()
            }
            Request::CreateTopics(r) => {
                async move { topics::create(&api, &caller, r).await }.boxed()
            }
            Request::DeleteTopics(r) => {
                async move { topics::delete(&api, &caller, r).await }.boxed()
            }
            Request::DeleteRecords(r) => {
                async move { topics::delete_records(&api, &caller, r).await }.boxed()
            }
            Request::DescribeTopics(r) => async move { topics::describe(&api, &caller, r) }.boxed(),
            Request::InitProducer(r) => {
                async move { produce::init(&api, &caller, r).await }.boxed()
            }
        }
    }

    /// Settings of topics, limits of requests.
    #[must_use]
    pub fn config(&self) -> &ApiConfig {
        &self.0.config
    }

    /// What all actors of the node share.
    #[must_use]
    pub fn shared(&self) -> &Shared {
        &self.0.shared
    }

    /// The committed metadata.
    #[must_use]
    pub fn image(&self) -> Arc<MetadataImage> {
        self.0.published.image.load_full()
    }

    fn advertised(&self, door: Door) -> &Advertised {
        match door {
            Door::Kafka => &self.0.kafka,
            Door::Quic => &self.0.quic,
        }
    }

    fn allows(&self, caller: &Caller, operation: Operation, resource: Resource<'_>) -> bool {
        self.0
            .authorizer
            .allows(&caller.principal, operation, resource)
    }

    /// Finds the topic that a request names.
    fn topic(
        &self,
        image: &MetadataImage,
        topic: &TopicRef,
    ) -> Result<(TopicName, Uuid), ErrorCode> {
        match topic {
            TopicRef::Name(name) => {
                let name = TopicName::new(name).map_err(|_| ErrorCode::InvalidTopicException)?;
                let found = image
                    .topics
                    .get(&name)
                    .ok_or(ErrorCode::UnknownTopicOrPartition)?;
                Ok((name, found.id))
            }
            TopicRef::Id(id) => {
                let (name, found) = image.topic_by_id(id).ok_or(ErrorCode::UnknownTopicId)?;
                Ok((name.clone(), found.id))
            }
        }
    }

    /// Finds the leader of a partition that a request names.
    fn leader(&self, partition: &TopicPartition) -> Result<crate::directory::LeaderRef, ErrorCode> {
        if let Some(leader) = self.shared().directory.leader(partition) {
            return Ok(leader);
        }
        let image = self.0.published.image.load();
        let number =
            usize::try_from(partition.partition).map_err(|_| ErrorCode::UnknownTopicOrPartition)?;
        match image.topics.get(&partition.topic) {
            // It is known but not led at the moment.
            Some(topic) if number < topic.partitions.len() => Err(ErrorCode::NotLeaderOrFollower),
            Some(_) | None => Err(ErrorCode::UnknownTopicOrPartition),
        }
    }

    /// Proposes a change of the metadata and waits until it is committed.
    async fn propose(&self, command: Command) -> Result<Outcome, Refusal> {
        let (reply, answer) = oneshot::channel();
        supervision::tell(&self.0.controller, Propose { command, reply });
        answer.await.unwrap_or(Err(Refusal::Stopped))
    }

    /// Waits until all partitions of a topic are led, or the time is up.
    async fn wait_until_led(
        &self,
        topic: &TopicName,
        partitions: usize,
        timeout: Duration,
    ) -> bool {
        let mut changes = self.shared().directory.changes();
        let directory = self.shared().directory.clone();
        let all_led = async {
            loop {
                let leaders = directory.topic(topic).unwrap_or_default();
                if leaders.len() >= partitions {
                    break leaders;
                }
                if changes.changed().await.is_err() {
                    break leaders;
                }
            }
        };
        let clock = self.shared().clock.clone();
        let all_led = async move {
            for leader in all_led.await.values() {
                let mut ends = leader.ends.clone();
                // A leader that is gone is not waited for.
                drop(ends.wait_for(|e| e.epoch.is_some()).await);
            }
        };
        or_timeout(all_led, clock.sleep(timeout)).await.is_some()
    }
}

/// What a future gives, or `None` when the time is up first.
async fn or_timeout<T>(work: impl Future<Output = T>, time: impl Future<Output = ()>) -> Option<T> {
    futures::pin_mut!(work);
    futures::pin_mut!(time);
    match select(work, time).await {
        Either::Left((done, _)) => Some(done),
        Either::Right(((), _)) => None,
    }
}

/// A client's timeout, bounded.
fn timeout(ms: i32) -> Duration {
    Duration::from_millis(u64::try_from(ms).unwrap_or(0)).min(Duration::from_mins(5))
}
