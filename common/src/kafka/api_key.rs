//! The requests that the Kafka door serves, and their versions.

use super::Message;
use super::messages as m;
use bytes::Bytes;

macro_rules! api_keys {
    ($($name:ident $request:ident $max:expr, $advertised_min:expr;)*) => {
        /// A request that is served; everything else is refused.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[expect(missing_docs, reason = "named as in Kafka's protocol guide")]
        pub enum ApiKey { $($name),* }

        impl ApiKey {
            /// Every served request, by number.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// The request with this number, if it is served.
            #[must_use]
            pub fn from_number(number: i16) -> Option<Self> {
                $(if number == m::$request::KEY { return Some(Self::$name); })*
                None
            }

            /// Kafka's number.
            #[must_use]
            pub fn number(self) -> i16 {
                match self { $(Self::$name => m::$request::KEY),* }
            }

            /// First version with tagged fields.
            #[must_use]
            pub fn flexible_from(self) -> i16 {
                match self { $(Self::$name => m::$request::FLEXIBLE_FROM),* }
            }

            /// Whether requests of this version are accepted.
            #[must_use]
            pub fn serves(self, version: i16) -> bool {
                match self { $(Self::$name => *m::$request::VALID.start() <= version && version <= $max),* }
            }

            /// Whether `bytes` are the whole body of such a request in this version.
            #[must_use]
            pub fn reads(self, bytes: Bytes, version: i16) -> bool {
                match self { $(Self::$name => m::$request::from_bytes(bytes, version).is_ok()),* }
            }

            /// The range that ApiVersions tells clients.
            #[must_use]
            pub fn advertised(self) -> (i16, i16) {
                match self { $(Self::$name => ($advertised_min.unwrap_or(*m::$request::VALID.start()), $max)),* }
            }
        }
    };
}

api_keys! {
    // librdkafka turns features off unless Produce is advertised from 0 (KAFKA-18659), though 3 is the least accepted.
    Produce ProduceRequest 13, Some(0);
    Fetch FetchRequest 18, None;
    ListOffsets ListOffsetsRequest 11, None;
    Metadata MetadataRequest 13, None;
    OffsetCommit OffsetCommitRequest 10, None;
    OffsetFetch OffsetFetchRequest 10, None;
    FindCoordinator FindCoordinatorRequest 6, None;
    JoinGroup JoinGroupRequest 9, None;
    Heartbeat HeartbeatRequest 4, None;
    LeaveGroup LeaveGroupRequest 5, None;
    SyncGroup SyncGroupRequest 5, None;
    DescribeGroups DescribeGroupsRequest 6, None;
    ListGroups ListGroupsRequest 5, None;
    SaslHandshake SaslHandshakeRequest 1, None;
    ApiVersions ApiVersionsRequest 5, None;
    CreateTopics CreateTopicsRequest 7, None;
    DeleteTopics DeleteTopicsRequest 6, None;
    DeleteRecords DeleteRecordsRequest 2, None;
    // Version 6 is unstable in Kafka 4.4 (two-phase commit, KIP-939).
    InitProducerId InitProducerIdRequest 5, None;
    OffsetForLeaderEpoch OffsetForLeaderEpochRequest 4, None;
    DescribeAcls DescribeAclsRequest 3, None;
    CreateAcls CreateAclsRequest 3, None;
    DeleteAcls DeleteAclsRequest 3, None;
    DescribeConfigs DescribeConfigsRequest 4, None;
    AlterConfigs AlterConfigsRequest 2, None;
    DescribeLogDirs DescribeLogDirsRequest 4, None;
    SaslAuthenticate SaslAuthenticateRequest 2, None;
    CreatePartitions CreatePartitionsRequest 3, None;
    DeleteGroups DeleteGroupsRequest 3, None;
    ElectLeaders ElectLeadersRequest 2, None;
    IncrementalAlterConfigs IncrementalAlterConfigsRequest 1, None;
    AlterPartitionReassignments AlterPartitionReassignmentsRequest 1, None;
    ListPartitionReassignments ListPartitionReassignmentsRequest 0, None;
    OffsetDelete OffsetDeleteRequest 0, None;
    DescribeClientQuotas DescribeClientQuotasRequest 1, None;
    AlterClientQuotas AlterClientQuotasRequest 1, None;
    DescribeUserScramCredentials DescribeUserScramCredentialsRequest 0, None;
    AlterUserScramCredentials AlterUserScramCredentialsRequest 0, None;
    DescribeQuorum DescribeQuorumRequest 2, None;
    UpdateFeatures UpdateFeaturesRequest 2, None;
    DescribeCluster DescribeClusterRequest 2, None;
    UnregisterBroker UnregisterBrokerRequest 0, None;
    DescribeTopicPartitions DescribeTopicPartitionsRequest 0, None;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_kafkas_and_every_range_is_whole() {
        for key in ApiKey::ALL {
            assert_eq!(ApiKey::from_number(key.number()), Some(*key));
            let (_, max) = key.advertised();
            assert!(key.serves(max) && !key.serves(max + 1) && !key.serves(-1));
        }
        assert_eq!(ApiKey::Produce.advertised(), (0, 13));
        assert!(!ApiKey::Produce.serves(2));
        let empty = m::ListGroupsRequest::default()
            .to_bytes(0)
            .expect("it fits");
        assert!(ApiKey::ListGroups.reads(empty.clone(), 0) && !ApiKey::Fetch.reads(empty, 4));
    }
}
