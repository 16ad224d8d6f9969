//! Where the actors are: partitions to leaders, offsets partitions to coordinators.
//!
//! Read without locks by every request; written by `replicas` and `coordinator` when roles start and stop.

use std::collections::BTreeMap;
use std::sync::Arc;

use actix::Addr;
use arc_swap::ArcSwap;
use callboard_common::{LeaderEpoch, TopicName, TopicPartition, Uuid};
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::coordinator::CoordinatorActor;
use crate::leader::{Ends, LeaderActor};

/// How to reach the leader of one partition.
#[derive(Clone, Debug)]
pub struct LeaderRef {
    /// The actor; the same address for all its lives.
    pub actor: Addr<LeaderActor>,
    /// Its ends, for who waits for more.
    pub ends: watch::Receiver<Ends>,
    /// The topic's identifier.
    pub topic_id: Uuid,
}

impl LeaderRef {
    /// The leader's reign; `None` while it has none.
    #[must_use]
    pub fn epoch(&self) -> Option<LeaderEpoch> {
        self.ends.borrow().epoch
    }
}

type Leaders = BTreeMap<TopicName, Arc<BTreeMap<i32, LeaderRef>>>;
type Coordinators = BTreeMap<i32, Addr<CoordinatorActor>>;

/// The directory of one node; clones share it.
#[derive(Clone, Debug)]
pub struct Directory {
    leaders: Arc<ArcSwap<Leaders>>,
    coordinators: Arc<ArcSwap<Coordinators>>,
    writing: Arc<Mutex<()>>,
    changes: watch::Sender<u64>,
}

impl Default for Directory {
    fn default() -> Self {
        Self {
            leaders: Arc::default(),
            coordinators: Arc::default(),
            writing: Arc::default(),
            changes: watch::Sender::new(0),
        }
    }
}

impl Directory {
    /// The leader of a partition, if it is here.
    #[must_use]
    pub fn leader(&self, partition: &TopicPartition) -> Option<LeaderRef> {
        self.leaders
            .load()
            .get(&partition.topic)?
            .get(&partition.partition)
            .cloned()
    }

    /// The leaders of a topic that are here, by partition.
    #[must_use]
    pub fn topic(&self, topic: &TopicName) -> Option<Arc<BTreeMap<i32, LeaderRef>>> {
        self.leaders.load().get(topic).cloned()
    }

    /// The coordinator of an offsets partition, if it is here.
    #[must_use]
    pub fn coordinator(&self, partition: i32) -> Option<Addr<CoordinatorActor>> {
        self.coordinators.load().get(&partition).cloned()
    }

    /// All coordinators that are here.
    #[must_use]
    pub fn coordinators(&self) -> Vec<Addr<CoordinatorActor>> {
        self.coordinators.load().values().cloned().collect()
    }

    /// Wakes when leaders or coordinators come or go.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Shows leaders that were started and hides those that were stopped. Whoever waits for a change is woken by each call,
    /// and each copies the maps of its topics: many at once cost little more than one.
    pub fn update_leaders(&self, changed: BTreeMap<TopicPartition, Option<LeaderRef>>) {
        if changed.is_empty() {
            return;
        }
        let _one_at_a_time = self.writing.lock();
        let mut leaders = Leaders::clone(&self.leaders.load());
        for (TopicPartition { topic, partition }, leader) in changed {
            let of_topic = Arc::make_mut(leaders.entry(topic.clone()).or_default());
            match leader {
                Some(leader) => drop(of_topic.insert(partition, leader)),
                None => drop(of_topic.remove(&partition)),
            }
            if of_topic.is_empty() {
                drop(leaders.remove(&topic));
            }
        }
        self.leaders.store(Arc::new(leaders));
        self.changes.send_modify(|version| *version += 1);
    }

    /// Shows a coordinator that was started, or hides one that was stopped.
    pub fn set_coordinator(&self, partition: i32, actor: Option<Addr<CoordinatorActor>>) {
        let _one_at_a_time = self.writing.lock();
        let mut coordinators = Coordinators::clone(&self.coordinators.load());
        match actor {
            Some(actor) => drop(coordinators.insert(partition, actor)),
            None => drop(coordinators.remove(&partition)),
        }
        self.coordinators.store(Arc::new(coordinators));
        self.changes.send_modify(|version| *version += 1);
    }
}
