//! Requests to messages to answers, the same for every door.
//!
//! [`Api::start`] is called in the order in which a connection's requests came. Whatever must keep that order (the
//! batches of produce requests) is handed to its actor before it returns; the future only waits for answers.
//!
//! Nothing here touches storage or a core: requests become messages to the actors that the directory names.

mod access;
mod cluster;
mod configs;
mod features;
mod fetch;
mod groups;
mod list_offsets;
mod metadata;
mod moves;
mod offsets;
mod produce;
mod security;
mod topics;

pub use access::{Authorizer, Operation, Resource};
pub use features::FeatureLevels;

use std::collections::BTreeMap;
use std::future::Future;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use actix::Addr;
use callboard_common::kafka::Text;
use callboard_common::protocol::{Request, Response, TopicRef};
use callboard_common::{
    BrokerId, ErrorCode, FeatureLevel, LeaderEpoch, TopicName, TopicPartition, Uuid,
};
use futures::FutureExt;
use futures::future::{BoxFuture, Either, select};
use parking_lot::Mutex;

use crate::controller::actor::{Published, propose};
use crate::controller::{
    Command, ControllerActor, Endpoint, Endpoints, MetadataImage, Outcome, Refusal, TopicImage,
};
use crate::directory::{LeaderRef, Replica};
use crate::node::Shared;
use crate::security::Principal;
use crate::supervision::Permit;
use crate::topic_config::TopicConfig;

/// So many replicas a topic has by default, if there are as many nodes.
pub const DEFAULT_FACTOR: usize = 3;

/// Where clients find a node on one door.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advertised {
    /// Host name or address.
    pub host: Text,
    /// Port.
    pub port: u16,
}

impl From<&Endpoint> for Advertised {
    fn from(endpoint: &Endpoint) -> Self {
        Self {
            host: Text::from(endpoint.host.as_str()),
            port: endpoint.port,
        }
    }
}

impl From<Advertised> for Endpoint {
    fn from(advertised: Advertised) -> Self {
        Self {
            host: advertised.host.to_string(),
            port: advertised.port,
        }
    }
}

/// Who leads a partition now, for a client that asked another node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaderHint {
    /// The leader.
    pub leader: BrokerId,
    /// Its reign.
    pub epoch: LeaderEpoch,
    /// Where the client finds it.
    pub at: Advertised,
}

/// Which door a request came through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// TCP with Kafka's protocol.
    Kafka,
    /// The same with TLS.
    KafkaTls,
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
    /// Who the connection belongs to from now on.
    pub became: Became,
}

/// Where a connection learns who uses it.
#[derive(Clone, Debug, Default)]
pub struct Became(Arc<Mutex<Belongs>>);

#[derive(Debug, Default)]
struct Belongs {
    certified: Option<Principal>,
    proved: Option<Principal>,
}

impl Became {
    /// Notes who a certificate says that it is; a password comes over that.
    pub fn certify(&self, principal: Principal) {
        self.0.lock().certified = Some(principal);
    }

    /// Notes who has proved by a password that it is.
    pub fn note(&self, principal: Principal) {
        self.0.lock().proved = Some(principal);
    }

    /// Whether somebody has proved by a password who it is.
    #[must_use]
    pub fn is_proved(&self) -> bool {
        self.0.lock().proved.is_some()
    }

    /// Who it is, if that was proved.
    #[must_use]
    pub fn get(&self) -> Option<Principal> {
        let belongs = self.0.lock();
        belongs
            .proved
            .as_ref()
            .or(belongs.certified.as_ref())
            .cloned()
    }
}

/// Each takes milliseconds of a thread that reads need too.
const VERIFICATIONS_AT_ONCE: usize = 1;
/// A client that did not prove who it is waits so long for its answer (`connection.failed.authentication.delay.ms`).
const FAILED_AUTHENTICATION_DELAY: Duration = Duration::from_millis(100);

