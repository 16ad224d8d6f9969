//! What Apache Kafka's own metadata says of topics: read once, when a data directory of Kafka is taken over; pure.
//!
//! Kafka keeps metadata as a log of typed records (`__cluster_metadata-0`), the newest snapshot (`.checkpoint`) first.
//! Records of a kind or version that is not known are counted, not guessed at.
//!
//! Sources: KIP-500, KIP-631; the record schemas of Kafka 4.4.0.

use std::collections::BTreeMap;

use bytes::Bytes;
use callboard_common::kafka::messages as m;
use callboard_common::kafka::{DecodeError, Decoder, Message};
use callboard_common::record::{Batch, BatchError};
use callboard_common::{LeaderEpoch, TopicName, Uuid};

/// Version of the envelope around each record.
const FRAME_VERSION: u32 = 1;
/// Kafka's number of a topic's settings.
const TOPIC_RESOURCE: i8 = 2;
/// The most that one batch of metadata is decompressed to.
const DECOMPRESS_LIMIT_BYTES: usize = 64 << 20;

/// A topic as Kafka has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KafkaTopic {
    /// Its name.
    pub name: String,
    /// Leader epochs by partition.
    pub partitions: BTreeMap<i32, LeaderEpoch>,
    /// Its settings.
    pub configs: BTreeMap<String, String>,
}

/// The topics of a Kafka cluster by identifier, and how many records of other kinds there were by Kafka's number.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KafkaMetadata {
    /// The topics.
    pub topics: BTreeMap<Uuid, KafkaTopic>,
    configs: BTreeMap<String, BTreeMap<String, String>>,
    /// The first producer id that was not given out.
    pub next_producer_id: i64,
    /// Records that were left alone.
    pub others: BTreeMap<u32, usize>,
}

