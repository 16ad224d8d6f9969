//! Elections, moves, the quorum, sizes of logs: ElectLeaders, AlterPartitionReassignments, ListPartitionReassignments,
//! DescribeQuorum, DescribeLogDirs and UnregisterBroker.

use callboard_common::kafka::Text;
use callboard_common::kafka::messages as m;
use callboard_common::protocol::cluster::{
    ChangeNode, ChangedNode, DescribeLogs, DescribeQuorum, DescribedLogs, DescribedQuorum,
    Destination, ElectLeaders, ElectedLeaders, ListReassignments, ListedReassignments, NodeChange,
    PartitionMove, QuorumMember, Reassign, Reassigned,
};
use callboard_common::protocol::{Response, TopicRef};
use callboard_common::{BrokerId, ErrorCode};

use super::{Answering, Converted, Message, expect};

/// Kafka's number of an election that may lose records.
const UNCLEAN: i8 = 1;
/// The metadata log, as Kafka calls it.
const CLUSTER_METADATA: &str = "__cluster_metadata";
/// The name of the listener between nodes.
const PEER_LISTENER: &str = "PEER";

fn ids(brokers: &[BrokerId]) -> Vec<i32> {
    brokers.iter().map(|b| b.0).collect()
}

/// What an error says, if it is one.
fn said(error: ErrorCode) -> Option<Text> {
    (error != ErrorCode::None).then(|| error.message().into())
}

/// Values that stand behind each other for the same topic go together.
fn by_topic<T>(values: impl IntoIterator<Item = (Text, T)>) -> Vec<(Text, Vec<T>)> {
    let mut topics: Vec<(Text, Vec<T>)> = Vec::new();
    for (topic, value) in values {
        match topics.last_mut().filter(|(last, _)| *last == topic) {
            Some((_, values)) => values.push(value),
            None => topics.push((topic, vec![value])),
        }
    }
    topics
}

pub(super) fn elect(request: m::ElectLeadersRequest) -> Converted {
    let named = request.topic_partitions;
    let elect = ElectLeaders {
        partitions: named.map(|t| t.into_iter().map(|t| (t.topic, t.partitions)).collect()),
        unclean: request.election_type == UNCLEAN,
    };
    Converted::Request(elect.into(), Answering::ElectLeaders)
}

pub(super) fn elected(response: Response) -> Message {
    use m::elect_leaders_response::{PartitionResult, ReplicaElectionResult};
    let (error, partitions) = match expect::<ElectedLeaders>(response) {
        Ok(elected) => (elected.error, elected.partitions),
        Err(error) => (error, Vec::new()),
    };
    let result = |(topic, partition_id, error): (Text, i32, ErrorCode)| {
        let (error_code, error_message) = (error.number(), said(error));
        let result = PartitionResult {
            partition_id,
            error_code,
            error_message,
        };
        (topic, result)
    };
    let topic = |(topic, partition_result)| ReplicaElectionResult {
        topic,
        partition_result,
    };
    let results = by_topic(partitions.into_iter().map(result));
    Box::new(m::ElectLeadersResponse {
        error_code: error.number(),
        replica_election_results: results.into_iter().map(topic).collect(),
        ..Default::default()
    })
}

pub(super) fn reassign(request: m::AlterPartitionReassignmentsRequest) -> Converted {
    let (mut partitions, mut asked) = (Vec::new(), Vec::new());
    for topic in request.topics {
        for partition in topic.partitions {
            let nodes = partition.replicas;
            let to = nodes.map_or(Destination::Back, |nodes| {
                Destination::Nodes(nodes.into_iter().map(BrokerId).collect())
            });
            let number = partition.partition_index;
            partitions.push((TopicRef::Name(topic.name.clone()), number, to));
            asked.push((topic.name.clone(), number));
        }
    }
    let reassign = Reassign {
        partitions,
        allow_factor_change: request.allow_replication_factor_change,
    };
    let allowed = request.allow_replication_factor_change;
    Converted::Request(reassign.into(), Answering::Reassign { asked, allowed })
}

