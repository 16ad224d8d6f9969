//! Nodes, the quorum of the metadata, moves and elections.

use callboard_common::kafka::Text;
use callboard_common::protocol::TopicRef;
use callboard_common::protocol::cluster::{
    ChangeNode, ChangedNode, DescribeCluster, DescribeFeatures, DescribeLogs, DescribeQuorum,
    DescribedCluster, DescribedFeatures, DescribedLogs, DescribedQuorum, Destination, ElectLeaders,
    ElectedLeaders, ListReassignments, ListedReassignments, NodeChange, PartitionMove, Reassign,
    Reassigned, UpdateFeatures, UpdatedFeatures,
};
use callboard_common::{BrokerId, ErrorCode, FeatureLevel, TopicPartition};

use super::{Admin, refused};
use crate::connection::Lane;
use crate::error::{Error, check};

/// Partitions by topic, as requests name them.
fn by_topic(partitions: &[TopicPartition]) -> Vec<(Text, Vec<i32>)> {
    let one = |p: &TopicPartition| (p.topic.as_str().into(), vec![p.partition]);
    partitions.iter().map(one).collect()
}

impl Admin {
    /// The nodes, and how the cluster is.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`].
    ///
    /// ```
    /// # use callboard_broker::Node;
    /// # use callboard_client::{Client, ClientConfig, Trust};
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let node = Node::builder().in_memory().start().await?;
    /// # let client = Client::connect(ClientConfig::new(node.quic(), Trust::Ca(node.ca_pem().into()))).await?;
    /// let cluster = client.admin().describe_cluster().await?;
    /// assert_eq!(cluster.nodes.len(), 1);
    /// assert_eq!(cluster.partitions.without_leader, 0);
    /// # Ok(()) }
    /// ```
    pub async fn describe_cluster(&self) -> Result<DescribedCluster, Error> {
        let accept = |described: DescribedCluster| check(described.error).map(|()| described);
        self.client
            .ask_patiently(Lane::Control, DescribeCluster, accept)
            .await
    }

    /// Who follows and votes on the metadata, and how far each is.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`], with `LeaderNotAvailable` if there is no quorum.
    pub async fn describe_quorum(&self) -> Result<DescribedQuorum, Error> {
        let accept = |described: DescribedQuorum| check(described.error).map(|()| described);
        self.client
            .ask_patiently(Lane::Control, DescribeQuorum, accept)
            .await
    }

    /// Changes what part a node has in the cluster.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`], with why it cannot be done. What may pass, like another change that is under way, was waited
    /// for.
    pub async fn change_node(&self, broker: BrokerId, change: NodeChange) -> Result<(), Error> {
        let request = ChangeNode { broker, change };
        let accept = |changed: ChangedNode| refused(changed.error, changed.message);
        self.client
            .ask_patiently(Lane::Control, request, accept)
            .await
    }

    /// Moves partitions to other nodes; answers when the moves have begun, per partition in order. What was refused has
    /// not changed.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] if all of it was refused.
    pub async fn reassign(
        &self,
        moves: Vec<(TopicPartition, Destination)>,
    ) -> Result<Vec<Result<(), Error>>, Error> {
        let named = moves.into_iter().map(|(p, to)| {
            let topic = TopicRef::Name(p.topic.as_str().into());
            (topic, p.partition, to)
        });
        let request = Reassign {
            partitions: named.collect(),
            allow_factor_change: true,
        };
        let accept = |reassigned: Reassigned| {
            let result = |(error, detail): (ErrorCode, Option<Text>)| refused(error, detail);
            Ok(reassigned.partitions.into_iter().map(result).collect())
        };
        self.client
            .ask_patiently(Lane::Control, request, accept)
            .await
    }

    /// Partitions that move, by topic and number.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`].
    pub async fn list_reassignments(&self) -> Result<Vec<PartitionMove>, Error> {
        let request = ListReassignments { partitions: None };
        let accept = |listed: ListedReassignments| check(listed.error).map(|()| listed.moves);
        self.client
            .ask_patiently(Lane::Control, request, accept)
            .await
    }

    /// Lets preferred replicas lead, or with `unclean` any that is alive where nobody else can: acknowledged records
    /// may be lost by that. All partitions if none are named; of those, the ones that needed it are told.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] if all of it was refused.
    pub async fn elect_leaders(
        &self,
        partitions: Option<&[TopicPartition]>,
        unclean: bool,
    ) -> Result<Vec<(Text, i32, ErrorCode)>, Error> {
        let request = ElectLeaders {
            partitions: partitions.map(by_topic),
            unclean,
        };
        let accept = |elected: ElectedLeaders| check(elected.error).map(|()| elected.partitions);
        self.client
            .ask_patiently(Lane::Control, request, accept)
            .await
    }

    /// The feature level of the cluster and what its nodes speak (KIP-584). Every node is asked for up to two seconds.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`].
    pub async fn describe_features(&self) -> Result<DescribedFeatures, Error> {
        let accept = |described: DescribedFeatures| check(described.error).map(|()| described);
        self.client
            .ask_patiently(Lane::Control, DescribeFeatures, accept)
            .await
    }

    /// Raises the feature level of the cluster to `level`, or to the highest that all nodes speak; the level that it is at then.
    /// It never goes back. With `validate_only` nothing is changed.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] with `FeatureUpdateFailed` if a node does not speak it or does not answer, if the level is lower than the
    /// one that is, or if a node started meanwhile: nothing has changed then.
    pub async fn update_features(
        &self,
        level: Option<FeatureLevel>,
        validate_only: bool,
    ) -> Result<FeatureLevel, Error> {
        let request = UpdateFeatures {
            level,
            validate_only,
        };
        let accept = |updated: UpdatedFeatures| {
            refused(updated.error, updated.message).map(|()| updated.level)
        };
        self.client
            .ask_patiently(Lane::Control, request, accept)
            .await
    }

    /// How many bytes of logs each node keeps that is alive, by partition.
    ///
    /// # Errors
    ///
    /// [`Error`] of the first node that does not tell.
    pub async fn describe_logs(&self) -> Result<Vec<(BrokerId, DescribedLogs)>, Error> {
        let request = DescribeLogs { partitions: None };
        let described = self.ask_all(request).await?;
        described.iter().try_for_each(|(_, d)| check(d.error))?;
        Ok(described)
    }
}
