//! Who leads a partition now, told to a client that asked another node (KIP-951): it need not ask for metadata first.

use std::collections::BTreeMap;

use callboard_common::kafka::Text;
use callboard_common::kafka::messages::{fetch_response, produce_response};
use callboard_common::protocol::TopicRef;
use callboard_common::{BrokerId, ErrorCode};

use crate::api::{Advertised, LeaderHint};

/// Who leads a partition, if that is another node.
pub(in crate::net::kafka) type FindLeader<'a> = &'a dyn Fn(&TopicRef, i32) -> Option<LeaderHint>;

/// Leaders that one answer tells, and where they are.
pub(super) struct Hints<'a> {
    find: FindLeader<'a>,
    nodes: BTreeMap<BrokerId, Advertised>,
}

impl<'a> Hints<'a> {
    pub(super) fn new(find: FindLeader<'a>) -> Self {
        Self {
            find,
            nodes: BTreeMap::new(),
        }
    }

    /// Leader and epoch of a partition that was asked of the wrong node.
    fn of(&mut self, topic: &TopicRef, partition: i32, error: ErrorCode) -> Option<(i32, i32)> {
        let is_wrong = matches!(
            error,
            ErrorCode::NotLeaderOrFollower | ErrorCode::FencedLeaderEpoch
        );
        let hint = (self.find)(topic, partition).filter(|_| is_wrong)?;
        let _before = self.nodes.insert(hint.leader, hint.at);
        Some((hint.leader.0, hint.epoch.0))
    }

    fn nodes(self) -> impl Iterator<Item = (i32, Text, i32)> {
        let nodes = self.nodes.into_iter();
        nodes.map(|(id, at)| (id.0, at.host, at.port.into()))
    }

    pub(super) fn of_produce(
        &mut self,
        topic: &TopicRef,
        partition: i32,
        error: ErrorCode,
    ) -> produce_response::LeaderIdAndEpoch {
        let hint = self.of(topic, partition, error);
        hint.map_or_else(Default::default, |(leader_id, leader_epoch)| {
            produce_response::LeaderIdAndEpoch {
                leader_id,
                leader_epoch,
            }
        })
    }

    pub(super) fn of_fetch(
        &mut self,
        topic: &TopicRef,
        partition: i32,
        error: ErrorCode,
    ) -> fetch_response::LeaderIdAndEpoch {
        let hint = self.of(topic, partition, error);
        hint.map_or_else(Default::default, |(leader_id, leader_epoch)| {
            fetch_response::LeaderIdAndEpoch {
                leader_id,
                leader_epoch,
            }
        })
    }

    pub(super) fn produce_nodes(self) -> Vec<produce_response::NodeEndpoint> {
        let endpoint = |(node_id, host, port)| produce_response::NodeEndpoint {
            node_id,
            host,
            port,
            rack: None,
        };
        self.nodes().map(endpoint).collect()
    }

    pub(super) fn fetch_nodes(self) -> Vec<fetch_response::NodeEndpoint> {
        let endpoint = |(node_id, host, port)| fetch_response::NodeEndpoint {
            node_id,
            host,
            port,
            rack: None,
        };
        self.nodes().map(endpoint).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use callboard_common::LeaderEpoch;

    #[test]
    fn only_who_asked_the_wrong_node_is_told_where_to_go() {
        let find = |_: &TopicRef, partition: i32| {
            (partition == 1).then(|| LeaderHint {
                leader: BrokerId(3),
                epoch: LeaderEpoch(7),
                at: Advertised {
                    host: "three".into(),
                    port: 9092,
                },
            })
        };
        let topic = TopicRef::Name("t".into());
        let mut hints = Hints::new(&find);
        let unknown = hints.of_produce(&topic, 0, ErrorCode::NotLeaderOrFollower);
        assert_eq!(unknown.leader_id, -1);
        let fine = hints.of_produce(&topic, 1, ErrorCode::None);
        assert_eq!(fine.leader_id, -1);
        let wrong = hints.of_produce(&topic, 1, ErrorCode::NotLeaderOrFollower);
        assert_eq!((wrong.leader_id, wrong.leader_epoch), (3, 7));
        let nodes = hints.produce_nodes();
        assert_eq!(nodes.len(), 1);
        assert_eq!(
            (nodes[0].node_id, &*nodes[0].host, nodes[0].port),
            (3, "three", 9092)
        );
    }
}
