//! A connection's bytes: header, then the body of whatever request it names, in its version.

#![no_main]

use bytes::Bytes;
use callboard_common::kafka::header::RequestHeader;
use callboard_common::kafka::{ApiKey, Decoder, Message, messages as m};
use libfuzzer_sys::fuzz_target;

fn body<M: Message>(bytes: Bytes, version: i16) {
    drop(M::from_bytes(bytes, version));
}

fuzz_target!(|data: &[u8]| {
    let mut decoder = Decoder::new(Bytes::copy_from_slice(data));
    let Ok(header) = RequestHeader::decode(&mut decoder) else { return };
    let Some(key) = ApiKey::from_number(header.api_key) else { return };
    if !key.serves(header.api_version) {
        return;
    }
    let (bytes, version) = (decoder.into_rest(), header.api_version);
    match key {
        ApiKey::Produce => body::<m::ProduceRequest>(bytes, version),
        ApiKey::Fetch => body::<m::FetchRequest>(bytes, version),
        ApiKey::ListOffsets => body::<m::ListOffsetsRequest>(bytes, version),
        ApiKey::Metadata => body::<m::MetadataRequest>(bytes, version),
        ApiKey::OffsetCommit => body::<m::OffsetCommitRequest>(bytes, version),
        ApiKey::OffsetFetch => body::<m::OffsetFetchRequest>(bytes, version),
        ApiKey::FindCoordinator => body::<m::FindCoordinatorRequest>(bytes, version),
        ApiKey::JoinGroup => body::<m::JoinGroupRequest>(bytes, version),
        ApiKey::Heartbeat => body::<m::HeartbeatRequest>(bytes, version),
        ApiKey::LeaveGroup => body::<m::LeaveGroupRequest>(bytes, version),
        ApiKey::SyncGroup => body::<m::SyncGroupRequest>(bytes, version),
        ApiKey::ApiVersions => body::<m::ApiVersionsRequest>(bytes, version),
        ApiKey::CreateTopics => body::<m::CreateTopicsRequest>(bytes, version),
        ApiKey::DeleteTopics => body::<m::DeleteTopicsRequest>(bytes, version),
        ApiKey::InitProducerId => body::<m::InitProducerIdRequest>(bytes, version),
        ApiKey::DescribeGroups => body::<m::DescribeGroupsRequest>(bytes, version),
        ApiKey::ListGroups => body::<m::ListGroupsRequest>(bytes, version),
        ApiKey::SaslHandshake => body::<m::SaslHandshakeRequest>(bytes, version),
        ApiKey::SaslAuthenticate => body::<m::SaslAuthenticateRequest>(bytes, version),
        ApiKey::DeleteRecords => body::<m::DeleteRecordsRequest>(bytes, version),
        ApiKey::OffsetForLeaderEpoch => body::<m::OffsetForLeaderEpochRequest>(bytes, version),
        ApiKey::DescribeAcls => body::<m::DescribeAclsRequest>(bytes, version),
        ApiKey::CreateAcls => body::<m::CreateAclsRequest>(bytes, version),
        ApiKey::DeleteAcls => body::<m::DeleteAclsRequest>(bytes, version),
        ApiKey::DescribeConfigs => body::<m::DescribeConfigsRequest>(bytes, version),
        ApiKey::AlterConfigs => body::<m::AlterConfigsRequest>(bytes, version),
        ApiKey::CreatePartitions => body::<m::CreatePartitionsRequest>(bytes, version),
        ApiKey::DeleteGroups => body::<m::DeleteGroupsRequest>(bytes, version),
        ApiKey::IncrementalAlterConfigs => body::<m::IncrementalAlterConfigsRequest>(bytes, version),
        ApiKey::OffsetDelete => body::<m::OffsetDeleteRequest>(bytes, version),
        ApiKey::DescribeClientQuotas => body::<m::DescribeClientQuotasRequest>(bytes, version),
        ApiKey::AlterClientQuotas => body::<m::AlterClientQuotasRequest>(bytes, version),
        ApiKey::DescribeUserScramCredentials => body::<m::DescribeUserScramCredentialsRequest>(bytes, version),
        ApiKey::AlterUserScramCredentials => body::<m::AlterUserScramCredentialsRequest>(bytes, version),
        ApiKey::DescribeCluster => body::<m::DescribeClusterRequest>(bytes, version),
        ApiKey::DescribeTopicPartitions => body::<m::DescribeTopicPartitionsRequest>(bytes, version),
    }
});
