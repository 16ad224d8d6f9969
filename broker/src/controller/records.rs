//! What the metadata log holds: commands, in bincode. Variants are only ever added at the end.

use std::collections::{BTreeMap, BTreeSet};

use bincode::{Decode, Encode};
use callboard_common::{BrokerId, FeatureLevel, LeaderEpoch, TopicName, TopicPartition, Uuid};

use crate::security::image::SecurityChange;

/// A change of the metadata.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Command {
    /// A node starts: a new incarnation, under which it leads its partitions in new epochs.
    RegisterBroker {
        /// Its number.
        broker: BrokerId,
        /// Its data directory.
        directory: Uuid,
        /// This start.
        incarnation: Uuid,
    },
    /// A topic is created, all of its partitions led by `leader`.
    CreateTopic {
        /// Its name.
        name: TopicName,
        /// Its identifier.
        id: Uuid,
        /// How many partitions.
        partitions: i32,
        /// Who leads them.
        leader: BrokerId,
        /// Settings that differ from the defaults.
        configs: BTreeMap<String, String>,
    },
    /// A topic is deleted with all its records.
    DeleteTopic {
        /// Its identifier.
        id: Uuid,
    },
    /// A restarted leader takes a new epoch.
    NextLeaderEpoch {
        /// The partition.
        partition: TopicPartition,
        /// The topic's identifier.
        topic_id: Uuid,
        /// Who leads it.
        broker: BrokerId,
    },
    /// A block of producer ids for a node.
    AllocateProducerIds {
        /// Who hands them out.
        broker: BrokerId,
        /// How many.
        count: i64,
    },
    /// Settings of a topic change.
    AlterTopicConfigs {
        /// The topic's identifier.
        id: Uuid,
        /// By Kafka's name; `None` goes back to the default.
        changes: BTreeMap<String, Option<String>>,
    },
    /// A topic gets more partitions.
    CreatePartitions {
        /// The topic's identifier.
        id: Uuid,
        /// How many it has then.
        count: i32,
        /// Who leads the new ones.
        leader: BrokerId,
    },
    /// Users, rules or quotas change.
    Security(SecurityChange),
    /// A topic whose logs are there already, written by another program, in reigns before these.
    AdoptTopic {
        /// Its name.
        name: TopicName,
        /// Its identifier.
        id: Uuid,
        /// The first reigns of its partitions here.
        epochs: Vec<LeaderEpoch>,
        /// Who leads them.
        leader: BrokerId,
        /// Settings that differ from the defaults.
        configs: BTreeMap<String, String>,
    },
    /// A node starts, as [`Command::RegisterBroker`], and says where it is found. It is alive from then on.
    RegisterNode {
        /// Its number.
        broker: BrokerId,
        /// Its data directory: another one than before means that the old one is lost.
        directory: Uuid,
        /// This start.
        incarnation: Uuid,
        /// Where clients and nodes find it.
        endpoints: Endpoints,
        /// Where it stands, for placement.
        rack: Option<String>,
    },
    /// A node is not heard of any more, or stops: others lead what it led.
    FenceBroker {
        /// Its number.
        broker: BrokerId,
        /// The incarnation that was alive: a newer one is not meant.
        epoch: i64,
        /// Whether it stops by itself: only a new start makes it alive again.
        stops: bool,
    },
    /// A node that was fenced is heard of again, in the same incarnation.
    UnfenceBroker {
        /// Its number.
        broker: BrokerId,
        /// Its incarnation.
        epoch: i64,
    },
    /// A node leaves for good.
    UnregisterBroker {
        /// Its number.
        broker: BrokerId,
    },
    /// A topic is created with these replicas, by partition; the first of each leads.
    PlaceTopic {
        /// Its name.
        name: TopicName,
        /// Its identifier.
        id: Uuid,
        /// Who keeps each partition.
        replicas: Vec<Vec<BrokerId>>,
        /// Settings that differ from the defaults.
        configs: BTreeMap<String, String>,
    },
    /// A topic gets more partitions, with these replicas.
    PlacePartitions {
        /// The topic's identifier.
        id: Uuid,
        /// How many it has now.
        there: i32,
        /// Who keeps each new one.
        replicas: Vec<Vec<BrokerId>>,
    },
    /// A leader changes who is in sync (KIP-497).
    AlterIsr {
        /// The topic's identifier.
        topic_id: Uuid,
        /// The partition.
        partition: i32,
        /// Who leads it.
        leader: BrokerId,
        /// Its reign.
        epoch: LeaderEpoch,
        /// The partition's version that the leader knows.
        version: i32,
        /// Who is in sync, with the incarnation that is (KIP-903).
        isr: Vec<(BrokerId, i64)>,
    },
    /// Partitions get other replicas, or a move is given up (KIP-455).
    Reassign {
        /// The topic's identifier.
        topic_id: Uuid,
        /// The partition.
        partition: i32,
        /// Who shall keep it; `None` gives a move up.
        replicas: Option<Vec<BrokerId>>,
    },
    /// Elects leaders anew.
    Elect {
        /// Topic and partition; `None` means all.
        partitions: Option<Vec<(Uuid, i32)>>,
        /// Whether a replica may lead that may lack acknowledged records.
        unclean: bool,
    },
    /// Where a member of the quorum is found.
    SetMember {
        /// Its number in Raft.
        raft_id: u64,
        /// What is known of it.
        member: Member,
    },
    /// A node shall keep nothing any more, or may again.
    DrainBroker {
        /// Its number.
        broker: BrokerId,
        /// Whether it is emptied.
        drains: bool,
    },
    /// A replica has found its log damaged: it neither leads nor counts until it has caught up.
    LoseReplica {
        /// The topic's identifier.
        topic_id: Uuid,
        /// The partition.
        partition: i32,
        /// Whose replica.
        broker: BrokerId,
    },
    /// A replica has no space for more: another one leads and counts, if one is whole.
    StepAside {
        /// The topic's identifier.
        topic_id: Uuid,
        /// The partition.
        partition: i32,
        /// Whose replica.
        broker: BrokerId,
    },
    /// From here on the log may hold what this level knows. A release that does not know it stops here.
    SetFeatureLevel {
        /// The level.
        level: FeatureLevel,
        /// The starts of nodes that are known to speak it: all that are registered.
        brokers: BTreeMap<BrokerId, i64>,
        /// Who of the members of the quorum is known to speak it: all of them.
        members: BTreeSet<u64>,
    },
    /// A node that did not stop in order is about to register again. What it was before is gone, and of topics that acknowledge
    /// before they sync its replicas may lack what was acknowledged (KIP-966).
    StartUncleanly {
        /// Its number.
        broker: BrokerId,
        /// The incarnation that has ended: a newer one is not meant.
        epoch: i64,
        /// Whether a topic that does not choose `flush.messages` is one of them.
        by_default: bool,
    },
}