impl Caller {
    /// The address without the `/` that Kafka writes in front of it.
    fn address(&self) -> &str {
        self.host.strip_prefix('/').unwrap_or(&self.host)
    }
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
    /// `default.replication.factor`; `None` is three, or as many as there are nodes.
    pub replication_factor: Option<usize>,
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
    /// Whether readers may be sent to a follower in their rack.
    pub follower_fetch: bool,
    /// The highest feature level that the node speaks.
    pub newest_level: FeatureLevel,
    /// Settings of topics that choose nothing else.
    pub topic_defaults: TopicConfig,
    /// The node's settings by Kafka's names.
    pub settings: Vec<crate::config::NodeSetting>,
    /// Whether clients must prove who they are.
    pub authenticate: bool,
    /// Who may do what.
    pub authorizer: Authorizer,
}

/// Where clients find this node, by door.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// Kafka clients.
    pub kafka: Advertised,
    /// Kafka clients with TLS; the same as without if there is no such door.
    pub kafka_tls: Advertised,
    /// Callboard's clients.
    pub quic: Advertised,
}

#[derive(Debug)]
struct Inner {
    shared: Shared,
    controller: Addr<ControllerActor>,
    published: Published,
    config: ApiConfig,
    addresses: Addresses,
    /// Random at each start: makes up credentials of users that are not there.
    secret: [u8; 32],
    /// Passwords that are verified at once.
    verifications: tokio::sync::Semaphore,
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
        addresses: Addresses,
    ) -> Self {
        let secret = [Uuid::random().0, Uuid::random().0].concat();
        let secret = secret.try_into().unwrap_or([0; 32]);
        let producer_ids = Mutex::new((0, 0));
        let fetch_bytes = Arc::new(tokio::sync::Semaphore::new(
            config.fetch_in_flight_max_bytes as usize,
        ));
        Self(Arc::new(Inner {
            shared,
            controller,
            published,
            config,
            addresses,
            secret,
            verifications: tokio::sync::Semaphore::new(VERIFICATIONS_AT_ONCE),
            fetch_bytes,
            producer_ids,
        }))
    }

    /// Begins to serve a request.
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "administration lists the rest"
    )]
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
            request => self.start_administration(caller, request),
        }
    }

    /// Requests of administration: nothing of them is in a hurry.
    fn start_administration(
        &self,
        caller: Caller,
        request: Request,
    ) -> BoxFuture<'static, Response> {
        let api = self.clone();
        async move {
            match request {
                Request::CreatePartitions(r) => topics::create_partitions(&api, &caller, r).await,
                Request::DescribeConfigs(r) => configs::describe(&api, &caller, &r),
                Request::AlterConfigs(r) => configs::alter(&api, &caller, r).await,
                Request::DeleteGroups(r) => groups::delete(&api, &caller, r).await,
                Request::DeleteOffsets(r) => offsets::delete(&api, &caller, r).await,
                Request::EpochEnds(r) => list_offsets::epoch_ends(&api, &caller, r).await,
                Request::DescribeAcls(r) => security::describe_acls(&api, &caller, &r),
                Request::CreateAcls(r) => security::create_acls(&api, &caller, r).await,
                Request::DeleteAcls(r) => security::delete_acls(&api, &caller, r).await,
                Request::DescribeUsers(r) => security::describe_users(&api, &caller, r),
                Request::AlterUsers(r) => security::alter_users(&api, &caller, r).await,
                Request::DescribeQuotas(r) => security::describe_quotas(&api, &caller, &r),
                Request::AlterQuotas(r) => security::alter_quotas(&api, &caller, r).await,
                Request::DescribeCluster(_) => cluster::describe(&api, &caller),
                Request::DescribeQuorum(_) => cluster::quorum(&api, &caller).await,
                Request::ChangeNode(r) => cluster::change_node(&api, &caller, r).await,
                Request::Reassign(r) => moves::reassign(&api, &caller, r).await,
                Request::ListReassignments(r) => moves::list_moves(&api, &caller, r),
                Request::ElectLeaders(r) => moves::elect(&api, &caller, r).await,
                Request::DescribeLogs(r) => moves::logs(&api, &caller, r).await,
                Request::DescribeFeatures(_) => features::describe(&api, &caller).await,
                Request::UpdateFeatures(r) => features::update(&api, &caller, r).await,
                Request::Authenticate(r) => security::authenticate(&api, &caller, r).await,
                Request::Produce(_)
                | Request::Fetch(_)
                | Request::ListOffsets(_)
                | Request::Metadata(_)
                | Request::CommitOffsets(_)
                | Request::FetchOffsets(_)
                | Request::FindCoordinators(_)
                | Request::JoinGroup(_)
                | Request::SyncGroup(_)
                | Request::Heartbeat(_)
                | Request::LeaveGroup(_)
                | Request::ListGroups(_)
                | Request::DescribeGroups(_)
                | Request::CreateTopics(_)
                | Request::DeleteTopics(_)
                | Request::DeleteRecords(_)
                | Request::InitProducer(_)
                | Request::DescribeTopics(_) => unreachable!("served by `start`"),
            }
        }
        .boxed()
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
            Door::Kafka => &self.0.addresses.kafka,
            Door::KafkaTls => &self.0.addresses.kafka_tls,
            Door::Quic => &self.0.addresses.quic,
        }
    }

    /// The nodes that are alive, with their places; this one is always among them.
    fn nodes(&self, door: Door, image: &MetadataImage) -> BTreeMap<BrokerId, Advertised> {
        let placed = image.alive().filter_map(|(id, b)| {
            let endpoints = b.endpoints.as_ref()?;
            Some((id, advertised_on(door, endpoints).into()))
        });
        let mut nodes: BTreeMap<BrokerId, Advertised> = placed.collect();
        let _before = nodes.insert(self.shared().broker, self.advertised(door).clone());
        nodes
    }

    /// Who leads a partition, if that is another node (KIP-951).
    #[must_use]
    pub fn leader_hint(&self, door: Door, topic: &TopicRef, partition: i32) -> Option<LeaderHint> {
        let image = self.0.published.image.load();
        let topic = topic_of(&image, topic).ok()?;
        let partition = topic.partition(partition)?;
        let leader = partition.leader.filter(|l| *l != self.shared().broker)?;
        let endpoints = image.brokers.get(&leader)?.endpoints.as_ref()?;
        Some(LeaderHint {
            leader,
            epoch: partition.epoch,
            at: advertised_on(door, endpoints).into(),
        })
    }

    /// The active controller, or this node as long as nobody is known.
    fn controller(&self) -> BrokerId {
        self.0
            .published
            .led
            .borrow()
            .leader
            .unwrap_or(self.shared().broker)
    }

    fn allows(&self, caller: &Caller, operation: Operation, resource: Resource<'_>) -> bool {
        let image = self.0.published.image.load();
        let who = (&caller.principal, caller.address());
        let authorizer = &self.0.config.authorizer;
        authorizer.allows(&image.security, who, operation, resource)
    }

    /// Whether somebody who is not a caller of requests may do something to the cluster.
    #[must_use]
    pub fn allows_at(&self, who: &Principal, address: IpAddr, operation: Operation) -> bool {
        let image = self.0.published.image.load();
        let (authorizer, address) = (
            &self.0.config.authorizer,
            address.to_canonical().to_string(),
        );
        authorizer.allows(
            &image.security,
            (who, &address),
            operation,
            Resource::Cluster,
        )
    }

    /// Random at each start.
    #[must_use]
    pub fn secret(&self) -> &[u8; 32] {
        &self.0.secret
    }

    /// Finds the topic that a request names. Who may not do the operation does not learn whether there is such a name.
    fn topic(
        &self,
        caller: &Caller,
        operation: Operation,
        image: &MetadataImage,
        topic: &TopicRef,
    ) -> Result<(TopicName, Uuid), ErrorCode> {
        let allowed = |name: &TopicName| match self.allows(caller, operation, Resource::Topic(name))
        {
            true => Ok(()),
            false => Err(ErrorCode::TopicAuthorizationFailed),
        };
        match topic {
            TopicRef::Name(name) => {
                let name = TopicName::new(name).map_err(|_| ErrorCode::InvalidTopicException)?;
                allowed(&name)?;
                let found = image.topics.get(&name);
                let found = found.ok_or(ErrorCode::UnknownTopicOrPartition)?;
                Ok((name, found.id))
            }
            TopicRef::Id(id) => {
                let (name, found) = image.topic_by_id(id).ok_or(ErrorCode::UnknownTopicId)?;
                allowed(name)?;
                Ok((name.clone(), found.id))
            }
        }
    }

    /// Whether others may have this node's place without its knowing.
    fn is_cut_off(&self) -> bool {
        let now = self.shared().clock.now().monotonic;
        self.0.published.is_cut_off(now)
    }

    /// Finds the leader of a partition that a request names.
    fn leader(&self, partition: &TopicPartition) -> Result<LeaderRef, ErrorCode> {
        if let Some(leader) = self.shared().directory.leader(partition) {
            return match self.is_cut_off() {
                true => Err(ErrorCode::NotLeaderOrFollower),
                false => Ok(leader),
            };
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

    /// Finds who keeps a partition here, for a reader that may read from any replica (KIP-392). One that is cut off would not
    /// hear of what is new.
    fn replica(&self, partition: &TopicPartition) -> Result<Replica, ErrorCode> {
        let follower = || {
            let follower = self.shared().directory.follower(partition)?;
            self.is_in_sync(partition).then_some(follower)
        };
        match self.leader(partition) {
            Ok(leader) => Ok(Replica::Leader(leader)),
            Err(_) if self.is_cut_off() => Err(ErrorCode::NotLeaderOrFollower),
            Err(error) => follower().map(Replica::Follower).ok_or(error),
        }
    }

    /// Whether this node has all of a partition that is committed. One that falls behind sends its readers away.
    fn is_in_sync(&self, partition: &TopicPartition) -> bool {
        let image = self.0.published.image.load();
        let partition = image.partition(partition);
        partition.is_some_and(|p| p.isr.contains(&self.shared().broker))
    }

    /// Proposes a change of the metadata and waits until it is committed.
    async fn propose(&self, command: Command) -> Result<Outcome, Refusal> {
        command.check_size()?;
        propose(&self.0.controller, command).await
    }

    /// Waits until those partitions of a topic are led that this node leads, or the time is up.
    async fn wait_until_led(&self, topic: &TopicName, timeout: Duration) -> bool {
        let mut changes = self.shared().directory.changes();
        let directory = self.shared().directory.clone();
        let (published, me) = (self.0.published.clone(), self.shared().broker);
        let led_here = || {
            let image = published.image.load();
            let topic = image.topics.get(topic);
            topic.map_or(0, |t| {
                t.partitions.iter().filter(|p| p.leader == Some(me)).count()
            })
        };
        let all_led = async {
            loop {
                let leaders = directory.topic(topic).unwrap_or_default();
                if leaders.len() >= led_here() || changes.changed().await.is_err() {
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

/// The topic that a request names, whoever asks.
fn topic_of<'a>(image: &'a MetadataImage, topic: &TopicRef) -> Result<&'a TopicImage, ErrorCode> {
    match topic {
        TopicRef::Name(name) => {
            let name = TopicName::new(name).map_err(|_| ErrorCode::InvalidTopicException)?;
            let found = image.topics.get(&name);
            found
                .map(|t| &**t)
                .ok_or(ErrorCode::UnknownTopicOrPartition)
        }
        TopicRef::Id(id) => {
            let (_, found) = image.topic_by_id(id).ok_or(ErrorCode::UnknownTopicId)?;
            Ok(found)
        }
    }
}

/// Where a node is on a door.
fn advertised_on(door: Door, endpoints: &Endpoints) -> &Endpoint {
    match door {
        Door::Kafka => &endpoints.kafka,
        Door::KafkaTls => &endpoints.kafka_tls,
        Door::Quic => &endpoints.quic,
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
