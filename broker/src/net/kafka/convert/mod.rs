//! Every version of a Kafka message to a request of `common::protocol`, and its answer back.
//!
//! Here, and nowhere else, live the differences between versions that the generated codec does not level out.

mod cluster;
mod configs;
mod data;
mod features;
mod groups;
mod hints;
mod known;
mod moves;
mod offsets;
mod security;
mod topics;

use std::sync::Arc;

use bytes::Bytes;
use callboard_common::kafka::messages as m;
use callboard_common::kafka::{
    ApiKey, Codec, DecodeError, EncodeError, Encoder, Message as _, Text,
};
use callboard_common::protocol::{Request, Response, TopicRef};
use callboard_common::{ErrorCode, LeaderEpoch, Uuid};
use parking_lot::Mutex;

pub(super) use self::features::api_versions;
use self::hints::FindLeader;
pub(super) use self::known::Known;
use super::fetch_session::{FetchSessions, Kind};

/// A message that can be written in a version.
pub(super) trait Encodable: Send {
    /// As [`Codec::encode`].
    fn encode(&self, e: &mut Encoder, version: i16) -> Result<(), EncodeError>;

    /// As [`callboard_common::kafka::Message::set_throttle_time`].
    fn set_throttle_time(&mut self, ms: i32);
}

impl<M: callboard_common::kafka::Message + Send> Encodable for M {
    fn encode(&self, e: &mut Encoder, version: i16) -> Result<(), EncodeError> {
        Codec::encode(self, e, version)
    }

    fn set_throttle_time(&mut self, ms: i32) {
        callboard_common::kafka::Message::set_throttle_time(self, ms);
    }
}

/// An answer, ready to be written.
pub(super) type Message = Box<dyn Encodable>;

/// What a request became.
#[expect(clippy::large_enum_variant, reason = "it is taken apart at once")]
pub(super) enum Converted {
    /// Something for the API.
    Request(Request, Answering),
    /// Answered here.
    Answer(Message),
    /// Asks what is served; answered by the connection.
    ApiVersions { software: Text },
    /// Chooses how to prove who it is; answered by the connection.
    Handshake { mechanism: Text },
    /// Proves it; answered by the connection.
    Token { token: Bytes },
}

/// What must be remembered of a request to answer it.
pub(super) enum Answering {
    Produce {
        acks_none: bool,
    },
    Fetch {
        kind: Kind,
        sessions: Arc<Mutex<FetchSessions>>,
    },
    ListOffsets,
    Metadata(topics::Rights),
    CommitOffsets,
    FetchOffsets,
    FindCoordinators,
    JoinGroup,
    Heartbeat,
    LeaveGroup,
    SyncGroup,
    CreateTopics,
    DeleteTopics,
    InitProducer,
    CreatePartitions,
    DeleteRecords(Vec<(Text, Vec<i32>)>),
    DescribeCluster {
        endpoint_type: i8,
        rights: bool,
    },
    DescribeTopicPartitions(cluster::Page),
    DescribeConfigs,
    AlterConfigs,
    IncrementalAlterConfigs,
    ListGroups(groups::ListFilter),
    DescribeGroups {
        rights: bool,
    },
    DeleteGroups,
    DeleteOffsets,
    EpochEnds,
    DescribeAcls,
    CreateAcls,
    DeleteAcls,
    DescribeUsers,
    AlterUsers,
    DescribeQuotas,
    AlterQuotas,
    ElectLeaders,
    Reassign {
        asked: Vec<(Text, i32)>,
        allowed: bool,
    },
    ListReassignments,
    DescribeQuorum(Vec<(Text, Vec<i32>)>),
    DescribeLogs,
    UnregisterBroker,
    UpdateFeatures,
}

