//! What the metadata log holds: commands, in bincode. Variants are only ever added at the end.

use std::collections::BTreeMap;

use bincode::{Decode, Encode};
use callboard_common::{BrokerId, LeaderEpoch, TopicName, TopicPartition, Uuid};

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
#[derive(Clone, Debug, PartialEq, Eq)]
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
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
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
}

/// The settings that everything in the metadata log is written with; commands are small.
pub fn bincode_config() -> impl bincode::config::Config {
    bincode::config::standard().with_limit::<{ 64 << 20 }>()
}
