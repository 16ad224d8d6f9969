//! Kafka's error codes: the only errors that cross the wire.

use bincode::{Decode, Encode};

macro_rules! codes {
    ($($name:ident $number:literal $retriable:literal $text:literal;)*) => {
        /// What a response says of a request or of a part of it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
        #[non_exhaustive]
        pub enum ErrorCode {
            $(#[doc = $text] $name),*
        }

        impl ErrorCode {
            /// Every code this version knows, by number.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// Kafka's number.
            #[must_use]
            pub fn number(self) -> i16 {
                match self { $(Self::$name => $number),* }
            }

            /// The code with this number; one that is not known counts as [`ErrorCode::UnknownServerError`].
            #[must_use]
            pub fn from_number(number: i16) -> Self {
                match number { $($number => Self::$name,)* _ => Self::UnknownServerError }
            }

            /// Whether the same request may succeed later, as Kafka's clients judge it.
            #[must_use]
            pub fn is_retriable(self) -> bool {
                match self { $(Self::$name => $retriable),* }
            }

            /// One sentence for a person.
            #[must_use]
            pub fn message(self) -> &'static str {
                match self { $(Self::$name => $text),* }
            }
        }
    };
}

codes! {
    UnknownServerError -1 false "The server met an error that it did not expect.";
    None 0 false "No error.";
    OffsetOutOfRange 1 false "The offset lies outside of the partition's log.";
    CorruptMessage 2 true "The records fail their checksum or are malformed.";
    UnknownTopicOrPartition 3 true "This server does not host this topic or partition.";
    InvalidFetchSize 4 false "The fetch size is invalid.";
    LeaderNotAvailable 5 true "There is no leader for this partition at the moment.";
    NotLeaderOrFollower 6 true "This server is neither leader nor follower of this partition.";
    RequestTimedOut 7 true "The request timed out.";
    MessageTooLarge 10 false "The records are larger than the server accepts.";
    OffsetMetadataTooLarge 12 false "The metadata of an offset commit is too large.";
    NetworkException 13 true "The server disconnected before it answered.";
    CoordinatorLoadInProgress 14 true "The coordinator is loading.";
    CoordinatorNotAvailable 15 true "The coordinator is not available.";
    NotCoordinator 16 true "This is not the right coordinator.";
    InvalidTopicException 17 false "The topic's name is invalid.";
    RecordListTooLarge 18 false "The request holds more records than a segment may have.";
    NotEnoughReplicas 19 true "There are fewer in-sync replicas than required.";
    NotEnoughReplicasAfterAppend 20 true "The records were written to fewer in-sync replicas than required.";
    InvalidRequiredAcks 21 false "The acks are neither -1, 0 nor 1.";
    IllegalGeneration 22 false "The group's generation is another one.";
    InconsistentGroupProtocol 23 false "The member's protocols do not fit the group's.";
    InvalidGroupId 24 false "The group's name is invalid.";
    UnknownMemberId 25 false "The coordinator does not know this member.";
    InvalidSessionTimeout 26 false "The session timeout is out of the allowed range.";
    RebalanceInProgress 27 false "The group is rebalancing; join again.";
    InvalidCommitOffsetSize 28 false "The commit is too large.";
    TopicAuthorizationFailed 29 false "Not authorized to access this topic.";
    GroupAuthorizationFailed 30 false "Not authorized to access this group.";
    ClusterAuthorizationFailed 31 false "Not authorized to act on the cluster.";
    InvalidTimestamp 32 false "A record's timestamp is out of range.";
    UnsupportedSaslMechanism 33 false "The SASL mechanism is not supported.";
    IllegalSaslState 34 false "The request is not valid in this SASL state.";
    UnsupportedVersion 35 false "This version of the request is not supported.";
    TopicAlreadyExists 36 false "A topic of this name exists.";
    InvalidPartitions 37 false "The number of partitions is invalid.";
    InvalidReplicationFactor 38 false "The replication factor is below 1 or larger than the number of nodes.";
    InvalidReplicaAssignment 39 false "The replica assignment is invalid.";
    InvalidConfig 40 false "A configuration is invalid.";
    NotController 41 true "This is not the right controller.";
    InvalidRequest 42 false "The request is malformed or contradicts itself.";
    UnsupportedForMessageFormat 43 false "The records' format version is not supported.";
    PolicyViolation 44 false "The request violates a policy or limit.";
    OutOfOrderSequenceNumber 45 false "The producer's sequence number is out of order.";
    DuplicateSequenceNumber 46 false "The producer's sequence number was seen before.";
    InvalidProducerEpoch 47 false "The producer's epoch is old.";
    InvalidTxnState 48 false "The transaction is in another state.";
    InvalidProducerIdMapping 49 false "The producer id belongs to another transactional id.";
    TransactionalIdAuthorizationFailed 53 false "Not authorized to use this transactional id.";
    SecurityDisabled 54 false "Security features are switched off.";
    KafkaStorageError 56 true "The disk failed or the log is damaged.";
    SaslAuthenticationFailed 58 false "The authentication failed.";
    UnknownProducerId 59 false "The broker has no state of this producer.";
    NonEmptyGroup 68 false "The group has members.";
    GroupIdNotFound 69 false "There is no such group.";
    FetchSessionIdNotFound 70 true "There is no such fetch session.";
    InvalidFetchSessionEpoch 71 true "The fetch session's epoch is another one.";
    TopicDeletionDisabled 73 false "Topics may not be deleted.";
    FencedLeaderEpoch 74 true "The leader epoch is older than the server's.";
    UnknownLeaderEpoch 75 true "The leader epoch is newer than the server's.";
    UnsupportedCompressionType 76 false "The compression type is not supported in this version of the request.";
    StaleBrokerEpoch 77 false "The broker epoch is older than the controller's.";
    OffsetNotAvailable 78 true "The leader's high watermark has not caught up.";
    MemberIdRequired 79 false "The member joins again with the id it was given.";
    PreferredLeaderNotAvailable 80 true "The preferred leader is not available.";
    GroupMaxSizeReached 81 false "The group is full.";
    FencedInstanceId 82 false "Another member took over this static instance id.";
    EligibleLeadersNotAvailable 83 true "No eligible leader is available.";
    ElectionNotNeeded 84 true "The partition is led as it should be.";
    NoReassignmentInProgress 85 false "The partition does not move.";
    GroupSubscribedToTopic 86 false "Members of the group read this topic.";
    InvalidRecord 87 false "A record is invalid.";
    UnstableOffsetCommit 88 true "Some offsets are pending in a transaction.";
    ThrottlingQuotaExceeded 89 true "The quota is used up.";
    ProducerFenced 90 false "A newer producer took over.";
    ResourceNotFound 91 false "There is no such resource.";
    DuplicateResource 92 false "The request names the same resource twice.";
    UnacceptableCredential 93 false "The credential does not meet the requirements.";
    InvalidUpdateVersion 95 false "The version of the update is not valid.";
    FeatureUpdateFailed 96 false "The features cannot be updated now.";
    UnknownTopicId 100 true "This server does not host a topic of this id.";
    BrokerIdNotRegistered 102 false "There is no such node.";
    InconsistentClusterId 104 false "The node belongs to another cluster.";
    FetchSessionTopicIdError 106 true "The fetch session mixes topic names and topic ids.";
    IneligibleReplica 107 false "The replica is not eligible to be in sync.";
    StaleMemberEpoch 113 false "The member's epoch is old.";
    RebootstrapRequired 129 false "The client asks the wrong cluster or node; it must start again from its bootstrap servers.";
}

impl std::fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{self:?} ({}): {}", self.number(), self.message())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_round_trip_and_rise() {
        let numbers: Vec<i16> = ErrorCode::ALL.iter().map(|c| c.number()).collect();
        assert!(numbers.is_sorted(), "{numbers:?}");
        for code in ErrorCode::ALL {
            assert_eq!(ErrorCode::from_number(code.number()), *code);
        }
        assert_eq!(ErrorCode::from_number(9999), ErrorCode::UnknownServerError);
    }
}