/// Decodes a request and converts it.
#[expect(clippy::wildcard_enum_match_arm, reason = "the rest is administration")]
pub(super) fn request(
    key: ApiKey,
    version: i16,
    body: Bytes,
    sessions: &Arc<Mutex<FetchSessions>>,
) -> Result<Converted, DecodeError> {
    Ok(match key {
        ApiKey::Produce => data::produce(m::ProduceRequest::from_bytes(body, version)?, version),
        ApiKey::Fetch => data::fetch(
            m::FetchRequest::from_bytes(body, version)?,
            version,
            sessions,
        ),
        ApiKey::ListOffsets => {
            data::list_offsets(m::ListOffsetsRequest::from_bytes(body, version)?)
        }
        ApiKey::Metadata => {
            topics::metadata(m::MetadataRequest::from_bytes(body, version)?, version)
        }
        ApiKey::OffsetCommit => {
            offsets::commit(m::OffsetCommitRequest::from_bytes(body, version)?, version)
        }
        ApiKey::OffsetFetch => {
            offsets::fetch(m::OffsetFetchRequest::from_bytes(body, version)?, version)
        }
        ApiKey::FindCoordinator => groups::find(
            m::FindCoordinatorRequest::from_bytes(body, version)?,
            version,
        ),
        ApiKey::JoinGroup => groups::join(m::JoinGroupRequest::from_bytes(body, version)?, version),
        ApiKey::Heartbeat => groups::heartbeat(m::HeartbeatRequest::from_bytes(body, version)?),
        ApiKey::LeaveGroup => {
            groups::leave(m::LeaveGroupRequest::from_bytes(body, version)?, version)
        }
        ApiKey::SyncGroup => groups::sync(m::SyncGroupRequest::from_bytes(body, version)?),
        ApiKey::ApiVersions => {
            let request = m::ApiVersionsRequest::from_bytes(body, version)?;
            let software = format!(
                "{} {}",
                &*request.client_software_name, &*request.client_software_version
            );
            Converted::ApiVersions {
                software: software.into(),
            }
        }
        ApiKey::CreateTopics => topics::create(m::CreateTopicsRequest::from_bytes(body, version)?),
        ApiKey::DeleteTopics => {
            topics::delete(m::DeleteTopicsRequest::from_bytes(body, version)?, version)
        }
        ApiKey::InitProducerId => {
            data::init_producer(m::InitProducerIdRequest::from_bytes(body, version)?)
        }
        ApiKey::SaslHandshake => {
            let mechanism = m::SaslHandshakeRequest::from_bytes(body, version)?.mechanism;
            Converted::Handshake { mechanism }
        }
        ApiKey::SaslAuthenticate => {
            let token = m::SaslAuthenticateRequest::from_bytes(body, version)?.auth_bytes;
            Converted::Token { token }
        }
        key => administration(key, version, body)?,
    })
}

/// Requests of administration.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "all others were converted before"
)]
fn administration(key: ApiKey, version: i16, body: Bytes) -> Result<Converted, DecodeError> {
    fn of<M: callboard_common::kafka::Message>(
        convert: impl FnOnce(M) -> Converted,
        body: Bytes,
        version: i16,
    ) -> Result<Converted, DecodeError> {
        M::from_bytes(body, version).map(convert)
    }
    match key {
        ApiKey::CreatePartitions => of(topics::create_partitions, body, version),
        ApiKey::DeleteRecords => of(topics::delete_records, body, version),
        ApiKey::DescribeCluster => of(cluster::describe, body, version),
        ApiKey::DescribeTopicPartitions => of(cluster::topic_partitions, body, version),
        ApiKey::DescribeConfigs => of(configs::describe, body, version),
        ApiKey::AlterConfigs => of(configs::alter, body, version),
        ApiKey::IncrementalAlterConfigs => of(configs::alter_incrementally, body, version),
        ApiKey::ListGroups => of(groups::list, body, version),
        ApiKey::DescribeGroups => of(groups::describe, body, version),
        ApiKey::DeleteGroups => of(groups::delete, body, version),
        ApiKey::OffsetDelete => of(offsets::delete, body, version),
        ApiKey::OffsetForLeaderEpoch => of(offsets::epoch_ends, body, version),
        ApiKey::DescribeAcls => of(security::describe_acls, body, version),
        ApiKey::CreateAcls => of(security::create_acls, body, version),
        ApiKey::DeleteAcls => of(security::delete_acls, body, version),
        ApiKey::DescribeUserScramCredentials => of(security::describe_users, body, version),
        ApiKey::AlterUserScramCredentials => of(security::alter_users, body, version),
        ApiKey::DescribeClientQuotas => of(security::describe_quotas, body, version),
        ApiKey::AlterClientQuotas => of(security::alter_quotas, body, version),
        ApiKey::ElectLeaders => of(moves::elect, body, version),
        ApiKey::AlterPartitionReassignments => of(moves::reassign, body, version),
        ApiKey::ListPartitionReassignments => of(moves::list_moves, body, version),
        ApiKey::DescribeQuorum => of(moves::quorum, body, version),
        ApiKey::DescribeLogDirs => of(moves::logs, body, version),
        ApiKey::UnregisterBroker => of(moves::unregister, body, version),
        ApiKey::UpdateFeatures => of(|r| features::update(r, version), body, version),
        _ => unreachable!("converted by `request`"),
    }
}

