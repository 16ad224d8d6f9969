//! What is written to `__consumer_offsets`, in Kafka's formats: keys and values with a version in front.

use bytes::{BufMut, Bytes, BytesMut};
use callboard_common::kafka::messages::group_metadata_value::MemberMetadata;
use callboard_common::kafka::messages::{
    GroupMetadataKey, GroupMetadataValue, OffsetCommitKey, OffsetCommitValue,
};
use callboard_common::kafka::{Codec, DecodeError, Decoder, Encoder, Message, Text};
use callboard_common::protocol::groups::Blob;
use callboard_common::record::{Batch, BatchBuilder, Compression, Record};
use callboard_common::{LeaderEpoch, Offset, TopicName, TopicPartition};

use super::offsets::CommittedOffset;

/// Kafka's brokers of every supported version read these versions.
const OFFSET_VALUE_VERSION: i16 = 3;
const GROUP_VALUE_VERSION: i16 = 3;
/// A batch of records is closed beyond this size; far below `max.message.bytes`.
const BATCH_BYTES: usize = 256 << 10;

/// A change of the coordinator's durable state; no value is a deletion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GroupRecord {
    /// A group committed an offset for a partition.
    Offset {
        /// The group.
        group: Text,
        /// The partition.
        partition: TopicPartition,
        /// The offset.
        value: Option<CommittedOffset>,
    },
    /// A group's generation.
    Group {
        /// The group.
        group: Text,
        /// Its members and their assignments.
        value: Option<GroupValue>,
    },
}

/// A generation of a group, as it is written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupValue {
    /// What the group does.
    pub protocol_type: Text,
    /// Its generation.
    pub generation: i32,
    /// The assignor.
    pub protocol: Option<Text>,
    /// The member that assigns.
    pub leader: Option<Text>,
    /// When its state changed last, in milliseconds since the Unix epoch.
    pub changed_at: i64,
    /// Its members.
    pub members: Vec<MemberValue>,
}

/// A member of a generation, as it is written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemberValue {
    /// Its id.
    pub id: Text,
    /// The id of a static member.
    pub instance: Option<Text>,
    /// What the client calls itself.
    pub client_id: Text,
    /// Where it is.
    pub client_host: Text,
    /// Milliseconds.
    pub rebalance_timeout: i32,
    /// Milliseconds.
    pub session_timeout: i32,
    /// Its subscription for the assignor.
    pub subscription: Blob,
    /// Its assignment.
    pub assignment: Blob,
}

/// Why a record of the offsets partition cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GroupRecordError {
    /// Malformed, or of a newer version.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// A version or type that is not known.
    #[error("version {version} of {what} is not known")]
    Version {
        /// The version.
        version: i16,
        /// Of what.
        what: &'static str,
    },
    /// A field has an impossible value.
    #[error("{0} is impossible")]
    Value(&'static str),
}

fn encode<M: Codec>(prefix: i16, message: &M, version: i16) -> Bytes {
    let mut encoder = Encoder::new();
    message
        .encode(&mut encoder, version)
        .expect("names and blobs came in through a request of the same limits");
    let mut out = BytesMut::new();
    out.put_i16(prefix);
    out.put_slice(&encoder.into_bytes());
    out.freeze()
}

fn version_of(d: &mut Decoder, newest: i16, what: &'static str) -> Result<i16, GroupRecordError> {
    let version = d.i16()?;
    if (0..=newest).contains(&version) {
        Ok(version)
    } else {
        Err(GroupRecordError::Version { version, what })
    }
}

impl GroupRecord {
    /// Key and value as they stand in the log.
    #[must_use]
    pub fn encode(&self) -> (Bytes, Option<Bytes>) {
        match self {
            Self::Offset {
                group,
                partition,
                value,
            } => {
                let topic = Text::from(partition.topic.as_str());
                let key = OffsetCommitKey {
                    group: group.clone(),
                    topic,
                    partition: partition.partition,
                };
                let value = value
                    .as_ref()
                    .map(|v| encode(OFFSET_VALUE_VERSION, &offset_value(v), OFFSET_VALUE_VERSION));
                (encode(OffsetCommitKey::KEY, &key, 0), value)
            }
            Self::Group { group, value } => {
                let key = GroupMetadataKey {
                    group: group.clone(),
                };
                let value = value
                    .as_ref()
                    .map(|v| encode(GROUP_VALUE_VERSION, &group_value(v), GROUP_VALUE_VERSION));
                (encode(GroupMetadataKey::KEY, &key, 0), value)
            }
        }
    }

    /// Reads a record of the offsets partition; `None` for kinds that are not about classic groups.
    ///
    /// # Errors
    ///
    /// [`GroupRecordError`] says what is wrong with it.
    pub fn decode(record: &Record) -> Result<Option<Self>, GroupRecordError> {
        let key = record
            .key
            .clone()
            .ok_or(GroupRecordError::Value("a record without a key"))?;
        let mut key = Decoder::new(key);
        let value = record.value.clone();
        match key.i16()? {
            // Version 0 of the offset key is written by no broker that is still supported, and reads alike.
            0 | OffsetCommitKey::KEY => {
                let key = OffsetCommitKey::decode(&mut key, 0)?;
                let topic = TopicName::new(&key.topic)
                    .map_err(|_| GroupRecordError::Value("a topic name"))?;
                let partition = TopicPartition::new(topic, key.partition);
                let value = value.map(read_offset).transpose()?;
                Ok(Some(Self::Offset {
                    group: key.group.detached(),
                    partition,
                    value,
                }))
            }
            GroupMetadataKey::KEY => {
                let key = GroupMetadataKey::decode(&mut key, 0)?;
                let value = value.map(read_group).transpose()?;
                Ok(Some(Self::Group {
                    group: key.group.detached(),
                    value,
                }))
            }
            _ => Ok(None),
        }
    }
}