pub(super) fn reassigned(response: Response, asked: Vec<(Text, i32)>, allowed: bool) -> Message {
    use m::alter_partition_reassignments_response::{
        ReassignablePartitionResponse, ReassignableTopicResponse,
    };
    let (error, partitions) = match expect::<Reassigned>(response) {
        Ok(reassigned) => (ErrorCode::None, reassigned.partitions),
        Err(error) => (error, Vec::new()),
    };
    let partition = |((topic, partition_index), (error, error_message)): (_, (ErrorCode, _))| {
        let error_code = error.number();
        let response = ReassignablePartitionResponse {
            partition_index,
            error_code,
            error_message,
        };
        (topic, response)
    };
    let topic = |(name, partitions)| ReassignableTopicResponse { name, partitions };
    let topics = by_topic(asked.into_iter().zip(partitions).map(partition));
    Box::new(m::AlterPartitionReassignmentsResponse {
        allow_replication_factor_change: allowed,
        error_code: error.number(),
        error_message: said(error),
        responses: topics.into_iter().map(topic).collect(),
        ..Default::default()
    })
}

pub(super) fn list_moves(request: m::ListPartitionReassignmentsRequest) -> Converted {
    let topic = |t: m::list_partition_reassignments_request::ListPartitionReassignmentsTopics| {
        (t.name, t.partition_indexes)
    };
    let partitions = request.topics.map(|t| t.into_iter().map(topic).collect());
    Converted::Request(
        ListReassignments { partitions }.into(),
        Answering::ListReassignments,
    )
}

pub(super) fn listed_moves(response: Response) -> Message {
    use m::list_partition_reassignments_response::{
        OngoingPartitionReassignment, OngoingTopicReassignment,
    };
    let (error, moves) = match expect::<ListedReassignments>(response) {
        Ok(listed) => (listed.error, listed.moves),
        Err(error) => (error, Vec::new()),
    };
    let partition = |of: PartitionMove| {
        let ongoing = OngoingPartitionReassignment {
            partition_index: of.partition,
            replicas: ids(&of.replicas),
            adding_replicas: ids(&of.adding),
            removing_replicas: ids(&of.removing),
        };
        (of.topic, ongoing)
    };
    let topic = |(name, partitions)| OngoingTopicReassignment { name, partitions };
    let topics = by_topic(moves.into_iter().map(partition));
    Box::new(m::ListPartitionReassignmentsResponse {
        error_code: error.number(),
        error_message: said(error),
        topics: topics.into_iter().map(topic).collect(),
        ..Default::default()
    })
}

pub(super) fn quorum(request: m::DescribeQuorumRequest) -> Converted {
    let topic = |t: m::describe_quorum_request::QuorumTopic| {
        let numbers = t.partitions.into_iter().map(|p| p.partition_index);
        (t.topic_name, numbers.collect())
    };
    let asked = request.topics.into_iter().map(topic).collect();
    Converted::Request(DescribeQuorum.into(), Answering::DescribeQuorum(asked))
}

pub(super) fn described_quorum(response: Response, asked: Vec<(Text, Vec<i32>)>) -> Message {
    use m::describe_quorum_response::{
        QuorumListener, QuorumNode, QuorumPartitionData, QuorumTopicData,
    };
    let described = expect::<DescribedQuorum>(response);
    let error = described.as_ref().map_or_else(|e| *e, |d| d.error);
    let partition = |name: &Text, partition_index: i32| {
        let found = described.as_ref().ok();
        let found = found.filter(|_| **name == *CLUSTER_METADATA && partition_index == 0);
        let Some(quorum) = found.filter(|_| error == ErrorCode::None) else {
            let error = if error == ErrorCode::None {
                ErrorCode::UnknownTopicOrPartition
            } else {
                error
            };
            return QuorumPartitionData {
                partition_index,
                error_code: error.number(),
                error_message: said(error),
                leader_id: -1,
                ..Default::default()
            };
        };
        let (voters, observers) = quorum.members.iter().partition::<Vec<_>, _>(|m| m.votes);
        let states = |members: Vec<&QuorumMember>| {
            let state = |member: &&QuorumMember| replica_state(member, quorum);
            members.iter().map(state).collect()
        };
        QuorumPartitionData {
            partition_index,
            leader_id: quorum.leader.map_or(-1, |l| l.0),
            leader_epoch: i32::try_from(quorum.term).unwrap_or(i32::MAX),
            high_watermark: offset(quorum.committed),
            current_voters: states(voters),
            observers: states(observers),
            ..Default::default()
        }
    };
    let topic = |(topic_name, numbers): (Text, Vec<i32>)| QuorumTopicData {
        partitions: numbers.iter().map(|n| partition(&topic_name, *n)).collect(),
        topic_name,
    };
    let node = |member: &QuorumMember| {
        let (host, port) = member.peer.rsplit_once(':').unwrap_or((&member.peer, "0"));
        let listener = QuorumListener {
            name: Text::from_static(PEER_LISTENER),
            host: host.into(),
            port: port.parse().unwrap_or(0),
        };
        QuorumNode {
            node_id: member.broker.0,
            listeners: vec![listener],
        }
    };
    let members = described.as_ref().map_or(&[][..], |d| &d.members);
    Box::new(m::DescribeQuorumResponse {
        error_code: error.number(),
        error_message: said(error),
        topics: asked.into_iter().map(topic).collect(),
        nodes: members.iter().map(node).collect(),
    })
}

