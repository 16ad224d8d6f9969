//! The requests that a node understands, whatever door they come through, and their answers.
//!
//! The Kafka door converts every version of a Kafka message into one of these; the QUIC door carries them as they
//! are, in bincode, with record bytes after the body ([`Attachment`]). Enums are only ever extended at their end;
//! a struct that must change gets a new version of its request.
//!
//! Unless a field's doc says otherwise, an answer has one result per thing asked, in the order of the request.

mod attachment;
pub mod cluster;
pub mod configs;
pub mod fetch;
pub mod groups;
pub mod list_offsets;
pub mod metadata;
pub mod offsets;
pub mod produce;
pub mod security;
pub mod topics;

pub use attachment::Attachment;

use bincode::{Decode, Encode};

use crate::kafka::Text;
use crate::{ErrorCode, Uuid};

/// A topic by name or by identifier.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub enum TopicRef {
    /// By name; not checked yet.
    Name(Text),
    /// By identifier.
    Id(Uuid),
}

macro_rules! requests {
    ($($name:ident $number:literal $request:path => $response:path;)*) => {
        /// What a client asks.
        #[derive(Clone, Debug, PartialEq, Encode, Decode)]
        #[expect(missing_docs, reason = "each is documented where it is defined")]
        pub enum Request { $($name($request)),* }

        /// What a node answers.
        #[derive(Clone, Debug, PartialEq, Encode, Decode)]
        #[expect(missing_docs, reason = "each is documented where it is defined")]
        pub enum Response {
            $($name($response),)*
            /// The request as a whole was refused.
            Refused(ErrorCode),
        }

        impl Request {
            /// Number and name of every request.
            pub const ALL: &'static [(u16, &'static str)] = &[$(($number, stringify!($name))),*];

            /// The request's number on the QUIC door.
            #[must_use]
            pub fn number(&self) -> u16 {
                match self { $(Self::$name(_) => $number),* }
            }

            /// The request's name.
            #[must_use]
            pub fn name(&self) -> &'static str {
                match self { $(Self::$name(_) => stringify!($name)),* }
            }
        }

        $(impl From<$request> for Request {
            fn from(request: $request) -> Self { Self::$name(request) }
        })*

        $(impl TryFrom<Response> for $response {
            type Error = ErrorCode;

            /// The answer, if it answers this kind of request.
            fn try_from(response: Response) -> Result<Self, ErrorCode> {
                match response {
                    Response::$name(answer) => Ok(answer),
                    Response::Refused(error) => Err(error),
                    _ => Err(ErrorCode::UnknownServerError),
                }
            }
        })*

        /// A request and the type of its answer.
        pub trait Ask: Into<Request> {
            /// The answer.
            type Answer: TryFrom<Response, Error = ErrorCode>;
        }

        $(impl Ask for $request { type Answer = $response; })*
    };
}

requests! {
    Produce 0 produce::Produce => produce::Produced;
    Fetch 1 fetch::Fetch => fetch::Fetched;
    ListOffsets 2 list_offsets::ListOffsets => list_offsets::ListedOffsets;
    Metadata 3 metadata::Metadata => metadata::MetadataAnswer;
    CommitOffsets 4 offsets::CommitOffsets => offsets::CommittedOffsets;
    FetchOffsets 5 offsets::FetchOffsets => offsets::FetchedOffsets;
    FindCoordinators 6 groups::FindCoordinators => groups::FoundCoordinators;
    JoinGroup 7 groups::JoinGroup => groups::JoinedGroup;
    SyncGroup 8 groups::SyncGroup => groups::SyncedGroup;
    Heartbeat 9 groups::Heartbeat => groups::HeartbeatAnswer;
    LeaveGroup 10 groups::LeaveGroup => groups::LeftGroup;
    ListGroups 11 groups::ListGroups => groups::ListedGroups;
    DescribeGroups 12 groups::DescribeGroups => groups::DescribedGroups;
    CreateTopics 13 topics::CreateTopics => topics::CreatedTopics;
    DeleteTopics 14 topics::DeleteTopics => topics::DeletedTopics;
    DeleteRecords 15 topics::DeleteRecords => topics::DeletedRecords;
    InitProducer 16 produce::InitProducer => produce::InitedProducer;
    DescribeTopics 17 topics::DescribeTopics => topics::DescribedTopics;
    CreatePartitions 18 topics::CreatePartitions => topics::CreatedPartitions;
    DescribeConfigs 19 configs::DescribeConfigs => configs::DescribedConfigs;
    AlterConfigs 20 configs::AlterConfigs => configs::AlteredConfigs;
    DeleteGroups 21 groups::DeleteGroups => groups::DeletedGroups;
    DeleteOffsets 22 offsets::DeleteOffsets => offsets::DeletedOffsets;
    EpochEnds 23 list_offsets::EpochEnds => list_offsets::EpochEndsAnswer;
    DescribeAcls 24 security::DescribeAcls => security::DescribedAcls;
    CreateAcls 25 security::CreateAcls => security::CreatedAcls;
    DeleteAcls 26 security::DeleteAcls => security::DeletedAcls;
    DescribeUsers 27 security::DescribeUsers => security::DescribedUsers;
    AlterUsers 28 security::AlterUsers => security::AlteredUsers;
    DescribeQuotas 29 security::DescribeQuotas => security::DescribedQuotas;
    AlterQuotas 30 security::AlterQuotas => security::AlteredQuotas;
    Authenticate 31 security::Authenticate => security::Authenticated;
    DescribeCluster 32 cluster::DescribeCluster => cluster::DescribedCluster;
    DescribeQuorum 33 cluster::DescribeQuorum => cluster::DescribedQuorum;
    ChangeNode 34 cluster::ChangeNode => cluster::ChangedNode;
    Reassign 35 cluster::Reassign => cluster::Reassigned;
    ListReassignments 36 cluster::ListReassignments => cluster::ListedReassignments;
    ElectLeaders 37 cluster::ElectLeaders => cluster::ElectedLeaders;
    DescribeLogs 38 cluster::DescribeLogs => cluster::DescribedLogs;
    DescribeFeatures 39 cluster::DescribeFeatures => cluster::DescribedFeatures;
    UpdateFeatures 40 cluster::UpdateFeatures => cluster::UpdatedFeatures;
}

impl Request {
    /// The byte strings that travel after the body, in order.
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "nothing else carries records"
    )]
    pub fn attachments(&mut self) -> Vec<&mut Attachment> {
        match self {
            Self::Produce(produce) => produce
                .topics
                .iter_mut()
                .flat_map(|t| t.partitions.iter_mut().map(|p| &mut p.records))
                .collect(),
            _ => Vec::new(),
        }
    }
}

impl Response {
    /// The byte strings that travel after the body, in order.
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "nothing else carries records"
    )]
    pub fn attachments(&mut self) -> Vec<&mut Attachment> {
        match self {
            Self::Fetch(fetched) => fetched
                .topics
                .iter_mut()
                .flat_map(|t| t.partitions.iter_mut().map(|p| &mut p.records))
                .collect(),
            _ => Vec::new(),
        }
    }
}
