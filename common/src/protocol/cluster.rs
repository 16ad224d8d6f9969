//! The nodes of a cluster, who votes on its metadata, and where partitions are.

use bincode::{Decode, Encode};

use super::TopicRef;
use crate::kafka::Text;
use crate::{BrokerId, ErrorCode, FeatureLevel, Uuid};

/// Asks for the nodes and how the cluster is.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct DescribeCluster;

/// Answer to [`DescribeCluster`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct DescribedCluster {
    /// Whether the caller may know.
    pub error: ErrorCode,
    /// The cluster's identifier.
    pub cluster_id: Text,
    /// Who leads the metadata's quorum, if that is known.
    pub controller: Option<BrokerId>,
    /// By number.
    pub nodes: Vec<NodeDescription>,
    /// Partitions, all topics together.
    pub partitions: PartitionCounts,
}

/// One node.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct NodeDescription {
    /// Its number.
    pub id: BrokerId,
    /// Whether it is alive.
    pub standing: NodeStanding,
    /// Whether it is to keep nothing any more.
    pub draining: bool,
    /// Its incarnation; it grows with every start.
    pub epoch: i64,
    /// Where it stands.
    pub rack: Option<Text>,
    /// Where Kafka's clients find it, `host:port`.
    pub kafka: Option<Text>,
    /// Where Callboard's clients find it.
    pub quic: Option<Text>,
    /// Where other nodes find it.
    pub peer: Option<Text>,
    /// Whether it votes on the metadata.
    pub votes: bool,
    /// Partitions that it leads.
    pub leads: u32,
    /// Partitions that it keeps.
    pub keeps: u32,
    /// Those of them that are in sync.
    pub in_sync: u32,
}

/// Whether a node is alive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum NodeStanding {
    /// It is heard of.
    Alive,
    /// It was not heard of for too long.
    Silent,
    /// It said that it stops.
    Stopped,
}

/// How many partitions there are and are not as they should be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct PartitionCounts {
    /// All.
    pub all: u32,
    /// Nobody leads them.
    pub without_leader: u32,
    /// Some replica is not in sync.
    pub under_replicated: u32,
    /// So few are in sync that acks=all is refused.
    pub under_min_isr: u32,
    /// They move to other nodes.
    pub moving: u32,
}

/// Asks for the quorum of the metadata.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct DescribeQuorum;

/// Answer to [`DescribeQuorum`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct DescribedQuorum {
    /// Whether the caller may know, and whether the leader told it: otherwise positions are not known.
    pub error: ErrorCode,
    /// Who leads it.
    pub leader: Option<BrokerId>,
    /// The term.
    pub term: u64,
    /// Index of the last committed entry.
    pub committed: u64,
    /// Who follows the metadata.
    pub members: Vec<QuorumMember>,
    /// When that was told, in milliseconds since 1970.
    pub told_at_ms: i64,
}

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct QuorumMember {
    /// The node.
    pub broker: BrokerId,
    /// Its data directory.
    pub directory: Uuid,
    /// Where other nodes find it.
    pub peer: Text,
    /// Whether it votes.
    pub votes: bool,
    /// Index of the last entry that it has, if that is known.
    pub matched: Option<u64>,
    /// Milliseconds since it was heard of, if that is known.
    pub silent_ms: Option<u64>,
}

/// Changes what part a node has in the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ChangeNode {
    /// The node.
    pub broker: BrokerId,
    /// What is to become of it.
    pub change: NodeChange,
}

/// See [`ChangeNode`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum NodeChange {
    /// It votes on the metadata.
    Promote,
    /// It does not vote any more.
    Demote,
    /// It is emptied: its partitions move to others, and it gets no new ones.
    Drain,
    /// It takes partitions again.
    Undrain,
    /// It leaves for good; it must be empty.
    Remove,
}

/// Answer to [`ChangeNode`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ChangedNode {
    /// Whether it was done.
    pub error: ErrorCode,
    /// More about the error.
    pub message: Option<Text>,
}

/// Moves partitions to other nodes (KIP-455).
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Reassign {
    /// Topic, partition and where it shall be.
    pub partitions: Vec<(TopicRef, i32, Destination)>,
    /// Whether the number of replicas may change.
    pub allow_factor_change: bool,
}

/// Where a partition shall be.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Destination {
    /// On these nodes, the preferred leader first.
    Nodes(Vec<BrokerId>),
    /// On so many nodes, which the cluster chooses; those that keep it now stay.
    Factor(u16),
    /// Where it was before the move that is under way.
    Back,
}

/// Answer to [`Reassign`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Reassigned {
    /// By partition, with more about the error.
    pub partitions: Vec<(ErrorCode, Option<Text>)>,
}

/// Asks for partitions that move.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ListReassignments {
    /// The partitions that are asked for; `None` is all.
    pub partitions: Option<Vec<(Text, Vec<i32>)>>,
}

/// Answer to [`ListReassignments`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ListedReassignments {
    /// Whether the caller may know.
    pub error: ErrorCode,
    /// By topic and partition.
    pub moves: Vec<PartitionMove>,
}

/// One partition that moves.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct PartitionMove {
    /// The topic.
    pub topic: Text,
    /// The partition.
    pub partition: i32,
    /// Who keeps it now.
    pub replicas: Vec<BrokerId>,
    /// Who of them is new and fetches it.
    pub adding: Vec<BrokerId>,
    /// Who of them goes in the end.
    pub removing: Vec<BrokerId>,
}

/// Elects leaders anew.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ElectLeaders {
    /// The partitions; `None` is all that need it.
    pub partitions: Option<Vec<(Text, Vec<i32>)>>,
    /// Whether a replica may lead that may lack acknowledged records, where nobody else can.
    pub unclean: bool,
}

/// Answer to [`ElectLeaders`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ElectedLeaders {
    /// Whether the caller may do that.
    pub error: ErrorCode,
    /// Topic, partition, and what came of it. If all were asked for, those that needed it.
    pub partitions: Vec<(Text, i32, ErrorCode)>,
}

/// Asks how much a node keeps.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct DescribeLogs {
    /// The partitions that are asked for; `None` is all.
    pub partitions: Option<Vec<(Text, Vec<i32>)>>,
}

/// Answer to [`DescribeLogs`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct DescribedLogs {
    /// Whether the caller may know.
    pub error: ErrorCode,
    /// The data directory.
    pub directory: Text,
    /// Topic, partition, and bytes of its log files.
    pub logs: Vec<(Text, i32, u64)>,
}

/// Asks for the feature level of the cluster, and what its nodes speak.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct DescribeFeatures;

/// Answer to [`DescribeFeatures`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct DescribedFeatures {
    /// Whether the caller may know.
    pub error: ErrorCode,
    /// The level that the cluster is at.
    pub level: FeatureLevel,
    /// The lowest level that the node speaks which answers.
    pub lowest: FeatureLevel,
    /// The highest one.
    pub newest: FeatureLevel,
    /// The highest level that both it and each node speak, by node; `None` if a node does not answer.
    pub nodes: Vec<(BrokerId, Option<FeatureLevel>)>,
}

/// Raises the feature level of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct UpdateFeatures {
    /// To this level; `None` is the highest that all nodes speak.
    pub level: Option<FeatureLevel>,
    /// Whether nothing is changed.
    pub validate_only: bool,
}

/// Answer to [`UpdateFeatures`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct UpdatedFeatures {
    /// Whether it was done.
    pub error: ErrorCode,
    /// More about the error.
    pub message: Option<Text>,
    /// The level that the cluster is at now, or would be.
    pub level: FeatureLevel,
}