/// A data directory that follows the metadata log, as a voter or a learner.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Member {
    /// Whose it is.
    pub broker: BrokerId,
    /// The directory's identifier.
    pub directory: Uuid,
    /// Where other nodes find it.
    pub peer: Endpoint,
}

/// A host and a port.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Endpoint {
    /// Name or address.
    pub host: String,
    /// Port.
    pub port: u16,
}

/// Where a node is found, by door.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Endpoints {
    /// Kafka clients.
    pub kafka: Endpoint,
    /// Kafka clients with TLS.
    pub kafka_tls: Endpoint,
    /// Callboard's clients.
    pub quic: Endpoint,
    /// Other nodes, if it has that door.
    pub peer: Option<Endpoint>,
}

/// Largest command: what is written is what the reader takes.
pub const COMMAND_MAX_BYTES: usize = 256 << 10;

impl Command {
    /// Checks that it is small enough to be kept.
    ///
    /// # Errors
    ///
    /// [`Refusal::TooLarge`].
    pub fn check_size(&self) -> Result<(), Refusal> {
        let mut writer = bincode::enc::write::SizeWriter::default();
        let counted = bincode::encode_into_writer(self, &mut writer, bincode_config());
        let size_bytes = writer.bytes_written;
        match counted.is_ok() && size_bytes <= COMMAND_MAX_BYTES {
            true => Ok(()),
            false => Err(Refusal::TooLarge { size_bytes }),
        }
    }
}

/// What a committed command came to.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Outcome {
    /// It took effect.
    Done,
    /// The broker epoch of the new incarnation.
    Registered {
        /// Its epoch.
        broker_epoch: i64,
    },
    /// The leader's new epoch.
    LeaderEpoch(LeaderEpoch),
    /// The first producer id of the block.
    ProducerIds {
        /// The first one.
        first: i64,
    },
}