/// Converts an answer. `None` where the client wants none; an error where it wants none and something failed.
pub(super) fn response(
    version: i16,
    answering: Answering,
    response: Response,
    known: &dyn Known,
) -> Result<Option<Message>, ErrorCode> {
    let leaders: FindLeader<'_> = &|topic, partition| known.leader(topic, partition);
    Ok(Some(match answering {
        Answering::Produce { acks_none: true } => {
            return data::produced_silently(response).map(|()| None);
        }
        Answering::Produce { acks_none: false } => data::produced(response, leaders),
        Answering::Fetch { kind, sessions } => data::fetched(response, kind, &sessions, leaders),
        Answering::ListOffsets => data::listed_offsets(response, version),
        Answering::Metadata(rights) => topics::described(response, version, rights, known),
        Answering::CommitOffsets => offsets::committed(response),
        Answering::FetchOffsets => offsets::fetched(response, version),
        Answering::FindCoordinators => groups::found(response, version),
        Answering::JoinGroup => groups::joined(response, version),
        Answering::Heartbeat => groups::heartbeat_answer(response),
        Answering::LeaveGroup => groups::left(response, version),
        Answering::SyncGroup => groups::synced(response),
        Answering::CreateTopics => topics::created(response),
        Answering::DeleteTopics => topics::deleted(response),
        Answering::InitProducer => data::inited_producer(response),
        Answering::CreatePartitions => topics::created_partitions(response),
        Answering::DeleteRecords(asked) => topics::deleted_records(response, asked),
        Answering::DescribeCluster {
            endpoint_type,
            rights,
        } => cluster::described(response, endpoint_type, rights, known),
        Answering::DescribeTopicPartitions(page) => {
            cluster::topic_partitions_page(response, page, known)
        }
        Answering::DescribeConfigs => configs::described(response),
        Answering::AlterConfigs => configs::altered(response),
        Answering::IncrementalAlterConfigs => configs::altered_incrementally(response),
        Answering::ListGroups(filter) => groups::listed(response, &filter),
        Answering::DescribeGroups { rights } => groups::described(response, version, rights, known),
        Answering::DeleteGroups => groups::deleted(response),
        Answering::DeleteOffsets => offsets::deleted(response),
        Answering::EpochEnds => offsets::epoch_ends_answer(response),
        Answering::DescribeAcls => security::described_acls(response),
        Answering::CreateAcls => security::created_acls(response),
        Answering::DeleteAcls => security::deleted_acls(response),
        Answering::DescribeUsers => security::described_users(response),
        Answering::AlterUsers => security::altered_users(response),
        Answering::DescribeQuotas => security::described_quotas(response),
        Answering::AlterQuotas => security::altered_quotas(response),
        Answering::ElectLeaders => moves::elected(response),
        Answering::Reassign { asked, allowed } => moves::reassigned(response, asked, allowed),
        Answering::ListReassignments => moves::listed_moves(response),
        Answering::DescribeQuorum(asked) => moves::described_quorum(response, asked),
        Answering::DescribeLogs => moves::described_logs(response),
        Answering::UnregisterBroker => moves::unregistered(response),
        Answering::UpdateFeatures => features::updated(response, version),
    }))
}

/// The topic of a message that names it or, in later versions, gives its id.
fn topic_ref(by_id: bool, name: Text, id: Uuid) -> TopicRef {
    if by_id {
        TopicRef::Id(id)
    } else {
        TopicRef::Name(name)
    }
}

/// Name and id as a message has them; of the two the version picks one.
fn topic_fields(topic: TopicRef) -> (Text, Uuid) {
    match topic {
        TopicRef::Name(name) => (name, Uuid::ZERO),
        TopicRef::Id(id) => (Text::default(), id),
    }
}

/// Kafka writes -1 for an unknown epoch.
fn epoch(number: i32) -> Option<LeaderEpoch> {
    (number >= 0).then_some(LeaderEpoch(number))
}

fn epoch_number(epoch: Option<LeaderEpoch>) -> i32 {
    epoch.map_or(-1, |e| e.0)
}

/// The answer of the right kind, or the error that stands for all of it.
fn expect<A: TryFrom<Response, Error = ErrorCode>>(response: Response) -> Result<A, ErrorCode> {
    A::try_from(response)
}
