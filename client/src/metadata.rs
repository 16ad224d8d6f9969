//! What the client knows of topics and leaders, and when it asks again.

use std::collections::BTreeMap;
use std::sync::Arc;

use callboard_common::protocol::metadata::{MetadataAnswer, TopicMetadata};
use callboard_common::{BrokerId, LeaderEpoch, Uuid};
use parking::Mutex;

/// Locks that are never held across a wait.
mod parking {
    /// A mutex whose poisoning does not matter: what it guards is replaced as a whole.
    #[derive(Debug, Default)]
    pub(super) struct Mutex<T>(std::sync::Mutex<T>);

    impl<T> Mutex<T> {
        pub(super) fn lock(&self) -> std::sync::MutexGuard<'_, T> {
            self.0
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner)
        }
    }
}

/// The reigns of a topic's partitions.
#[derive(Debug)]
struct Reigns {
    topic_id: Uuid,
    /// Epoch and leader, by partition.
    newest: Vec<(LeaderEpoch, Option<BrokerId>)>,
}

impl Reigns {
    /// Takes over what a node says of a topic, except of partitions of which a newer reign is known: a node that is cut
    /// off goes on believing what was (KIP-320). Answers who leads each.
    fn learn(&mut self, topic: &TopicMetadata) -> Vec<Option<BrokerId>> {
        if self.topic_id != topic.id {
            (self.topic_id, self.newest) = (topic.id, Vec::new());
        }
        let mut leaders = Vec::with_capacity(topic.partitions.len());
        for (number, told) in topic.partitions.iter().enumerate() {
            let told = (told.epoch, told.leader);
            match self.newest.get_mut(number) {
                Some(known) if known.0 > told.0 => {}
                Some(known) => *known = told,
                None => self.newest.push(told),
            }
            leaders.push(self.newest[number].1);
        }
        leaders
    }
}

#[derive(Debug, Default)]
struct Known {
    /// Leaders by topic and partition.
    topics: BTreeMap<String, Vec<Option<BrokerId>>>,
    /// The newest reigns by topic that anybody has told, also of what is asked for again.
    reigns: BTreeMap<String, Reigns>,
    /// Addresses by broker.
    brokers: BTreeMap<BrokerId, String>,
    /// Addresses by group.
    coordinators: BTreeMap<String, String>,
    /// Who answered last.
    preferred: Option<String>,
    /// Who did not answer since it last did, by when that was noticed.
    avoided: BTreeMap<String, u64>,
    failures: u64,
}

/// Leaders by partition; clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Metadata(Arc<Mutex<Known>>);

impl Metadata {
    /// How many partitions a topic has, if it is known.
    pub(crate) fn partitions(&self, topic: &str) -> Option<usize> {
        self.0.lock().topics.get(topic).map(Vec::len)
    }

    /// Address of a partition's leader, if it is known.
    pub(crate) fn leader(&self, topic: &str, partition: i32) -> Option<String> {
        let known = self.0.lock();
        let leader = known
            .topics
            .get(topic)?
            .get(usize::try_from(partition).ok()?)?
            .as_ref()?;
        known.brokers.get(leader).cloned()
    }

    /// Forgets a topic, so that it is asked for again.
    pub(crate) fn forget(&self, topic: &str) {
        drop(self.0.lock().topics.remove(topic));
    }

    /// Address of a node, if it is known.
    pub(crate) fn broker(&self, id: BrokerId) -> Option<String> {
        self.0.lock().brokers.get(&id).cloned()
    }

    /// Addresses of all nodes.
    pub(crate) fn brokers(&self) -> Vec<String> {
        self.0.lock().brokers.values().cloned().collect()
    }

    /// Address of a group's coordinator, if it is known.
    pub(crate) fn coordinator(&self, group: &str) -> Option<String> {
        self.0.lock().coordinators.get(group).cloned()
    }

    pub(crate) fn learn_coordinator(&self, group: &str, server: &str) {
        let mut known = self.0.lock();
        drop(
            known
                .coordinators
                .insert(group.to_owned(), server.to_owned()),
        );
    }

    pub(crate) fn forget_coordinator(&self, group: &str) {
        drop(self.0.lock().coordinators.remove(group));
    }

    /// Who is asked first.
    pub(crate) fn preferred(&self) -> Option<String> {
        self.0.lock().preferred.clone()
    }

    pub(crate) fn prefer(&self, server: String) {
        self.0.lock().preferred = Some(server);
    }

    /// Somebody else is asked first, until this one answers again.
    pub(crate) fn avoid(&self, server: &str) {
        let mut known = self.0.lock();
        if known.preferred.as_deref() == Some(server) {
            known.preferred = None;
        }
        known.failures += 1;
        let at = known.failures;
        let _before = known.avoided.insert(server.to_owned(), at);
    }

    /// It has answered.
    pub(crate) fn trust(&self, server: &str) {
        let _was = self.0.lock().avoided.remove(server);
    }

    /// The same addresses in the order in which they are asked: who failed last comes last.
    pub(crate) fn in_order(&self, mut servers: Vec<String>) -> Vec<String> {
        let known = self.0.lock();
        servers.sort_by_key(|s| known.avoided.get(s).copied());
        servers
    }

    /// Takes an answer over.
    pub(crate) fn learn(&self, answer: &MetadataAnswer) {
        let mut known = self.0.lock();
        // Who is not named is away; the addresses that the user gave remain.
        known.brokers.clear();
        for broker in &answer.brokers {
            drop(
                known
                    .brokers
                    .insert(broker.id, format!("{}:{}", broker.host, broker.port)),
            );
        }
        for topic in &answer.topics {
            let Some(name) = &topic.name else { continue };
            if topic.error == callboard_common::ErrorCode::None {
                let reigns = known.reigns.entry(name.to_string());
                let reigns = reigns.or_insert_with(|| Reigns {
                    topic_id: topic.id,
                    newest: Vec::new(),
                });
                let leaders = reigns.learn(topic);
                drop(known.topics.insert(name.to_string(), leaders));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use callboard_common::ErrorCode;
    use callboard_common::protocol::metadata::PartitionMetadata;

    fn told(id: u8, epoch: i32, leader: i32) -> TopicMetadata {
        let partition = PartitionMetadata {
            partition: 0,
            error: ErrorCode::None,
            leader: Some(BrokerId(leader)),
            epoch: LeaderEpoch(epoch),
            replicas: Vec::new(),
            isr: Vec::new(),
            eligible: Vec::new(),
        };
        TopicMetadata {
            error: ErrorCode::None,
            name: Some("orders".into()),
            id: Uuid([id; 16]),
            is_internal: false,
            partitions: vec![partition],
        }
    }

    /// KIP-320: a node that is cut off tells what was.
    #[test]
    fn kip_320_an_older_reign_is_not_believed() {
        let mut reigns = Reigns {
            topic_id: Uuid([1; 16]),
            newest: Vec::new(),
        };
        let leader = |of: Vec<Option<BrokerId>>| of[0].map(|b| b.0);
        assert_eq!(leader(reigns.learn(&told(1, 4, 2))), Some(2));
        assert_eq!(leader(reigns.learn(&told(1, 5, 3))), Some(3));
        assert_eq!(leader(reigns.learn(&told(1, 4, 2))), Some(3));
        assert_eq!(
            leader(reigns.learn(&told(2, 0, 1))),
            Some(1),
            "a topic that was created again"
        );
    }
}