/// Why a committed command changed nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Encode, Decode)]
pub enum Refusal {
    /// A topic of this name exists.
    #[error("topic {0} exists")]
    TopicExists(TopicName),
    /// The name differs from an existing one only in `.` and `_`, which metrics cannot tell apart.
    #[error("topic {new} collides with {existing}: metrics cannot tell '.' from '_'")]
    TopicCollides {
        /// The refused name.
        new: TopicName,
        /// The topic that is there.
        existing: TopicName,
    },
    /// There is no such topic or partition.
    #[error("there is no such topic or partition")]
    UnknownTopic,
    /// The broker does not lead the partition.
    #[error("broker {0} does not lead the partition")]
    NotLeader(BrokerId),
    /// The topic has as many partitions or more.
    #[error("the topic has {there} partitions; their number only grows")]
    NotMorePartitions {
        /// How many there are.
        there: usize,
    },
    /// The change is larger than one may be.
    #[error("the change takes {size_bytes} bytes of metadata; one may take {COMMAND_MAX_BYTES}")]
    TooLarge {
        /// Its size.
        size_bytes: usize,
    },
    /// All producer ids are given out.
    #[error("all producer ids are given out")]
    NoProducerIds,
    /// The controller stopped before it answered; the command may take effect.
    #[error("the controller stopped before it answered")]
    Stopped,
    /// A leader knows an older state of its partition.
    #[error("the partition is in leader epoch {epoch}, version {version} by now")]
    Outdated {
        /// The reign that is.
        epoch: LeaderEpoch,
        /// The version that is.
        version: i32,
    },
    /// Somebody is named who is no replica, or not alive, or an incarnation that is gone.
    #[error("a replica that is named is not eligible")]
    Ineligible,
    /// There is no such node, or this incarnation of it is gone.
    #[error("there is no such node, or this incarnation of it is gone")]
    UnknownBroker,
    /// An election was asked for and nobody else may lead.
    #[error("no leader was elected: nobody else is eligible, or it was not needed")]
    NotElected,
    /// There is no quorum, or no leader of it is known.
    #[error("no majority of the metadata's voters can be reached")]
    NoQuorum,
    /// The quorum is changing already, or the change is not possible.
    #[error("{0}")]
    Quorum(String),
    /// Another data directory of the same node is a member; it must be removed first.
    #[error("member {0} is another data directory of the same node")]
    Replaces(u64),
    /// The node still keeps partitions.
    #[error("node {0} still keeps partitions; move them away first")]
    InUse(BrokerId),
    /// The quorum cannot change right now and soon may.
    #[error("{0}")]
    QuorumBusy(String),
    /// The feature level cannot be that.
    #[error("{0}")]
    Features(String),
}

/// The settings that everything in the metadata log is written with; commands are small.
pub fn bincode_config() -> impl bincode::config::Config {
    bincode::config::standard().with_limit::<{ 64 << 20 }>()
}

/// Metadata as bytes; an image of the largest size that is accepted is far below the limit.
pub(super) fn encode(value: &impl Encode) -> Vec<u8> {
    bincode::encode_to_vec(value, bincode_config()).expect("it encodes into memory")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|b| format!("{b:02x}")).collect()
    }

    /// What these bytes are must not change: they are in metadata logs, and nodes of the next release read them.
    #[test]
    fn golden_bytes() {
        let (topic_id, partition) = (Uuid([1; 16]), 3);
        let isr = Command::AlterIsr {
            topic_id,
            partition,
            leader: BrokerId(2),
            epoch: LeaderEpoch(5),
            version: 300,
            isr: vec![(BrokerId(2), 9), (BrokerId(1), 7)],
        };
        assert_eq!(
            hex(&encode(&isr)),
            "0f0101010101010101010101010101010106040afb5802020412020e"
        );
        let fence = Command::FenceBroker {
            broker: BrokerId(1),
            epoch: 70_000,
            stops: true,
        };
        assert_eq!(hex(&encode(&fence)), "0a02fce022020001");
        let name = TopicName::new("orders").expect("valid");
        let placed = Command::PlaceTopic {
            name,
            id: topic_id,
            replicas: vec![vec![BrokerId(1), BrokerId(3)]],
            configs: [("cleanup.policy".to_owned(), "delete".to_owned())].into(),
        };
        assert_eq!(
            hex(&encode(&placed)),
            "0d066f72646572730101010101010101010101010101010101020206010e636c65616e75702e706f6c6963790664656c657465"
        );
        let level = Command::SetFeatureLevel {
            level: FeatureLevel::LOWEST,
            brokers: [(BrokerId(1), 4)].into(),
            members: [8].into(),
        };
        assert_eq!(hex(&encode(&level)), "16030102080108");
        let unclean = Command::StartUncleanly {
            broker: BrokerId(3),
            epoch: 70_000,
            by_default: true,
        };
        assert_eq!(hex(&encode(&unclean)), "1706fce022020001");
    }
}