fn offset(index: u64) -> i64 {
    i64::try_from(index).unwrap_or(i64::MAX)
}

fn replica_state(
    member: &QuorumMember,
    quorum: &DescribedQuorum,
) -> m::describe_quorum_response::ReplicaState {
    let heard = member.silent_ms.and_then(|ms| i64::try_from(ms).ok());
    let heard = heard.map_or(-1, |ms| quorum.told_at_ms - ms);
    let has_all = member.matched.is_some_and(|m| m >= quorum.committed);
    m::describe_quorum_response::ReplicaState {
        replica_id: member.broker.0,
        replica_directory_id: member.directory,
        log_end_offset: member.matched.map_or(-1, offset),
        last_fetch_timestamp: heard,
        last_caught_up_timestamp: if has_all { heard } else { -1 },
    }
}

pub(super) fn logs(request: m::DescribeLogDirsRequest) -> Converted {
    let named = request.topics;
    let partitions = named.map(|t| t.into_iter().map(|t| (t.topic, t.partitions)).collect());
    Converted::Request(DescribeLogs { partitions }.into(), Answering::DescribeLogs)
}

pub(super) fn described_logs(response: Response) -> Message {
    use m::describe_log_dirs_response::{
        DescribeLogDirsPartition, DescribeLogDirsResult, DescribeLogDirsTopic,
    };
    let described = match expect::<DescribedLogs>(response) {
        Ok(described) => described,
        Err(error) => {
            return Box::new(m::DescribeLogDirsResponse {
                error_code: error.number(),
                ..Default::default()
            });
        }
    };
    let partition = |(topic, partition_index, bytes): (Text, i32, u64)| {
        let partition = DescribeLogDirsPartition {
            partition_index,
            partition_size: offset(bytes),
            ..Default::default()
        };
        (topic, partition)
    };
    let topic = |(name, partitions)| DescribeLogDirsTopic { name, partitions };
    let topics = by_topic(described.logs.into_iter().map(partition));
    let result = DescribeLogDirsResult {
        log_dir: described.directory,
        topics: topics.into_iter().map(topic).collect(),
        ..Default::default()
    };
    Box::new(m::DescribeLogDirsResponse {
        error_code: described.error.number(),
        results: vec![result],
        ..Default::default()
    })
}

pub(super) fn unregister(request: m::UnregisterBrokerRequest) -> Converted {
    let change = ChangeNode {
        broker: BrokerId(request.broker_id),
        change: NodeChange::Remove,
    };
    Converted::Request(change.into(), Answering::UnregisterBroker)
}

pub(super) fn unregistered(response: Response) -> Message {
    let (error, message) = match expect::<ChangedNode>(response) {
        Ok(changed) => (changed.error, changed.message),
        Err(error) => (error, said(error)),
    };
    Box::new(m::UnregisterBrokerResponse {
        error_code: error.number(),
        error_message: message,
        ..Default::default()
    })
}
