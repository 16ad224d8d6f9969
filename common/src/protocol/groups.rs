//! Consumer groups of the classic protocol.
//!
//! Sources: Kafka protocol guide; KIP-345 (static members); KIP-394 (member ids); KIP-559 (protocol names).

use bincode::{Decode, Encode};
use bytes::Bytes;

use crate::kafka::Text;
use crate::{BrokerId, ErrorCode};

/// Opaque bytes of the clients' own protocols: subscriptions and assignments.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Blob(pub Bytes);

impl Encode for Blob {
    fn encode<E: bincode::enc::Encoder>(
        &self,
        e: &mut E,
    ) -> Result<(), bincode::error::EncodeError> {
        self.0[..].encode(e)
    }
}

impl<C> Decode<C> for Blob {
    fn decode<D: bincode::de::Decoder<Context = C>>(
        d: &mut D,
    ) -> Result<Self, bincode::error::DecodeError> {
        Vec::<u8>::decode(d).map(|bytes| Self(bytes.into()))
    }
}

impl<'de, C> bincode::BorrowDecode<'de, C> for Blob {
    fn borrow_decode<D: bincode::de::BorrowDecoder<'de, Context = C>>(
        d: &mut D,
    ) -> Result<Self, bincode::error::DecodeError> {
        Self::decode(d)
    }
}

/// What kind of coordinator is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum CoordinatorKind {
    /// Of a consumer group.
    Group,
    /// Of a transactional id; there are no transactions yet.
    Transaction,
    /// Of a share group; there are none yet.
    Share,
    /// Something unknown.
    Unknown,
}

/// Asks which brokers coordinate some groups.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct FindCoordinators {
    /// What the keys name.
    pub kind: CoordinatorKind,
    /// The groups.
    pub keys: Vec<Text>,
}

/// Answer to [`FindCoordinators`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct FoundCoordinators {
    /// By key.
    pub coordinators: Vec<FoundCoordinator>,
}

/// Where one group's coordinator is.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct FoundCoordinator {
    /// The group.
    pub key: Text,
    /// Whether it has a coordinator.
    pub error: ErrorCode,
    /// The broker.
    pub broker: BrokerId,
    /// Its host on the door that was asked.
    pub host: Text,
    /// Its port.
    pub port: u16,
}

/// Joins a group, or joins it again for a new generation.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct JoinGroup {
    /// The group.
    pub group: Text,
    /// A member that is not heard of for so long is removed, in milliseconds.
    pub session_timeout_ms: i32,
    /// How long members may take to join again, in milliseconds.
    pub rebalance_timeout_ms: i32,
    /// The id that the member was given, or empty.
    pub member: Text,
    /// The id of a static member.
    pub instance: Option<Text>,
    /// What the group does; `consumer` for consumers.
    pub protocol_type: Text,
    /// Assignors that the member supports with its subscription for each, preferred ones first.
    pub protocols: Vec<(Text, Blob)>,
    /// Whether a new member first gets an id and must join again with it (KIP-394).
    pub member_id_required: bool,
}

/// Answer to [`JoinGroup`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct JoinedGroup {
    /// Whether the member is in the new generation.
    pub error: ErrorCode,
    /// The generation.
    pub generation: i32,
    /// What the group does.
    pub protocol_type: Option<Text>,
    /// The assignor that all support.
    pub protocol: Option<Text>,
    /// The member that assigns.
    pub leader: Text,
    /// The member's id.
    pub member: Text,
    /// Whether the leader keeps the assignment as it is (KIP-814).
    pub skip_assignment: bool,
    /// For the leader: id, instance and subscription of every member.
    pub members: Vec<(Text, Option<Text>, Blob)>,
}

/// Takes the assignment of a generation; the leader brings it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct SyncGroup {
    /// The group.
    pub group: Text,
    /// The generation.
    pub generation: i32,
    /// The member.
    pub member: Text,
    /// The id of a static member.
    pub instance: Option<Text>,
    /// What the member believes the group does.
    pub protocol_type: Option<Text>,
    /// What the member believes the assignor is.
    pub protocol: Option<Text>,
    /// From the leader: the assignment of every member.
    pub assignments: Vec<(Text, Blob)>,
}

/// Answer to [`SyncGroup`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct SyncedGroup {
    /// Whether there is an assignment.
    pub error: ErrorCode,
    /// What the group does.
    pub protocol_type: Option<Text>,
    /// The assignor.
    pub protocol: Option<Text>,
    /// The member's assignment.
    pub assignment: Blob,
}

/// Says that a member lives.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Heartbeat {
    /// The group.
    pub group: Text,
    /// The generation.
    pub generation: i32,
    /// The member.
    pub member: Text,
    /// The id of a static member.
    pub instance: Option<Text>,
}

/// Answer to [`Heartbeat`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct HeartbeatAnswer {
    /// Whether all is well, or what the member must do.
    pub error: ErrorCode,
}

/// Members leave their group.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct LeaveGroup {
    /// The group.
    pub group: Text,
    /// Ids of members, or instances of static ones.
    pub members: Vec<(Text, Option<Text>)>,
}

/// Answer to [`LeaveGroup`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct LeftGroup {
    /// Whether the group could be asked.
    pub error: ErrorCode,
    /// By member.
    pub members: Vec<(Text, Option<Text>, ErrorCode)>,
}

/// Asks for all groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ListGroups;

/// Answer to [`ListGroups`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ListedGroups {
    /// Whether all coordinators answered.
    pub error: ErrorCode,
    /// The groups, sorted by name.
    pub groups: Vec<GroupListing>,
}

/// One group in a list.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct GroupListing {
    /// Its name.
    pub group: Text,
    /// What it does.
    pub protocol_type: Text,
    /// Its state, as Kafka names it.
    pub state: Text,
}

/// Asks for some groups with their members.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct DescribeGroups {
    /// The groups.
    pub groups: Vec<Text>,
}

/// Answer to [`DescribeGroups`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct DescribedGroups {
    /// By group.
    pub groups: Vec<GroupDescription>,
}

/// One group.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct GroupDescription {
    /// Whether its coordinator answered; a group that is not there is `Dead`.
    pub error: ErrorCode,
    /// Its name.
    pub group: Text,
    /// Its state, as Kafka names it.
    pub state: Text,
    /// What it does.
    pub protocol_type: Text,
    /// The assignor.
    pub protocol: Text,
    /// Its generation.
    pub generation: i32,
    /// Its members.
    pub members: Vec<MemberDescription>,
}

/// One member of a group.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct MemberDescription {
    /// Its id.
    pub member: Text,
    /// The id of a static member.
    pub instance: Option<Text>,
    /// What the client calls itself.
    pub client_id: Text,
    /// Where it is.
    pub client_host: Text,
    /// What it subscribes to, for the group's assignor.
    pub metadata: Blob,
    /// Its assignment.
    pub assignment: Blob,
}

/// Deletes groups that have no members, with their offsets.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct DeleteGroups {
    /// The groups.
    pub groups: Vec<Text>,
}

/// Answer to [`DeleteGroups`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct DeletedGroups {
    /// By group.
    pub groups: Vec<(Text, ErrorCode)>,
}
