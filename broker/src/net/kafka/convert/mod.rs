//! Every version of a Kafka message to a request of `common::protocol`, and its answer back.
//!
//! Here, and nowhere else, live the differences between versions that the generated codec does not level out.

mod data;
mod groups;
mod offsets;
mod topics;

use std::sync::Arc;

use bytes::Bytes;
use callboard_common::kafka::messages as m;
use callboard_common::kafka::messages::api_versions_response::ApiVersion;
use callboard_common::kafka::{
    ApiKey, Codec, DecodeError, EncodeError, Encoder, Message as _, Text,
};
use callboard_common::protocol::{Request, Response, TopicRef};
use callboard_common::{ErrorCode, LeaderEpoch, Uuid};
use parking_lot::Mutex;

use super::fetch_session::{FetchSessions, Kind};

/// A message that can be written in a version.
pub(super) trait Encodable: Send {
    /// As [`Codec::encode`].
    fn encode(&self, e: &mut Encoder, version: i16) -> Result<(), EncodeError>;
}

impl<M: Codec + Send> Encodable for M {
    fn encode(&self, e: &mut Encoder, version: i16) -> Result<(), EncodeError> {
        Codec::encode(self, e, version)
    }
}

/// An answer, ready to be written.
pub(super) type Message = Box<dyn Encodable>;

/// What a request became.
pub(super) enum Converted {
    /// Something for the API.
    Request(Request, Answering),
    /// Answered here.
    Answer(Message),
    /// Asks what is served; answered by the connection.
    ApiVersions { software: Text },
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
    Metadata,
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
}

/// Decodes a request and converts it.
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
    })
}

/// Converts an answer. `None` where the client wants none; an error where it wants none and something failed.
pub(super) fn response(
    version: i16,
    answering: Answering,
    response: Response,
) -> Result<Option<Message>, ErrorCode> {
    Ok(Some(match answering {
        Answering::Produce { acks_none: true } => {
            return data::produced_silently(response).map(|()| None);
        }
        Answering::Produce { acks_none: false } => data::produced(response),
        Answering::Fetch { kind, sessions } => data::fetched(response, kind, &sessions),
        Answering::ListOffsets => data::listed_offsets(response),
        Answering::Metadata => topics::described(response, version),
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
    }))
}

/// What is served, in ranges without holes.
pub(super) fn api_versions(error: ErrorCode) -> Message {
    let range = |key: &ApiKey| {
        let (min_version, max_version) = key.advertised();
        ApiVersion {
            api_key: key.number(),
            min_version,
            max_version,
        }
    };
    Box::new(m::ApiVersionsResponse {
        error_code: error.number(),
        api_keys: ApiKey::ALL.iter().map(range).collect(),
        ..Default::default()
    })
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