/// Why Kafka's metadata cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KafkaMetadataError {
    /// The log is damaged.
    #[error("{0}")]
    Batch(#[from] BatchError),
    /// A record is malformed.
    #[error("a record is malformed: {0}")]
    Record(#[from] DecodeError),
    /// Made by a newer program.
    #[error("the envelope of a record has version {0}; known is {FRAME_VERSION}")]
    Frame(u32),
}

impl KafkaMetadata {
    /// Takes over the batches of a file; files in order, a snapshot first.
    ///
    /// # Errors
    ///
    /// [`KafkaMetadataError`]: what was read before stays.
    pub fn read(&mut self, mut bytes: Bytes) -> Result<(), KafkaMetadataError> {
        while !bytes.is_empty() {
            let (batch, rest) = Batch::split(bytes)?;
            bytes = rest;
            if batch.header().is_control() {
                continue;
            }
            for record in batch.records(DECOMPRESS_LIMIT_BYTES)? {
                if let Some(value) = record.value {
                    self.apply(value)?;
                }
            }
        }
        Ok(())
    }

    fn apply(&mut self, value: Bytes) -> Result<(), KafkaMetadataError> {
        let mut d = Decoder::new(value);
        let frame = d.unsigned_varint()?;
        if frame != FRAME_VERSION {
            return Err(KafkaMetadataError::Frame(frame));
        }
        let (key, version) = (d.unsigned_varint()?, d.unsigned_varint()?);
        let (kind, version) = (
            i16::try_from(key).unwrap_or(-1),
            i16::try_from(version).unwrap_or(-1),
        );
        let known = |valid: std::ops::RangeInclusive<i16>| valid.contains(&version);
        let body = d.into_rest();
        match kind {
            m::TopicRecord::KEY if known(m::TopicRecord::VALID) => {
                let record = m::TopicRecord::from_bytes(body, version)?;
                self.topics.entry(record.topic_id).or_default().name = record.name.to_string();
            }
            m::PartitionRecord::KEY if known(m::PartitionRecord::VALID) => {
                let record = m::PartitionRecord::from_bytes(body, version)?;
                let topic = self.topics.entry(record.topic_id).or_default();
                let epoch = LeaderEpoch(record.leader_epoch);
                let _before = topic.partitions.insert(record.partition_id, epoch);
            }
            m::PartitionChangeRecord::KEY if known(m::PartitionChangeRecord::VALID) => {
                let record = m::PartitionChangeRecord::from_bytes(body, version)?;
                let topic = self.topics.entry(record.topic_id).or_default();
                // A change of the leader, or of who is in sync, begins a new reign at most.
                let epoch = topic
                    .partitions
                    .entry(record.partition_id)
                    .or_insert(LeaderEpoch(0));
                *epoch = epoch.next();
            }
            m::ConfigRecord::KEY if known(m::ConfigRecord::VALID) => {
                let record = m::ConfigRecord::from_bytes(body, version)?;
                if record.resource_type == TOPIC_RESOURCE {
                    let configs = self
                        .configs
                        .entry(record.resource_name.to_string())
                        .or_default();
                    match record.value {
                        Some(value) => {
                            drop(configs.insert(record.name.to_string(), value.to_string()))
                        }
                        None => drop(configs.remove(&*record.name)),
                    }
                }
            }
            m::ProducerIdsRecord::KEY if known(m::ProducerIdsRecord::VALID) => {
                let record = m::ProducerIdsRecord::from_bytes(body, version)?;
                self.next_producer_id = self.next_producer_id.max(record.next_producer_id);
            }
            m::RemoveTopicRecord::KEY if known(m::RemoveTopicRecord::VALID) => {
                let record = m::RemoveTopicRecord::from_bytes(body, version)?;
                if let Some(topic) = self.topics.remove(&record.topic_id) {
                    drop(self.configs.remove(&topic.name));
                }
            }
            _ => *self.others.entry(key).or_default() += 1,
        }
        Ok(())
    }

    /// The topics by name, with their settings; one whose name is impossible here is left out.
    #[must_use]
    pub fn finish(self) -> BTreeMap<TopicName, (Uuid, KafkaTopic)> {
        let mut configs = self.configs;
        let topic = |(id, mut topic): (Uuid, KafkaTopic)| {
            topic.configs = configs.remove(&topic.name).unwrap_or_default();
            Some((TopicName::new(&topic.name).ok()?, (id, topic)))
        };
        self.topics.into_iter().filter_map(topic).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use callboard_common::kafka::{Codec, Encoder};
    use callboard_common::record::{BatchBuilder, Compression};

    fn envelope<M: Message>(record: &M, version: u8) -> Vec<u8> {
        let mut encoder = Encoder::new();
        Codec::encode(record, &mut encoder, version.into()).expect("fits");
        [
            &[1, u8::try_from(M::KEY).expect("small"), version],
            &encoder.into_bytes()[..],
        ]
        .concat()
    }

    fn log(records: &[Vec<u8>]) -> Bytes {
        let mut builder = BatchBuilder::new(Compression::None);
        records
            .iter()
            .for_each(|r| builder.push(0, None, Some(r), &[]));
        builder.build().bytes().clone()
    }

    #[test]
    fn topics_are_what_the_log_adds_up_to() {
        let id = |n| Uuid([n; 16]);
        let topic = |n, name: &'static str| {
            envelope(
                &m::TopicRecord {
                    name: name.into(),
                    topic_id: id(n),
                },
                0,
            )
        };
        let partition = |n, partition_id, leader_epoch| {
            let record = m::PartitionRecord {
                topic_id: id(n),
                partition_id,
                leader_epoch,
                ..Default::default()
            };
            envelope(&record, 1)
        };
        let config = |name: &'static str, value: Option<&'static str>| {
            let record = m::ConfigRecord {
                resource_type: 2,
                resource_name: "orders".into(),
                name: name.into(),
                value: value.map(Into::into),
            };
            envelope(&record, 0)
        };
        let change = m::PartitionChangeRecord {
            topic_id: id(1),
            partition_id: 1,
            ..Default::default()
        };
        let mut metadata = KafkaMetadata::default();
        let first = [
            topic(1, "orders"),
            partition(1, 0, 0),
            partition(1, 1, 4),
            topic(2, "gone"),
            config("segment.bytes", Some("1000")),
        ];
        metadata.read(log(&first)).expect("readable");
        let gone = envelope(&m::RemoveTopicRecord { topic_id: id(2) }, 0);
        // Kind 12, a feature's level, is none of our business.
        let second = [
            envelope(&change, 0),
            gone,
            config("retention.ms", Some("5")),
            config("segment.bytes", None),
            vec![1, 12, 0, 0],
        ];
        metadata.read(log(&second)).expect("readable");
        assert_eq!(metadata.others, [(12, 1)].into());
        let topics = metadata.finish();
        let (found, orders) = &topics[&TopicName::new("orders").expect("valid")];
        assert_eq!((topics.len(), *found), (1, id(1)));
        assert_eq!(
            orders.partitions,
            [(0, LeaderEpoch(0)), (1, LeaderEpoch(5))].into()
        );
        assert_eq!(
            orders.configs,
            [("retention.ms".to_owned(), "5".to_owned())].into()
        );
    }

    #[test]
    fn what_is_malformed_is_said() {
        let mut metadata = KafkaMetadata::default();
        assert_eq!(
            metadata.read(log(&[vec![9, 2, 0]])),
            Err(KafkaMetadataError::Frame(9))
        );
        assert!(matches!(
            metadata.read(log(&[vec![1, 2, 0, 200]])),
            Err(KafkaMetadataError::Record(_))
        ));
        assert!(
            metadata
                .read(Bytes::from_static(b"this is no log"))
                .is_err()
        );
    }
}
