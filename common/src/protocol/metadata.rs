//! Who leads what, and where.

use bincode::{Decode, Encode};

use super::TopicRef;
use crate::kafka::Text;
use crate::{BrokerId, ErrorCode, LeaderEpoch, Uuid};

/// Asks for brokers and topics.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Metadata {
    /// The topics wanted; `None` is all.
    pub topics: Option<Vec<TopicRef>>,
    /// Whether topics that are missing may be created, if the broker allows it.
    pub auto_create: bool,
}

/// Answer to [`Metadata`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct MetadataAnswer {
    /// The cluster's identifier.
    pub cluster_id: Text,
    /// The broker that answers for the controller.
    pub controller: BrokerId,
    /// The brokers, with their addresses on the door that was asked.
    pub brokers: Vec<BrokerAddress>,
    /// By topic; all by name if all were asked for.
    pub topics: Vec<TopicMetadata>,
}

/// Where a broker is.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct BrokerAddress {
    /// Its number.
    pub id: BrokerId,
    /// Host name or address.
    pub host: Text,
    /// Port.
    pub port: u16,
}

/// One topic.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct TopicMetadata {
    /// Whether there is such a topic.
    pub error: ErrorCode,
    /// Its name, if known.
    pub name: Option<Text>,
    /// Its identifier, or zero.
    pub id: Uuid,
    /// Whether the broker owns it.
    pub is_internal: bool,
    /// Its partitions by number.
    pub partitions: Vec<PartitionMetadata>,
}

/// One partition.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct PartitionMetadata {
    /// Its number.
    pub partition: i32,
    /// Whether it has a leader.
    pub error: ErrorCode,
    /// Who leads it.
    pub leader: Option<BrokerId>,
    /// The leader's reign.
    pub epoch: LeaderEpoch,
    /// Its replicas.
    pub replicas: Vec<BrokerId>,
    /// Those that are in sync.
    pub isr: Vec<BrokerId>,
    /// Those that lack nothing either (KIP-966).
    pub eligible: Vec<BrokerId>,
}