fn offset_value(value: &CommittedOffset) -> OffsetCommitValue {
    OffsetCommitValue {
        offset: value.offset.get(),
        leader_epoch: value.epoch.map_or(-1, |e| e.0),
        metadata: value.metadata.clone(),
        commit_timestamp: value.committed_at,
        ..OffsetCommitValue::default()
    }
}

fn read_offset(bytes: Bytes) -> Result<CommittedOffset, GroupRecordError> {
    let mut d = Decoder::new(bytes);
    let version = version_of(&mut d, 4, "an offset commit")?;
    let value = OffsetCommitValue::decode(&mut d, version)?;
    Ok(CommittedOffset {
        offset: Offset::checked(value.offset)
            .ok_or(GroupRecordError::Value("a negative offset"))?,
        epoch: (value.leader_epoch >= 0).then_some(LeaderEpoch(value.leader_epoch)),
        metadata: value.metadata.detached(),
        committed_at: value.commit_timestamp,
    })
}

fn group_value(value: &GroupValue) -> GroupMetadataValue {
    let member = |m: &MemberValue| MemberMetadata {
        member_id: m.id.clone(),
        group_instance_id: m.instance.clone(),
        client_id: m.client_id.clone(),
        client_host: m.client_host.clone(),
        rebalance_timeout: m.rebalance_timeout,
        session_timeout: m.session_timeout,
        subscription: m.subscription.0.clone(),
        assignment: m.assignment.0.clone(),
    };
    GroupMetadataValue {
        protocol_type: value.protocol_type.clone(),
        generation: value.generation,
        protocol: value.protocol.clone(),
        leader: value.leader.clone(),
        current_state_timestamp: value.changed_at,
        members: value.members.iter().map(member).collect(),
    }
}

fn read_group(bytes: Bytes) -> Result<GroupValue, GroupRecordError> {
    let mut d = Decoder::new(bytes);
    let version = version_of(&mut d, 4, "group metadata")?;
    let value = GroupMetadataValue::decode(&mut d, version)?;
    let blob = |b: &Bytes| Blob(Bytes::copy_from_slice(b));
    let member = |m: MemberMetadata| MemberValue {
        id: m.member_id.detached(),
        instance: m.group_instance_id.map(|i| i.detached()),
        client_id: m.client_id.detached(),
        client_host: m.client_host.detached(),
        rebalance_timeout: m.rebalance_timeout,
        session_timeout: m.session_timeout,
        subscription: blob(&m.subscription),
        assignment: blob(&m.assignment),
    };
    Ok(GroupValue {
        protocol_type: value.protocol_type.detached(),
        generation: value.generation,
        protocol: value.protocol.map(|p| p.detached()),
        leader: value.leader.map(|l| l.detached()),
        changed_at: value.current_state_timestamp,
        members: value.members.into_iter().map(member).collect(),
    })
}

/// Packs records into batches, stamped with `now` in milliseconds.
#[must_use]
pub fn batches(records: &[GroupRecord], now: i64) -> Vec<Batch> {
    let mut batches = Vec::new();
    let mut open = BatchBuilder::new(Compression::None);
    for record in records {
        let (key, value) = record.encode();
        open.push(now, Some(&key), value.as_deref(), &[]);
        if open.size_bytes() > BATCH_BYTES {
            batches
                .push(std::mem::replace(&mut open, BatchBuilder::new(Compression::None)).build());
        }
    }
    if open.count() > 0 {
        batches.push(open.build());
    }
    batches
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip(record: &GroupRecord) {
        let (key, value) = record.encode();
        let read = GroupRecord::decode(&Record {
            key: Some(key),
            value,
            ..Record::default()
        });
        assert_eq!(read.as_ref(), Ok(&Some(record.clone())));
    }

    #[test]
    fn records_round_trip() {
        let group = Text::from_static("g");
        let partition = TopicPartition::parse("t-3").expect("valid");
        let value = CommittedOffset {
            offset: Offset::new(42),
            epoch: Some(LeaderEpoch(2)),
            metadata: "note".into(),
            committed_at: 1000,
        };
        round_trip(&GroupRecord::Offset {
            group: group.clone(),
            partition: partition.clone(),
            value: Some(value),
        });
        round_trip(&GroupRecord::Offset {
            group: group.clone(),
            partition,
            value: None,
        });
        let member = MemberValue {
            id: "m".into(),
            instance: Some("i".into()),
            session_timeout: 9,
            ..MemberValue::default()
        };
        let value = GroupValue {
            generation: 3,
            members: vec![member],
            ..GroupValue::default()
        };
        round_trip(&GroupRecord::Group {
            group: group.clone(),
            value: Some(value),
        });
        round_trip(&GroupRecord::Group { group, value: None });
    }

    /// The bytes that Kafka writes for a commit of offset 42 by group "g" to "t"-3.
    #[test]
    fn the_bytes_are_kafkas() {
        let record = GroupRecord::Offset {
            group: "g".into(),
            partition: TopicPartition::parse("t-3").expect("valid"),
            value: Some(CommittedOffset {
                offset: Offset::new(42),
                epoch: None,
                metadata: "".into(),
                committed_at: 7,
            }),
        };
        let (key, value) = record.encode();
        assert_eq!(key, &b"\0\x01\0\x01g\0\x01t\0\0\0\x03"[..]);
        assert_eq!(
            value.as_deref(),
            Some(&b"\0\x03\0\0\0\0\0\0\0\x2a\xff\xff\xff\xff\0\0\0\0\0\0\0\0\0\x07"[..])
        );
    }
}
