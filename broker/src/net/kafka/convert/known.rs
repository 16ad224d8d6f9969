//! What an answer tells beyond what was asked of the node: where leaders are, where nodes stand, what the asker may do.

use callboard_common::BrokerId;
use callboard_common::kafka::Text;
use callboard_common::protocol::TopicRef;

use crate::api::{LeaderHint, Resource};

/// Kafka's number where it was not asked what the client may do.
const NOT_ASKED: i32 = i32::MIN;

/// See the module.
pub(in crate::net::kafka) trait Known {
    /// Who leads a partition, if that is another node.
    fn leader(&self, topic: &TopicRef, partition: i32) -> Option<LeaderHint>;
    /// Where a node stands.
    fn rack(&self, broker: BrokerId) -> Option<Text>;
    /// What the client may do to something: a bit for each of Kafka's numbers of operations (KIP-430).
    fn rights(&self, resource: Resource<'_>) -> i32;
}

impl dyn Known + '_ {
    /// What the client may do to something, if it wants to know and there is such a thing.
    pub(super) fn rights_if_asked(&self, asked: bool, resource: Option<Resource<'_>>) -> i32 {
        let resource = resource.filter(|_| asked);
        resource.map_or(NOT_ASKED, |resource| self.rights(resource))
    }
}
