//! What the client knows of topics and leaders, and when it asks again.

use std::collections::BTreeMap;
use std::sync::Arc;

use callboard_common::BrokerId;
use callboard_common::protocol::metadata::MetadataAnswer;
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

#[derive(Debug, Default)]
struct Known {
    /// Leaders by topic and partition.
    topics: BTreeMap<String, Vec<Option<BrokerId>>>,
    /// Addresses by broker.
    brokers: BTreeMap<BrokerId, String>,
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

    /// Takes an answer over.
    pub(crate) fn learn(&self, answer: &MetadataAnswer) {
        let mut known = self.0.lock();
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
                let leaders = topic.partitions.iter().map(|p| p.leader).collect();
                drop(known.topics.insert(name.to_string(), leaders));
            }
        }
    }
}
